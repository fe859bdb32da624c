"""What heads share: the layers before the last one, and the precision in which losses are computed."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def hidden_layer(inputs: int, width: int) -> tuple[nn.Module, int]:
    """One hidden layer of `width` (0: none), and the width of what comes out of it."""
    if width == 0:
        return nn.Identity(), inputs
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU()), width


def precise(tensor: Tensor) -> Tensor:
    """`tensor` in float32, or in float64 where it is that: losses never run in half precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def summed(per_face: Tensor, weights: Tensor | None, rows: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of `per_face` (n,), each times its weight, and n) for the labelled `rows` (n,) of a batch."""
    if weights is not None:
        per_face = per_face * weights[rows].to(per_face.dtype)
    return per_face.sum(), per_face.new_tensor(float(len(rows)))
