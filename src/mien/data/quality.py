"""What makes a picture hard to read: blur, low resolution, light, contrast, no colour: measured, named, refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mien.data.pictures import resize
from mien.errors import MienError, nearest
from mien.faces import LUMA

#: Side in pixels at which everything but the stored size is measured, so that pictures of all sizes compare.
SIDE = 112
#: Pixels left out at each edge: what lies there is often background, or black where the face was turned.
EDGE = 14
#: Variance of one grey level: a plain picture has no sharpness, rather than any.
NOISE = 255.0**-2


class Rule(NamedTuple):
    """A picture is `tag` where its `measure` is below, or if `above` above, the threshold of the setting `key`."""

    tag: str
    key: str
    measure: str
    above: bool = False

    def holds(self, measures: Mapping[str, float], threshold: float) -> bool:
        value = measures[self.measure]
        # A score that is NaN is none: no face was found, and no second one.
        return value > threshold if self.above else not value >= threshold


RULES = (
    Rule("blur", "blur", "sharpness"),
    Rule("low resolution", "small", "side"),
    Rule("low resolution", "low_resolution", "detail"),
    Rule("dark", "dark", "light"),
    Rule("bright", "bright", "light", above=True),
    Rule("low contrast", "low_contrast", "contrast"),
    Rule("grey", "grey", "colour"),
)
TAGS = tuple(dict.fromkeys(rule.tag for rule in RULES))
#: Of faces that a data set's own detector scored.
SCORES = (
    Rule("no sure face", "face_score", "face_score"),
    Rule("a second face", "second_face_score", "second_face_score", above=True),
)


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


class QualityFilter(BaseModel):
    """Which faces `mien prepare --quality` refuses; null: not looked at. The words and measures are `QualitySettings`',
    the thresholds further out: there a picture is hard to read, here it is of no use.

    Of UTKFace each refuses less than 0.5 %, but `grey` 3 %. `dark` and `bright` are far out on purpose: at 0.2 and 0.8
    they refused well lit faces for their skin, 1.2 % of Black faces as dark and 1.2 % of Asian ones as bright against
    0.1 % and 0.4 % of White ones.
    """

    model_config = ConfigDict(extra="forbid")

    blur: float | None = Field(default=0.008, ge=0, description="`sharpness` below")
    low_resolution: float | None = Field(default=0.1, ge=0, description="`detail` below")
    small: float | None = Field(default=32, ge=0, description="the face's side before it was cut, in pixels, below")
    dark: float | None = Field(default=0.12, ge=0, le=1, description="`light` below")
    bright: float | None = Field(default=0.86, ge=0, le=1, description="`light` above")
    low_contrast: float | None = Field(default=0.2, ge=0, le=1, description="`contrast` below")
    grey: float | None = Field(default=0.01, ge=0, le=1, description="`colour` below")
    face_score: float | None = Field(
        default=1.0, description="the data set's score of the face below, or none (imdb_wiki)"
    )
    second_face_score: float | None = Field(
        default=0.0, description="that of a second face in the picture above (imdb_wiki)"
    )


def load_filter(path: str | Path) -> QualityFilter:
    """The filter in a YAML or JSON file: thresholds by name; those that are left out keep their value.

    Raises:
        MienError: it cannot be read, or a setting is unknown or out of its range.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return QualityFilter.model_validate(values)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MienError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        told = "; ".join(_fault(dict(item)) for item in error.errors())
        raise MienError(f"{path}: {told}") from None


def _fault(item: dict[str, Any]) -> str:
    name = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        known = list(QualityFilter.model_fields)
        return f"unknown threshold {name!r}{nearest(name, known)} (known: {', '.join(known)})"
    return f"{name or 'thresholds'} {item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}"


def faults(measures: Mapping[str, float], at: QualityFilter) -> str:
    """Why a picture with these measures is refused, `quality: blur (sharpness 0.004 below 0.008)`; empty if it is not.

    `measures` may hold a detector's scores beside those of `measure`.
    """
    names, told = [], []
    for rule in (*RULES, *SCORES):
        threshold = getattr(at, rule.key)
        if threshold is None or rule.measure not in measures:
            continue
        value = measures[rule.measure]
        if rule.holds(measures, threshold):
            names.append(rule.tag)
            number = "none" if np.isnan(value) else f"{round(value, 4):g}"
            told.append(f"{rule.measure.replace('_', ' ')} {number} {'above' if rule.above else 'below'} {threshold:g}")
    return f"quality: {', '.join(dict.fromkeys(names))} ({'; '.join(told)})" if names else ""


def measure(image: np.ndarray) -> dict[str, float]:
    """Measures of one picture, (3, H, W) uint8 RGB.

    `side`: the shorter one, as stored, in pixels. `light`: mean luminance (BT.601), in [0, 1]. `contrast`:
    its 95th less its 5th percentile. `colour`: mean distance of a pixel from grey. `sharpness`: variance of
    the Laplacian over that of the luminance (Pech-Pacheco et al. 2000, made free of contrast). `detail`: the
    same variance over that at half the size, which falls where a small picture was made large.
    """
    small = resize(image, SIDE)[:, EDGE:-EDGE, EDGE:-EDGE].transpose(1, 2, 0).astype(np.float32) / 255
    light = small @ np.array(LUMA, dtype=np.float32)
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
    held = [rule.tag for rule in RULES if rule.holds(measures, getattr(at, rule.key))]
    return list(dict.fromkeys(held))


def _laplacian(light: np.ndarray) -> np.ndarray:
    centre = light[1:-1, 1:-1]
    return light[1:-1, :-2] + light[1:-1, 2:] + light[:-2, 1:-1] + light[2:, 1:-1] - 4 * centre
