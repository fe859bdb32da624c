"""What is said of renders, face by face, against the same by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mien.data.manifest import Manifest
from mien.evaluation.ageing.passes import _judged, _own
from mien.evaluation.ageing.shown import Live
from mien.metrics.image import ssim
from mien.models.age_flow import AgeFlow, AgeFlowSettings
from tests.evaluation.ageing.conftest import RedAge, Redder

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
MADE = RNG.integers(0, 256, (3, 2, 3, 16, 16), dtype=np.uint8)
AWAY = RNG.random((3, 16, 16)) < 0.5
#: Points of each face; its eyes are 10 apart.
POINTS = np.zeros((3, 68, 2)) + np.arange(68)[:, None] * [[0.0, 0.1]]
POINTS[:, 42:48] = [10.0, 0.0]
POINTS[:, 36:42] = 0.0


class Pointed:
    """Sees the points of the first render of each face moved 1 across, those of the second 3 across and 4 down."""

    identity = None

    def look(self, images: Tensor) -> dict[str, np.ndarray]:
        told: dict[str, np.ndarray] = RedAge().ask(images)
        if len(images) == 6:
            told["points"] = (POINTS[:, None] + np.array([[1.0, 0.0], [3.0, 4.0]])[None, :, None]).reshape(6, 68, 2)
        return told


FACES: Any = SimpleNamespace(
    outside=lambda rows: AWAY[rows],
    seen={"points": POINTS, "gender": RedAge().ask(torch.from_numpy(IMAGES))["gender"]},
)


def test_changes_outside_the_face_and_points_that_move() -> None:
    rows, judges = np.array([0, 1, 2]), Pointed()
    found = _judged(torch.from_numpy(MADE), torch.from_numpy(IMAGES), FACES, rows, judges)  # type: ignore[arg-type]
    apart = np.abs(MADE.astype(float) - IMAGES[:, None]).mean(axis=2) / 255
    for face in range(3):
        for age in range(2):
            assert found["outside"][face, age] == pytest.approx(apart[face, age][AWAY[face]].mean(), abs=1e-6)
            assert found["changed"][face, age] == pytest.approx(apart[face, age].mean(), abs=1e-6)
    assert np.abs(found["outside"] - found["changed"]).max() > 1e-3
    np.testing.assert_allclose(found["points_moved"], [[0.1, 0.5]] * 3)


def test_renders_at_the_own_age_are_held_against_the_picture() -> None:
    rows, judges, again = np.array([0, 1, 2]), Pointed(), MADE[:, 0]
    found = _own(torch.from_numpy(again), torch.from_numpy(IMAGES), FACES, rows, judges)  # type: ignore[arg-type]
    given, made = IMAGES.astype(float) / 255, again.astype(float) / 255
    np.testing.assert_allclose(found["own/l1"], np.abs(given - made).mean(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(
        found["own/psnr"], -10 * np.log10(np.square(given - made).mean(axis=(1, 2, 3))), rtol=1e-4
    )
    np.testing.assert_allclose(found["own/ssim"], ssim(made, given), rtol=1e-4)
    assert found["own/ssim"].max() < 0.5


@pytest.mark.parametrize("told", [False, True])
def test_a_renderer_is_told_the_face_s_age_only_when_that_is_asked_for(told: bool) -> None:
    heard: list[Tensor | None] = []

    class Spy(Redder):
        def render(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Tensor:
            heard.append(source_ages)
            return super().render(images, ages, source_ages)

    own = np.array([20.0, 30.0, 40.0])
    Live(Spy(), "test", told).pictures(np.arange(3), torch.from_numpy(IMAGES), own, np.array([5.0, 50.0]))
    assert len(heard) == 1
    if told:
        assert heard[0] is not None
        assert heard[0].tolist() == own.tolist()
    else:
        assert heard[0] is None


@pytest.mark.parametrize("told", [False, True])
def test_an_age_flow_is_told_the_labels_of_each_face(told: bool, drawn: Path) -> None:
    manifest = Manifest.open(drawn).split("val").take(np.arange(3))
    flow = AgeFlow(AgeFlowSettings(size=32, width=8, steps=1, told=["gender", "yaw"]), manifest.crop)
    heard: list[Tensor | None] = []

    def spy(noisy: Tensor, times: Tensor, ages: Tensor, labels: Tensor | None = None) -> Tensor:
        heard.append(labels)
        return torch.zeros_like(noisy)

    flow.forward = spy  # type: ignore[method-assign]
    shown = Live(flow, "test", told)
    shown.check(manifest)
    keys, images = manifest.strings("sha256")[[2, 0]], torch.from_numpy(IMAGES[:2])
    assert shown.pictures(keys, images, np.array([20.0, 30.0]), np.array([5.0])).shape == (2, 1, *IMAGES.shape[1:])
    if told:
        assert heard[0] is not None
        wanted = np.stack([manifest.codes("gender"), manifest.numbers("yaw")], axis=1)[[2, 0]]
        np.testing.assert_allclose(heard[0].numpy(), wanted)
    else:
        assert all(one is None for one in heard)
