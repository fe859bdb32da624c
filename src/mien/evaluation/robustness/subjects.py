"""The pictures of an audit: each decoded once, kept in memory while there is room, and shown as a network sees them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mien.data.align import crop_face
from mien.data.corruptions import Place, place_in_crop, place_in_photo
from mien.data.detect import known_by, shrink
from mien.data.pictures import resize
from mien.data.views import rescale
from mien.errors import PictureError
from mien.faces import MIRRORED as MIRRORED_POINTS
from mien.faces import Crop

if TYPE_CHECKING:
    from mien.data.detect import Detection, Detector
    from mien.data.manifest import Manifest
    from mien.evaluation.locate import Locator

#: The pass over mirror images, among the cells.
MIRRORED = ("mirrored", 0)
#: Bytes of decoded pictures kept; those beyond are read again in every pass.
KEEP = 1 << 30
#: A crop is corrupted as it is stored, but with its shorter side at most so many pixels (or the network's, if more):
#: larger ones would only take longer. A photo, with its longer side at most so many.
CROP_SIDE, PHOTO_SIDE = 256, 640
#: A face counts as found again when its centre is off by less than this share of its side, and its side by less than
#: this factor.
NEAR, ALIKE = 0.5, 2.0

#: What a network is shown: (3, size, size) uint8, and the face's landmarks in its pixels where they are known.
View = tuple[np.ndarray, np.ndarray | None]


class NoFaceError(PictureError):
    """A photo without a face that can be found, even undamaged."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One picture (3, H, W) uint8, where its face is, its landmarks (68, 2) in its pixels if known, and the bytes it
    is known by."""

    image: np.ndarray
    place: Place
    landmarks: np.ndarray | None
    key: bytes


class Aligning:
    """A detector whose finds carry the landmarks that a landmarker trusts itself to see in them, as in `predict`."""

    def __init__(self, detector: Detector, locator: Locator) -> None:
        self.name = f"{known_by(detector)} + {locator.landmarker.name} {locator.hash()[:12]}"
        self._detector, self._locator = detector, locator

    def detect(self, image: np.ndarray) -> list[Detection]:
        """As `Detector.detect`."""
        return [self._locator.detection(image, one) for one in self._detector.detect(image)]


class Subjects:
    """The faces of `manifest`, by their place in it, for a network that sees `crop` at `size` pixels.

    With a detector the pictures are whole photos: the face is searched in every one, clean or corrupted.
    """

    def __init__(self, manifest: Manifest, crop: Crop, size: int, detector: Detector | None = None) -> None:
        self.manifest, self.size, self.detector = manifest, size, detector
        self.crop = Crop(crop.template, crop.margin, size)
        self.pictures = manifest.pictures()
        known = manifest.has("landmarks")
        self._points = manifest.landmarks() if known else None
        #: Whether the network is given landmarks; in photos nobody knows them.
        self.landmarks = known and detector is None
        self._widths = manifest.numbers("width")
        self._paths, self._archives = manifest.strings("path"), manifest.strings("archive")
        self._keys = manifest.strings("sha256")
        self._kept: dict[int, Subject] = {}
        self._room = KEEP
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.manifest)

    def read(self, index: int) -> Subject:
        """One face; from memory after the first time.

        Raises:
            NoFaceError: a photo in which no face is found.
            PictureError: it cannot be read.
        """
        if index in self._kept:
            return self._kept[index]
        subject = self._read(index)
        with self._lock:
            if subject.image.nbytes <= self._room:
                self._room -= subject.image.nbytes
                self._kept[index] = subject
        return subject

    def _read(self, index: int) -> Subject:
        side = PHOTO_SIDE if self.detector is not None else max(CROP_SIDE, self.size)
        image = self.pictures.image(self._paths[index], self._archives[index], side)
        stored = self._widths[index] if np.isfinite(self._widths[index]) else image.shape[2]
        image = self._smaller(image, side)
        points = None
        if self._points is not None and np.isfinite(self._points[index]).all():
            points = (self._points[index].astype(np.float64) + 0.5) * (image.shape[2] / stored) - 0.5
        digest = self._keys[index]
        key = digest if digest is not None else self._paths[index].encode()
        if self.detector is None:
            height, width = image.shape[1:]
            return Subject(image, place_in_crop(self.manifest.crop, height, width, points), points, key)
        places = [place_in_photo(one.where) for one in self.detector.detect(image)]
        if points is not None:
            centre = points.mean(axis=0)
            places = [one for one in places if np.abs(one.points.mean(axis=0) - centre).max() < NEAR * one.side]
        if not places:
            raise NoFaceError(f"{self._paths[index]}: no face found")
        # A labelled photo is of one person: the one who takes most room, where landmarks do not tell.
        return Subject(image, max(places, key=lambda one: one.side), points, key)

    def _smaller(self, image: np.ndarray, side: int) -> np.ndarray:
        if self.detector is not None:
            return shrink(image, side)[0].transpose(2, 0, 1)
        height, width = image.shape[1:]
        if min(height, width) <= side:
            return image
        share = side / min(height, width)
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
        return rescale(pixels, round(height * share), round(width * share)).transpose(2, 0, 1)

    def clean(self, subject: Subject) -> View | None:
        """The face as the network sees it undamaged."""
        return self.view(subject, subject.image, lambda points: points)

    def mirrored(self, subject: Subject) -> View | None:
        """The face as its mirror image."""
        shown = self.clean(subject)
        if shown is None:
            return None
        pixels, points = shown
        if points is not None:
            points = points[MIRRORED_POINTS]
            points = np.column_stack([self.size - 1 - points[:, 0], points[:, 1]])
        return pixels[:, :, ::-1], points

    def view(self, subject: Subject, image: np.ndarray, move: Callable[[np.ndarray], np.ndarray]) -> View | None:
        """The face of a damaged picture of `subject`, (3, size, size) uint8, and its landmarks in these pixels.

        `move` takes points of the clean picture to the damaged one. None where a photo's face is not found.
        """
        if self.detector is not None:
            expected = move(subject.place.points).mean(axis=0)
            for one in self.detector.detect(image):
                place = place_in_photo(one.where)
                near = np.linalg.norm(place.points.mean(axis=0) - expected) < NEAR * subject.place.side
                if near and 1 / ALIKE < place.side / subject.place.side < ALIKE:
                    return crop_face(image, one.where, self.crop)[0], None
            return None
        points = None
        if subject.landmarks is not None:
            share = self.size / np.array([image.shape[2], image.shape[1]])
            points = (move(subject.landmarks) + 0.5) * share - 0.5
        return resize(image, self.size), points
