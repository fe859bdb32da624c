"""An original and its enhanced picture, in one row of a manifest: `data.picture` says which of them is learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mien.data.columns import moved, shared_root
from mien.data.manifest import Manifest
from mien.data.schema import ENHANCED, ENHANCED_HASH


def with_enhanced(
    faces: Manifest, pictures: Sequence[str | None], hashes: Sequence[bytes | None], folder: Path
) -> Manifest:
    """The faces with their enhanced pictures beside them, under the root that both share.

    Args:
        pictures: the enhanced picture of each face, named from `folder`; None where there is none.
        hashes: the sha256 of its bytes, 32 of them.
    """
    old, new = faces.root.resolve(), folder.resolve()
    root = shared_root([old, new])
    given = faces.table.drop_columns([name for name in (ENHANCED, ENHANCED_HASH) if name in faces.table.column_names])
    table = moved(given, old.relative_to(root).as_posix())
    below = new.relative_to(root)
    places = [None if picture is None else (below / picture).as_posix() for picture in pictures]
    return Manifest(table, root, faces.crop, faces.path).with_columns({ENHANCED: places, ENHANCED_HASH: list(hashes)})
