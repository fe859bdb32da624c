"""Recipes: overrides, faults that are all named at once, and a round trip through config_used.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mien.errors import MienError
from mien.training.recipe import Recipe, load_recipe, recipe_folder


@pytest.mark.parametrize("path", sorted(recipe_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_headed_by_its_command(path: Path) -> None:
    recipe = load_recipe(path.stem)
    assert recipe.name == path.stem
    assert f"mien train {path.stem} " in path.read_text()


def test_overrides_reach_any_depth() -> None:
    recipe = load_recipe(
        "demo",
        [
            "training.epochs=3",
            "tasks.race=null",
            "optim.lr=1e-3",
            "tasks.age.given=[gender]",
            "augment.jpeg.probability=0.5",
        ],
    )
    assert recipe.training.epochs == 3
    assert recipe.tasks.race is None
    assert recipe.optim.lr == 0.001
    assert recipe.tasks.age is not None
    assert recipe.tasks.age.given == ["gender"]
    assert recipe.augment.jpeg.probability == 0.5


def test_an_override_inside_a_preset_keeps_the_rest_of_it() -> None:
    recipe = load_recipe("demo", ["augment=faces", "augment.blur.probability=0"])
    assert recipe.augment.blur.probability == 0
    assert recipe.augment.noise.probability > 0


def test_a_recipe_comes_back_from_its_own_json(tmp_path: Path) -> None:
    recipe = load_recipe("demo", ["training.epochs=3", "data.faces=faces"])
    path = tmp_path / "config_used.json"
    path.write_text(json.dumps({**recipe.model_dump(mode="json"), "record": {"git": "abc"}}))
    assert load_recipe(path).model_dump(exclude={"record"}) == recipe.model_dump(exclude={"record"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.epoch=3"], r"unknown setting training\.epoch; did you mean 'epochs'\?"),
        (["trainin.epochs=3"], r"unknown setting trainin; did you mean 'training'\?"),
        (["training.epochs=many"], r"training\.epochs = 'many'"),
        (["training.epochs=0"], r"training\.epochs = 0"),
        (["training.epochs=0", "optim.lr=-1"], r"optim\.lr = -1.*training\.epochs = 0"),
        (["epochs"], "expected key=value"),
        (["tasks.age.method=corall"], r"corall.*coral"),
        (["beta_vae.width=8", "age_transformer.width=8"], r"demo\.yaml: beta_vae and age_transformer are 2 networks; "),
        (["tasks.age.grid.step=7"], r"demo\.yaml: tasks\.age\.grid: the 101 years 0-100 do not make"),
        (["captions=x"], r"demo\.yaml: captions would not be looked at: no network but an age_transformer reads text"),
        (["optim.warmup_epochs=9", "training.epochs=3"], r"optim\.warmup_epochs 9 is more than training\.epochs 3: "),
        (["optim.betas=[0.9,1]"], r"optim\.betas\.1 = 1: input should be less than 1"),
        (["tasks.gender.class_weights=[-1,1]"], r"class_weights.* = -1: input should be greater than or equal to 0"),
        (["tasks.gender.class_weights=[.nan,1]"], r"class_weights.* = nan: input should be a finite number"),
        (["model.freeze_backbone=-1"], r"model\.freeze_backbone = -1: input should be greater than or equal to 0"),
        (["seed=18446744073709551616"], r"seed = 18446744073709551616: input should be less than"),
    ],
)
def test_faults_are_named_with_the_nearest_right_key(overrides: list[str], message: str) -> None:
    with pytest.raises(MienError, match=message):
        load_recipe("demo", overrides)


def test_an_unknown_recipe_lists_those_that_are_there() -> None:
    with pytest.raises(MienError, match=r"unknown recipe 'dem'.*did you mean 'demo'"):
        load_recipe("dem")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n- 2\n")
    with pytest.raises(MienError, match="this is list"):
        load_recipe(path)
    path.write_text("a: [1\n")
    with pytest.raises(MienError, match="cannot be read as a recipe"):
        load_recipe(path)


def test_defaults_make_a_recipe() -> None:
    assert Recipe().training.epochs > 0
