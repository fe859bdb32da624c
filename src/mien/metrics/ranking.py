"""Figures of how well scores put the faces of a class before all others.

`positive` is (N,) bool, `score` (N,) float: the higher, the likelier. `weights` and the shapes of results: see
`metrics/weighted.py`. Scores are taken as they are: logits and softmax probabilities rank faces differently
against the rest, and the callers of this package hand in softmax probabilities.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mien.metrics.weighted import ratio

Ranking = Callable[..., np.ndarray]


def auroc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: the chance that a positive face scores above a negative one, ties counting half.

    NaN where there is no positive or no negative face: nothing can be ranked.
    """
    hits, misses = _passed(positive, score, weights)
    missed = np.diff(misses, axis=-1, prepend=0.0)
    area = ((hits - np.diff(hits, axis=-1, prepend=0.0) / 2) * missed).sum(axis=-1)
    return ratio(area, _last(hits) * _last(misses))


def average_precision(positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the precision-recall curve as scikit-learn has it: the sum of (R_k - R_k-1) P_k over thresholds.

    NaN where there is no positive face. The score of a constant is the share of positives; so it is where every
    face is positive: 1.
    """
    hits, misses = _passed(positive, score, weights)
    found = np.diff(hits, axis=-1, prepend=0.0)
    precision = np.nan_to_num(ratio(hits, hits + misses))
    return ratio((found * precision).sum(axis=-1), _last(hits))


def one_vs_rest(figure: Ranking, true: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """`figure` of each class against the rest, (..., K): `true` (N,) codes, `scores` (N, K)."""
    return np.stack([figure(true == code, scores[:, code], weights) for code in range(scores.shape[1])], axis=-1)


def roc_points(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve, (T,) false and (T,) true positive rates from (0, 0) to (1, 1); NaN where undefined."""
    hits, misses = (np.concatenate([[0.0], passed]) for passed in _passed(positive, score, None))
    return ratio(misses, misses[-1]), ratio(hits, hits[-1])


def precision_recall_points(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The precision-recall curve: (T,) recall, rising, and (T,) precision; NaN recall without a positive face."""
    hits, misses = _passed(positive, score, None)
    return ratio(hits, _last(hits)), ratio(hits, hits + misses)


def _passed(positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative weight at or above each distinct score, the highest first: (..., T) twice."""
    if weights is None:
        weights = np.ones(len(score))
    order = np.argsort(-np.asarray(score), kind="stable")
    ordered = np.asarray(score)[order]
    last_of_tie = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
    drawn, truth = weights[..., order], np.asarray(positive, dtype=bool)[order]
    hits = np.cumsum(drawn * truth, axis=-1)[..., last_of_tie]
    misses = np.cumsum(drawn * ~truth, axis=-1)[..., last_of_tie]
    return hits, misses


def _last(passed: np.ndarray) -> np.ndarray:
    return passed[..., -1] if passed.shape[-1] else np.zeros(passed.shape[:-1])
