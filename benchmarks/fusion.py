"""Whether several age experts together beat the best of them, and simpler ways to make several ages one.

    python benchmarks/fusion.py FACES --experts experts.yaml [--split test] [--trusted-split val] [-o FOLDER]
        [--trusted TRUSTED_FACES] [--limit N]
    python benchmarks/fusion.py GIVEN_SPLITS.csv --new-splits NEW_SPLITS.csv

Every expert is asked about the faces of both splits (resumable). Fusion and baselines are fitted on the trusted split
and judged on the other: MAE, EMD (the Wasserstein distance between the distributions of said and true ages, in years),
coverage of the 90 % interval, each with its bootstrap interval, and the paired difference of the MAE to the best single
expert (the best on the judged faces, which favours it). Prints one JSON object; FOLDER gets `fusion.md`, `fusion.json`
and `reliability.png`. Faces that an expert trained on must be in neither split.

Five experts that differ in network, size, method, start and data, and what judges them: 3,000 of UTKFace's training
faces set aside (near-identical pictures together), from which nothing learns, chooses an epoch or is calibrated, and on
which no choice of the fusion's design was made; the fusion is fitted on the 4,740 of the given `val`. An hour and a
half of one core altogether:

    python benchmarks/fusion.py utkface_splits.csv --new-splits aside.csv
    mien prepare utkface UTKFace.zip --splits aside.csv -o aside
    mien train utkface-mobile data.faces=aside model.backbone=mobilenetv2_100 model.input_size=96
        model.weights=mobilenet_v2_imagenet.npz tasks.age.method=coral training.epochs=12 -o runs/mobilenet
    mien train utkface-age-guide data.faces=aside model.backbone=resnet18 tasks.age.method=mean_variance
        -o runs/resnet18
    mien train utkface-age-guide data.faces=aside training.epochs=8 -o runs/resnet10t
    mien train utkface-mobile 'data.faces=[fairface,fgnet]' model.weights=mobilefacenet.safetensors training.epochs=8
        -o runs/elsewhere
    mien train utkface-mobile 'data.faces=[aside,fairface,fgnet]' model.weights=mobilefacenet.safetensors
        tasks.age.method=corn training.epochs=5 -o runs/mixed

    experts: [{kind: ours, name: mobilenet, model: runs/mobilenet},
              {kind: ours, name: resnet18, model: runs/resnet18},
              {kind: ours, name: resnet10t, model: runs/resnet10t},
              {kind: ours, name: elsewhere, model: runs/elsewhere}, {kind: ours, name: mixed, model: runs/mixed}]
"""

from __future__ import annotations

import argparse
import csv
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np


def set_aside(given: Path, new: Path, count: int = 3000) -> None:
    """Write the splits of a table anew, so many of its training faces, near-identical pictures together, as `test`."""
    with open(given, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    group = [row["duplicate_group"] or row["file"] for row in rows]
    size = Counter(group)
    other = {name for name, row in zip(group, rows, strict=True) if row["split"] != "train"}
    names = sorted(set(group) - other)
    random.Random(6).shuffle(names)
    reached = np.cumsum([size[name] for name in names])
    test = set(names[: int(np.searchsorted(reached, count)) + 1])
    with open(new, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file", "split", "duplicate_group"])
        writer.writeheader()
        for name, row in zip(group, rows, strict=True):
            writer.writerow({**row, "split": "test"} if name in test else row)


def answers(folder: Path, part: Any, experts: Any, device: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
    """Ages (N, E, 3), true ages (N,) and groups (N,) of the faces with an exact age, and the finished jobs."""
    from mien.data.slices import Slices
    from mien.jobs.relabel import ask_experts

    file = part.save(folder)
    asked = ask_experts(Slices(file), experts, folder / "answers", device=device)
    every = np.concatenate([found for _, _, found, _ in asked.parts()])
    low, high = part.numbers("age_low").astype(np.float64), part.numbers("age_high")
    exact = low == high
    return every[exact], low[exact], part.groups()[exact], asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument(
        "--new-splits", type=Path, metavar="CSV", help="write these splits, made of the given ones; no more"
    )
    parser.add_argument("--experts", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--trusted", type=Path, help="another manifest; the same one if left out")
    parser.add_argument("--trusted-split", default="val")
    parser.add_argument("--limit", type=int, help="at most so many faces of each split, drawn at random")
    parser.add_argument("-o", "--out", type=Path, default=Path("fusion"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resamples", type=int, default=1000)
    given = parser.parse_args()
    if given.new_splits:
        set_aside(given.manifest, given.new_splits)
        return
    if not given.experts:
        parser.error("--experts names who is asked")

    from scipy.stats import wasserstein_distance

    from mien.data.manifest import Manifest
    from mien.experts import baselines
    from mien.experts.columns import spread
    from mien.experts.fusion import fit
    from mien.experts.table import load_experts
    from mien.files import to_json, write_json, write_text
    from mien.metrics.bootstrap import Bootstrap, estimate
    from mien.metrics.weighted import mean
    from mien.report import figures
    from mien.report.numbers import share, years

    experts = load_experts(given.experts)
    names = experts.names()

    def drawn(manifest: Manifest, split: str) -> Manifest:
        part = manifest.split(split)
        few = given.limit is not None and len(part) > given.limit
        return part.take(np.sort(np.random.default_rng(0).permutation(len(part))[: given.limit])) if few else part

    manifest = Manifest.open(given.manifest)
    trusted = Manifest.open(given.trusted) if given.trusted else manifest
    t, t_true, _, _ = answers(given.out / "trusted", drawn(trusted, given.trusted_split), experts, given.device)
    j, true, groups, asked = answers(given.out / "judged", drawn(manifest, given.split), experts, given.device)

    fusion = fit(names, t[..., 0], t[..., 1], t_true, t[..., 2])
    fused = fusion(j[..., 0], j[..., 1], j[..., 2])
    said = {name: j[:, i, 0] for i, name in enumerate(names)}
    said |= {"fusion": fused.age}
    for name, combine in {
        "mean": baselines.mean,
        "median": baselines.median,
        "winsorised": baselines.winsorised,
        "inverse error": baselines.inverse_error(t[..., 0], t_true),
        "best linear": baselines.best_linear(t[..., 0], t_true),
        "learnt gate": baselines.learned_gate(t[..., 0], t_true),
    }.items():
        said[name] = combine(j[..., 0])

    # Judged on the same faces, those that all of them answered.
    rows = np.flatnonzero(np.isfinite(np.column_stack(list(said.values()))).all(1))
    truth = true[rows]
    boot = Bootstrap(groups[rows], given.resamples)
    error = {name: np.abs(ages[rows] - truth) for name, ages in said.items()}
    best = min(names, key=lambda name: error[name].mean())

    def distance(ages: np.ndarray) -> Any:
        def of(weights: np.ndarray) -> np.ndarray:
            return np.array([wasserstein_distance(ages, truth, one, one) for one in weights])

        return of

    table = {}
    for name, ages in said.items():
        reps = boot.replicates(
            {
                "mae": lambda w, e=error[name]: mean(e, w),
                "emd": distance(ages[rows]),
                "difference": lambda w, e=error[name]: mean(e - error[best], w),
            }
        )
        table[name] = {key: estimate(values, len(rows)) for key, values in reps.items()}
    inside = ((fused.low <= true) & (true <= fused.high))[rows].astype(float)
    table["fusion"]["coverage90"] = boot.estimates({"c": lambda w: mean(inside, w)})["c"]
    table["fusion"]["width90"] = boot.estimates({"w": lambda w: mean((fused.high - fused.low)[rows], w)})["w"]
    errors = np.column_stack([said[name][rows] - truth for name in names])
    std = spread(fusion, fused)[rows]
    figure = figures.spread_reliability(std, fused.age[rows] - truth)
    figures.save(figure, given.out / "reliability.png")
    found = {
        "faces": len(rows),
        "trusted": fusion.trusted,
        "tau": fusion.tau,
        "best_single": best,
        "table": table,
        "correlation": {
            name: dict(zip(names, row, strict=True))
            for name, row in zip(names, np.corrcoef(errors.T).reshape(len(names), -1).tolist(), strict=True)
        },
        "uncorrected_variance": {
            "mean_total": float(fused.total[rows].mean()),
            "mean_squared_error": float(((fused.age[rows] - truth) ** 2).mean()),
        },
        "experts": {name: {"sha256": asked.hashes[name], "terms": asked.terms[name]} for name in names},
    }
    lines = [
        f"Judged on {len(rows):,} faces, fitted on {fusion.trusted:,} others; tau {fusion.tau:.2f}, gamma "
        f"{fusion.gamma:g}; 95 % intervals.",
        "",
        "| | MAE (years) | EMD (years) | MAE minus that of " + best + " | 90 % interval holds |",
        "|---|---|---|---|---|",
    ]
    for name, row in table.items():
        covered = share(row["coverage90"]) if "coverage90" in row else "–"
        difference = years(row["difference"], sign=True) if name != best else "–"
        lines.append(f"| {name} | {years(row['mae'])} | {years(row['emd'])} | {difference} | {covered} |")
    lines += [
        "",
        "Correlation of the experts' errors",
        "",
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for name, row in found["correlation"].items():
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row.values()) + " |")
    write_text(given.out / "fusion.md", "\n".join(lines) + "\n")
    write_json(given.out / "fusion.json", found)
    print(to_json(found, None))


if __name__ == "__main__":
    main()
