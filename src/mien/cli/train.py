"""`mien train`: learn from a manifest of faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or file, or a run's config_used.json.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override the recipe's."),
    ] = None,
    run: Annotated[Path | None, typer.Option("-o", "--run", help="Folder of the run; runs/NAME by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed run stopped.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object with the figures.")] = False,
) -> None:
    """Train a recipe's network, and judge it on `val` and, once, on `test`; an estimator is calibrated on `val`.

    Examples: mien train utkface-mobile data.faces=utk; mien train demo data.faces=drawn training.epochs=2
    """
    from mien.training.recipe import load_recipe

    resolved = load_recipe(recipe, overrides or [])
    if dry_run:
        _print_recipe(resolved, json)
        return

    from mien.cli.console import print_json, say
    from mien.training.run import train_run

    folder = run or Path("runs") / resolved.name
    result = train_run(resolved, folder, resume=resume, show=True)
    if result is None:  # another process of the same run reports
        return
    if json:
        print_json(result)
    else:
        say(f"run: {folder}")
        for split, page in result["reports"].items():
            say(f"{split}: {page}")


def _print_recipe(recipe: object, json: bool) -> None:
    import yaml
    from pydantic import BaseModel

    from mien.cli.console import print_json

    assert isinstance(recipe, BaseModel)
    values = recipe.model_dump(mode="json", exclude={"record"})
    if json:
        print_json(values)
    else:
        print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), end="")
