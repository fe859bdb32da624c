"""Drawn faces: nobody is shown, and every factor of the picture is known exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from mien.data.archives import Tree
from mien.data.drawing.face import SIZES, draw
from mien.data.drawing.factors import Factors
from mien.data.sources.base import Made, Rejected, Source
from mien.errors import MienError
from mien.faces import EXPRESSIONS, GENDERS, RACES, Crop, Face

#: How often each expression is drawn.
CHANCES = (0.40, 0.22, 0.08, 0.08, 0.05, 0.05, 0.07, 0.05)
#: Factors that become columns of the manifest beside the labels.
EXTRAS = ("intensity", "yaw", "pitch", "roll", "light_x", "light_y", "light", "warmth", "scene")


def sample(seed: int, number: int, each: int = 4) -> Factors:
    """Factors of face `number` of the drawn set `seed`; each person has `each` faces in a row, at any age.

    Ages lie in 0-100, fewer beyond 70; genders and races are equally frequent.
    """
    of_person = np.random.default_rng([seed, 1, number // each])
    person = int(of_person.integers(2**31))
    gender, race = GENDERS[of_person.integers(len(GENDERS))], RACES[of_person.integers(len(RACES))]
    rng = np.random.default_rng([seed, 2, number])
    expression = EXPRESSIONS[rng.choice(len(EXPRESSIONS), p=CHANCES)]
    yaw, pitch, roll = np.clip(rng.normal(0, (11, 4, 3)), (-30, -15, -12), (30, 15, 12)).tolist()
    return Factors(
        person=person,
        age=round(float(100 * rng.beta(1.05, 1.45)), 2),
        gender=gender,
        race=race,
        expression=expression,
        intensity=0.0 if expression == "Neutral" else round(float(rng.uniform(0.4, 1)), 3),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        light_x=float(rng.uniform(-1, 1)),
        light_y=float(rng.uniform(-0.2, 1)),
        light=float(rng.uniform(0.2, 1)),
        warmth=float(rng.uniform(-0.7, 1)),
        scene=int(rng.integers(2**31)),
    )


class DrawnSource(Source):
    """Draws `count` faces of `size` pixels; each person is drawn `each` times, at different ages.

    `margin` is what is shown around the canonical crop, as a share of its side.

    Raises:
        MienError: a count, number or size that cannot be drawn.
    """

    name: ClassVar[str] = "drawn"
    title: ClassVar[str] = "Drawn faces"
    terms: ClassVar[str] = "none: nobody is shown"
    where: ClassVar[str] = "made by mien itself, in any number"
    layout: ClassVar[str] = "needs no data"
    options: ClassVar[tuple[str, ...]] = ("count", "each", "seed", "size", "margin")

    def __init__(self, count: int = 2000, seed: int = 0, size: int = 112, each: int = 4, margin: float = 0.0) -> None:
        if count < 1 or each < 1:
            raise MienError(f"{count} drawn faces, {each} of each person: both numbers start at 1")
        if seed < 0:
            raise MienError(f"seed {seed} of drawn faces is negative; a seed is 0 or more")
        if not SIZES[0] <= size <= SIZES[1]:
            raise MienError(f"size {size} of drawn faces is outside {SIZES[0]} to {SIZES[1]} pixels")
        if not 0 <= margin <= 1:
            raise MienError(f"margin {margin:g} of drawn faces is outside 0 to 1 of the crop's side")
        self.count, self.seed, self.size, self.each, self.margin = count, seed, size, each, margin
        self.crop = Crop("chip", margin, size)

    @classmethod
    def recognises(cls, names: list[str]) -> bool:
        """Never: no files are of this source."""
        return False

    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        """The drawn faces without their pictures, whatever the tree holds."""
        return (made.face for made in self.faces(beside))

    def faces(self, path: str | Path = ".") -> Iterator[Made]:
        """The faces with their pictures, one by one; `path` is not looked at."""
        for number in range(self.count):
            factors = sample(self.seed, number, self.each)
            image, landmarks = draw(factors, self.size, self.margin)
            # Without loss: at 32 px a JPEG's noise is a sixth of what sets a face apart from itself at another age.
            yield Made(face_of(factors, f"{number:06d}.png", landmarks), image)


def factors_at(face: Face, age: float) -> Factors:
    """Those of a drawn face, as its manifest has them, at another age in years: the same person and scene."""
    return Factors(
        person=int(face.person or 0),
        age=float(age),
        gender=str(face.gender),
        race=str(face.race),
        expression=str(face.expression),
        **{name: face.extra[name] for name in EXTRAS},
    )


def face_of(factors: Factors, path: str, landmarks: np.ndarray) -> Face:
    """The labelled face that `factors` describe; its picture stands, or will, at `path`."""
    return Face(
        path=path,
        age=(factors.age, factors.age),
        gender=factors.gender,
        race=factors.race,
        expression=factors.expression,
        valence=factors.valence,
        arousal=factors.arousal,
        landmarks=landmarks,
        person=str(factors.person),
        source=DrawnSource.name,
        extra={name: getattr(factors, name) for name in EXTRAS},
    )
