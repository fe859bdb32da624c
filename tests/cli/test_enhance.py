"""`mien enhance`, `mien caption` and `mien models` from their command lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from mien.cli.caption import caption
from mien.cli.console import one_line_errors
from mien.cli.enhance import enhance
from mien.cli.models import models
from mien.data.drawing.face import draw
from mien.data.manifest import Manifest
from mien.data.sources.drawn import sample
from mien.jobs.known import KNOWN, place


def run(command: object, *arguments: object) -> Result:
    app = typer.Typer()
    app.command()(one_line_errors(command))  # type: ignore[arg-type]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    Image.fromarray(draw(sample(5, 1), 40)[0].transpose(1, 2, 0)).save(tmp_path / "in" / "one.png")
    (tmp_path / "in" / "two.png").write_bytes(b"no picture")
    return tmp_path / "in"


def test_enhance(photos: Path, upscaler_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    options = ("--upscaler", upscaler_weights, "--device", "cpu", "-o", tmp_path / "out")
    result = run(enhance, photos, *options)
    assert result.exit_code == 0, result.stderr
    assert "1 of 2 pictures enhanced, 0 of 0 grey ones coloured, 1 failed" in result.stdout
    assert "two.png: no picture: it begins with" in result.stderr
    assert Image.open(tmp_path / "out" / "part-000000" / "000000.png").size == (160, 160)
    told = json.loads(run(enhance, photos, *options, "--json").stdout)  # the second time, nothing is left to do
    assert (told["enhanced"], len(told["failed"])) == (1, 1)
    (photos / "one.png").unlink()
    alone = run(enhance, photos, "--upscaler", upscaler_weights, "-o", tmp_path / "none", "--device", "cpu")
    assert alone.exit_code == 2
    assert "none of 1 pictures could be enhanced" in alone.stderr
    assert "x4plus: no such file of weights, nor a name" in run(enhance, photos, "--upscaler", "x4plus").stderr


def test_caption(drawn: Path, tmp_path: Path) -> None:
    result = run(caption, drawn, "-o", tmp_path / "out", "--language", "hashed", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["captioned"] == told["faces"] == len(Manifest.open(drawn))
    assert Path(told["embeddings"]).name == "captions.safetensors"
    line = json.loads(Path(told["captions"]).read_text().splitlines()[0])
    assert line["caption"].startswith("photo of a ")


def test_models_lists_what_ships_and_what_can_be_had(tmp_path: Path) -> None:
    told = json.loads(run(models, "--json").stdout)
    assert {"face-mobile", "face-landmarks"} <= {row["name"] for row in told["models"]}
    assert all(len(row["sha256"]) == 64 and row["terms"] for row in told["models"])
    assert [row["name"] for row in told["known"]] == [weights.name for weights in KNOWN]
    table = run(models).stdout
    assert "realesr-general-x4v3" in table
    assert "commercial use" in table


def test_models_get_fetches_or_says_why_not(tmp_path: Path) -> None:
    wrong = tmp_path / "face_detection_yunet_2023mar.onnx"
    wrong.write_bytes(b"another file")
    result = run(models, "get", "yunet", "--from", tmp_path, "--into", tmp_path / "kept")
    assert result.exit_code == 2
    size, error = result.stderr.splitlines()
    assert size == f"yunet: 0.2 MB; MIT; commercial use allowed; from {wrong}"
    assert "is not what it should be" in error
    assert run(models, "put").stderr.startswith("mien: unknown action 'put' in mien models (known: get)")
    assert "name what to fetch" in run(models, "get").stderr
    unchecked = tmp_path / "pytorch_model.pt"
    unchecked.write_bytes(b"weights")
    result = run(models, "get", "ddcolor", "--from", tmp_path, "--into", tmp_path / "kept", "--json")
    there = place(KNOWN[2], tmp_path / "kept")
    assert json.loads(result.stdout) == {"name": "ddcolor", "path": str(there)}
    assert there.read_bytes() == b"weights"
    assert "not checked; this file's sha256 is" in result.stderr
