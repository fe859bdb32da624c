"""Affect in training: the recipes, and one estimator from data sets of which each knows something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.evaluation.evaluate import judge_model
from mien.faces import VOTES
from mien.models.checkpoint import load_estimator
from mien.training.optim import build_optimiser
from mien.training.recipe import load_recipe
from mien.training.run import assemble, train_run

TINY = ["model.input_size=32", "training.epochs=1", "training.precision=fp32", "data.workers=0"]
AFFECT = ("expression", "valence", "arousal")
OTHERS = ("age_low", "age_high", "gender", "race")


@pytest.fixture(scope="module")
def three(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The drawn faces as three data sets: ages, genders and races; feelings and landmarks; votes alone."""
    manifest = Manifest.open(drawn)
    words = np.where(manifest.codes("split") == 1, "select", "train").astype(object)
    folder = tmp_path_factory.mktemp("three")
    paths = []
    for number, (name, without) in enumerate(
        (("ages", (*AFFECT, "landmarks")), ("feelings", OTHERS), ("votes", (*OTHERS, *AFFECT[1:], "landmarks")))
    ):
        rows = np.arange(number, len(manifest), 3)
        part = manifest.with_columns({"split": words, "source": np.full(len(manifest), name, dtype=object)}).take(rows)
        part = Manifest(part.table.drop_columns(list(without)), drawn, manifest.crop)
        if name == "votes":
            cast = np.zeros((len(part), len(VOTES)), dtype=np.float32)
            cast[np.arange(len(part)), part.codes("expression")] = 6
            cast[:, 0] += 3
            cast[::5, 8] = 20  # mostly unknown
            part = part.with_columns({"expression_votes": cast})
        paths.append(part.save(folder / name))
    return paths


@pytest.mark.parametrize("name", ["affect-mobile", "affect-resnet18", "affect-efficientnet-b0", "affect-mobilenet-v3"])
def test_the_recipes_learn_from_random_weights(drawn: Path, name: str, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    words = np.where(np.arange(len(manifest)) < 32, "train", "select").astype(object)
    small = Manifest(manifest.with_columns({"split": words}).table, drawn, manifest.crop).take(np.arange(44))
    size = [] if name == "affect-mobile" else ["model.input_size=32"]
    recipe = load_recipe(name, [*size, "training.batch=16", "training.precision=fp32", "data.workers=0"])
    estimator, objective, loader = assemble(recipe, small, Accelerator())
    optimiser = build_optimiser(estimator, objective.depths("estimator"), recipe.optim)
    weights = objective.weights("estimator")
    assert set(weights) == {
        "expression/cross_entropy", "valence/mse", "valence/batch_ccc", "arousal/mse", "arousal/batch_ccc",
    }  # fmt: skip
    before = [parameter.detach().clone() for parameter in estimator.backbone.parameters()]
    for epoch, batch in enumerate(loader.epoch(0)):
        objective.start_epoch(epoch)  # the ImageNet recipes leave the backbone alone in the first
        terms = objective.losses("estimator", batch, epoch)
        loss = sum(weights[term] * total / count for term, (total, count) in terms.items())
        assert torch.isfinite(loss)
        loss.backward()
        nn.utils.clip_grad_norm_(estimator.parameters(), recipe.optim.clip)
        optimiser.step()
        moved = any(not torch.equal(a, b) for a, b in zip(before, estimator.backbone.parameters(), strict=True))
        assert moved == (epoch > 0 or name == "affect-mobile")
        optimiser.zero_grad(set_to_none=True)
    figures = objective.validate({})
    assert {"expression/accuracy", "valence/ccc", "arousal/rmse"} <= set(figures)
    assert all(np.isfinite(value) for value in figures.values())
    answers = estimator.predict(torch.zeros((2, 3, estimator.input_size, estimator.input_size), dtype=torch.uint8))
    assert {"expression", "expression_p", "expression_Contempt", "valence", "arousal"} <= set(answers)
    assert np.abs(answers["valence"]).max() <= 1


def joint(three: list[Path], *overrides: str) -> list[str]:
    everything = ["tasks.expression={}", "tasks.valence={}", "tasks.arousal={}", "model.backbone=test_convnext"]
    return [f"data.faces=[{', '.join(map(str, three))}]", *everything, *TINY, "training.batch=48", *overrides]


def test_one_estimator_learns_from_all_each_face_with_what_it_has(three: list[Path], tmp_path: Path) -> None:
    result = train_run(load_recipe("demo", joint(three, "sampling.by=expression")), tmp_path / "run", show=False)
    assert result is not None
    (entry,) = result["history"]
    assert {term.split("/")[0] for term in entry["train"]} == {"age", "gender", "race", *AFFECT}
    assert all(np.isfinite(value) for value in entry["train"].values())

    manifest = Manifest.concat([Manifest.open(path) for path in three])
    estimator = load_estimator(tmp_path / "run")
    metrics, predictions, _ = judge_model(estimator, manifest, "train", workers=0, resamples=20, show=False)
    assert metrics["age"]["n"] == metrics["gender"]["n"] == (manifest.split("train").strings("source") == "ages").sum()
    assert metrics["valence"]["n"] == (manifest.split("train").strings("source") == "feelings").sum()
    assert metrics["expression"]["groups"]["source"].keys() == {"feelings", "votes"}
    assert metrics["expression"]["raters"]["mostly_unknown"] > 0
    probe = metrics["about"]["source_probe"]
    assert probe["n"] == len(predictions)
    assert set(probe["recall"]) == {"ages", "feelings", "votes"}


def test_a_batch_teaches_each_task_by_the_faces_that_know_it(three: list[Path]) -> None:
    recipe = load_recipe("demo", joint(three, "augment=faces"))
    manifest = Manifest.concat([Manifest.open(path) for path in three])
    estimator, objective, loader = assemble(recipe, manifest, Accelerator())
    objective.start_epoch(0)
    batch = next(loader.epoch(0))
    sources = manifest.split("train").strings("source")[batch.index.numpy()]
    known = {name: estimator.task(name).labelled(batch.labels[name]).numpy() for name in estimator.tasks}
    for name in ("age", "gender", "race"):
        np.testing.assert_array_equal(known[name], sources == "ages")
    for name in ("valence", "arousal"):
        np.testing.assert_array_equal(known[name], sources == "feelings")
    assert (known["expression"] <= (sources != "ages")).all()
    assert known["expression"][sources == "feelings"].all()
    assert 0 < known["expression"][sources == "votes"].mean() < 1
    assert batch.landmarks is not None
    there = ~batch.landmarks.isnan().any(dim=(1, 2)).numpy()
    np.testing.assert_array_equal(there, sources == "feelings")
    counts, losses = objective.counts("estimator", batch), objective.losses("estimator", batch, 0)
    assert {term: int(count) for term, (_, count) in losses.items()} == {t: c for t, c in counts.items() if c}


def test_without_an_age_the_expression_chooses(three: list[Path]) -> None:
    manifest = Manifest.open(three[1])
    for off, chosen in (
        ((), ("expression/accuracy", False)),
        (("tasks.expression=null",), ("valence/ccc", False)),
        (("objective.choose=arousal/rmse",), ("arousal/rmse", True)),
    ):
        overrides = joint(three, "tasks.age=null", "tasks.gender=null", "tasks.race=null", *off)
        _, objective, _ = assemble(load_recipe("demo", overrides), manifest, Accelerator())
        assert objective.chooses == chosen
        figures = objective.validate({})
        assert np.isfinite(figures[chosen[0]])
        assert set(objective.figures()) <= {"select/expression"}
    wrong = joint(three, "tasks.age=null", "tasks.gender=null", "tasks.race=null", "objective.choose=arousal/rsme")
    with pytest.raises(
        MienError, match=r"unknown figure 'arousal/rsme' in objective\.choose; did you mean 'arousal/rmse'"
    ):
        assemble(load_recipe("demo", wrong), manifest, Accelerator())
    with pytest.raises(MienError, match=r"tasks\.gender: no face of the split 'train' has this label"):
        assemble(load_recipe("demo", joint(three)), manifest, Accelerator())
