"""Asking a model about pictures: photos, in which faces are found first, or face crops."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mien.data.align import require_view
from mien.data.detect import Detector, build_detector
from mien.errors import MienError, unknown
from mien.evaluation.locate import Locator, build_locator
from mien.faces import VOCABULARIES, Crop
from mien.jobs.engine import Engine, Job
from mien.jobs.inputs import Item, Items, expand
from mien.jobs.locate import Place, Sight, in_crop, in_photo
from mien.jobs.stream import Done, Loaded, stream
from mien.jobs.workers import Row
from mien.models.checkpoint import load_estimator
from mien.models.estimator import Estimator, weights_hash

if TYPE_CHECKING:
    import pyarrow as pa

    from mien.jobs.inputs import Given

#: `Prediction.error` of a photo that was read and shows no face.
NO_FACE = "no face found"
#: Tasks with classes whose answers `Prediction` carries, and those with a number in [-1, 1].
NAMED = ("gender", "race", "expression")
CONTINUOUS = ("valence", "arousal")
#: Tasks whose columns are in every table; those of others only where the model has them.
ALWAYS = ("age", "gender", "race")


@dataclass(slots=True)
class Prediction:
    """What a model says of one face; or, with `error` set, why it says nothing of an input.

    `row` counts the inputs from 0, `face` the faces of one input from 0, left to right. `box` is left, top,
    right, bottom in pixels of the photo, None for a crop. `aligned` is False where the detector gave only a
    box and no landmarks could be found in it; `landmarks` are 68 x, y in pixels of the input, where they were
    asked for. Crops are taken to be aligned. Ages are in years, `age_low` and `age_high` the 90 % interval, None
    where the model has none; `age` is None where the interval was wider than asked for (`abstained`).
    `valence` and `arousal` are in [-1, 1]. `probabilities` is `{task: {class: probability}}`. What the model was not
    trained for, or not asked for, is None.
    """

    input: str
    row: int
    face: int | None = None
    box: tuple[float, float, float, float] | None = None
    score: float | None = None
    aligned: bool | None = None
    landmarks: list[tuple[float, float]] | None = None
    age: float | None = None
    age_low: float | None = None
    age_high: float | None = None
    abstained: bool = False
    gender: str | None = None
    gender_p: float | None = None
    race: str | None = None
    race_p: float | None = None
    expression: str | None = None
    expression_p: float | None = None
    valence: float | None = None
    arousal: float | None = None
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    error: str | None = None

    @property
    def unreadable(self) -> bool:
        """Whether the picture could not be read (no face in it is no such failure)."""
        return self.error is not None and self.error != NO_FACE

    def to_row(self) -> Row:
        """One flat row of a table: the box as four columns, each probability as `task_Class`."""
        left, top, right, bottom = self.box or (None,) * 4
        row = {
            "input": self.input,
            "row": self.row,
            "face": self.face,
            "left": left,
            "top": top,
            "right": right,
            "bottom": bottom,
            **{name: getattr(self, name) for name in ("score", "aligned", "age", "age_low", "age_high", "abstained")},
        }
        for task in NAMED:
            if task in ALWAYS or getattr(self, task) is not None:
                row |= {task: getattr(self, task), f"{task}_p": getattr(self, f"{task}_p")}
            row |= {f"{task}_{name}": value for name, value in self.probabilities.get(task, {}).items()}
        row |= {task: value for task in CONTINUOUS if (value := getattr(self, task)) is not None}
        if self.landmarks is not None:
            row["landmarks"] = [value for point in self.landmarks for value in point]
        return row | {"error": self.error}


class Model:
    """A trained estimator, ready to be asked.

    >>> model = load()                            # the shipped one   # doctest: +SKIP
    >>> model.predict("family.jpg")[0].age        # doctest: +SKIP
    41.7
    """

    def __init__(self, estimator: Estimator, device: str | torch.device = "cpu") -> None:
        self.estimator = estimator.eval().to(device)
        self.device = torch.device(device)

    @property
    def name(self) -> str:
        return self.estimator.name

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model answers."""
        return tuple(self.estimator.tasks)

    @property
    def reads_landmarks(self) -> bool:
        """Whether landmarks change what the model says."""
        return self.estimator.branch is not None

    @property
    def crop(self) -> Crop:
        """The crop that the model sees, at its input size."""
        crop = self.estimator.crop
        return Crop(crop.template, crop.margin, self.estimator.input_size)

    def hash(self) -> str:
        """sha256 over the weights and what decoding uses: two models with one hash answer alike."""
        return weights_hash(self.estimator)

    def predict(
        self,
        inputs: Given | Iterable[Given],
        crops: bool = False,
        detector: str | Detector | None = None,
        batch: int = 64,
        max_width: float | None = None,
        tasks: Sequence[str] | None = None,
        landmarks: bool = False,
        landmarker: str | Path | Locator | None = "auto",
    ) -> list[Prediction]:
        """What the model tells of all faces in `inputs`, in their order.

        Args:
            inputs: one or many, mixed: paths of pictures, folders (to their bottom), globs, manifests; uint8
            RGB
                arrays (H, W, 3) or (3, H, W), or grey (H, W); Pillow pictures.
            crops: the pictures are face crops like those the model learnt from; nothing is searched for.
                The faces of a manifest always are.
            detector: what finds faces: `cascade` (default), `yunet:PATH`, `uniface`, or any `Detector`.
            batch: faces the model sees at once.
            max_width: abstain from an age whose interval is wider than so many years.
            tasks: the ones wanted; all by default.
            landmarks: tell the 68 landmarks of each face too.
            landmarker: what finds them, and so aligns faces of which the detector gives only a box: a run, a
                checkpoint, a shipped one by name; "auto" the shipped one if there is any; None nothing.

        Returns:
            One prediction a face; for an input without any, one whose `error` says so.

        Raises:
            MienError: inputs that are no pictures, crops that the model did not learn, intervals it does not
            have.
        """
        items = expand(inputs)
        asking = self.asking(items, crops, detector, max_width, tasks, landmarks, landmarker)
        return [found for one in asking.run(items, batch) for found in one]

    def asking(
        self,
        items: Items,
        crops: bool = False,
        detector: str | Detector | None = None,
        max_width: float | None = None,
        tasks: Sequence[str] | None = None,
        landmarks: bool = False,
        landmarker: str | Path | Locator | None = "auto",
    ) -> Asking:
        """The same, checked but not yet begun; `Asking.run` streams it, `Asking.job` makes it resumable."""
        for manifest in items.manifests:
            require_view(manifest.crop, self.crop, str(manifest.path or "the manifest"))
        wanted = self.tasks if tasks is None else tuple(tasks)
        for name in wanted:
            if name not in self.tasks:
                raise unknown("task", name, self.tasks, f"the model {self.name}")
        if max_width is not None:
            if not max_width > 0:
                raise MienError(f"a width of {max_width} years: expected a number above 0")
            if "age" not in wanted or "conformal" not in self.estimator.states.get("age", {}):
                raise MienError(f"the model {self.name} gives no age intervals here; leave the greatest width out")
        if isinstance(detector, str) or detector is None:
            needed = not crops and len(items.manifests) < len(items.parts)
            detector = build_detector(detector or "cascade") if needed else None
        if not isinstance(landmarker, Locator):
            needed = detector is not None or landmarks or self.reads_landmarks
            landmarker = build_locator(landmarker if needed else None, self.device)
        if landmarks and landmarker is None and len(items.manifests) < len(items.parts):
            raise MienError("landmarks are asked for, but there is no landmarker; name one: --landmarker RUN")
        return Asking(self, crops, detector, max_width, wanted, landmarks, landmarker)


@dataclass(frozen=True)
class Asking:
    """One question to a model: how pictures become crops, and which answers are kept."""

    model: Model
    crops: bool
    detector: Detector | None
    max_width: float | None
    tasks: tuple[str, ...]
    landmarks: bool = False
    locator: Locator | None = None

    def run(self, items: Iterable[Item], batch: int = 64, first: int = 0) -> Iterator[list[Prediction]]:
        """The predictions of each item, in order; `first` is the number of the first of them."""
        # On the processor the network's own threads fill every core, and readers beside them only hold them up;
        # finding a face in a photo costs more than that.
        threads = 0 if self.model.device.type == "cpu" and (self.crops or self.detector is None) else 2
        for number, done in enumerate(stream(items, self._load, self._compute, batch, threads), first):
            yield self._predictions(number, done)

    def job(
        self, folder: str | Path, items: Items, batch: int = 64, engine: Engine | None = None, show: bool = True
    ) -> Job:
        """Run as a resumable job in `folder` and return it, finished; `engine` says who does the work."""
        facts = {
            "model": {"name": self.model.name, "sha256": self.model.hash()},
            "inputs": items.hash(),
            "parameters": {
                "crops": self.crops,
                "detector": getattr(self.detector, "name", None),
                "max_width": self.max_width,
                "tasks": list(self.tasks),
                "landmarks": self.landmarks,
                "landmarker": None if self.locator is None else self.locator.hash(),
                "batch": batch,
            },
        }
        job = Job(folder, "predict", facts, len(items))

        job.run(items, _Work(self, batch), self.schema(), failed=_failed, engine=engine, show=show)
        return job

    def schema(self) -> pa.Schema:
        """The columns of `Prediction.to_row` as an Arrow schema, the model's name in its metadata."""
        import pyarrow as pa

        years = [(name, pa.float32()) for name in ("age", "age_low", "age_high")]
        columns = [("input", pa.string()), ("row", pa.int64()), ("face", pa.int32())]
        columns += [(side, pa.float64()) for side in ("left", "top", "right", "bottom")]
        columns += [("score", pa.float64()), ("aligned", pa.bool_()), *years, ("abstained", pa.bool_())]
        for task in NAMED:
            if task in ALWAYS or task in self.tasks:
                columns += [(task, pa.string()), (f"{task}_p", pa.float32())]
            if task in self.tasks:
                columns += [(f"{task}_{name}", pa.float32()) for name in VOCABULARIES[task]]
        columns += [(task, pa.float32()) for task in CONTINUOUS if task in self.tasks]
        if self.landmarks:
            columns.append(("landmarks", pa.list_(pa.float32(), 136)))
        about = json.dumps({"model": self.model.name, "kind": "predictions of mien predict"})
        return pa.schema([*columns, ("error", pa.string())], metadata={"mien": about})

    def _load(self, item: Item) -> Loaded[Sight]:
        crop, wanted = self.model.crop, self.landmarks or self.model.reads_landmarks
        if self.crops or item.cropped or self.detector is None:
            sight, place = in_crop(item, crop, self.locator, wanted)
            return Loaded([sight], [place])
        return Loaded(*in_photo(item.read(), self.detector, self.locator, crop, wanted))

    def _compute(self, faces: list[Sight]) -> list[Row]:
        seen = [torch.from_numpy(np.stack([face.image for face in faces])).to(self.model.device)]
        if self.model.reads_landmarks:
            nowhere = np.full((68, 2), np.nan)
            points = np.stack([nowhere if face.landmarks is None else face.landmarks for face in faces])
            seen.append(torch.from_numpy(points.astype(np.float32)).to(self.model.device))
        columns = {name: values.tolist() for name, values in self.model.estimator.predict(*seen).items()}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _predictions(self, row: int, done: Done[Item, Row]) -> list[Prediction]:
        name = done.item.name
        if done.error is not None:
            return [Prediction(name, row, error=done.error)]
        if not done.results:
            return [Prediction(name, row, error=NO_FACE)]
        return [
            self._prediction(Prediction(name, row, face), place, columns)
            for face, (place, columns) in enumerate(zip(done.notes, done.results, strict=True))
        ]

    def _prediction(self, face: Prediction, place: Place, columns: Mapping[str, Any]) -> Prediction:
        where = place.detection
        face.aligned = where is None or where.aligned
        if where is not None:
            left, top, right, bottom = where.box.tolist()
            face.box, face.score = (left, top, right, bottom), where.score
        if self.landmarks and place.landmarks is not None:
            face.landmarks = [(x, y) for x, y in place.landmarks.tolist()]
        if "age" in self.tasks:
            age, low, high = (_number(columns.get(name)) for name in ("age", "age_low", "age_high"))
            face.age, face.age_low, face.age_high = age, low, high
            if self.max_width is not None and low is not None and high is not None and high - low > self.max_width:
                face.age, face.abstained = None, True
        for task in NAMED:
            if task in self.tasks:
                setattr(face, task, columns[task])
                setattr(face, f"{task}_p", _number(columns[f"{task}_p"]))
                face.probabilities[task] = {name: columns[f"{task}_{name}"] for name in VOCABULARIES[task]}
        for task in CONTINUOUS:
            if task in self.tasks:
                setattr(face, task, _number(columns[task]))
        return face


@dataclass(frozen=True)
class _Work:
    """A shard's work: picklable, so that other processes can do it."""

    asking: Asking
    batch: int

    def __call__(self, items: Sequence[Item], first: int) -> Iterator[list[Row]]:
        for found in self.asking.run(items, self.batch, first):
            yield [prediction.to_row() for prediction in found]


def _failed(item: Item, row: int, reason: str) -> list[Row]:
    return [Prediction(item.name, row, error=reason).to_row()]


def _number(value: float | None) -> float | None:
    """A float, or None for what is missing or NaN."""
    return None if value is None or value != value else float(value)


def load(model: str | Path | None = None, device: str = "auto") -> Model:
    """A model to ask: a run, a checkpoint, or a shipped model by name (None: the default one).

    `device` is "auto" (CUDA, Apple's MPS, else the processor) or any device of torch.

    Raises:
        MienError: no such model or device.
    """
    device = usable(device)
    return Model(load_estimator(model, device), device)


def usable(device: str) -> str:
    """A device by its name; "auto" is CUDA, Apple's MPS, else the processor.

    Raises:
        MienError: it cannot be used here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise MienError(f"device {device!r} is not usable here; take auto or cpu") from None
    return device
