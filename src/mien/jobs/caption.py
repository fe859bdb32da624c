"""Captions of a manifest's faces, as a resumable job: a cache by the sha256 of their pictures, and its embeddings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mien.data.manifest import Manifest
from mien.data.pictures import decode, sha256
from mien.data.slices import Slices
from mien.errors import MienError, PictureError
from mien.faces import middle
from mien.files import file_hash, whole
from mien.jobs.engine import Job, first_rank
from mien.jobs.inputs import Item, ManifestItems
from mien.jobs.stream import Loaded, stream
from mien.jobs.workers import Engine, Row
from mien.models.captioners import LONGEST, PROMPT, ImageTextCaptioner, label_caption
from mien.models.estimator import fingerprint
from mien.models.language import Told, read_cache, without_age

#: The captioner that reads labels.
LABELS = "labels"
#: The cache in the job's folder; its embeddings lie beside it.
FILE = "captions.jsonl"
COLUMNS = pa.schema(
    [
        ("row", pa.int64()),
        ("sha256", pa.binary(32)),
        ("caption", pa.string()),
        ("error", pa.string()),
    ]
)


@dataclass
class Captioning:
    """The work of the job: row numbers of a manifest in, captions out.

    Args:
        faces: the manifest.
        captioner: `labels`, or a folder of an image-text model as `ImageText` takes it.
        prompt, longest: see `ImageTextCaptioner`.
        strip_age: words that tell an age are taken out.
        known: an earlier cache; its pictures are not described again.
    """

    faces: Slices
    captioner: str = LABELS
    prompt: str = PROMPT
    longest: int = LONGEST
    strip_age: bool = False
    known: Path | None = None
    batch: int = 8
    device: str = "cpu"
    _model: ImageTextCaptioner | None = field(default=None, repr=False)
    _earlier: dict[str, Told] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None, "_earlier": None}  # another process loads its own

    @property
    def model(self) -> ImageTextCaptioner:
        """The image-text model, loaded when first needed."""
        if self._model is None:
            self._model = ImageTextCaptioner(self.captioner, self.device, self.prompt, self.longest)
        return self._model

    @property
    def earlier(self) -> dict[str, Told]:
        """The captions of the earlier cache, but empty ones, by the hash of their pictures, in hex."""
        if self._earlier is None:
            known = {} if self.known is None else read_cache(self.known)
            self._earlier = {key: told for key, told in known.items() if told.caption}
        return self._earlier

    def facts(self) -> dict[str, Any]:
        """What decides the job's output."""
        asked: dict[str, Any] = {"captioner": LABELS}
        if self.captioner != LABELS:
            asked = {"captioner": self.model.name, "sha256": fingerprint(self.model.model.model, {})}
            asked |= {"prompt": self.prompt, "longest": self.longest, "batch": self.batch}
        known = None if self.known is None else file_hash(self.known)
        return {"faces": self.faces.hash, "asked": asked, "strip_age": self.strip_age, "known": known}

    def __call__(self, rows: Sequence[int], first: int) -> Iterator[list[Row]]:
        """See `jobs.workers.Process`; a picture that cannot be read has its reason in `error`."""
        columns = ["archive", "sha256", "age_low", "age_high", "gender", "race", "expression"]
        part = self.faces.slice(first, first + len(rows), columns)
        told = self._from_labels(part) if self.captioner == LABELS else self._from_pictures(part)
        for row, (key, text, error) in enumerate(told, first):
            caption = text if text is None or not self.strip_age else without_age(text)
            if caption is not None and not caption.strip(" .,;:!?-\"'"):
                caption, error = None, f"a caption without a word: {text!r}"
            yield [{"row": row, "sha256": key, "caption": caption, "error": error}]

    def _from_labels(self, part: Manifest) -> Iterator[tuple[bytes | None, str | None, str | None]]:
        age = middle(part.numbers("age_low"), part.numbers("age_high"))
        words = zip(*(part.strings(name) for name in ("gender", "race", "expression")), strict=True)
        for item, key, years, said in zip(ManifestItems(part), part.strings("sha256"), age, words, strict=True):
            try:
                key = key or sha256(item.data())
                old = self.earlier.get(key.hex())
                yield key, old.caption if old else label_caption(float(years), *said), None
            except PictureError as error:
                yield None, None, str(error)

    def _from_pictures(self, part: Manifest) -> Iterator[tuple[bytes | None, str | None, str | None]]:
        def load(item: Item) -> Loaded[np.ndarray]:
            data = item.data()
            key = sha256(data)
            old = self.earlier.get(key.hex())
            return Loaded([] if old else [decode(data)], (key, old))

        for done in stream(ManifestItems(part), load, self.model.describe, self.batch, 1):
            if done.error is not None:
                yield None, None, done.error
            else:
                key, old = done.notes
                yield key, old.caption if old else done.results[0], None


def caption(work: Captioning, folder: Path, *, engine: Engine | None = None, show: bool = True) -> Job:
    """Caption all faces as a resumable job and return it, finished; `captions.jsonl` then has a line a picture.

    Raises:
        MienError: a captioner that cannot be opened; no caption at all.
    """
    facts, _ = work.facts(), work.earlier  # a damaged cache is said before the folder holds a job that names it
    job = Job(folder, "caption", facts, len(work.faces), shard=256)
    job.run(range(len(work.faces)), work, COLUMNS, failed=failed, engine=engine, unit="faces", show=show)
    if not first_rank():
        return job
    name = LABELS if work.captioner == LABELS else work.model.name
    written: set[bytes] = set()
    with whole(folder / FILE) as beside, open(beside, "w", encoding="utf-8") as lines:
        for row in job.rows():
            if row["caption"] is not None and row["sha256"] not in written:
                written.add(row["sha256"])
                key = row["sha256"].hex()
                captioner = work.earlier[key].captioner if key in work.earlier else name
                entry = {"sha256": key, "caption": row["caption"], "captioner": captioner}
                lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
        if not len(work.faces):
            raise MienError(f"{work.faces.path}: no face to caption")
        if not written:
            reason = next(row["error"] for row in job.rows())
            raise MienError(f"none of {len(work.faces):,} faces could be captioned, the first for: {reason}")
    return job


def failed(_: int, row: int, reason: str) -> list[Row]:
    """The row of a face that cannot be captioned."""
    return [{"row": row, "error": reason}]
