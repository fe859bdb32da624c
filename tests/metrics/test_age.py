from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from mien.faces import AGE_BINS
from mien.metrics import age


@pytest.fixture
def faces() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    true = generator.integers(0, 100, 500).astype(float)
    return true, np.clip(0.8 * true + 6 + generator.normal(0, 5, 500), 0, 110)


def test_against_independent_references(faces: tuple[np.ndarray, np.ndarray]) -> None:
    true, predicted = faces
    assert age.mae(true, predicted) == pytest.approx(sk.mean_absolute_error(true, predicted))
    assert age.median_ae(true, predicted) == pytest.approx(sk.median_absolute_error(true, predicted))
    assert age.rmse(true, predicted) == pytest.approx(sk.root_mean_squared_error(true, predicted))
    assert age.bias(true, predicted) == pytest.approx(predicted.mean() - true.mean())
    assert age.bias_slope(true, predicted) == pytest.approx(stats.linregress(true, predicted - true).slope)
    by_bin = [
        sk.mean_absolute_error(true[chosen], predicted[chosen])
        for low, high in AGE_BINS
        for chosen in [(true >= low) & (true <= high)]
    ]
    np.testing.assert_allclose(age.mae_by_bin(true, predicted), by_bin)
    assert age.macro_mae(true, predicted) == pytest.approx(np.mean(by_bin))


def test_weights_are_repetitions(faces: tuple[np.ndarray, np.ndarray]) -> None:
    true, predicted = faces
    counts = np.random.default_rng(1).integers(0, 3, (4, len(true)))
    figures = [
        age.mae, age.median_ae, age.rmse, age.bias, age.bias_slope, age.cs5, age.macro_mae,
        age.cumulative_scores, age.mae_by_bin,
    ]  # fmt: skip
    for figure in figures:
        together = figure(true, predicted, counts.astype(float))
        for row, count in zip(together, counts, strict=True):
            apart = figure(np.repeat(true, count), np.repeat(predicted, count))
            np.testing.assert_allclose(row, apart, atol=1e-9, err_msg=figure.__name__)


def test_cumulative_scores_by_hand() -> None:
    true = np.array([10.0, 10.0, 10.0, 10.0])
    predicted = np.array([10.0, 11.0, 5.0, 25.1])
    curve = age.cumulative_scores(true, predicted)
    assert curve.shape == (16,)
    np.testing.assert_array_equal(curve[[0, 1, 4, 5, 15]], [0.25, 0.5, 0.5, 0.75, 0.75])
    assert age.cs5(true, predicted) == 0.75
    # Nothing is rounded: 5.2 years off is not within 5.
    assert age.cs5(np.array([10.0]), np.array([15.2])) == 0.0


def test_macro_leaves_out_empty_bins() -> None:
    true, predicted = np.array([5.0, 5.0, 75.0]), np.array([6.0, 8.0, 65.0])
    assert age.macro_mae(true, predicted) == pytest.approx((2.0 + 10.0) / 2)
    np.testing.assert_array_equal(np.isnan(age.mae_by_bin(true, predicted)), [0, 1, 1, 1, 1, 1, 1, 0])


def test_slope_of_a_constant_prediction_is_minus_one() -> None:
    true = np.arange(0.0, 100.0)
    assert age.bias_slope(true, np.full(100, 33.0)) == pytest.approx(-1.0)
    assert np.isnan(age.bias_slope(np.full(5, 30.0), np.arange(5.0)))


def test_standardised_by_hand() -> None:
    by_bin = np.array([2.0, 4.0, np.nan, 8.0, 1.0, 1.0, 1.0, 1.0])
    shares = np.array([1.0, 2.0, 0.0, 1.0, 0, 0, 0, 0])
    assert age.standardised(by_bin, shares) == pytest.approx((2 + 8 + 8) / 4)
    assert np.isnan(age.standardised(by_bin, np.zeros(8)))
    assert np.isnan(age.standardised(by_bin, np.ones(8)))


def test_standardising_removes_a_gap_that_is_only_age_mix() -> None:
    # Errors depend on age alone, but one group is older: raw MAEs differ, standardised ones do not.
    young, old = np.repeat([25.0, 65.0], [80, 20]), np.repeat([25.0, 65.0], [20, 80])
    off = lambda true: true + np.where(true > 50, 8.0, 2.0)  # noqa: E731
    shares = np.array([0, 0, 0.5, 0, 0, 0, 0.5, 0])
    assert age.mae(young, off(young)) == pytest.approx(3.2)
    assert age.mae(old, off(old)) == pytest.approx(6.8)
    for true in (young, old):
        assert age.standardised(age.mae_by_bin(true, off(true)), shares) == pytest.approx(5.0)


def test_interval_labels() -> None:
    low, high = np.array([20.0, 20.0, 20.0, 70.0]), np.array([29.0, 29.0, 29.0, 120.0])
    predicted = np.array([19.9, 20.0, 29.9, 69.0])
    assert age.inside(low[:1], high[:1], np.array([30.0])) == 0
    assert age.inside(low, high, predicted) == 0.5
    np.testing.assert_allclose(age.inside(low, high, predicted, np.array([[1.0, 1, 0, 1], [0, 3, 2, 0]])), [1 / 3, 1])


def test_constant_is_the_best_constant(faces: tuple[np.ndarray, np.ndarray]) -> None:
    true, _ = faces
    best = age.mae(true, np.full(len(true), age.constant(true)))
    for guess in np.arange(0, 100, 0.5):
        assert best <= age.mae(true, np.full(len(true), guess)) + 1e-12


def test_degenerate() -> None:
    one = np.array([30.0])
    assert age.mae(one, one + 2) == 2
    assert age.macro_mae(one, one + 2) == 2
    assert np.isnan(age.bias_slope(one, one + 2))
    empty = np.array([])
    for figure in (age.mae, age.median_ae, age.rmse, age.bias, age.bias_slope, age.cs5, age.macro_mae):
        assert np.isnan(figure(empty, empty)), figure.__name__
