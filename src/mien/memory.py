"""The process's memory: keeping it between steps, and how much of it a piece of work takes."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Linux tells a process's largest resident set here, and forgets it on a 5.
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
#: Parameters of glibc's `mallopt`, as malloc.h numbers them, and what each becomes: free memory is never given back
#: (-1 is the largest size there is), is taken 256 MiB at a time, and no tensor gets a mapping of its own.
MALLOPT = {"M_TRIM_THRESHOLD": (-1, -1), "M_TOP_PAD": (-2, 256 << 20), "M_MMAP_MAX": (-4, 0)}


def keep_freed() -> bool:
    """Let each step of a network use the memory of the last one; whether that was done.

    glibc gives every tensor above a few MiB back to the system when it is freed, and the system hands it out again page
    by page, cleared: two fifths of the time of a training step of MobileFaceNet on a processor, a third of an answer's.
    It holds for the whole process, whose memory then stays at its peak, so only the command line, training and the
    processes that mien starts do it. Nothing is done without glibc, nor where the environment says how memory is to be
    handed out (`MALLOC_...`, `GLIBC_TUNABLES`, or an allocator in `LD_PRELOAD`).
    """
    told = any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ)
    if told or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    done = [mallopt(parameter, value) for parameter, value in MALLOPT.values()]
    return all(done)


@dataclass
class Peak:
    """`mib` is set when the work is done; None where the system does not tell."""

    mib: float | None = None


@contextmanager
def peak(device: torch.device) -> Iterator[Peak]:
    """The largest amount of memory held inside, less what was held before: on CUDA allocations, on a processor the
    resident set. Where a processor's allocator still held freed memory it is a little too small."""
    import torch

    found = Peak()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        torch.cuda.synchronize(device)
        found.mib = (torch.cuda.max_memory_allocated(device) - before) / 2**20
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
