"""Any estimator of ours as an expert."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mien.data.pictures import resize
from mien.errors import MienError
from mien.experts.base import Answers
from mien.models.checkpoint import load_estimator


class Ours:
    """A run, a checkpoint or a shipped model that tells ages; surer the narrower its distribution over ages is.

    Raises:
        MienError: there is no such model, or it does not tell ages.
    """

    def __init__(self, model: str | Path, name: str | None = None, device: str = "cpu") -> None:
        self.estimator = load_estimator(model, device)
        self.device = device
        self.name = name or self.estimator.name
        self.terms = str(self.estimator.card.get("terms", "those of the data it learnt from"))
        if "age" not in self.estimator.tasks:
            raise MienError(f"expert {self.name}: the model {model} does not tell ages; name one that has the task age")

    def ask(self, images: Sequence[np.ndarray]) -> Answers:
        """See `Expert.ask`; the pictures are crops of the kind that the model learnt from."""
        size = self.estimator.input_size
        batch = torch.from_numpy(np.stack([resize(image, size) for image in images])).to(self.device)
        said = self.estimator.predict(batch)
        spread = said.get("age_std")
        std = np.full(len(images), np.nan) if spread is None else spread.astype(np.float64)
        return Answers(said["age"].astype(np.float64), -std, std**2)
