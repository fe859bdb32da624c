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


def undercovered(true: np.ndarray, low: np.ndarray, high: np.ndarray, drawn: np.ndarray) -> bool | None:
    """Whether the intervals cover significantly less than `FLOOR`, one-sided, 5 %.

    The exact binomial test has to say so, and the replicates `drawn` (1 + B,) of the coverage too: those draw persons
    and sets of copies as a whole, while the binomial takes faces for independent and flags too many groups of few
    persons. None with fewer than `FEWEST_TESTED` faces, or where all are of one person.
    """
    resampled = drawn[1:][~np.isnan(drawn[1:])]
    if len(true) < FEWEST_TESTED or not len(resampled):
        return None
    hits = int(((true >= low) & (true <= high)).sum())
    return calibration.upper_bound(hits, len(true)) < FLOOR and bool(np.percentile(resampled, 95) < FLOOR)


def flag(
    table: dict[str, dict[str, Any]],
    partition: Partition,
    known: np.ndarray,
    true: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    drawn: Mapping[str, tuple[int, Mapping[str, np.ndarray]]],
) -> list[str]:
    """Write `undercovered` into each group large enough to be tested, and return those that are so. `drawn` are the
    groups' replicates, as `groups.group_replicates` gives them."""
    failing = []
    for name, rows in partition.groups(known):
        replicates = drawn[name][1].get("coverage90", np.empty(0))
        verdict = undercovered(true[rows], low[rows], high[rows], replicates)
        if verdict is not None:
            table[name]["undercovered"] = verdict
            if verdict:
                failing.append(name)
    return failing
