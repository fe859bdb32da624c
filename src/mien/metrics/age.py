"""Figures of age estimation, in years.

Ages are exact: `true` and `predicted` are (N,) float, without NaN. Predictions are never rounded. The error
is predicted minus true. `weights` and the shapes of results: see `metrics/weighted.py`.
"""

from __future__ import annotations

import numpy as np

from mien.faces import AGE_BINS, age_bin
from mien.metrics.weighted import mean, mean_of_known, median, ratio

#: The cumulative score curve is given at 0, 1 ... 15 years.
CS_YEARS = np.arange(16)


def mae(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean absolute error."""
    return mean(np.abs(predicted - true), weights)


def median_ae(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Median absolute error."""
    return median(np.abs(predicted - true), weights)


def rmse(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Root of the mean squared error."""
    return np.sqrt(mean((predicted - true) ** 2, weights))


def bias(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean signed error: above 0 where faces are taken for older than they are."""
    return mean(predicted - true, weights)


def bias_slope(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Least-squares slope of the signed error on the true age, in years a year.

    Below 0 is regression to the mean: the young are taken for older, the old for younger. NaN when all are
    one age.
    """
    true = np.asarray(true, dtype=np.float64)
    error = predicted - true
    # Far from zero the sums below would cancel; the slope does not depend on where ages start.
    centred = true - true.mean() if len(true) else true
    a, e, aa, ae = np.moveaxis(mean(np.stack([centred, error, centred**2, centred * error], axis=1), weights), -1, 0)
    spread = aa - a**2
    return ratio(ae - a * e, np.where(spread > 1e-9, spread, 0.0))


def cumulative_scores(
    true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None, years: np.ndarray = CS_YEARS
) -> np.ndarray:
    """CS(t) for each t of `years`: the share of faces with |error| <= t, (..., T) in [0, 1]."""
    return mean(np.abs(predicted - true)[:, None] <= np.asarray(years)[None, :], weights)


def cs5(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The share of faces with |error| <= 5 years."""
    return mean(np.abs(predicted - true) <= 5, weights)


def mae_by_bin(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """MAE of each of the eight bins of true age, (..., 8); NaN for a bin without faces."""
    if weights is None:
        weights = np.ones(len(true))
    member = age_bin(true)[:, None] == np.arange(len(AGE_BINS))[None, :]
    return ratio(weights @ (member * np.abs(predicted - true)[:, None]), weights @ member.astype(np.float64))


def macro_mae(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean of the MAEs of those of the eight age bins that hold a face: every age weighs the same."""
    return mean_of_known(mae_by_bin(true, predicted, weights))


def standardised(by_bin: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Direct standardisation: the MAE a group would have if its ages were distributed as `shares` (8,) says.

    `by_bin` is (..., 8) as `mae_by_bin` gives it. Bins of share 0 do not count; NaN where a counting bin has
    no face.
    """
    counted = shares > 0
    if not counted.any():
        return by_bin[..., 0] * np.nan
    return by_bin[..., counted] @ (shares[counted] / shares[counted].sum())


def inside(low: np.ndarray, high: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """For labels that are intervals in whole years: the share of predictions within [low, high + 1).

    A face of "20-29" is 29 until the day it turns 30.
    """
    return mean((predicted >= low) & (predicted < high + 1), weights)


def constant(true: np.ndarray) -> float:
    """The constant with the least MAE: the median of the faces judged, so that no fixed guess does better."""
    return float(median(true))
