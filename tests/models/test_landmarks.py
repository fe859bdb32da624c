"""Landmarks as input: where they are brought, what counts as unknown, and how they add to the features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mien.data.align import CHIP, similarity
from mien.data.views import View, look, move_landmarks
from mien.models.checkpoint import load_estimator, save_estimator
from mien.models.estimator import Estimator, ModelSettings, build_estimator, start_from
from mien.models.landmarks import EYES, LandmarkBranch, eye_centres, mirrored, normalise, umeyama
from mien.tasks.face import TasksSettings


def faces(count: int = 4, seed: int = 0) -> torch.Tensor:
    """Points that make no face but have two eyes, (B, 68, 2)."""
    points = np.random.default_rng(seed).uniform(0, 111, (count, 68, 2))
    points[:, 36:42] = [35, 40] + points[:, 36:42] * 0.05
    points[:, 42:48] = [70, 44] + points[:, 42:48] * 0.05
    return torch.from_numpy(points.astype(np.float32))


def estimator(landmarks: bool = True, **model: object) -> Estimator:
    torch.manual_seed(0)
    settings = ModelSettings(backbone="test_convnext", input_size=32, dropout=0, landmarks=landmarks, **model)  # type: ignore[arg-type]
    return build_estimator(settings, TasksSettings(), CHIP)


def opened(branch: LandmarkBranch) -> LandmarkBranch:
    """The branch as some training would leave it: adding something."""
    torch.manual_seed(1)
    for parameter in (*branch.gate.parameters(), *branch.add.parameters()):
        torch.nn.init.normal_(parameter, std=0.5)
    return branch


def images(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@given(st.integers(0, 2**32 - 1), st.integers(2, 68))
def test_umeyama_is_the_similarity_of_the_alignment(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    points, template = rng.normal(0, 40, (3, count, 2)), rng.normal(0, 1, (count, 2))
    found = umeyama(torch.from_numpy(points), torch.from_numpy(template)).numpy()
    expected = np.stack([similarity(face, template) for face in points])
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_eyes_come_to_their_places_whatever_the_pose() -> None:
    points = faces()
    moved, known = normalise(points)
    assert known.all()
    torch.testing.assert_close(eye_centres(moved), torch.tensor(EYES).expand(4, 2, 2), atol=1e-5, rtol=0)
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    again, _ = normalise(3 * points @ turn.T + torch.tensor([250.0, -90.0]))
    torch.testing.assert_close(again, moved, atol=1e-4, rtol=0)


def test_autocast_does_not_round_pixels() -> None:
    points = faces() + 400
    plain, _ = normalise(points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, _ = normalise(points)
    torch.testing.assert_close(cast, plain)


def test_unknown_and_degenerate_points_are_no_landmarks() -> None:
    points = faces(5)
    points[0, 30, 1] = torch.nan
    points[1] = torch.inf
    points[2] = 7.0
    points[3, 42:48] = points[3, 36:42]
    moved, known = normalise(points)
    assert known.tolist() == [False, False, False, False, True]
    assert (moved[:4] == 0).all()
    branch = opened(LandmarkBranch(6)).eval()
    features = torch.randn(5, 6)
    with torch.no_grad():
        read, blind = branch(features, points), branch(features)
    assert torch.equal(read[:4], blind[:4])
    assert not torch.allclose(read[4], blind[4])


def test_at_the_start_nothing_is_added() -> None:
    features = torch.randn(4, 6)
    assert torch.equal(LandmarkBranch(6)(features, faces()), features)


def test_some_faces_are_withheld_in_training_and_none_afterwards() -> None:
    branch = opened(LandmarkBranch(6, dropout=0.3))
    features, points = torch.zeros(2000, 6), faces(1).expand(2000, 68, 2)
    with torch.no_grad():
        blind = branch.eval()(features)[0]
        seen = branch(features, points)
        assert torch.equal(seen, seen[:1].expand_as(seen))
        assert not torch.allclose(seen[0], blind)
        trained = branch.train()(features, points)
    withheld = torch.isclose(trained, blind).all(dim=1)
    assert 0.26 < withheld.float().mean() < 0.34
    torch.testing.assert_close(trained[~withheld], seen[~withheld])


def test_the_branch_learns_what_only_landmarks_tell() -> None:
    torch.manual_seed(0)
    points = faces(64)
    answer = normalise(points)[0][:, 57, 1]
    branch = LandmarkBranch(4, dropout=0.0)
    optimiser = torch.optim.Adam(branch.parameters(), 1e-2)
    for _ in range(150):
        loss = (branch(torch.zeros(64, 4), points)[:, 0] - answer).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1 * answer.var()


def test_mirrored_is_what_a_flipped_view_does_to_points() -> None:
    points = faces(1)
    _, matrix = look(np.zeros((3, 112, 112), dtype=np.uint8), View(flip=True), 112)
    expected = move_landmarks(points[0].numpy(), matrix, flip=True)
    np.testing.assert_allclose(mirrored(points, 112)[0].numpy(), expected, atol=1e-4)


def test_with_mirror_a_face_and_its_mirror_image_are_judged_alike() -> None:
    net = estimator(mirror=True).eval()
    opened(net.branch)  # type: ignore[arg-type]
    points = faces() * (31 / 111)
    with torch.no_grad():
        one = net(images(), points)
        other = net(images().flip(-1), mirrored(points, 32))
        unmoved = net(images().flip(-1), points)
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one["gender"]["logits"], unmoved["gender"]["logits"], atol=1e-3)


def test_without_the_branch_landmarks_change_nothing() -> None:
    net = estimator(landmarks=False).eval()
    assert not any(name.startswith("branch") for name in net.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(net(images(), faces()), net(images()))


def test_it_starts_from_a_model_without_the_branch(tmp_path: Path) -> None:
    torch.manual_seed(3)
    other = estimator(landmarks=False)
    net = estimator()
    new = start_from(net, other)
    assert new
    assert all(name.startswith("branch.") for name in new)
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(images(), faces()), other.eval()(images()))
    assert start_from(other, net) == []
    opened(net.branch)  # type: ignore[arg-type]
    save_estimator(tmp_path, net)
    loaded = load_estimator(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images(), faces()), net(images(), faces()))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_it_runs_and_learns_in_both_precisions(precision: torch.dtype) -> None:
    net = estimator().train()
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        logits = net(images(), faces())["gender"]["logits"]
    logits.float().square().sum().backward()
    assert net.branch is not None
    assert net.branch.add.weight.grad is not None
    assert net.branch.add.weight.grad.isfinite().all()
    assert net.branch.add.weight.grad.abs().sum() > 0
