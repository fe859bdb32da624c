"""The command: one JSON object or tables on standard output, a page and a figure on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mien.cli import inspect as command
from mien.cli.console import one_line_errors
from mien.data.manifest import Manifest
from mien.faces import Crop, Face

app = typer.Typer()
app.command()(one_line_errors(command.inspect))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest of four faces: the first picture three times, once damaged, with other ages."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((80, 80), Image.BICUBIC)
    picture.save(tmp_path / "a.jpg", quality=95)
    picture.save(tmp_path / "b.jpg", quality=60)
    (tmp_path / "c.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:300])
    Image.fromarray(pixels[::-1, ::-1].copy()).resize((80, 80), Image.BICUBIC).save(tmp_path / "<d>.png")
    faces = [
        Face("a.jpg", age=(4, 4), gender="Male", race="Black", split="train"),
        Face("b.jpg", age=(40, 40), gender="Male", race="Black", split="val"),
        Face("c.jpg", age=(50, 50), gender="Female", race="White", split="train"),
        Face("<d>.png", age=(50, 59), gender="Female", race="White", split="val"),
    ]
    Manifest.from_faces(faces, tmp_path, Crop("chip")).save(tmp_path)
    return tmp_path


def test_tables_page_and_figure(folder: Path) -> None:
    result = CliRunner().invoke(app, [str(folder)])
    assert result.exit_code == 0, result.output
    for line in ("largest : smallest", "groups of the same picture", "whose labels disagree"):
        assert line in result.stdout
    assert "c.jpg" in result.stderr
    page = (folder / "inspect" / "inspect.html").read_text(encoding="utf-8")
    assert "4, Male, Black" in page
    assert "age: 36 years" in page
    assert page.count("data:image/jpeg;base64") == 2
    assert "<d>" not in page
    with Image.open(folder / "inspect" / "figures" / "dataset_analysis.png") as figure:
        assert figure.width > 1000


def test_feelings_votes_and_landmarks_are_told(folder: Path) -> None:
    votes = np.array([5, 5, 0, 0, 0, 0, 0, 0, 0, 0])
    faces = [
        Face("a.jpg", expression="Happy", valence=0.5, landmarks=np.full((68, 2), 90.0)),
        Face("<d>.png", expression_votes=votes),
    ]
    Manifest.from_faces(faces, folder, Crop("chip", 0.0, 80)).save(folder)
    result = CliRunner().invoke(app, [str(folder), "--no-duplicates"])
    assert result.exit_code == 0, result.output
    for line in ("valence", "tied", "some outside the picture"):
        assert line in result.stdout
    page = (folder / "inspect" / "inspect.html").read_text(encoding="utf-8")
    assert "tied 1, most raters unsure 0; on average 50.0 % of the votes agree" in page
    assert "some outside the picture 1, by more than a tenth of it 1" in page
    with Image.open(folder / "inspect" / "figures" / "affect_analysis.png") as figure:
        assert figure.width > 1000


def test_json_is_one_object_and_nothing_else(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_write_page", lambda *_: None)  # drawn above
    result = CliRunner().invoke(app, [str(folder / "faces.parquet"), "--json", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["faces"] == 4
    assert found["duplicates"]["groups"] == [["a.jpg", "b.jpg"]]
    assert found["duplicates"]["conflicting"][0]["differ"] == {"age": 36.0}
    assert found["duplicates"]["across_splits"] == [{"paths": ["a.jpg", "b.jpg"], "splits": ["train", "val"]}]
    assert [one["path"] for one in found["unreadable"]] == ["c.jpg"]
    assert json.loads((tmp_path / "out" / "inspect.json").read_text()) == found


def test_pictures_are_not_compared_when_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_write_page", lambda *_: None)
    result = CliRunner().invoke(app, [str(folder), "--json", "--no-duplicates"])
    assert json.loads(result.stdout)["duplicates"] is None


def test_no_manifest_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert "mien prepare" in result.stderr
