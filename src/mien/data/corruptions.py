"""Corruptions: what light, lenses, sensors, files, careless cutting and things in the way do to a picture of a face.

After Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019, with kinds and strengths chosen for faces. `TABLE` holds every parameter. A picture's random numbers come from
(table version, corruption, picture) alone: the same in any order and batch, and for all severities, so that a face
gets the same light from the same side, only more of it.

Lengths are shares of the side of the face's canonical crop, so that a photo and a crop cut from it suffer alike.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
import simplejpeg
from numpy.random import SFC64, Generator
from PIL import Image, ImageDraw

from mien.data.align import CHIP, TEMPLATES, five_points
from mien.data.transforms import GREY, AugmentSettings
from mien.data.views import rescale
from mien.errors import MienError, unknown
from mien.faces import Crop

#: Raised whenever a parameter or what is done with it changes: results of two versions cannot be compared.
VERSION = 1
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the face is: its five points (5, 2) in pixels, in the order of `align.TEMPLATES`, and the side in pixels of
    its canonical crop."""

    points: np.ndarray
    side: float


Level = tuple[float, ...]
#: (H, W, 3) uint8, the level, the picture's random numbers, the face's place -> (H, W, 3) uint8.
Change = Callable[[np.ndarray, Level, Generator, Place], np.ndarray]
#: Level, random numbers, place -> the (2, 3) matrix from the output's to the picture's places, counted from corners.
Move = Callable[[Level, Generator, Place], np.ndarray]


@dataclass(frozen=True, slots=True)
class Corruption:
    """One kind of damage: five levels of it, and the operations of `AugmentSettings` that teach its family."""

    family: str
    unit: str
    levels: tuple[Level, ...]
    operations: tuple[str, ...] = ()
    change: Change | None = field(default=None, repr=False)
    move: Move | None = field(default=None, repr=False)

    @property
    def moves(self) -> bool:
        """Whether the face ends up elsewhere in the picture."""
        return self.move is not None


def corrupt(image: np.ndarray, name: str, severity: int, key: bytes, place: Place) -> np.ndarray:
    """A picture (3, H, W) uint8 RGB as a corruption of `TABLE` leaves it, in the same shape.

    Args:
        severity: 1 (slight) to 5 (hard even for people).
        key: what the picture is known by: its sha256, say.

    Raises:
        MienError: no such corruption or severity.
    """
    corruption, level, rng = _drawn(name, severity, key)
    pixels = image.transpose(1, 2, 0)
    if corruption.move is not None:
        return _warp(pixels, corruption.move(level, rng, place)).transpose(2, 0, 1)
    assert corruption.change is not None
    return corruption.change(np.ascontiguousarray(pixels), level, rng, place).transpose(2, 0, 1)


def moved(points: np.ndarray, name: str, severity: int, key: bytes, place: Place) -> np.ndarray:
    """Where `corrupt` takes points (..., 2) of the picture, in pixels."""
    corruption, level, rng = _drawn(name, severity, key)
    if corruption.move is None:
        return points
    matrix = corruption.move(level, rng, place)
    return (points + 0.5 - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T - 0.5


def place_in_crop(crop: Crop, height: int, width: int, landmarks: np.ndarray | None = None) -> Place:
    """The place of the face of a crop, from its landmarks (68, 2) where they are known, else from its template."""
    share = 1 / (1 + 2 * crop.margin)
    side = max(height, width) * share
    if landmarks is not None and np.isfinite(landmarks).all():
        return Place(five_points(landmarks), side)
    template = TEMPLATES.get(crop.template, TEMPLATES[CHIP.template])
    return Place((template - 0.5) * side + np.array([width - 1, height - 1]) / 2, side)


def place_in_photo(where: np.ndarray) -> Place:
    """The place of a face that was found: 68 (68, 2) or five points (5, 2), or the box (4,) of its canonical crop."""
    template = TEMPLATES[CHIP.template]
    if where.shape == (68, 2):
        where = five_points(where)
    if where.shape == (4,):
        side = float(max(where[2] - where[0], where[3] - where[1]))
        return Place((template - 0.5) * side + (where[:2] + where[2:] - 1) / 2, side)
    share = np.linalg.norm(template[1] - template[0])
    return Place(where, float(np.linalg.norm(where[1] - where[0]) / share))


def table_hash() -> str:
    """64 hex digits over the version and every parameter of the table."""
    table = {name: [one.family, one.unit, one.levels] for name, one in TABLE.items()}
    return hashlib.sha256(json.dumps([VERSION, table]).encode()).hexdigest()


def seen_families(augment: AugmentSettings) -> set[str]:
    """Families of which training with `augment` showed something, however slight."""
    return {one.family for one in TABLE.values() for name in one.operations if _is_on(augment, name)}


def _is_on(augment: AugmentSettings, operation: str) -> bool:
    value: Any = getattr(augment, operation)
    return float(getattr(value, "probability", value)) > 0


def _drawn(name: str, severity: int, key: bytes) -> tuple[Corruption, Level, Generator]:
    if name not in TABLE:
        raise unknown("corruption", name, TABLE)
    if severity not in SEVERITIES:
        raise MienError(f"severity {severity} of {name}: expected a whole number from 1 to 5")
    digest = hashlib.sha256(f"{VERSION} {name} ".encode() + key).digest()
    rng = Generator(SFC64(int.from_bytes(digest[:16], "big")))
    return TABLE[name], TABLE[name].levels[severity - 1], rng


# Light and colour.


def _levels(pixels: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Each value replaced by `curve` (256,) or (256, 3), a curve a channel."""
    table = np.clip(curve + 0.5, 0, 255).astype(np.uint8)
    if table.ndim == 1:
        return table.take(pixels)
    return np.stack([table[:, channel].take(pixels[..., channel]) for channel in range(3)], axis=-1)


def _gamma(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    return _levels(pixels, 255 * (np.arange(256) / 255) ** level[0])


def _side_light(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    """Light from the left or right, somewhat from above or below: brighter there, darker on the other side."""
    angle = rng.uniform(-0.5, 0.5) + math.pi * rng.integers(2)
    height, width = pixels.shape[:2]
    x, y = place.points.mean(axis=0)
    across = level[0] * math.cos(angle) * (np.arange(width, dtype=np.float32) - x) * 2 / place.side
    down = level[0] * math.sin(angle) * (np.arange(height, dtype=np.float32) - y) * 2 / place.side
    return _clipped(pixels * np.clip(1 + across[None, :, None] + down[:, None, None], 0, 2))


def _colour_cast(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    """Light of a colour: each channel has its factor, and grey keeps its brightness."""
    hue = rng.uniform(0, 2 * math.pi)
    gains = 1 + level[0] * np.cos(hue - 2 * math.pi * np.arange(3) / 3)
    return _levels(pixels, np.arange(256)[:, None] * gains / (gains @ GREY))


def _contrast(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    mean = float(pixels[::4, ::4].mean(axis=(0, 1)) @ GREY)
    return _levels(pixels, mean + level[0] * (np.arange(256) - mean))


def _greyscale(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    linear = level[0] * np.eye(3) + (1 - level[0]) * GREY
    matrix = tuple(np.hstack([linear, np.zeros((3, 1))]).ravel())
    return np.asarray(Image.fromarray(pixels).convert("RGB", matrix))


# Sensor, lens, file.


def _gaussian_noise(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    grain = rng.standard_normal(pixels.shape, dtype=np.float32)
    return _clipped(pixels + level[0] * grain)


def _shot_noise(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    """Noise of counted light, `level` photons where the picture is white: a normal distribution of a Poisson's variance
    (Foi et al., "Practical Poissonian-Gaussian noise modeling", 2008), twenty times as quick as counting."""
    spread = np.sqrt(255 * np.arange(256, dtype=np.float32) / level[0]).take(pixels)
    spread *= rng.standard_normal(pixels.shape, dtype=np.float32)
    return _clipped(pixels + spread)


def _defocus(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    return _convolved(pixels, _disc(round(level[0] * place.side, 2)))


def _motion(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    return _convolved(pixels, _line(level[0] * place.side, rng.uniform(0, math.pi)))


@lru_cache(maxsize=64)
def _disc(radius: float) -> np.ndarray:
    """An even disc of a radius in pixels as a kernel that sums to 1; its rim is sampled 7 x 7 a pixel."""
    reach = math.ceil(radius)
    steps = np.arange(-7 * reach - 3, 7 * reach + 4) / 7
    inside = (steps[:, None] ** 2 + steps[None, :] ** 2 <= radius**2).astype(np.float32)
    count = 2 * reach + 1
    kernel = inside.reshape(count, 7, count, 7).sum(axis=(1, 3))
    return kernel / kernel.sum()


def _line(length: float, angle: float) -> np.ndarray:
    """An even line of a length in pixels as a kernel that sums to 1."""
    reach = math.ceil(length / 2) + 1
    along = np.linspace(-length / 2, length / 2, 4 * reach + 1)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=np.float32)
    x, y = reach + along * math.cos(angle), reach + along * math.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for right in (0, 1):  # each sample is shared by the four pixels round it
        for below in (0, 1):
            weight = np.abs(1 - right - (x - left)) * np.abs(1 - below - (y - top))
            np.add.at(kernel, (top + below, left + right), weight)
    return kernel / kernel.sum()


def _convolved(pixels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolution through the Fourier transform, the picture reflected at its borders."""
    reach = len(kernel) // 2
    height, width = pixels.shape[:2]
    wide = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric").transpose(2, 0, 1)
    shape = [scipy.fft.next_fast_len(length, real=True) for length in wide.shape[1:]]
    spectrum = scipy.fft.rfft2(wide.astype(np.float32), shape) * scipy.fft.rfft2(kernel.astype(np.float32), shape)
    found = scipy.fft.irfft2(spectrum, shape)[:, 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]
    return _clipped(found.transpose(1, 2, 0))


def _jpeg(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    return simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(pixels, int(level[0]), colorsubsampling="420"))


def _downscale(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    """Down until the face has that side, then up again; a face that is smaller already is left as it is."""
    share = level[0] / place.side
    if share >= 1:
        return pixels
    height, width = pixels.shape[:2]
    small = rescale(pixels.copy(), max(round(height * share), 1), max(round(width * share), 1))
    return rescale(small, height, width)


# Careless cutting.


def _crop_shift(level: Level, rng: Generator, place: Place) -> np.ndarray:
    angle = rng.uniform(0, 2 * math.pi)
    way = level[0] * place.side * np.array([math.cos(angle), math.sin(angle)])
    return np.column_stack([np.eye(2), way])


def _crop_scale(level: Level, rng: Generator, place: Place) -> np.ndarray:
    """Too close or too wide, by that factor, whichever the picture's random numbers say."""
    factor = level[0] if rng.integers(2) else 1 / level[0]
    return _about(place, factor * np.eye(2))


def _rotation(level: Level, rng: Generator, place: Place) -> np.ndarray:
    angle = math.radians(level[0]) * (1 if rng.integers(2) else -1)
    cosine, sine = math.cos(angle), math.sin(angle)
    return _about(place, np.array([[cosine, -sine], [sine, cosine]]))


def _about(place: Place, linear: np.ndarray) -> np.ndarray:
    centre = place.points.mean(axis=0) + 0.5
    return np.column_stack([linear, centre - linear @ centre])


def _warp(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """What lies where `matrix` leads, in the picture's shape, reflected beyond its borders."""
    height, width = pixels.shape[:2]
    corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], dtype=float)
    before = np.maximum(np.ceil(1 - corners.min(axis=1)), 0).astype(int)
    after = np.maximum(np.ceil(corners.max(axis=1) + 1 - [width, height]), 0).astype(int)
    wide = np.pad(pixels, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="symmetric")
    way = (*matrix[0, :2], matrix[0, 2] + before[0], *matrix[1, :2], matrix[1, 2] + before[1])
    picture = Image.fromarray(wide)
    return np.array(picture.transform((width, height), Image.Transform.AFFINE, way, Image.Resampling.BILINEAR))


# Things in the way.


def _eyes(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    """A dark bar, as of sunglasses."""
    colour = tuple(int(value) for value in rng.integers(0, 60, 3))
    right, left = place.points[:2]
    return _covered(pixels, (right + left) / 2, level, colour, place)


def _mouth(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    """A light or a dark patch, as of a mask or a hand."""
    colour = tuple(int(value) for value in rng.integers(0, 256) * 0.75 + rng.uniform(0, 64, 3))
    return _covered(pixels, place.points[3:].mean(axis=0), level, colour, place)


def _covered(pixels: np.ndarray, centre: np.ndarray, level: Level, colour: tuple[int, ...], place: Place) -> np.ndarray:
    """A rectangle of half width and half height `level` (in distances of the eyes), turned as the face is."""
    along = place.points[1] - place.points[0]
    down = np.array([-along[1], along[0]])
    half = (level[0] * along, level[1] * down)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    corners = [tuple((centre + a * half[0] + b * half[1]).tolist()) for a, b in signs]
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).polygon(corners, fill=colour)
    return np.array(picture)


def _block(pixels: np.ndarray, level: Level, rng: Generator, place: Place) -> np.ndarray:
    """A rectangle of one colour over that share of the face's crop, about a random place in it."""
    form = 2.0 ** rng.uniform(-1, 1)
    at, colour = rng.uniform(-0.35, 0.35, 2), rng.integers(0, 256, 3)
    size = place.side * np.sqrt(level[0] * np.array([form, 1 / form]))
    height, width = pixels.shape[:2]
    corner = place.points.mean(axis=0) + at * place.side - size / 2
    # Pushed back into the picture, so that it covers what it says.
    left, top = np.round(np.clip(corner, 0, np.maximum([width, height] - size, 0))).astype(int)
    across, down = np.maximum(np.round(size), 1).astype(int)
    pixels = pixels.copy()
    pixels[top : top + down, left : left + across] = colour
    return pixels


def _clipped(values: np.ndarray) -> np.ndarray:
    values += 0.5
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def _five(*values: float | Level) -> tuple[Level, ...]:
    assert len(values) == len(SEVERITIES)
    return tuple(value if isinstance(value, tuple) else (value,) for value in values)


_CUT = ("scale", "stretch", "shift")
TABLE: dict[str, Corruption] = {
    "gamma_dark": Corruption("brightness", "gamma", _five(1.5, 2, 2.7, 3.6, 5), ("gamma", "brightness"), _gamma),
    "gamma_bright": Corruption(
        "brightness", "gamma", _five(0.7, 0.5, 0.36, 0.25, 0.16), ("gamma", "brightness"), _gamma
    ),
    "side_light": Corruption("side light", "strength", _five(0.3, 0.5, 0.7, 0.85, 1), ("side_light",), _side_light),
    "colour_cast": Corruption("colour cast", "strength", _five(0.1, 0.2, 0.32, 0.46, 0.62), (), _colour_cast),
    "contrast": Corruption("contrast", "factor", _five(0.7, 0.5, 0.35, 0.22, 0.12), ("contrast",), _contrast),
    "greyscale": Corruption(
        "greyscale", "colour left", _five(0.7, 0.45, 0.25, 0.1, 0), ("saturation", "greyscale"), _greyscale
    ),
    "gaussian_noise": Corruption("noise", "levels", _five(8, 16, 28, 44, 64), ("noise",), _gaussian_noise),
    "shot_noise": Corruption("noise", "photons at white", _five(120, 40, 16, 7, 3), ("noise",), _shot_noise),
    "defocus_blur": Corruption(
        "blur", "radius, share of the side", _five(0.01, 0.018, 0.028, 0.042, 0.06), ("blur",), _defocus
    ),
    "motion_blur": Corruption(
        "blur", "length, share of the side", _five(0.03, 0.06, 0.1, 0.15, 0.22), ("blur",), _motion
    ),
    "jpeg": Corruption("compression", "quality", _five(30, 18, 11, 7, 4), ("jpeg",), _jpeg),
    "downscale": Corruption("resolution", "side in pixels", _five(112, 64, 40, 24, 14), ("downscale",), _downscale),
    "crop_shift": Corruption("crop", "share of the side", _five(0.04, 0.08, 0.12, 0.17, 0.24), _CUT, None, _crop_shift),
    "crop_scale": Corruption("crop", "factor", _five(1.08, 1.16, 1.26, 1.4, 1.6), _CUT, None, _crop_scale),
    "rotation": Corruption("rotation", "degrees", _five(5, 10, 18, 30, 45), ("rotation",), None, _rotation),
    "occluded_eyes": Corruption(
        "occlusion",
        "half width and height, distances of the eyes",
        _five((0.8, 0.08), (0.82, 0.14), (0.85, 0.2), (0.88, 0.28), (0.95, 0.38)),
        ("erase",),
        _eyes,
    ),
    "occluded_mouth": Corruption(
        "occlusion",
        "half width and height, distances of the eyes",
        _five((0.36, 0.1), (0.49, 0.18), (0.65, 0.28), (0.84, 0.4), (1.05, 0.55)),
        ("erase",),
        _mouth,
    ),
    "random_block": Corruption("occlusion", "share of the area", _five(0.03, 0.07, 0.13, 0.2, 0.3), ("erase",), _block),
}
