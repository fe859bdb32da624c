"""FG-NET: person and age in the name, points beside the picture."""

from __future__ import annotations

import numpy as np
import pytest

from mien.data.align import ibug_from_fgnet
from mien.data.sources import Rejected
from mien.data.sources.fgnet import FGNet, read_points
from mien.errors import MienError
from mien.faces import Face

POINTS = np.random.default_rng(0).uniform(20, 200, (68, 2)).round(3)


def pts(points: np.ndarray) -> bytes:
    lines = "\r\n".join(f"{x} {y} " for x, y in points)
    return f"version: 1\r\nn_points: {len(points)}\r\n{{\r\n{lines}\r\n}}\r\n".encode()


def test_faces(pack):
    path = pack(
        "zip",
        {
            "FGNET/images/001A02.JPG": b"",
            "FGNET/points/001a02.pts": pts(POINTS),
            "FGNET/images/001a43b.jpg": b"",
            "FGNET/images/082A18.JPG": b"",
            "FGNET/points/082A18.PTS": pts(POINTS[:5]),
            "FGNET/images/cover.jpg": b"",
        },
    )
    items = list(FGNet().faces(path))
    faces = {item.path: item for item in items if isinstance(item, Face)}
    assert {path: (face.age, face.person) for path, face in faces.items()} == {
        "FGNET/images/001A02.JPG": ((2, 2), "fgnet/001"),
        "FGNET/images/001a43b.jpg": ((43, 43), "fgnet/001"),
    }
    np.testing.assert_allclose(faces["FGNET/images/001A02.JPG"].landmarks, ibug_from_fgnet(POINTS), rtol=1e-6)
    assert faces["FGNET/images/001a43b.jpg"].landmarks is None
    rejected = {item.path: item.reason for item in items if isinstance(item, Rejected)}
    assert rejected == {
        "FGNET/images/082A18.JPG": "FGNET/points/082A18.PTS: FG-NET points have shape (5, 2), expected (68, 2)",
        "FGNET/images/cover.jpg": "the name is not [person]A[age].JPG",
    }


def test_points_as_they_stand():
    np.testing.assert_array_equal(read_points(pts(POINTS)), POINTS)


@pytest.mark.parametrize(
    "data", [b"", b"version: 1", b"{\n1 2 3\n}", b"{\n1 x\n}", b"{\nnan 1\n}", b"{}", b"\xff{\n1\n}"]
)
def test_damaged_points(data):
    with pytest.raises(MienError, match="no list of points"):
        read_points(data)
