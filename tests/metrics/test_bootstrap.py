from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mien.metrics import bootstrap as module
from mien.metrics.bootstrap import Bootstrap, estimate, estimate_from_above, widest_difference
from mien.metrics.calibration import expected_calibration_error
from mien.metrics.weighted import mean, median


def mean_estimate(values: np.ndarray, groups: np.ndarray | None = None, **options: int) -> dict:
    boot = Bootstrap(np.arange(len(values)) if groups is None else groups, **options)
    return boot.estimates({"mean": lambda w: mean(values, w)})["mean"]


def test_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, 3.0, 400)
    ours = mean_estimate(values, resamples=4000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours["value"] == pytest.approx(values.mean(), abs=1e-12)
    assert ours["low"] == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours["high"] == pytest.approx(theirs.high, abs=0.05 * width)
    assert ours["n"] == 400


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    held = 0
    for trial in range(400):
        found = mean_estimate(generator.normal(5.0, 2.0, 60), resamples=300, seed=trial)
        held += found["low"] <= 5.0 <= found["high"]
    # 95 % nominal; the percentile interval of 60 faces is a little short, and 400 trials scatter by 1.1 %.
    assert 0.91 <= held / 400 <= 0.98


def test_groups_are_drawn_whole() -> None:
    values = np.repeat(np.random.default_rng(4).normal(0, 1, 50), 10)
    alone = mean_estimate(values)
    grouped = mean_estimate(values, np.repeat(np.arange(50), 10))
    widening = (grouped["high"] - grouped["low"]) / (alone["high"] - alone["low"])
    # Ten identical faces carry the information of one: the interval is sqrt(10) times as wide.
    assert widening == pytest.approx(np.sqrt(10), rel=0.15)
    weights: list[np.ndarray] = []

    def look(w: np.ndarray) -> np.ndarray:
        weights.append(w)
        return w.sum(axis=-1)

    Bootstrap(np.repeat(np.arange(50), 10), resamples=20).replicates({"look": look})
    for row in np.concatenate(weights[1:]):
        assert (row.reshape(50, 10) == row.reshape(50, 10)[:, :1]).all()
        assert row.sum() == 500


def test_the_seed_determines_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(size=300)
    first = mean_estimate(values, seed=7)
    assert first == mean_estimate(values, seed=7)
    assert first != mean_estimate(values, seed=8)
    monkeypatch.setattr(module, "BLOCK", 1000)  # three resamples a block
    assert mean_estimate(values, seed=7) == pytest.approx(first)


def test_parts_share_their_resamples() -> None:
    values = np.random.default_rng(6).normal(size=200)
    mask = values > 0.3
    boot = Bootstrap(np.arange(200), 100)
    whole = boot.replicates({"sum": lambda w: w @ values})["sum"]
    part = boot.replicates({"sum": lambda w: w @ values[mask]}, mask)["sum"]
    rest = boot.replicates({"sum": lambda w: w @ values[~mask]}, np.flatnonzero(~mask))["sum"]
    np.testing.assert_allclose(part + rest, whole, atol=1e-9)
    assert whole.shape == (101,)


def test_one_witness_tells_no_spread() -> None:
    for groups in (np.array([3]), np.array([3, 3, 3])):
        values = np.arange(len(groups), dtype=float)
        found = mean_estimate(values, groups)
        assert found["value"] == values.mean()
        assert np.isnan(found["low"])
        assert np.isnan(found["high"])
    empty = Bootstrap(np.array([]), 10).estimates({"m": lambda w: median(np.array([]), w)})["m"]
    assert empty["n"] == 0
    assert np.isnan([empty["value"], empty["low"], empty["high"]]).all()


def test_a_constant_has_no_width_and_a_rare_figure_no_interval() -> None:
    assert mean_estimate(np.full(50, 2.5)) == {"value": 2.5, "low": 2.5, "high": 2.5, "n": 50}
    rarely = np.array([1.0, *[np.nan] * 60, *[1.0] * 40])
    assert np.isnan(estimate(rarely, 5)["low"])
    often = np.array([1.0, *[np.nan] * 40, *[1.0] * 60])
    assert estimate(often, 5)["low"] == 1.0


@pytest.mark.parametrize(("shift", "truth", "least"), [(0.0, 0.0, 39), (0.03, 0.03, 34)])
def test_a_figure_that_is_too_large_for_few_faces_has_an_interval_that_allows_for_it(
    shift: float, truth: float, least: int
) -> None:
    generator, held, percentiles = np.random.default_rng(0), 0, 0
    for seed in range(40):
        confidence = 0.5 + 0.5 * generator.beta(5, 2, 100)
        correct = generator.random(100) < confidence - shift
        drawn = Bootstrap(np.arange(100), 200, seed).replicates(
            {"ece": lambda weights, c=confidence, r=correct: expected_calibration_error(c, r, weights)}  # type: ignore[misc]
        )["ece"]
        found, plain = estimate_from_above(drawn, 100), estimate(drawn, 100)
        assert 0 <= found["low"] <= found["value"] <= found["high"]
        held += found["low"] <= truth <= found["high"]
        percentiles += plain["low"] <= truth <= plain["high"]
    assert held >= least > percentiles


def test_a_figure_too_large_for_few_faces_of_one_witness_has_no_interval() -> None:
    found = estimate_from_above(np.array([0.2, np.nan, np.nan]), 5)
    assert found["value"] == 0.2
    assert np.isnan([found["low"], found["high"]]).all()


def _by_group(groups: int, seed: int, shift: float = 0.0, resamples: int = 400) -> tuple[np.ndarray, list[np.ndarray]]:
    """Replicates (groups, 1 + resamples) of means of normal samples, the last one shifted, and the samples."""
    rng = np.random.default_rng(seed)
    samples = [rng.normal(shift * (group == groups - 1), 1, 80) for group in range(groups)]
    values, rows = np.concatenate(samples), np.arange(80 * groups).reshape(groups, 80)
    boot = Bootstrap(np.arange(80 * groups), resamples, seed)
    made = [boot.replicates({"mean": lambda w, own=own: mean(values[own], w)}, own)["mean"] for own in rows]
    return np.stack(made), samples


def test_the_widest_of_many_differences_has_the_interval_of_tukey() -> None:
    replicates, samples = _by_group(6, 2, shift=0.8, resamples=2000)
    found, least, most = widest_difference(replicates, np.full(6, 80))
    interval = stats.tukey_hsd(*samples).confidence_interval()
    assert most == 5
    assert found["n"] == 160
    assert found["value"] == pytest.approx(samples[most].mean() - samples[least].mean())
    assert found["low"] == pytest.approx(interval.low[most, least], abs=0.02)
    assert found["high"] == pytest.approx(interval.high[most, least], abs=0.02)


def test_equal_groups_are_seldom_called_different_however_many() -> None:
    called = 0
    for seed in range(60):
        found = widest_difference(_by_group(6, seed)[0], np.full(6, 80))[0]
        called += found["low"] > 0
    assert called <= 8  # of the two alone 26


def test_a_difference_of_figures_that_few_resamples_define_has_no_interval() -> None:
    replicates = np.array([[1.0, 1, 1, 1], [2.0, np.nan, np.nan, 2], [1.5, 1.5, 1.5, 1.5]])
    found, least, most = widest_difference(replicates, np.array([3, 4, 5]))
    assert (found["value"], found["n"], least, most) == (1.0, 7, 0, 1)
    assert np.isnan(found["low"])
    same, least, most = widest_difference(np.ones((3, 4)), np.array([3, 4, 5]))
    assert (same["value"], same["low"], same["high"], least, most) == (0.0, 0.0, 0.0, 0, 2)


def test_the_widest_difference_is_of_the_figures_themselves_and_of_those_that_are_defined() -> None:
    turned = widest_difference(np.array([[1.0, 3.0, 1.0], [2.0, 0.0, 2.0]]), np.array([3, 4]))
    assert turned[1:] == (0, 1)  # though the first resample has them the other way round
    replicates, _ = _by_group(2, 0, shift=0.5)
    seldom = np.full(replicates.shape[1], np.nan)
    seldom[0], seldom[-100:] = replicates[:, 0].mean(), np.random.default_rng(0).normal(0, 1, 100)
    found = widest_difference(np.stack([*replicates, seldom]), np.full(3, 80))
    assert found == widest_difference(replicates, np.full(2, 80))
