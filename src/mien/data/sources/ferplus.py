"""FER+: FER2013's faces, each looked at by ten people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from mien.data.archives import Tree
from mien.data.sources.base import Rejected, Source, labelled, last_part, plurality, stem
from mien.data.sources.tables import Row
from mien.errors import MienError
from mien.faces import Crop, Face

LABELS = re.compile(r"fer2013new\.csv", re.IGNORECASE)
#: The file's columns in the order of `VOTES`; its own order is another.
COLUMNS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt", "unknown", "NF")


class FERPlus(Source):
    """`FER2013Train/fer0000002.png`, 48 px and grey, with the votes of ten raters in `fer2013new.csv`.

    `expression` is what most raters said, where that is one of the eight; a tie, or most of them unsure, leaves it
    unknown and keeps the votes, by which a tie teaches (`metrics.raters.expression_labels`). Where most saw no face
    there is none; faces that most were unsure of teach nothing: both as in the code of Barsoum et al., "Training
    deep networks for facial expression recognition with crowd-sourced label distribution", ICMI 2016.

    The published split stays in the column `usage` and is not taken for mien's: of the 3,578 faces of PublicTest 315
    have near-identical pictures in the 11,000 of Training that were looked at.

    The faces are cut wider than "chip", as AffectNet's are: `align.WINDOWS` says by how much.
    """

    name: ClassVar[str] = "ferplus"
    title: ClassVar[str] = "FER+"
    terms: ClassVar[str] = "labels MIT; the pictures are FER2013's, whose terms are unclear"
    where: ClassVar[str] = "https://github.com/microsoft/FERPlus; the pictures: FER2013, on Kaggle"
    layout: ClassVar[str] = "FER2013Train/fer0000002.png with fer2013new.csv, in the archive or beside it"
    crop = Crop("fer2013", 0.0, 48)
    cut_size: ClassVar[int] = 42

    @classmethod
    def recognises(cls, names: list[str]) -> bool:
        return any(LABELS.fullmatch(last_part(name)) for name in names)

    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        yield from labelled(tree, beside, LABELS, ("Image name", *COLUMNS), stem, _face)


def _face(name: str, row: Row) -> Face | Rejected:
    votes = np.array([_votes(column, row) for column in COLUMNS], dtype=np.float32)
    if votes[-1] > votes[:-1].max():
        return Rejected(name, f"{row.place}: most raters saw no face")
    expression = plurality(votes)
    extra = {"usage": row.get("Usage")}
    if expression is not None:
        extra["expression_from"] = "votes"
    return Face(path=name, expression=expression, expression_votes=votes, extra=extra)


def _votes(column: str, row: Row) -> float:
    text = row.get(column)
    try:
        return float(text or 0)
    except ValueError:
        raise MienError(f"{column} {text!r} is no number of votes") from None
