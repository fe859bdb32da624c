"""Expression, valence and arousal by cross-validation: every face is judged by a model that never saw it.

    python benchmarks/affect.py FACES -o FOLDER [--folds 5] [--seeds 0 1 2] [--recipe affect-mobile] [key=value ...]

Folds keep near-identical pictures together and every expression equally frequent; a twelfth of each fold's training
faces chooses the epoch. Predictions of the folds are pooled: one table of all faces for each seed, of which the
figures and their 95 % bootstrap intervals are told. The spread over seeds (other folds, other starts) stands apart. A
finished fold is not done again. `--against FOLDER` compares with another such folder, paired.
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
from mien.evaluation.judge import judge
from mien.evaluation.predictions import Predictions
from mien.faces import SPLITS
from mien.files import write_json
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
    parser.add_argument("--recipe", default="affect-mobile")
    parser.add_argument("--against", type=Path, help="such a folder; differences are this one minus that one")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    given = parser.parse_intermixed_args()

    pooled = {seed: pool(given, seed) for seed in given.seeds}
    found = {seed: judge(predictions) for seed, predictions in pooled.items()}
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


def pool(given: argparse.Namespace, seed: int) -> Predictions:
    """The predictions of all folds, each of the faces that its model did not see."""
    manifest = Manifest.open(given.faces)
    codes, groups = manifest.codes("expression"), manifest.groups()
    folds = StratifiedGroupKFold(given.folds, shuffle=True, random_state=seed)
    tables = []
    for number, (rest, held) in enumerate(folds.split(codes, codes, groups)):
        folder = given.out / f"seed-{seed}-fold-{number}"
        if not (folder / "predictions.test.parquet").exists():
            splits = np.full(len(manifest), SPLITS.index("train"))
            chooses = StratifiedGroupKFold(12, shuffle=True, random_state=seed)
            _, select = next(chooses.split(rest, codes[rest], groups[rest]))
            splits[rest[select]] = SPLITS.index("select")
            splits[held] = SPLITS.index("test")
            faces = manifest.with_columns({"split": splits}).save(folder / "faces")
            settings = [*given.settings, f"data.faces={faces.parent}", f"seed={seed * 100 + number}"]
            run = folder / "run"
            recipe = load_recipe(given.recipe, settings)
            train_run(recipe, run, resume=(run / "config_used.json").exists())
            Predictions.open(run / "predictions.test.parquet").save(folder / "predictions.test.parquet")
        tables.append(Predictions.open(folder / "predictions.test.parquet").table)
    table = pa.concat_tables(tables, promote_options="permissive")
    predictions = Predictions(table.take(pa.array(np.argsort(table["path"].to_numpy(zero_copy_only=False)))))
    predictions.save(given.out / f"pooled-{seed}.parquet")
    return predictions


if __name__ == "__main__":
    main()
