"""The job engine: order, batches, bad inputs, and jobs that are broken off, changed, damaged."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.errors import MienError, PictureError
from mien.jobs.engine import Job, Loaded, stream

SCHEMA = pa.schema([("number", pa.int64()), ("value", pa.float64())])


def load(item: int) -> Loaded[int]:
    """Item n has n % 4 parts, its first taking longest to load; every 7th is bad."""
    if item % 7 == 6:
        raise PictureError(f"{item} is bad")
    return Loaded([item * 10 + part for part in range(item % 4)], notes=f"note {item}")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 4))
def test_results_come_in_order_each_to_its_input(count: int, batch: int, threads: int) -> None:
    sizes: list[int] = []

    def compute(parts: list[int]) -> list[int]:
        sizes.append(len(parts))
        return [part + 1 for part in parts]

    done = list(stream(range(count), load, compute, batch, threads))
    assert [one.item for one in done] == list(range(count))
    for one in done:
        if one.item % 7 == 6:
            assert one.error == f"{one.item} is bad"
            assert one.results == []
        else:
            assert one.error is None
            assert one.notes == f"note {one.item}"
            assert one.results == [one.item * 10 + part + 1 for part in range(one.item % 4)]
    assert all(size == batch for size in sizes[:-1])  # only the last batch may be smaller
    assert sum(sizes) == sum(len(one.results) for one in done)


def test_slow_loads_do_not_change_the_order() -> None:
    def slow(item: int) -> Loaded[int]:
        time.sleep(0.02 if item % 2 == 0 else 0)
        return Loaded([item])

    done = stream(range(20), slow, lambda parts: parts, 3, threads=4)
    assert [one.results for one in done] == [[item] for item in range(20)]


def test_no_more_is_loaded_than_two_batches_ahead() -> None:
    """With a reader that stops after each result, loads stay a bounded number ahead of it."""
    loaded, read, furthest = 0, 0, 0
    lock = threading.Lock()

    def count(item: int) -> Loaded[int]:
        nonlocal loaded, furthest
        with lock:
            loaded += 1
            furthest = max(furthest, loaded - read)
        return Loaded([item])

    for _ in stream(range(300), count, lambda parts: parts, batch=5, threads=2):
        read += 1
        time.sleep(0.0005)
    assert loaded == 300
    assert furthest <= 2 * 5 + 5 + 2


def test_inputs_without_parts_do_not_wait_for_ever() -> None:
    """One face, then thousands of photos without: its result comes before the last of them is loaded."""
    loaded = 0

    def one_face(item: int) -> Loaded[int]:
        nonlocal loaded
        loaded += 1
        return Loaded([item] if item == 0 else [])

    first = next(stream(range(5000), one_face, lambda parts: parts, batch=4))
    assert first.results == [0]
    assert loaded < 200


def test_a_reader_that_leaves_stops_the_loading() -> None:
    started = 0

    def count(item: int) -> Loaded[int]:
        nonlocal started
        started += 1
        time.sleep(0.001)
        return Loaded([item])

    results = stream(range(10_000), count, lambda parts: parts, batch=10)
    next(results)
    results.close()
    assert started < 50


def test_a_bug_is_not_taken_for_a_bad_picture() -> None:
    def broken(item: int) -> Loaded[int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(stream(range(3), broken, lambda parts: parts, 2))
    with pytest.raises(RuntimeError, match="gave 1 results for a batch of 2"):
        list(stream(range(4), lambda item: Loaded([item]), lambda parts: parts[:1], 2))


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
    (tmp_path / Job.RECORD).write_text("{broken")
    with pytest.raises(MienError, match="is damaged"):
        make(tmp_path)
    (tmp_path / Job.RECORD).unlink()
    with pytest.raises(MienError, match=r"holds shards but no job.json"):
        make(tmp_path)


def test_a_job_of_nothing_ends_at_once(tmp_path: Path) -> None:
    job = make(tmp_path, total=0)
    job.run([], rows_of, SCHEMA, show=False)
    assert list(job.rows()) == []
