"""The discriminator: is this a photo of a face of that age, and of what age is it?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.models.age_transformer import FOURIER, fourier
from mien.models.renderer import as_float

#: Side of the smallest map.
SMALLEST = 4
#: Faces whose likeness is measured together.
TOGETHER = 4
SLOPE = 0.2


class Discriminator(nn.Module):
    """A residual network of pictures, without normalisation, after StyleGAN2 (Karras et al., 2020).

    It sees how alike the faces of a batch are (minibatch standard deviation, over groups of up to four of one process).
    Its verdict is projected on the age (Miyato & Koyama, 2018, https://arxiv.org/abs/1802.05637), continuous here; a
    second head tells the nearest of the anchors.

    Args:
        size: side of the pictures.
        width: channels at half the side; at most eight times as many deeper.
        anchors: (K,) years, rising: the classes of the second head.
    """

    anchors: Tensor

    def __init__(self, size: int, width: int, anchors: Sequence[float]) -> None:
        super().__init__()
        halvings = int(math.log2(size // 2 // SMALLEST))
        channels = [min(width * 2**place, 8 * width) for place in range(halvings + 1)]
        deepest = channels[-1]
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, channels[0], 3, padding=1))
        self.blocks = nn.Sequential(*(_Down(a, b) for a, b in pairwise(channels)))
        self.last = nn.Conv2d(deepest + 1, deepest, 3, padding=1)
        self.flat = nn.Linear(deepest * SMALLEST**2, deepest)
        self.verdict = nn.Linear(deepest, 1)
        self.age = nn.Sequential(nn.Linear(FOURIER, deepest), nn.SiLU(), nn.Linear(deepest, deepest))
        self.classes = nn.Linear(deepest, len(anchors))
        self.register_buffer("anchors", torch.tensor(list(anchors)), persistent=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, ages: Tensor) -> tuple[Tensor, Tensor]:
        """Verdicts (B,), above 0 for real, and logits of the anchors (B, K), both float32.

        `images` are uint8 or float [0, 1] (B, 3, size, size); `ages` (B,) years, NaN where the age is not to count.
        """
        x = (as_float(images) * 2 - 1).contiguous(memory_format=torch.channels_last)
        x = self.blocks(self.stem(x))
        x = F.leaky_relu(self.last(torch.cat([x, _likeness(x)], dim=1)), SLOPE)
        features = F.leaky_relu(self.flat(x.flatten(1)), SLOPE).float()
        with torch.autocast(images.device.type, enabled=False):
            known = (~ages.isnan()).float()[:, None]
            towards = self.age(fourier(ages.nan_to_num())) * known
            projected = (features * towards).sum(dim=1) / math.sqrt(features.shape[1])
            return self.verdict(features).squeeze(1) + projected, self.classes(features)

    def class_of(self, ages: Tensor) -> Tensor:
        """The nearest anchor's place for each age (B,) in years, (B,) int64."""
        return (ages[:, None] - self.anchors).abs().argmin(dim=1)


class _Down(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.conv1(x), SLOPE)
        y = F.leaky_relu(self.conv2(F.avg_pool2d(y, 2)), SLOPE)
        return cast(Tensor, (y + self.shortcut(F.avg_pool2d(x, 2))) * math.sqrt(0.5))


def _likeness(x: Tensor) -> Tensor:
    """One more map (B, 1, H, W): the mean standard deviation of all numbers over the faces of a group."""
    group = math.gcd(len(x), TOGETHER)
    y = x.float().unflatten(0, (group, -1))
    spread = ((y - y.mean(dim=0)).square().mean(dim=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return spread.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:]).to(x.dtype)
