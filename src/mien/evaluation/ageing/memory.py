"""How much memory a piece of work takes beyond what was held before it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

#: Linux tells a process's largest resident set here, and forgets it on a 5.
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """`mib` is set when the work is done; None where the system does not tell."""

    mib: float | None = None


@contextmanager
def peak(device: torch.device) -> Iterator[Peak]:
    """The largest amount of memory held inside, less what was held before: on CUDA allocations, on a processor the
    resident set. Where a processor's allocator still held freed memory it is a little too small."""
    found = Peak()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield found
        torch.cuda.synchronize()
        found.mib = (torch.cuda.max_memory_allocated() - before) / 2**20
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        FORGET.write_text("5")
        held = _kib("VmRSS")
    except OSError:
        held = None
    yield found
    largest = _kib("VmHWM")
    if held is not None and largest is not None:
        found.mib = max(0.0, (largest - held) / 2**10)


def _kib(name: str) -> float | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
