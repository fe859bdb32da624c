"""FairFace: bins that a spreadsheet turned into dates, seven races to five, pictures without a label."""

from __future__ import annotations

import pytest

from mien.data.sources import Rejected
from mien.data.sources.fairface import FairFace, age_bin
from mien.errors import MienError
from mien.faces import Face

CSV = """file,age,gender,race,service_test
train/1.jpg,20-29,Male,Middle Eastern,TRUE
train/2.jpg,03-Sep,female,Latino_Hispanic,FALSE
train\\3.jpg,more than 70,Female,East Asian,FALSE
train/4.jpg,Oct-19,Male,Black,FALSE
train/5.jpg,,,,FALSE
train/6.jpg,20-29,Male,White,FALSE
train/7.jpg,80-90,Male,White,FALSE
train/8.jpg,0-2,Robot,White,FALSE
train/1.jpg,0-2,Male,White,FALSE
"""
FILES = {
    "FairFace/fairface_label_train.csv": CSV.encode(),
    **{f"FairFace/train/{number}.jpg": b"" for number in (1, 2, 3, 5, 7, 8, 9)},
    "FairFace/TRAIN/4.WEBP": b"",
}


def read(path) -> tuple[dict[str, Face], dict[str, str]]:
    items = list(FairFace().faces(path))
    faces = {item.path: item for item in items if isinstance(item, Face)}
    return faces, {item.path: item.reason for item in items if isinstance(item, Rejected)}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_faces_and_what_does_not_match(pack, kind):
    faces, rejected = read(pack(kind, FILES))
    labels = {
        path.removeprefix("FairFace/"): (face.age, face.gender, face.race7, face.race) for path, face in faces.items()
    }
    assert labels == {
        "train/1.jpg": ((20, 29), "Male", "Middle Eastern", "Others"),
        "train/2.jpg": ((3, 9), "Female", "Latino_Hispanic", "Others"),
        "train/3.jpg": ((70, 120), "Female", "East Asian", "Asian"),
        "TRAIN/4.WEBP": ((10, 19), "Male", "Black", "Black"),
        "train/5.jpg": (None, None, None, None),
    }
    line = "fairface_label_train.csv line"
    assert {path: reason.split(line)[-1] for path, reason in rejected.items()} == {
        "train/6.jpg": " 7: no such picture",
        "FairFace/train/7.jpg": " 8: age '80-90' is none of FairFace's bins "
        "(0-2, 3-9, 10-19, 20-29, 30-39, 40-49, 50-59, 60-69, more than 70)",
        "FairFace/train/8.jpg": " 9: gender 'Robot' is none of Male, Female",
        "train/1.jpg": " 10: labelled for the second time",
        "FairFace/train/9.jpg": "no label file names it",
    }
    assert faces["FairFace/train/1.jpg"].extra == {"race_from": "race7", "service_test": "TRUE"}


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("0-2", (0, 2)),
        ("3-9", (3, 9)),
        ("03-Sep", (3, 9)),
        ("9-Mar", (3, 9)),
        ("Mar-09", (3, 9)),
        ("2023-03-09", (3, 9)),
        ("3/9/2023", (3, 9)),
        ("Oct-19", (10, 19)),
        ("19-Oct", (10, 19)),
        ("10-19", (10, 19)),
        ("2019-10-01", (10, 19)),
        (" 60-69 ", (60, 69)),
        ("more than 70", (70, 120)),
        ("70+", (70, 120)),
    ],
)
def test_bins(text, interval):
    assert age_bin(text) == interval


@pytest.mark.parametrize("text", ["", "9", "30", "20-39", "seventy", "Sep", "70-79", "-1", "2023-05-05"])
def test_what_is_no_bin(text):
    with pytest.raises(MienError, match="none of FairFace's bins"):
        age_bin(text)


def test_label_files_may_lie_beside_the_archive(pack, tmp_path):
    path = pack("zip", {name: data for name, data in FILES.items() if not name.endswith("csv")})
    (tmp_path / "FairFace_Label_train.csv").write_bytes("\ufeff".encode() + CSV.replace(",", ";").encode())
    faces, _ = read(path)
    assert len(faces) == 5


def test_without_label_files_nothing_is_a_face(pack):
    faces, rejected = read(pack("zip", {"train/1.jpg": b"", "train/2.jpg": b""}))
    assert not faces
    assert set(rejected.values()) == {"no label file names it"}


def test_a_label_file_without_its_columns(pack):
    with pytest.raises(MienError, match=r"fairface_label_train\.csv has no column age; its columns are file, years"):
        read(pack("zip", {"fairface_label_train.csv": b"file,years,gender,race\n"}))
