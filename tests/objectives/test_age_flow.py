"""The age flow's objective: what a face counts, which are left out, that a tiny one learns two faces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mien.faces import Crop, FaceBatch
from mien.models.age_flow import AgeFlow, AgeFlowSettings
from mien.objectives.age_flow import AgeFlowObjective
from mien.objectives.coding import AGE, ATTRIBUTES

CROP = Crop("chip", 0.0, 32)


class Select:
    def __init__(self, batch: FaceBatch) -> None:
        self.batch = batch
        self.rejected: dict[int, str] = {}

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]:
        yield self.batch


def batch(ages: list[list[float]], levels: list[int], **more: torch.Tensor) -> FaceBatch:
    images = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)
    return FaceBatch(images, {AGE: torch.tensor(ages, dtype=torch.float32)} | more, torch.arange(len(ages)))


def objective(faces: FaceBatch, **settings: object) -> AgeFlowObjective:
    torch.manual_seed(0)
    flow = AgeFlow(AgeFlowSettings.model_validate({"size": 32, "width": 8} | settings), CROP)
    return AgeFlowObjective(flow, Select(faces), faces.labels[AGE].numpy())  # type: ignore[arg-type]


def test_a_new_flow_misses_the_whole_way_and_faces_of_no_age_do_not_count() -> None:
    nan = float("nan")
    faces = batch([[20, 20], [nan, nan], [30, 39]], [255, 0, 255])
    made = objective(faces)
    assert made.flow.ages == (20, 34.5)
    assert made.counts("flow", faces) == {"velocity": 2}
    total, count = made.losses("flow", faces, 0)["velocity"]
    # Its velocity is 0, that of white is noise less one: a mean square of 1 + 1, of 3,072 numbers a face.
    assert count == 2
    assert float(total.detach()) == pytest.approx(4, abs=4 * (2 / 3072) ** 0.5 * 4)
    unknown = batch([[nan, nan]], [3])
    assert made.counts("flow", unknown) == {}
    assert made.losses("flow", unknown, 0) == {}
    # A face that weighs nothing adds nothing.
    faces.weights = torch.tensor([1.0, 5.0, 0.0])
    assert float(made.losses("flow", faces, 0)["velocity"][0].detach()) == pytest.approx(2, abs=0.3)


def test_an_interval_is_drawn_from_and_labels_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = batch([[30.0, 50.0]] * 400, [9] * 400, **{ATTRIBUTES: torch.zeros(400, 1)})
    made = objective(faces, told=["gender"], withhold=0.25)
    asked: list[torch.Tensor] = []

    def spy(noisy: torch.Tensor, times: torch.Tensor, ages: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        asked[:] = [times, ages, labels]
        return torch.zeros_like(noisy)

    monkeypatch.setattr(made.flow, "forward", spy)
    made.losses("flow", faces, 0)
    times, ages, labels = asked
    assert 30 <= float(ages.min()) < 32
    assert 48 < float(ages.max()) <= 50
    assert 0 < float(times.min()) < 0.1
    assert float(times.median()) == pytest.approx(0.5, abs=0.06)
    assert float(labels.isnan().float().mean()) == pytest.approx(0.25, abs=0.08)


def test_it_is_judged_by_the_same_noise_and_leaves_the_dice_alone() -> None:
    faces = batch([[20, 20], [60, 60]], [30, 220])
    made = objective(faces)
    torch.manual_seed(5)
    first = made.validate({})
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    torch.manual_seed(6)
    assert made.validate({}) == first
    assert list(made.figures()) == ["select/ages"]
    gone = {name: torch.full_like(value, 0.01) for name, value in made.flow.state_dict().items()}
    assert made.validate({"flow": gone}) != first
    assert made.validate({}) == first


def test_it_learns_which_level_of_grey_an_age_is() -> None:
    rng = np.random.default_rng(0)
    ages = [float(age) for age in rng.uniform(10, 90, 24)]
    faces = batch([[age, age] for age in ages], [round(40 + 2 * age) for age in ages])
    made = objective(faces, steps=4)
    optimiser = torch.optim.AdamW(made.flow.parameters(), lr=4e-3, betas=(0.9, 0.98))
    before = made.validate({})["velocity/mse"]
    torch.manual_seed(0)
    for step in range(120):
        total, count = made.losses("flow", faces, step)["velocity"]
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
    assert made.validate({})["velocity/mse"] < 0.5 * before
    made.flow.eval()
    with torch.inference_mode():
        shown = made.flow.render(faces.images[:4], torch.tensor([[20.0, 80.0]] * 4), torch.tensor(ages[:4]))
    levels = 255 * shown.mean(dim=(2, 3, 4))
    assert levels.mean(dim=0).tolist() == pytest.approx([80, 200], abs=30)
    assert (levels.diff(dim=1) > 30).all()
