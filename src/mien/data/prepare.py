"""From a source to a manifest: every picture is read once; what cannot be used is listed with its reason."""

from __future__ import annotations

import csv
import os
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from mien.data.align import CHIP, WINDOWS, crop_face, crop_matrix, move_points, seen, window
from mien.data.archives import is_compressed_tar, open_tree
from mien.data.duplicates import Thumbnails, find_duplicates
from mien.data.labelling import correct, given_splits
from mien.data.manifest import Manifest
from mien.data.pictures import MIN_SIDE, Pictures, decode, encode, sha256
from mien.data.schema import LABELS
from mien.data.similarity import SIDE, thumbnail
from mien.data.sources import SOURCES, Made, Rejected, Source
from mien.data.splits import combine_groups, split_rest
from mien.errors import MienError, PictureError
from mien.faces import SPLITS, Crop, Face
from mien.files import whole
from mien.progress import Progress

REJECTED, UNMATCHED = "rejected.csv", "unmatched.csv"
#: The comment at the end of the archives written here; only what bears it is ever removed.
MARK = b"written by mien prepare"
#: Least part of a cut face that shows its picture: points that leave less are wrong.
LEAST_SEEN = 0.5
#: They wait for the disk together, and decode large pictures side by side.
THREADS = 4
#: Pictures that are in work at one time; more would only fill the memory.
BATCH = 256


@dataclass(slots=True)
class Prepared:
    """What `prepare` wrote to `file`; what it rejected; and names that given splits or corrections missed."""

    manifest: Manifest
    file: Path
    rejected: list[Rejected]
    unmatched: list[Rejected]

    def facts(self) -> dict[str, Any]:
        """Counts of faces, rejections by reason (the most frequent first), labels, splits and groups."""
        # "labels.csv line 12: no such picture" is the same reason on every line.
        reasons = Counter(re.sub(r"^\S+ (line|row) \d+: ", "", item.reason) for item in self.rejected)
        splits = self.manifest.codes("split")
        counts = {word: int((splits == code).sum()) for code, word in enumerate(SPLITS)}
        labels = {name: self._count(name) for name in (*LABELS, "person") if name != "age_high"}
        labels = {name.removesuffix("_low"): count for name, count in labels.items() if count}
        groups = self.manifest.numbers("group")
        return {
            "file": str(self.file),
            "faces": len(self.manifest),
            "rejected": len(self.rejected),
            "reasons": dict(reasons.most_common()),
            "labels": labels,
            "splits": {**counts, "none": int((splits < 0).sum())} if (splits < 0).any() else counts,
            "groups": len(np.unique(groups[~np.isnan(groups)])),
            "unmatched": len(self.unmatched),
            "crop": self.manifest.crop.to_dict(),
        }

    def _count(self, column: str) -> int:
        table = self.manifest.table
        return len(table) - table[column].null_count if column in table.column_names else 0


@dataclass(slots=True)
class _Read:
    """A face whose picture was read; `data` is set where the picture is to be written beside the manifest."""

    face: Face
    sha256: bytes
    size: tuple[int, int]
    thumbnail: np.ndarray
    data: bytes | None = None


@dataclass(slots=True)
class _Gathered:
    """What the pass over the pictures leaves; `thumbnails` is a file of (N, SIDE, SIDE) uint8."""

    thumbnails: IO[bytes]
    faces: list[Face] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    unreadable: int = 0


def prepare(
    source: Source,
    path: str | Path,
    out: str | Path,
    *,
    splits: str | Path | None = None,
    corrections: str | Path | None = None,
    seed: int = 0,
    size: int | None = None,
    margin: float = CHIP.margin,
    align: bool | None = None,
    locate: Locate | None = None,
    show: bool = True,
) -> Prepared:
    """Make the folder `out`: `faces.parquet`, `rejected.csv`, and `pictures.zip` where pictures are written.

    Pictures stay where they are, unless they are drawn, packed in a tar.gz, or cut to the canonical crop, `size`
    pixels wide (`align`; by default wherever a source has its faces otherwise and has points, or a known crop of
    its own) and with `margin` of the crop's side around it. `locate` finds the points of faces that have none. Splits
    come from the table `splits`, else by age bin (or expression) and gender,
    with persons and near-identical pictures on one side, seeded. What was in `out` before stays until all is
    written.

    Raises:
        MienError: nothing at `path`, nothing of the source's layout, no readable picture, or a fault in
            `splits` or `corrections`.
    """
    path, out = Path(path), Path(out)
    items, made, total = _items(source, path)
    cut = _cut(source, items, made, size or source.cut_size, margin, align, locate is not None)
    keep = made or cut is not None or is_compressed_tar(path)
    root = path if path.is_dir() else path.parent
    # A new name: the manifest that stands in `out` keeps its pictures until it is replaced itself.
    packed = out / _free_name(out) if keep else None
    with tempfile.TemporaryFile() as thumbnails:
        gathered = _Gathered(thumbnails)
        read = _Reader(Pictures(root), source.crop, cut, keep, locate)
        if packed is None:
            _gather(items, read, gathered, total, show)
        else:
            with whole(packed) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive:
                archive.comment = MARK
                _gather(items, read, gathered, total, show, archive)
                _require_faces(gathered, source, path)
            for face in gathered.faces:
                face.archive = packed.name
            root = out
        try:
            _require_faces(gathered, source, path)
            crop = cut or source.crop
            manifest, unmatched = _manifest(gathered, root, crop, made, splits, corrections, seed, show)
            with whole(out / REJECTED) as beside:
                _write(beside, gathered.rejected)
                file = manifest.save(out)
        except BaseException:
            if packed is not None:
                packed.unlink(missing_ok=True)
            raise
    _tidy(out, {packed, path})
    if unmatched:
        with whole(out / UNMATCHED) as beside:
            _write(beside, unmatched)
    return Prepared(manifest, file, gathered.rejected, unmatched)


def _manifest(
    gathered: _Gathered,
    root: Path,
    crop: Crop,
    made: bool,
    splits: str | Path | None,
    corrections: str | Path | None,
    seed: int,
    show: bool,
) -> tuple[Manifest, list[Rejected]]:
    """The manifest with corrections, groups and splits, and the names that matched no face."""
    faces = gathered.faces
    unmatched = correct(faces, corrections) if corrections is not None else []
    groups = combine_groups(_persons(faces))
    if splits is not None:
        given, missed = given_splits(faces, splits)
        groups = combine_groups(groups, given)
        unmatched += missed
    elif not made:  # drawn persons are known by name, and look more alike than real ones
        groups = combine_groups(groups, _near_identical(gathered, show))
    crop = _measured(crop, gathered.sizes)
    manifest = Manifest.from_faces(faces, root, crop, sha256=gathered.hashes, sizes=gathered.sizes, groups=groups)
    if splits is None:
        manifest = manifest.with_columns({"split": split_rest(manifest, groups, seed)})
    return manifest, unmatched


Item = Face | Rejected | Made
#: A picture (3, H, W) uint8 and its crop to the face's landmarks (68, 2) in its pixels; raises `PictureError`.
Locate = Callable[[np.ndarray, Crop], np.ndarray]


def _items(source: Source, path: Path) -> tuple[Iterable[Item], bool, int | None]:
    """What the source yields, whether it makes its pictures, and how many there are.

    Pictures in memory are taken one by one; what is read from disk is listed first, which is quick.
    """
    stream: Iterator[Item] = iter(source.faces(path))
    head = list(islice(stream, 1))
    if head and isinstance(head[0], Made):
        return chain(head, stream), True, getattr(source, "count", None)
    items = [*head, *stream]
    return items, False, len(items)


def _cut(
    source: Source, items: Iterable[Item], made: bool, size: int, margin: float, align: bool | None, located: bool
) -> Crop | None:
    """The crop to which pictures are to be cut, None where they stay as they are."""
    if made or align is False:
        if align:
            raise MienError(f"--align: source {source.name} makes its faces cut already; leave it out")
        return None
    points = located or any(isinstance(item, Face) and item.landmarks is not None for item in items)
    own = source.crop.template in WINDOWS
    if align and not points and not own:
        raise MienError(f"--align: no face of source {source.name} has points to align it by; leave it out")
    if not (points or own) or not (align or own or source.crop.template == "photo"):
        return None
    if size < MIN_SIDE:
        raise MienError(f"--size {size}: a crop has at least {MIN_SIDE} px")
    if not 0 <= margin <= 1:
        raise MienError(f"--margin {margin:g}: expected a share of the crop's side from 0 to 1")
    return Crop(CHIP.template, margin, size)


class _Reader:
    """Reads one item's picture, in any thread; finds points it lacks with `locate` and cuts it from the crop `have`
    to `crop`, where these are given.
    """

    def __init__(
        self, pictures: Pictures, have: Crop, crop: Crop | None, keep: bool, locate: Locate | None = None
    ) -> None:
        self.pictures = pictures
        self.have = have
        self.crop = crop
        self.keep = keep
        self.locate = locate

    def __call__(self, item: Item) -> _Read | Rejected:
        if isinstance(item, Rejected):
            return item
        face = item.face if isinstance(item, Made) else item
        try:
            if isinstance(item, Made):
                image, data = item.image, encode(item.image)
            else:
                data = self.pictures.read(face.path, face.archive)
                image = decode(data)
            if self.locate is not None and face.landmarks is None:
                face = self._located(face, image, self.locate)
            if self.crop is not None:
                face, image = self._cut(face, image, self.crop)
                data = encode(image)
        except MienError as error:
            return Rejected(face.path, str(error))
        size = (image.shape[2], image.shape[1])
        return _Read(face, sha256(data), size, thumbnail(self._inner(image)), data if self.keep else None)

    def _located(self, face: Face, image: np.ndarray, locate: Locate) -> Face:
        """The face with the points that `locate` finds; without, where it finds none and they are not cut by."""
        try:
            points = locate(image, self.have).astype(np.float32)
        except PictureError:
            if self.crop is not None and self.have.template not in WINDOWS:
                raise
            return face
        return replace(face, landmarks=points, extra={**face.extra, "landmarks_from": "landmarker"})

    def _inner(self, image: np.ndarray) -> np.ndarray:
        """A cut picture without its margin: black around them makes all faces alike."""
        if self.crop is None or not self.crop.margin:
            return image
        edge = round(self.crop.size * self.crop.margin / (1 + 2 * self.crop.margin))
        return np.ascontiguousarray(image[:, edge : image.shape[1] - edge, edge : image.shape[2] - edge])

    def _cut(self, face: Face, image: np.ndarray, crop: Crop) -> tuple[Face, np.ndarray]:
        """The face cut by its points, or else by what is known of all pictures of its data set."""
        _, height, width = image.shape
        where = window(self.have.template, width, height) if face.landmarks is None else face.landmarks
        if where is None:
            raise PictureError("no points to align it by")
        plain = Crop(crop.template, 0.0, crop.size)  # what lies around the face may be missing
        if (share := seen(crop_matrix(where, plain), plain, width, height)) < LEAST_SEEN:
            raise PictureError(f"cut by its points, {1 - share:.0%} of the face would lie outside the picture")
        # A crop ends close to the face: black corners in nearly every picture would give the data set away.
        image, matrix = crop_face(image, where, crop, mirror=self.have.template in WINDOWS)
        if face.landmarks is not None:
            face = replace(face, landmarks=move_points(face.landmarks, matrix).astype(np.float32))
        return face, image


def _gather(
    items: Iterable[Item],
    read: _Reader,
    gathered: _Gathered,
    total: int | None,
    show: bool,
    archive: zipfile.ZipFile | None = None,
) -> None:
    """Read all pictures, in order; those that are kept go to `archive`."""
    stream = iter(items)
    with ThreadPoolExecutor(THREADS) as pool, Progress(total, "faces", "reading pictures", show) as progress:
        while batch := list(islice(stream, BATCH)):
            for item, result in zip(batch, pool.map(read, batch), strict=True):
                if isinstance(result, Rejected):
                    gathered.rejected.append(result)
                    gathered.unreadable += not isinstance(item, Rejected)
                    continue
                if archive is not None and result.data is not None:
                    # A fixed date: the same pictures make the same file.
                    archive.writestr(zipfile.ZipInfo(result.face.path, (1980, 1, 1, 0, 0, 0)), result.data)
                gathered.faces.append(result.face)
                gathered.hashes.append(result.sha256)
                gathered.sizes.append(result.size)
                gathered.thumbnails.write(result.thumbnail.tobytes())
            progress.advance(len(batch))


def _require_faces(gathered: _Gathered, source: Source, path: Path) -> None:
    if gathered.faces:
        return
    first = gathered.rejected[0] if gathered.rejected else None
    if gathered.unreadable and first is not None:
        count = f"{gathered.unreadable:,}"
        raise MienError(f"none of the {count} pictures in {path} can be used; {first.path}: {first.reason}")
    names = open_tree(path).names()
    others = [name for name, other in SOURCES.items() if name != source.name and other.recognises(names)]
    message = f"no face of source {source.name} in {path}, expected {source.layout}"
    if not names:
        message += "; it is empty"
    elif others:
        message += f"; did you mean source {others[0]}?"
    elif first is not None:
        message += f"; {first.path}: {first.reason}"
    raise MienError(message)


def _persons(faces: list[Face]) -> np.ndarray:
    """(N,) int64: a number a person, -1 where unknown."""
    numbers: dict[str, int] = {}
    return np.array(
        [-1 if face.person is None else numbers.setdefault(face.person, len(numbers)) for face in faces],
        dtype=np.int64,
    )


def _near_identical(gathered: _Gathered, show: bool) -> np.ndarray:
    """(N,) int64: a number a set of near-identical pictures, -1 for a picture that stands alone."""
    gathered.thumbnails.flush()
    count = len(gathered.faces)
    images = np.memmap(gathered.thumbnails, np.uint8, "r", shape=(count, SIDE, SIDE))
    hashes = np.frombuffer(b"".join(gathered.hashes), dtype=np.uint8).reshape(count, 32)
    return find_duplicates(Thumbnails(images, hashes, {}), show=show).groups


def _measured(crop: Crop, sizes: list[tuple[int, int]]) -> Crop:
    """The crop with the side that all pictures share, 0 where they differ or are not square."""
    width, height = sizes[0]
    return replace(crop, size=width if width == height and set(sizes) == {sizes[0]} else 0)


def _free_name(out: Path) -> str:
    names = chain(["pictures.zip"], (f"pictures-{number}.zip" for number in range(2, 1_000_000)))
    return next(name for name in names if not (out / name).exists())


def _tidy(out: Path, keep: set[Path | None]) -> None:
    """Remove what an earlier `prepare` left in this folder: its pictures and its list of unmatched names."""
    (out / UNMATCHED).unlink(missing_ok=True)
    for file in out.glob("pictures*.zip"):
        with open(file, "rb") as end:
            end.seek(-min(len(MARK), file.stat().st_size), 2)
            ours = end.read() == MARK
        if ours and not any(other is not None and file.samefile(other) for other in keep):
            file.unlink()


def _write(file: Path, items: list[Rejected]) -> None:
    with open(file, "w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["path", "reason"])
        writer.writerows((item.path, " ".join(item.reason.split())) for item in items)
        lines.flush()
        os.fsync(lines.fileno())  # a full disk shows here, before the manifest is replaced
