"""`mien relabel` and `mien labels` from their command lines, on drawn faces, with experts that see brightness."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from mien.cli.console import one_line_errors
from mien.cli.labels import _learnt, labels
from mien.cli.relabel import relabel
from mien.data.manifest import Manifest
from mien.experts.base import Answers
from mien.experts.table import OursSettings
from mien.files import write_json
from mien.models.checkpoint import load_estimator
from mien.models.met import KEPT, MARK, Met
from mien.training.record import CONFIG


class Oracle:
    """Says the brightness of a face as its age."""

    terms = "anything"

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, images: Any) -> Answers:
        ages = np.array([image.mean() / 2.55 for image in images])
        return Answers(ages, np.full(len(ages), -4.0), np.full(len(ages), 16.0))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(OursSettings, "build", lambda self, device: Oracle(self.name))
    monkeypatch.setattr(OursSettings, "hash", lambda self: self.model)

    def run(command: Any, *arguments: object) -> Result:
        app = typer.Typer()
        app.command()(one_line_errors(command))
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    (tmp_path / "experts.yaml").write_text("experts: [{kind: ours, model: a}, {kind: ours, model: b}]\n")
    return tmp_path / "experts.yaml"


def test_relabel_replaces_no_data_sets_manifest(call: Any, drawn: Path, listed: Path, tmp_path: Path) -> None:
    other = Manifest.open(drawn).save(tmp_path / "other")
    before = other.read_bytes()
    done = call(relabel, drawn, "-e", listed, "-o", tmp_path / "other")
    assert done.exit_code == 2
    assert "holds the manifest of a data set, which would be replaced" in done.stderr
    assert other.read_bytes() == before


def test_relabel_fits_writes_and_goes_on(call: Any, drawn: Path, listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "moe"
    done = call(relabel, drawn, "-e", listed, "--fit", drawn, "-o", out, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answered"] == found["faces"] == 240
    assert found["fusion"]["trusted"] == 240
    assert {one["sha256"] for one in found["experts"].values()} == {"a", "b"}
    assert json.loads((out / "fusion.json").read_text())["experts"] == ["a", "b"]
    made = Manifest.open(out)
    assert made.hash == Manifest.open(drawn).hash  # labels and pictures are the given ones
    parts = {path: path.stat().st_mtime_ns for path in out.glob("answers/*/part-*")}
    assert len(parts) == 2
    again = call(relabel, drawn, "-e", listed, "--fusion", out / "fusion.json", "-o", out)
    assert again.exit_code == 0, again.stderr
    off = found["fusion"]["mae"]["a"]
    assert "years off on trusted faces" in " ".join(again.stdout.split())
    assert f"{off:.2f}" in again.stdout
    assert f"fused, {found['fusion']['fused_mae']:.2f} years off on the 240 trusted faces" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in out.glob("answers/*/part-*")} == parts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fusion", "modian"], "no such file, and no way to fuse"),
        (["--fusion", "mean", "--fit", "x"], "choose one of them"),
        (["--fit", "gone"], "is not there"),
        (["-o", "SAME"], "holds the manifest itself"),
        (["--engine", "spark"], "unknown engine 'spark'"),
        (["--address", "10.0.0.1:6379"], "the address 10.0.0.1:6379 is of a Ray cluster, the engine is local"),
    ],
)
def test_mistakes_are_one_line(call: Any, drawn: Path, listed: Path, arguments: list[str], message: str) -> None:
    arguments = [str(drawn) if one == "SAME" else one for one in arguments]
    done = call(relabel, drawn, "-e", listed, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr.strip().splitlines()[-1]


def test_labels_finds_a_copy_that_is_labelled_otherwise(call: Any, drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    twice = manifest.take(np.r_[np.arange(60), 7, 7])
    ages = twice.numbers("age_low")
    ages[60:] = ages[7] + 30 if ages[7] < 60 else ages[7] - 30
    twice = twice.with_columns({"age_low": ages, "age_high": ages})
    twice.save(tmp_path / "faces")
    done = call(labels, tmp_path / "faces", "-o", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    first = found["suspects"][0]
    assert first["row"] == 7
    assert first["score"] == pytest.approx(2 / 3)
    assert "byte-identical" in first["evidence"][0]
    with open(tmp_path / "out/corrections.csv") as file:
        rows = list(csv.DictReader(file))
    path = str(twice.strings("path")[7])
    assert {"path": path, "column": "age", "value": f"{ages[60]:g}"} in rows
    page = (tmp_path / "out/labels.html").read_text()
    assert path in page
    assert "<script" not in page


def test_labels_without_a_doubt_are_said_to_be(call: Any, drawn: Path, tmp_path: Path) -> None:
    done = call(labels, drawn, "-o", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "0 of 240 faces in doubt (score at least 0.5): nothing speaks against any label" in done.stdout
    assert "Nothing speaks against any label." in (tmp_path / "labels.html").read_text()


def test_labels_are_not_judged_by_what_a_start_learnt_from(call: Any, drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    split = manifest.strings("split").astype(object)
    some = manifest.take(np.flatnonzero(split == "train")[:5])  # what the last of the runs itself learns from
    Manifest(some.table, drawn, manifest.crop).save(tmp_path / "some")
    faces = {"first": drawn, "then": tmp_path / "some", "last": tmp_path / "some", "lone": tmp_path / "some"}
    starts = {"first": None, "then": str(tmp_path / "first"), "last": str(tmp_path / "then"), "lone": "moved"}
    for name, given in faces.items():
        write_json(tmp_path / name / CONFIG, {"data": {"faces": str(given)}, "model": {"init": starts[name]}})
    learnt = {name: _learnt(str(tmp_path / name), None, manifest) for name in faces}
    assert int(learnt["lone"].sum()) == 5
    for name in ("first", "then", "last"):
        np.testing.assert_array_equal(learnt[name], split == "train", err_msg=name)


def test_labels_tells_of_a_start_that_tells_nothing(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = Manifest.open(drawn)
    for init in ("face-affect", str(tmp_path / "gone")):
        write_json(tmp_path / CONFIG, {"data": {"faces": str(drawn)}, "model": {"init": init}})
        learnt = _learnt(str(tmp_path), None, manifest)
        np.testing.assert_array_equal(learnt, manifest.strings("split") == "train")
        assert f"{init}: nothing tells which faces it learnt from" in " ".join(capsys.readouterr().err.split())
    # One that carries what it has met says so only where it has.
    assert not _learnt("face-mobile", None, manifest).any()
    assert capsys.readouterr().err == ""
    estimator = load_estimator("face-mobile")
    estimator.learnt = Met.of([*manifest.strings("sha256")[:10], *(bytes([255]) * MARK for _ in range(KEPT))])
    assert _learnt("it", estimator, manifest)[:10].all()
    low = [number.to_bytes(MARK, "big") for number in range(KEPT - 1)]
    estimator.learnt = Met.of([*low, min(manifest.strings("sha256"))])
    assert _learnt("it", estimator, manifest).sum() == 1
    assert "it learnt from about 100 % of these faces; nothing tells from which" in capsys.readouterr().err


def test_labels_writes_folds_alone(call: Any, drawn: Path, tmp_path: Path) -> None:
    done = call(labels, drawn, "-o", tmp_path, "--folds", "3")
    assert done.exit_code == 0, done.stderr
    held = [Manifest.open(tmp_path / f"fold{number}").strings("split") == "val" for number in range(3)]
    assert (np.sum(held, axis=0) == 1).all()


def test_labels_of_too_few_faces_say_so(call: Any, drawn: Path, tmp_path: Path) -> None:
    few = Manifest.open(drawn).take(np.arange(20))
    few.save(tmp_path / "few")
    done = call(labels, tmp_path / "few", "-m", "face-mobile", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "fewer than 50 labelled faces that a model judges" in " ".join(done.stderr.split())


def test_labels_of_which_most_look_wrong_blame_the_model(
    call: Any, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mien.cli import labels as module

    ages = Manifest.open(drawn).numbers("age_low")
    for said, blamed in ((ages + np.linspace(-9, 9, len(ages)), False), (np.full(len(ages), 50.0), True)):
        monkeypatch.setattr(module, "_ages", lambda *_, said=said: ("it", said, np.full(len(said), 9.0)))
        done = call(labels, drawn, "-m", "it", "-o", tmp_path)
        assert done.exit_code == 0, done.stderr
        assert ("they know too little of ages" in " ".join(done.stderr.split())) is blamed
