"""`mien prepare` as its users type it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from mien.cli.console import one_line_errors
from mien.cli.prepare import prepare
from mien.data.manifest import Manifest

app = typer.Typer()
app.command()(one_line_errors(prepare))


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def test_drawn_faces_and_a_table_of_what_was_made(tmp_path):
    result = run("drawn", "-o", tmp_path / "out", "-n", 40, "--each", 2, "--size", 32, "--seed", 5)
    assert result.exit_code == 0, result.output
    manifest = Manifest.open(tmp_path / "out")
    assert len(manifest) == 40
    assert len(set(manifest.strings("person"))) == 20
    words = result.stdout.replace("│", " ").split()
    assert words[words.index("rejected") - 1] == "40"
    for word in ("age", "expression", "train", "select", "val", "test"):
        assert word in words
    assert "mien inspect" in result.stderr


def test_json_is_one_object_and_nothing_else(tmp_path):
    result = run("drawn", "-o", tmp_path / "out", "-n", 20, "--size", 32, "--json")
    facts = json.loads(result.stdout)
    assert result.stderr == ""
    assert facts["faces"] == sum(facts["splits"].values()) == facts["labels"]["age"] == 20
    assert facts["crop"] == {"template": "chip", "margin": 0.0, "size": 32}
    assert facts["rejected"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["utkfase", "x"], "unknown source 'utkfase'; did you mean 'utkface'? (known: affect,"),
        (["utkface"], "source utkface needs the PATH of its data"),
        (["utkface", "{tmp}/none"], "is not there; give a folder, a zip or a tar"),
        (["utkface", "{tmp}", "--labels", "x.csv"], "source utkface takes no --labels; folder does"),
        (["fgnet", "{tmp}", "-n", "3"], "source fgnet takes no --count; drawn does"),
        (["folder", "{tmp}"], "no face of source folder in"),
        (["folder", "{tmp}", "--crop", "chop"], "unknown crop 'chop'; did you mean 'chip'?"),
        (["folder", "{tmp}", "--splits", "none.csv"], "none.csv is not there"),
        (["folder", "{tmp}"], "no face of"),
        (["drawn", "-n", "0"], "0 drawn faces"),
        (["drawn", "--each", "0"], "0 of each person"),
        (["drawn", "--match", "colours"], "unknown --match 'colours'; did you mean 'colour'?"),
        (["drawn", "--thresholds", "{tmp}/none.yaml"], "No such file or directory: "),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path, arguments, message):
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    result = run(*filled, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("mien: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "faces.parquet").exists()


def test_importing_the_command_loads_nothing_heavy():
    code = (
        "import sys, mien.cli.prepare; "
        "print([name for name in ('torch', 'numpy', 'pyarrow', 'PIL') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_what_would_do_nothing_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for given, message in (
        (("drawn", tmp_path, "-n", 5), "draws its faces and reads none: leave"),
        (("drawn", "-n", 5, "--seed", -1), "--seed"),
    ):
        result = run(*given, "-o", tmp_path / "out")
        assert result.exit_code == 2
        assert message in result.stderr
    result = run("drawn", "-n", 5, "-o", tmp_path / "file")
    assert (result.exit_code, "is a file, where a folder is to be written" in result.stderr) == (2, True)


def test_reasons_that_are_not_shown_are_counted(tmp_path):
    run("drawn", "-n", 20, "--size", 32, "-o", tmp_path / "drawn")
    names = Manifest.open(tmp_path / "drawn").strings("path")
    rows = [f"{name},{at + 0.5 if at < 9 else f'{at},5'}" for at, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("path;age\n" + "\n".join(rows).replace(".png,", ".png;") + "\n")
    result = run(
        "folder",
        tmp_path / "drawn" / "pictures.zip",
        "--crop",
        "chip",
        "--labels",
        tmp_path / "labels.csv",
        "-o",
        tmp_path / "out",
    )
    assert result.exit_code == 0, result.output
    assert "column age: '9,5' is no number; write 9.5" in result.stdout
    assert ["3", "other", "reasons", "(rejected.csv)", "3"] in [
        line.replace("│", " ").split() for line in result.stdout.splitlines()
    ]
