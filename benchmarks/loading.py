"""Faces a second from disk to batch: `python benchmarks/loading.py FACES [--preset faces] [--size 112]`.

FACES is a manifest or its folder. Prints faces/s without and with workers, best of three passes, and what
each operation costs a face in CPU time, which suffers less than wall time from other work on the machine.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import torch

from mien.data.loading import AHEAD, FaceLoader
from mien.data.manifest import Manifest
from mien.data.transforms import AugmentSettings, Chance, augment, face_seed

BATCH = 64
PASSES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces")
    parser.add_argument("--preset", default="faces")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=40, help="batches of 64 faces in a pass")
    given = parser.parse_args()
    torch.set_num_threads(1)
    manifest = Manifest.open(given.faces)
    settings = AugmentSettings.model_validate(given.preset)
    print(f"{len(manifest):,} faces, {given.size} px, preset {given.preset}, {os.cpu_count()} cores")
    for workers in (0, 1, 2):
        faces_a_second(manifest, given.size, settings, workers, given.steps)
    each_operation(manifest, given.size, settings)


def faces_a_second(manifest: Manifest, size: int, settings: AugmentSettings, workers: int, steps: int) -> None:
    """Time batches of one epoch after the first ones, which start the workers and empty their queue."""
    loader = FaceLoader(manifest, {}, size, BATCH, augment=settings, workers=workers)
    warm = 2 + (AHEAD + 1) * workers
    steps = min(steps, (len(loader) - warm) // PASSES)
    if steps < 1:
        raise SystemExit(f"{len(manifest)} faces are too few to time; take {(warm + PASSES) * BATCH} at least")
    stream = loader.epoch()
    for _ in range(warm):
        next(stream)
    rates = []
    for _ in range(PASSES):
        begun = time.perf_counter()
        count = sum(len(next(stream)) for _ in range(steps))
        rates.append(count / (time.perf_counter() - begun))
    print(f"{workers} workers: {max(rates):7,.0f} faces/s (of {', '.join(f'{rate:,.0f}' for rate in rates)})")


def each_operation(manifest: Manifest, size: int, settings: AugmentSettings, count: int = 256) -> None:
    """CPU time of reading, of the preset, and of each operation on top of a plain window."""
    table = manifest.take(np.arange(min(count, len(manifest))))
    pictures, paths, archives = manifest.pictures(), table.strings("path"), table.strings("archive")
    seeds = [face_seed(0, 0, row) for row in range(len(table))]

    def read() -> list[np.ndarray]:
        return [pictures.image(path, archive) for path, archive in zip(paths, archives, strict=True)]

    images = read()

    def cost(chosen: AugmentSettings) -> float:
        return least(lambda: augment(images, None, seeds, size, chosen)) / len(images)

    window = AugmentSettings.model_validate({"scale": {"probability": 1}})
    reading, plain, preset = least(read) / len(images), cost(window), cost(settings)
    print(f"\nCPU time a face: {1e6 * (reading + preset):.0f} us")
    print(f"{'read and decode':18} {1e6 * reading:5.0f} us")
    print(f"{'the preset':18} {1e6 * preset:5.0f} us, of which a window without more {1e6 * plain:.0f} us")
    print("\noperation      us when it happens   us a face in the preset")
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        chance = isinstance(value, Chance)
        probability = value.probability if chance else value
        on = value.model_copy(update={"probability": 1.0}) if chance else 1.0
        extra = cost(window.model_copy(update={name: on})) - plain
        print(f"{name:12} {1e6 * extra:20.0f} {1e6 * extra * probability:25.0f}")


def least(work: Callable[[], object], times: int = 5) -> float:
    """The least CPU seconds of a few runs in this process."""
    found = []
    for _ in range(times):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found)


if __name__ == "__main__":
    main()
