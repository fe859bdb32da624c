"""Pictures and landmarks move together: a face turned or mirrored is the face that is drawn turned or mirrored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mien.data.drawing.face import draw
from mien.data.drawing.factors import Factors
from mien.data.transforms import AugmentSettings, augment

SIZE = 96
#: Turned aside, a little tilted, lit from one side: nothing about it is symmetric but the head itself.
FACE = Factors(person=5, age=30, gender="Male", yaw=18, pitch=5, roll=6, light_x=0.8, light=0.9)


def moved(**settings: object) -> tuple[np.ndarray, np.ndarray]:
    image, points = draw(FACE, SIZE, margin=0.2)
    images, landmarks = augment([image], points[None], [7], SIZE, AugmentSettings.model_validate(settings))
    assert landmarks is not None
    return images[0], landmarks[0]


def features(image: np.ndarray, points: np.ndarray, name: slice) -> np.ndarray:
    """The mean colour around some landmarks."""
    x, y = points[name].mean(axis=0).round().astype(int)
    return image[:, y - 3 : y + 4, x - 3 : x + 4].mean(axis=(1, 2))


def test_a_mirrored_face_is_the_face_drawn_mirrored() -> None:
    image, points = moved(flip=1.0)
    # The drawing knows nothing of indices that change places: it puts every point of the other pose anew.
    other, expected = draw(replace(FACE, yaw=-FACE.yaw, roll=-FACE.roll, light_x=-FACE.light_x), SIZE, margin=0.2)
    np.testing.assert_allclose(points, expected, atol=0.05)
    middle = slice(25, 80)  # the hair is parted on one side
    assert np.abs(image[:, middle, 30:66].astype(int) - other[:, middle, 30:66]).mean() < 4
    assert np.abs(draw(FACE, SIZE, margin=0.2)[0][:, middle, 30:66].astype(int) - other[:, middle, 30:66]).mean() > 8


@pytest.mark.parametrize("angle", [-25.0, 14.0])
def test_a_turned_face_is_the_face_drawn_turned(angle: float) -> None:
    image, points = moved(rotation={"probability": 1, "between": [angle, angle]})
    # A window that turns clockwise shows a face that turns the other way.
    other, expected = draw(replace(FACE, roll=FACE.roll - angle), SIZE, margin=0.2)
    np.testing.assert_allclose(points, expected, atol=0.05)
    for name in (slice(36, 42), slice(42, 48), slice(48, 68), slice(27, 31)):
        # The light does not turn with the face; eyes are darker than skin by 60 and more.
        assert np.abs(features(image, points, name) - features(other, expected, name)).max() < 25


def test_mirrored_and_turned_and_shifted_points_stay_on_their_features() -> None:
    plain, places = draw(FACE, SIZE, margin=0.2)
    image, points = moved(
        flip=1.0,
        rotation={"probability": 1, "between": [20, 20]},
        scale={"probability": 1, "between": [0.8, 0.8]},
        shift={"probability": 1, "between": [0.05, 0.05]},
    )
    # The right eye is dark where it was: but it is now called the left one.
    pairs = [(slice(36, 42), slice(42, 48)), (slice(42, 48), slice(36, 42)), (slice(48, 68), slice(48, 68))]
    for before, after in pairs:
        assert np.abs(features(plain, places, before) - features(image, points, after)).max() < 25


def test_points_beyond_the_frame_stay_where_they_are() -> None:
    _, points = moved(scale={"probability": 1, "between": [0.5, 0.5]})
    plain = draw(FACE, SIZE, margin=0.2)[1]
    np.testing.assert_allclose(points, (plain + 0.5 - SIZE / 2) * 2 + SIZE / 2 - 0.5, atol=0.05)
    assert (points < 0).any()
    assert (points > SIZE - 1).any()


def test_a_margin_shows_more_around_the_same_face() -> None:
    image, points = draw(FACE, SIZE)
    wide, places = draw(FACE, 2 * SIZE, margin=0.5)
    inner = wide[:, SIZE // 2 : -SIZE // 2, SIZE // 2 : -SIZE // 2]
    np.testing.assert_allclose(places - SIZE / 2, points, atol=0.01)
    assert np.abs(inner.astype(int) - image).mean() < 4
