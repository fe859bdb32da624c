"""A run that trains the landmarker: the windows it learns from, what it leaves behind, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mien.data.manifest import Manifest
from mien.data.prepare import prepare
from mien.data.sources.drawn import DrawnSource
from mien.errors import MienError
from mien.faces import Crop
from mien.models.checkpoint import load_landmarker
from mien.models.landmarker import Landmarker, LandmarkerSettings
from mien.training.landmarker import mean_shape, window
from mien.training.recipe import Recipe, load_recipe
from mien.training.run import train_run

pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 drawn faces of 12 people with as much around them again: 40 to learn from, and to choose and judge by."""
    folder = tmp_path_factory.mktemp("marks")
    prepare(DrawnSource(count=48, seed=5, size=96, margin=0.5), Path(), folder, seed=1, show=False)
    manifest = Manifest.open(folder)
    codes = np.zeros(48, dtype=np.int64)
    codes[40:44], codes[44:] = 1, 2
    manifest.with_columns({"split": codes}).save(folder)
    return folder


def recipe(faces: Path, *overrides: str) -> Recipe:
    small = ["landmarker.width=0.25", "training.batch=10", "training.average=0.9", "data.workers=0"]
    return load_recipe("landmarker", [f"data.faces={faces}", "training.precision=fp32", *small, *overrides])


@pytest.fixture(scope="module")
def trained(marks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "landmarker"
    result = train_run(recipe(marks, "training.epochs=2", "training.keep=1"), folder, show=False)
    assert result is not None
    return folder


def test_a_run_is_judged_on_faces_it_did_not_see(trained: Path) -> None:
    figures = json.loads((trained / "metrics.val.json").read_text())
    assert figures["about"]["faces"] == 4
    assert set(figures["by_source"]) == {"drawn"}
    assert 0 < figures["all"]["nme"]["value"] < 1
    assert figures["all"]["nme"]["n"] == 4
    assert (trained / "figures" / "training_history.png").is_file()
    assert not (trained / "metrics.test.json").exists()
    history = json.loads((trained / "history.json").read_text())
    assert len(history) == 2
    assert all(0 < entry["train"]["landmarks/points"] < 1 for entry in history)
    assert load_landmarker(trained).name == "landmarker"


def test_the_window_is_the_same_part_of_a_face_whatever_is_stored(marks: Path) -> None:
    made = recipe(marks)
    assert made.landmarker is not None
    manifest = Manifest.open(marks)
    wide = window(made.augment, made.landmarker, manifest)
    tight = window(made.augment, made.landmarker, Manifest(manifest.table, marks, Crop("chip", 0.0, 96)))
    np.testing.assert_allclose(np.array(tight.scale.between), 2 * np.array(wide.scale.between))
    np.testing.assert_allclose(np.mean(wide.scale.between), np.mean((0.8, 1.25)) * 1.16 / 2)
    np.testing.assert_allclose(wide.shift.between, (-0.12 * 0.58, 0.12 * 0.58))
    assert wide.rotation == made.augment.rotation


def test_the_mean_shape_has_its_eyes_where_the_template_has(marks: Path) -> None:
    landmarker = Landmarker(LandmarkerSettings(width=0.25))
    shape = mean_shape(Manifest.open(marks), landmarker)
    eyes = np.stack([shape[36:42].mean(axis=0), shape[42:48].mean(axis=0)])
    inside = 1 + 2 * landmarker.crop.margin
    expected = (np.array([[0.3024, 0.2946], [0.6976, 0.2946]]) - 0.5) / inside
    np.testing.assert_allclose(eyes, expected, atol=0.02)


def test_faces_without_points_or_alignment_are_refused(marks: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(marks)
    gone = manifest.with_columns({"landmarks": np.full((48, 136), np.nan, dtype=np.float32)})
    gone.save(tmp_path / "gone.parquet")
    with pytest.raises(MienError, match="no face of the split 'train' has landmarks"):
        train_run(recipe(tmp_path / "gone.parquet"), tmp_path / "run", show=False)
    Manifest(manifest.table, marks, Crop("photo")).save(tmp_path / "photo.parquet")
    with pytest.raises(MienError, match=r"learns from aligned ones .* prepare them with --align --margin 0.5"):
        train_run(recipe(tmp_path / "photo.parquet"), tmp_path / "other", show=False)


def test_it_goes_on_from_another(marks: Path, trained: Path, tmp_path: Path) -> None:
    still = recipe(marks, f"model.init={trained}", "training.epochs=1", "optim.lr=1e-12", "training.average=null")
    result = train_run(still, tmp_path / "run", show=False)
    assert result is not None
    mine, its = load_landmarker(tmp_path / "run"), load_landmarker(trained)
    np.testing.assert_array_equal(mine.shape, its.shape)
    np.testing.assert_allclose(mine.points.weight.detach(), its.points.weight.detach(), atol=1e-8)
    other = recipe(marks, f"model.init={trained}", "landmarker.width=0.5")
    with pytest.raises(MienError, match=r"it was built otherwise; give this run landmarker\.width=0\.25$"):
        train_run(other, tmp_path / "wider", show=False)
