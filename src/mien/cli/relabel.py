"""`mien relabel`: several experts' ages beside each given one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

#: Where the experts' answers lie, in the folder of the labels.
ANSWERS = "answers"


def relabel(
    faces: Annotated[Path, typer.Argument(help="A manifest, or the folder that `mien prepare` made.")],
    experts: Annotated[Path, typer.Option("--experts", "-e", help="YAML file that lists the experts.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder; moe/ beside the manifest.")] = None,
    fit: Annotated[
        Path | None, typer.Option(help="A manifest with trusted ages that no expert saw: fit the fusion on it.")
    ] = None,
    fusion: Annotated[
        str | None, typer.Option(help="A fitted fusion's file, or mean, median, winsorised; else as the YAML says.")
    ] = None,
    max_std: Annotated[
        float | None, typer.Option(min=0, metavar="YEARS", help="Filter out faces whose spread is larger.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also write relabelled.parquet, with the fused ages as the ages.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes beside this one.")] = 0,
    patience: Annotated[
        float | None, typer.Option(min=0.1, metavar="S", help="End an expert that is silent for so many seconds.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray (an extra).")] = "local",
    address: Annotated[str | None, typer.Option(help="With --engine ray: of a cluster that runs already.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Faces an expert sees at once.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every finding.")] = False,
) -> None:
    """Ask several age experts about every face and add what they say to its labels; a given age is never overwritten.

    Each face gets the fused age, its variance and interval, each expert's age and confidence, a reliability, a weight
    for training, and flags. Writes faces.parquet, NAME_moe_labels.json and .csv, NAME_moe_report.csv, relabel.json. A
    broken run goes on where it was.

    Example: mien relabel utk --experts experts.yaml --fit trusted --max-std 8
    """
    from mien.cli.console import print_json, say
    from mien.data.slices import Slices
    from mien.errors import MienError
    from mien.experts.fusion import Fusion
    from mien.experts.methods import Method, open_fusion
    from mien.experts.table import load_experts
    from mien.jobs.engine import first_rank, spare_manifest
    from mien.jobs.predict import usable
    from mien.jobs.relabel import ask_experts, fit_on, write_labels
    from mien.jobs.workers import choose_engine

    if fit is not None and fusion is not None:
        raise MienError("--fit fits a fusion, --fusion names one; choose one of them")
    listed = load_experts(experts)
    slices = Slices(faces)
    folder = out or slices.path.parent / "moe"
    if (folder / slices.path.name).resolve() == slices.path.resolve():
        raise MienError(f"{folder} holds the manifest itself; choose another folder with -o")
    spare_manifest(folder, ANSWERS)
    who, where = choose_engine(engine, workers, patience, address), usable(device)
    made: Fusion | Method
    if fit is None:
        made = open_fusion(fusion or listed.fusion, listed.names(), [one.hash() for one in listed.experts])
        answered = ask_experts(slices, listed, folder / ANSWERS, batch=batch, device=where, engine=who)
        if not first_rank():
            return
    else:
        trusted = ask_experts(Slices(fit), listed, folder / "trusted", batch=batch, device=where, engine=who)
        answered = ask_experts(slices, listed, folder / ANSWERS, batch=batch, device=where, engine=who)
        if not first_rank():
            return
        made = fit_on(trusted)
        made.save(folder / "fusion.json")
    name = slices.path.parent.resolve().name if slices.path.name == "faces.parquet" else slices.path.stem
    found = write_labels(answered, made, folder, name, max_std, replace)
    if json:
        print_json(found)
        return
    _print_tables(found)
    if isinstance(made, Method):
        say(f"ages fused by their {made.name}, without weights or an interval: --fit TRUSTED_FACES fits both")
    elif made.fused_mae is not None:
        say(f"fused, {made.fused_mae:.2f} years off on the {made.trusted:,} trusted faces, each held out of the fit")
    for expert, failures in found["failures"].items():
        for one in failures[:3]:
            say(f"{expert} says nothing of {one['path']}: {one['reason']}")
        if len(failures) > 3:
            say(f"{expert}: {len(failures) - 3:,} more in relabel.json")
    say(f"written: {folder}")


def _print_tables(found: dict[str, Any]) -> None:
    from mien.cli.console import table

    experts, fusion = found["experts"].items(), found["fusion"]
    # How far off each is stands there only where the fusion was fitted.
    off = fusion.get("mae") or {}
    table(
        ["expert", "faces without an answer", *(["years off on trusted faces"] if off else []), "weights", "terms"],
        [
            [name, one["failed"], *([off[name]] if off else []), one["sha256"][:12], one["terms"]]
            for name, one in experts
        ],
        title=f"{found['faces']:,} faces, {found['answered']:,} answered, {found['kept']:,} kept",
    )
    table(
        ["by", "group", "faces", "before", "after", "kept (%)", "95 % interval"],
        [
            [
                one["by"],
                one["group"],
                one["n"],
                one["before"],
                one["after"],
                100 * one["retention"],
                f"{100 * one['low']:.1f}-{100 * one['high']:.1f}",
            ]
            for one in found["retention"]
            if one["n"]
        ],
    )
