"""Augmentation: what else a face could have looked like. Pictures and landmarks move together.

Every face draws its own random numbers from (seed, epoch, row, time in the epoch) alone: it looks the same in any
batch, order and worker. Geometry is one window onto the picture; colour is one matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import simplejpeg
from numpy.random import Generator, Philox
from PIL import Image, ImageFilter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mien.data.views import View, look, move_landmarks, rescale
from mien.errors import unknown
from mien.faces import LUMA

GREY = np.array(LUMA)


class Chance(BaseModel):
    """An operation that happens with `probability`, with a value drawn evenly from the range `between`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    probability: float = Field(ge=0, le=1)
    between: tuple[float, float]


def _off(low: float, high: float, within: tuple[float, float], description: str) -> Any:
    """A field for an operation that is off, would draw from low to high, and may be set `within` limits."""
    chance = Chance(probability=0.0, between=(low, high))
    return Field(default=chance, description=description, json_schema_extra={"within": list(within)})


class AugmentSettings(BaseModel):
    """Which operations change a face, how often and how far; all are off unless set.

    `"faces"`, or `{"preset": "faces", "noise": {"probability": 0}}`, starts from one of `PRESETS`; what is
    not named keeps the preset's value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: Chance = _off(0.85, 1.1, (0.2, 3), "side of the window cut out, as a share of the picture's")
    stretch: Chance = _off(0.92, 1.09, (0.5, 2), "width of the window against its height")
    shift: Chance = _off(-0.05, 0.05, (-0.5, 0.5), "way of the window across and down, as such a share")
    rotation: Chance = _off(-12, 12, (-180, 180), "degrees")
    flip: float = Field(default=0.0, ge=0, le=1, description="probability of mirroring left and right")
    side_light: Chance = _off(0.1, 0.6, (0, 1), "share by which one side is brighter and the other darker")
    gamma: Chance = _off(0.6, 1.6, (0.1, 10), "exponent; above 1 darkens the mid tones")
    brightness: Chance = _off(0.6, 1.4, (0, 5), "factor")
    contrast: Chance = _off(0.6, 1.4, (0, 5), "factor around the face's mean grey")
    saturation: Chance = _off(0.4, 1.5, (0, 5), "factor; 0 is grey")
    greyscale: float = Field(default=0.0, ge=0, le=1, description="probability of losing all colour")
    blur: Chance = _off(0.3, 1.5, (0, 20), "standard deviation of a Gaussian in percent of the side")
    downscale: Chance = _off(16, 64, (4, 512), "side in pixels that a face is brought down to, then up again")
    noise: Chance = _off(2, 15, (0, 128), "standard deviation in levels of 0-255")
    jpeg: Chance = _off(15, 80, (1, 100), "quality of a JPEG compression")
    erase: Chance = _off(0.02, 0.15, (0, 0.9), "share of the area covered by a rectangle of one colour")
    rare: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="how much likelier all but `flip` is for faces that `sampling` shows more than once: of k times "
        "an epoch, 1 - (1 - probability)^(1 + rare (k - 1))",
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, dict):
            return value
        name = value.get("preset", "none")
        if name not in PRESETS:
            raise unknown("preset", name, PRESETS)
        operations = {name: field.default for name, field in cls.model_fields.items()}
        merged = {key: item.model_dump() for key, item in operations.items() if isinstance(item, Chance)}
        for key, item in (*PRESETS[name].items(), *value.items()):
            merged[key] = {**merged.get(key, {}), **item} if isinstance(item, dict) else item
        merged.pop("preset", None)
        return merged

    @model_validator(mode="after")
    def _within_limits(self) -> AugmentSettings:
        for name, field in type(self).model_fields.items():
            extra: Any = field.json_schema_extra
            if extra is not None:
                (least, most), (low, high) = extra["within"], getattr(self, name).between
                if not least <= low <= high <= most:
                    right = f"two rising numbers from {least} to {most}"
                    raise ValueError(f"{name}.between is [{low:g}, {high:g}], expected {right}")
        return self


#: What a recipe may name instead of writing every operation out; what a preset leaves out stays as above.
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "light": {
        "scale": {"probability": 1.0, "between": (0.875, 0.875)},
        "shift": {"probability": 1.0, "between": (-0.0625, 0.0625)},
        "flip": 0.5,
        "brightness": {"probability": 1.0, "between": (0.7, 1.3)},
        "contrast": {"probability": 1.0, "between": (0.7, 1.3)},
    },
    "faces": {
        "scale": {"probability": 0.8},
        "stretch": {"probability": 0.3},
        "shift": {"probability": 0.8},
        "rotation": {"probability": 0.5},
        "flip": 0.5,
        "side_light": {"probability": 0.1},
        "gamma": {"probability": 0.2},
        "brightness": {"probability": 0.5},
        "contrast": {"probability": 0.5},
        "saturation": {"probability": 0.4},
        "greyscale": 0.1,
        "blur": {"probability": 0.1},
        "downscale": {"probability": 0.1, "between": (32, 80)},
        "noise": {"probability": 0.1},
        "jpeg": {"probability": 0.15},
        "erase": {"probability": 0.2},
    },
    "harsh": {
        "scale": {"probability": 1.0, "between": (0.75, 1.2)},
        "stretch": {"probability": 0.5},
        "shift": {"probability": 1.0, "between": (-0.08, 0.08)},
        "rotation": {"probability": 0.8, "between": (-20, 20)},
        "flip": 0.5,
        "side_light": {"probability": 0.3},
        "gamma": {"probability": 0.4, "between": (0.4, 2.2)},
        "brightness": {"probability": 0.7, "between": (0.4, 1.7)},
        "contrast": {"probability": 0.7, "between": (0.4, 1.6)},
        "saturation": {"probability": 0.6, "between": (0.0, 1.8)},
        "greyscale": 0.2,
        "blur": {"probability": 0.25, "between": (0.3, 2.0)},
        "downscale": {"probability": 0.3},
        "noise": {"probability": 0.25, "between": (2, 25)},
        "jpeg": {"probability": 0.35, "between": (8, 70)},
        "erase": {"probability": 0.3, "between": (0.02, 0.25)},
    },
}


def face_seed(seed: int, epoch: int, row: int, again: int = 0) -> int:
    """The 128-bit number that a face's randomness comes from, the first time that an epoch shows it or `again`;
    seed < 2^64, again < 2^8, epoch < 2^16, row < 2^40."""
    return (seed % (1 << 64)) << 64 | (again % (1 << 8)) << 56 | (epoch % (1 << 16)) << 40 | row % (1 << 40)


def augment(
    images: Sequence[np.ndarray],
    landmarks: np.ndarray | None,
    seeds: Sequence[int],
    size: int,
    settings: AugmentSettings,
    times: Sequence[float] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Augment each picture by its own seed and bring it to (size, size).

    Args:
        images: B pictures, uint8 RGB (3, H, W), each with its own H and W; quickest as views of (H, W, 3).
        landmarks: (B, 68, 2) float32 x, y in pixels of `images`, 0 the first one's centre; NaN where unknown.
        seeds: B numbers below 2^128, as `face_seed` makes them.
        times: B numbers, how often an epoch shows each face; None: once. See `settings.rare`.

    Returns:
        uint8 (B, 3, size, size), in memory channels last; landmarks in its pixels, some outside the frame.
    """
    result = np.empty((len(images), size, size, 3), dtype=np.uint8)
    points = None if landmarks is None else np.empty_like(landmarks, dtype=np.float32)
    for face, (image, seed) in enumerate(zip(images, seeds, strict=True)):
        more = 0.0 if times is None else settings.rare * max(0.0, times[face] - 1)
        dice = _Dice(seed, 1 + more)
        view = draw_view(settings, dice)
        result[face], matrix = look(image, view, size)
        result[face] = _change_pixels(result[face], settings, dice)
        if points is not None and landmarks is not None:
            points[face] = move_landmarks(landmarks[face], matrix, view.flip)
    return result.transpose(0, 3, 1, 2), points


class _Dice:
    """One face's random numbers.

    Each operation takes its share even when it does not happen, so that switching one on or off leaves the
    others as they were. What happens once in a face happens at least once in `tries`.
    """

    def __init__(self, seed: int, tries: float = 1.0) -> None:
        self.tries = tries
        self.rng = Generator(Philox(key=seed))
        self._numbers = iter(self.rng.random(48).tolist())

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * next(self._numbers)

    def happens(self, probability: float) -> bool:
        return next(self._numbers) < (probability if self.tries == 1 else 1 - (1 - probability) ** self.tries)

    def draw(self, chance: Chance) -> float | None:
        """The operation's value, None when it does not happen."""
        happens, value = self.happens(chance.probability), self.number(*chance.between)
        return value if happens else None


def draw_view(settings: AugmentSettings, dice: _Dice) -> View:
    """The window of a face, by its random numbers."""
    scale = dice.draw(settings.scale) or 1.0
    stretch = math.sqrt(dice.draw(settings.stretch) or 1.0)
    shift, down = dice.draw(settings.shift), dice.number(*settings.shift.between)
    angle = math.radians(dice.draw(settings.rotation) or 0.0)
    # Of two mirrored faces neither is the stranger one: rare faces are not flipped more often.
    flip = dice.number() < settings.flip
    view = View(width=scale * stretch, height=scale / stretch, angle=angle, flip=flip)
    return view if shift is None else replace(view, x=0.5 + shift, y=0.5 + down)


# Pixels: each function takes and gives uint8 (H, W, 3).


def _change_pixels(pixels: np.ndarray, settings: AugmentSettings, dice: _Dice) -> np.ndarray:
    """Light first, then what a lens, a sensor and a file do to it, then what stands in front of it."""
    light, where = dice.draw(settings.side_light), dice.number(0, 2 * math.pi)
    gamma = dice.draw(settings.gamma)
    colours = (dice.draw(settings.brightness), dice.draw(settings.contrast), dice.draw(settings.saturation))
    grey = dice.happens(settings.greyscale)
    blur, side = dice.draw(settings.blur), dice.draw(settings.downscale)
    noise, quality = dice.draw(settings.noise), dice.draw(settings.jpeg)
    area, patch = dice.draw(settings.erase), [dice.number() for _ in range(6)]
    if light is not None:
        pixels = _light_from_side(pixels, light, where)
    if gamma is not None:
        pixels = (255 * (np.arange(256) / 255) ** gamma + 0.5).astype(np.uint8).take(pixels)
    if grey or any(value is not None for value in colours):
        pixels = _colour(pixels, *(1.0 if value is None else value for value in colours), grey=grey)
    if blur is not None:
        radius = blur / 100 * len(pixels)
        pixels = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))
    if side is not None and side < len(pixels):
        pixels = rescale(rescale(np.array(pixels), round(side), round(side)), len(pixels), len(pixels))
    if noise is not None:
        # A grey picture has grey noise: colour in it would give the trick away.
        grain = dice.rng.standard_normal((*pixels.shape[:2], 1 if grey else 3), dtype=np.float32)
        pixels = _clip(pixels + noise * grain)
    if quality is not None:
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), round(quality), colorsubsampling="420")
        pixels = simplejpeg.decode_jpeg(data)
    if area is not None:
        pixels = _erase(pixels, area, patch)
    return pixels


def _clip(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255, out=values).astype(np.uint8)


def _light_from_side(pixels: np.ndarray, strength: float, angle: float) -> np.ndarray:
    ramp = np.linspace(-1, 1, len(pixels), dtype=np.float32)
    across, down = strength * math.cos(angle) * ramp, strength * math.sin(angle) * ramp
    return _clip(pixels * (1 + across[None, :, None] + down[:, None, None]))


def _colour(pixels: np.ndarray, brightness: float, contrast: float, saturation: float, *, grey: bool) -> np.ndarray:
    """Brightness, contrast and saturation as one 3 x 4 matrix."""
    if grey:
        saturation = 0.0
    mean = float(pixels[::4, ::4].mean(axis=(0, 1)) @ GREY)  # a sixteenth of the pixels is plenty for a mean
    linear = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * GREY)
    offset = np.full((3, 1), (1 - contrast) * brightness * mean)
    matrix = tuple(np.hstack([linear, offset]).ravel())
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB", matrix))


def _erase(pixels: np.ndarray, area: float, numbers: Sequence[float]) -> np.ndarray:
    """Cover a rectangle of that share of the area; six numbers in [0, 1) give its form, place and colour."""
    side = len(pixels)
    form = 2.0 ** (2 * numbers[0] - 1)
    width = min(side, max(1, round(side * math.sqrt(area * form))))
    height = min(side, max(1, round(side * math.sqrt(area / form))))
    left, top = int(numbers[1] * (side - width + 1)), int(numbers[2] * (side - height + 1))
    pixels = pixels.copy()
    pixels[top : top + height, left : left + width] = [int(256 * number) for number in numbers[3:]]
    return pixels
