"""Who does a job's work: this process, or others that are watched and ended when they hang.

Either is asked for the rows of some inputs and gives them one input at a time. Whatever goes wrong on the way, an
exception, a crash, silence, is one thing to the asker: `Lost`.
"""

from __future__ import annotations

import errno
import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from mien.errors import MienError, PictureError, unknown
from mien.memory import keep_freed

Input = TypeVar("Input")
Row = dict[str, Any]
#: Inputs, and the number of the first, to the rows of each.
Process = Callable[[Sequence[Input], int], Iterator[list[Row]]]

#: Seconds that a worker may take to start and load its model, beyond its patience.
START = 120.0
#: The most patience: the system waits no longer than some weeks at a time.
MOST_PATIENCE = 1e6


#: A disk, or a share of it, that is full or may not be written.
FULL = {errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}


class Lost(Exception):  # noqa: N818 (no error of its own: the job decides what it means)
    """The rows of an input will not come; the message says why, in a few words."""


class StoppedError(Exception):
    """Another worker failed, or the user asked to stop: what is done of the shard is not kept."""


class Here:
    """Works in this process; it cannot be ended when it hangs."""

    def __init__(self, process: Process[Any]) -> None:
        self.process = process
        self.lost = 0  # inputs in a row, up to now

    def ask(self, items: Sequence[Any], first: int) -> Iterator[list[Row]]:
        """The rows of each of `items`, in order.

        Raises:
            MienError: the process met a mistake of the user's.
            Lost: it raised another exception; memory that does not suffice for one input is one of them.
        """
        try:
            yield from self.process(items, first)
        except PictureError as error:  # of one input, which is listed
            raise Lost(" ".join(str(error).split())) from error
        except MienError:
            raise
        except Exception as error:
            if _is_of_the_disk(error) or _is_of_the_card(error):
                raise MienError(_unwritten(error)) from error
            raise Lost(_reason(error)) from error

    def end(self) -> None:
        """Nothing to end."""

    close = end


class Elsewhere:
    """Works in a process of its own, started anew when it died or was silent for `patience` seconds.

    `process` travels by pickle: once, when a worker starts, so it may load its model when it is first asked.
    """

    def __init__(self, process: Process[Any], patience: float | None) -> None:
        self.patience = patience
        self.lost = 0  # inputs in a row, up to now
        try:
            self._process = pickle.dumps(process)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(f"this work cannot be given to another process: {error}") from None
        self._worker: Any = None
        self._pipe: Any = None
        self._ended = False

    def ask(self, items: Sequence[Any], first: int) -> Iterator[list[Row]]:
        """The rows of each of `items`, in order.

        Raises:
            MienError: the worker met a mistake of the user's.
            Lost: it raised another exception, died, or was silent for too long.
            StoppedError: `end` was called.
        """
        fresh = self._worker is None
        if fresh:
            self._start()
        try:
            self._pipe.send((list(items), first))
        except OSError:  # it died while it had nothing to do
            self.close()
            self._start()
            fresh = True
            self._pipe.send((list(items), first))
        for _ in items:
            answer, value = self._answer(fresh)
            fresh = False
            if answer == "rows":
                yield value
            elif answer == "mistake":
                raise MienError(value)
            else:
                raise Lost(value)

    def end(self) -> None:
        """End the worker from another thread: whoever waits for its answer, for ever if it hangs, is told at once."""
        self._ended = True
        if (worker := self._worker) is not None:
            worker.kill()

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.kill()
            self._worker.join()
            self._pipe.close()
            self._worker = None

    def _start(self) -> None:
        # Not forked: torch's threads do not survive that.
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        worker = context.Process(target=_serve, args=(there, self._process), daemon=True)
        worker.start()
        self._worker = worker  # not before: one that could not be started cannot be ended
        there.close()
        if self._ended:  # while it was started
            raise StoppedError

    def _answer(self, fresh: bool) -> tuple[str, Any]:
        limit = None if self.patience is None else self.patience + (START if fresh else 0)
        try:
            if self._pipe.poll(limit):
                answer: tuple[str, Any] = self._pipe.recv()
                return answer
            reason = f"no answer within {self.patience:g} s"
        except (EOFError, OSError):
            self._worker.join(5)
            code = self._worker.exitcode
            reason = f"its worker was killed by signal {-code}" if code and code < 0 else f"its worker ended ({code})"
            if self._ended:
                raise StoppedError from None
        self.close()
        return "lost", reason


@dataclass(frozen=True, slots=True)
class Engine:
    """Who does a job's work.

    Attributes:
        name: `local`, or `ray` for Ray Data.
        workers: processes beside this one; 0: this one works itself.
        patience: seconds of silence after which a worker is ended and the input it hung on listed; it takes a worker
            beside this process. None: for ever.
        address: of a Ray cluster; None starts one here.

    Raises:
        MienError: a patience that is none.
    """

    name: Literal["local", "ray"] = "local"
    workers: int = 0
    patience: float | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.patience is not None and not 0 < self.patience <= MOST_PATIENCE:
            raise MienError(
                f"a patience of {self.patience:g} seconds: expected a number above 0, {MOST_PATIENCE:,.0f} at most"
            )

    def worker(self, process: Process[Any]) -> Here | Elsewhere:
        """One who does `process`."""
        if self.workers == 0 and self.patience is None:
            return Here(process)
        return Elsewhere(process, self.patience)


def choose_engine(
    name: str = "local", workers: int = 0, patience: float | None = None, address: str | None = None
) -> Engine:
    """The engine that a command's options name.

    Raises:
        MienError: an unknown name, a patience that is none, an address without a cluster's engine.
    """
    if name not in ("local", "ray"):
        raise unknown("engine", name, ("local", "ray"))
    if address is not None and name != "ray":
        raise MienError(f"the address {address} is of a Ray cluster, the engine is {name}; take the engine ray")
    return Engine("ray" if name == "ray" else "local", workers, patience, address)


def _serve(pipe: Any, pickled: bytes) -> None:
    """What a worker does until it is ended: answer with the rows of each input, or with why there are none."""
    process: Process[Any] | None = None
    # Ctrl-C goes to all processes of the terminal; the one that gave the work ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed()
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            items, first = pipe.recv()
            try:
                process = process or _opened(pickled)
                for rows in process(items, first):
                    pipe.send(("rows", rows))
            except PictureError as error:
                pipe.send(("lost", " ".join(str(error).split())))
            except MienError as error:
                pipe.send(("mistake", str(error)))
            except Exception as error:
                of_all = _is_of_the_disk(error) or _is_of_the_card(error)
                pipe.send(("mistake", _unwritten(error)) if of_all else ("lost", _reason(error)))


def _is_of_the_disk(error: Exception) -> bool:
    """Whether it would have failed for any input: a disk, or a share of it, that is full or cannot be written."""
    return isinstance(error, OSError) and error.errno in FULL


def _is_of_the_card(error: Exception) -> bool:
    """Whether a graphics card has failed: all that this process asks of it from now on fails too."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, getattr(torch, "AcceleratorError", ()))


def _unwritten(error: Exception) -> str:
    return f"{' '.join(str(error).split())}; what is done stays, and the same command goes on once this is put right"


def _opened(pickled: bytes) -> Process[Any]:
    try:
        process: Process[Any] = pickle.loads(pickled)
    except Exception as error:
        raise MienError(f"a worker cannot take up its work: {_reason(error)}") from None
    return process


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
