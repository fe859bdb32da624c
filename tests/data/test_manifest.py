"""Manifests: round trips, checks by row and column, damage, and what callers read from them."""

from __future__ import annotations

import errno
import json
import ntpath
import os
from contextlib import suppress
from pathlib import Path, PureWindowsPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mien.data.columns import shared_root
from mien.data.manifest import Manifest
from mien.data.slices import Slices
from mien.errors import MienError
from mien.faces import EXPRESSIONS, GENDERS, RACES, SPLITS, Crop, Face

CHIP = Crop("chip", 0.0, 200)


def points(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 80, (68, 2)).astype(np.float32)


def faces() -> list[Face]:
    return [
        Face("a/1.jpg", "x.zip", (3, 9), "Male", "White", person="p", split="train", source="s"),
        Face("a/2.jpg", "x.zip", (25, 25), "Female", "Black", valence=-0.5, landmarks=points(1), split="val"),
        Face("b/3.jpg", expression="Contempt", arousal=1.0, extra={"camera": "c", "score": 3}),
        Face("b/4.jpg", age=(0, 120), race7="East Asian", race="Asian", extra={"race_from": "race7"}),
    ]


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    hashes = [bytes([number]) * 32 for number in range(4)]
    return Manifest.from_faces(
        faces(), tmp_path, CHIP, sha256=hashes, sizes=[(200, 201)] * 4, groups=np.array([5, 5, -1, -1])
    )


def test_round_trip(manifest, tmp_path):
    file = manifest.save(tmp_path)
    again = Manifest.open(tmp_path)
    assert file == tmp_path / "faces.parquet"
    assert again.table.equals(manifest.table)
    assert again.crop == CHIP
    assert again.root.resolve() == tmp_path
    assert again.hash == manifest.hash
    for row, face in enumerate(faces()):
        read = again.face(row)
        face.extra.pop("race_from", None)
        for field in Face.__slots__:
            if field == "landmarks":
                assert (read.landmarks is None) == (face.landmarks is None)
                assert face.landmarks is None or (read.landmarks == face.landmarks).all()
            elif field == "extra":
                assert {key: value for key, value in read.extra.items() if value is not None} == face.extra
            else:
                assert getattr(read, field) == getattr(face, field), field


def test_columns(manifest):
    columns = manifest.columns(["age_low", "age_high", "gender", "race", "expression", "landmarks", "valence"])
    np.testing.assert_array_equal(columns["age_low"], np.array([3, 25, np.nan, 0], np.float32))
    np.testing.assert_array_equal(columns["age_high"], np.array([9, 25, np.nan, 120], np.float32))
    assert columns["gender"].tolist() == [0, 1, -1, -1]
    assert columns["race"].tolist() == [0, 1, -1, 2]
    assert columns["expression"].tolist() == [-1, -1, 7, -1]
    assert columns["landmarks"].shape == (4, 68, 2)
    np.testing.assert_array_equal(columns["landmarks"][1], points(1))
    assert np.isnan(columns["landmarks"][[0, 2, 3]]).all()
    assert columns["gender"].dtype == np.int64
    assert columns["valence"].dtype == np.float32
    assert manifest.strings("person").tolist() == ["p", None, None, None]
    assert manifest.strings("camera").tolist() == [None, None, "c", None]
    assert manifest.strings("race_from").tolist() == ["given", "given", None, "race7"]
    assert manifest.strings("age_from").tolist() == ["given", "given", None, "given"]
    assert np.isnan(manifest.numbers("never_there")).all()
    assert manifest.has("person")
    assert not manifest.has("never_there")
    groups = manifest.groups()
    assert groups[0] == groups[1] == 5
    assert len(set(groups.tolist())) == 3


def test_a_word_of_many_faces_is_one_string(manifest):
    """A million rows of a column of words hold the few words, not a million strings."""
    words = pa.array([f"camera {n}" for n in range(128)])  # as many as bytes can number: none is left for "missing"
    codes = pa.array([127, None, 0, 127], pa.int8())
    found = manifest.with_columns({"camera": pa.DictionaryArray.from_arrays(codes, words)}).strings("camera")
    assert found.tolist() == ["camera 127", None, "camera 0", "camera 127"]
    whole = manifest.with_columns({"source": ["utk", None, "utk", "fg"]}).strings("source")
    assert whole.tolist() == ["utk", None, "utk", "fg"]
    assert whole[0] is whole[2]


def test_take_where_split(manifest):
    taken = manifest.take(np.array([3, 1, 1]))
    assert taken.strings("path").tolist() == ["b/4.jpg", "a/2.jpg", "a/2.jpg"]
    np.testing.assert_array_equal(taken.landmarks()[1], points(1))
    assert np.isnan(taken.landmarks()[0]).all()
    assert manifest.where(np.array([False, True, False, True])).codes("race").tolist() == [1, 2]
    assert len(manifest.where(np.zeros(4, bool))) == 0
    assert manifest.split("all") is manifest
    assert manifest.split("val").strings("path").tolist() == ["a/2.jpg"]
    with pytest.raises(MienError, match="no face in split 'test'; it has train, val"):
        manifest.split("test")
    with pytest.raises(MienError, match="unknown split 'vall'; did you mean 'val'"):
        manifest.split("vall")
    with pytest.raises(MienError, match="no face has a split, take 'all'"):
        manifest.take(np.array([2])).split("train")


def test_hash_is_of_pictures_labels_and_splits_only(manifest, tmp_path):
    other = Manifest.from_faces(
        [*faces()], tmp_path / "elsewhere", CHIP, sha256=[bytes([number]) * 32 for number in range(4)]
    )
    assert other.hash == manifest.hash
    renamed = manifest.with_columns({"path": ["q", "r", "s", "t"]})
    assert renamed.hash == manifest.hash
    changed = {
        "age_low": [3, 25, None, 1],
        "gender": np.array([1, 1, -1, -1]),
        "split": np.array([0, 0, -1, -1]),
        "landmarks": manifest.landmarks() + 1,
        "sha256": [bytes([9]) * 32] * 4,
        "valence": [0.0, -0.5, None, None],
    }
    hashes = {name: manifest.with_columns({name: values}).hash for name, values in changed.items()}
    assert manifest.hash not in hashes.values()
    assert len(set(hashes.values())) == len(hashes)
    assert manifest.take(np.array([1, 0, 2, 3])).hash != manifest.hash
    # The same values in other chunks are the same values.
    halves = Manifest(pa.concat_tables([manifest.table[:1], manifest.table[1:]]), tmp_path, CHIP)
    assert halves.hash == manifest.hash


BAD = [
    ("age_low", [1.0, 250.0, 300.0], "row 1, column age_low: 250 is outside 0-120 (and 1 more rows)"),
    ("age_high", [9.0, -1.0, 9.0], "row 1, column age_high: -1 is outside 0-120"),
    ("age_low", [1.0, 2.0, 99.0], "row 2, column age_low: 99 is above age_high"),
    ("age_low", [1.0, float("nan"), 1.0], "row 1, column age_low: one end of the age is missing"),
    ("gender", ["Male", None, "male"], "row 2, column gender: 'male' is none of Male, Female"),
    ("race", ["Martian", "White", "White"], "row 0, column race: 'Martian' is none of White, Black"),
    ("split", ["train", "train", "training"], "row 2, column split: 'training' is none of train, select"),
    ("valence", [0.0, 1.5, 0.0], "row 1, column valence: 1.5 is outside -1-1"),
    ("valence", ["0.1", "0.2", "happy"], "row 2, column valence: 'happy' is no float"),
    ("path", ["a", None, "c"], "row 1, column path: a face needs the path"),
    ("path", ["a", "", "c"], "row 1, column path: a face needs the path"),
    ("path", ["a", "b/../../c", "c"], "row 1, column path: 'b/../../c' leads outside"),
    ("path", ["a", "b", "/etc/passwd"], "row 2, column path: '/etc/passwd' leads outside"),
    ("path", ["C:\\a.jpg", "b", "c"], "row 0, column path: 'C:\\\\a.jpg' leads outside"),
    ("archive", ["a.zip", "../b.zip", None], "row 1, column archive: '../b.zip' leads outside"),
    ("enhanced", [None, "", ""], "row 1, column enhanced: an enhanced picture has a path; null where there is none"),
    ("width", [200, 0, 200], "row 1, column width: 0 is outside 1-"),
    ("sha256", [b"a" * 32, b"short", b"b" * 32], "row 1, column sha256"),
    ("landmarks", [[0.0] * 136, [0.0] * 135, None], "row 1, column landmarks"),
]


@pytest.mark.parametrize(("column", "values", "message"), BAD)
def test_bad_values_are_named_by_row_and_column(tmp_path, column, values, message):
    table = {"path": ["a", "b..", "c/..d"], "age_low": [1.0, 2.0, 3.0], "age_high": [9.0, 9.0, 9.0]}
    write(tmp_path, table)
    assert len(Manifest.open(tmp_path)) == 3
    write(tmp_path, {**table, column: values})
    with pytest.raises(MienError) as caught:
        Manifest.open(tmp_path)
    assert str(caught.value).startswith(f"faces.parquet {message}")
    assert "\n" not in str(caught.value)


def write(folder: Path, columns: dict[str, list], **about: object) -> None:
    entry = {"version": 1, "crop": {"template": "chip"}, "root": ".", **about}
    table = pa.table(columns).replace_schema_metadata({b"mien": json.dumps(entry).encode()})
    pq.write_table(table, folder / "faces.parquet")


def test_types_of_other_writers_are_taken(tmp_path):
    """pandas and polars write plain or large strings, float64, NaN for missing, lists of any length."""
    columns = {
        "path": pa.array(["a", "b"], pa.large_string()),
        "age_low": pa.array([1, None], pa.int64()),
        "age_high": pa.array([1.0, float("nan")], pa.float64()),
        "gender": pa.array(["Female", None], pa.large_string()),
        "race": pa.nulls(2),
        "landmarks": pa.array([[0.5] * 136, None], pa.list_(pa.float64())),
        "mine": pa.array([{"a": 1}, None]),
    }
    write(tmp_path, columns)
    manifest = Manifest.open(tmp_path)
    assert manifest.codes("gender").tolist() == [1, -1]
    assert manifest.codes("race").tolist() == [-1, -1]
    np.testing.assert_array_equal(manifest.numbers("age_high"), np.array([1, np.nan], np.float32))
    assert manifest.landmarks()[0].max() == 0.5
    assert not manifest.has("race")
    assert manifest.face(0).extra == {"mine": {"a": 1}}


def test_no_manifest_is_said(tmp_path):
    with pytest.raises(MienError, match="none is not there; mien prepare"):
        Manifest.open(tmp_path / "none")
    with pytest.raises(MienError, match=r"holds no faces\.parquet; mien prepare"):
        Manifest.open(tmp_path)
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "plain.parquet")
    with pytest.raises(MienError, match="is a table, but no manifest; make one of it with `mien prepare folder"):
        Manifest.open(tmp_path / "plain.parquet")
    write(tmp_path, {"age": [1]})
    with pytest.raises(MienError, match="has no column path; its columns are age"):
        Manifest.open(tmp_path)
    write(tmp_path, {"path": ["a"], "age_low": [1.0]})
    with pytest.raises(MienError, match="has age_low alone"):
        Manifest.open(tmp_path)
    write(tmp_path, {"path": ["a"]}, version=99)
    with pytest.raises(MienError, match="version 99"):
        Manifest.open(tmp_path)
    write(tmp_path, {"path": ["a"]}, crop="chip")
    with pytest.raises(MienError, match="damaged"):
        Manifest.open(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_an_error_or_a_manifest(tmp_path, manifest, data):
    file = manifest.save(tmp_path / "damaged.parquet")
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(MienError):
        assert Manifest.open(file).hash


def test_a_column_whose_name_is_no_text_is_damage(tmp_path, manifest):
    file = manifest.save(tmp_path / "damaged.parquet")
    name, parts = b"gender", file.read_bytes().split(b"gender")
    for only in range(1, len(parts)):  # it stands in the schema, and again with each part of the column
        file.write_bytes(name.join(parts[:only]) + b"\x80ender" + name.join(parts[only:]))
        for opened in (Manifest.open, Slices):
            with suppress(MienError):
                assert opened(file).hash
    file.write_bytes(b"\x80ender".join(parts))
    for opened in (Manifest.open, Slices):
        with pytest.raises(MienError, match="damaged"):
            opened(file)


text = st.text(st.characters(codec="utf-8", exclude_characters="\0/\\:."), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            text,
            st.one_of(st.none(), text),
            st.one_of(st.none(), st.tuples(st.integers(0, 60), st.integers(60, 120))),
            st.sampled_from([None, *GENDERS]),
            st.sampled_from([None, *RACES]),
            st.sampled_from([None, *EXPRESSIONS]),
            st.one_of(st.none(), st.floats(-1, 1, width=32)),
            st.sampled_from([None, *SPLITS]),
            st.integers(-1, 3),
        ),
        max_size=8,
    )
)
def test_any_faces_survive(tmp_path, rows):
    given_faces = [
        Face(path, archive, age, gender, race, expression=expression, valence=valence, split=split)
        for path, archive, age, gender, race, expression, valence, split, _ in rows
    ]
    groups = np.array([row[-1] for row in rows], dtype=np.int64)
    manifest = Manifest.from_faces(given_faces, tmp_path, Crop("box", 0.25), groups=groups)
    manifest.save(tmp_path / "any.parquet")
    again = Manifest.open(tmp_path / "any.parquet")
    assert again.crop == Crop("box", 0.25)
    assert [again.face(row) for row in range(len(again))] == given_faces
    assert again.hash == manifest.hash
    assert (again.groups()[groups >= 0] == groups[groups >= 0]).all()
    assert len(set(again.groups()[groups < 0].tolist())) == (groups < 0).sum()


def test_a_full_disk_leaves_the_old_file(manifest, tmp_path, monkeypatch):
    file = manifest.save(tmp_path)
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="No space left"):
                manifest.take(np.array([0])).save(tmp_path)
        assert file.read_bytes() == before
        assert os.listdir(tmp_path) == ["faces.parquet"]


def test_the_folder_may_be_moved_where_pictures_lie_in_it(manifest, tmp_path):
    inside, outside = tmp_path / "one", tmp_path / "pictures"
    Manifest(manifest.table, inside, CHIP).save(inside)
    inside.rename(tmp_path / "two")
    assert Manifest.open(tmp_path / "two").root.resolve() == tmp_path / "two"
    Manifest(manifest.table, outside, CHIP).save(tmp_path / "two")
    assert Manifest.open(tmp_path / "two").root == outside
    # Others are moved together with it, unless they are where they were.
    outside.mkdir()
    Manifest(manifest.table, outside, CHIP).save(tmp_path / "project" / "faces")
    (tmp_path / "project" / "faces").rename(tmp_path / "faces")
    assert Manifest.open(tmp_path / "faces").root == outside
    (tmp_path / "elsewhere" / "there").mkdir(parents=True)
    Manifest(manifest.table, outside, CHIP).save(tmp_path / "two")
    (tmp_path / "two").rename(tmp_path / "elsewhere" / "there" / "two")
    outside.rename(tmp_path / "elsewhere" / "there" / "pictures")
    there = tmp_path / "elsewhere" / "there"
    assert Manifest.open(there / "two").root.resolve() == Slices(there / "two").root.resolve() == there / "pictures"
    assert Manifest.open(there / "two", root="other").root == Path("other")


def test_with_columns(manifest):
    new = manifest.with_columns({"split": np.array([3, 2, 1, -1], np.int8), "blur": np.array([1.0, np.nan, 0.5, 0.25])})
    assert new.codes("split").tolist() == [3, 2, 1, -1]
    np.testing.assert_array_equal(new.numbers("blur"), np.array([1, np.nan, 0.5, 0.25], np.float32))
    assert manifest.codes("split").tolist() == [0, 2, -1, -1]
    moved = manifest.with_columns({"landmarks": np.where(np.isnan(manifest.landmarks()), np.nan, 1.0)})
    assert moved.landmarks()[1].max() == 1
    assert np.isnan(moved.landmarks()[0]).all()
    with pytest.raises(MienError, match="column split has 2 values for 4 faces"):
        manifest.with_columns({"split": np.array([0, 1])})
    with pytest.raises(MienError, match="row 0, column age_low: 200 is outside 0-120"):
        manifest.with_columns({"age_low": [200.0] * 4})
    with pytest.raises(MienError, match="extra column 'width'"):
        Manifest.from_faces([Face("a", extra={"width": 3})], ".", CHIP)


def test_concat(manifest, tmp_path):
    here = Manifest(manifest.table, tmp_path / "x" / "one", CHIP)
    there = Manifest.from_faces(
        [Face("p.jpg", age=(1, 1)), Face("m.jpg", "y.zip", extra={"camera": "d"})],
        tmp_path / "x" / "two" / "deep",
        Crop("chip", 0.0, 112),
        groups=np.array([5, 0]),
    )
    both = Manifest.concat([here, there])
    assert both.root == tmp_path / "x"
    assert both.crop == Crop("chip", 0.0, 0)
    assert both.strings("path").tolist() == [
        "a/1.jpg", "a/2.jpg", "one/b/3.jpg", "one/b/4.jpg", "two/deep/p.jpg", "m.jpg",
    ]  # fmt: skip
    assert both.strings("archive").tolist() == ["one/x.zip", "one/x.zip", None, None, None, "two/deep/y.zip"]
    groups = both.groups()
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 5
    assert both.codes("gender").tolist() == [0, 1, -1, -1, -1, -1]
    assert both.strings("camera").tolist() == [None, None, "c", None, None, "d"]
    assert Manifest.concat([here]) is here
    with pytest.raises(MienError, match=r"photo.*mien prepare .*--align"):
        Manifest.concat([here, Manifest(there.table, there.root, Crop("photo"))])


VOTED = np.array([0, 4, 1, 0, 0, 0, 0, 0, 5, 0], np.float32)


def test_votes_make_the_round_trip(tmp_path):
    every = [
        Face("1.jpg", expression="Happy", expression_votes=VOTED * 2),
        Face("2.jpg"),
        Face("3.jpg", expression_votes=VOTED),
    ]
    manifest = Manifest.from_faces(every, tmp_path, CHIP)
    manifest.save(tmp_path)
    again = Manifest.open(tmp_path)
    np.testing.assert_array_equal(again.votes(), [VOTED * 2, np.full(10, np.nan), VOTED])
    assert again.votes().dtype == np.float32
    np.testing.assert_array_equal(again.columns(["expression_votes"])["expression_votes"], again.votes())
    assert again.face(0).expression_votes.tolist() == (VOTED * 2).tolist()
    assert again.face(1).expression_votes is None
    assert again.strings("expression_votes_from").tolist() == ["given", None, "given"]
    assert again.take(np.array([2, 1])).votes()[0].tolist() == VOTED.tolist()
    np.testing.assert_array_equal(again.where(np.array([False, True, True])).votes()[1], VOTED)
    fewer = Manifest.from_faces([Face("1.jpg", expression="Happy"), *every[1:]], tmp_path, CHIP)
    assert again.hash == manifest.hash != fewer.hash
    replaced = again.with_columns({"expression_votes": again.votes()[::-1].copy()})
    np.testing.assert_array_equal(replaced.votes(), again.votes()[::-1])


def test_a_manifest_without_votes_joins_one_with(tmp_path):
    with_votes = Manifest.from_faces([Face("1.jpg", expression_votes=VOTED)], tmp_path, CHIP)
    without = Manifest.from_faces([Face("2.jpg", age=(3, 3))], tmp_path, CHIP)
    assert np.isnan(without.votes()).all()
    assert without.votes().shape == (1, 10)
    for order in ((0, 1), (1, 0)):
        joined = Manifest.concat([(with_votes, without)[place] for place in order])
        np.testing.assert_array_equal(joined.votes()[order.index(0)], VOTED)
        assert np.isnan(joined.votes()[order.index(1)]).all()
    assert not without.has("expression_votes")


@pytest.mark.parametrize("votes", [VOTED * 0, VOTED - 1, VOTED * np.nan, VOTED + np.inf, VOTED[:9]])
def test_votes_that_are_none(tmp_path, votes):
    with pytest.raises(MienError, match="vote"):
        Face("1.jpg", expression_votes=votes)
    good = Manifest.from_faces([Face("1.jpg", expression_votes=VOTED)] * 2, tmp_path, CHIP)
    column = pa.array([VOTED.tolist(), votes.tolist()], pa.list_(pa.float32()))
    with pytest.raises(MienError, match="row 1, column expression_votes"):
        good.with_columns({"expression_votes": column})


def test_a_column_of_two_types_is_joined_as_text(tmp_path):
    one = Manifest.from_faces([Face("a.jpg", extra={"photo": 3, "camera": 1})], tmp_path / "one", CHIP)
    other = Manifest.from_faces([Face("b.jpg", extra={"photo": "x", "camera": 2.5})], tmp_path / "other", CHIP)
    both = Manifest.concat([one, other])
    assert both.strings("photo").tolist() == ["3", "x"]
    assert both.numbers("camera").tolist() == [1, 2.5]


def test_folders_on_two_drives_share_none(monkeypatch):
    monkeypatch.setattr(os, "path", ntpath)
    with pytest.raises(MienError, match="lie in no folder together"):
        shared_root([PureWindowsPath("C:/faces"), PureWindowsPath("D:/out")])
