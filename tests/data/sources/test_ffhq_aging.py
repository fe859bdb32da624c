"""FFHQ-Aging: groups as intervals, -1 as missing, the usual filter and split."""

from __future__ import annotations

import pytest

from mien.data.sources import Rejected
from mien.data.sources.ffhq_aging import FFHQAging
from mien.faces import Face

HEAD = (
    "image_number,age_group,age_group_confidence,gender,gender_confidence,head_pitch,head_roll,head_yaw,"
    "left_eye_occluded,right_eye_occluded,glasses\n"
)
CSV = HEAD + (
    "0,0-2,0.99,male,0.98,-3.5,2,10,1.5,2,None\n"
    "1,70-120,0.70,female,0.90,5,1,-45,1,1,Normal\n"
    "2,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1\n"
    "3,20-29,0.95,female,0.99,0,0,0,60,20,Normal\n"
    "4,20-29,0.95,female,0.99,0,0,0,60,60,Normal\n"
    "5,20-29,0.95,female,0.99,0,0,0,1,1,Dark\n"
    "6,80-90,0.95,female,0.99,0,0,0,1,1,None\n"
    "69000,50-69,0.95,male,0.99,0,0,0,1,1,None\n"
    "7,20-29,0.95,male,0.99,0,0,0,1,1,None\n"
)
FILES = {
    "ffhq_aging_labels.csv": CSV.encode(),
    **{f"ffhq256/{number // 1000 * 1000:05}/{number:05}.png": b"" for number in (0, 1, 2, 3, 4, 5, 6, 69000, 8)},
}


def test_a_picture_without_a_number_is_a_face_too(pack):
    path = pack("zip", {"ffhq_aging_labels.csv": f"{HEAD}one,20-29,1,male,1,0,0,0,1,1,None\n".encode(), "one.png": b""})
    [face] = FFHQAging().faces(path)
    assert (face.age, face.split) == ((20, 29), None)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_faces_and_what_does_not_match(pack, kind):
    items = list(FFHQAging().faces(pack(kind, FILES)))
    faces = {item.path[-9:-4]: item for item in items if isinstance(item, Face)}
    rejected = {item.path: item.reason for item in items if isinstance(item, Rejected)}
    told = {name: (face.age, face.gender, face.split, face.extra["usual_filter"]) for name, face in faces.items()}
    assert told == {
        "00000": ((0, 2), "Male", None, True),
        "00001": ((70, 120), "Female", None, False),  # turned too far
        "00002": (None, None, None, False),
        "00003": ((20, 29), "Female", None, True),
        "00004": ((20, 29), "Female", None, False),  # both eyes half hidden
        "00005": ((20, 29), "Female", None, False),  # dark glasses
        "69000": ((50, 69), "Male", "test", True),
    }
    assert set(faces["00002"].extra.values()) == {None, False}
    assert faces["00000"].extra["head_pitch"] == -3.5
    assert {path.rsplit("/", 1)[-1]: reason.split("csv ")[-1] for path, reason in rejected.items()} == {
        "00006.png": "line 8: age_group '80-90' is none of 0-2, 3-6, 7-9, 10-14, 15-19, 20-29, 30-39, 40-49, 50-69, "
        "70-120",
        "7": "line 10: no such picture",
        "00008.png": "no label file names it",
    }
