"""`mien compare`: what it says of two evaluations beside their figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner, Result

from mien.cli.compare import compare
from mien.cli.console import one_line_errors
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
    assert "what was judged there is val: name one with --split" in result.stderr
