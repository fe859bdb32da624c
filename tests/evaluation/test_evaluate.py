from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.evaluation import evaluate as module
from mien.evaluation.evaluate import CROSSFITTED, calibrate, caution, evaluate_model, judge_model
from mien.evaluation.predictions import Predictions, predictions_table
from mien.evaluation.worst import by_tag, tags_of, turned_away, worst_rows
from mien.faces import GENDERS, RACES, Crop, Face
from mien.models.checkpoint import save_estimator
from mien.models.estimator import Estimator, ModelSettings, build_estimator
from mien.models.met import KEPT, MARK, Met
from mien.tasks.face import TasksSettings

COUNT = 90


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Noise with labels: 90 pictures of 40 px, two of which cannot be read; a third is for training."""
    folder = tmp_path_factory.mktemp("faces")
    generator = np.random.default_rng(0)
    faces = []
    for i in range(COUNT):
        path = folder / f"{i}.png"
        if i in (40, 50):
            path.write_bytes(b"no picture")
        else:
            Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
        faces.append(
            Face(
                path.name,
                age=(float(i), float(i)),
                gender=GENDERS[i % 2],
                race=RACES[i % 5],
                split="train" if i < COUNT // 3 else "val" if i < 80 else "test",
            )
        )
    hashes = [bytes([i]) * 32 for i in range(COUNT)]
    made = Manifest.from_faces(faces, folder, Crop("chip"), sha256=hashes)
    return Manifest.open(made.save(folder))


@pytest.fixture
def estimator() -> Estimator:
    built = build_estimator(ModelSettings(backbone="test_resnet", input_size=32), TasksSettings(), Crop("chip"))
    built.name = "tiny"
    return built.eval()


def test_an_evaluation_writes_all_its_files(manifest: Manifest, estimator: Estimator, tmp_path: Path) -> None:
    calibrate(estimator, manifest, "val", show=False, workers=0)
    result = evaluate_model(estimator, manifest, "val", tmp_path, workers=0, resamples=100, show=False)
    for name in (
        "metrics.val.json", "predictions.val.parquet", "report.val.html", "report.html",
        "figures/error_analysis.png", "figures/worst_predictions.png",
    ):  # fmt: skip
        assert (tmp_path / name).stat().st_size > 100, name
    assert result.report == tmp_path / "report.val.html"
    written = json.loads((tmp_path / "metrics.val.json").read_text())
    assert written["age"]["mae"]["value"] == pytest.approx(result.metrics["age"]["mae"]["value"])

    about = written["about"]
    assert (about["model"], about["split"], about["faces"]) == ("tiny", "val", 48)
    assert about["calibration"] == CROSSFITTED
    assert [face["path"] for face in about["rejected"]] == ["40.png", "50.png"]
    assert all(face["reason"] for face in about["rejected"])
    # What training had of each group stands beside it: the model was calibrated on this manifest.
    assert written["age"]["groups"]["gender"]["Male"]["train_n"] == 15

    predictions = Predictions.open(tmp_path / "predictions.val.parquet")
    assert len(predictions) == 48
    np.testing.assert_array_equal(predictions.numbers("row"), predictions.numbers("true_age_low"))
    error = np.abs(predictions.numbers("age") - predictions.numbers("true_age_low"))
    assert written["age"]["mae"]["value"] == pytest.approx(error.mean())
    worst = written["age"]["worst"]
    assert [abs(face["error"]) for face in worst] == pytest.approx(sorted(error)[::-1][:20])
    assert sum(group["n"] for group in written["age"]["groups"]["tag"].values()) >= 48


def judged(manifest: Manifest, estimator: Estimator, split: str) -> dict[str, Any]:
    metrics, predictions, images = judge_model(estimator, manifest, split, workers=0, resamples=20, show=False)
    assert len(images) == len(metrics["age"]["worst"] if "mae" in metrics.get("age", {}) else [])
    assert len(predictions) == metrics["about"]["faces"]
    return metrics


def test_other_faces_are_judged_with_the_models_own_calibration(
    manifest: Manifest, estimator: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = judged(manifest, estimator, "test")
    assert plain["about"]["calibration"].startswith("none")
    assert "coverage90" not in plain["age"]
    calibrate(estimator, manifest, "val", show=False, workers=0)
    result = judged(manifest, estimator, "test")
    assert result["about"]["calibration"] == "fitted on the split 'val' of this manifest"
    assert result["age"]["coverage90"]["n"] == 10
    assert "caution" not in result["about"]
    everything = judged(manifest, estimator, "all")
    own = "fitted on the split 'val' of this manifest"
    assert everything["about"]["calibration"] == f"{own}, for the 48 of these faces that it was fitted on {CROSSFITTED}"
    assert everything["about"]["caution"].startswith("it learnt from some of these faces (data.train=train)")
    assert everything["about"]["faces"] == COUNT - 2
    # Those that it learnt from never lend them their small errors.
    table = judge_model(estimator, manifest, "all", workers=0, resamples=100, show=False)[1]
    val = judge_model(estimator, manifest, "val", workers=0, resamples=100, show=False)[1]
    test = judge_model(estimator, manifest, "test", workers=0, resamples=100, show=False)[1]
    splits = table.strings("split")
    for name in ("age", "age_low", "age_high", "gender_p"):
        np.testing.assert_allclose(table.numbers(name)[splits == "val"], val.numbers(name), rtol=1e-4)
        np.testing.assert_allclose(table.numbers(name)[splits == "test"], test.numbers(name), rtol=1e-4)
    # A few of them among other data's faces are told; a hundred would be cross-fitted.
    some = manifest.take(np.arange(20, 80)).with_columns({"split": ["test"] * 60})
    other = "fitted on the split 'val' of another manifest"
    told = judged(some, estimator, "test")["about"]["calibration"]
    assert told == f"{other}; 48 of these faces are among those that it was fitted on"
    monkeypatch.setattr(module, "FEW", 10)
    told = judged(some, estimator, "test")["about"]["calibration"]
    assert told == f"{other}, for the 48 of these faces that it was fitted on {CROSSFITTED}"


def test_faces_that_were_learnt_from_or_that_chose_are_told(manifest: Manifest, estimator: Estimator) -> None:
    calibrate(estimator, manifest, "val", show=False, workers=0)
    estimator.settings["splits"] = {"train": "all", "select": "val"}
    assert "learnt from these faces (data.train=all)" in str(caution(estimator, manifest, "test"))
    estimator.settings["splits"] = {"train": "train", "select": "val"}
    assert "learnt from these faces" in str(caution(estimator, manifest, "train"))
    assert "epoch was chosen on these faces (data.select=val)" in str(caution(estimator, manifest, "val"))
    assert caution(estimator, manifest, "test") is None
    other = manifest.take(np.arange(70))
    assert caution(estimator, other, "val") is None  # nothing tells
    # Pictures that it learnt from are known wherever they stand.
    hashes = other.split("val").strings("sha256")
    estimator.learnt = Met.of(hashes[:3])
    assert str(caution(estimator, other, "val")).startswith("it learnt from 3 of these faces: ")
    assert caution(estimator, other, "train") is None
    many = [number.to_bytes(MARK, "big") for number in range(KEPT)]
    estimator.learnt = Met.of([*many, *hashes])  # the low ones are kept: of these faces it does not tell
    assert caution(estimator, other, "val") is None


def test_a_runs_own_record_is_that_of_its_best_weights_on_its_own_faces(manifest: Manifest, tmp_path: Path) -> None:
    from mien.cli.evaluate import place

    run, path = tmp_path / "run", manifest.path
    assert path is not None
    run.mkdir()
    (run / "config_used.json").write_text(json.dumps({"record": {"manifest": manifest.hash}}))
    assert place(run, manifest, "best") == run
    assert place(run, manifest, "last") == run / "evaluation" / "last"
    other = Manifest(manifest.table.slice(1), manifest.root, manifest.crop, path)
    name = f"{path.parent.name}-{other.hash[:8]}"
    assert place(run, other, "best") == run / "evaluation" / name
    assert place(run, other, "x/step-7") == run / "evaluation" / f"{name}-step-7"
    beside = Manifest(other.table, manifest.root, manifest.crop, tmp_path / "b.parquet")
    assert place(run, beside, "best").name == f"b-{other.hash[:8]}"
    assert place(None, manifest, "best") == path.parent.resolve() / "evaluation"


def test_interval_and_missing_labels(manifest: Manifest, estimator: Estimator, tmp_path: Path) -> None:
    wide = manifest.with_columns({"age_high": manifest.numbers("age_low") + 9})
    result = evaluate_model(estimator, wide, "val", tmp_path, workers=0, resamples=100, show=False)
    assert "mae" not in result.metrics["age"]
    assert result.metrics["age"]["interval_labels"]["n"] == 48
    assert result.report.is_file()
    table = manifest.table.drop_columns(["age_low", "age_high", "race"])
    bare = Manifest(table, manifest.root, manifest.crop)
    assert set(judged(bare, estimator, "val")) == {"gender", "about"}


def test_wrong_crops_and_splits_are_refused(manifest: Manifest, estimator: Estimator) -> None:
    with pytest.raises(MienError, match="select"):
        judged(manifest, estimator, "select")
    with pytest.raises(MienError, match="cropped"):
        judged(Manifest(manifest.table, manifest.root, Crop("photo")), estimator, "val")
    with pytest.raises(MienError, match="none of the 2 faces can be read"):
        judged(manifest.take(np.array([40, 50])), estimator, "val")


def test_the_two_commands(
    manifest: Manifest,
    estimator: Estimator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mien.cli.compare import compare
    from mien.cli.evaluate import evaluate

    # The page has its own test, and drawing it takes seconds.
    monkeypatch.setattr(module, "write_report", lambda metrics, table, images, folder, terms, tiles: folder / "page")
    model = ModelSettings(backbone="test_resnet", input_size=32)
    other = build_estimator(model, TasksSettings(), Crop("chip"))
    models, folders = (tmp_path / "a", tmp_path / "b"), (tmp_path / "runs/a", tmp_path / "runs/b")
    save_estimator(models[0], estimator)
    save_estimator(models[1], other)
    evaluate(manifest.path, str(models[0]), out=folders[0], bootstraps=100, device="cpu", json=True)
    printed = json.loads(capsys.readouterr().out)
    assert {"value", "low", "high", "n"} == set(printed["age"]["mae"])
    evaluate(manifest.path, str(models[1]), out=folders[1], bootstraps=100, device="cpu")
    shown = capsys.readouterr()
    assert "age: MAE, years" in shown.out
    assert "2 pictures could not be read" in shown.err
    assert f"report: {folders[1] / 'page'}" in shown.err

    compare(folders[0], folders[1], bootstraps=100, json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["faces"]["common"] == 48
    assert found["first"]["model"] == "tiny"
    mae = found["age"]["mae"]
    assert mae["second"] - mae["first"] == pytest.approx(mae["difference"]["value"])
    compare(folders[0], folders[1], bootstraps=100)
    assert "cannot be told" in capsys.readouterr().out
    with pytest.raises(MienError, match=r"mien evaluate --model .* --split test"):
        compare(folders[0], folders[1], split="test")
    with pytest.raises(MienError, match="no faces to judge"):
        evaluate(None, str(models[0]), device="cpu")


def test_tags() -> None:
    dark = np.full((3, 120, 120), 10, dtype=np.uint8)
    assert "dark" in tags_of(30, dark)
    assert "extreme age" not in tags_of(30, dark)
    assert tags_of(2, None) == tags_of(70, None) == ["extreme age"]
    assert tags_of(69, None) == tags_of(5, None) == []

    def head(degrees: float) -> np.ndarray:
        """Jaw ends on a unit cylinder, the nose standing out by a quarter, turned by so many degrees."""
        turn = np.deg2rad(degrees)
        points = np.zeros((68, 2))
        points[0, 0], points[16, 0], points[30, 0] = -np.cos(turn), np.cos(turn), 1.25 * np.sin(turn)
        return points

    assert [turned_away(head(degrees)) for degrees in (-30, -20, 0, 20, 30)] == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert not turned_away(np.full((68, 2), np.nan))
    assert "turned away" in tags_of(30, None, head(40))


def test_worst_faces_come_first_and_small_tags_are_suppressed(manifest: Manifest) -> None:
    import pyarrow as pa

    table = Predictions(
        pa.table(
            {
                "path": ["0.png", "1.png", "2.png", "gone.png"],
                "sha256": ["a", "b", "c", "d"],
                "group": [0, 1, 2, 3],
                "archive": pa.nulls(4, pa.string()),
                "true_age_low": [10.0, 20.0, 30.0, 40.0],
                "true_age_high": [10.0, 29.0, 30.0, 40.0],
                "age": [11.0, 90.0, 20.0, 45.0],
            }
        )
    )
    assert worst_rows(table).tolist() == [2, 3, 0]
    assert worst_rows(table, 1).tolist() == [2]
    found = by_tag(table, manifest.pictures(), resamples=10, show=False)
    assert all(group["suppressed"] for group in found.values())
    assert by_tag(table, manifest.pictures(), sample=1, resamples=10, show=False) != found


def test_the_errors_by_tag_look_through_the_table_once(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    ages = np.linspace(20, 60, 8)
    table = predictions_table(manifest, np.arange(8), {"age": ages}, {})
    asked: list[str] = []
    strings = Predictions.strings
    monkeypatch.setattr(Predictions, "strings", lambda one, name: asked.append(name) or strings(one, name))
    by_tag(table, manifest.pictures(), resamples=10, show=False)
    assert sorted(asked) == ["archive", "path"]
