"""MORPH-2: police photos of the same adults over years, 16 to 77."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from mien.data.archives import Tree
from mien.data.sources.base import Rejected, Source, index_by, last_part, pictures_of, stem
from mien.data.sources.tables import Row, read_csv
from mien.errors import MienError
from mien.faces import MAX_AGE, MIN_AGE, Crop, Face

#: `009055_1M54`: subject, number of the photo, gender, age.
NAME = re.compile(r"(?P<subject>\d+)_(?P<photo>\d+)(?P<gender>[MF])(?P<age>\d+)", re.IGNORECASE)
INDEX = re.compile(r"(train|validation|test)\.csv", re.IGNORECASE)
GENDERS = {"m": "Male", "male": "Male", "0": "Male", "f": "Female", "female": "Female", "1": "Female"}


class Morph2(Source):
    """`009055_1M54.JPG`, with or without the `Index/{Train,Validation,Test}.csv` of its copy on Kaggle.

    Subject, gender and age stand in the name; the index has its own age and gender, which count where they differ.
    The index's splits put one person on several sides: they stay in the column `usage`, and `mien prepare` splits by
    person. The pictures are cut like `chip` only roughly: `--landmarks` brings them to it.
    """

    name: ClassVar[str] = "morph2"
    title: ClassVar[str] = "MORPH-2"
    terms: ClassVar[str] = "research, by agreement with the University of North Carolina Wilmington"
    where: ClassVar[str] = "https://uncw.edu/myuncw/research/innovation-commercialization/technology-portfolio/morph"
    layout: ClassVar[str] = "009055_1M54.JPG (subject, photo, gender, age), with Index/*.csv if there is one"
    crop = Crop("photo")

    @classmethod
    def recognises(cls, names: list[str]) -> bool:
        return any(NAME.fullmatch(stem(name)) for name in names)

    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        names = pictures_of(tree)
        pictures = index_by(names, stem)
        for name in names:
            if pictures[stem(name)] != name:
                yield Rejected(name, f"of the same name as {pictures[stem(name)]}")
        index: dict[str, tuple[Row, str]] = {}
        for file in tree.names():
            if not INDEX.fullmatch(last_part(file)):
                continue
            rows = read_csv(tree.read(file), file)
            rows.need("filename", "age", "gender")
            for row in rows:
                key = stem(row.get("filename") or "")
                if key not in pictures:
                    yield Rejected(row.get("filename") or row.place, f"{row.place}: no such picture")
                elif key in index:
                    yield Rejected(row.get("filename"), f"{row.place}: labelled for the second time")
                else:
                    index[key] = row, stem(file)
        for key, name in pictures.items():
            yield _face(name, key, *index.get(key, (None, None)))


def _face(name: str, key: str, row: Row | None, usage: str | None) -> Face | Rejected:
    found = NAME.fullmatch(key)
    if found is None:
        return Rejected(name, f"{last_part(name)!r} is not of the form SUBJECT_PHOTO followed by M or F and the age")
    place = "" if row is None else f"{row.place}: "
    try:
        age = _age(found["age"] if row is None else row.get("age"))
        gender = _gender(found["gender"] if row is None else row.get("gender"))
        extra = {"photo": int(found["photo"])} | ({"usage": usage} if usage else {})
        return Face(path=name, age=age, gender=gender, person=f"morph2 {found['subject']}", extra=extra)
    except MienError as error:
        return Rejected(name, f"{place}{str(error).removeprefix(f'{name}: ')}")


def _age(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        age = float(text)
    except ValueError:
        raise MienError(f"age {text!r} is no number") from None
    if not MIN_AGE <= age <= MAX_AGE:
        raise MienError(f"age {text} is outside {MIN_AGE}-{MAX_AGE} years")
    return age, age


def _gender(text: str | None) -> str | None:
    if text is None:
        return None
    if text.strip().lower() not in GENDERS:
        raise MienError(f"gender {text!r} is none of M, F, Male, Female, 0 (male), 1 (female)")
    return GENDERS[text.strip().lower()]
