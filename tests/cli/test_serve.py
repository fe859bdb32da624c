"""`mien serve` from its command line: it serves until it is told to end, and says in one line why it cannot."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import mien.web.app
from mien.cli.console import one_line_errors
from mien.cli.serve import serve


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made: what is left over can be seen."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(one_line_errors(serve))
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end(
    number: signal.Signals, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a page open; the folder of gradio is gone at the end, and so are the pictures in it."""
    import httpx

    seen: dict[str, Any] = {}
    build = mien.web.app.build_app

    def told(service: Any, shipped: Any, local: bool) -> Any:
        assert local
        seen["folder"] = Path(os.environ["GRADIO_TEMP_DIR"])
        seen["models"] = [row["name"] for row in (*service.answering(), *shipped)]
        threading.Thread(target=visit, daemon=True).start()
        return build(service, shipped, local)

    def visit() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            for _ in range(300):
                try:
                    seen["page"] = client.get("/").text
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            with client.stream("GET", "/gradio_api/heartbeat/page") as heart:
                lines = heart.iter_lines()
                next(lines)
                os.kill(os.getpid(), number)
                for _ in lines:  # until the server ends it
                    pass
            seen["let go"] = True

    monkeypatch.setattr(mien.web.app, "build_app", told)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    before = signal.getsignal(signal.SIGTERM)
    result = run("--port", port, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"mien serve: http://127.0.0.1:{port} (Ctrl-C ends it)\n"
    assert result.stderr == "mien serve: ended; no picture is kept\n"
    assert {"face-mobile", "face-affect", "face-ages"} <= set(seen["models"])
    assert "Decide nothing about a person" in seen["page"]
    assert seen["let go"]
    assert seen["folder"].parent == temporary
    assert not seen["folder"].exists()
    assert "GRADIO_TEMP_DIR" not in os.environ
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_port_in_use_is_one_line_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("--port", port)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"mien: port {port} of 127.0.0.1 is in use")
    assert result.stderr.strip().endswith(f"take another: --port {port + 1}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nobody"], "unknown model 'nobody'"),
        (
            ["--renderer", "face-mobile"],
            "holds an estimator, which `mien predict` takes; expected a beta-VAE or an AgeTransformer",
        ),
        (["--detector", "cascad"], "did you mean 'cascade'"),
        (["--host", "192.0.2.1"], "host '192.0.2.1' is no address of this machine"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = run("--port", 0, "--device", "cpu", *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("mien: ")
    assert message in line


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = run("--port", 0)
    assert result.exit_code == 2
    assert result.stderr == "mien: gradio is not installed; in mien's folder, run: pip install '.[web]'\n"


def test_neither_the_command_nor_what_it_imports_first_brings_gradio_or_torch() -> None:
    heavy = ("gradio", "torch", "fastapi", "numpy")
    code = f"import sys, mien.cli.serve, mien.web.app; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
