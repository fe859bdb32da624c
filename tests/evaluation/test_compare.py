from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mien.errors import MienError
from mien.evaluation.compare import compare
from mien.evaluation.predictions import Predictions

Table = Callable[..., Predictions]


def test_a_known_difference_is_found(table: Table) -> None:
    first = table(800)
    true = first.numbers("true_age_low")
    error = first.numbers("age") - true
    result = compare(first, table(800, age=true + 1.1 * error), resamples=300)
    mae = result["age"]["mae"]
    assert mae["difference"]["value"] == pytest.approx(0.1 * np.abs(error).mean())
    assert mae["second"] - mae["first"] == pytest.approx(mae["difference"]["value"])
    assert mae["better"] == "first"
    assert mae["excludes_zero"]
    # Paired: the interval of a difference that is always a tenth is far tighter than that of either model.
    assert mae["difference"]["high"] - mae["difference"]["low"] < 0.1
    for group in result["age"]["groups"]["gender"].values():
        assert group["mae"]["better"] == "first"
        assert group["mae"]["difference"]["n"] == group["n"]
    assert result["gender"]["accuracy"]["difference"]["value"] == 0
    assert result["gender"]["accuracy"]["better"] is None
    assert not result["gender"]["accuracy"]["excludes_zero"]
    backwards = compare(table(800, age=true + 1.1 * error), first, resamples=300)["age"]["mae"]
    assert backwards["better"] == "second"


def test_equal_models_are_not_told_apart(table: Table) -> None:
    told = 0
    for seed in range(40):
        first = table(300, seed=seed)
        error = np.random.default_rng(1000 + seed).normal(0, 5, 300)
        result = compare(first, table(300, seed=seed, age=first.numbers("true_age_low") + error), resamples=200)
        told += result["age"]["mae"]["excludes_zero"]
    assert told <= 6  # 5 % of 40 is 2; 7 or more would happen once in 300


def test_more_is_better_for_scores(table: Table) -> None:
    truth = table().strings("true_race")
    result = compare(table(), table(race=truth, age=table().numbers("true_age_low")), resamples=50)
    assert result["race"]["accuracy"]["better"] == result["age"]["cs5"]["better"] == "second"
    assert result["race"]["accuracy"]["second"] == 1
    assert result["age"]["bias"]["better"] is None
    assert result["age"]["width90"]["difference"]["value"] == 0


def test_only_common_faces_with_equal_labels_count(table: Table) -> None:
    first, second = table(300), table(300)
    shuffled = second.take(np.random.default_rng(0).permutation(np.arange(100, 300)))
    other_place = [f"elsewhere/{path}" for path in shuffled.strings("path")]
    shuffled = Predictions(shuffled.table.set_column(0, "path", [other_place]))
    result = compare(first, shuffled, resamples=20)
    assert result["faces"] == {"common": 200, "only_first": 100, "only_second": 0, "labels_differ": 0}
    assert result["age"]["mae"]["difference"]["value"] == 0

    relabelled = second.numbers("true_age_low")
    relabelled[:10] += 1
    again = compare(first, table(300, true_age_low=relabelled, true_age_high=relabelled), resamples=20)
    assert again["faces"]["labels_differ"] == 10
    assert again["age"]["n"] == 290


def test_copies_under_other_names_are_other_faces(table: Table) -> None:
    same = ["ab" * 32] * 2 + [f"{i:064x}" for i in range(2, 60)]
    result = compare(table(60, sha256=same), table(60, sha256=same), resamples=20)
    assert result["faces"]["common"] == 60
    assert result["age"]["mae"]["difference"]["value"] == 0
    unknown = compare(table(60, sha256=[None] * 60), table(60, sha256=[None] * 60), resamples=20)
    assert unknown["faces"]["common"] == 60


def test_groups_too_small_are_suppressed(table: Table) -> None:
    groups = compare(table(100), table(100), resamples=20)["age"]["groups"]["gender x age_bin"]
    assert groups
    assert all(group == {"n": group["n"], "suppressed": True} for group in groups.values())


def test_nothing_in_common(table: Table) -> None:
    others = [f"{i + 10_000:064x}" for i in range(50)]
    with pytest.raises(MienError, match="no face with the same labels in common"):
        compare(table(50), table(50, sha256=others), resamples=5)
    with pytest.raises(MienError, match="no labelled task in common"):
        compare(table(50, gender=None, race=None), table(50, age=None), resamples=5)
