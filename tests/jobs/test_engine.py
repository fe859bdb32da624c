"""Jobs that are broken off, changed, damaged, shared, and met by inputs that kill their workers."""

import errno
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mien.data.manifest import Manifest
from mien.data.slices import Slices
from mien.errors import MienError
from mien.faces import Crop, Face
from mien.jobs.engine import Job, OtherJobError
from mien.jobs.inputs import Item, ManifestItems
from mien.jobs.workers import Elsewhere, Engine, choose_engine

SCHEMA = pa.schema([("number", pa.int64()), ("value", pa.float64())])


def rows_of(items: Sequence[int], first: int) -> Iterator[list[dict]]:
    for number, item in enumerate(items, first):
        yield [{"number": number, "value": item / 3}] * (item % 3)


def parts_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def make(folder: Path, total: int = 50, **facts: object) -> Job:
    return Job(folder, "test", {"inputs": "abc", "parameters": {"batch": 8, **facts}}, total, shard=8)


def test_a_job_writes_all_rows_in_order(tmp_path: Path) -> None:
    job = make(tmp_path / "job")
    job.run(range(50), rows_of, SCHEMA, show=False)
    expected = [row for found in rows_of(range(50), 0) for row in found]
    assert list(job.rows()) == expected
    assert len(parts_of(tmp_path / "job")) == 7
    assert pq.read_schema(job.path(0)).equals(SCHEMA)


@pytest.mark.parametrize("broken_at", [0, 5, 8, 30, 49])
def test_a_broken_job_goes_on_to_the_same_bytes(tmp_path: Path, broken_at: int) -> None:
    whole = make(tmp_path / "whole")
    whole.run(range(50), rows_of, SCHEMA, show=False)

    def breaks(items: Sequence[int], first: int) -> Iterator[list[dict]]:
        for number, found in enumerate(rows_of(items, first), first):
            if number == broken_at:
                raise KeyboardInterrupt
            yield found

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "broken").run(range(50), breaks, SCHEMA, show=False)
    before = {name: (tmp_path / "broken" / name).stat().st_mtime_ns for name in parts_of(tmp_path / "broken")}
    assert len(before) == broken_at // 8  # finished shards are there, the broken one is not
    again = make(tmp_path / "broken")
    assert again.pending() == list(range(broken_at // 8, 7))
    again.run(range(50), rows_of, SCHEMA, show=False)
    assert parts_of(tmp_path / "broken") == parts_of(tmp_path / "whole")
    for name, time_of_change in before.items():
        assert (tmp_path / "broken" / name).stat().st_mtime_ns == time_of_change


def test_a_finished_job_does_nothing(tmp_path: Path) -> None:
    make(tmp_path).run(range(50), rows_of, SCHEMA, show=False)

    def never(items: Sequence[int], first: int) -> Iterator[list[dict]]:
        raise AssertionError("done again")

    make(tmp_path).run(range(50), never, SCHEMA, show=False)


def test_a_killed_process_leaves_whole_shards_only(tmp_path: Path) -> None:
    """`kill -9` in the middle, then the same command: the bytes of an unbroken job."""
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            import pyarrow as pa
            from mien.jobs.engine import Job
            schema = pa.schema([("number", pa.int64())])
            def process(items, first):
                for number, item in enumerate(items, first):
                    time.sleep(float(sys.argv[2]))
                    yield [{"number": item * item}]
            Job(sys.argv[1], "test", {}, 400, shard=20).run(range(400), process, schema, show=False)
            """
        )
    )
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    process = subprocess.Popen([sys.executable, str(script), str(broken), "0.003"])
    limit = time.monotonic() + 60
    while len(list(broken.glob("part-*"))) < 3 and time.monotonic() < limit:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = len(parts_of(broken))
    assert 3 <= left < 20
    for name in parts_of(broken):
        assert pq.read_table(broken / name).num_rows == 20
    for folder in (broken, unbroken):
        subprocess.run([sys.executable, str(script), str(folder), "0"], check=True)
    assert parts_of(broken) == parts_of(unbroken)


def test_a_changed_job_says_what_changed(tmp_path: Path) -> None:
    make(tmp_path).run(range(50), rows_of, SCHEMA, show=False)
    with pytest.raises(MienError, match=r"holds another job: parameters.batch was 8, is 16; choose another"):
        make(tmp_path, batch=16)
    with pytest.raises(MienError, match="total was 50, is 60"):
        make(tmp_path, total=60)
    with pytest.raises(MienError, match=r"parameters.added was None, is 1"):
        make(tmp_path, added=1)
    hashed = [Job(tmp_path / "hashed", "test", {"model": {"sha256": one * 64}}, 50) for one in "ab"]
    hashed[0].run(range(50), rows_of, SCHEMA, show=False)
    with pytest.raises(MienError, match="holds another job: model: not the same; choose"):
        Job(hashed[1].folder, "test", {"model": {"sha256": "b" * 64}}, 50)
    (tmp_path / Job.RECORD).write_text("{broken")
    with pytest.raises(MienError, match="is damaged"):
        make(tmp_path)
    (tmp_path / Job.RECORD).unlink()
    with pytest.raises(MienError, match=r"holds shards but no _job.json"):
        make(tmp_path)


def test_a_job_that_failed_at_once_may_be_asked_for_otherwise(tmp_path: Path) -> None:
    def fail(items: Sequence[int], first: int) -> Iterator[list[dict[str, Any]]]:
        raise MienError("the weights are no weights")
        yield

    with pytest.raises(MienError, match="no weights"):
        make(tmp_path).run(range(50), fail, SCHEMA, show=False)
    assert (tmp_path / Job.RECORD).exists()
    make(tmp_path, batch=16).run(range(50), rows_of, SCHEMA, show=False)
    with pytest.raises(MienError, match="batch was 16, is 8"):
        make(tmp_path)


@pytest.mark.parametrize("where", [0, 0.5, 0.97])  # cut off in its pages, or in its footer; or nothing left
def test_a_shard_that_the_disk_has_damaged_is_named_and_done_again_once_removed(tmp_path: Path, where: float) -> None:
    job = make(tmp_path)
    job.run(range(50), rows_of, SCHEMA, show=False)
    before, shard = parts_of(tmp_path), job.path(3)
    shard.write_bytes(before[shard.name][: int(len(before[shard.name]) * where)])
    with pytest.raises(MienError, match=r"part-000003.parquet is damaged: .*; remove it, and the same command does"):
        list(job.rows())
    shard.unlink()
    make(tmp_path).run(range(50), rows_of, SCHEMA, show=False)
    assert parts_of(tmp_path) == before


def test_a_job_of_nothing_ends_at_once(tmp_path: Path) -> None:
    job = make(tmp_path, total=0)
    job.run([], rows_of, SCHEMA, show=False)
    assert list(job.rows()) == []


# Workers, which are processes of their own, find it by its name.
sys.path.insert(0, str(Path(__file__).parent))
Squares = importlib.import_module("squares").Squares

NOTED = pa.schema([("number", pa.int64()), ("value", pa.float64()), ("error", pa.string())])


def failed(item: int, number: int, reason: str) -> list[dict]:
    return [{"number": number, "error": reason}]


def squares(count: int, errors: dict[int, str] | None = None) -> list[dict]:
    errors = errors or {}
    return [{"number": n, "value": None if n in errors else float(n**2), "error": errors.get(n)} for n in range(count)]


def run_squares(folder: Path, process: object, engine: Engine | None = None, count: int = 50) -> list[dict]:
    job = make(folder, count)
    job.run(range(count), process, NOTED, failed=failed, engine=engine, show=False)
    return list(job.rows())


def test_an_input_that_raises_is_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    found = run_squares(tmp_path, Squares(raises=(0, 13, 49)))
    assert found == squares(50, {n: f"ValueError: cannot square {n}" for n in (0, 13, 49)})


def test_inputs_that_hang_kill_or_raise_in_a_worker_are_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    engine = Engine(workers=2, patience=2.0)
    found = run_squares(tmp_path, Squares(raises=(3,), hangs=(21,), dies=(40,)), engine)
    assert found == squares(
        50,
        {
            3: "ValueError: cannot square 3",
            21: "no answer within 2 s",
            40: "its worker was killed by signal 9",
        },
    )


def test_several_workers_write_the_bytes_of_one(tmp_path: Path) -> None:
    run_squares(tmp_path / "one", Squares())
    run_squares(tmp_path / "two", Squares(), Engine(workers=2))
    assert parts_of(tmp_path / "one") == parts_of(tmp_path / "two")


def test_an_interruption_reaches_all_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Future):
        def result(self, timeout: float | None = None) -> object:
            while not parts_of(tmp_path):
                time.sleep(0.01)
            raise KeyboardInterrupt

    class Pool(ThreadPoolExecutor):
        def submit(self, work: Any, /, *given: Any, **named: Any) -> Future:
            super().submit(work, *given, **named)
            return Interrupted()

    monkeypatch.setattr("mien.jobs.engine.ThreadPoolExecutor", Pool)
    with pytest.raises(KeyboardInterrupt):
        run_squares(tmp_path, Squares(seconds=0.1), Engine(workers=2), 400)
    assert 1 <= len(parts_of(tmp_path)) < 6  # of 50: what was begun was not finished
    monkeypatch.undo()
    assert run_squares(tmp_path, Squares(), count=400) == squares(400)


def test_an_interruption_ends_workers_that_hang(tmp_path: Path) -> None:
    def interrupt() -> None:
        while not parts_of(tmp_path):  # by then another worker hangs at the first input of all
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # A shell has what it starts in the background ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_squares(tmp_path, Squares(seconds=0.1, hangs=(0,)), Engine(workers=2), 400)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    assert time.monotonic() - began < 60  # and not the 600 s of the one that hangs
    assert run_squares(tmp_path, Squares(), count=400) == squares(400)


def test_a_mistake_of_the_users_ends_the_job_with_its_message(tmp_path: Path) -> None:
    for engine in (Engine(), Engine(workers=1)):
        with pytest.raises(MienError, match=r"^no such weights$"):
            run_squares(tmp_path, Squares(mistaken=(17,)), engine)
    assert len(parts_of(tmp_path)) == 2
    assert run_squares(tmp_path, Squares()) == squares(50)


def test_one_input_that_is_too_much_is_listed_wherever_it_is_met(tmp_path: Path) -> None:
    for number, engine in enumerate((Engine(), Engine(workers=1))):
        found = run_squares(tmp_path / str(number), Squares(large=(7,), vast=(30,)), engine)
        assert found == squares(50, {7: "too large to square", 30: "MemoryError"})


def test_a_job_in_which_all_fails_gives_up(tmp_path: Path) -> None:
    broken = Squares(raises=tuple(range(10, 100)))
    with pytest.raises(MienError, match=r"20 inputs in a row failed, the last with: ValueError: cannot square"):
        run_squares(tmp_path, broken, count=100)


def test_work_that_cannot_travel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot be given to another process"):
        make(tmp_path).run(range(50), lambda items, first: iter([]), SCHEMA, engine=Engine(workers=1), show=False)


def test_two_jobs_do_not_write_one_folder(tmp_path: Path) -> None:
    def and_another(items: Sequence[int], first: int) -> Iterator[list[dict]]:
        if first == 0:
            with pytest.raises(MienError, match="another process writes this job; wait for it"):
                make(tmp_path).run(range(50), rows_of, SCHEMA, show=False)
        yield from rows_of(items, first)

    make(tmp_path).run(range(50), and_another, SCHEMA, show=False)
    make(tmp_path).run(range(50), rows_of, SCHEMA, show=False)


def test_a_job_that_came_between_keeps_its_folder(tmp_path: Path) -> None:
    late = make(tmp_path, batch=16)
    make(tmp_path).run(range(50), rows_of, SCHEMA, show=False)
    with pytest.raises(OtherJobError, match="batch was 8, is 16"):
        late.run(range(50), rows_of, SCHEMA, show=False)
    make(tmp_path).run(range(50), rows_of, SCHEMA, show=False)


def test_ranks_share_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_squares(tmp_path / "alone", Squares())
    monkeypatch.setenv("WORLD_SIZE", "3")
    folder = tmp_path / "shared"
    job = make(folder)
    folder.mkdir()
    (folder / Job.RECORD).write_text((tmp_path / "alone" / Job.RECORD).read_text())
    for rank in (2, 1, 0):
        monkeypatch.setenv("RANK", str(rank))
        job.run(range(50), Squares(), NOTED, show=False)
        there = {number for number in range(7) if job.path(number).exists()}
        assert there == {n for n in range(7) if n % 3 in {2: (2,), 1: (1, 2), 0: (0, 1, 2)}[rank]}
    assert parts_of(folder) == parts_of(tmp_path / "alone")


def test_ray_writes_the_bytes_of_the_local_engine_and_tells_what_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input that kills its worker is listed, a mistake ends the job; Ray is ended by the job that started it."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    ended, end = [], ray.shutdown
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))  # one start, of many seconds, does for two jobs
    try:
        for name, engine in (("local", Engine(workers=1)), ("ray", Engine("ray", workers=1))):
            with pytest.raises(MienError, match="no such weights"):
                run_squares(tmp_path / name, Squares(dies=(3,), mistaken=(33,)), engine)
        first = pq.read_table(sorted((tmp_path / "ray").glob("part-*.parquet"))[0])
        assert first.equals(pq.read_table(sorted((tmp_path / "local").glob("part-*.parquet"))[0]))
        assert "killed by signal 9" in str(first.to_pylist()[3])
        assert ended == [True]

        bad = Squares(raises=(13,))
        local = run_squares(tmp_path / "whole", bad)
        assert run_squares(tmp_path / "of ray", bad, Engine("ray", workers=1)) == local
        assert parts_of(tmp_path / "whole") == parts_of(tmp_path / "of ray")
        assert ended == [True]
    finally:
        end()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_finds_the_disk_full_is_done_the_next_time(tmp_path: Path, workers: int) -> None:
    whole = run_squares(tmp_path / "whole", Squares())
    with pytest.raises(MienError, match=r"No space left on device.*the same command goes on"):
        run_squares(tmp_path / "broken", Squares(full=(23,)), Engine(workers=workers))
    assert run_squares(tmp_path / "broken", Squares(), Engine(workers=workers)) == whole


def test_a_full_disk_ends_the_job_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "whole").run(range(50), rows_of, SCHEMA, show=False)
    write, written = pq.write_table, []

    def full(table: pa.Table, where: Path, **options: object) -> None:
        written.append(where)
        if len(written) > 2:
            Path(where).write_bytes(b"PAR1, half of")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where))
        write(table, where, **options)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space left on device"):
        make(tmp_path / "broken").run(range(50), rows_of, SCHEMA, show=False)
    monkeypatch.undo()
    there = parts_of(tmp_path / "broken")
    assert len(there) == 2
    again = make(tmp_path / "broken")
    again.run(range(50), rows_of, SCHEMA, show=False)
    assert parts_of(tmp_path / "broken") == parts_of(tmp_path / "whole")


def test_a_manifest_that_changes_under_a_job_ends_it_with_a_line(tmp_path: Path) -> None:
    faces = [Face(f"{number}.jpg", age=(number, number)) for number in range(50)]
    file = Manifest.from_faces(faces, tmp_path, Crop("chip", 0, 112)).save(tmp_path)
    items = ManifestItems(Slices(file))

    def named(asked: Sequence[Item], first: int) -> Iterator[list[dict]]:
        for number, item in enumerate(asked, first):
            if number == 12:
                Manifest.from_faces(faces[::-1], tmp_path, Crop("chip", 0, 112)).save(tmp_path)
            yield [{"number": number, "value": float(Path(item.path or "").stem)}]

    with pytest.raises(MienError, match="was changed, replaced or removed while it was being read"):
        make(tmp_path / "job").run(items, named, SCHEMA, show=False)
    done = [pq.read_table(path).to_pylist() for path in sorted((tmp_path / "job").glob("part-*.parquet"))]
    assert [row["value"] for rows in done for row in rows] == list(range(16))  # of before, and no others


def test_a_worker_that_died_idle_is_replaced() -> None:
    worker = Elsewhere(Squares(), None)
    try:
        assert len(list(worker.ask([1, 2], 0))) == 2
        worker._worker.kill()
        worker._worker.join()
        assert [rows[0]["value"] for rows in worker.ask([3, 4], 2)] == [9.0, 16.0]
    finally:
        worker.close()


def test_a_graphics_card_that_has_failed_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is asked for from then on fails too: no input is to blame."""
    torch = pytest.importorskip("torch")

    def failing(items: Sequence[int], first: int) -> Iterator[list[dict]]:
        for place, item in enumerate(items):
            if item >= 23:
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            yield [{"number": first + place, "value": float(item**2)}]

    with pytest.raises(MienError, match=r"illegal memory access.*the same command goes on"):
        Job(tmp_path, "squares", {}, 50, shard=10).run(range(50), failing, SCHEMA, failed=lambda *_: [], show=False)
    assert len(parts_of(tmp_path)) == 2


@pytest.mark.parametrize("patience", [0, -1, float("nan"), float("inf"), 1e8])
def test_a_patience_that_no_system_has_is_refused(patience: float) -> None:
    with pytest.raises(MienError, match="expected a number above 0, 1,000,000 at most"):
        choose_engine(patience=patience)


def test_a_worker_that_cannot_be_started_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", full)
    worker = Elsewhere(Squares(), None)
    with pytest.raises(OSError, match="temporarily unavailable"):
        list(worker.ask(range(3), 0))
    worker.close()
