"""Alignment, against scikit-image's own estimate and against points drawn into pictures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from mien.data.align import (
    CHIP,
    TEMPLATES,
    WINDOWS,
    crop_face,
    crop_matrix,
    five_points,
    ibug_from_fgnet,
    move_points,
    require_view,
    seen,
    similarity,
    window,
)
from mien.errors import MienError, PictureError
from mien.faces import Crop

TEMPLATE = TEMPLATES["chip"]


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")  # its successor is too new
@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 50), st.floats(-3.2, 3.2))
def test_similarity_agrees_with_scikit_image(seed: int, scale: float, angle: float) -> None:
    rng = np.random.default_rng(seed)
    source = rng.uniform(-100, 100, (5, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = scale * source @ turn.T + rng.normal(0, 5, (5, 2)) + rng.uniform(-99, 99, 2)
    expected = SimilarityTransform()
    expected.estimate(source, target)
    np.testing.assert_allclose(similarity(source, target), expected.params[:2], rtol=1e-6, atol=1e-6)


def test_similarity_never_mirrors() -> None:
    mirrored = TEMPLATE * [-1, 1]
    assert np.linalg.det(similarity(mirrored, TEMPLATE)[:, :2]) > 0


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan)])
def test_points_that_say_nothing_are_refused(points: np.ndarray) -> None:
    with pytest.raises(PictureError, match="nothing to align by"):
        similarity(points, TEMPLATE)


def test_the_template_is_symmetric_and_lies_inside() -> None:
    swapped = TEMPLATE[[1, 0, 2, 4, 3]] * [-1, 1] + [1, 0]
    np.testing.assert_allclose(swapped, TEMPLATE)
    assert ((TEMPLATE > 0.2) & (TEMPLATE < 0.8)).all()


def spots(points: np.ndarray, side: int, radius: float) -> np.ndarray:
    """(3, side, side) with a soft white spot on black at each point, one at a time, summed."""
    y, x = np.mgrid[:side, :side]
    total = sum(255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * radius**2)) for px, py in points)
    return np.repeat(np.clip(total, 0, 255).astype(np.uint8)[None], 3, axis=0)


def centroid(image: np.ndarray, near: np.ndarray, reach: int) -> np.ndarray:
    x0, y0 = np.maximum(np.round(near).astype(int) - reach, 0)
    part = image[0, y0 : y0 + 2 * reach + 1, x0 : x0 + 2 * reach + 1].astype(float)
    y, x = np.mgrid[: part.shape[0], : part.shape[1]]
    return np.array([(x * part).sum(), (y * part).sum()]) / part.sum() + [x0, y0]


@pytest.mark.parametrize("scale", [0.8, 1.0, 3.0])
@pytest.mark.parametrize("margin", [0.0, 0.25])
def test_a_turned_face_comes_upright_to_the_template(scale: float, margin: float) -> None:
    """What is seen in the crop, not what the matrix claims: the spots' own centres."""
    size = 112
    angle = np.radians(25)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE - 0.5) * size * scale @ turn.T + 300
    crop = Crop("chip", margin, size)
    face, matrix = crop_face(spots(points, 600, 3 * scale), points, crop)
    assert face.shape == (3, size, size)
    assert face.dtype == np.uint8
    expected = (TEMPLATE - 0.5) * size / (1 + 2 * margin) + (size - 1) / 2
    np.testing.assert_allclose(move_points(points, matrix), expected, atol=1e-6)
    for place in expected:
        np.testing.assert_allclose(centroid(face, place, 8), place, atol=0.2)


def test_shrinking_averages() -> None:
    """A checkerboard of single pixels shrunk by 8 is grey; sampled, it would be black or white."""
    board = np.indices((800, 800)).sum(axis=0) % 2 * 255
    image = np.repeat(board.astype(np.uint8)[None], 3, axis=0)
    face, _ = crop_face(image, np.array([40.0, 40, 760, 760]), Crop("chip", 0, 90))
    assert abs(face.astype(int) - 127).max() <= 3


def test_a_box_of_the_crops_size_is_cut_exactly() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 80, 90), dtype=np.uint8)
    face, matrix = crop_face(image, np.array([10, 20, 58, 68]), Crop("chip", 0, 48))
    np.testing.assert_array_equal(face, image[:, 20:68, 10:58])
    np.testing.assert_allclose(matrix, [[1, 0, -10], [0, 1, -20]])


def test_a_box_that_is_not_square_is_cut_by_its_longer_side() -> None:
    matrix = crop_matrix(np.array([0, 0, 20, 40]), Crop("chip", 0, 40))
    np.testing.assert_allclose(matrix, [[1, 0, 10], [0, 1, 0]])


def test_outside_the_picture_is_black() -> None:
    image = np.full((3, 50, 50), 200, dtype=np.uint8)
    face, _ = crop_face(image, np.array([25, 25, 75, 75]), Crop("chip", 0, 50))
    assert (face[:, :24, :24] == 200).all()
    assert (face[:, 26:, 26:] == 0).all()
    nothing, _ = crop_face(image, np.array([500, 500, 520, 520]), Crop("chip", 0, 20))
    assert (nothing == 0).all()


@pytest.mark.parametrize(
    ("where", "message"),
    [([1, 2, 1, 2], "is empty"), ([[1, 2], [3, 4]], "5 or 68 points"), ([0, 0, np.nan, 5], "is empty")],
)
def test_what_cannot_be_cut_is_refused(where: list, message: str) -> None:
    with pytest.raises(MienError, match=message):
        crop_matrix(np.array(where, dtype=float), Crop("chip", 0, 64))
    with pytest.raises(MienError, match="unknown template"):
        crop_matrix(TEMPLATE, Crop("chop", 0, 64))
    with pytest.raises(MienError, match="side in pixels"):
        crop_matrix(TEMPLATE, CHIP)


def fgnet_points() -> np.ndarray:
    """A plain frontal face with FG-NET's numbering: corners of eyes and lips where they belong."""
    points = np.zeros((68, 2))
    points[:15] = [(50 + 40 * np.cos(a), 45 + 50 * np.sin(a)) for a in np.linspace(np.pi, 0, 15)]
    points[15:21] = [(80, 30), (72, 25), (63, 27), (58, 30), (63, 30), (72, 28)]
    points[21:27] = [(20, 30), (28, 25), (37, 27), (42, 30), (37, 30), (28, 28)]
    points[27:32] = [(25, 38), (32, 35), (39, 38), (32, 41), (32, 38)]
    points[32:37] = [(75, 38), (68, 35), (61, 38), (68, 41), (68, 38)]
    points[37:46] = [(45, 40), (43, 50), (40, 58), (44, 62), (50, 63), (56, 62), (60, 58), (57, 50), (55, 40)]
    points[46:48] = [(46, 60), (54, 60)]
    upper = [(36, 75), (41, 72), (47, 71), (50, 72), (53, 71), (59, 72), (64, 75)]
    points[48:60] = [*upper, (59, 79), (54, 81), (50, 82), (46, 81), (41, 79)]
    points[60:68] = [(44, 76), (50, 76), (56, 76), (56, 75), (50, 75), (44, 75), (50, 75.5), (50, 57)]
    return points


def test_fgnet_points_come_into_ibugs_order() -> None:
    given_points = fgnet_points()
    points = ibug_from_fgnet(given_points)
    assert points.shape == (68, 2)
    eyes_nose_mouth = five_points(points)
    np.testing.assert_allclose(eyes_nose_mouth, [(32, 38), (68, 38), (50, 57), (36, 75), (64, 75)], atol=0.5)
    # iBUG's own left-right pairs: a symmetric face stays itself when mirrored and renumbered.
    pairs = [
        *zip(range(8), range(16, 8, -1), strict=True),
        *zip(range(17, 22), range(26, 21, -1), strict=True),
    ]
    pairs += [(31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    pairs += [(48, 54), (49, 53), (50, 52), (59, 55), (58, 56), (60, 64), (61, 63), (67, 65)]
    for one, other in pairs:
        np.testing.assert_allclose(points[one], [100 - points[other][0], points[other][1]], atol=1e-6)
    for middle in (8, 27, 28, 29, 30, 33, 51, 57, 62, 66):
        assert points[middle][0] == pytest.approx(50)
    assert points[37][1] < points[41][1]  # upper lid above the lower
    assert points[62][1] <= points[66][1]


def test_sixty_eight_points_cut_as_their_five() -> None:
    points = ibug_from_fgnet(fgnet_points())
    crop = Crop("chip", 0.1, 64)
    np.testing.assert_allclose(crop_matrix(points, crop), crop_matrix(five_points(points), crop))


def test_crops_that_differ_say_how_to_convert() -> None:
    require_view(Crop("chip", 0, 200), Crop("chip", 0, 112), "faces")
    with pytest.raises(MienError, match=r"faces holds faces cropped as photo, but chip is wanted.*--align"):
        require_view(Crop("photo"), CHIP, "faces")
    with pytest.raises(MienError, match=r"chip with margin 0.2, but chip is wanted.*with this margin"):
        require_view(Crop("chip", 0.2), CHIP, "faces")


@pytest.mark.parametrize("template", list(WINDOWS))
def test_a_window_lies_in_its_picture_and_is_square(template: str) -> None:
    left, top, right, bottom = window(template, 48, 48)
    assert min(left, top) >= 0
    assert max(right, bottom) <= 48
    assert right - left == bottom - top == 42


def test_a_window_of_whole_pixels_is_cut_without_resampling() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    cut, _ = crop_face(image, window("fer2013", 48, 48), Crop("chip", 0.0, 42))
    np.testing.assert_array_equal(cut, image[:, 6:48, 3:45])


def test_other_crops_have_no_window() -> None:
    assert all(window(template, 48, 48) is None for template in ("chip", "box", "photo"))


def test_outside_the_picture_may_be_its_mirror() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8)
    box = np.array([-6.0, 10, 34, 50])
    black, _ = crop_face(image, box, Crop("chip", 0.0, 40))
    mirrored, _ = crop_face(image, box, Crop("chip", 0.0, 40), mirror=True)
    np.testing.assert_array_equal(mirrored, np.pad(image, ((0, 0), (0, 10), (6, 0)), mode="symmetric")[:, 10:, :40])
    np.testing.assert_array_equal(mirrored[:, :28, 8:], black[:, :28, 8:])
    assert not black[:, 32:].any()
    assert not black[:, :, :4].any()


def test_a_mirrored_edge_changes_nothing_inside() -> None:
    image = np.random.default_rng(1).integers(0, 256, (3, 60, 60), dtype=np.uint8)
    points = move_points(TEMPLATES["chip"] * 50, np.array([[0.9, 0.2, 6], [-0.2, 0.9, 14]]))
    black, matrix = crop_face(image, points, Crop("chip", 0.0, 56))
    mirrored, same = crop_face(image, points, Crop("chip", 0.0, 56), mirror=True)
    np.testing.assert_array_equal(matrix, same)
    inverse = np.linalg.inv(matrix[:, :2])
    grid = np.stack(np.meshgrid(np.arange(56), np.arange(56)), axis=-1)
    there = (grid - matrix[:, 2]) @ inverse.T
    inside = ((there > 3) & (there < 56)).all(axis=-1)
    assert inside.sum() > 1000
    np.testing.assert_allclose(mirrored[:, inside].astype(int), black[:, inside].astype(int), atol=2)
    assert seen(matrix, Crop("chip", 0.0, 56), 60, 60) == pytest.approx(
        ((there >= -0.5) & (there <= 59.5)).all(axis=-1).mean(), abs=0.05
    )
