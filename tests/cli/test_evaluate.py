"""`mien evaluate`: whose weights are judged, and on what."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mien.cli.console import one_line_errors
from mien.cli.evaluate import _checkpoint, evaluate, print_figures
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.models.checkpoint import FACTS


def test_a_checkpoint_is_one_of_the_model_that_is_named(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    for folder in (run / "checkpoints/step-1", run / "checkpoints/step-9", other):
        folder.mkdir(parents=True)
    (run / "checkpoints/best").write_text("step-9")
    (run / "checkpoints/step-9" / FACTS).write_text("{}")
    assert _checkpoint(str(run), run, "best") == run / "checkpoints/step-9"
    assert _checkpoint(str(run), run, "step-1") == run / "checkpoints/step-1"
    assert _checkpoint(str(run), run, str(run / "checkpoints/step-1")) == run / "checkpoints/step-1"
    assert _checkpoint(None, None, str(other)) == other
    for model, given, which in ((str(run), run, str(other)), ("face-mobile", None, str(run / "checkpoints/step-1"))):
        with pytest.raises(MienError, match="is none of --model"):
            _checkpoint(model, given, which)
    with pytest.raises(MienError, match="it has best, last, step-1, step-9"):
        _checkpoint(str(run), run, "step-2")


def test_faces_without_labels_are_refused(drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    kept = [name for name in manifest.table.column_names if not name.startswith(("age", "gender", "race"))]
    Manifest(manifest.table.select(kept), manifest.root, manifest.crop).save(tmp_path / "bare")
    app = typer.Typer()
    app.command()(one_line_errors(evaluate))
    result = CliRunner().invoke(app, [str(tmp_path / "bare"), "-m", "face-mobile", "--device", "cpu"])
    assert result.exit_code == 2
    assert "has a label that face-mobile tells (gender, race, age)" in result.stderr
    assert not (tmp_path / "bare/evaluation").exists()


@pytest.mark.parametrize(("pair", "named"), [(["White", "Asian"], ""), (["Black", "White"], "White - Black ")])
def test_a_gap_with_ages_made_equal_names_its_own_groups(capsys: pytest.CaptureFixture[str], pair, named) -> None:
    gap = {
        "raw": {"value": 1.4, "low": 0.9, "high": 1.9, "n": 500},
        "between": ["White", "Asian"],
        "age_standardised": {"value": 0.7, "low": 0.2, "high": 1.3, "n": 500},
        "between_standardised": pair,
    }
    print_figures({"age": {"gaps": {"race": gap}}, "about": {"model": "one", "split": "val", "faces": 500}})
    said = capsys.readouterr().out
    assert f"Asian - White 1.40 [0.90, 1.90] years; ages made equal {named}0.70 [0.20, 1.30]" in said
