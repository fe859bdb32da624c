"""A manifest of any length, read in slices: memory stays that of a few row groups of its file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mien.data.manifest import FILE, ROWS, Manifest, about_manifest, content_hash, metadata, root_of
from mien.data.pictures import Pictures
from mien.data.schema import LISTS, check
from mien.errors import MienError
from mien.faces import Crop


class Slices:
    """The faces of a manifest's file; `slice` reads some of them. Picklable: another process opens the file anew.

    Raises:
        MienError: as `Manifest.open`; a bad value is found now, not in the middle of a job. A file that is another one
            later on is refused when it is read: half of a job would be about other faces.
    """

    def __init__(self, path: str | Path, root: str | Path | None = None) -> None:
        path = Path(path)
        self.path = path / FILE if path.is_dir() else path
        self._stamp = _stamp(self.path)
        try:
            schema = pq.read_schema(self.path)
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            Manifest.open(path)  # says what ails it
            raise
        about = about_manifest(schema, self.path)
        self.root = Path(root if root is not None else root_of(about, self.path.parent))
        self.crop = Crop.from_dict(about["crop"])
        self._names = schema.names
        self._file: pq.ParquetFile | None = None
        self._cached: tuple[tuple[int, ...], pa.Table] | None = None
        for start, table in self._tables(self._names):
            check(table, f"{self.path.name}, counted from face {start:,}," if start else self.path.name)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_file": None, "_cached": None}

    def __len__(self) -> int:
        return int(self._open().metadata.num_rows)

    def slice(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Manifest:
        """The faces from `start` to before `stop`, with all columns or those named (`path` is always one)."""
        file = self._open()
        names = self._among(columns)
        stop = min(stop, len(self))
        first, begin = 0, 0
        groups: list[int] = []
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first < stop and first + rows > start:
                begin = begin if groups else first
                groups.append(group)
            first += rows
        key = (*groups, *map(hash, names))
        cached = self._cached  # read once: another thread may put its own there
        if cached is None or cached[0] != key:
            table = file.read_row_groups(groups, columns=names) if groups else file.schema_arrow.empty_table()
            self._cached = cached = key, check(table.replace_schema_metadata(None), self.path.name)
        return self._manifest(cached[1].slice(start - begin, stop - start))

    def numbers(self, column: str) -> np.ndarray:
        """As `Manifest.numbers`: a column of all faces, (N,) float32."""
        return np.concatenate([np.empty(0, np.float32), *(part.numbers(column) for part in self._parts([column]))])

    def pictures(self) -> Pictures:
        """The reader of the manifest's pictures."""
        return Pictures(self.root)

    @cached_property
    def hash(self) -> str:
        """As `Manifest.hash`."""
        return content_hash(len(self), self._parts)

    def _parts(self, names: Sequence[str]) -> Iterator[Manifest]:
        for _, table in self._tables(self._among(names)):
            yield self._manifest(check(table, self.path.name))

    def _among(self, columns: Sequence[str] | None) -> list[str]:
        """The file's columns that are asked for (None: all), the path, and both ends of an age if one is."""
        if columns is None:
            return self._names
        wanted = {"path", *columns}
        if wanted & {"age_low", "age_high"}:
            wanted |= {"age_low", "age_high"}
        return [name for name in self._names if name in wanted]

    def _tables(self, names: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Each row group with the number of its first face."""
        file, start = self._open(), 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=list(names)).replace_schema_metadata(None)
            yield start, table
            start += len(table)

    def _manifest(self, table: pa.Table) -> Manifest:
        return Manifest(table, self.root, self.crop, self.path)

    def _open(self) -> pq.ParquetFile:
        if _stamp(self.path) != self._stamp:
            raise MienError(
                f"{self.path} was changed, replaced or removed while it was being read; give the command again, into "
                "another folder where it writes one: what is done is about the faces of before"
            )
        if self._file is None:
            self._file = pq.ParquetFile(self.path, memory_map=True)
        return self._file


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from what another program made of it; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class SlicesWriter:
    """A manifest's file written slice by slice, for `with whole(file) as beside:`; use as a context manager.

    The first slice decides the columns; `folder` is where the finished file will lie.
    """

    def __init__(self, beside: Path, folder: Path) -> None:
        self.beside = beside
        self.folder = folder
        self._file: pq.ParquetWriter | None = None

    def __enter__(self) -> SlicesWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, part: Manifest) -> None:
        """Append the faces of `part`."""
        if self._file is None:
            table = part.table.replace_schema_metadata(metadata(part.root, part.crop, self.folder))
            plain = [name for name in table.column_names if name not in ("path", "sha256", *LISTS)]
            self._file = pq.ParquetWriter(self.beside, table.schema, compression="zstd", use_dictionary=plain)
        self._file.write_table(part.table.cast(self._file.schema), row_group_size=ROWS)
