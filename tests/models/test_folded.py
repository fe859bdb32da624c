"""Folded weights: the network computes what it did before its normalisation was folded away."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mien.errors import MienError
from mien.models.backbone import Backbone, build_backbone
from mien.models.folded import fold


class Small(nn.Module):
    """Two normalised convolutions on pictures in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, 2, 1, bias=False)
        self.b = nn.BatchNorm2d(6)
        self.c = nn.Conv2d(6, 4, 1, bias=False)
        self.d = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.c(self.b(self.a(x)).relu())).mean((2, 3))


@pytest.fixture
def folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Small, Backbone, Path]:
    """A trained network, a fresh backbone of the same shape that takes another range of input, and the file."""
    torch.manual_seed(0)
    trained = Small()
    for norm in (trained.b, trained.d):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 3)  # type: ignore[union-attr]
    arrays = {}
    for name, conv, norm in (("00_conv", trained.a, trained.b), ("01_conv", trained.c, trained.d)):
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()  # type: ignore[operator]
        arrays[f"{name}.weight"] = (conv.weight * scale[:, None, None, None]).detach().numpy()
        arrays[f"{name}.bias"] = (norm.bias - norm.running_mean * scale).detach().numpy()  # type: ignore[operator]
    arrays |= {"02_classes.weight": np.zeros((9, 4, 1, 1), np.float32), "02_classes.bias": np.zeros(9, np.float32)}
    file = tmp_path / "folded.npz"
    np.savez(file, **arrays)
    made = Backbone(Small(), 4, 16, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    monkeypatch.setattr("mien.models.backbone._timm_backbone", lambda *_: made)
    return trained.eval(), build_backbone("small", str(file)), file


def test_it_computes_what_the_folded_network_did(folded: tuple[Small, Backbone, Path]) -> None:
    trained, backbone, _ = folded
    assert backbone.folded
    backbone.eval()
    images = torch.rand(5, 3, 17, 17)
    # At an even size a stride of 2 leaves the first row padded: compare convolutions without padding instead.
    trained.a.padding = backbone.net.a.padding = (0, 0)  # type: ignore[union-attr]
    backbone.input_size = 17
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), trained(images * 2 - 1), rtol=1e-4, atol=1e-5)


def test_unfolding_changes_nothing_in_evaluation_and_normalises_in_training(
    folded: tuple[Small, Backbone, Path],
) -> None:
    _, backbone, _ = folded
    images = torch.rand(32, 3, 16, 16)
    backbone.eval()
    with torch.no_grad():
        before = backbone(images)
        backbone.unfold(images)
        assert not backbone.folded
        torch.testing.assert_close(backbone(images), before, rtol=1e-4, atol=1e-4)
        backbone.train()
        # The statistics of a batch are now those that the layers remember: training starts where evaluation is.
        torch.testing.assert_close(backbone(images), before, rtol=1e-3, atol=1e-3)


def test_weights_of_another_network_are_refused(folded: tuple[Small, Backbone, Path], tmp_path: Path) -> None:
    _, _, file = folded
    with np.load(file) as arrays:
        changed = dict(arrays)
    changed["01_conv.weight"] = np.zeros((4, 7, 1, 1), np.float32)
    np.savez(file, **changed)
    with pytest.raises(MienError, match=r"not weights of small: convolution 1 is \(4, 7, 1, 1\), expected \(4, 6, 1"):
        build_backbone("small", str(file))
    bad = tmp_path / "bad.npz"
    bad.write_bytes(file.read_bytes()[:100])
    with pytest.raises(MienError, match="not a table of folded convolutions"):
        build_backbone("small", str(bad))
    with pytest.raises(MienError, match="no such file"):
        build_backbone("small", str(tmp_path / "none.npz"))


class Shared(nn.Module):
    """A convolution whose output is used twice, which cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.weight, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.norm(x)


@pytest.mark.parametrize("name", ["mobilefacenet", "mobilenetv3_small_100", "test_resnet", "test_convnext"])
def test_a_folded_copy_answers_alike(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, None, 64 if name != "mobilefacenet" else None)
    norms = [part for part in backbone.net.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.running_mean.normal_(std=0.2)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    backbone.eval()
    images = torch.rand(2, 3, backbone.input_size, backbone.input_size)
    with torch.no_grad():
        wanted = backbone(images)
        made = fold(backbone.net, images)
        found = made(images).flatten(1)
    assert (made is backbone.net) is (not norms)
    assert not any(type(part) is nn.BatchNorm2d for part in made.modules())
    torch.testing.assert_close(found, backbone.net(images).flatten(1), rtol=1e-3, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(images), wanted, rtol=1e-3, atol=1e-4)
        if norms:
            assert backbone._quick is not None
            first = backbone._quick[1]
            backbone(images)
            assert backbone._quick[1] is first
    assert sorted(backbone.state_dict()) == sorted(pickle.loads(pickle.dumps(backbone)).state_dict())
    assert not any("_quick" in key for key in backbone.state_dict())


def test_what_cannot_be_folded_is_left_as_it_is() -> None:
    net = Shared().eval()
    assert fold(net, torch.rand(1, 3, 4, 4)) is net


def test_whoever_watches_a_layer_sees_the_network_as_it_is() -> None:
    backbone = build_backbone("test_resnet", None, 32).eval()
    seen: list[Tensor] = []
    with torch.inference_mode():
        plain = backbone(torch.ones(1, 3, 32, 32))
        watch = next(backbone.net.children()).register_forward_hook(lambda _, __, output: seen.append(output))
        watched = backbone(torch.ones(1, 3, 32, 32))
        watch.remove()
        backbone(torch.ones(1, 3, 32, 32))
    assert len(seen) == 1
    torch.testing.assert_close(watched, plain, rtol=1e-3, atol=1e-4)


def test_changed_weights_are_folded_anew() -> None:
    backbone = build_backbone("test_resnet", None, 32).eval()
    images = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        before = backbone(images)
    with torch.no_grad():
        next(backbone.net.parameters()).mul_(2)
        wanted = backbone(images)
    with torch.inference_mode():
        after = backbone(images)
    torch.testing.assert_close(after, wanted, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(before, after, rtol=1e-2)
    # Training afterwards leaves the copy alone, and learns.
    backbone.train()(images.repeat(2, 1, 1, 1)).sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.net.parameters())
