"""One item of a source becomes a face whose picture was read: points found, cut, judged, matched in tone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mien.data.align import WINDOWS, crop_face, crop_matrix, move_points, seen, window
from mien.data.matching import Matching, Tone, match, tone
from mien.data.pictures import Pictures, decode, encode, resize, sha256
from mien.data.quality import QualityFilter, faults, measure
from mien.data.similarity import thumbnail
from mien.data.sources import Made, Rejected
from mien.errors import MienError, PictureError
from mien.faces import Crop, Face

#: Least part of a cut face that shows its picture: points that leave less are wrong.
LEAST_SEEN = 0.5
#: Shift of given landmarks against found ones, in eye distances, above which the given ones lie beside the face:
#: annotators and detectors differ by a third of it.
BESIDE = 0.15
#: The column of that shift.
SHIFT = "landmarks_shift"
#: Side in pixels of a refused face on the contact sheet.
SHOWN = 112

Item = Face | Rejected | Made
#: A picture (3, H, W) uint8 and its crop to the face's landmarks (68, 2) in its pixels; raises `PictureError`.
Locate = Callable[[np.ndarray, Crop], np.ndarray]
#: A picture, its crop and given landmarks (68, 2) to how far they are shifted, in eye distances; NaN: cannot be told.
Check = Callable[[np.ndarray, Crop, np.ndarray], float]


@dataclass(slots=True)
class Read:
    """A face whose picture was read; `data` is set where the picture is to be written beside the manifest.

    `fault` is what was wrong with a label that it has lost, empty if nothing was.
    """

    face: Face
    sha256: bytes
    size: tuple[int, int]
    thumbnail: np.ndarray
    data: bytes | None = None
    fault: str = ""


@dataclass(slots=True)
class Poor:
    """A face that the quality filter refused, with its picture, (3, 112, 112) uint8."""

    rejected: Rejected
    picture: np.ndarray


@dataclass(slots=True)
class Reader:
    """Reads one item's picture, in any thread; drops points that `check` finds beside the face, finds points it lacks
    with `locate`, cuts it from the crop `have` to `crop`, refuses it by `quality` and matches its tone by `matching` to
    `wanted`, where these are given.
    """

    pictures: Pictures
    have: Crop
    crop: Crop | None
    keep: bool
    check: Check | None = None
    locate: Locate | None = None
    quality: QualityFilter | None = None
    matching: Matching | None = None
    wanted: Tone | None = None

    def __call__(self, item: Item) -> Read | Rejected | Poor:
        found = self._picture(item)
        if not isinstance(found, tuple):
            return found
        face, image, data, fault = found
        if self.matching is not None and self.wanted is not None:
            image = match(image, self.wanted, self.matching)
            face = replace(face, extra={**face.extra, "matched": self.matching})
            data = encode(image)
        size = (image.shape[2], image.shape[1])
        return Read(face, sha256(data), size, thumbnail(self._inner(image)), data if self.keep else None, fault)

    def tone(self, item: Item) -> Tone | None:
        """The tone of an item's picture before it is matched; None where it is not used."""
        found = self._picture(item)
        return tone(found[1]) if isinstance(found, tuple) else None

    def _picture(self, item: Item) -> tuple[Face, np.ndarray, bytes, str] | Rejected | Poor:
        """The face, its picture and its file as it will be, and the fault of a label it has lost; or why it is not
        used."""
        if isinstance(item, Rejected):
            return item
        face = item.face if isinstance(item, Made) else item
        fault = ""
        try:
            if isinstance(item, Made):
                image, data = item.image, encode(item.image, item.face.path.rpartition(".")[2])
            else:
                data = self.pictures.read(face.path, face.archive)
                image = decode(data)
            if self.check is not None and face.landmarks is not None:
                face, fault = self._checked(face, face.landmarks, image, self.check)
            if self.locate is not None and face.landmarks is None:
                face = self._located(face, image, self.locate)
            side = min(image.shape[1:])
            if self.crop is not None:
                face, image, side = self._cut(face, image, self.crop)
                data = encode(image)
        except MienError as error:
            return Rejected(face.path, str(error))
        if self.quality is not None:
            inner = self._inner(image)
            if told := faults({**measure(inner), "side": side, **_scores(face)}, self.quality):
                return Poor(Rejected(face.path, told), resize(inner, SHOWN))
        return face, image, data, fault

    def _checked(self, face: Face, given: np.ndarray, image: np.ndarray, check: Check) -> tuple[Face, str]:
        """The face with how far its points are shifted; without them, and why, where they lie beside it."""
        shift = check(image, self.have, given)
        told: dict[str, Any] = {**face.extra, SHIFT: shift if np.isfinite(shift) else None}
        if not shift > BESIDE:
            return replace(face, extra=told), ""
        if self.locate is None and self.crop is not None and self.have.template not in WINDOWS:
            raise PictureError(
                "its points, by which it is cut, lie beside the face; --landmarks finds others "
                f"({shift:.2f} eye distances)"
            )
        fault = f"its landmarks lie beside the face and were dropped ({shift:.2f} eye distances)"
        return replace(face, landmarks=None, extra=told), fault

    def _located(self, face: Face, image: np.ndarray, locate: Locate) -> Face:
        """The face with the points that `locate` finds; without, where it finds none and they are not cut by."""
        try:
            points = locate(image, self.have).astype(np.float32)
        except PictureError:
            if self.crop is not None and self.have.template not in WINDOWS:
                raise
            return face
        return replace(face, landmarks=points, extra={**face.extra, "landmarks_from": "landmarker"})

    def _inner(self, image: np.ndarray) -> np.ndarray:
        """A cut picture without its margin: black around them makes all faces alike."""
        if self.crop is None or not self.crop.margin:
            return image
        edge = round(self.crop.size * self.crop.margin / (1 + 2 * self.crop.margin))
        return np.ascontiguousarray(image[:, edge : image.shape[1] - edge, edge : image.shape[2] - edge])

    def _cut(self, face: Face, image: np.ndarray, crop: Crop) -> tuple[Face, np.ndarray, float]:
        """The face cut by its points, or else by what is known of all pictures of its data set; and the side in pixels
        that the crop, without its margin, had in the picture."""
        _, height, width = image.shape
        where = window(self.have.template, width, height) if face.landmarks is None else face.landmarks
        if where is None:
            raise PictureError("no points to align it by")
        plain = Crop(crop.template, 0.0, crop.size)  # what lies around the face may be missing
        matrix = crop_matrix(where, plain)
        if (share := seen(matrix, plain, width, height)) < LEAST_SEEN:
            raise PictureError(
                f"cut by its points, most of the face would lie outside the picture ({1 - share:.0%} of it)"
            )
        side = crop.size / float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        # A crop ends close to the face: black corners in nearly every picture would give the data set away.
        image, matrix = crop_face(image, where, crop, mirror=self.have.template in WINDOWS)
        if face.landmarks is not None:
            face = replace(face, landmarks=move_points(face.landmarks, matrix).astype(np.float32))
        return face, image, side


def _scores(face: Face) -> dict[str, float]:
    """The scores that a data set's own detector gave, as far as it tells them: NaN where it found no face."""
    names = ("face_score", "second_face_score") if face.source == "imdb_wiki" else ()
    told = {name: face.extra[name] for name in names if name in face.extra}
    return {name: float("nan") if value is None else float(value) for name, value in told.items()}
