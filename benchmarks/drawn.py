"""Drawn faces a second on one core: `OMP_NUM_THREADS=1 python benchmarks/drawn.py [--size 112]`.

Counts CPU time, which suffers less than wall time from other work on the machine; each face's best of five.
"""

from __future__ import annotations

import argparse
import time

from mien.data.drawing.face import draw
from mien.data.sources.drawn import sample

PASSES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--faces", type=int, default=200)
    given = parser.parse_args()
    faces = [sample(0, number) for number in range(given.faces)]
    best, total = [float("inf")] * len(faces), 0.0
    for _ in range(PASSES):
        for number, factors in enumerate(faces):
            start = time.process_time()
            draw(factors, given.size)
            spent = time.process_time() - start
            best[number] = min(best[number], spent)
            total += spent
    mean = total / PASSES
    rates = f"{len(faces) / sum(best):.0f}/s at best, {len(faces) / mean:.0f}/s on average"
    print(f"{len(faces)} faces of {given.size} px: {rates}")


if __name__ == "__main__":
    main()
