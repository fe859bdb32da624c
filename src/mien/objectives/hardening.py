"""Pictures changed a little, so that a network errs on them more; one that learns from them stands such changes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mien.models.renderer import as_float

#: Share of the radius at which the search starts, in a direction drawn at random.
START = 0.5
#: How far all steps together would lead, in radii: beyond the ball, onto whose rim they are brought back.
REACH = 1.5


def hardened(loss: Callable[[Tensor], Tensor], images: Tensor, levels: float, steps: int = 1) -> Tensor:
    """Float pictures (B, 3, H, W) in [0, 1], no further than `levels` from uint8 or float `images`, where `loss` is
    larger: projected gradient ascent from a random place (Madry et al., 2018, https://arxiv.org/abs/1706.06083), whose
    single step is fast adversarial training (Wong et al., 2020, https://arxiv.org/abs/2001.03994), in the L2 ball.

    Gradients of a network that has learnt from them are changes of a face that a person sees (Santurkar et al., 2019,
    https://arxiv.org/abs/1906.09453), which a guide of renderers needs.

    Args:
        loss: of float pictures, a sum over faces, so that no face's search depends on the others.
        levels: the radius as the root mean square over all pixels, in levels of 255.
    """
    images = as_float(images).detach()
    radius = levels / 255 * images[0].numel() ** 0.5
    away = _towards(torch.randn_like(images), START * radius)
    for _ in range(steps):
        leaf = (images + away).clamp(0, 1).requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        away = leaf.detach() - images + _towards(gradient.float(), REACH * radius / steps)
        away = away * (radius / _length(away)).clamp(max=1)
    return (images + away).clamp(0, 1)


def _towards(direction: Tensor, length: float) -> Tensor:
    return direction * (length / _length(direction))


def _length(change: Tensor) -> Tensor:
    """(B, 1, 1, 1), never 0: a face whose loss does not depend on its pixels stays where it is."""
    return change.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
