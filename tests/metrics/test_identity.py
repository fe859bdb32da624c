"""Cosines and thresholds of identity."""

from __future__ import annotations

import numpy as np
import pytest

from mien.metrics.identity import cosine, threshold_at_far, verification_rate


def test_cosines_by_hand() -> None:
    a = np.array([[1.0, 0], [1, 1], [2, 0], [0, 0]])
    b = np.array([[0.0, 3], [1, 1], [-1, 0], [1, 0]])
    assert cosine(a, b)[:3] == pytest.approx([0, 1, -1])
    assert np.isnan(cosine(a, b)[3])


def test_no_more_impostors_than_asked_for_pass() -> None:
    impostors = np.random.default_rng(0).normal(0, 0.1, 10_000)
    for far in (1e-3, 1e-2, 0.1):
        assert (impostors > threshold_at_far(impostors, far)).mean() == pytest.approx(far)
    assert threshold_at_far(np.array([0.1, 0.5, 0.3]), 1e-3) == 0.5
    assert verification_rate(np.array([0.2, 0.6, 0.5, 0.9]), 0.5) == 0.5
    assert verification_rate(np.array([0.2, 0.6]), np.array([0.1, 0.7])) == 0.5
