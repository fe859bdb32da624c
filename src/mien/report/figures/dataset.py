"""What a set of faces holds: seed 000's six panels, and three of what the faces feel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mien.faces import AGE_BIN_NAMES, AGE_BINS, EXPRESSIONS, GENDERS, MAX_AGE, RACES, middle
from mien.report.numbers import Number
from mien.report.style import (
    BLUE,
    DENSITY,
    INK,
    ORANGE,
    Row,
    codes,
    draw_rows,
    note,
    nothing,
    panel,
    plain,
    remark,
    rule,
    sheet,
    styled,
)


def spread_ages(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Faces of each whole year of age, (121,) float64, from intervals in years, (N,) each, NaN where missing.

    A face whose age is an interval counts in equal parts in each whole year of it (3-9: one seventh in each).
    """
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    known = ~(np.isnan(low) | np.isnan(high))
    first = np.floor(low[known]).astype(np.int64)
    last = np.maximum(np.floor(high[known]).astype(np.int64), first)
    counts = np.zeros(MAX_AGE + 1)
    # Data sets have few distinct intervals, so a million faces take a few hundred steps.
    pairs, times = np.unique(first * (MAX_AGE + 1) + last, return_counts=True)
    for pair, many in zip(pairs, times, strict=True):
        start, end = divmod(int(pair), MAX_AGE + 1)
        counts[start : end + 1] += many / (end + 1 - start)
    return counts


def by_bin(counts: np.ndarray) -> np.ndarray:
    """Faces in each of the eight age bins, (8,), from faces by whole year, (121,)."""
    return np.array([counts[low : high + 1].sum() for low, high in AGE_BINS])


@styled
def dataset_analysis(
    age_low: np.ndarray,
    age_high: np.ndarray,
    gender: Iterable[str | int | None],
    race: Iterable[str | int | None],
    title: str = "",
    genders: Sequence[str] = GENDERS,
    races: Sequence[str] = RACES,
) -> Figure:
    """Age by year, gender, race, age x gender, age x race, age bins.

    Ages are intervals in years, (N,) each, NaN where missing. `gender` and `race` are (N,) names, or indices
    into `genders` and `races` with -1 (or None) where missing.
    """
    low, high = np.asarray(age_low, dtype=np.float64), np.asarray(age_high, dtype=np.float64)
    gender_codes, race_codes = codes(gender, genders), codes(race, races)
    years = spread_ages(low, high)
    figure = sheet(12.5, 7.6)
    panels = figure.subplots(2, 3)
    _ages(panels[0, 0], years, low, high)
    _classes(panels[0, 1], "Gender", gender_codes, genders)
    _classes(panels[0, 2], "Race", race_codes, races)
    sides = [by_bin(spread_ages(low[gender_codes == c], high[gender_codes == c])) for c in range(len(genders))]
    _pyramid(panels[1, 0], sides, genders)
    cells = [_bins_of(low, high, race_codes == code) for code in range(len(races))]
    _cells(panels[1, 1], np.array(cells), races)
    _bins(panels[1, 2], by_bin(years))
    if title:
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    return figure


@styled
def affect_analysis(
    expression: Iterable[str | int | None],
    valence: np.ndarray,
    arousal: np.ndarray,
    expressions: Sequence[str] = EXPRESSIONS,
) -> Figure:
    """Expressions, how valence and arousal are spread, and both together.

    `expression` is (N,) names, or indices into `expressions` with -1 (or None) where missing; `valence` and
    `arousal` are (N,) in [-1, 1], NaN where missing.
    """
    valence, arousal = np.asarray(valence, dtype=np.float64), np.asarray(arousal, dtype=np.float64)
    figure = sheet(12.5, 4.0)
    first, second, third = figure.subplots(1, 3)
    _classes(first, "Expression", codes(expression, expressions), expressions)
    _feelings(second, {"valence": (valence, BLUE), "arousal": (arousal, ORANGE)})
    both = ~(np.isnan(valence) | np.isnan(arousal))
    if both.any():
        panel(third, "Valence and arousal (faces)", "valence", "arousal", grid="")
        cells = np.histogram2d(arousal[both], valence[both], bins=20, range=((-1, 1), (-1, 1)))[0]
        third.imshow(np.sqrt(cells), cmap=DENSITY, origin="lower", extent=(-1, 1, -1, 1), vmin=0)
        third.axhline(0, color=INK, lw=0.8)
        third.axvline(0, color=INK, lw=0.8)
        remark(third, f"n {both.sum():,}; darkest cell: {cells.max():,.0f}")
    else:
        nothing(third, "Valence and arousal", "no face carries both")
    return figure


def _feelings(axes: Axes, values: Mapping[str, tuple[np.ndarray, str]]) -> None:
    known = {name: (one[~np.isnan(one)], colour) for name, (one, colour) in values.items()}
    known = {name: (one, colour) for name, (one, colour) in known.items() if len(one)}
    if not known:
        return nothing(axes, "Valence, arousal", "no face carries either")
    panel(axes, "Valence, arousal", "from -1 to 1", "faces", grid="y")
    for name, (one, colour) in known.items():
        label = f"{name}: n {len(one):,}, mean {one.mean():.2f}"
        axes.hist(one, bins=40, range=(-1, 1), histtype="stepfilled", color=colour, alpha=0.45, label=plain(label))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
    axes.legend(loc="upper left", fontsize=8.5)
    return None


def _bins_of(low: np.ndarray, high: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return by_bin(spread_ages(low[keep], high[keep]))


def _ages(axes: Axes, years: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    total = len(low)
    known = int((~(np.isnan(low) | np.isnan(high))).sum())
    if not known:
        return nothing(axes, "Age", "no face carries an age")
    panel(axes, "Age", "age (years)", "faces", grid="y")
    axes.bar(np.arange(len(years)), years, width=1.0, color=BLUE, alpha=0.75, linewidth=0)
    median = float(np.nanmedian(middle(low, high)))  # as the page and the command tell it
    rule(axes, median, f"median {median:.0f}")
    axes.set_ylim(0, years.max() * 1.3)
    last = int(np.flatnonzero(years).max())
    axes.set_xlim(-1, max(last + 2, 20))
    wide = int((np.floor(high) > np.floor(low)).sum())
    lines = [f"n {known:,}"]
    if total > known:
        lines.append(f"{total - known:,} without age")
    if wide:
        lines.append(f"{wide:,} intervals, spread\nevenly over their years")
    note(axes, "\n".join(lines))
    return None


def _classes(axes: Axes, title: str, values: np.ndarray, words: Sequence[str]) -> None:
    known = values[values >= 0]
    if not len(known):
        return nothing(axes, title, f"no face carries {'an' if title[0] in 'AEIOU' else 'a'} {title.lower()}")
    panel(axes, title, "share of labelled faces (%)", grid="x")
    counts = np.bincount(known, minlength=len(words))
    rows = [Row(word, Number(n / len(known)), int(n)) for word, n in zip(words, counts, strict=True)]
    draw_rows(axes, rows, factor=100, digits=1)
    lines = []
    if len(values) > len(known):
        lines.append(f"{len(values) - len(known):,} without {title.lower()}")
    some = counts[counts > 0]
    if len(some) > 1:
        lines.append(f"largest : smallest = {some.max() / some.min():.1f}")
    if lines:
        remark(axes, "; ".join(lines))
    return None


def _pyramid(axes: Axes, sides: Sequence[np.ndarray], words: Sequence[str]) -> None:
    if not sum(side.sum() for side in sides):
        return nothing(axes, "Age × gender", "no face carries both age and gender")
    panel(axes, "Age × gender", "faces", "age (years)", grid="x")
    places = np.arange(len(AGE_BINS))
    for side, word, sign, colour in zip(sides, words, (-1, 1), (BLUE, ORANGE), strict=False):
        axes.barh(places, sign * side, height=0.7, color=colour, alpha=0.6, linewidth=0, label=plain(word))
        for place, value in zip(places, side, strict=True):
            axes.annotate(
                f"{value:,.0f}", (sign * value, place), (sign * 3, 0), textcoords="offset points",
                ha="left" if sign > 0 else "right", va="center", fontsize=8,
            )  # fmt: skip
    reach = max(side.max() for side in sides) * 1.32
    axes.set_xlim(-reach, reach)
    axes.axvline(0, color="white", lw=1)
    axes.set_ylim(-0.6, len(AGE_BINS) + 0.3)
    axes.set_yticks(places, AGE_BIN_NAMES)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
    axes.legend(loc="upper center", ncols=2, borderaxespad=0.1)
    return None


def _cells(axes: Axes, cells: np.ndarray, words: Sequence[str]) -> None:
    if not cells.sum():
        return nothing(axes, "Age × race", "no face carries both age and race")
    panel(axes, "Age × race (faces)", "age (years)", grid="")
    axes.imshow(np.sqrt(cells), cmap=DENSITY, aspect="auto", vmin=0)
    dark = cells.max() * 0.4
    for row in range(cells.shape[0]):
        for column in range(cells.shape[1]):
            value = cells[row, column]
            axes.text(
                column, row, short_count(value), ha="center", va="center", fontsize=8,
                color="white" if value > dark else INK,
            )  # fmt: skip
    axes.set_xticks(range(len(AGE_BINS)), AGE_BIN_NAMES, fontsize=8)
    axes.set_yticks(range(len(words)), [plain(word) for word in words])
    axes.spines[:].set_visible(False)
    return None


def _bins(axes: Axes, bins: np.ndarray) -> None:
    if not bins.sum():
        return nothing(axes, "Age bins", "no face carries an age")
    panel(axes, "Age bins", "share of faces with an age (%)", "age (years)", grid="x")
    rows = [
        Row(name, Number(value / bins.sum()), round(value)) for name, value in zip(AGE_BIN_NAMES, bins, strict=True)
    ]
    draw_rows(axes, rows, factor=100, digits=1)
    some = bins[bins > 0]
    if len(some) > 1:
        remark(axes, f"largest : smallest = {some.max() / some.min():.1f}")
    return None


def short_count(value: float) -> str:
    """A count that fits a small cell: `0`, `87`, `1.2k`, `34k`, `1.1M`."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return f"{value:.0f}"
