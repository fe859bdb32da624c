"""Folders, zips and tars as one thing: names of files and the bytes behind them."""

from __future__ import annotations

import gzip
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, Protocol

from mien.errors import MienError, PictureError

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
ARCHIVE_ENDINGS = (".zip", *TAR_ENDINGS)
#: Why a file is refused whose name no table can hold.
NO_TEXT = "its name is no UTF-8 text; rename it"


class Tree(Protocol):
    """A folder or an archive.

    `refused` maps names that lead outside (absolute, or with `..`) or that cannot be read to the reason; of a folder
    it is known when its names are.
    """

    path: Path
    refused: dict[str, str]

    def names(self) -> list[str]:
        """Names of all files, sorted, with `/` between the parts of an archive member's name."""

    def read(self, name: str) -> bytes:
        """The bytes of one file; `PictureError` when it is not there or damaged."""


def open_tree(path: str | Path) -> Tree:
    """The folder or archive at `path`.

    Raises:
        MienError: nothing is there, or it is neither a folder nor a zip, tar or tar.gz.
    """
    path = Path(path)
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise MienError(f"{path} is not there; give a folder, a zip or a tar")
    return open_archive(path)


def open_archive(path: Path) -> Tree:
    """The zip, tar or tar.gz at `path`; `MienError` when it is none or damaged."""
    name = path.name.lower()
    try:
        if name.endswith(".zip"):
            return Zip(path)
        if name.endswith(TAR_ENDINGS):
            return Tar(path)
    except UnicodeDecodeError:
        raise MienError(f"{path}: a member has a name that is no UTF-8 text, as it says; pack it anew") from None
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise MienError(f"{path} is damaged: {error}; get it again") from None
    except OSError as error:
        raise MienError(f"{path} cannot be read: {error.strerror or error}") from None
    raise MienError(f"{path} is no archive mien reads; it reads {', '.join(ARCHIVE_ENDINGS)} and folders")


def is_compressed_tar(path: Path) -> bool:
    """Whether single files cannot be read from `path` without unpacking all of it."""
    if not path.is_file() or not path.name.lower().endswith(TAR_ENDINGS):
        return False
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def leads_outside(name: str) -> bool:
    """Whether a path is absolute or climbs with `..`, by the rules of POSIX or of Windows."""
    if ".." not in name and ":" not in name and not name.startswith(("/", "\\")):
        return False  # nearly every name: taking it apart costs a fifth of a second on twenty thousand of them
    parts = PureWindowsPath(name)  # splits at both separators
    return bool(parts.anchor) or ".." in parts.parts


def is_litter(name: str) -> bool:
    """Whether a file is what macOS leaves in archives: it has the ending of a picture but is none."""
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1].startswith("._")


def walk(path: str | Path, refused: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Each folder from `path` down, by name, and the names of its files, sorted.

    Links to folders are followed where they lead away: what lies below `path` is met by its own name alone, a folder
    elsewhere once, and one that holds `path` not at all. One that cannot be read is added to `refused`, with why.
    """
    root = Path(os.path.realpath(path))

    def leads_away(real: Path) -> bool:
        return not (real.is_relative_to(root) or root.is_relative_to(real))

    def unread(error: OSError) -> None:
        refused[printable(str(error.filename))] = f"the folder cannot be read: {error.strerror}"

    met: set[Path] = set()
    for where, folders, names in os.walk(path, followlinks=True, onerror=unread):
        # Sorting and leaving out in place decide where os.walk goes on.
        for folder in sorted(folders):
            place = os.path.join(where, folder)
            real = Path(os.path.realpath(place))
            if real in met or (os.path.islink(place) and not leads_away(real)):
                folders.remove(folder)
            else:
                met.add(real)
        folders.sort()
        yield where, sorted(names)


def printable(name: str) -> str:
    """A file's name; bytes that are no UTF-8, which Python keeps as lone surrogates, as their escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


#: Bytes that a file has, or a member unpacks to, at most: far above any picture, and far below a machine's memory.
LARGEST = 1 << 30


def read_file(path: Path, named: bool = False) -> bytes:
    """The bytes of a file, which is a picture or a label; of one that the user has `named`, of a pipe too.

    Raises:
        PictureError: it is larger than any, or no file.
        OSError: it cannot be read.
    """
    if not (named or stat.S_ISREG(mode := os.stat(path).st_mode) or stat.S_ISDIR(mode)):
        raise PictureError("no file but a pipe, a socket or a device")  # what it gives may never come, or never end
    with open(path, "rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > LARGEST:
            raise PictureError(too_large(size))
        return file.read()


def too_large(size: int) -> str:
    """Why a file of so many bytes is refused."""
    return f"it is {size / 1e9:.1f} GB large; no picture is"


#: Links that lead from one to the next, at most; more go round.
LINKS = 40


class Folder:
    """A folder, read in place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused: dict[str, str] = {}

    def names(self) -> list[str]:
        missed: dict[str, str] = {}
        found: list[str] = []
        for where, names in walk(self.path, missed):
            start = "" if where == str(self.path) else f"{self._relative(where)}/"
            found += [start + name for name in names]
        self.refused = {self._relative(place): reason for place, reason in missed.items()}
        self.refused |= {printable(name): NO_TEXT for name in found if name != printable(name)}
        return sorted(name for name in found if name == printable(name) and not is_litter(name))

    def _relative(self, place: str) -> str:
        return os.path.relpath(place, self.path).replace(os.sep, "/")

    def read(self, name: str) -> bytes:
        if leads_outside(name):
            raise PictureError(f"{name} leads outside {self.path}")
        try:
            return read_file(self.path / name)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            reason = error.strerror if isinstance(error, OSError) else error
            raise PictureError(f"{self.path / name}: {reason}") from None


class _Members:
    """Members of an archive by name, read at their offset; for many threads, but one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused: dict[str, str] = {}
        self._file: IO[bytes] = open(path, "rb")  # noqa: SIM115 (open as long as this object lives)
        self._lock = threading.Lock()
        self._where: dict[str, tuple[int, ...]] = {}

    def names(self) -> list[str]:
        return sorted(self._where)

    def _accept(self, raw: str) -> str | None:
        """The member's name with `/`, or None when it is refused or litter."""
        name = raw.replace("\\", "/")
        if leads_outside(name):
            self.refused[name] = "its name leads outside the archive"
            return None
        if name != printable(name):
            self.refused[printable(name)] = NO_TEXT
            return None
        return None if is_litter(name) else name.removeprefix("./")

    def _find(self, name: str) -> tuple[int, ...]:
        name = name.replace("\\", "/")
        if name not in self._where:
            raise PictureError(f"{name} is not in {self.path}: {self.refused.get(name, 'no such member')}")
        return self._where[name]

    def _at(self, offset: int, size: int, name: str) -> bytes:
        try:
            with self._lock:
                self._file.seek(offset)
                return self._file.read(size)
        except (OSError, OverflowError, MemoryError):  # of the disk, or a place or length that no file has
            raise PictureError(f"{name} in {self.path}: the archive is damaged there, or cannot be read") from None


class Zip(_Members):
    """A zip. Unlike zipfile's own reading, threads share nothing but the position in the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with zipfile.ZipFile(self._file) as archive:
            for info in archive.infolist():
                # orig_filename: ZipFile cuts names at a null byte and, on Windows, turns separators.
                if info.is_dir() or (name := self._accept(info.orig_filename)) is None:
                    continue
                method = info.compress_type
                if info.flag_bits & 1:
                    self.refused[name] = "it is encrypted"
                elif info.file_size > LARGEST:
                    self.refused[name] = too_large(info.file_size)
                elif method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    self.refused[name] = f"its compression method {method} is not read; pack it deflated"
                else:
                    self._where[name] = (info.header_offset, info.compress_size, method, info.CRC, info.file_size)

    def read(self, name: str) -> bytes:
        offset, size, method, crc, unpacked = self._find(name)
        # The local header repeats the name and has an extra field of a length of its own before the data.
        header = self._at(offset, 30, name)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise PictureError(f"{name} in {self.path}: the archive is damaged or cut off there")
        skip = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        data = self._at(offset + 30 + skip, size, name)
        try:
            if method == zipfile.ZIP_DEFLATED:
                # No more than it says to be: a small member may unpack to more than there is memory.
                data = zlib.decompressobj(-15).decompress(data, unpacked + 1)
        except zlib.error:
            raise PictureError(f"{name} in {self.path}: the archive is damaged there") from None
        if zlib.crc32(data) != crc:
            raise PictureError(f"{name} in {self.path}: the archive is damaged there (checksum)")
        return data


def _target(name: str, info: tarfile.TarInfo) -> str:
    """The member that a link leads to; a symbolic one counts from its own folder."""
    target = info.linkname.replace("\\", "/")
    if info.issym():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return printable(target.removeprefix("./"))


class Tar(_Members):
    """A tar. A compressed one is unpacked to a temporary file: its members cannot be reached otherwise."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if is_compressed_tar(path):
            packed, self._file = self._file, tempfile.TemporaryFile()  # noqa: SIM115
            with packed, gzip.GzipFile(fileobj=packed) as stream:
                shutil.copyfileobj(stream, self._file, 1 << 20)
            self._file.seek(0)
        links: dict[str, str] = {}
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            for info in archive:
                # tarfile keeps every header it has read; a million of them fill the memory.
                archive.members = []  # type: ignore[attr-defined]
                if not (info.isreg() or info.islnk() or info.issym()) or (name := self._accept(info.name)) is None:
                    continue
                if not info.isreg():
                    if (target := _target(name, info)) != name:  # a file that was packed twice links to itself
                        links[name] = target
                elif info.size > LARGEST:
                    self.refused[name] = too_large(info.size)
                else:
                    self._where[name] = (info.offset_data, info.size)
                    links.pop(name, None)  # of two members of one name the later one counts
        for name, target in links.items():  # a hard link names an earlier member, a symbolic one any, or another link
            for _ in range(LINKS):
                target = links.get(target, target)
            if target in self._where and target not in links:
                self._where[name] = self._where[target]
            else:
                self.refused[name] = f"it is a link to {target}, which is no file in the archive"

    def read(self, name: str) -> bytes:
        offset, size = self._find(name)
        data = self._at(offset, size, name)
        if len(data) < size:
            raise PictureError(f"{name} in {self.path}: the archive is cut off there")
        return data
