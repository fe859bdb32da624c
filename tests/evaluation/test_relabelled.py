"""Judging in a circle is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mien.evaluation.relabelled as relabelled
from mien.data.manifest import Manifest
from mien.data.sampling import Sampling
from mien.errors import MienError
from mien.faces import Crop, Face


class Judge:
    name = "judge"


def manifest() -> Manifest:
    faces = [Face(f"{row}.png", age=(20.0 + row, 20.0 + row)) for row in range(4)]
    return Manifest.from_faces(faces, Path(), Crop("chip"))


def test_an_expert_does_not_judge_what_learnt_from_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    made = manifest().with_columns({"moe_experts": [json.dumps({"a": "11", "b": "22"})] * 4})
    judge: Any = Judge()
    monkeypatch.setattr(relabelled, "weights_hash", lambda estimator: "33")
    relabelled.guard(judge, made)
    monkeypatch.setattr(relabelled, "weights_hash", lambda estimator: "22")
    with pytest.raises(MienError, match="judge is the expert b that relabelled"):
        relabelled.guard(judge, made)
    relabelled.guard(judge, manifest())  # nobody relabelled it


def test_ages_that_are_not_people_s_are_counted() -> None:
    given = manifest()
    relabelled.guard_labels(given)
    mixed = given.with_columns({"age_from": ["given", "moe", "moe", None]})
    with pytest.raises(MienError, match="the ages of 2 of 4 faces are those of experts"):
        relabelled.guard_labels(mixed)


def test_training_weighs_faces_by_their_reliability() -> None:
    sampling = Sampling(weights="reliability")
    made = manifest().with_columns({"moe_weight": np.array([0.2, 0.6, 0.0, np.nan])})
    weights = sampling.loss_weights(made)
    assert weights is not None
    np.testing.assert_allclose(weights, [0.75, 2.25, 0, 1], rtol=1e-6)  # by the mean of those that have one
    with pytest.raises(MienError, match="needs a relabelled manifest"):
        sampling.loss_weights(manifest())
