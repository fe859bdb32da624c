from __future__ import annotations

import pytest
import torch

from mien.objectives.guides import GRAIN, jittered, without_colour


def test_jittered_pictures_differ_each_time_stay_pictures_and_pass_the_gradient() -> None:
    torch.manual_seed(0)
    images = torch.full((4, 3, 16, 16), 0.5, requires_grad=True)
    first, second = jittered(images, 1.0), jittered(images, 1.0)
    assert not torch.equal(first, second)
    # A plain picture stays plain whatever way it is turned: what is left is grain of no mean.
    assert abs(float(first.detach().mean()) - 0.5) < 0.01
    assert float(first.detach().std()) < 2 * GRAIN
    first.sum().backward()
    assert images.grad is not None
    assert float(images.grad.sum()) == pytest.approx(first.numel(), rel=0.25)
    assert torch.equal(jittered(images, 0.0), images)


def test_jittered_pictures_are_turned_scaled_and_shifted_each_in_its_own_way() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 32).expand(8, 3, 32, 32).contiguous()
    made = jittered(ramp, 1.0)
    assert made.mean(dim=(1, 2, 3)).std() > 0.01
    turned = made[:, :, -8:].mean(dim=(1, 2, 3)) - made[:, :, :8].mean(dim=(1, 2, 3))
    assert turned.abs().mean() > 0.01


def test_without_colour_chosen_faces_are_grey_at_all_ages_and_as_bright() -> None:
    images = torch.rand(3, 2, 3, 8, 8)
    made = without_colour(images, torch.tensor([True, False, True]))
    assert torch.equal(made[1], images[1])
    for row in (0, 2):
        torch.testing.assert_close(made[row, :, 0], made[row, :, 2])
        luma = 0.299 * images[row, :, 0] + 0.587 * images[row, :, 1] + 0.114 * images[row, :, 2]
        torch.testing.assert_close(made[row, :, 1], luma)
    assert without_colour(images, torch.zeros(3, dtype=torch.bool)) is images
