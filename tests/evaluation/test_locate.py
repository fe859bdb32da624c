"""Finding landmarks in photos, with landmarkers whose answers can be computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mien.data.align import five_points
from mien.data.detect import Detection
from mien.data.drawing.face import draw
from mien.data.drawing.factors import Factors
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.evaluation.landmarks import evaluate_landmarker, moved_box
from mien.evaluation.locate import Locator, build_locator, given_square, mean_face
from mien.faces import Crop
from mien.models.landmarker import Landmarker, LandmarkerSettings

SIDE = 256
FACE, MARKS = draw(Factors(person=1, yaw=10, roll=20), 128)


class Map(Landmarker):
    """Sees where it is by the colours: red is x and green is y of the photo. It wants the points `true`."""

    def __init__(self, true: np.ndarray, spread: float = 0.02) -> None:
        super().__init__(LandmarkerSettings(width=0.25))
        self.true, self.error = true, spread
        self.seen: list[np.ndarray] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        face = images[0].double().numpy() + np.array([0.5, 0.5, 0])[:, None, None]  # Pillow's transform rounds down
        rows, columns = np.indices(face.shape[1:])
        inside = (face[2] > 250) & (face[0] > 8) & (face[0] < 247) & (face[1] > 8) & (face[1] < 247)
        places = np.column_stack([columns[inside], rows[inside], np.ones(inside.sum())])
        # From the crop's pixels to the photo's, and back.
        matrix = np.linalg.lstsq(places, face[:2, inside].T, rcond=None)[0].T
        self.seen.append(matrix)
        points = (self.true - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        eyes = np.linalg.norm(points[42:48].mean(0) - points[36:42].mean(0))
        return torch.from_numpy(points[None]).float(), torch.full((1, 68), self.error * eyes)


def photo() -> np.ndarray:
    y, x = np.indices((SIDE, SIDE))
    return np.stack([x, y, np.full_like(x, 255)]).astype(np.uint8)


def truth() -> np.ndarray:
    return MARKS.astype(np.float64) + np.array([60, 50])


def test_points_come_back_in_the_photo_and_the_second_look_is_upright() -> None:
    net = Map(truth())
    box = given_square(truth()) + np.array([6, -4, 12, 2])
    fit = Locator(net)(photo(), box)
    np.testing.assert_allclose(fit.points, truth(), atol=0.3)
    assert fit.error == pytest.approx(0.02, rel=1e-3)
    assert fit.sure
    first, second = net.seen
    angle = [np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])) for matrix in (first, second)]
    assert angle[0] == pytest.approx(0, abs=0.5)
    assert angle[1] == pytest.approx(20, abs=1)  # the face's own roll
    # The eyes then lie on the template, with the landmarker's margin around it.
    eyes = (five_points(truth())[:2] - second[:, 2]) @ np.linalg.inv(second[:, :2]).T
    share = 112 / (1 + 2 * net.crop.margin)
    assert eyes[1, 0] - eyes[0, 0] == pytest.approx(share * 0.3952, rel=0.03)
    assert abs(eyes[1, 1] - eyes[0, 1]) < 1.5


def test_what_is_not_sure_is_not_used() -> None:
    found = Detection(given_square(truth()))
    sure = Locator(Map(truth())).detection(photo(), found)
    assert sure.aligned
    np.testing.assert_allclose(sure.where, truth(), atol=0.3)
    np.testing.assert_array_equal(sure.box, found.box)
    lost = Locator(Map(truth(), spread=0.5)).detection(photo(), found)
    assert lost is found
    assert not lost.aligned
    assert lost.crop(Crop("chip", 0.0, 64)).template == "box"
    net = Map(truth(), spread=0.5)
    net.refuse = 0.6
    assert Locator(net).detection(photo(), found).aligned
    assert Locator(Map(truth(), spread=0.5)).crop(photo(), Crop("chip")) is None
    nowhere = Locator(Map(np.full((68, 2), np.nan)))(photo(), found.box)
    assert (nowhere.sure, nowhere.error) == (False, float("inf"))


def test_a_detectors_own_points_stay_what_it_is_cut_by() -> None:
    points = five_points(truth()) + 1
    found = Locator(Map(truth())).detection(photo(), Detection(given_square(truth()), 0.9, points))
    np.testing.assert_array_equal(found.where, points)
    assert found.landmarks is not None
    assert found.score == 0.9


def test_the_given_square_is_what_the_chip_shows() -> None:
    upright = draw(Factors(person=1), 128)[1]
    np.testing.assert_allclose(given_square(upright), [0, 0, 128, 128], atol=0.5)
    np.testing.assert_allclose(moved_box(np.array([0, 0, 10, 10]), np.array([0.1, -0.2, 0])), [1, -2, 11, 8])
    np.testing.assert_allclose(moved_box(np.array([0, 0, 10, 10]), np.array([0, 0, np.log(2)])), [-5, -5, 15, 15])


def test_the_mean_face_is_laid_into_the_box() -> None:
    net = Map(truth())
    net.shape.copy_(torch.tensor([0.25, -0.5]).expand(68, 2))
    side = 40 * (1 + 2 * net.crop.margin)
    centre = np.array([29.5, 39.5])  # the box's middle, the first pixel's centre being 0
    laid = mean_face(net, np.array([10, 20, 50, 60]))
    np.testing.assert_allclose(laid, np.tile(centre + np.array([side / 4, -side / 2]), (68, 1)))


def test_figures_of_a_landmarker_that_knows_and_of_one_that_does_not(drawn: Path) -> None:
    manifest = Manifest.open(drawn)
    with torch.no_grad():
        net = Landmarker(LandmarkerSettings(width=0.25)).eval()
        net.points.weight.zero_()  # the mean face, whatever it sees
        net.spread.weight.zero_()
        size = net.crop.size
        chips = (manifest.landmarks() + 0.5) / 32 - 0.5
        net.shape.copy_(torch.from_numpy(chips.mean(axis=0) / (1 + 2 * net.crop.margin)))
    figures = evaluate_landmarker(net, manifest, "val", passes=1, show=False)
    assert size == 112
    assert figures["about"]["faces"] == figures["all"]["nme"]["n"] == len(manifest.split("val"))
    # In one look it is its own baseline.
    assert figures["all"]["nme"]["value"] == pytest.approx(figures["all"]["mean_face"]["value"], rel=1e-3)
    assert figures["all"]["nme"]["low"] < figures["all"]["nme"]["value"] < figures["all"]["nme"]["high"]
    assert 0.6 < figures["all"]["nme_corners"]["value"] / figures["all"]["nme"]["value"] < 0.8
    assert figures["by_source"]["drawn"] == figures["all"]
    assert figures["all"]["refused"]["value"] in (0.0, 1.0)
    with torch.no_grad():
        net.points.bias.fill_(float("nan"))
    missed = evaluate_landmarker(net, manifest, "val", passes=1, show=False)["all"]
    assert (missed["failures"]["value"], missed["refused"]["value"]) == (1.0, 1.0)  # a miss is no missing figure
    paths = manifest.strings("path").tolist()
    first = int(np.flatnonzero(manifest.strings("split") == "val")[0])
    lost = manifest.with_columns({"path": np.array([*paths[:first], "lost.png", *paths[first + 1 :]], dtype=object)})
    about = evaluate_landmarker(net, lost, "val", passes=1, show=False)["about"]
    assert about["faces"] == len(manifest.split("val")) - 1
    assert [one["path"] for one in about["rejected"]] == ["lost.png"]
    gone = manifest.with_columns({"landmarks": np.full((len(manifest), 136), np.nan, dtype=np.float32)})
    with pytest.raises(MienError, match="no face with landmarks"):
        evaluate_landmarker(net, gone, "val", show=False)


def test_what_builds_a_locator() -> None:
    assert build_locator("none") is None
    assert build_locator(None) is None
    with pytest.raises(MienError, match="expected a landmarker"):
        build_locator("face-mobile")
