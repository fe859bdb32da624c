"""Python and numpy values as the Arrow columns of a manifest, and back; what several manifests need to become one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mien.data.schema import ENHANCED, LISTS, TYPES, WORDS
from mien.errors import MienError


def typed_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Values, None for missing, as a column of a manifest's type."""
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, kind)


def extra_array(values: list[Any]) -> pa.Array:
    """A column that is none of a manifest's: of one type where its values are, else as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def column_of(name: str, values: Any) -> pa.Array | pa.ChunkedArray:
    """What a caller hands in for the column `name`, as `Manifest.with_columns` takes it, as an Arrow column."""
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    if isinstance(values, np.ndarray):
        if name in WORDS and np.issubdtype(values.dtype, np.integer):
            words = pa.array(WORDS[name])
            return pa.DictionaryArray.from_arrays(pa.array(values.astype(np.int32), mask=values < 0), words)
        if name == "group":
            return pa.array(values.astype(np.int64), mask=values < 0)
        if name in LISTS:
            numbers = np.ascontiguousarray(values, dtype=np.float32).reshape(len(values), -1)
            gone = pa.array(np.isnan(numbers).all(axis=1))
            return pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), type=LISTS[name], mask=gone)
        return pa.array(values, from_pandas=np.issubdtype(values.dtype, np.floating))
    return typed_array(list(values), TYPES[name]) if name in TYPES else extra_array(list(values))


def by_word(column: pa.ChunkedArray, value: Callable[[Any], Any], kind: type) -> np.ndarray:
    """`value(word)` of every row of a dictionary column, (N,) `kind`; a missing word is None.

    Each of the few words is made once: Arrow's own list of them makes one a row, and takes twenty times as long.
    """
    parts: list[np.ndarray] = [np.empty(0, dtype=kind)]
    for chunk in column.chunks:
        values: np.ndarray = np.array([value(word) for word in (*chunk.dictionary.to_pylist(), None)], dtype=kind)
        parts.append(values[pc.fill_null(chunk.indices.cast(pa.int64()), len(values) - 1).to_numpy()])
    return np.concatenate(parts)


def moved(table: pa.Table, below: str) -> pa.Table:
    """The table with its pictures named from a root higher up: `below` is the way down to the old one."""
    if below == ".":
        return table
    if ENHANCED in table.column_names:
        enhanced = pc.binary_join_element_wise(below, table[ENHANCED], "/")  # none stays none
        table = table.set_column(table.column_names.index(ENHANCED), ENHANCED, enhanced)
    plain = pc.binary_join_element_wise(below, table["path"], "/")
    if "archive" not in table.column_names:
        return table.set_column(table.column_names.index("path"), "path", plain)
    archive = table["archive"].cast(pa.string())
    paths = pc.if_else(pc.is_null(archive), plain, table["path"])  # a member keeps its name in its archive
    higher = pc.binary_join_element_wise(below, archive, "/")
    table = table.set_column(table.column_names.index("path"), "path", paths)
    return table.set_column(table.column_names.index("archive"), "archive", higher.dictionary_encode())


def shared_root(folders: Sequence[Path]) -> Path:
    """The innermost folder that holds all of them.

    Raises:
        MienError: there is none, as on two drives of Windows.
    """
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        listed = ", ".join(map(str, folders))
        raise MienError(f"{listed} lie in no folder together; bring them to one drive") from None


def alike(tables: list[pa.Table]) -> list[pa.Table]:
    """Tables whose columns beyond mien's own, where they differ in type beyond what can be widened, are all text."""
    try:
        pa.unify_schemas([table.schema for table in tables], promote_options="permissive")
    except pa.ArrowTypeError:
        pass
    else:
        return tables
    for name in {name for table in tables for name in table.column_names}:
        having = [table.schema.field(name) for table in tables if name in table.column_names]
        try:
            pa.unify_schemas([pa.schema([field]) for field in having], promote_options="permissive")
        except pa.ArrowTypeError:
            for place, table in enumerate(tables):
                if name in table.column_names:
                    column = table.column_names.index(name)
                    tables[place] = table.set_column(column, name, pc.cast(table[name], pa.string()))
    return tables
