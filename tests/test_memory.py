"""What a process does with its memory, and the peak of a piece of work."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from mien.memory import keep_freed, peak

#: Prints whether memory is kept, and how often the system handed out a page while 64 MiB were made and freed anew.
WORK = """
import resource, sys
import numpy as np
from mien.memory import keep_freed

kept = keep_freed() if sys.argv[1] == "keep" else False
np.ones(8 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(8 << 20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(what: str, **more: str) -> tuple[bool, int]:
    there = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRE"))}
    done = subprocess.run(
        [sys.executable, "-c", WORK, what], env=there | more, capture_output=True, text=True, check=True
    )
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    kept, few = pages("keep")
    assert kept
    _, many = pages("leave")
    # The system may hand out large pages, each then for 512 small ones.
    assert few < many / 4


def test_what_the_environment_says_of_memory_holds() -> None:
    assert pages("keep", MALLOC_MMAP_MAX_="65536")[0] is False


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed() is False


def test_the_peak_of_memory_is_seen_where_the_system_tells_it() -> None:
    with peak(torch.device("cpu")) as found:
        block = np.ones(8 << 20)  # 64 MiB
        del block
    assert found.mib is None or found.mib == pytest.approx(64, abs=8)


def test_on_several_cards_the_one_that_works_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    for name in ("synchronize", "reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device=None: asked.append(device) or 5 << 20)  # type: ignore[func-returns-value]
    with peak(torch.device("cuda:1")) as found:
        pass
    assert found.mib == 0
    assert asked == [torch.device("cuda:1")] * 5
