"""Pictures changed so that a network errs more: within the radius, and truly harder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mien.objectives.hardening import hardened

LEVELS = 4.0


def pictures() -> Tensor:
    return torch.randint(20, 236, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_linear_loss_is_climbed_to_the_rim() -> None:
    slope = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))
    images = pictures().float() / 255
    made = hardened(lambda x: (x * slope).sum(), pictures(), LEVELS, steps=8)
    # The worst place of an L2 ball is its rim in the gradient's direction.
    assert torch.cosine_similarity((made - images).flatten(1), slope.flatten()[None]).min() > 0.94
    away = (made - images).square().mean(dim=(1, 2, 3)).sqrt() * 255
    torch.testing.assert_close(away, torch.full((3,), LEVELS))


@pytest.mark.parametrize("steps", [1, 3])
def test_no_picture_leaves_the_ball_or_the_range_and_every_loss_grows(steps: int) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU(), torch.nn.Flatten(), torch.nn.Linear(1568, 1))
    images = pictures()
    images[0] = 255

    def loss(x: Tensor) -> Tensor:
        return net(x).square().sum()

    made = hardened(loss, images, LEVELS, steps)
    assert not made.requires_grad
    assert made.min() >= 0
    assert made.max() <= 1
    before = images.float() / 255
    assert ((made - before).square().mean(dim=(1, 2, 3)).sqrt() * 255).max() <= LEVELS * 1.0001
    with torch.no_grad():
        assert (net(made).square() > net(before).square())[1:].all()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_face_without_a_loss_stays_finite_and_moves_no_other() -> None:
    images = pictures()

    def loss(x: Tensor) -> Tensor:
        return x[1:].square().sum()

    torch.manual_seed(0)
    made = hardened(loss, images, LEVELS, steps=2)
    assert made.isfinite().all()
    assert made[1:].mean() > images[1:].float().mean() / 255
