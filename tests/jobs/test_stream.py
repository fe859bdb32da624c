"""The stream: order, batches, bad inputs, readers that leave."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.errors import PictureError
from mien.jobs.stream import Loaded, stream


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
