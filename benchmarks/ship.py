"""Turn a finished run into a model that ships: weights, facts and a model card with its figures by group.

    python benchmarks/ship.py RUN NAME --terms "..." --data "..." --command "mien train ..." \\
        --judged UTKFace=utk/metrics.val.json --judged "FER+=fer/metrics.val.json" [--half]

Figures come from files that `mien evaluate` wrote, ages from the first; nothing is written by hand. RUN may be a model
that `mien join` wrote. With --half weights are stored in half precision: judge what was shipped, not what it was made
of.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from mien import __version__
from mien.files import write_text
from mien.models.checkpoint import load_estimator, save_estimator
from mien.report.numbers import share, years

#: Tasks with a line each, where they were judged.
CLASSES, CONTINUOUS = ("gender", "race", "expression"), ("valence", "arousal")
#: What each task cannot do; the last is said of all.
LIMITS = {
    "age": "Ages are apparent ages as the data's labels have them, wrong ones included.",
    "gender": "Gender and race are the data's two and five classes, as others saw them, not what a person is. Age does "
    "not depend on their heads: `--tasks age` leaves both out.",
    "expression": "Expression, valence and arousal are what onlookers read in a picture, not what a person feels; "
    "onlookers agree on them only in part.",
    "": "Decide nothing about a person with it.",
}
HOME = Path(__file__).resolve().parents[1] / "src" / "mien" / "weights"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--terms", required=True, help="one line on what the weights may be used for")
    parser.add_argument("--data", required=True, help="one line on the faces it learnt from")
    parser.add_argument("--command", required=True, help="what was run, all stages of it")
    parser.add_argument(
        "--judged", action="append", metavar="DATA=FILE", help="a metrics.val.json; the run's own unless given"
    )
    parser.add_argument("--half", action="store_true", help="store the weights in half precision")
    given = parser.parse_args()

    files = [word.split("=", 1) for word in given.judged or [f"val={given.run / 'metrics.val.json'}"]]
    judged = {data: json.loads(Path(file).read_text(encoding="utf-8")) for data, file in files}
    used = given.run / "config_used.json"
    config = json.loads(used.read_text(encoding="utf-8")) if used.exists() else None
    estimator = load_estimator(given.run)
    estimator.name = given.name
    # The recipe's paths mean nothing elsewhere, and the weights no longer need them.
    estimator.settings["model"] |= {"weights": None, "init": None}
    estimator.card = {"terms": given.terms, "data": given.data, "figures": headline(judged)}
    folder = HOME / given.name
    save_estimator(folder, estimator, halved(estimator.state_dict()) if given.half else None)
    write_text(folder / "README.md", card(given, judged, config))
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{folder.name}: {size:.1f} MB")


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in half precision; counts stay whole."""
    return {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}


def headline(judged: dict[str, dict[str, Any]]) -> dict[str, str]:
    """A few figures for one line of a table, of each task on the first data that carry it."""
    first: dict[str, Any] = {}
    for metrics in judged.values():
        first = metrics | first
    found = {"age MAE": f"{first['age']['mae']['value']:.2f}"} if "age" in first else {}
    found |= {task: f"{first[task]['accuracy']['value']:.3f}" for task in CLASSES if task in first}
    return found | {f"{task} CCC": f"{first[task]['ccc']['value']:.2f}" for task in CONTINUOUS if task in first}


def card(given: argparse.Namespace, judged: dict[str, dict[str, Any]], config: dict[str, Any] | None) -> str:
    """The model card as Markdown; `config` is what the run was trained by, None of joined ones."""
    metrics = next(iter(judged.values()))
    about = metrics["about"]
    made = f"mien {__version__}"
    if config is not None:
        record = config["record"]
        made = f"seed {config['seed']}, mien {record['mien']}, on {record['machine']}"
    stored = ", and stored in half precision" if given.half else ""
    lines = [
        f"# {given.name}",
        "",
        f"**Terms.** {given.terms}",
        "",
        f"**Data.** {given.data}",
        "",
        f"**Made by** `{given.command}`, {made}{stored}.",
        "",
        f"**Judged** by `mien evaluate` on {_faces(judged)}; 95 % bootstrap intervals over "
        f"{about['groups']:,} groups of near-identical pictures. "
        f"Calibration: {about['calibration']}.",
        "",
        "| figure | value | always the same answer |",
        "|---|---|---|",
    ]
    if "age" in metrics:
        age = metrics["age"]
        lines += [
            f"| age, MAE in years | {years(age['mae'])} | {years(age['constant']['mae'])} |",
            f"| age, macro MAE over eight bins | {years(age['macro_mae'])} | |",
            f"| age, within 5 years | {share(age['cs5'])} | |",
            f"| age, bias in years | {years(age['bias'])} | |",
            f"| coverage of 90 % intervals | {share(age['coverage90'])} | |",
            f"| mean width of 90 % intervals, years | {years(age['width90'])} | |",
        ]
    for data, found in judged.items():
        of = f" ({data})" if len(judged) > 1 else ""
        for task in CLASSES:
            if task in found:
                majority = found[task]["majority"]
                lines.append(
                    f"| {task}{of}, accuracy | {share(found[task]['accuracy'])} | {share(majority['accuracy'])} |"
                )
                if task == "expression":
                    lines.append(
                        f"| {task}{of}, macro F1 | {years(found[task]['macro_f1'])} | {years(majority['macro_f1'])} |"
                    )
        for task in CONTINUOUS:
            if task in found:
                constant = found[task]["constant"]
                lines.append(f"| {task}{of}, CCC | {years(found[task]['ccc'])} | 0 |")
                lines.append(f"| {task}{of}, RMSE | {years(found[task]['rmse'])} | {years(constant['rmse'])} |")
    lines += _ages(metrics["age"]) if "age" in metrics else []
    lines += _expressions(metrics["expression"]) if "expression" in metrics else []
    lines += ["", "## Limits", "", *(text for task, text in LIMITS.items() if task in metrics or not task), ""]
    return "\n".join(lines)


def _ages(age: dict[str, Any]) -> list[str]:
    lines: list[str] = []
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
    return lines


def _expressions(expression: dict[str, Any]) -> list[str]:
    lines = ["", "## Expression by class", "", "| | n | recall | precision | F1 |", "|---|---|---|---|---|"]
    for name, found in expression["per_class"].items():
        cells = [share(found[key]) for key in ("recall", "precision", "f1")]
        lines.append(f"| {name} | {found['n']} | {' | '.join(cells)} |")
    return lines


def _faces(judged: dict[str, dict[str, Any]]) -> str:
    told = []
    for data, metrics in judged.items():
        about = metrics["about"]
        told.append(f"{about['faces']:,} faces{f' of {data}' if len(judged) > 1 else ''}, split `{about['split']}`")
    return " and ".join(told)


if __name__ == "__main__":
    main()
