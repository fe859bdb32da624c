"""Fetching weights, when asked: whole or not at all, taken up again where it broke off, known by their hash."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, urlsplit

from mien.errors import MienError
from mien.files import file_hash, sync_folder, write_text
from mien.jobs.known import Weights, place
from mien.progress import Progress

#: Bytes read at once.
BLOCK = 1 << 20
#: Seconds of silence after which a server is given up.
PATIENCE = 60.0
PART, TAG, LOCK = ".part", ".tag", ".lock"


def fetch(
    weights: Weights,
    source: str | None = None,
    folder: Path | None = None,
    *,
    tell: Callable[[str], None] = lambda line: None,
    show: bool = True,
) -> Path:
    """The file of `weights`, fetched and checked unless it is there already.

    What has come stays in FILE.part when the connection breaks; the next call asks for the rest alone (HTTP range), if
    the server still has the same file.

    Args:
        source: a folder, a mirror (a URL that the file's name is put behind), or the file's own URL; None: where its
            makers keep it.
        folder: where fetched weights lie; the cache by default.
        tell: gets a line with size, terms and origin before anything is fetched.

    Raises:
        MienError: it cannot be had from there, or is not what its hash says.
    """
    if weights.file is None:
        raise MienError(
            f"{weights.name} is a folder of many files; get it from {weights.url} with that site's own client, and "
            "name the folder where mien asks for it"
        )
    path = place(weights, folder)
    if _is_here(weights, path, source, tell):
        return path
    origin = source or weights.url
    if origin is None:
        raise MienError(f"{weights.name} has no address; name a folder or a mirror that has {weights.file} with --from")
    path.parent.mkdir(parents=True, exist_ok=True)
    from filelock import FileLock

    # Two that fetch the same would write into each other's file; the second finds it there.
    with FileLock(path.parent.with_name(f".{path.parent.name}{LOCK}")):
        return path if _is_here(weights, path, source, tell) else _fetched(weights, path, origin, tell, show)


def _is_here(weights: Weights, path: Path, source: str | None, tell: Callable[[str], None]) -> bool:
    """Whether the file is there and right; one that no hash tells right counts unless a source is named."""
    if not path.is_file() or (file_hash(path) != weights.sha256 if weights.sha256 else source is not None):
        return False
    known = "" if weights.sha256 else f"; mien does not know its hash, this file's sha256 is {file_hash(path)}"
    tell(f"{weights.name} is here already: {path}{known}")
    return True


def _fetched(weights: Weights, path: Path, origin: str, tell: Callable[[str], None], show: bool) -> Path:
    assert weights.file is not None
    part = path.with_name(path.name + PART)
    try:
        scheme = urlsplit(origin).scheme
    except ValueError as error:
        raise MienError(f"{origin}: neither a folder nor a URL ({error})") from None
    if scheme in ("http", "https"):
        address = origin if origin.endswith(weights.file) else f"{origin.rstrip('/')}/{quote(weights.file)}"
        tell(about(weights, address))
        _download(address, part, weights, show)
    else:
        there = next((one for one in (Path(origin) / weights.file, Path(origin)) if one.is_file()), None)
        if there is None:
            raise MienError(f"{origin}: neither a URL nor a folder with {weights.file} in it")
        tell(about(weights, str(there)))
        shutil.copyfile(there, part)
    found = file_hash(part)
    if weights.sha256 is not None and found != weights.sha256:
        part.unlink()
        _tag(part).unlink(missing_ok=True)
        raise MienError(
            f"{weights.file} from {origin} is not what it should be: sha256 {found[:16]}..., expected "
            f"{weights.sha256[:16]}...; nothing was kept, take another source with --from"
        )
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    _tag(part).unlink(missing_ok=True)
    sync_folder(path.parent)
    if weights.sha256 is None:
        tell(f"its hash is not known to mien and was not checked; this file's sha256 is {found}")
    return path


def about(weights: Weights, origin: str) -> str:
    """What to know before fetching: size, terms, origin."""
    size = "size unknown" if weights.size is None else f"{weights.size / 1e6:.1f} MB"
    allowed = {"yes": "commercial use allowed", "no": "no commercial use", "unclear": "commercial use unclear"}
    return f"{weights.name}: {size}; {weights.terms}; {allowed[weights.commercial]}; from {origin}"


def _download(address: str, part: Path, weights: Weights, show: bool) -> None:
    tag = _tag(part)
    have = part.stat().st_size if part.is_file() else 0
    # Too long; or, with neither hash nor tag, nothing would tell the rest of another file from this one's.
    if (weights.size is not None and have > weights.size) or (weights.sha256 is None and not tag.is_file()):
        have = 0
    if have and have == weights.size:
        return  # all of it came, and the hash decides
    request = urllib.request.Request(address, headers={"User-Agent": "mien"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag.is_file():  # of another file under this name, all is wanted
            request.add_header("If-Range", tag.read_text(encoding="utf-8"))
    came, of = have, weights.size
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            came = have if answer.status == 206 else 0
            if name := answer.headers.get("ETag"):
                write_text(tag, name)
            length = answer.headers.get("Content-Length")
            of = came + int(length) if length else of
            with (
                open(part, "ab" if came else "wb") as file,
                Progress(of, "bytes", weights.name, show) as progress,
            ):
                progress.skip(came)
                while block := answer.read(BLOCK):
                    file.write(block)
                    came += len(block)
                    progress.advance(len(block))
    except urllib.error.HTTPError as error:
        if error.code == 416 and (error.headers.get("Content-Range") or "").endswith(f"/{have}"):
            return  # all of it came before
        if error.code == 416:
            part.unlink(missing_ok=True)
        raise MienError(f"{address}: the server answers {error.code} {error.reason}; try another --from") from None
    except (OSError, HTTPException) as error:
        raise MienError(f"{_broken(address, came, of)}: {getattr(error, 'reason', None) or error}") from None
    if of is not None and came < of:
        raise MienError(_broken(address, came, of))


def _broken(address: str, have: int, of: int | None) -> str:
    whole = "" if of is None else f" of {of:,}"
    return f"{address}: broke off after {have:,}{whole} bytes; the same command goes on from there"


def _tag(part: Path) -> Path:
    return part.with_name(part.name + TAG)
