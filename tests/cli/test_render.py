"""`mien render` from its command line, with a tiny beta-VAE of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from mien.cli.console import one_line_errors
from mien.cli.render import render
from mien.data.drawing.face import draw
from mien.data.sources.drawn import sample
from mien.faces import Crop
from mien.jobs.inputs import name_of
from mien.models.beta_vae import BetaVae, BetaVaeSettings
from mien.models.checkpoint import save_renderer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    vae = BetaVae(BetaVaeSettings(size=32, width=8, id_dims=4), Crop("chip"))
    for name, parameter in vae.named_parameters():
        if "modulation" in name or "conv2" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    vae.name, vae.ages = "tiny", (2.0, 80.0)
    folder = tmp_path_factory.mktemp("model")
    save_renderer(folder, vae)
    return folder


@pytest.fixture
def crop(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "one.png"
    path.parent.mkdir()
    Image.fromarray(draw(sample(5, 1), 40)[0].transpose(1, 2, 0)).save(path)
    return path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(one_line_errors(render))
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_ten_ages_of_a_crop_and_the_same_bytes_again(
    model: Path, crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(crop, "--model", model, "--crops", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    folder = Path("renders/one")
    assert result.stdout.split() == [str(folder / "part-000000" / "000000-0-strip.png")]
    assert "what it shows at 85, 95 is a guess" in result.stderr
    made = sorted(folder.glob("part-000000/*-age-*.png"))
    assert [path.stem[-3:] for path in made] == [f"{age:03d}" for age in range(5, 96, 10)]
    assert len({path.read_bytes() for path in made}) == 10
    again = run(crop, "-m", model, "--crops", "-o", "again", "--device", "cpu")
    assert again.exit_code == 0
    for path in made:
        assert path.read_bytes() == (Path("again/part-000000") / path.name).read_bytes()
    # Other ages of the same picture lie beside them; the first, asked for again, are there already.
    other = run(crop, "--model", model, "--crops", "--device", "cpu", "--ages", "20,40")
    assert other.exit_code == 0, other.stderr
    assert other.stdout.split() == [str(Path("renders/one-2/part-000000/000000-0-strip.png"))]
    third = run(crop, "--model", model, "--crops", "--device", "cpu", "--ages", "30", "--json")
    assert json.loads(third.stdout)["folder"] == str(Path("renders/one-3"))
    before = made[0].stat().st_mtime_ns
    same = run(crop, "--model", model, "--crops", "--device", "cpu")
    assert same.stdout == result.stdout
    assert made[0].stat().st_mtime_ns == before
    assert sorted(path.name for path in Path("renders").iterdir()) == ["one", "one-2", "one-3"]


def test_an_aimed_renderer_says_so_and_is_another_job(model: Path, crop: Path, tmp_path: Path) -> None:
    asked = (crop, "--model", model, "--crops", "--device", "cpu", "--ages", "20,70", "-o", tmp_path / "out")
    result = run(*asked, "--aim", "face-mobile", "--strength", 2, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["model"] == "tiny, aimed by face-mobile"
    picture = tmp_path / "out" / told["renders"][0]["picture"]
    assert "tiny, aimed by face-mobile" in Image.open(picture).text["Description"]  # type: ignore[attr-defined]
    again = run(*asked)
    assert again.exit_code == 2
    assert "another" in again.stderr
    assert "unknown model 'nobody'" in run(*asked, "--aim", "nobody").stderr


def test_json_tells_each_render(model: Path, crop: Path, tmp_path: Path) -> None:
    more = ("--ages", "20,40", "--grid", "--gif", "--device", "cpu")
    result = run(crop.parent, "-m", model, "--crops", *more, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    assert (told["model"], told["faces"], told["ages"], told["beyond"]) == ("tiny", 1, [20, 40], [])
    assert [row["age"] for row in told["renders"]] == [20, 40]
    assert len(told["renders"][0]["sha256"]) == 64
    for key in ("picture", "strip", "gif", "source_picture"):
        assert (tmp_path / "out" / told["renders"][0][key]).is_file()
    assert Path(told["grid"]).is_file()


def test_no_face_is_said_in_one_line_each(model: Path, tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    Image.fromarray(np.full((64, 64, 3), 128, dtype=np.uint8)).save(blank)
    result = run(blank, "-m", model, "-o", tmp_path / "out", "--landmarker", "none", "--device", "cpu")
    assert result.exit_code == 2
    assert f"no face found in {blank}" in result.stderr
    assert "if they are face crops, add --crops" in result.stderr.splitlines()[-1]


def test_a_wrong_age_or_model_is_one_line(model: Path, crop: Path, tmp_path: Path) -> None:
    result = run(crop, "-m", model, "--crops", "--ages", "5-95", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "expected FIRST:LAST:STEP such as 5:95:10" in result.stderr
    result = run(crop, "-m", "nothing", "--crops", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1


def test_of_several_ranks_the_first_tells(
    model: Path, crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("-m", model, "--crops", "--ages", "20,40", "-o", tmp_path / "out", "--device", "cpu")
    assert run(crop, *options).exit_code == 0
    (tmp_path / "out" / "renders.parquet").unlink()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run(crop, *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert not (tmp_path / "out" / "renders.parquet").exists()


def test_what_is_made_is_named_after_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "album" / "sub").mkdir(parents=True)
    (tmp_path / "album" / "sub" / "utk").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "album" / "sub")
    assert name_of("utk") == "utk"
    assert [name_of(given) for given in ("..", ".", "../one.jpg", "../*.jpg", "/")] == [
        *("album", "sub", "one", "faces", "faces")
    ]


def test_renders_below_the_photos_are_no_inputs_of_the_next_time(model: Path, crop: Path) -> None:
    out = crop.parent / "older"
    for _ in range(2):
        found = json.loads(run(crop.parent, "-m", model, "--crops", "--ages", "20", "-o", out, "--json").stdout)
        assert found["pictures"] == 1
