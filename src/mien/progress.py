"""Progress with rate and time left: a bar on a terminal, a plain line now and then in a log. How time is told."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
#: Seconds between two lines where standard error is no terminal.
LOG_EVERY = 15.0


class Progress:
    """Counts work done towards a total and shows it on standard error.

    >>> with Progress(3, "faces", show=False) as progress:
    ...     progress.advance(2)
    """

    def __init__(self, total: int | None, unit: str, label: str = "", show: bool = True) -> None:
        self.total = total
        self.unit = unit
        self.label = label or unit
        self.done = 0
        self.note = ""
        self._show = show
        self._bar: Any = None
        self._task: Any = None
        self._started = self._logged = 0.0
        self._first = 0

    def __enter__(self) -> Progress:
        self._started = self._logged = time.monotonic()
        if self._show and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, rate="", note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._show and self._logged > self._started:
            self._line()

    def skip(self, count: int) -> None:
        """Count work that an earlier, broken run has done; it does not enter the rate."""
        self._first += count
        self.advance(count)

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count `count` more; `note` is shown at the end of the line until the next one."""
        self.done += count
        if note is not None:
            self.note = note
        if not self._show:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=self.rate_text(), note=self.note)
        elif time.monotonic() - self._logged > LOG_EVERY:
            self._logged = time.monotonic()
            self._line()

    def tell(self, text: str) -> None:
        """Print a line that stays, beside what moves."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self._show:
            print(text, file=sys.stderr, flush=True)

    def rate(self) -> float:
        """Units a second since the start."""
        return (self.done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def rate_text(self) -> str:
        rate = self.rate()
        return f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.2g} {self.unit}/s"

    def _line(self) -> None:
        of = f"/{self.total:,}" if self.total is not None else ""
        left = ""
        if self.total is not None and self.done < self.total and self.rate() > 0:
            left = f", {clock((self.total - self.done) / self.rate())} left"
        note = f"  {self.note}" if self.note else ""
        print(f"{self.label}: {self.done:,}{of} ({self.rate_text()}{left}){note}", file=sys.stderr, flush=True)


def track(items: Iterable[T], total: int | None, unit: str, label: str = "", show: bool = True) -> Iterator[T]:
    """Yield `items`, counting each one."""
    with Progress(total, unit, label, show) as progress:
        for item in items:
            yield item
            progress.advance()


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was told to do: before, no clock has seen it."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def clock(seconds: float) -> str:
    """Seconds as people say them: `42 s`, `3 min 20 s`, `1 h 05 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
