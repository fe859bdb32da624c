from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.tasks import calibrate
from mien.tasks.calibrate import MIN_SCALE, fit_blend, fit_conformal, fit_scale, fit_temperature, interpolated


def conformal_half_width(conformal: dict, age: np.ndarray, std: np.ndarray) -> np.ndarray:
    return calibrate.conformal_half_width(conformal, torch.from_numpy(age), torch.from_numpy(std)).numpy()


def scale_of(scale: dict, age: np.ndarray, std: np.ndarray) -> np.ndarray:
    return calibrate.scale_of(scale, torch.from_numpy(age), torch.from_numpy(std)).numpy()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(*[st.floats(0, 100).map(lambda x: round(x, 2))] * 3), min_size=1, max_size=40))
def test_blend_is_that_of_a_grid_search(rows: list[tuple[float, float, float]]) -> None:
    first, second, truth = np.array(rows).T

    def mae(share: float) -> float:
        return float(np.abs(share * first + (1 - share) * second - truth).mean())

    share = fit_blend(first, second, truth)
    assert 0 <= share <= 1
    assert mae(share) <= min(mae(s) for s in np.linspace(0, 1, 1001)) + 1e-9


def test_temperature_undoes_a_scaling() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 5)) * 2
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(1)

    def nll(temperature: float) -> float:
        scaled = 3.0 * logits / temperature
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - scaled[np.arange(4000), labels]))

    assert fit_temperature(nll) == pytest.approx(3.0, rel=0.1)


def faces(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ages, stds that know how noisy a face is up to a curve, truths; children are noisier than told."""
    generator = np.random.default_rng(seed)
    noise = generator.uniform(1, 12, n)
    truth = generator.uniform(0, 90, n)
    age = truth + noise * np.where(truth < 15, 2.0, 1.0) * generator.standard_normal(n)
    return age, noise**0.5, truth


def test_conformal_covers_and_its_width_follows_the_noise() -> None:
    conformal = json.loads(json.dumps(fit_conformal(*faces(2000, 0))))
    age, std, truth = faces(20_000, 1)
    half = conformal_half_width(conformal, age, std)
    covered = np.abs(truth - age) <= half

    # Coverage over calibration sets is Beta(k, n + 1 - k); on top of it the new faces' own binomial noise.
    low, high = scipy.stats.beta(math.ceil(2001 * 0.9), 2001 - math.ceil(2001 * 0.9)).interval(0.999)
    assert low - 0.01 < covered.mean() < high + 0.01

    for quiet, loud in zip(np.linspace(1, 10, 5), np.linspace(3, 12, 5), strict=True):
        part = (std**2 >= quiet) & (std**2 < loud)
        assert 0.84 < covered[part].mean() < 0.96
    assert scipy.stats.spearmanr(half, std).statistic > 0.8
    assert np.median(half[std**2 > 10]) > 3 * np.median(half[std**2 < 2])
    # The correction by predicted age: without it 87 % of the children would be covered.
    assert covered[(age >= 0) & (age < 12)].mean() > 0.89


def test_constant_noise_gives_a_constant_width() -> None:
    generator = np.random.default_rng(0)
    age = generator.uniform(0, 90, 5000)
    truth = age + generator.normal(0, 5, 5000)
    conformal = fit_conformal(age, np.full(5000, np.nan), truth)
    half = conformal_half_width(conformal, age, np.full(5000, np.nan))
    assert half.mean() == pytest.approx(1.645 * 5, rel=0.04)
    assert half.std() < 0.1 * half.mean()


@pytest.mark.parametrize(("n", "there"), [(0, False), (1, False), (8, False), (9, True), (20, True)])
def test_too_few_faces_give_no_interval(n: int, there: bool) -> None:
    assert bool(fit_conformal(*faces(n, 0))) is there


def test_without_scaling_the_quantile_is_the_textbooks() -> None:
    """With one scale for all, the interval is age +- the ceil((n + 1) 0.9)-th smallest error."""
    age, truth = np.full(19, 1000.0), 1000.0 + np.arange(1, 20)  # beyond every knot: the factor is one number
    conformal = fit_conformal(age, np.full(19, np.nan), truth)
    half = conformal_half_width(conformal, age, np.full(19, np.nan))
    # Cross-fitting moves the scale of each fold a little; the 18th of 19 errors is 18.
    assert half == pytest.approx(np.full(19, 18.0), rel=0.25)


def test_scale_is_monotone_in_std_and_grows_beyond_what_was_seen() -> None:
    generator = np.random.default_rng(0)
    std = generator.uniform(2, 6, 3000)
    scale = fit_scale(np.full(3000, 40.0), std, np.abs(generator.normal(0, std)))
    probe = np.linspace(0, 30, 200)
    values = scale_of(scale, np.full(200, 40.0), probe)
    assert (np.diff(values) >= -1e-12).all()
    assert values[-1] > 4 * scale_of(scale, np.array([40.0]), np.array([6.0]))[0]
    assert (values >= MIN_SCALE).all()


def test_perfect_faces_keep_a_floor() -> None:
    age = np.linspace(0, 90, 200)
    conformal = fit_conformal(age, np.full(200, 0.3), age)
    assert np.isfinite(conformal_half_width(conformal, age, np.full(200, 0.3))).all()


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.floats(-9, 9)), min_size=1, max_size=8),
    st.lists(st.floats(-5, 5) | st.integers(-4, 4) | st.just(math.nan), max_size=20),
)
def test_interpolation_is_numpys_to_the_bit(table: list[tuple[int, float]], x: list[float]) -> None:
    knots, values = [float(knot) for knot, _ in sorted(table)], [value for _, value in table]  # knots may coincide
    found = interpolated(torch.tensor(x, dtype=torch.float64), knots, values).numpy()
    expected = np.interp(np.array(x, np.float64), knots, values)
    # numpy takes NaN for a number where there is one knot alone.
    np.testing.assert_array_equal(found, np.where(np.isnan(x), np.nan, expected))
