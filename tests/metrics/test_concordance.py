from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mien.metrics import concordance

#: Values on a grid of a hundredth, as labels of valence have them.
value = st.integers(-100, 100).map(lambda x: x / 100)
faces = st.lists(st.tuples(value, value, st.integers(0, 3)), min_size=1, max_size=30)


def closed_form(t: np.ndarray, p: np.ndarray) -> float:
    covariance = np.mean((t - t.mean()) * (p - p.mean()))
    return 2 * covariance / (t.var() + p.var() + (t.mean() - p.mean()) ** 2)


@settings(deadline=None)
@given(faces)
def test_against_scipy_and_the_closed_form(drawn: list[tuple[float, float, int]]) -> None:
    true, predicted, count = (np.array(column) for column in zip(*drawn, strict=True))
    weights = np.stack([np.ones(len(count)), count.astype(float)])
    found = {name: getattr(concordance, name)(true, predicted, weights) for name in ("pearson", "ccc", "sagr")}
    for row, times in enumerate((np.ones(len(count), int), count.astype(int))):
        t, p = np.repeat(true, times), np.repeat(predicted, times)
        if not len(t):
            assert all(np.isnan(values[row]) for values in found.values())
            continue
        assert found["sagr"][row] == pytest.approx(np.mean(np.sign(t) == np.sign(p)))
        if len(set(t)) == 1:
            assert np.isnan(found["ccc"][row])
        else:
            assert found["ccc"][row] == pytest.approx(closed_form(t, p), abs=1e-9)
        if len(set(t)) == 1 or len(set(p)) == 1:
            assert np.isnan(found["pearson"][row])
        else:
            assert found["pearson"][row] == pytest.approx(stats.pearsonr(t, p).statistic, abs=1e-9)


def test_ccc_is_pearson_that_pays_for_scale_and_place() -> None:
    t = np.random.default_rng(0).normal(size=200)
    assert concordance.ccc(t, t) == pytest.approx(1)
    assert concordance.ccc(t, -t + 2 * t.mean()) == pytest.approx(-1)
    assert concordance.pearson(t, 0.3 * t + 1) == pytest.approx(1)
    # By hand: u = (mean difference)^2 / (s_t s_p), v = s_t / s_p; CCC = 2 r / (v + 1 / v + u).
    p = 0.3 * t + 1
    v, u = 1 / 0.3, (t.mean() - p.mean()) ** 2 / (t.std() * p.std())
    assert concordance.ccc(t, p) == pytest.approx(2 / (v + 1 / v + u))


def test_zero_is_a_sign_of_its_own() -> None:
    true = np.array([0.0, 0.0, 0.4, -0.4, 0.4])
    said = np.array([0.0, 0.1, 0.0, -0.1, -0.1])
    assert concordance.sagr(true, said) == pytest.approx(2 / 5)
    # So an exact 0 caps what "always negative" or "always positive" can reach together.
    assert concordance.sagr(true, np.full(5, 1.0)) + concordance.sagr(true, np.full(5, -1.0)) == pytest.approx(3 / 5)


def test_degenerate() -> None:
    varied, constant = np.array([-0.5, 0.1, 0.7]), np.full(3, 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # of what other tests left open, collected by chance now
        assert concordance.ccc(varied, constant) == 0
        for true, said in ((constant, varied), (constant, constant), (constant[:1], varied[:1]), (varied[:0],) * 2):
            assert np.isnan(concordance.ccc(true, said))
            assert np.isnan(concordance.pearson(true, said))
        assert np.isnan(concordance.pearson(varied, constant))
        assert np.isnan(concordance.sagr(varied[:0], varied[:0]))
        # Single precision scatters about a constant: that is no spread.
        scattered = (constant + np.array([0, 3e-8, -3e-8])).astype(np.float32)
        assert np.isnan(concordance.pearson(varied, scattered))
        # A resample that drew one face alone.
        assert np.isnan(concordance.ccc(varied, varied + 0.1, np.array([[3.0, 0, 0]])))[0]
    # A small spread is one all the same, wherever it lies.
    assert concordance.pearson(varied, 0.9 + 1e-5 * varied) == pytest.approx(1)
