"""CAF: subject and age from names and folders, groups where there is no age."""

from __future__ import annotations

import pytest

from mien.data.sources import Rejected
from mien.data.sources.caf import Caf
from mien.faces import Face

NAMES = {
    "CAF/Jane Doe/34.jpg": ("caf jane doe", (34, 34)),
    "CAF/Jane Doe/34_2.png": ("caf jane doe", (34, 34)),
    "CAF/Jane Doe/5b.png": ("caf jane doe", (5, 5)),
    "CAF/jane_doe_61.jpg": ("caf jane doe", (61, 61)),
    "CAF_group/group8/120-55.jpg": ("caf 120", (55, 55)),
    "CAF_group/3/Max_Muster_12_2.JPG": ("caf max muster", (12, 12)),
    "CAF_group/9/portrait.jpg": (None, (70, 120)),
}
REJECTED = {
    "CAF/portrait.jpg": "neither the name nor its folder tells subject and age, as SUBJECT/34.jpg does",
    "CAF/Old_Man_150.jpg": "the age 150 is outside 0-120 years",
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_faces_and_what_does_not_match(pack, kind):
    items = list(Caf().faces(pack(kind, dict.fromkeys([*NAMES, *REJECTED], b""))))
    assert {item.path: (item.person, item.age) for item in items if isinstance(item, Face)} == NAMES
    assert {item.path: item.reason for item in items if isinstance(item, Rejected)} == REJECTED
