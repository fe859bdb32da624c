"""DEX: expectations over ages, published names of layers, the right colours on the right scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mien.errors import MienError
from mien.experts import dex
from mien.experts.dex import Dex, convert
from mien.experts.pixels import prepared


class Tiny(nn.Module):
    """Stands in for a network of 101 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 8)
        self.fc = nn.Linear(4, 101)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


class TinyVgg(nn.Module):
    """Layers of VGG16's head as timm has them, small."""

    def __init__(self) -> None:
        super().__init__()
        self.pre_logits = nn.ModuleDict({"fc1": nn.Conv2d(2, 5, 3), "fc2": nn.Conv2d(5, 5, 1)})
        self.head = nn.ModuleDict({"fc": nn.Linear(5, 101)})


def test_the_age_is_the_expectation_and_the_confidence_its_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(dex, "build", lambda _: Tiny())
    expert = Dex("resnet50", None)
    assert not expert.network.training  # dropout and the statistics of a batch have no say
    images = [np.random.default_rng(n).integers(0, 256, (3, 60 + n, 60), dtype=np.uint8) for n in range(3)]
    answers = expert.ask(images)
    batch = torch.from_numpy(np.stack([dex.resize(image, 224) for image in images]))
    with torch.no_grad():
        shares = expert.network(prepared(batch, expert.pixels)).softmax(1).double().numpy()
    expected = shares @ np.arange(101)
    assert answers.ages == pytest.approx(expected, rel=1e-5)
    assert answers.variances == pytest.approx(shares @ np.arange(101) ** 2 - expected**2, rel=1e-4)
    assert answers.confidences == pytest.approx(-np.sqrt(answers.variances))


def test_torchvisions_vgg_loads(tmp_path: Path) -> None:
    network = TinyVgg()
    state = {
        "classifier.0.weight": torch.randn(5, 18),
        "classifier.0.bias": torch.randn(5),
        "classifier.3.weight": torch.randn(5, 5),
        "classifier.3.bias": torch.randn(5),
        "classifier.6.weight": torch.randn(101, 5),
        "classifier.6.bias": torch.randn(101),
    }
    network.load_state_dict(convert(state, network, "vgg.pth"))
    x = torch.randn(1, 2, 3, 3)
    # A 3x3 convolution of a 3x3 map is the linear layer on the flattened map.
    expected = x.flatten(1) @ state["classifier.0.weight"].T + state["classifier.0.bias"]
    torch.testing.assert_close(network.pre_logits["fc1"](x).flatten(1), expected)


def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dex, "build", lambda _: Tiny())
    state = Tiny().state_dict()
    state["fc.weight"] = torch.zeros(1000, 4)
    save_file(state, tmp_path / "imagenet.safetensors")
    with pytest.raises(MienError, match=r"not a DEX state dict.*fc.weight is \(1000, 4\), expected \(101, 4\); 1 of 4"):
        Dex("resnet50", tmp_path / "imagenet.safetensors")
    with pytest.raises(MienError, match="unknown architecture 'resnet18'"):
        Dex("resnet18", None)
    with pytest.raises(MienError, match="unknown pixels 'gbr'"):
        Dex("vgg16", None, pixels="gbr")
