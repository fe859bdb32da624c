"""FFHQ-Aging: 70,000 portraits with age groups told by raters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from mien.data.archives import Tree
from mien.data.sources.base import Rejected, Source, labelled, last_part, word
from mien.data.sources.tables import Row
from mien.errors import MienError
from mien.faces import MAX_AGE, Crop, Face

LABELS = re.compile(r"ffhq_aging_labels\.csv", re.IGNORECASE)
GROUPS = ((0, 2), (3, 6), (7, 9), (10, 14), (15, 19), (20, 29), (30, 39), (40, 49), (50, 69))
OLDEST = (70.0, float(MAX_AGE))
#: Columns of numbers that stay with the face; -1 there means missing.
NUMBERS = (
    "age_group_confidence",
    "gender_confidence",
    "head_pitch",
    "head_roll",
    "head_yaw",
    "left_eye_occluded",
    "right_eye_occluded",
)
#: Pictures from this number on are for testing (LATS: Or-El et al., "Lifespan age transformation synthesis", 2020).
TEST_FROM = 69_000


class FFHQAging(Source):
    """`00000.png` to `69999.png`, in folders of a thousand or not, with `ffhq_aging_labels.csv`.

    Age groups become intervals; confidences, pose in degrees, glasses and occlusion stay as columns, -1 as missing.
    The usual filter of LATS stands in the column `usual_filter`: age confidence over .6, gender confidence over .66,
    pitch within 30 and yaw within 40 degrees, no eye fully occluded (one under 50, the other under 90), no dark
    glasses. Splits are the usual ones: from number 69,000 on `test`; `mien prepare` cuts `select` and `val` from the
    rest where `--splits` does not say otherwise.
    """

    name: ClassVar[str] = "ffhq_aging"
    title: ClassVar[str] = "FFHQ-Aging"
    terms: ClassVar[str] = "CC BY-NC-SA 4.0; each picture has its own licence on top"
    where: ClassVar[str] = (
        "https://github.com/royorel/FFHQ-Aging-Dataset, pictures from https://github.com/NVlabs/ffhq-dataset"
    )
    layout: ClassVar[str] = "00000.png ... with ffhq_aging_labels.csv, in the archive or beside it"
    crop = Crop("photo")

    @classmethod
    def recognises(cls, names: list[str]) -> bool:
        return any(LABELS.fullmatch(last_part(name)) for name in names)

    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        yield from labelled(tree, beside, LABELS, ("image_number", "age_group", "gender"), _number, _face)


def usual_filter(extra: dict[str, Any]) -> bool:
    """Whether LATS trains on a face of these columns; a missing value does not pass."""

    def under(column: str, limit: float) -> bool:
        value = extra.get(column)
        return value is not None and abs(value) < limit

    def over(column: str, limit: float) -> bool:
        value = extra.get(column)
        return value is not None and value > limit

    one, other = ("left_eye_occluded", "right_eye_occluded")
    eyes = (under(one, 50) and under(other, 90)) or (under(one, 90) and under(other, 50))
    sure = over("age_group_confidence", 0.6) and over("gender_confidence", 0.66)
    turned = not (under("head_pitch", 30) and under("head_yaw", 40))
    return sure and not turned and eyes and extra.get("glasses") not in (None, "Dark")


def _face(name: str, row: Row) -> Face:
    extra: dict[str, Any] = {column: _value(row, column) for column in NUMBERS}
    glasses = row.get("glasses")
    extra["glasses"] = None if glasses in (None, "-1") else glasses
    extra["usual_filter"] = usual_filter(extra)
    gender, number = row.get("gender"), _number(name)
    return Face(
        path=name,
        age=_group(row.get("age_group")),
        gender=None if gender == "-1" else word("gender", gender),
        split="test" if number.isdecimal() and int(number) >= TEST_FROM else None,
        extra=extra,
    )


def _group(text: str | None) -> tuple[float, float] | None:
    if text in (None, "-1"):
        return None
    ends = re.findall(r"\d+", text or "")
    if ends and ends[0] == "70":
        return OLDEST
    found = [group for group in GROUPS if [str(end) for end in group] == ends]
    if not found:
        known = ", ".join(f"{low}-{high}" for low, high in GROUPS)
        raise MienError(f"age_group {text!r} is none of {known}, 70-120")
    return float(found[0][0]), float(found[0][1])


def _value(row: Row, column: str) -> float | None:
    text = row.get(column)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        raise MienError(f"{column} {text!r} is no number") from None
    return None if value == -1 else value


def _number(name: str) -> str:
    """A picture's number without leading zeros, whatever its folder and ending; the name where it has none."""
    text = last_part(name).rsplit(".", 1)[0]
    return str(int(text)) if text.isdecimal() else text
