"""One look for every figure: palette, type, grid, rows with intervals; saving. Pyplot is never touched."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec
from weakref import WeakKeyDictionary

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from mien.faces import CROSS
from mien.files import whole
from mien.report.numbers import Number, number, size, suppressed

P = ParamSpec("P")
#: Figures that have been painted; each is forgotten with its figure.
_PAINTED: WeakKeyDictionary[Figure, bytes] = WeakKeyDictionary()

INK, MUTED, GRID, PALE = "#1c2733", "#5d6b7a", "#e3e8ed", "#c9d1d9"
# Okabe and Ito's colours, told apart by all common kinds of colour blindness (jfly.uni-koeln.de/color).
BLUE, ORANGE, GREEN, AMBER, SKY, PINK = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#cc79a7"
PALETTE = (BLUE, ORANGE, GREEN, AMBER, SKY, PINK, INK, MUTED)
#: A second mark beside colour, so that lines differ in grey print too.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DENSITY = "Blues"
#: Dots an inch of saved figures: 10 inches are 1,500 pixels, crisp on a page that shows them 1,000 wide.
DPI = 150

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.usetex": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": PALE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": True,
    "legend.edgecolor": "none",
    "legend.facecolor": "white",
    "legend.framealpha": 0.85,
    "legend.fancybox": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "hatch.color": PALE,
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A drawing function that draws in this style, whatever the user's matplotlib settings are."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


class Sheet(Figure):
    """A figure that keeps its style when it is drawn, since matplotlib makes ticks only then."""

    def draw(self, renderer: Any) -> None:
        with matplotlib.rc_context(STYLE):
            super().draw(renderer)


def sheet(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches that lays its panels out by itself."""
    figure = Sheet(figsize=(width, height), dpi=DPI, layout="constrained")
    engine = figure.get_layout_engine()
    engine.set(w_pad=0.08, h_pad=0.1, wspace=0.04, hspace=0.04)  # type: ignore[union-attr,call-arg]
    return figure


def panel(axes: Axes, title: str, x: str = "", y: str = "", grid: str = "both") -> Axes:
    """Name a panel and its axes; `grid` is "x", "y", "both" or ""."""
    axes.set_title(plain(title))
    axes.set_xlabel(plain(x))
    axes.set_ylabel(plain(y))
    if grid:
        axes.grid(True, axis=grid)  # type: ignore[arg-type]
    axes.tick_params(length=0)
    return axes


def note(axes: Axes, text: str, x: float = 0.98, y: float = 0.97) -> None:
    """A remark in a corner of a panel, on white so that it stays readable over marks."""
    axes.text(
        x,
        y,
        plain(text),
        transform=axes.transAxes,
        ha="right" if x > 0.5 else "left",
        va="top" if y > 0.5 else "bottom",
        fontsize=8.5,
        color=INK,
        linespacing=1.35,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2},
        zorder=6,
    )


def nothing(axes: Axes, title: str, why: str) -> None:
    """A panel that says why it is empty."""
    axes.set_title(plain(title))
    axes.axis("off")
    axes.text(0.5, 0.5, plain(why), transform=axes.transAxes, ha="center", va="center", color=MUTED)


def plain(text: object) -> str:
    """Text that matplotlib shows as it is: no mathematics between dollars, no glyph that its font lacks."""
    glyphs = _glyphs()
    shown = "".join(letter if letter == "\n" or ord(letter) in glyphs else "?" for letter in str(text))
    return shown.replace("$", r"\$")


def shorten(text: str, length: int) -> str:
    """`text` in at most `length` characters; what is left out of its middle is an ellipsis."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def words(key: str) -> str:
    """The name of a grouping as people say it: `age_bin` is `age`, `gender x race` is `gender × race`."""
    return crossed(key.replace("age_bin", "age").replace("_", " "))


def crossed(name: str) -> str:
    """The name of a crossing or of a group of it as people write it: `Male x White` is `Male × White`."""
    return name.replace(CROSS, " × ")


class Row(NamedTuple):
    """One line of a chart of groups: its name, its figure, and whether it is too small to be shown."""

    name: str
    figure: Number
    n: int = 0
    suppressed: bool = False
    heading: bool = False


def rows_of(groups: Mapping[str, Any] | None, key: str) -> list[Row]:
    """The figure `key` of every group of a metrics table (`{"White": {"mae": {...}}, ...}`), in its order."""
    rows = []
    for name, group in (groups or {}).items():
        figure = number(group.get(key)) if isinstance(group, Mapping) else number(None)
        rows.append(Row(str(name), figure, figure.n or size(group), suppressed(group)))
    return rows


def draw_rows(
    axes: Axes,
    rows: Sequence[Row],
    *,
    bars: bool = True,
    factor: float = 1.0,
    digits: int = 2,
    colours: Sequence[str] | None = None,
    labels: bool = True,
    label_length: int = 26,
    reference: float | None = None,
) -> None:
    """Groups from top to bottom, each a bar (or a dot) with its 95 % interval, its n and its value.

    `factor` multiplies the figures (100 for per cent). Too small groups are named with their n, no figure. The axis
    reaches as far as `reference`, which is in the unit of the figures.
    """
    shown = [row.figure for row in rows if not row.heading and not row.suppressed and row.figure.known]
    reach = [f.high if f.has_interval else f.value for f in shown] + [f.value for f in shown]
    reach += [f.low for f in shown if f.has_interval]
    reach += [reference] if reach and reference is not None else []
    for place, row in enumerate(rows):
        if row.heading or row.suppressed or not row.figure.known:
            continue
        figure, colour = row.figure, colours[place] if colours else BLUE
        value = figure.value * factor
        if bars:
            axes.barh(place, value, height=0.62, color=tint(colour), linewidth=0)
        if figure.has_interval:
            axes.plot([figure.low * factor, figure.high * factor], [place, place], color=colour, lw=2)
        if figure.has_interval or not bars:
            axes.plot([value], [place], marker="o", ms=5, color=colour, ls="none", zorder=4)
    # Two groups get no thicker bars than five.
    axes.set_ylim(max(len(rows), 4) - 0.4, -0.6)
    names = []
    for row in rows:
        name = shorten(row.name, label_length)
        if row.heading:
            names.append(plain(name))
        elif row.n:
            names.append(plain(f"{name}  n {row.n:,}"))
        else:
            names.append(plain(name))
    axes.set_yticks(range(len(rows)), names if labels else [""] * len(rows))
    for row, tick in zip(rows, axes.get_yticklabels(), strict=True):
        if row.heading:
            tick.set_fontweight("bold")
            tick.set_color(MUTED)
    if not reach:
        axes.set_xticks([])
        axes.set_xlim(0, 1)
    else:
        low, high = min(reach) * factor, max(reach) * factor
        if bars:
            axes.set_xlim(min(0.0, low * 1.1), (high if high > 0 else 1.0) * 1.28)
        else:
            space = (high - low or abs(high) or 1.0) * 0.08
            axes.set_xlim(low - space, high + space * 4.2)
    edge = axes.get_xlim()[1]
    for place, row in enumerate(rows):
        if row.heading:
            continue
        if row.suppressed or not row.figure.known:
            axes.text(
                0.02, place, "too few to say" if row.suppressed else "no figure",
                transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color=MUTED, style="italic",
            )  # fmt: skip
        else:
            axes.text(
                edge, place, f"{row.figure.value * factor:.{digits}f}".replace("-", "−"),
                va="center", ha="right", fontsize=9, color=INK,
            )  # fmt: skip


def tint(colour: str, share: float = 0.4) -> tuple[float, float, float]:
    """`share` of a colour on white; unlike transparency it hides the grid."""
    red, green, blue = to_rgb(colour)
    return (1 - share + share * red, 1 - share + share * green, 1 - share + share * blue)


def rule(axes: Axes, at: float, text: str, colour: str = ORANGE) -> None:
    """A dashed vertical line of reference; what it is stands below the axis, where it can hide nothing."""
    axes.axvline(at, color=colour, ls="--", lw=1.3, zorder=3)
    remark(axes, f"dashed: {text}")


def remark(axes: Axes, text: str) -> None:
    """A line of text below the name of the x axis."""
    axes.set_xlabel(f"{axes.get_xlabel()}\n{plain(text)}", linespacing=1.4)


def codes(values: Iterable[Any], words: Sequence[str]) -> np.ndarray:
    """(N,) int64 indices into `words`, -1 where missing, from such indices or from the words themselves."""
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "f":  # an all-missing column
        return np.where(np.isnan(array), -1, array).astype(np.int64)
    table = {word: place for place, word in enumerate(words)}
    return np.array([table.get(value, -1) for value in array.tolist()], dtype=np.int64)


def save(figure: Figure, path: str | Path) -> None:
    """Write `figure` as a PNG; the file appears whole."""
    with whole(path) as beside:
        beside.write_bytes(_png(figure))


def to_base64(figure: Figure) -> str:
    """`figure` as a PNG in base64, for a page that carries its pictures in itself."""
    return base64.b64encode(_png(figure)).decode("ascii")


def _png(figure: Figure) -> bytes:
    """The figure painted, once: what a file shows of it a page shows too, and painting takes a second."""
    if figure not in _PAINTED:
        _lay_out(figure)
        with io.BytesIO() as stream:
            figure.savefig(stream, format="png", dpi=DPI)
            _PAINTED[figure] = stream.getvalue()
    return _PAINTED[figure]


def _lay_out(figure: Figure) -> None:
    """Place the panels for good. With its engine in place matplotlib would draw the whole figure once more for that."""
    engine = figure.get_layout_engine()
    if engine is not None:
        with matplotlib.rc_context(STYLE):
            engine.execute(figure)
        figure.set_layout_engine("none")


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())
