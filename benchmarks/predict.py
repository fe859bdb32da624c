"""What `predict` costs beside the bare model, and whether its memory stays flat.

    python benchmarks/predict.py [--model M] [--pictures FOLDER_OR_MANIFEST]

Throughput: 2,000 crops through `Asking.run` (read, decode, resize, batch, compute, decode, assemble) against the same
network's forward pass on the same batches, ready in memory; both in one process, in turns, the median of the pairs.
Beside the clock stands processor time, which other processes on the machine disturb less.
Memory: peak resident size of a process that writes a job of 2,000 crops, and of one of 20,000. Without --pictures the
crops are 200 px JPEGs of smooth noise, as heavy to decode as UTKFace's (about 8 kB each).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COUNT, MANY, BATCH = 2_000, 20_000, 64


def make_pictures(folder: Path, count: int) -> None:
    from PIL import Image, ImageFilter

    rng = np.random.default_rng(0)
    for number in range(count):
        noise = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
        smooth = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.2))
        smooth.save(folder / f"{number:05d}.jpg", quality=75)


def build(name: str | None, backbone: str):
    """The model asked for, or an untrained one with all three tasks: it costs the same."""
    from mien.faces import Crop
    from mien.jobs.predict import Model, load
    from mien.models.estimator import ModelSettings, build_estimator
    from mien.tasks.face import TasksSettings

    if name is not None:
        return load(name, "cpu")
    tasks = TasksSettings.model_validate({"gender": {}, "race": {}, "age": {}})
    return Model(build_estimator(ModelSettings(backbone=backbone), tasks, Crop("chip")))


def some(pictures: str, count: int):
    """The first `count` items of `pictures`, from the start again where there are fewer."""
    from mien.jobs.inputs import Items, expand

    items = expand(pictures)
    times, rest = divmod(count, len(items))
    parts = [*(items for _ in range(times)), items[:rest]]
    return Items(parts)


def now() -> np.ndarray:
    """Seconds by the clock, and of all processors together."""
    return np.array([time.perf_counter(), time.process_time()])


def throughput(model: str | None, backbone: str, pictures: str, rounds: int, count: int) -> None:
    import torch

    from mien.data.pictures import resize

    asked = build(model, backbone)
    items = some(pictures, count)
    asking = asked.asking(items, crops=True)
    side = asked.crop.size
    ready = [resize(item.read(2 * side), side) for item in items]
    batches = [torch.from_numpy(np.stack(ready[at : at + BATCH])) for at in range(0, count, BATCH)]

    def bare() -> np.ndarray:
        start = now()
        with torch.inference_mode():
            for batch in batches:
                asked.estimator(batch.to(asked.device))
        return count / (now() - start)

    def whole() -> np.ndarray:
        start = now()
        told = sum(len(found) for found in asking.run(items, BATCH))
        assert told == count
        return count / (now() - start)

    bare()  # the first pass allocates
    pairs = []
    for turn in range(rounds):
        one, other = (bare(), whole()) if turn % 2 == 0 else (whole(), bare())[::-1]
        pairs.append((one, other))
        clock, processor = other / one
        print(
            f"bare {one[0]:6.0f}/s   predict {other[0]:6.0f}/s   {clock:.1%} by the clock, "
            f"{processor:.1%} by processor time",
            flush=True,
        )
    clock, processor = np.median([other / one for one, other in pairs], axis=0)
    print(
        f"median of {rounds} pairs: predict reaches {clock:.1%} of the bare model by the clock, "
        f"{processor:.1%} by processor time ({torch.get_num_threads()} threads)"
    )


def job(model: str | None, backbone: str, pictures: str, count: int) -> None:
    """Write one job and print the peak resident size in MB."""
    asked = build(model, backbone)
    items = some(pictures, count)
    with tempfile.TemporaryDirectory() as folder:
        asked.asking(items, crops=True).job(folder, items, BATCH, show=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory(model: str | None, backbone: str, pictures: str) -> None:
    peaks = {}
    for count in (COUNT, MANY):
        command = [sys.executable, __file__, "--job", str(count), "--pictures", pictures, "--backbone", backbone]
        command += ["--model", model] if model else []
        peaks[count] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{count:,} crops: peak {peaks[count]:.0f} MB", flush=True)
    print(f"growth from {COUNT:,} to {MANY:,}: {peaks[MANY] / peaks[COUNT] - 1:+.1%}")


def main() -> None:
    from mien.memory import keep_freed

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--pictures")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=COUNT, help="crops of the throughput test")
    parser.add_argument(
        "--backbone", default="mobilefacenet", help="of the untrained model; test_resnet tests the rest fast"
    )
    parser.add_argument("--what", choices=["both", "throughput", "memory"], default="both")
    parser.add_argument("--job", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    keep_freed()  # as the command line does
    if given.job:
        job(given.model, given.backbone, given.pictures, given.job)
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.pictures is None:
            make_pictures(Path(folder), COUNT)
        pictures = given.pictures or folder
        if given.what != "memory":
            throughput(given.model, given.backbone, pictures, given.rounds, given.count)
        if given.what != "throughput":
            memory(given.model, given.backbone, pictures)


if __name__ == "__main__":
    main()
