"""Faces as a model sees them: found in a photo or given as a crop, with landmarks where something tells them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mien.data.align import crop_face, five_points, move_points
from mien.data.detect import Detection, Detector, build_detector
from mien.data.pictures import resize
from mien.errors import MienError, PictureError, unknown
from mien.evaluation.locate import Locator, build_locator
from mien.faces import Crop
from mien.jobs.inputs import Item
from mien.metrics.landmarks import eye_centre_distance
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


#: What can check landmarks that are given.
CHECKERS = ("landmarker", "yunet", "uniface")


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


def checker(name: str) -> Callable[[np.ndarray, Crop, np.ndarray], float]:
    """What `prepare` takes as `check`: how far given landmarks (68, 2) are shifted, in distances of their eye centres.

    `name` is `landmarker` (the shipped one, in photos where the cascade finds a face), or a detector that gives points
    (`yunet:PATH`, `uniface`); of several faces the nearest counts. The shift is that of the mean of five points, eyes,
    nose and corners of the mouth: what one annotator does otherwise than another moves single points, a fault of
    coordinates all of them. NaN where no face is found, or nothing is trusted.

    Raises:
        MienError: there is no such detector, or it gives no points.
    """
    kind, _, weights = name.partition(":")
    if kind not in CHECKERS:
        raise unknown("--check-landmarks", name, CHECKERS)
    if kind == "yunet" and not weights:
        raise MienError("--check-landmarks yunet: it wants the file of its weights, yunet:PATH.onnx")
    locator = build_locator(LANDMARKER) if kind == "landmarker" else None
    detector = build_detector("cascade" if kind == "landmarker" else name)

    def five(image: np.ndarray, crop: Crop, given: np.ndarray) -> np.ndarray | None:
        if locator is not None and crop.template != "photo":
            points = locator.crop(image, crop)
            return None if points is None else five_points(points)
        middle = five_points(given).mean(axis=0)
        found = sorted(detector.detect(image), key=lambda face: float(np.linalg.norm(_middle(face) - middle)))
        if not found or locator is None:
            return found[0].points if found else None
        fit = locator(image, found[0].where)
        return five_points(fit.points) if fit.sure else None

    def check(image: np.ndarray, crop: Crop, given: np.ndarray) -> float:
        eyes = float(eye_centre_distance(given[None].astype(np.float64))[0])
        found = five(image, crop, given)
        if found is None or not eyes > 0:
            return float("nan")
        return float(np.linalg.norm((found - five_points(given)).mean(axis=0))) / eyes

    return check


def _middle(face: Detection) -> np.ndarray:
    """The middle of a face (2,), by its points if it has some, else its box."""
    return (face.box[:2] + face.box[2:]) / 2 if face.points is None else face.points.mean(axis=0)
