"""Any folder or archive of pictures, with or without a file of labels."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mien.data.archives import Tree
from mien.data.schema import ENHANCED, ENHANCED_HASH, TRACED, TYPES
from mien.data.sources.base import (
    Rejected,
    Source,
    index_by,
    last_part,
    matched,
    number,
    pictures_of,
    plurality,
    race_labels,
    word,
)
from mien.data.sources.tables import Row, Rows, read_table
from mien.errors import MienError, unknown
from mien.faces import CONTINUOUS, VOCABULARIES, VOTES, Crop, Face

#: `votes_Neutral` ... `votes_Contempt`, `votes_unknown`, `votes_no_face`.
VOTE_COLUMNS = tuple(f"votes_{name.replace(' ', '_')}" for name in VOTES)
NUMBERS = ("age", "age_low", "age_high", *CONTINUOUS)
LABELS = (*NUMBERS, *VOCABULARIES, "person", "split")
#: What R, pandas and databases write where nothing is known: taken at its word, all such faces would be one person's.
NOTHING = ("na", "n/a", "nan", "<na>", "null")
#: Columns that `mien prepare` finds out itself; in a label file they are passed over.
FOUND = ("archive", "sha256", "width", "height", "source")


class FolderSource(Source):
    """Pictures in any tree of folders; `labels` is a CSV or Parquet file with a column `path`.

    `crop` says how the pictures are cut already: "photo" (not at all), "box", or a template of `align.py`.
    """

    name: ClassVar[str] = "folder"
    title: ClassVar[str] = "a folder of pictures"
    terms: ClassVar[str] = "your own"
    where: ClassVar[str] = "your own disk"
    layout: ClassVar[str] = "pictures in any folders; --labels FILE with a column path"
    options: ClassVar[tuple[str, ...]] = ("labels", "crop")

    def __init__(self, labels: str | Path | None = None, crop: str | None = None) -> None:
        from mien.data.align import TEMPLATES

        known = ("photo", "box", *TEMPLATES)
        if crop is not None and crop not in known:
            raise unknown("crop", crop, known)
        self.labels = labels
        self.crop = Crop(crop or "photo")

    @classmethod
    def recognises(cls, names: list[str]) -> bool:
        return False  # any pictures would do, so that it is no help to name this source

    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        names = pictures_of(tree)
        if self.labels is None:  # hidden files are passed over, as `mien predict` does
            yield from (Face(path=name) for name in names if not last_part(name).startswith("."))
            return
        rows = read_table(self.labels)
        _check_columns(rows)
        finder = Finder(names, (str(row.get("path") or "") for row in rows))
        yield from matched(rows, "path", finder, names, face_of, f"{rows.name} does not name it")


class Finder:
    """Finds a picture by the path a file of labels gives: in any case, either separator and either form of accents,
    with folders before it that lead to the data, or by the file's name alone.

    Less than the whole path decides only where one picture has it, no other of the `asked` paths names that picture
    fully, and no two different ones are left to share it: `train/1.jpg` says nothing of `val/1.jpg`.
    """

    def __init__(self, names: list[str], asked: Iterable[str]) -> None:
        self._exact = set(names)
        self._folded = index_by(names, _fold)
        count = Counter(last_part(name) for name in self._folded)
        lone = {last_part(folded): name for folded, name in self._folded.items() if count[last_part(folded)] == 1}
        wanted = {_fold(path) for path in asked}
        sure = {self._folded[path] for path in wanted if path in self._folded}
        left = [path for path in wanted if path not in self._folded]
        ends = Counter(end for path in left for end in _ends(path) if end in self._folded)
        self._end = {end: self._folded[end] for end, n in ends.items() if n == 1 and self._folded[end] not in sure}
        lasts = Counter(map(last_part, left))
        self._last = {last: name for last, name in lone.items() if name not in sure and lasts[last] == 1}

    def __call__(self, path: str) -> str | None:
        """The picture's own name, or None."""
        if path in self._exact:
            return path
        folded = _fold(path)
        if folded in self._folded:
            return self._folded[folded]
        longest = next((self._end[end] for end in _ends(folded) if end in self._end), None)
        return longest or self._last.get(last_part(folded))


def face_of(name: str, row: Row) -> Face:
    """The face that a row of a label file describes.

    Raises:
        MienError: a value that is no number, or outside its column's range.
    """
    given = {column: None if _is_none(row.get(column)) else row.get(column) for column in LABELS}
    values: dict[str, Any] = {column: _number(column, given[column]) for column in NUMBERS}
    exact, low, high = (values.pop(column) for column in ("age", "age_low", "age_high"))
    if (low is None) != (high is None):
        raise MienError("one end of the age is missing; give age_low and age_high, or age")
    if low is not None and high is not None and exact is not None and not low <= exact <= high:
        raise MienError(f"age {exact:g} lies outside age_low {low:g} to age_high {high:g}")
    values["age"] = (low, high) if low is not None else None if exact is None else (exact, exact)
    for column in VOCABULARIES:
        values[column] = word(column, given[column])
    values["expression_votes"] = _votes(row)
    if values["expression_votes"] is not None and values["expression"] is None:
        values["expression"] = plurality(values["expression_votes"])
    for column in ("person", "split"):
        values[column] = None if given[column] is None else str(given[column])
    if row.get("landmarks") is not None:
        values["landmarks"] = _list("landmarks", row.get("landmarks"), (-1, 2))
    known = {"path", "landmarks", *FOUND, *NUMBERS, *VOTE_COLUMNS, *values}
    extra = {column: value for column, value in row.values.items() if column not in known}
    if values["race"] is None and values["race7"] is not None:
        derived = race_labels(values["race7"])
        values["race"] = derived["race"]
        extra |= derived["extra"]
    if values["expression"] is not None and given["expression"] is None:
        extra["expression_from"] = "votes"
    return Face(path=name, extra=extra, **values)


def _votes(row: Row) -> np.ndarray | None:
    """The votes of a row, (10,): ten columns, an empty cell being 0, or a list of ten; None where there are none."""
    if row.get("expression_votes") is not None:
        return _list("expression_votes", row.get("expression_votes"), (-1,))
    votes = [_number(column, row.get(column)) for column in VOTE_COLUMNS]
    return None if all(vote is None for vote in votes) else np.array([vote or 0.0 for vote in votes], np.float32)


def _list(column: str, value: Any, size: tuple[int, ...]) -> np.ndarray:
    try:
        return np.array(value, dtype=np.float32).reshape(size)
    except (ValueError, TypeError):
        raise MienError(f"{column} {str(value)[:40]!r} is no list of numbers as it should be; CSV holds none") from None


def _is_none(value: Any) -> bool:
    """Whether a cell says that there is nothing: empty, NaN, or a word that programs write for it."""
    return value is None or value != value or (isinstance(value, str) and value.strip().lower() in NOTHING)


def _number(column: str, value: Any) -> float | None:
    return None if _is_none(value) else number(column, value)


def _check_columns(rows: Rows) -> None:
    rows.need("path")
    if "group" in rows.columns:
        raise MienError(f"{rows.name} has a column group, which mien makes itself; call it person")
    if own := [column for column in rows.columns if column in (ENHANCED, ENHANCED_HASH)]:
        raise MienError(f"{rows.name} has a column {own[0]}, which mien enhance makes; leave it out")
    labels = {"age", *NUMBERS, *VOCABULARIES, *VOTE_COLUMNS, *TYPES, *(f"{name}_from" for name in TRACED)}
    right = {label.lower(): label for label in labels}
    near = [column for column in rows.columns if column not in labels and column.lower() in right]
    if near:
        raise MienError(f"{rows.name} has a column {near[0]!r}; mien's is spelled {right[near[0].lower()]!r}")


def _fold(path: str) -> str:
    # macOS takes accents apart (NFD) in the names of files, nobody does in tables.
    return unicodedata.normalize("NFC", path.replace("\\", "/").removeprefix("./")).casefold()


def _ends(path: str) -> Iterator[str]:
    """A path without its first folder, without its first two, and so on to the file's name, which is left out."""
    parts = path.split("/")
    yield from ("/".join(parts[start:]) for start in range(1, len(parts) - 1))
