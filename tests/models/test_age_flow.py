"""The age flow: between normal laws, where the way there and back is known; what it is told; what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mien.errors import MienError
from mien.faces import Crop
from mien.models.age_flow import AgeFlow, AgeFlowSettings
from mien.models.checkpoint import load_renderer, save_renderer

CROP = Crop("chip", 0.0, 32)


def flow(**settings: object) -> AgeFlow:
    """A flow with weights that do something: a new one's velocity is 0."""
    torch.manual_seed(3)
    made = AgeFlow(AgeFlowSettings.model_validate({"size": 32, "width": 8, "steps": 4} | settings), CROP)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


class Normal(AgeFlow):
    """The velocity of faces whose pixels are normal about -0.5 + 0.01 an age, with deviations of 0.1 + 0.002 a year."""

    @staticmethod
    def law(ages: Tensor) -> tuple[Tensor, Tensor]:
        return (-0.5 + 0.01 * ages)[:, None, None, None], (0.1 + 0.002 * ages)[:, None, None, None]

    def forward(self, noisy: Tensor, times: Tensor, ages: Tensor, labels: Tensor | None = None) -> Tensor:
        mean, spread = self.law(ages)
        t = times[:, None, None, None]
        # The conditional mean of noise less picture, given their sum: both are normal.
        variance = (1 - t) ** 2 * spread**2 + t**2
        return -mean + (t - (1 - t) * spread**2) / variance * (noisy - (1 - t) * mean)


@pytest.mark.parametrize("enter", [0.0, 0.2])
def test_between_normal_laws_it_is_the_optimal_transport(enter: float) -> None:
    exact = Normal(AgeFlowSettings(size=32, width=8, steps=60, enter=enter), CROP).eval()
    torch.manual_seed(0)
    own, asked = torch.tensor([20.0, 60.0]), torch.tensor([[5.0, 20.0, 70.0], [5.0, 60.0, 70.0]])
    mean, spread = exact.law(own)
    x = mean + spread * torch.randn(2, 3, 32, 32)
    # The laws' deviations with the noise that pictures have where they enter.
    blurred = ((1 - enter) ** 2 * spread**2 + enter**2).sqrt()
    noise = exact.carried((1 - enter) * x, own)
    torch.testing.assert_close(noise, (1 - enter) * (x - mean) / blurred, atol=2e-3, rtol=0)
    change = exact.shown((x + 1) / 2, asked, own).colours
    for place in range(3):
        there, wide = exact.law(asked[:, place])
        wanted = there + ((1 - enter) ** 2 * wide**2 + enter**2).sqrt() / blurred * (x - mean)
        torch.testing.assert_close(change[:, place], (wanted - x) / 2, atol=2e-3, rtol=0)
    assert change[0, 1].abs().max() == 0  # at its own age a face stays, to the bit
    assert exact.likeliest(x).tolist() == pytest.approx([20, 60], abs=2)
    # Told nothing, it starts from the age at which the face is likeliest.
    torch.testing.assert_close(
        exact.render((x + 1) / 2, asked), exact.render((x + 1) / 2, asked, exact.likeliest(x)), atol=0, rtol=0
    )


def test_there_and_back_is_the_face_again_and_new_weights_change_nothing() -> None:
    torch.manual_seed(1)
    x, own = torch.rand(2, 3, 32, 32) * 2 - 1, torch.tensor([30.0, 40.0])
    made = flow(steps=16)
    back = made.carried(made.carried(x, own), own, back=True)
    assert (made.carried(x, own) - x).abs().max() > 0.1
    torch.testing.assert_close(back, x, atol=1e-3, rtol=0)
    new = AgeFlow(AgeFlowSettings(size=32, width=8), CROP).eval()
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    assert torch.equal(new.render(images, torch.tensor([[5.0, 80.0]] * 2), own)[:, 1], images.float() / 255)
    with pytest.raises(MienError, match="age 130 to render"):
        new.render(images, torch.tensor([[130.0]] * 2))


def test_labels_are_told_where_known() -> None:
    made = flow(told=["gender", "yaw"])
    columns = {"gender": np.array([0, 1, -1]), "yaw": np.array([-20.0, 10.0, np.nan], dtype=np.float32)}
    labels = made.labels_of(columns)
    assert labels is not None
    assert labels[:2].tolist() == [[0, -20], [1, 10]]
    assert bool(labels[2].isnan().all())
    made.fit(labels)
    assert made.usual.tolist() == [[0, 1], pytest.approx([-5, 450**0.5])]
    torch.manual_seed(2)
    x, t, ages = torch.randn(1, 3, 32, 32).expand(3, -1, -1, -1), torch.full((3,), 0.4), torch.full((3,), 30.0)
    told = made(x, t, ages, labels)
    assert torch.equal(told[2:], made(x, t, ages)[2:])  # unknown ones are none
    assert (told[0] - told[1]).abs().max() > 1e-4
    assert (told[0] - told[2]).abs().max() > 1e-4
    # The mean of a number is not the number unknown.
    middle = torch.tensor([[torch.nan, -5.0]])
    assert (made(x[:1], t[:1], ages[:1], middle) - told[2:]).abs().max() > 1e-4
    assert flow().labels_of(columns) is None
    # Shown, each face keeps to its own labels at all ages.
    asked, own = torch.tensor([[10.0, 50.0]] * 3), torch.tensor([20.0, 30.0, 40.0])
    together = made.render((x + 1) / 2, asked, own, labels)
    alone = made.render((x[1:2] + 1) / 2, asked[1:2], own[1:2], labels[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)


def test_strength_and_colour_are_of_the_change() -> None:
    images, asked, own = torch.full((1, 3, 32, 32), 0.5), torch.tensor([[70.0]]), torch.tensor([20.0])
    whole = flow().shown(images, asked, own).colours
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(flow(strength=0.5).shown(images, asked, own).colours, whole / 2)
    grey = flow(colour=0).shown(images, asked, own).colours
    assert (grey.std(dim=2) < 1e-6).all()


def test_saved_it_renders_the_same(tmp_path: Path) -> None:
    made = flow(told=["race", "light"])
    made.fit(torch.tensor([[0.0, 0.2], [1.0, 0.8]]))
    made.name, made.ages = "drawn", (3.0, 88.0)
    save_renderer(tmp_path / "flow", made)
    again = load_renderer(tmp_path / "flow")
    assert isinstance(again, AgeFlow)
    assert (again.name, again.ages, again.settings) == ("drawn", (3.0, 88.0), made.settings)
    torch.manual_seed(0)
    images, labels = torch.rand(1, 3, 32, 32), torch.tensor([[2.0, 0.9]])
    ages = torch.tensor([[60.0]]), torch.tensor([20.0])
    assert torch.equal(again.render(images, *ages, labels), made.render(images, *ages, labels))
