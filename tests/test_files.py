"""Files appear whole, with the rights that any other file gets, whatever other threads do."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mien.files import whole, write_text


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
