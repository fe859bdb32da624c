"""Runs of the beta-VAE on drawn faces: the folder they leave, resuming, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.faces import Crop
from mien.models.beta_vae import BetaVae, BetaVaeSettings
from mien.models.checkpoint import load_renderer, read_pointer, save_renderer
from mien.models.met import Met
from mien.objectives.beta_vae import BetaVaeObjective
from mien.training.beta_vae import assemble, finish
from mien.training.recipe import Recipe, load_recipe
from mien.training.run import train_run

SMALL = [
    *("beta_vae.width=16", "beta_vae.id_dims=6", "beta_vae.attributes=[gender]", "training.epochs=2"),
    *("training.batch=32", "training.precision=fp32", "data.workers=0", "augment.noise.probability=0.5"),
]


def recipe(faces: Path, *overrides: str) -> Recipe:
    return load_recipe("drawn-beta-vae", [f"data.faces={faces}", *SMALL, *overrides])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(read_pointer(run / "checkpoints", "last") / "training.safetensors")


def test_interrupted_it_resumes_to_the_weights_of_an_unbroken_run(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BetaVaeObjective, "figures", lambda self: {})  # drawn elsewhere
    result = train_run(recipe(drawn), tmp_path / "whole", show=False)
    assert result is not None
    assert set(result["metrics"]) == {"val", "test"}
    val = json.loads((tmp_path / "whole" / "metrics.val.json").read_text())
    assert val["faces"] == len(Manifest.open(drawn).split("val"))
    assert {"reconstruction/mse", "rate/id", "rate/age", "age/mae", "probe/ratio"} <= set(val)
    renderer = load_renderer(tmp_path / "whole")
    assert renderer.settings.attributes == ["gender"]
    assert renderer.ages[1] > 60
    manifest = Manifest.open(drawn)
    gone = np.where(manifest.strings("split") == "test", "gone.jpg", manifest.strings("path")).astype(object)
    lost = manifest.with_columns({"path": gone})
    with pytest.raises(MienError, match=r"no picture of the split 'test' can be read, to judge .*whole by; gone\.jpg"):
        finish(recipe(drawn), lost, tmp_path / "whole", result["history"], "cpu", False)

    validate, calls = BetaVaeObjective.validate, []

    def once(self: BetaVaeObjective, averages: dict[str, dict[str, torch.Tensor]]) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(self, averages)

    monkeypatch.setattr(BetaVaeObjective, "validate", once)
    with pytest.raises(KeyboardInterrupt):
        train_run(recipe(drawn), tmp_path / "broken", show=False)
    monkeypatch.setattr(BetaVaeObjective, "validate", validate)
    train_run(recipe(drawn), tmp_path / "broken", resume=True, show=False)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert whole.keys() == resumed.keys()
    assert any("adversary" in key for key in whole)
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    assert not any("adversary" in name for name in renderer.state_dict())


def test_a_run_may_start_from_another(drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    settings = BetaVaeSettings(
        size=32, width=16, id_dims=6, attributes=["gender"], usual=True, strength=1.3, prior_years=2
    )
    torch.manual_seed(7)
    first = BetaVae(settings, manifest.crop)
    first.card = {"terms": "for research", "figures": {"error": "9 years"}}
    first.learnt = Met.of([bytes(32)])
    save_renderer(tmp_path / "first", first)
    start = (f"model.init={tmp_path / 'first'}", "beta_vae.usual=true")
    network, _, _ = assemble(recipe(drawn, *start), manifest, Accelerator())
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), first.parameters(), strict=True))
    assert network.card == {"terms": "for research"}
    assert network.learnt == Met.of([bytes(32), *manifest.split("train").strings("sha256")])
    assert network.settings.strength == 1
    with pytest.raises(MienError, match=r"first: it was built otherwise; give this run beta_vae\.id_dims=6$"):
        assemble(recipe(drawn, *start, "beta_vae.id_dims=7"), manifest, Accelerator())
    with pytest.raises(MienError, match=r"model\.init face-ages: an AgeTransformer, not a beta-VAE"):
        assemble(recipe(drawn, "model.init=face-ages"), manifest, Accelerator())


def test_what_cannot_be_trained_is_one_clear_line(drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    Manifest(manifest.table.drop_columns(["gender"]), drawn, manifest.crop).save(tmp_path / "faces")
    with pytest.raises(MienError, match=r"no face of the split 'train' has gender.*beta_vae\.attributes"):
        train_run(recipe(tmp_path / "faces"), tmp_path / "a", show=False)
    wide = Manifest(manifest.table, drawn, Crop("chip", 0.4, manifest.crop.size))
    guided = recipe(drawn, "beta_vae_objective.guide_model=face-mobile", "beta_vae_objective.guide=1")
    with pytest.raises(MienError, match=r"for the guide face-mobile: the manifest holds faces cropped as chip with"):
        assemble(guided, wide, Accelerator())
    with pytest.raises(MienError, match="a run trains one of them"):
        recipe(drawn, "landmarker.width=1.0")
    with pytest.raises(MienError, match=r"unknown setting beta_vae_objective\.bets.*beta"):
        recipe(drawn, "beta_vae_objective.bets=2")
