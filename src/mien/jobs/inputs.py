"""What a user may hand in, as one sequence of items: photos, folders, globs, manifests, arrays, Pillow's."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from mien.data.archives import printable, read_file, walk
from mien.data.manifest import FILE, Manifest
from mien.data.pictures import OTHER, Pictures, decode, from_pillow, is_other_picture, is_picture
from mien.data.slices import Slices
from mien.errors import MienError, PictureError

if TYPE_CHECKING:
    from PIL.Image import Image

    #: One input: a path, folder or glob; uint8 RGB (H, W, 3), (3, H, W) or grey (H, W); Pillow's; a manifest.
    Given = str | Path | np.ndarray | Image | Manifest


#: Faces of a manifest that are in memory while one goes through it.
CHUNK = 4096


@dataclass(slots=True)
class Item:
    """One picture to look at; `cropped`: it is a face crop, whatever the caller says of the others. `landmarks` is
    (68, 2) in pixels of the stored picture, where they are known; `fault` is why it cannot be read, where that is.
    `named`: the user named the file itself, so it may be a pipe.
    """

    name: str
    path: str = ""
    archive: str | None = None
    pictures: Pictures | None = None
    image: Any = None
    cropped: bool = False
    landmarks: np.ndarray | None = None
    fault: str | None = None
    named: bool = False

    def read(self, side: int | None = None) -> np.ndarray:
        """The picture as (3, H, W) uint8 RGB; `side` as in `decode`.

        Raises:
            PictureError: it cannot be read; the message gives the reason alone.
        """
        if self.image is not None:
            return self.image if isinstance(self.image, np.ndarray) else from_pillow(self.image)
        return decode(self.data(), side)

    def identified(self) -> tuple[np.ndarray, bytes]:
        """The picture as `read` gives it, and the sha256 of its stored bytes; of its pixels where there are none.

        Raises:
            PictureError: as `read`.
        """
        if self.image is None:
            data = self.data()
            return decode(data), hashlib.sha256(data).digest()
        image = self.read()
        return image, hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()

    def data(self) -> bytes:
        """The stored bytes of the picture; there are none of an array or Pillow's.

        Raises:
            PictureError: it cannot be read; the message gives the reason alone.
        """
        if self.pictures is not None:
            return self.pictures.read(self.path, self.archive)
        if self.fault is not None:
            raise PictureError(self.fault)
        try:
            return read_file(Path(self.path), self.named)
        except OSError as error:
            told = "mien fetches nothing; save it, and name the file" if "://" in self.path else error.strerror
            raise PictureError((told or str(error)).lower()) from None
        except ValueError as error:  # a zero byte in the path
            raise PictureError(f"{error}; expected one path a line" if "\0" in self.path else str(error)) from None


class ManifestItems(Sequence[Item]):
    """The faces of a manifest, made as they are asked for; of one on disk, a slice is in memory at a time."""

    def __init__(self, manifest: Manifest | Slices) -> None:
        self.manifest = manifest
        self._pictures = manifest.pictures()

    def __len__(self) -> int:
        return len(self.manifest)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._items(start, stop)[::step] if step > 0 else [self[row] for row in range(start, stop, step)]
        return self._items(index, index + 1)[0]

    def __iter__(self) -> Iterator[Item]:
        for start in range(0, len(self), CHUNK):
            yield from self._items(start, min(start + CHUNK, len(self)))

    def _items(self, start: int, stop: int) -> list[Item]:
        faces = self.manifest.slice(start, stop, ("archive", "landmarks"))
        points = faces.landmarks() if faces.has("landmarks") else None
        return [
            Item(
                path if archive is None else f"{archive}:{path}",
                path,
                archive,
                self._pictures,
                cropped=True,
                landmarks=None if points is None or np.isnan(points[row]).any() else points[row],
            )
            for row, (path, archive) in enumerate(zip(faces.strings("path"), faces.strings("archive"), strict=True))
        ]


class Items(Sequence[Item]):
    """Several sequences of items as one."""

    def __init__(self, parts: Iterable[Sequence[Item]]) -> None:
        self.parts = [part for part in parts if len(part)]
        self._ends = np.cumsum([len(part) for part in self.parts]).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return [self[row] for row in range(start, stop, step)]
            found: list[Item] = []
            first = 0
            for part, end in zip(self.parts, self._ends, strict=True):
                if first < stop and end > start:
                    found.extend(part[max(start - first, 0) : stop - first])
                first = end
            return found
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = bisect_right(self._ends, index)
        return self.parts[place][index - (self._ends[place - 1] if place else 0)]

    def __iter__(self) -> Iterator[Item]:
        for part in self.parts:
            yield from part

    @property
    def manifests(self) -> list[Manifest | Slices]:
        """The manifests among them."""
        return [part.manifest for part in self.parts if isinstance(part, ManifestItems)]

    def hash(self) -> str:
        """sha256 that changes when an input does: a manifest's own, or a file's name, size and time."""
        digest = hashlib.sha256()
        for part in self.parts:
            if isinstance(part, ManifestItems):
                digest.update(f"manifest\0{part.manifest.hash}\0".encode())
                continue
            for item in part:
                if item.image is not None:
                    pixels = np.ascontiguousarray(item.image)
                    digest.update(f"{item.name}\0{pixels.shape}\0".encode() + hashlib.sha256(pixels.tobytes()).digest())
                    continue
                try:
                    facts = os.stat(item.path)
                    digest.update(f"{item.name}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
                except (OSError, ValueError):  # ValueError: a zero byte in the path
                    digest.update(f"{item.name}\0missing\0".encode())
        return digest.hexdigest()


def expand(given: Given | Iterable[Given], apart: Iterable[Path | None] = ()) -> Items:
    """All pictures of `given`, in its order; a folder's (searched to its bottom, links to folders too) and a glob's
    sorted by name. What looks like a picture that mien does not read, or a folder that may not be read, stays in.

    A Parquet file, or a folder that holds `faces.parquet`, is a manifest. A path that does not exist stays
    in, and is reported when its turn comes. What lies in a folder `apart`, one that is to be written, is left out:
    pictures that mien made of these are no inputs when the same is asked again.

    Raises:
        MienError: a folder or a glob without a picture, a bad manifest, an array that is no picture; a folder that is
            both read and written.
    """
    own = [one.resolve() for one in apart if one is not None]
    alone = isinstance(given, (str, Path, np.ndarray, Manifest)) or not isinstance(given, Iterable)
    # Bytes and open files are no numbers and no lines: an error names them as a whole.
    alone |= isinstance(given, bytes) or hasattr(given, "read")
    parts: list[Sequence[Item]] = []
    for number, one in enumerate([given] if alone else given):  # type: ignore[arg-type]
        parts.append(_part(one, number, own))
    return Items(_joined(parts))


def name_of(given: str) -> str:
    """A folder's name for what is made of an input: the last part of its path, `faces` for a glob."""
    path = Path(given)
    if glob.has_magic(given) and not path.exists():
        return "faces"
    # A link has its own name; `.` and `..` have none.
    return (path.resolve() if path.name in ("", "..") else path).stem or "faces"


def _joined(parts: list[Sequence[Item]]) -> Iterable[Sequence[Item]]:
    """Neighbouring lists made one, so that a thousand files are not a thousand parts."""
    run: list[Item] = []
    for part in parts:
        if isinstance(part, list):
            run.extend(part)
            continue
        yield run
        run = []
        yield part
    yield run


def _part(given: Any, number: int, apart: Sequence[Path]) -> Sequence[Item]:
    if isinstance(given, Manifest):
        return ManifestItems(given)
    if isinstance(given, (str, Path)):
        return _from_path(given, apart)
    name = f"#{number}"
    if isinstance(given, np.ndarray):
        return [Item(name, image=_checked(given, name))]
    if hasattr(given, "getexif"):
        return [Item(name, image=given)]
    raise MienError(
        f"input {name} is a {type(given).__name__}; expected a path, a uint8 array (H, W, 3) or (3, H, W), "
        "a Pillow picture or a manifest"
    )


def _from_path(given: str | Path, apart: Sequence[Path]) -> Sequence[Item]:
    text, path = str(given), Path(given)
    if not text:
        raise MienError("an input is an empty text; expected a path, or . for all pictures below this folder")
    if path.is_dir():
        if (path / FILE).is_file():
            return ManifestItems(Slices(path))
        if path.resolve() in apart:
            raise MienError(f"{text} is read, and pictures are to be written to it; name another folder for them")
        own = _own(path, apart)
        refused: dict[str, str] = {}
        files = [
            os.path.join(folder, file)
            for folder, names in walk(path, refused)
            if not _within(folder, own)
            for file in names
            if _looked_at(file) and not file.startswith(".")
        ]
        if not files:
            raise MienError("; ".join([f"{text}: no picture in this folder", *map(": ".join, refused.items())]))
        return [*map(_item, files), *(Item(place, fault=reason) for place, reason in refused.items())]
    if path.suffix.lower() == ".parquet":
        return ManifestItems(Slices(path))
    if glob.has_magic(text) and not path.exists():
        fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        own = _own(fixed, apart)
        matching = [file for file in glob.glob(text, recursive=True) if _looked_at(file)]
        left_out = {folder: _within(folder or ".", own) for folder in {os.path.dirname(file) for file in matching}}
        if any(Path(folder).resolve() in apart for folder, out in left_out.items() if not out):
            raise MienError(f"{text} is read, and pictures are to be written there; name another folder for them")
        files = sorted(file for file in matching if not left_out[os.path.dirname(file)])
        if not files:
            raise MienError(f"{text}: no picture matches")
        return [_item(file) for file in files]
    return [Item(printable(text), text, named=True)]  # whatever it is called, the decoder has the word


def _own(read: Path, apart: Sequence[Path]) -> list[Path]:
    """Those of the folders to be written, resolved, that may lie below the one that is read."""
    return [one for one in apart if not read.resolve().is_relative_to(one)]


def _within(folder: str, own: Sequence[Path]) -> bool:
    return bool(own) and any(Path(os.path.realpath(folder)).is_relative_to(one) for one in own)


def _item(file: str) -> Item:
    return Item(printable(file), file, fault=OTHER if is_other_picture(file) else None)


def _looked_at(file: str) -> bool:
    return is_picture(file) or is_other_picture(file)


def _checked(image: np.ndarray, name: str) -> np.ndarray:
    """An array as (3, H, W); the axis of length 3 holds the colours, the last one if both could."""
    if image.dtype != np.uint8:
        raise MienError(f"input {name} is an array of {image.dtype}; expected uint8, 0-255, RGB")
    if image.ndim == 2:
        image = np.repeat(image[None], 3, axis=0)
    elif image.ndim == 3 and image.shape[2] == 3:
        image = image.transpose(2, 0, 1)
    elif image.ndim != 3 or image.shape[0] != 3:
        raise MienError(f"input {name} has shape {image.shape}; expected (H, W, 3), (3, H, W) or (H, W)")
    if min(image.shape[1:]) < 8:
        raise MienError(f"input {name} has shape {image.shape}: smaller than 8 px")
    return image
