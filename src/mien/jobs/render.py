"""Rendering faces at other ages: photos, in which faces are found first, or face crops; as a resumable job."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mien.data.align import crop_face, crop_matrix, require_view
from mien.data.detect import Detection, Detector, build_detector, known_by
from mien.data.manifest import Manifest
from mien.data.pictures import decode, resize
from mien.data.renders import FILE, renders_schema
from mien.data.slices import Slices
from mien.errors import MienError
from mien.evaluation.locate import Locator, build_locator
from mien.faces import MAX_AGE, MIN_AGE, Crop
from mien.jobs.engine import Job, first_rank
from mien.jobs.inputs import Item, Items, ManifestItems
from mien.jobs.paste import paste
from mien.jobs.prediction import NO_FACE
from mien.jobs.stream import Done, Loaded, stream
from mien.jobs.strips import grid, save_gif, save_png, strip, synthetic
from mien.jobs.workers import Engine, Row
from mien.models.renderer import Renderer, renderer_hash, strength_of

#: A face is cut at the resolution of its photo, within the renderer's own side and this one.
LARGEST = 512
#: Inputs in one shard: what a broken job does again.
SHARD = 32
#: Ages that a range may name: ten a year.
MOST_AGES = 1201
#: Faces that a grid shows.
SHOWN = 24
GRID = "grid.png"


class Cut(NamedTuple):
    """A face as it is rendered: the crop (3, S, S) uint8; where it was cut from a photo, by what and how."""

    image: np.ndarray
    detection: Detection | None = None
    matrix: np.ndarray | None = None


class Source(NamedTuple):
    """What faces were cut from: the sha256 of the stored picture; the photo (3, H, W), where it is wanted again."""

    sha256: bytes
    photo: np.ndarray | None
    cuts: list[Cut]


@dataclass(frozen=True)
class Rendering:
    """One question to a renderer, checked: which ages, how pictures become crops, what is written."""

    renderer: Renderer
    ages: tuple[float, ...]
    device: torch.device
    crops: bool = False
    detector: Detector | None = None
    locator: Locator | None = None
    gif: bool = False
    paste: bool = False

    def hash(self) -> str:
        """See `renderer_hash`."""
        return renderer_hash(self.renderer)

    def job(self, folder: str | Path, items: Items, engine: Engine | None = None, show: bool = True) -> Job:
        """Render all `items` as a resumable job in `folder` and return it, finished; `engine` says who does the work.

        Pictures lie in a folder a shard, named by the input's number, the face and the age; `renders.parquet` tells
        what each is (`data/renders.py`). The same inputs, ages and weights give the same bytes.
        """
        model: dict[str, object] = {"name": self.renderer.name, "sha256": self.hash()}
        if (strength := strength_of(self.renderer)) is not None:
            model["strength"] = strength
        facts = {
            "model": model,
            "inputs": items.hash(),
            "parameters": {
                "ages": list(self.ages),
                "crops": self.crops,
                "detector": known_by(self.detector),
                "landmarker": None if self.locator is None else self.locator.hash(),
                "gif": self.gif,
                "paste": self.paste,
            },
        }
        job = Job(folder, "render", facts, len(items), shard=SHARD)
        about = {"model": model, "crop": self._crop(0).to_dict(), "ages": list(self.ages)}
        schema = renders_schema(about)
        work = _Work(self, job, _ages_of(items))
        job.run(items, work, schema, failed=work.failed, engine=engine, show=show)
        if first_rank():
            job.join(FILE, schema)
        return job

    def _crop(self, side: int) -> Crop:
        return Crop(self.renderer.crop.template, self.renderer.crop.margin, side)

    def _side(self, side: float) -> int:
        """The side at which a face of this side in its picture is rendered."""
        return min(max(round(side), self.renderer.input_size), max(LARGEST, self.renderer.input_size))

    def _load(self, item: Item) -> Loaded[Cut]:
        photo, digest = item.identified()
        if self.crops or item.cropped or self.detector is None:
            cuts = [Cut(resize(photo, self._side(min(photo.shape[1:]))))]
            return Loaded(cuts, Source(digest, None, cuts))
        cuts = []
        for found in self.detector.detect(photo):
            if self.locator is not None and found.points is None:
                found = self.locator.detection(photo, found)
            unit = crop_matrix(found.where, self._crop(100))
            side = self._side(100 / math.sqrt(abs(np.linalg.det(unit[:, :2]))))
            face, matrix = crop_face(photo, found.where, self._crop(side))
            cuts.append(Cut(face, found, matrix))
        return Loaded(cuts, Source(digest, photo if self.paste else None, cuts))

    @torch.inference_mode()
    def _compute(self, cuts: list[Cut]) -> list[np.ndarray]:
        # One face at a time, all its ages at once: what others are rendered beside it must not change a bit of it.
        made = []
        for cut in cuts:
            image = torch.from_numpy(np.ascontiguousarray(cut.image)[None]).to(self.device)
            ages = torch.tensor([self.ages], dtype=torch.float32, device=self.device)
            pictures = self.renderer.render(image, ages)[0]
            made.append((pictures.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
        return made

    def _rows(self, job: Job, number: int, done: Done[Item, np.ndarray], known: float | None) -> list[Row]:
        name = self.renderer.name
        row: Row = {"input": done.item.name, "row": number, "model": name, "source_age": known}
        if done.error is not None:
            return [row | {"error": done.error}]
        source: Source = done.notes
        row |= {"sha256": source.sha256}
        if not done.results:
            return [row | {"error": NO_FACE}]
        folder, place = job.files(number // job.shard), f"{number:06d}"
        pasted: list[str | None] = [None] * len(self.ages)
        if source.photo is not None:
            for which, age in enumerate(self.ages):
                photo = source.photo
                for cut, made in zip(source.cuts, done.results, strict=True):
                    if cut.matrix is not None:
                        photo = paste(photo, cut.image, made[which], cut.matrix)
                path = folder / f"{place}-photo-age-{_written(age)}.png"
                save_png(path, photo, synthetic(name, [age]))
                pasted[which] = _inside(job, path)
        rows = []
        for face, (cut, made) in enumerate(zip(source.cuts, done.results, strict=True)):
            about = row | {"face": face, "aligned": cut.detection is None or cut.detection.aligned}
            if cut.detection is not None:
                about |= dict(zip(("left", "top", "right", "bottom"), cut.detection.box.tolist(), strict=True))
            stem = f"{place}-{face}"
            given, all_ages, moving = (folder / f"{stem}-{what}" for what in ("given.png", "strip.png", "ages.gif"))
            save_png(given, cut.image, "the face as it was given to mien render: not synthetic")
            save_png(all_ages, strip(cut.image, made, self.ages), synthetic(name, self.ages))
            about |= {"source_picture": _inside(job, given), "strip": _inside(job, all_ages)}
            if self.gif:
                save_gif(moving, made, synthetic(name, self.ages))
                about["gif"] = _inside(job, moving)
            for age, picture, photo_of in zip(self.ages, made, pasted, strict=True):
                path = folder / f"{stem}-age-{_written(age)}.png"
                save_png(path, picture, synthetic(name, [age]))
                rows.append(about | {"age": age, "picture": _inside(job, path), "pasted": photo_of})
        return rows


@dataclass(frozen=True)
class _Work:
    """A shard's work: picklable, so that other processes can do it; `known` are the ages of the inputs."""

    rendering: Rendering
    job: Job
    known: list[float | None] | None

    def __call__(self, part: Sequence[Item], first: int) -> Iterator[list[Row]]:
        asked = self.rendering
        # Decoding takes little beside rendering, but finding a face in a photo does not.
        threads = 0 if asked.crops or asked.detector is None else 2
        for number, done in enumerate(stream(part, asked._load, asked._compute, 4, threads), first):
            yield asked._rows(self.job, number, done, self._age(number))

    def failed(self, item: Item, number: int, reason: str) -> list[Row]:
        """The row of an input that made the work raise, hang or crash."""
        return self.rendering._rows(self.job, number, Done(item, error=reason), self._age(number))

    def _age(self, number: int) -> float | None:
        return None if self.known is None else self.known[number]


def rendering(
    renderer: Renderer,
    items: Items,
    ages: Sequence[float],
    *,
    crops: bool = False,
    detector: str | Detector = "cascade",
    landmarker: str | Path | Locator | None = "auto",
    gif: bool = False,
    paste: bool = False,
    device: str | torch.device = "cpu",
) -> Rendering:
    """What `mien render` does, checked but not yet begun; the arguments are as in `jobs.predict.Model.predict`.

    Raises:
        MienError: ages that nobody has, crops that the model did not learn, `paste` without photos.
    """
    for manifest in items.manifests:
        require_view(manifest.crop, renderer.crop, str(manifest.path or "the manifest"))
    for age in ages:
        if not MIN_AGE <= age <= MAX_AGE:
            raise MienError(f"age {age:g} to render is outside {MIN_AGE}-{MAX_AGE} years")
    if not ages or len({_written(age) for age in ages}) < len(ages):
        told = ", ".join(f"{age:g}" for age in ages) or "none"
        raise MienError(f"ages to render: {told}; expected one or more, each once")
    photos = not crops and len(items.manifests) < len(items.parts)
    if paste and not photos:
        raise MienError("to paste a face back takes the photo that it is from; these inputs are crops")
    search: str | Detector | None = detector
    if isinstance(search, str):
        search = build_detector(search) if photos else None
    if not isinstance(landmarker, Locator):
        landmarker = build_locator(landmarker if photos else None, device)
    return Rendering(
        renderer,
        tuple(float(age) for age in ages),
        torch.device(device),
        crops,
        search,
        landmarker,
        gif,
        paste,
    )


def ages_from(text: str) -> list[float]:
    """Ages as they are written: `5:95:10` (first, last, step; the last one is in it) or `20,40,60`.

    Raises:
        MienError: neither.
    """
    try:
        if ":" not in text:
            return [float(word) for word in text.split(",") if word.strip()]
        first, last, step = (float(word) for word in text.split(":"))
    except ValueError:
        step = 0.0
    if not step > 0 or not math.isfinite(step) or not MIN_AGE <= first <= last <= MAX_AGE:
        raise MienError(
            f"ages {text!r}: expected FIRST:LAST:STEP such as 5:95:10, or some with commas such as 20,40,60, "
            f"within {MIN_AGE}-{MAX_AGE} years"
        )
    many = (last - first) / step + 1e-9 + 1  # infinite where the step is next to nothing
    if many >= MOST_AGES + 1:
        raise MienError(f"ages {text!r}: {many:,.0f} ages a face; expected {MOST_AGES} at most, take a larger step")
    return [first + step * place for place in range(int(many))]


def write_grid(job: Job) -> Path | None:
    """The strips of a finished job's first faces below each other, as `grid.png`; None where there is no face."""
    strips: dict[str, np.ndarray] = {}
    ages: list[float] = []
    name = ""
    for row in job.rows():
        if row["strip"] is None:
            continue
        if row["strip"] not in strips:
            if len(strips) == SHOWN:
                break
            strips[row["strip"]] = decode((job.folder / row["strip"]).read_bytes())
            ages, name = [], row["model"]
        ages.append(row["age"])
    if not strips:
        return None
    path = job.folder / GRID
    save_png(path, grid(list(strips.values())), synthetic(name, ages))
    return path


def _ages_of(items: Items) -> list[float | None] | None:
    """The age of each input, where a manifest knows it exactly."""
    if not items.manifests:
        return None
    known: list[float | None] = []
    for part in items.parts:
        if isinstance(part, ManifestItems):
            known += _exact(part.manifest)
        else:
            known += [None] * len(part)
    return known


def _exact(manifest: Manifest | Slices) -> list[float | None]:
    low, high = manifest.numbers("age_low"), manifest.numbers("age_high")
    return [float(a) if a == b else None for a, b in zip(low, high, strict=True)]


def _written(age: float) -> str:
    """An age in a file's name: three digits before the point, so that names sort by age."""
    years, _, part = f"{age:.6f}".rstrip("0").partition(".")
    return f"{int(years):03d}{'.' if part else ''}{part}"


def _inside(job: Job, path: Path) -> str:
    return path.relative_to(job.folder).as_posix()
