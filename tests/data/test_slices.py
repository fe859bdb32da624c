"""A manifest read in slices is the manifest."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mien.data import manifest as module
from mien.data.manifest import Manifest
from mien.data.slices import Slices
from mien.errors import MienError
from mien.faces import Crop, Face


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Manifest, Path]:
    monkeypatch.setattr(module, "ROWS", 7)
    faces = [
        Face(f"{n}.jpg", age=(n % 90, n % 90), gender="Male" if n % 2 else None, race="Asian" if n > 30 else None)
        for n in range(40)
    ]
    hashes = [bytes([n]) * 32 for n in range(40)]
    manifest = Manifest.from_faces(faces, tmp_path, Crop("chip", 0, 112), sha256=hashes)
    return manifest, manifest.save(tmp_path)


def test_any_slice_holds_the_faces_of_the_whole(saved: tuple[Manifest, Path]) -> None:
    manifest, file = saved
    assert pq.ParquetFile(file).num_row_groups == 6
    slices = Slices(file)
    assert len(slices) == 40
    assert slices.crop == manifest.crop
    for start, stop in ((0, 40), (0, 7), (6, 8), (13, 29), (39, 40), (35, 99), (5, 5)):
        part = slices.slice(start, stop)
        assert part.strings("path").tolist() == manifest.strings("path")[start:stop].tolist()
        np.testing.assert_array_equal(part.codes("race"), manifest.codes("race")[start:stop])
    np.testing.assert_array_equal(slices.numbers("age_low"), manifest.numbers("age_low"))
    assert slices.slice(3, 9, ["gender"]).table.column_names == ["path", "gender"]


def test_its_hash_is_the_manifests(saved: tuple[Manifest, Path], tmp_path: Path) -> None:
    manifest, file = saved
    assert Slices(file).hash == manifest.hash == Manifest.open(file).hash
    without = manifest.table.drop_columns(["sha256"])
    other = Manifest(without, manifest.root, manifest.crop)
    assert Slices(other.save(tmp_path / "other")).hash == other.hash != manifest.hash


def test_it_travels_to_another_process(saved: tuple[Manifest, Path]) -> None:
    slices = Slices(saved[1])
    slices.slice(0, 3)
    again = pickle.loads(pickle.dumps(slices))
    assert again.slice(8, 9).strings("path").tolist() == ["8.jpg"]


def test_a_bad_value_is_found_when_it_is_opened(saved: tuple[Manifest, Path], tmp_path: Path) -> None:
    manifest, file = saved
    table = pq.read_table(file)
    ages = manifest.numbers("age_high").copy()
    ages[23] = 400
    place = table.column_names.index("age_high")
    pq.write_table(table.set_column(place, "age_high", [ages]), file, row_group_size=10)
    with pytest.raises(MienError, match=r"counted from face 20, row 3.*age_high.*400"):
        Slices(file)
    with pytest.raises(MienError, match=r"mien prepare SOURCE PATH -o FACES makes one"):
        Slices(tmp_path / "nowhere")


@pytest.mark.parametrize("change", ["replaced", "removed", "written over"])
def test_a_file_that_changes_while_it_is_read_is_refused(saved: tuple[Manifest, Path], change: str) -> None:
    manifest, file = saved
    slices = Slices(file)
    slices.slice(0, 7)
    there = pickle.loads(pickle.dumps(slices))
    if change == "removed":
        file.unlink()
    else:
        other = manifest.take(np.arange(39, -1, -1))
        if change == "replaced":
            other.save(file.parent)
        else:
            copy = other.save(file.parent / "beside").read_bytes()
            file.write_bytes(copy)
    for reader in (slices, there):
        with pytest.raises(MienError, match="was changed, replaced or removed while it was being read"):
            reader.slice(20, 30)
