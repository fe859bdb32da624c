"""Figures of a robustness audit: a curve for each corruption, and what each severity looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mien.report.figures.pictures import as_picture
from mien.report.numbers import number
from mien.report.style import BLUE, DPI, GREEN, INK, MUTED, ORANGE, Sheet, nothing, panel, plain, sheet, styled

#: Colour by whether training showed a corruption's family.
COLOURS = {True: BLUE, False: ORANGE, None: GREEN}
COLUMNS = 6


@styled
def robustness_curves(part: Mapping[str, Any], names: Sequence[str], title: str, factor: float = 1.0) -> Figure:
    """The figure of one task over severity, a small panel for each corruption of `names`, all on one scale.

    `part` is a task's part of an audit: `{"figure", "clean", "constant", "corruptions": {name: {"seen", "levels":
    {"1": {figure: estimate}}}}}`. Bands are 95 % intervals; the dotted line is the clean faces' figure, the dashed one
    a constant answer's.
    """
    if not names:
        drawn = sheet(8.0, 2.0)
        nothing(drawn.subplots(), title, "no corruption to show")
        return drawn
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    drawn = sheet(max(1.95 * columns, 4.6), 1.75 * rows + 0.75)
    grid = drawn.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place >= len(names):
            axes.axis("off")
            continue
        _curve(axes, part, names[place], factor)
        if place + columns >= len(names):
            axes.tick_params(labelbottom=True)
    figure = part["figure"].replace("_", " ").upper() if len(part["figure"]) < 4 else part["figure"]
    unit = " (%)" if factor == 100 else f" ({part['unit']})" if part["unit"] else ""
    drawn.supylabel(plain(f"{figure}{unit}"), fontsize=9.5, color=MUTED)
    drawn.supxlabel("severity", fontsize=9.5, color=MUTED)
    drawn.suptitle(plain(title), x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    return drawn


def _curve(axes: Axes, part: Mapping[str, Any], name: str, factor: float) -> None:
    entry = part["corruptions"][name]
    clean = number(part["clean"])
    levels = sorted(entry["levels"], key=int)
    found = [clean, *(number(entry["levels"][level][part["figure"]]) for level in levels)]
    x = np.array([0, *(int(level) for level in levels)])
    colour = COLOURS[entry["seen"]]
    panel(axes, name.replace("_", " "), grid="y")
    axes.title.set_fontsize(9)
    values = np.array([one.value for one in found]) * factor
    low, high = (np.array([getattr(one, side) for one in found]) * factor for side in ("low", "high"))
    axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    axes.plot(x, values, color=colour, marker="o", ms=3, lw=1.5)
    axes.axhline(clean.value * factor, color=MUTED, lw=0.9, ls=":")
    constant = number(part.get("constant"))
    if constant.known:
        axes.axhline(constant.value * factor, color=MUTED, lw=0.9, ls="--")
    axes.set_xticks([0, *(int(level) for level in levels)], ["clean", *levels], fontsize=7.5)
    axes.tick_params(axis="y", labelsize=8)


@styled
def corruption_sheet(
    clean: np.ndarray, examples: Mapping[str, Sequence[np.ndarray]], severities: Sequence[int], side: float = 0.86
) -> Figure:
    """One face (3, H, W) uint8, clean and at each severity: a row for each corruption, two rows beside each other."""
    names = list(examples)
    half = -(-len(names) // 2)
    across = len(severities) + 1
    gap, label, head = 0.04, 1.12, 0.32
    block = label + across * (side + gap) + 0.12
    width, height = 2 * block if len(names) > 1 else block, head + half * (side + gap)
    figure = Sheet(figsize=(width, height), dpi=DPI)
    for number_, name in enumerate(names):
        column, row = divmod(number_, half)
        bottom = height - head - (row + 1) * (side + gap) + gap
        _text(figure, column * block + label - 0.08, bottom + side / 2, name.replace("_", " "), width, height, "right")
        for place, image in enumerate((clean, *examples[name])):
            left = column * block + label + place * (side + gap)
            axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
            axes.axis("off")
            axes.imshow(as_picture(image), interpolation="lanczos")
            if row == 0:
                word = "clean" if place == 0 else str(severities[place - 1])
                _text(figure, left + side / 2, height - head / 2, word, width, height, "center")
    return figure


def _text(figure: Figure, x: float, y: float, text: str, width: float, height: float, side: str) -> None:
    figure.text(x / width, y / height, plain(text), ha=side, va="center", fontsize=8.5, color=INK)
