"""A run of the AgeTransformer on drawn faces: the folder it leaves, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.faces import Crop
from mien.models.age_transformer import AgeTransformer, AgeTransformerSettings
from mien.models.beta_vae import BetaVae, BetaVaeSettings
from mien.models.checkpoint import load_renderer, save_estimator, save_renderer
from mien.models.estimator import ModelSettings, build_estimator
from mien.models.met import Met
from mien.objectives.age_transformer import AgeTransformerObjective
from mien.objectives.ageing import TEXT
from mien.tasks.face import TasksSettings
from mien.training.age_transformer import assemble, evenly, finish, labels_of
from mien.training.recipe import Recipe, load_recipe
from mien.training.run import train_run

SMALL = [
    *("age_transformer.width=8", "age_transformer.blocks=1", "age_transformer.text=4", "training.epochs=1"),
    *("age_transformer_objective.age=0", "age_transformer_objective.ordering=0", "age_transformer_objective.width=8"),
    *(
        "age_transformer_objective.guide_model=null",
        "age_transformer_objective.judged=8",
        "training.batch=32",
        "training.precision=fp32",
        "data.workers=0",
    ),
]


def recipe(faces: Path, *overrides: str) -> Recipe:
    return load_recipe("drawn-age-transformer", [f"data.faces={faces}", *SMALL, *overrides])


def test_a_run_leaves_a_renderer_and_its_figures(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AgeTransformerObjective, "figures", lambda self: {})  # drawn elsewhere
    manifest = Manifest.open(drawn)
    captions = tmp_path / "captions.jsonl"
    key = manifest.table["sha256"][0].as_py().hex()
    captions.write_text(json.dumps({"sha256": key, "caption": "a face with a hat"}) + "\n")
    result = train_run(recipe(drawn, f"captions={captions}"), tmp_path / "run", show=False)
    assert result is not None
    assert {"own/l1", "change/far", "spread/share", "source/mae"} <= set(result["metrics"]["val"])
    assert result["metrics"]["val"]["faces"] == 8
    renderer = load_renderer(tmp_path / "run")
    assert isinstance(renderer, AgeTransformer)
    assert renderer.settings.text == 4
    assert renderer.ages[1] > 60
    assert renderer.learnt == Met.of(manifest.split("train").strings("sha256"))
    gone = np.where(manifest.strings("split") == "val", "gone.jpg", manifest.strings("path")).astype(object)
    lost = manifest.with_columns({"path": gone})
    with pytest.raises(MienError, match=r"no picture of the split 'val' can be read, to judge .*run by; gone\.jpg"):
        finish(recipe(drawn, f"captions={captions}"), lost, tmp_path / "run", result["history"], "cpu", False)
    few = evenly(manifest, 5).numbers("age_low")
    assert len(few) == 5
    assert {few.min(), few.max()} == {manifest.numbers("age_low").min(), manifest.numbers("age_low").max()}


def test_captions_are_read_in_the_recipes_language(drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    captions = tmp_path / "captions.jsonl"
    key = manifest.table["sha256"][1].as_py().hex()
    captions.write_text(json.dumps({"sha256": key, "caption": "a hat"}) + "\n")
    text = labels_of(recipe(drawn, f"captions={captions}", "language=hashed"), manifest)[TEXT]
    assert text.shape[0::2] == (len(manifest), 4)
    known = ~text.isnan().all(dim=2)
    assert known.nonzero().tolist() == [[1, 0], [1, 1]]
    with pytest.raises(MienError, match=r"config\.json: no such file"):
        labels_of(recipe(drawn, f"captions={captions}", f"language={tmp_path}"), manifest)


def test_a_run_may_start_from_another_renderer(drawn: Path, tmp_path: Path) -> None:
    # How it shows what it learnt is no matter of its weights.
    settings = AgeTransformerSettings(size=32, width=8, blocks=1, mirror=True, strength=1.3, colour=0.4)
    torch.manual_seed(7)
    first = AgeTransformer(settings, Manifest.open(drawn).crop)
    first.card = {"terms": "for research", "figures": {"error": "9 years"}}
    first.learnt = Met.of([bytes(32)])
    save_renderer(tmp_path / "first", first)
    start = [f"model.init={tmp_path / 'first'}", "age_transformer.text=0"]
    wanted = recipe(drawn, *start)
    assert wanted.age_transformer is not None
    network, _, _ = assemble(wanted, Manifest.open(drawn), Accelerator())
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), first.parameters(), strict=True))
    assert network.card == {"terms": "for research"}
    assert network.learnt == Met.of([bytes(32), *Manifest.open(drawn).split("train").strings("sha256")])
    assert network.settings.strength == 1
    # One that moves no pixels may learn to; what one has learnt of it is not dropped unasked.
    moving, _, _ = assemble(recipe(drawn, *start, "age_transformer.warp=0.1"), Manifest.open(drawn), Accelerator())
    assert moving.move is not None
    assert torch.equal(moving.stem[1].weight, first.stem[1].weight)
    assert moving.learnt == network.learnt
    save_renderer(tmp_path / "moving", moving)
    with pytest.raises(MienError, match=r"moving: it was built otherwise; give this run age_transformer\.warp=0\.1$"):
        assemble(recipe(drawn, f"model.init={tmp_path / 'moving'}", start[1]), Manifest.open(drawn), Accelerator())
    with pytest.raises(MienError, match=r"first: it was built otherwise; give this run age_transformer\.width=8$"):
        assemble(recipe(drawn, *start, "age_transformer.width=16"), Manifest.open(drawn), Accelerator())
    torch.manual_seed(7)
    vae = BetaVae(BetaVaeSettings(size=32, width=8), Manifest.open(drawn).crop)
    save_renderer(tmp_path / "vae", vae)
    with pytest.raises(MienError, match="a beta-VAE, not an AgeTransformer"):
        assemble(recipe(drawn, f"model.init={tmp_path / 'vae'}"), Manifest.open(drawn), Accelerator())


@pytest.mark.parametrize(("asked", "side"), [("null", 32), ("48", 48), ("40", 40)])
def test_pictures_are_read_as_large_as_guides_look_at_them(drawn: Path, asked: str, side: int) -> None:
    wanted = recipe(drawn, "age_transformer.text=0", f"age_transformer_objective.guided_at={asked}")
    _, objective, loader = assemble(wanted, Manifest.open(drawn), Accelerator())
    for one in (loader, objective.select):
        assert next(iter(one.epoch())).images.shape[-2:] == (side, side)


def test_what_cannot_be_trained_is_one_clear_line(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(MienError, match="give both, or neither"):
        train_run(recipe(drawn), tmp_path / "a", show=False)
    (tmp_path / "others.jsonl").write_text(json.dumps({"sha256": "ab" * 32, "caption": "a hat"}) + "\n")
    with pytest.raises(MienError, match=r"others\.jsonl: none is of a training face"):
        train_run(recipe(drawn, f"captions={tmp_path / 'others.jsonl'}"), tmp_path / "b", show=False)
    manifest = Manifest.open(drawn)
    Manifest(manifest.table.drop_columns(["sha256"]), drawn, manifest.crop).save(tmp_path / "unhashed")
    with pytest.raises(MienError, match=r"others\.jsonl: none is of a training face"):
        train_run(recipe(tmp_path / "unhashed", f"captions={tmp_path / 'others.jsonl'}"), tmp_path / "c", show=False)
    # Of ages that are all bins the network's own guess has no error.
    binned = manifest.with_columns({"age_high": (manifest.numbers("age_low") + 9).astype(np.float32)})
    chosen = recipe(drawn, "age_transformer.text=0", "age_transformer_objective.choose=source/mae")
    assemble(chosen, manifest, Accelerator())
    with pytest.raises(MienError, match=r"choose=source/mae: no face of data\.select has an age in years; take score"):
        assemble(chosen, binned, Accelerator())
    # A guide sees faces as it learnt to see them, or the run does not begin.
    wide = Manifest(manifest.table, drawn, Crop("chip", 0.4, manifest.crop.size))
    plain = build_estimator(ModelSettings(backbone="test_resnet", input_size=32), TasksSettings(), Crop("chip"))
    save_estimator(tmp_path / "plain", plain)
    for key, what in (("guide_model", "for the guide "), ("identity_model", "for identity_model")):
        guided = recipe(drawn, "age_transformer.text=0", f"age_transformer_objective.{key}={tmp_path / 'plain'}")
        with pytest.raises(MienError, match=rf"{what}.*: the manifest holds faces cropped as chip with margin 0\.4"):
            assemble(guided, wide, Accelerator())
        assemble(guided, manifest, Accelerator())
    with pytest.raises(MienError, match="a run trains one of them"):
        recipe(drawn, "beta_vae.width=16")
    with pytest.raises(MienError, match=r"ordering needs guide_model"):
        recipe(drawn, "age_transformer_objective.ordering=1")
    with pytest.raises(MienError, match=r"unknown setting age_transformer\.with.*width"):
        recipe(drawn, "age_transformer.with=2")
