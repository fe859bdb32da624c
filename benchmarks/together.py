"""One model of six tasks against models of one task each, on equal budgets.

    python benchmarks/together.py [key=value ...] --ages UTK --votes FERPLUS --affect AFFECT -o FOLDER
        --weights mobilefacenet.safetensors [--count 3000] [--epochs 4] [--only NAME ...]

All start from the same weights and seed, with the recipe `utkface-mobile` without its balancing, and see each of their
training faces (`--count` of UTKFace and FER+ each, drawn once, and all of affect's) equally often: the joint model all
of them, a model of one task those that carry its label. So the joint one takes as many steps as its faces ask for,
fewer than the six together. Each task is judged on the `val` faces of its data sets; differences are paired, joint
minus single, with 95 % bootstrap intervals. A finished run is not done again; ends by writing FOLDER/together.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mien.data.manifest import Manifest
from mien.evaluation.compare import compare
from mien.evaluation.evaluate import evaluate_model
from mien.evaluation.predictions import Predictions
from mien.files import write_text
from mien.models.checkpoint import load_estimator
from mien.report.numbers import years
from mien.training.recipe import load_recipe
from mien.training.run import train_run

#: Settings of each task, and the data sets that carry its label.
TASKS = {
    "age": ("{method: dldl, sigma: 2.0, ordinal_weight: 1.0, regression_weight: 1.0, given: []}", ("ages",)),
    "gender": ("{weight: 0.4, label_smoothing: 0.05}", ("ages",)),
    "race": ("{weight: 0.4, label_smoothing: 0.05, given: []}", ("ages",)),
    "expression": ("{weight: 1.0, label_smoothing: 0.1}", ("votes", "affect")),
    "valence": ("{mse_weight: 1.0, ccc_weight: 0.5}", ("affect",)),
    "arousal": ("{mse_weight: 1.0, ccc_weight: 0.5}", ("affect",)),
}
#: What is told of each task.
TOLD = {
    "age": ("mae", "macro_mae"),
    "gender": ("accuracy",),
    "race": ("accuracy",),
    "expression": ("accuracy", "macro_f1"),
    "valence": ("ccc",),
    "arousal": ("ccc",),
}
JOINT = "joint"
SETS = ("ages", "votes", "affect")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, what in zip(SETS, ("age, gender and race", "expression", "expression, valence and arousal"), strict=True):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"a manifest of faces with {what}")
    parser.add_argument("--weights", required=True, help="starting weights of the backbone")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=3000, help="training faces of the first two sets, each")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", nargs="*", choices=[JOINT, *TASKS], help="train these and stop, nothing is told")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    given = parser.parse_intermixed_args()

    sets = {name: _small(getattr(given, name), given.count, given.out / "faces" / name) for name in SETS}
    for name in given.only or (JOINT, *TASKS):
        _train(given, name, sets)
    if not given.only:
        text = table(given.out, {name: getattr(given, name).name for name in SETS})
        write_text(given.out / "together.md", text)
        print(text)


def _small(faces: Path, count: int, folder: Path) -> Path:
    """The manifest with up to `count` of its training faces, chosen by a fixed seed; the other splits stay whole."""
    if not folder.exists():
        manifest = Manifest.open(faces)
        codes = manifest.codes("split")
        train = np.random.default_rng(0).permutation(np.flatnonzero(codes == 0))[:count]
        manifest.take(np.sort(np.concatenate([train, np.flatnonzero(codes > 0)]))).save(folder)
    return folder


def _train(given: argparse.Namespace, name: str, sets: dict[str, Path]) -> None:
    run = given.out / name
    used = SETS if name == JOINT else TASKS[name][1]
    if not (run / "history.json").is_file() or not (run / "metrics.val.json").is_file():
        print(f"--- {name}", flush=True)
        tasks = [f"tasks.{task}={TASKS[task][0] if name in (JOINT, task) else 'null'}" for task in TASKS]
        overrides = [
            f"data.faces=[{','.join(str(sets[one]) for one in used)}]",
            f"model.weights={given.weights}",
            f"training.epochs={given.epochs}",
            "sampling.by=uniform",
            *tasks,
            *given.settings,
        ]
        train_run(load_recipe("utkface-mobile", overrides), run, resume=(run / "config_used.json").is_file())
    for one in used:
        if not (run / one / "predictions.val.parquet").is_file():
            evaluate_model(load_estimator(run), Manifest.open(sets[one]), "val", run / one)


def table(out: Path, names: dict[str, str]) -> str:
    """The differences as Markdown, a line for each figure of each task on each of its data sets."""
    lines = ["| task | faces | n | figure | alone | joint | joint - alone, paired |", "|---|---|---|---|---|---|---|"]
    for task, (_, used) in TASKS.items():
        for one in used:
            tables = [Predictions.open(out / run / one / "predictions.val.parquet") for run in (task, JOINT)]
            found = compare(*tables)[task]
            for figure in TOLD[task]:
                # CCC and macro F1 are told with three digits: two would hide the differences that matter here.
                digits = 2 if task == "age" else 3
                cell = found[figure]
                lines.append(
                    f"| {task} | {names[one]} | {cell['difference']['n']:,} | {figure.replace('_', ' ')} "
                    f"| {years(cell['first'], digits)} | {years(cell['second'], digits)} "
                    f"| {years(cell['difference'], digits, sign=True)} |"
                )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
