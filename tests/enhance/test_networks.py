"""Enhancers from files of weights: what loads, what is refused in a clear line, what counts as grey."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mien.data.drawing.face import draw
from mien.data.pictures import decode, encode
from mien.data.sources.drawn import sample
from mien.enhance.networks import GREY, Colourer, Upscaler, chroma
from mien.errors import MienError

spandrel = pytest.importorskip("spandrel")


@pytest.fixture
def weights(upscaler_weights: Path, tmp_path: Path) -> Path:
    """The tiny Real-ESRGAN, as safetensors and as its makers publish theirs."""
    torch.save({"params_ema": load_file(upscaler_weights)}, tmp_path / "tiny.pth")
    shutil.copy(upscaler_weights, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def face(size: int = 48) -> np.ndarray:
    return draw(sample(5, 1), size)[0]


def test_an_upscaler_from_either_kind_of_file(weights: Path) -> None:
    image = face(40)
    first, second = Upscaler(weights, tile=32), Upscaler(weights.with_suffix(".pth"))
    made = first(image)
    assert made.shape == (3, 160, 160)
    assert made.dtype == np.uint8
    # Tiled and not, it is the same within a level.
    assert np.abs(made.astype(int) - second(image)).max() <= 1
    reference = spandrel.ModelLoader().load_from_file(weights)(torch.from_numpy(image / 255).float()[None])[0]
    assert np.abs(made - 255 * reference.numpy()).max() <= 1
    assert first.facts()["architecture"] == "RealESRGAN Compact"
    assert first.facts()["scale"] == 4


def test_what_is_no_upscaler_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(MienError, match=r"none\.safetensors: no such file of weights"):
        Upscaler(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(MienError, match="spandrel knows no network with such weights"):
        Upscaler(tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(weights.read_bytes()[:900])
    with pytest.raises(MienError, match="cannot be read as weights"):
        Upscaler(tmp_path / "torn.safetensors")


def test_colours_take_their_own_extra_and_their_own_weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    with pytest.raises(MienError, match=r"run: pip install '\.\[colour\]'"):
        Colourer(weights)
    extra = ModuleType("spandrel_extra_arches")
    extra.install = lambda ignore_duplicates: []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", extra)
    with pytest.raises(MienError, match="weights of RealESRGAN Compact; name weights of DDColor"):
        Colourer(weights)


def test_a_colourer_is_shown_lightness_alone(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    class Network:
        input_channels = 1
        architecture = SimpleNamespace(name="DDColor")

        def __call__(self, grey: torch.Tensor) -> torch.Tensor:
            seen.append(grey)
            return torch.cat([grey, grey / 2, grey / 4], dim=1)

    extra = ModuleType("spandrel_extra_arches")
    extra.install = lambda ignore_duplicates: []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", extra)
    monkeypatch.setattr("mien.enhance.networks.load", lambda *_: Network())
    red = np.zeros((3, 9, 9), dtype=np.uint8)
    red[0] = 200
    made = Colourer(weights)(red)
    assert seen[0].shape == (1, 1, 9, 9)
    assert float(seen[0].mean()) == pytest.approx(0.299 * 200 / 255)
    assert made[:, 0, 0].tolist() == [60, 30, 15]


def test_grey_is_told_by_chroma() -> None:
    image = face(64)
    assert chroma(image) > 2 * GREY
    grey = np.repeat(image.mean(axis=0, keepdims=True), 3, axis=0).astype(np.uint8)
    assert chroma(grey) < 0.1
    assert chroma(decode(encode(grey, quality=40))) < GREY
    tinted = np.asarray(Image.fromarray(grey.transpose(1, 2, 0)).convert("L").convert("RGB")).transpose(2, 0, 1).copy()
    tinted[2] = (0.6 * tinted[2]).astype(np.uint8)
    assert chroma(tinted) > GREY
    # The formula of CIELAB for sRGB's pure red: a* 80.09, b* 67.20 (D65).
    red = np.zeros((3, 16, 16), dtype=np.uint8)
    red[0] = 255
    assert chroma(red) == pytest.approx(np.hypot(80.09, 67.20), abs=0.1)
