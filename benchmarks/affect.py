"""Expression, valence and arousal by cross-validation: every face is judged by a model that never saw it.

    python benchmarks/affect.py FACES -o FOLDER [--folds 5] [--seeds 0 1 2] [--members 1] [--recipe affect-mobile]
        [key=value ...]

Folds keep near-identical pictures together and every expression equally frequent; a twelfth of each fold's training
faces chooses the epoch. Predictions of the folds are pooled: one table of all faces for each seed, of which the
figures and their 95 % bootstrap intervals are told. The spread over seeds (other folds, other starts) stands apart.
With `--members 2` a fold's model is two that were trained from other seeds, joined (`mien join`); what each says alone
is told too. A finished run is not done again, so several processes may share a folder with `--only-folds`.
`--against FOLDER` compares with another such folder, paired.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.model_selection import StratifiedGroupKFold

from mien.data.manifest import Manifest
from mien.evaluation.compare import compare
from mien.evaluation.evaluate import evaluate_model
from mien.evaluation.judge import judge
from mien.evaluation.predictions import Predictions
from mien.faces import SPLITS
from mien.files import write_json
from mien.models.checkpoint import load_estimator, save_estimator
from mien.models.join import join
from mien.training.recipe import load_recipe
from mien.training.run import train_run

#: What is told, by task.
TOLD = {
    "expression": ("accuracy", "macro_f1", "kappa", "auroc"),
    "valence": ("ccc", "rmse"),
    "arousal": ("ccc", "rmse"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--members", type=int, default=1, help="networks a fold, joined")
    parser.add_argument("--only-folds", type=int, nargs="+", help="train these and stop, nothing is told")
    parser.add_argument("--recipe", default="affect-mobile")
    parser.add_argument("--against", type=Path, help="such a folder; differences are this one minus that one")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    given = parser.parse_intermixed_args()

    if given.only_folds:
        for seed in given.seeds:
            for number, held in enumerate(folds(given, seed)):
                if number in given.only_folds:
                    judged(given, seed, number, held)
        return
    tables = {seed: pool(given, seed) for seed in given.seeds}
    pooled = {seed: table[""] for seed, table in tables.items()}
    found = {seed: judge(predictions) for seed, predictions in pooled.items()}
    for name, predictions in tables[given.seeds[0]].items():
        if name:
            told = judge(predictions)
            values = [
                f"{task} {TOLD[task][0]} {told[task][TOLD[task][0]]['value']:.3f}" for task in TOLD if task in told
            ]
            print(f"{name} alone, seed {given.seeds[0]}: {', '.join(values)}")
    result: dict[str, object] = {"settings": [given.recipe, *given.settings], "folds": given.folds, "seeds": found}
    for task, figures in TOLD.items():
        for figure in figures:
            values = [part[task][figure] for part in found.values() if task in part]
            if values:
                first, spread = values[0], [value["value"] for value in values]
                line = (
                    f"{task} {figure}: {first['value']:.3f} [{first['low']:.3f}, {first['high']:.3f}], n {first['n']:,}"
                )
                if len(spread) > 1:
                    line += f"; over {len(spread)} seeds {np.mean(spread):.3f}, standard deviation {np.std(spread):.3f}"
                print(line)
    if given.against:
        first = given.seeds[0]
        other = Predictions.open(given.against / f"pooled-{first}.parquet")
        result["against"] = differences = compare(other, pooled[first])
        print(json.dumps(differences, indent=1, default=str))
    write_json(given.out / "affect.json", result)


def folds(given: argparse.Namespace, seed: int) -> list[np.ndarray]:
    """The split of every face in each fold: train, select, or test where the fold's model is judged."""
    manifest = Manifest.open(given.faces)
    codes, groups = manifest.codes("expression"), manifest.groups()
    found = []
    for rest, held in StratifiedGroupKFold(given.folds, shuffle=True, random_state=seed).split(codes, codes, groups):
        splits = np.full(len(manifest), SPLITS.index("train"))
        chooses = StratifiedGroupKFold(12, shuffle=True, random_state=seed)
        _, select = next(chooses.split(rest, codes[rest], groups[rest]))
        splits[rest[select]] = SPLITS.index("select")
        splits[held] = SPLITS.index("test")
        found.append(splits)
    return found


def judged(given: argparse.Namespace, seed: int, number: int, splits: np.ndarray) -> dict[str, Path]:
    """The folder with the predictions of the fold's model, under "", and of each of its members."""
    folder = given.out / f"seed-{seed}-fold-{number}"
    if not (folder / "faces").exists():
        Manifest.open(given.faces).with_columns({"split": splits}).save(folder / "faces")
    runs = {f"member {member}": folder / f"run-{member}" for member in range(given.members)}
    for member, run in enumerate(runs.values()):
        if not (run / "predictions.test.parquet").exists():
            settings = [f"data.faces={folder / 'faces'}", f"seed={seed * 100 + number + 1000 * member}"]
            recipe = load_recipe(given.recipe, [*given.settings, *settings])
            train_run(recipe, run, resume=(run / "config_used.json").exists())
    if given.members == 1:
        return {"": runs["member 0"]}
    joined = folder / f"joined-{given.members}"
    if not (joined / "predictions.test.parquet").exists():
        estimator = join([load_estimator(run) for run in runs.values()])
        save_estimator(joined, estimator)
        evaluate_model(estimator, Manifest.open(folder / "faces"), "test", joined)
    return {"": joined, **runs}


def pool(given: argparse.Namespace, seed: int) -> dict[str, Predictions]:
    """The predictions of all folds, each of the faces that its model did not see; of its members alone too."""
    tables: dict[str, list[pa.Table]] = {}
    for number, splits in enumerate(folds(given, seed)):
        for name, run in judged(given, seed, number, splits).items():
            tables.setdefault(name, []).append(Predictions.open(run / "predictions.test.parquet").table)
    pooled = {}
    for name, parts in tables.items():
        table = pa.concat_tables(parts, promote_options="permissive")
        order = np.argsort(table["path"].to_numpy(zero_copy_only=False))
        pooled[name] = Predictions(table.take(pa.array(order)))
    pooled[""].save(given.out / f"pooled-{seed}.parquet")
    return pooled


if __name__ == "__main__":
    main()
