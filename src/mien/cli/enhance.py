"""`mien enhance`: better pictures, the originals untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

#: Failures that are listed one by one.
LISTED = 10


def enhance(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Manifests, photos, folders (searched to their bottom), globs."),
    ],
    upscaler: Annotated[
        str | None,
        typer.Option(metavar="WEIGHTS", help="Make pictures larger: ESRGAN's weights, or a name of mien models."),
    ] = None,
    colour: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="Give grey pictures colours: DDColor's weights.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="A broken job in it is taken up again; enhanced/NAME by default."
        ),
    ] = None,
    tile: Annotated[int, typer.Option(min=32, metavar="PX", help="Side of a tile, without its margin.")] = 512,
    format: Annotated[str, typer.Option(help="png (lossless) or jpeg.")] = "png",  # noqa: A002
    judge: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Say how the age changes that this model judges.")
    ] = None,
    identity: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="And the person: MobileFaceNet's weights, or a model.")
    ] = None,
    crops: Annotated[
        bool, typer.Option("--crops", help="The pictures are face crops (a manifest's always are).")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes beside this one.")] = 0,
    patience: Annotated[
        float | None, typer.Option(min=0.1, metavar="S", help="End a worker that is silent for so many seconds.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Give grey pictures colours and make all larger; each result has a sidecar that says how it was made.

    Writes pictures with their sidecars and enhanced.parquet; for a manifest also faces.parquet, which pairs each
    original with its enhanced picture (data.picture of a recipe). A broken-off job goes on when the same command is
    given again.

    Examples: mien enhance utk --upscaler realesr-general-x4v3 -o utk-x4; mien enhance album --upscaler x4.safetensors
    --colour ddcolor.safetensors
    """
    from mien.cli.console import print_json, say
    from mien.errors import MienError
    from mien.jobs.engine import first_rank
    from mien.jobs.enhance import Enhancing, summary
    from mien.jobs.enhance import enhance as run
    from mien.jobs.inputs import expand, name_of
    from mien.jobs.known import weights_path
    from mien.jobs.predict import usable
    from mien.jobs.workers import Engine

    folder = output or Path("enhanced") / name_of(inputs[0])
    items = expand(inputs, [folder])
    work = Enhancing(
        folder,
        None if upscaler is None else weights_path(upscaler),
        None if colour is None else weights_path(colour),
        tile=tile,
        format=format,
        judge=judge,
        identity=identity,
        device=str(usable(device)),
    )
    job = run(work, items, crops=crops, engine=Engine(workers=workers, patience=patience))
    if not first_rank():
        return
    found = summary(job)
    if json:
        print_json(found | {"folder": folder})
    else:
        _print(found)
    for one in found["failed"][:LISTED]:
        say(f"not enhanced: {one['input']}: {one['reason']}")
    if len(found["failed"]) > LISTED:
        say(f"not enhanced: {len(found['failed']) - LISTED:,} more; enhanced.parquet lists them all")
    if found["pictures"] == len(found["failed"]):
        raise MienError(f"none of {found['pictures']:,} pictures could be enhanced")
    say(f"written: {folder} ({found['enhanced']:,} pictures)")


def _print(found: dict[str, Any]) -> None:
    from mien.cli.console import table
    from mien.report.numbers import years

    print(
        f"{found['enhanced']:,} of {found['pictures']:,} pictures enhanced, {found['coloured']:,} of "
        f"{found['grey']:,} grey ones coloured, {len(found['failed']):,} failed"
    )
    named = {"age_change": "judged age, after less before (years)", "age_moved": "the same, either way (years)"}
    named["identity"] = "cosine of before and after by the judge of identity"
    rows = [[name, years(one, 3), one["n"]] for key, name in named.items() if (one := found.get(key)) is not None]
    if rows:
        table(["mean of", "value [95 % interval]", "n"], rows)
