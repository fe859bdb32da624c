"""What a source is: a reader of one public data set's own layout."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mien.data.archives import Tree, open_tree
from mien.data.pictures import OTHER, is_other_picture, is_picture
from mien.data.sources.tables import Row, read_csv
from mien.errors import MienError
from mien.faces import EXPRESSIONS, RACE_OF_RACE7, VOCABULARIES, Crop, Face


@dataclass(frozen=True, slots=True)
class Rejected:
    """What could not become a face: a file, or a line of a label file, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Made:
    """A face whose picture is in memory: `image` is (3, H, W) uint8 RGB, to be written under `face.path`."""

    face: Face
    image: np.ndarray


class Source(ABC):
    """Reads one data set's layout from a folder, a zip or a tar.

    `options` names those options of `mien prepare` that the constructor takes; a file or count that it is not
    given is None. `cut_size` is the side in pixels of faces that are cut from its pictures.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    terms: ClassVar[str]
    where: ClassVar[str]
    layout: ClassVar[str]
    crop: Crop
    options: ClassVar[tuple[str, ...]] = ()
    cut_size: ClassVar[int] = 200  # as wide as UTKFace's

    @abstractmethod
    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        """The faces of `tree`, paths as it names them; `beside` is the folder that the tree is or lies in."""

    @classmethod
    @abstractmethod
    def recognises(cls, names: list[str]) -> bool:
        """Whether files of these names are of this source's layout."""

    def faces(self, path: str | Path) -> Iterator[Face | Rejected | Made]:
        """Every face of the folder or archive at `path`, and all that could not become one.

        A face's `path` is relative to that folder, or the name of the archive's member.

        Raises:
            MienError: nothing is there, or the archive is damaged.
        """
        path = Path(path)
        tree = open_tree(path)
        inside = path.is_dir()
        others = [name for name in tree.names() if is_other_picture(name)]
        for name, reason in (*tree.refused.items(), *((name, OTHER) for name in others)):
            yield Rejected(name, reason)
        for item in self.read(tree, path if inside else path.parent):
            if isinstance(item, Face):
                item.source = self.name
                item.archive = None if inside else path.name
            yield item


def pictures_of(tree: Tree) -> list[str]:
    """Names of the pictures in a tree, sorted."""
    return [name for name in tree.names() if is_picture(name)]


def label_files(tree: Tree, beside: Path, names: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """The name and bytes of each label file of these names: those in the tree, else those in the folder `beside`, for
    many data sets publish pictures and labels apart."""
    inside = [name for name in tree.names() if names.fullmatch(last_part(name))]
    for name in inside:
        yield name, tree.read(name)
    if not inside:
        for file in sorted(beside.iterdir()):
            if names.fullmatch(file.name):
                yield file.name, file.read_bytes()


def labelled(
    tree: Tree,
    beside: Path,
    files: re.Pattern[str],
    columns: tuple[str, ...],
    key: Callable[[str], str],
    face: Callable[[str, Row], Face | Rejected],
) -> Iterator[Face | Rejected]:
    """The faces of the CSVs of these names, see `label_files` and `matched`.

    The first of `columns`, all of which must be there, names the picture, as far as `key` tells names apart.
    """

    def rows() -> Iterator[Row]:
        for file, data in label_files(tree, beside, files):
            found = read_csv(data, file)
            found.need(*columns)
            yield from found

    names = pictures_of(tree)
    pictures = index_by(names, key)
    yield from matched(
        rows(), columns[0], lambda where: pictures.get(key(where)), names, face, "no label file names it"
    )


def matched(
    rows: Iterable[Row],
    column: str,
    find: Callable[[str], str | None],
    names: Iterable[str],
    face: Callable[[str, Row], Face | Rejected],
    unnamed: str,
) -> Iterator[Face | Rejected]:
    """What `face(picture, row)` makes of each row whose `column` names a picture that `find` finds, and all that fits
    nothing: a row without a picture, a second one for it, a `MienError` of `face`, and those of `names` that no row
    names, with `unnamed` as the reason."""
    used: set[str] = set()
    for row in rows:
        where = str(row.get(column) or "")
        name = find(where) if where else None
        if not where:
            yield Rejected(row.place, f"{row.place}: names no picture")
        elif name is None:
            yield Rejected(where, f"{row.place}: no such picture")
        elif name in used:
            yield Rejected(where, f"{row.place}: labelled for the second time")
        else:
            used.add(name)
            try:
                yield face(name, row)
            except MienError as error:
                yield Rejected(name, f"{row.place}: {str(error).removeprefix(f'{name}: ')}")
    for name in names:
        if name not in used:
            yield Rejected(name, unnamed)


def last_part(name: str) -> str:
    """A file's name without its folders, which may be told apart as Windows does."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def stem(name: str) -> str:
    """A file's name in lower case without folders and the last ending: what two files of one face share."""
    return last_part(name).rsplit(".", 1)[0].lower()


def word(column: str, value: Any) -> str | None:
    """A value in the vocabulary's own spelling, whatever its case and blanks; None for an empty one.

    A word that is none of the vocabulary is given back as it is: `Face` refuses it and names the right ones.
    """
    text = str(value).strip()
    if value is None or value != value or not text:  # NaN is a number's "none"
        return None
    key = text.casefold().replace("_", " ")
    return next((right for right in VOCABULARIES[column] if right.casefold().replace("_", " ") == key), text)


def number(column: str, value: Any) -> float | None:
    """A cell as a number; None for an empty one.

    Raises:
        MienError: it is none; the message says how it should be written.
    """
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        text = str(value).strip()
        if re.fullmatch(r"[-+]?\d+,\d+", text):
            right = f"write {text.replace(',', '.')}"
        elif column == "age" and re.fullmatch(r"\d+ ?[-–] ?\d+", text):
            right = "the two ends of an age stand in the columns age_low and age_high"
        else:
            right = "write a plain number such as 34.5, or nothing where it is not known"
        raise MienError(f"column {column}: {value!r} is no number; {right}") from None


def plurality(votes: np.ndarray) -> str | None:
    """What most raters said, of votes (10,) for each of `faces.VOTES`; None for a tie, "unknown" and "no face"."""
    best = np.flatnonzero(votes == votes.max())
    return EXPRESSIONS[best[0]] if len(best) == 1 and best[0] < len(EXPRESSIONS) else None


def race_labels(race7: str | None) -> dict[str, Any]:
    """Arguments of `Face` for FairFace's seven races and the five they map to."""
    if race7 is None:
        return {}
    return {"race7": race7, "race": RACE_OF_RACE7.get(race7), "extra": {"race_from": "race7"}}


def index_by(names: Iterable[str], key: Any) -> dict[str, str]:
    """Names by `key(name)`; of two with one key the first stays."""
    index: dict[str, str] = {}
    for name in names:
        index.setdefault(key(name), name)
    return index
