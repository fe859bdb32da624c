"""`mien predict`: what a model tells of the faces in pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli.console import print_json, ready, say, table
from mien.errors import MienError, PictureError
from mien.files import whole

if TYPE_CHECKING:
    from mien.jobs.inputs import Items
    from mien.jobs.predict import Asking

#: Rows gathered before they are written to a file.
CHUNK = 1024
#: Failures that are listed one by one, and rows of a job's table that are shown.
LISTED, SHOWN = 10, 100
#: Bytes of a picture's name in that of its drawing: a file's has 255 at most, and is written beside under a longer one.
LONGEST_STEM = 200


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Photos, folders (searched to their bottom), globs, manifests; - reads paths from stdin.",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A run, a checkpoint or a shipped model's name. May be repeated: each tells what those before it "
            "have not learnt.",
        ),
    ] = None,
    crops: Annotated[
        bool, typer.Option("--crops", help="The pictures are face crops (a manifest's always are).")
    ] = False,
    detector: Annotated[
        str, typer.Option(help="What finds faces in photos: cascade, yunet:PATH or uniface.")
    ] = "cascade",
    max_width: Annotated[
        float | None, typer.Option(metavar="YEARS", help="Abstain from ages whose 90 % interval is wider.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Only these, with commas: age,expression,valence.")] = None,
    landmarks: Annotated[bool, typer.Option("--landmarks", help="Tell the 68 landmarks of each face too.")] = False,
    landmarker: Annotated[
        str,
        typer.Option(help="What aligns faces of which there is only a box: auto (the shipped one), none, or a run."),
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Parquet table.")] = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write each picture with its faces and ages drawn in."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Write Parquet shards; a broken job is taken up again."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="With -o: processes that share the work; 0: this one does it.")
    ] = 0,
    patience: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="With -o: end a worker that is silent so long, and list its picture."),
    ] = None,
    engine: Annotated[str, typer.Option(help="With -o: local, or ray (an extra).")] = "local",
    address: Annotated[str | None, typer.Option(help="With --engine ray: of a cluster that runs already.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Faces the model sees at once.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
) -> None:
    """Tell age (with its 90 % interval), gender, race, expression, valence and arousal of faces in photos or crops.

    It tells what the model was taught; `mien models` lists what the shipped ones were.
    """
    if sum([json, csv, parquet is not None]) > 1:
        raise MienError("--json, --csv and --parquet exclude each other; choose one")
    from mien.jobs.engine import first_rank
    from mien.jobs.inputs import expand
    from mien.jobs.predict import load
    from mien.jobs.prediction import KNOWN
    from mien.jobs.workers import choose_engine
    from mien.progress import Progress

    chosen = choose_engine(engine, workers, patience, address)
    if output is None and chosen != choose_engine():
        raise MienError("--workers, --patience, --engine and --address are those of a job; name its folder with -o")
    if parquet is not None and parquet.is_dir():
        raise MienError(f"--parquet {parquet} is a folder; name a file")
    if draw is not None:
        ready(draw, "--draw")
    items = expand(list(_with_standard_input(inputs)), [draw])
    asked = load(model, device)
    wanted = None if tasks is None else names_of(tasks)
    asking = asked.asking(items, crops, detector, max_width, wanted, landmarks, landmarker)
    tally = Tally()
    with ExitStack() as stack:
        if output is not None:
            job = asking.job(output, items, batch, chosen)
            if not first_rank():
                return
            rows = job.rows()
        else:
            progress = stack.enter_context(Progress(len(items), "pictures", "predict"))
            rows = _live(asking, items, batch, progress)
        if draw is not None:
            rows = _drawn(rows, items, draw, tally)
        rows = tally.count(rows)
        if parquet is not None:
            _write_parquet(rows, parquet, asking.schema())
        elif csv:
            _print_csv(rows, asking.schema().names)
        elif json:
            found = list(rows)
            summary = {"model": asked.name, "pictures": len(items), **tally.numbers(), "predictions": found}
        elif output is not None:  # the shards are the result
            shown = list(islice(rows, SHOWN if sys.stdout.isatty() else 0))
            more = sum(1 for _ in rows)
        else:
            shown, more = list(rows), 0
    # Printed when the progress bar is gone.
    if json:
        print_json(summary)
    elif parquet is None and not csv and (output is None or sys.stdout.isatty()):
        _print_table(shown, [task for task in asking.tasks if task not in KNOWN])
        if more:
            say(f"{more:,} more rows in {output}")
    for place in (parquet, output, draw):
        if place is not None:
            say(f"written: {place}")
    tally.report()


def names_of(tasks: str) -> list[str]:
    """The names in `--tasks`.

    Raises:
        MienError: there is none.
    """
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise MienError(f"--tasks {tasks!r} names none; give some with commas, such as age,gender, or leave it out")
    return names


class Tally:
    """What became of the pictures, counted while their rows go by."""

    def __init__(self) -> None:
        self.faces = self.without = self.failed = self.unaligned = 0
        self.read = False
        self.drawn = 0
        self.examples: list[str] = []
        self.undrawn: list[str] = []

    def count(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        from mien.jobs.prediction import NO_FACE

        for row in rows:
            if row["error"] is None:
                self.faces += 1
                self.unaligned += row["aligned"] is False
            elif row["error"] == NO_FACE:
                self.without += 1
            else:
                self.failed += 1
                if len(self.examples) < LISTED:
                    self.examples.append(f"{row['input']}: {row['error']}")
            self.read |= row["error"] in (None, NO_FACE)
            yield row

    def numbers(self) -> dict[str, int]:
        return {"faces": self.faces, "without_face": self.without, "unreadable": self.failed}

    def report(self) -> None:
        """Say what a reader must know; `MienError` when no picture could be read."""
        for line in self.examples:
            say(f"could not be read: {line}")
        if self.failed > len(self.examples):
            say(f"could not be read: {self.failed - len(self.examples):,} more; the output lists them all")
        for line in self.undrawn[:LISTED]:
            say(f"not drawn: {line}")
        if len(self.undrawn) > LISTED:
            say(f"not drawn: {len(self.undrawn) - LISTED:,} more")
        if self.unaligned:
            say(
                f"{self.unaligned:,} of {self.faces:,} faces are unaligned, for nothing told where their eyes are: "
                "expect larger errors than on crops; --detector yunet:PATH aligns"
            )
        if not self.read:
            raise MienError(f"none of {self.failed:,} pictures could be read")
        if self.undrawn and not self.drawn:
            raise MienError(f"none of {len(self.undrawn):,} pictures with a face could be drawn; see above why")


def _with_standard_input(inputs: Iterable[str]) -> Iterator[str]:
    for one in inputs:
        if one != "-":
            yield one
            continue
        with suppress(AttributeError):  # whatever a program has put in its place
            sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names of files are bytes
        lines = [line.rstrip("\r\n") for line in sys.stdin]
        paths = [line for line in lines if line.strip()]
        if not paths:
            raise MienError("standard input is empty; expected one path a line")
        yield from paths


def _live(asking: Asking, items: Items, batch: int, progress: Any) -> Iterator[dict[str, Any]]:
    columns = asking.schema().names
    for found in asking.run(items, batch):
        progress.advance()
        for prediction in found:
            row = prediction.to_row()
            yield {name: row.get(name) for name in columns}


def _drawn(rows: Iterable[dict[str, Any]], items: Items, folder: Path, tally: Tally) -> Iterator[dict[str, Any]]:
    """Pass the rows on, and write each picture that has a face to `folder`; what cannot be drawn is told of."""
    from mien.data.pictures import encode
    from mien.jobs.draw import draw_faces

    taken: set[str] = set()
    for number, group in groupby(rows, key=lambda row: row["row"]):
        found = list(group)
        if found[0]["error"] is None:
            item = items[number]
            # Names have 255 bytes at most, and one is written beside first; bytes that are no UTF-8 are left out.
            letters = Path(item.path or item.name).stem.encode(errors="surrogateescape")
            stem = letters[:LONGEST_STEM].decode(errors="ignore")
            name = f"{stem}_faces"
            name = f"{name}_{number}" if name in taken else name
            taken.add(name)
            try:
                with whole(folder / f"{name}.jpg") as beside:
                    beside.write_bytes(encode(draw_faces(item.read(), found)))
                tally.drawn += 1
            except (PictureError, OSError) as error:
                tally.undrawn.append(f"{item.name}: {' '.join(str(error).split())}")
        yield from found


def _write_parquet(rows: Iterable[dict[str, Any]], path: Path, schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with whole(path) as beside, pq.ParquetWriter(beside, schema, compression="zstd") as writer:
        chunk: list[dict[str, Any]] = []
        for row in rows:
            chunk.append(row)
            if len(chunk) == CHUNK:
                writer.write_table(pa.Table.from_pylist(chunk, schema))
                chunk.clear()
        writer.write_table(pa.Table.from_pylist(chunk, schema))


def _print_csv(rows: Iterable[dict[str, Any]], columns: list[str]) -> None:
    import csv

    class Lines:
        def write(self, line: str) -> None:
            sys.stdout.write(line.removesuffix("\r\n") + "\n")

    # Before Python 3.13 a name is quoted for what ends a line here alone: "\r" in it would end one for who reads.
    writer = csv.DictWriter(Lines(), columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_table(rows: list[dict[str, Any]], own: Sequence[str] = ()) -> None:
    from mien.faces import CONTINUOUS
    from mien.jobs.draw import age_text
    from mien.jobs.prediction import NAMED

    def share(row: dict[str, Any], task: str) -> str | None:
        return None if row.get(task) is None else f"{row[task]} ({row[f'{task}_p']:.2f})"

    tasks = [task for task in NAMED if any(row.get(task) is not None for row in rows)]
    numbers = [task for task in CONTINUOUS if any(row.get(task) is not None for row in rows)]
    aged = any(row["error"] is None and age_text(row) for row in rows) or not (tasks or numbers or own)
    lines = []
    for row in rows:
        box = (
            None if row["left"] is None else " ".join(f"{row[side]:.0f}" for side in ("left", "top", "right", "bottom"))
        )
        note = row["error"] or ("unaligned" if row["aligned"] is False else None)
        face = None if row["face"] is None else row["face"] + 1
        age = [(age_text(row) or None) if row["error"] is None else None] if aged else []
        lines.append([row["input"], face, box, *age, *(share(row, task) for task in tasks)])
        lines[-1] += [f"{row[task]:+.2f}" if row.get(task) is not None else None for task in numbers]
        lines[-1] += [*(row.get(task) for task in own), note]
    table(["picture", "face", "box", *(["age"] if aged else []), *tasks, *numbers, *own, "note"], lines)
