"""The demo from end to end, made smaller."""

from __future__ import annotations

from pathlib import Path

import pytest

import mien.training.recipe as recipes
from mien.cli.demo import demo
from mien.errors import MienError

pytestmark = pytest.mark.usefixtures("unpainted")


def test_the_demo_goes_all_the_way_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = recipes.load_recipe
    monkeypatch.setattr(
        recipes, "load_recipe", lambda name, overrides: full(name, [*overrides, "training.epochs=1", "data.workers=0"])
    )
    demo(out=tmp_path / "demo", faces=200, seed=1)
    printed = capsys.readouterr()
    report = tmp_path / "demo" / "run" / "report.test.html"
    assert str(report) in printed.out
    assert report.is_file()
    assert "photo: a face at" in printed.out
    assert printed.out.count("  mien ") == 3
    assert "age MAE" in printed.err

    with pytest.raises(MienError, match="holds 200 faces of an earlier demo, with another number or seed"):
        demo(out=tmp_path / "demo", faces=300, seed=1)
    with pytest.raises(MienError, match="another number or seed"):
        demo(out=tmp_path / "demo", faces=200, seed=2)
    before = (tmp_path / "demo" / "faces" / "faces.parquet").stat().st_mtime_ns
    demo(out=tmp_path / "demo", faces=200, seed=1)
    assert (tmp_path / "demo" / "faces" / "faces.parquet").stat().st_mtime_ns == before
