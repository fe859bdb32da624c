"""Folders as the Hugging Face hub gives them: a configuration, weights, a card; read from disk, nothing is executed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from mien.errors import MienError

#: What stands between two lines of `---` at the head of a card.
HEAD = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


def configuration(folder: Path) -> dict[str, Any]:
    """What `config.json` in `folder` says.

    Raises:
        MienError: there is no such file, or no table in it.
    """
    path = folder / "config.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise MienError(f"{path}: no such file; name the whole folder of the model as the hub gives it") from None
    except (ValueError, OSError) as error:
        raise MienError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise MienError(f"{path}: expected a table, this is {type(value).__name__}")
    return value


def terms(folder: Path, given: str = "") -> str:
    """What the weights in `folder` may be used for: `given`, else the licence that its card names."""
    if given:
        return given
    try:
        head = HEAD.match((folder / "README.md").read_text(encoding="utf-8"))
        card = yaml.safe_load(head.group(1)) if head else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        card = None
    card = card if isinstance(card, dict) else {}
    names = [str(card[key]) for key in ("license_name", "license") if card.get(key) not in (None, "other")]
    return f"{names[0]}, by its card" if names else "unknown: no card names a licence"
