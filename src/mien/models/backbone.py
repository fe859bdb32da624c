"""Backbones: MobileFaceNet and any architecture of timm, by name, with weights from a path or, when asked, the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mien.errors import MienError, nearest
from mien.models.folded import fold, load_folded, unfold
from mien.models.mobilefacenet import MobileFaceNet

#: The value of `model.weights` that allows timm to download its pretrained weights.
HUB = "hub"


class WideDepthwise(nn.Conv2d):
    """A grouped convolution that strides or is 7 px wide: computed in float32 where a processor's autocast asks bf16.

    Its backward pass has no fast bf16 kernel on processors: 257 against 87 ms at (64, 128, 56, 56) with stride 2,
    183 against 23 ms at (64, 512, 14, 14). It nearly halves a training step of MobileFaceNet. Same parameters,
    same result.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's own name)
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(torch.get_autocast_dtype("cpu"))


class Backbone(nn.Module):
    """Pictures in [0, 1] to features.

    It owns its pixels: mean and standard deviation are its buffers, pictures of another size are resized to
    `input_size`. `features` is the length of what it returns.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, features: int, input_size: int, mean: Any, std: Any) -> None:
        super().__init__()
        self.net = net
        self.features = features
        self.input_size = input_size
        #: Its weights came without normalisation, which `unfold` has to give back before it is trained.
        self.folded = False
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self._quick: tuple[list[tuple[int, int]], nn.Module] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Uint8 or float [0, 1] pictures (B, 3, H, W) to features (B, `features`).

        In torch's inference mode they come from a copy whose normalisation is folded away, the same to rounding.
        """
        x = self._normalised(images)
        net = self._folded_net(x) if torch.is_inference_mode_enabled() and not self.training else self.net
        return net(x).flatten(1)

    def _folded_net(self, x: Tensor) -> nn.Module:
        """`net` folded; anew where a weight has changed since."""
        weights = [*self.net.parameters(), *self.net.buffers()]
        # Weights made in inference mode do not tell when they change; and whoever watches layers means those of `net`.
        watched = any(part._forward_hooks or part._forward_pre_hooks for part in self.net.modules())
        if watched or any(weight.is_inference() for weight in weights):
            return self.net
        state = [(weight.data_ptr(), weight._version) for weight in weights]
        if self._quick is None or self._quick[0] != state:
            self._quick = state, fold(self.net, x[:1])
        return self._quick[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_quick": None}

    def unfold(self, images: Tensor) -> None:
        """Ready folded weights for training, by the statistics of some training pictures; nothing for others."""
        if self.folded:
            unfold(self.net, self._normalised(images))
            self.folded = False

    def _normalised(self, images: Tensor) -> Tensor:
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        if x.shape[-2:] != (self.input_size, self.input_size):
            x = nn.functional.interpolate(
                x, (self.input_size, self.input_size), mode="bilinear", antialias=True, align_corners=False
            )
        x = (x - self.mean) / self.std
        # Depthwise convolutions on CPU and tensor cores on CUDA are a third faster with the channels last.
        return x.contiguous(memory_format=torch.channels_last)

    def depths(self) -> list[list[str]]:
        """Names of the parameters at each depth, from the picture to the features."""
        names = [name for name, _ in self.net.named_parameters()]
        if not hasattr(self.net, "group_matcher"):
            return [[f"net.{name}" for name in names]]
        from timm.models import group_parameters

        net: Any = self.net
        groups = group_parameters(net, net.group_matcher(coarse=False))
        return [[f"net.{name}" for name in groups[depth]] for depth in sorted(groups)]


class Joined(nn.Module):
    """Several backbones that look at the same pictures, each at its own size: their features side by side.

    With a linear head it answers as the mean of as many estimators with a backbone each (`models.join`).
    """

    def __init__(self, parts: Sequence[Backbone]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.features = sum(part.features for part in parts)
        #: Pictures of the largest size that any of them sees; the others shrink them.
        self.input_size = max(part.input_size for part in parts)

    def forward(self, images: Tensor) -> Tensor:
        """Uint8 or float [0, 1] pictures (B, 3, H, W) to features (B, `features`)."""
        return torch.cat([part(images) for part in self.parts], dim=1)

    @property
    def folded(self) -> bool:
        return any(part.folded for part in self._each())

    def unfold(self, images: Tensor) -> None:
        """See `Backbone.unfold`."""
        for part in self._each():
            part.unfold(images)

    def depths(self) -> list[list[str]]:
        """Names of the parameters at each depth; the last layers of all are at the last."""
        merged: list[list[str]] = []
        for number, part in enumerate(self._each()):
            own = [[f"parts.{number}.{name}" for name in names] for names in part.depths()]
            merged = [[] for _ in range(len(own) - len(merged))] + merged
            for place, names in enumerate(reversed(own), 1):
                merged[-place] = merged[-place] + names
        return merged

    def _each(self) -> list[Backbone]:
        return [cast(Backbone, part) for part in self.parts]


def build_backbone(name: str, weights: str | None = None, input_size: int | None = None) -> Backbone:
    """The backbone called `name`: `mobilefacenet`, or any architecture of timm.

    Args:
        name: the architecture.
        weights: a file of weights (.safetensors, .pt/.pth, or .npz of folded convolutions, read without executing
            anything), "hub" to let timm download its own, or None for random ones.
        input_size: side in pixels to which pictures are resized; None for the architecture's own.

    Raises:
        MienError: the name is unknown, the size is not supported, or the weights are of another network.
    """
    if name == "mobilefacenet":
        side = input_size or MobileFaceNet.input_size
        if side < MobileFaceNet.input_size or side % MobileFaceNet.strides:
            raise MienError(
                f"model.input_size {input_size}: mobilefacenet takes {MobileFaceNet.input_size} px or a larger "
                f"multiple of {MobileFaceNet.strides}; leave it out, or choose an architecture of timm"
            )
        if weights == HUB:
            raise MienError("model.weights hub: mobilefacenet is not on timm's hub; give the path of its weights")
        net: nn.Module = MobileFaceNet()
        backbone = Backbone(net, 512, side, MobileFaceNet.mean, MobileFaceNet.std)
    else:
        backbone = _timm_backbone(name, weights == HUB, input_size)
    if weights not in (None, HUB):
        path = Path(str(weights))
        if path.suffix == ".npz":
            load_folded(backbone.net, path, name, backbone.mean, backbone.std)
            backbone.folded = True
        else:
            _load_weights(backbone.net, path, name)
    return quickened(backbone)


def quickened(backbone: Backbone) -> Backbone:
    """The same backbone with its weights laid out, and its slow convolutions computed, as is quickest."""
    for module in backbone.net.modules():
        if type(module) is nn.Conv2d and module.groups > 1 and (module.stride[0] > 1 or module.kernel_size[0] >= 7):
            module.__class__ = WideDepthwise
    return backbone.to(memory_format=torch.channels_last)


def _timm_backbone(name: str, pretrained: bool, input_size: int | None) -> Backbone:
    import timm

    if not timm.is_model(name):
        raise MienError(
            f"model.backbone {name!r} is neither mobilefacenet nor an architecture of timm"
            f"{nearest(name, ['mobilefacenet', *timm.list_models()])}"
        )

    net: Any
    try:
        try:
            # Only networks with positions fixed at construction (transformers) need to be told the size.
            told: dict[str, Any] = {} if input_size is None else {"img_size": input_size}
            net = timm.create_model(name, pretrained=pretrained, num_classes=0, **told)
        except TypeError:
            net = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (OSError, RuntimeError, ArithmeticError) as error:
        if pretrained:
            raise MienError(f"model.weights hub: timm could not fetch {name}: {_first_line(error)}") from None
        raise _of_another_size(name, input_size, error) from None
    config = net.pretrained_cfg
    size = input_size or config.get("input_size", (3, 224, 224))[-1]
    # A network's head may widen its features (MobileNet-V3), so the length is asked of the network itself.
    was_training = net.training
    try:
        with torch.no_grad():
            features = net.eval()(torch.zeros(1, 3, size, size)).flatten(1).shape[1]
    except (ArithmeticError, AssertionError, RuntimeError, ValueError) as error:
        raise _of_another_size(name, input_size, error) from None
    net.train(was_training)
    return Backbone(net, features, size, config["mean"], config["std"])


def _of_another_size(name: str, input_size: int | None, error: Exception) -> MienError:
    """What is said of a network that cannot be built for, or does not take, pictures of a size."""
    if input_size is None:
        return MienError(f"model.backbone {name} cannot be built: {_first_line(error)}; take another")
    return MienError(
        f"model.input_size {input_size}: {name} does not take pictures of that size: {_first_line(error)}; leave it "
        "out for the network's own, or take another"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _load_weights(net: nn.Module, path: Path, name: str) -> None:
    if not path.is_file():
        raise MienError(
            f"model.weights {path}: no such file; model.init=NAME starts from a shipped model instead (`mien models`)"
        )
    state = read_weights(path, "model.weights")
    own = net.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    missing = sorted(set(own) - set(fitting))
    # Buffers that count batches are absent from some exports and mean nothing here.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing:
        raise MienError(
            f"model.weights {path}: these are not weights of {name}: {len(missing)} of {len(own)} tensors are missing "
            f"or of another shape, the first is {missing[0]}"
        )
    net.load_state_dict(fitting, strict=False)


def read_weights(path: Path, setting: str = "") -> Mapping[str, Tensor]:
    """The tensors of a .safetensors, .pt or .pth file by name; nothing in the file is executed. `setting` names it in
    errors.

    Raises:
        MienError: there is no such file, or it holds no named tensors.
    """
    place = f"{setting} {path}".lstrip()
    if not path.is_file():
        raise MienError(f"{place}: no such file of weights; mien models lists where to get some")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise MienError(f"{place}: cannot be read as weights: {_why(error, path)}") from None
    for wrapper in ("state_dict", "model", "model_state_dict", "params_ema", "params"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise MienError(f"{place}: holds no plain table of named tensors")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _why(error: Exception, path: Path) -> str:
    """Why a file is no weights. torch's own words may be the number of a byte, or the advice to run what is in it."""
    if path.suffix == ".safetensors":
        return f"{str(error).splitlines()[0]}; get it again"
    code = re.search(r"GLOBAL (\S+)", str(error))
    if code:
        return f"it wants {code[1]} to be run, which mien never does; save its tensors alone, as .safetensors"
    return "torch finds no tensors in it; get it again, or save its tensors as .safetensors"
