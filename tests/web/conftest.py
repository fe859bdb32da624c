"""Models that can be computed by hand, and a detector that knows where the faces are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mien.data.align import TEMPLATES
from mien.data.detect import Detection
from mien.faces import VOCABULARIES, Crop
from mien.jobs.predict import Model
from mien.models.renderer import as_float
from mien.web.answers import Service

CARD = {"terms": "Research only, as drawn.", "data": "12 drawings", "figures": {"age MAE": "4.20"}}


class Brightness(nn.Module):
    """Age is the brightness in percent, give or take a tenth of itself; the classes are the first ones, at 3 : 1."""

    def __init__(self, name: str = "brightness", tasks: tuple[str, ...] = ("age", "gender", "race")) -> None:
        super().__init__()
        self.tasks = nn.ModuleDict({task: nn.Identity() for task in tasks})
        self.states: dict[str, Any] = {"age": {"conformal": {}}}
        self.crop, self.input_size, self.name, self.card = Crop("chip"), 32, name, CARD
        self.branch = None
        self.settings: dict[str, Any] = {}

    def predict(self, images: Tensor) -> dict[str, np.ndarray]:
        age = images.float().mean(dim=(1, 2, 3)).numpy() / 2.55
        columns: dict[str, np.ndarray] = {"age": age, "age_low": age * 0.9, "age_high": age * 1.1}
        for task in ("gender", "race", "expression"):
            first, second, *others = VOCABULARIES[task]
            columns |= {task: np.full(len(age), first), f"{task}_p": np.full(len(age), 0.75)}
            columns |= {f"{task}_{first}": np.full(len(age), 0.75), f"{task}_{second}": np.full(len(age), 0.25)}
            columns |= {f"{task}_{name}": np.zeros(len(age)) for name in others}
        columns |= {"valence": np.full(len(age), -0.5), "arousal": np.full(len(age), 0.25)}
        return {name: values for name, values in columns.items() if name.split("_")[0] in self.tasks}


class Tint(nn.Module):
    """A renderer that adds a hundredth of red a year."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(0.01))
        self.name, self.crop, self.ages, self.card = "tint", Crop("chip"), (0.0, 90.0), CARD
        self.input_size = 32

    def render(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Tensor:
        red = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
        return (as_float(images)[:, None] + self.strength * ages[..., None, None, None] * red).clamp(0, 1)


class Fixed:
    """A detector that knows where the faces are: (left, top, side) of each."""

    name = "fixed"

    def __init__(self, *boxes: tuple[float, float, float], points: bool = True) -> None:
        self.boxes, self.points = boxes, points

    def detect(self, image: np.ndarray) -> list[Detection]:
        return [
            Detection(
                np.array([left, top, left + side, top + side], dtype=np.float64),
                0.9,
                [left, top] + TEMPLATES["chip"] * side - 0.5 if self.points else None,
            )
            for left, top, side in self.boxes
        ]


@pytest.fixture(scope="session")
def service() -> Callable[..., Service]:
    """A service whose faces are where it is told."""

    def make(*boxes: tuple[float, float, float], points: bool = True) -> Service:
        told = Brightness("feelings", ("expression", "valence", "arousal"))
        model = Model(Brightness(), beside=[told])  # type: ignore[arg-type, list-item]
        return Service(model, Tint(), Fixed(*boxes, points=points), None)

    return make


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """(3, 80, 160): 40 % bright in its left half, 80 % in its right one."""
    image = np.full((3, 80, 160), 102, dtype=np.uint8)
    image[:, :, 80:] = 204
    return image
