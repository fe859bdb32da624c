"""The job engine at scale: killed and taken up again, shared, over a million rows.

    python benchmarks/jobs.py kills [--faces 200000] [--times 5] [--ray]
    python benchmarks/jobs.py memory [--faces 100000 1000000]
    python benchmarks/jobs.py overhead [--faces 1000] [--rounds 5]

A manifest of any length names the same few drawn faces again and again. `kills` and `memory` read every picture and
write its mean colours, so that their time is the engine's and the reader's: a job killed now and then ends with the
rows and bytes of an unbroken one, and with `--ray` one on Ray Data does too; `memory` is the peak of the whole process
over each number of rows. `overhead`: the shipped model through a job against the bare loop over the same decoded faces.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mien.data.manifest import Manifest
from mien.data.prepare import prepare
from mien.data.sources.drawn import DrawnSource
from mien.files import to_json
from mien.jobs.engine import Job
from mien.jobs.inputs import Item, expand
from mien.jobs.workers import choose_engine

#: Different pictures that the long manifests name.
PICTURES = 256
SCHEMA = pa.schema([("row", pa.int64()), ("input", pa.string()), *((name, pa.float32()) for name in ("r", "g", "b"))])


@dataclass
class Colours:
    """The work: each picture's mean colours."""

    def __call__(self, items: Sequence[Item], first: int) -> Iterator[list[dict[str, Any]]]:
        for row, item in enumerate(items, first):
            r, g, b = item.read().mean((1, 2)).tolist()
            yield [{"row": row, "input": item.name, "r": r, "g": g, "b": b}]


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


def kills(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Kill a job at random moments, take it up again, and compare with one that was left alone."""
    count = (given.faces or [200_000])[0]
    faces = long_manifest(scratch, count)
    unbroken = run(faces, scratch / "whole")
    moments, left = random.Random(0), []
    for _ in range(given.times):
        process = subprocess.Popen(command(faces, scratch / "killed"), stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # it begins to work now
        time.sleep(moments.uniform(0, 1.5) * unbroken["seconds"] / given.times)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left.append(len(shards(scratch / "killed")))
    run(faces, scratch / "killed")
    whole = shards(scratch / "whole")
    result: dict[str, Any] = {
        "faces": count,
        "rows": rows(scratch / "killed"),
        "seconds of the unbroken job": unbroken["seconds"],
        "shards": len(whole),
        "shards at each kill": left,
        "same bytes": shards(scratch / "killed") == whole,
    }
    if given.ray:
        run(faces, scratch / "ray", "ray")
        result["ray: same bytes"] = shards(scratch / "ray") == whole
    return result


def memory(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Peak memory of a process that runs a whole job, at each number of rows."""
    result: dict[str, Any] = {}
    for count in given.faces or [100_000, 1_000_000]:
        result[f"{count:,} rows"] = run(long_manifest(scratch / str(count), count), scratch / f"job-{count}")
    peaks = [one["peak MB"] for one in result.values()]
    return result | {"last / first": peaks[-1] / peaks[0]}


def overhead(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The time of a job less that of the bare network and its reading, in rounds that take turns.

    Seconds are the processor's: on a machine that does other things too the clock's tell of those.
    """
    import torch

    from mien.jobs.predict import load

    torch.set_num_threads(1)
    count = (given.faces or [1000])[0]
    faces = long_manifest(scratch, count, size=112)
    model = load(None, "cpu")
    items = expand([faces])
    asking = model.asking(items, crops=True)
    times: dict[str, list[float]] = {"bare": [], "job": []}
    for round_ in range(given.rounds):
        started = time.process_time()
        for first in range(0, count, 64):
            images = [asking._load(item).parts[0].image for item in items[first : first + 64]]
            model.estimator.predict(torch.from_numpy(np.stack(images)))
        times["bare"].append(time.process_time() - started)
        started = time.process_time()
        asking.job(scratch / f"job-{round_}", items, show=False)
        times["job"].append(time.process_time() - started)
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


def command(faces: Path, out: Path, engine: str = "local") -> list[str]:
    """What runs a whole job in a process of its own; it says when it begins, and at its end what it took."""
    return [sys.executable, __file__, "worker", str(faces), str(out), engine]


def run(faces: Path, out: Path, engine: str = "local") -> dict[str, Any]:
    """Run a whole job in a process of its own; its seconds, rows a second and peak of memory."""
    done = subprocess.run(command(faces, out, engine), check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def worker(faces: str, out: str, engine: str) -> None:
    """Run a whole job here."""
    items = expand([faces])
    job = Job(out, "colours", {"inputs": items.hash()}, len(items))
    print("{}", flush=True)
    started = time.perf_counter()
    job.run(items, Colours(), SCHEMA, engine=choose_engine(engine, 1 if engine == "ray" else 0), show=False)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "rows/s": len(items) / seconds, "peak MB": peak()}))


def peak() -> float:
    """The most memory that this process held, MB; Linux tells. (What getrusage tells has the parent's peak in it.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def shards(folder: Path) -> dict[str, bytes]:
    """The finished shards of a job."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def rows(folder: Path) -> int:
    """How many rows a job has written."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("part-*"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
