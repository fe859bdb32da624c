"""The estimator as a whole: what it says of a face and of its mirror image."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mien.data.align import CHIP
from mien.errors import MienError
from mien.models.estimator import Estimator, ModelSettings, build_estimator, start_from, weights_hash
from mien.tasks.face import TasksSettings


def test_with_mirror_a_face_and_its_mirror_image_are_judged_alike() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    settings = ModelSettings(backbone="test_convnext", input_size=32, mirror=True)
    estimator = build_estimator(settings, TasksSettings(), CHIP).eval()
    with torch.no_grad():
        both = estimator(images)
        torch.testing.assert_close(both, estimator(images.flip(-1)))
        estimator.mirror = False
        one, other = estimator(images), estimator(images.flip(-1))
        assert not torch.allclose(one["gender"]["logits"], other["gender"]["logits"])
        # Gender is a linear head on the features here, so the mean of features is the mean of logits.
        mean = (one["gender"]["logits"] + other["gender"]["logits"]) / 2
        torch.testing.assert_close(both["gender"]["logits"], mean)
        estimator.mirror = True
        estimator.train()
        torch.manual_seed(1)
        trained = estimator(images)["gender"]["logits"]
        estimator.mirror = False
        torch.manual_seed(1)
        torch.testing.assert_close(trained, estimator(images)["gender"]["logits"])


def test_estimators_that_answer_differently_have_other_hashes() -> None:
    def hashed(mirror: bool = False, **age: object) -> str:
        torch.manual_seed(0)
        settings = ModelSettings(backbone="test_convnext", input_size=32, mirror=mirror)
        return weights_hash(build_estimator(settings, TasksSettings.model_validate({"age": age}), CHIP))

    assert hashed() == hashed()
    assert len({hashed(), hashed(mirror=True), hashed(decode="argmax"), hashed(blend=0.3)}) == 4


def test_class_weights_are_the_runs_own_wherever_it_starts_from() -> None:
    def built(**race: object) -> Estimator:
        tasks = TasksSettings.model_validate({"race": race, "gender": None, "age": None})
        return build_estimator(ModelSettings(backbone="test_resnet", input_size=32), tasks, CHIP)

    first = built(class_weights=[1, 2, 3, 4, 5], given=[])
    for weights, expected in (([9.0, 8.0, 7.0, 6.0, 5.0], [9, 8, 7, 6, 5]), (None, [1] * 5)):
        second = built(class_weights=weights, given=[])
        assert start_from(second, first) == []
        assert second.task("race").class_weights.tolist() == expected
        assert torch.equal(second.task("race").output.weight, first.task("race").output.weight)


@pytest.mark.parametrize(
    ("before", "after", "anew"),
    [
        ({"method": "or_cnn"}, {"method": "corn"}, "age"),
        ({"method": "dldl"}, {"method": "dldl", "grid": {"first": 1, "last": 101}}, "age"),
        ({"given": ["gender", "race"]}, {"given": ["race", "gender"]}, "age"),
        ({"hidden": 96}, {}, "age"),  # as wide as the features are long
        ({}, {"hidden": 96}, "age"),
        ({"method": "dldl"}, {"method": "mean_variance", "decode": "mean"}, None),  # both are shares of the same years
    ],
)
def test_a_head_that_meant_something_else_begins_anew(
    before: dict[str, Any], after: dict[str, Any], anew: str | None
) -> None:
    def built(age: dict[str, Any]) -> Estimator:
        tasks = TasksSettings.model_validate({"age": {"grid": {"first": 0, "last": 100}, "given": []} | age})
        return build_estimator(ModelSettings(backbone="test_resnet", input_size=32), tasks, CHIP)

    first, second = built(before), built(after)
    begun = start_from(second, first)
    assert {name.split(".")[1] for name in begun} == ({anew} if anew else set())
    one, other = (made.state_dict()["tasks.age.regression.weight"] for made in (first, second))
    assert torch.equal(one, other) is (anew is None)
    assert torch.equal(second.task("gender").output.weight, first.task("gender").output.weight)


def test_a_task_that_it_has_not_learnt_is_refused_in_one_line() -> None:
    tasks = TasksSettings.model_validate({"age": None, "race": None})
    estimator = build_estimator(ModelSettings(backbone="test_resnet", input_size=32), tasks, CHIP)
    with pytest.raises(MienError, match="does not tell age, only gender; name a model that does"):
        estimator.task("age")
