"""Deep EXpectation: a softmax over the ages 0-100 on ResNet50 or VGG16, the age its expectation (Rothe, Timofte & Van
Gool, "Deep expectation of real and apparent age from a single image without facial landmarks", IJCV 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mien.data.pictures import resize
from mien.errors import MienError, unknown
from mien.experts.base import Answers
from mien.experts.pixels import PIXELS, prepared
from mien.models.backbone import read_weights

AGES = 101
#: Side of the pictures that the networks take.
SIZE = 224


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
        return Answers.expected(shares.numpy(), np.arange(AGES, dtype=np.float64))


def build(architecture: str) -> nn.Module:
    """The network with random weights and 101 outputs."""
    import timm

    network: nn.Module = timm.create_model(architecture, num_classes=AGES)
    return network


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
