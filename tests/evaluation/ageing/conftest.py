"""Judges whose answers can be computed by hand, and faces they look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mien.data.manifest import Manifest
from mien.evaluation.ageing.judges import IdentityJudge, Judges
from mien.faces import Crop
from mien.models.renderer import as_float


class RedAge:
    """Age is the mean of red in percent; who is bluer than 0.4 is female. Counts the pictures it is shown."""

    name, hash = "red", "red-1"

    def __init__(self) -> None:
        self.seen = 0

    def ask(self, images: Tensor) -> dict[str, np.ndarray]:
        assert images.dtype == torch.uint8
        self.seen += len(images)
        red, _, blue = as_float(images).double().mean(dim=(2, 3)).unbind(1)
        return {"age": 100 * red.numpy(), "gender": np.where(blue > 0.4, "Female", "Male").astype(object)}

    def check(self, manifest: Manifest) -> None:
        assert manifest.crop.template == "chip"


def small(images: Tensor) -> np.ndarray:
    """Pictures (B, 3, S, S) as 6 x 6 of them less their mean, (B, 108), of length 1."""
    flat = nn.functional.adaptive_avg_pool2d(as_float(images), 6).flatten(1)
    found: np.ndarray = nn.functional.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1).numpy()
    return found


class Coarse:
    """Identity is how a picture looks from afar."""

    name, hash, perceptual, crop = "coarse", "coarse-1", None, None
    check = IdentityJudge.check

    def embed(self, images: Tensor) -> np.ndarray:
        return small(images)


class Redder(nn.Module):
    """Makes the picture's mean red what the judge takes for the age asked for, and shifts what else it is told to."""

    name, crop, ages, input_size = "redder", Crop("chip"), (0.0, 100.0), 32

    def __init__(self, off: float = 0.0, blue: float = 0.0) -> None:
        super().__init__()
        self.card: dict[str, Any] = {}
        self.rendered = 0
        self.register_buffer("by", torch.tensor([off / 100, 0.0, blue]))

    def render(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Tensor:
        self.rendered += ages.numel()
        pictures = as_float(images)[:, None].repeat(1, ages.shape[1], 1, 1, 1) * 0.5
        red = pictures[:, :, 0]
        red += (ages / 100 - red.mean(dim=(2, 3)))[..., None, None]
        return (pictures + self.by.view(3, 1, 1)).clamp(0, 1)


@pytest.fixture
def judges() -> Judges:
    return Judges(RedAge(), Coarse())  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def manifest(drawn: Path) -> Manifest:
    return Manifest.open(drawn)
