"""What makes a picture hard to read: blur, low resolution, light, contrast, no colour: measured, named."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mien.data.pictures import resize

#: Side in pixels at which everything but the stored size is measured, so that pictures of all sizes compare.
SIDE = 112
#: Pixels left out at each edge: what lies there is often background, or black where the face was turned.
EDGE = 14
#: Variance of one grey level: a plain picture has no sharpness, rather than any.
NOISE = 255.0**-2
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
TAGS = ("blur", "low resolution", "dark", "bright", "low contrast", "grey")


class QualitySettings(BaseModel):
    """Where a measure becomes a tag; set by eye on UTKFace, each tag about 1-5 % of its faces.

    `dark` is of the picture, not of the person, yet dark skin makes it likelier: read its error beside race.
    """

    model_config = ConfigDict(extra="forbid")

    blur: float = Field(default=0.018, ge=0, description="`sharpness` below")
    low_resolution: float = Field(default=0.108, ge=0, description="`detail` below")
    small: int = Field(default=64, ge=0, description="`side` below, in pixels; a low resolution too")
    dark: float = Field(default=0.25, ge=0, le=1, description="`light` below")
    bright: float = Field(default=0.76, ge=0, le=1, description="`light` above")
    low_contrast: float = Field(default=0.25, ge=0, le=1, description="`contrast` below")
    grey: float = Field(default=0.02, ge=0, le=1, description="`colour` below")


def measure(image: np.ndarray) -> dict[str, float]:
    """Measures of one picture, (3, H, W) uint8 RGB.

    `side`: the shorter one, as stored, in pixels. `light`: mean luminance (BT.601), in [0, 1]. `contrast`:
    its 95th less its 5th percentile. `colour`: mean distance of a pixel from grey. `sharpness`: variance of
    the Laplacian over that of the luminance (Pech-Pacheco et al. 2000, made free of contrast). `detail`: the
    same variance over that at half the size, which falls where a small picture was made large.
    """
    small = resize(image, SIDE)[:, EDGE:-EDGE, EDGE:-EDGE].transpose(1, 2, 0).astype(np.float32) / 255
    light = small @ LUMA
    half = (light[::2, ::2] + light[1::2, ::2] + light[::2, 1::2] + light[1::2, 1::2]) / 4
    low, high = np.percentile(light, (5, 95))
    edges = _laplacian(light).var()
    return {
        "side": float(min(image.shape[1:])),
        "light": float(light.mean()),
        "contrast": float(high - low),
        "colour": float(np.sqrt(np.mean((small - light[..., None]) ** 2, axis=-1)).mean()),
        "sharpness": float(edges / (light.var() + NOISE)),
        "detail": float(edges / (_laplacian(half).var() + NOISE)),
    }


def tags(measures: Mapping[str, float], settings: QualitySettings | None = None) -> list[str]:
    """Which of `TAGS` hold for a picture with these measures, in their order."""
    at = settings or QualitySettings()
    holds = (
        measures["sharpness"] < at.blur,
        measures["side"] < at.small or measures["detail"] < at.low_resolution,
        measures["light"] < at.dark,
        measures["light"] > at.bright,
        measures["contrast"] < at.low_contrast,
        measures["colour"] < at.grey,
    )
    return [tag for tag, is_so in zip(TAGS, holds, strict=True) if is_so]


def _laplacian(light: np.ndarray) -> np.ndarray:
    centre = light[1:-1, 1:-1]
    return light[1:-1, :-2] + light[1:-1, 2:] + light[:-2, 1:-1] + light[2:, 1:-1] - 4 * centre
