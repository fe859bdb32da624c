"""What the whole package speaks of: vocabularies, a face, a batch of faces, the crop they are in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.errors import MienError

if TYPE_CHECKING:
    import torch

GENDERS = ("Male", "Female")
RACES = ("White", "Black", "Asian", "Indian", "Others")
RACES7 = ("White", "Black", "East Asian", "Southeast Asian", "Indian", "Middle Eastern", "Latino_Hispanic")
#: FairFace's seven races in UTKFace's five, by UTKFace's own definition of Others ("like Hispanic, Latino,
#: Middle Eastern").
RACE_OF_RACE7 = {
    "White": "White",
    "Black": "Black",
    "East Asian": "Asian",
    "Southeast Asian": "Asian",
    "Indian": "Indian",
    "Middle Eastern": "Others",
    "Latino_Hispanic": "Others",
}
#: In AffectNet's order.
EXPRESSIONS = ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger", "Contempt")
#: What each of the ten numbers of `expression_votes` counts the votes for.
VOTES = (*EXPRESSIONS, "unknown", "no face")
#: Manifest columns that hold one name of a closed vocabulary.
VOCABULARIES: dict[str, tuple[str, ...]] = {
    "gender": GENDERS,
    "race": RACES,
    "race7": RACES7,
    "expression": EXPRESSIONS,
}
#: Manifest columns that hold a number in [-1, 1].
CONTINUOUS = ("valence", "arousal")
SPLITS = ("train", "select", "val", "test")
#: Where each of the 68 iBUG landmarks goes when the picture is mirrored: left and right change places.
MIRRORED = np.array(
    [
        *range(16, -1, -1),  # jaw
        *range(26, 16, -1),  # brows
        *range(27, 31),  # bridge of the nose
        *range(35, 30, -1),  # nostrils
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *range(54, 47, -1),  # outer lips, above
        *range(59, 54, -1),  # outer lips, below
        *range(64, 59, -1),  # inner lips, above
        *range(67, 64, -1),  # inner lips, below
    ]
)

#: How much red, green and blue count for how bright a pixel is (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)
MIN_AGE, MAX_AGE = 0, 120
#: The eight bins of every table by age: first and last whole year of each.
AGE_BINS = ((0, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59), (60, 69), (70, MAX_AGE))
AGE_BIN_NAMES = ("0-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")
#: Between the two names of a crossing of groupings and of its groups: `gender x race`, `Male x White`.
CROSS = " x "


def closed(ages: np.ndarray) -> np.ndarray:
    """Age intervals (N, 2), those without an end ("70 or more", up to `MAX_AGE`) ended ten years after their start, as
    the bins before them mostly are: the middle of 70 to 120 would make everybody over seventy 95."""
    ages = np.array(ages)
    open_ended = (ages[:, 1] >= MAX_AGE) & (ages[:, 0] < MAX_AGE - 10)
    ages[open_ended, 1] = ages[open_ended, 0] + 10
    return ages


def middle(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The middle (N,) of age intervals whose ends are `low` and `high`, (N,) each; see `closed`. NaN where unknown."""
    result: np.ndarray = closed(np.stack([low, high], axis=1)).mean(axis=1)
    return result


def age_bin(ages: np.ndarray) -> np.ndarray:
    """Index of the bin in `AGE_BINS` of each age in years, (N,) int64; -1 where the age is NaN."""
    ages = np.asarray(ages, dtype=np.float64)
    edges = np.array([low for low, _ in AGE_BINS[1:]], dtype=np.float64)
    return np.where(np.isnan(ages), -1, np.searchsorted(edges, ages, side="right")).astype(np.int64)


#: The ellipse about a face in a plain chip, in shares of the side: centre and half axes. What lies beyond it is
#: hair at most.
ELLIPSE = (0.5, 0.45, 0.47, 0.58)


@dataclass(frozen=True, slots=True)
class Crop:
    """How a face sits in its picture.

    `template` names where the eyes and the mouth are (`data/align.py` holds the table; "photo" is a whole photo,
    "box" a detector's box without alignment). `margin` is the share of the face's size added around the template.
    `size` is the side of the square picture in pixels, 0 where pictures differ in size.
    """

    template: str
    margin: float = 0.0
    size: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"template": self.template, "margin": self.margin, "size": self.size}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Crop:
        return cls(str(value["template"]), float(value.get("margin", 0.0)), int(value.get("size", 0)))

    @property
    def ellipse(self) -> tuple[float, float, float, float]:
        """Where the face is, in shares of the side: the middle across and down, half the width and half the height."""
        x, y, width, height = ELLIPSE
        scale = 1 / (1 + 2 * self.margin)  # a margin makes the face smaller, about the middle of the picture
        return (x - 0.5) * scale + 0.5, (y - 0.5) * scale + 0.5, width * scale, height * scale

    def same_view(self, other: Crop) -> bool:
        """Whether faces of both crops may stand in one batch: size may differ, template and margin may not."""
        return self.template == other.template and math.isclose(self.margin, other.margin, abs_tol=1e-3)


@dataclass(slots=True)
class Face:
    """One picture of one face and what is known of it; what is not known is None.

    `age` is an interval (low, high) in years, equal when exact. `landmarks` is (68, 2) float32, x and y in pixels
    of the stored picture; points may lie outside the frame. `expression_votes` is (10,) float32: how many raters
    said each of `VOTES`; `expression` is None where they are tied. A label outside its range raises `MienError`.
    """

    path: str
    archive: str | None = None
    age: tuple[float, float] | None = None
    gender: str | None = None
    race: str | None = None
    race7: str | None = None
    expression: str | None = None
    expression_votes: np.ndarray | None = None
    valence: float | None = None
    arousal: float | None = None
    landmarks: np.ndarray | None = None
    person: str | None = None
    split: str | None = None
    source: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.age is not None:
            low, high = float(self.age[0]), float(self.age[1])
            if not (MIN_AGE <= low <= high <= MAX_AGE):  # NaN fails too
                raise MienError(f"{self.path}: age {self.age} is not an interval within {MIN_AGE}-{MAX_AGE} years")
            self.age = (low, high)
        for column, words in VOCABULARIES.items():
            value = getattr(self, column)
            if value is not None and value not in words:
                raise MienError(f"{self.path}: {column} {value!r} is none of {', '.join(words)}")
        for column in CONTINUOUS:
            value = getattr(self, column)
            if value is not None and not -1.0 <= value <= 1.0:
                raise MienError(f"{self.path}: {column} {value} is outside [-1, 1]")
        if self.split is not None and self.split not in SPLITS:
            raise MienError(f"{self.path}: split {self.split!r} is none of {', '.join(SPLITS)}")
        if self.landmarks is not None:
            self.landmarks = np.asarray(self.landmarks, dtype=np.float32)
            if self.landmarks.shape != (68, 2):
                raise MienError(f"{self.path}: landmarks have shape {self.landmarks.shape}, expected (68, 2)")
            if np.isinf(self.landmarks).any():
                raise MienError(f"{self.path}: landmarks at infinity; expected pixels, NaN where one is not known")
        if self.expression_votes is not None:
            self.expression_votes = np.asarray(self.expression_votes, dtype=np.float32)
            if self.expression_votes.shape != (len(VOTES),):
                raise MienError(f"{self.path}: {self.expression_votes.size} votes, expected {len(VOTES)}")
            if not (np.isfinite(self.expression_votes) & (self.expression_votes >= 0)).all():
                raise MienError(f"{self.path}: votes {self.expression_votes.tolist()} are not all numbers of 0 or more")
            if not self.expression_votes.any():
                raise MienError(f"{self.path}: not one vote for any of {', '.join(VOTES)}")


@dataclass(slots=True)
class FaceBatch:
    """A batch of faces as models and losses see it.

    `images` is uint8 or float in [0, 1], (B, 3, H, W), RGB. `labels` maps a task's name to its encoded labels, first
    dimension B, each with the task's own mark for a missing one. `index` is (B,) int64: the faces' rows in their
    manifest. `landmarks` is (B, 68, 2) float32 in pixels of `images`, NaN where unknown. `weights` is (B,) float32:
    how much each face counts in the losses.
    """

    images: torch.Tensor
    labels: dict[str, torch.Tensor]
    index: torch.Tensor
    landmarks: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def to(self, device: torch.device | str) -> FaceBatch:
        """The batch on `device`."""
        # A copy to one of Apple's that nobody waits for reads its source when that may be gone, and gets other numbers:
        # https://github.com/pytorch/pytorch/issues/189690
        ahead = str(device).startswith("cuda")

        def move(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=ahead)

        return replace(
            self,
            images=self.images.to(device, non_blocking=ahead),
            labels={name: value.to(device, non_blocking=ahead) for name, value in self.labels.items()},
            index=self.index.to(device, non_blocking=ahead),
            landmarks=move(self.landmarks),
            weights=move(self.weights),
        )
