"""The baselines of fusion against hand-computed cases and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from mien.experts.baselines import best_linear, inverse_error, learned_gate, mean, median, winsorised
from mien.experts.columns import kept, reliability, spread
from mien.experts.methods import Method

nan = float("nan")
AGES = np.array([[10.0, 20.0, 60.0], [nan, 30.0, 40.0], [nan, nan, nan]])


def test_votes_by_hand() -> None:
    for found, expected in ((mean(AGES), [30, 35]), (median(AGES), [20, 35]), (winsorised(AGES), [20, 35])):
        assert found[:2] == pytest.approx(expected)
        assert np.isnan(found[2])
    assert winsorised(np.array([[20.0, 21.0, 60.0]])) == pytest.approx([(20 + 21 + 27) / 3])


def test_inverse_error_weighs_by_mean_squared_errors() -> None:
    true = np.array([10.0, 20, 30, 70])
    trusted = true[:, None] + np.array([[1.0, -2], [-1, 2], [1, 2], [-1, -2]])
    combine = inverse_error(trusted, true)
    assert combine(np.array([[10.0, 20.0], [nan, 20.0]])) == pytest.approx([(10 * 1 + 20 * 0.25) / 1.25, 20])


def test_best_linear_is_the_closed_form_and_uses_correlation() -> None:
    rng = np.random.default_rng(0)
    covariance = np.array([[4.0, 5.0, 0], [5, 9, 0], [0, 0, 16]])
    true = rng.uniform(0, 80, 40_000)
    ages = true[:, None] + rng.multivariate_normal([3, 0, -2], covariance, 40_000)
    weights = np.linalg.solve(covariance, np.ones(3))
    weights /= weights.sum()
    assert weights[1] < 0  # the worse of two that err together is subtracted
    combine = best_linear(ages, true)
    asked = np.array([[50.0, 40.0, 30.0], [nan, 40.0, 30.0], [nan, nan, nan]])
    found = combine(asked)
    assert found[0] == pytest.approx((asked[0] - [3, 0, -2]) @ weights, abs=0.4)
    assert found[1] == pytest.approx((40 / 9 + 32 / 16) / (1 / 9 + 1 / 16), abs=0.3)
    assert np.isnan(found[2])
    assert (combine(ages) - true).var() < min((ages - true[:, None]).var(0))


def test_the_learned_gate_learns_whom_to_believe() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(5, 80, 800)
    ages = true[:, None] + rng.normal(0, [1.0, 15.0], (800, 2))
    combine = learned_gate(ages, true, steps=150)
    assert np.abs(combine(ages) - true).mean() < 0.6 * np.abs(mean(ages) - true).mean()
    assert np.isnan(combine(np.array([[nan, nan]]))[0])
    assert np.isfinite(combine(np.array([[nan, 40.0]]))[0])


def test_a_single_answer_of_unknown_spread_is_no_certain_one() -> None:
    ages = np.array([[30.0, 34.0, 38.0], [30.0, np.nan, np.nan], [np.nan, np.nan, np.nan], [30.0, 34.0, np.nan]])
    method = Method("mean", ["a", "b", "c"])
    std = spread(method, method(ages, np.full((4, 3), np.nan), np.full((4, 3), np.nan)))
    assert np.isfinite(std).tolist() == [True, False, False, True]
    assert reliability(std)[1] == 0
    age = method(ages, np.full((4, 3), np.nan)).age
    assert kept(age, std, None).tolist() == [True, True, False, True]
    assert kept(age, std, 9.0).tolist() == [True, False, False, True]
    # Of those that tell a spread of their own, what they tell counts; the others' is not taken for none.
    told = np.array([[9.0, np.nan, 16.0], [4.0, np.nan, np.nan], [np.nan] * 3, [np.nan, 25.0, np.nan]])
    total = method(ages, np.full((4, 3), np.nan), told).total
    assert total == pytest.approx([32 / 3 + 12.5, 4, np.nan, 4 + 25], nan_ok=True)
