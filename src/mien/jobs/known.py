"""Weights made elsewhere that mien can use: what for, on what terms, where they are, how a file of them is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mien.data.sources import cache
from mien.errors import MienError, nearest

HUB = "https://huggingface.co"
RELEASES = "https://github.com/xinntao/Real-ESRGAN/releases/download"


@dataclass(frozen=True, slots=True)
class Weights:
    """One file of weights, or a folder of many.

    Attributes:
        name: what `mien models get` calls it.
        task: what mien does with it.
        file: its name; None for a folder of many files, which its own site's client fetches.
        terms: its licence, as its makers state it, and where the data they learnt from narrow it.
        commercial: whether those terms allow commercial use; `unclear` where they contradict each other or are silent.
        url: of the file, or of the page; None where it is only passed on by hand.
        size: bytes; None where unknown.
        sha256: 64 hex digits; None where unknown: then it cannot be checked, which is said.
    """

    name: str
    task: str
    file: str | None
    terms: str
    commercial: Literal["yes", "no", "unclear"]
    url: str | None = None
    size: int | None = None
    sha256: str | None = None


KNOWN = (
    Weights(
        "realesr-general-x4v3",
        "enhance --upscaler: Real-ESRGAN, compact, x4",
        "realesr-general-x4v3.pth",
        "BSD-3-Clause",
        "yes",
        f"{RELEASES}/v0.2.5.0/realesr-general-x4v3.pth",
        4_885_111,
        "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
    ),
    Weights(
        "realesrgan-x4plus",
        "enhance --upscaler: Real-ESRGAN, x4, slow",
        "RealESRGAN_x4plus.pth",
        "BSD-3-Clause",
        "yes",
        f"{RELEASES}/v0.1.0/RealESRGAN_x4plus.pth",
        67_040_989,
        "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
    ),
    Weights(
        "ddcolor",
        "enhance --colour: DDColor",
        "pytorch_model.pt",
        "Apache-2.0; the code that runs it comes with others under licences of their own",
        "yes",
        f"{HUB}/piddnad/ddcolor_modelscope/resolve/main/pytorch_model.pt",
    ),
    Weights(
        "yunet",
        "--detector yunet:FILE: faces and five points",
        "face_detection_yunet_2023mar.onnx",
        "MIT",
        "yes",
        f"{HUB}/opencv/face_detection_yunet/resolve/main/face_detection_yunet_2023mar.onnx",
        232_589,
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    ),
    Weights(
        "mobilefacenet",
        "--identity: the judge of identity",
        "mobilefacenet.safetensors",
        "Apache-2.0; those of the faces that it learnt from are not stated",
        "unclear",
        None,
        4_107_448,
        "631c2db53a7de2d9f63564488355d47bea991e64d258a161c655f6eeaf503afe",
    ),
    Weights(
        "clip-vit-b-32",
        "language of captions and of the direction term",
        None,
        "MIT; its card advises against untested deployment",
        "yes",
        f"{HUB}/openai/clip-vit-base-patch32",
    ),
    Weights(
        "janus-pro-1b",
        "captions; expert of age",
        None,
        "DeepSeek Model License: use-based restrictions",
        "yes",
        f"{HUB}/deepseek-community/Janus-Pro-1B",
    ),
    Weights(
        "janus-pro-7b",
        "captions; expert of age",
        None,
        "DeepSeek Model License: use-based restrictions",
        "yes",
        f"{HUB}/deepseek-community/Janus-Pro-7B",
    ),
    Weights(
        "mivolo-v2",
        "expert of age",
        None,
        "Apache-2.0 by its card, a modified CC BY-SA by its repository",
        "unclear",
        f"{HUB}/iitolstykh/mivolo_v2",
    ),
)


def known(name: str) -> Weights:
    """The entry of a name.

    Raises:
        MienError: there is none; the nearest is named.
    """
    for weights in KNOWN:
        if weights.name == name:
            return weights
    names = [weights.name for weights in KNOWN]
    raise MienError(f"unknown weights {name!r}{nearest(name, names)} (known: {', '.join(names)})")


def kept() -> Path:
    """The folder where fetched weights lie: `weights` in the cache (`$MIEN_CACHE`), here when the cache is off."""
    return (cache.folder() or Path()) / "weights"


def place(weights: Weights, folder: Path | None = None) -> Path:
    """Where a file of weights lies once it is fetched."""
    return (folder or kept()) / weights.name / (weights.file or "")


def weights_path(given: str) -> Path:
    """The file that a path or a known name leads to.

    Raises:
        MienError: no such file, and no such name; or one that is not fetched yet.
    """
    if Path(given).is_file():
        return Path(given)
    if given not in {weights.name for weights in KNOWN}:
        raise MienError(f"{given}: no such file of weights, nor a name that mien models lists")
    path = place(known(given))
    if not path.is_file():
        raise MienError(f"the weights {given} are not here yet; mien models get {given} fetches them")
    return path
