"""Files appear whole, with the rights that any other file gets, whatever other threads do."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mien.files import clear, whole, write_text


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_a_file_has_the_rights_of_any_other_and_the_process_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, asked = os.umask, []
    before = true(0o027)
    monkeypatch.setattr(os, "umask", lambda mask: asked.append(mask) or true(mask))
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: write_text(tmp_path / f"{number}.txt", "x"), range(20)))
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o640}
        assert not asked  # to ask is to change it, for all threads
    finally:
        true(before)


def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_text(file, "before")

    def broken() -> None:
        with whole(file) as beside:
            beside.write_text("half")
            assert (beside.parent, beside.suffix, beside.name[0]) == (tmp_path, ".json", ".")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text() == "before"


def test_a_full_disk_is_told_with_the_file_that_it_cost(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*/a.zip'") as told, whole(tmp_path / "a.zip"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert told.value.filename == str(tmp_path / "a.zip")


def test_what_a_killed_writer_left_is_cleared_and_what_is_being_written_stays(tmp_path: Path) -> None:
    left = [tmp_path / name for name in (".a-0123abcd.zip", ".a-2-0123abcd.zip", ".a-0123abcd.json", ".a-mine.zip")]
    for file in left:
        file.write_text("half")
    with whole(tmp_path / "a.zip") as beside:
        clear(tmp_path / "a.zip")
        assert beside.exists()
        beside.write_text("all")
    assert {file.name for file in tmp_path.iterdir()} == {"a.zip", *(file.name for file in left[1:])}
    clear(tmp_path / "a-2.zip")
    assert not left[1].exists()
