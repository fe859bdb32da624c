"""UTKFace: 23,708 faces whose labels stand in the files' names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from mien.data.archives import Tree
from mien.data.sources.base import Rejected, Source, last_part, pictures_of
from mien.errors import MienError
from mien.faces import GENDERS, RACES, Crop, Face

#: Age, anything, and the date (17 digits where nothing was lost) that every name ends in.
NAME = re.compile(r"\d{1,3}_.*\d{8,}", re.ASCII)


class UTKFace(Source):
    """`[age]_[gender]_[race]_[date].jpg.chip.jpg`, aligned by dlib and cut at 200 px."""

    name: ClassVar[str] = "utkface"
    title: ClassVar[str] = "UTKFace"
    terms: ClassVar[str] = "non-commercial research; the pictures belong to their owners"
    where: ClassVar[str] = "https://susanqq.github.io/UTKFace/ (Aligned & Cropped Faces)"
    layout: ClassVar[str] = "29_1_1_20170116001830007.jpg.chip.jpg in any folder"
    crop = Crop("chip", 0.0, 200)

    @classmethod
    def recognises(cls, names: list[str]) -> bool:
        return sum(bool(NAME.match(last_part(name))) for name in names) * 2 > len(names)

    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        for name in pictures_of(tree):
            try:
                yield Face(path=name, **labels_in(last_part(name)))
            except MienError as error:
                yield Rejected(name, str(error).removeprefix(f"{name}: "))


def labels_in(name: str) -> dict[str, Any]:
    """The labels in a file's name, as arguments of `Face`; a field that is not there is a missing label.

    Raises:
        MienError: the name has no age, or a field is outside its range.
    """
    # The date follows the last underscore; before it are blanks, doubled underscores and lost fields.
    fields = [field.strip() for field in name.split("_")][:-1]
    if len(fields) > 3:
        fields = [field for field in fields if field]
    if not fields or not fields[0].isdecimal() or len(fields) > 3:
        raise MienError("the name is not [age]_[gender]_[race]_[date].jpg")
    age = float(fields[0])
    gender, race = ([*fields[1:], "", ""])[:2]
    if len(fields) == 2 and gender.isdecimal() and int(gender) >= len(GENDERS):
        gender, race = "", gender  # one field is lost; this value can only be a race
    return {
        "age": (age, age),
        "gender": _word("gender", gender, GENDERS),
        "race": _word("race", race, RACES),
    }


def _word(column: str, code: str, words: tuple[str, ...]) -> str | None:
    if not code:
        return None
    if not code.isdecimal() or int(code) >= len(words):
        raise MienError(f"{column} {code!r} is outside 0-{len(words) - 1}")
    return words[int(code)]
