"""Relabelling: experts are asked about every face, each in a job of its own, and their answers become one age.

A job an expert, so that one that throws, hangs or says nothing about a face costs that answer alone, and another expert
may join later. What is asked is kept; making it one is quick and done anew each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mien.data.align import require_view
from mien.data.manifest import FILE, Manifest
from mien.data.slices import Slices, SlicesWriter
from mien.errors import MienError
from mien.experts.base import Expert
from mien.experts.columns import SOURCE, fused_columns, with_fused_ages
from mien.experts.fusion import Fusion, fit
from mien.experts.methods import Method
from mien.experts.ours import Ours
from mien.experts.table import Experts, ExpertSettings
from mien.files import whole, write_json
from mien.jobs.engine import Job
from mien.jobs.inputs import Item, ManifestItems
from mien.jobs.labels import LabelFiles, Retention
from mien.jobs.stream import Loaded, stream
from mien.jobs.workers import Engine, Row

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("age", pa.float32()),
        ("confidence", pa.float32()),
        ("variance", pa.float32()),
        ("error", pa.string()),
    ]
)
#: The manifest whose ages are the fused ones, where it is asked for.
REPLACED = "relabelled.parquet"


@dataclass
class Asking:
    """The work of one expert's job: row numbers of a manifest in, its answers out."""

    faces: Slices
    settings: ExpertSettings
    batch: int = 64
    device: str = "cpu"
    _expert: Expert | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_expert": None}  # another process loads its own

    @property
    def expert(self) -> Expert:
        """The expert, loaded when first needed.

        Raises:
            MienError: it cannot be, or it learnt from another crop than the faces'.
        """
        if self._expert is None:
            expert = self.settings.build(self.device)
            if isinstance(expert, Ours):
                require_view(self.faces.crop, expert.estimator.crop, f"{self.faces.path} for {self.settings.name}")
            self._expert = expert
        return self._expert

    def __call__(self, rows: Sequence[int], first: int) -> Iterator[list[Row]]:
        """See `jobs.workers.Process`; a picture that cannot be read has its reason in `error`."""
        part = self.faces.slice(first, first + len(rows), ["archive"])
        for row, done in enumerate(stream(ManifestItems(part), _load, self._compute, self.batch, 0), first):
            yield [done.results[0] | {"row": row} if done.results else missing(row, str(done.error))]

    def _compute(self, images: list[np.ndarray]) -> list[Row]:
        said = self.expert.ask(images)
        columns = [np.asarray(values, dtype=np.float64) for values in (said.ages, said.confidences, said.variances)]
        for values in columns:
            if values.shape != (len(images),):
                raise ValueError(f"answers of shape {values.shape} for {len(images)} faces")
        return [
            {"age": age, "confidence": _none(confidence), "variance": _none(variance), "error": None}
            if np.isfinite(age)
            else missing(0, "no answer")
            for age, confidence, variance in zip(*(values.tolist() for values in columns), strict=True)
        ]


def missing(row: int, reason: str) -> Row:
    """The row of a face that an expert says nothing of."""
    return {"row": row, "age": None, "confidence": None, "variance": None, "error": reason}


def _load(item: Item) -> Loaded[np.ndarray]:
    return Loaded([item.read()])


def _none(value: float) -> float | None:
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class Answered:
    """Finished jobs of several experts over the same faces, and what there is to say of the experts."""

    faces: Slices
    jobs: dict[str, Job]
    hashes: dict[str, str]
    terms: dict[str, str]

    def parts(self) -> Iterator[tuple[int, int, np.ndarray, dict[str, list[tuple[int, str]]]]]:
        """Shard by shard: first face, face after the last, answers (n, E, 3) (age, confidence, variance), and what
        each expert failed on, row and reason."""
        start = 0
        for shards in zip(*(job.tables() for job in self.jobs.values()), strict=True):
            tables = dict(zip(self.jobs, shards, strict=True))
            answers = np.stack(
                [
                    np.column_stack([table[key].to_numpy() for key in ("age", "confidence", "variance")])
                    for table in tables.values()
                ],
                axis=1,
            ).astype(np.float64)
            failures = {
                name: [
                    (row, reason)
                    for row, reason in zip(table["row"].to_pylist(), table["error"].to_pylist(), strict=True)
                    if reason is not None
                ]
                for name, table in tables.items()
            }
            yield start, start + len(answers), answers, failures
            start += len(answers)


def ask_experts(
    faces: Slices,
    experts: Experts,
    folder: Path,
    *,
    batch: int = 64,
    device: str = "cpu",
    engine: Engine | None = None,
    show: bool = True,
) -> Answered:
    """Ask every expert about every face: a resumable job each, in `folder`, one after another.

    Raises:
        MienError: an expert that cannot be loaded, that learnt from another crop, or that fails on face after face.
    """
    answered = Answered(faces, {}, {}, {})
    for settings in experts.experts:
        name = settings.name
        asking = Asking(faces, settings, batch, device)
        answered.hashes[name], answered.terms[name] = settings.hash(), asking.expert.terms
        facts = {
            "faces": faces.hash,
            "expert": settings.model_dump(exclude={"name", "terms", "model", "weights"})
            | {"sha256": answered.hashes[name]},
            "batch": batch,
        }
        job = answered.jobs[name] = Job(folder / name, "relabel", facts, len(faces))
        rows = range(len(faces))
        try:
            job.run(rows, asking, SCHEMA, failed=_failed, engine=engine, unit="faces", show=show)
        except MienError as error:
            raise MienError(f"expert {name}: {error}") from None
    return answered


def _failed(_: int, row: int, reason: str) -> list[Row]:
    return [missing(row, reason)]


def fit_on(answered: Answered) -> Fusion:
    """A fusion fitted on the exact given ages of the faces that were answered for; ages of experts are not given."""
    asked: list[np.ndarray] = []
    true: list[np.ndarray] = []
    groups: list[np.ndarray] = []
    for start, stop, answers, _ in answered.parts():
        part = answered.faces.slice(start, stop, ["age_low", "age_high", "age_from", "group"])
        low, high = part.numbers("age_low"), part.numbers("age_high")
        asked.append(answers)
        given = (low == high) & (part.strings("age_from") != SOURCE)
        true.append(np.where(given, low, np.nan).astype(np.float64))
        groups.append(np.nan_to_num(part.numbers("group"), nan=-1))
    every = np.concatenate(asked)
    names, persons = list(answered.jobs), np.concatenate(groups)
    fusion = fit(names, every[..., 0], every[..., 1], np.concatenate(true), every[..., 2], groups=persons)
    fusion.hashes = [answered.hashes[name] for name in answered.jobs]
    return fusion


def write_labels(
    answered: Answered,
    fusion: Fusion | Method,
    folder: Path,
    name: str,
    max_std: float | None = None,
    replace: bool = False,
) -> dict[str, Any]:
    """Fuse and write what `mien relabel` gives, streaming; returns what it found, which `relabel.json` holds too.

    Writes `faces.parquet`, NAME_moe_labels.json and .csv, NAME_moe_report.csv, `relabel.json`, and with `replace`
    `relabelled.parquet`.
    """
    retention = Retention()
    failures: dict[str, list[dict[str, Any]]] = {expert: [] for expert in answered.jobs}
    files = [folder / FILE, folder / f"{name}_moe_labels.json", folder / f"{name}_moe_labels.csv"]
    with (
        whole(files[0]) as table,
        whole(files[1]) as json,
        whole(files[2]) as csv,
        SlicesWriter(table, folder) as writer,
        LabelFiles(json, csv, list(answered.jobs)) as labels,
        ExitStack() as more,
    ):
        # Opened only where it is wanted: an earlier one stays.
        replaced = None
        if replace:
            replaced = more.enter_context(SlicesWriter(more.enter_context(whole(folder / REPLACED)), folder))
        for start, stop, answers, failed in answered.parts():
            given = answered.faces.slice(start, stop)
            given = Manifest(given.table.drop_columns(_old(given)), given.root, given.crop, given.path)
            ages, confidences, variances = (answers[..., i] for i in range(3))
            columns = fused_columns(given, fusion, ages, confidences, variances, answered.hashes, max_std)
            part = given.with_columns(columns)
            writer.write(part)
            labels.write(part)
            retention.add(part)
            if replaced is not None:
                replaced.write(with_fused_ages(part))
            paths = given.strings("path")
            for expert, rows in failed.items():
                failures[expert] += [{"path": paths[row - start], "reason": reason} for row, reason in rows]
    retention.write(folder / f"{name}_moe_report.csv")
    found = {
        "faces": len(answered.faces),
        "manifest": answered.faces.hash,
        "experts": {
            expert: {
                "sha256": answered.hashes[expert],
                "terms": answered.terms[expert],
                "failed": len(failures[expert]),
            }
            for expert in answered.jobs
        },
        "fusion": {"method": fusion.name} if isinstance(fusion, Method) else fusion.__dict__,
        "max_std": max_std,
        **retention.summary(),
        "failures": failures,
    }
    write_json(folder / "relabel.json", found)
    return found


def _old(part: Manifest) -> list[str]:
    """Columns of an earlier relabelling, which this one replaces."""
    return [column for column in part.table.column_names if column.startswith("moe_")]
