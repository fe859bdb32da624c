from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mien.errors import MienError
from mien.tasks.continuous import ContinuousSettings, ContinuousTask
from mien.tasks.face import TASKS, Kind, TasksSettings, build_tasks, run_tasks


def build(**settings: Any) -> dict[str, Any]:
    return build_tasks(TasksSettings.model_validate(settings), features=6)


def test_every_task_has_its_settings_and_the_other_way_round() -> None:
    assert set(TASKS) == set(TasksSettings.model_fields)


def test_the_default_nests_gender_race_age_with_seed_000s_weights() -> None:
    tasks = build()
    assert list(tasks) == ["gender", "race", "age"]
    assert {name: task.given for name, task in tasks.items()} == {
        "gender": (),
        "race": ("gender",),
        "age": ("gender", "race"),
    }
    weights = {name: task.loss_weights() for name, task in tasks.items()}
    assert weights == {
        "gender": {"cross_entropy": 0.4},
        "race": {"cross_entropy": 0.3},
        "age": {"ordinal": 1.5, "regression": 1.2, "consistency": 0.2},
    }
    assert build(gender={"dropout": 0.1})["gender"].loss_weights() == {"cross_entropy": 0.4}


@pytest.mark.parametrize(
    ("off", "given"),
    [
        ({"race": None}, {"gender": (), "age": ("gender",)}),
        ({"gender": None}, {"race": (), "age": ("race",)}),
        ({"gender": None, "race": None}, {"age": ()}),
        ({"age": {"given": []}}, {"gender": (), "race": ("gender",), "age": ()}),
    ],
)
def test_race_free_and_gender_free_by_one_override(off: dict[str, Any], given: dict[str, Any]) -> None:
    tasks = build(**off)
    assert {name: task.given for name, task in tasks.items()} == given
    outputs = run_tasks(tasks, torch.randn(3, 6))
    assert outputs.keys() == given.keys()


def test_settings_come_back_from_their_dump() -> None:
    for settings in (TasksSettings(), TasksSettings(race=None)):
        again = TasksSettings.model_validate(settings.model_dump())
        assert again == settings
        assert list(build_tasks(again, 4)) == list(build_tasks(settings, 4))


def test_any_order_is_sorted() -> None:
    tasks = build(age={"given": []}, gender={"given": ["race"]}, race={"given": ["age"]})
    assert list(tasks) == ["age", "race", "gender"]
    assert run_tasks(tasks, torch.randn(3, 6))["gender"]["logits"].shape == (3, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"age": {"given": ["gendre"]}},
            r"unknown task 'gendre' in tasks\.age\.given; did you mean 'gender'",
        ),
        (
            {"race": None, "age": {"given": ["gender", "race"]}},
            r"switch tasks\.race on, or set tasks\.age\.given=\[gender\]",
        ),
        ({"gender": {"given": ["race"]}}, "in a circle: (gender -> race -> gender|race -> gender -> race)"),
        ({"age": {"given": ["age"]}}, "in a circle: age -> age"),
        ({"age": None, "gender": None, "race": None}, "no task is switched on"),
    ],
)
def test_what_cannot_be_built(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(MienError, match=words):
        build(**settings)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError):
        TasksSettings.model_validate({"rase": None})
    with pytest.raises(ValidationError):
        TasksSettings.model_validate({"race": {"smoothing": 1}})


@pytest.mark.parametrize("detach", [True, False])
def test_gradients_flow_to_parents_only_when_asked(detach: bool) -> None:
    tasks = build(race={"detach_given": detach}, age={"detach_given": detach})
    outputs = run_tasks(tasks, torch.randn(3, 6))
    outputs["age"]["regression"].sum().backward()
    gender = [p.grad is not None for p in tasks["gender"].parameters()]
    assert gender == [not detach] * len(gender)


def test_children_see_probabilities() -> None:
    tasks = build()
    features = torch.randn(3, 6)
    outputs = run_tasks(tasks, features)
    told = torch.cat([outputs["gender"]["logits"].softmax(1), outputs["race"]["logits"].softmax(1)], dim=1)
    torch.testing.assert_close(tasks["age"](features, told), outputs["age"])


def test_added_tasks_come_back_from_their_dump_when_a_parent_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mood(ContinuousSettings):
        given: list[str] = ["gender"]  # noqa: RUF012

    monkeypatch.setitem(TASKS, "mood", Kind(Mood, lambda *made: ContinuousTask("mood", *made)))
    settings = TasksSettings.model_validate({"gender": None, "mood": {}})
    again = TasksSettings.model_validate(settings.model_dump())
    assert build_tasks(again, 4)["mood"].given == build_tasks(settings, 4)["mood"].given == ()
