"""Faces beside what is said of them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mien.report.numbers import years
from mien.report.style import DPI, GREEN, INK, MUTED, ORANGE, PALE, Sheet, nothing, plain, sheet, shorten, styled

Images = Sequence[np.ndarray | None]


@styled
def worst_predictions(
    images: Images,
    truths: Sequence[float],
    predictions: Sequence[float],
    tags: Sequence[Sequence[str]] | None = None,
    columns: int = 5,
) -> Figure:
    """The faces with the largest errors, in the given order: picture, label, prediction, error and tags.

    `images` are (3, H, W) uint8 RGB, None where a picture cannot be shown; ages are in years.
    """
    captions = []
    for place, (truth, prediction) in enumerate(zip(truths, predictions, strict=True)):
        error = years(prediction - truth, digits=0, sign=True)
        line = f"label {truth:.0f} → predicted {prediction:.0f}\nerror {error}"
        words = ", ".join(tags[place]) if tags is not None else ""
        captions.append(f"{line}\n{words}" if words else line)
    if not captions:
        return contact_sheet([], [], title="Worst predictions", empty="no face has an exact age and a prediction")
    title = (
        f"The {len(captions)} largest errors of age (years)"
        if len(captions) > 1
        else "The largest error of age (years)"
    )
    return contact_sheet(images, captions, columns=columns, title=title)


@styled
def right_and_wrong(tiles: Sequence[Mapping[str, Any]], columns: int = 6) -> Figure:
    """Faces that a model was right and wrong about: `truth → prediction` below each, green frames where it was right.

    A tile has `image` ((3, H, W) uint8 or None), `right`, `title` (what decides) and `lines` (the other answers).
    """
    captions = ["\n".join([f"{'✓' if tile['right'] else '✗'} {tile['title']}", *tile["lines"]]) for tile in tiles]
    frames = [GREEN if tile["right"] else ORANGE for tile in tiles]
    return contact_sheet(
        [tile["image"] for tile in tiles],
        captions,
        columns=columns,
        title="Right and wrong: truth → prediction",
        empty="no face has both a label and a prediction",
        side=2.3,
        most=max((len(tile["lines"]) for tile in tiles), default=0) + 2,
        frames=frames,
    )


@styled
def contact_sheet(
    images: Images,
    captions: Sequence[str],
    columns: int = 6,
    title: str = "",
    empty: str = "no picture to show",
    side: float = 2.0,
    most: int = 4,
    frames: Sequence[str] = (),
) -> Figure:
    """Pictures in a grid, `columns` a row, `side` inches each, each with its caption below it.

    `images` are (3, H, W) or (H, W, 3) uint8 RGB or (H, W) grey; None where a picture cannot be shown. Of a
    caption's lines the first is dark, the others are muted; long ones are wrapped, `most` lines are shown. `frames`
    are the colours of the pictures' frames, if they have any.
    """
    if not images:
        figure = sheet(6.0, 2.0)
        nothing(figure.subplots(), title, empty)
        return figure
    columns = max(1, min(columns, len(images)))
    rows = math.ceil(len(images) / columns)
    wrapped = [_wrap(caption, int(side * 12.5), most) for caption in captions]
    lines = max((len(text) for text in wrapped), default=0)
    # Places in inches: every picture has the same size and captions never push them about.
    gap, head, foot = 0.16, 0.5 if title else 0.16, 0.165 * lines + 0.2
    width = columns * (side + gap) + gap
    height = head + rows * (side + foot)
    figure = Sheet(figsize=(width, height), dpi=DPI)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        left, bottom = gap + column * (side + gap), height - head - row * (side + foot) - side
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set(visible=bool(frames), linewidth=3, color=frames[place] if frames else PALE)
        _picture(axes, image)
        _caption(axes, wrapped[place] if place < len(wrapped) else [])
    if title:
        y = 1 - 0.14 / height
        figure.suptitle(
            plain(title), x=gap / width, y=y, ha="left", va="top", fontsize=12, fontweight="bold", color=INK
        )
    return figure


def as_picture(image: np.ndarray) -> np.ndarray:
    """(3, H, W), (1, H, W), (H, W, 3) or (H, W) values as (H, W, 3) uint8; floats are taken as [0, 1]."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[None]
    if image.shape[0] in (1, 3) and (image.shape[-1] not in (1, 3) or image.shape[0] == 1):
        image = np.moveaxis(image, 0, -1)
    if image.dtype.kind == "f":
        image = (np.nan_to_num(image).clip(0, 1) * 255).round()
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.uint8))


def _picture(axes: Axes, image: np.ndarray | None) -> None:
    if image is None:
        axes.set_facecolor("#f4f6f8")
        axes.text(
            0.5, 0.5, "picture not\nreadable", transform=axes.transAxes, ha="center", va="center",
            color=MUTED, fontsize=8.5,
        )  # fmt: skip
        return
    axes.imshow(as_picture(image), interpolation="lanczos")
    axes.set_facecolor(PALE)
    axes.set_anchor("S")


def _caption(axes: Axes, lines: Sequence[str]) -> None:
    for number, line in enumerate(lines):
        axes.annotate(
            plain(line), (0.5, 0), (0, -4 - 12 * number), xycoords="axes fraction",
            textcoords="offset points", ha="center", va="top", fontsize=8.5, color=MUTED if number else INK,
        )  # fmt: skip


def _wrap(caption: str, width: int, most: int) -> list[str]:
    lines: list[str] = []
    for line in str(caption).splitlines():
        lines += textwrap.wrap(shorten(line, width * 3), width, break_long_words=True) or [""]
    return lines[:most]
