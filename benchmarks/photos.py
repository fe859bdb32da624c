"""The photo path against the crop path on FG-NET: faces found, and the error of their ages.

    python benchmarks/photos.py FGNET [--model M] [--yunet PATH] [--limit N] [--landmarker L] [--manifest M] [--split S]
        [--boxes N]

FGNET is the folder or archive of the data set. The crop path cuts each face by its 68 given points; the photo path
finds it by itself. A detection is the face when its crop's centre lies within 0.4 of the side of the true one and its
side is 0.5 to 1.7 times as long. Errors of both paths are compared on the same faces; intervals resample persons. With
a landmarker each face is cut a third time, by the 68 points that the landmarker finds from what the detector gave. A
landmarker that learnt from FG-NET is judged on the persons it did not see: `--manifest marks/fgnet --split val` names
them. With `--boxes`, the mean over so many boxes about every face, which scatter as the cascade's do, stands beside.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from mien.data.align import crop_face, crop_matrix
from mien.data.detect import Detector, build_detector
from mien.data.manifest import Manifest
from mien.data.pictures import Pictures
from mien.data.sources import SOURCES
from mien.evaluation.landmarks import SHIFT, SIDE, moved_box
from mien.evaluation.locate import Locator, build_locator, given_square
from mien.faces import Crop, Face
from mien.jobs.predict import Model, load
from mien.metrics.bootstrap import Bootstrap, Estimate
from mien.metrics.landmarks import eye_centre_distance, normalised_errors

BATCH = 64


def square(where: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and side, in the photo's pixels, of the square that the plain chip of a face shows."""
    matrix = crop_matrix(where, Crop("chip", size=100))
    inverse = np.linalg.inv(matrix[:, :2])
    return inverse @ (np.array([49.5, 49.5]) - matrix[:, 2]), 100 / float(np.sqrt(np.linalg.det(matrix[:, :2])))


def is_face(found: np.ndarray, true: np.ndarray) -> bool:
    (centre, side), (true_centre, true_side) = square(found), square(true)
    return bool(np.linalg.norm(centre - true_centre) < 0.4 * true_side and 0.5 < side / true_side < 1.7)


def ages(model: Model, crops: list[np.ndarray]) -> np.ndarray:
    parts = [
        model.estimator.predict(torch.from_numpy(np.stack(crops[at : at + BATCH])).to(model.device))["age"]
        for at in range(0, len(crops), BATCH)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def told(one: Estimate) -> str:
    return f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def judge(
    model: Model, faces: list[Face], pictures: Pictures, detector: Detector, locator: Locator | None = None
) -> None:
    """Print one detector's line of the table."""
    rows, by_points, by_detector, by_landmarks, extra, seconds = [], [], [], [], 0, 0.0
    sure: list[bool] = []
    off: list[float] = []
    for row, face in enumerate(faces):
        photo = pictures.image(face.path, face.archive)
        start = time.perf_counter()
        found = detector.detect(photo)
        seconds += time.perf_counter() - start
        hits = [one for one in found if is_face(one.where, face.landmarks)]
        extra += len(found) - len(hits[:1])
        if hits:
            rows.append(row)
            given = np.asarray(face.landmarks, dtype=np.float64)
            by_points.append(crop_face(photo, given, model.crop)[0])
            by_detector.append(crop_face(photo, hits[0].where, model.crop)[0])
            if locator is not None:
                fit = locator(photo, hits[0].where)
                sure.append(fit.sure)
                off.append(float(normalised_errors(fit.points[None], given[None], eye_centre_distance(given[None]))[0]))
                where = fit.points if fit.sure else hits[0].where
                by_landmarks.append(crop_face(photo, where, model.crop)[0])
    true = np.array([faces[row].age[0] for row in rows])
    errors = {
        "crop path": np.abs(ages(model, by_points) - true),
        "photo path": np.abs(ages(model, by_detector) - true),
    }
    errors["difference"] = errors["photo path"] - errors["crop path"]
    if locator is not None:
        errors["landmarker's path"] = np.abs(ages(model, by_landmarks) - true)
        errors["its difference to the photo path"] = errors["landmarker's path"] - errors["photo path"]
        errors["its difference to the crop path"] = errors["landmarker's path"] - errors["crop path"]
        points = np.array(off)
        known = np.isfinite(points)
        by_person = Bootstrap(np.array([faces[row].person for row, good in zip(rows, known, strict=True) if good]))
        nme = by_person.estimates({"nme": lambda w: w @ points[known] / w.sum(1)})["nme"]
        print(
            f"{detector.name}, landmarker: {np.mean(sure):.1%} aligned; mean distance of its points over that of the "
            f"eye centres {100 * nme['value']:.2f} % [{100 * nme['low']:.2f}, {100 * nme['high']:.2f}]"
        )
    persons = Bootstrap(np.array([faces[row].person for row in rows]))
    estimates = persons.estimates({name: (lambda w, e=e: w @ e / w.sum(1)) for name, e in errors.items()})
    print(
        f"{detector.name}: {len(rows)} of {len(faces)} faces found ({len(rows) / len(faces):.1%}), "
        f"{extra} others, {1e3 * seconds / len(faces):.0f} ms a photo; MAE on those found: "
        + ", ".join(f"{name} {told(one)}" for name, one in estimates.items()),
        flush=True,
    )


def scattered(model: Model, faces: list[Face], pictures: Pictures, locator: Locator, count: int) -> None:
    """Print the errors from `count` boxes a face, moved by chance, as they are and aligned by the landmarker."""
    rng = np.random.default_rng(0)
    by_box, by_landmarks, by_points = [], [], []
    for face in faces:
        photo, given = pictures.image(face.path, face.archive), np.asarray(face.landmarks, dtype=np.float64)
        by_points.append(crop_face(photo, given, model.crop)[0])
        for _ in range(count):
            box = moved_box(given_square(given), rng.normal(0, (SHIFT, SHIFT, SIDE)))
            fit = locator(photo, box)
            by_box.append(crop_face(photo, box, model.crop)[0])
            by_landmarks.append(crop_face(photo, fit.points if fit.sure else box, model.crop)[0])
    true = np.array([face.age[0] for face in faces])
    points, box, aligned = (
        np.abs(ages(model, crops).reshape(len(faces), -1) - true[:, None]).mean(axis=1)
        for crops in (by_points, by_box, by_landmarks)
    )
    errors = {"points": points, "box": box, "aligned": aligned, "box less points": box - points}
    errors |= {"aligned less points": aligned - points, "aligned less box": aligned - box}
    persons = Bootstrap(np.array([face.person for face in faces]))
    estimates = persons.estimates({name: (lambda w, e=e: w @ e / w.sum(1)) for name, e in errors.items()})
    print(f"{count} boxes a face: MAE by " + ", ".join(f"{name} {told(one)}" for name, one in estimates.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fgnet", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--yunet", help="path of YuNet's weights")
    parser.add_argument("--landmarker", help="a run, a checkpoint or a shipped landmarker")
    parser.add_argument("--manifest", type=Path, help="the persons of its split alone")
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, help="look at so many photos, spread over all")
    parser.add_argument("--boxes", type=int, default=0, help="boxes a face, scattered by chance, beside the detector's")
    given = parser.parse_args()
    model = load(given.model)
    read = SOURCES["fgnet"]().faces(given.fgnet)
    faces = [face for face in read if isinstance(face, Face) and face.landmarks is not None]
    if given.manifest:
        chosen = set(Manifest.open(given.manifest).split(given.split).strings("person"))
        faces = [face for face in faces if face.person in chosen]
    faces = faces[:: max(1, len(faces) // given.limit)] if given.limit else faces
    pictures = Pictures(given.fgnet if given.fgnet.is_dir() else given.fgnet.parent)
    crops = [crop_face(pictures.image(one.path, one.archive), one.landmarks, model.crop)[0] for one in faces]
    true = np.array([face.age[0] for face in faces])
    persons = Bootstrap(np.array([face.person for face in faces]))
    off, flat = np.abs(ages(model, crops) - true), np.abs(np.median(true) - true)
    both = persons.estimates({"mae": lambda w: w @ off / w.sum(1), "constant": lambda w: w @ flat / w.sum(1)})
    print(f"{len(faces)} faces cut by their points: MAE {told(both['mae'])}; median age {told(both['constant'])}")
    for name in ["cascade", *([f"yunet:{given.yunet}"] if given.yunet else [])]:
        judge(model, faces, pictures, build_detector(name), build_locator(given.landmarker))
    locator = build_locator(given.landmarker) if given.boxes else None
    if locator is not None:
        scattered(model, faces, pictures, locator, given.boxes)


if __name__ == "__main__":
    main()
