"""Rows of label files, CSV or Parquet, each knowing its place for error messages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.errors import MienError


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values by column, and where it stands (`labels.csv line 3`). An empty value is None."""

    place: str
    values: dict[str, Any]

    def get(self, column: str) -> Any:
        return self.values.get(column)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one file and its columns, names without blanks around them."""

    name: str
    columns: list[str]
    rows: list[Row]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def need(self, *columns: str) -> None:
        """Raise `MienError` when one of `columns` is not there."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            there = ", ".join(self.columns) or "none"
            raise MienError(f"{self.name} has no column {', '.join(missing)}; its columns are {there}")


def read_table(path: str | Path) -> Rows:
    """The CSV or Parquet file at `path`.

    Raises:
        MienError: it is not there, is damaged, or is neither.
    """
    path = Path(path)
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "is not there"
        raise MienError(f"{path} {fault}; give a CSV or Parquet file")
    if path.suffix.lower() != ".parquet":
        return read_csv(path.read_bytes(), path.name)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        columns, cells = table.column_names, table.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise MienError(f"{path} is no Parquet file or is damaged: {' '.join(str(error).split())}") from None
    return Rows(path.name, columns, [Row(f"{path.name} row {number}", values) for number, values in enumerate(cells)])


def read_csv(data: bytes, name: str) -> Rows:
    """A CSV with a header line, UTF-8 with or without a mark, separated by commas, semicolons or tabs.

    Raises:
        MienError: it is empty, is no text, or a line has more values than there are columns.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MienError(f"{name} is no UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from None
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        columns = [column.strip() for column in next(reader, [])]
        if not any(columns):
            raise MienError(f"{name} is empty; its first line names the columns")
        if twice := next((column for column in columns if column and columns.count(column) > 1), None):
            raise MienError(f"{name} has two columns {twice!r}; rename one, they are known by it")
        rows = []
        for values in reader:
            if not any(values):
                continue
            place = f"{name} line {reader.line_num}"
            if len(values) > len(columns):
                raise MienError(f"{place} has {len(values)} values for {len(columns)} columns")
            stripped = [value.strip() or None for value in values]
            rows.append(Row(place, dict(zip(columns, stripped, strict=False))))
    except csv.Error as error:
        raise MienError(f"{name} line {reader.line_num} is no CSV: {error}") from None
    return Rows(name, columns, rows)
