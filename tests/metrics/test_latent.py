"""MIG, DCI and SAP on codes whose answers are known, and against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from mien.metrics import latent
from mien.metrics.latent import LEARN, _halves, classes, dci, mig, mig_null, mutual_information, sap

rng = np.random.default_rng(0)
N = 4000
A, B = rng.integers(0, 5, N), rng.integers(0, 4, N)
FACTORS = {"a": A, "b": B}
NOISE = rng.normal(size=(N, 2))
PERFECT = np.column_stack([NOISE[:, 0], A, NOISE[:, 1], B]).astype(float)
TURN = np.array([[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2)
ROTATED = np.column_stack([A - A.mean(), (B - B.mean()) * A.std() / B.std()]) @ TURN
RANDOM = rng.normal(size=(N, 4))


def test_information_is_that_of_scikit_learn() -> None:
    codes = RANDOM + A[:, None] * np.array([0, 0.5, 1, 2])
    information, entropy = mutual_information(codes, A, bins=20)
    for place in range(4):
        edges = np.histogram_bin_edges(codes[:, place], 20)
        cut = np.digitize(codes[:, place], edges[1:-1])
        assert information[place] == pytest.approx(mutual_info_score(A, cut), abs=1e-9)
    shares = np.bincount(A) / N
    assert entropy == pytest.approx(-(shares * np.log(shares)).sum())


def test_mig_knows_perfect_rotated_and_random_codes() -> None:
    perfect = mig(PERFECT, FACTORS)
    assert perfect["a"]["gap"] == pytest.approx(1, abs=0.02)
    assert (perfect["a"]["best"], perfect["b"]["best"]) == (1, 3)
    assert mig(PERFECT[:, 1:2], {"a": A})["a"] == pytest.approx({"gap": 1.0, "best": 0, "second": -1})
    assert mig(ROTATED, FACTORS)["a"]["gap"] < 0.1
    assert mig(RANDOM, FACTORS)["a"]["gap"] < 0.01
    # Two copies of a factor leave no gap: that is what the measure punishes.
    assert mig(np.column_stack([A, A]).astype(float), {"a": A})["a"]["gap"] == pytest.approx(0, abs=1e-12)


def test_the_null_of_mig_is_what_unrelated_factors_give() -> None:
    low, high = mig_null(PERFECT, A, repeats=40)
    assert 0 <= low < high < 0.01
    assert low * 0.3 <= mig(RANDOM, FACTORS)["a"]["gap"] <= high * 3


def test_the_null_knows_that_pictures_of_one_person_are_alike() -> None:
    generator = np.random.default_rng(0)
    above = {"faces": 0, "persons": 0}
    for _ in range(40):
        person = np.repeat(np.arange(40), 12)
        codes = generator.normal(size=(40, 6))[person] + 0.3 * generator.normal(size=(480, 6))
        factor = generator.integers(0, 2, 40)[person]  # nothing to do with the codes
        gap = mig(codes, {"f": factor})["f"]["gap"]
        for name, groups in (("faces", None), ("persons", person)):
            above[name] += gap > mig_null(codes, factor, 30, groups=groups)[1]
    assert above["persons"] <= 6 < above["faces"]
    # Of persons shown once it is a permutation of the faces.
    assert mig_null(codes, factor, 30) == mig_null(codes, factor, 30, groups=np.arange(480))


def test_the_null_gives_the_faces_of_a_person_the_values_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, factor = np.array([2, 0, 1, 0, 0, 1, 3]), np.arange(7)
    given: list[np.ndarray] = []
    monkeypatch.setattr(latent, "_mig", lambda codes, labels, bins: given.append(labels) or {"gap": 0.0})
    mig_null(np.zeros((7, 2)), factor, 20, groups=groups)
    theirs = {int(factor[groups == group][0]): factor[groups == group] for group in range(4)}
    for labels in given:
        givers = [int(labels[groups == group][0]) for group in range(4)]
        assert sorted(givers) == sorted(theirs)  # each person gives once
        for group, giver in enumerate(givers):
            size = int((groups == group).sum())
            assert labels[groups == group].tolist() == np.resize(theirs[giver], size).tolist()


def test_unknown_labels_are_left_out_and_one_class_has_no_gap() -> None:
    partly = np.where(np.arange(N) % 3 == 0, -1, A)
    known = partly >= 0
    assert mig(RANDOM, {"a": partly}) == mig(RANDOM[known], {"a": A[known]})
    assert np.isnan(mig(RANDOM, {"a": np.zeros(N, dtype=int)})["a"]["gap"])
    ages = np.where(np.arange(N) % 5 == 0, np.nan, rng.uniform(0, 90, N))
    cut = classes(ages, bins=10)
    assert set(np.unique(cut)) == {-1, *range(10)}
    assert np.ptp(np.bincount(cut[cut >= 0])) <= 2


def test_sap_is_the_gap_of_squared_correlations_or_accuracies() -> None:
    age = rng.uniform(0, 90, N)
    codes = np.column_stack([age + rng.normal(0, 30, N), rng.normal(size=N), age + rng.normal(0, 90, N)])
    squared = sorted((np.corrcoef(column, age)[0, 1] ** 2 for column in codes.T), reverse=True)
    assert sap(codes, {"age": age})["age"] == pytest.approx({"gap": squared[0] - squared[1], "best": 0, "second": 2})
    two = A % 2
    found = sap(np.column_stack([NOISE, two + rng.normal(0, 0.05, N)]), {"two": two})["two"]
    assert found["best"] == 2
    assert found["gap"] == pytest.approx(0.5, abs=0.05)  # all right against a coin
    # The unit of a latent is nothing to the classifier.
    codes, names = RANDOM[:300] + A[:300, None] * np.array([0, 0, 1, 3]), {"a": A[:300]}
    assert sap(codes * np.array([1, 100, 0.01, 1e-3]), names) == sap(codes, names)


@pytest.mark.parametrize("factor", [np.full(N, np.nan), np.full(N, 30.0), np.full(N, -1), np.ones(N, dtype=np.int64)])
def test_a_factor_of_one_value_has_no_sap(factor: np.ndarray) -> None:
    assert np.isnan(sap(np.column_stack([NOISE, -NOISE]), {"factor": factor})["factor"]["gap"])


def test_dci_knows_perfect_rotated_and_random_codes() -> None:
    some = {name: factor[:900] for name, factor in FACTORS.items()}
    perfect, rotated, random = (dci(codes[:900], some) for codes in (PERFECT, ROTATED, RANDOM))
    assert perfect["disentanglement"] > 0.95
    assert min(perfect["completeness"].values()) > 0.95
    assert min(perfect["informativeness"].values()) > 0.99
    assert rotated["disentanglement"] < 0.4 < perfect["disentanglement"]
    assert max(random["informativeness"].values()) < 0.35
    assert random["disentanglement"] < 0.2
    np.testing.assert_allclose(np.sum(perfect["importance"], axis=1), 1)


def test_dci_scores_are_the_entropies_of_the_importance_matrix() -> None:
    found = dci(ROTATED[:900], {name: factor[:900] for name, factor in FACTORS.items()})
    weight = np.array(found["importance"])
    rows = weight / weight.sum(1, keepdims=True)
    completeness = 1 + (rows * np.log2(rows)).sum(1) / np.log2(2)
    columns = weight / weight.sum(0)
    disentanglement = 1 + (columns * np.log2(columns)).sum(0) / np.log2(2)
    assert list(found["completeness"].values()) == pytest.approx(completeness.tolist())
    expected = (disentanglement * weight.sum(0) / weight.sum()).sum()
    assert found["disentanglement"] == pytest.approx(expected)


def test_no_group_is_on_both_sides() -> None:
    members = np.repeat(np.arange(30), 3)
    learn, judge = _halves(members, 0)
    assert not set(members[learn]) & set(members[judge])
    assert sorted([*learn, *judge]) == list(range(90))
    assert len(learn) == pytest.approx(90 * LEARN, abs=3)
    # Codes that name the person, and nothing of what is asked: found again only where the person was learnt from.
    rng = np.random.default_rng(0)
    persons = np.repeat(np.arange(100), 6)
    codes, word = rng.normal(size=(100, 4))[persons], rng.integers(0, 2, 100)[persons]
    apart, mixed = (dci(codes, {"word": word}, groups=given)["informativeness"]["word"] for given in (persons, None))
    assert mixed > 0.85
    assert apart < 0.7
