from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mien.metrics.weighted import mean, mean_of_known, median

samples = st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(0, 4)), min_size=1, max_size=30).filter(
    lambda pairs: sum(weight for _, weight in pairs) > 0
)


@given(samples)
def test_whole_weights_are_repetitions(pairs: list[tuple[float, int]]) -> None:
    values = np.array([value for value, _ in pairs])
    weights = np.array([weight for _, weight in pairs])
    repeated = np.repeat(values, weights)
    np.testing.assert_allclose(mean(values, weights.astype(float)), repeated.mean(), atol=1e-9)
    np.testing.assert_allclose(median(values, weights.astype(float)), np.median(repeated), atol=1e-9)


def test_rows_of_weights_are_separate_samples() -> None:
    values = np.array([1.0, 2.0, 10.0])
    weights = np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 1.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(mean(values, weights), [13 / 3, 4.0, np.nan])
    np.testing.assert_allclose(median(values, weights), [2.0, 2.0, np.nan])
    np.testing.assert_allclose(mean(np.stack([values, -values], axis=1), weights)[:2], [[13 / 3, -13 / 3], [4, -4]])


def test_nothing_gives_nan() -> None:
    assert np.isnan(mean(np.array([])))
    assert np.isnan(median(np.array([])))
    assert np.isnan(mean_of_known(np.array([np.nan, np.nan])))
    assert mean_of_known(np.array([np.nan, 3.0])) == 3.0
