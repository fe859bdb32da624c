"""Figures of an ageing audit: judged age against the age asked for, identity against the gap between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mien.report.numbers import Number, number
from mien.report.style import INK, MARKERS, MUTED, PALETTE, nothing, panel, plain, sheet, styled


@styled
def ageing_curves(metrics: Mapping[str, Any]) -> Figure:
    """Judged age over the age asked for, the error of it, and the cosine over the age gap, a line each renderer.

    `metrics` is an audit's result: `{"about", "real", "verification", "renderers": {name: {"ages", "gaps"}}}`.
    Dashed is what was asked for; dotted are real faces of that age, dash-dotted real pairs of one person at that gap.
    """
    drawn = sheet(12.4, 4.3)
    ages_axes, error_axes, gap_axes = drawn.subplots(1, 3)
    asked = np.array(metrics["about"]["ages"])
    words = [f"{age:g}" for age in asked]
    panel(ages_axes, "Judged age", "age asked for (years)", "mean judged age (years)")
    panel(error_axes, "Error of each face", "age asked for (years)", "mean |judged − asked| (years)")
    panel(gap_axes, "Identity", "years between the face's age and the one asked for", "cosine with the given face")
    ages_axes.plot(asked, asked, color=MUTED, ls="--", lw=1.1)
    for place, (name, found) in enumerate(metrics["renderers"].items()):
        for axes, key in ((ages_axes, "judged"), (error_axes, "mae")):
            _line(axes, asked, [number(found["ages"][word].get(key)) for word in words], name, place)
        gaps = list(found["gaps"])
        _line(gap_axes, np.arange(len(gaps)), [number(found["gaps"][gap].get("cosine")) for gap in gaps], name, place)
        gap_axes.set_xticks(range(len(gaps)), [gap.replace("-120", "+") for gap in gaps])
    if metrics["real"]:
        for axes, key in ((ages_axes, "judged"), (error_axes, "mae")):
            values = [number(metrics["real"][word].get(key)).value for word in words]
            axes.plot(asked, values, color=INK, ls=":", lw=1.6, label="real faces")
    if metrics["verification"]:
        values = [number(entry.get("cosine")).value for entry in metrics["verification"]["gaps"]]
        gap_axes.plot(range(len(values)), values, color=INK, ls="-.", lw=1.6, label="real pairs of one person")
    if not any(line.get_xdata(orig=False).size for line in gap_axes.get_lines()):
        gap_axes.clear()
        nothing(gap_axes, "Identity", "nobody judged it")
    handles, labels = ages_axes.get_legend_handles_labels()
    known = set(labels)
    for handle, label in zip(*gap_axes.get_legend_handles_labels(), strict=True):
        if label not in known:
            handles, labels = [*handles, handle], [*labels, label]
    drawn.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))))
    return drawn


def _line(axes: Axes, x: np.ndarray, found: Sequence[Number], name: str, place: int) -> None:
    known = np.array([one.known for one in found], dtype=bool)
    if not known.any():
        return
    colour, mark = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
    value, low, high = (np.array([getattr(one, key) for one in found]) for key in ("value", "low", "high"))
    axes.fill_between(x[known], low[known], high[known], color=colour, alpha=0.15, lw=0)
    axes.plot(x[known], value[known], color=colour, marker=mark, ms=4, lw=1.5, label=plain(name))
