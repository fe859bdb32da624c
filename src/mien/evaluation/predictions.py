"""A predictions table: one row a face, what is true of it beside what a model said."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mien.errors import MienError
from mien.evaluation.groups import Partition, partitions
from mien.faces import CONTINUOUS, GENDERS, RACES, SPLITS, VOCABULARIES, VOTES
from mien.files import whole
from mien.models.met import MARK
from mien.progress import Progress

if TYPE_CHECKING:
    import torch

    from mien.data.manifest import Manifest
    from mien.models.estimator import Estimator
    from mien.tasks.base import Outputs, State, Task

#: Key of the JSON in the table's schema metadata.
FACTS = b"mien"
#: Faces that a model was calibrated on, among other data's, that are too few to be cross-fitted.
FEW = 100
#: Columns that every predictions table has.
REQUIRED = ("path", "sha256", "group")


class Predictions:
    """A predictions table as arrays; `facts` says of which model, manifest and split, and how calibrated."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.facts: dict[str, Any] = json.loads((table.schema.metadata or {}).get(FACTS, b"{}"))

    @classmethod
    def open(cls, path: str | Path) -> Predictions:
        """Read `predictions.<split>.parquet`.

        Raises:
            MienError: there is no such file, or it is no predictions table.
        """
        path = Path(path)
        if not path.is_file():
            raise MienError(f"{path}: no such file; `mien evaluate` makes it")
        try:
            table = pq.read_table(path)
            missing = [name for name in REQUIRED if name not in table.column_names]
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise MienError(f"{path}: not a Parquet file that can be read ({error})") from None
        if missing:
            raise MienError(f"{path}: not a predictions table, no column {missing[0]!r}; `mien evaluate` makes one")
        return cls(table)

    def save(self, path: str | Path) -> None:
        """Write the table as Parquet; the file appears whole."""
        with whole(path) as beside:
            pq.write_table(self.table, beside, compression="zstd")

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def take(self, rows: np.ndarray) -> Predictions:
        """The table of these rows (a mask, or indices in any order)."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Predictions(self.table.take(pa.array(rows, pa.int64())))

    def has(self, name: str) -> bool:
        """Whether the column is there with at least one value."""
        if name not in self.table.column_names:
            return False
        column = self.table[name]
        if column.null_count == len(column):
            return False
        return not pa.types.is_floating(column.type) or not bool(np.isnan(self.numbers(name)).all())

    def numbers(self, name: str) -> np.ndarray:
        """A column as (N,) float64, NaN where missing; all NaN when there is no such column."""
        if name not in self.table.column_names:
            return np.full(len(self), np.nan)
        return self.table[name].cast(pa.float64()).to_numpy().astype(np.float64)

    def strings(self, name: str) -> np.ndarray:
        """A column as (N,) objects, None where missing; all None when there is no such column."""
        if name not in self.table.column_names:
            return np.full(len(self), None, dtype=object)
        return np.array(self.table[name].to_pylist(), dtype=object)

    def codes(self, name: str, words: Sequence[str]) -> np.ndarray:
        """A column of names as (N,) int64 codes into `words`, -1 where missing.

        Raises:
            MienError: a name is none of `words`.
        """
        if name not in self.table.column_names:
            return np.full(len(self), -1, dtype=np.int64)
        column = self.table[name].combine_chunks().dictionary_encode()
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        table = {word: code for code, word in enumerate(words)}
        known = column.dictionary.to_pylist()
        strange = [word for word in known if word is not None and word not in table]
        if strange:
            raise MienError(f"predictions: {name} {strange[0]!r} is none of {', '.join(words)}")
        codes = np.array([-1 if word is None else table[word] for word in known] + [-1], dtype=np.int64)
        return codes[column.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)]

    def groups(self) -> np.ndarray:
        """(N,) int64: which faces are resampled together; a face without a group is one of its own."""
        groups = self.table["group"].combine_chunks()
        alone = groups.is_null().to_numpy(zero_copy_only=False)
        numbers = groups.fill_null(0).cast(pa.int64()).to_numpy().copy()
        start = int(numbers.max()) + 1 if len(numbers) else 0
        numbers[alone] = start + np.arange(int(alone.sum()))
        return numbers

    def votes(self) -> np.ndarray:
        """(N, 10) float64: how many raters said each of `faces.VOTES`; rows of NaN where nobody voted."""
        votes = np.full((len(self), len(VOTES)), np.nan)
        if "true_expression_votes" in self.table.column_names:
            column = self.table["true_expression_votes"].combine_chunks()
            voted = column.is_valid().to_numpy(zero_copy_only=False)
            flat = column.drop_null().flatten().to_numpy(zero_copy_only=False)
            votes[voted] = flat.reshape(-1, len(VOTES))
        return votes

    def partitions(self) -> dict[str, Partition]:
        """The groups of faces by their true labels, and by data set where there are several."""
        found = partitions(
            self.numbers("true_age_low"),
            self.numbers("true_age_high"),
            self.codes("true_gender", GENDERS),
            self.codes("true_race", RACES),
        )
        sources = sorted({name for name in self.strings("source") if name is not None})
        if len(sources) > 1:
            found["source"] = Partition(self.codes("source", sources), tuple(sources))
        return found


@dataclass
class Raw:
    """What a network put out for the faces of a manifest, before decoding.

    `outputs` is `{task: {output: (n, ...)}}` on the CPU, `rows` (n,) int64 the faces' rows in the manifest,
    `rejected` the rows that could not be read, with the reason. `features` is (n, F) float32, what the heads saw,
    where that was asked for.
    """

    outputs: dict[str, Outputs]
    rows: np.ndarray
    rejected: dict[int, str]
    features: np.ndarray | None = None


def predict_split(
    estimator: Estimator,
    manifest: Manifest,
    *,
    batch: int = 128,
    device: str | torch.device = "cpu",
    workers: int = 0,
    show: bool = True,
    features: bool = False,
) -> Raw:
    """Run `estimator` over every face of `manifest` (one split, say), in order; `features`: keep those too.

    Raises:
        MienError: the faces are in another crop than the model's, or none can be read.
    """
    import torch

    from mien.data.align import require_view
    from mien.data.loading import FaceLoader

    require_view(manifest.crop, estimator.crop, str(manifest.path or "the manifest"))
    loader = FaceLoader(manifest, {}, estimator.input_size, batch, workers=workers)
    kept: dict[str, dict[str, list[torch.Tensor]]] = {}
    rows: list[np.ndarray] = []
    seen: list[np.ndarray] = []
    watch = estimator.dropout.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].float().cpu().numpy()) if features else None
    )
    training = estimator.training
    estimator.to(device).eval()
    with torch.inference_mode(), watch, Progress(len(manifest), "faces", "predict", show) as progress:
        for faces in loader.epoch():
            faces = faces.to(device)
            outputs = estimator(faces.images, faces.landmarks)
            for task, named in outputs.items():
                for name, value in named.items():
                    kept.setdefault(task, {}).setdefault(name, []).append(value.float().cpu())
            rows.append(faces.index.cpu().numpy())
            progress.advance(len(faces))
    estimator.train(training)
    if not rows:
        reason = next(iter(loader.rejected.values()), "the manifest is empty")
        raise MienError(f"none of the {len(manifest)} faces can be read; the first: {reason}")
    outputs = {task: {name: torch.cat(values) for name, values in named.items()} for task, named in kept.items()}
    return Raw(outputs, np.concatenate(rows), dict(loader.rejected), np.concatenate(seen) if features else None)


def fit_states(estimator: Estimator, raw: Raw, manifest: Manifest) -> dict[str, State]:
    """What each task fits on these faces (blend, temperature, quantiles), for `estimator.states`."""
    return {
        name: estimator.task(name).fit(outputs, task_labels(estimator.task(name), manifest, raw.rows))
        for name, outputs in raw.outputs.items()
    }


def calibration_mark(manifest: Manifest, split: str) -> dict[str, str]:
    """What `estimator.calibrated_on` says when its states were fitted on `split` of `manifest`: `pictures` are the
    first `MARK` bytes of the sha256 of each, in base64."""
    part = manifest.split(split)
    known = b"".join(sorted(value[:MARK] for value in part.strings("sha256") if value is not None))
    return {
        "manifest": manifest.hash,
        "split": split,
        "faces": _faces_digest(part) or "",
        "pictures": base64.b64encode(known).decode(),
    }


def calibrated_on(estimator: Estimator, manifest: Manifest, split: str) -> np.ndarray:
    """On which faces of this split, (N,) bool, the states of `estimator` were fitted.

    They are known by their pictures; where these are not, the split counts if it is of the same manifest.
    """
    mark, part = estimator.calibrated_on, manifest.split(split)
    fitted = np.zeros(len(part), dtype=bool)
    if not mark:
        return fitted
    if mark.get("manifest") == manifest.hash and mark.get("split") in SPLITS:
        fitted |= part.codes("split") == SPLITS.index(mark["split"])
    elif mark.get("pictures"):
        whole = base64.b64decode(mark["pictures"])
        pictures = {whole[start : start + MARK] for start in range(0, len(whole), MARK)}
        fitted |= np.array([value is not None and value[:MARK] in pictures for value in part.strings("sha256")])
    elif (digest := _faces_digest(part)) is not None:
        fitted |= mark.get("faces") == digest
    return fitted


def _faces_digest(manifest: Manifest) -> str | None:
    """Of the pictures themselves; None where not all are known."""
    pictures = sorted(value for value in manifest.strings("sha256") if value is not None)
    if len(pictures) < len(manifest) or not pictures:
        return None
    return hashlib.sha256(b"".join(pictures)).hexdigest()


def decode(estimator: Estimator, raw: Raw, manifest: Manifest, crossfit: np.ndarray) -> dict[str, np.ndarray]:
    """The decoded columns, (n,) each, of the faces `raw.rows` of `manifest`.

    For those faces that `crossfit`, (n,) bool, marks, what decoding needs is fitted on one half of them and used on the
    other, and the other way round; copies and pictures of one person are in the same half. For the others the
    estimator's own states are used.
    """
    import torch

    if not crossfit.any():
        return estimator.decode(raw.outputs)
    mine = np.flatnonzero(crossfit)
    half = halves(manifest.groups()[raw.rows[mine]])
    columns = {} if crossfit.all() else estimator.decode(raw.outputs)
    for name, outputs in raw.outputs.items():
        task = estimator.task(name)
        chosen = {key: value[torch.from_numpy(mine)] for key, value in outputs.items()}
        found = crossfitted(task, chosen, task_labels(task, manifest, raw.rows[mine]), half)
        for column, values in found.items():
            if column in columns:
                columns[column][mine] = values
            elif crossfit.all():
                columns[column] = values
    return columns


def task_labels(task: Task, manifest: Manifest, rows: np.ndarray) -> torch.Tensor:
    """The encoded labels of the faces `rows`, (n, ...)."""
    import torch

    return task.encode(manifest.columns(task.columns))[torch.as_tensor(rows)]


def halves(groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """(N,) 0 or 1: two halves of the faces, no group in both, drawn by `seed`."""
    names, codes = np.unique(groups, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % 2)[codes]


def crossfitted(task: Task, outputs: Outputs, labels: torch.Tensor, half: np.ndarray) -> dict[str, np.ndarray]:
    """Decode each half of the faces with what was fitted on the other; `half` is (n,) 0 or 1."""
    import torch

    columns: dict[str, np.ndarray] = {}
    for judged in (0, 1):
        mine = torch.as_tensor(np.flatnonzero(half == judged))
        others = torch.as_tensor(np.flatnonzero(half != judged))
        if not len(mine):
            continue
        state = task.fit({name: value[others] for name, value in outputs.items()}, labels[others])
        decoded = task.decode({name: value[mine] for name, value in outputs.items()}, state)
        for name, values in decoded.items():
            missing: Any = np.nan if values.dtype.kind == "f" else None
            columns.setdefault(name, np.full(len(half), missing, dtype=values.dtype))[mine.numpy()] = values
    return columns


def predictions_table(
    manifest: Manifest, rows: np.ndarray, columns: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> Predictions:
    """The table of the faces `rows` of `manifest` with the decoded `columns`, (n,) each in that order."""
    faces = manifest.take(rows)
    table: dict[str, Any] = {
        "path": pa.array(faces.strings("path"), pa.string()),
        "archive": pa.array(faces.strings("archive"), pa.string()),
        "sha256": pa.array([None if v is None else v.hex() for v in faces.strings("sha256")], pa.string()),
        "row": pa.array(rows, pa.int64()),
        "split": pa.array(faces.strings("split"), pa.string()),
        "source": pa.array(faces.strings("source"), pa.string()),
        "group": pa.array(faces.groups(), pa.int64()),
    }
    for name in ("age_low", "age_high", *CONTINUOUS):
        if manifest.has(name):
            table[f"true_{name}"] = pa.array(faces.numbers(name), pa.float32())
    for name in VOCABULARIES:
        if manifest.has(name):
            table[f"true_{name}"] = pa.array(faces.strings(name), pa.string())
    if manifest.has("expression_votes"):
        table["true_expression_votes"] = faces.table["expression_votes"]
    for name, values in columns.items():
        floating = values.dtype.kind == "f"
        table[name] = pa.array(values.astype(np.float32)) if floating else pa.array(values, pa.string())
    return Predictions(pa.table(table).replace_schema_metadata({FACTS: json.dumps(dict(facts)).encode()}))
