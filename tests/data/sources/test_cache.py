"""The cache of label files: used while nothing has changed, never when something has, and harmless when damaged."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mien.data.archives import open_tree
from mien.data.sources.affect import Affect
from mien.data.sources.cache import folder, remembered


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Reader:
    """Counts how often the data are read anew; what it reads is the bytes of all files."""

    def __init__(self, path: Path) -> None:
        self.path, self.times = path, 0

    def __call__(self, kind: str = "test-1") -> bytes:
        tree = open_tree(self.path)
        names = tree.names()

        def read() -> dict[str, np.ndarray]:
            self.times += 1
            data = b"".join(name.encode() + tree.read(name) for name in names)
            return {"data": np.frombuffer(data, np.uint8), "words": np.array(names, np.str_)}

        arrays = remembered(kind, tree, names, read)
        assert arrays["words"].tolist() == names
        assert set(arrays) == {"data", "words"}
        return arrays["data"].tobytes()


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_the_second_reading_is_from_the_cache(pack, kind):
    read = Reader(pack(kind, {"a": b"1", "b/c": b"2"}))
    assert read() == read() == b"a1b/c2"
    assert read.times == 1
    assert read("test-2") == b"a1b/c2"  # read in another way
    assert read.times == 2


def test_changes_in_a_folder_are_noticed(pack):
    path = pack("folder", {"a": b"1", "b/c": b"2"})
    read = Reader(path)
    read()
    (path / "a").write_bytes(b"100")
    assert read() == b"a100b/c2"
    (path / "a").write_bytes(b"200")  # of the same length: the time tells
    os.utime(path / "a", ns=(1, 1))
    assert read() == b"a200b/c2"
    (path / "d").write_bytes(b"")
    assert read() == b"a200b/c2d"
    (path / "d").unlink()
    assert read() == b"a200b/c2"
    (path / "a").rename(path / "e")
    assert read() == b"b/c2e200"
    assert read.times == 6
    read()
    assert read.times == 6


def test_a_link_to_nothing_is_the_reader_s_to_tell(pack, tmp_path):
    path = pack("folder", {"a": b"1"})
    (path / "b").symlink_to(tmp_path / "none")
    tree = open_tree(path)

    def kept(count: int) -> int:
        return len(remembered("test-1", tree, tree.names(), lambda: {"it": np.zeros(count)})["it"])

    assert [kept(1), kept(2)] == [1, 1]
    (tmp_path / "none").write_bytes(b"there")
    assert kept(3) == 3


def test_changes_of_an_archive_are_noticed(pack):
    path = pack("zip", {"a": b"1"})
    read = Reader(path)
    read()
    pack("zip", {"a": b"2"})
    os.utime(path, ns=(1, 1))
    assert read() == b"a2"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b", b"3")
    assert read() == b"a2b3"
    assert read.times == 3


def test_one_file_a_data_set(pack, cache):
    path = pack("zip", {"a": b"1"})
    read = Reader(path)
    for data in (b"2", b"33", b"444"):
        read()
        pack("zip", {"a": data})
    assert len(list(cache.iterdir())) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_cache_is_read_anew_and_mended(pack, cache, data):
    read = Reader(pack("zip", {"a": b"1" * 50}))
    right = read()
    file = next(cache.iterdir())
    whole = bytearray(file.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    assert read() == right
    times = read.times
    assert read() == right
    assert read.times == times


def test_objects_are_neither_kept_nor_loaded(pack, cache):
    read = Reader(pack("zip", {"a": b"1"}))
    read()
    file = next(cache.iterdir())
    with np.load(file) as kept:
        arrays = dict(kept)
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays, "data": np.array([print], dtype=object)})
    file.write_bytes(buffer.getvalue())
    assert read() == b"a1"
    assert read.times == 2


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(pack, cache):
    cache.write_bytes(b"a file where the folder should be")
    read = Reader(pack("zip", {"a": b"1"}))
    assert read() == read() == b"a1"
    assert read.times == 2


def test_where_it_lies(tmp_path, monkeypatch):
    assert folder() == tmp_path / "cache"
    monkeypatch.setenv("MIEN_CACHE", "OFF")
    assert folder() is None
    monkeypatch.delenv("MIEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folder() == tmp_path / "xdg" / "mien"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / ".cache" / "mien"


def test_off_leaves_nothing(pack, monkeypatch, cache):
    monkeypatch.setenv("MIEN_CACHE", "off")
    read = Reader(pack("zip", {"a": b"1"}))
    assert read() == read() == b"a1"
    assert read.times == 2
    assert not cache.exists()


def test_affect_says_the_same_from_the_cache(pack, cache):
    """Faces, faults and all: also what is listed."""
    files = {"images/1.jpg": b"", "images/2.jpg": b"", "images/3.jpg": b""}
    files |= {"annotations/1_exp.npy": b"3", "annotations/1_lnd.npy": b"1 " * 136, "annotations/2_val.npy": b"x"}
    path = pack("folder", files)
    first = [repr(item) for item in Affect().faces(path)]
    again = [repr(item) for item in Affect().faces(path)]
    assert len(list(cache.iterdir())) == 1
    assert again == first
    (path / "annotations/2_val.npy").write_bytes(b"0.5")
    changed = list(Affect().faces(path))
    assert [face.valence for face in changed if hasattr(face, "valence")] == [None, 0.5]
