"""Errors that a user can mend: one line that names the value, its place, what would be right and what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class MienError(ValueError):
    """A mistake of the user's. The command line prints it as one line and exits with code 2."""


class PictureError(MienError):
    """A picture that cannot be read. Jobs count it, list it with its reason and go on."""


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'x'?` when one of `words` is close to `word`, else an empty string."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown(kind: str, value: object, allowed: Iterable[str], where: str = "") -> MienError:
    """The error for a name that stands in no table: it lists the names that do."""
    names = sorted(allowed)
    place = f" in {where}" if where else ""
    return MienError(f"unknown {kind} {value!r}{place}{nearest(str(value), names)} (known: {', '.join(names)})")


def need(module: str, extra: str) -> ModuleType:
    """Import an optional `module`, or say which extra brings it.

    Raises:
        MienError: the module is not installed; the message carries the install command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and not module.startswith(error.name.split(".")[0]):
            raise
        raise MienError(f"{module} is not installed; in mien's folder, run: pip install '.[{extra}]'") from None
