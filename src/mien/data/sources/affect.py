"""AffectNet's layout: a picture a face, and its expression, valence, arousal and 68 points in a small file each."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mien.data.archives import Tree
from mien.data.pictures import is_picture
from mien.data.sources.base import Rejected, Source, last_part, stem, word
from mien.data.sources.cache import Arrays, remembered
from mien.errors import MienError
from mien.faces import EXPRESSIONS, Crop, Face

#: What each ending of an annotation's name stands for.
KINDS = {"exp": "expression", "val": "valence", "aro": "arousal", "lnd": "landmarks"}
NAME = re.compile(r"(.+)_(exp|val|aro|lnd)\.(?:npy|txt)", re.IGNORECASE)
#: What the data set writes where its raters could not tell, or saw no face.
UNKNOWN = -2.0
POINTS = 136
#: Goes up when files are read in another way: what an older mien has kept is then read anew.
VERSION = 1


class Affect(Source):
    """`images/12.jpg` with `annotations/12_exp.npy`, `12_val.npy`, `12_aro.npy` and `12_lnd.npy`."""

    name: ClassVar[str] = "affect"
    title: ClassVar[str] = "AffectNet"
    terms: ClassVar[str] = "research agreement, no redistribution"
    where: ClassVar[str] = "http://mohammadmahoor.com/pages/databases/affectnet/"
    layout: ClassVar[str] = "images/12.jpg with annotations/12_exp.npy, 12_val.npy, 12_aro.npy, 12_lnd.npy"
    crop = Crop("affectnet", 0.0, 224)

    @classmethod
    def recognises(cls, names: list[str]) -> bool:
        return sum(bool(NAME.fullmatch(last_part(name))) for name in names) * 2 > len(names)

    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        names = tree.names()
        kept = remembered(f"{self.name}-{VERSION}", tree, names, lambda: _annotations(tree, names))
        place = {(above, number): row for row, (above, number) in enumerate(kept["keys"].tolist())}
        for path, reason in kept["faults"].tolist():
            yield Rejected(path, reason)
        used: dict[tuple[str, str], str] = {}
        for name in filter(is_picture, names):
            key = (_above(name), stem(name))
            row = place.get(key)
            if row is None:
                yield Rejected(name, "no annotation is of this picture")
            elif key in used:
                yield Rejected(name, f"its annotations are those of {used[key]}")
            else:
                used[key] = name
                yield from _face(name, kept, row)
        for row, key in enumerate(place):
            if key not in used:
                for file in kept["files"][row].tolist():
                    if file:
                        yield Rejected(file, "no picture is of this annotation")


def _face(name: str, kept: Arrays, row: int) -> Iterator[Face | Rejected]:
    """The face with the labels it has, and a line for each annotation it lacks; without any label no face."""
    for kind, file in zip(KINDS, kept["files"][row].tolist(), strict=True):
        if not file:
            yield Rejected(name, f"no annotation _{kind}.npy: no {KINDS[kind]}")
    code, (valence, arousal), points = int(kept["expression"][row]), kept["feeling"][row], kept["points"][row]
    known: dict[str, Any] = {
        "expression": EXPRESSIONS[code] if code >= 0 else None,
        "valence": None if np.isnan(valence) else float(valence),
        "arousal": None if np.isnan(arousal) else float(arousal),
        "landmarks": None if np.isnan(points).any() else points.reshape(68, 2),
    }
    if all(value is None for value in known.values()):
        yield Rejected(name, "none of its annotations holds a label")
    else:
        yield Face(path=name, **known)


def _annotations(tree: Tree, names: list[str]) -> Arrays:
    """All annotations of a tree as arrays, a row a face: what `remembered` keeps.

    `keys` (N, 2) the folder and the picture's name, `files` (N, 4) the annotations' names, empty where there is
    none, `expression` (N,) codes, -1 unknown, `feeling` (N, 2) valence and arousal and `points` (N, 136), NaN
    unknown; `faults` (F, 2) files that hold no such label, and why.
    """
    files: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    faults: list[tuple[str, str]] = []
    for name in names:
        match = NAME.fullmatch(last_part(name))
        if match is None:
            continue
        of_face = files[_above(name), match[1].lower()]
        first = of_face.setdefault(match[2].lower(), name)
        if first != name:
            faults.append((name, f"{first} is the same annotation"))
    count = len(files)
    expression = np.full(count, -1, dtype=np.int8)
    feeling = np.full((count, 2), np.nan, dtype=np.float32)
    points = np.full((count, POINTS), np.nan, dtype=np.float32)
    for row, of_face in enumerate(files.values()):
        for kind, name in of_face.items():
            try:
                values = read_values(tree.read(name))
                if kind == "exp":
                    expression[row] = expression_code(values)
                elif kind == "lnd":
                    points[row] = landmarks_in(values)
                else:
                    feeling[row, int(kind == "aro")] = feeling_in(values)
            except MienError as error:
                faults.append((name, f"{KINDS[kind]}: {error}"))
    return {
        "keys": np.array(list(files), dtype=np.str_).reshape(-1, 2),
        "files": np.array([[of_face.get(kind, "") for kind in KINDS] for of_face in files.values()], dtype=np.str_),
        "expression": expression,
        "feeling": feeling,
        "points": points,
        "faults": np.array(faults, dtype=np.str_).reshape(-1, 2),
    }


def read_values(data: bytes) -> np.ndarray:
    """What a .npy file or a plain text file holds, one number or text after the other: (N,) of numbers or words.

    Nothing is unpickled, and no more memory taken than the file is long.

    Raises:
        MienError: empty, no array and no text, an array of objects, or shorter than it says.
    """
    if not data:
        raise MienError("the file is empty")
    if data[:1] == b"\x80" or data[:2] == b"PK":
        raise MienError("no .npy file and no text but a pickle or an archive, which is not opened")
    if data[:6] != b"\x93NUMPY":
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise MienError("no .npy file and no text") from None
        return np.array(re.sub(r"[\s,;()\[\]]+", " ", text).split(), dtype=np.str_)
    shape, dtype, start = _header(data[: min(len(data), 10 + _header_length(data))])
    if dtype.hasobject:
        raise MienError("an array of pickled objects, which is not loaded; save it as numbers or text")
    if dtype.kind not in "iufbUS" or not dtype.itemsize:
        raise MienError(f"an array of {dtype}, expected numbers or text")
    count = int(np.prod(shape, dtype=object))
    if len(data) - start != count * dtype.itemsize:
        expected = count * dtype.itemsize
        raise MienError(f"{len(data) - start} bytes of values, expected {expected} for shape {shape} of {dtype}")
    values = np.frombuffer(data, dtype, count, start)
    if dtype.kind == "S":
        return np.char.decode(values, "latin-1")
    letters = np.dtype(np.uint32).newbyteorder(dtype.byteorder)
    if dtype.kind == "U" and values.view(letters).max(initial=0) > sys.maxunicode:
        raise MienError("text with what is no character")
    return values


def _header_length(data: bytes) -> int:
    """Bytes of a .npy file's header behind its first ten; the length itself takes two of them, or four."""
    return int.from_bytes(data[8:10], "little") if data[6:7] == b"\x01" else 2 + int.from_bytes(data[8:12], "little")


@lru_cache(maxsize=4096)
def _header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and offset of the values; thousands of files share a few headers."""
    stream = BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except Exception as error:  # its header is parsed as Python's literals, which fail in many ways
        raise MienError(f"a damaged .npy file: {' '.join(str(error).split())[:120]}") from None
    if any(side < 0 for side in shape):
        raise MienError(f"a damaged .npy file: its shape is {shape}")
    return shape, dtype, stream.tell()


def expression_code(values: np.ndarray) -> int:
    """The code of an expression, -1 for unknown: a whole number, a word, or the scores of all eight classes.

    Eight numbers are scores only where that is plain: none negative, their sum 1, and one above all others.

    Raises:
        MienError: it is none of these, or no class of the eight.
    """
    if values.size == len(EXPRESSIONS):
        scores = _numbers(values)
        best = np.flatnonzero(scores == scores.max())
        if (scores < 0).any() or abs(scores.sum() - 1) > 0.01 or len(best) > 1:
            raise MienError("eight numbers that are no scores of classes: none negative, their sum 1, one the highest")
        return int(best[0])
    text = str(_single(values)).strip()
    named = word("expression", text)
    if named in EXPRESSIONS:
        return EXPRESSIONS.index(named)
    number = float(_numbers(values)[0])
    if number == UNKNOWN:
        return -1
    if number not in range(len(EXPRESSIONS)):
        classes = ", ".join(f"{code} {name}" for code, name in enumerate(EXPRESSIONS))
        raise MienError(f"class {number:g} is none of {classes}")
    return int(number)


def feeling_in(values: np.ndarray) -> float:
    """Valence or arousal in [-1, 1]; NaN for unknown (-2).

    Raises:
        MienError: it is not one number, or outside its range.
    """
    _single(values)
    number = float(_numbers(values)[0])
    if number == UNKNOWN:
        return float("nan")
    if not -1 <= number <= 1:
        raise MienError(f"{number:g} is outside [-1, 1]")
    return number


def landmarks_in(values: np.ndarray) -> np.ndarray:
    """(136,) float64: x, y, x, y, ... in pixels; NaN everywhere where all are -2: unknown.

    Raises:
        MienError: another count than 136, or not all are finite numbers.
    """
    if values.size != POINTS:
        raise MienError(f"{values.size} numbers, expected 68 points of x and y: {POINTS}")
    numbers = _numbers(values)
    if np.abs(numbers).max() > np.finfo(np.float32).max:
        raise MienError(f"a place of {np.abs(numbers).max():g} px is no place in a picture")
    return np.full(POINTS, np.nan) if (numbers == UNKNOWN).all() else numbers


def _single(values: np.ndarray) -> Any:
    if values.size != 1:
        raise MienError(f"{values.size} values, expected one")
    return values[0]


def _numbers(values: np.ndarray) -> np.ndarray:
    """(N,) float64; words are read as numbers."""
    try:
        numbers = values.astype(np.float64)
    except ValueError:
        text = next((str(value) for value in values if not _is_number(str(value))), "")
        raise MienError(f"{text[:40]!r} is no number") from None
    if not np.isfinite(numbers).all():
        raise MienError(f"{numbers[~np.isfinite(numbers)][0]} is no label")
    return numbers


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _above(name: str) -> str:
    """The folder that `images` and `annotations` lie in: faces of two such folders may bear the same numbers."""
    parts = name.replace("\\", "/").lower().split("/")[:-1]
    if parts and parts[-1] in ("images", "annotations"):
        parts.pop()
    return "/".join(parts)
