"""What a sweep over beta or capacity trades: reconstruction and separation against rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mien.report.numbers import Number, number
from mien.report.style import INK, MARKERS, MUTED, PALETTE, note, nothing, panel, plain, sheet, shorten, styled

#: Key of a trade-off, the panel's title, the y axis, and a line of reference with its meaning.
PANELS: tuple[tuple[str, str, str, float | None], ...] = (
    ("mse", "Reconstruction", "MSE of pixels in [0, 1]", None),
    ("probe", "Age left in z_id", "strongest probe's MAE over the constant's", 1.0),
    ("mig", "Age in one latent", "MIG of the age, z_age being taught", None),
)
#: Lines that the legend names.
NAMED = 8


@styled
def trade_off(lines: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]]) -> Figure:
    """Reconstruction, the age left in z_id and the MIG of the age over the rate in nats, each with its 95 % interval.

    `lines` are points (label, trade-off) by the name of the line that joins them in the order of their rates.
    """
    drawn = sheet(12.6, 4.4)
    for axes, (key, title, y, reference) in zip(drawn.subplots(1, len(PANELS)), PANELS, strict=True):
        _panel(axes, lines, key, title, y)
        if reference is not None and axes.axison:
            axes.axhline(reference, color=MUTED, lw=0.9, ls="--")
            note(axes, "dashed: a probe that reads nothing", 0.98, 0.03)
    if len(lines) > 1:
        handles, names = drawn.axes[0].get_legend_handles_labels()
        drawn.legend(handles[:NAMED], names[:NAMED], loc="outside lower center", ncols=4)
    return drawn


@styled
def rate_distortion(lines: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]]) -> Figure:
    """MSE over rate, of pictures decoded from the code's mean and of those from a code drawn about it.

    `lines` is as in `trade_off`; equal parameters are the caller's care.
    """
    drawn = sheet(10.6, 4.6)
    panels = (("mse", "Decoded from the mean"), ("mse_sampled", "Decoded from a drawn code, which the rate pays for"))
    for axes, (key, title) in zip(drawn.subplots(1, 2), panels, strict=True):
        _panel(axes, lines, key, title, "MSE of pixels in [0, 1]")
    handles, names = drawn.axes[0].get_legend_handles_labels()
    drawn.legend(handles[:NAMED], names[:NAMED], loc="outside lower center", ncols=4)
    return drawn


def _panel(
    axes: Axes, lines: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]], key: str, title: str, y: str
) -> None:
    shown = {
        name: sorted(
            ((number(one.get("rate")), number(one.get(key)), label) for label, one in points),
            key=lambda point: point[0].value,
        )
        for name, points in lines.items()
    }
    shown = {name: [point for point in points if point[0].known and point[1].known] for name, points in shown.items()}
    if not any(shown.values()):
        nothing(axes, title, "nothing was measured")
        return
    panel(axes, title, "rate, nats a face", y)
    for place, (name, points) in enumerate(shown.items()):
        colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
        x, values = [point[0].value for point in points], [point[1].value for point in points]
        axes.plot(x, values, color=colour, marker=marker, ms=5, lw=1.4, label=plain(shorten(name, 40)))
        for rate, value, label in points:
            if value.has_interval:
                axes.plot([rate.value] * 2, [value.low, value.high], color=colour, lw=1)
            _label(axes, rate, value, label)
    axes.margins(x=0.1, y=0.12)


def _label(axes: Axes, rate: Number, value: Number, label: str) -> None:
    axes.annotate(
        plain(shorten(label, 18)), (rate.value, value.value), (4, 4), textcoords="offset points", fontsize=8, color=INK
    )
