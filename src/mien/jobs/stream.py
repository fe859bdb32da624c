"""Inputs in, results out, in order: pictures are decoded in threads while the model computes, a bounded number at
a time whatever their count."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

from mien.errors import MienError, PictureError

Input = TypeVar("Input")
Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(slots=True)
class Loaded(Generic[Part]):
    """One input made ready: the parts a model computes on (none, one or many), and what it need not see."""

    parts: list[Part]
    notes: Any = None


@dataclass(slots=True)
class Done(Generic[Input, Result]):
    """One input's results, one for each part; `error` says why there are none."""

    item: Input
    results: list[Result] = field(default_factory=list)
    notes: Any = None
    error: str | None = None


def stream(
    items: Iterable[Input],
    load: Callable[[Input], Loaded[Part]],
    compute: Callable[[list[Part]], Sequence[Result]],
    batch: int,
    threads: int = 2,
) -> Iterator[Done[Input, Result]]:
    """Yield the results of `items`, each once, in their order.

    `load` runs in `threads` background threads, or with 0 of them in the caller's; a `PictureError` there
    becomes the error of its input. `compute` runs in the caller's thread on full batches of `batch` parts,
    filled across inputs; the last one may be smaller. At most two batches of inputs are loaded ahead.

    Raises:
        MienError: a batch of nothing.
    """
    if batch < 1:
        raise MienError(f"a batch of {batch}: expected 1 or more")
    waiting: deque[Done[Input, Result]] = deque()  # loaded, not all of their results are there
    missing: deque[int] = deque()  # how many results each of `waiting` lacks
    parts: list[Part] = []
    owners: list[Done[Input, Result]] = []

    def flush() -> None:
        results = compute(parts)
        if len(results) != len(parts):
            raise RuntimeError(f"the model gave {len(results)} results for a batch of {len(parts)}")
        for owner, result in zip(owners, results, strict=True):
            owner.results.append(result)
        parts.clear()
        owners.clear()

    def ready() -> Iterator[Done[Input, Result]]:
        while waiting and len(waiting[0].results) == missing[0]:
            missing.popleft()
            yield waiting.popleft()

    for item, get in _ahead(items, load, threads, 2 * batch):
        try:
            loaded = get()
        except PictureError as error:
            waiting.append(Done(item, error=" ".join(str(error).split())))
            missing.append(0)
        else:
            done: Done[Input, Result] = Done(item, notes=loaded.notes)
            waiting.append(done)
            missing.append(len(loaded.parts))
            for part in loaded.parts:
                parts.append(part)
                owners.append(done)
                if len(parts) == batch:
                    flush()
        if parts and len(waiting) > 16 * batch:
            flush()  # one face, then thousands of photos without any: do not keep them all waiting
        yield from ready()
    if parts:
        flush()
    yield from ready()


def _ahead(
    items: Iterable[Input], load: Callable[[Input], Loaded[Part]], threads: int, ahead: int
) -> Iterator[tuple[Input, Callable[[], Loaded[Part]]]]:
    """Each item with what gives its load; in threads, at most `ahead` of them run at a time."""
    if threads == 0:
        yield from ((item, partial(load, item)) for item in items)
        return
    source = iter(items)
    stop = threading.Event()

    def guarded(item: Input) -> Loaded[Part]:
        if stop.is_set():  # the reader is gone: empty the queue at once
            raise PictureError("stopped")
        return load(item)

    with ThreadPoolExecutor(threads, thread_name_prefix="mien-load") as pool:
        try:
            queue = deque((item, pool.submit(guarded, item)) for item in islice(source, ahead))
            while queue:
                item, future = queue.popleft()
                yield item, future.result
                queue.extend((item, pool.submit(guarded, item)) for item in islice(source, 1))
        finally:
            stop.set()
