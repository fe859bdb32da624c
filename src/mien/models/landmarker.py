"""The landmarker: from a face, cut by a detector's box, to its 68 landmarks and how far each may be off."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mien.faces import MIRRORED, Crop
from mien.models.backbone import Backbone, quickened
from mien.models.landmarks import mirrored
from mien.models.mobilefacenet import GlobalDepthwise, InvertedResidual

#: Expansion of the first and of the other blocks, channels, blocks, of each stage; each stage halves the side.
STAGES = ((2, 2, 48, 3), (4, 2, 80, 4), (4, 2, 112, 3))
#: Length of the features before the last layer.
FEATURES = 256


class LandmarkerSettings(BaseModel):
    """What the landmarker is, and what it sees."""

    model_config = ConfigDict(extra="forbid")

    width: float = Field(default=1.0, ge=0.25, le=4, description="channels, as a multiple of the plain network's")
    margin: float = Field(
        default=0.08, ge=0, le=0.5, description="what is seen around the canonical crop, as a share of its side"
    )
    frame: float = Field(
        default=0.3, ge=0, le=1, description="share of the training faces at which the picture ends within the window"
    )
    mirror: bool = Field(
        default=False, description="answer with the mean of what a face and its mirror image say, in twice the time"
    )


class Landmarker(nn.Module):
    """A face as `crop` cuts it, in any turn that a detector leaves, to 68 points.

    0.4 million parameters: MobileFaceNet's blocks, slimmer, on 112 px. Points are regressed as deviations from a
    mean face; the answer may lie outside the picture. `refuse` is the error, in eye distances, above which a fit
    is not to be trusted, None where that was not settled.
    """

    input_size = 112
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    shape: Tensor

    def __init__(self, settings: LandmarkerSettings, template: str = "chip") -> None:
        super().__init__()

        def wide(channels: int) -> int:
            return max(8, round(channels * settings.width / 8) * 8)

        channels = wide(32)
        blocks: list[nn.Module] = [
            nn.Conv2d(3, channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
        ]
        for first, others, outputs, repeats in STAGES:
            for index in range(repeats):
                expansion, stride = (first, 2) if index == 0 else (others, 1)
                blocks.append(InvertedResidual(channels, wide(outputs), stride, expansion))
                channels = wide(outputs)
        features = wide(FEATURES)
        blocks += [
            nn.Conv2d(channels, features, 1, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU6(),
            GlobalDepthwise(features),
        ]
        self.backbone = quickened(Backbone(nn.Sequential(*blocks), features, self.input_size, self.mean, self.std))
        self.points = nn.Linear(features, 68 * 2)
        self.spread = nn.Linear(features, 68)
        nn.init.zeros_(self.points.bias)
        nn.init.zeros_(self.spread.bias)
        #: The mean face in shares of the side, the origin in the middle.
        self.register_buffer("shape", torch.zeros(68, 2))
        self.settings = settings
        self.crop = Crop(template, settings.margin, self.input_size)
        self.refuse: float | None = None
        self.name = ""
        #: Terms, training data and figures, as shipped models carry them.
        self.card: dict[str, Any] = {}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Uint8 or float [0, 1] faces (B, 3, S, S) to their points and spreads, in pixels of `images`.

        Points are (B, 68, 2) float32; spreads (B, 68) are how far each is likely to be off: the mean of the
        distance under the distribution that the loss assumes. In training `mirror` is left out.
        """
        points, spread = self._look(images)
        if self.settings.mirror and not self.training:
            points_there, spread_there = self._look(images.flip(-1))
            points = (points + mirrored(points_there, images.shape[-1])) / 2
            spread = (spread + spread_there[:, MIRRORED]) / 2
        return points, spread

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        side = images.shape[-1]
        features = self.backbone(images)
        # A tenth of the layer's own output: at the start the answer is near the mean face.
        shares = self.shape + 0.1 * self.points(features).float().unflatten(1, (68, 2))
        spread = 0.05 * torch.exp(self.spread(features.detach()).float().clamp(-4, 4))
        return (shares + 0.5) * side - 0.5, spread * side


def eye_distance(points: Tensor) -> Tensor:
    """Distance of the eye centres of iBUG's points (..., 68, 2), (...)."""
    return (points[..., 42:48, :].mean(dim=-2) - points[..., 36:42, :].mean(dim=-2)).norm(dim=-1)
