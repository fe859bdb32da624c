"""Convolutions that a code modulates, without a kernel of its own for each picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Root of the inverse mean square of SiLU of a standard normal variable.
GAIN = 1.676


class Modulated(nn.Module):
    """A 3 x 3 convolution whose input channels a code scales by s, and whose output keeps its variance: times
    rsqrt(s^2 . sum w^2). The same as StyleGAN2's demodulated weights (Karras et al., 2020,
    https://arxiv.org/abs/1912.04958, equation 3) without a kernel of its own for each picture."""

    def __init__(self, inputs: int, outputs: int, code: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = nn.Linear(code, inputs)
        with torch.no_grad():
            self.scale.weight.mul_(0.3)
            self.scale.bias.fill_(1.0)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """`x` (N, inputs, H, W) and `code` (N, D) to (N, outputs, H, W), after SiLU."""
        with torch.autocast(x.device.type, enabled=False):
            scale = self.scale(code.float())
            power = self.conv.weight.float().square().sum(dim=(2, 3))
            norm = (scale.square() @ power.T + 1e-8).rsqrt()
        y = self.conv(x * scale[..., None, None].to(x.dtype))
        y = y * norm[..., None, None].to(y.dtype) + self.bias[:, None, None].to(y.dtype)
        return F.silu(y) * GAIN


class Stage(nn.Module):
    """One scale of the decoder: the coarser map twice as large, the face's own map as far as the age lets it in, and
    two modulated convolutions."""

    def __init__(self, coarse: int, fine: int, code: int) -> None:
        super().__init__()
        self.shrink = Modulated(coarse, fine, code)
        self.gate = nn.Linear(code, fine)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, 2.0)
        self.convs = nn.ModuleList([Modulated(fine, fine, code), Modulated(fine, fine, code)])

    def forward(self, x: Tensor | None, skip: Tensor, code: Tensor, ages: int) -> Tensor:
        """`x` (B * ages, coarse, h, w), None at the coarsest scale; `skip` (B, fine, H, W), the same for all ages;
        `code` (B * ages, D)."""
        gate = self.gate(code).sigmoid().unflatten(0, (-1, ages))[..., None, None]
        let_in = (skip[:, None] * gate).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if x is None:
            x = let_in
        else:
            x = F.interpolate(self.shrink(x, code), scale_factor=2.0, mode="nearest") + let_in
        for conv in self.convs:
            x = conv(x, code)
        return x
