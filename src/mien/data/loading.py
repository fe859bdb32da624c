"""Loading: from a manifest to batches of faces. A batch is a function of (seed, epoch, step) alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.random import Generator, Philox
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mien.data.manifest import Manifest
from mien.data.pictures import resize
from mien.data.sampling import Sampling, cut, order, repeats
from mien.data.schema import ENHANCED
from mien.data.transforms import AugmentSettings, augment, face_seed
from mien.errors import MienError, PictureError
from mien.faces import FaceBatch

#: Faces tried in the place of an unreadable one before a training batch goes without it.
SPARES = 16
#: Which picture of a face that has an enhanced one is read; `both`: either, by the throw of a coin in each epoch.
Picture = Literal["original", "enhanced", "both"]
#: Batches that each worker prepares ahead.
AHEAD = 4


def readers(world: int = 1) -> int:
    """How many processes read the pictures for each of `world` that compute. One core is left to the network; more than
    eight readers do not help a single one."""
    return max(0, min(8, (os.cpu_count() or 1) // world - 1))


class FaceLoader:
    """Reads the faces of a manifest as `FaceBatch`es, in this process or in `workers` others.

    With `augment` or `sampling` it serves training: rows are drawn by `sampling`, pictures augmented, all
    batches are full (a face that cannot be read gives its place to another), and the rest of an epoch is
    dropped. Without, it serves evaluation: rows in their order, whole pictures resized to (size, size),
    nothing left out but what cannot be read. How a face is augmented depends on (seed, epoch, row) and on
    how often the epoch has shown it alone: not on worker, batch or order.

    `images` is uint8 (B, 3, size, size), in memory channels last. `landmarks` is there when the manifest
    has any. `rejected` collects, as they are met, the rows that could not be read, each with its reason.

    Args:
        labels: what each task's `encode` made of the manifest's columns, first dimension N.
        batch: faces a step of this process.
        rank, world: of `world` processes this one is number `rank`; together they read what one process
            would with batches of world x batch.
        picture: see `Picture`; a face without an enhanced picture shows its original.
        training: False: rows in their order, nothing left out, though faces are augmented.
    """

    def __init__(
        self,
        manifest: Manifest,
        labels: dict[str, Tensor],
        size: int,
        batch: int,
        *,
        augment: AugmentSettings | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        picture: Picture = "original",
        training: bool | None = None,
    ) -> None:
        for name, values in labels.items():
            if len(values) != len(manifest):
                raise ValueError(f"labels of {name}: {len(values)} for {len(manifest)} faces")
        if picture != "original" and not manifest.has(ENHANCED):
            raise MienError(
                f"data.picture {picture}: {manifest.path or 'the manifest'} has no enhanced pictures; make some with "
                "`mien enhance FACES -o OUT` and name OUT as data.faces, or take data.picture=original"
            )
        self.rejected: dict[int, str] = {}
        self._training = augment is not None or sampling is not None if training is None else training
        if self._training and len(manifest) < world:
            raise MienError(f"{len(manifest)} faces cannot be shared by {world} processes; start fewer of them")
        sampling = sampling or Sampling()
        weights = sampling.loss_weights(manifest)
        self._weights = None if weights is None else torch.from_numpy(weights)
        self.manifest, self.labels = manifest, labels
        self._chances = sampling.chances(manifest)
        self._count, self._batch, self._seed = len(manifest), batch, seed
        self._rank, self._world = rank, world
        spares = SPARES if self._training else 0
        self._plan: list[_Step] = []
        # Fork shares what is loaded; where it is not safe (macOS) or missing a worker starts from nothing, in seconds.
        start = "fork" if sys.platform == "linux" else "spawn"
        self._loader: DataLoader[_Read] = DataLoader(
            _Reader(manifest, size, augment, seed, spares, picture, self._chances),
            batch_size=None,
            sampler=_Steps(self._plan),
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            prefetch_factor=AHEAD if workers else None,
            multiprocessing_context=start if workers else None,
            # Its own: with torch's numbers, a resumed run would draw another dropout than an unbroken one.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Steps of an epoch."""
        return len(cut(np.arange(self._count), self._batch, self._rank, self._world, even=self._training))

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]:
        """The batches of an epoch, without its first `start`: the same as those of an unbroken epoch.

        Raises:
            MienError: training, and neither a batch's pictures nor those tried in their place can be read.
        """
        rows = np.arange(self._count)
        if self._training:
            rows = order(self._count, self._seed, epoch, self._chances)
        again = repeats(rows) if self._chances is not None else np.zeros_like(rows)
        parts, times = (
            cut(what, self._batch, self._rank, self._world, even=self._training)[start:] for what in (rows, again)
        )
        self._plan[:] = [(epoch, part, time) for part, time in zip(parts, times, strict=True)]
        for read in self._loader:
            self.rejected.update(read.rejected)
            if read.failure:
                raise MienError(read.failure)
            if len(read.rows):
                yield self._face_batch(read)
            elif self._training:
                reason = next(iter(read.rejected.values()))
                raise MienError(f"no picture of a whole batch, nor of others in their place, can be read; {reason}")

    def _face_batch(self, read: _Read) -> FaceBatch:
        return FaceBatch(
            images=read.images,
            labels={name: values[read.rows] for name, values in self.labels.items()},
            index=read.rows,
            landmarks=read.landmarks,
            weights=None if self._weights is None else self._weights[read.rows],
        )


class _Read(NamedTuple):
    """What a worker hands back; `failure` is an error that is no single picture's."""

    images: Tensor
    rows: Tensor
    landmarks: Tensor | None = None
    rejected: dict[int, str] = {}  # noqa: RUF012 (never changed)
    failure: str = ""


#: Epoch, rows, and how often the epoch has shown each of them before.
_Step = tuple[int, np.ndarray, np.ndarray]


class _Steps:
    """The steps of the current epoch; the list is filled anew for each, while workers live on."""

    def __init__(self, plan: list[_Step]) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[_Step]:
        return iter(list(self.plan))

    def __len__(self) -> int:
        return len(self.plan)


def _as_it_is(read: Any) -> Any:
    return read


class _Reader(Dataset[_Read]):
    """Builds whole batches: `reader[epoch, rows, again]`. It holds Arrow columns, which a forked worker shares."""

    def __init__(
        self,
        manifest: Manifest,
        size: int,
        augment: AugmentSettings | None,
        seed: int,
        spares: int,
        picture: Picture = "original",
        times: np.ndarray | None = None,
    ) -> None:
        columns = manifest.table.column_names
        self.count = len(manifest)
        self.pictures = manifest.pictures()
        self.paths = manifest.table["path"]
        self.archives = manifest.table["archive"] if "archive" in columns else None
        self.landmarks = manifest.landmarks() if manifest.has("landmarks") else None
        self.widths = manifest.numbers("width") if self.landmarks is not None else None
        self.size, self.augment, self.seed, self.spares = size, augment, seed, spares
        self.enhanced = None if picture == "original" else manifest.table[ENHANCED]
        self.both = picture == "both"
        self.times = times if augment is not None and augment.rare else None

    def __getitem__(self, step: _Step) -> _Read:
        epoch, wanted, again = step
        images: list[np.ndarray] = []
        rows: list[int] = []
        seeds: list[int] = []
        rejected: dict[int, str] = {}
        try:
            for row, time in zip(wanted.tolist(), again.tolist(), strict=True):
                for candidate in self._candidates(epoch, row):
                    seed = face_seed(self.seed, epoch, candidate, time)
                    try:
                        images.append(self._image(candidate, seed))
                    except (PictureError, OSError) as error:
                        rejected[candidate] = str(error)
                        continue
                    rows.append(candidate)
                    seeds.append(seed)
                    break
        except MienError as error:
            # As words: an exception that crosses processes arrives with a traceback in its message.
            return _Read(torch.empty(0), torch.empty(0), failure=str(error))
        return self._finish(images, rows, seeds, rejected)

    def _candidates(self, epoch: int, row: int) -> Iterator[int]:
        """The row, and those tried in its place if it cannot be read."""
        yield row
        if self.spares:
            rng = Generator(Philox(key=face_seed(self.seed, epoch, row)).jumped())
            yield from rng.integers(self.count, size=self.spares).tolist()

    def _image(self, row: int, seed: int) -> np.ndarray:
        if self.enhanced is not None and (better := self.enhanced[row].as_py()) is not None:
            # Its own part of the face's randomness: what else is drawn for the face stays as it is.
            coin = Generator(Philox(key=seed).jumped(2))
            if not self.both or coin.random() < 0.5:
                return self.pictures.image(better, None, side=2 * self.size)
        archive = None if self.archives is None else self.archives[row].as_py()
        # A JPEG far larger than needed may come smaller: twice the size is still more than any window shows.
        return self.pictures.image(self.paths[row].as_py(), archive, side=2 * self.size)

    def _finish(self, images: list[np.ndarray], rows: list[int], seeds: list[int], rejected: dict[int, str]) -> _Read:
        points = None
        if self.landmarks is not None and self.widths is not None:
            stored = self.widths[rows]
            shares = np.array([image.shape[2] for image in images], dtype=np.float32) / stored
            shares = np.where(np.isfinite(shares), shares, 1.0)[:, None, None]
            points = ((self.landmarks[rows] + 0.5) * shares - 0.5).astype(np.float32)
        if self.augment is not None:
            times = None if self.times is None else self.times[rows].tolist()
            pixels, points = augment(images, points, seeds, self.size, self.augment, times)
        else:
            pixels = np.empty((len(rows), self.size, self.size, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
            for face, image in enumerate(images):
                pixels[face] = resize(image, self.size)
                if points is not None:
                    side = np.array([image.shape[2], image.shape[1]], dtype=np.float32)
                    points[face] = (points[face] + 0.5) * self.size / side - 0.5
        return _Read(
            images=torch.from_numpy(pixels),
            rows=torch.tensor(rows, dtype=torch.int64),
            landmarks=None if points is None else torch.from_numpy(points),
            rejected=rejected,
        )
