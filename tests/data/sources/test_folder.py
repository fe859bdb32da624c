"""Any pictures with a file of labels, CSV or Parquet."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mien.data.sources import Rejected
from mien.data.sources.folder import FolderSource
from mien.errors import MienError
from mien.faces import Crop, Face

FILES = {"a/One.JPG": b"", "a/two.png": b"", "b/three.webp": b"", "b/four.jpg": b"", "notes.txt": b""}


def read(path: Path, labels: Path | None = None) -> tuple[dict[str, Face], dict[str, str]]:
    items = list(FolderSource(labels).faces(path))
    faces = {item.path: item for item in items if isinstance(item, Face)}
    return faces, {item.path: item.reason for item in items if isinstance(item, Rejected)}


def test_without_labels_every_picture_is_a_face(pack):
    faces, rejected = read(pack("folder", FILES))
    assert sorted(faces) == ["a/One.JPG", "a/two.png", "b/four.jpg", "b/three.webp"]
    assert not rejected
    assert all(face.age is None and face.source == "folder" for face in faces.values())


def test_hidden_files_are_faces_only_where_labels_name_them(pack, tmp_path):
    pictures = pack("folder", {"a/one.jpg": b"", "a/.one.jpg": b""})
    assert sorted(read(pictures)[0]) == ["a/one.jpg"]
    labels = tmp_path / "labels.csv"
    labels.write_text("path,age\na/.one.jpg,31\n")
    faces, rejected = read(pictures, labels)
    assert faces["a/.one.jpg"].age == (31, 31)
    assert rejected == {"a/one.jpg": "labels.csv does not name it"}


def test_csv(pack, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "path,age,gender,race7,valence,person,split,camera\n"
        "a/One.JPG,31.5,FEMALE,East Asian,0.5,ann,val,left\n"
        "A\\Two.png,,,,,,,\n"  # another case and separator
        "three.webp,12,,,,,,\n"  # a unique name without its folder
        "b/gone.jpg,12,,,,,,\n"
        "a/One.JPG,32,,,,,,\n"
    )
    faces, rejected = read(pack("folder", FILES), labels)
    one = faces["a/One.JPG"]
    assert (one.age, one.gender, one.race7, one.race) == ((31.5, 31.5), "Female", "East Asian", "Asian")
    assert (one.valence, one.person, one.split) == (0.5, "ann", "val")
    assert one.extra == {"camera": "left", "race_from": "race7"}
    assert faces["a/two.png"].age is None
    assert faces["b/three.webp"].age == (12, 12)
    assert rejected == {
        "b/gone.jpg": "labels.csv line 5: no such picture",
        "a/One.JPG": "labels.csv line 6: labelled for the second time",
        "b/four.jpg": "labels.csv does not name it",
    }


BAD_ROWS = {
    "age,gender\n130,Male": "age (130.0, 130.0) is not an interval within 0-120 years",
    "age,gender\nold,Male": "column age: 'old' is no number; write a plain number such as 34.5, or nothing where it is "
    "not known",
    'age\n"34,5"': "column age: '34,5' is no number; write 34.5",
    "age\n30-39": "column age: '30-39' is no number; the two ends of an age stand in the columns age_low and age_high",
    "age,gender\n30,Man": "gender 'Man' is none of Male, Female",
    "age_low,age_high\n9,3": "age (9.0, 3.0) is not an interval within 0-120 years",
    "age_low,age_high\n9,": "one end of the age is missing; give age_low and age_high, or age",
    "valence,arousal\n2,0": "valence 2.0 is outside [-1, 1]",
    "landmarks,age\n1 2 3,3": "landmarks '1 2 3' is no list of numbers as it should be; CSV holds none",
    "expression_votes,age\n1 2,3": "expression_votes '1 2' is no list of numbers as it should be; CSV holds none",
    "split,age\ntraining,3": "split 'training' is none of train, select, val, test",
}


@pytest.mark.parametrize(("text", "reason"), BAD_ROWS.items())
def test_each_bad_row_is_rejected_with_its_reason(pack, tmp_path, text, reason):
    header, values = text.split("\n")
    (tmp_path / "labels.csv").write_text(f"path,{header}\nx.jpg,{values}\n")
    faces, rejected = read(pack("folder", {"x.jpg": b""}), tmp_path / "labels.csv")
    assert not faces
    assert rejected == {"x.jpg": f"labels.csv line 2: {reason}"}


@pytest.mark.parametrize("nothing", ["NA", "nan", "NaN", "<NA>", "null", "N/A"])
def test_the_words_of_other_programs_for_nothing_are_no_labels(pack, tmp_path, nothing):
    columns = (
        "age",
        "age_low",
        "age_high",
        "gender",
        "race",
        "expression",
        "valence",
        "person",
        "split",
        "votes_Happy",
    )
    (tmp_path / "labels.csv").write_text(
        f"path,{','.join(columns)},camera\n" + "".join(f"{name}.jpg{f',{nothing}' * 11}\n" for name in "xy")
    )
    faces, rejected = read(pack("folder", {"x.jpg": b"", "y.jpg": b""}), tmp_path / "labels.csv")
    assert not rejected
    for name, face in faces.items():
        assert face == Face(name, archive=None, source="folder", extra={"camera": nothing})


def test_parquet(pack, tmp_path):
    columns = {
        "path": ["a/One.JPG", "a/two.png", "b/four.jpg"],
        "age_low": [1.0, None, float("nan")],
        "age_high": [5, None, None],
        "landmarks": [[float(value) for value in range(136)], None, [1.0, 2.0]],
    }
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    faces, rejected = read(pack("folder", FILES), tmp_path / "labels.parquet")
    assert faces["a/One.JPG"].age == (1, 5)
    assert faces["a/One.JPG"].landmarks[1].tolist() == [2, 3]
    assert faces["a/two.png"].age is None
    assert rejected == {
        "b/four.jpg": "labels.parquet row 2: landmarks have shape (1, 2), expected (68, 2)",
        "b/three.webp": "labels.parquet does not name it",
    }


def test_landmarks_may_be_unknown_but_not_at_infinity(pack, tmp_path):
    points = [[float(value) for value in range(135)] + [odd] for odd in (float("nan"), float("inf"))]
    pq.write_table(pa.table({"path": ["a/One.JPG", "a/two.png"], "landmarks": points}), tmp_path / "labels.parquet")
    faces, rejected = read(pack("folder", FILES), tmp_path / "labels.parquet")
    assert list(faces) == ["a/One.JPG"]
    assert "row 1: landmarks at infinity" in rejected["a/two.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,age\n", r"labels\.csv has no column path; its columns are file, age"),
        ("", r"labels\.csv is empty"),
        ("path,age\na,1,2\n", r"labels\.csv line 2 has 3 values for 2 columns"),
        ("path,group\na,1\n", "call it person"),
        ("path,enhanced\na,b\n", "which mien enhance makes"),
        ("path,Age\na,1\n", "a column 'Age'; mien's is spelled 'age'"),
    ],
)
def test_label_files_that_cannot_be_used(pack, tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(MienError, match=message):
        read(pack("folder", FILES), tmp_path / "labels.csv")


def test_label_files_that_cannot_be_read(pack, tmp_path):
    path = pack("folder", FILES)
    with pytest.raises(MienError, match="is not there; give a CSV or Parquet file"):
        read(path, tmp_path / "none.csv")
    with pytest.raises(MienError, match="is a folder; give a CSV or Parquet file"):
        read(path, tmp_path)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MienError, match="no Parquet file or is damaged"):
        read(path, tmp_path / "bad.parquet")
    (tmp_path / "latin.csv").write_bytes("path,name\na,J\xf6rg\n".encode("latin-1"))
    with pytest.raises(MienError, match="no UTF-8 text"):
        read(path, tmp_path / "latin.csv")


def test_a_name_that_two_pictures_bear_needs_its_folder(pack, tmp_path):
    path = pack("folder", {"a/x.jpg": b"", "b/x.jpg": b""})
    (tmp_path / "labels.csv").write_text("path,age\nx.jpg,1\nb/x.jpg,2\n")
    faces, rejected = read(path, tmp_path / "labels.csv")
    assert list(faces) == ["b/x.jpg"]
    assert rejected == {
        "x.jpg": "labels.csv line 2: no such picture",
        "a/x.jpg": "labels.csv does not name it",
    }


def test_a_row_of_another_picture_says_nothing_of_its_namesake(pack, tmp_path):
    path = pack("folder", {"val/1.jpg": b"", "val/2.jpg": b"", "val/3.jpg": b""})
    rows = "train/1.jpg,70\nval/1.jpg,5\ntrain/2.jpg,71\ntest/2.jpg,72\nelsewhere/3.jpg,30\n"
    (tmp_path / "labels.csv").write_text("path,age\n" + rows)
    faces, rejected = read(path, tmp_path / "labels.csv")
    # 1.jpg is named fully by another row, 2.jpg could be either of two, 3.jpg is the only one of its name.
    assert {name: face.age for name, face in faces.items()} == {"val/1.jpg": (5, 5), "val/3.jpg": (30, 30)}
    assert rejected == {
        "train/1.jpg": "labels.csv line 2: no such picture",
        "train/2.jpg": "labels.csv line 4: no such picture",
        "test/2.jpg": "labels.csv line 5: no such picture",
        "val/2.jpg": "labels.csv does not name it",
    }


def test_crop_is_what_the_user_says():
    assert FolderSource().crop == Crop("photo")
    assert FolderSource(crop="chip").crop == Crop("chip")
    with pytest.raises(MienError, match="unknown crop 'chap'; did you mean 'chip'"):
        FolderSource(crop="chap")


def test_votes_are_ten_columns_or_one_list(pack, tmp_path):
    names = [
        f"votes_{name}" for name in ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger", "Contempt")
    ]
    (tmp_path / "labels.csv").write_text(
        f"path,expression,valence,arousal,{','.join(names)},votes_unknown,votes_no_face\n"
        "1.jpg,,0.5,-1,2,7,,,,,,,1,\n"
        "2.jpg,,,,5,5,0,0,0,0,0,0,0,0\n"
        "3.jpg,Sad,,,5,4,0,0,0,0,0,0,0,1\n"
        "4.jpg,Fear,,,,,,,,,,,,\n"
        "5.jpg,,,,-1,2,,,,,,,,\n"
        "6.jpg,,,,few,2,,,,,,,,\n"
    )
    path = pack("folder", {f"{number}.jpg": b"" for number in range(1, 7)})
    items = list(FolderSource(tmp_path / "labels.csv").faces(path))
    first, tied, said, alone = items[:4]
    assert first.expression_votes.tolist() == [2, 7, 0, 0, 0, 0, 0, 0, 1, 0]
    assert (first.expression, first.valence, first.arousal) == ("Happy", 0.5, -1)
    assert first.extra == {"expression_from": "votes"}
    assert (tied.expression, tied.extra) == (None, {})
    assert (said.expression, said.extra) == ("Sad", {})  # a word that is given stands above the votes
    assert (alone.expression, alone.expression_votes) == ("Fear", None)
    assert "votes [-1.0, 2.0" in items[4].reason
    assert "column votes_Neutral: 'few' is no number" in items[5].reason


def test_votes_from_a_manifest_of_ones_own(pack, tmp_path):
    votes = [0, 0, 0, 6, 3, 0, 0, 0, 1, 0]
    table = pa.table({"path": ["1.jpg", "2.jpg"], "expression_votes": pa.array([votes, None], pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "labels.parquet")
    one, other = FolderSource(tmp_path / "labels.parquet").faces(pack("folder", {"1.jpg": b"", "2.jpg": b""}))
    assert one.expression_votes.tolist() == votes
    assert one.expression == "Surprise"
    assert other.expression_votes is None


def test_accents_and_leading_folders_do_not_hide_a_picture(pack, tmp_path):
    files = {"train/Ren\u00e9.jpg": b"", "train/1.jpg": b"", "val/1.jpg": b""}
    labels = tmp_path / "labels.csv"
    labels.write_text("path,age\ntrain/Rene\u0301.jpg,5\nmyset/train/1.jpg,6\nmyset/val/1.jpg,7\n", encoding="utf-8")
    faces, rejected = read(pack("folder", files), labels)
    assert not rejected
    assert {name: face.age for name, face in faces.items()} == {
        "train/Ren\u00e9.jpg": (5, 5),
        "train/1.jpg": (6, 6),
        "val/1.jpg": (7, 7),
    }
    # Two different paths that would share one picture name none.
    labels.write_text("path,age\none/train/1.jpg,6\ntwo/train/1.jpg,7\n")
    faces, rejected = read(pack("folder", files), labels)
    assert not faces
    assert rejected["one/train/1.jpg"] == "labels.csv line 2: no such picture"


def test_pictures_that_are_not_read_are_listed(pack):
    faces, rejected = read(pack("folder", {**FILES, "a/phone.HEIC": b"", "a/again.jfif": b""}))
    assert "a/again.jfif" in faces
    assert rejected == {"a/phone.HEIC": "a kind of picture that mien does not read; convert it to JPEG or PNG"}


def test_data_are_not_lost_in_silence(pack, tmp_path):
    folder = pack("folder", {f"{number}.png": b"" for number in range(3)})
    table = tmp_path / "labels.csv"
    table.write_text("path,age,age\n0.png,30,40\n")
    with pytest.raises(MienError, match="two columns 'age'"):
        read(folder, table)
    table.write_text("path,age,age_low,age_high\n0.png,30,40,50\n1.png,45,40,50\n")
    faces, rejected = read(folder, table)
    assert "age 30 lies outside age_low 40 to age_high 50" in rejected["0.png"]
    assert faces["1.png"].age == (40, 50)
    columns = {"path": ["0.png", "1.png", "2.png"], "person": [float("nan"), 7.0, float("nan")]}
    pq.write_table(pa.table(columns | {"gender": ["Male", "nan", "Female"]}), tmp_path / "labels.parquet")
    faces, _ = read(folder, tmp_path / "labels.parquet")
    assert [faces[name].person for name in ("0.png", "2.png")] == [None, None]
