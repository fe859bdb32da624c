"""`mien models`: which weights come with the package."""

from __future__ import annotations

from typing import Annotated

import typer


def models(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the shipped models: tasks, figures, terms, hash."""
    import hashlib
    import json as reader

    from mien.cli.console import print_json, table
    from mien.models.checkpoint import FACTS, WEIGHTS, shipped_models

    rows = []
    for name, folder in shipped_models().items():
        facts = reader.loads((folder / FACTS).read_text(encoding="utf-8"))
        weights = (folder / WEIGHTS).read_bytes()
        card = facts["card"]
        rows.append(
            {
                "name": name,
                "tasks": [task for task, settings in facts["settings"].get("tasks", {}).items() if settings]
                or [facts["kind"]],
                "megabytes": round(len(weights) / 1e6, 2),
                "figures": card.get("figures", {}),
                "terms": card.get("terms", ""),
                "sha256": hashlib.sha256(weights).hexdigest(),
            }
        )
    if json:
        print_json({"models": rows})
        return
    table(
        ["model", "tasks", "MB", "figures", "terms", "sha256"],
        [
            [
                row["name"],
                ", ".join(row["tasks"]),
                row["megabytes"],
                ", ".join(f"{key} {value}" for key, value in row["figures"].items()),
                row["terms"],
                row["sha256"][:16],
            ]
            for row in rows
        ],
    )
