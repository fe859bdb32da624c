"""Estimators and their files: a round trip, damage, and the wrong kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch

from mien.errors import MienError
from mien.faces import Crop
from mien.models.checkpoint import (
    FACTS,
    WEIGHTS,
    find_checkpoint,
    load_estimator,
    save_estimator,
    save_facts,
    save_tensors,
    write_pointer,
)
from mien.models.estimator import Estimator, ModelSettings, build_estimator, start_from
from mien.models.met import Met
from mien.tasks.face import TasksSettings

SMALL = {"backbone": "test_convnext", "input_size": 32, "dropout": 0.0}


def small(tasks: dict | None = None, seed: int = 0, **model: object) -> Estimator:
    torch.manual_seed(seed)
    return build_estimator(
        ModelSettings.model_validate({**SMALL, **model}),
        TasksSettings.model_validate(tasks or {}),
        Crop("chip", 0.0, 200),
    )


def images(count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_saved_and_loaded_it_answers_the_same(tmp_path: Path) -> None:
    estimator = small()
    estimator.states = {"age": {"temperature": 1.3, "blend": 0.25}}
    estimator.calibrated_on = {"manifest": "abc", "split": "val"}
    estimator.learnt = Met.of([bytes(32), bytes(range(32))])
    save_estimator(tmp_path, estimator)
    loaded = load_estimator(tmp_path)
    before, after = estimator.predict(images()), loaded.predict(images())
    assert before.keys() == after.keys()
    for column in before:
        np.testing.assert_array_equal(before[column], after[column])
    assert loaded.crop == estimator.crop
    assert loaded.states == estimator.states
    assert loaded.calibrated_on == {"manifest": "abc", "split": "val"}
    assert loaded.learnt == estimator.learnt
    assert not loaded.training


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(MienError, match=r"weights\.safetensors cannot be written: .*No space left on device"):
        save_tensors(tmp_path / "weights.safetensors", {"x": torch.zeros(2)})
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_asked_for_its_best_checkpoint(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    first, last = small(seed=1), small(seed=2)
    save_estimator(checkpoints / "step-10", first)
    save_estimator(checkpoints / "step-20", last)
    write_pointer(checkpoints, "best", "step-10")
    write_pointer(checkpoints, "last", "step-20")
    assert find_checkpoint(tmp_path).name == "step-10"
    assert find_checkpoint(tmp_path, "last").name == "step-20"
    np.testing.assert_array_equal(load_estimator(tmp_path).predict(images())["age"], first.predict(images())["age"])


def test_parents_come_before_children_and_may_be_cut_off() -> None:
    nested = small()
    assert list(nested.tasks) == ["gender", "race", "age"]
    assert nested.task("age").given == ("gender", "race")
    free = small({"gender": None, "race": None})
    assert list(free.tasks) == ["age"]
    assert set(free.predict(images())) >= {"age", "age_std"}


def test_conditioning_reaches_the_child_and_its_gradient_stops_at_a_switch() -> None:
    for detach in (True, False):
        estimator = small({"race": None, "age": {"given": ["gender"], "detach_given": detach}})
        estimator(images())["age"]["regression"].sum().backward()
        gender = estimator.task("gender")
        moved = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in gender.parameters())
        assert moved is not detach


def test_starting_from_another_model_matches_heads_by_name() -> None:
    other = small(seed=3)
    estimator = small({"race": None, "age": {"method": "dldl", "given": []}}, seed=4)
    new = start_from(estimator, other)
    torch.testing.assert_close(estimator.backbone.state_dict(), other.backbone.state_dict())
    torch.testing.assert_close(estimator.task("gender").state_dict(), other.task("gender").state_dict())
    assert any(name.startswith("tasks.age") for name in new)
    assert not any(name.startswith(("backbone", "tasks.gender")) for name in new)


def test_starting_from_another_backbone_is_refused() -> None:
    with pytest.raises(MienError, match=r"its backbone is test_vit, this recipe's is test_convnext"):
        start_from(small(), small(backbone="test_vit"))


def test_what_is_no_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(MienError, match="unknown model 'nonsense'"):
        load_estimator("nonsense")
    with pytest.raises(MienError, match="neither a run"):
        load_estimator(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(MienError, match="no checkpoint 'best' yet"):
        load_estimator(tmp_path)
    (tmp_path / "checkpoints" / "best").touch()
    with pytest.raises(MienError, match="best: empty, so it names no checkpoint"):
        load_estimator(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / FACTS).write_text("{"), "damaged"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"x" * 40), "damaged weights"),
        (lambda folder: (folder / WEIGHTS).unlink(), "incomplete"),
        (lambda folder: _change(folder, kind="renderer"), "holds 'renderer', no model of mien; expected an estimator"),
        (lambda folder: _change(folder, format=99), "reads format 1"),
        (lambda folder: save_facts(folder, small({"race": None})), "do not belong together"),
    ],
)
def test_damage_is_one_clear_line(tmp_path: Path, damage, message: str) -> None:
    save_estimator(tmp_path, small())
    damage(tmp_path)
    with pytest.raises(MienError, match=message):
        load_estimator(tmp_path)


def _change(folder: Path, **values: object) -> None:
    facts = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(json.dumps({**facts, **values}))
