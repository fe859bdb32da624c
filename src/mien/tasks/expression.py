"""The expression task: eight classes, from one label a face or from the votes of many raters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mien.faces import EXPRESSIONS
from mien.metrics.raters import expression_labels
from mien.tasks.categorical import CategoricalSettings, CategoricalTask


class ExpressionSettings(CategoricalSettings):
    """Expression: raters disagree, so no label is believed wholly."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="share of the label spread over all classes")
    soft: bool = Field(default=True, description="votes teach their shares; false: the expression with most of them")


class ExpressionTask(CategoricalTask):
    """Cross-entropy over the eight expressions.

    Labels are soft, (N, 8), where any face of the manifest has votes: their shares (`expression_labels`), or 1 for
    the one word of a face without votes. Without any votes, or with `soft` off, they are hard.
    """

    def __init__(self, name: str, settings: ExpressionSettings, features: int, given: int = 0) -> None:
        """`features` is the length of the backbone's vector, `given` that of the parents' probabilities."""
        super().__init__(name, EXPRESSIONS, settings, features, given)
        self.columns = ("expression", "expression_votes")  # type: ignore[misc]  # its parent's is its name alone
        self.soft = settings.soft

    def encode(self, columns: Mapping[str, np.ndarray]) -> Tensor:
        codes, votes = columns["expression"], columns["expression_votes"]
        voted = ~np.isnan(votes).all(axis=1)
        if not (self.soft and voted.any()):
            return torch.as_tensor(codes, dtype=torch.int64)
        labels = expression_labels(votes)
        named = ~voted & (codes >= 0)
        labels[named] = np.eye(len(EXPRESSIONS), dtype=np.float32)[codes[named]]
        return torch.as_tensor(labels)
