"""The passes of a robustness audit: clean faces once, their mirror images once, then every corruption at every
severity. Each finished pass is a file; an audit that was broken off goes on with the next one."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mien.data.align import require_view
from mien.data.corruptions import VERSION, corrupt, moved, table_hash
from mien.data.detect import known_by
from mien.errors import MienError, PictureError
from mien.evaluation.predictions import FEW, Predictions, calibrated_on, halves, predictions_table, task_labels
from mien.evaluation.robustness.subjects import MIRRORED, NoFaceError, Subjects, View
from mien.files import whole, write_json
from mien.progress import Progress

if TYPE_CHECKING:
    from mien.data.detect import Detector
    from mien.data.manifest import Manifest
    from mien.models.estimator import Estimator
    from mien.tasks.base import Outputs, State

#: A corruption's name and its severity.
Cell = tuple[str, int]
RECORD, CLEAN, FITTED = "audit.json", "predictions.parquet", "clean.json"
#: Batches made ready ahead of the network, where it computes on another device.
AHEAD = 2


@dataclass(frozen=True)
class Answers:
    """What a pass said of N faces: `{task: (N,)}`, NaN or None where the face was not found (`found` (N,) bool)."""

    values: dict[str, np.ndarray]
    found: np.ndarray


@dataclass
class Passes:
    """All passes of an audit over the same N faces, those of `clean` in their order.

    `rejected` and `unfound` hold the faces that are in none: pictures that cannot be read, with their reasons, and
    photos in which no face is found even when they are clean.
    """

    clean: Predictions
    mirrored: Answers
    cells: dict[Cell, Answers] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    unfound: list[str] = field(default_factory=list)


def run_passes(
    estimator: Estimator,
    manifest: Manifest,
    split: str,
    rows: np.ndarray,
    folder: Path,
    cells: Sequence[Cell],
    *,
    identity: str,
    detector: Detector | None = None,
    device: str | torch.device = "cpu",
    batch: int = 128,
    threads: int | None = None,
    show: bool = True,
    label: str = "audit",
) -> Passes:
    """Run, or read from `folder`, the passes over the faces `rows` of `manifest.split(split)`.

    Args:
        identity: a hash of the model: passes of another one are not taken for this one's.
        detector: finds the faces, where the pictures are whole photos; None: they are crops.
        threads: that make pictures ready; by default as many as help on this device.

    Raises:
        MienError: the folder holds the audit of another model, other faces or another table; or no face can be judged.
    """
    part = manifest.split(split).take(rows)
    if detector is None:
        require_view(part.crop, estimator.crop, str(manifest.path or "the manifest"))
    facts = {
        "kind": "robustness",
        "model": {"name": estimator.name, "sha256": identity},
        "manifest": manifest.hash,
        "split": split,
        "faces": part.hash,
        "corruptions": {"version": VERSION, "sha256": table_hash()},
        "detector": known_by(detector),
    }
    claim(folder, facts)
    pictures = Subjects(part, estimator.crop, estimator.input_size, detector)
    runner = _Runner(estimator, pictures, device, batch, _threads(threads, device))
    passes = _read_clean(folder, runner)
    steps = [(cell, folder / "cells" / f"{cell[0]}-{cell[1]}.parquet") for cell in (MIRRORED, *cells)]
    with Progress(len(part) * (len(steps) + 1), "faces", label, show) as progress:
        if passes is None:
            fitted = calibrated_on(estimator, manifest, split)[rows]
            crossfit = bool(fitted.all() or fitted.sum() >= FEW)
            passes = _clean_pass(folder, runner, crossfit, facts, progress)
        else:
            progress.skip(len(part))
        progress.total = len(part) + len(passes.clean) * len(steps)
        for cell, path in steps:
            found = _read_cell(path, runner)
            if found is None:
                progress.advance(0, note=f"{cell[0]} {cell[1] or ''}")
                _write_cell(path, runner.pass_over(cell, progress), runner)
                found = _read_cell(path, runner)
                assert found is not None
            else:
                progress.skip(len(passes.clean))
            if cell == MIRRORED:
                passes.mirrored = found
            else:
                passes.cells[cell] = found
    return passes


def same_audit(folder: Path, facts: Mapping[str, Any]) -> list[str]:
    """What differs between the audit in `folder` and `facts`: [] where there is none or it is the same."""
    path = folder / RECORD
    if not path.is_file():
        return []
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        return [key for key in {**there, **facts} if there.get(key) != facts.get(key)]
    except (ValueError, AttributeError, TypeError):
        raise MienError(f"{path} is damaged; remove {folder} or name another folder with -o") from None


def claim(folder: Path, facts: Mapping[str, Any]) -> None:
    """Make `folder` the audit that `facts` describe, or check that it is.

    Raises:
        MienError: it holds another one.
    """
    changed = same_audit(folder, facts)
    if changed:
        words = {"model": "the model", "faces": "the faces", "corruptions": "the table of corruptions"}
        news = ", ".join(words.get(name, name) for name in changed)
        raise MienError(
            f"{folder} holds another audit: different are {news}; name another folder with -o, or remove this one"
        )
    if not (folder / RECORD).is_file():
        write_json(folder / RECORD, facts)


def _threads(threads: int | None, device: str | torch.device) -> int:
    # On the processor the network's own threads fill every core; readers beside them only hold them up.
    if threads is not None:
        return threads
    return 0 if torch.device(device).type == "cpu" else max(1, min(16, (os.cpu_count() or 2) - 1))


class _Runner:
    """Runs one network over one set of pictures, as often as there are passes."""

    def __init__(
        self, estimator: Estimator, pictures: Subjects, device: str | torch.device, batch: int, threads: int
    ) -> None:
        self.estimator = estimator.eval().to(device)
        self.pictures, self.device, self.batch, self.threads = pictures, device, batch, threads
        self.rows = np.arange(len(pictures))
        self.half: np.ndarray | None = None
        self.states: list[dict[str, State]] = [estimator.states]

    def outputs(self, view: Callable[[int], View | None], progress: Progress) -> tuple[dict[str, Outputs], np.ndarray]:
        """The network's outputs for the faces that `view` shows, and which of `rows` those are, (n,) bool."""
        kept: dict[str, dict[str, list[torch.Tensor]]] = {}
        shown = np.zeros(len(self.rows), dtype=bool)
        place = 0
        for views in _ahead(self.rows, view, self.batch, self.threads):
            seen = [one for one in views if one is not None]
            shown[place : place + len(views)] = [one is not None for one in views]
            place += len(views)
            if seen:
                for task, named in self._forward(seen).items():
                    for name, value in named.items():
                        kept.setdefault(task, {}).setdefault(name, []).append(value.float().cpu())
            progress.advance(len(views))
        return {task: {name: torch.cat(parts) for name, parts in named.items()} for task, named in kept.items()}, shown

    @torch.inference_mode()
    def _forward(self, seen: Sequence[View]) -> dict[str, Outputs]:
        images = np.empty((len(seen), *seen[0][0].transpose(1, 2, 0).shape), dtype=np.uint8).transpose(0, 3, 1, 2)
        for place, (image, _) in enumerate(seen):
            images[place] = image
        landmarks = None
        if self.pictures.landmarks:
            unknown = np.full((68, 2), np.nan, dtype=np.float32)
            points = np.stack([unknown if one is None else one.astype(np.float32) for _, one in seen])
            landmarks = torch.from_numpy(points).to(self.device)
        found: dict[str, Outputs] = self.estimator(torch.from_numpy(images).to(self.device), landmarks)
        return found

    def pass_over(self, cell: Cell, progress: Progress) -> Answers:
        """One pass over the faces `rows`, each as the cell leaves it."""
        name, severity = cell

        def view(index: int) -> View | None:
            one = self.pictures.read(index)
            if cell == MIRRORED:
                return self.pictures.mirrored(one)
            image = corrupt(one.image, name, severity, one.key, one.place)
            return self.pictures.view(one, image, lambda points: moved(points, name, severity, one.key, one.place))

        outputs, shown = self.outputs(view, progress)
        columns = self.decode(outputs, np.flatnonzero(shown))
        return Answers({name: columns.get(name, np.empty(0)) for name in self.estimator.tasks}, shown)

    def decode(self, outputs: Mapping[str, Outputs], rows: np.ndarray) -> dict[str, np.ndarray]:
        """The decoded columns of outputs that belong to the places `rows` among the faces, (n,) each.

        Every pass is decoded with what was fitted on clean faces, as in use; where the model was calibrated on these
        very faces, with what was fitted on the clean ones of the other half.
        """
        columns: dict[str, np.ndarray] = {}
        half = np.zeros(len(rows), dtype=np.int64) if self.half is None else self.half[rows]
        for number, states in enumerate(self.states):
            mine = np.flatnonzero(half == number)
            chosen = torch.as_tensor(mine)
            for task, named in outputs.items():
                part = {name: value[chosen] for name, value in named.items()}
                for name, values in self.estimator.task(task).decode(part, states.get(task, {})).items():
                    missing: Any = np.nan if values.dtype.kind == "f" else None
                    kind = values.dtype if values.dtype.kind == "f" else object
                    columns.setdefault(name, np.full(len(rows), missing, dtype=kind))[mine] = values
        return columns


def _ahead(rows: np.ndarray, make: Callable[[int], Any], batch: int, threads: int) -> Iterator[list[Any]]:
    """`make` of each row, in batches; with threads, a few batches ahead of the reader."""
    parts = [rows[first : first + batch].tolist() for first in range(0, len(rows), batch)]
    if threads == 0:
        yield from ([make(row) for row in part] for part in parts)
        return
    waiting: deque[list[Future[Any]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="mien-corrupt") as pool:
        for part in parts:
            waiting.append([pool.submit(make, row) for row in part])
            if len(waiting) > AHEAD:
                yield [one.result() for one in waiting.popleft()]
        while waiting:
            yield [one.result() for one in waiting.popleft()]


def _clean_pass(folder: Path, runner: _Runner, crossfit: bool, facts: Mapping[str, Any], progress: Progress) -> Passes:
    part = runner.pictures.manifest
    paths = part.strings("path")
    rejected: dict[int, str] = {}

    def view(index: int) -> View | None:
        try:
            return runner.pictures.clean(runner.pictures.read(index))
        except NoFaceError:
            return None
        except PictureError as error:
            rejected[index] = str(error)
            return None

    outputs, shown = runner.outputs(view, progress)
    if not shown.any():
        reason = next(iter(rejected.values()), "no face is found in any photo")
        raise MienError(f"none of the {len(part)} faces can be judged; the first: {reason}")
    rows = np.flatnonzero(shown)
    runner.rows = rows
    half = halves(part.groups()[rows]) if crossfit else np.zeros(len(rows), dtype=np.int64)
    if len(np.unique(half)) == 2:
        runner.half = half
        runner.states = [
            {
                name: runner.estimator.task(name).fit(
                    {key: value[torch.as_tensor(half != judged)] for key, value in named.items()},
                    task_labels(runner.estimator.task(name), part, rows[half != judged]),
                )
                for name, named in outputs.items()
            }
            for judged in (0, 1)
        ]
    columns = runner.decode(outputs, np.arange(len(rows)))
    unfound = [paths[row] for row in np.flatnonzero(~shown) if row not in rejected]
    about = {
        "half": runner.half,
        "states": None if runner.half is None else runner.states,
        "rejected": {paths[row]: reason for row, reason in sorted(rejected.items())},
        "unfound": unfound,
    }
    write_json(folder / FITTED, about)
    predictions_table(part, rows, columns, facts).save(folder / CLEAN)
    clean = Predictions.open(folder / CLEAN)
    return _passes(clean, json.loads((folder / FITTED).read_text(encoding="utf-8")))


def _passes(clean: Predictions, about: Mapping[str, Any]) -> Passes:
    nothing = Answers({}, np.zeros(0, dtype=bool))
    return Passes(clean, nothing, {}, dict(about["rejected"]), list(about["unfound"]))


def _read_clean(folder: Path, runner: _Runner) -> Passes | None:
    """The finished clean pass, or None where it is missing or damaged."""
    try:
        clean = Predictions.open(folder / CLEAN)
        about = json.loads((folder / FITTED).read_text(encoding="utf-8"))
        rows = clean.numbers("row").astype(np.int64)
        if not len(rows) or rows.max() >= len(runner.pictures):
            return None
        if about["states"] is not None:
            runner.half, runner.states = np.array(about["half"], dtype=np.int64), about["states"]
            if len(runner.half) != len(rows):
                return None
        passes = _passes(clean, about)
    except (MienError, OSError, ValueError, KeyError, TypeError):
        runner.half, runner.states = None, [runner.estimator.states]
        return None
    runner.rows = rows
    return passes


def _write_cell(path: Path, answers: Answers, runner: _Runner) -> None:
    shown = pa.array(answers.found)
    table: dict[str, Any] = {"row": pa.array(runner.rows), "found": shown}
    for name, values in answers.values.items():
        numeric = values.dtype.kind == "f"
        column = np.full(len(runner.rows), np.nan if numeric else None, dtype=np.float32 if numeric else object)
        column[answers.found] = values
        table[name] = pa.array(column, pa.float32() if numeric else pa.string())
    with whole(path) as beside:
        pq.write_table(pa.table(table), beside, compression="zstd")


def _read_cell(path: Path, runner: _Runner) -> Answers | None:
    """A finished pass over these very faces, or None where it is missing or damaged."""
    try:
        table = pq.read_table(path)
        if table["row"].to_pylist() != runner.rows.tolist():
            return None
        values = {}
        for name in runner.estimator.tasks:
            column = table[name]
            numeric = pa.types.is_floating(column.type)
            values[name] = (
                column.to_numpy().astype(np.float64) if numeric else np.array(column.to_pylist(), dtype=object)
            )
        return Answers(values, np.array(table["found"].to_pylist(), dtype=bool))
    except (OSError, KeyError, pa.ArrowException):
        return None
