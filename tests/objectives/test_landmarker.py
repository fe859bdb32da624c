"""The landmarker's objective: its losses by hand, unknown points, strips at the sides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mien.data.drawing.face import draw
from mien.data.sources.drawn import sample
from mien.data.transforms import AugmentSettings, augment
from mien.errors import MienError
from mien.faces import FaceBatch
from mien.models.landmarker import Landmarker, LandmarkerSettings
from mien.objectives.landmarker import LEAST, SOFT, LandmarkerObjective, cut_frame


class Constant(nn.Module):
    """The same points and spreads for every face."""

    def __init__(self, points: Tensor, spread: float) -> None:
        super().__init__()
        self.points, self.spread = nn.Parameter(points), nn.Parameter(torch.full((68,), spread))
        self.settings = LandmarkerSettings(frame=0.0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.points.expand(len(images), 68, 2), self.spread.expand(len(images), 68)


class Select:
    def __init__(self, batch: FaceBatch) -> None:
        self.batch = batch
        self.rejected: dict[int, str] = {}

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]:
        yield self.batch


def face(eyes: float = 40.0) -> np.ndarray:
    points = np.random.default_rng(0).uniform(20, 90, (68, 2))
    points[36:42], points[42:48] = [30, 40], [30 + eyes, 40]
    return points


def batch(*landmarks: np.ndarray) -> FaceBatch:
    points = torch.from_numpy(np.stack(landmarks).astype(np.float32))
    images = torch.full((len(points), 3, 112, 112), 200, dtype=torch.uint8)
    return FaceBatch(images, {}, torch.arange(len(points)), landmarks=points)


def objective(faces: FaceBatch, off: float = 3.0, spread: float = 2.0) -> LandmarkerObjective:
    said = torch.from_numpy(face().astype(np.float32)) + torch.tensor([off, 0.0])
    return LandmarkerObjective(Constant(said, spread), Select(faces))  # type: ignore[arg-type]


def test_one_face_is_no_batch() -> None:
    made = LandmarkerObjective(Landmarker(LandmarkerSettings()), Select(batch(face())))  # type: ignore[arg-type]
    with pytest.raises(MienError, match=r"a batch of one face .*; give training\.batch two faces or more"):
        made.losses("landmarker", batch(face()), 0)
    assert made.losses("landmarker", batch(face(), face()), 0)


def test_losses_are_those_of_the_formulas_and_unknown_faces_do_not_count() -> None:
    gone = face()
    gone[5] = np.nan
    faces = batch(face(), gone, face())
    made = objective(faces)
    with torch.no_grad():
        terms = made.losses("landmarker", faces, 0)
    assert made.counts("landmarker", faces) == {"landmarks/points": 2, "landmarks/spread": 2}
    for total, count in terms.values():
        assert int(count) == 2
        assert total.isfinite()
    distance = np.hypot(3 / 40, SOFT) - SOFT
    assert float(terms["landmarks/points"][0]) == pytest.approx(2 * distance, rel=1e-4)
    density = np.exp(-distance / (2 / 40 / 2)) / (2 / 40 / 2) ** 2  # exp(-d/b) / b^2, b half the spread
    assert float(terms["landmarks/spread"][0]) == pytest.approx(2 * (-np.log(density) + 2 * np.log(2)), rel=1e-3)


def test_weights_of_faces_scale_their_terms() -> None:
    plain, heavy = batch(face(), face()), batch(face(), face())
    heavy.weights = torch.tensor([0.0, 3.0])
    with torch.no_grad():
        one, other = (objective(faces).losses("landmarker", faces, 0) for faces in (plain, heavy))
    for term, (total, count) in one.items():
        assert float(other[term][0]) == pytest.approx(1.5 * float(total), rel=1e-5)
        assert int(other[term][1]) == int(count) == 2


def test_the_spread_settles_where_the_points_are_off_on_average() -> None:
    faces = batch(face())
    made = objective(faces, off=3.0, spread=6.0)
    optimiser = torch.optim.Adam(made.landmarker.parameters(), lr=0.1)
    for _ in range(100):
        made.losses("landmarker", faces, 0)["landmarks/spread"][0].backward()
        assert made.landmarker.points.grad is None  # it never moves the points
        optimiser.step()
        optimiser.zero_grad()
    distance = (np.hypot(3 / 40, SOFT) - SOFT) * 40
    torch.testing.assert_close(made.landmarker.spread.data, torch.full((68,), float(distance)), atol=0.05, rtol=0)


def test_a_face_from_the_side_does_not_outweigh_the_others() -> None:
    one = batch(face(eyes=40.0))
    side = batch(face(eyes=1.0))
    said = torch.from_numpy(face(eyes=1.0).astype(np.float32)) + torch.tensor([3.0, 0.0])
    made = LandmarkerObjective(Constant(said, 2.0), Select(side))  # type: ignore[arg-type]
    loss = float(made.losses("landmarker", side, 0)["landmarks/points"][0].detach())
    assert loss == pytest.approx(np.hypot(3 / (LEAST * 112), SOFT) - SOFT, rel=1e-4)
    assert loss < 2 * float(objective(one).losses("landmarker", one, 0)["landmarks/points"][0].detach())


def test_no_face_with_points_is_no_loss() -> None:
    faces = batch(np.full((68, 2), np.nan))
    made = objective(faces)
    assert made.losses("landmarker", faces, 0) == {}
    assert made.counts("landmarker", faces) == {}
    faces.landmarks = None
    assert made.losses("landmarker", faces, 0) == {}


def test_it_is_judged_by_the_distance_in_eye_distances() -> None:
    far = face(eyes=20.0)
    figures = objective(batch(face(), np.full((68, 2), np.nan)), off=3.0).validate({})
    assert figures["landmarks/nme"] == pytest.approx(3 / 40)
    assert figures["landmarks/failures"] == 0
    assert figures["landmarks/expected"] == pytest.approx(2 / 40)
    moved = np.linalg.norm(face() - far + [3, 0], axis=1).mean() / 20
    assert objective(batch(far)).validate({})["landmarks/nme"] == pytest.approx(moved, rel=1e-5)


def test_strips_are_black_at_the_sides_and_nowhere_else() -> None:
    torch.manual_seed(0)
    images = torch.full((400, 3, 50, 40), 200, dtype=torch.uint8)
    assert torch.equal(cut_frame(images, 0.0), images)
    cut = cut_frame(images, 0.5)
    assert cut.dtype == torch.uint8
    assert set(cut.unique().tolist()) == {0, 200}
    assert (cut[:, :, 10:40, 8:32] == 200).all()  # strips are a fifth of a side at the most
    touched = (cut == 0).flatten(1).any(dim=1).float().mean()
    assert 0.38 < touched < 0.56  # half of the faces, less those of which all four strips are nothing
    black = (cut[:, 0] == 0).float()
    rows = black.mean(dim=2) == 1
    columns = black.mean(dim=1) == 1
    assert torch.equal(black.bool(), rows[:, :, None] | columns[:, None, :])


def test_it_learns_faces_by_heart_wherever_they_lie() -> None:
    settings = {
        "scale": {"probability": 1, "between": [0.7, 0.95]},
        "shift": {"probability": 1, "between": [-0.1, 0.1]},
        "rotation": {"probability": 1, "between": [-20, 20]},
        "flip": 0.5,
    }
    drawn, marks = zip(*[draw(sample(3, number), 112, 0.3) for number in range(0, 32, 4)], strict=True)
    moved = AugmentSettings.model_validate(settings)
    images, points = augment(drawn, np.stack(marks), range(8), 112, moved)
    assert points is not None
    faces = FaceBatch(torch.from_numpy(images), {}, torch.arange(8), landmarks=torch.from_numpy(points))
    torch.manual_seed(0)
    net = Landmarker(LandmarkerSettings(width=0.25, frame=0.0))
    net.shape.copy_(torch.from_numpy(((points + 0.5) / 112 - 0.5).mean(axis=0)))
    made = LandmarkerObjective(net, Select(faces))  # type: ignore[arg-type]
    before = made.validate({})["landmarks/nme"]  # the mean face, for points start at nothing
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for step in range(40):
        terms = made.losses("landmarker", faces, step)
        loss = sum(weight * terms[term][0] / 8 for term, weight in made.weights("landmarker").items())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert before > 0.2
    assert float(terms["landmarks/points"][0].detach()) / 8 < 0.1 * before
