"""Active latents, collapse, and what a straight line reads: planted codes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mien.metrics.coding import RIDGES, _ridge, active, collapse, linear_probe


def test_latents_that_do_not_vary_are_not_active() -> None:
    rng = np.random.default_rng(0)
    codes = np.stack([rng.normal(size=50), np.full(50, 3.0), 0.05 * rng.normal(size=50)], axis=1)
    assert active(codes).tolist() == [True, False, False]


def test_collapse_is_said_with_what_to_change_and_only_then() -> None:
    assert collapse(40, 126, 100.0, 0.6) == ""
    for said in (collapse(2, 126, 0.4, 0.6), collapse(0, 8, 0.0, 0.0)):
        assert said.startswith("posterior collapse: ")
        assert "lower beta" in said
    # All latents in use are no collapse, whatever else is wrong.
    unread = collapse(126, 126, 3.0, 0.02)
    assert unread.startswith("a code that says next to nothing of the picture: 126 of 126 latents of z_id are in use")
    assert "lower beta" in unread


def test_the_probe_reads_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(400, 5))
    codes[:, 4] = 7.0  # never varies
    values = 30 + 8 * codes[:, 0] - 3 * codes[:, 2] + rng.normal(size=400)
    assert np.abs(linear_probe(codes, values) - values).mean() < 1.2
    nothing = rng.normal(size=400)
    said = linear_probe(np.hstack([codes, rng.normal(size=(400, 60))]), nothing)
    constant = np.abs(nothing - np.median(nothing)).mean()
    assert np.abs(said - nothing).mean() == pytest.approx(constant, rel=0.06)


def test_the_probe_is_the_ridge_regression_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    codes, values = rng.normal(4, [1, 20, 0.1], (30, 3)), rng.normal(40, 9, 30)
    judged = np.arange(30) < 10
    for penalty, found in zip(RIDGES, _ridge(codes, values, ~judged, judged, RIDGES), strict=True):
        model = make_pipeline(StandardScaler(), Ridge(20 * penalty)).fit(codes[~judged], values[~judged])
        assert found == pytest.approx(model.predict(codes[judged]))


def test_the_probe_never_learns_from_the_group_it_judges() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(30), 10)
    codes = np.eye(30)[groups] + 0.01 * rng.normal(size=(300, 30))
    values = rng.normal(size=30)[groups]  # known of a group once one of its faces is
    alone = np.abs(linear_probe(codes, values) - values).mean()
    apart = np.abs(linear_probe(codes, values, groups) - values).mean()
    assert alone < 0.3 * apart


def test_too_few_faces_are_not_read() -> None:
    assert np.isnan(linear_probe(np.ones((3, 2)), np.ones(3))).all()
