"""Deep EXpectation: a softmax over the ages 0-100 on ResNet50 or VGG16, the age its expectation (Rothe, Timofte & Van
Gool, "Deep expectation of real and apparent age from a single image without facial landmarks", IJCV 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mien.data.pictures import resize
from mien.errors import MienError, unknown
from mien.experts.base import Answers
from mien.models.backbone import read_weights

AGES = 101
#: Side of the pictures that the networks take.
SIZE = 224


@dataclass(frozen=True)
class Pixels:
    """What a network takes its pictures to be: the order of the colours, the largest value, mean and deviation of each
    channel in that order and on that scale."""

    order: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


#: Networks trained with Caffe take blue first and 0-255 (the means of VGG-Face and ImageNet); those trained with
#: torchvision red first and 0-1. Which of them weights want has to be known: the wrong one costs years and no error.
PIXELS: dict[str, Pixels] = {
    "torchvision": Pixels("rgb", 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": Pixels("bgr", 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "vggface": Pixels("bgr", 255.0, (93.594, 104.762, 129.186), (1.0, 1.0, 1.0)),
}


class Dex:
    """A ResNet50 or VGG16 with 101 outputs, from a state dict with torchvision's or timm's names of the layers.

    Its confidence is minus the standard deviation of its distribution over ages, its variance that distribution's.

    Args:
        architecture: `resnet50` or `vgg16`.
        weights: a .safetensors, .pt or .pth file, read without executing anything; None leaves them random.
        pixels: which of `PIXELS` the weights were trained on.

    Raises:
        MienError: an unknown architecture or kind of pixels, or weights of another network.
    """

    def __init__(
        self,
        architecture: str,
        weights: str | Path | None,
        pixels: str = "torchvision",
        name: str | None = None,
        terms: str = "those of the file",
        device: str = "cpu",
    ) -> None:
        if architecture not in ("resnet50", "vgg16"):
            raise unknown("architecture", architecture, ("resnet50", "vgg16"), "an expert of kind dex")
        if pixels not in PIXELS:
            raise unknown("pixels", pixels, PIXELS, "an expert of kind dex")
        self.name = name or f"dex-{architecture}"
        self.terms = terms
        self.pixels = PIXELS[pixels]
        self.device = device
        self.network = build(architecture)
        if weights is not None:
            self.network.load_state_dict(convert(read_weights(Path(weights)), self.network, str(weights)))
        self.network.eval().to(device)

    @torch.inference_mode()
    def ask(self, images: Sequence[np.ndarray]) -> Answers:
        """See `Expert.ask`."""
        batch = torch.from_numpy(np.stack([resize(image, SIZE) for image in images])).to(self.device)
        shares = self.network(prepared(batch, self.pixels)).cpu().double().softmax(1)
        ages = torch.arange(AGES, dtype=torch.float64)
        expected = shares @ ages
        variance = (shares * (ages - expected[:, None]) ** 2).sum(1)
        return Answers(expected.numpy(), -variance.sqrt().numpy(), variance.numpy())


def build(architecture: str) -> nn.Module:
    """The network with random weights and 101 outputs."""
    import timm

    network: nn.Module = timm.create_model(architecture, num_classes=AGES)
    return network


def prepared(images: Tensor, pixels: Pixels) -> Tensor:
    """Uint8 RGB pictures (B, 3, H, W) as the network was trained on them."""
    x = images.float() * (pixels.scale / 255)
    if pixels.order == "bgr":
        x = x.flip(1)
    mean, std = (torch.tensor(values, device=x.device).view(1, 3, 1, 1) for values in (pixels.mean, pixels.std))
    return (x - mean) / std


def convert(state: Mapping[str, Tensor], network: nn.Module, where: str) -> dict[str, Tensor]:
    """A published state dict in timm's names: torchvision's VGG16 ends in `classifier.0/3/6`, whose first two layers
    are convolutions in timm; a ResNet50's names are the same, its last layer may be called otherwise.

    Raises:
        MienError: a tensor is missing or of another shape; the message names the first.
    """
    renamed = {
        "classifier.0": "pre_logits.fc1",
        "classifier.3": "pre_logits.fc2",
        "classifier.6": "head.fc",
        "fc8": "head.fc" if hasattr(network, "head") else "fc",
        "age": "head.fc" if hasattr(network, "head") else "fc",
    }
    own = network.state_dict()
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        key = f"{renamed.get(layer, layer)}.{kind}"
        if key in own and value.numel() == own[key].numel() and value.ndim != own[key].ndim:
            value = value.reshape(own[key].shape)
        result[key] = value
    wrong = [key for key in own if key not in result or result[key].shape != own[key].shape]
    if wrong:
        there = tuple(result[wrong[0]].shape) if wrong[0] in result else "missing"
        raise MienError(
            f"{where}: not a DEX state dict of this network: {wrong[0]} is {there}, expected "
            f"{tuple(own[wrong[0]].shape)}; {len(wrong)} of {len(own)} tensors do not fit"
        )
    return {key: result[key] for key in own}
