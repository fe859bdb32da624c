"""Corruptions against formulas, Pillow and scipy; and that nothing but the picture and the table decides them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mien.data.align import TEMPLATES
from mien.data.corruptions import (
    SEVERITIES,
    TABLE,
    VERSION,
    Place,
    _disc,
    _line,
    corrupt,
    moved,
    place_in_crop,
    place_in_photo,
    seen_families,
    table_hash,
)
from mien.data.drawing.face import draw
from mien.data.sources.drawn import sample
from mien.data.transforms import AugmentSettings
from mien.errors import MienError
from mien.faces import Crop

SIDE = 160
CHIP = place_in_crop(Crop("chip"), SIDE, SIDE)
#: These do the same to every picture.
FIXED = {"gamma_dark", "gamma_bright", "contrast", "greyscale", "defocus_blur", "jpeg", "downscale"}


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    return [draw(sample(0, number), SIDE)[0] for number in range(3)]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def flat(level: int, side: int = SIDE) -> np.ndarray:
    return np.full((3, side, side), level, dtype=np.uint8)


def test_the_table_is_frozen() -> None:
    """Whoever changes a parameter raises VERSION and writes the new hash here: old audits are then told apart."""
    assert (VERSION, table_hash()) == (1, "c1703ce48578d6c6c0b3919592e4fe348adba3cd88583cf5e0f9638d998936c9")
    assert len(TABLE) >= 15
    assert all(len(one.levels) == len(SEVERITIES) for one in TABLE.values())
    assert all(one.moves != (one.change is not None) for one in TABLE.values())


@pytest.mark.parametrize("name", TABLE)
def test_severities_rise_and_the_picture_alone_decides(name: str, faces: list[np.ndarray]) -> None:
    kept = [face.copy() for face in faces]
    steps = []
    for severity in SEVERITIES:
        found = [corrupt(face, name, severity, bytes([key]), CHIP) for key, face in enumerate(faces)]
        again = [corrupt(face, name, severity, bytes([key]), CHIP) for key, face in reversed(list(enumerate(faces)))]
        for one, other, face in zip(found, reversed(again), faces, strict=True):
            assert (one.shape, one.dtype) == (face.shape, np.uint8)
            np.testing.assert_array_equal(one, other)
        steps.append(np.mean([distance(one, face) for one, face in zip(found, faces, strict=True)]))
    assert np.all(np.diff([0.0, *steps]) > 0), steps
    np.testing.assert_array_equal(faces, kept)
    others = [corrupt(faces[0], name, 3, key, CHIP) for key in (b"one", b"two", b"three")]
    assert all(np.array_equal(others[0], one) for one in others[1:]) == (name in FIXED)


def test_light_follows_its_formulas() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, SIDE).astype(np.uint8), (3, SIDE, SIDE))
    for name, exponent in (("gamma_dark", 2.7), ("gamma_bright", 0.36)):
        expected = 255 * (ramp / 255.0) ** exponent
        assert np.abs(corrupt(ramp, name, 3, b"", CHIP) - expected).max() <= 0.5 + 1e-6
    grey = corrupt(np.stack([ramp[0], ramp[1] // 2, ramp[2] // 3]), "greyscale", 5, b"", CHIP).astype(int)
    assert np.ptp(grey, axis=0).max() <= 1
    half = corrupt(ramp, "contrast", 2, b"", CHIP).astype(float)
    assert half.std() == pytest.approx(ramp.std() / 2, rel=0.01)
    cast = corrupt(flat(100), "colour_cast", 3, b"a", CHIP)[:, 0, 0].astype(float)
    assert cast @ [0.299, 0.587, 0.114] == pytest.approx(100, abs=1)
    assert np.ptp(cast) > 20
    lit = corrupt(flat(100), "side_light", 4, b"a", CHIP).astype(float)
    middle = lit[:, SIDE // 2 - 8 : SIDE // 2 + 8, SIDE // 2 - 8 : SIDE // 2 + 8]
    assert middle.mean() == pytest.approx(100, abs=3)
    assert abs(lit[..., :20].mean() - lit[..., -20:].mean()) > 80


def test_noise_has_the_spread_that_the_table_says() -> None:
    grey = flat(128)
    noisy = corrupt(grey, "gaussian_noise", 2, b"x", CHIP).astype(float)
    assert noisy.std() == pytest.approx(16, rel=0.02)
    for level in (64, 128):
        shot = corrupt(flat(level), "shot_noise", 1, b"x", CHIP).astype(float)
        assert shot.var() == pytest.approx(255 * level / 120, rel=0.03)  # a Poisson count's variance is its mean


def test_blur_is_a_convolution_that_keeps_brightness(faces: list[np.ndarray]) -> None:
    radius = round(TABLE["defocus_blur"].levels[3][0] * SIDE, 2)
    kernel = _disc(radius)
    assert kernel.sum() == pytest.approx(1)
    # A disc's second moment is r^2 / 4 along each axis.
    along = np.arange(len(kernel)) - len(kernel) // 2
    assert (kernel.sum(axis=0) * along**2).sum() == pytest.approx(radius**2 / 4, rel=0.03)
    expected = ndimage.convolve(faces[0].astype(float), kernel[None].astype(float), mode="reflect")
    assert np.abs(corrupt(faces[0], "defocus_blur", 4, b"", CHIP) - expected).max() <= 0.51
    line = _line(12.0, 0.7)
    assert line.sum() == pytest.approx(1)
    y, x = np.mgrid[: len(line), : len(line)] - len(line) // 2
    spread = np.array([[(line * x * x).sum(), (line * x * y).sum()], [(line * x * y).sum(), (line * y * y).sum()]])
    values, vectors = np.linalg.eigh(spread)
    assert abs(vectors[:, 1] @ [np.cos(0.7), np.sin(0.7)]) > 0.999  # it lies the way it should
    assert values[1] == pytest.approx(12**2 / 12, rel=0.1)


def test_a_face_smaller_than_the_resolution_is_left_as_it_is(faces: list[np.ndarray]) -> None:
    small = faces[0][:, :100, :100]
    place = place_in_crop(Crop("chip"), 100, 100)
    np.testing.assert_array_equal(corrupt(small, "downscale", 1, b"", place), small)
    assert distance(corrupt(small, "downscale", 2, b"", place), small) > 0


@pytest.mark.parametrize("name", [name for name, one in TABLE.items() if one.moves])
@pytest.mark.parametrize("key", [b"a", b"b", b"c"])
def test_points_move_with_the_picture(name: str, key: bytes) -> None:
    y, x = np.mgrid[:SIDE, :SIDE]
    points = np.array([[70.0, 75.0], [95.0, 88.0]])
    for at in points:
        dot = 255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 18)
        picture = np.broadcast_to(dot.astype(np.uint8), (3, SIDE, SIDE))
        found = corrupt(picture, name, 3, key, CHIP)[0].astype(float)
        centre = [(found * axis).sum() / found.sum() for axis in (x, y)]
        np.testing.assert_allclose(moved(at, name, 3, key, CHIP), centre, atol=0.15)
    assert moved(points, "jpeg", 3, key, CHIP) is points


def test_occluders_lie_on_eyes_and_mouth(faces: list[np.ndarray]) -> None:
    _, landmarks = draw(sample(0, 0), SIDE)
    turned = place_in_crop(Crop("chip"), SIDE, SIDE, landmarks)
    for place in (CHIP, turned):
        for name, points in (("occluded_eyes", place.points[:2]), ("occluded_mouth", place.points[3:])):
            found = corrupt(faces[0], name, 3, b"k", place)
            covered = (found != faces[0]).any(axis=0)
            for x, y in points.round().astype(int):
                assert covered[y, x], name
            assert np.ptp(found[:, covered], axis=1).max() == 0  # one colour
            assert not covered[:8].any()
            nose = place.points[2].round().astype(int)
            assert not covered[nose[1], nose[0]]
    np.testing.assert_allclose(turned.points[:2].mean(axis=0), landmarks[36:48].mean(axis=0), atol=1e-4)


def test_a_block_covers_the_share_that_it_says() -> None:
    for severity, share in zip(SEVERITIES, (0.03, 0.07, 0.13, 0.2, 0.3), strict=True):
        covered = (corrupt(flat(77), "random_block", severity, b"q", CHIP) != 77).any(axis=0).mean()
        assert covered == pytest.approx(share, rel=0.05)


def test_a_margin_and_a_photo_put_the_face_where_it_is() -> None:
    wide = place_in_crop(Crop("chip", margin=0.25), 150, 150)
    assert wide.side == 100
    np.testing.assert_allclose(wide.points, place_in_crop(Crop("chip"), 100, 100).points + 25)
    # A box that the detector gave, and the five points that stand in it, are one place.
    box = np.array([40.0, 20.0, 140.0, 120.0])
    by_box = place_in_photo(box)
    by_points = place_in_photo(by_box.points)
    np.testing.assert_allclose(by_box.points, TEMPLATES["chip"] * 100 + [39.5, 19.5])
    assert by_points.side == pytest.approx(by_box.side) == pytest.approx(100)


def test_a_photo_larger_than_its_face_is_damaged_by_the_face() -> None:
    """The same blur in pixels, whatever else is in the photo; and photos need not be square."""
    photo = np.zeros((3, 120, 260), dtype=np.uint8)
    photo[:, 60, 130] = 255
    place = Place(CHIP.points / 2 + [90, 20], SIDE / 2)
    found = corrupt(photo, "motion_blur", 3, b"p", place)
    crop = corrupt(photo[:, 20:100, 90:170], "motion_blur", 3, b"p", Place(CHIP.points / 2, SIDE / 2))
    np.testing.assert_array_equal(found[:, 20:100, 90:170], crop)
    for name in TABLE:
        assert corrupt(photo, name, 5, b"p", place).shape == photo.shape


def test_families_that_training_showed() -> None:
    assert seen_families(AugmentSettings()) == set()
    everything = {one.family for one in TABLE.values()}
    assert seen_families(AugmentSettings.model_validate("faces")) == everything - {"colour cast"}
    some = {"noise": {"probability": 0.1}, "greyscale": 0.2, "flip": 0.5}
    assert seen_families(AugmentSettings.model_validate(some)) == {"noise", "greyscale"}


def test_mistakes_are_named() -> None:
    with pytest.raises(MienError, match=r"unknown corruption 'jepg'; did you mean 'jpeg'\?"):
        corrupt(flat(1), "jepg", 1, b"", CHIP)
    with pytest.raises(MienError, match="severity 6 of jpeg: expected a whole number from 1 to 5"):
        corrupt(flat(1), "jpeg", 6, b"", CHIP)
