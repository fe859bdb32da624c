"""How well a landmarker does on faces whose points are known, started as a detector would start it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mien.data.manifest import Manifest
from mien.errors import MienError, PictureError
from mien.evaluation.locate import Locator, given_square, mean_face
from mien.metrics.bootstrap import Bootstrap, Estimate
from mien.metrics.landmarks import eye_centre_distance, normalised_errors, outer_eye_distance
from mien.models.landmarker import Landmarker
from mien.objectives.landmarker import FAILURE
from mien.progress import Progress

#: What a detector's box is wrong by: standard deviations of its centre, in sides, and of its side, in shares. So the
#: cascade's boxes scatter about the chip of a face on FG-NET.
SHIFT, SIDE = 0.04, 0.1


def evaluate_landmarker(
    landmarker: Landmarker,
    manifest: Manifest,
    split: str,
    *,
    passes: int = 2,
    seed: int = 0,
    device: str = "cpu",
    show: bool = True,
) -> dict[str, Any]:
    """Figures of `landmarker` on the faces of a split whose points are known, whole and by source.

    Each face is started from the square of its own chip, moved and scaled by chance as a detector's box would be. A
    figure is the mean over faces of the mean distance over 68 points, in distances of the eye centres (`nme`) and of
    the outer eye corners (`nme_corners`); `failures` is the share of faces with `nme` above 0.1; `mean_face` is the
    `nme` of the mean face laid into the box; `refused` the share of faces that the landmarker would not align. `order`
    is Spearman's correlation of the error it expects with the error it makes. Pictures that cannot be read are in no
    figure; `about` lists them.

    Raises:
        MienError: no face of the split has points.
    """
    faces = manifest.split(split)
    true = faces.landmarks()
    rows = np.flatnonzero(np.isfinite(true).all(axis=(1, 2)))
    if not len(rows):
        raise MienError(f"{manifest.path or 'the manifest'} has no face with landmarks in split {split!r}")
    locator = Locator(landmarker, device, passes)
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, (SHIFT, SHIFT, SIDE), (len(faces), 3))
    pictures, paths, archives = faces.pictures(), faces.strings("path"), faces.strings("archive")
    kept, found, flat, expected, sure = [], [], [], [], []
    rejected: list[dict[str, str]] = []
    with Progress(len(rows), "faces", "landmarks", show) as progress:
        for row in rows.tolist():
            progress.advance()
            try:
                image = pictures.image(paths[row], archives[row])
            except PictureError as error:
                rejected.append({"path": paths[row], "reason": str(error)})
                continue
            box = moved_box(given_square(true[row]), noise[row])
            fit = locator(image, box)
            kept.append(row)
            found.append(fit.points)
            flat.append(mean_face(landmarker, box))
            expected.append(fit.error)
            sure.append(fit.sure)
    if not kept:
        first = rejected[0]["reason"]
        raise MienError(f"{manifest.path or 'the manifest'}: no picture of split {split!r} can be read; {first}")
    points = true[kept]
    eyes = eye_centre_distance(points)
    columns = {
        "nme": normalised_errors(np.stack(found), points, eyes),
        "nme_corners": normalised_errors(np.stack(found), points, outer_eye_distance(points)),
        "mean_face": normalised_errors(np.stack(flat), points, eyes),
    }
    # Points that are none at all have no distance, and are a failure all the same.
    columns["failures"] = np.where(eyes > 0, ~(columns["nme"] <= FAILURE), np.nan)
    columns["refused"] = 1.0 - np.array(sure)
    sources = faces.strings("source")[kept].astype(str)
    result: dict[str, Any] = {
        "about": {"split": split, "faces": len(kept), "passes": passes, "seed": seed, "rejected": rejected},
        "all": _figures(columns, faces.groups()[kept]),
        "order": _order(np.array(expected), columns["nme"]),
        "by_source": {},
    }
    for source in np.unique(sources):
        mine = sources == source
        result["by_source"][str(source)] = _figures(
            {name: values[mine] for name, values in columns.items()}, faces.groups()[kept][mine]
        )
    return result


def _order(expected: np.ndarray, error: np.ndarray) -> float | None:
    """Spearman's correlation; None where one of them does not vary."""
    from scipy.stats import spearmanr

    known = np.isfinite(expected) & np.isfinite(error)
    if known.sum() < 3 or not np.ptp(expected[known]) or not np.ptp(error[known]):
        return None
    return float(spearmanr(expected[known], error[known]).statistic)


def moved_box(box: np.ndarray, by: np.ndarray) -> np.ndarray:
    """A square (4,), its centre moved by `by[:2]` of its side and the side scaled by exp(`by[2]`)."""
    side = box[2] - box[0]
    centre = (box[:2] + box[2:]) / 2 + side * by[:2]
    half = side * np.exp(by[2]) / 2
    return np.concatenate([centre - half, centre + half])


def _figures(columns: Mapping[str, np.ndarray], groups: np.ndarray) -> dict[str, Estimate]:
    """The mean of each column with its interval over `groups`; faces where it is NaN are left out."""
    witnesses = Bootstrap(groups)
    figures: dict[str, Estimate] = {}
    for name, values in columns.items():
        known = np.flatnonzero(np.isfinite(values))
        with np.errstate(invalid="ignore"):  # a figure of no face is NaN, n 0
            figures |= witnesses.estimates({name: lambda w, v=values[known]: w @ v / w.sum(1)}, known)  # type: ignore[misc]
    return figures
