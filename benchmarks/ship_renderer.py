"""Turn a finished renderer into one that ships: weights, facts and a card with its figures by age and by group.

    python benchmarks/ship_renderer.py RUN NAME --audit runs/at/audit/ageing.json --terms "..." --data "..." \\
        --command "mien train ..." [--latents latents.json] [--half]

Figures come from the files that `mien audit --ageing RUN` and, of a beta-VAE, `mien latents -m RUN` wrote; nothing is
written by hand. With --half weights are stored in half precision: judge what was shipped, not what it was made of.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ship import halved

from mien.files import write_text
from mien.models.checkpoint import load_renderer, save_renderer
from mien.report.ageing import COLUMNS
from mien.report.latents import known, painted
from mien.report.numbers import suppressed, years

HOME = Path(__file__).resolve().parents[1] / "src" / "mien" / "weights"
#: Figures of the tables by age and by group; and of the table with a line for each renderer.
FIGURES = ("bias", "mae", "in_band", "cosine", "verified", "joint")
SUMMARY = (*FIGURES, "spearman", "own_l1", "gender_kept", "race_kept", "outside")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--audit", type=Path, required=True, help="ageing.json, which judged this run first")
    parser.add_argument("--terms", required=True, help="one line on what the weights may be used for")
    parser.add_argument("--data", required=True, help="one line on the faces it learnt from")
    parser.add_argument("--command", required=True, help="what was run, all stages of it")
    parser.add_argument("--latents", type=Path, help="latents.json, of a beta-VAE")
    parser.add_argument("--half", action="store_true", help="store the weights in half precision")
    given = parser.parse_args()

    told = json.loads(given.audit.read_text(encoding="utf-8"))
    config = json.loads((given.run / "config_used.json").read_text(encoding="utf-8"))
    network = load_renderer(given.run)
    name, judged = next((name, of) for name, of in told["renderers"].items() if of["kind"] != "trivial")
    network.name = given.name
    summary = judged["summary"]
    network.card = {
        "terms": given.terms,
        "data": given.data,
        "figures": {
            "judged age off by": f"{summary['mae']['value']:.1f} years",
            "age and person right": f"{summary['joint']['value']:.3f}",
        },
    }
    folder = HOME / given.name
    weights = halved(network.state_dict()) if given.half else network.state_dict()
    save_renderer(folder, network, weights)
    write_text(folder / "README.md", card(given, told, name, config, network.input_size))
    megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{folder.name}: {megabytes:.1f} MB, judged as {name}")


def card(given: argparse.Namespace, told: dict[str, Any], name: str, config: dict[str, Any], size: int) -> str:
    """The model card as Markdown."""
    about, record = told["about"], config["record"]
    this = told["renderers"][name]
    counted = ", ".join(f"{age:g}" for age in about["counted"])
    judges = "; ".join(f"{what} by {of['name']}" for what, of in about["judges"].items())
    stored = ", stored in half precision" if given.half else ""
    # The audit says of which run; a reader of the card needs to know that there was one.
    akin = any("of the judge's architecture" in note for note in about["notes"])
    kin = "; some guides have the age judge's architecture, with other weights" if akin else ""
    named = {given.name if key == name else key: of["summary"] for key, of in told["renderers"].items()}
    lines = [
        f"# {given.name}",
        "",
        "A renderer: it shows a face at other ages. What it shows is synthetic, a guess of how people of that age "
        "look; it knows nothing of how this person will.",
        "",
        f"**Terms.** {given.terms}",
        "",
        f"**Data.** {given.data}",
        "",
        f"**Made by** `{given.command}`, seed {config['seed']}, mien {record['mien']}, on {record['machine']}.",
        "",
        f"**Judged** by `mien audit --ageing` on {about['faces']} faces of split `{about['split']}` at {counted} "
        f"years, by networks that guided none of it ({judges}{kin}); 95 % bootstrap intervals over {about['groups']} "
        f"groups. On the faces as they are the judge of age is wrong by {years(told['judge']['mae'])} years.",
        "",
        *table("renderer", named, SUMMARY),
        "",
        f"{this['parameters']:,} parameters{stored}; it works at {size} px.",
        *code(given.latents),
        "",
        "## By age asked for",
        "",
        *table("years", this["ages"], FIGURES),
    ]
    for by, groups in this["groups"].items():
        lines += ["", f"## By {'age of the face' if by == 'age_bin' else by}", "", *table("", groups, FIGURES)]
    lines += [
        "",
        "## Limits",
        "",
        "It learnt from single photos: nobody was seen at two ages. Gender and race are the data's classes, as others "
        "saw them. It may change what is not age: the tables say how often its judges see that. Do not use it to "
        "decide anything about a person, nor to show a person to others without their consent.",
        "",
    ]
    return "\n".join(lines)


def code(file: Path | None) -> list[str]:
    """What `mien latents` says of the code, its rivals beside it."""
    if file is None:
        return []
    found = json.loads(file.read_text(encoding="utf-8"))
    lines = ["", "## Its code", "", f"Judged by `mien latents` on {found['about']['faces']:,} faces of `val`."]
    for headers, rows in (painted(found), known(found)):
        lines += ["", f"| {' | '.join(headers)} |", "|---" * len(headers) + "|"]
        lines += [f"| {' | '.join('' if cell is None else str(cell) for cell in row)} |" for row in rows]
    return lines


def table(first: str, rows: dict[str, Any], figures: tuple[str, ...]) -> list[str]:
    """A Markdown table with a line for each of `rows`; groups of too few faces say so."""
    there = [figure for figure in figures if any(figure in row for row in rows.values())]
    lines = [f"| {first} | {' | '.join(COLUMNS[figure][0] for figure in there)} |", "|---" * (len(there) + 1) + "|"]
    for name, row in rows.items():
        if suppressed(row):
            lines.append(f"| {name} | {row['n']} faces, too few to say |" + " |" * (len(there) - 1))
        else:
            lines.append(f"| {name} | {' | '.join(COLUMNS[figure][1](row.get(figure)) for figure in there)} |")
    return lines


if __name__ == "__main__":
    main()
