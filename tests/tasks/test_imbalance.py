from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from mien.tasks.imbalance import age_histogram, inverse_weights, lds_weights, weights_of

AGES = np.concatenate([np.full(200, 26.0), np.full(40, 27.0), np.full(3, 80.0), np.full(2000, 30.0)])


def test_histogram_shares_an_interval_among_its_years() -> None:
    low, high = np.array([3.0, 10.0, np.nan, 119.0]), np.array([3.0, 13.0, np.nan, 120.0])
    histogram = age_histogram(low, high)
    assert histogram.sum() == pytest.approx(3)
    assert histogram[3] == 1
    np.testing.assert_allclose(histogram[10:14], 0.25)
    np.testing.assert_allclose(histogram[119:], 0.5)


def test_a_histogram_of_many_is_the_sum_of_each() -> None:
    draw = np.random.default_rng(0)
    low = draw.integers(0, 90, 500).astype(np.float64)
    high = low + draw.integers(0, 20, 500) * draw.integers(0, 2, 500)
    each = [age_histogram(low[face : face + 1], high[face : face + 1]) for face in range(500)]
    np.testing.assert_allclose(age_histogram(low, high), np.sum(each, axis=0), rtol=1e-12)


@pytest.mark.parametrize("square_root", [False, True])
def test_inverse_weights_by_hand(square_root: bool) -> None:
    table = inverse_weights(age_histogram(AGES, AGES), square_root)
    weights = weights_of(AGES, AGES, table)
    assert weights.mean() == pytest.approx(1)
    expected = np.sqrt(200 / 40) if square_root else 200 / 40
    assert table[27] / table[26] == pytest.approx(expected)
    rarest = np.sqrt(200 / 3) if square_root else 200 / 5  # counts under 5 weigh as 5
    assert table[80] / table[26] == pytest.approx(rarest)


def test_lds_is_the_authors() -> None:
    """Their `_prepare_weights`: sqrt, a Gaussian window of peak 1, `convolve1d` with zeros outside."""
    histogram = age_histogram(AGES, AGES)
    window = np.exp(-0.5 * (np.arange(-2, 3) / 2.0) ** 2)
    smooth = scipy.ndimage.convolve1d(np.sqrt(histogram), window, mode="constant")
    weights = 1 / smooth[AGES.astype(int)]
    weights *= len(weights) / weights.sum()
    np.testing.assert_allclose(weights_of(AGES, AGES, lds_weights(histogram)), weights, rtol=1e-5)


def test_a_year_beside_a_full_one_weighs_less_under_lds() -> None:
    histogram = age_histogram(AGES, AGES)
    plain, smooth = inverse_weights(histogram, square_root=True), lds_weights(histogram)
    assert smooth[27] / smooth[26] < plain[27] / plain[26]


def test_missing_ages_and_empty_tables_weigh_one() -> None:
    nothing = np.array([np.nan, np.nan])
    table = inverse_weights(age_histogram(nothing, nothing))
    np.testing.assert_array_equal(table, 1.0)
    np.testing.assert_array_equal(weights_of(nothing, nothing, np.full(121, 3.0)), 1.0)
    assert np.isfinite(lds_weights(age_histogram(AGES, AGES))).all()


def test_an_interval_weighs_the_mean_of_its_years() -> None:
    table = np.arange(121.0)
    assert weights_of(np.array([10.0]), np.array([12.0]), table)[0] == pytest.approx(11)


def test_seventy_or_more_is_ten_years_as_the_bins_before_it() -> None:
    low, high = np.array([60.0] * 90 + [70.0] * 40), np.array([69.0] * 90 + [120.0] * 40)
    histogram = age_histogram(low, high)
    assert histogram.sum() == pytest.approx(130)
    weights = weights_of(low, high, inverse_weights(histogram, square_root=True))
    assert weights.mean() == pytest.approx(1)
    # 11 years, 70 to 80: not the 51 to 120, each of which hardly a face would be of.
    assert weights[-1] / weights[0] == pytest.approx(np.sqrt((90 / 10) / (40 / 11)), rel=1e-5)
