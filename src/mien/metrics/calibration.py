"""Whether a model knows how sure it is: intervals should hold the truth, probabilities come true."""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv

from mien.metrics.weighted import mean

#: Bins of confidence, of equal width on [0, 1].
BINS = 15


def coverage(true: np.ndarray, low: np.ndarray, high: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The share of faces with low <= true <= high."""
    return mean((true >= low) & (true <= high), weights)


def mean_width(low: np.ndarray, high: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean width of the intervals, in the unit of their ends."""
    return mean(high - low, weights)


def upper_bound(hits: int, n: int, alpha: float = 0.05) -> float:
    """One-sided Clopper-Pearson bound: a true rate above it would give so few `hits` in `n` less often than
    `alpha`.

    "Significantly under 85 %" is `upper_bound(hits, n) < 0.85`, the exact one-sided binomial test at 5 %.
    """
    return 1.0 if hits >= n else float(betaincinv(hits + 1, n - hits, 1 - alpha))


def confidence_bin(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """(N,) int64 number of the bin of each `confidence` in [0, 1]; a bin is open below and closed above."""
    index = np.ceil(np.asarray(confidence, dtype=np.float64) * bins) - 1
    return np.clip(index, 0, bins - 1).astype(np.int64)


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray | None = None, bins: int = BINS
) -> np.ndarray:
    """ECE (Guo et al. 2017): the mean gap between confidence and accuracy over `bins` bins of equal width on
    [0, 1].

    `confidence` (N,) in [0, 1] is the probability of the class named; `correct` (N,) bool says whether it was
    right. The bins are those of `confidence_bin`; a gap weighs as its bin's share of the faces.
    """
    member = confidence_bin(confidence, bins)[:, None] == np.arange(bins)[None, :]
    gap = np.asarray(confidence, dtype=np.float64) - np.asarray(correct, dtype=np.float64)
    return np.abs(mean(member * gap[:, None], weights)).sum(axis=-1)
