"""The sample of an audit, where faces are in it, and the mean faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mien.data.manifest import Manifest
from mien.data.prepare import prepare
from mien.data.sources.drawn import DrawnSource
from mien.evaluation.ageing.judges import PointsJudge
from mien.evaluation.ageing.sample import Faces, balanced, mean_faces, middle_age
from mien.evaluation.locate import build_locator
from mien.faces import Crop, Face, age_bin


def test_strata_have_equal_shares_as_far_as_they_have_faces() -> None:
    ages = [5] * 200 + [25] * 200 + [65] * 3
    faces = [Face(f"{i}.jpg", age=(age, age), gender=("Male", "Female")[i % 2]) for i, age in enumerate(ages)]
    faces.append(Face("ageless.jpg", gender="Male"))
    manifest = Manifest.from_faces(faces, ".", Crop("chip"))
    rows = balanced(manifest, 43, seed=1)
    assert len(rows) == 43
    assert (np.diff(rows) > 0).all()
    table = [
        ((age_bin(np.array(ages)[rows]) == place) & (manifest.codes("gender")[rows] == gender)).sum()
        for place in (0, 2)
        for gender in (0, 1)
    ]
    assert table == [10] * 4
    assert (rows >= 400).sum() == 3
    assert rows.tolist() == balanced(manifest, 43, seed=1).tolist() != balanced(manifest, 43, seed=2).tolist()
    assert balanced(manifest, 1000).tolist() == list(range(403))


def test_seventy_or_more_is_not_ninety_five() -> None:
    ages = [(70.0, 120.0), (20.0, 29.0), None, (115.0, 120.0)]
    manifest = Manifest.from_faces([Face(f"{n}.jpg", age=age) for n, age in enumerate(ages)], ".", Crop("chip"))
    assert middle_age(manifest).tolist() == pytest.approx([75.0, 24.5, np.nan, 117.5], nan_ok=True)


def test_points_tell_where_a_drawn_face_is(manifest: Manifest) -> None:
    locator = build_locator("auto")
    assert locator is not None
    judge = PointsJudge(locator.landmarker)
    part = manifest.split("val").take(np.arange(8))
    batch = next(Faces(part, 112, {}, {}).loader().epoch())
    points = judge.find(batch.images)
    sure = np.isfinite(points).all(axis=(1, 2))
    assert sure.any()
    true = (part.landmarks() + 0.5) / 32
    assert np.abs(points[sure] - true[sure]).mean() < 0.06
    faces = Faces(part, 112, {"points": np.where(sure[:, None, None], true, np.nan)}, {})
    outside = faces.outside(np.arange(8))
    assert (outside.mean(axis=(1, 2)) > 0.02).all()
    for row in range(8):
        inner = (true[row, 17:] * 112).astype(int).clip(0, 111)  # all but the jaw
        assert not outside[row, inner[:, 1], inner[:, 0]].any()
        assert outside[row, -1, 0] or outside[row, -1, -1]


def test_points_and_the_place_of_a_face_do_not_depend_on_the_margin(tmp_path: Path) -> None:
    locator = build_locator("auto")
    assert locator is not None
    found = {}
    for margin in (0.0, 0.3, 0.6):
        side = round(112 * (1 + 2 * margin))
        source = DrawnSource(count=12, seed=3, size=side, margin=margin)
        part = prepare(source, Path(), tmp_path / str(margin), show=False).manifest
        images = next(Faces(part, side, {}, {}).loader().epoch()).images
        points = PointsJudge(locator.landmarker, margin).find(images)
        true = (part.landmarks()[: len(points)] + 0.5) / side
        eyes = np.linalg.norm(true[:, 36:42].mean(1) - true[:, 42:48].mean(1), axis=1)
        error = np.linalg.norm(points - true, axis=2).mean(axis=1) / eyes
        assert np.nanmean(error) < 0.06
        share = 1 - Faces(part, side, {}, {}).outside(np.arange(len(images))).mean()
        found[margin] = share * (1 + 2 * margin) ** 2  # of the plain crop's area
    assert found[0.3] == pytest.approx(found[0.6], rel=0.02)
    assert found[0.0] == pytest.approx(found[0.6], rel=0.15)  # its ellipse ends at the picture's edge


def test_mean_faces_are_means(manifest: Manifest) -> None:
    part = manifest.split("train")
    found = mean_faces(part, np.array([[0.0, 30.0], [30.0, 60.0], [119.0, 120.0]]), 32)
    assert found["bands"].tolist() == [0, 1]
    ages = part.numbers("age_low")
    rows = np.flatnonzero(ages < 30)
    archive = part.pictures()
    pictures = [archive.image(part.strings("path")[row], part.strings("archive")[row]) for row in rows]
    assert found["counts"][0] == len(rows)
    assert found["means"][0] == pytest.approx(np.mean(pictures, axis=0) / 255, abs=1e-5)
