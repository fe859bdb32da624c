"""CAF: 4,000 pictures of 520 people from childhood to old age."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from mien.data.archives import Tree
from mien.data.sources.base import Rejected, Source, last_part, pictures_of
from mien.faces import MAX_AGE, Crop, Face

#: The ten age groups of FFHQ-Aging, by which the second archive sorts its pictures.
GROUPS = ((0, 2), (3, 6), (7, 9), (10, 14), (15, 19), (20, 29), (30, 39), (40, 49), (50, 69), (70, MAX_AGE))
GROUP = re.compile(r"(group[ _-]?)?(?P<number>\d)", re.IGNORECASE)
#: `Jane_Doe_34.jpg`, `Jane Doe 34_2.jpg`, `120-34.png`: subject, age, which of several pictures at that age.
NAMED = re.compile(r"(?P<subject>.+?)[ _-]+(?P<age>\d{1,3})([ _-]+\d{1,2}|[a-z])?", re.IGNORECASE)
#: `34.jpg`, `34_2.jpg` in the folder of the subject.
AGED = re.compile(r"(?P<age>\d{1,3})([ _-]+\d{1,2}|[a-z])?", re.IGNORECASE)


class Caf(Source):
    """Pictures of two archives, neither of which comes with a description.

    Read are `SUBJECT/34.jpg` and `SUBJECT_34.jpg` (the age in years last, then perhaps a number or letter for one of
    several pictures), and the same under folders `0` to `9` or `group0` to `group9`, which give the age group where
    the name has no age. A picture of which neither subject nor age is told is rejected. Splits go by subject.
    """

    name: ClassVar[str] = "caf"
    title: ClassVar[str] = "CAF"
    terms: ClassVar[str] = "none stated; pictures found by web search: research only"
    where: ClassVar[str] = "https://github.com/AvLab-CV/AgeTransGAN (unprocessed, or sorted by age group)"
    layout: ClassVar[str] = "SUBJECT/34.jpg or SUBJECT_34.jpg, also under folders of age groups 0 to 9"
    crop = Crop("photo")

    @classmethod
    def recognises(cls, names: list[str]) -> bool:
        return any("caf" in part.lower().split("_") for name in names for part in name.split("/")[:-1])

    def read(self, tree: Tree, beside: Path) -> Iterator[Face | Rejected]:
        for name in pictures_of(tree):
            yield _face(name)


def _face(name: str) -> Face | Rejected:
    parts = name.replace("\\", "/").split("/")
    text = last_part(name).rsplit(".", 1)[0]
    folder = parts[-2] if len(parts) > 1 else ""
    group = next((found for part in parts[:-1] if (found := GROUP.fullmatch(part))), None)
    in_group = group is not None and group.group(0) == folder
    alone = AGED.fullmatch(text)
    named = NAMED.fullmatch(text)
    if alone is not None and folder and not in_group:
        subject, age = folder, int(alone["age"])
    elif named is not None:
        subject, age = named["subject"], int(named["age"])
    elif group is not None:
        low, high = GROUPS[int(group["number"])]
        return Face(path=name, age=(low, high), extra={"age_from": "group"})
    else:
        return Rejected(name, "neither the name nor its folder tells subject and age, as SUBJECT/34.jpg does")
    if age > MAX_AGE:
        return Rejected(name, f"the age {age} is outside 0-{MAX_AGE} years")
    person = re.sub(r"[ _-]+", " ", subject).strip().lower()
    return Face(path=name, age=(age, age), person=f"caf {person}")
