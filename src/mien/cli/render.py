"""`mien render`: the faces of pictures at other ages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mien.jobs.engine import Job
    from mien.jobs.inputs import Items
    from mien.jobs.render import Rendering
    from mien.jobs.workers import Engine

#: Failures that are listed one by one.
LISTED = 10


def render(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Photos, folders (searched to their bottom), globs, manifests."),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A renderer: a run, a checkpoint; the shipped one unless given."),
    ] = None,
    ages: Annotated[str, typer.Option(help="FIRST:LAST:STEP, or some with commas: 20,40,60.")] = "5:95:10",
    strength: Annotated[
        float | None,
        typer.Option(
            help="How much of the change is shown: 0.5 half of it, 1.5 older and younger, and less the person."
        ),
    ] = None,
    aim: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="An estimator of ages, such as face-mobile: faces change as far as it takes to look their ages to it.",
        ),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Write grid.png: the strips of the first 24 faces.")] = False,
    gif: Annotated[bool, typer.Option("--gif", help="Write a moving picture of each face too.")] = False,
    paste: Annotated[
        bool, typer.Option("--paste", help="Write each photo with its faces at each age, the background untouched.")
    ] = False,
    crops: Annotated[
        bool, typer.Option("--crops", help="The pictures are face crops (a manifest's always are).")
    ] = False,
    detector: Annotated[str, typer.Option(help="What finds faces: cascade, yunet:PATH or uniface.")] = "cascade",
    landmarker: Annotated[
        str,
        typer.Option(help="What aligns faces of which there is only a box: auto (the shipped one), none, or a run."),
    ] = "auto",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="A broken job in it is taken up again. renders/NAME by default, or NAME-2 where that holds others.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that share the work; 0: this one does it.")] = 0,
    patience: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End a worker that is silent so long, and list its picture.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray (an extra).")] = "local",
    address: Annotated[str | None, typer.Option(help="With --engine ray: of a cluster that runs already.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show faces at other ages: a strip with the ages on it and one picture an age, for each face.

    Writes renders.parquet (which picture is which face at which age), and PNG files that say they are synthetic.
    A broken-off job goes on when the same command is given again.

    Examples: mien render photo.jpg; mien render album --ages 20,40,60 --paste -o older;
    mien render utk -m runs/vae --grid
    """
    from mien.cli.console import print_json, say
    from mien.jobs.engine import first_rank
    from mien.jobs.inputs import expand, name_of
    from mien.jobs.predict import usable
    from mien.jobs.render import ages_from, rendering, write_grid
    from mien.jobs.workers import choose_engine
    from mien.models.aimed import Aimed
    from mien.models.checkpoint import load_estimator, load_renderer
    from mien.models.renderer import Renderer, with_strength

    who = choose_engine(engine, workers, patience, address)
    places = [output] if output is not None else _places(name_of(inputs[0]))
    items = expand(inputs, places)
    asked = ages_from(ages)
    where = usable(device)
    renderer: Renderer = load_renderer(model, where)
    if strength is not None:
        renderer = with_strength(renderer, strength)
    if aim is not None:
        renderer = Aimed(renderer, load_estimator(aim, where))
    question = rendering(
        renderer,
        items,
        asked,
        crops=crops,
        detector=detector,
        landmarker=landmarker,
        gif=gif,
        paste=paste,
        device=where,
    )
    job = _job(question, places, items, who)
    if not first_rank():
        return
    sheet = write_grid(job) if grid else None
    output = job.folder
    found = Found(output, rows=[] if json else None)
    for row in job.rows():
        found.count(row)
    beyond = [age for age in asked if not renderer.ages[0] <= age <= renderer.ages[1]]
    if json:
        told = {"model": renderer.name, "pictures": len(items), "ages": asked, "beyond": beyond, **found.numbers()}
        print_json(told | {"folder": output, "grid": sheet, "renders": found.rows})
    else:
        for place in (*found.strips, *([sheet] if sheet is not None else [])):
            print(place)
    if beyond:
        low, high = renderer.ages
        guessed = ", ".join(f"{age:g}" for age in beyond)
        say(f"{renderer.name} has seen ages {low:g} to {high:g}; what it shows at {guessed} is a guess")
    say(f"written: {output} ({found.faces:,} face{'' if found.faces == 1 else 's'})")
    found.report()


def _places(name: str) -> list[Path]:
    """Where renders of this name lie already, in the order they came, and the first place that is free."""
    places = [Path("renders") / name]
    while places[-1].exists():
        places.append(Path("renders") / f"{name}-{len(places) + 1}")
    return places


def _job(question: Rendering, places: list[Path], items: Items, who: Engine) -> Job:
    """The finished job: in the first of `places` that holds no other one."""
    from mien.jobs.engine import OtherJobError

    for place in places[:-1]:
        try:
            return question.job(place, items, who)
        except OtherJobError:
            continue
    return question.job(places[-1], items, who)


class Found:
    """What became of the pictures, counted while the rows of a job go by."""

    def __init__(self, folder: Path, rows: list[dict[str, Any]] | None = None) -> None:
        self.folder = folder
        self.rows = rows  # of a million faces they would fill the memory: kept only where they are printed
        self.faces = self.unaligned = 0
        self.without: list[str] = []
        self.failed: list[str] = []
        self.strips: list[Path] = []

    def count(self, row: dict[str, Any]) -> None:
        from mien.jobs.prediction import NO_FACE

        digest = row["sha256"]
        if self.rows is not None:
            self.rows.append(row | {"sha256": None if digest is None else digest.hex()})
        if row["error"] == NO_FACE:
            self.without.append(row["input"])
        elif row["error"] is not None:
            self.failed.append(f"{row['input']}: {row['error']}")
        elif not self.strips or self.strips[-1] != self.folder / row["strip"]:
            self.strips.append(self.folder / row["strip"])
            self.faces += 1
            self.unaligned += row["aligned"] is False

    def numbers(self) -> dict[str, int]:
        return {"faces": self.faces, "without_face": len(self.without), "unreadable": len(self.failed)}

    def report(self) -> None:
        """Say what a reader must know; `MienError` when there is nothing to show."""
        from mien.cli.console import say
        from mien.errors import MienError

        for kind, lines in (("no face found in", self.without), ("could not be read:", self.failed)):
            for line in lines[:LISTED]:
                say(f"{kind} {line}")
            if len(lines) > LISTED:
                say(f"{kind} {len(lines) - LISTED:,} more; renders.parquet lists them all")
        if self.unaligned:
            say(
                f"{self.unaligned:,} of {self.faces:,} faces are unaligned, for nothing told where their eyes are: "
                "expect worse renders; --detector yunet:PATH aligns"
            )
        if not self.faces:
            if not self.without:
                raise MienError(f"none of {len(self.failed):,} pictures could be read")
            raise MienError(
                f"no face in {len(self.without) + len(self.failed):,} pictures; if they are face crops, add --crops"
            )
