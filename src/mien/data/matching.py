"""Light and colour brought to the data set's own: means and spreads of Lab's channels, picture by picture.

Reinhard et al., "Color transfer between images", 2001, in CIELAB. Seed 002 did so with lightness before it trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from mien.data.quality import EDGE, SIDE

#: light: lightness alone. colour: both of Lab's chroma channels too, which makes skin colours more alike.
Matching = Literal["light", "colour"]
#: A spread is changed by these factors at most: a flat picture would become noise.
GAINS = (0.5, 2.0)
#: Spread of chroma below which a picture is grey: there is no colour to match.
GREY = 1.0
#: sRGB's linear light of each of 256 levels; from that to X, Y, Z over the white's; where Lab's cube root ends.
LEVELS = np.arange(256, dtype=np.float32) / 255
LINEAR = np.where(LEVELS > 0.04045, ((LEVELS + 0.055) / 1.055) ** 2.4, LEVELS / 12.92).astype(np.float32)
TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], dtype=np.float32
) / np.array([[0.95047], [1.0], [1.08883]], dtype=np.float32)
KNEE = 6 / 29


class Tone(NamedTuple):
    """Mean and standard deviation of L (0 to 100), a and b over the middle of a picture, (3,) float64 each."""

    mean: np.ndarray
    spread: np.ndarray


def tone(image: np.ndarray) -> Tone:
    """The tone of a picture (3, H, W) uint8 RGB; its edges, often background, are left out."""
    lab = _lab(image)
    edges = [round(side * EDGE / SIDE) for side in lab.shape[:2]]
    middle = lab[edges[0] : lab.shape[0] - edges[0], edges[1] : lab.shape[1] - edges[1]].reshape(-1, 3)
    return Tone(middle.mean(axis=0), middle.std(axis=0))


def common(tones: Iterable[Tone]) -> Tone:
    """The tone of a data set: the median of its pictures', which a few odd ones do not move."""
    means, spreads = zip(*tones, strict=True)
    return Tone(np.median(means, axis=0), np.median(spreads, axis=0))


def match(image: np.ndarray, wanted: Tone, what: Matching) -> np.ndarray:
    """`image` (3, H, W) uint8 RGB with the wanted mean and spread of lightness, or of all channels of Lab.

    A grey picture's chroma stays as it is. Colours that sRGB has not are clipped.
    """
    lab, own = _lab(image), tone(image)
    coloured = what == "colour" and max(own.spread[1:]) >= GREY
    channels = slice(0, 3) if coloured else slice(0, 1)
    gain = np.clip(wanted.spread / np.maximum(own.spread, 1e-6), *GAINS)
    lab[..., channels] = ((lab - own.mean) * gain + wanted.mean)[..., channels]
    lab[..., 0] = lab[..., 0].clip(0, 100)
    return _rgb(lab)


def _lab(image: np.ndarray) -> np.ndarray:
    """CIELAB (H, W, 3) float32 of sRGB (3, H, W) uint8, white D65 (IEC 61966-2-1; CIE 15)."""
    xyz = LINEAR[image.transpose(1, 2, 0)] @ TO_XYZ.T
    f = np.where(xyz > KNEE**3, np.cbrt(xyz), xyz / (3 * KNEE**2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _rgb(lab: np.ndarray) -> np.ndarray:
    """The inverse of `_lab`; what sRGB has not is clipped."""
    lightness, a, b = np.moveaxis(lab, -1, 0)
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(f > KNEE, f**3, 3 * KNEE**2 * (f - 4 / 29))
    linear = (xyz @ np.linalg.inv(TO_XYZ).T.astype(np.float32)).clip(0, 1)
    shown = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return np.ascontiguousarray(np.rint(shown * 255).astype(np.uint8).transpose(2, 0, 1))
