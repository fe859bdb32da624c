"""Weights against an uneven spread of ages, as functions of a histogram by whole year.

Inverse frequency, its square root, and label distribution smoothing (LDS: Yang et al., "Delving into Deep
Imbalanced Regression", ICML 2021), which counts a year's neighbours too, since faces of 41 also teach what 42
looks like.
"""

from __future__ import annotations

import numpy as np

from mien.faces import MAX_AGE, MIN_AGE, closed

#: The paper's clip of counts before they are inverted, so that one face of 101 does not outweigh a thousand
#: of 30.
MIN_COUNT, MAX_COUNT = 5.0, 1000.0


def age_histogram(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Faces by whole year, (121,), of labels (n,): intervals are shared among their years ("70 or more": see `closed`),
    NaN left out."""
    years = MAX_AGE - MIN_AGE + 1
    histogram = np.zeros(years)
    first, last = _years(low, high)
    counts = np.bincount(first * years + last, minlength=years)  # of a million labels a few hundred are different
    for label in np.flatnonzero(counts).tolist():
        start, end = divmod(label, years)
        histogram[start : end + 1] += counts[label] / (end - start + 1)
    return histogram


def inverse_weights(histogram: np.ndarray, square_root: bool = False) -> np.ndarray:
    """A weight a year, (121,): 1 / count, clipped to [5, 1000], or 1 / sqrt(count); mean over faces 1."""
    return _normalised(histogram, _tamed(histogram, square_root))


def lds_weights(histogram: np.ndarray, square_root: bool = True, kernel: int = 5, sigma: float = 2.0) -> np.ndarray:
    """A weight a year, (121,), from the histogram smoothed by a Gaussian of `kernel` years and `sigma`; mean
    1.

    Defaults and order (root or clip, then smooth) are those of the authors' code; its window, reflected at
    its own ends, is flatter than the Gaussian that the paper states and this takes.
    """
    reach = np.arange(kernel) - (kernel - 1) / 2
    window = np.exp(-0.5 * (reach / sigma) ** 2)
    smooth = np.convolve(_tamed(histogram, square_root), window / window.sum(), mode="same")
    return _normalised(histogram, smooth)


def weights_of(low: np.ndarray, high: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Each face's weight, (n,) float32: the mean of `table` (121,) over its years, 1 without an age."""
    weights = np.ones(len(low), dtype=np.float32)
    known = ~(np.isnan(low) | np.isnan(high))
    first, last = _years(low, high)
    total = np.concatenate([[0.0], np.cumsum(table)])
    weights[known] = (total[last + 1] - total[first]) / (last - first + 1)
    return weights


def _years(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ages = closed(np.stack([low, high], axis=1)[~(np.isnan(low) | np.isnan(high))])
    first, last = np.clip(np.floor(ages), MIN_AGE, MAX_AGE).astype(np.int64).T - MIN_AGE
    return first, last


def _tamed(histogram: np.ndarray, square_root: bool) -> np.ndarray:
    return np.sqrt(histogram) if square_root else np.clip(histogram, MIN_COUNT, MAX_COUNT)


def _normalised(histogram: np.ndarray, density: np.ndarray) -> np.ndarray:
    """1 / density, scaled so that the faces of `histogram` weigh 1 on average; 1 without a density."""
    weights = np.where(density > 0, 1.0 / np.where(density > 0, density, 1.0), 0.0)
    total = (weights * histogram).sum()
    if total == 0:
        return np.ones_like(density)
    return np.where(density > 0, weights * histogram.sum() / total, 1.0)
