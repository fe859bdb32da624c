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
    np.testing.assert_array_equal(calibration.mean_width(low, high, weights), [3.5, 55.0])
    assert np.isnan(calibration.coverage(np.array([]), np.array([]), np.array([])))


@pytest.mark.parametrize(("hits", "n"), [(0, 100), (70, 100), (78, 100), (79, 100), (170, 200), (99, 100), (5, 5)])
def test_upper_bound_is_the_exact_binomial_test(hits: int, n: int) -> None:
    interval = stats.binomtest(hits, n, alternative="less").proportion_ci(0.95, method="exact")
    assert calibration.upper_bound(hits, n) == pytest.approx(interval.high)
    significant = stats.binomtest(hits, n, 0.85, alternative="less").pvalue < 0.05
    assert (calibration.upper_bound(hits, n) < 0.85) == significant


@pytest.mark.parametrize("bins", [15, 4])
def test_calibration_error_against_a_loop(bins: int) -> None:
    generator = np.random.default_rng(0)
    # Few faces a bin: their gaps have both signs, so that a face in a bin beside its own is seen.
    confidence = np.concatenate([generator.uniform(0, 1, 60), [0.0, 1.0, 0.25, 1 / 3, 0.6]])
    correct = generator.random(len(confidence)) < confidence
    edges = np.linspace(0, 1, bins + 1)
    expected = 0.0
    for index in range(bins):
        inside = (confidence > edges[index]) & (confidence <= edges[index + 1])
        if index == 0:
            inside |= confidence == 0
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert calibration.expected_calibration_error(confidence, correct, bins=bins) == pytest.approx(expected)


def test_a_bin_is_closed_above() -> None:
    assert calibration.confidence_bin(np.array([0.0, 1 / 15, 0.07, 1 / 3, 0.6, 1.0])).tolist() == [0, 0, 1, 4, 8, 14]


def test_calibration_error_of_the_sure_and_wrong() -> None:
    assert calibration.expected_calibration_error(np.ones(10), np.zeros(10, bool)) == 1.0
    assert calibration.expected_calibration_error(np.ones(10), np.ones(10, bool)) == 0.0
    assert np.isnan(calibration.expected_calibration_error(np.array([]), np.array([], bool)))
