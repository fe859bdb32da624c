"""What a user's own files say of faces that a source has read: corrected labels, given splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.sources.base import Rejected, word
from mien.data.sources.folder import Finder
from mien.data.sources.tables import Row, read_table
from mien.errors import MienError, unknown
from mien.faces import SPLITS, VOCABULARIES, Face

#: What `--corrections` may set: `age` is an exact one.
CORRECTABLE = ("age", "age_low", "age_high", *VOCABULARIES, "valence", "arousal")


def correct(faces: list[Face], file: str | Path) -> list[Rejected]:
    """Set labels from a table with the columns path, column, value; an empty value takes the label away.

    The provenance of what it sets is "corrected". Returns the rows whose path names no face.

    Raises:
        MienError: a column that is no label, or a value outside its range, by line.
    """
    rows = read_table(file)
    rows.need("path", "column", "value")
    find, place = _finder(faces, rows.rows, "path")
    unmatched = []
    ages: dict[int, tuple[Row, tuple[float, float] | None]] = {}
    for row in rows:
        path, column = str(row.get("path") or ""), str(row.get("column") or "")
        if column not in CORRECTABLE:
            raise unknown("column", column, CORRECTABLE, row.place)
        name = find(path)
        if name is None:
            unmatched.append(Rejected(path, f"{row.place}: no such face"))
            continue
        at, value = place[name], row.get("value")
        try:
            if column.startswith("age"):
                before = ages[at][1] if at in ages else faces[at].age
                ages[at] = (row, _moved(before, column, value))
            else:
                new = word(column, value) if column in VOCABULARIES else _number(column, value)
                faces[at] = _corrected(faces[at], column, new)
        except MienError as error:
            raise MienError(f"{row.place}: {error}") from None
    # One end of an interval may move past where the other one was: ages are looked at when all rows are read.
    for at, (row, age) in ages.items():
        try:
            faces[at] = _corrected(faces[at], "age", age)
        except MienError as error:
            raise MienError(f"{row.place}: {error}") from None
    return unmatched


def given_splits(faces: list[Face], file: str | Path) -> tuple[np.ndarray, list[Rejected]]:
    """Set splits from a table with the columns file, split and, where known, duplicate_group.

    Returns the groups, (N,) int64, -1 for none, and what does not match: rows or faces without the other.

    Raises:
        MienError: a word that is no split, a group that is no whole number, or no face at all is named.
    """
    rows = read_table(file)
    rows.need("file", "split")
    find, place = _finder(faces, rows.rows, "file")
    groups = np.full(len(faces), -1, dtype=np.int64)
    unmatched, named = [], set()
    for row in rows:
        split = str(row.get("split") or "")
        if split not in SPLITS:
            raise unknown("split", split, SPLITS, row.place)
        path = str(row.get("file") or "")
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
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        raise MienError(f"{row.place}, column duplicate_group: {value!r} is no whole number") from None


def _number(column: str, value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise MienError(f"column {column}: {value!r} is no number") from None


def _moved(age: tuple[float, float] | None, column: str, value: Any) -> tuple[float, float] | None:
    """The interval `age` with what `column`, `age` or one of its ends, says now."""
    new = _number(column, value)
    if new is None:
        return None
    low, high = age or (new, new)
    return {"age": (new, new), "age_low": (new, high), "age_high": (low, new)}[column]


def _corrected(face: Face, label: str, value: Any) -> Face:
    if label == "expression":  # the raters' votes would outvote the correction
        face = replace(face, expression_votes=None)
    return replace(face, **{label: value}, extra={**face.extra, f"{label}_from": "corrected"})
