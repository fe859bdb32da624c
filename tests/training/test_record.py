"""What a run writes down when it begins, and what keeps it from going on."""

from pathlib import Path

import numpy as np
import pytest

from mien.cli.evaluate import place
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.training.recipe import Recipe, load_recipe
from mien.training.record import CONFIG, changed_settings, claim, open_faces


def test_a_run_finds_its_faces_from_any_folder(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/faces").symlink_to(drawn)
    monkeypatch.chdir(tmp_path / "there")
    recipe = Recipe.model_validate({"name": "r", "data": {"faces": "faces"}})
    claim(tmp_path / "run", recipe, Manifest.open("faces"))
    monkeypatch.chdir(tmp_path)
    assert open_faces(load_recipe(tmp_path / "run" / CONFIG)).hash == Manifest.open(drawn).hash
    with pytest.raises(MienError, match="faces is not there"):
        open_faces(recipe)
    # What is named otherwise is another manifest, whatever the run had.
    other = load_recipe(tmp_path / "run" / CONFIG, ["data.faces=other"])
    with pytest.raises(MienError, match="other is not there"):
        open_faces(other)
    claim(tmp_path / "next", load_recipe(tmp_path / "run" / CONFIG), Manifest.open(drawn))
    assert open_faces(load_recipe(tmp_path / "next" / CONFIG)).hash == Manifest.open(drawn).hash


@pytest.mark.parametrize("left", [b"", b'{"name": "r", "data', b"[]", b'{"name": "\xff"}'])
def test_a_record_that_the_disk_has_damaged_is_named(drawn: Path, tmp_path: Path, left: bytes) -> None:
    recipe = Recipe.model_validate({"name": "r", "data": {"faces": str(drawn)}})
    claim(tmp_path, recipe, Manifest.open(drawn))
    (tmp_path / CONFIG).write_bytes(left)
    with pytest.raises(MienError, match=rf"{CONFIG} is damaged \(.*\); put it back, or start another run with -o"):
        changed_settings(tmp_path, recipe, Manifest.open(drawn))
    with pytest.raises(MienError, match=rf"{CONFIG} is damaged \(.*\); put it back, or say with -o where to write"):
        place(tmp_path, Manifest.open(drawn), "best")


def test_what_is_read_beside_the_manifest_may_not_change(drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    weights = np.ones(len(manifest))
    weighed = manifest.with_columns({"moe_weight": weights})
    (tmp_path / "captions.jsonl").write_text("{}")
    guided = {"guide_model": "face-mobile", "age": 1.0}
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "data": {"faces": str(drawn)},
            "captions": str(tmp_path / "captions.jsonl"),
            "sampling": {"weights": "reliability"},
            "age_transformer": {"text": 8},
            "age_transformer_objective": guided,
        }
    )
    claim(tmp_path, recipe, weighed)
    assert changed_settings(tmp_path, recipe, weighed) == []
    weights[3] = 0.5
    (tmp_path / "captions.jsonl").write_text("{ }")
    other = manifest.with_columns({"moe_weight": weights, "age_std": weights})
    assert changed_settings(tmp_path, recipe, other) == [
        "the content of age_std",
        "the content of captions",
        "the content of moe_weight",
    ]
