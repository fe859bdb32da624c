"""What learns, tells and renders, on a graphics card that is not there (see `card.py`): nobody need have one to notice
that a tensor was left behind."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mien.data.manifest import Manifest
from mien.evaluation.ageing.judges import EstimatorJudge, IdentityJudge, Judges, PointsJudge
from mien.evaluation.latents.codes import ages_said, code_faces, decoded
from mien.evaluation.locate import Locator
from mien.evaluation.predictions import fit_states, predict_split
from mien.jobs import predict
from mien.jobs.inputs import expand
from mien.jobs.predict import Model
from mien.models.age_flow import AgeFlow, AgeFlowSettings
from mien.models.age_transformer import AgeTransformer, AgeTransformerSettings
from mien.models.aimed import Aimed
from mien.models.beta_vae import BetaVae, BetaVaeSettings
from mien.models.checkpoint import load_estimator, load_landmarker, save_estimator
from mien.models.estimator import ModelSettings, build_estimator
from mien.models.renderer import Renderer
from mien.models.trivial import MeanFace, PixelShift
from mien.tasks.age import AgeSettings, AgeTask
from mien.tasks.face import TasksSettings
from mien.tasks.ordinal import METHODS
from mien.training import age_flow, age_transformer, beta_vae, landmarker, run
from mien.training.loop import estimate, train
from mien.training.recipe import load_recipe

sys.path.insert(0, str(Path(__file__).parent))
card = importlib.import_module("card")

Assemble = Callable[..., Any]


@pytest.fixture(scope="module")
def few(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of the drawn faces."""
    manifest = Manifest.open(drawn)
    codes = manifest.codes("split")
    rows = np.concatenate([np.flatnonzero(codes == split)[:8] for split in range(4)])
    folder = tmp_path_factory.mktemp("few")
    Manifest(manifest.take(rows).table, drawn, manifest.crop).save(folder)
    return folder


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("guide")
    crop = Manifest.open(drawn).crop
    save_estimator(folder, build_estimator(ModelSettings(backbone="test_resnet", input_size=32), TasksSettings(), crop))
    return str(folder)


def learn(assemble: Assemble, recipe: str, faces: Path, folder: Path, *overrides: str, epochs: int = 1) -> None:
    """Train for an epoch, judge and save, and for each further one go on from there."""
    told = ["training.batch=4", "training.precision=fp32", "data.workers=0", *overrides]
    settings = load_recipe(recipe, [f"data.faces={faces}", *told])
    with card.plugged() as device:
        machine: Any = SimpleNamespace(device=device, autocast=nullcontext, scaler=None)
        machine.process_index, machine.num_processes, machine.is_main_process = 0, 1, True
        for epoch in range(epochs):
            settings.training.epochs = epoch + 1
            _, objective, loader = assemble(settings, Manifest.open(faces), machine)
            objective.figures = dict  # drawn elsewhere
            estimate(objective, loader, settings.training, machine)
            how = {"accelerator": machine, "resume": epoch > 0, "show": False}
            train(objective, loader, folder, settings.training, settings.optim, **how)


def test_the_card_refuses_what_a_card_would() -> None:
    with card.plugged() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        assert (there + there[torch.tensor([0])] + torch.tensor(1.0)).cpu().tolist() == [3, 3, 3]
        refused = [
            lambda: there + here,
            lambda: here[there.long()],
            lambda: torch.stack([there[0], here[0]]),
            lambda: torch.rand(3, device=device, generator=torch.Generator()),
            lambda: there.double(),
            lambda: there.numpy(),
        ]
        for wrong in refused:
            with pytest.raises(RuntimeError):
                wrong()


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "model.landmarks=true",
            "model.mirror=true",
            "tasks.expression={}",
            "tasks.valence={}",
            "sampling.weights=lds",
        ],
        ["objective.group_dro=[gender]", "tasks.race.class_weights=balanced", "tasks.age.given=[gender,race]"],
        ["objective.harden=2", "model.beside=[{backbone: test_convnext, input_size: 32}]", "training.accumulate=2"],
    ],
    ids=["landmarks", "groups", "harden"],
)
def test_estimators_learn(overrides: list[str], few: Path, tmp_path: Path) -> None:
    small = ["model.backbone=test_resnet", "model.input_size=32"]
    learn(run.assemble, "demo", few, tmp_path, *small, *overrides, epochs=2)


@pytest.mark.parametrize("method", METHODS)
def test_ages_are_learnt_and_told(method: str) -> None:
    labels = torch.tensor([[20.0, 20.0], [30.0, 39.0], [torch.nan, torch.nan], *[[age, age] for age in range(40, 60)]])
    with card.plugged() as device:
        task = AgeTask("age", AgeSettings(method=method), features=4).to(device)
        outputs = task(torch.randn(len(labels), 4, device=device))
        sum(total for total, _ in task.losses(outputs, labels.to(device)).values()).backward()  # type: ignore[union-attr]
        task.condition(outputs)
        state = task.fit(outputs, labels)
        here = {name: value.detach().cpu() for name, value in outputs.items()}
        for told in (task.decode(outputs, state), task.decode(here, state)):
            assert not np.isnan(told["age_low"]).any()
        task.answers({name: value.detach() for name, value in outputs.items()}, state)


@pytest.mark.parametrize(
    "overrides",
    [
        ["beta_vae.conditional=true", "beta_vae_objective.choose=rate/id", "beta_vae_objective.capacity=5"],
        [
            *("beta_vae.usual=true", "beta_vae.age_dims=2", "beta_vae_objective.tc=true", "beta_vae_objective.beta=3"),
            *("beta_vae_objective.hsic=1", "beta_vae_objective.cycle=1", "beta_vae_objective.reconstruction=laplace"),
            *("beta_vae_objective.guide_model=GUIDE", "beta_vae_objective.guide=1", "beta_vae_objective.traits=1"),
        ],
    ],
    ids=["conditional", "guided"],
)
def test_beta_vaes_learn(overrides: list[str], guide: str, few: Path, tmp_path: Path) -> None:
    small = ["beta_vae.width=16", "beta_vae.id_dims=6", "beta_vae.attributes=[gender]"]
    learn(
        beta_vae.assemble, "drawn-beta-vae", few, tmp_path, *small, *(one.replace("GUIDE", guide) for one in overrides)
    )


def test_age_transformers_learn(guide: str, few: Path, tmp_path: Path) -> None:
    network = ["width=8", "blocks=1", "warp=0.1", "colour=0.5", "beyond=0.2", "mirror=true"]
    objective = ["width=8", "judged=8", "jitter=1", "grey=0.5", "guided_at=48", "r1_every=1", "mismatch=1"]
    objective += [f"guide_model={guide}", f"identity_model={guide}", "traits=1", "direction=1", "augment_faces=6"]
    told = [f"age_transformer.{one}" for one in network] + [f"age_transformer_objective.{one}" for one in objective]
    learn(age_transformer.assemble, "drawn-age-transformer", few, tmp_path, *told)


def test_age_flows_learn(few: Path, tmp_path: Path) -> None:
    learn(age_flow.assemble, "drawn-age-flow", few, tmp_path, "age_flow.width=8", "age_flow.steps=1")


def test_landmarkers_learn(few: Path, tmp_path: Path) -> None:
    learn(landmarker.assemble, "landmarker", few, tmp_path, "landmarker.width=0.25")


def test_models_tell(guide: str, few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with card.plugged() as device:
        estimator = load_estimator(guide, device)
        faces = Manifest.open(few).split("val")
        raw = predict_split(estimator, faces, device=device, show=False, features=True)
        estimator.states = fit_states(estimator, raw, faces)
        model = Model(estimator, device)
        assert all(0 <= one.age <= 120 for one in model.predict(few) if one.age is not None)
        monkeypatch.setattr(predict, "KNOWN", ("gender", "race"))  # as if a program had added the age
        assert "age" in model.asking(expand([few])).schema().names
        judges = Judges(
            EstimatorJudge(estimator), IdentityJudge(guide, device), PointsJudge(load_landmarker(None, device))
        )
        assert set(judges.look(torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device=device))) > {"age", "points"}
        found = Locator(load_landmarker(None, device), device)(
            np.zeros((3, 64, 64), np.uint8), np.array([9.0, 9, 50, 50])
        )
        assert found.points.shape == (68, 2)


def test_renderers_render(guide: str, few: Path) -> None:
    crop = Manifest.open(few).crop
    means = torch.rand(3, 3, 32, 32), torch.tensor([10.0, 40.0, 70.0])
    with card.plugged() as device:
        vae = BetaVae(BetaVaeSettings(size=32, width=16, id_dims=6, usual=True, colour=0.5), crop)
        transformer = AgeTransformer(AgeTransformerSettings(size=32, width=8, blocks=1, warp=0.1, mirror=True), crop)
        aimed = Aimed(transformer.eval(), load_estimator(guide))
        flow = AgeFlow(AgeFlowSettings(size=32, width=8, steps=1, told=["race", "yaw"]), crop).eval()
        made: list[Any] = [vae.eval(), transformer, flow, aimed, MeanFace(crop, *means), PixelShift(crop, *means)]
        for network in made:
            renderer: Renderer = network.to(device)
            images = torch.zeros(2, 3, 48, 48, dtype=torch.uint8, device=device)
            own = torch.tensor([30.0, torch.nan], device=device)
            with torch.inference_mode():
                pictures = renderer.render(images, torch.tensor([[20.0, 60.0, 90.0]] * 2, device=device), own)
            assert (pictures.shape, pictures.device) == ((2, 3, 3, 48, 48), device)
        coded = code_faces(vae, Manifest.open(few).split("val"), device)
        assert decoded(vae, coded, np.arange(3), device).shape == (3, 3, 32, 32)
        assert ages_said(vae, coded).shape == (len(coded),)
