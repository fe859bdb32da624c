"""A model that can be computed by hand, for everything that asks one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mien.faces import Crop
from mien.jobs.predict import Model


class BrightnessModel(nn.Module):
    """Age is the mean of the red channel in percent, give or take as many tenths; blue makes it female."""

    def __init__(self, intervals: bool = True) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(100 / 255))
        self.tasks = nn.ModuleDict({"gender": nn.Identity(), "age": nn.Identity()})
        self.states: dict[str, Any] = {"age": {"conformal": {}}} if intervals else {}
        self.crop = Crop("chip")
        self.branch = None
        self.settings: dict[str, Any] = {}
        self.input_size = 32
        self.name = "brightness"
        self.batches: list[int] = []

    def predict(self, images: Tensor) -> dict[str, np.ndarray]:
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 32, 32)
        self.batches.append(len(images))
        red, _, blue = images.float().mean(dim=(2, 3)).unbind(1)
        age = (red * self.scale.detach()).numpy()
        female = (blue / 255).numpy()
        half = age / 10 if self.states else np.full_like(age, np.nan)
        return {
            "age": age,
            "age_low": age - half,
            "age_high": age + half,
            "gender": np.where(female > 0.5, "Female", "Male"),
            "gender_p": np.maximum(female, 1 - female),
            "gender_Male": 1 - female,
            "gender_Female": female,
        }


@pytest.fixture
def model() -> Model:
    return Model(BrightnessModel())  # type: ignore[arg-type]


def plain(red: int, blue: int = 0, size: tuple[int, int] = (40, 40)) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", size, (red, 0, blue))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine crops, 0.png to 8.png, whose ages are 10 times their number; some in folders below."""
    for number in range(9):
        place = tmp_path / "crops" / ("deep/er" if number % 3 == 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        plain(round(number * 25.5)).save(place / f"{number}.png")
    return tmp_path / "crops"
