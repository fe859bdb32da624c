"""Whether age intervals keep their promise, and for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mien.report.numbers import number
from mien.report.style import (
    BLUE,
    GREEN,
    INK,
    Row,
    draw_rows,
    nothing,
    panel,
    rows_of,
    rule,
    sheet,
    styled,
    words,
)

#: Groupings of the coverage figure, in this order.
GROUPINGS = ("gender", "race", "predicted_age", "age_bin")


@styled
def coverage(age: Mapping[str, Any], groupings: Sequence[str] = GROUPINGS, level: float = 0.9) -> Figure:
    """Coverage and mean width of the `level` age intervals, over all faces and by group.

    `age` is the age part of an evaluation's metrics: `coverage90` and `width90` at its top and in its groups.
    """
    name = f"{level * 100:.0f}"
    covered, widths = f"coverage{name}", f"width{name}"
    first = [Row("All faces", number(age.get(covered)), number(age.get(covered)).n)]
    second = [Row("All faces", number(age.get(widths)), number(age.get(widths)).n)]
    groups = age.get("groups") or {}
    for key in groupings:
        rows, other = rows_of(groups.get(key), covered), rows_of(groups.get(key), widths)
        if not any(row.figure.known for row in rows):
            continue
        head = Row(f"By {words(key)}", number(None), heading=True)
        first += [head, *rows]
        second += [head, *other]
    figure = sheet(10.5, 1.5 + 0.27 * len(first))
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    if not first[0].figure.known:
        nothing(left, "Coverage", "the model gives no age intervals")
        right.axis("off")
        return figure
    panel(left, f"How many true ages lie inside the {name} % interval", "coverage (%)", grid="x")
    draw_rows(left, first, bars=False, factor=100, digits=1, reference=level)
    rule(left, level * 100, f"the promised {name} %")
    panel(right, "How wide the interval is", "mean width (years)", grid="x")
    draw_rows(right, second, labels=False, digits=1, colours=[GREEN] * len(second))
    return figure


@styled
def spread_reliability(std: np.ndarray, error: np.ndarray, bins: int = 10) -> Figure:
    """How far off ages are against how far off they were said to be: `std` and signed `error`, (N,) years.

    Faces are sorted by `std` into bins of equal size; each bin's root mean squared error has its 95 % bootstrap
    interval.
    """
    figure = sheet(5.2, 4.8)
    axes = panel(figure.subplots(), "Promised and observed error", "promised (years)", "observed, RMS (years)")
    known = np.isfinite(std) & np.isfinite(error)
    std, error = np.asarray(std, dtype=np.float64)[known], np.asarray(error, dtype=np.float64)[known]
    if len(std) < 2 * bins:
        nothing(axes, "Promised and observed error", "too few faces")
        return figure
    generator = np.random.default_rng(0)
    promised, seen, below, above = [], [], [], []
    for rows in np.array_split(np.argsort(std, kind="stable"), bins):
        squared = error[rows] ** 2
        drawn = np.sqrt(squared[generator.integers(0, len(rows), (1000, len(rows)))].mean(1))
        value, (low, high) = float(np.sqrt(squared.mean())), np.percentile(drawn, [2.5, 97.5])
        promised.append(float(np.sqrt((std[rows] ** 2).mean())))
        seen.append(value)
        below.append(max(value - low, 0.0))
        above.append(max(high - value, 0.0))
    top = 1.05 * max(*promised, *(np.array(seen) + above))
    axes.plot([0, top], [0, top], color=INK, lw=1, label="as promised")
    axes.errorbar(promised, seen, yerr=[below, above], color=BLUE, marker="o", ms=5, lw=1, label=f"n {len(std):,}")
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.set_aspect("equal")
    axes.legend(loc="upper left")
    return figure
