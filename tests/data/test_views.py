import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.data.pictures import resize
from mien.data.views import View, look, move_landmarks
from mien.faces import MIRRORED

SIZE = 96


def dot(x: float, y: float, height: int, width: int) -> np.ndarray:
    """A bright blob on black, its centre at pixel (x, y)."""
    rows, columns = np.mgrid[:height, :width]
    blob = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
    return np.repeat(blob.round().astype(np.uint8)[None], 3, axis=0)


def centre(pixels: np.ndarray) -> tuple[float, float]:
    """Centre of brightness of (H, W, 3), x and y."""
    light = pixels.sum(axis=2, dtype=float)
    rows, columns = np.mgrid[: light.shape[0], : light.shape[1]]
    return float((light * columns).sum() / light.sum()), float((light * rows).sum() / light.sum())


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(80, 220),
    width=st.integers(80, 220),
    place=st.tuples(st.floats(0.4, 0.6), st.floats(0.4, 0.6)),
    scale=st.floats(0.7, 1.2),
    stretch=st.floats(0.9, 1.1),
    shift=st.tuples(st.floats(-0.08, 0.08), st.floats(-0.08, 0.08)),
    angle=st.one_of(st.just(0.0), st.floats(-0.5, 0.5)),
    flip=st.booleans(),
)
def test_a_dot_and_its_landmark_move_together(
    height: int,
    width: int,
    place: tuple[float, float],
    scale: float,
    stretch: float,
    shift: tuple[float, float],
    angle: float,
    flip: bool,
) -> None:
    x, y = place[0] * width, place[1] * height
    view = View(0.5 + shift[0], 0.5 + shift[1], scale * stretch, scale / stretch, angle, flip)
    pixels, matrix = look(dot(x, y, height, width), view, SIZE)
    landmarks = np.full((68, 2), np.nan, dtype=np.float32)
    landmarks[8] = x, y  # the chin is its own mirror image
    moved = move_landmarks(landmarks, matrix, flip)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert np.isnan(np.delete(moved, 8, axis=0)).all()
    np.testing.assert_allclose(moved[8], centre(pixels), atol=0.6)


def test_the_whole_view_is_a_plain_resize() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 150, 130), dtype=np.uint8)
    pixels, _ = look(image, View(), SIZE)
    np.testing.assert_array_equal(pixels.transpose(2, 0, 1), resize(image, SIZE))
    mirrored, _ = look(image, View(flip=True), SIZE)
    np.testing.assert_array_equal(mirrored, pixels[:, ::-1])


def test_a_window_is_a_crop() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 200, 200), dtype=np.uint8)
    pixels, _ = look(image, View(width=0.5, height=0.5), 100)
    np.testing.assert_array_equal(pixels.transpose(2, 0, 1), image[:, 50:150, 50:150])


def test_beyond_the_borders_the_picture_is_reflected() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    pixels, _ = look(image, View(x=0.25), 64)  # the left quarter lies outside
    np.testing.assert_array_equal(pixels[:, 16:], image[:, :, :48].transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels[:, :16], image[:, :, 15::-1].transpose(1, 2, 0))


@pytest.mark.parametrize("angle", [0.3, math.pi / 2, math.pi, -2.0])
def test_turning_fills_every_corner(angle: float) -> None:
    image = np.full((3, 120, 90), 200, dtype=np.uint8)
    pixels, _ = look(image, View(width=1.1, height=1.1, angle=angle), SIZE)
    assert (pixels == 200).all()


def test_a_quarter_turn_of_a_square() -> None:
    image = np.zeros((3, 64, 64), dtype=np.uint8)
    image[0, :, :32] = 255  # the left half is red
    pixels, _ = look(image, View(angle=math.pi / 2), 64)
    # The window is turned clockwise, so what it shows turns the other way: left comes to lie below.
    assert (pixels[40:, 8:56, 0] == 255).all()
    assert (pixels[:24, 8:56, 0] == 0).all()


def test_turning_and_plain_cutting_agree() -> None:
    smooth = np.stack([dot(90, 110, 200, 200)[0], dot(60, 80, 200, 200)[0], dot(140, 100, 200, 200)[0]])
    straight, _ = look(smooth, View(width=0.9, height=0.9), SIZE)
    turned, _ = look(smooth, View(width=0.9, height=0.9, angle=1e-6), SIZE)
    assert np.abs(straight.astype(int) - turned).max() <= 24
    assert np.abs(straight.astype(int) - turned).mean() < 0.2


def test_fine_detail_does_not_alias() -> None:
    stripes = np.zeros((3, 512, 512), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    for angle in (0.0, 0.2):
        pixels, _ = look(stripes, View(width=0.95, height=0.95, angle=angle), 64)
        assert np.abs(pixels.astype(int) - 127).max() < 20


def test_mirroring_swaps_left_and_right_landmarks() -> None:
    assert sorted(MIRRORED) == list(range(68))
    np.testing.assert_array_equal(MIRRORED[MIRRORED], np.arange(68))
    # Pairs of the iBUG-68 scheme that everybody knows, and the points on the midline.
    for one, other in [(0, 16), (17, 26), (21, 22), (36, 45), (39, 42), (37, 44), (41, 46), (31, 35)]:
        assert MIRRORED[one] == other
    for one, other in [(48, 54), (50, 52), (59, 55), (60, 64), (61, 63), (67, 65)]:
        assert MIRRORED[one] == other
    for middle in (8, 27, 28, 29, 30, 33, 51, 57, 62, 66):
        assert MIRRORED[middle] == middle


def test_a_mirrored_symmetric_face_is_itself() -> None:
    rng = np.random.default_rng(0)
    half = rng.uniform(0, 99, (68, 2)).astype(np.float32)
    face = half.copy()
    for point, partner in enumerate(MIRRORED):
        if partner >= point:
            face[partner] = 99 - face[point][0], face[point][1]
            if partner == point:
                face[point][0] = 49.5
    _, matrix = look(np.zeros((3, 100, 100), dtype=np.uint8), View(flip=True), 100)
    np.testing.assert_allclose(move_landmarks(face, matrix, flip=True), face, atol=1e-4)
