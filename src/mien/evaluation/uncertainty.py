"""Whether age intervals hold the true age as often as they promise, and for whom they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mien.evaluation.groups import Figures, Partition
from mien.faces import AGE_BIN_NAMES, age_bin
from mien.metrics import calibration
from mien.metrics.bootstrap import Figure

#: A group is flagged when its coverage is significantly under this, although 0.90 is promised.
FLOOR = 0.85
#: Groups with fewer faces are not tested.
FEWEST_TESTED = 100


def interval_figures(true: np.ndarray, low: np.ndarray, high: np.ndarray) -> Figures:
    """Coverage and mean width of 90 % intervals [low, high] round exact ages, as figures of any rows."""

    def figures(rows: np.ndarray) -> Mapping[str, Figure]:
        t, lo, hi = true[rows], low[rows], high[rows]
        return {
            "coverage90": lambda w: calibration.coverage(t, lo, hi, w),
            "width90": lambda w: calibration.mean_width(lo, hi, w),
        }

    return figures


def by_prediction(predicted: np.ndarray) -> Partition:
    """Faces by the age bin of their prediction: what a user who sees only predictions can condition on."""
    return Partition(age_bin(predicted), AGE_BIN_NAMES)


def undercovered(true: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool | None:
    """Whether the intervals cover significantly less than `FLOOR` (exact binomial, one-sided, 5 %).

    None with fewer than `FEWEST_TESTED` faces. Faces count as independent, which makes the test the stricter
    one.
    """
    if len(true) < FEWEST_TESTED:
        return None
    hits = int(((true >= low) & (true <= high)).sum())
    return calibration.upper_bound(hits, len(true)) < FLOOR


def flag(
    table: dict[str, dict[str, Any]],
    partition: Partition,
    known: np.ndarray,
    true: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> list[str]:
    """Write `undercovered` into each group large enough to be tested, and return those that are so."""
    failing = []
    for name, rows in partition.groups(known):
        verdict = undercovered(true[rows], low[rows], high[rows])
        if verdict is not None:
            table[name]["undercovered"] = verdict
            if verdict:
                failing.append(name)
    return failing
