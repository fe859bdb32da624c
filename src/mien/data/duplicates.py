"""Pictures that are the same: byte for byte, or saved again, re-lit, marked, cropped a little or mirrored.

Three sieves: the products of 16 x 16 descriptors propose pairs, an alignment at 24 px drops most of them, one
at 48 px decides (`similarity.py`). Up to `LARGE` pictures all pairs are proposed (n^2 x 256 multiplications
and additions: seconds for 20,000). Above, pictures are compared inside overlapping cells around random ones,
so that the work grows with n x `CELL` and a million takes minutes; thumbnails lie in a temporary file of
2.3 kB each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mien.data.pictures import decode, sha256
from mien.data.similarity import SIDE, aligned, describe, mirror, thumbnail
from mien.data.sources.drawn import DrawnSource
from mien.errors import PictureError
from mien.progress import Progress

if TYPE_CHECKING:
    from mien.data.manifest import Manifest

#: Above this many pictures pairs are proposed inside cells only, and where their descriptors agree more.
LARGE = 100_000
#: Pictures a cell holds on average, and cells each picture stands in.
CELL, CELLS_EACH = 6_000, 3
BLOCK = 2_048


class DuplicateSettings(BaseModel):
    """When two pictures count as the same.

    `similarity` was set by eye on UTKFace: of the pairs above 0.75 nearly all are one photograph or two of
    one moment; towards 0.70 different persons in the same pose begin.
    """

    model_config = ConfigDict(extra="forbid")

    similarity: float = Field(default=0.75, gt=0, le=1, description="least correlation once aligned at 48 px")
    middle: float = Field(default=0.78, gt=0, le=1, description="least correlation once aligned at 24 px")
    proposal: float = Field(default=0.77, gt=0, le=1, description="least product of descriptors")
    proposal_large: float = Field(default=0.85, gt=0, le=1, description=f"the same above {LARGE:,} pictures")
    mirrored: bool = Field(default=True, description="a mirrored picture is the same picture")


@dataclass(slots=True)
class Thumbnails:
    """What one pass over the pictures leaves: (N, 48, 48) uint8 grey, (N, 32) uint8 sha256, and what failed.

    Rows in `failed` (row -> reason) are zero. `drawn` holds the rows that mien drew: two persons there may look more
    alike than two photos of one, so only the same bytes make them copies.
    """

    images: np.ndarray
    hashes: np.ndarray
    failed: dict[int, str]
    drawn: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(slots=True)
class Duplicates:
    """Pairs of rows (M, 2) that show the same picture, and what follows from them.

    `similarity` is (M,) in [0, 1], 1 where byte-identical; `identical` and `mirrored` are (M,) bool. `groups`
    is (N,) int64: a number shared by rows that show the same picture, -1 where a picture stands alone.
    """

    pairs: np.ndarray
    similarity: np.ndarray
    identical: np.ndarray
    mirrored: np.ndarray
    groups: np.ndarray

    def members(self) -> list[np.ndarray]:
        """The rows of each group, ascending; groups in the order of their numbers."""
        rows = np.flatnonzero(self.groups >= 0)
        rows = rows[np.argsort(self.groups[rows], kind="stable")]
        return np.split(rows, np.flatnonzero(np.diff(self.groups[rows])) + 1) if len(rows) else []


def read_thumbnails(manifest: Manifest, show: bool = True) -> Thumbnails:
    """Read and decode every picture once, at a reduced size; unreadable ones are listed, never fatal."""
    count = len(manifest)
    # A file without a name rather than memory: the system keeps of it what fits.
    with tempfile.TemporaryFile() as file:
        images = np.memmap(file, np.uint8, "w+", shape=(max(count, 1), SIDE, SIDE))[:count]
    hashes = np.zeros((count, 32), dtype=np.uint8)
    failed: dict[int, str] = {}
    pictures = manifest.pictures()
    paths, archives = manifest.strings("path"), manifest.strings("archive")
    # One thread: on pictures as small as faces, more of them mostly wait for one another.
    with Progress(count, "faces", "reading pictures", show) as progress:
        for row, (path, archive) in enumerate(zip(paths, archives, strict=True)):
            try:
                data = pictures.read(path, archive)
                images[row] = thumbnail(decode(data, side=2 * SIDE))
                hashes[row] = np.frombuffer(sha256(data), dtype=np.uint8)
            except PictureError as error:
                failed[row] = str(error).removeprefix(f"{path}: ")
            progress.advance()
    drawn = manifest.strings("source") == DrawnSource.name if manifest.has("source") else np.zeros(count, dtype=bool)
    return Thumbnails(images, hashes, failed, np.flatnonzero(drawn))


def find_duplicates(thumbnails: Thumbnails, settings: DuplicateSettings | None = None, show: bool = True) -> Duplicates:
    """Find which pictures are the same; rows that failed stand alone."""
    settings = settings or DuplicateSettings()
    count = len(thumbnails.images)
    readable = np.setdiff1d(np.arange(count), np.fromiter(thumbnails.failed, dtype=np.int64))
    # Of byte-identical pictures the first stands for all: a placeholder a thousand times is a thousand pairs.
    _, first, which = np.unique(thumbnails.hashes[readable], axis=0, return_index=True, return_inverse=True)
    stands_for = readable[first[which.reshape(-1)]]
    copy = stands_for != readable
    copies = np.stack([stands_for[copy], readable[copy]], axis=1)
    rows = np.setdiff1d(readable[first], thumbnails.drawn)
    pairs, similarity, mirrored = find_pairs(thumbnails.images, rows, settings, show)
    labels = group_pairs(count, pairs, similarity)
    labels[copies[:, 1]] = labels[copies[:, 0]]
    return Duplicates(
        pairs=np.concatenate([copies, pairs]),
        similarity=np.concatenate([np.ones(len(copies), dtype=np.float32), similarity]),
        identical=np.arange(len(copies) + len(pairs)) < len(copies),
        mirrored=np.concatenate([np.zeros(len(copies), dtype=bool), mirrored]),
        groups=_without_singles(labels),
    )


def find_pairs(
    images: np.ndarray, rows: np.ndarray, settings: DuplicateSettings, show: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (M, 2) of `rows` whose thumbnails are alike, how much (M,), and whether mirrored (M,) bool."""
    descriptors = np.concatenate(
        [describe(images[rows[start : start + BLOCK]]) for start in range(0, len(rows), BLOCK)]
        or [np.zeros((0, 1), dtype=np.float32)]
    )
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for flip in (False, True) if settings.mirrored else (False,):
        keys = _propose(descriptors, mirror(descriptors) if flip else descriptors, settings, show)
        with Progress(len(keys), "pairs", "comparing mirrored pictures" if flip else "comparing pictures", show) as bar:
            for start in range(0, len(keys), BLOCK // 8):
                pairs = rows[np.stack(np.divmod(keys[start : start + BLOCK // 8], len(rows)), axis=1)]
                second = images[pairs[:, 1]]
                scores = aligned(images[pairs[:, 0]], second[:, :, ::-1] if flip else second, settings.middle)
                kept = scores >= settings.similarity
                found.append((pairs[kept], scores[kept], np.full(int(kept.sum()), flip)))
                bar.advance(len(pairs))
    if not found:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32), np.zeros(0, bool)
    pairs, similarity, mirrored = (np.concatenate(part) for part in zip(*found, strict=True))
    # A pair may be alike both ways (a symmetrical face): its better way stays.
    order = np.lexsort((-similarity, pairs[:, 1], pairs[:, 0]))
    pairs, similarity, mirrored = pairs[order], similarity[order], mirrored[order]
    fresh = np.ones(len(pairs), dtype=bool)
    fresh[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[fresh], similarity[fresh], mirrored[fresh]


def group_pairs(count: int, pairs: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """(N,) int64 group numbers from pairs (M, 2): what is alike through others is one group, within reason.

    A chain (a like b, b like c, ...) may tie together what is not alike. So where fewer than half of all
    pairs of a group were found, its weakest ties are cut until what hangs together is alike throughout.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    groups = np.arange(count, dtype=np.int64)
    waiting = [(np.arange(len(pairs)), 0.0)]
    while waiting:
        chosen, least = waiting.pop()
        chosen = chosen[similarity[chosen] >= least]
        if not len(chosen):
            continue
        rows, ends = np.unique(pairs[chosen], return_inverse=True)
        ends = ends.reshape(-1, 2)
        graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(rows), len(rows)))
        total, component = connected_components(graph, directed=False)
        size = np.bincount(component, minlength=total)
        ties = np.bincount(component[ends[:, 0]], minlength=total)
        dense = ties * 4 >= size * (size - 1)
        first = np.full(total, count, dtype=np.int64)
        np.minimum.at(first, component, rows)
        groups[rows] = np.where(dense[component], first[component], rows)
        for loose in np.flatnonzero(~dense):
            inside = chosen[component[ends[:, 0]] == loose]
            waiting.append((inside, np.nextafter(np.quantile(similarity[inside], 0.1), 2)))
    return groups


def _propose(first: np.ndarray, second: np.ndarray, settings: DuplicateSettings, show: bool = True) -> np.ndarray:
    """Keys i * n + j (i < j), sorted and each once, of pairs whose descriptors' product is large enough."""
    count = len(first)
    least = settings.proposal if count <= LARGE else settings.proposal_large
    keys = [np.zeros(0, dtype=np.int64)]
    total = count if count <= LARGE else CELLS_EACH * count
    with Progress(total, "rows", "proposing pairs", show) as progress:
        for one, other in _cells(first, second):
            for start in range(0, len(one), BLOCK):
                block = one[start : start + BLOCK]
                later = other[np.searchsorted(other, block[0]) :]  # both are sorted; pairs have i < j
                i, j = np.nonzero(first[block] @ second[later].T >= least)
                i, j = block[i], later[j]
                ahead = i < j
                keys.append(i[ahead] * count + j[ahead])
                progress.advance(len(block))
    return np.unique(np.concatenate(keys))


def _cells(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of `first` and rows of `second` that are worth comparing with one another."""
    count = len(first)
    if count <= LARGE:
        yield np.arange(count), np.arange(count)
        return
    centres = first[np.random.default_rng(0).choice(count, CELLS_EACH * count // CELL, replace=False)]
    inside = [_by_cell(rows, centres) for rows in ((first,) if second is first else (first, second))]
    yield from zip(inside[0], inside[-1], strict=True)


def _by_cell(descriptors: np.ndarray, centres: np.ndarray) -> list[np.ndarray]:
    """The rows that have each centre among their `CELLS_EACH` nearest."""
    nearest = np.concatenate(
        [
            np.argpartition(-(descriptors[start : start + BLOCK] @ centres.T), CELLS_EACH, axis=1)[:, :CELLS_EACH]
            for start in range(0, len(descriptors), BLOCK)
        ]
    )
    order = np.argsort(nearest, axis=None, kind="stable")
    bounds = np.searchsorted(nearest.ravel()[order], np.arange(len(centres) + 1))
    return [order[low:high] // CELLS_EACH for low, high in pairwise(bounds)]


def _without_singles(labels: np.ndarray) -> np.ndarray:
    """Group labels as 0, 1, 2, ... in order of their first rows; -1 where a label occurs once."""
    _, which, size = np.unique(labels, return_inverse=True, return_counts=True)
    several = size > 1
    number = np.where(several, np.cumsum(several) - 1, -1)
    return number[which.reshape(-1)].astype(np.int64)
