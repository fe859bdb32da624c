"""Work for the tests of the engine, in a module that worker processes can import."""

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mien.errors import MienError, PictureError


@dataclass
class Squares:
    """Squares of numbers, a few at a time; some of them make it raise, hang or die."""

    raises: tuple[int, ...] = ()
    hangs: tuple[int, ...] = ()
    dies: tuple[int, ...] = ()
    mistaken: tuple[int, ...] = ()
    large: tuple[int, ...] = ()
    vast: tuple[int, ...] = ()
    full: tuple[int, ...] = ()
    seconds: float = 0.0

    def __call__(self, items: Sequence[int], first: int) -> Iterator[list[dict]]:
        for start in range(0, len(items), 4):
            batch = items[start : start + 4]
            time.sleep(self.seconds)
            for item in batch:  # a whole batch is in hand before its first row is given
                if item in self.raises:
                    raise ValueError(f"cannot square {item}")
                if item in self.mistaken:
                    raise MienError("no such weights")
                if item in self.large:
                    raise PictureError("too large to square")
                if item in self.full:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "picture.png")
                if item in self.vast:
                    raise MemoryError
                if item in self.hangs:
                    time.sleep(600)
                if item in self.dies:
                    os.kill(os.getpid(), signal.SIGKILL)
            yield from ([{"number": first + start + i, "value": float(item**2)}] for i, item in enumerate(batch))
