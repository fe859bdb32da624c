"""`mien join` from its command line, on networks of random weights and drawn faces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from mien.cli.console import one_line_errors
from mien.cli.join import join
from mien.faces import Crop
from mien.models.checkpoint import load_estimator, save_estimator
from mien.models.estimator import ModelSettings, build_estimator
from mien.tasks.face import TasksSettings

pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        settings = ModelSettings(backbone="test_resnet", input_size=32)
        folders.append(tmp_path_factory.mktemp("model"))
        estimator = build_estimator(settings, TasksSettings(), Crop("chip"))
        estimator.states = {"age": {"temperature": 2.0}}
        save_estimator(folders[-1], estimator)
    return folders


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(one_line_errors(join))
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_two_models_become_one_that_is_calibrated_and_judged(models: list[Path], drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    result = run(*models, "-o", out, "--faces", drawn, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["parts"] == [str(model) for model in models]
    assert told["age"]["mae"] == json.loads((out / "metrics.val.json").read_text())["age"]["mae"]
    joined = load_estimator(out)
    assert joined.name == "both"
    assert "conformal" in joined.states["age"]
    assert sum(value.numel() for value in joined.parameters()) == told["parameters"]
    assert (out / "report.html").is_file()

    again = run(*models, "-o", out)
    assert again.exit_code == 2
    assert f"{out}: not empty; name a new folder with -o" in again.stderr


def test_without_faces_nothing_of_the_parts_calibration_is_kept(models: list[Path], tmp_path: Path) -> None:
    result = run(*models, "-o", tmp_path / "both")
    assert result.exit_code == 0, result.stderr
    assert "not calibrated" in result.stderr
    assert load_estimator(tmp_path / "both").states == {}
