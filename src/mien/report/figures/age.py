"""Where an age estimate is wrong, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mien.faces import CROSS
from mien.report.numbers import Number, number, years
from mien.report.style import (
    BLUE,
    DENSITY,
    INK,
    MUTED,
    ORANGE,
    PALE,
    draw_rows,
    note,
    nothing,
    panel,
    plain,
    rows_of,
    rule,
    sheet,
    shorten,
    styled,
    words,
)

#: From here on points hide each other and density says more.
DENSE = 1500
#: Errors beyond this many years are drawn in the outermost bins of the histogram.
WIDEST = 30
#: About the inner size of a panel of `training_count` in points, enough to keep names apart.
PANEL = (245, 225)


@styled
def error_analysis(age: Mapping[str, Any], truth: np.ndarray, prediction: np.ndarray) -> Figure:
    """Seed 000's panels: error by age, MAE by age bin, gender and race, prediction against truth, errors.

    `age` is the age part of an evaluation's metrics; `truth` and `prediction` are (N,) years, NaN where
    unknown (faces without an exact age, or without a prediction, are left out).
    """
    truth, prediction = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    known = np.isfinite(truth) & np.isfinite(prediction)
    truth, prediction = truth[known], prediction[known]
    groups = age.get("groups") or {}
    figure = sheet(13.2, 7.9)
    panels = figure.subplots(2, 3)
    _error_by_age(panels[0, 0], truth, prediction)
    for axes, key, title in (
        (panels[0, 1], "age_bin", "MAE by age"),
        (panels[0, 2], "gender", "MAE by gender"),
        (panels[1, 0], "race", "MAE by race"),
    ):
        _group_mae(axes, title, groups.get(key), age)
    _prediction_by_truth(panels[1, 1], truth, prediction)
    _errors(panels[1, 2], prediction - truth)
    return figure


@styled
def cumulative_score(score: Sequence[float], constant: Sequence[float] | None = None) -> Figure:
    """Share of faces (0 to 1) whose error is at most 0, 1, 2 ... years, beside the constant predictor's."""
    figure = sheet(7.5, 4.4)
    axes = panel(figure.subplots(), "Cumulative score", "error of at most (years)", "share of faces (%)")
    model = np.asarray(score, dtype=np.float64) * 100
    if not np.isfinite(model).any():
        nothing(axes, "Cumulative score", "no face has both an exact age and a prediction")
        return figure
    allowed = np.arange(len(model))
    axes.plot(allowed, model, color=BLUE, marker="o", ms=4, label="this model")
    if constant is not None:
        axes.plot(
            np.arange(len(constant)), np.asarray(constant, dtype=np.float64) * 100,
            color=ORANGE, ls="--", label="constant predictor (median age)",
        )  # fmt: skip
    for at in (5, 10):
        if at < len(model) and np.isfinite(model[at]):
            axes.annotate(f"{model[at]:.1f} %", (at, model[at]), (7, -13), textcoords="offset points", fontsize=9)
    axes.set_ylim(0, 102)
    axes.set_xlim(-0.3, len(model) - 0.4)
    axes.set_xticks(allowed)
    axes.legend(loc="lower right")
    return figure


@styled
def training_count(age: Mapping[str, Any]) -> Figure:
    """MAE of each group against the number of faces of that group that the model was trained on.

    `age` is the age part of an evaluation's metrics; its groups carry `train_n` beside `mae`. A panel for
    each partition that has both.
    """
    groups = age.get("groups") or {}
    # Crossings are left out: too many names for one panel.
    points = {key: _trained(table) for key, table in groups.items() if CROSS not in key}
    points = {key: found for key, found in points.items() if len(found) > 1}
    figure = sheet(4.1 * max(len(points), 1.1), 4.3)
    panels = figure.subplots(1, max(len(points), 1), squeeze=False, sharey=True)[0]
    if not points:
        nothing(panels[0], "Training faces and error", "it is not known what the model was trained on")
        return figure
    overall = number(age.get("mae"))
    reach = [max(f.value, f.high) if f.has_interval else f.value for found in points.values() for _, f, _ in found]
    panels[0].set_ylim(0, max(reach) * 1.12)
    for axes, (key, found) in zip(panels, points.items(), strict=True):
        panel(axes, f"By {words(key)}", "training faces, log scale", "MAE (years)")
        axes.set_xscale("log")
        axes.set_xlim(min(p[0] for p in found) / 1.6, max(p[0] for p in found) * 2.2)
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        for trained, figure_, _ in found:
            if figure_.has_interval:
                axes.plot([trained] * 2, [figure_.low, figure_.high], color=BLUE, lw=1.5, alpha=0.6)
            axes.plot([trained], [figure_.value], "o", ms=6, color=BLUE)
        if overall.known:
            axes.axhline(overall.value, color=ORANGE, ls="--", lw=1.2, zorder=1)
        _labels(axes, [(trained, figure_.value, name) for trained, figure_, name in found])
        axes.label_outer()
    if overall.known:
        note(panels[0], f"dashed: all faces, {overall.value:.2f}", x=0.02, y=0.02)
    return figure


def _trained(groups: Mapping[str, Any]) -> list[tuple[int, Number, str]]:
    """Training faces, MAE and name of the groups that have both."""
    found = []
    for row in rows_of(groups, "mae"):
        trained = groups[row.name].get("train_n")
        if trained and not row.suppressed and row.figure.known:
            found.append((int(trained), row.figure, row.name))
    return found


def _labels(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Name points, each where its name hides no other: right, left, above or below it."""
    taken: list[tuple[float, float, float, float]] = []
    low, high = np.log(axes.get_xlim())
    top = axes.get_ylim()[1]
    spots = [((np.log(x) - low) / (high - low) * PANEL[0], y / top * PANEL[1]) for x, y, _ in points]
    taken += [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    for (trained, value, name), (x, y) in zip(points, spots, strict=True):
        text = shorten(name, 22)
        width = 5.2 * len(text)
        for dx, dy in ((7, -4), (-7 - width, -4), (7, 6), (7, -14), (-7 - width, 6), (-7 - width, -14)):
            box = (x + dx, y + dy, x + dx + width, y + dy + 10)
            free = box[0] > 0 and not any(
                box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
            )
            if free:
                break
        else:
            dx, dy = 7, -4
        taken.append((x + dx, y + dy, x + dx + width, y + dy + 10))
        axes.annotate(
            plain(text), (trained, value), (dx if dx > 0 else -7, dy + 4), textcoords="offset points",
            ha="left" if dx > 0 else "right", va="center", fontsize=8.5,
        )  # fmt: skip


def _group_mae(axes: Axes, title: str, groups: Mapping[str, Any] | None, age: Mapping[str, Any]) -> None:
    rows = rows_of(groups, "mae")
    if not rows:
        return nothing(axes, title, "no labels to group by")
    panel(axes, title, "MAE (years)", grid="x")
    overall, constant = number(age.get("mae")), number((age.get("constant") or {}).get("mae"))
    draw_rows(axes, rows, reference=overall.value if overall.known else None)
    if overall.known and any(row.figure.known for row in rows):
        baseline = f"; constant predictor {constant.value:.2f}" if constant.known else ""
        rule(axes, overall.value, f"all {overall.value:.2f}{baseline}", MUTED)
    return None


def _error_by_age(axes: Axes, truth: np.ndarray, prediction: np.ndarray) -> None:
    title = "Error by age"
    if not len(truth):
        return nothing(axes, title, "no face has both an exact age and a prediction")
    panel(axes, title, "true age (years)", "predicted − true age (years)")
    error = prediction - truth
    _density(axes, truth, error)
    middles: list[float] = []
    low: list[float] = []
    middle: list[float] = []
    high: list[float] = []
    for start in range(0, int(truth.max()) + 1, 5):
        inside = error[(truth >= start) & (truth < start + 5)]
        if len(inside) >= 10:
            middles.append(start + 2.0)
            for line, value in zip((low, middle, high), np.quantile(inside, (0.1, 0.5, 0.9)), strict=True):
                line.append(value)
    axes.axhline(0, color=INK, lw=1)
    if len(middles) > 1:
        axes.plot(middles, middle, color=ORANGE, label="median")
        axes.plot(middles, low, color=ORANGE, lw=1, ls="--", label="10 % and 90 %")
        axes.plot(middles, high, color=ORANGE, lw=1, ls="--")
        axes.legend(loc="upper right", borderaxespad=0.1)
    reach = max(float(np.abs(error).max()), 1.0) * 1.05
    axes.set_ylim(-reach, reach)
    return None


def _prediction_by_truth(axes: Axes, truth: np.ndarray, prediction: np.ndarray) -> None:
    title = "Prediction and truth"
    if not len(truth):
        return nothing(axes, title, "no face has both an exact age and a prediction")
    panel(axes, title, "true age (years)", "predicted age (years)")
    _density(axes, truth, prediction)
    end = max(float(truth.max()), float(prediction.max()), 10.0)
    axes.plot([0, end], [0, end], color=INK, lw=1, label="no error")
    if len(truth) > 2 and np.ptp(truth) > 0:
        slope, start = np.polyfit(truth, prediction, 1)
        span = np.array([truth.min(), truth.max()])
        line = start + slope * span
        axes.plot(span, line, color=ORANGE, ls="--", label=f"least squares, slope {slope:.2f}")
        # A model that takes everybody for older, say, may have such a slope and no old face that looks younger.
        if line[0] > span[0] and line[1] < span[1]:
            note(axes, "slope < 1: the old look younger\nand the young older than they are", 0.98, 0.03)
    axes.set_xlim(0, end * 1.02)
    axes.set_ylim(min(0.0, float(prediction.min())), end * 1.02)
    axes.legend(loc="upper left", borderaxespad=0.1)
    return None


def _errors(axes: Axes, error: np.ndarray) -> None:
    title = "Errors"
    if not len(error):
        return nothing(axes, title, "no face has both an exact age and a prediction")
    panel(axes, title, "predicted − true age (years)", "faces", grid="y")
    reach = int(min(WIDEST, max(3.0, math.ceil(np.abs(error).max()))))
    # Bins stand on whole years: errors of whole ages fall in their middles.
    edges = np.arange(-reach - 0.5, reach + 1.5).tolist()
    axes.hist(np.clip(error, -reach, reach), bins=edges, color=BLUE, alpha=0.75, linewidth=0)
    beyond = int((np.abs(error) > reach + 0.5).sum())
    axes.axvline(0, color=INK, lw=1)
    bias = float(error.mean())
    axes.axvline(bias, color=ORANGE, ls="--", lw=1.4, label=f"mean (bias) {years(bias, sign=True)}")
    axes.axvline(
        float(np.median(error)),
        color=MUTED,
        ls=":",
        lw=1.5,
        label=f"median {years(np.median(error), sign=True)}",
    )
    axes.set_ylim(0, axes.get_ylim()[1] * 1.28)
    axes.legend(loc="upper left", borderaxespad=0.1)
    lines = [
        f"n {len(error):,}",
        f"MAE {np.abs(error).mean():.2f}",
        f"RMSE {math.sqrt((error**2).mean()):.2f}",
    ]
    if beyond:
        lines.append(f"{beyond:,} beyond ±{reach}")
    note(axes, "\n".join(lines))
    return None


def _density(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    if len(x) < DENSE:
        axes.plot(x, y, "o", ms=3, color=BLUE, alpha=0.5, ls="none", mew=0)
        return
    cells = axes.hexbin(x, y, gridsize=42, cmap=DENSITY, bins="log", mincnt=1, linewidths=0.1)
    bar = axes.figure.colorbar(cells, ax=axes, pad=0.02, aspect=32)
    bar.outline.set_edgecolor(PALE)
    bar.set_label("faces", color=MUTED, fontsize=8.5)
    bar.ax.tick_params(labelsize=8, length=0, which="both")
    bar.locator = LogLocator(base=10, subs=(1.0, 2.0, 5.0))
    bar.formatter = FuncFormatter(lambda value, _: f"{value:,.0f}")
    bar.minorticks_off()
