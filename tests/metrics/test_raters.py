from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.faces import EXPRESSIONS
from mien.metrics import raters
from mien.metrics.weighted import mean

tables = st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=12)


def reliability_data(votes: np.ndarray) -> np.ndarray:
    """Votes (N, K) as krippendorff's table of raters (most votes of a face) x faces, NaN where nobody voted."""
    table = np.full((max(int(votes.sum(1).max(initial=0)), 1), len(votes)), np.nan)
    for face, counts in enumerate(votes):
        given_values = np.repeat(np.arange(len(counts)), counts)
        table[: len(given_values), face] = given_values
    return table


@settings(deadline=None)
@given(tables)
def test_alpha_is_krippendorffs(drawn: list[list[int]]) -> None:
    votes = np.array(drawn)
    paired = votes[votes.sum(1) > 1]
    if (paired.sum(0) > 0).sum() < 2:
        assert np.isnan(raters.alpha(votes))
        return
    theirs = krippendorff.alpha(reliability_data(votes), level_of_measurement="nominal", value_domain=range(3))
    assert raters.alpha(votes) == pytest.approx(theirs)


def test_alpha_of_resamples_is_that_of_repeated_faces() -> None:
    generator = np.random.default_rng(0)
    votes = generator.multinomial(10, [0.5, 0.3, 0.1, 0.1], 80)
    counts = generator.integers(0, 4, (5, 80))
    found = raters.alpha(votes, counts.astype(float))
    for value, count in zip(found, counts, strict=True):
        assert value == pytest.approx(raters.alpha(np.repeat(votes, count, axis=0)))
    missing = np.concatenate([votes, np.full((2, 4), np.nan)])
    assert raters.alpha(missing) == pytest.approx(raters.alpha(votes))


def test_one_rater_against_the_rest_by_a_loop() -> None:
    generator = np.random.default_rng(1)
    votes = np.concatenate([generator.multinomial(5, [0.4, 0.3, 0.2, 0.1], 60), [[1, 0, 0, 0], [0, 0, 0, 0]]])
    said = generator.integers(0, 4, len(votes))
    found, against = raters.against_rest(votes), raters.against_rest(votes, said)
    for face, counts in enumerate(votes):
        values = np.repeat(np.arange(4), counts)
        if len(values) < 2:
            assert np.isnan(found[face])
            assert np.isnan(against[face])
            continue
        one, model = [], []
        for left_out in range(len(values)):
            rest = np.bincount(np.delete(values, left_out), minlength=4)
            tied = np.flatnonzero(rest == rest.max())
            one.append((values[left_out] in tied) / len(tied))
            model.append((said[face] in tied) / len(tied))
        assert found[face] == pytest.approx(np.mean(one))
        assert against[face] == pytest.approx(np.mean(model))
    assert (raters.against_rest(np.array([[4, 0], [0, 7]])) == 1).all()


def test_labels_of_votes() -> None:
    votes = np.zeros((6, 10))
    votes[0, [0, 1]] = 6, 2
    votes[1, [2, 8]] = 3, 4  # more could not tell than said sad
    votes[2, [2, 8]] = 4, 4
    votes[3, 9] = 10
    votes[4] = np.nan
    labels = raters.expression_labels(votes)
    assert labels.shape == (6, len(EXPRESSIONS))
    np.testing.assert_allclose(labels[0], [0.75, 0.25, 0, 0, 0, 0, 0, 0])
    assert labels[2, 2] == 1
    assert np.isnan(labels[[1, 3, 4, 5]]).all()
    assert raters.plurality(labels).tolist() == [0, -1, 2, -1, -1, -1]
    assert raters.plurality(np.array([[1 / 3, 1 / 3, 1 / 3], [0.4, 0.2, 0.4], [0.2, 0.5, 0.3]])).tolist() == [-1, -1, 1]
    assert raters.plurality(np.array([[0.1 + 0.2, 0.3, 0.0]])).tolist() == [-1]  # equal but for rounding


def test_cross_entropy_and_divergence() -> None:
    shares = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    assert raters.divergence(shares, shares) == pytest.approx(0, abs=1e-12)
    uniform = np.full((3, 3), 1 / 3)
    np.testing.assert_allclose(raters.cross_entropy(shares, uniform), np.log(3))
    assert np.isfinite(raters.cross_entropy(shares, np.array([[0.0, 0.0, 1.0]] * 3))).all()
    # No constant does better than the mean of the shares.
    least = raters.mean_cross_entropy_of_constant(shares)
    average = np.tile(shares.mean(0), (3, 1))
    assert least == pytest.approx(mean(raters.cross_entropy(shares, average)))
    assert least < mean(raters.cross_entropy(shares, uniform))
    resampled = raters.mean_cross_entropy_of_constant(shares, np.array([[1.0, 1, 1], [0, 2, 1], [0, 0, 3]]))
    counts = ([0, 1, 2], [1, 1, 2], [2])
    np.testing.assert_allclose(resampled, [raters.mean_cross_entropy_of_constant(shares[rows]) for rows in counts])
