"""The engine of every bulk command: inputs in, results out, in order; as a stream, or as a job that can be
resumed.

`stream` decodes in threads while the model computes, and holds a bounded number of pictures whatever their
count. `Job` writes what a stream gives as Parquet shards that appear whole: a finished one is never done
again, an unfinished one never read.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from mien.errors import MienError, PictureError
from mien.files import whole, write_json
from mien.progress import Progress

Input = TypeVar("Input")
Part = TypeVar("Part")
Result = TypeVar("Result")
Row = dict[str, Any]


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
    """
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


class Job:
    """A resumable pass over a sequence of inputs: a folder with `job.json` and Parquet shards.

    Args:
        folder: where it lives; made when the job first runs.
        kind: which command it is.
        facts: what decides its output: the hash of its inputs, of the model, the parameters; JSON-able.
        total: number of inputs.
        shard: inputs in one shard. A broken job does at most one shard again.

    Raises:
        MienError: the folder holds another job, or this one with other facts; the message says which.
    """

    RECORD = "job.json"

    def __init__(self, folder: str | Path, kind: str, facts: Mapping[str, Any], total: int, shard: int = 2048) -> None:
        self.folder = Path(folder)
        self.total = total
        self.shard = shard
        self.record = {"kind": kind, "total": total, "shard": shard, **facts}
        self._check()

    def _check(self) -> None:
        path = self.folder / self.RECORD
        if not path.exists():
            if self.folder.is_dir() and any(self.folder.glob("part-*.parquet")):
                raise MienError(f"{self.folder} holds shards but no {self.RECORD}; choose an empty folder")
            return
        try:
            there = _flat(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, AttributeError):
            raise MienError(f"{path} is damaged; remove {self.folder} or choose another folder") from None
        here = _flat(self.record)
        changed = [key for key in {**there, **here} if there.get(key) != here.get(key)]
        if changed:
            news = "; ".join(f"{key} was {there.get(key)}, is {here.get(key)}" for key in changed)
            raise MienError(
                f"{self.folder} holds another job: {news}; choose another folder, or remove this one to begin anew"
            )

    def path(self, number: int) -> Path:
        """The file of one shard."""
        return self.folder / f"part-{number:06d}.parquet"

    @property
    def shards(self) -> int:
        """How many shards make the whole."""
        return -(-self.total // self.shard)

    def pending(self) -> list[int]:
        """Numbers of the shards that are not there yet."""
        return [number for number in range(self.shards) if not self.path(number).exists()]

    def run(
        self,
        items: Sequence[Input],
        process: Callable[[Sequence[Input], int], Iterator[list[Row]]],
        schema: Any,
        unit: str = "pictures",
        show: bool = True,
    ) -> None:
        """Do what is not done yet.

        `process` gets the inputs of one shard and the number of the first, and yields the rows of each;
        batches never reach across shards, so a resumed job gives the same bytes as an unbroken one. `schema`
        is the rows' `pyarrow.Schema`.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        write_json(self.folder / self.RECORD, self.record)
        pending = self.pending()
        with Progress(self.total, unit, self.record["kind"], show) as progress:
            progress.skip(self.total - sum(self._size(number) for number in pending))
            for number in pending:
                rows: list[Row] = []
                first = number * self.shard
                for found in process(items[first : first + self._size(number)], first):
                    rows.extend(found)
                    progress.advance()
                with whole(self.path(number)) as beside:
                    pq.write_table(pa.Table.from_pylist(rows, schema), beside, compression="zstd")

    def _size(self, number: int) -> int:
        return min(self.shard, self.total - number * self.shard)

    def rows(self) -> Iterator[Row]:
        """The rows of a finished job, in the order of the inputs, one shard in memory at a time."""
        import pyarrow.parquet as pq

        for number in range(self.shards):
            yield from pq.read_table(self.path(number)).to_pylist()


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, `parameters.batch` and so on."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
