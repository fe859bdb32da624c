"""What the page answers, without the page: a picture goes in, rows and pictures come out."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.align import crop_face
from mien.data.detect import Detection, Detector, build_detector, shrink
from mien.data.pictures import decode, encode, resize
from mien.errors import MienError, PictureError
from mien.evaluation.locate import Locator, build_locator
from mien.faces import Crop
from mien.jobs.draw import draw_faces
from mien.jobs.inputs import expand
from mien.jobs.predict import Model, load, usable
from mien.jobs.prediction import NO_FACE
from mien.jobs.render import ages_from, rendering
from mien.jobs.strips import save_gif, save_png, synthetic
from mien.jobs.workers import Row
from mien.models.checkpoint import load_renderer
from mien.models.renderer import Renderer, strength_of, with_strength

#: The models that the page asks when none is named: together they tell all that the shipped ones have learnt.
MODELS = ("face-mobile", "face-affect")
#: What the checkbox of the page leaves out.
GROUPS = ("gender", "race")
#: Longest side in pixels of the photo with the faces drawn in: what a screen shows; models see the photo as it is.
DRAWN = 1600
#: Side in pixels of a face in the table, and of one on the page of ages.
THUMBNAIL, TILE = 112, 256
#: Ages and faces that the page renders at once; `mien render` knows no such limits.
AGES, FACES = 24, 6
#: Pages whose photo is in memory: the oldest is forgotten first.
OPEN = 16


@dataclass(frozen=True)
class Told:
    """What the models say of one photo.

    `rows` are those of `Prediction.to_row`, a face each from left to right, none where no face was found; `faces` a
    small picture (3, S, S) uint8 of each; `drawn` the photo (3, H, W) uint8 with frames and ages.
    """

    rows: list[Row]
    faces: list[np.ndarray]
    drawn: np.ndarray


@dataclass(frozen=True)
class Aged:
    """One face at other ages, as bytes of PNG files, `moving` of a GIF; all but `given` say that they are synthetic.

    `number` is its place among all faces of the photo, from 1 at the left.
    """

    number: int
    given: bytes
    pictures: list[bytes]
    strip: bytes
    moving: bytes
    aligned: bool


@dataclass(frozen=True)
class AgedPhoto:
    """The faces of one photo at `ages`; `found` is how many there are, `faces` the largest of them, from the left."""

    ages: list[float]
    found: int
    faces: list[Aged]


@dataclass(frozen=True)
class Service:
    """Models that are loaded once, and what finds and aligns the faces that they are asked about."""

    model: Model
    renderer: Renderer
    detector: Detector
    locator: Locator | None

    def tell(self, photo: np.ndarray, groups: bool = True) -> Told:
        """What the models say of the faces of `photo` (3, H, W) uint8; without `groups` gender and race are not asked.

        Raises:
            MienError: the photo cannot be looked at.
        """
        tasks = [task for task in self.model.tasks if groups or task not in GROUPS]
        told = self.model.predict(photo, detector=self.detector, tasks=tasks, landmarker=self.locator)
        if told[0].unreadable:
            raise unreadable(told[0].error)
        rows = [one.to_row() for one in told if one.error != NO_FACE]
        boxes = [np.array([row[side] for side in ("left", "top", "right", "bottom")]) for row in rows]
        small, factor = shrink(photo, DRAWN)
        drawn = [
            row | dict(zip(("left", "top", "right", "bottom"), (box * factor).tolist(), strict=True))
            for row, box in zip(rows, boxes, strict=True)
        ]
        small = small.transpose(2, 0, 1)
        return Told(
            rows,
            [crop_face(photo, box, Crop("box", 0.1, THUMBNAIL))[0] for box in boxes],
            # What shows nobody may have any shape, and drawing enlarges what is narrow.
            draw_faces(small, drawn) if rows else small,
        )

    @property
    def strength(self) -> float | None:
        """How much of the change the renderer shows by itself; None where there is no choice."""
        return strength_of(self.renderer)

    def age(self, photo: np.ndarray, ages: Sequence[float], strength: float | None = None) -> AgedPhoto:
        """The largest faces of `photo` (3, H, W) uint8 at `ages`, as `mien render` makes them, `--strength` included.

        Raises:
            MienError: ages that nobody has.
        """
        renderer = self.renderer
        if strength is not None and self.strength is not None:
            renderer = with_strength(renderer, strength)
        found = self.detector.detect(photo)
        largest = sorted(found, key=lambda face: -float(np.prod(face.box[2:] - face.box[:2])))[:FACES]
        numbers = [number for number, face in enumerate(found) if any(face is one for one in largest)]
        search = _Found(self.detector.name, [found[number] for number in numbers])
        items = expand(photo)
        question = rendering(renderer, items, ages, detector=search, landmarker=self.locator, device=self.model.device)
        # The job writes what it makes; what it wrote is gone when the answer is in memory.
        with tempfile.TemporaryDirectory(prefix="mien-serve-") as place:
            folder = Path(place)
            rows = [row for row in question.job(folder, items, show=False).rows() if row["error"] is None]
            faces = [rows[start : start + len(ages)] for start in range(0, len(rows), len(ages))]
            shown = [self._aged(folder, face, numbers[face[0]["face"]] + 1) for face in faces]
            return AgedPhoto(list(ages), len(found), shown)

    def _aged(self, folder: Path, rows: Sequence[Row], number: int) -> Aged:
        """One face, a row an age, from what the job wrote to `folder`."""
        ages = [row["age"] for row in rows]
        made = [_tile(folder / row["picture"]) for row in rows]
        pictures = []
        for row, image in zip(rows, made, strict=True):
            save_png(folder / row["picture"], image, synthetic(self.renderer.name, [row["age"]]))
            pictures.append((folder / row["picture"]).read_bytes())
        moving = folder / "moving.gif"
        save_gif(moving, np.stack(made), synthetic(self.renderer.name, ages))
        return Aged(
            number,
            encode(_tile(folder / rows[0]["source_picture"]), "PNG"),
            pictures,
            (folder / rows[0]["strip"]).read_bytes(),
            moving.read_bytes(),
            bool(rows[0]["aligned"]),
        )

    def beyond(self, ages: Sequence[float]) -> list[float]:
        """Those of `ages` that the renderer has seen nobody at."""
        youngest, oldest = self.renderer.ages
        return [age for age in ages if not youngest <= age <= oldest]

    def answering(self) -> list[dict[str, Any]]:
        """Name, tasks, figures and terms of each model that answers here, the last two as its card says them."""
        asked: list[tuple[Any, Iterable[str]]] = [
            (one, one.tasks) for one in (self.model.estimator, *self.model.beside)
        ]
        asked.append((self.renderer, ["other ages"]))
        if self.locator is not None:
            asked.append((self.locator.landmarker, ["landmarks"]))
        return [
            {
                "name": one.name,
                "tasks": list(tasks),
                "figures": one.card.get("figures", {}),
                "terms": one.card.get("terms", ""),
            }
            for one, tasks in asked
        ]


def load_service(
    models: Sequence[str] | None = None,
    renderer: str | None = None,
    detector: str = "cascade",
    device: str = "auto",
) -> Service:
    """Everything the page asks, loaded: by default `MODELS`, the shipped renderer and the shipped landmarker.

    Raises:
        MienError: there is no such model, detector or device.
    """
    where = usable(device)
    search = build_detector(detector)
    return Service(
        load(list(models or MODELS), where), load_renderer(renderer, where), search, build_locator("auto", where)
    )


class Photos:
    """The photos that pages show, as the bytes that were given, one a page; in memory alone, the oldest goes first."""

    def __init__(self) -> None:
        self._photos: OrderedDict[str, tuple[str, bytes]] = OrderedDict()

    def take(self, page: str, path: str) -> None:
        """Keep the file that `page` uploaded, in place of the one before.

        Raises:
            MienError: the file is gone.
        """
        before = self._photos.pop(page, None)
        try:
            data = Path(path).read_bytes()
        except OSError:
            # gradio may tell twice of one upload, and its file is deleted after the first answer.
            if before is None or before[0] != path:
                raise MienError("the photo is no longer here; choose it again") from None
            data = before[1]
        self._photos[page] = path, data
        while len(self._photos) > OPEN:
            self._photos.popitem(last=False)

    def forget(self, page: str) -> None:
        """`page` is closed, or shows no photo any more."""
        self._photos.pop(page, None)

    def photo(self, page: str) -> np.ndarray | None:
        """The photo of `page`, (3, H, W) uint8; None where there is none.

        Raises:
            MienError: it cannot be read; one sentence for people.
        """
        held = self._photos.get(page)
        if held is None:
            return None
        try:
            return decode(held[1])
        except PictureError as error:
            raise unreadable(str(error)) from None


def wanted_ages(text: str) -> list[float]:
    """The ages that were typed, by the rules of `mien render --ages`, but not more than the page shows.

    Raises:
        MienError: no ages, ages that nobody has, or too many.
    """
    ages = ages_from(text)
    if len(ages) > AGES:
        raise MienError(f"{len(ages):,} ages; expected at most {AGES} here; mien render --ages takes more")
    if not ages:
        raise MienError("no ages are given; expected FIRST:LAST:STEP such as 5:95:10, or some with commas: 20,40,60")
    return ages


def unreadable(reason: str | None) -> MienError:
    """The sentence for a picture that cannot be shown to a model."""
    return MienError(f"this picture cannot be read ({reason}); take a JPEG, PNG, WebP, TIFF, GIF, BMP or AVIF")


@dataclass
class _Found:
    """A detector that has looked already."""

    name: str
    detections: list[Detection]

    def detect(self, image: np.ndarray) -> list[Detection]:
        return self.detections


def _tile(path: Path) -> np.ndarray:
    """A square picture at the side that the page shows, or its own where that is smaller."""
    image = decode(path.read_bytes())
    return resize(image, min(TILE, image.shape[1]))
