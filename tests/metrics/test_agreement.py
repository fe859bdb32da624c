from __future__ import annotations

import warnings

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mien.metrics import agreement


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_against_sklearn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    matrix = agreement.confusion(true, predicted, 5)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(true, predicted, labels=range(5)))
    assert agreement.accuracy(matrix) == pytest.approx(sk.accuracy_score(true, predicted))
    assert agreement.macro_f1(matrix) == pytest.approx(sk.f1_score(true, predicted, average="macro"))
    present = np.unique(true)
    recalls = sk.recall_score(true, predicted, labels=present, average=None)
    np.testing.assert_allclose(agreement.recall(matrix)[present], recalls)
    said = np.unique(predicted)
    precisions = sk.precision_score(true, predicted, labels=said, average=None)
    np.testing.assert_allclose(agreement.precision(matrix)[said], precisions)
    assert np.isnan(agreement.precision(matrix)[np.setdiff1d(range(5), said)]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kappa = sk.cohen_kappa_score(true, predicted)
    np.testing.assert_allclose(agreement.kappa(matrix), kappa, atol=1e-12)  # both NaN for one class throughout
    if len(set(true) | set(predicted)) > 1:
        theirs = krippendorff.alpha(np.stack([true, predicted]), level_of_measurement="nominal", value_domain=range(5))
        assert agreement.alpha(matrix) == pytest.approx(theirs)
    else:
        assert np.isnan(agreement.alpha(matrix))


def test_alpha_is_scotts_pi_and_a_little() -> None:
    generator = np.random.default_rng(1)
    true, predicted = generator.integers(0, 4, (2, 60))
    shares = (np.bincount(true, minlength=4) + np.bincount(predicted, minlength=4)) / 120
    pi = ((true == predicted).mean() - (shares**2).sum()) / (1 - (shares**2).sum())
    assert agreement.alpha(agreement.confusion(true, predicted, 4)) == pytest.approx(pi + (1 - pi) / 120)


def test_weights_are_repetitions() -> None:
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 3, (2, 100))
    counts = generator.integers(0, 4, (5, 100))
    matrices = agreement.confusion(true, predicted, 3, counts.astype(float))
    apart = [agreement.confusion(np.repeat(true, count), np.repeat(predicted, count), 3) for count in counts]
    np.testing.assert_array_equal(matrices, apart)
    each = (agreement.recall, agreement.precision, agreement.f1)
    for figure in (agreement.accuracy, *each, agreement.macro_f1, agreement.kappa, agreement.alpha):
        np.testing.assert_allclose(figure(matrices), [figure(one) for one in apart], err_msg=figure.__name__)


def test_degenerate() -> None:
    one_class = agreement.confusion(np.zeros(4, int), np.zeros(4, int), 2)
    assert agreement.accuracy(one_class) == agreement.macro_f1(one_class) == 1
    assert np.isnan(agreement.recall(one_class)[1])
    nothing = agreement.confusion(np.zeros(0, int), np.zeros(0, int), 2)
    for figure in (agreement.accuracy, agreement.macro_f1, agreement.kappa, agreement.alpha):
        assert np.isnan(figure(nothing))
    for figure in (agreement.kappa, agreement.alpha):
        assert np.isnan(figure(one_class))
    # Always the majority: half the macro F1 is lost.
    constant = agreement.confusion(np.array([0, 0, 0, 1]), np.zeros(4, int), 2)
    assert agreement.accuracy(constant) == 0.75
    assert agreement.macro_f1(constant) == pytest.approx((6 / 7 + 0) / 2)
    # One answer for faces of two classes is chance, no more: defined, and zero or just below.
    assert agreement.kappa(constant) == 0
    assert agreement.alpha(constant) == pytest.approx(
        krippendorff.alpha([[0, 0, 0, 1], [0, 0, 0, 0]], level_of_measurement="nominal", value_domain=[0, 1])
    )
