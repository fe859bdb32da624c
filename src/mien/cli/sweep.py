"""`mien sweep`: one recipe over some values of some keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def sweep(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override the recipe's in every run."),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V,V,...", help="A key and its values; given again, all combinations are run."),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Folder of the runs, the table and the page.")
    ] = Path("sweep"),
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; they share the cores.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions behind the MIG of beta-VAEs.")] = 3,
    bootstraps: Annotated[int, typer.Option(min=100, help="Resamples behind each interval of beta-VAEs.")] = 1000,
    device: Annotated[str, typer.Option(help="Where beta-VAEs are judged: auto, cpu, cuda, mps ...")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every run's figures.")] = False,
) -> None:
    """Train a recipe over all combinations of some values; one page and table of all runs.

    Each is an ordinary run in DIR; an unfinished one goes on, a finished one is left alone, and one that fails is
    listed with its error. Writes sweep.html, sweep.csv and sweep.json; of beta-VAEs what they trade, too.

    Example: mien sweep utkface-beta-vae data.faces=utk --over beta_vae_objective.beta=1,2,4,8 --over seed=0,1
    """
    from mien.cli.console import print_json, say, table
    from mien.jobs.predict import usable
    from mien.report.numbers import years
    from mien.report.sweep import leading
    from mien.training.sweep import PAGE, Sweep

    planned = Sweep(recipe, overrides or [], over or [], out)
    if dry_run:
        if json:
            listed = [{"run": member.name, "values": member.values} for member in planned.members]
            print_json({"recipe": recipe, "keys": planned.keys, "runs": listed})
        else:
            lines = [(member.name, *map(str, member.values.values())) for member in planned.members]
            table(("run", *planned.keys), lines)
        return
    found = planned.run(jobs=jobs, device=usable(device), seeds=seeds, resamples=bootstraps, say=say)
    if json:
        print_json(found)
    else:
        names = leading([row["figures"] for row in found["runs"]])
        rows: list[list[Any]] = [
            [row["run"], row["status"], *(years(row["figures"].get(name), 4) for name in names)]
            for row in found["runs"]
        ]
        table(("run", "status", *names), rows, title=f"{recipe} over {', '.join(planned.keys)}")
    say(f"page: {out / PAGE}")
    failed = [row["run"] for row in found["runs"] if row["status"] in ("failed", "changed")]
    if failed:
        say(f"{len(failed)} of {len(found['runs'])} runs have no figures; sweep.html says why: {', '.join(failed)}")
        raise typer.Exit(1)
