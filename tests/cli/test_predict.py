"""`mien predict` from its command line, asking a model whose answers can be computed by hand."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from skimage import data
from torch import nn
from typer.testing import CliRunner, Result

import mien.jobs.draw
import mien.jobs.predict
from mien.cli.console import one_line_errors
from mien.cli.predict import predict
from mien.errors import PictureError
from mien.faces import Crop
from mien.jobs.predict import Model


class Grey(nn.Module):
    """Age is brightness in percent, give or take a tenth of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks = nn.ModuleDict({"age": nn.Identity()})
        self.states: dict[str, Any] = {"age": {"conformal": {}}}
        self.crop, self.input_size, self.name = Crop("chip"), 32, "grey"
        self.branch = None
        self.settings: dict[str, Any] = {}

    def predict(self, images: Any) -> dict[str, np.ndarray]:
        age = images.float().mean(dim=(1, 2, 3)).numpy() / 2.55
        return {"age": age, "age_low": age * 0.9, "age_high": age * 1.1}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(mien.jobs.predict, "load", lambda model, device: Model(Grey()))  # type: ignore[arg-type]
    app = typer.Typer()
    app.command()(one_line_errors(predict))

    def call(*arguments: object, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for level in (51, 102, 204):
        Image.new("RGB", (40, 40), (level,) * 3).save(tmp_path / "in" / f"{level}.png")
    return tmp_path / "in"


def test_all_formats_tell_the_same(run: Any, folder: Path, tmp_path: Path) -> None:
    result = run(folder, "--crops", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["model"], told["pictures"], told["faces"], told["unreadable"]) == ("grey", 3, 3, 0)
    rows = told["predictions"]
    assert [row["age"] for row in rows] == pytest.approx([40, 80, 20], abs=1e-3)  # 102, 204, 51 by name
    assert [Path(row["input"]).name for row in rows] == ["102.png", "204.png", "51.png"]

    table = list(csv.DictReader(io.StringIO(run(folder, "--crops", "--csv").stdout)))
    assert [float(row["age_low"]) for row in table] == [row["age_low"] for row in rows]
    assert table[0]["box" if "box" in table[0] else "left"] == ""

    assert run(folder, "--crops", "--parquet", tmp_path / "out.parquet").exit_code == 0
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == rows

    assert run(folder, "--crops", "-o", tmp_path / "job").exit_code == 0
    assert pq.read_table(tmp_path / "job").to_pylist() == rows
    again = run(folder, "--crops", "-o", tmp_path / "job", "--json")
    assert json.loads(again.stdout)["predictions"] == rows


def test_names_that_break_lines_break_no_csv(run: Any, tmp_path: Path) -> None:
    names = sorted(["a\rb.png", "a\nb.png", "a\r\nb.png", 'a,"b.png', "end\r\n.png"])
    for name in names:
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    told = run(tmp_path, "--crops", "--csv").stdout_bytes.decode()  # `stdout` is told with other ends of lines
    assert [Path(row["input"]).name for row in csv.DictReader(io.StringIO(told, newline=""))] == names
    assert told.splitlines(keepends=True)[0].endswith("error\n")


def test_the_table_shows_ages_intervals_and_abstentions(run: Any, folder: Path) -> None:
    shown = run(folder, "--crops", "--max-width", "10").stdout
    assert "40 (36-44)" in shown
    assert "abstains (interval 72-88)" in shown


def test_failures_are_listed_and_no_error_while_anything_was_read(run: Any, folder: Path) -> None:
    (folder / "bad.jpg").write_bytes(b"no picture")
    result = run(folder, "gone.png", "--crops", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["unreadable"] == 2
    assert "gone.png: no such file" in result.stderr
    assert "bad.jpg: no picture" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.png"], "none of 1 pictures could be read"),
        (["*.nothing"], "no picture matches"),
        (["-"], "standard input is empty"),
        (["x.png", "--json", "--csv"], "exclude each other"),
        (["x.png", "--detector", "cascad"], "did you mean 'cascade'"),
        (["x.png", "--tasks", "age,weight"], "unknown task 'weight'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run: Any, arguments: list[str], message: str) -> None:
    result = run(*arguments, stdin="")
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("mien: ")
    assert message in last


def test_paths_come_from_standard_input(run: Any, folder: Path) -> None:
    paths = f"{folder / '204.png'}\n\n{folder / '51.png'}\r\n"
    rows = json.loads(run("-", "--crops", "--json", stdin=paths).stdout)["predictions"]
    assert [round(row["age"]) for row in rows] == [80, 20]


def test_a_name_that_is_no_text_is_read_and_drawn(run: Any, folder: Path, tmp_path: Path) -> None:
    odd = os.path.join(os.fsencode(folder), b"caf\xe9.png")
    try:
        (folder / "51.png").rename(os.fsdecode(odd))
    except OSError:
        pytest.skip("this file system takes no such names")
    for inputs, stdin in ((folder, None), ("-", odd + b"\n")):
        result = run(inputs, "--crops", "--json", "--draw", tmp_path / "drawn", stdin=stdin)
        assert result.exit_code == 0, result.stderr
        rows = json.loads(result.stdout)["predictions"]
        assert [round(row["age"]) for row in rows if "caf\\udce9" in row["input"]] == [20]
        assert (tmp_path / "drawn" / "caf_faces.jpg").exists()
        (tmp_path / "drawn" / "caf_faces.jpg").unlink()


def test_photos_are_drawn_legibly_large_and_small(run: Any, tmp_path: Path) -> None:
    photo = Image.fromarray(data.astronaut())
    photo.save(tmp_path / "photo.png")
    photo.crop((100, 20, 340, 260)).resize((120, 120)).save(tmp_path / "small.png")
    (tmp_path / "two").mkdir()
    photo.save(tmp_path / "two" / "photo.png")
    inputs = [tmp_path / "photo.png", tmp_path / "small.png", tmp_path / "two" / "photo.png"]
    result = run(*inputs, "--draw", tmp_path / "drawn", "--landmarker", "none", "--json")
    assert json.loads(result.stdout)["faces"] == 3
    assert "unaligned" in result.stderr
    names = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert names == ["photo_faces.jpg", "photo_faces_2.jpg", "small_faces.jpg"]
    drawn = np.asarray(Image.open(tmp_path / "drawn" / "photo_faces.jpg")).astype(int)
    assert drawn.shape == data.astronaut().shape
    changed = np.abs(drawn - data.astronaut()).max(axis=2) > 60
    ys, xs = np.nonzero(changed)
    assert 100 < xs.min() < xs.max() < 340  # nothing but the face's surroundings is drawn on
    assert ys.max() < 250
    orange = (np.abs(drawn - [230, 159, 0]).max(axis=2) < 30).sum()
    assert orange > 1000  # the label's ground and the frame
    assert min(Image.open(tmp_path / "drawn" / "small_faces.jpg").size) >= 480


def test_importing_mien_and_its_command_loads_nothing_heavy() -> None:
    code = (
        "import sys, mien, mien.cli.predict; "
        "heavy = {'torch', 'torchvision', 'timm', 'skimage', 'matplotlib', 'pyarrow', 'numpy', 'PIL'}; "
        "assert 'load' in dir(mien) and not heavy & set(sys.modules), heavy & set(sys.modules); "
        "import mien.errors; assert mien.MienError is mien.errors.MienError"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        mien.lode  # noqa: B018


def test_a_picture_that_cannot_be_drawn_costs_its_drawing_alone(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, long = tmp_path / "photos", "長" * 80
    photos.mkdir()
    for name in ("a", long):
        Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(photos / f"{name}.png")
    result = run(photos, "--crops", "--json", "--draw", tmp_path / "drawn")
    assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "drawn").glob("*_faces.jpg"))) == 2
    true, failed = mien.jobs.draw.draw_faces, []

    def once(image: np.ndarray, rows: Any) -> np.ndarray:
        if not failed:
            failed.append(1)
            raise PictureError("gone since")
        return true(image, rows)

    monkeypatch.setattr(mien.jobs.draw, "draw_faces", once)
    result = run(photos, "--crops", "--json", "--draw", tmp_path / "again")
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["predictions"]) == 2
    assert len(list((tmp_path / "again").glob("*_faces.jpg"))) == 1
    assert "not drawn: " in result.stderr
    assert "gone since" in result.stderr

    def never(image: np.ndarray, rows: Any) -> np.ndarray:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mien.jobs.draw, "draw_faces", never)
    result = run(photos, "--crops", "--json", "--draw", tmp_path / "full")
    assert result.exit_code == 2
    assert len(json.loads(result.stdout)["predictions"]) == 2
    assert "none of 2 pictures with a face could be drawn" in result.stderr


def test_drawings_below_the_photos_are_no_inputs_of_the_next_time(run: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(photos / "a.png")
    for _ in range(2):
        found = json.loads(run(photos, "--crops", "--json", "--draw", photos / "marked").stdout)
        assert found["pictures"] == 1
    result = run(photos, "--crops", "--draw", photos)
    assert (result.exit_code, "is read, and pictures are to be written to it" in result.stderr) == (2, True)
    result = run(photos, "--crops", "--parquet", photos)
    assert (result.exit_code, "is a folder; name a file" in result.stderr) == (2, True)


def test_a_zero_byte_in_a_path_is_said(run: Any, folder: Path, tmp_path: Path) -> None:
    result = run("-", "--crops", "--json", stdin="a.png\0b.png\n")
    assert result.exit_code == 2
    assert "expected one path a line" in result.stderr
    result = run("-", "--crops", "-o", tmp_path / "job", stdin=f"a.png\0b.png\n{folder / '51.png'}\n")
    assert result.exit_code == 0, result.stderr
    assert "expected one path a line" in result.stderr


def test_folders_that_are_written_are_left_out_of_globs_and_behind_links(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(photos / "a.png")
    (tmp_path / "away").mkdir()
    (photos / "marked").symlink_to(tmp_path / "away")
    for _ in range(2):
        assert json.loads(run(photos, "--crops", "--json", "--draw", photos / "marked").stdout)["pictures"] == 1
    monkeypatch.chdir(photos)
    result = run("*.png", "--crops", "--json", "--draw", ".")
    assert (result.exit_code, "are to be written there" in result.stderr) == (2, True)
    asked = ("**/*.*", "--crops", "--json", "--draw", "below")
    first, second = (json.loads(run(*asked).stdout)["pictures"] for _ in range(2))
    assert first == second == 2  # that, and what the line before drew
