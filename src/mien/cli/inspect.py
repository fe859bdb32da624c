"""`mien inspect`: what a manifest holds and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from mien.data.inspection import Inspection
    from mien.data.manifest import Manifest
    from mien.data.pictures import Pictures
    from mien.report.html import Picture

#: Conflicting groups shown on the page and unreadable pictures named on the terminal; all are in the JSON.
SHOWN, LISTED = 200, 5


def inspect(
    faces: Annotated[Path, typer.Argument(help="A manifest, or the folder that `mien prepare` made.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder; inspect/ beside the manifest.")] = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates/--no-duplicates", help="Compare all pictures with one another.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every finding.")] = False,
) -> None:
    """Look through a manifest: counts, imbalance, bad pictures, copies whose labels or splits disagree.

    Every picture is read once. Writes inspect.json, inspect.html and figures/: dataset_analysis.png, and
    affect_analysis.png where expressions, valence or arousal are known.

    Example: mien inspect utk
    """
    from mien.cli.console import print_json, ready, say
    from mien.data.inspection import inspect_manifest
    from mien.data.manifest import Manifest
    from mien.files import write_json

    manifest = Manifest.open(faces)
    folder = ready(out or (manifest.path or faces).parent / "inspect")
    inspection = inspect_manifest(manifest, duplicates=duplicates)
    write_json(folder / "inspect.json", inspection.findings)
    _write_page(folder, manifest, inspection, faces)
    if json:
        print_json(inspection.findings)
        return
    _print_tables(inspection.findings)
    say(f"page: {folder / 'inspect.html'}")


def _write_page(folder: Path, manifest: Manifest, inspection: Inspection, faces: Path) -> None:
    from mien.files import write_text
    from mien.report import figures
    from mien.report.inspection import inspection_page

    findings = inspection.findings
    analysis = figures.dataset_analysis(
        manifest.numbers("age_low"),
        manifest.numbers("age_high"),
        manifest.codes("gender"),
        manifest.codes("race"),
    )
    figures.save(analysis, folder / "figures" / "dataset_analysis.png")
    drawn = {"dataset_analysis": analysis}
    if findings["feelings"] or manifest.has("expression"):
        drawn["affect_analysis"] = figures.affect_analysis(
            manifest.codes("expression"), manifest.numbers("valence"), manifest.numbers("arousal")
        )
        figures.save(drawn["affect_analysis"], folder / "figures" / "affect_analysis.png")
    about = findings["duplicates"] or {"conflicting": []}
    pictures, archives = manifest.pictures(), manifest.strings("archive")
    conflicts = [
        _group(pictures, archives[rows], group)
        for rows, group in zip(inspection.conflicts[:SHOWN], about["conflicting"], strict=False)
    ]
    facts = {
        "Faces": str(faces),
        "Crop": manifest.crop.template,
        "Side of the pictures": f"{manifest.crop.size} px" if manifest.crop.size else "differs",
        "Content (sha256)": manifest.hash[:16],
    }
    page = inspection_page(findings, drawn, conflicts, facts)
    write_text(folder / "inspect.html", page)


def _group(pictures: Pictures, archives: np.ndarray, about: Mapping[str, Any]) -> list[Picture]:
    """One group of the same picture as the page shows it."""
    from mien.report.html import THUMBNAIL, Picture

    tags = [name if name != "age" else f"age: {apart:g} years" for name, apart in about["differ"].items()]
    tags.append("byte-identical" if about["identical"] else f"alike {about['similarity']:.2f}")
    return [
        Picture(
            pictures.image(path, archive, side=THUMBNAIL),
            _words(labels),
            [path, *([labels["split"]] if "split" in labels else [])],
            tags,
        )
        for path, archive, labels in zip(about["paths"], archives, about["labels"], strict=True)
    ]


def _words(labels: Mapping[str, Any]) -> str:
    """`31, Female, Asian`; an interval of ages as `3-9`."""
    parts = []
    for name, value in labels.items():
        if name == "age":
            parts.append("-".join(f"{one:g}" for one in (value if isinstance(value, list) else [value])))
        elif name != "split":
            parts.append(value)
    return ", ".join(parts)


def _print_tables(findings: Mapping[str, Any]) -> None:
    from mien.cli.console import say, table

    splits = {name: n for name, n in findings["counts"]["split"].items() if n and name != "missing"}
    table(["faces", *splits], [[findings["faces"], *splits.values()]])
    for name, part in findings["imbalance"].items():
        ratio = f", largest : smallest = {part['ratio']:.1f}" if part["ratio"] else ""
        table(
            [name, "faces", "share (%)", "loss weight"],
            [
                [word, round(one["count"]), 100 * (one["share"] or 0.0), one["weight"]]
                for word, one in part["classes"].items()
            ],
            title=f"{name}{ratio}",
        )
    if findings["imbalance"]:
        say("loss weight: faces / (classes x faces of the class), as class_weights: balanced takes it")
    if findings["feelings"]:
        header = ["", "faces", "missing", "mean", "deviation", "lowest", "highest"]
        keys = ("count", "missing", "mean", "deviation", "lowest", "highest")
        table(header, [[name, *(one[key] for key in keys)] for name, one in findings["feelings"].items()])
    duplicates = findings["duplicates"]
    rows: list[list[Any]] = [["unreadable pictures", len(findings["unreadable"])]]
    if findings["changed"]:
        rows.append(["pictures that are not those that were prepared", len(findings["changed"])])
    if findings["votes"] is not None:
        rows += [
            ["faces with votes on their expression", findings["votes"]["faces"]],
            ["  tied", findings["votes"]["tied"]],
            ["  most raters unsure", findings["votes"]["unsure"]],
        ]
    if findings["landmarks"] is not None:
        rows += [
            ["faces with landmarks", findings["landmarks"]["faces"]],
            ["  some outside the picture", findings["landmarks"]["outside"]],
            ["  by more than a tenth of it", findings["landmarks"]["far_outside"]],
        ]
    if duplicates is not None:
        rows += [
            ["groups of the same picture", len(duplicates["groups"])],
            ["  faces in them", duplicates["faces"]],
            ["  with byte-identical pictures", duplicates["identical"]],
            ["  largest", duplicates["largest"]],
            ["  in more than one split", len(duplicates["across_splits"])],
            ["  whose labels disagree", len(duplicates["conflicting"])],
        ]
        rows += [[f"    on {name.replace('_', ' ')}", n] for name, n in duplicates["disagreements"].items()]
    table(["found", "n"], rows)
    for one in findings["unreadable"][:LISTED]:
        say(f"unreadable: {one['path']}: {one['reason']}")
    if len(findings["unreadable"]) > LISTED:
        say(f"unreadable: {len(findings['unreadable']) - LISTED:,} more in inspect.json")
    for path in findings["changed"][:LISTED]:
        say(f"changed since it was prepared: {path}")
    if len(findings["changed"]) > LISTED:
        say(f"changed since they were prepared: {len(findings['changed']) - LISTED:,} more in inspect.json")
