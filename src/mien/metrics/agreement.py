"""Figures of classification, from the confusion matrix (..., K, K): rows true, columns predicted classes."""

from __future__ import annotations

import numpy as np

from mien.metrics.weighted import mean_of_known, ratio


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray | None = None) -> np.ndarray:
    """(..., K, K) counts of faces; `true` and `predicted` are (N,) codes in 0 .. classes - 1."""
    cell = true * classes + predicted
    if weights is None:
        return np.bincount(cell, minlength=classes * classes).reshape(classes, classes).astype(np.float64)
    one_of = cell[:, None] == np.arange(classes * classes)[None, :]
    return (weights @ one_of.astype(np.float64)).reshape(*weights.shape[:-1], classes, classes)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """The share of faces on the diagonal."""
    return ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def recall(confusion: np.ndarray) -> np.ndarray:
    """(..., K): of the faces of each class, the share found; NaN for a class without faces."""
    return ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def precision(confusion: np.ndarray) -> np.ndarray:
    """(..., K): of the faces given each class, the share that are of it; NaN for a class never given."""
    return ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-2))


def f1(confusion: np.ndarray) -> np.ndarray:
    """(..., K): harmonic mean of precision and recall; NaN for a class neither true nor predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return ratio(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """The mean F1 of the classes true or predicted somewhere (scikit-learn's rule); others are left out."""
    return mean_of_known(f1(confusion))


def kappa(confusion: np.ndarray) -> np.ndarray:
    """Cohen's kappa (1960): accuracy above what the two columns' own frequencies give by chance, (p - c) / (1 - c).

    NaN where chance alone is right for every face: truth and prediction are one and the same class throughout.
    """
    n = confusion.sum(axis=(-2, -1))
    by_chance = ratio((confusion.sum(axis=-1) * confusion.sum(axis=-2)).sum(axis=-1), n**2)
    return ratio(accuracy(confusion) - by_chance, _zero_if_tiny(1 - by_chance))


def alpha(confusion: np.ndarray) -> np.ndarray:
    """Krippendorff's alpha, nominal, of two columns without gaps: 1 - observed / expected disagreement.

    Krippendorff, Content Analysis, chapter 12: both columns are raters of equal standing and values are drawn
    without putting back, so alpha is Scott's pi + (1 - pi) / 2n. NaN where only one value occurs at all.
    """
    values = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    total = values.sum(axis=-1)
    apart = 2 * (confusion.sum(axis=(-2, -1)) - np.trace(confusion, axis1=-2, axis2=-1))
    return 1 - ratio((total - 1) * apart, total**2 - (values**2).sum(axis=-1))


def _zero_if_tiny(values: np.ndarray) -> np.ndarray:
    """What rounding leaves of a difference of equal shares is nothing."""
    return np.where(np.abs(values) < 1e-12, 0.0, values)
