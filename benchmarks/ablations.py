"""What each choice brings, on an equal and small budget: one change at a time against the same base.

    python benchmarks/ablations.py FACES --weights mobilefacenet.safetensors -o FOLDER [--only NAME ...] [--more ...]

Every run learns from the same training faces (`--count` of them, drawn once) for the same number of epochs, from the
same seed, and is judged on all of `val`; ways to decode are tried on the base. Differences are paired, change minus
base, with 95 % bootstrap intervals. A finished run is not done again, so the command may be interrupted, and several
may share a folder with `--only`; it ends by writing FOLDER/ablations.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.manifest import Manifest
from mien.evaluation.compare import compare
from mien.evaluation.evaluate import calibrate, evaluate_model
from mien.evaluation.predictions import Predictions
from mien.files import write_text
from mien.models.checkpoint import load_estimator
from mien.report.numbers import share, years
from mien.tasks.age import AgeTask
from mien.training.recipe import load_recipe
from mien.training.run import train_run

QUALITY = ("blur", "downscale", "noise", "jpeg", "erase")


def _without(*names: str) -> str:
    """The setting of the recipe's augmentation without these, and without grey faces."""
    off = ", ".join(f"{name}: {{probability: 0}}" for name in names)
    return f"augment={{preset: faces, greyscale: 0, {off}}}"


#: Name of the change, and the settings that make it; "WEIGHTS" stands for the path given.
CHANGES: dict[str, list[str]] = {
    "base": [],
    "start: random weights": ["model.weights=null"],
    "method: coral": ["tasks.age.method=coral", "tasks.age.ordinal_weight=15"],
    "method: coral, 44 x 2 years": [
        "tasks.age.method=coral",
        "tasks.age.ordinal_weight=15",
        "tasks.age.grid={first: 1, last: 90, step: 2}",
    ],
    "method: corn": ["tasks.age.method=corn", "tasks.age.ordinal_weight=25"],
    "method: or_cnn": ["tasks.age.method=or_cnn", "tasks.age.ordinal_weight=15"],
    "method: dldl_v2": ["tasks.age.method=dldl_v2", "tasks.age.ordinal_weight=0.2"],
    "method: mean_variance": ["tasks.age.method=mean_variance", "tasks.age.ordinal_weight=0.15"],
    "method: soft_label": ["tasks.age.method=soft_label", "tasks.age.ordinal_weight=0.8"],
    "method: classification": ["tasks.age.method=classification", "tasks.age.ordinal_weight=0.4"],
    "method: regression": ["tasks.age.method=regression", "tasks.age.regression_weight=2"],
    "no regression head": ["tasks.age.regression=false"],
    "nesting: gender -> race -> age": ["tasks.race.given=[gender]", "tasks.age.given=[gender, race]"],
    "age alone": ["tasks.gender=null", "tasks.race=null"],
    "augmentation: none": ["augment=none"],
    "augmentation: light": ["augment=light"],
    "augmentation: harsh": ["augment=harsh"],
    "augmentation: no degradations": [_without("side_light", "gamma", *QUALITY)],
    "augmentation: geometry alone": [_without("side_light", "gamma", "brightness", "contrast", "saturation", *QUALITY)],
    "sampling: uniform": ["sampling.by=uniform"],
    "sampling: age, fully balanced": ["sampling.balance=1"],
    "sampling: age x race": ["sampling.by=age_race", "sampling.balance=0.5"],
    "loss weights: LDS": ["sampling.by=uniform", "sampling.weights=lds"],
    "loss weights: inverse": ["sampling.by=uniform", "sampling.weights=inverse"],
    "group DRO: race x gender": ["objective.group_dro=[race, gender]"],
    "no averaged weights": ["training.average=null"],
}

#: What the base says when its outputs are turned into an age otherwise; nothing is trained for these.
DECODINGS: dict[str, dict[str, Any]] = {
    "decoding: mean": {"decode": "mean"},
    "decoding: argmax": {"decode": "argmax"},
    "blend: the distribution alone": {"fit_blend": False, "blend": 1.0},
    "blend: 60/40": {"fit_blend": False, "blend": 0.6},
    "blend: the regression alone": {"fit_blend": False, "blend": 0.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path, help="a manifest with the splits train, select and val")
    parser.add_argument("--weights", required=True, help="starting weights of the backbone")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4000, help="training faces")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", nargs="*", help="changes to run; all by default")
    parser.add_argument("--more", nargs="*", type=Path, default=[], help="manifests of further training faces")
    given = parser.parse_args()

    small = _small(given.faces, given.count, given.out / "faces")
    changes = {name: CHANGES[name] for name in (given.only or CHANGES)}
    runs = {name: _run(given, name, small, settings) for name, settings in changes.items()}
    if "base" in runs:
        runs |= {name: _decoded(given.out, runs["base"], name, small, change) for name, change in DECODINGS.items()}
    for extra in given.more:
        joined = _joined(small, extra, given.count // 2, given.out / f"faces-{extra.name}")
        # As many steps as the others have.
        epochs = max(1, round(given.epochs * given.count / len(Manifest.open(joined).split("train"))))
        name = f"more data: {extra.name}"
        runs[name] = _run(given, name, joined, [f"training.epochs={epochs}"], judge=small)
    write_text(given.out / "ablations.md", table(given.out, runs))
    print((given.out / "ablations.md").read_text())


def _small(faces: Path, count: int, folder: Path) -> Path:
    """The manifest with `count` of its training faces, chosen by a fixed seed; the other splits stay whole."""
    if not folder.exists():
        manifest = Manifest.open(faces)
        codes = manifest.codes("split")
        train = np.random.default_rng(0).permutation(np.flatnonzero(codes == 0))[:count]
        keep = np.sort(np.concatenate([train, np.flatnonzero((codes == 1) | (codes == 2))]))
        manifest.take(keep).save(folder)
    return folder


def _joined(small: Path, extra: Path, most: int, folder: Path) -> Path:
    """The small manifest with up to `most` of another's training faces, chosen by a fixed seed."""
    if not folder.exists():
        more = Manifest.open(extra).split("train")
        more = more.take(np.sort(np.random.default_rng(0).permutation(len(more))[:most]))
        Manifest.concat([Manifest.open(small), more]).save(folder)
    return folder


def _folder(out: Path, name: str) -> Path:
    return out / "".join(letter if letter.isalnum() else "-" for letter in name)


def _decoded(out: Path, base: Path, name: str, faces: Path, change: dict[str, Any]) -> Path:
    """The base judged with another way to decode."""
    folder = _folder(out, name)
    if not (folder / "metrics.val.json").is_file():
        estimator, manifest = load_estimator(base), Manifest.open(faces)
        task = estimator.task("age")
        assert isinstance(task, AgeTask)
        task.options = task.options.model_copy(update=change)
        raw = calibrate(estimator, manifest)
        evaluate_model(estimator, manifest, "val", folder, raw=raw)
    return folder


def _run(given: argparse.Namespace, name: str, faces: Path, settings: list[str], judge: Path | None = None) -> Path:
    run = _folder(given.out, name)
    if not (run / "metrics.val.json").is_file():
        print(f"--- {name}", flush=True)
        overrides = [
            f"data.faces={faces}",
            f"model.weights={given.weights}",
            f"training.epochs={given.epochs}",
            *settings,
        ]
        train_run(load_recipe("utkface-mobile", overrides), run, resume=(run / "config_used.json").is_file())
        if judge is not None:
            evaluate_model(load_estimator(run), Manifest.open(judge), "val", run)
    return run


def table(folder: Path, runs: dict[str, Path]) -> str:
    """The differences as Markdown: figures of the base, then each change minus it."""
    base = folder / "base"
    figures = json.loads((base / "metrics.val.json").read_text(encoding="utf-8"))
    age = figures["age"]
    gaps = {by: gap["raw"] for by, gap in age["gaps"].items()}
    lines = [
        "| | MAE | macro MAE | gender | race | gap by gender | gap by race |",
        "|---|---|---|---|---|---|---|",
        f"| base | {years(age['mae'])} | {years(age['macro_mae'])} | {share(figures['gender']['accuracy'])} "
        f"| {share(figures['race']['accuracy'])} | {years(gaps['gender'])} | {years(gaps['race'])} |",
    ]
    judged = Predictions.open(base / "predictions.val.parquet")
    for name, run in runs.items():
        if name == "base":
            continue
        found = compare(judged, Predictions.open(run / "predictions.val.parquet"))
        own = json.loads((run / "metrics.val.json").read_text(encoding="utf-8"))["age"]["gaps"]
        cells = [years(found["age"][key]["difference"], sign=True) for key in ("mae", "macro_mae")]
        cells += [
            share(found[task]["accuracy"]["difference"], sign=True) if task in found else ""
            for task in ("gender", "race")
        ]
        cells += [years(own[by]["raw"]) for by in ("gender", "race")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
