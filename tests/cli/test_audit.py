"""`mien audit` from its command line, auditing a model whose answers can be computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import Tensor, nn
from typer.testing import CliRunner, Result

import mien.jobs.predict
from mien.cli.audit import _print_table, audit
from mien.cli.console import one_line_errors
from mien.data.manifest import Manifest
from mien.faces import Crop
from mien.jobs.predict import Model
from mien.models.met import Met


class AgeTask(nn.Module):
    columns = ("age_low", "age_high")

    def encode(self, columns: dict[str, np.ndarray]) -> Tensor:
        return torch.as_tensor(columns["age_low"])

    def labelled(self, labels: Tensor) -> Tensor:
        return ~labels.isnan()

    def decode(self, outputs: dict[str, Tensor], state: Any) -> dict[str, np.ndarray]:
        return {"age": outputs["age"].numpy()}


class Grey(nn.Module):
    """Age is brightness in percent, times `factor`."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.tasks = nn.ModuleDict({"age": AgeTask()})
        self.states: dict[str, Any] = {"age": {"factor": factor}}  # part of the model's hash
        self.calibrated_on: dict[str, str] = {}
        self.learnt: Met | None = None
        self.settings: dict[str, Any] = {}
        self.crop, self.input_size, self.name, self.factor = Crop("chip"), 32, f"grey {factor:g}", factor

    def task(self, name: str) -> Any:
        return self.tasks[name]

    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> dict[str, dict[str, Tensor]]:
        return {"age": {"age": self.factor * images.float().mean(dim=(1, 2, 3)) / 2.55}}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def load(model: str | None, device: str) -> Model:
        return Model(Grey(float(model or 1)))  # type: ignore[arg-type]

    monkeypatch.setattr(mien.jobs.predict, "load", load)
    app = typer.Typer()
    app.command()(one_line_errors(audit))

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


def test_a_robustness_audit_and_its_table(run: Any, drawn: Path, tmp_path: Path) -> None:
    some = ("--robustness", "--corruptions", "jpeg,gamma-dark", "--severities", "5,1", "--bootstraps", 100)
    result = run(drawn, *some, "-o", tmp_path, "--limit", 40)
    assert result.exit_code == 0, result.stderr
    assert "families (training not known)" in result.stdout
    assert "age: loses most by gamma_dark" in result.stdout
    assert f"report: {tmp_path / 'robustness.html'}" in result.stderr
    assert (tmp_path / "robustness.html").stat().st_size > 10_000

    told = json.loads(run(drawn, *some, "-o", tmp_path, "--limit", 40, "--baseline", "1.5", "--json").stdout)
    assert told["about"]["baseline"] == "grey 1.5"
    assert (tmp_path / "baseline" / "audit.json").is_file()
    age = told["tasks"]["age"]
    assert list(age["corruptions"]["jpeg"]["levels"]) == ["1", "5"]
    assert age["summary"]["all"]["mce"]["n"] == age["n"]


def test_a_model_that_has_met_the_faces_is_audited_with_a_caution(
    run: Any, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(model: str | None, device: str) -> Model:
        network = Grey(float(model or 1))
        network.learnt = Met.of(Manifest.open(drawn).strings("sha256")) if model == "1.5" else None
        return Model(network)  # type: ignore[arg-type]

    monkeypatch.setattr(mien.jobs.predict, "load", load)
    some = (drawn, "--robustness", "--corruptions", "jpeg", "--severities", "1", "--bootstraps", 100)
    baseline = run(*some, "-o", tmp_path / "a", "--baseline", "1.5")
    assert "caution: grey 1.5: it learnt from" in baseline.stderr
    assert "caution: grey 1:" not in baseline.stderr
    page = (tmp_path / "a" / "robustness.html").read_text(encoding="utf-8")
    assert "<dt>Caution, baseline</dt><dd>it learnt from" in page
    assert "<dt>Caution</dt>" not in page
    assert run(*some, "-o", tmp_path / "b", "--model", "1.5").stderr.count("caution") == 1
    assert "<dt>Caution</dt><dd>it learnt from" in (tmp_path / "b" / "robustness.html").read_text(encoding="utf-8")


def test_the_worst_corruptions_are_named_in_order_though_one_leaves_no_face(capsys: pytest.CaptureFixture[str]) -> None:
    def told(value: float) -> dict[str, float]:
        return {"value": value, "low": value, "high": value, "n": 9}

    drops = {"jpeg": 1.0, "fog": float("nan"), "gamma_dark": 9.0, "noise": 2.0, "blur": 5.0}
    part = {
        "figure": "mae",
        "clean": told(3.0),
        "summary": {},
        "corruptions": {name: {"drop": told(value)} for name, value in drops.items()},
        "worst_group": {},
    }
    about = {"model": "m", "split": "val", "faces": 9, "baseline": None}
    _print_table({"about": about, "tasks": {"age": part}})
    assert "age: loses most by gamma_dark +9.00, blur +5.00, noise +2.00\n" in capsys.readouterr().out


def test_the_help_tells_how_a_limit_draws_faces() -> None:
    app = typer.Typer()
    app.command()(audit)
    (limit,) = (option for option in typer.main.get_command(app).params if "--limit" in option.opts)
    told = getattr(limit, "help", "")
    assert "with --robustness in the proportions of the split, with --ageing even over ages, genders and races" in told


def test_without_a_folder_it_lies_at_the_manifest(run: Any, drawn: Path) -> None:
    arguments = ("--robustness", "--corruptions", "jpeg", "--severities", 3, "--bootstraps", 100, "--split", "test")
    assert run(drawn, *arguments).exit_code == 0
    assert (drawn / "robustness.test" / "robustness.json").is_file()
    other = run(drawn, *arguments, "--model", "2")
    assert other.exit_code == 2
    assert "holds another audit: different are the model" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no audit is named; say which with --robustness"),
        (["--robustness", "--corruptions", "jepg"], "did you mean 'jpeg'?"),
        (["--robustness", "--severities", "1,x"], "--severities '1,x': expected whole numbers from 1 to 5"),
        (["--robustness", "--severities", "7"], "severity 7: expected some of 1, 2, 3, 4, 5"),
        (["--robustness", "--split", "vall"], "unknown split 'vall'"),
        (["--robustness", "--photos", "--detector", "cascad"], "did you mean 'cascade'?"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run: Any, drawn: Path, arguments: list[str], message: str) -> None:
    result = run(drawn, *arguments)
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("mien: ")
    assert message in last


def test_options_of_the_other_audit_and_places_that_cannot_be_written_are_refused(
    run: Any, drawn: Path, tmp_path: Path
) -> None:
    for given, message in (
        (("--robustness", "--against", "x", "--told"), "--against, --told: only --ageing has a use for it"),
        (("--robustness", "--ages", "20,30"), "--ages: only --ageing"),
        (("--robustness", "--detector", "uniface", "--landmarker", "none"), "--detector, --landmarker: only --photos"),
        (("--ageing", "face-ages", "--baseline", "x"), "--baseline: only --robustness"),
        (("--ageing", "face-ages", "--severities", "1"), "--severities: only --robustness"),
    ):
        result = run(drawn, *given)
        assert result.exit_code == 2
        assert message in result.stderr
    (tmp_path / "file").touch()
    result = run(drawn, "--robustness", "-o", tmp_path / "file")
    assert (result.exit_code, "is a file, where a folder is to be written" in result.stderr) == (2, True)
    assert run(drawn, "--robustness", "--seed", -1).exit_code == 2


def test_faces_without_labels_are_refused_before_any_pass(run: Any, drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    columns = [name for name in manifest.table.column_names if not name.startswith("age")]
    bare = Manifest(manifest.table.select(columns), manifest.root, manifest.crop)
    bare.save(tmp_path / "bare")
    result = run(tmp_path / "bare", "--robustness")
    assert result.exit_code == 2
    assert "has a label that grey 1 tells (age)" in result.stderr
