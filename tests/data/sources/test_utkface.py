"""UTKFace's names, with the faults that copies of it have."""

from __future__ import annotations

import pytest

from mien.data.sources import Rejected
from mien.data.sources.utkface import UTKFace
from mien.faces import Face

DATE = "20170116001830007"


def read(path) -> tuple[dict[str, Face], dict[str, str]]:
    items = list(UTKFace().faces(path))
    faces = {item.path: item for item in items if isinstance(item, Face)}
    return faces, {item.path: item.reason for item in items if isinstance(item, Rejected)}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_labels_are_in_the_names(pack, kind):
    path = pack(
        kind,
        {f"UTKFace/29_1_3_{DATE}.jpg.chip.jpg": b"1", f"UTKFace/100_0_4_{DATE}.JPG": b"2", "readme.txt": b""},
    )
    faces, rejected = read(path)
    assert not rejected
    face = faces[f"UTKFace/29_1_3_{DATE}.jpg.chip.jpg"]
    assert (face.age, face.gender, face.race, face.source) == ((29, 29), "Female", "Indian", "utkface")
    assert face.archive == (None if kind == "folder" else path.name)
    other = faces[f"UTKFace/100_0_4_{DATE}.JPG"]
    assert (other.age, other.gender, other.race) == ((100, 100), "Male", "Others")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (f"61_1_{DATE}.jpg.chip.jpg", (61, "Female", None)),  # no race
        (f"61_3_{DATE}.jpg.chip.jpg", (61, None, "Indian")),  # 3 is no gender: it is the race that is there
        (f"53__0_{DATE}.jpg.chip.jpg", (53, None, "White")),  # an empty gender
        (f"53_0__{DATE}.jpg.chip.jpg", (53, "Male", None)),  # an empty race
        (f"24_0_1_{DATE} .jpg.chip.jpg", (24, "Male", "Black")),  # a blank
        (f"24 _0_ 1_{DATE}.jpg.chip.jpg", (24, "Male", "Black")),
        (f"24_0_1__{DATE}.jpg.chip.jpg", (24, "Male", "Black")),  # a doubled underscore
        (f"24__0_1_{DATE}.jpg", (24, "Male", "Black")),
        (f"44_1_{DATE}.JPG.CHIP.JPG", (44, "Female", None)),
        (f"55_0_0_{DATE}jpg.chip.jpg", (55, "Male", "White")),
        ("14_0_0_2017011022340900.jpg.chip.jpg", (14, "Male", "White")),  # a digit is lost
        (f"7_{DATE}.jpg", (7, None, None)),
    ],
)
def test_faulty_names(pack, name, labels):
    faces, rejected = read(pack("folder", {name: b""}))
    assert not rejected
    face = faces[name]
    assert (face.age[0], face.gender, face.race) == labels
    assert face.age[0] == face.age[1]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"250_0_0_{DATE}.jpg", "age (250.0, 250.0) is not an interval within 0-120 years"),
        (f"25_2_0_{DATE}.jpg", "gender '2' is outside 0-1"),
        (f"25_0_5_{DATE}.jpg", "race '5' is outside 0-4"),
        (f"25_x_1_{DATE}.jpg", "gender 'x' is outside 0-1"),
        (f"_0_1_{DATE}.jpg", "the name is not [age]_[gender]_[race]_[date].jpg"),
        ("holiday.jpg", "the name is not [age]_[gender]_[race]_[date].jpg"),
        (f"-5_0_1_{DATE}.jpg", "the name is not [age]_[gender]_[race]_[date].jpg"),
        (f"1_1_1_1_1_{DATE}.jpg", "the name is not [age]_[gender]_[race]_[date].jpg"),
    ],
)
def test_wrong_names_are_listed_with_the_reason(pack, name, reason):
    faces, rejected = read(pack("folder", {name: b""}))
    assert not faces
    assert rejected == {name: reason}


def test_windows_separators_and_members_that_lead_outside(pack):
    faces, rejected = read(pack("zip", {f"UTK\\part1\\3_0_2_{DATE}.jpg": b"", f"..\\4_0_2_{DATE}.jpg": b""}))
    assert list(faces) == [f"UTK/part1/3_0_2_{DATE}.jpg"]
    assert rejected == {f"../4_0_2_{DATE}.jpg": "its name leads outside the archive"}


def test_recognises():
    assert UTKFace.recognises([f"a/1_0_0_{DATE}.jpg.chip.jpg", f"a/61_1_{DATE}.jpg"])
    assert not UTKFace.recognises(["FGNET/images/001A02.JPG", "train/1.jpg", "1_2.jpg"])
