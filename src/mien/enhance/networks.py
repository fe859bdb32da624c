"""Enhancers: networks that make a picture larger and sharper (ESRGAN), or give a grey one colours (DDColor).

Spandrel tells from a file of weights which architecture they are of, and builds it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from skimage.color import rgb2lab
from torch import Tensor

from mien.data.pictures import resize
from mien.enhance.tiling import as_memory_allows, field_of_view
from mien.errors import MienError, need
from mien.faces import LUMA
from mien.files import file_hash
from mien.models.backbone import read_weights

#: A picture whose mean chroma in CIELAB is below this is grey: of 1,200 faces of UTKFace 37 are (most at 0), and all
#: but 4 of the others are above 7 (median 21).
GREY = 4.0
#: Side in pixels at which chroma is measured: noise in colours does not make a picture coloured.
SMALL = 64


def chroma(image: np.ndarray) -> float:
    """Mean chroma, sqrt(a*² + b*²) of CIELAB, of a picture (3, H, W) uint8; 0 for pure grey."""
    lab = rgb2lab(resize(image, SMALL).transpose(1, 2, 0))
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())


class Upscaler:
    """Makes pictures larger, in tiles where they are large.

    Args:
        path: weights of a network that spandrel knows, .safetensors or .pth.
        device: where it computes.
        tile: largest side of a tile, without its margin, in pixels.

    Raises:
        MienError: no such file, weights of another kind, or spandrel is not installed.
    """

    kind = "upscale"

    def __init__(self, path: str | Path, device: str = "cpu", tile: int = 512) -> None:
        spandrel = need("spandrel", "enhance")
        self._network = load(spandrel, path, device)
        if self._network.input_channels != 3 or self._network.output_channels != 3 or self._network.scale < 2:
            raise MienError(
                f"--upscaler {path}: these are weights of {self._network.architecture.name}, which does not make a "
                "picture larger; name weights of ESRGAN, Real-ESRGAN or the like (mien models)"
            )
        self.name, self.architecture = Path(path).name, str(self._network.architecture.name)
        self.sha256 = file_hash(path)
        self.scale, self.tile = int(self._network.scale), tile
        self._whole = self._network.tiling == spandrel.ModelTiling.INTERNAL
        self.field = 0 if self._whole else field_of_view(self.untiled, self.scale, device)
        self._device = device

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(3, H, W) uint8 to (3, scale H, scale W) uint8."""
        picture = _as_tensor(image, self._device)
        if self._whole:
            return _as_picture(self.untiled(picture))
        multiple = self._network.size_requirements.multiple_of
        # A tile that was too large stays too large.
        made, self.tile = as_memory_allows(self.untiled, picture, self.scale, self.tile, self.field, multiple)
        return _as_picture(made)

    def facts(self) -> dict[str, Any]:
        """What a sidecar tells of it."""
        return {
            "step": self.kind,
            "weights": self.name,
            "sha256": self.sha256,
            "architecture": self.architecture,
            "scale": self.scale,
            "tile": self.tile,
            "field_of_view": self.field,
        }

    def untiled(self, picture: Tensor) -> Tensor:
        """The network as it is: (1, 3, H, W) float32 in [0, 1], to `scale` times that."""
        return cast(Tensor, self._network(picture))


class Colourer:
    """Gives grey pictures colours: DDColor, of an extra whose parts have licences of their own.

    Args:
        path: weights of DDColor, .safetensors or .pth.
        device: where it computes.

    Raises:
        MienError: no such file, weights of another kind, or the extra is not installed.
    """

    kind = "colour"

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        spandrel = need("spandrel", "enhance")
        need("spandrel_extra_arches", "colour").install(ignore_duplicates=True)
        self._network = load(spandrel, path, device)
        self.name, self.architecture = Path(path).name, str(self._network.architecture.name)
        if self.architecture != "DDColor":
            raise MienError(f"--colour {path}: these are weights of {self.architecture}; name weights of DDColor")
        self.sha256 = file_hash(path)
        self._device = device

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(3, H, W) uint8, of which only the lightness is looked at, to (3, H, W) uint8."""
        picture = _as_tensor(image, self._device)
        if self._network.input_channels == 1:
            picture = (picture * picture.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)
        return _as_picture(cast(Tensor, self._network(picture)))

    def facts(self) -> dict[str, Any]:
        """What a sidecar tells of it."""
        return {
            "step": self.kind,
            "weights": self.name,
            "sha256": self.sha256,
            "architecture": self.architecture,
            "only_below_chroma": GREY,
        }


def load(spandrel: Any, path: str | Path, device: str) -> Any:
    """The network of a file, as spandrel describes it; nothing in the file is executed.

    Raises:
        MienError: no such file, or spandrel knows no network with such weights.
    """
    if not Path(path).is_file():
        raise MienError(f"{path}: no such file of weights; mien models lists where to get some")
    state = dict(read_weights(Path(path)))
    try:
        return spandrel.ModelLoader(device).load_from_state_dict(state).eval()
    except spandrel.UnsupportedModelError:
        raise MienError(
            f"{path}: spandrel knows no network with such weights; DDColor's go to --colour, ESRGAN's to --upscaler"
        ) from None


def _as_tensor(image: np.ndarray, device: str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).to(device).float().div(255)[None]


def _as_picture(made: Tensor) -> np.ndarray:
    return (made[0].float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
