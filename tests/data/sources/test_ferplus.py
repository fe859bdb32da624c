"""FER+: ten votes a face, in another order than mien's, and what becomes of ties and of those who saw no face."""

from __future__ import annotations

import numpy as np
import pytest

from mien.data.sources import Rejected
from mien.data.sources.base import plurality
from mien.data.sources.ferplus import COLUMNS, FERPlus
from mien.errors import MienError
from mien.faces import VOTES, Face

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
CSV = f"""{HEADER}
Training,fer0000000.png,6,0,0,4,0,0,0,0,0,0
Training,fer0000001.png,1,2,3,0,0,0,0,0,3,1
PublicTest,fer0000002.png,0,0,0,0,0,7,0,3,0,0
PublicTest,fer0000003.png,0,0,2,0,0,0,0,0,8,0
PrivateTest,fer0000004.png,0,2,0,0,0,0,0,0,0,8
Training,,0,0,0,0,0,0,0,0,0,10
Training,fer0000006.png,5,5,0,0,0,0,0,0,0,0
Training,fer0000007.png,0,0,0,0,0,0,0,0,0,0
Training,fer0000008.png,-1,5,0,0,0,0,0,0,0,0
Training,fer0000009.png,many,5,0,0,0,0,0,0,0,0
Training,fer0000010.png,9,0,0,0,0,0,0,0,0,0
Training,FER0000000.png,6,0,0,4,0,0,0,0,0,0
"""
FILES = {
    "FERPlus/FER2013New.csv": CSV.encode(),
    **{f"FERPlus/FER2013Train/fer{number:07d}.webp": b"" for number in (0, 1, 6, 7, 8, 9)},
    "FERPlus/FER2013Valid/FER0000002.PNG": b"",
    "FERPlus/FER2013Valid/fer0000003.webp": b"",
    "FERPlus/FER2013Test/fer0000004.webp": b"",
    "FERPlus/FER2013Test/fer0000099.webp": b"",
}


def read(path) -> tuple[dict[str, Face], dict[str, str]]:
    items = list(FERPlus().faces(path))
    faces = {item.path.rsplit("/", 1)[-1][:10].lower(): item for item in items if isinstance(item, Face)}
    return faces, {item.path.rsplit("/", 1)[-1]: item.reason for item in items if isinstance(item, Rejected)}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_faces_and_what_does_not_match(pack, kind):
    faces, rejected = read(pack(kind, FILES))
    assert {name: face.expression for name, face in faces.items()} == {
        "fer0000000": "Neutral",
        "fer0000001": None,  # Surprise and unsure are tied
        "fer0000002": "Disgust",
        "fer0000003": None,  # most are unsure
        "fer0000006": None,  # a tie
    }
    at = "FERPlus/FER2013New.csv line"
    assert {name: reason.removeprefix(at) for name, reason in rejected.items()} == {
        "fer0000004.webp": " 6: most raters saw no face",
        "FER2013New.csv line 7": " 7: names no picture",
        "fer0000007.webp": f" 9: not one vote for any of {', '.join(VOTES)}",
        "fer0000008.webp": f" 10: votes {[-1.0, 5.0] + [0.0] * 8} are not all numbers of 0 or more",
        "fer0000009.webp": " 11: neutral 'many' is no number of votes",
        "fer0000010.png": " 12: no such picture",
        "FER0000000.png": " 13: labelled for the second time",
        "fer0000099.webp": "no label file names it",
    }


def test_votes_stand_in_the_order_of_the_vocabulary(pack):
    faces, _ = read(pack("zip", FILES))
    #                         Neu Hap Sad Sur Fea Dis Ang Con unknown none
    assert faces["fer0000001"].expression_votes.tolist() == [1, 2, 0, 3, 0, 0, 0, 0, 3, 1]
    assert faces["fer0000002"].expression_votes.tolist() == [0, 0, 0, 0, 0, 7, 0, 3, 0, 0]
    assert faces["fer0000000"].expression_votes.tolist() == [6, 0, 4, 0, 0, 0, 0, 0, 0, 0]
    assert faces["fer0000000"].expression_votes.dtype == np.float32


def test_every_column_means_its_word():
    """A face on which all agree carries the word that the file's column is the noun of."""
    stems = ("neutral", "happ", "sad", "surpris", "fear", "disgust", "ang", "contempt", "unknown")
    for column, word, stem in zip(COLUMNS, VOTES, stems, strict=False):
        assert column.startswith(stem)
        assert word.lower().startswith(stem)
    assert (COLUMNS[9], VOTES[9]) == ("NF", "no face")
    for code, word in enumerate(VOTES):
        assert plurality(np.eye(10)[code]) == (word if code < 8 else None)


def test_the_published_split_is_a_column_and_not_the_split(pack):
    faces, _ = read(pack("zip", FILES))
    assert [face.extra["usage"] for face in faces.values()] == [
        "Training",
        "Training",
        "PublicTest",
        "PublicTest",
        "Training",
    ]
    assert all(face.split is None for face in faces.values())
    assert faces["fer0000000"].extra["expression_from"] == "votes"
    assert "expression_from" not in faces["fer0000006"].extra


def test_labels_beside_the_archive(pack, tmp_path):
    path = pack("zip", {name: data for name, data in FILES.items() if not name.endswith("csv")})
    assert FERPlus.recognises(list(FILES))
    assert not FERPlus.recognises([name for name in FILES if not name.endswith("csv")])
    (tmp_path / "fer2013new.csv").write_text(CSV)
    assert len(read(path)[0]) == 5


def test_a_label_file_without_its_columns(pack):
    with pytest.raises(
        MienError, match=r"fer2013new\.csv has no column NF; its columns are Usage, Image name, neutral"
    ):
        read(pack("zip", {"fer2013new.csv": HEADER.replace(",NF", "").encode()}))
