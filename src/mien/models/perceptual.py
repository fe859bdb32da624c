"""How different two pictures look to a network that learnt something else: LPIPS's distance, without its weights.

Zhang et al., 2018, https://arxiv.org/abs/1801.03924, equation 1 with all weights 1: features of several depths, each
of unit length at each place, their squared difference, mean over places and depths.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mien.models.backbone import build_backbone
from mien.models.mobilefacenet import MobileFaceNet

#: Keeps the length of features that are all 0 from dividing by nothing.
TINY = 1e-6
#: Blocks of MobileFaceNet after which it is looked at: the last of each scale.
PLACES = ("dw_conv", "features.4", "features.11", "features.14")


class Perceptual(nn.Module):
    """A frozen backbone whose maps are compared. `name` and `weights` say which, for the record.

    Args:
        backbone: `mobilefacenet`, or any architecture of timm that knows its own scales.
        weights: a file of its weights; None: random ones, of use in tests alone.
    """

    def __init__(self, backbone: str = "mobilefacenet", weights: str | Path | None = None) -> None:
        super().__init__()
        self.name, self.weights = backbone, None if weights is None else str(weights)
        self.backbone = build_backbone(backbone, self.weights)
        net = self.backbone.net
        info = getattr(net, "feature_info", None)
        places = PLACES if isinstance(net, MobileFaceNet) or info is None else [str(item["module"]) for item in info]
        self._maps: list[Tensor] = []
        for place in places:
            net.get_submodule(place).register_forward_hook(lambda _module, _inputs, output: self._maps.append(output))
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Perceptual:
        """It never learns: its normalisation keeps the statistics it came with."""
        return super().train(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of each pair of uint8 or float [0, 1] pictures (B, 3, H, W): (B,) float32, 0 for equal ones."""
        pairs = zip(self._features(a), self._features(b), strict=True)
        return torch.stack([(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in pairs]).mean(dim=0)

    def _features(self, images: Tensor) -> list[Tensor]:
        self._maps.clear()
        self.backbone(images)
        maps = [m.float() / (m.float().square().sum(dim=1, keepdim=True) + TINY).sqrt() for m in self._maps]
        self._maps.clear()
        return maps
