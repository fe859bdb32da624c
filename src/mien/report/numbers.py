"""Figures as people read them: `4.20 [4.08, 4.33]`, `93.1 % [92.3, 93.8]`, `4,740`; a dash for none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

DASH = "–"


class Number(NamedTuple):
    """A figure with its 95 % interval and the number of faces behind it; NaN (n: 0) where unknown."""

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0

    @property
    def known(self) -> bool:
        return math.isfinite(self.value)

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


def number(value: Any) -> Number:
    """Read an estimate `{"value", "low", "high", "n"}`, a plain number, or None, as one `Number`."""
    if isinstance(value, Number):
        return value
    if isinstance(value, Mapping):
        return Number(_float(value.get("value")), _float(value.get("low")), _float(value.get("high")), size(value))
    return Number(_float(value))


def size(group: Any) -> int:
    """How many faces a group or an estimate has: its own `n`, else that of the first estimate inside it."""
    if not isinstance(group, Mapping):
        return 0
    if group.get("n") is not None:
        return int(group["n"])
    return next((size(value) for value in group.values() if isinstance(value, Mapping) and "n" in value), 0)


def suppressed(group: Any) -> bool:
    """Whether a group has too few faces for its figures to be shown."""
    return isinstance(group, Mapping) and bool(group.get("suppressed"))


def years(value: Any, digits: int = 2, sign: bool = False) -> str:
    """A figure in its own unit with its interval: `4.20 [4.08, 4.33]`; `sign` writes a + as well."""
    return _text(number(value), 1.0, digits, "", sign)


def share(value: Any, digits: int = 1, sign: bool = False) -> str:
    """A share in [0, 1] in per cent with its interval: `93.1 % [92.3, 93.8]`."""
    return _text(number(value), 100.0, digits, " %", sign)


def count(value: Any) -> str:
    """A whole number with thousands marked: `4,740`."""
    return DASH if value is None or (isinstance(value, float) and math.isnan(value)) else f"{int(value):,}"


def _text(figure: Number, factor: float, digits: int, unit: str, sign: bool) -> str:
    if not figure.known:
        return DASH

    def one(value: float) -> str:
        # Adding 0.0 turns a rounded -0.0 into 0.0.
        text = f"{round(value * factor, digits) + 0.0:{'+' if sign else ''},.{digits}f}"
        return text.replace("-", "−")

    interval = f" [{one(figure.low)}, {one(figure.high)}]" if figure.has_interval else ""
    return f"{one(figure.value)}{unit}{interval}"


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
