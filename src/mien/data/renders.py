"""A manifest of renders: which picture shows which face at which age, by which model.

`mien render` writes one; whoever judges a renderer reads it, and nothing else of the renderer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mien.data.manifest import KEY
from mien.errors import MienError

#: The table's name in the folder of renders; the pictures' places in it are relative to that folder.
FILE = "renders.parquet"
KIND = "renders of mien render"
#: One row a face and age; one row, without an age, for an input that shows no face or cannot be read.
COLUMNS = pa.schema(
    [
        ("input", pa.string()),  # the source: a path, or archive:path of a manifest's face
        ("sha256", pa.binary(32)),  # of the source's stored bytes (of an array: of its pixels)
        ("row", pa.int64()),  # the input's number, from 0; of one manifest alone: its row
        ("face", pa.int32()),  # of the faces of one input, from the left
        ("left", pa.float64()),  # the detector's box in pixels of the photo; null for a crop
        ("top", pa.float64()),
        ("right", pa.float64()),
        ("bottom", pa.float64()),
        ("aligned", pa.bool_()),
        ("source_age", pa.float32()),  # years, where a manifest knows it
        ("age", pa.float32()),  # years asked for
        ("picture", pa.string()),  # the face at that age
        ("source_picture", pa.string()),  # the face as it was given to the model
        ("strip", pa.string()),
        ("gif", pa.string()),
        ("pasted", pa.string()),  # the photo with all its faces at that age
        ("model", pa.string()),
        ("error", pa.string()),
    ]
)


def renders_schema(about: Mapping[str, Any]) -> pa.Schema:
    """`COLUMNS` with facts of the model and of how it was asked in the metadata."""
    return COLUMNS.with_metadata({KEY: json.dumps({"kind": KIND, **about}, sort_keys=True).encode()})


def open_renders(path: str | Path) -> tuple[pa.Table, dict[str, Any], Path]:
    """The table of renders, what is said of all of them (`model`, `sha256`, `crop`, `ages`), and their folder.

    Args:
        path: the folder that `mien render -o` made, or the table in it.

    Raises:
        MienError: there is none, or it is something else.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise MienError(f"{file} is not there; mien render INPUT --model RUN -o FOLDER makes one")
    try:
        table = pq.read_table(file)
        about = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MienError(f"{file} is no Parquet file or is damaged: {' '.join(str(error).split())}") from None
    if not isinstance(about, dict) or about.get("kind") != KIND or not table.schema.equals(COLUMNS):
        raise MienError(f"{file} is no manifest of renders; mien render INPUT --model RUN -o FOLDER makes one")
    return table, about, file.parent
