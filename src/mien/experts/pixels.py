"""What published networks take their pictures to be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mien.errors import unknown

ORDERS = ("rgb", "bgr")


@dataclass(frozen=True)
class Pixels:
    """The order of the colours, the largest value, mean and deviation of each channel in that order and on that scale.

    Raises:
        MienError: an unknown order.
    """

    order: str = "rgb"
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise unknown("order of colours", self.order, ORDERS, "pixels")


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
