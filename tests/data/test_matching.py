"""Light and colour matched to a data set's: the means and spreads that are asked for, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab
from skimage.data import astronaut

from mien.data.matching import GAINS, Tone, common, match, tone


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(3, 112, 112) uint8: the face of the photo that comes with scikit-image."""
    return np.ascontiguousarray(astronaut()[20:132, 170:282].transpose(2, 0, 1))


def lab(image: np.ndarray) -> np.ndarray:
    """The middle of a picture in CIELAB, by scikit-image."""
    return rgb2lab(image.transpose(1, 2, 0))[14:-14, 14:-14].reshape(-1, 3)


def test_the_tone_is_that_of_the_middle_in_lab(photo: np.ndarray) -> None:
    found, expected = tone(photo), lab(photo)
    np.testing.assert_allclose(found.mean, expected.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(found.spread, expected.std(axis=0), atol=0.02)


def test_light_is_matched_and_colour_stays(photo: np.ndarray) -> None:
    own = tone(photo)
    wanted = Tone(own.mean + np.array([-8, 6, 6]), own.spread * [0.8, 0.5, 0.5])
    light, both = (lab(match(photo, wanted, what)) for what in ("light", "colour"))
    assert light[:, 0].mean() == pytest.approx(wanted.mean[0], abs=0.7)
    assert light[:, 0].std() == pytest.approx(wanted.spread[0], abs=0.7)
    np.testing.assert_allclose(light[:, 1:].mean(axis=0), own.mean[1:], atol=1.0)
    np.testing.assert_allclose(both.mean(axis=0), wanted.mean, atol=1.5)
    np.testing.assert_allclose(both.std(axis=0), wanted.spread, atol=1.5)
    np.testing.assert_array_equal(match(photo, own, "colour"), photo)  # to its own tone: nothing changes


def test_a_grey_picture_gets_no_colour_and_a_flat_one_no_noise(photo: np.ndarray) -> None:
    grey = np.repeat(photo[1:2], 3, axis=0)
    made = match(grey, tone(photo), "colour").astype(int)
    assert np.abs(made - made[:1]).max() <= 1
    flat = (128 + (photo.astype(int) - 128) // 30).astype(np.uint8)
    before, after = tone(flat), tone(match(flat, tone(photo), "light"))
    assert after.spread[0] == pytest.approx(GAINS[1] * before.spread[0], rel=0.15)


def test_a_few_odd_pictures_do_not_move_a_data_sets_tone() -> None:
    tones = [Tone(np.full(3, 50.0 + place), np.full(3, 10.0)) for place in range(9)]
    odd = Tone(np.full(3, 1000.0), np.full(3, 1000.0))
    assert common([*tones, odd]).mean[0] == pytest.approx(common(tones).mean[0], abs=1)
    np.testing.assert_array_equal(common([*tones, odd]).spread, np.full(3, 10.0))
