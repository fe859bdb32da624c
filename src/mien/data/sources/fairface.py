"""FairFace: 108,501 faces, balanced over seven races, with ages in nine bins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from mien.data.archives import Tree
from mien.data.sources.base import Rejected, Source, labelled, last_part, race_labels, word
from mien.data.sources.tables import Row
from mien.errors import MienError
from mien.faces import MAX_AGE, Crop, Face

BINS = ((0, 2), (3, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59), (60, 69))
OLDEST = (70.0, float(MAX_AGE))
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LABELS = re.compile(r"fairface_label_\w+\.csv", re.IGNORECASE)


class FairFace(Source):
    """`train/7.jpg` and `val/7.jpg` with `fairface_label_train.csv` and `fairface_label_val.csv`."""

    name: ClassVar[str] = "fairface"
    title: ClassVar[str] = "FairFace"
    terms: ClassVar[str] = "CC BY 4.0"
    where: ClassVar[str] = "https://github.com/joojs/fairface (padding 0.25 and both label files)"
    layout: ClassVar[str] = "train/7.jpg with fairface_label_train.csv, in the archive or beside it"
    crop = Crop("chip", 0.0, 224)

    @classmethod
    def recognises(cls, names: list[str]) -> bool:
        return any(LABELS.fullmatch(last_part(name)) for name in names)

    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        yield from labelled(tree, beside, LABELS, ("file", "age", "gender", "race"), _key, _face)


def age_bin(text: str) -> tuple[float, float]:
    """The interval of an age: `20-29`, `more than 70`, or what a spreadsheet made of it (`03-Sep`, `Oct-19`).

    Raises:
        MienError: it is none of FairFace's bins.
    """
    text = text.strip().lower()
    if text in ("more than 70", "70+", ">70"):
        return OLDEST
    parts = re.findall(r"\d+|[a-z]+", text)
    # A spreadsheet reads 3-9 as the 9th of March and 10-19 as October 2019: both ends are still there.
    numbers = {_number(part) for part in parts}
    found = [(low, high) for low, high in BINS if {low, high} <= numbers]
    if len(found) != 1:
        known = ", ".join(f"{low}-{high}" for low, high in BINS)
        raise MienError(f"age {text!r} is none of FairFace's bins ({known}, more than 70)")
    return float(found[0][0]), float(found[0][1])


def _number(part: str) -> int:
    """A month as its number, a year as its last two digits; -1 for any other word."""
    if part.isdecimal():
        return int(part) % 100
    return MONTHS.index(part[:3]) + 1 if part[:3] in MONTHS else -1


def _face(name: str, row: Row) -> Face:
    races = race_labels(word("race7", row.get("race")))
    extra = {**races.pop("extra", {}), **{key: row.get(key) for key in ("service_test",) if row.get(key)}}
    age = row.get("age")
    return Face(
        path=name,
        age=age_bin(age) if age else None,
        gender=word("gender", row.get("gender")),
        extra=extra,
        **races,
    )


def _key(name: str) -> str:
    """`train/7` of any spelling and ending of `FairFace/train/7.jpg`."""
    parts = name.replace("\\", "/").lower().split("/")
    return "/".join([*parts[-2:-1], parts[-1].rsplit(".", 1)[0]])
