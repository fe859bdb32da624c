"""Figures of several raters a face, from counts of their votes.

`votes` is (N, K): how many raters gave each of K values to a face. Which rater gave which is unknown and not needed.
`weights` and the shapes of results: see `metrics/weighted.py`.
"""

from __future__ import annotations

import numpy as np

from mien.faces import EXPRESSIONS
from mien.metrics.weighted import mean, ratio

#: Probabilities below this are taken for it: a single-precision softmax gives exact zeros.
LEAST = 1e-7


def expression_labels(votes: np.ndarray) -> np.ndarray:
    """What votes (N, 10) over the expressions, "unknown" and "no face" teach: (N, 8) shares, rows of NaN for none.

    The shares are of the votes for an expression. A face for which "unknown" or "no face" has more votes than any
    expression teaches nothing, as in FER+ (Barsoum et al., ICMI 2016), where such faces are left out.
    """
    votes = np.asarray(votes, dtype=np.float64)
    named, unnamed = votes[:, : len(EXPRESSIONS)], votes[:, len(EXPRESSIONS) :]
    total = named.sum(axis=1)
    taught = (total > 0) & (named.max(axis=1) >= unnamed.max(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(taught[:, None], named / total[:, None], np.nan).astype(np.float32)


def plurality(shares: np.ndarray) -> np.ndarray:
    """(N,) int64: the value with most votes or the largest share of `shares` (N, K); -1 where tied, NaN or none."""
    shares = np.asarray(shares, dtype=np.float64)
    top = shares.max(axis=1, keepdims=True)
    # Shares of equal votes may differ by rounding.
    single = (shares >= top - 1e-6).sum(axis=1) == 1
    return np.where(single & (top[:, 0] > 0), np.nan_to_num(shares).argmax(axis=1), -1)


def alpha(votes: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Krippendorff's alpha, nominal, among the raters of each face: 1 - observed / expected disagreement.

    Krippendorff, Content Analysis, chapter 12. Faces with one vote pair with nothing and do not enter. NaN where
    only one value occurs at all.
    """
    votes = np.asarray(votes, dtype=np.float64)
    cast = votes.sum(axis=1)
    votes, cast = np.where((cast > 1)[:, None], votes, 0.0), np.where(cast > 1, cast, 0.0)
    agreeing = np.where(cast > 1, (votes * (votes - 1)).sum(axis=1) / np.where(cast > 1, cast - 1, 1.0), 0.0)
    if weights is None:
        weights = np.ones(len(votes))
    values, total, agreed = weights @ votes, weights @ cast, weights @ agreeing
    return 1 - ratio((total - 1) * (total - agreed), total**2 - (values**2).sum(axis=-1))


def against_rest(votes: np.ndarray, said: np.ndarray | None = None) -> np.ndarray:
    """(N,): how often one rater of a face agrees with the plurality of its other raters; NaN with fewer than two.

    The rater is each of the face's in turn; values tied among the rest share the credit. With `said` (N,) codes, how
    often that answer agrees with the plurality of the same others: the two figures can be held against each other.
    The mean over faces (`weighted.mean`) is the figure of a set.
    """
    votes = np.asarray(votes, dtype=np.float64)
    cast = votes.sum(axis=1)
    rest = votes[:, None, :] - np.eye(votes.shape[1])  # [face, value the one rater gave, votes of the rest]
    top = rest == rest.max(axis=2, keepdims=True)
    credit = top / top.sum(axis=2, keepdims=True)
    if said is None:
        met = np.diagonal(credit, axis1=1, axis2=2)
    else:
        met = np.take_along_axis(credit, said[:, None, None], axis=2)[:, :, 0]
    return np.where(cast > 1, (votes * met).sum(axis=1) / np.where(cast > 1, cast, 1.0), np.nan)


def cross_entropy(shares: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) nats: -sum of shares x log probabilities, both (N, K)."""
    return -(shares * np.log(np.maximum(probabilities, LEAST))).sum(axis=1)


def divergence(shares: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) nats: the Kullback-Leibler divergence of the raters from the probabilities; 0 where they are the same."""
    own = (shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    return own + cross_entropy(shares, probabilities)


def mean_cross_entropy_of_constant(shares: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The least mean cross-entropy of one answer for all faces: the entropy of the mean of `shares` (N, K)."""
    average = mean(shares, weights)
    return -(average * np.log(np.maximum(average, LEAST))).sum(axis=-1)
