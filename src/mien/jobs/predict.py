"""Asking a model about pictures: photos, in which faces are found first, or face crops."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mien.data.align import require_view
from mien.data.detect import Detector, build_detector, known_by
from mien.errors import MienError, unknown
from mien.evaluation.locate import Locator, build_locator
from mien.faces import CONTINUOUS, VOCABULARIES, Crop
from mien.jobs.engine import Job
from mien.jobs.inputs import Item, Items, expand
from mien.jobs.locate import Place, Sight, in_crop, in_photo
from mien.jobs.prediction import ALWAYS, KNOWN, NAMED, NO_FACE, Prediction
from mien.jobs.stream import Done, Loaded, stream
from mien.jobs.workers import Engine, Row
from mien.models.checkpoint import load_estimator
from mien.models.estimator import Estimator, weights_hash

if TYPE_CHECKING:
    import pyarrow as pa

    from mien.jobs.inputs import Given


class Model:
    """A trained estimator, ready to be asked.

    >>> model = load()                            # the shipped one   # doctest: +SKIP
    >>> model.predict("family.jpg")[0].age        # doctest: +SKIP
    41.7
    """

    def __init__(
        self, estimator: Estimator, device: str | torch.device = "cpu", beside: Sequence[Estimator] = ()
    ) -> None:
        """`beside` are estimators that tell what those before them have not learnt, of the same crops.

        Raises:
            MienError: one of them sees other crops, or has learnt nothing that those before it have not.
        """
        self.device = torch.device(device)
        self.estimator = estimator.eval().to(device)
        self.beside = tuple(one.eval().to(device) for one in beside)
        #: Which of the estimators tells each task.
        self.teller: dict[str, Estimator] = dict.fromkeys(estimator.tasks, estimator)
        for one in self.beside:
            require_view(self.crop, _seen_by(one), f"what {estimator.name} is shown")
            new = [task for task in one.tasks if task not in self.teller]
            if not new:
                raise MienError(f"{one.name} learnt {', '.join(one.tasks)}, which others tell already; leave it out")
            self.teller |= dict.fromkeys(new, one)

    @property
    def name(self) -> str:
        return " + ".join(one.name for one in (self.estimator, *self.beside))

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model answers."""
        return tuple(self.teller)

    @property
    def reads_landmarks(self) -> bool:
        """Whether landmarks change what the model says."""
        return any(one.branch is not None for one in (self.estimator, *self.beside))

    @property
    def crop(self) -> Crop:
        """The crop that the model sees, at the largest input size; estimators of a smaller one shrink it."""
        size = max(one.input_size for one in (self.estimator, *self.beside))
        return Crop(self.estimator.crop.template, self.estimator.crop.margin, size)

    def hash(self) -> str:
        """sha256 over the weights and what decoding uses: two models with one hash answer alike."""
        hashes = [weights_hash(one) for one in (self.estimator, *self.beside)]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    def answers(self, images: Tensor, landmarks: Tensor | None = None) -> dict[str, np.ndarray]:
        """Decoded columns for pictures (B, 3, H, W) and, where `reads_landmarks`, points (B, 68, 2)."""
        columns: dict[str, np.ndarray] = {}
        for one in (self.estimator, *self.beside):
            told = one.predict(images) if one.branch is None else one.predict(images, landmarks)
            own = [task for task, teller in self.teller.items() if teller is one]
            columns |= {name: values for name, values in told.items() if _task_of(name, one.tasks) in own}
        return columns

    def predict(
        self,
        inputs: Given | Iterable[Given],
        crops: bool = False,
        detector: str | Detector | None = None,
        batch: int = 64,
        max_width: float | None = None,
        tasks: str | Sequence[str] | None = None,
        landmarks: bool = False,
        landmarker: str | Path | Locator | None = "auto",
    ) -> list[Prediction]:
        """What the model tells of all faces in `inputs`, in their order.

        Args:
            inputs: one or many, mixed: paths of pictures, folders (to their bottom), globs, manifests; uint8 RGB
                arrays (H, W, 3) or (3, H, W), or grey (H, W); Pillow pictures.
            crops: the pictures are face crops like those the model learnt from; nothing is searched for.
                The faces of a manifest always are.
            detector: what finds faces: `cascade` (default), `yunet:PATH`, `uniface`, or any `Detector`.
            batch: faces the model sees at once.
            max_width: abstain from an age whose interval is wider than so many years.
            tasks: the one or the ones wanted; all by default.
            landmarks: tell the 68 landmarks of each face too.
            landmarker: what finds them, and so aligns faces of which the detector gives only a box: a run, a
                checkpoint, a shipped one by name; "auto" the shipped one if there is any; None nothing.

        Returns:
            One prediction a face; for an input without any, one whose `error` says so.

        Raises:
            MienError: inputs that are no pictures, crops that the model did not learn, intervals it does not have.
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
        tasks: str | Sequence[str] | None = None,
        landmarks: bool = False,
        landmarker: str | Path | Locator | None = "auto",
    ) -> Asking:
        """The same, checked but not yet begun; `Asking.run` streams it, `Asking.job` makes it resumable."""
        for manifest in items.manifests:
            require_view(manifest.crop, self.crop, str(manifest.path or "the manifest"))
        wanted = self.tasks if tasks is None else (tasks,) if isinstance(tasks, str) else tuple(tasks)
        for name in wanted:
            if name not in self.tasks:
                raise unknown("task", name, self.tasks, f"the model {self.name}")
        if max_width is not None:
            if not max_width > 0:
                raise MienError(f"a width of {max_width} years: expected a number above 0")
            if "age" not in wanted or "conformal" not in self.teller["age"].states.get("age", {}):
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
                "detector": known_by(self.detector),
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
        if any(task not in KNOWN for task in self.tasks):
            # Only decoding tells what columns the tasks of a program have: a blank picture's will do.
            blank = torch.zeros(1, 3, *[self.model.crop.size] * 2, dtype=torch.uint8, device=self.model.device)
            told = self._own(self.model.answers(blank))
            words = {name: values.dtype.kind not in "fiub" for name, values in told.items()}
            columns += [(name, pa.string() if word else pa.float32()) for name, word in words.items()]
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
        images, points = torch.from_numpy(np.stack([face.image for face in faces])).to(self.model.device), None
        if self.model.reads_landmarks:
            nowhere = np.full((68, 2), np.nan)
            places = np.stack([nowhere if face.landmarks is None else face.landmarks for face in faces])
            points = torch.from_numpy(places.astype(np.float32)).to(self.model.device)
        columns = {name: values.tolist() for name, values in self.model.answers(images, points).items()}
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
        face.own = dict(self._own(columns))
        return face

    def _own(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Of decoded columns those of tasks that a program has added."""
        asked = [task for task in self.tasks if task not in KNOWN]
        return {name: told for name, told in columns.items() if _task_of(name, self.model.tasks) in asked}


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


def _task_of(column: str, tasks: Iterable[str]) -> str:
    """The task that a decoded column, such as `age_low`, belongs to."""
    return next(task for task in tasks if column == task or column.startswith(f"{task}_"))


def _seen_by(estimator: Estimator) -> Crop:
    return Crop(estimator.crop.template, estimator.crop.margin, estimator.input_size)


def load(model: str | Path | Sequence[str | Path] | None = None, device: str = "auto") -> Model:
    """A model to ask: a run, a checkpoint, or a shipped model by name (None: the default one). Of several, each tells
    what those before it have not learnt: `load(["face-mobile", "face-affect"])`.

    `device` is "auto" (CUDA, Apple's MPS, else the processor) or any device of torch.

    Raises:
        MienError: no such model or device.
    """
    device = usable(device)
    named = [model] if model is None or isinstance(model, str | Path) else list(model)
    first, *beside = [load_estimator(one, device) for one in named or [None]]
    return Model(first, device, beside)


def usable(device: str) -> str:
    """A device by its name; "auto" is CUDA, Apple's MPS, else the processor. Under torchrun "cuda" is this rank's card.

    Raises:
        MienError: it cannot be used here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cuda" and "LOCAL_RANK" in os.environ and (cards := torch.cuda.device_count()):
        device = f"cuda:{int(os.environ['LOCAL_RANK']) % cards}"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition(". ")[0].partition("\n")[0]
        raise MienError(f"device {device!r} is not usable here ({reason}); take auto or cpu") from None
    return device
