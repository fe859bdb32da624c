"""Is it still the same person? Cosines of identity embeddings, and the thresholds that real pairs give."""

from __future__ import annotations

import numpy as np

from mien.metrics.weighted import ratio


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of embeddings (N, F): (N,) in [-1, 1]; NaN for an embedding of length 0."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return ratio((a * b).sum(-1), np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def threshold_at_far(impostors: np.ndarray, far: float = 1e-3) -> float:
    """The cosine above which a share of at most `far` of pairs of different persons, (N,), lies.

    With fewer than 1 / `far` pairs it is their largest cosine: state how many there were.
    """
    ranked = np.sort(np.asarray(impostors, dtype=np.float64))[::-1]
    return float(ranked[min(int(far * len(ranked)), len(ranked) - 1)])


def verification_rate(cosines: np.ndarray, threshold: float | np.ndarray) -> float:
    """The share of pairs whose cosine lies above the threshold, one for all or one a pair."""
    return float((np.asarray(cosines) > threshold).mean())
