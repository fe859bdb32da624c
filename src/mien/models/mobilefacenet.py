"""MobileFaceNet (Chen et al., 2018, https://arxiv.org/abs/1804.07573): one million parameters for a face of 112 px."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

#: Expansion, output channels, repeats and first stride of each group of inverted residuals (table 1 of the paper).
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a shortcut where shapes allow (MobileNetV2's block)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _conv(inputs, hidden),
            _conv(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class SeparableConv(nn.Module):
    """A 3x3 filter on each channel, then a 1x1 mix."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.depthwise(x)))
        return self.relu(self.bn2(self.pointwise(x)))


class GlobalDepthwise(nn.Module):
    """One learnt weight for each place of each channel, in the place of average pooling: (B, C, 7, 7) to (B, C, 1, 1).

    A face is aligned, so a place means something. Of pictures larger than 112 px the map is larger too; it is averaged
    to 7 x 7 places, so that weights learnt at one size serve at another.
    """

    places = 7

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, self.places, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.places:
            x = F.adaptive_avg_pool2d(x, self.places)
        return self.bn(self.depthwise(x))


class MobileFaceNet(nn.Module):
    """Normalised faces (B, 3, S, S) to features (B, 512), or to identity embeddings (B, `embedding`); S is 112 or a
    larger multiple of 16.

    The names of the parameters are those of the published PyTorch weights with 99.48 % on LFW, so that they load
    as they are; without an `embedding` the last two layers are left out.
    """

    input_size = 112
    strides = 16
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, embedding: int = 0) -> None:
        super().__init__()
        self.conv1 = _conv(3, 64, 3, 2)
        self.dw_conv = SeparableConv(64)
        blocks: list[nn.Module] = []
        channels = 64
        for expansion, outputs, repeats, stride in STAGES:
            for index in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, stride if index == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*blocks)
        self.conv2 = _conv(channels, 512)
        self.gdconv = GlobalDepthwise(512)
        self.num_features = embedding or 512
        if embedding:
            self.conv3 = nn.Conv2d(512, embedding, 1)
            self.bn = nn.BatchNorm2d(embedding)
        self.embedding = embedding

    def forward(self, x: Tensor) -> Tensor:
        x = self.gdconv(self.conv2(self.features(self.dw_conv(self.conv1(x)))))
        if self.embedding:
            x = self.bn(self.conv3(x))
        return x.flatten(1)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which depth, in timm's form."""
        return {
            "stem": r"^conv1|^dw_conv",
            "blocks": [(r"^features\.(\d+)", None), (r"^conv2|^gdconv|^conv3|^bn", (99999,))],
        }
