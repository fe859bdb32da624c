"""Faces that a model was right and wrong about, with what is true of each and what it said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mien.evaluation.predictions import Predictions
from mien.evaluation.worst import exact_rows, pictures_of
from mien.faces import CONTINUOUS, VOCABULARIES
from mien.metrics.raters import expression_labels, plurality

if TYPE_CHECKING:
    from mien.data.pictures import Pictures

#: What decides whether a face is right: the first of these that the model and the labels have.
LEADING = ("expression", "age", "gender", "race", *CONTINUOUS)
#: An age is right within so many years.
YEARS = 5.0


def tiles(predictions: Predictions, pictures: Pictures, count: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    """Up to `count` faces drawn at random, half of them right and half wrong as far as there are so many; right first.

    A tile is `{"image": (3, H, W) uint8 or None, "right", "title", "lines", "path"}`. Right is the expression; in a
    model without it the age within five years, the gender, the race, or the sign of valence or arousal.
    """
    leading = next((name for name in LEADING if _judged(predictions, name).any()), None)
    if leading is None or count < 1:
        return []
    judged, right = _judged(predictions, leading), _right(predictions, leading)
    generator = np.random.default_rng(seed)
    good, bad = (generator.permutation(np.flatnonzero(judged & side)) for side in (right, ~right))
    wrong = min(len(bad), max(count // 2, count - len(good)))
    rows = np.concatenate([good[: count - wrong], bad[:wrong]])
    images = pictures_of(predictions, pictures, rows)
    paths = predictions.strings("path")
    said = [_lines(predictions, name, rows) for name in (leading, *(n for n in LEADING if n != leading))]
    found = []
    for place, row in enumerate(rows):
        title, *lines = [line for each in said if (line := each[place]) is not None]
        found.append(
            {"image": images[place], "right": bool(right[row]), "title": title, "lines": lines, "path": paths[row]}
        )
    return found


def _judged(predictions: Predictions, name: str) -> np.ndarray:
    """Faces with both a label and an answer, (N,) bool."""
    rows = np.zeros(len(predictions), dtype=bool)
    if not predictions.has(name):
        return rows
    if name == "age":
        rows[exact_rows(predictions)] = True
        return rows
    if name in CONTINUOUS:
        return ~np.isnan(predictions.numbers(name)) & ~np.isnan(predictions.numbers(f"true_{name}"))
    words = VOCABULARIES[name]
    return (predictions.codes(name, words) >= 0) & (predictions.codes(f"true_{name}", words) >= 0)


def _right(predictions: Predictions, name: str) -> np.ndarray:
    if name == "age":
        return np.abs(predictions.numbers("age") - predictions.numbers("true_age_low")) <= YEARS
    if name in CONTINUOUS:
        return np.sign(predictions.numbers(name)) == np.sign(predictions.numbers(f"true_{name}"))
    return np.array(predictions.strings(name) == predictions.strings(f"true_{name}"), dtype=bool)


def _lines(predictions: Predictions, name: str, rows: np.ndarray) -> list[str | None]:
    """`truth → prediction` of one task for each row; None where the model does not say it."""
    if not predictions.has(name):
        return [None] * len(rows)
    if name in CONTINUOUS:
        true, said = predictions.numbers(f"true_{name}")[rows], predictions.numbers(name)[rows]
        return [f"{name} {_signed(t)} → {_signed(s)}" for t, s in zip(true, said, strict=True)]
    if name == "age":
        low, high = predictions.numbers("true_age_low")[rows], predictions.numbers("true_age_high")[rows]
        spans = [_span(first, last) for first, last in zip(low, high, strict=True)]
        return [f"age {span} → {said:.0f}" for span, said in zip(spans, predictions.numbers("age")[rows], strict=True)]
    truth, answers, sure = (predictions.strings(key)[rows] for key in (f"true_{name}", name, f"{name}_p"))
    if name == "expression":
        # Where raters were tied there is no word, but there are words.
        shares = expression_labels(predictions.votes()[rows])
        truth = [word or _tied(share) for word, share in zip(truth, shares, strict=True)]
    chances = ["" if p is None or p != p else f" ({p:.2f})" for p in sure]
    return [f"{t or '?'} → {s}{p}" for t, s, p in zip(truth, answers, chances, strict=True)]


def _tied(shares: np.ndarray) -> str | None:
    if np.isnan(shares).any() or plurality(shares[None])[0] >= 0:
        return None
    return "/".join(VOCABULARIES["expression"][code] for code in np.flatnonzero(shares == shares.max()))


def _signed(value: float) -> str:
    return "?" if value != value else f"{value:+.2f}".replace("-", "−")


def _span(low: float, high: float) -> str:
    if low != low:
        return "?"
    return f"{low:.0f}" if low == high else f"{low:.0f}-{high:.0f}"
