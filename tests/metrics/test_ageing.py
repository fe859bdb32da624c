"""Bands and orders of judged ages, against scipy and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from mien.metrics.ageing import bands, in_band, rising, slope, spearman

ASKED = np.array([5.0, 15.0, 25.0, 45.0])


def test_bands_meet_halfway_and_stay_within_a_life() -> None:
    assert bands(ASKED).tolist() == [[0, 10], [10, 20], [20, 35], [35, 55]]
    assert bands(np.array([60.0])).tolist() == [[55, 65]]
    assert bands(np.array([40.0, 60.0])).tolist() == [[30, 50], [50, 70]]
    assert bands(np.array([2.0, 118.0])).tolist() == [[0, 60], [60, 120]]


def test_bands_of_ages_that_count_do_not_depend_on_the_others() -> None:
    asked, counted = np.array([20.0, 40.0, 50.0, 60.0]), np.array([True, True, False, True])
    assert bands(asked, counted)[counted].tolist() == bands(asked[counted]).tolist() == [[10, 30], [30, 50], [50, 70]]
    assert bands(asked, counted)[2].tolist() == [45, 55]


def test_a_judged_age_is_in_the_band_of_the_age_asked_for() -> None:
    judged = np.array([[9.9, 10.0, 35.0, 54.9], [10.0, 9.9, 34.9, np.nan]])
    assert in_band(judged, bands(ASKED))[:, :3].tolist() == [[1, 1, 0], [0, 0, 1]]
    assert in_band(judged, bands(ASKED))[0, 3] == 1
    assert np.isnan(in_band(judged, bands(ASKED))[1, 3])


def test_order_of_each_face() -> None:
    rng = np.random.default_rng(0)
    judged = rng.normal(ASKED, 20, (30, 4)).round(-1)  # rounded: ties
    judged[0], judged[1] = ASKED, 7.0
    expected = [spearmanr(row, ASKED).statistic if np.ptp(row) else 0.0 for row in judged]
    assert spearman(judged, ASKED) == pytest.approx(expected)
    assert slope(judged, ASKED) == pytest.approx([np.polyfit(ASKED, row, 1)[0] for row in judged])
    assert slope(judged, ASKED)[:2] == pytest.approx([1, 0])
    assert rising(judged).tolist() == [float(sorted(set(row)) == list(row)) for row in judged]
    assert rising(judged)[:2].tolist() == [1, 0]
    assert np.isnan(slope(judged[:, :1], ASKED[:1])).all()


def test_what_was_not_judged_counts_neither_way() -> None:
    judged = np.array([[5.0, np.nan, 25.0, 35.0], [5.0, 15.0, 25.0, 35.0], [5.0, 5.0, 5.0, 5.0]])
    asked = np.array([5.0, 15.0, 25.0, 35.0])
    np.testing.assert_array_equal(rising(judged), [np.nan, 1, 0])
    np.testing.assert_allclose(spearman(judged, asked), [np.nan, 1, 0])
