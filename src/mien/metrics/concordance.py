"""Figures of a continuous label such as valence: does the prediction go with the truth?

`true` and `predicted` are (N,) float without NaN. MAE and RMSE are those of `metrics/age.py`, in the label's own
unit. `weights` and the shapes of results: see `metrics/weighted.py`.
"""

from __future__ import annotations

import numpy as np

from mien.metrics.weighted import mean, ratio

#: A spread below this share of the largest value is float32's rounding: such values are constant.
ROUNDING = 1e-7
#: A resample whose variance is below this share of all faces' has drawn one value alone.
ONE_VALUE = 1e-10


def pearson(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Pearson's correlation; NaN where truth or prediction is constant."""
    _, _, var_t, var_p, covariance = _moments(true, predicted, weights)
    return np.clip(ratio(covariance, np.sqrt(var_t * var_p)), -1.0, 1.0)


def ccc(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Concordance correlation (Lin 1989): 2 cov / (var t + var p + (mean t - mean p)^2), with variances over n.

    A constant prediction has 0, by the formula. NaN where the truth is constant: there is nothing to go with.
    """
    mean_t, mean_p, var_t, var_p, covariance = _moments(true, predicted, weights)
    below = var_t + var_p + (mean_t - mean_p) ** 2
    return np.clip(ratio(2 * covariance, np.where(var_t > 0, below, 0.0)), -1.0, 1.0)


def sagr(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Sign agreement: the share of faces whose prediction has the sign of the truth.

    0 is a sign of its own: a truth of exactly 0 is met by a prediction of exactly 0 alone.
    """
    return mean(np.sign(true) == np.sign(predicted), weights)


def _moments(
    true: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means, population variances (0 where constant) and covariance."""
    true, predicted = np.asarray(true, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    # About their means, so that the differences of sums below do not cancel.
    start = [values.mean() if len(values) else 0.0 for values in (true, predicted)]
    t, p = true - start[0], predicted - start[1]
    first_t, first_p, tt, pp, tp = np.moveaxis(mean(np.stack([t, p, t * t, p * p, t * p], axis=1), weights), -1, 0)
    var_t, var_p = _variance(tt - first_t**2, t, start[0]), _variance(pp - first_p**2, p, start[1])
    covariance = np.where((var_t == 0) | (var_p == 0), 0.0, tp - first_t * first_p)
    # Nothing was drawn: the means are NaN, and so must be all else.
    covariance = np.where(np.isnan(first_t), np.nan, covariance)
    return start[0] + first_t, start[1] + first_p, var_t, var_p, covariance


def _variance(found: np.ndarray, centred: np.ndarray, start: float) -> np.ndarray:
    spread = float((centred**2).mean()) if len(centred) else 0.0
    if np.sqrt(spread) <= ROUNDING * (abs(start) + np.sqrt(spread)):
        return np.zeros_like(found)
    return np.where(found > ONE_VALUE * spread, found, 0.0)
