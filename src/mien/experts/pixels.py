"""What published networks take their pictures to be."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import ConfigDict, PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Pixels:
    """The order of the colours, the largest value, mean and deviation of each channel in that order and on that scale.

    Raises:
        ValidationError: an unknown order, a scale or deviation that is not above 0.
    """

    order: Literal["rgb", "bgr"] = "rgb"
    scale: PositiveFloat = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)


#: Networks trained with Caffe take blue first and 0-255 (the means of VGG-Face and ImageNet); those trained with
#: torchvision red first and 0-1. Which of them weights want has to be known: the wrong one costs years and no error.
PIXELS: dict[str, Pixels] = {
    "torchvision": Pixels("rgb", 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": Pixels("bgr", 255.0, (103.939, 116.779, 123.68)),
    "vggface": Pixels("bgr", 255.0, (93.594, 104.762, 129.186)),
}


def prepared(images: Tensor, pixels: Pixels) -> Tensor:
    """Uint8 RGB pictures (B, 3, H, W) as the network was trained on them, float32."""
    x = images.float() * (pixels.scale / 255)
    if pixels.order == "bgr":
        x = x.flip(1)
    mean, std = (torch.tensor(values, device=x.device).view(1, 3, 1, 1) for values in (pixels.mean, pixels.std))
    return (x - mean) / std


def view(image: np.ndarray, mirrored: bool, share: float) -> np.ndarray:
    """The middle of a picture (3, H, W), `share` of each side, mirrored if so asked."""
    height, width = image.shape[1:]
    top, left = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    kept = image[:, top : height - top, left : width - left]
    return kept[:, :, ::-1] if mirrored else kept
