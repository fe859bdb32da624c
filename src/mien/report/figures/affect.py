"""Valence and arousal: where faces are on the plane of feeling, and where a model puts them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mien.faces import EXPRESSIONS
from mien.report.style import BLUE, INK, MUTED, PALETTE, nothing, panel, plain, remark, sheet, styled

#: Arrows drawn one by one; more would hide each other.
ARROWS = 120
#: Cells along each side where faces without an expression are averaged, and the fewest faces of one.
CELLS, FEWEST = 6, 3


@styled
def affect_plane(
    true: np.ndarray,
    predicted: np.ndarray,
    expression: np.ndarray | None = None,
    names: Sequence[str] = EXPRESSIONS,
    seed: int = 0,
) -> Figure:
    """Arrows from truth to prediction on the plane of valence (across) and arousal (up): faces, and their means.

    `true` and `predicted` are (N, 2) in [-1, 1], NaN where missing; `expression` is (N,) codes into `names`, -1 where
    missing. Means are by expression, or where none is known by the place of the truth.
    """
    known = np.isfinite(true).all(axis=1) & np.isfinite(predicted).all(axis=1)
    true, predicted = true[known], predicted[known]
    codes = np.full(len(true), -1) if expression is None else np.asarray(expression)[known]
    figure = sheet(11.5, 6.4)
    left, right = figure.subplots(1, 2)
    title = "Valence and arousal: truth → prediction"
    if not len(true):
        nothing(left, title, "no face has both labels and predictions")
        right.axis("off")
        return figure
    drawn = np.random.default_rng(seed).permutation(len(true))[:ARROWS]
    _plane(left, title)
    colours = [PALETTE[code % len(PALETTE)] if code >= 0 else MUTED for code in codes]
    _arrows(left, true[drawn], predicted[drawn], [colours[row] for row in drawn], 0.0022)
    remark(left, f"{len(drawn):,} of {len(true):,} faces, drawn at random")
    groups = {names[code]: codes == code for code in range(len(names)) if (codes == code).any()}
    if groups:
        _plane(right, "Mean of each expression")
        for name, members in groups.items():
            colour = PALETTE[list(names).index(name) % len(PALETTE)]
            start, end = true[members].mean(axis=0), predicted[members].mean(axis=0)
            _arrows(right, start[None], end[None], [colour], 0.007)
            right.plot(*start, "o", color=colour, ms=5, label=f"{name}, n {members.sum():,}")
        figure.legend(loc="outside lower center", fontsize=8.5, ncols=4)
    else:
        _plane(right, "Mean of each cell of the truth")
        _cells(right, true, predicted)
    return figure


def _plane(axes: Axes, title: str) -> None:
    panel(axes, title, "valence", "arousal")
    axes.axhline(0, color=INK, lw=0.8)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)
    axes.set_aspect("equal")
    for x, y, words in ((1, 1, "excited"), (-1, 1, "distressed"), (1, -1, "calm"), (-1, -1, "depressed")):
        axes.text(
            x, y, plain(words), ha="right" if x > 0 else "left", va="top" if y > 0 else "bottom",
            color=MUTED, fontsize=8, style="italic",
        )  # fmt: skip


def _arrows(axes: Axes, start: np.ndarray, end: np.ndarray, colours: Sequence[str], width: float) -> None:
    way = end - start
    axes.quiver(
        start[:, 0], start[:, 1], way[:, 0], way[:, 1], color=list(colours),
        angles="xy", scale_units="xy", scale=1, width=width, alpha=0.75, zorder=3,
    )  # fmt: skip


def _cells(axes: Axes, true: np.ndarray, predicted: np.ndarray) -> None:
    cell = np.clip(((true + 1) / 2 * CELLS).astype(int), 0, CELLS - 1) @ np.array([1, CELLS])
    for number in np.unique(cell):
        members = cell == number
        if members.sum() >= FEWEST:
            start, end = true[members].mean(axis=0), predicted[members].mean(axis=0)
            _arrows(axes, start[None], end[None], [BLUE], 0.005)
            axes.plot(*start, "o", color=BLUE, ms=3 + np.log2(members.sum()))
    remark(axes, f"cells of {FEWEST} or more faces; larger dots hold more")
