"""Faces as a model sees them: found in a photo or given as a crop, with landmarks where something tells them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mien.data.align import crop_face, move_points
from mien.data.detect import Detection, Detector, build_detector
from mien.data.pictures import resize
from mien.errors import MienError, PictureError
from mien.evaluation.locate import Locator, build_locator
from mien.faces import Crop
from mien.jobs.inputs import Item
from mien.models.checkpoint import LANDMARKER


class Sight(NamedTuple):
    """What a model is shown: a crop (3, S, S) uint8, and landmarks (68, 2) in pixels of it where they are known."""

    image: np.ndarray
    landmarks: np.ndarray | None


class Place(NamedTuple):
    """Where a face is in its picture: the detection, None for a crop, and landmarks (68, 2) in pixels of it."""

    detection: Detection | None
    landmarks: np.ndarray | None


def in_photo(
    photo: np.ndarray, detector: Detector, locator: Locator | None, crop: Crop, wanted: bool
) -> tuple[list[Sight], list[Place]]:
    """The faces of `photo` (3, H, W), cut as `crop`. Those with a box alone are aligned by the landmarks that `locator`
    finds; with `wanted` it looks for those of the others too.
    """
    sights, places = [], []
    for found in detector.detect(photo):
        if locator is not None and (wanted or found.points is None):
            found = locator.detection(photo, found)
        face, matrix = crop_face(photo, found.where, crop)
        sights.append(Sight(face, None if found.landmarks is None else move_points(found.landmarks, matrix)))
        places.append(Place(found, found.landmarks))
    return sights, places


def in_crop(item: Item, crop: Crop, locator: Locator | None, wanted: bool) -> tuple[Sight, Place]:
    """The face of a crop of the kind `crop`, at its size; with `wanted` its landmarks, as given or as found."""
    if not wanted:
        return Sight(resize(item.read(2 * crop.size), crop.size), None), Place(None, None)
    picture = item.read()
    points = item.landmarks
    if points is None and locator is not None:
        points = locator.crop(picture, crop)
    _, height, width = picture.shape
    moved = None if points is None else (points + 0.5) * crop.size / [width, height] - 0.5
    return Sight(resize(picture, crop.size), moved), Place(None, points)


def finder(
    landmarker: str | Path = LANDMARKER, detector: str | Detector = "cascade"
) -> Callable[[np.ndarray, Crop], np.ndarray]:
    """What `prepare` takes as `locate`: the landmarks (68, 2) of the one face of a picture (3, H, W).

    In a photo the face is found by `detector` first; a crop of another kind shows it as a whole. The function raises
    `PictureError` where there is no face, or more than one, or where the landmarker does not trust its answer.

    Raises:
        MienError: there is no such landmarker or detector.
    """
    locator = build_locator(landmarker)
    if locator is None:
        raise MienError(f"landmarker {landmarker!r} finds nothing; name a run, a checkpoint or a shipped landmarker")
    search = build_detector(detector) if isinstance(detector, str) else detector

    def locate(image: np.ndarray, crop: Crop) -> np.ndarray:
        if crop.template != "photo":
            points = locator.crop(image, crop)
        else:
            found = search.detect(image)
            if len(found) != 1:
                raise PictureError(f"{len(found)} faces found, expected one, so that it is plain whose the labels are")
            points = locator.detection(image, found[0]).landmarks
        if points is None:
            raise PictureError("the landmarker does not trust the points it found")
        return points

    return locate
