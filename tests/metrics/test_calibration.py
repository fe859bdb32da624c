from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mien.metrics import calibration


def test_coverage_and_width_by_hand() -> None:
    true = np.array([10.0, 20.0, 30.0, 40.0])
    low, high = np.array([10.0, 21.0, 0.0, 30.0]), np.array([12.0, 25.0, 100.0, 40.0])
    assert calibration.coverage(true, low, high) == 0.75
    assert calibration.mean_width(low, high) == pytest.approx((2 + 4 + 100 + 10) / 4)
    weights = np.array([[1.0, 3.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    np.testing.assert_array_equal(calibration.coverage(true, low, high, weights), [0.25, 1.0])
    assert np.isnan(calibration.coverage(np.array([]), np.array([]), np.array([])))


@pytest.mark.parametrize(("hits", "n"), [(0, 100), (70, 100), (78, 100), (79, 100), (170, 200), (99, 100), (5, 5)])
def test_upper_bound_is_the_exact_binomial_test(hits: int, n: int) -> None:
    interval = stats.binomtest(hits, n, alternative="less").proportion_ci(0.95, method="exact")
    assert calibration.upper_bound(hits, n) == pytest.approx(interval.high)
    significant = stats.binomtest(hits, n, 0.85, alternative="less").pvalue < 0.05
    assert (calibration.upper_bound(hits, n) < 0.85) == significant


def test_calibration_error_against_a_loop() -> None:
    generator = np.random.default_rng(0)
    confidence = np.concatenate([generator.uniform(0.5, 1, 300), [0.0, 1.0, 1 / 3, 0.6]])
    correct = generator.random(len(confidence)) < confidence**2
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for index in range(15):
        inside = (confidence > edges[index]) & (confidence <= edges[index + 1])
        if index == 0:
            inside |= confidence == 0
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert calibration.expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_calibration_error_of_the_sure_and_wrong() -> None:
    assert calibration.expected_calibration_error(np.ones(10), np.zeros(10, bool)) == 1.0
    assert calibration.expected_calibration_error(np.ones(10), np.ones(10, bool)) == 0.0
    assert np.isnan(calibration.expected_calibration_error(np.array([]), np.array([], bool)))
