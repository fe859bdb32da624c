"""One renderer over the faces: what the judges say of each face at each age. Computed once, kept in a file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.errors import MienError
from mien.evaluation.ageing.judges import KEPT, Judges
from mien.evaluation.ageing.sample import Faces, Truth
from mien.evaluation.ageing.shown import Shown
from mien.files import to_json, whole
from mien.metrics import image
from mien.metrics.identity import cosine
from mien.metrics.landmarks import eye_centre_distance
from mien.progress import Progress

#: Decibels that stand for equal pictures, whose ratio of signal to noise is infinite.
EQUAL = 99.0
#: Arrays by name. Of a pass: (N, A) figures of each face at each age, `own/...` (N,) of each at its own age,
#: `embedding` (N, A, E) float16, `strips` (K, A, 3, S, S) uint8 of the faces shown, `ms` and `mib`, NaN where unknown.
Arrays = dict[str, np.ndarray]
#: What reading a file may raise that is not there, or is damaged in one way or another.
DAMAGED = (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def kept(file: Path, facts: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """What `make` gives, from `file` where it lies there already for the same `facts`; the file appears whole."""
    told = to_json(facts, None)
    try:
        with np.load(file, allow_pickle=False) as found:
            if str(found["facts"]) == told:
                # A zip file's checksums hold for what its parts hold, not for what they are called.
                return {name: found[name] for name in found["names"].tolist()}
    except DAMAGED:
        pass  # it is made anew
    arrays = make()
    assert all(values.dtype != object for values in arrays.values()), "such an array is a pickle and is never read"
    with whole(file) as beside, open(beside, "wb") as stream:
        np.savez_compressed(stream, facts=np.array(told), names=np.array(list(arrays)), **arrays)  # type: ignore[arg-type]
    return arrays


def run_pass(
    shown: Shown,
    faces: Faces,
    ages: np.ndarray,
    judges: Judges,
    strips: np.ndarray,
    truth: Truth | None = None,
    device: str = "cpu",
    show: bool = True,
) -> Arrays:
    """Render the faces at `ages` (A,), batch by batch, and judge; `strips` (K,) are rows whose pictures are kept."""
    keys = faces.manifest.strings("sha256")
    parts: list[Arrays] = []
    pictures: dict[int, np.ndarray] = {}
    one: torch.Tensor | None = None
    loader = faces.loader()
    with Progress(len(faces), "faces", shown.name, show) as progress:
        for batch in loader.epoch():
            rows, images = batch.index.numpy(), batch.images.to(device).contiguous()
            made = shown.pictures(keys[rows], images, faces.ages[rows], ages)
            part = _judged(made, images, faces, rows, judges)
            again = shown.again(keys[rows], images, faces.ages[rows])
            if again is not None:
                part |= _own(again, images, faces, rows, judges)
            if truth is not None:
                part["truth"] = _from_truth(made, truth, rows, ages)
            parts.append(part)
            for place, row in enumerate(rows.tolist()):
                if row in strips:
                    pictures[row] = made[place].cpu().numpy()
            one = images[0] if one is None else one
            progress.advance(len(rows))
    if loader.rejected or one is None:
        reason = next(iter(loader.rejected.values()), "there is none")
        raise MienError(f"a given face could be read before and cannot now: {reason}; put it back, and call again")
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    cost = {name: np.array(np.nan if value is None else value) for name, value in shown.cost(one).items()}
    return found | cost | {"strips": np.stack([pictures[row] for row in strips.tolist()])}


def _judged(made: torch.Tensor, images: torch.Tensor, faces: Faces, rows: np.ndarray, judges: Judges) -> Arrays:
    """What is said of renders (B, A, 3, S, S) of the pictures (B, 3, S, S) of `rows`."""
    count = made.shape[1]
    said = {name: values.reshape(len(rows), count, *values.shape[1:]) for name, values in
            judges.look(made.flatten(0, 1)).items()}  # fmt: skip
    apart = (made.float() - images[:, None].float()).abs().mean(dim=2).cpu().numpy() / 255
    away = faces.outside(rows)[:, None]
    found: Arrays = {
        "age": said["age"],
        "changed": apart.mean(axis=(2, 3)),
        "outside": (apart * away).sum(axis=(2, 3)) / away.sum(axis=(2, 3)),
    }
    for name in KEPT:
        if name in said:
            found[f"{name}_kept"] = (said[name] == faces.seen[name][rows, None]).astype(np.float64)
    if "embedding" in said:
        given = np.broadcast_to(faces.seen["embedding"][rows, None], said["embedding"].shape)
        found["cosine"] = cosine(given, said["embedding"])
        found["embedding"] = said["embedding"].astype(np.float16)
    if "points" in said:
        given = faces.seen["points"][rows]
        moved = np.linalg.norm(said["points"] - given[:, None], axis=3).mean(axis=2)
        found["points_moved"] = moved / eye_centre_distance(given)[:, None]
    return found


def _own(again: torch.Tensor, images: torch.Tensor, faces: Faces, rows: np.ndarray, judges: Judges) -> Arrays:
    """What is said of renders (B, 3, S, S) at the faces' own ages."""
    said = judges.look(again)
    made, given = (part.cpu().numpy() / np.float32(255) for part in (again, images))
    found: Arrays = {
        "own/age": said["age"],
        "own/l1": image.l1(made, given),
        "own/psnr": np.minimum(image.psnr(made, given), EQUAL),
        "own/ssim": image.ssim(made, given),
    }
    if "embedding" in said:
        found["own/cosine"] = cosine(faces.seen["embedding"][rows], said["embedding"])
    if judges.identity is not None and judges.identity.perceptual is not None:
        with torch.inference_mode():
            found["own/perceptual"] = judges.identity.perceptual(again, images).cpu().numpy()
    return found


def _from_truth(made: torch.Tensor, truth: Truth, rows: np.ndarray, ages: np.ndarray) -> np.ndarray:
    """The mean absolute difference of each render from the face as it truly is at that age, (B, A), of 1; NaN beyond
    100 years, which are not drawn."""
    pictures = made.cpu().numpy()
    drawn = [truth.pictures(row, ages.tolist()) for row in rows.tolist()]
    apart = np.stack([np.abs(a.astype(np.int16) - b).mean(axis=(1, 2, 3)) / 255 for a, b in
                      zip(pictures, drawn, strict=True)])  # fmt: skip
    return np.where(ages > 100, np.nan, apart)
