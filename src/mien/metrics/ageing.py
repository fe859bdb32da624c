"""Do faces shown at several ages look these ages? Bands about the ages asked for, and the order of the judged ones.

`asked` is (A,) rising years, `judged` (N, A) years, NaN where nothing was judged.
"""

from __future__ import annotations

import numpy as np

from mien.faces import MAX_AGE, MIN_AGE
from mien.metrics.weighted import ratio

#: Half the width of the band of an age that is asked for alone, in years.
HALF = 5.0


def bands(asked: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """The years that count as each of `asked`, (A, 2) from (inclusive) and to (exclusive).

    They meet halfway between neighbours; the outer two reach as far out as in. Those of the ages that are `counted`
    (A,) bool do not depend on the others.
    """
    asked = np.asarray(asked, dtype=np.float64)
    if counted is not None and not counted.all():
        limits = bands(asked)
        limits[counted] = bands(asked[counted])
        return limits
    between = (asked[1:] + asked[:-1]) / 2
    first, last = (asked[1] - asked[0]) / 2 if len(asked) > 1 else HALF, HALF
    if len(asked) > 1:
        last = (asked[-1] - asked[-2]) / 2
    edges = np.concatenate([[asked[0] - first], between, [asked[-1] + last]])
    return np.stack([edges[:-1], edges[1:]], axis=1).clip(MIN_AGE, MAX_AGE)


def in_band(judged: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """1 where a judged age (N, A) lies in the band of the age asked for, `limits` (A, 2), else 0; NaN where nothing was
    judged."""
    low, high = limits.T
    return np.where(np.isnan(judged), np.nan, (judged >= low) & (judged < high))


def rising(judged: np.ndarray) -> np.ndarray:
    """1 for a face each of whose judged ages is above the one before, else 0, (N,); NaN where one was not judged."""
    rises = (np.diff(judged, axis=1) > 0).all(axis=1)
    return np.where(np.isnan(judged).any(axis=1), np.nan, rises)


def spearman(judged: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Spearman's correlation of judged with asked ages of each face, (N,), ties sharing their ranks; 0 where all
    judged ages are one: they go with nothing; NaN where one was not judged."""
    from scipy.stats import rankdata

    values, others = rankdata(judged, axis=1), rankdata(asked)  # a row with NaN has no ranks, but NaN
    a, b = values - values.mean(axis=1, keepdims=True), others - others.mean()
    found = np.nan_to_num(ratio(a @ b, np.sqrt(np.square(a).sum(axis=1) * float(b @ b))))
    return np.where(np.isnan(judged).any(axis=1), np.nan, found)


def slope(judged: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Judged years for each year asked for, by least squares, of each face, (N,); NaN for one age."""
    centred = asked - np.mean(asked)
    found: np.ndarray = ratio(judged @ centred, centred @ centred)
    return found
