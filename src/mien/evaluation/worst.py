"""The faces with the largest errors of age, and how large errors are on faces that are hard to see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.errors import PictureError
from mien.evaluation.groups import FEWEST, pair_figures
from mien.evaluation.judge import AGE_FIGURES, GROUP_FIGURES
from mien.evaluation.predictions import Predictions
from mien.metrics.bootstrap import Bootstrap
from mien.progress import track

if TYPE_CHECKING:
    from mien.data.pictures import Pictures

#: Ages below the first or from the second on are tagged: there are few faces to learn them from.
EXTREME_AGES = (5, 70)
#: Faces looked at, drawn at random, for the errors by tag.
SAMPLE = 3000
#: A face is turned away when its nose is nearer to one side than this share of its width: about 25 degrees on
#: a round head whose nose stands out by a quarter of its radius (share = 1/2 - 5/8 tan).
TURNED = 0.2
#: The group of faces without any tag.
UNTAGGED = "none"


def exact_rows(predictions: Predictions) -> np.ndarray:
    """Rows (n,) with an exact age and a prediction of it."""
    true, high = predictions.numbers("true_age_low"), predictions.numbers("true_age_high")
    return np.flatnonzero((true == high) & ~np.isnan(predictions.numbers("age")))


def worst_rows(predictions: Predictions, count: int = 20) -> np.ndarray:
    """Rows of the largest absolute errors of age, the largest first."""
    rows = exact_rows(predictions)
    error = np.abs(predictions.numbers("age") - predictions.numbers("true_age_low"))[rows]
    return rows[np.argsort(-error, kind="stable")[:count]]


def pictures_of(
    predictions: Predictions, pictures: Pictures, rows: Sequence[int] | np.ndarray
) -> list[np.ndarray | None]:
    """The pictures of these rows, (3, H, W) uint8; None for one that cannot be read any more."""
    return list(_one_by_one(predictions, pictures, rows))


def _one_by_one(
    predictions: Predictions, pictures: Pictures, rows: Sequence[int] | np.ndarray
) -> Iterator[np.ndarray | None]:
    """`pictures_of` with one picture in memory at a time; the table is looked through once for all."""
    paths, archives = predictions.strings("path"), predictions.strings("archive")
    for row in rows:
        try:
            yield pictures.image(paths[row], archives[row])
        except PictureError:
            yield None


def tags_of(true_age: float, image: np.ndarray | None, points: np.ndarray | None = None) -> list[str]:
    """Why a face may be hard: its age in years, its picture (3, H, W) uint8, its 68 landmarks (68, 2)."""
    from mien.data.quality import measure, tags

    extreme = ["extreme age"] if true_age < EXTREME_AGES[0] or true_age >= EXTREME_AGES[1] else []
    away = ["turned away"] if points is not None and turned_away(points) else []
    return extreme + away + (tags(measure(image)) if image is not None else [])


def turned_away(points: np.ndarray) -> bool:
    """Whether the nose is far from the middle of the jaw; `points` is (68, 2), NaN where unknown."""
    left, right, nose = points[0, 0], points[16, 0], points[30, 0]
    width = right - left
    return bool(abs(width) > 1e-6 and not TURNED <= (nose - left) / width <= 1 - TURNED)


def worst_faces(
    predictions: Predictions, pictures: Pictures, landmarks: np.ndarray | None = None, count: int = 20
) -> tuple[list[dict[str, Any]], list[np.ndarray | None]]:
    """The worst faces and their pictures, the worst first.

    `landmarks` is (N, 68, 2), a row a prediction. A face is `{"path", "row", "true", "predicted", "low",
    "high", "error", "tags"}`, in years.
    """
    rows = worst_rows(predictions, count)
    images = pictures_of(predictions, pictures, rows)
    columns = {
        "true": predictions.numbers("true_age_low"),
        "predicted": predictions.numbers("age"),
        "low": predictions.numbers("age_low"),
        "high": predictions.numbers("age_high"),
    }
    paths, numbers = predictions.strings("path"), predictions.numbers("row")
    faces = []
    for row, image in zip(rows, images, strict=True):
        face = {"path": paths[row], "row": int(numbers[row])}
        face |= {name: float(values[row]) for name, values in columns.items()}
        face["error"] = face["predicted"] - face["true"]
        face["tags"] = tags_of(face["true"], image, None if landmarks is None else landmarks[row])
        faces.append(face)
    return faces, images


def by_tag(
    predictions: Predictions,
    pictures: Pictures,
    landmarks: np.ndarray | None = None,
    *,
    sample: int = SAMPLE,
    resamples: int = 1000,
    seed: int = 0,
    show: bool = True,
) -> dict[str, dict[str, Any]]:
    """Figures of the faces of each tag, on a random sample of faces, and of those without any ("none").

    A face with several tags counts under each. Tags with fewer than 30 faces in the sample are suppressed.
    """
    rows = exact_rows(predictions)
    if len(rows) > sample:
        rows = np.sort(np.random.default_rng(seed).choice(rows, sample, replace=False))
    true, predicted = predictions.numbers("true_age_low"), predictions.numbers("age")
    members: dict[str, list[int]] = {}
    images = track(_one_by_one(predictions, pictures, rows), len(rows), "faces", "look for what makes faces hard", show)
    for row, image in zip(rows, images, strict=True):
        points = None if landmarks is None else landmarks[row]
        for tag in tags_of(true[row], image, points) or [UNTAGGED]:
            members.setdefault(tag, []).append(row)
    boot = Bootstrap(predictions.groups(), resamples, seed)
    figures = pair_figures(true, predicted, {name: AGE_FIGURES[name] for name in GROUP_FIGURES})
    table: dict[str, dict[str, Any]] = {}
    for tag in sorted(members, key=lambda tag: (tag == UNTAGGED, -len(members[tag]), tag)):
        chosen = np.array(members[tag])
        table[tag] = (
            {"n": len(chosen), "suppressed": True}
            if len(chosen) < FEWEST
            else {"n": len(chosen), **boot.estimates(figures(chosen), chosen)}
        )
    return table
