"""`mien caption` from its command line, on drawn faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mien.cli.caption import caption
from mien.errors import MienError
from mien.models import learnt_language
from mien.models.language import HashedLanguage


def test_the_language_is_on_the_device_too(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def build(given: str, width: int | None = None, device: str = "somewhere") -> HashedLanguage:
        asked.append((given, width, device))
        return HashedLanguage(6, 4)

    monkeypatch.setattr(learnt_language, "build_language", build)
    app = typer.Typer()
    app.command()(caption)
    arguments = [str(drawn), "-o", str(tmp_path), "--language", "clip", "--device", "cpu"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert asked == [("clip", None, "cpu")]
    assert (tmp_path / "captions.safetensors").is_file()


def test_a_language_that_is_not_there_is_refused_before_any_caption(drawn: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(caption)
    found = CliRunner().invoke(app, [str(drawn), "-o", str(tmp_path / "words"), "--language", str(tmp_path / "no")])
    assert isinstance(found.exception, MienError)
    assert not (tmp_path / "words").exists()
