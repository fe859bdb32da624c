"""The drawn source: labels, persons, determinism, and that a face's age can be learnt from its pixels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from mien.data.drawing.face import draw
from mien.data.sources import SOURCES, Made
from mien.data.sources.drawn import DrawnSource, face_of, factors_at, sample
from mien.errors import MienError
from mien.faces import EXPRESSIONS, GENDERS, RACES, Crop


def test_the_source_stands_in_the_table() -> None:
    assert SOURCES["drawn"] is DrawnSource


def test_faces_carry_every_label_of_their_factors() -> None:
    for number, made in enumerate(DrawnSource(count=6, seed=3, size=64, each=2).faces()):
        assert isinstance(made, Made)
        factors, face = sample(3, number, 2), made.face
        image, landmarks = draw(factors, 64)
        np.testing.assert_array_equal(made.image, image)
        np.testing.assert_array_equal(face.landmarks, landmarks)
        assert face.path == f"{number:06d}.png"
        assert face.age == (factors.age, factors.age)
        assert (face.gender, face.race, face.expression) == (factors.gender, factors.race, factors.expression)
        assert (face.valence, face.arousal) == (factors.valence, factors.arousal)
        assert face.person == str(factors.person)
        assert face.extra["yaw"] == factors.yaw
    assert DrawnSource(size=64).crop == Crop("chip", 0.0, 64)


def test_the_factors_of_a_face_are_those_it_was_drawn_from_at_any_age() -> None:
    given = sample(5, 3)
    face = face_of(given, "x.jpg", np.zeros((68, 2)))
    assert factors_at(face, given.age) == given
    assert factors_at(face, 70) == replace(given, age=70.0)


def test_a_seed_draws_the_same_set_and_a_prefix_of_a_longer_one() -> None:
    def pictures(count: int, seed: int) -> list[np.ndarray]:
        return [made.image for made in islice(DrawnSource(count=count, seed=seed, size=32).faces(), 5)]

    first, again, longer, other = pictures(5, 1), pictures(5, 1), pictures(9, 1), pictures(5, 2)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, longer)
    assert not np.array_equal(first, other)


def test_a_person_keeps_gender_and_race_and_is_seen_at_several_ages() -> None:
    faces = [sample(0, number, 4) for number in range(400)]
    assert len({face.person for face in faces}) == 100
    for start in range(0, 400, 4):
        same = faces[start : start + 4]
        assert len({(face.person, face.gender, face.race) for face in same}) == 1
        assert len({face.age for face in same}) == 4


def test_every_class_and_age_occurs() -> None:
    faces = [sample(0, number) for number in range(4000)]
    assert set(Counter(face.expression for face in faces)) == set(EXPRESSIONS)
    for values, names in (([face.race for face in faces], RACES), ([face.gender for face in faces], GENDERS)):
        counts = Counter(values)
        assert set(counts) == set(names)
        assert min(counts.values()) > 0.7 * len(faces) / len(names)
    ages = np.histogram([face.age for face in faces], bins=10, range=(0, 100))[0]
    assert ages.sum() == 4000
    assert ages.min() > 40


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"each": 0}, {"seed": -1}, {"size": 31}, {"size": 513}],
    ids=lambda wrong: str(wrong),
)
def test_what_cannot_be_drawn_is_one_clear_error(wrong: dict[str, int]) -> None:
    with pytest.raises(MienError) as error:
        DrawnSource(**wrong)
    assert str(next(iter(wrong.values()))) in str(error.value)


def test_age_can_be_learnt_from_small_pixels() -> None:
    made = list(DrawnSource(count=500, seed=5, size=48, each=1).faces())
    pixels = np.array([face.image.reshape(3, 16, 3, 16, 3).mean(axis=(0, 2, 4)).ravel() for face in made])
    pixels = (pixels - pixels[:400].mean(axis=0)) / pixels[:400].std(axis=0)
    ages = np.array([face.face.age[0] for face in made])
    known, centre = pixels[:400], ages[:400].mean()
    ridge = np.linalg.solve(known.T @ known + 400 * np.eye(256), known.T @ (ages[:400] - centre))
    error = np.abs(pixels[400:] @ ridge + centre - ages[400:]).mean()
    constant = np.abs(np.median(ages[:400]) - ages[400:]).mean()
    assert error < 0.7 * constant
