"""Figures of classification, from the confusion matrix (..., K, K): rows true, columns predicted classes."""

from __future__ import annotations

import numpy as np

from mien.metrics.weighted import mean_of_known, ratio


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray | None = None) -> np.ndarray:
    """(..., K, K) counts of faces; `true` and `predicted` are (N,) codes in 0 .. classes - 1."""
    if weights is None:
        weights = np.ones(len(true))
    cell = (true * classes + predicted)[:, None] == np.arange(classes * classes)[None, :]
    return (weights @ cell.astype(np.float64)).reshape(*weights.shape[:-1], classes, classes)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """The share of faces on the diagonal."""
    return ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def recall(confusion: np.ndarray) -> np.ndarray:
    """(..., K): of the faces of each class, the share found; NaN for a class without faces."""
    return ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def f1(confusion: np.ndarray) -> np.ndarray:
    """(..., K): harmonic mean of precision and recall; NaN for a class neither true nor predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return ratio(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """The mean F1 of the classes true or predicted somewhere (scikit-learn's rule); others are left out."""
    return mean_of_known(f1(confusion))


def majority(confusion: np.ndarray) -> np.ndarray:
    """Accuracy of always naming the most frequent true class."""
    rows = confusion.sum(axis=-1)
    return ratio(rows.max(axis=-1), rows.sum(axis=-1))
