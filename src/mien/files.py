"""Files appear whole: written beside, flushed to disk, renamed. A reader never sees half a file."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on leaving, flush it and rename it to `path`.

    When the block raises, nothing appears at `path` and the temporary file is removed. Folders above
    `path` are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: writers such as Pillow and numpy choose the format by it.
    beside = path.parent / f".{path.stem}-{secrets.token_hex(4)}{path.suffix}"
    # With the rights that open() gives it. tempfile makes files private, and what is to be taken off the rights of a
    # finished one can only be read by changing it for the whole process, while other threads make files too.
    mine = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        try:
            _take(mine)
            yield beside
            with open(beside, "rb+") as file:
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno == errno.ENOSPC and error.filename is None:  # a write names no file
                error.filename = str(path)
            raise
        finally:
            os.close(mine)
        os.replace(beside, path)
        sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def clear(path: Path) -> None:
    """Remove what killed processes left beside `path` when they wrote it; what one that lives writes there stays."""
    for left in path.parent.glob(f".{glob.escape(path.stem)}-{'[0-9a-f]' * 8}{glob.escape(path.suffix)}"):
        with suppress(OSError):  # another may clear here too
            file = os.open(left, os.O_WRONLY)
            try:
                if _take(file):
                    left.unlink()
            finally:
                os.close(file)


def _take(file: int) -> bool:
    """Lock an open file, which the system frees when it is closed or the process dies; False where another has it, or
    where there are no such locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


@contextmanager
def alone(lock: Path) -> Iterator[bool]:
    """Hold the file `lock`, whose folder is there; False where another process holds it. The system frees the lock of a
    process that was killed."""
    from filelock import FileLock, Timeout

    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        held.release()


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut (a no-op where folders cannot be opened)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def file_hash(path: str | Path) -> str:
    """sha256 of a file, 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8; the file appears whole."""
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN becomes null, since NaN is not JSON. The file appears whole."""
    write_text(path, to_json(value) + "\n")


def to_json(value: Any, indent: int | None = 2) -> str:
    """`value` as JSON; NaN and infinities become null, numpy scalars and arrays become numbers and lists."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
