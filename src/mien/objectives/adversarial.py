"""Two players: what each wants of a verdict, the discriminator's gradient penalty, and its adaptive augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.objectives.base import Reduce

#: Share of the side by which a face is shifted at most.
SHIFT = 0.125
#: Standard deviations of brightness, and of the logarithms of contrast and saturation.
BRIGHTNESS, CONTRAST, SATURATION = 0.1, 0.3, 0.5


def taken_for_real(verdicts: Tensor) -> Tensor:
    """-log of the chance that each face is taken for real, (B,): the non-saturating loss (Goodfellow et al., 2014)."""
    return F.softplus(-verdicts.float())


def taken_for_made(verdicts: Tensor) -> Tensor:
    """-log of the chance that each face is taken for made, (B,)."""
    return F.softplus(verdicts.float())


def gradient_penalty(verdict: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The squared gradient of the verdict on each real picture (B, 3, H, W) with respect to its pixels, (B,): R1
    (Mescheder et al., 2018, https://arxiv.org/abs/1801.04406, equation 9, without gamma / 2). Always in float32 at
    least, since a gradient's gradient has no digits to lose."""
    with torch.autocast(images.device.type, enabled=False), torch.enable_grad():
        leaf = images.detach().clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(verdict(leaf).sum(), leaf, create_graph=True)
        return gradient.square().sum(dim=(1, 2, 3))


class AdaptiveAugment:
    """Flips, shifts and colours that the discriminator sees all faces through, the more the better it knows them.

    Each is done to a face with probability `p`, which rises while the mean sign of the verdicts on real faces is above
    `target`, and falls below (Karras et al., 2020, https://arxiv.org/abs/2006.06676). What is seen less than always
    does not leak into the made faces, so `p` stays at or below `most`.

    Args:
        target: mean sign at which the discriminator just begins to know its faces by heart; 0: never augment.
        faces: how many faces take `p` from 0 to 1.
    """

    def __init__(self, target: float, faces: int, most: float = 0.8) -> None:
        self.target, self.faces, self.most = target, faces, most
        self.p = 0.0
        self._signs = torch.zeros(2, dtype=torch.float64)

    def __call__(self, images: Tensor) -> Tensor:
        """Float pictures (B, 3, H, W) in [0, 1], augmented; colours may leave [0, 1]. Gradients pass."""
        if self.p == 0:
            return images
        count, _, height, width = images.shape
        device = images.device

        def chosen() -> Tensor:
            return torch.rand(count, device=device) < self.p

        flips = chosen() & (torch.rand(count, device=device) < 0.5)
        x = torch.where(flips[:, None, None, None], images.flip(3), images)
        shifted = chosen()
        rows, columns = (
            (torch.arange(side, device=device) + _shifts(count, side, device)[:, None] * shifted[:, None]).clamp(
                0, side - 1
            )
            for side in (height, width)
        )
        faces = torch.arange(count, device=device)[:, None, None]
        x = x.permute(0, 2, 3, 1)[faces, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        brightness = chosen() * BRIGHTNESS * torch.randn(count, device=device)
        contrast = (chosen() * CONTRAST * torch.randn(count, device=device)).exp()
        saturation = (chosen() * SATURATION * torch.randn(count, device=device)).exp()
        grey = x.mean(dim=1, keepdim=True)
        x = grey + (x - grey) * saturation[:, None, None, None]
        return (x - 0.5) * contrast[:, None, None, None] + 0.5 + brightness[:, None, None, None]

    def see(self, verdicts: Tensor) -> None:
        """Take note of the verdicts (B,) on real faces."""
        self._signs += torch.tensor([float(verdicts.detach().sign().sum()), float(len(verdicts))], dtype=torch.float64)

    def adapt(self, reduce: Reduce) -> None:
        """Move `p` by what was seen since the last call, in all processes alike."""
        signs, seen = reduce(self._signs.clone()).tolist()
        self._signs.zero_()
        if seen and self.target:
            towards = math.copysign(1.0, signs / seen - self.target)
            self.p = min(self.most, max(0.0, self.p + towards * seen / self.faces))


def _shifts(count: int, side: int, device: torch.device) -> Tensor:
    """(count,) whole pixels, even between minus and plus the largest shift."""
    most = max(1, round(SHIFT * side))
    return torch.randint(-most, most + 1, (count,), device=device)
