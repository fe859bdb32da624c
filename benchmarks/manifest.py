"""How long a manifest of many faces takes to open and how much memory it holds.

    python benchmarks/manifest.py [--rows 1000000]

Aim: 1,000,000 rows in under a second and under 300 MB beyond what the imports take.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa


def write(folder: str, rows: int) -> None:
    """A manifest with every column but landmarks, paths of 40 characters in an archive a thousand faces."""
    from mien.data.manifest import Manifest
    from mien.faces import GENDERS, RACES, SPLITS, Crop

    rng = np.random.default_rng(0)
    age = rng.integers(0, 101, rows).astype(np.float32)
    table = pa.table({"path": pa.array([f"faces/{row // 1000:06d}/some_name_{row:012d}.jpg" for row in range(rows)])})
    manifest = Manifest(table, folder, Crop("chip", 0.0, 200)).with_columns(
        {
            "archive": pa.array([f"shard-{row // 1000:05d}.zip" for row in range(rows)]).dictionary_encode(),
            "sha256": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(32), rows, [None, pa.py_buffer(rng.bytes(32 * rows))]
            ),
            "width": np.full(rows, 200, np.int32),
            "height": np.full(rows, 200, np.int32),
            "age_low": age,
            "age_high": age,
            "gender": rng.integers(-1, len(GENDERS), rows),
            "race": rng.integers(-1, len(RACES), rows),
            "split": rng.integers(0, len(SPLITS), rows),
            "group": rng.integers(-1, rows // 2, rows),
            "source": pa.array(["utkface"] * rows).dictionary_encode(),
            **{f"{label}_from": pa.array(["given"] * rows).dictionary_encode() for label in ("age", "gender", "race")},
        }
    )
    manifest.save(folder)


def resident() -> float:
    """Memory this process holds now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(folder: str) -> None:
    """Open once, in a process that has done nothing else."""
    from mien.data.manifest import Manifest

    pa.array([1.0]).cast(pa.float32())  # Arrow's own start is no part of the measure
    before = resident()
    start, busy = time.perf_counter(), time.process_time()
    manifest = Manifest.open(folder)
    opened, busy = time.perf_counter() - start, time.process_time() - busy
    after = resident()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before
    start = time.perf_counter()
    manifest.columns(["age_low", "age_high", "gender", "race"])
    manifest.split("val")
    read = time.perf_counter() - start
    start = time.perf_counter()
    digest = manifest.hash
    hashed = time.perf_counter() - start
    result = {
        "rows": len(manifest),
        "open_s": round(opened, 3),
        "open_cpu_s": round(busy, 3),
        "memory_mb": round(after - before),
        "peak_mb": round(peak),
        "columns_and_split_s": round(read, 3),
        "hash_s": round(hashed, 3),
        "hash": digest[:12],
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for target, arguments in ((write, (folder, rows)), (measure, (folder,)), (measure, (folder,))):
            process = spawn.Process(target=target, args=arguments)
            process.start()
            process.join()


if __name__ == "__main__":
    main()
