"""What every command shares: how it fails."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mien.cli.console import one_line_errors, print_json
from mien.cli.main import main
from mien.files import whole


def fails(command: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """The line that a command which `command` breaks leaves on standard error."""
    with pytest.raises(SystemExit) as stopped:
        one_line_errors(command)()
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_a_file_where_a_folder_is_wanted_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(b"a picture")

    def write() -> None:
        with whole(file / "deep/table.csv") as path:
            path.touch()

    said = f"mien: {file} is a file, where a folder is wanted"
    assert fails(lambda: file.mkdir(parents=True, exist_ok=True), capsys) == f"{said}; name another place\n"
    assert fails(write, capsys) == f"{said} for {file / 'deep'}; name another place\n"
    assert fails(lambda: (file / "x").read_bytes(), capsys) == f"{said} for {file / 'x'}; name another place\n"
    assert fails(lambda: (tmp_path / "none").read_bytes(), capsys) == (
        f"mien: No such file or directory: {tmp_path / 'none'}\n"
    )


def test_a_pipe_that_nobody_reads_ends_the_command_without_a_word() -> None:
    command = [sys.executable, "-m", "mien", "models", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (1, b"")


def test_sigterm_ends_a_command_as_ctrl_c_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @one_line_errors
    def command() -> None:
        with whole(tmp_path / "table.csv") as half:
            half.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    monkeypatch.setattr("mien.cli.main.app", command)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a second one ends it outright
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.code == 143
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err.startswith("mien: interrupted; ")


def test_a_command_whose_output_is_closed_does_its_work() -> None:
    command = [sys.executable, "-m", "mien", "models", "--json"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_folder_whose_name_is_no_utf8_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = fails(lambda: pq.read_schema(tmp_path / "caf\udce9"), capsys)
    assert said.startswith("mien: '")
    assert "caf\\udce9': a name that is no UTF-8" in said
    with pytest.raises(UnicodeEncodeError):
        one_line_errors(lambda: "é".encode("ascii"))()


def test_letters_that_the_terminal_lacks_end_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(told, encoding="ascii", write_through=True))
    monkeypatch.setattr("mien.cli.main.app", lambda: print("日"))
    main()
    print_json({"日": "é😀"})
    plain, as_json = told.getvalue().decode("ascii").splitlines()
    assert plain == r"\u65e5"
    assert json.loads(as_json) == {"日": "é😀"}
