"""What a user's own files say of faces that a source has read: corrected labels, given splits."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.sources.base import Rejected, number, word
from mien.data.sources.folder import Finder
from mien.data.sources.tables import Row, Rows, read_table
from mien.errors import MienError, unknown
from mien.faces import CONTINUOUS, RACE_OF_RACE7, SPLITS, VOCABULARIES, Face

#: What `--corrections` may set: `age` is an exact one.
CORRECTABLE = ("age", "age_low", "age_high", *VOCABULARIES, *CONTINUOUS)
#: Both ends of an age's interval, as far as they are known while rows are read.
Ends = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Tables:
    """A user's tables, None where there is none: `splits` with the columns file, split and, where known,
    duplicate_group; `corrections` with path, column and value."""

    splits: Rows | None = None
    corrections: Rows | None = None

    @classmethod
    def read(cls, splits: str | Path | None = None, corrections: str | Path | None = None) -> Tables:
        """Read both, before hours of work hang on them.

        Raises:
            MienError: a table or a column is not there, a word that is no split, a column that is no label.
        """
        given, corrected = (None if file is None else read_table(file) for file in (splits, corrections))
        if given is not None:
            given.need("file", "split")
            for row in given:
                if str(row.get("split") or "") not in SPLITS:
                    raise unknown("split", str(row.get("split") or ""), SPLITS, row.place)
                _group(row)
        if corrected is not None:
            corrected.need("path", "column", "value")
            for row in corrected:
                column, value = str(row.get("column") or ""), row.get("value")
                if column not in CORRECTABLE:
                    raise unknown("column", column, CORRECTABLE, row.place)
                try:  # an age is looked at with the other end of its interval
                    new: Any = word(column, value) if column in VOCABULARIES else number(column, value)
                    if not column.startswith("age"):
                        Face(row.place, **{column: new})
                except MienError as error:
                    raise MienError(f"{row.place}: {str(error).removeprefix(f'{row.place}: ')}") from None
        return cls(given, corrected)

    def rehearse(self, faces: Iterable[Face]) -> None:
        """Do to copies of the faces what will be done when their pictures have been read.

        Raises:
            MienError: as `correct` and `given_splits`.
        """
        if self.splits is None and self.corrections is None:
            return
        copies = [replace(face) for face in faces]
        if self.corrections is not None:
            correct(copies, self.corrections)
        if self.splits is not None and copies:
            given_splits(copies, self.splits)


def correct(faces: list[Face], rows: Rows) -> list[Rejected]:
    """Set labels from the rows of `Tables.corrections`; an empty value takes the label away.

    The provenance of what it sets is "corrected". Returns the rows whose path names no face.

    Raises:
        MienError: a value outside its range, or one end of an age without the other, by line.
    """
    find, place = _finder(faces, rows.rows, "path")
    unmatched = []
    ages: dict[int, tuple[Row, Ends]] = {}
    for row in rows:
        path, column = str(row.get("path") or ""), str(row.get("column") or "")
        name = find(path)
        if name is None:
            unmatched.append(Rejected(path, f"{row.place}: no such face"))
            continue
        at, value = place[name], row.get("value")
        try:
            if column.startswith("age"):
                before = ages[at][1] if at in ages else faces[at].age or (None, None)
                ages[at] = (row, _moved(before, column, value))
            else:
                new = word(column, value) if column in VOCABULARIES else number(column, value)
                faces[at] = _corrected(faces[at], column, new)
        except MienError as error:
            raise MienError(f"{row.place}: {error}") from None
    # One end of an interval may move past where the other one was: ages are looked at when all rows are read.
    for at, (row, (low, high)) in ages.items():
        if (low is None) != (high is None):
            raise MienError(f"{row.place}: one end of the age is missing; give age_low and age_high, or age")
        try:
            faces[at] = _corrected(faces[at], "age", None if low is None else (low, high))
        except MienError as error:
            raise MienError(f"{row.place}: {error}") from None
    return unmatched


def given_splits(faces: list[Face], rows: Rows) -> tuple[np.ndarray, list[Rejected]]:
    """Set splits from the rows of `Tables.splits`.

    Returns the groups, (N,) int64, -1 for none, and what does not match: rows or faces without the other.

    Raises:
        MienError: one face is named in two ways, or no face at all is named.
    """
    find, place = _finder(faces, rows.rows, "file")
    groups = np.full(len(faces), -1, dtype=np.int64)
    unmatched, named = [], set()
    for row in rows:
        split, path = str(row.get("split") or ""), str(row.get("file") or "")
        name = find(path)
        if name is None:
            unmatched.append(Rejected(path, f"{row.place}: no such face"))
            continue
        at, group = place[name], _group(row)
        if at in named and (faces[at].split, groups[at]) != (split, group):
            raise MienError(
                f"{row.place}: {path} is in {split} here, group {group}, and in {faces[at].split}, group {groups[at]}, "
                "further up (-1: none); name each face once"
            )
        named.add(at)
        faces[at].split, groups[at] = split, group
    if not named:
        raise MienError(f"{rows.name} names none of the {len(faces):,} faces; its first is {_first(rows.rows)!r}")
    for at, face in enumerate(faces):
        if at not in named:
            face.split = None
            unmatched.append(Rejected(face.path, f"{rows.name} does not name it: it is in no split"))
    return groups, unmatched


def _finder(faces: list[Face], rows: list[Row], column: str) -> tuple[Finder, dict[str, int]]:
    place = {face.path: at for at, face in enumerate(faces)}
    return Finder(list(place), (str(row.get(column) or "") for row in rows)), place


def _first(rows: list[Row]) -> str:
    return str(rows[0].get("file")) if rows else ""


def _group(row: Row) -> int:
    value = row.get("duplicate_group")
    if value is None or value != value:
        return -1
    with suppress(TypeError, ValueError, OverflowError):
        # Spreadsheets write 12 as 12.0; from 2^53 on a float no longer tells neighbours apart.
        if not isinstance(value, float):
            with suppress(ValueError):
                return int(value)
        if float(value).is_integer() and abs(float(value)) < 2**53:
            return int(float(value))
    raise MienError(f"{row.place}, column duplicate_group: {value!r} is no whole number")


def _moved(age: Ends, column: str, value: Any) -> Ends:
    """The interval `age` with what `column`, `age` or one of its ends, says now."""
    new = number(column, value)
    if new is None:
        return None, None
    low, high = age
    return {"age": (new, new), "age_low": (new, high), "age_high": (low, new)}[column]


def _corrected(face: Face, label: str, value: Any) -> Face:
    if label == "expression":  # the raters' votes would outvote the correction
        face = replace(face, expression_votes=None)
    made = {}
    if label == "race7" and (face.race is None or face.extra.get("race_from") == "race7"):  # what is made of it follows
        face, made = replace(face, race=RACE_OF_RACE7.get(value)), {"race_from": "race7"}
    return replace(face, **{label: value}, extra={**face.extra, **made, f"{label}_from": "corrected"})
