"""What is audited: a renderer at work, or the pictures that `mien render` made of the same faces."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mien.data.align import require_view
from mien.data.manifest import Manifest
from mien.data.pictures import decode, resize
from mien.data.renders import FILE, open_renders
from mien.errors import MienError
from mien.faces import Crop
from mien.memory import peak
from mien.models.age_flow import AgeFlow
from mien.models.estimator import fingerprint
from mien.models.renderer import Renderer, renderer_hash
from mien.progress import wait_for

#: Ages rendered when the time of ten renders is taken, and how often.
TEN, REPEATS = tuple(float(age) for age in range(5, 96, 10)), 5


class Shown(Protocol):
    """Faces at ages, by whatever made them. `kind` says what that is; `hash` tells it from others."""

    name: str
    kind: str
    hash: str

    def check(self, manifest: Manifest) -> None:
        """Refuse faces of another crop than the renderer learnt from."""
        ...

    def available(self, manifest: Manifest, ages: np.ndarray) -> np.ndarray:
        """Which faces of the manifest can be shown at all `ages`, (N,) bool."""
        ...

    def pictures(self, keys: np.ndarray, images: Tensor, own: np.ndarray, ages: np.ndarray) -> Tensor:
        """Faces (B, 3, S, S) uint8 at `ages` (A,): (B, A, 3, S, S) uint8. `keys` (B,) are the sha256 of their stored
        bytes, `own` their ages."""
        ...

    def again(self, keys: np.ndarray, images: Tensor, own: np.ndarray) -> Tensor | None:
        """The faces at their own ages, (B, 3, S, S) uint8; None where that was not rendered."""
        ...

    def cost(self, image: Tensor) -> dict[str, float | None]:
        """Milliseconds of ten renders of one face (3, S, S), MiB of memory they take; None where it cannot be told."""
        ...


class Live:
    """A renderer at work. With `told` it is given the labelled age of the face, and an age flow the labels that it was
    told of faces, as `mien render` never does."""

    def __init__(self, renderer: Renderer, kind: str, told: bool = False, device: str = "cpu") -> None:
        assert isinstance(renderer, nn.Module)
        self.renderer, self.kind, self.told, self.device = renderer, kind, told, device
        self.name = renderer.name
        self.labels: dict[bytes | None, Tensor] = {}
        renderer.eval().to(device)
        self.hash = fingerprint(nn.Identity(), {"renderer": renderer_hash(renderer), "kind": kind, "told": told})
        self.parameters = sum(parameter.numel() for parameter in renderer.parameters())

    def check(self, manifest: Manifest) -> None:
        """See `Shown.check`."""
        require_view(manifest.crop, self.renderer.crop, f"for {self.name}: {manifest.path or 'the manifest'}")
        if self.told and isinstance(self.renderer, AgeFlow):
            labels = self.renderer.labels_of(manifest.columns(self.renderer.settings.told))
            if labels is not None:
                self.labels = dict(zip(manifest.strings("sha256").tolist(), labels, strict=True))

    def available(self, manifest: Manifest, ages: np.ndarray) -> np.ndarray:
        """Every face can be rendered."""
        return np.ones(len(manifest), dtype=bool)

    @torch.inference_mode()
    def pictures(self, keys: np.ndarray, images: Tensor, own: np.ndarray, ages: np.ndarray) -> Tensor:
        """See `Shown.pictures`."""
        return self._render(keys, images, np.tile(ages, (len(images), 1)), own)

    @torch.inference_mode()
    def again(self, keys: np.ndarray, images: Tensor, own: np.ndarray) -> Tensor | None:
        """See `Shown.again`."""
        return self._render(keys, images, own[:, None], own)[:, 0]

    def _render(self, keys: np.ndarray, images: Tensor, ages: np.ndarray, own: np.ndarray) -> Tensor:
        asked = torch.as_tensor(ages, dtype=torch.float32, device=images.device)
        told = torch.as_tensor(own, dtype=torch.float32, device=images.device) if self.told else None
        if self.labels and isinstance(self.renderer, AgeFlow):
            labels = torch.stack([self.labels[key] for key in keys.tolist()]).to(images.device)
            made = self.renderer.render(images, asked, told, labels).float().clamp(0, 1)
        else:
            made = self.renderer.render(images, asked, told).float().clamp(0, 1)
        return (made * 255).round().to(torch.uint8)

    @torch.inference_mode()
    def cost(self, image: Tensor) -> dict[str, float | None]:
        """See `Shown.cost`."""
        faces, ages = image[None], torch.tensor([TEN], device=image.device)
        with peak(image.device) as memory:
            self.renderer.render(faces, ages)
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            self.renderer.render(faces, ages)
            wait_for(image.device)
            times.append(time.perf_counter() - started)
        return {"ms": 1e3 * float(np.median(times)), "mib": memory.mib}


class Stored:
    """The renders of `mien render`, found by the hash of the face's stored picture.

    Args:
        path: the folder that `mien render -o` made.
    """

    kind = "renders"

    def __init__(self, path: str | Path) -> None:
        table, about, self.folder = open_renders(path)
        model = about.get("model") or {}
        self.name, self.crop = str(model.get("name") or Path(path).name), Crop.from_dict(about["crop"])
        # A face that was found in a picture and cut out anew is another crop than the manifest's.
        self._places = {
            (row["sha256"], round(row["age"], 3)): row["picture"]
            for row in table.select(["sha256", "age", "picture", "left"]).to_pylist()
            if row["picture"] is not None and row["left"] is None
        }
        if not self._places:
            raise MienError(
                f"{self.folder / FILE}: no face was rendered as it is stored, all were found and cut anew; give mien "
                "render the manifest, or --crops"
            )
        # Judges' answers are kept by this hash: pictures may be replaced, and two folders be of one model or of none.
        files = [(*key, picture, _stamp(self.folder / picture)) for key, picture in self._places.items()]
        self.hash = fingerprint(nn.Identity(), {"model": model, "pictures": files})

    def check(self, manifest: Manifest) -> None:
        """See `Shown.check`."""
        require_view(manifest.crop, self.crop, f"for the renders of {self.name}: {manifest.path or 'the manifest'}")

    def available(self, manifest: Manifest, ages: np.ndarray) -> np.ndarray:
        """See `Shown.available`.

        Raises:
            MienError: not one face is there at all ages.
        """
        keys = manifest.strings("sha256")
        there = np.array([all((key, round(float(age), 3)) in self._places for age in ages) for key in keys], dtype=bool)
        if not there.any():
            raise MienError(
                f"{self.folder / FILE}: not one face of {manifest.path or 'the manifest'} is rendered at all of "
                f"{', '.join(f'{age:g}' for age in ages)}; mien render it at these --ages first"
            )
        return there

    def pictures(self, keys: np.ndarray, images: Tensor, own: np.ndarray, ages: np.ndarray) -> Tensor:
        """See `Shown.pictures`."""
        side = images.shape[-1]
        made = [
            resize(decode((self.folder / self._places[key, round(float(age), 3)]).read_bytes()), side)
            for key in keys
            for age in ages
        ]
        return torch.from_numpy(np.stack(made)).unflatten(0, (len(keys), len(ages))).to(images.device)

    def again(self, keys: np.ndarray, images: Tensor, own: np.ndarray) -> Tensor | None:
        """None: `mien render` asks for the same ages of every face."""
        return None

    def cost(self, image: Tensor) -> dict[str, float | None]:
        """Nothing was rendered here."""
        return {"ms": None, "mib": None}


def _stamp(path: Path) -> tuple[int, int] | None:
    """What tells a picture from one that replaces it, unread: there may be thousands. None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def is_renders(path: str | Path) -> bool:
    """Whether `path` is a folder of renders, or the table in it."""
    place = Path(path)
    return (place / FILE).is_file() or (place.name == FILE and place.is_file())


def open_shown(what: str, told: bool = False, device: str = "cpu", aim: str | None = None) -> Live | Stored:
    """A renderer (a run, a checkpoint, a shipped one), or the folder of renders `what`; `aim` names an estimator of
    ages by which the renderer is `Aimed`.

    Raises:
        MienError: there is no such renderer or estimator, or it cannot be aimed.
    """
    if is_renders(what):
        if aim is not None:
            raise MienError(f"{what}: renders that are there cannot be aimed; name a renderer, or leave --aim out")
        return Stored(what)
    from mien.models.aimed import Aimed
    from mien.models.checkpoint import load_estimator, load_renderer

    renderer: Renderer = load_renderer(what, device)
    if aim is not None:
        renderer = Aimed(renderer, load_estimator(aim, device))
    return Live(renderer, type(renderer).__name__, told, device)


def describe(shown: Shown) -> dict[str, Any]:
    """What is told of it in the record."""
    return {
        "name": shown.name,
        "kind": shown.kind,
        "hash": shown.hash,
        "parameters": getattr(shown, "parameters", None),
    }
