from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from sklearn import metrics as sk

from mien.evaluation.judge import judge
from mien.evaluation.predictions import Predictions
from mien.faces import GENDERS, RACES, age_bin
from mien.files import to_json

Table = Callable[..., Predictions]


def test_the_whole_result_is_json_and_determined(table: Table) -> None:
    first, again = (to_json(judge(table(), resamples=50, seed=3)) for _ in range(2))
    assert first == again
    assert first != to_json(judge(table(), resamples=50, seed=4))
    result = json.loads(first)
    assert set(result) == {"age", "gender", "race"}
    assert set(result["age"]["groups"]) == {
        "age_bin", "gender", "race", "gender x race", "gender x age_bin", "predicted_age",
    }  # fmt: skip
    assert len(result["age"]["cs"]) == len(result["age"]["constant"]["cs"]) == 16


def test_groups_against_fairlearn(table: Table) -> None:
    predictions = table()
    result = judge(predictions, resamples=20)
    true, predicted = predictions.numbers("true_age_low"), predictions.numbers("age")
    gender, race = predictions.strings("true_gender"), predictions.strings("true_race")
    features = {"gender": gender, "race": race, "age_bin": age_bin(true).astype(str)}
    frame = MetricFrame(
        metrics=sk.mean_absolute_error,
        y_true=true,
        y_pred=predicted,
        sensitive_features={"g": gender, "r": race},
    )
    for (g, r), value in frame.by_group.items():
        group = result["age"]["groups"]["gender x race"][f"{g} x {r}"]
        n = int(((gender == g) & (race == r)).sum())
        assert group["n"] == n
        if n < 30:
            assert group == {"n": n, "suppressed": True}
        else:
            assert group["mae"]["value"] == pytest.approx(value)
            assert group["mae"]["low"] < value < group["mae"]["high"]
    for by in ("gender", "race"):
        frame = MetricFrame(
            metrics=sk.mean_absolute_error, y_true=true, y_pred=predicted, sensitive_features=features[by]
        )
        large = {k: v for k, v in frame.by_group.items() if (features[by] == k).sum() >= 30}
        gap = result["age"]["gaps"][by]
        assert gap["raw"]["value"] == pytest.approx(max(large.values()) - min(large.values()))
        assert gap["between"] == [min(large, key=large.__getitem__), max(large, key=large.__getitem__)]
    accuracy = MetricFrame(
        metrics=sk.accuracy_score,
        y_true=race.astype(str), y_pred=predictions.strings("race").astype(str), sensitive_features=gender,
    )  # fmt: skip
    for g, value in accuracy.by_group.items():
        assert result["race"]["groups"]["gender"][g]["accuracy"]["value"] == pytest.approx(value)


def test_classes_against_sklearn(table: Table) -> None:
    predictions = table()
    result = judge(predictions, resamples=20)["race"]
    true, said = predictions.strings("true_race").astype(str), predictions.strings("race").astype(str)
    assert result["accuracy"]["value"] == pytest.approx(sk.accuracy_score(true, said))
    assert result["macro_f1"]["value"] == pytest.approx(sk.f1_score(true, said, average="macro"))
    assert result["confusion"] == sk.confusion_matrix(true, said, labels=RACES).tolist()
    assert result["majority"]["class"] == "White"
    assert result["majority"]["accuracy"]["value"] == pytest.approx((true == "White").mean())
    for race, n in zip(*np.unique(true, return_counts=True), strict=True):
        assert result["per_class"][race]["n"] == result["per_class"][race]["recall"]["n"] == n
    assert "ece" not in result
    assert judge(predictions, resamples=20)["gender"]["ece"]["value"] == pytest.approx(
        abs(0.9 - (predictions.strings("true_gender") == predictions.strings("gender")).mean())
    )


def test_standardising_removes_the_age_mix(table: Table) -> None:
    # Old faces are harder, and men are older: the raw gap is age alone.
    generator = np.random.default_rng(1)
    n = 2000
    male = np.arange(n) < n // 2
    old = generator.random(n) < np.where(male, 0.8, 0.2)
    true = np.where(old, 65.0, 25.0)
    predicted = true + generator.normal(0, np.where(old, 10, 3), n)
    gender = np.where(male, "Male", "Female").astype(object)
    predictions = table(
        n, true_age_low=true, true_age_high=true, age=predicted, true_gender=gender, true_race=None, race=None
    )
    result = judge(predictions, resamples=300)["age"]
    gap = result["gaps"]["gender"]
    assert gap["between"] == ["Female", "Male"]
    assert gap["raw"]["low"] > 2
    assert gap["age_standardised"]["value"] < 0.8
    assert gap["age_standardised"]["low"] < 0.3
    assert gap["bins"] == ["20-29", "60-69"]
    # By hand: each group's MAE in the two bins, weighed as the faces of both groups together are.
    error = np.abs(predicted - true)
    shares = {age: (true == age).mean() for age in (25.0, 65.0)}
    for name, chosen in (("Male", male), ("Female", ~male)):
        expected = sum(share * error[chosen & (true == age)].mean() for age, share in shares.items())
        found = result["groups"]["gender"][name]["mae_age_standardised"]
        assert found["value"] == pytest.approx(expected)
        assert found["n"] == n // 2


def test_a_gap_of_equal_groups_is_between_two_of_them(table: Table) -> None:
    right = table(120).strings("true_gender")
    gap = judge(table(120, gender=right), resamples=20)["gender"]["gaps"]["gender"]
    assert sorted(gap["between"]) == ["Female", "Male"]
    assert (gap["raw"]["value"], gap["raw"]["n"]) == (0, 120)


def test_standardised_figures_count_the_faces_of_the_shared_ages_alone(table: Table) -> None:
    true = np.array([25.0] * 100 + [5.0] * 40 + [25.0] * 60)
    gender = np.array(["Male"] * 140 + ["Female"] * 60, dtype=object)  # no girl stands beside the boys
    result = judge(
        table(200, true_age_low=true, true_age_high=true, age=true + 1, true_gender=gender, true_race=None, race=None),
        resamples=50,
    )["age"]
    gap = result["gaps"]["gender"]
    assert gap["bins"] == ["20-29"]
    assert (gap["raw"]["n"], gap["age_standardised"]["n"]) == (200, 160)
    men = result["groups"]["gender"]["Male"]
    assert (men["mae"]["n"], men["mae_age_standardised"]["n"]) == (140, 100)


def test_interval_labels_stay_out_of_the_mae(table: Table) -> None:
    true = np.array([20.0, 30.0, *[20.0] * 98])
    high = np.array([20.0, 30.0, *[29.0] * 98])
    said = np.array([22.0, 31.0, *[25.0] * 49, *[60.0] * 49])
    result = judge(
        table(100, true_age_low=true, true_age_high=high, age=said, age_low=None, age_high=None), resamples=50
    )["age"]
    assert result["n"] == 2
    assert result["mae"]["value"] == 1.5
    assert result["interval_labels"]["n"] == 98
    assert result["interval_labels"]["inside"]["value"] == 0.5
    assert "coverage90" not in result
    only = table(98, true_age_low=true[2:], true_age_high=high[2:], age=said[2:])
    assert "mae" not in judge(only, resamples=20)["age"]


def test_a_group_of_copies_widens_every_interval(table: Table) -> None:
    base = table(200)
    copies = Predictions(base.take(np.repeat(np.arange(200), 8)).table)
    apart = Predictions(copies.table.set_column(4, "group", [np.arange(1600)]))
    together, alone = (judge(p, resamples=400)["age"]["mae"] for p in (copies, apart))
    assert together["value"] == pytest.approx(alone["value"])
    assert (together["high"] - together["low"]) > 2 * (alone["high"] - alone["low"])


def test_few_persons_shown_often_are_not_flagged_for_one_of_them(table: Table) -> None:
    # Ten persons, 30 faces each: two of them are never covered. Of 300 faces on their own 80 % would be significant.
    person = np.repeat(np.arange(10), 30)
    true = np.full(300, 40.0)
    said = np.where(person < 2, 80.0, 40.0)
    ages = {"true_age_low": true, "true_age_high": true, "age": said, "age_low": said - 5, "age_high": said + 5}
    faces = {"true_gender": np.full(300, "Male", dtype=object), "true_race": None, "race": None}
    for group, flagged in ((np.arange(300), True), (person, False)):
        found = judge(table(300, **ages, **faces, group=group), resamples=200)["age"]["groups"]["gender"]["Male"]
        assert found["coverage90"]["value"] == 0.8
        assert found["undercovered"] is flagged
    alone = judge(table(300, **ages, **faces, group=np.zeros(300, dtype=int)), resamples=20)["age"]
    assert "undercovered" not in alone["groups"]["gender"]["Male"]


def test_coverage_flags_only_what_is_significant(table: Table) -> None:
    generator = np.random.default_rng(2)
    n = 900
    true = generator.integers(20, 60, n).astype(float)
    race = np.repeat(np.array(["White", "Black", "Asian"], dtype=object), 300)
    # 90 %, 83 % (not significantly under 85 % with 300 faces) and 70 % covered.
    covered = np.concatenate([np.arange(300) < k for k in (270, 249, 210)])
    low = np.where(covered, true - 5, true + 1)
    result = judge(
        table(n, true_age_low=true, true_age_high=true, true_race=race, age_low=low, age_high=low + 10),
        resamples=50,
    )["age"]
    groups = result["groups"]["race"]
    assert [groups[name]["undercovered"] for name in ("White", "Black", "Asian")] == [False, False, True]
    assert "race: Asian" in result["undercovered"]
    assert groups["Asian"]["coverage90"]["value"] == pytest.approx(0.7)
    assert groups["Asian"]["width90"]["value"] == pytest.approx(10)
    assert result["coverage90"]["value"] == pytest.approx(covered.mean())
    small = judge(table(99, true_race=None, race=None), resamples=20)["age"]["groups"]["gender"]
    assert all("undercovered" not in group for group in small.values())


def test_training_counts_stand_beside_their_group(table: Table) -> None:
    counts = {"gender": {"Male": 7000, "Female": 5000}, "race": {"Nobody": 3}}
    groups = judge(table(), resamples=10, training_counts=counts)["age"]["groups"]
    assert groups["gender"]["Male"]["train_n"] == 7000
    assert "Nobody" not in groups["race"]


def test_heads_stand_beside_the_blend(table: Table) -> None:
    predictions = table()
    said = predictions.numbers("age")
    result = judge(table(age_ordinal=said + 3, age_regression=said), resamples=10)["age"]
    assert result["heads"]["age_regression"]["mae"]["value"] == pytest.approx(result["mae"]["value"])
    assert result["heads"]["age_ordinal"]["mae"]["value"] > result["mae"]["value"]


@pytest.mark.parametrize("n", [1, 2, 29])
def test_few_faces(table: Table, n: int) -> None:
    result = judge(table(n), resamples=20)
    assert result["age"]["n"] == n
    assert all(group["suppressed"] for groups in result["age"]["groups"].values() for group in groups.values())
    assert result["age"]["gaps"] == {}
    assert np.isnan(result["age"]["mae"]["low"]) == (n == 1)


def test_one_class_missing_labels_and_constant_predictions(table: Table) -> None:
    n = 100
    women = np.full(n, "Female", dtype=object)
    some = np.array(["White", None] * (n // 2), dtype=object)
    result = judge(
        table(n, true_gender=women, gender=women, true_race=some, age=np.full(n, 30.0), age_low=None),
        resamples=20,
    )
    assert result["gender"]["accuracy"]["value"] == result["gender"]["macro_f1"]["value"] == 1
    assert [word for word, each in result["gender"]["per_class"].items() if each["n"]] == ["Female"]
    assert result["age"]["gaps"].get("gender") is None
    assert result["race"]["n"] == n // 2
    assert result["age"]["bias_slope"]["value"] == pytest.approx(-1)
    assert list(result["gender"]["classes"]) == list(GENDERS)


def test_without_labels_or_predictions_a_task_is_left_out(table: Table) -> None:
    nothing = np.full(600, np.nan)
    assert "age" not in judge(table(true_age_low=nothing, true_age_high=nothing), resamples=5)
    assert "age" not in judge(table(age=None), resamples=5)
    assert set(judge(table(race=None, true_gender=None), resamples=5)) == {"age"}
