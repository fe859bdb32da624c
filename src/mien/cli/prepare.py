"""`mien prepare`: a data set becomes a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

if TYPE_CHECKING:
    from mien.data.matching import Matching


def prepare(
    source: Annotated[
        str,
        typer.Argument(
            help="utkface, fairface, fgnet, morph2, imdb_wiki, ffhq_aging, caf, affect, ferplus, folder or drawn"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make: faces.parquet, rejected.csv.")],
    path: Annotated[
        Path | None,
        typer.Argument(help="Folder, zip, tar or tar.gz in the data set's own layout; none for drawn."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV or Parquet with a column path and labels (folder).")] = None,
    crop: Annotated[
        str | None, typer.Option(help="How the pictures are cut already: photo, box or chip (folder).")
    ] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", help="Faces to draw (drawn).")] = None,
    each: Annotated[int | None, typer.Option(help="Faces of each person to draw (4; drawn).")] = None,
    splits: Annotated[
        Path | None, typer.Option(help="CSV of given splits: file, split and, if known, duplicate_group.")
    ] = None,
    corrections: Annotated[Path | None, typer.Option(help="CSV of corrected labels: path, column, value.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the splits and of drawn faces.")] = 0,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels of faces that are cut (200; ferplus 42) or drawn (112).")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="What is kept around faces that are cut or drawn, as a share of the crop's side (0)."),
    ] = None,
    align: Annotated[
        bool | None,
        typer.Option("--align/--no-align", help="Cut faces to the canonical crop; by default all that are not in it."),
    ] = None,
    landmarks: Annotated[
        bool, typer.Option("--landmarks", help="Find the 68 landmarks of faces that have none, with the landmarker.")
    ] = False,
    check_landmarks: Annotated[
        str | None,
        typer.Option(help="Drop given landmarks that lie beside the face as this finds it: landmarker, yunet:PATH."),
    ] = None,
    quality: Annotated[
        bool, typer.Option("--quality", help="Reject blurred, small, dark, glaring, flat and grey faces; rejected.png.")
    ] = False,
    thresholds: Annotated[
        Path | None, typer.Option(help="YAML of the thresholds of --quality, which it switches on.")
    ] = None,
    match: Annotated[
        str | None, typer.Option(help="Bring every picture to the data set's: light, or light and colour (colour).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read a data set and write a manifest of its faces, with splits.

    Pictures stay where they are, except those that are cut, matched or drawn. What cannot be read, and what --quality
    refuses, is listed in rejected.csv.
    """
    from shlex import quote

    from mien.cli.console import print_json, say
    from mien.data.matching import Matching
    from mien.data.prepare import prepare as make
    from mien.data.quality import QualityFilter, load_filter
    from mien.data.sources import SOURCES
    from mien.errors import MienError, unknown

    kind = SOURCES.get(source)
    if kind is None:
        raise unknown("source", source, SOURCES)
    given: dict[str, Any] = {"labels": labels, "crop": crop, "count": count, "each": each}
    for name, value in given.items():
        if value is not None and name not in kind.options:
            takers = [other for other, cls in SOURCES.items() if name in cls.options]
            raise MienError(f"source {source} takes no --{name}; {', '.join(takers)} does")
    if path is not None and "count" in kind.options:
        raise MienError(f"source {source} draws its faces and reads none: leave {path} out")
    if path is None and "count" not in kind.options:
        raise MienError(f"source {source} needs the PATH of its data: {kind.layout}")
    ways = get_args(Matching)
    if match is not None and match not in ways:
        raise unknown("--match", match, ways)
    filtered = QualityFilter() if quality else None
    if thresholds is not None:
        filtered = load_filter(thresholds)
    check, locate = None, None
    if check_landmarks is not None:
        from mien.jobs.locate import checker

        check = checker(check_landmarks)
    if landmarks:
        from mien.jobs.locate import finder

        locate = finder()
    settings = {**given, "seed": seed, "size": size, "margin": margin}
    prepared = make(
        kind(**{name: settings[name] for name in kind.options if settings[name] is not None}),
        path or Path(),
        out,
        splits=splits,
        corrections=corrections,
        seed=seed,
        size=size,
        margin=margin,
        align=align,
        check=check,
        locate=locate,
        quality=filtered,
        matching=cast("Matching | None", match),
        show=not json,
    )
    facts = prepared.facts()
    if json:
        print_json(facts)
        return
    _print(facts)
    say(f"Wrote {prepared.file}. Next: mien inspect {quote(str(out))}")


def _print(facts: dict[str, Any]) -> None:
    from mien.cli.console import table

    rows: list[tuple[str, int | None]] = [("faces", facts["faces"]), ("rejected", facts["rejected"])]
    reasons = list(facts["reasons"].items())
    rows += [(f"  {reason}", count) for reason, count in reasons[:8]]
    if more := reasons[8:]:
        rows.append((f"  {len(more):,} other reasons (rejected.csv)", sum(count for _, count in more)))
    rows += [(f"with {label}", count) for label, count in facts["labels"].items()]
    rows += [(f"split {split}", count) for split, count in facts["splits"].items()]
    rows += [("groups of one person or picture", facts["groups"])]
    if facts["unmatched"]:
        rows.append(("names that match nothing (unmatched.csv)", facts["unmatched"]))
    table(["", "faces"], rows)
