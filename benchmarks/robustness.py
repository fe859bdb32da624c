"""What a robustness audit costs beside the network and the corruptions themselves.

    python benchmarks/robustness.py FACES [--model M] [--split val] [--faces 800] [--kinds 15] [--severities 1,2,3,4,5]

Three times over the same faces and cells: the audit's passes (read, decode, corrupt, resize, batch, compute, decode,
write, and the clean and mirrored pass), the network's forward passes alone on batches ready in memory, and the
corruptions alone on pictures ready in memory. Prints one JSON object: seconds by the clock and of processor time,
`ratio` = passes / (forward + corruptions), to be at most 1.3, and `figures_s`, what bootstrap and page take besides.
Processor time is the fairer of the two where other processes use the machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np


def now() -> np.ndarray:
    """Seconds by the clock, and of all processors together."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--split", default="val")
    parser.add_argument("--faces", type=int, default=800)
    parser.add_argument("--kinds", type=int, default=15, help="corruptions, the first so many of the table")
    parser.add_argument("--severities", default="1,2,3,4,5")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()

    import torch

    from mien.data.corruptions import TABLE, corrupt
    from mien.data.manifest import Manifest
    from mien.data.pictures import resize
    from mien.evaluation.robustness.audit import stratified
    from mien.evaluation.robustness.cells import run_passes
    from mien.evaluation.robustness.degradation import judge_passes
    from mien.evaluation.robustness.subjects import Subjects
    from mien.jobs.predict import load

    asked = load(given.model, given.device)
    estimator, manifest = asked.estimator, Manifest.open(given.manifest)
    part = manifest.split(given.split)
    rows = stratified(part, given.faces, 0)
    names = list(TABLE)[: given.kinds]
    cells = [(name, int(severity)) for name in names for severity in given.severities.split(",")]
    subjects = Subjects(part.take(rows), estimator.crop, estimator.input_size)
    ready = [subjects.read(index) for index in range(len(rows))]
    inputs = torch.from_numpy(np.stack([resize(one.image, estimator.input_size) for one in ready]))
    batches = inputs.contiguous(memory_format=torch.channels_last).split(given.batch)

    def forward() -> None:
        with torch.inference_mode():
            for batch in batches:
                outputs = estimator(batch.to(asked.device))
            next(iter(next(iter(outputs.values())).values())).cpu()

    forward()  # the first one allocates
    with tempfile.TemporaryDirectory() as folder:
        start = now()
        passes = run_passes(
            estimator, manifest, given.split, rows, Path(folder), cells,
            identity=asked.hash(), device=asked.device, batch=given.batch, show=False,
        )  # fmt: skip
        whole = now() - start
    start = now()
    for _ in range(len(cells) + 2):
        forward()
    bare = now() - start
    start = now()
    for name, severity in cells:
        for one in ready:
            corrupt(one.image, name, severity, one.key, one.place)
    corruptions = now() - start
    start = now()
    judge_passes(passes, None)
    figures = now() - start
    clock, processor = whole / (bare + corruptions)
    told = {
        "faces": len(passes.clean),
        "cells": len(cells),
        "device": given.device,
        "threads": torch.get_num_threads(),
        "passes_s": whole.tolist(),
        "forward_s": bare.tolist(),
        "corruptions_s": corruptions.tolist(),
        "ratio": {"clock": float(clock), "processor": float(processor)},
        "figures_s": figures.tolist(),
        "corruption_ms": 1e3 * float(corruptions[1]) / (len(cells) * len(ready)),
        "forward_ms": 1e3 * float(bare[1]) / ((len(cells) + 2) * len(ready)),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
