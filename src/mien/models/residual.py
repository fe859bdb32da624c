"""The residual block that renderers and autoencoders are built of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

#: Groups of a group norm; channels are a multiple of it.
GROUPS = 8


class Block(nn.Module):
    """A residual block: GroupNorm, SiLU, convolution, twice; modulated before the second where it is told something.

    The second convolution starts at zero, the block thus as its shortcut.
    """

    def __init__(self, inputs: int, outputs: int, told: int = 0, stride: int = 1, grow: bool = False) -> None:
        super().__init__()
        self.stride, self.grow = stride, grow
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, inputs), nn.GroupNorm(GROUPS, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.modulation = nn.Linear(told, 2 * outputs) if told else None
        nn.init.zeros_(self.conv2.weight)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = F.silu(self.norm1(x))
        if self.grow:
            h, x = F.interpolate(h, scale_factor=2.0), F.interpolate(self.shortcut(x), scale_factor=2.0)
        else:
            x = self.shortcut(F.avg_pool2d(x, self.stride) if self.stride > 1 else x)
        h = self.norm2(self.conv1(h))
        if self.modulation is not None and condition is not None:
            scale, shift = self.modulation(condition)[..., None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return x + self.conv2(F.silu(h))
