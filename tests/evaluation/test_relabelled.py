"""Judging in a circle is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from mien.data.manifest import Manifest
from mien.data.sampling import Sampling
from mien.errors import MienError
from mien.evaluation.relabelled import guard, guard_labels
from mien.experts.columns import with_fused_ages
from mien.faces import Crop, Face


def manifest() -> Manifest:
    faces = [Face(f"{row}.png", age=(20.0 + row, 20.0 + row)) for row in range(4)]
    return Manifest.from_faces(faces, Path(), Crop("chip"))


def test_an_expert_does_not_judge_what_learnt_from_its_labels() -> None:
    asked = manifest().with_columns({"moe_experts": [json.dumps({"a": "11", "b": "22"})] * 4})
    made = asked.with_columns({"age_from": ["moe"] * 4})
    guard("judge", ["33"], made)
    with pytest.raises(MienError, match="judge asks the expert b that relabelled"):
        guard("judge", ["33", "22"], made)
    guard("judge", ["22"], asked)  # they were asked, but nobody learns from what they said
    guard("judge", ["22"], manifest())


def test_ages_that_are_not_people_s_are_counted() -> None:
    given = manifest()
    guard_labels(given)
    mixed = given.with_columns({"age_from": ["given", "moe", "moe", None]})
    with pytest.raises(MienError, match="the ages of 2 of 4 faces are those of experts"):
        guard_labels(mixed)


def test_what_is_judged_keeps_its_given_ages() -> None:
    columns = {"moe_age": np.full(4, 50.0), "moe_kept": np.array([True, False, False, True])}
    made = with_fused_ages(manifest().with_columns({**columns, "split": np.array([0, 0, 2, 3])}))
    assert made.strings("path").tolist() == ["0.png", "2.png", "3.png"]  # 1 is filtered, 2 is to be judged on
    assert made.numbers("age_low").tolist() == [50, 22, 23]
    assert made.strings("age_from").tolist() == ["moe", "given", "given"]
    guard_labels(made.split("val"))
    with pytest.raises(MienError, match=r"say data.allow_relabelled=true"):
        guard_labels(made.split("train"), "data.allow_relabelled=true")


def test_training_weighs_faces_by_their_reliability() -> None:
    sampling = Sampling(weights="reliability")
    made = manifest().with_columns({"moe_weight": np.array([0.2, 0.6, 0.0, np.nan])})
    weights = sampling.loss_weights(made)
    assert weights is not None
    np.testing.assert_allclose(weights, [0.75, 2.25, 0, 1], rtol=1e-6)  # by the mean of those that have one
    with pytest.raises(MienError, match="needs a relabelled manifest"):
        sampling.loss_weights(manifest())
