"""The engine of every bulk command: a job is one resumable pass over a sequence of inputs.

Its output is Parquet shards that appear whole: a finished one is never done again, an unfinished one never read. What
a shard holds depends on its inputs alone, so a job that was killed, or shared by many workers, ends with the bytes of
an unbroken one.
"""

from __future__ import annotations

import json
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mien.data.manifest import FILE as MANIFEST
from mien.errors import MienError
from mien.files import alone, to_json, whole, write_json
from mien.jobs.workers import Elsewhere, Engine, Here, Lost, Process, Row, StoppedError
from mien.progress import Progress

Input = TypeVar("Input")
#: What stands in the table for an input that cannot be processed: (input, its number, the reason) to its rows.
Failed = Callable[[Any, int, str], list[Row]]

#: Inputs lost one after another before a job gives up: what ails it is not one picture.
GIVE_UP = 20
#: Inputs asked for one by one after a loss: as many as a worker may have had in hand.
SUSPECTS = 256
#: Seconds between two looks at what the other ranks have finished.
LOOK = 0.5


def first_rank() -> bool:
    """Whether this process tells what came of a job: under torchrun all others have done their share when it ran."""
    return _rank() == 0


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


class OtherJobError(MienError):
    """The folder holds a job that was asked for otherwise, whole or broken off."""


class Job:
    """A resumable pass over a sequence of inputs: a folder with `_job.json` and Parquet shards.

    Args:
        folder: where it lives; made when the job first runs.
        kind: which command it is.
        facts: what decides its output: the hash of its inputs, of the model, the parameters; JSON-able.
        total: number of inputs.
        shard: inputs in one shard. A broken job does at most one shard a worker again.

    Raises:
        OtherJobError: the folder holds another job, or this one with other facts; the message says which.
        MienError: it holds shards of no job, or a damaged record.
    """

    #: What reads a folder of Parquet files, pandas say, passes over names that begin so.
    RECORD, LOCK = "_job.json", "_job.lock"

    def __init__(self, folder: str | Path, kind: str, facts: Mapping[str, Any], total: int, shard: int = 2048) -> None:
        self.folder = Path(folder)
        self.total = total
        self.shard = shard
        # As it will be read back: a tuple is a list there.
        self.record = json.loads(to_json({"kind": kind, "total": total, "shard": shard, **facts}))
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
        # One that failed before its first shard, on what the user has since mended, has nothing to lose.
        if changed and {file.name for file in self.folder.iterdir()} - {self.RECORD, self.LOCK}:
            news = "; ".join(_changed(key, there.get(key), here.get(key)) for key in changed)
            raise OtherJobError(
                f"{self.folder} holds another job: {news}; choose another folder (-o), or remove this one to begin anew"
            )

    def path(self, number: int) -> Path:
        """The file of one shard."""
        return self.folder / f"part-{number:06d}.parquet"

    def files(self, number: int) -> Path:
        """The folder of the files that go with one shard, where there are any: each whole, there before the shard."""
        return self.folder / f"part-{number:06d}"

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
        process: Process[Input],
        schema: Any,
        *,
        failed: Failed | None = None,
        engine: Engine | None = None,
        unit: str = "pictures",
        show: bool = True,
    ) -> None:
        """Do what is not done yet.

        Under torchrun each rank does its share of the shards, and rank 0 returns when all are there; the others return
        when theirs are, and leave what comes after to it (`first_rank`).

        Args:
            items: the inputs; only the slices of the shards in work are asked for.
            process: gets the inputs of a shard and the number of the first, and yields the rows of each; batches never
                reach across shards.
            schema: the rows' `pyarrow.Schema`.
            failed: the rows of an input that made `process` raise, hang or crash; without it such an exception ends
                the job.
            engine: who does the work; this process by default.

        Raises:
            OtherJobError: the folder has got another job meanwhile.
            MienError: another process writes here; or nothing but failures comes.
        """
        engine = engine or Engine()
        rank, ranks = _rank(), int(os.environ.get("WORLD_SIZE", 1))
        if rank:
            self._await_record()
            mine = [number for number in self.pending() if number % ranks == rank]
            self._share(items, process, schema, failed, engine, mine, Progress(0, unit, show=False))
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder / self.LOCK) as held:
            if not held:
                raise MienError(f"{self.folder}: another process writes this job; wait for it, or take another folder")
            self._check()  # again: since it was made, another may have written its own and ended
            write_json(self.folder / self.RECORD, self.record)
            if ranks == 1:
                for left in self.folder.glob(".part-*"):  # of a killed writer
                    left.unlink()
            pending = self.pending()
            for left in (file for number in pending if ranks == 1 for file in self.files(number).glob(".*")):
                left.unlink()
            with Progress(self.total, unit, self.record["kind"], show) as progress:
                progress.skip(self.total - sum(self._size(number) for number in pending))
                if engine.name == "ray":
                    from mien.jobs.cluster import run_on_ray

                    do = partial(self._do_slice, items, schema, failed)
                    for number in run_on_ray(do, process, engine, pending):
                        progress.advance(self._size(number))
                else:
                    mine = [number for number in pending if number % ranks == 0]
                    self._share(items, process, schema, failed, engine, mine, progress)
                    self._await_others(progress)

    def rows(self) -> Iterator[Row]:
        """The rows of a finished job, in the order of the inputs, one shard in memory at a time."""
        for table in self.tables():
            yield from table.to_pylist()

    def tables(self, schema: Any = None) -> Iterator[Any]:
        """The shards of a finished job as Arrow tables, one after another; with `schema`, its columns.

        Raises:
            MienError: one of them is damaged: they appear whole, but disks fail.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in map(self.path, range(self.shards)):
            try:
                yield pq.read_table(path, schema=schema)
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno:  # the system's word: it is gone, or may not be read
                    raise
                raise MienError(
                    f"{path} is damaged: {' '.join(str(error).split())}; remove it, and the same command does its "
                    "part again"
                ) from None

    def join(self, name: str, schema: Any) -> None:
        """Write all shards of a finished job as one table `name` in its folder, one shard in memory at a time."""
        import pyarrow.parquet as pq

        with whole(self.folder / name) as beside, pq.ParquetWriter(beside, schema, compression="zstd") as writer:
            for table in self.tables(schema):
                writer.write_table(table)

    def _do_slice(
        self, items: Sequence[Input], schema: Any, failed: Failed | None, number: int, worker: Here | Elsewhere
    ) -> None:
        self.do_shard(number, self.slice(items, number), worker, schema, failed)

    def do_shard(
        self,
        number: int,
        items: Sequence[Input],
        worker: Here | Elsewhere,
        schema: Any,
        failed: Failed | None,
        advance: Callable[[], None] = lambda: None,
    ) -> None:
        """Write one shard from its inputs.

        When a worker is lost, the inputs it may have been lost on are asked for one by one until the culprit is
        found; that one gets the rows of `failed`, and all others their own.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows: list[Row] = []
        first, done = number * self.shard, 0
        alone = 0  # how many more to ask for one by one
        while done < len(items):
            part = items[done : done + 1] if alone else items[done:]
            try:
                for found in worker.ask(part, first + done):
                    rows.extend(found)
                    done, worker.lost = done + 1, 0
                    advance()
                alone = max(alone - 1, 0)
            except Lost as loss:
                if failed is None:
                    raise loss.__cause__ or RuntimeError(str(loss)) from None
                if alone or len(part) == 1:
                    rows.extend(failed(items[done], first + done, str(loss)))
                    done, worker.lost, alone = done + 1, worker.lost + 1, 0
                    advance()
                    if worker.lost == GIVE_UP:
                        raise MienError(
                            f"{GIVE_UP} inputs in a row failed, the last with: {loss}; what is done stays in "
                            f"{self.folder}, and the same command goes on once this is put right"
                        ) from loss
                else:
                    alone = SUSPECTS
        with whole(self.path(number)) as beside:
            pq.write_table(pa.Table.from_pylist(rows, schema), beside, compression="zstd")

    def _share(
        self,
        items: Sequence[Input],
        process: Process[Input],
        schema: Any,
        failed: Failed | None,
        engine: Engine,
        numbers: list[int],
        progress: Progress,
    ) -> None:
        """Do the shards of `numbers`, with as many workers as the engine has."""
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in numbers:
            waiting.put(number)
        stop, lock = threading.Event(), threading.Lock()
        workers: list[Here | Elsewhere] = []

        def advance() -> None:
            if stop.is_set():
                raise StoppedError
            with lock:
                progress.advance()

        def work() -> None:
            worker = engine.worker(process)
            workers.append(worker)
            try:
                while not stop.is_set():
                    try:
                        number = waiting.get_nowait()
                    except queue.Empty:
                        return
                    self.do_shard(number, self.slice(items, number), worker, schema, failed, advance)
            except StoppedError:
                return
            except BaseException:
                stop.set()  # the other workers end after the input they are at
                raise
            finally:
                worker.close()

        if engine.workers < 2:
            work()
            return
        with ThreadPoolExecutor(engine.workers, thread_name_prefix="mien-job") as pool:
            try:
                for future in [pool.submit(work) for _ in range(engine.workers)]:
                    future.result()
            except BaseException:  # Ctrl-C reaches this thread alone
                stop.set()
                for worker in workers:  # one may hang at its input
                    worker.end()
                raise

    def slice(self, items: Sequence[Input], number: int) -> Sequence[Input]:
        """The inputs of one shard."""
        start = number * self.shard
        return items[start : start + self._size(number)]

    def _size(self, number: int) -> int:
        return min(self.shard, self.total - number * self.shard)

    def _await_record(self) -> None:
        """Another rank than 0 begins when rank 0 has taken the folder."""
        while not (self.folder / self.RECORD).exists():
            time.sleep(LOOK)
        self._check()

    def _await_others(self, progress: Progress) -> None:
        before = len(self.pending())
        while before:
            time.sleep(LOOK)
            now = len(self.pending())
            progress.advance(min((before - now) * self.shard, self.total))
            before = now


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, `parameters.batch` and so on."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _changed(key: str, was: Any, now: Any) -> str:
    """In words; of what is known by its hash alone there is nothing to see but that it is other."""
    hashed = all(isinstance(one, str) and re.fullmatch("[0-9a-f]{64}", one) for one in (was, now))
    return f"{key.removesuffix('.sha256')}: not the same" if hashed else f"{key} was {was}, is {now}"


def spare_manifest(folder: Path, mark: str) -> None:
    """Pass when a manifest may be written to `folder`: none is there, or one that lies beside `mark`, which the job
    that wrote it leaves there.

    Raises:
        MienError: a data set's manifest would be lost.
    """
    if (folder / MANIFEST).exists() and not (folder / mark).exists():
        raise MienError(
            f"{folder} holds the manifest of a data set, which would be replaced; choose another folder with -o"
        )
