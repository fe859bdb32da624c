"""FG-NET: 1,002 photos of 82 people, from childhood on, with 68 points each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from mien.data.align import ibug_from_fgnet
from mien.data.archives import Tree
from mien.data.sources.base import Rejected, Source, index_by, last_part, pictures_of, stem
from mien.errors import MienError
from mien.faces import Crop, Face

#: Person, age, and a letter where a person has several photos of one age.
NAME = re.compile(r"(\d{3})a(\d{2})([a-z]?)\.\w+", re.ASCII | re.IGNORECASE)


class FGNet(Source):
    """`images/001A02.JPG` is person 1 at age 2; `points/001a02.pts` has the points."""

    name: ClassVar[str] = "fgnet"
    title: ClassVar[str] = "FG-NET"
    terms: ClassVar[str] = "research"
    where: ClassVar[str] = "https://yanweifu.github.io/FG_NET_data/"
    layout: ClassVar[str] = "images/001A02.JPG and points/001a02.pts"
    crop = Crop("photo")

    @classmethod
    def recognises(cls, names: list[str]) -> bool:
        return sum(bool(NAME.fullmatch(last_part(name))) for name in names) * 2 > len(names)

    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        points = index_by((name for name in tree.names() if name.lower().endswith(".pts")), stem)
        for name in pictures_of(tree):
            match = NAME.fullmatch(last_part(name))
            if match is None:
                yield Rejected(name, "the name is not [person]A[age].JPG")
                continue
            age = float(match[2])
            face = Face(path=name, age=(age, age), person=f"{self.name}/{match[1]}")
            file = points.get(stem(name))
            try:
                if file is not None:
                    face.landmarks = ibug_from_fgnet(read_points(tree.read(file))).astype(np.float32)
                yield face
            except MienError as error:
                yield Rejected(name, f"{file}: {error}")


def read_points(data: bytes) -> np.ndarray:
    """The points of a .pts file, (N, 2) float64, in its own order and as it counts.

    The format does not say whether pixels count from 0 or 1. On 990 pupils of FG-NET the points lie 0.3 px to
    the right of the dark's centre when the first pixel's centre is 0: between both readings. Taken as
    they are, with the picture's corner at 0, they are right within half a pixel.

    Raises:
        MienError: no points between braces, or not pairs of numbers.
    """
    text = data.decode("ascii", errors="replace")
    start, end = text.find("{"), text.find("}")
    try:
        lines = text[start + 1 : end].strip().splitlines()
        rows = [[float(value) for value in line.split()] for line in lines]
        points = np.array(rows, dtype=np.float64)
    except ValueError:
        points = np.empty(0)
    if start < 0 or points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise MienError("no list of points between braces")
    return points
