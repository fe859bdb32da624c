"""Enhancing pictures: grey ones get colours, all get larger, as a resumable job; the originals stay as they are.

Each enhanced picture lies beside a sidecar that says what it was made of, by what, and, if asked, what that did to the
age and the person that judges see.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from mien.data.manifest import FILE as MANIFEST
from mien.data.manifest import Manifest
from mien.data.pairs import with_enhanced
from mien.data.pictures import encode
from mien.data.slices import Slices, SlicesWriter
from mien.enhance.networks import GREY, Colourer, Upscaler, chroma
from mien.errors import MienError, unknown
from mien.evaluation.ageing.judges import AgeJudge, IdentityJudge, load_judge
from mien.files import file_hash, whole, write_json
from mien.jobs.engine import Job, first_rank, spare_manifest
from mien.jobs.inputs import Item, Items, ManifestItems
from mien.jobs.stream import Done, Loaded, stream
from mien.jobs.workers import Engine, Row
from mien.metrics.bootstrap import Bootstrap, Estimate
from mien.metrics.weighted import mean

#: The table in the job's folder.
FILE = "enhanced.parquet"
COLUMNS = pa.schema(
    [
        ("input", pa.string()),  # a path, or archive:path of a manifest's face
        ("row", pa.int64()),  # the input's number, from 0; of one manifest alone: its row
        ("sha256", pa.binary(32)),  # of the source's stored bytes
        ("picture", pa.string()),  # the enhanced picture, from the job's folder
        ("picture_sha256", pa.binary(32)),
        ("sidecar", pa.string()),
        ("width", pa.int32()),  # of the enhanced picture
        ("height", pa.int32()),
        ("chroma", pa.float32()),  # of the source; below `GREY` it is grey
        ("coloured", pa.bool_()),
        ("age_before", pa.float32()),  # as a judge sees the source and the enhanced picture, years
        ("age_after", pa.float32()),
        ("identity", pa.float32()),  # cosine of the two by a judge of identity
        ("error", pa.string()),
    ]
)
#: Inputs in one shard: what a broken job does again.
SHARD = 32
#: Faces of a manifest that are paired at once.
TOGETHER = 4096
#: Format to the ending of the file.
FORMATS = {"png": ".png", "jpeg": ".jpg"}


class Source(NamedTuple):
    """A picture as it was given: pixels (3, H, W) uint8, and the sha256 of its stored bytes."""

    image: np.ndarray
    sha256: bytes


class Made(NamedTuple):
    """A picture as it became, the steps that made it so, and what judges say of both."""

    image: np.ndarray
    chroma: float
    steps: list[dict[str, Any]]
    judged: dict[str, float]


@dataclass
class Enhancing:
    """The work of the job: pictures in; enhanced ones, their sidecars and rows out.

    Args:
        folder: the job's.
        upscaler, colour: weights; None leaves that step out. Colour comes first, and only where a picture is grey.
        tile: see `Upscaler`.
        format: of the enhanced pictures, one of `FORMATS`.
        judge: who tells the age, as `load_judge` takes it; None: nobody is asked.
        identity: who tells persons apart, as `IdentityJudge` takes it.
        device: where the networks compute.
    """

    folder: Path
    upscaler: Path | None = None
    colour: Path | None = None
    tile: int = 512
    format: str = "png"
    judge: str | None = None
    identity: str | None = None
    device: str = "cpu"
    _networks: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.upscaler is None and self.colour is None:
            raise MienError("nothing to do: give --upscaler WEIGHTS, --colour WEIGHTS, or both (see mien models)")
        if self.format not in FORMATS:
            raise unknown("format", self.format, FORMATS)
        if self.identity is not None and self.judge is None:
            raise MienError("--identity judges beside --judge MODEL; give both")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_networks": {}}  # another process loads its own

    def load(self) -> dict[str, Any]:
        """The networks that are asked for, loaded when first needed.

        Raises:
            MienError: one of them cannot be.
        """
        if not self._networks:
            found: dict[str, Any] = {}
            if self.colour is not None:
                found["colour"] = Colourer(self.colour, self.device)
            if self.upscaler is not None:
                found["upscale"] = Upscaler(self.upscaler, self.device, self.tile)
            if self.judge is not None:
                found["age"] = load_judge(self.judge, self.device)
            if self.identity is not None:
                found["identity"] = IdentityJudge(self.identity, self.device)
            self._networks = found
        return self._networks

    def facts(self) -> dict[str, Any]:
        """What decides the job's output, beside its inputs."""
        judges = {name: self.load()[name].hash for name in ("age", "identity") if name in self.load()}
        return {
            "upscaler": None if self.upscaler is None else file_hash(self.upscaler),
            "colour": None if self.colour is None else file_hash(self.colour),
            "parameters": {"tile": self.tile, "format": self.format, "grey": GREY},
            "judges": judges,
        }

    def __call__(self, items: Sequence[Item], first: int) -> Iterator[list[Row]]:
        """See `jobs.workers.Process`."""
        for number, done in enumerate(stream(items, _load, self._compute, 1, 1), first):
            if done.error is not None:
                yield failed(done.item, number, done.error)
            else:
                yield [self._row(done, number)]

    def _compute(self, sources: list[Source]) -> list[Made]:
        return [self.enhance(source.image) for source in sources]

    def enhance(self, image: np.ndarray) -> Made:
        """(3, H, W) uint8, enhanced."""
        networks, steps = self.load(), []
        colourfulness, made = chroma(image), image
        if "colour" in networks and colourfulness < GREY:
            made = networks["colour"](made)
            steps.append(networks["colour"].facts())
        if "upscale" in networks:
            made = networks["upscale"](made)
            steps.append(networks["upscale"].facts())
        judged: dict[str, float] = {}
        if steps and "age" in networks:
            age: AgeJudge = networks["age"]
            judged["age_before"], judged["age_after"] = (float(age.ask(_one(each))["age"][0]) for each in (image, made))
        if steps and "identity" in networks:
            identity: IdentityJudge = networks["identity"]
            judged["identity"] = float((identity.embed(_one(image)) * identity.embed(_one(made))).sum())
        return Made(made, colourfulness, steps, judged)

    def _row(self, done: Done[Item, Made], number: int) -> Row:
        made, source = done.results[0], done.notes
        row: Row = {"input": done.item.name, "row": number, "sha256": source.sha256, "chroma": made.chroma}
        if not made.steps:  # to colour, and it has its colours: the original serves
            return row | {"coloured": False}
        place = self.folder / f"part-{number // SHARD:06d}" / f"{number:06d}{FORMATS[self.format]}"
        data = encode(made.image, self.format)
        with whole(place) as beside:
            beside.write_bytes(data)
        digest = hashlib.sha256(data)
        height, width = made.image.shape[1:]
        coloured = made.steps[0]["step"] == Colourer.kind
        sidecar = place.with_suffix(".json")
        write_json(
            sidecar,
            {
                "source": {"name": done.item.name, "sha256": source.sha256.hex(), "chroma": made.chroma},
                "picture": {"name": place.name, "sha256": digest.hexdigest(), "width": width, "height": height},
                "steps": made.steps,
                "judged": made.judged,
                "versions": {"python": platform.python_version()}
                | {name: version(name) for name in ("mien", "torch", "spandrel")},
                "synthetic": "detail, and colours where it was coloured, are invented by networks",
            },
        )
        inside = {"picture": place, "sidecar": sidecar}
        return (
            row
            | {name: path.relative_to(self.folder).as_posix() for name, path in inside.items()}
            | {"picture_sha256": digest.digest(), "width": width, "height": height, "coloured": coloured}
            | made.judged
        )


def enhance(
    work: Enhancing, items: Items, *, crops: bool = False, engine: Engine | None = None, show: bool = True
) -> Job:
    """Enhance all `items` as a resumable job and return it, finished.

    The folder then holds `enhanced.parquet` (which picture was made of which), the pictures with their sidecars, and
    where the inputs are one manifest, that manifest as `faces.parquet` with the columns `enhanced` and
    `enhanced_sha256`, which `data.picture` of a recipe reads.

    Args:
        crops: the pictures that are no manifest's are face crops as the judge of age learnt from.

    Raises:
        MienError: weights that do not load; photos, or crops of another kind, before a judge of faces.
    """
    spare_manifest(work.folder, Job.RECORD)
    networks = work.load()
    if "age" in networks:
        if not crops and len(items.manifests) < len(items.parts):
            raise MienError(
                "--judge judges face crops; name a manifest, or say with --crops that these pictures are some"
            )
        for manifest in items.manifests:
            for judge in (networks["age"], networks.get("identity")):
                if judge is not None:
                    judge.check(manifest)
    job = Job(work.folder, "enhance", {"inputs": items.hash(), **work.facts()}, len(items), shard=SHARD)
    job.run(items, work, COLUMNS, failed=failed, engine=engine, show=show)
    if first_rank():
        job.join(FILE, COLUMNS)
        if len(items.parts) == 1 and isinstance(items.parts[0], ManifestItems):
            _pair(items.parts[0].manifest, job)
    return job


def _pair(faces: Manifest | Slices, job: Job) -> None:
    """The manifest of the originals, with the enhanced picture of each beside it."""
    rows = job.rows()
    with whole(job.folder / MANIFEST) as beside, SlicesWriter(beside, job.folder) as writer:
        for start in range(0, len(faces), TOGETHER):
            part = faces.slice(start, min(start + TOGETHER, len(faces)))
            mine = list(islice(rows, len(part)))
            pictures, hashes = ([one[name] for one in mine] for name in ("picture", "picture_sha256"))
            writer.write(with_enhanced(part, pictures, hashes, job.folder))


def summary(job: Job, resamples: int = 1000) -> dict[str, Any]:
    """What became of a finished job's inputs: counts, failures, and the mean change that judges saw, with intervals
    over persons where the inputs are one manifest's.

    `age_change` is judged age after less before, `age_moved` its absolute value, in years; `identity` the cosine.
    """
    counts = dict.fromkeys(("pictures", "enhanced", "coloured", "grey"), 0)
    failures: list[dict[str, Any]] = []
    changes: list[float] = []
    cosines: list[float] = []
    judged: list[int] = []
    for number, row in enumerate(job.rows()):
        counts["pictures"] += 1
        counts["enhanced"] += row["picture"] is not None
        counts["coloured"] += bool(row["coloured"])
        counts["grey"] += row["chroma"] is not None and row["chroma"] < GREY
        if row["error"] is not None:
            failures.append({"input": row["input"], "reason": row["error"]})
        if row["age_before"] is not None:
            changes.append(row["age_after"] - row["age_before"])
            judged.append(number)
            if row["identity"] is not None:
                cosines.append(row["identity"])
    found: dict[str, Any] = {**counts, "failed": failures}
    if changes:
        groups = np.arange(counts["pictures"])
        if (job.folder / MANIFEST).is_file():
            groups = Slices(job.folder).slice(0, counts["pictures"], ["group"]).groups()
        change, boot = np.array(changes), Bootstrap(groups[judged], resamples)
        found["age_change"], found["age_moved"] = average(boot, change), average(boot, np.abs(change))
        if cosines:
            found["identity"] = average(boot, np.array(cosines))
    return found


def average(boot: Bootstrap, values: np.ndarray) -> Estimate:
    """The mean of values (N,), with its interval."""
    return boot.estimates({"mean": lambda weights: mean(values, weights)})["mean"]


def failed(item: Item, number: int, reason: str) -> list[Row]:
    """The row of an input that cannot be enhanced."""
    return [{"input": item.name, "row": number, "error": reason}]


def _load(item: Item) -> Loaded[Source]:
    source = Source(*item.identified())
    return Loaded([source], source)


def _one(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image))[None]
