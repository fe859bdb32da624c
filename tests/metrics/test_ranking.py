from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mien.metrics import ranking

#: Few distinct scores, so that ties are common.
faces = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=40)


@settings(deadline=None)
@given(faces)
def test_against_sklearn_with_ties_and_weights(drawn: list[tuple[bool, int, int]]) -> None:
    positive, score, count = (np.array(column) for column in zip(*drawn, strict=True))
    score = score / 6
    weights = np.stack([np.ones(len(count)), count.astype(float)])
    found = ranking.auroc(positive, score, weights), ranking.average_precision(positive, score, weights)
    for row, times in enumerate((np.ones(len(count), int), count)):
        truth, scores = np.repeat(positive, times), np.repeat(score, times)
        both = truth.any() and not truth.all()
        if both:
            assert found[0][row] == pytest.approx(sk.roc_auc_score(truth, scores))
        else:
            assert np.isnan(found[0][row])
        if truth.any():
            assert found[1][row] == pytest.approx(sk.average_precision_score(truth, scores))
        else:
            assert np.isnan(found[1][row])
    np.testing.assert_array_equal(ranking.auroc(positive, score), found[0][0])


def test_one_vs_rest_is_sklearns_macro() -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(0, 8, 500)
    logits = generator.normal(size=(500, 8)) + 1.5 * np.eye(8)[true]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    areas = ranking.one_vs_rest(true, p)
    each, precisions = areas()
    assert each.shape == (8,)
    assert each.mean() == pytest.approx(sk.roc_auc_score(true, p, multi_class="ovr", average="macro"))
    assert precisions.mean() == pytest.approx(sk.average_precision_score(np.eye(8)[true], p, average="macro"))
    weights = generator.integers(0, 3, (4, 500)).astype(float)
    np.testing.assert_array_equal(areas(weights)[:, 0, 3], ranking.auroc(true == 3, p[:, 3], weights))
    np.testing.assert_array_equal(areas(weights)[:, 1, 3], ranking.average_precision(true == 3, p[:, 3], weights))


def test_the_curves_are_sklearns() -> None:
    generator = np.random.default_rng(1)
    positive, score = generator.random(60) < 0.3, generator.integers(0, 12, 60) / 12
    false, true = ranking.roc_points(positive, score)
    theirs = sk.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(false, theirs[0])
    np.testing.assert_allclose(true, theirs[1])
    recall, precision = ranking.precision_recall_points(positive, score)
    expected = sk.precision_recall_curve(positive, score)
    np.testing.assert_allclose(recall, expected[1][-2::-1])
    np.testing.assert_allclose(precision, expected[0][-2::-1])


def test_degenerate() -> None:
    score = np.array([0.1, 0.5, 0.9])
    nobody, everybody = np.zeros(3, bool), np.ones(3, bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # of what other tests left open, collected by chance now
        for positive in (nobody, everybody):
            assert np.isnan(ranking.auroc(positive, score))
        assert np.isnan(ranking.average_precision(nobody, score))
        assert ranking.average_precision(everybody, score) == 1
        for figure in (ranking.auroc, ranking.average_precision):
            assert np.isnan(figure(np.zeros(0, bool), np.zeros(0)))
            assert np.isnan(figure(np.array([True, False]), np.array([0.2, 0.1]), np.zeros((1, 2))))[0]
    # A constant score ranks nothing: half the area, and the share of positives.
    some = np.array([True, False, False, False])
    assert ranking.auroc(some, np.full(4, 0.7)) == 0.5
    assert ranking.average_precision(some, np.full(4, 0.7)) == 0.25
