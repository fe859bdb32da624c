"""`mien models`: which weights come with the package, which can be had, on what terms; and fetching them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def models(
    action: Annotated[str | None, typer.Argument(metavar="[get]", help="get: fetch weights; else list them.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="What to fetch, as the list calls it.")] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FOLDER|URL", help="A folder or a mirror that has the file; its makers' place."),
    ] = None,
    into: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where to keep it; the user's cache.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List weights: shipped ones with their tasks, figures and hash, others that can be had, and the terms of all.

    With `get NAME`, fetch one: size and terms are said first, a broken-off transfer goes on, the hash is checked.

    Examples: mien models; mien models get realesr-general-x4v3; mien models get yunet --from /mnt/weights
    """
    from mien.cli.console import print_json, say, table
    from mien.errors import MienError, unknown
    from mien.jobs.fetch import fetch
    from mien.jobs.known import known

    if action is not None:
        if action != "get":
            raise unknown("action", action, ("get",), "mien models")
        if name is None:
            raise MienError("mien models get: name what to fetch; mien models lists what there is")
        path = fetch(known(name), source, into, tell=say)
        if json:
            print_json({"name": name, "path": path})
        else:
            print(path)
        return
    shipped, others = shipped_rows(), known_rows(into)
    if json:
        print_json({"models": shipped, "known": others})
        return
    table(
        ["shipped", "tasks", "MB", "figures", "terms", "sha256"],
        [
            [
                row["name"],
                ", ".join(row["tasks"]),
                row["megabytes"],
                ", ".join(f"{key} {value}" for key, value in row["figures"].items()),
                row["terms"],
                row["sha256"][:16],
            ]
            for row in shipped
        ],
    )
    table(
        ["to be had", "for", "MB", "terms", "commercial use", "sha256", "here"],
        [
            [
                row["name"],
                row["task"],
                row["megabytes"],
                row["terms"],
                row["commercial"],
                (row["sha256"] or "unknown")[:16],
                row["path"] or "no",
            ]
            for row in others
        ],
    )


def shipped_rows() -> list[dict[str, Any]]:
    """What is told of each model that comes with the package."""
    import json as reader

    from mien.files import file_hash
    from mien.models.checkpoint import FACTS, WEIGHTS, shipped_models

    rows = []
    for name, folder in shipped_models().items():
        facts = reader.loads((folder / FACTS).read_text(encoding="utf-8"))
        card = facts["card"]
        rows.append(
            {
                "name": name,
                "tasks": [task for task, settings in facts["settings"].get("tasks", {}).items() if settings]
                or [facts["kind"]],
                "megabytes": round((folder / WEIGHTS).stat().st_size / 1e6, 2),
                "figures": card.get("figures", {}),
                "terms": card.get("terms", ""),
                "sha256": file_hash(folder / WEIGHTS),
            }
        )
    return rows


def known_rows(into: Path | None) -> list[dict[str, Any]]:
    """What is told of each of the others; `path` is where a fetched one lies in `into`."""
    from dataclasses import asdict

    from mien.jobs.known import KNOWN, place

    rows = []
    for weights in KNOWN:
        there = None if weights.file is None else place(weights, into)
        row = asdict(weights) | {"megabytes": None if weights.size is None else round(weights.size / 1e6, 2)}
        rows.append(row | {"path": str(there) if there is not None and there.is_file() else None})
    return rows
