"""How a run ends: its history is drawn, and the chosen weights are judged, each kind of network in its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.manifest import Manifest
from mien.files import write_json
from mien.models.checkpoint import read_pointer

#: What a network is judged on when it has learnt; an estimator is calibrated on the first.
JUDGED = ("val", "test")


def splits_in(manifest: Manifest) -> set[str]:
    """The splits that any face is in."""
    return set(np.unique(manifest.strings("split").astype(str)))


def judge_splits(
    manifest: Manifest, folder: Path, history: list[dict[str, Any]], judge: Callable[[str], dict[str, Any] | None]
) -> dict[str, Any]:
    """Draw the history, `judge` each split of `JUDGED` that there is, and write its figures to metrics.<split>.json;
    None: it has nothing to be judged by. Returns what `train_run` does."""
    draw_history(folder, history)
    there = splits_in(manifest)
    metrics: dict[str, Any] = {}
    reports: dict[str, str] = {}
    for split in JUDGED:
        if split in there and (figures := judge(split)) is not None:
            metrics[split], reports[split] = figures, str(folder / f"metrics.{split}.json")
            write_json(reports[split], figures)
    return {"run": str(folder), "history": history, "metrics": metrics, "reports": reports}


def draw_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw `figures/training_history.png` of a run in `folder`, with the epoch whose weights were kept."""
    from mien.report.figures import save, training_history

    step = int(read_pointer(folder / "checkpoints", "best").name.removeprefix("step-"))
    best = next((entry["epoch"] for entry in history if entry["step"] == step), None)
    save(training_history(history, best), folder / "figures" / "training_history.png")
