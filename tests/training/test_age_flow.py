"""Runs of the age flow on drawn faces: the folder they leave, resuming, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.models.age_flow import AgeFlow, AgeFlowSettings
from mien.models.checkpoint import load_renderer, read_pointer, save_renderer
from mien.models.met import Met
from mien.objectives.age_flow import AgeFlowObjective
from mien.training.age_flow import assemble
from mien.training.recipe import Recipe, load_recipe
from mien.training.run import train_run

SMALL = ["age_flow.width=8", "age_flow.steps=1", "training.epochs=2", "training.batch=32", "data.workers=0"]


def recipe(faces: Path, *overrides: str) -> Recipe:
    return load_recipe("drawn-age-flow", [f"data.faces={faces}", "training.precision=fp32", *SMALL, *overrides])


def test_interrupted_it_resumes_to_the_weights_of_an_unbroken_run(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AgeFlowObjective, "figures", lambda self: {})  # drawn elsewhere
    result = train_run(recipe(drawn), tmp_path / "whole", show=False)
    assert result is not None
    val = json.loads((tmp_path / "whole" / "metrics.val.json").read_text())
    assert val == {"faces": len(Manifest.open(drawn).split("val")), "velocity/mse": pytest.approx(1.1, abs=0.3)}
    flow = load_renderer(tmp_path / "whole")
    assert isinstance(flow, AgeFlow)
    assert flow.settings.told[:2] == ["gender", "race"]
    assert float(flow.usual[4, 1]) == pytest.approx(11, abs=2)  # the deviation of yaw, in degrees
    assert flow.ages[1] > 60

    validate, calls = AgeFlowObjective.validate, []

    def once(self: AgeFlowObjective, averages: dict[str, dict[str, torch.Tensor]]) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(self, averages)

    monkeypatch.setattr(AgeFlowObjective, "validate", once)
    with pytest.raises(KeyboardInterrupt):
        train_run(recipe(drawn), tmp_path / "broken", show=False)
    monkeypatch.setattr(AgeFlowObjective, "validate", validate)
    train_run(recipe(drawn), tmp_path / "broken", resume=True, show=False)
    whole, resumed = (
        load_file(read_pointer(tmp_path / run / "checkpoints", "last") / "training.safetensors")
        for run in ("whole", "broken")
    )
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_a_run_may_start_from_another(drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    told = load_recipe("drawn-age-flow").age_flow
    assert told is not None
    first = AgeFlow(AgeFlowSettings(size=32, width=8, told=told.told, strength=1.3, steps=20), manifest.crop)
    first.usual += 3
    first.card = {"terms": "for research", "figures": {"error": "9 years"}}
    first.learnt = Met.of([bytes(32)])
    save_renderer(tmp_path / "first", first)
    start = f"model.init={tmp_path / 'first'}"
    flow, _, _ = assemble(recipe(drawn, start), manifest, Accelerator())
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in flow.state_dict().items())
    assert flow.card == {"terms": "for research"}
    assert flow.learnt == Met.of([bytes(32), *manifest.split("train").strings("sha256")])
    assert (flow.settings.strength, flow.settings.steps) == (1, 1)
    with pytest.raises(MienError, match=r"first: it was built otherwise; give this run age_flow\.width=8$"):
        assemble(recipe(drawn, start, "age_flow.width=16"), manifest, Accelerator())
    with pytest.raises(MienError, match=r"model\.init face-ages: an AgeTransformer, not an age flow"):
        assemble(recipe(drawn, "model.init=face-ages"), manifest, Accelerator())


def test_what_cannot_be_trained_is_one_clear_line(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(MienError, match=r"no face of the split 'train' has moustache.*take it out of age_flow\.told"):
        assemble(recipe(drawn, "age_flow.told=[gender,moustache]"), Manifest.open(drawn), Accelerator())
    for name in ("split", "path", "landmarks"):
        with pytest.raises(MienError, match=rf"age_flow\.told: the column {name} of .* holds .*told numbers"):
            assemble(recipe(drawn, f"age_flow.told=[gender,{name}]"), Manifest.open(drawn), Accelerator())
    manifest = Manifest.open(drawn)
    gone = Manifest(manifest.table.drop_columns(["age_low", "age_high"]), drawn, manifest.crop)
    with pytest.raises(MienError, match=r"no face of the split 'train' has an age, which the age flow learns"):
        assemble(recipe(drawn), gone, Accelerator())
    with pytest.raises(MienError, match="a run trains one of them"):
        recipe(drawn, "beta_vae.width=16")
