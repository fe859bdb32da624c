"""What decides a drawn face: its factors, and the traits that make a person."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mien.errors import MienError, unknown
from mien.faces import EXPRESSIONS, GENDERS, RACES

#: What makes a person: each trait is a standard normal number, cut at ±2, that nothing else changes.
TRAITS = (
    "width", "jaw", "chin", "length", "forehead", "eye_size", "eye_tilt", "iris", "brow_height", "brow_arch",
    "brow_weight", "nose_width", "nose_length", "nose_bridge", "mouth_width", "mouth_height", "upper_lip",
    "lower_lip", "ears", "weight", "tone", "ruddy", "wrinkling", "sagging", "spots", "hair_shade", "hair_red",
    "hair_length", "hair_volume", "curl", "fringe", "parting", "hairline", "balding", "greying", "dyed",
    "beard", "moustache", "make_up",
)  # fmt: skip
#: Valence and arousal of each expression at full intensity, after the circumplex of Russell, "A circumplex
#: model of affect", 1980; both grow in proportion to the intensity.
FEELINGS: dict[str, tuple[float, float]] = {
    "Neutral": (0.0, 0.0),
    "Happy": (0.85, 0.45),
    "Sad": (-0.75, -0.35),
    "Surprise": (0.2, 0.85),
    "Fear": (-0.55, 0.75),
    "Disgust": (-0.7, 0.35),
    "Anger": (-0.6, 0.7),
    "Contempt": (-0.55, 0.25),
}
#: The range of each number among the factors.
RANGES = {"age": (0, 100), "intensity": (0, 1), "yaw": (-30, 30), "pitch": (-20, 20), "roll": (-45, 45),
          "light_x": (-1, 1), "light_y": (-1, 1), "light": (0, 1), "warmth": (-1, 1)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Factors:
    """All that decides a drawn face; `dataclasses.replace(factors, age=70)` is the same person, older.

    `person` seeds the traits, `scene` the background and the clothes. `age` is in years (0-100), `intensity`
    is that of the expression (0-1). `yaw` (positive: towards the right of the picture), `pitch` (positive:
    down) and `roll` (positive: clockwise, on top of the aligned face) are in degrees. The main light comes
    from `light_x`, `light_y` (-1 to 1; right and up are positive); `light` (0-1) is its strength beside the
    light from everywhere, `warmth` its colour from blue (-1) to orange (1).

    Raises:
        MienError: a value outside its range or vocabulary.
    """

    person: int
    age: float = 30.0
    gender: str = "Female"
    race: str = "White"
    expression: str = "Neutral"
    intensity: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    light_x: float = -0.3
    light_y: float = 0.4
    light: float = 0.5
    warmth: float = 0.0
    scene: int = 0

    def __post_init__(self) -> None:
        for name, words in (("gender", GENDERS), ("race", RACES), ("expression", EXPRESSIONS)):
            if getattr(self, name) not in words:
                raise unknown(name, getattr(self, name), words, "the factors of a drawn face")
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:  # NaN fails too
                raise MienError(f"{name} {getattr(self, name)} of a drawn face is outside {low} to {high}")
            # A numpy number would turn the whole picture's arithmetic into float64.
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("person", "scene"):
            if getattr(self, name) < 0:
                raise MienError(f"{name} {getattr(self, name)} of a drawn face is negative; a seed is 0 or more")

    @property
    def valence(self) -> float:
        """How pleasant the expression is, in [-1, 1]."""
        return FEELINGS[self.expression][0] * self.intensity

    @property
    def arousal(self) -> float:
        """How excited the expression is, in [-1, 1]."""
        return FEELINGS[self.expression][1] * self.intensity


@lru_cache(maxsize=4096)
def traits(person: int) -> dict[str, float]:
    """The traits of a person by name; a seed gives the same ones for ever."""
    values = np.random.default_rng([person, 68]).standard_normal(len(TRAITS)).clip(-2, 2)
    return dict(zip(TRAITS, values.tolist(), strict=True))
