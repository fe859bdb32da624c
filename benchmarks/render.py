"""Ten ages in one pass against ten passes of the same AgeTransformer, side by side.

    python benchmarks/render.py [--sizes 64 128 256] [--faces 1] [--pairs 5] [--device cpu]

Rounds alternate, and the median of the paired ratios is what counts on a machine that others use too. Peak memory is
that of a fresh process that does the one thing, less what it held before: on CPU the resident set, on CUDA allocations.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

from mien.faces import Crop
from mien.memory import peak
from mien.models.age_transformer import ANCHORS, AgeTransformer, AgeTransformerSettings

#: The width that each size deserves.
WIDTHS = {32: 24, 64: 24, 128: 48, 256: 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--faces", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", choices=["one", "ten"], help="only print the peak memory of one way, in MiB")
    given = parser.parse_args()
    if given.peak:
        print(json.dumps(_peak(given.sizes[0], given.faces, given.device, given.peak)))
        return
    for size in given.sizes:
        network, images = _build(size, given.faces, given.device)
        ratios, ones, tens = [], [], []
        for pair in range(given.pairs + 1):
            ways = ("one", "ten") if pair % 2 else ("ten", "one")
            times = {way: _timed(network, images, way) for way in ways}
            if pair:  # the first pair warms up
                ratios.append(times["ten"] / times["one"])
                ones.append(times["one"])
                tens.append(times["ten"])
        peaks = {way: _peak_apart(size, given.faces, given.device, way) for way in ("one", "ten")}
        parameters = sum(parameter.numel() for parameter in network.parameters())
        print(
            f"{size} px, width {WIDTHS[size]}, {parameters / 1e6:.2f} M parameters, {given.faces} face(s), "
            f"{torch.get_num_threads()} threads, {given.device}: one pass {1e3 * statistics.median(ones):.0f} ms, ten "
            f"passes {1e3 * statistics.median(tens):.0f} ms; ratio {statistics.median(ratios):.2f} "
            f"[{min(ratios):.2f}, {max(ratios):.2f}] over {given.pairs} pairs; peak {peaks['one']:.0f} and "
            f"{peaks['ten']:.0f} MiB",
            flush=True,
        )


def _build(size: int, faces: int, device: str) -> tuple[AgeTransformer, torch.Tensor]:
    torch.manual_seed(0)
    settings = AgeTransformerSettings(size=size, width=WIDTHS[size])  # type: ignore[arg-type]
    network = AgeTransformer(settings, Crop("chip", 0.0, size)).eval().to(device)
    return network, torch.randint(0, 256, (faces, 3, size, size), dtype=torch.uint8, device=device)


@torch.inference_mode()
def _render(network: AgeTransformer, images: torch.Tensor, way: str) -> None:
    ages = torch.tensor(ANCHORS, device=images.device).expand(len(images), -1)
    for part in [ages] if way == "one" else ages.split(1, dim=1):
        network.render(images, part)


def _timed(network: AgeTransformer, images: torch.Tensor, way: str) -> float:
    if images.is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    _render(network, images, way)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _peak(size: int, faces: int, device: str, way: str) -> float:
    network, images = _build(size, faces, device)
    with peak(images.device) as memory:
        _render(network, images, way)
    return memory.mib if memory.mib is not None else float("nan")


def _peak_apart(size: int, faces: int, device: str, way: str) -> float:
    command = [sys.executable, __file__, "--sizes", str(size), "--faces", str(faces), "--device", device, "--peak", way]
    return float(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


if __name__ == "__main__":
    main()
