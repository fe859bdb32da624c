"""IMDB-WIKI: 523,051 faces of people whose birth and photo dates are known."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mien.data.archives import Tree
from mien.data.sources.base import Rejected, Source, last_part, pictures_of
from mien.errors import MienError
from mien.faces import MAX_AGE, MIN_AGE, Crop, Face

FILES = ("imdb.mat", "wiki.mat")
#: MATLAB counts days from the year 0, Python from the year 1.
MATLAB_DAYS = 366


class ImdbWiki(Source):
    """`00/nm0000100_rm12818688_1955-1-6_2003.jpg` with `imdb.mat`, or `wiki.mat` and its folders; both at once too.

    The age is that in the middle of the photo's year (the day of the photo is not known): the year of the photo less
    that of birth, less one for those born from July on. Photo year, name, the detector's score of the face and of a
    second face stay as columns (`face_score`, `second_face_score`; none where no or no second face was found). A face
    whose age comes out below 0 or above 120 years is rejected.
    """

    name: ClassVar[str] = "imdb_wiki"
    title: ClassVar[str] = "IMDB-WIKI"
    terms: ClassVar[str] = "research only; the pictures belong to IMDb, Wikipedia and their authors"
    where: ClassVar[str] = "https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki (the faces, with their .mat file)"
    layout: ClassVar[str] = "imdb.mat or wiki.mat, and beside it the folders 00 to 99 of pictures it names"
    crop = Crop("photo")

    @classmethod
    def recognises(cls, names: list[str]) -> bool:
        return any(last_part(name).lower() in FILES for name in names)

    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        pictures = {_key(name): name for name in pictures_of(tree)}
        used: set[str] = set()
        for file in tree.names():
            if last_part(file).lower() not in FILES:
                continue
            for number, fields in enumerate(read_mat(tree.read(file), file)):
                place = f"{file} entry {number}"
                name = pictures.get(_key(fields["full_path"]))
                if name is None:
                    yield Rejected(fields["full_path"], f"{place}: no such picture")
                elif name in used:
                    yield Rejected(fields["full_path"], f"{place}: labelled for the second time")
                else:
                    used.add(name)
                    yield _face(name, place, fields)
        for name in pictures.values():
            if name not in used:
                yield Rejected(name, "no .mat file names it")


def read_mat(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The entries of `imdb.mat` or `wiki.mat`, a dictionary each, in their order.

    Raises:
        MienError: it is no MATLAB file of this form.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    damage = (MatReadError, StopIteration, ValueError, LookupError, TypeError, OSError, NotImplementedError)

    try:
        table = loadmat(io.BytesIO(data))
        entry = table[next(key for key in ("imdb", "wiki") if key in table)][0, 0]
        columns = {
            field: entry[field].ravel()
            for field in ("dob", "photo_taken", "full_path", "gender", "name", "face_score", "second_face_score")
        }
    except damage as error:
        reason = " ".join(str(error).split()) or "no table imdb or wiki in it"
        raise MienError(f"{name} is not the .mat file of IMDB-WIKI, or damaged: {reason}") from None
    for number in range(len(columns["dob"])):
        yield {field: _plain(values[number]) for field, values in columns.items()}


def age_at(born: float, photo_year: int) -> int | None:
    """Whole years in the middle of `photo_year` of one born on a MATLAB day; None where the day is none.

    >>> age_at(714_000, 2010)  # born on the 9th of November 1954
    55
    """
    if not math.isfinite(born) or not MATLAB_DAYS < born <= MATLAB_DAYS + date.max.toordinal():
        return None
    day = date.fromordinal(int(born) - MATLAB_DAYS)
    return photo_year - day.year - (day.month >= 7)


def _face(name: str, place: str, fields: dict[str, Any]) -> Face | Rejected:
    age = age_at(float(fields["dob"]), int(fields["photo_taken"]))
    if age is None:
        return Rejected(name, f"{place}: the day of birth {fields['dob']} is none")
    if not MIN_AGE <= age <= MAX_AGE:
        return Rejected(name, f"{place}: the age {age} is outside {MIN_AGE}-{MAX_AGE} years")
    gender = float(fields["gender"])
    extra = {
        "photo_year": int(fields["photo_taken"]),
        "name": str(fields["name"]) or None,
        **{key: _finite(fields[key]) for key in ("face_score", "second_face_score")},
    }
    return Face(
        path=name,
        age=(age, age),
        gender=None if math.isnan(gender) else "Male" if gender == 1 else "Female",
        person=f"imdb_wiki {extra['name']}" if extra["name"] else None,
        extra=extra,
    )


def _plain(value: Any) -> Any:
    """What a cell of the table holds: a number or a text, out of the arrays that MATLAB wraps it in."""
    while isinstance(value, np.ndarray):
        if value.size == 0:
            return ""
        value = value.ravel()[0]
    return value


def _finite(value: Any) -> float | None:
    """A score; None for minus infinity (no face) and NaN (no second face)."""
    return float(value) if math.isfinite(value) else None


def _key(name: str) -> str:
    """`00/nm1_rm2.jpg`, whatever stands before and between."""
    return "/".join(name.replace("\\", "/").lower().split("/")[-2:])
