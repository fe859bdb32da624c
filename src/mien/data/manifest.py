"""A manifest: a Parquet table of faces, checked once when it is opened and trusted from there on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mien.data.columns import alike, by_word, column_of, extra_array, moved, shared_root, typed_array
from mien.data.pictures import Pictures
from mien.data.schema import ENHANCED_HASH, LABELS, LISTS, TRACED, TYPES, WORDS, check
from mien.errors import MienError, unknown
from mien.faces import CONTINUOUS, SPLITS, VOCABULARIES, Crop, Face
from mien.files import whole

#: The table's name in the folder that `mien prepare` makes.
FILE = "faces.parquet"
VERSION = 1
#: Rows of a row group: what a job that goes through a manifest in slices holds of it.
ROWS = 65_536
KEY = b"mien"


class Manifest:
    """Faces as the columns of an Arrow table (`data/schema.py` lists them), their root and their crop.

    Rows count from 0. A column that no face has a value for may be absent; the methods below then give
    missing values, so that callers need not ask.
    """

    def __init__(self, table: pa.Table, root: str | Path, crop: Crop, path: Path | None = None) -> None:
        self.table = table
        self.root = Path(root)
        self.crop = crop
        self.path = path

    @classmethod
    def open(cls, path: str | Path, root: str | Path | None = None) -> Manifest:
        """Open a Parquet file, or the folder that `mien prepare -o` made.

        `root` replaces the place of the pictures that the manifest names.

        Raises:
            MienError: nothing there, no manifest, or a bad value, named by row and column.
        """
        path = Path(path)
        file = path / FILE if path.is_dir() else path
        if not file.is_file():
            fault = f"holds no {FILE}" if path.is_dir() else "is not there"
            raise MienError(f"{path} {fault}; mien prepare SOURCE PATH -o FACES makes one")
        try:
            table = pq.read_table(file, memory_map=True)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise MienError(f"{file} is no Parquet file or is damaged: {' '.join(str(error).split())}") from None
        about = about_manifest(table.schema, file)
        if root is None:
            root = root_of(about, file.parent)
        table = check(table.replace_schema_metadata(None), file.name)
        return cls(table, Path(root), Crop.from_dict(about["crop"]), file)

    @classmethod
    def from_faces(
        cls,
        faces: Iterable[Face],
        root: str | Path,
        crop: Crop,
        *,
        sha256: Sequence[bytes | None] | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        groups: np.ndarray | None = None,
    ) -> Manifest:
        """A manifest of `faces`, in their order.

        `sha256` holds 32 bytes a picture, `sizes` its width and height, `groups` (N,) a number, -1 for none.
        The provenance of each label is "given" unless the face's `extra` says otherwise (`race_from`).
        """
        faces = list(faces)
        columns: dict[str, list[Any]] = {
            "path": [face.path for face in faces],
            "archive": [face.archive for face in faces],
            "age_low": [face.age and face.age[0] for face in faces],
            "age_high": [face.age and face.age[1] for face in faces],
        }
        for name in LISTS:
            columns[name] = [None if (value := getattr(face, name)) is None else value.ravel() for face in faces]
        for name in (*VOCABULARIES, *CONTINUOUS, "person", "split", "source"):
            columns[name] = [getattr(face, name) for face in faces]
        for name in TRACED:
            columns[f"{name}_from"] = [
                None if getattr(face, name) is None else face.extra.get(f"{name}_from", "given") for face in faces
            ]
        if sha256 is not None:
            columns["sha256"] = list(sha256)
        if sizes is not None:
            columns["width"] = [width for width, _ in sizes]
            columns["height"] = [height for _, height in sizes]
        arrays = {
            name: typed_array(values, TYPES[name])
            for name, values in columns.items()
            if name == "path" or any(value is not None for value in values)
        }
        for name in dict.fromkeys(key for face in faces for key in face.extra):
            if name not in arrays:
                if name in TYPES and not name.endswith("_from"):
                    raise MienError(f"extra column {name!r} bears the name of one of the manifest's own")
                arrays[name] = extra_array([face.extra.get(name) for face in faces])
        if groups is not None:
            numbers = np.asarray(groups, dtype=np.int64)
            arrays["group"] = pa.array(numbers, mask=numbers < 0)
        order = [*(name for name in TYPES if name in arrays), *(name for name in arrays if name not in TYPES)]
        table = pa.table({name: arrays[name] for name in order})
        return cls(check(table, "faces"), root, crop)

    def save(self, path: str | Path) -> Path:
        """Write the manifest, whole, to a Parquet file, or as `faces.parquet` in a folder; returns the file.

        Pictures in or under the manifest's own folder are named relative to it: the folder may be moved; others may
        be moved together with it.
        """
        path = Path(path)
        file = path if path.suffix == ".parquet" else path / FILE
        table = self.table.replace_schema_metadata(metadata(self.root, self.crop, file.parent))
        # Paths and hashes differ in every row: a dictionary of them would be the column again.
        plain = [name for name in table.column_names if name not in ("path", "sha256", *LISTS)]
        with whole(file) as beside:
            pq.write_table(table, beside, compression="zstd", use_dictionary=plain, row_group_size=ROWS)
        return file

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        return f"Manifest({len(self):,} faces, root {str(self.root)!r}, crop {self.crop.template!r})"

    def _with(self, table: pa.Table) -> Manifest:
        return Manifest(table, self.root, self.crop, self.path)

    def take(self, rows: np.ndarray) -> Manifest:
        """The faces of `rows`, in that order."""
        return self._with(self.table.take(pa.array(np.asarray(rows, dtype=np.int64))))

    def where(self, mask: np.ndarray) -> Manifest:
        """The faces where `mask` (N,) is true."""
        return self._with(self.table.filter(pa.array(np.asarray(mask, dtype=bool))))

    def slice(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Manifest:
        """The faces from `start` to before `stop`, with all columns: what `Slices.slice` gives of a file."""
        return self._with(self.table.slice(start, max(stop - start, 0)))

    def split(self, name: str) -> Manifest:
        """The faces of one split; `all` gives every face.

        Raises:
            MienError: no such split, or no face in it.
        """
        if name == "all":
            return self
        if name not in SPLITS:
            raise unknown("split", name, (*SPLITS, "all"))
        codes = self.codes("split")
        rows = np.flatnonzero(codes == SPLITS.index(name))
        if not len(rows):
            there = [word for code, word in enumerate(SPLITS) if (codes == code).any()]
            raise MienError(
                f"{self.path or 'the manifest'} has no face in split {name!r}; "
                + (f"it has {', '.join(there)}" if there else "no face has a split, take 'all'")
            )
        return self.take(rows)

    def has(self, column: str) -> bool:
        """Whether any face has a value in `column`."""
        return column in self.table.column_names and self.table[column].null_count < len(self)

    def numeric(self, column: str) -> bool:
        """Whether there is such a column, and of numbers."""
        kind = self.table[column].type if column in self.table.column_names else pa.null()
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))

    def numbers(self, column: str) -> np.ndarray:
        """A column of numbers as float32, (N,), NaN for missing."""
        if column not in self.table.column_names:
            return np.full(len(self), np.nan, dtype=np.float32)
        values = self.table[column].cast(pa.float32(), safe=False)
        return np.array(values.to_numpy(), dtype=np.float32)

    def codes(self, column: str) -> np.ndarray:
        """A column of words as int64 codes into its vocabulary, (N,), -1 for missing."""
        words = WORDS[column]
        if column not in self.table.column_names:
            return np.full(len(self), -1, dtype=np.int64)
        return by_word(self.table[column], lambda word: -1 if word is None else words.index(word), np.int64)

    def strings(self, column: str) -> np.ndarray:
        """A column as Python strings (or what an extra column holds), (N,) object, None for missing."""
        values = np.full(len(self), None, dtype=object)
        if column in self.table.column_names:
            found = self.table[column]
            several = pa.types.is_dictionary(found.type)
            values[:] = by_word(found, lambda word: word, object) if several else found.to_pylist()
        return values

    def landmarks(self) -> np.ndarray:
        """(N, 68, 2) float32 in pixels of the stored pictures, NaN where unknown."""
        return self._lists("landmarks").reshape(-1, 68, 2)

    def votes(self) -> np.ndarray:
        """(N, 10) float32: how many raters said each of `faces.VOTES`, NaN where a face has no votes."""
        return self._lists("expression_votes")

    def _lists(self, name: str) -> np.ndarray:
        values = np.full((len(self), LISTS[name].list_size), np.nan, dtype=np.float32)
        if name in self.table.column_names:
            column = self.table[name]
            flat = pc.list_flatten(column).to_numpy()  # leaves missing rows out
            values[pc.is_valid(column).to_numpy()] = flat.reshape(-1, values.shape[1])
        return values

    def columns(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Columns as `Task.encode` takes them: words as codes, numbers float32, landmarks (N, 68, 2), votes (N, 10)."""
        return {name: self._column(name) for name in names}

    def _column(self, name: str) -> np.ndarray:
        if name == "landmarks":
            return self.landmarks()
        if name in LISTS:
            return self._lists(name)
        return self.codes(name) if name in WORDS else self.numbers(name)

    def groups(self) -> np.ndarray:
        """(N,) int64: person or set of near-identical pictures; a face without one gets its own number."""
        numbers = np.full(len(self), -1, dtype=np.int64)
        if "group" in self.table.column_names:
            numbers = pc.fill_null(self.table["group"], -1).to_numpy().astype(np.int64)
        alone = numbers < 0
        numbers[alone] = numbers.max(initial=-1) + 1 + np.arange(alone.sum())
        return numbers

    def face(self, row: int) -> Face:
        """One face; what is no column of a manifest stands in `extra`."""
        values = {name: self.table[name][row].as_py() for name in self.table.column_names}
        plain = (*VOCABULARIES, *CONTINUOUS, "person", "split", "source")
        points, votes = values.get("landmarks"), values.get("expression_votes")
        return Face(
            path=values["path"],
            archive=values.get("archive"),
            age=None if values.get("age_low") is None else (values["age_low"], values["age_high"]),
            landmarks=None if points is None else np.array(points, dtype=np.float32).reshape(68, 2),
            expression_votes=None if votes is None else np.array(votes, dtype=np.float32),
            extra={name: value for name, value in values.items() if name not in TYPES},
            **{name: values.get(name) for name in plain},
        )

    def pictures(self) -> Pictures:
        """The reader of this manifest's pictures."""
        return Pictures(self.root)

    @cached_property
    def hash(self) -> str:
        """sha256, 64 hex digits, over pictures, labels and splits in their order.

        Where the pictures lie does not enter, but a face whose picture's hash is unknown enters by its path.
        """
        return content_hash(len(self), lambda _: [self])

    def with_columns(self, columns: Mapping[str, Any]) -> Manifest:
        """A manifest with columns added or replaced: arrays, lists or Arrow arrays of N values.

        Codes (integers) are taken for a column of words as `codes` gives them; a negative group is missing.

        Raises:
            MienError: a wrong length, or a value that the column does not take.
        """
        table = self.table
        for name, values in columns.items():
            if len(values) != len(self):
                raise MienError(f"column {name} has {len(values):,} values for {len(self):,} faces")
            array = column_of(name, values)
            if name in table.column_names:
                table = table.set_column(table.column_names.index(name), name, array)
            else:
                table = table.append_column(name, array)
        return self._with(check(table, str(self.path.name if self.path else "faces")))

    @classmethod
    def concat(cls, manifests: Sequence[Manifest]) -> Manifest:
        """All faces of several manifests, in order, under the root that theirs share; groups stay apart.

        Raises:
            MienError: their crops differ.
        """
        if not manifests:
            raise MienError("nothing to join: no manifest was given")
        if len(manifests) == 1:
            return manifests[0]
        first = manifests[0]
        for other in manifests[1:]:
            if not first.crop.same_view(other.crop):
                raise MienError(
                    f"{first.path or 'one manifest'} is cropped as {first.crop.to_dict()}, "
                    f"{other.path or 'another'} as {other.crop.to_dict()}; bring both to one crop with "
                    "`mien prepare SOURCE PATH -o FACES --align` (--landmarks where they come without points)"
                )
        roots = [manifest.root.resolve() for manifest in manifests]
        root = shared_root(roots)
        tables, offset = [], 0
        for manifest, place in zip(manifests, roots, strict=True):
            table = moved(manifest.table, place.relative_to(root).as_posix())
            if "group" in table.column_names:
                numbers = pc.add(table["group"], offset)
                table = table.set_column(table.column_names.index("group"), "group", numbers)
                offset = max(offset, (pc.max(numbers).as_py() or 0) + 1)
            tables.append(table)
        same_size = len({manifest.crop.size for manifest in manifests}) == 1
        crop = Crop(first.crop.template, first.crop.margin, first.crop.size if same_size else 0)
        table = pa.concat_tables(alike(tables), promote_options="permissive").unify_dictionaries()
        return cls(check(table, "the joined manifest"), root, crop)


def content_hash(count: int, parts: Callable[[Sequence[str]], Iterable[Manifest]]) -> str:
    """`Manifest.hash` of `count` faces; `parts(names)` gives them in consecutive parts with at least these columns."""
    digest = hashlib.sha256(f"{VERSION} {count}".encode())
    for part in parts(["path", "sha256"]):
        if part.has("sha256") and not part.table["sha256"].null_count:
            for chunk in part.table["sha256"].chunks:
                digest.update(chunk.buffers()[1][32 * chunk.offset :][: 32 * len(chunk)])
        else:
            for picture, path in zip(part.strings("sha256"), part.strings("path"), strict=True):
                digest.update(picture if picture is not None else path.encode())
    for name in (*LABELS, "split"):
        if any(part.has(name) for part in parts([name])):
            digest.update(name.encode())
            for part in parts([name]):
                values = part._column(name)
                digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    if any(part.has(ENHANCED_HASH) for part in parts([ENHANCED_HASH])):
        digest.update(ENHANCED_HASH.encode())
        for part in parts([ENHANCED_HASH]):
            digest.update(b"".join(picture or b"none" for picture in part.strings(ENHANCED_HASH)))
    return digest.hexdigest()


def metadata(root: Path, crop: Crop, folder: Path) -> dict[bytes, bytes]:
    """The metadata of the schema of a manifest's file in `folder`; `about_manifest` reads it back.

    Pictures in or under `folder` are named relative to it: it may be moved. Others are named both ways: where the one
    place is gone, the other counts, so that pictures and manifest may be moved together.
    """
    folder, root = folder.resolve(), root.resolve()
    about = {"version": VERSION, "crop": crop.to_dict(), "root": root.as_posix()}
    try:
        beside = Path(os.path.relpath(root, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        beside = None
    if root.is_relative_to(folder):
        about["root"] = beside
    elif beside is not None:
        about["beside"] = beside
    return {KEY: json.dumps(about, sort_keys=True).encode()}


def root_of(about: Mapping[str, Any], folder: Path) -> Path:
    """Where the pictures of a manifest in `folder` are, by its own entry (see `about_manifest`)."""
    root = folder / about["root"]
    beside = about.get("beside")
    if beside is not None and not root.exists() and (folder / str(beside)).exists():
        return folder / str(beside)
    return root


def about_manifest(schema: pa.Schema, file: Path) -> dict[str, Any]:
    """The manifest's own entry in the metadata of its file's schema: crop, root, version.

    Raises:
        MienError: there is none, it is damaged, or of a later version.
    """
    entry = (schema.metadata or {}).get(KEY)
    if entry is None:
        raise MienError(
            f"{file} is a table, but no manifest; make one of it with "
            f"`mien prepare folder PICTURES --labels {file.name} -o FACES`"
        )
    try:
        about, _ = json.loads(entry), schema.names  # decodes the columns' names: damage shows there, too
        Crop.from_dict(about["crop"])
        version, about["root"] = int(about["version"]), str(about["root"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MienError(f"{file}: its columns' names, crop or root are damaged ({error!r}); prepare it again") from None
    if version > VERSION:
        raise MienError(f"{file} is of version {version}, this mien reads up to {VERSION}; install a newer one")
    return about
