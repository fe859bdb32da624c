"""Turn a finished run into a model that ships: weights, facts and a model card with its figures by group.

    python benchmarks/ship.py RUN NAME --terms "..." --data "..." --command "mien train ..."

Figures come from the run's own metrics.val.json, made by `mien evaluate`; nothing is written by hand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mien.files import write_text
from mien.models.checkpoint import load_estimator, save_estimator
from mien.report.numbers import share, years

HOME = Path(__file__).resolve().parents[1] / "src" / "mien" / "weights"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--terms", required=True, help="one line on what the weights may be used for")
    parser.add_argument("--data", required=True, help="one line on the faces it learnt from")
    parser.add_argument("--command", required=True, help="what was run, all stages of it")
    given = parser.parse_args()

    metrics = json.loads((given.run / "metrics.val.json").read_text(encoding="utf-8"))
    config = json.loads((given.run / "config_used.json").read_text(encoding="utf-8"))
    estimator = load_estimator(given.run)
    estimator.name = given.name
    # The recipe's paths mean nothing elsewhere, and the weights no longer need them.
    estimator.settings["model"] |= {"weights": None, "init": None}
    estimator.card = {"terms": given.terms, "data": given.data, "figures": headline(metrics)}
    folder = HOME / given.name
    save_estimator(folder, estimator)
    write_text(folder / "README.md", card(given, metrics, config))
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{folder.name}: {size:.1f} MB")


def headline(metrics: dict[str, Any]) -> dict[str, str]:
    """A few figures for one line of a table."""
    found = {"age MAE": f"{metrics['age']['mae']['value']:.2f}"}
    return found | {task: f"{metrics[task]['accuracy']['value']:.3f}" for task in ("gender", "race") if task in metrics}


def card(given: argparse.Namespace, metrics: dict[str, Any], config: dict[str, Any]) -> str:
    """The model card as Markdown."""
    age, about, record = metrics["age"], metrics["about"], config["record"]
    lines = [
        f"# {given.name}",
        "",
        f"**Terms.** {given.terms}",
        "",
        f"**Data.** {given.data}",
        "",
        f"**Made by** `{given.command}`, seed {config['seed']}, mien {record['mien']}, on {record['machine']}.",
        "",
        f"**Judged** by `mien evaluate`, split `{about['split']}`, {about['faces']:,} faces; "
        f"95 % bootstrap intervals over {about['groups']:,} groups of near-identical pictures. "
        f"Calibration: {about['calibration']}.",
        "",
        "| figure | value | always the same answer |",
        "|---|---|---|",
        f"| age, MAE in years | {years(age['mae'])} | {years(age['constant']['mae'])} |",
        f"| age, macro MAE over eight bins | {years(age['macro_mae'])} | |",
        f"| age, within 5 years | {share(age['cs5'])} | |",
        f"| age, bias in years | {years(age['bias'])} | |",
        f"| coverage of 90 % intervals | {share(age['coverage90'])} | |",
        f"| mean width of 90 % intervals, years | {years(age['width90'])} | |",
    ]
    for task in ("gender", "race"):
        if task in metrics:
            majority = share(metrics[task]["majority"]["accuracy"]["value"])
            lines.append(f"| {task}, accuracy | {share(metrics[task]['accuracy'])} | {majority} |")
    for by in ("age_bin", "gender", "race", "gender x race"):
        lines += [
            "",
            f"## Age by {by.replace('_', ' ')}",
            "",
            "| | n | MAE | bias | coverage |",
            "|---|---|---|---|---|",
        ]
        for group, found in age["groups"].get(by, {}).items():
            if found.get("suppressed"):
                lines.append(f"| {group} | {found['n']} | too few to say | | |")
            else:
                cells = [years(found["mae"]), years(found["bias"]), share(found["coverage90"])]
                lines.append(f"| {group} | {found['mae']['n']} | {' | '.join(cells)} |")
    lines += [
        "",
        "## Limits",
        "",
        "Ages are apparent ages as the data's labels have them, wrong ones included. Gender and race are the data's "
        "two and five classes, as others saw them, not what a person is. Decide nothing about a person with it. "
        "Age does not depend on the race and gender heads: `--tasks age` leaves both out.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
