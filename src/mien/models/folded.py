"""Batch normalisation folded into the convolutions before it: weights that come so, as mobile runtimes store them, and
networks made so, which are quicker to ask."""

from __future__ import annotations

import copy
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mien.errors import MienError


def read_folded(path: Path) -> list[tuple[Tensor, Tensor]]:
    """The convolutions of a .npz file in the order of their names: weights (out, in, h, w) and biases (out,).

    The file holds `<name>.weight` and `<name>.bias` for each; nothing in it is executed.

    Raises:
        MienError: no such file, or it holds something else.
    """
    if not path.is_file():
        raise MienError(f"model.weights {path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = sorted({name.rsplit(".", 1)[0] for name in arrays.files})
            return [
                (torch.from_numpy(arrays[f"{name}.weight"]), torch.from_numpy(arrays[f"{name}.bias"])) for name in names
            ]
    except (KeyError, OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise MienError(
            f"model.weights {path}: not a table of folded convolutions, NAME.weight and NAME.bias for each: {error}"
        ) from None


def load_folded(net: nn.Module, path: Path, name: str, mean: Tensor, std: Tensor) -> None:
    """Give the convolutions of `net`, in the order of its modules, the weights of `path`, and the normalisation after
    each the bias alone. A classifier at the end of the file is left out.

    The file's network takes pictures in [-1, 1], `net` such with `mean` and `std` (3,): the first convolution takes up
    the difference. In evaluation `net` then computes what the folded network did, but for the outermost pixels, which
    are padded with mean colour instead of grey. For training, `unfold` gives the normalisation back. Networks trained
    with TensorFlow pad unevenly where they stride; at input sizes of 32 k + 1 pixels (97, 129, 161, ...) that is the
    same as the even padding here.

    Raises:
        MienError: the convolutions are not those of `net`.
    """
    pairs = _pairs(net)
    found = read_folded(path)[: len(pairs)]
    own = [tuple(conv.weight.shape) for conv, _ in pairs]
    given = [tuple(weight.shape) for weight, _ in found]
    if own != given:
        place = next((i for i, (a, b) in enumerate(zip(own, given, strict=False)) if a != b), len(given))
        there = given[place] if place < len(given) else "missing"
        raise MienError(
            f"model.weights {path}: these are not weights of {name}: convolution {place} is {there}, expected "
            f"{own[place]}"
        )
    weight, bias = found[0]
    mean, std = mean.reshape(3), std.reshape(3)
    bias = bias + torch.einsum("ochw,c->o", weight, 2 * mean - 1)
    found[0] = (weight * 2 * std[:, None, None], bias)
    with torch.no_grad():
        for (conv, norm), (weight, bias) in zip(pairs, found, strict=True):
            conv.weight.copy_(weight)
            norm.weight.fill_(1.0)
            norm.bias.copy_(bias)
            running_mean, running_var = _statistics(norm)
            running_mean.zero_()
            running_var.fill_(1.0 - norm.eps)


@torch.no_grad()
def unfold(net: nn.Module, images: Tensor) -> None:
    """Give normalisation layers the statistics of `images` (B, 3, H, W), as the network takes them, and the scale and
    bias that undo them: in evaluation nothing changes, and training starts from there instead of from chaos."""
    training = net.training
    net.eval()
    hooks = []

    def settle(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].float()
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        running_mean, running_var = _statistics(norm)
        scale = norm.weight / (running_var + norm.eps).sqrt()
        norm.bias.add_(scale * (mean - running_mean))
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        running_mean.copy_(mean)
        running_var.copy_(variance)

    try:
        for _, norm in _pairs(net):
            hooks.append(norm.register_forward_pre_hook(settle))
        net(images)
    finally:
        for hook in hooks:
            hook.remove()
        net.train(training)


def fold(net: nn.Module, images: Tensor) -> nn.Module:
    """A copy of `net` for evaluation without the batch normalisations that follow a convolution, which takes their
    place: same answers to rounding, a fifth less time on processors. `net` itself where there are none, or where the
    copy does not answer `images` (B, 3, H, W), as the network takes them, alike.
    """
    made = copy.deepcopy(net).eval()
    # Whose output goes into which normalisation is seen while it runs: names and order do not tell.
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = module, output  # kept, so that no other tensor gets its number
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in outputs and module.track_running_stats:
            pairs.append((outputs[id(inputs[0])][0], module))

    hooks = [part.register_forward_hook(watch) for part in made.modules()]
    with torch.no_grad():
        answer = made(images)
        for hook in hooks:
            hook.remove()
        names = {part: name for name, part in made.named_modules()}
        for conv, norm in pairs:
            mean, variance = _statistics(norm)
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
            )
            where, _, name = names[norm].rpartition(".")
            # timm's normalisations carry an activation with them.
            rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
            setattr(made.get_submodule(where), name, nn.Sequential(*rest))
        close = bool(pairs) and torch.allclose(answer, made(images), rtol=1e-3, atol=1e-3 * float(answer.abs().max()))
    return made if close else net


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def _pairs(net: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each convolution with the normalisation that follows it, in the order of the modules."""
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    last: nn.Conv2d | None = None
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            last = module
        elif isinstance(module, nn.BatchNorm2d) and last is not None:
            pairs.append((last, module))
            last = None
    return pairs
