"""The job engine at scale: killed and taken up again, shared, over a million rows.

    python benchmarks/jobs.py kills [--faces 200000] [--times 5] [--ray]
    python benchmarks/jobs.py memory [--faces 100000 1000000]
    python benchmarks/jobs.py overhead [--faces 2000] [--rounds 5]

All ask about drawn faces a small network of random weights (`test_convnext`, 32 px) or, for `overhead`, the shipped
model; a manifest of any length names the same few pictures again and again. `kills`: a job killed now and then ends
with the bytes of an unbroken one; with `--ray` one on Ray Data does too. `memory`: the peak of the whole process over
each number of rows. `overhead`: the shipped model through a job against the bare loop over the same decoded faces.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from mien.data.manifest import Manifest
from mien.data.prepare import prepare
from mien.data.sources.drawn import DrawnSource
from mien.files import to_json
from mien.jobs.inputs import expand
from mien.jobs.predict import load
from mien.models.checkpoint import save_estimator
from mien.models.estimator import ModelSettings, build_estimator
from mien.tasks.face import TasksSettings

#: Different pictures that the long manifests name.
PICTURES = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("kills", "memory", "overhead", "worker"))
    parser.add_argument("--faces", type=int, nargs="+")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("rest", nargs="*")
    given = parser.parse_args()
    if given.what == "worker":
        worker(*given.rest)
        return
    with tempfile.TemporaryDirectory() as scratch:
        found = {"kills": kills, "memory": memory, "overhead": overhead}[given.what](given, Path(scratch))
    print(to_json(found))


def kills(given: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """Kill a job at random moments, take it up again, and compare with one that was left alone."""
    count = (given.faces or [200_000])[0]
    faces, model = long_manifest(scratch, count), small_model(scratch)
    seconds = run(faces, model, scratch / "whole")
    moments = random.Random(0)
    for _ in range(given.times):
        process = subprocess.Popen(command(faces, model, scratch / "killed"))
        time.sleep(moments.uniform(0.2, 0.9) * seconds / given.times)
        process.send_signal(signal.SIGKILL)
        process.wait()
    run(faces, model, scratch / "killed")
    result: dict[str, object] = {
        "faces": count,
        "killed": given.times,
        "seconds": seconds,
        "same bytes": shards(scratch / "killed") == shards(scratch / "whole"),
    }
    if given.ray:
        run(faces, model, scratch / "ray", "ray")
        result["ray: same bytes"] = shards(scratch / "ray") == shards(scratch / "whole")
    return result


def memory(given: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """Peak memory of a process that runs a whole job, at each number of rows."""
    model, result = small_model(scratch), {}
    for count in given.faces or [100_000, 1_000_000]:
        faces = long_manifest(scratch / str(count), count)
        report = scratch / f"{count}.json"
        run(faces, model, scratch / f"job-{count}", report=report)
        result[f"{count:,} rows"] = json.loads(report.read_text())
    return result


def overhead(given: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """The time of a job less that of the bare network and its reading, in rounds that take turns."""
    count = (given.faces or [2000])[0]
    faces = long_manifest(scratch, count, size=112)
    model = load(None, "cpu")
    items = expand([faces])
    asking = model.asking(items, crops=True)
    times: dict[str, list[float]] = {"bare": [], "job": []}
    for round_ in range(given.rounds):
        started = time.perf_counter()
        for first in range(0, count, 64):
            images = [asking._load(item).parts[0].image for item in items[first : first + 64]]
            model.estimator.predict(torch.from_numpy(np.stack(images)))
        times["bare"].append(time.perf_counter() - started)
        started = time.perf_counter()
        asking.job(scratch / f"job-{round_}", items, show=False)
        times["job"].append(time.perf_counter() - started)
    ratios = np.array(times["job"]) / np.array(times["bare"])
    return {
        "faces": count,
        "seconds": times,
        "job / bare": {"median": float(np.median(ratios)), "all": ratios.tolist()},
    }


def long_manifest(folder: Path, count: int, size: int = 32) -> Path:
    """A manifest of `count` rows that names `PICTURES` drawn faces again and again."""
    prepare(DrawnSource(count=PICTURES, size=size), folder, folder / "drawn", show=False)
    drawn = Manifest.open(folder / "drawn")
    table = drawn.table.select(["path", "archive", "sha256", "width", "height"])
    repeated = table.take(pa.array(np.arange(count) % len(drawn)))
    Manifest(repeated, drawn.root, drawn.crop).save(folder / "drawn" / "long.parquet")
    return folder / "drawn" / "long.parquet"


def small_model(folder: Path) -> Path:
    """A checkpoint of a small network with random weights."""
    torch.manual_seed(0)
    crop = Manifest.open(long_manifest(folder / "model", PICTURES)).crop
    settings = ModelSettings(backbone="test_convnext", input_size=32)
    save_estimator(folder / "model" / "checkpoint", build_estimator(settings, TasksSettings(), crop))
    return folder / "model" / "checkpoint"


def command(faces: Path, model: Path, out: Path, engine: str = "local", report: Path | None = None) -> list[str]:
    """What runs a whole job in a process of its own."""
    return [sys.executable, __file__, "worker", *map(str, (faces, model, out, engine, report or ""))]


def run(faces: Path, model: Path, out: Path, engine: str = "local", report: Path | None = None) -> float:
    started = time.perf_counter()
    subprocess.run(command(faces, model, out, engine, report), check=True)
    return time.perf_counter() - started


def worker(faces: str, model: str, out: str, engine: str = "local", report: str = "") -> None:
    from mien.jobs.engine import choose_engine

    torch.set_num_threads(1)
    items = expand([faces])
    started = time.perf_counter()
    load(model, "cpu").asking(items, crops=True).job(
        out, items, engine=choose_engine(engine, 1 if engine == "ray" else 0)
    )
    if report:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        Path(report).write_text(json.dumps({"peak MB": peak, "faces/s": len(items) / (time.perf_counter() - started)}))


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
