"""MORPH-2: names that tell all, and the index of the copy on Kaggle."""

from __future__ import annotations

import pytest

from mien.data.sources import Rejected
from mien.data.sources.morph2 import Morph2
from mien.faces import Face

FILES = {
    "Dataset/Images/Train/009055_1M54.JPG": b"",
    "Dataset/Images/Train/009055_0M53.jpg": b"",
    "Dataset/Images/Test/101010_02F30.JPG": b"",
    "Dataset/Images/Test/holiday.jpg": b"",
    "Dataset/Images/Test/202020_0M230.JPG": b"",
}
INDEX = {
    "Dataset/Index/Train.csv": b"""filename,filepath,age,gender
009055_1M54.JPG,/kaggle/input/morph/Dataset/Images/Train/009055_1M54.JPG,55,Male
009055_0M53.jpg,/kaggle/input/morph/Dataset/Images/Train/009055_0M53.jpg,53,Robot
000000_0M20.JPG,/kaggle/input/morph/Dataset/Images/Train/000000_0M20.JPG,20,Male
""",
    "Dataset/Index/Test.csv": b"filename,filepath,age,gender\n101010_02F30.JPG,x,,F\n",
    "Dataset/Index/Validation.csv": b"filename,filepath,age,gender\n009055_1M54.JPG,x,54,M\n",
}


def read(path) -> tuple[dict[str, Face], dict[str, str]]:
    items = list(Morph2().faces(path))
    faces = {item.path.rsplit("/", 1)[-1]: item for item in items if isinstance(item, Face)}
    return faces, {item.path.rsplit("/", 1)[-1]: item.reason for item in items if isinstance(item, Rejected)}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_names_alone(pack, kind):
    faces, rejected = read(pack(kind, FILES))
    told = {name: (face.age, face.gender, face.person, face.extra) for name, face in faces.items()}
    assert told == {
        "009055_1M54.JPG": ((54, 54), "Male", "morph2 009055", {"photo": 1}),
        "009055_0M53.jpg": ((53, 53), "Male", "morph2 009055", {"photo": 0}),
        "101010_02F30.JPG": ((30, 30), "Female", "morph2 101010", {"photo": 2}),
    }
    assert rejected == {
        "holiday.jpg": "'holiday.jpg' is not of the form SUBJECT_PHOTO followed by M or F and the age",
        "202020_0M230.JPG": "age 230 is outside 0-120 years",
    }


def test_the_index_counts_where_it_differs(pack):
    faces, rejected = read(pack("zip", FILES | INDEX))
    assert faces["009055_1M54.JPG"].age == (55, 55)
    assert faces["009055_1M54.JPG"].extra["usage"] == "train"
    assert faces["101010_02F30.JPG"].age is None
    assert faces["101010_02F30.JPG"].gender == "Female"
    assert rejected["009055_0M53.jpg"].endswith(
        "line 3: gender 'Robot' is none of M, F, Male, Female, 0 (male), 1 (female)"
    )
    assert rejected["000000_0M20.JPG"].endswith("line 4: no such picture")
    assert rejected["009055_1M54.JPG"].endswith("Validation.csv line 2: labelled for the second time")
