"""`mien compare`: what it says of two evaluations beside their figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner, Result

from mien.cli.compare import _open, compare
from mien.cli.console import one_line_errors
from mien.errors import MienError
from mien.evaluation.predictions import FACTS, Predictions


@pytest.fixture
def judged(tmp_path: Path) -> tuple[Path, Path]:
    """Two evaluations of 60 faces; the second model has learnt from them."""
    rng = np.random.default_rng(0)
    ages = rng.uniform(1, 90, 60)
    folders = tmp_path / "one", tmp_path / "other"
    for folder, facts in zip(folders, ({"model": "one"}, {"model": "other", "caution": "it learnt them"}), strict=True):
        table = pa.table(
            {
                "path": [f"{row}.jpg" for row in range(60)],
                "sha256": [f"{row:064x}" for row in range(60)],
                "group": np.arange(60),
                "true_age_low": ages,
                "true_age_high": ages,
                "age": ages + rng.normal(0, 5, 60),
            }
        )
        Predictions(table.replace_schema_metadata({FACTS: json.dumps(facts)})).save(folder / "predictions.val.parquet")
    return folders


def call(*words: object) -> Result:
    app = typer.Typer()
    app.command()(one_line_errors(compare))
    return CliRunner().invoke(app, [*map(str, words), "--bootstraps", "100"])


def test_a_model_that_has_met_the_faces_is_compared_with_a_caution(judged: tuple[Path, Path]) -> None:
    told = call(*judged)
    assert told.exit_code == 0
    assert told.stderr.count("caution") == 1
    assert f"caution: {judged[1]}: it learnt them" in told.stderr
    found = json.loads(call(*judged, "--json").stdout)
    assert found["first"]["caution"] is None
    assert found["second"]["caution"] == "it learnt them"


def test_splits_that_were_judged_are_named(judged: tuple[Path, Path]) -> None:
    result = call(*judged, "--split", "test")
    assert result.exit_code == 2
    assert "has those of val: name one with --split" in result.stderr


def test_what_is_missing_is_told_by_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(
        MienError, match=r"none: no such folder; compare takes folders with a predictions\.val\.parquet"
    ):
        _open(tmp_path / "none", "val")
    # Faces, whose evaluation lies a folder deeper: no model that `mien evaluate --model` could take.
    (tmp_path / "faces/evaluation").mkdir(parents=True)
    with pytest.raises(MienError, match=r"faces: no predictions in it; .* or FACES/evaluation after"):
        _open(tmp_path / "faces", "val")
    (tmp_path / "faces/evaluation/predictions.all.parquet").touch()
    with pytest.raises(MienError, match=r"evaluation has those of all: name one with --split"):
        _open(tmp_path / "faces/evaluation", "val")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    with pytest.raises(MienError, match=r"`mien evaluate --model .*run --split val` makes it"):
        _open(tmp_path / "run", "val")
