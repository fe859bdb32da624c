"""From a source to a manifest: every picture is read once; what cannot be used is listed with its reason."""

from __future__ import annotations

import csv
import os
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from mien.data.align import CHIP, WINDOWS
from mien.data.archives import is_compressed_tar, open_tree
from mien.data.duplicates import Thumbnails, find_duplicates
from mien.data.labelling import Tables, correct, given_splits
from mien.data.manifest import FILE, Manifest
from mien.data.matching import Matching, common
from mien.data.pictures import MIN_SIDE, Pictures
from mien.data.quality import QualityFilter
from mien.data.reading import Check, Item, Locate, Poor, Reader
from mien.data.refused import EACH, reason_of, show_refused
from mien.data.schema import LABELS
from mien.data.similarity import SIDE
from mien.data.sources import SOURCES, Made, Rejected, Source
from mien.data.splits import combine_groups, split_rest
from mien.errors import MienError
from mien.faces import SPLITS, Crop, Face
from mien.files import clear, whole
from mien.progress import Progress

REJECTED, REFUSED, UNMATCHED = "rejected.csv", "rejected.png", "unmatched.csv"
#: The comment at the end of the archives written here; only what bears it is ever removed.
MARK = b"written by mien prepare"
#: Folders that mien's commands write beside a manifest, and by what in them they are known.
OWN = {"inspect": "inspect.json", "evaluation": "metrics.*.json", "labels": "labels.json", "captions": "captions.jsonl"}
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
        # "labels.csv line 12: no such picture" is the same reason on every line, "quality: blur (...)" of every face.
        same = r"^\S+ (line|row) \d+: |(?<=^quality: )(?P<tags>.*) \(.*| \([\d.]+ eye distances\)$| \(\d+% of it\)$"
        reasons = Counter(re.sub(same, lambda found: found["tags"] or "", item.reason) for item in self.rejected)
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
class _Gathered:
    """What the pass over the pictures leaves; `thumbnails` is a file of (N, SIDE, SIDE) uint8."""

    thumbnails: IO[bytes]
    faces: list[Face] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    poor: list[Poor] = field(default_factory=list)
    unusable: int = 0


def prepare(
    source: Source,
    path: str | Path,
    out: str | Path,
    *,
    splits: str | Path | None = None,
    corrections: str | Path | None = None,
    seed: int = 0,
    size: int | None = None,
    margin: float | None = None,
    align: bool | None = None,
    check: Check | None = None,
    locate: Locate | None = None,
    quality: QualityFilter | None = None,
    matching: Matching | None = None,
    show: bool = True,
) -> Prepared:
    """Make the folder `out`: `faces.parquet`, `rejected.csv`, and `pictures.zip` where pictures are written.

    Pictures stay where they are, unless they are drawn, packed in a tar.gz, or cut to the canonical crop, `size`
    pixels wide (`align`; by default wherever a source has its faces otherwise and has points, or a known crop of
    its own) and with `margin` of the crop's side around it. Given points that `check` finds beside the face are
    dropped and listed, `locate` finds the points of faces that have none. Faces that `quality` refuses are rejected
    with what was measured, some of them shown in `rejected.png`. `matching` brings the light, or light and colour,
    of every picture to the data set's, which takes a second reading. Splits come from the table `splits`, else by
    age bin (or expression) and gender, with persons and near-identical pictures on one side, seeded. What was in
    `out` before stays until all is written.

    Raises:
        MienError: nothing at `path`, nothing of the source's layout, no readable picture, a fault in `splits` or
            `corrections`, or a source that draws its faces and `matching`.
    """
    path, out = Path(path), Path(out)
    if out.suffix.lower() == ".parquet":
        raise MienError(f"-o {out}: names a folder, in which {FILE} is written; leave the ending out")
    if out.exists() and not out.is_dir():
        raise MienError(f"-o {out} is a file, where a folder is to be written; name another place")
    tables = Tables.read(splits, corrections)
    items, made, total = _items(source, path, out)
    if not made:
        tables.rehearse(item for item in items if isinstance(item, Face))
    cut = _cut(source, items, made, size, margin, align, locate is not None)
    if check is not None and not any(isinstance(item, Face) and item.landmarks is not None for item in items):
        raise MienError(f"--check-landmarks: source {source.name} gives no landmarks to check here; leave it out")
    if made and matching is not None:
        raise MienError(f"--match {matching}: source {source.name} draws and labels its light; leave it out")
    keep = made or cut is not None or matching is not None or is_compressed_tar(path)
    root = path if path.is_dir() else path.parent
    out.mkdir(parents=True, exist_ok=True)  # that it cannot be made shows before any picture is read
    # A new name: the manifest that stands in `out` keeps its pictures until it is replaced itself.
    packed = out / _free_name(out) if keep else None
    clear(out / _free_name(out))
    with tempfile.TemporaryFile() as thumbnails:
        gathered = _Gathered(thumbnails)
        read = Reader(Pictures(root), source.crop, cut, keep, check, locate, quality, matching)
        if matching is not None:
            _learn_tone(items, read, total, show)
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
        written = _which(packed)
        try:
            _require_faces(gathered, source, path)
            crop = cut or source.crop
            manifest, unmatched = _manifest(gathered, root, crop, made, tables, seed, show)
            with whole(out / REJECTED) as beside:
                _write(beside, gathered.rejected)
                if gathered.poor:
                    show_refused(out / REFUSED, gathered.poor, gathered.rejected)
                if _which(packed) != written:
                    raise MienError(f"{out}: another mien prepare has written there meanwhile; give one command a time")
                file = manifest.save(out)
        except BaseException:
            if packed is not None and _which(packed) == written:
                packed.unlink(missing_ok=True)
            raise
    if not gathered.poor:
        (out / REFUSED).unlink(missing_ok=True)
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
    tables: Tables,
    seed: int,
    show: bool,
) -> tuple[Manifest, list[Rejected]]:
    """The manifest with corrections, groups and splits, and the names that matched no face."""
    faces = gathered.faces
    unmatched = correct(faces, tables.corrections) if tables.corrections is not None else []
    groups = combine_groups(_persons(faces))
    if tables.splits is not None:
        given, missed = given_splits(faces, tables.splits)
        groups = combine_groups(groups, given)
        unmatched += missed
    elif not made:  # drawn persons are known by name, and look more alike than real ones
        groups = combine_groups(groups, _near_identical(gathered, show))
    crop = _measured(crop, gathered.sizes)
    manifest = Manifest.from_faces(faces, root, crop, sha256=gathered.hashes, sizes=gathered.sizes, groups=groups)
    if tables.splits is None:
        manifest = manifest.with_columns({"split": split_rest(manifest, groups, seed)})
    return manifest, unmatched


def _items(source: Source, path: Path, out: Path) -> tuple[Iterable[Item], bool, int | None]:
    """What the source yields, whether it makes its pictures, and how many there are.

    Pictures in memory are taken one by one; what is read from disk is listed first, which is quick. What lies in `out`
    below `path` is refused, and what mien wrote beside a manifest in `path`: pages and figures are no faces.
    """
    stream: Iterator[Item] = iter(source.faces(path))
    head = list(islice(stream, 1))
    if head and isinstance(head[0], Made):
        return chain(head, stream), True, getattr(source, "count", None)
    items = [*head, *stream]
    # A link in `path` leads elsewhere, and is still found below it.
    ways = ((path.resolve(), out.resolve()), (Path(os.path.abspath(path)), Path(os.path.abspath(out))))
    below = {
        re.escape(one.relative_to(root).as_posix()) for root, one in ways if one.is_relative_to(root) and one != root
    }
    told = {f"it lies in {out}, which -o writes": re.compile(f"({'|'.join(below)})/") if below else None}
    told["mien wrote it beside faces.parquet"] = _written(path) if (path / FILE).is_file() else None
    for place, item in enumerate(items):
        for reason, own in told.items():
            if own is not None and isinstance(item, Face) and own.match(item.path):
                items[place] = Rejected(item.path, reason)
    return items, False, len(items)


def _written(folder: Path) -> re.Pattern[str]:
    """How paths begin of what mien wrote beside the manifest in `folder`."""
    known = [name for name, mark in OWN.items() if any((folder / name).glob(mark))]
    audits = rf"(robustness|ageing|latents)\.({'|'.join(SPLITS)}|all)"
    return re.compile(f"({'|'.join([*known, audits])})/|{re.escape(REFUSED)}$")


def _cut(
    source: Source,
    items: Iterable[Item],
    made: bool,
    size: int | None,
    margin: float | None,
    align: bool | None,
    located: bool,
) -> Crop | None:
    """The crop to which pictures are to be cut, None where they stay as they are."""
    if made:
        if align or located:
            flag = "--align" if align else "--landmarks"
            raise MienError(f"{flag}: source {source.name} makes its faces cut and with points already; leave it out")
        return None
    points = located or any(isinstance(item, Face) and item.landmarks is not None for item in items)
    own = source.crop.template in WINDOWS
    if align and not points and not own:
        raise MienError(f"--align: no face of source {source.name} has points to align it by; --landmarks finds them")
    if align is False or not (points or own) or not (align or own or source.crop.template == "photo"):
        for flag, value in (("--size", size), ("--margin", margin)):
            if value is not None:
                raise MienError(f"{flag} {value:g}: no face of source {source.name} is cut here; leave it out")
        return None
    size, margin = size or source.cut_size, CHIP.margin if margin is None else margin
    if size < MIN_SIDE:
        raise MienError(f"--size {size}: a crop has at least {MIN_SIDE} px")
    if not 0 <= margin <= 1:
        raise MienError(f"--margin {margin:g}: expected a share of the crop's side from 0 to 1")
    return Crop(CHIP.template, margin, size)


def _gather(
    items: Iterable[Item],
    read: Reader,
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
                if isinstance(result, Poor):
                    gathered.rejected.append(result.rejected)
                    gathered.unusable += 1
                    if sum(reason_of(other) == reason_of(result) for other in gathered.poor) < EACH:
                        gathered.poor.append(result)
                    continue
                if isinstance(result, Rejected):
                    gathered.rejected.append(result)
                    gathered.unusable += not isinstance(item, Rejected)
                    continue
                if archive is not None and result.data is not None:
                    # A fixed date: the same pictures make the same file.
                    archive.writestr(zipfile.ZipInfo(result.face.path, (1980, 1, 1, 0, 0, 0)), result.data)
                if result.fault:
                    gathered.rejected.append(Rejected(result.face.path, result.fault))
                gathered.faces.append(result.face)
                gathered.hashes.append(result.sha256)
                gathered.sizes.append(result.size)
                gathered.thumbnails.write(result.thumbnail.tobytes())
            progress.advance(len(batch))


def _learn_tone(items: Iterable[Item], read: Reader, total: int | None, show: bool) -> None:
    """Set the tone that `read` matches pictures to: that of the pictures which are used."""
    tones = []
    stream = iter(items)
    with ThreadPoolExecutor(THREADS) as pool, Progress(total, "faces", "measuring light and colour", show) as progress:
        while batch := list(islice(stream, BATCH)):
            tones += [found for found in pool.map(read.tone, batch) if found is not None]
            progress.advance(len(batch))
    read.wanted = common(tones) if tones else None


def _require_faces(gathered: _Gathered, source: Source, path: Path) -> None:
    if gathered.faces:
        return
    first = gathered.rejected[0] if gathered.rejected else None
    if gathered.unusable and first is not None:
        count = f"{gathered.unusable:,}"
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


def _which(file: Path | None) -> int | None:
    """What tells a file from another of its name; None where there is none."""
    return file.stat().st_ino if file is not None and file.exists() else None


def _free_name(out: Path) -> str:
    """A name that no archive here had before it: another manifest that was made of this one may still name that."""
    told = [re.fullmatch(r"pictures(?:-(\d+))?\.zip", file.name) for file in out.glob("pictures*.zip")]
    last = max((int(found[1] or 1) for found in told if found is not None), default=0)
    return f"pictures-{last + 1}.zip" if last else "pictures.zip"


def _tidy(out: Path, keep: set[Path | None]) -> None:
    """Remove what an earlier `prepare` left in this folder: its pictures and its list of unmatched names."""
    (out / UNMATCHED).unlink(missing_ok=True)
    for file in filter(Path.is_file, out.glob("pictures*.zip")):
        with open(file, "rb") as end:
            end.seek(-min(len(MARK), file.stat().st_size), 2)
            ours = end.read() == MARK
        if ours and not any(other is not None and other.exists() and file.samefile(other) for other in keep):
            file.unlink()


def _write(file: Path, items: list[Rejected]) -> None:
    with open(file, "w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["path", "reason"])
        writer.writerows((item.path, " ".join(item.reason.split())) for item in items)
        lines.flush()
        os.fsync(lines.fileno())  # a full disk shows here, before the manifest is replaced
