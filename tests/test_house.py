"""The house keeps its shape: short files, few public names, a quick start, nothing fetched, honest pages."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer.main

import mien
from mien.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_no_file_is_longer_than_400_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / "src").rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_the_public_names_are_these() -> None:
    assert sorted(mien.__all__) == [
        *("Crop", "Face", "Manifest", "MienError", "Model", "PictureError", "Prediction", "load"),
    ]
    for name in mien.__all__:
        assert getattr(mien, name) is not None


def test_help_needs_nothing_heavy() -> None:
    heavy = ["torch", "timm", "torchvision", "matplotlib", "pyarrow", "accelerate", "skimage", "scipy", "pydantic"]
    heavy += ["gradio", "onnx", "onnxruntime"]
    code = f"import sys, mien.cli.main; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _commands() -> dict[str, click.Command]:
    group = typer.main.get_command(app)
    return dict(group.commands)  # type: ignore[attr-defined]


def test_every_command_explains_itself() -> None:
    for name, command in _commands().items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def _examples() -> list[tuple[str, str]]:
    """Every `mien ...` line of the pages' shell blocks."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.splitlines():
                match = re.match(r"(?:.*\s-m )?(?:\.venv/bin/)?mien (.*?)(?:\s{2,}#.*)?$", line.strip())
                if match:
                    found.append((page.name, match[1]))
    return found


@pytest.mark.parametrize(("page", "line"), _examples())
def test_the_commands_and_flags_on_the_pages_exist(page: str, line: str) -> None:
    name, *rest = line.split()
    commands = _commands()
    assert name in commands
    known = {option for parameter in commands[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        flag = re.match(r"\[?(--?[a-z][a-z-]*)", word)
        if flag:
            assert flag[1] in known, f"{page}: mien {name} has no {flag[1]}"


def test_links_between_pages_lead_somewhere() -> None:
    cards = (ROOT / "src/mien/weights").glob("*/README.md")
    for page in (
        *PAGES,
        *cards,
        *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/RESULTS.md")),
    ):
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            if target.startswith("http"):
                continue
            file, _, part = target.partition("#")
            there = page.parent / file if file else page
            assert there.exists(), f"{page.name}: {target}"
            if part:
                heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}
                assert part in slugs, f"{page.name}: {target}"


def test_nothing_downloads_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    from skimage.data import astronaut

    from mien.models.backbone import build_backbone

    build_backbone("resnet18")
    found = mien.load().predict(astronaut())
    assert found[0].box is not None


def test_a_users_mistake_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mien", "inspect", str(tmp_path / "nothing")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("mien: ")
    assert "nothing" in done.stderr
