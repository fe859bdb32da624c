"""What every command shares: how it prints, how it fails."""

from __future__ import annotations

import json
import select
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from errno import EDQUOT, ENOSPC
from functools import wraps
from pathlib import Path
from typing import Any

from mien.errors import MienError
from mien.files import to_json

#: Exit code for the user's mistakes.
USER_ERROR = 2


class Terminated(KeyboardInterrupt):
    """SIGTERM: `kill`, a time limit, a machine that is shut down. It ends a command as Ctrl-C does, so that no process
    that it started, and no half file, is left."""


def terminate(*_: object) -> None:
    """What SIGTERM does; a second one ends the process outright."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def say(text: str) -> None:
    """A line for people, on standard error, so that standard output stays for results."""
    print(text, file=sys.stderr, flush=True)


def ready(folder: Path, option: str = "-o") -> Path:
    """The output `folder`, made before any work: that it cannot be written shows now, not when all is done.

    Raises:
        MienError: a file stands there.
    """
    if folder.exists() and not folder.is_dir():
        raise MienError(f"{folder} is a file, where a folder is to be written; name another place with {option}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def print_json(value: Any) -> None:
    """One JSON object, and nothing else, on standard output; in plain ASCII where that takes no other letters."""
    utf8 = (sys.stdout.encoding or "utf-8").lower() in ("utf-8", "utf8")
    print(json.dumps(json.loads(to_json(value)), ensure_ascii=not utf8))


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """A table on standard output; numbers are right-aligned, None is shown as a dash."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [list(row) for row in rows]
    # As text: a name with square brackets in it is no markup.
    grid = Table(title=None if title is None else Text(title, "bold"), title_justify="left")
    for column, header in enumerate(headers):
        numeric = any(isinstance(row[column], (int, float)) for row in rows)
        grid.add_column(Text(header), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(_cell(value)) for value in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(grid)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 1
        else (f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value))
    )


def _in_the_way(error: OSError) -> str:
    """Which file stands where the path of `error` wants a folder."""
    path = Path(str(error.filename))
    file = next((place for place in (path, *path.parents) if place.is_file()), None)
    if file is None:
        return f"{error.strerror}: {error.filename}"
    wanted = "" if file == path else f" for {path}"
    return f"{file} is a file, where a folder is wanted{wanted}; name another place"


def _unread() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # no file of the system's, as in a notebook
        return False
    return bool(poll.poll(0))


def one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose user errors are one line on standard error and exit code 2, without a traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except MienError as error:
            say(f"mien: {' '.join(str(error).split())}")
            raise SystemExit(USER_ERROR) from None
        except (FileExistsError, NotADirectoryError) as error:
            say(f"mien: {_in_the_way(error)}")
            raise SystemExit(USER_ERROR) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _unread():
                raise  # `| head -1` has what it wanted: typer ends without a word
            # A missing file, no permission, a full disk: the system's own words name the file.
            full = "; make room, and give the command again" if error.errno in (ENOSPC, EDQUOT) else ""
            say(f"mien: {error.strerror or error}{f': {error.filename}' if error.filename else ''}{full}")
            raise SystemExit(USER_ERROR) from None
        except UnicodeEncodeError as error:
            if not any(0xDC80 <= ord(letter) <= 0xDCFF for letter in error.object):  # how bytes that are no text travel
                raise
            say(
                f"mien: {error.object!a}: a name that is no UTF-8, as Parquet files and what lies in them have it; "
                "rename it, or set LC_ALL=C.UTF-8 if it is"
            )
            raise SystemExit(USER_ERROR) from None
        except KeyboardInterrupt as end:
            say("mien: interrupted; what is written in a folder goes on with the same command, training with --resume")
            raise SystemExit(128 + (signal.SIGTERM if isinstance(end, Terminated) else signal.SIGINT)) from None

    return run
