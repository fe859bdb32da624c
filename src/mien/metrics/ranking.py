"""Figures of how well scores put the faces of a class before all others.

`positive` is (N,) bool, `score` (N,) float: the higher, the likelier. `weights` and the shapes of results: see
`metrics/weighted.py`. Scores are taken as they are: logits and softmax probabilities rank faces differently
against the rest, and the callers of this package hand in softmax probabilities.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mien.metrics.weighted import ratio


class Ranked:
    """Faces in the order of their scores, the highest first: sorted once, however often they are weighed."""

    def __init__(self, positive: np.ndarray, score: np.ndarray) -> None:
        positive, score = np.asarray(positive, dtype=bool), np.asarray(score)
        self._order = np.argsort(-score, kind="stable")
        ordered, truth = score[self._order], positive[self._order]
        first = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
        tie = np.cumsum(first) - 1
        self._positives = self._order[truth]
        # Both areas grow only where a positive face is passed: of all scores those of positives will do.
        ties, self._starts = np.unique(tie[truth], return_index=True)
        bounds = np.append(np.flatnonzero(first), len(ordered))
        self._above, self._passed = bounds[ties], bounds[ties + 1]

    def areas(self, weights: np.ndarray | None = None) -> np.ndarray:
        """`auroc` and `average_precision`, (..., 2)."""
        if weights is None:
            weights = np.ones(len(self._order))
        shape = weights.shape[:-1]
        if not len(self._positives):
            return np.full((*shape, 2), np.nan)
        passed = np.zeros((*shape, len(self._order) + 1))
        np.cumsum(np.take(weights, self._order, axis=-1), axis=-1, out=passed[..., 1:])
        found = np.add.reduceat(np.take(weights, self._positives, axis=-1), self._starts, axis=-1)
        hits = np.cumsum(found, axis=-1)
        above, below = np.take(passed, self._above, axis=-1), np.take(passed, self._passed, axis=-1)
        positives = hits[..., -1]
        negatives = passed[..., -1] - positives
        # Each positive face is above the negatives that come later, and above half of those that have its score.
        misses = (above - (hits - found) + below - hits) / 2
        area = (found * (negatives[..., None] - misses)).sum(axis=-1)
        precision = np.divide(hits, below, out=np.zeros_like(hits), where=below > 0)
        return np.stack(
            [ratio(area, positives * negatives), ratio((found * precision).sum(axis=-1), positives)], axis=-1
        )


def auroc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: the chance that a positive face scores above a negative one, ties counting half.

    NaN where there is no positive or no negative face: nothing can be ranked.
    """
    return Ranked(positive, score).areas(weights)[..., 0]


def average_precision(positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the precision-recall curve as scikit-learn has it: the sum of (R_k - R_k-1) P_k over thresholds.

    NaN where there is no positive face. The score of a constant is the share of positives; so it is where every
    face is positive: 1.
    """
    return Ranked(positive, score).areas(weights)[..., 1]


def one_vs_rest(true: np.ndarray, scores: np.ndarray) -> Callable[..., np.ndarray]:
    """The areas of each class against the rest as a function of weights, (..., 2, K): `true` (N,) codes, `scores`
    (N, K)."""
    ranked = [Ranked(true == code, scores[:, code]) for code in range(scores.shape[1])]
    return lambda weights=None: np.stack([one.areas(weights) for one in ranked], axis=-1)


def roc_points(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve, (T,) false and (T,) true positive rates from (0, 0) to (1, 1); NaN where undefined."""
    hits, misses = (np.concatenate([[0.0], passed]) for passed in _passed(positive, score))
    return ratio(misses, misses[-1]), ratio(hits, hits[-1])


def precision_recall_points(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The precision-recall curve: (T,) recall, rising, and (T,) precision; NaN recall without a positive face."""
    hits, misses = _passed(positive, score)
    return ratio(hits, hits[-1:]), ratio(hits, hits + misses)


def _passed(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative faces at or above each distinct score, the highest first: (T,) twice."""
    order = np.argsort(-np.asarray(score), kind="stable")
    ordered, truth = np.asarray(score)[order], np.asarray(positive, dtype=bool)[order]
    last_of_tie = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
    return np.cumsum(truth)[last_of_tie].astype(np.float64), np.cumsum(~truth)[last_of_tie].astype(np.float64)
