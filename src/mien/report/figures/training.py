"""How a training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mien.report.style import (
    MARKERS,
    MUTED,
    PALETTE,
    nothing,
    panel,
    plain,
    rule,
    sheet,
    shorten,
    styled,
)

Lines = dict[str, np.ndarray]
#: Lines that one panel and its legend can hold.
MOST = 6


@styled
def training_history(history: Sequence[Mapping[str, Any]], best: int | None = None) -> Figure:
    """Losses by term, figures on `select`, learning rate, by epoch.

    `history` is a run's: an entry an epoch, `{"epoch", "lr", "train": {term: loss}, "select": {...}}`;
    what is missing, None or NaN is left out. Figures that end in the same word (`gender/accuracy`,
    `race/accuracy`) share a panel. `best` is the epoch whose weights were kept.
    """
    epochs = np.array([entry.get("epoch", place + 1) for place, entry in enumerate(history)], dtype=np.float64)
    losses = _collect([entry.get("train") or {} for entry in history])
    panels: dict[str, Lines] = {}
    for name, line in _collect([entry.get("select") or {} for entry in history]).items():
        task, _, figure = name.rpartition("/")
        panels.setdefault(figure, {})[task or name] = line
    rates = _collect([{"learning rate": entry.get("lr")} for entry in history])
    terms = _split(losses)
    count = len(terms) + len(panels) + 1
    columns = 2 if count in (2, 4) else 3
    figure_ = sheet(4.2 * columns, 3.3 * -(-count // columns))
    grid = list(figure_.subplots(-(-count // columns), columns, squeeze=False).flat)
    for axes in grid[count:]:
        axes.axis("off")
    for axes, (title, lines) in zip(grid, terms.items(), strict=False):
        _lines(axes, title, epochs, lines, "loss", best, log=True)
    for axes, (name, lines) in zip(grid[len(terms) :], panels.items(), strict=False):
        _lines(axes, name.replace("_", " "), epochs, lines, f"{name.replace('_', ' ')} on select", best)
    _lines(grid[count - 1], "Learning rate", epochs, rates, "learning rate", best)
    return figure_


def _split(losses: Lines) -> dict[str, Lines]:
    """The losses by the title of their panel: of one that would hold too many lines, a panel a player, and more."""
    if len(losses) <= MOST:
        return {"Training losses": losses}
    players: dict[str, Lines] = {}
    for name, line in losses.items():
        player, _, term = name.rpartition("/")
        players.setdefault(player, {})[term] = line
    panels = {}
    for player, lines in players.items():
        names = list(lines)
        parts = -(-len(names) // MOST)
        each = -(-len(names) // parts)
        for part in range(parts):
            title = f"Training losses{': ' if player else ''}{player}{f' ({part + 1})' if parts > 1 else ''}"
            panels[title] = {name: lines[name] for name in names[part * each : (part + 1) * each]}
    return panels


def _collect(entries: Sequence[Mapping[str, Any]]) -> Lines:
    """Lines (epochs,) by name, NaN where an entry lacks the name; names in order of appearance."""
    names = dict.fromkeys(name for entry in entries for name in entry)
    lines = {}
    for name in names:
        values = [entry.get(name) for entry in entries]
        lines[name] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return lines


def _lines(
    axes: Axes, title: str, epochs: np.ndarray, lines: Lines, y: str, best: int | None, log: bool = False
) -> None:
    lines = {name: line for name, line in lines.items() if np.isfinite(line).any()}
    if not lines:
        return nothing(axes, title, "nothing was measured")
    values = np.concatenate([line[np.isfinite(line)] for line in lines.values()])
    log = log and bool((values > 0).all()) and values.max() > 20 * values.min()
    panel(axes, shorten(title, 40), "epoch", f"{shorten(y, 34)}{', log scale' if log else ''}")
    for place, (name, line) in enumerate(lines.items()):
        some = np.isfinite(line)
        axes.plot(
            epochs[some], line[some], color=PALETTE[place % len(PALETTE)],
            marker=MARKERS[place % len(MARKERS)], markevery=max(1, int(some.sum()) // 25), ms=4, lw=1.5,
            label=plain(shorten(name, 26)),
        )  # fmt: skip
    low, high = float(values.min()), float(values.max())
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if len(lines) > 1:
        # Room above the lines, so that the legend hides none of them.
        rows = -(-len(lines) // 2)
        room = min(0.1 + 0.11 * rows, 0.55)
        if log:
            axes.set_ylim(low / 1.2, high * (high / low) ** (room / (1 - room)))
        elif high > low:
            axes.set_ylim(low - 0.05 * (high - low), high + (high - low) * room / (1 - room))
        axes.legend(loc="upper left", fontsize=8, ncols=2, borderaxespad=0.2, columnspacing=1.2)
    if best is not None:
        rule(axes, best, f"epoch {best}, the one kept", MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return None
