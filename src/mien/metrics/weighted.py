"""Means and medians with weights, one sample of faces or many resamples of it at once.

Every figure in this package takes `weights`: None, or (..., N) with one row a resample, as `Bootstrap` draws
them. The result has the leading shape of `weights`. Where the weights of a row sum to nothing, the figure is
NaN.
"""

from __future__ import annotations

import numpy as np


def mean(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Weighted mean over faces: `values` (N,) gives (...,), `values` (N, S) gives (..., S)."""
    values = np.asarray(values, dtype=np.float64)
    if weights is None:
        weights = np.ones(len(values))
    total = weights.sum(axis=-1)
    return ratio(weights @ values, total if values.ndim == 1 else total[..., None])


def median(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Weighted median of (N,) values: for whole weights, the median with each face that many times."""
    values = np.asarray(values, dtype=np.float64)
    if weights is None:
        weights = np.ones(len(values))
    if len(values) == 0:
        return np.full(weights.shape[:-1], np.nan)
    order = np.argsort(values, kind="stable")
    values = values[order]
    reached = np.cumsum(weights[..., order], axis=-1)
    half = reached[..., -1:] / 2
    # With an even count two faces share the middle: one where half is reached, one where it is passed.
    lower = (reached >= half).argmax(axis=-1)
    upper = (reached > half).argmax(axis=-1)
    return np.where(half[..., 0] > 0, (values[lower] + values[upper]) / 2, np.nan)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`, NaN (without a warning) where `below` is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below == 0, np.nan, np.divide(above, below))[()]


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the values that are not NaN; NaN where none is known."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))
