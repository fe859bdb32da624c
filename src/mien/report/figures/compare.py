"""Two models on the same faces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from mien.report.numbers import number, size, suppressed
from mien.report.style import BLUE, INK, MUTED, ORANGE, Row, draw_rows, nothing, panel, sheet, shorten, styled


@styled
def compare(
    differences: Mapping[str, Mapping[str, Any]],
    first: str,
    second: str,
    unit: str = "years",
    lower_is_better: bool = True,
    title: str = "",
    factor: float = 1.0,
) -> Figure:
    """Paired differences `second` − `first` with 95 % intervals, under a heading for each kind of group.

    `differences` is `{"all": {"MAE": estimate}, "race": {"White": estimate, ...}, ...}`. Blue where the
    second is better, orange where it is worse, grey where the interval holds 0; `factor` 100 turns shares
    to per cent.
    """
    rows, colours = [], []
    for heading, group in differences.items():
        rows.append(Row(heading, number(None), heading=True))
        colours.append(MUTED)
        for name, value in group.items():
            figure = number(value)
            rows.append(Row(name, figure, size(value), suppressed(value)))
            unclear = not figure.has_interval or figure.low <= 0 <= figure.high
            better = (figure.value < 0) == lower_is_better
            colours.append(MUTED if unclear else BLUE if better else ORANGE)
    drawn = sheet(8.2, 1.5 + 0.3 * max(len(rows), 2))
    axes = drawn.subplots()
    title = title or f"{shorten(second, 32)} against {shorten(first, 32)}"
    if not any(row.figure.known for row in rows):
        nothing(axes, title, "no difference to show")
        return drawn
    direction = "negative: the second is better" if lower_is_better else "positive: the second is better"
    panel(axes, title, f"difference ({unit}), second − first; {direction}", grid="x")
    draw_rows(axes, rows, bars=False, colours=colours, factor=factor, reference=0.0)
    axes.axvline(0, color=INK, lw=1)
    for colour, text in ((BLUE, "better"), (ORANGE, "worse"), (MUTED, "cannot be told apart")):
        axes.plot([], [], "o-", color=colour, label=text)
    drawn.legend(loc="outside lower center", ncols=3, fontsize=8.5)
    return drawn
