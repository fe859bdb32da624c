from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from mien.metrics import agreement


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
    assert agreement.majority(matrix) == pytest.approx(np.bincount(true).max() / len(true))


def test_weights_are_repetitions() -> None:
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 3, (2, 100))
    counts = generator.integers(0, 4, (5, 100))
    matrices = agreement.confusion(true, predicted, 3, counts.astype(float))
    for matrix, count in zip(matrices, counts, strict=True):
        np.testing.assert_array_equal(
            matrix, agreement.confusion(np.repeat(true, count), np.repeat(predicted, count), 3)
        )
    assert agreement.macro_f1(matrices).shape == (5,)


def test_degenerate() -> None:
    one_class = agreement.confusion(np.zeros(4, int), np.zeros(4, int), 2)
    assert agreement.accuracy(one_class) == agreement.macro_f1(one_class) == agreement.majority(one_class) == 1
    assert np.isnan(agreement.recall(one_class)[1])
    nothing = agreement.confusion(np.zeros(0, int), np.zeros(0, int), 2)
    for figure in (agreement.accuracy, agreement.macro_f1, agreement.majority):
        assert np.isnan(figure(nothing))
    # Always the majority: half the macro F1 is lost.
    constant = agreement.confusion(np.array([0, 0, 0, 1]), np.zeros(4, int), 2)
    assert agreement.accuracy(constant) == agreement.majority(constant) == 0.75
    assert agreement.macro_f1(constant) == pytest.approx((6 / 7 + 0) / 2)
