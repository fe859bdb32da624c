"""What was read of a data set's thousands of small label files, kept for the next time as arrays in one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mien.data.archives import Tree
from mien.files import whole

#: Moves the cache to another folder; `off` does without.
VARIABLE = "MIEN_CACHE"
Arrays = dict[str, np.ndarray]


def folder() -> Path | None:
    """Where the cache lies: `$MIEN_CACHE`, else `mien` in the user's cache folder (XDG); None when it is off."""
    given = os.environ.get(VARIABLE, "").strip()
    if given.lower() == "off":
        return None
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "").strip()
    # XDG wants an absolute path and anything else ignored.
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "mien"


def remembered(kind: str, tree: Tree, names: Sequence[str], read: Callable[[], Arrays]) -> Arrays:
    """The arrays that `read()` makes of `tree`, from the cache where nothing in the tree has changed since.

    `names` are those of the tree's files: it takes a while to find them, so that it is done once.

    There is one file a data set and place. It holds for as long as the archive's size and time of change, or the
    names, sizes and times of all files of a folder, are what they were. A cache that is damaged, of another `kind`
    (name and version of what reads), or cannot be written is as good as none. Arrays of objects are refused both
    ways: nothing is ever unpickled.
    """
    where = folder()
    if where is None:
        return read()
    place = f"{kind} {tree.path.resolve()}".encode(errors="surrogateescape")
    file = where / f"{kind}-{hashlib.sha256(place).hexdigest()[:16]}.npz"
    state = np.frombuffer(hashlib.sha256(place + b"\0" + _state(tree, names)).digest(), dtype=np.uint8)
    kept = _load(file)
    if kept is not None and np.array_equal(kept.pop("state", np.empty(0)), state):
        return kept
    arrays = read()
    try:
        with whole(file) as beside:
            np.savez(beside, allow_pickle=False, state=state, **arrays)
    except OSError:  # a full disk, a folder that may not be written: the data are read all the same
        pass
    return arrays


def _load(file: Path) -> Arrays | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception:  # zipfile, zlib and numpy raise nearly anything on damaged bytes
        return None


def _state(tree: Tree, names: Sequence[str]) -> bytes:
    """What changes when the tree does: names, sizes and times of change, in nanoseconds."""
    if not tree.path.is_dir():
        facts = os.stat(tree.path)
        return f"{facts.st_size} {facts.st_mtime_ns}".encode()
    lines = []
    for name in names:
        try:
            facts = os.stat(tree.path / name)
            lines.append(f"{name}\0{facts.st_size} {facts.st_mtime_ns}\n")
        except OSError:  # a link to nothing, say: whoever reads it lists it
            lines.append(f"{name}\0gone\n")
    return "".join(lines).encode(errors="surrogateescape")
