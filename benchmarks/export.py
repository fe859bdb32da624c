"""What an exported file costs beside the network it came from: onnxruntime against mien on the same crops.

    python benchmarks/export.py [--model M] [--batches 1,64] [--threads N]

Both answer the same random pictures, ready in memory, with as many threads: mien as `Estimator.predict` (or
`AgeTransformer.render`) does, onnxruntime as a program without mien would. In one process, in turns, the median of the
pairs. Beside the clock stands processor time, which other processes on the machine disturb less. The first lines tell
how long writing the file took, its size, and how far its answers are from mien's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

#: Seconds that a turn takes at least.
TURN = 1.0


def now() -> np.ndarray:
    """Seconds by the clock, and of all processors together."""
    return np.array([time.perf_counter(), time.process_time()])


def cost(ask: Callable[[], object], faces: int) -> np.ndarray:
    """Milliseconds a face, by the clock and by processor time."""
    done, start = 0, now()
    while (spent := now() - start)[0] < TURN:
        ask()
        done += faces
    return 1000 * spent / done


def main() -> None:
    import onnxruntime
    import torch

    from mien.memory import keep_freed
    from mien.models.exported import graph_of, write_onnx

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--batches", default="1,64", help="faces asked at once, with commas")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    keep_freed()  # as the command line does
    torch.set_num_threads(given.threads)
    graph = graph_of(given.model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given.threads
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        made = write_onnx(graph, Path(folder) / "model.onnx")
        print(f"{made.facts['model']}: written and tried in {time.perf_counter() - start:.1f} s, {made.bytes:,} bytes")
        print("off mien's answers by at most " + ", ".join(f"{k} {v:.1e}" for k, v in made.differences.items()))
        session = onnxruntime.InferenceSession(str(made.path), options, providers=["CPUExecutionProvider"])
    for faces in map(int, given.batches.split(",")):
        inputs = graph.sample(faces, torch.Generator().manual_seed(0))
        arrays = {port.name: value.numpy() for port, value in zip(graph.inputs, inputs, strict=True)}
        sides = {
            "mien": lambda inputs=inputs: graph.expected(*inputs),
            "onnxruntime": lambda arrays=arrays: session.run(None, arrays),
        }
        print(f"batch {faces}: " + ", ".join(f"{name} {array.shape}" for name, array in arrays.items()))
        for ask in sides.values():  # the first pass allocates
            ask()
        pairs = []
        for turn in range(given.rounds):
            order = list(sides) if turn % 2 == 0 else list(reversed(sides))
            found = {side: cost(sides[side], faces) for side in order}
            pairs.append((found["mien"], found["onnxruntime"]))
        (ours, theirs), ratio = np.median(pairs, axis=0), np.median([a / b for a, b in pairs], axis=0)
        for way, unit in enumerate(("by the clock", "of processor time")):
            print(
                f"  mien {ours[way]:6.2f} ms, onnxruntime {theirs[way]:6.2f} ms a face {unit}: "
                f"{ratio[way]:.2f} times as fast (median of {given.rounds} pairs, {given.threads} threads)",
                flush=True,
            )


if __name__ == "__main__":
    main()
