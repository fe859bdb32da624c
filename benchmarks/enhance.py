"""What enhancement does to faces: tiles against the whole picture, and x4's effect on judged age and identity.

    python benchmarks/enhance.py FACES --upscaler realesr-general-x4v3.safetensors --identity mobilefacenet.safetensors

FACES is a manifest (its split `val` is used). Tiles: pictures brought to 256 px, x4 in tiles of 96 against untiled, in
levels of 255. Effect: faces shrunk to `--side` px are judged as they were, shrunk, shrunk and enlarged x4 by bicubic
interpolation (the baseline), and shrunk and enlarged x4 by the network; the shrunk one and both enlarged ones are
compared with the face as it was. Intervals are bootstrapped by the manifest's groups.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from PIL import Image

from mien.data.manifest import Manifest
from mien.data.pictures import resize
from mien.enhance.networks import Upscaler
from mien.enhance.tiling import in_tiles
from mien.evaluation.ageing.judges import IdentityJudge, load_judge
from mien.metrics.bootstrap import Bootstrap
from mien.metrics.weighted import mean

#: Faces that go through a judge at once.
TOGETHER = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces")
    parser.add_argument("--upscaler", required=True)
    parser.add_argument("--identity", required=True)
    parser.add_argument("--judge", default="face-mobile")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--tiled", type=int, default=8, help="faces on which tiles are measured")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    faces = Manifest.open(options.faces).split("val")
    exact = np.flatnonzero(faces.numbers("age_low") == faces.numbers("age_high"))
    rows = np.random.default_rng(options.seed).permutation(exact)[: options.count]
    faces = faces.take(np.sort(rows))
    pictures = faces.pictures()
    images = [
        pictures.image(path, archive)
        for path, archive in zip(faces.strings("path"), faces.strings("archive"), strict=True)
    ]
    upscaler = Upscaler(options.upscaler, options.device)
    print(json.dumps({"tiles": tiles(upscaler, images[: options.tiled], options.device)}, indent=2), flush=True)
    began = time.perf_counter()
    made = effect(faces, images, upscaler, options.side, options.judge, options.identity, options.device)
    print(json.dumps({"effect": made, "seconds": round(time.perf_counter() - began)}, indent=2))


def tiles(upscaler: Upscaler, images: list[np.ndarray], device: str) -> dict[str, float]:
    """The largest difference of a pixel, in levels of 255, and the seconds of both."""
    worst, whole_seconds, tiled_seconds = 0.0, 0.0, 0.0
    for image in images:
        picture = torch.from_numpy(resize(image, 256).copy())[None].float().to(device) / 255
        start = time.perf_counter()
        whole = upscaler.untiled(picture)
        middle = time.perf_counter()
        tiled = in_tiles(upscaler.untiled, picture, upscaler.scale, 96, upscaler.field)
        whole_seconds, tiled_seconds = whole_seconds + middle - start, tiled_seconds + time.perf_counter() - middle
        worst = max(worst, 255 * float((tiled - whole).abs().max()))
    return {
        "faces": len(images),
        "field_of_view": upscaler.field,
        "largest_difference": round(worst, 3),
        "seconds_whole": round(whole_seconds / len(images), 2),
        "seconds_tiled": round(tiled_seconds / len(images), 2),
    }


def effect(
    faces: Manifest, images: list[np.ndarray], upscaler: Upscaler, side: int, judge: str, identity: str, device: str
) -> dict[str, object]:
    """Judged age and identity of each version of the faces."""
    age_judge, person = load_judge(judge, device), IdentityJudge(identity, device)
    age_judge.check(faces)
    small = [resize(image, side) for image in images]
    versions = {
        "as it was": images,
        f"{side} px": small,
        "bicubic x4": [bicubic(image, upscaler.scale * side) for image in small],
        "network x4": [upscaler(image) for image in small],
    }
    ages: dict[str, np.ndarray] = {}
    embedded: dict[str, np.ndarray] = {}
    for name, these in versions.items():
        batches = [stack(these[start : start + TOGETHER]) for start in range(0, len(these), TOGETHER)]
        ages[name] = np.concatenate([age_judge.ask(batch)["age"] for batch in batches])
        embedded[name] = np.concatenate([person.embed(batch) for batch in batches]).astype(np.float64)
    true = faces.numbers("age_low").astype(np.float64)
    boot = Bootstrap(faces.groups(), 1000)
    first, *others = versions
    strangers = (embedded[first] * np.roll(embedded[first], 1, axis=0)).sum(axis=1)
    columns = {"constant (median) MAE": np.abs(true - np.median(true)), "cosine of two persons": strangers}
    columns |= {f"{name}: MAE to the label": np.abs(ages[name] - true) for name in versions}
    for name in others:
        columns[f"{name}: judged age less that of {first}"] = ages[name] - ages[first]
        columns[f"{name}: the same, either way"] = np.abs(ages[name] - ages[first])
        columns[f"{name}: cosine to {first}"] = (embedded[name] * embedded[first]).sum(axis=1)
    for against in others[:-1]:
        last = others[-1]
        columns[f"{last} less {against}: judged age"] = ages[last] - ages[against]
        columns[f"{last} less {against}: MAE"] = np.abs(ages[last] - true) - np.abs(ages[against] - true)
        gain = columns[f"{last}: cosine to {first}"] - columns[f"{against}: cosine to {first}"]
        columns[f"{last} less {against}: cosine"] = gain
    for low, high in ((0, 19), (20, 39), (40, 59), (60, 120)):
        columns[f"aged {low}-{high}: {last} less bicubic x4, judged age"] = np.where(
            (true >= low) & (true <= high), ages[last] - ages["bicubic x4"], np.nan
        )
    found: dict[str, object] = {"n": len(images)}
    for name, values in columns.items():
        told = np.flatnonzero(~np.isnan(values))
        part = values[told]
        one = boot.estimates({"x": lambda weights, part=part: mean(part, weights)}, told)["x"]
        found[name] = f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}] n {one['n']}"
    return found


def bicubic(image: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def stack(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images))


if __name__ == "__main__":
    main()
