"""The faces of an ageing audit: a fixed sample, even over ages, genders and races, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mien.data.drawing.face import draw
from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.data.pictures import resize
from mien.data.sources.drawn import EXTRAS, DrawnSource, factors_at
from mien.errors import MienError
from mien.evaluation.ageing.judges import Judges
from mien.evaluation.groups import Partition, partitions
from mien.faces import age_bin, middle

#: Faces that are shown to the networks at a time.
TOGETHER = 8
#: Bytes of drawn faces kept, so that the next renderer's need not be drawn again.
KEEP = 1 << 28
#: How far the ellipse reaches beyond the landmarks' own half width and, brows to chin, half height.
WIDER, HIGHER = 1.12, 1.55


def balanced(manifest: Manifest, count: int, seed: int = 0) -> np.ndarray:
    """At most `count` rows, rising, drawn by `seed` so that the strata of age, gender and race have equal shares, as
    far as they have the faces. Only faces of known age are drawn.

    Raises:
        MienError: no face has an age, or `count` is below 1.
    """
    if count < 1:
        raise MienError(f"a sample of {count} faces: expected a number above 0")
    ages = middle_age(manifest)
    known = np.flatnonzero(~np.isnan(ages))
    if not len(known):
        raise MienError(f"{manifest.path or 'the manifest'}: no face has an age; ageing is judged against it")
    labels = np.stack([age_bin(ages), manifest.codes("gender"), manifest.codes("race")], axis=1)[known]
    strata = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    chance = np.random.default_rng(seed).random(len(known))
    order = np.lexsort([chance, strata])
    ordered = strata[order]
    starts = np.r_[0, np.flatnonzero(np.diff(ordered)) + 1]
    turn = np.empty(len(known), dtype=np.int64)  # the first of each stratum, then the second of each, ...
    turn[order] = np.arange(len(known)) - np.repeat(starts, np.diff(np.r_[starts, len(known)]))
    result: np.ndarray = np.sort(known[np.lexsort([chance, turn])[:count]])
    return result


def middle_age(manifest: Manifest) -> np.ndarray:
    """(N,) float64 years, the middle where the age is an interval, NaN where unknown."""
    return middle(*(manifest.numbers(name).astype(np.float64) for name in ("age_low", "age_high")))


@dataclass(frozen=True)
class Faces:
    """The sampled faces, `side` pixels wide as all renderers are given them, and what the judges say of them.

    `seen` has N rows in each entry, as `Judges.look` gives them; `rejected` are rows that could not be read.
    """

    manifest: Manifest
    side: int
    seen: dict[str, np.ndarray]
    rejected: dict[str, str]

    def __len__(self) -> int:
        return len(self.manifest)

    @cached_property
    def ages(self) -> np.ndarray:
        """(N,) float64 years; the middle of an interval."""
        return middle_age(self.manifest)

    @cached_property
    def exact(self) -> np.ndarray:
        """(N,) bool: the age is a number, not an interval."""
        exact: np.ndarray = self.manifest.numbers("age_low") == self.manifest.numbers("age_high")
        return exact

    @cached_property
    def partitions(self) -> dict[str, Partition]:
        """Age group, gender and race."""
        ages = self.ages
        found = partitions(ages, ages, self.manifest.codes("gender"), self.manifest.codes("race"))
        return {name: found[name] for name in ("age_bin", "gender", "race") if name in found}

    @cached_property
    def ellipses(self) -> np.ndarray:
        """Where each face is, (N, 4): centre and half axes in shares of the side; the crop's where no points tell."""
        found = np.tile(np.array(self.manifest.crop.ellipse), (len(self), 1))
        points = self.seen.get("points")
        if points is None:
            return found
        for row in np.flatnonzero(np.isfinite(points).all(axis=(1, 2))):
            low, high = points[row].min(axis=0), points[row].max(axis=0)
            half = (high - low) / 2
            up = HIGHER * half[1]  # the forehead is above the brows, so the centre moves up with it
            found[row] = [(low[0] + high[0]) / 2, high[1] + 0.04 - up, WIDER * half[0], up]
        return found

    def outside(self, rows: np.ndarray) -> np.ndarray:
        """Which pixels lie outside the faces of `rows`, (n, side, side) bool."""
        places = (np.arange(self.side) + 0.5) / self.side
        x, y, width, height = (self.ellipses[rows, place, None, None] for place in range(4))
        far: np.ndarray = ((places[None, None] - x) / width) ** 2 + ((places[None, :, None] - y) / height) ** 2
        return far > 1

    def loader(self) -> FaceLoader:
        """Their pictures, in order."""
        return FaceLoader(self.manifest, {}, self.side, TOGETHER)


def look_at(manifest: Manifest, side: int, judges: Judges, device: str) -> dict[str, np.ndarray]:
    """What the judges say of the faces of a manifest, `row` first; those that cannot be read are missing, their reasons
    in `rejected`, (R, 2) row and reason."""
    loader = FaceLoader(manifest, {}, side, 4 * TOGETHER)
    parts: list[dict[str, np.ndarray]] = []
    for batch in loader.epoch():
        parts.append({"row": batch.index.numpy(), **judges.look(batch.images.to(device))})
    if not parts:
        raise MienError(f"{manifest.path or 'the manifest'}: not one of {len(manifest):,} pictures can be read")
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    rejected = [[str(row), reason] for row, reason in loader.rejected.items()]
    return found | {"rejected": np.array(rejected, dtype=str).reshape(-1, 2)}


def mean_faces(manifest: Manifest, bands: np.ndarray, side: int, limit: int = 6000) -> dict[str, np.ndarray]:
    """The mean picture of the faces whose age is in each of `bands` (A, 2), a batch in memory at a time.

    `means` (G, 3, side, side) float32 in [0, 1] and `counts` (G,) of the bands that have ten faces or more, whose
    numbers are `bands` (G,). At most `limit` faces, even over ages, are read.

    Raises:
        MienError: no band has ten faces.
    """
    manifest = manifest.take(balanced(manifest, limit))
    ages = middle_age(manifest)
    totals, counts = np.zeros((len(bands), 3, side, side)), np.zeros(len(bands), dtype=np.int64)
    for batch in FaceLoader(manifest, {}, side, 4 * TOGETHER).epoch():
        pictures, told = batch.images.numpy(), ages[batch.index.numpy()]
        for place, (low, high) in enumerate(bands):
            members = (told >= low) & (told < high)
            totals[place] += pictures[members].sum(axis=0, dtype=np.float64)
            counts[place] += members.sum()
    enough = np.flatnonzero(counts >= 10)
    if not len(enough):
        raise MienError(f"{manifest.path or 'the manifest'}: no age asked for has 10 training faces to be the mean of")
    means = totals[enough] / counts[enough, None, None, None] / 255
    return {"means": means.astype(np.float32), "counts": counts[enough], "bands": enough}


class Truth:
    """Drawn faces at other ages as they truly are: the same person, pose, light and background, drawn anew.

    Raises:
        MienError: the manifest's faces are not drawn ones, or are another crop of them.
    """

    #: Drawn anew at its own age, a face may differ from the stored picture by so much: a JPEG's noise.
    ALIKE = 0.03

    def __init__(self, faces: Faces) -> None:
        manifest = faces.manifest
        if set(manifest.strings("source")) != {DrawnSource.name} or not all(manifest.has(name) for name in EXTRAS):
            raise MienError("only drawn faces have a true picture at another age")
        self.faces = faces
        self._kept: dict[tuple[int, float], np.ndarray] = {}
        self._room = KEEP
        for batch in faces.loader().epoch():
            for row, image in zip(batch.index.tolist(), batch.images.numpy(), strict=True):
                again = self.pictures(row, [float(faces.ages[row])])[0]
                apart = np.abs(again.astype(np.float64) - image).mean() / 255
                if apart > self.ALIKE:
                    raise MienError(
                        f"face {row}, drawn again, differs by {apart:.3f} from its picture: they were cropped or "
                        "changed after they were drawn, so their truth is not known"
                    )
            break

    def pictures(self, row: int, ages: list[float]) -> np.ndarray:
        """Face `row` at `ages` as it is, (A, 3, side, side) uint8."""
        return np.stack([self._picture(row, min(age, 100.0)) for age in ages])

    def _picture(self, row: int, age: float) -> np.ndarray:
        if (row, age) in self._kept:
            return self._kept[row, age]
        face, crop = self.faces.manifest.face(row), self.faces.manifest.crop
        stored = int(self.faces.manifest.numbers("width")[row])
        picture = resize(draw(factors_at(face, age), stored, crop.margin)[0], self.faces.side)
        if picture.nbytes <= self._room:
            self._room -= picture.nbytes
            self._kept[row, age] = picture
        return picture
