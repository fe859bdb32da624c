"""`mien export` from its command line: what it prints, and that what it prints works."""

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from mien.cli.console import one_line_errors
from mien.cli.export import calling, export
from mien.faces import Crop
from mien.jobs.predict import load
from mien.models.checkpoint import save_estimator
from mien.models.estimator import ModelSettings, build_estimator
from mien.models.exported import Exported, graph_of
from mien.tasks.face import TasksSettings


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(one_line_errors(export))
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tasks = TasksSettings.model_validate({"race": None, "age": None, "valence": {}})
    settings = ModelSettings(backbone="test_resnet", input_size=32, landmarks=True)
    estimator = build_estimator(settings, tasks, Crop("chip"))
    for task in estimator.tasks.values():
        for parameter in task.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)
    estimator.name, estimator.card = "tiny", {"terms": "yours"}
    folder = tmp_path_factory.mktemp("model")
    save_estimator(folder, estimator)
    return folder


def test_the_lines_that_are_printed_answer_as_predict_does(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("-m", checkpoint, "-o", "tiny.onnx")
    assert result.exit_code == 0, result.output
    assert result.stderr == "written: tiny.onnx\n"
    title, *table = result.stdout.splitlines()
    assert title.startswith(f"tiny: {(tmp_path / 'tiny.onnx').stat().st_size / 1e6:.2f} MB; on 4 random faces off")
    assert any("probabilities of Male, Female" in line and "0.0005" in line for line in table)

    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save("crop.png")
    names: dict[str, Any] = {}
    exec("\n".join(table[-3:]), names)
    (expected,) = load(checkpoint, "cpu").predict("crop.png", crops=True, landmarker=None)
    assert names["valence"] == pytest.approx([expected.valence], abs=1e-4)
    assert names["gender"][0] == pytest.approx(list(expected.probabilities["gender"].values()), abs=1e-4)
    assert abs(names["valence"][0]) > 0.01


def test_the_page_shows_the_same_lines() -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    graph = graph_of(None)
    made = Exported(Path("face-mobile.onnx"), 0, graph.facts, graph.inputs, graph.outputs, {})
    assert ast.dump(ast.parse(shown)) == ast.dump(ast.parse(calling(made)))


def test_json_is_one_object(checkpoint: Path, tmp_path: Path) -> None:
    result = run("-m", checkpoint, "-o", tmp_path / "new" / "some.onnx", "--tasks", "gender", "--json")
    told = json.loads(result.stdout)
    assert (told["model"], told["terms"], told["crop"]["size"]) == ("tiny", "yours", 32)
    assert told["bytes"] == Path(told["path"]).stat().st_size
    assert told["classes"] == {"gender": ["Male", "Female"]}
    assert [port["name"] for port in told["inputs"]] == ["images", "landmarks"]
    (output,) = told["outputs"]
    assert output["shape"] == ["batch", 2]
    assert output["difference"] < output["tolerance"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "model.pt"], "ends in .onnx"),
        (["-o", "x.onnx", "-m", "face-mobil"], "did you mean 'face-mobile'"),
        (["-o", "x.onnx", "-m", "face-landmarks"], "expected an estimator or an AgeTransformer"),
        (["-o", "x.onnx", "--tasks", "age,weight"], "unknown task 'weight'"),
        (["-o", "x.onnx", "--tasks", ","], "no task is asked for"),
        (["-o", "x.onnx", "-m", "face-ages", "--tasks", "age"], "has no tasks"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("mien: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run("-o", tmp_path / "x.onnx")
    assert result.exit_code == 2
    assert result.stderr == "mien: onnxruntime is not installed; in mien's folder, run: pip install '.[export]'\n"
