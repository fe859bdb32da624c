"""IMDB-WIKI: the published .mat layout, MATLAB's days, the middle of the year, and what is no age."""

from __future__ import annotations

import io
from datetime import date

import numpy as np
import pytest
from scipy.io import savemat

from mien.data.sources import Rejected
from mien.data.sources.imdb_wiki import ImdbWiki, age_at
from mien.errors import MienError
from mien.faces import Face


def matlab(year: int, month: int, day: int) -> int:
    """The day as MATLAB counts: datenum(2000, 1, 1) is 730486."""
    return date(year, month, day).toordinal() + 366


def mat(key: str, entries: list[tuple]) -> bytes:
    """A .mat file as published: a 1x1 struct of 1xN arrays, texts in cells."""

    def cells(values: list[str]) -> np.ndarray:
        cell = np.empty((1, len(values)), dtype=object)
        for place, value in enumerate(values):
            cell[0, place] = np.array([value])
        return cell

    born, taken, paths, genders, names, scores, seconds = zip(*entries, strict=True)
    table = {
        "dob": np.array([born], dtype=np.float64),
        "photo_taken": np.array([taken], dtype=np.uint16),
        "full_path": cells(list(paths)),
        "gender": np.array([genders], dtype=np.float64),
        "name": cells(list(names)),
        "face_location": cells([""] * len(entries)),
        "face_score": np.array([scores], dtype=np.float64),
        "second_face_score": np.array([seconds], dtype=np.float64),
    }
    file = io.BytesIO()
    savemat(file, {key: table})
    return file.getvalue()


nan, none = float("nan"), float("-inf")
ENTRIES = [
    (matlab(1955, 1, 6), 2003, "00/nm1_rm1_1955-1-6_2003.jpg", 1, "Ada Example", 3.5, nan),
    (matlab(1955, 7, 1), 2003, "00/nm1_rm2_1955-7-1_2003.jpg", 1, "Ada Example", none, 1.5),
    (matlab(1990, 12, 31), 1990, "01/nm2_rm1_1990-12-31_1990.jpg", nan, "Bea Example", 1.0, nan),
    (matlab(1800, 1, 1), 2000, "01/nm3_rm1_1800-1-1_2000.jpg", 0, "Cleo Example", 1.0, nan),
    (47, 2000, "01/nm4_rm1.jpg", 0, "Dora Example", 1.0, nan),
    (matlab(1970, 3, 3), 2000, "01/nm5_rm1_gone.jpg", 0, "Eve Example", 1.0, nan),
    (matlab(1970, 3, 3), 2000, "00/nm6_rm1.jpg", 0, "Fay Example", 1.0, nan),
]
FILES = {
    "imdb_crop/imdb.mat": mat("imdb", ENTRIES),
    **{f"imdb_crop/{entry[2]}": b"" for entry in ENTRIES if "gone" not in entry[2]},
    "imdb_crop/02/nm9_rm9.jpg": b"",
}


def test_days_of_matlab():
    assert matlab(2000, 1, 1) == 730486
    assert age_at(730486, 2020) == 20
    assert age_at(matlab(2000, 6, 30), 2020) == 20
    assert age_at(matlab(2000, 7, 1), 2020) == 19
    assert age_at(730486.7, 2020) == 20
    assert age_at(714_000, 2010) == 55
    for day in (nan, 0, 366, 1e9):
        assert age_at(day, 2020) is None


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_faces_and_what_does_not_match(pack, kind):
    items = list(ImdbWiki().faces(pack(kind, FILES)))
    faces = {item.path.rsplit("/", 1)[-1]: item for item in items if isinstance(item, Face)}
    rejected = {item.path.rsplit("/", 1)[-1]: item.reason for item in items if isinstance(item, Rejected)}
    told = {name: (face.age, face.gender, face.person) for name, face in faces.items()}
    assert told == {
        "nm1_rm1_1955-1-6_2003.jpg": ((48, 48), "Male", "imdb_wiki Ada Example"),
        "nm1_rm2_1955-7-1_2003.jpg": ((47, 47), "Male", "imdb_wiki Ada Example"),
        "nm6_rm1.jpg": ((30, 30), "Female", "imdb_wiki Fay Example"),
    }
    assert faces["nm1_rm1_1955-1-6_2003.jpg"].extra == {
        "photo_year": 2003,
        "name": "Ada Example",
        "face_score": 3.5,
        "second_face_score": None,
    }
    assert faces["nm1_rm2_1955-7-1_2003.jpg"].extra["face_score"] is None
    assert rejected == {
        "nm2_rm1_1990-12-31_1990.jpg": "imdb_crop/imdb.mat entry 2: the age -1 is outside 0-120 years",
        "nm3_rm1_1800-1-1_2000.jpg": "imdb_crop/imdb.mat entry 3: the age 200 is outside 0-120 years",
        "nm4_rm1.jpg": "imdb_crop/imdb.mat entry 4: the day of birth 47.0 is none",
        "nm5_rm1_gone.jpg": "imdb_crop/imdb.mat entry 5: no such picture",
        "nm9_rm9.jpg": "no .mat file names it",
    }


def test_wiki_and_unknown_gender(pack):
    born = (matlab(1980, 1, 1), 2000, "17/10000217_1981-05-05_2009.jpg", nan, "Gil Example", 1.0, nan)
    path = pack("zip", {"wiki_crop/wiki.mat": mat("wiki", [born]), f"wiki_crop/{born[2]}": b""})
    [face] = ImdbWiki().faces(path)
    assert (face.gender, face.age) == (None, (20, 20))


def test_another_file_is_refused(pack):
    for data in (b"", b"no mat file at all" * 100, mat("other", ENTRIES), FILES["imdb_crop/imdb.mat"][:700]):
        with pytest.raises(MienError, match=r"imdb.mat is not the .mat file of IMDB-WIKI, or damaged"):
            list(ImdbWiki().faces(pack("zip", {"imdb.mat": data})))
