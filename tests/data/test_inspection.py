"""What an inspection finds is what was put in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mien.data.inspection import Labels, inspect_manifest, landmarks
from mien.data.manifest import Manifest
from mien.faces import Crop, Face


@pytest.fixture
def faces(tmp_path: Path, picture: Callable[..., bytes]) -> Manifest:
    """Seven faces: one picture twice with other labels, one over two splits, one damaged, two alone."""
    first, second = picture(1, width=64, height=64), picture(2, width=64, height=64)
    files = {
        "a.jpg": first,
        "again.jpg": first,
        "b.jpg": second,
        "b in val.jpg": second,
        "damaged.jpg": first[:200],
        "c.jpg": picture(3, width=64, height=64),
        "d.jpg": picture(4, width=64, height=64),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    labels: dict[str, dict] = {
        "a.jpg": {"age": (10, 10), "gender": "Male", "race": "Asian", "split": "train"},
        "again.jpg": {"age": (31, 31), "gender": "Female", "race": "Asian", "split": "train"},
        "b.jpg": {"age": (20, 29), "gender": "Male", "split": "train"},
        "b in val.jpg": {"age": (25, 25), "gender": "Male", "race": "White", "split": "val"},
        "damaged.jpg": {"age": (70, 70), "gender": "Female", "split": "train"},
        "c.jpg": {"split": "train"},
        "d.jpg": {"age": (3, 3), "gender": "Male", "race": "White", "split": "select"},
    }
    every = [Face(name, **values) for name, values in labels.items()]
    return Manifest.from_faces(every, tmp_path, Crop("chip"))


def test_counts(faces: Manifest) -> None:
    counts = Labels(faces).counts()
    assert counts["age"] == {"exact": 5, "interval": 1, "missing": 1}
    assert counts["gender"] == {"Male": 4, "Female": 2, "missing": 1}
    assert counts["race"] == {"White": 2, "Black": 0, "Asian": 2, "Indian": 0, "Others": 0, "missing": 3}
    assert counts["split"] == {"train": 5, "select": 1, "val": 1, "test": 0, "missing": 0}
    assert "expression" not in counts


def test_an_interval_of_ages_counts_in_parts(faces: Manifest) -> None:
    ages = Labels(faces).ages()
    assert ages is not None
    assert ages["bins"]["20-29"] == pytest.approx(2)
    assert ages["histogram"][25] == pytest.approx(1.1)
    assert sum(ages["histogram"]) == pytest.approx(6)
    assert (ages["lowest"], ages["highest"]) == (3, 70)


def test_seventy_or_more_is_75_in_the_mean() -> None:
    faces = [Face("a.jpg", age=(70, 120)), Face("b.jpg", age=(65, 65))]
    ages = Labels(Manifest.from_faces(faces, Path(), Crop("chip"))).ages()
    assert ages is not None
    assert (ages["mean"], ages["median"], ages["highest"]) == (70, 70, 120)


def test_weights_even_the_classes_out(faces: Manifest) -> None:
    imbalance = Labels(faces).imbalance()
    gender = imbalance["gender"]
    assert gender["ratio"] == 2
    assert {word: one["weight"] for word, one in gender["classes"].items()} == {"Male": 0.75, "Female": 1.5}
    # Races that nobody has get no weight and do not enter the ratio.
    assert imbalance["race"]["ratio"] == 1
    assert imbalance["race"]["classes"]["Black"]["weight"] is None
    for part in imbalance.values():
        some = [one for one in part["classes"].values() if one["count"]]
        total = sum(one["count"] for one in some)
        assert sum(one["count"] * one["weight"] for one in some) == pytest.approx(total)
        assert len({round(one["count"] * one["weight"], 6) for one in some}) == 1


def test_copies_conflicts_leaks_and_bad_pictures_are_found(faces: Manifest) -> None:
    inspection = inspect_manifest(faces, show=False)
    findings = inspection.findings
    assert [one["path"] for one in findings["unreadable"]] == ["damaged.jpg"]
    found = findings["duplicates"]
    assert found["groups"] == [["a.jpg", "again.jpg"], ["b.jpg", "b in val.jpg"]]
    assert (found["faces"], found["largest"], found["identical"], found["mirrored"]) == (4, 2, 2, 0)
    # 20-29 and 25 do not disagree, nor does a race that one of the two lacks.
    assert len(found["conflicting"]) == 1
    conflict = found["conflicting"][0]
    assert conflict["paths"] == ["a.jpg", "again.jpg"]
    assert conflict["differ"] == {"age": 21.0, "gender": ["Female", "Male"]}
    assert conflict["labels"][0] == {"age": 10.0, "gender": "Male", "race": "Asian", "split": "train"}
    assert conflict["identical"]
    assert found["disagreements"] == {"age": 1, "age_over_5": 1, "gender": 1}
    assert found["across_splits"] == [{"paths": ["b.jpg", "b in val.jpg"], "splits": ["train", "val"]}]
    assert [rows.tolist() for rows in inspection.conflicts] == [[0, 1]]


def test_pictures_are_not_compared_when_told(faces: Manifest) -> None:
    findings = inspect_manifest(faces, duplicates=False, show=False).findings
    assert findings["duplicates"] is None
    assert len(findings["unreadable"]) == 1


def test_the_worst_disagreement_comes_first(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    faces = []
    for seed, years in ((1, 2), (2, 30), (3, 9)):
        for copy, age in enumerate((20, 20 + years)):
            name = f"{seed}-{copy}.jpg"
            (tmp_path / name).write_bytes(picture(seed))
            faces.append(Face(name, age=(age, age)))
    manifest = Manifest.from_faces(faces, tmp_path, Crop("chip"))
    conflicting = inspect_manifest(manifest, show=False).findings["duplicates"]["conflicting"]
    assert [one["differ"]["age"] for one in conflicting] == [30, 9, 2]


def test_faces_without_labels(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(1))
    findings = inspect_manifest(Manifest.from_faces([Face("a.jpg")], tmp_path, Crop("chip")), show=False).findings
    assert findings["age"] is None
    assert findings["imbalance"] == {}
    assert findings["counts"]["age"] == {"exact": 0, "interval": 0, "missing": 1}
    assert findings["duplicates"]["groups"] == []


def test_intervals_disagree_where_they_do_not_meet(tmp_path: Path) -> None:
    ages = [(20, 29), (25, 34), (40, 49)]
    faces = [Face(f"{n}.jpg", age=age) for n, age in enumerate(ages)]
    labels = Labels(Manifest.from_faces(faces, tmp_path, Crop("chip")))
    assert labels.differ(np.array([0, 1])) == {}
    assert labels.differ(np.array([0, 1, 2])) == {"age": 11.0}


def test_feelings_votes_and_landmarks_are_counted(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    points = np.full((68, 2), 20.0)
    below, far = points.copy(), points.copy()
    below[8] = 20, 40  # the last row's centre is 39
    far[3] = -6, 20
    votes = np.array([[6, 4], [5, 5], [2, 0]])
    every = [
        Face("0.jpg", expression="Happy", valence=0.0, arousal=-1.0, landmarks=points),
        Face("1.jpg", expression="Happy", valence=0.5, landmarks=below),
        Face("2.jpg", valence=-0.25, landmarks=far),
        *(
            Face(f"{3 + n}.jpg", expression_votes=np.array([*pair, *[0] * 6, 8 * (n == 2), 0]))
            for n, pair in enumerate(votes)
        ),
    ]
    for number, face in enumerate(every):
        (tmp_path / face.path).write_bytes(picture(number))
    manifest = Manifest.from_faces(every, tmp_path, Crop("chip", 0.0, 40))
    found = inspect_manifest(manifest, duplicates=False, show=False).findings
    assert found["feelings"]["valence"] == {
        "count": 3, "missing": 3, "mean": pytest.approx(1 / 12), "deviation": pytest.approx(np.std([0, 0.5, -0.25])),
        "lowest": -0.25, "quartiles": [-0.125, 0.0, 0.25], "highest": 0.5, "zero": 1,
    }  # fmt: skip
    assert found["feelings"]["arousal"]["count"] == 1
    assert found["votes"] == {"faces": 3, "tied": 1, "unsure": 1, "agreement": pytest.approx((0.6 + 0.5 + 0.8) / 3)}
    assert found["landmarks"] == {"faces": 3, "outside": 2, "far_outside": 1}
    assert found["counts"]["expression"]["Happy"] == 2
    sizes = [(40, 40)] * 6
    unsized = Manifest.from_faces(every, tmp_path, Crop("chip"))
    sized = Manifest.from_faces(every, tmp_path, Crop("chip"), sizes=sizes)
    assert landmarks(unsized) == {"faces": 3, "outside": None, "far_outside": None}
    assert landmarks(sized) == found["landmarks"]


def test_without_feelings_votes_and_landmarks(faces: Manifest) -> None:
    found = inspect_manifest(faces, duplicates=False, show=False).findings
    assert (found["feelings"], found["votes"], found["landmarks"]) == ({}, None, None)
