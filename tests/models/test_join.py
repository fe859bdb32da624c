"""Joined estimators answer with the mean of what the single ones say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mien.data.align import CHIP
from mien.errors import MienError
from mien.evaluation.evaluate import splits_of
from mien.faces import Crop
from mien.models.backbone import Joined
from mien.models.checkpoint import load_estimator, save_estimator
from mien.models.estimator import Estimator, ModelSettings, build_estimator, start_from, weights_hash
from mien.models.join import join
from mien.models.met import Met
from mien.objectives.estimator import EstimatorObjective, EstimatorSettings
from mien.tasks.face import TasksSettings
from mien.tasks.ordinal import METHODS
from mien.training.optim import OptimSettings, build_optimiser

FREE = {"gender": {}, "race": {"given": []}, "age": {"given": []}, "valence": {"bounded": False}}
IMAGES = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def made(seed: int, tasks: dict[str, Any] = FREE, crop: Crop = CHIP, **model: Any) -> Estimator:
    """A small estimator with the weights, normalisation included, of `seed`."""
    torch.manual_seed(seed)
    settings = ModelSettings(**{"backbone": "test_resnet", "input_size": 32, **model})
    estimator = build_estimator(settings, TasksSettings.model_validate(tasks), crop).eval()
    with torch.no_grad():
        for value in estimator.parameters():
            value.add_(0.05 * torch.randn_like(value))
    estimator.name = f"number {seed}"
    return estimator


@torch.no_grad()
def assert_mean(joined: Estimator, singles: list[Estimator], images: torch.Tensor = IMAGES) -> None:
    said = [single(images) for single in singles]
    for task, outputs in joined(images).items():
        for name, value in outputs.items():
            mean = torch.stack([one[task][name] for one in said]).mean(0)
            torch.testing.assert_close(value, mean, rtol=1e-4, atol=1e-4, msg=f"{task}/{name}")


@pytest.mark.parametrize("method", METHODS)
def test_every_way_to_learn_age_has_a_mean(method: str) -> None:
    tasks = {**FREE, "age": {"given": [], "method": method}}
    singles = [made(seed, tasks) for seed in (1, 2, 3)]
    assert_mean(join(singles), singles)


def test_hidden_layers_stand_side_by_side() -> None:
    tasks = {"gender": {"hidden": 3}, "race": {"given": [], "hidden": 5}, "age": {"given": [], "hidden": 4}}
    singles = [made(seed, tasks) for seed in (1, 2)]
    assert_mean(join(singles), singles)


def test_parents_of_the_joined_network_are_the_joined_ones() -> None:
    tasks: dict[str, Any] = {"gender": {}, "race": {}, "age": {"hidden": 4}}
    singles = [made(seed, tasks) for seed in (1, 2)]
    joined = join(singles)
    features = [single.features(IMAGES) for single in singles]
    told = torch.rand(3, 7)
    said = [one.task("age")(part, told)["ordinal"] for one, part in zip(singles, features, strict=True)]
    torch.testing.assert_close(joined.task("age")(torch.cat(features, 1), told)["ordinal"], torch.stack(said).mean(0))


def test_networks_of_several_kinds_and_sizes_join_and_come_back_from_their_file(tmp_path: Path) -> None:
    singles = [made(1), made(2, backbone="test_convnext", input_size=48, mirror=True)]
    singles[0].mirror = True  # for all or none
    joined = join(singles)
    assert isinstance(joined.backbone, Joined)
    assert joined.input_size == 48
    assert joined.mirror
    assert_mean(joined, singles, IMAGES[..., :48, :48])
    save_estimator(tmp_path, joined)
    again = load_estimator(tmp_path)
    assert weights_hash(again) == weights_hash(joined)
    with torch.inference_mode():  # folded
        torch.testing.assert_close(again(IMAGES), joined(IMAGES))
    three = join([again, made(3, mirror=True)])
    assert three.backbone_names == ["test_resnet", "test_convnext", "test_resnet"]
    with torch.no_grad():
        said = [one(IMAGES)["gender"]["logits"] for one in (again, made(3, mirror=True))]
        torch.testing.assert_close(three(IMAGES)["gender"]["logits"], torch.stack(said).mean(0), atol=1e-4, rtol=1e-4)


def test_a_joined_network_learns_on_with_every_weight_at_one_depth() -> None:
    joined = join([made(1), made(2, backbone="test_convnext")])
    of = {"age": torch.zeros(2, 2), "valence": torch.zeros(2)}
    labels = {name: of.get(name, torch.zeros(2, dtype=torch.int64)) for name in joined.tasks}
    objective = EstimatorObjective(joined, SimpleNamespace(labels=labels), EstimatorSettings())  # type: ignore[arg-type]
    named = [name for names in objective.depths("estimator") for name in names]
    assert sorted(named) == sorted(name for name, _ in joined.named_parameters())
    build_optimiser(joined, objective.depths("estimator"), OptimSettings(layer_decay=0.5))
    fresh = build_estimator(ModelSettings.model_validate(joined.settings["model"]), TasksSettings(**FREE), CHIP)
    assert start_from(fresh, joined) == []


def test_what_cannot_be_joined_is_said() -> None:
    one = made(1)
    with pytest.raises(MienError, match="1 model to join: name two or more"):
        join([one])
    with pytest.raises(MienError, match="number 2 has not learnt valence"):
        join([one, made(2, {**FREE, "valence": None})])
    with pytest.raises(MienError, match=r"tasks\.age: number 1 and number 2 do not give the same outputs"):
        join([one, made(2, {**FREE, "age": {"given": [], "method": "corn"}})])
    with pytest.raises(MienError, match=r"tasks\.valence: .* agree in given, .* bounded, and on a hidden layer"):
        join([one, made(2, {**FREE, "valence": {"bounded": True}})])
    with pytest.raises(MienError, match=r"tasks\.gender: number 2 and number 1 do not give the same outputs"):
        join([made(2, {**FREE, "gender": {"hidden": 8}}), one])
    with pytest.raises(MienError, match=r"number 2 sees faces as chip with margin 0\.3"):
        join([one, made(2, crop=Crop("chip", 0.3))])
    with pytest.raises(MienError, match=r"number 2 reads landmarks"):
        join([one, made(2, landmarks=True)])
    with pytest.raises(MienError, match=r"model\.init number 1: its backbone is test_resnet, this recipe's is test_r"):
        start_from(join([one, made(2)]), one)


def test_terms_of_all_hold_for_the_joined_model() -> None:
    singles = [made(1), made(2), made(3)]
    assert join(singles).card == {}
    singles[0].card = {"terms": "research only", "figures": {"MAE": "4"}}
    singles[2].card = {"terms": "no faces of children"}
    singles[1].card = {"terms": "research only"}
    assert join(singles).card == {"terms": "research only; no faces of children"}


def test_what_all_were_shown_in_training_the_joined_model_was_shown() -> None:
    singles = [made(1), made(2)]
    for single in singles:
        single.settings["augment"] = {"flip": 0.5}
    assert join(singles).settings["augment"] == {"flip": 0.5}
    singles[1].settings["augment"] = {"flip": 0.0}
    assert "augment" not in join(singles).settings


def test_faces_that_any_part_learnt_from_flatter_the_joined_model() -> None:
    singles = [made(1), made(2)]
    singles[0].settings["splits"] = singles[1].settings["splits"] = {"train": "train", "select": "val"}
    assert splits_of(join(singles)) == ("train", "val")
    assert join(singles).learnt is None
    singles[0].learnt, singles[1].learnt = Met.of([bytes(32)]), Met.of([bytes(range(32))])
    assert join(singles).learnt == Met.of([bytes(32), bytes(range(32))])
    singles[1].settings["splits"] = {"train": "all", "select": "val"}
    assert splits_of(join(singles)) == ("all", "val")
