"""How many of the labels that were replaced at random the audit finds, and what relabelling them is worth.

    python benchmarks/labels.py FACES --weights mobilefacenet.safetensors [--share 0.3] [--seeds 3] [--folds 5]
        [--split train] [--judged val] [--limit N] [-o FOLDER]

A share of the ages of the split train is exchanged among its faces at random. What a network that never saw an age
(MobileFaceNet's identity weights, frozen; computed once and kept in FOLDER) makes of each picture is read by a small
head, fitted on the other folds, and its ages are what `mien labels` would be told by models of its folds. The audit's
flags are its scores from 0.5: of the labels that are now wrong by more than 15 years, how many have one (found), and
how many of the flags stand on replaced labels (right).

Then heads learn from the clean ages, the noisy ones, the relabelled (flagged ages as the audit corrects them, without
those that it would only take away: copies that disagree evenly) and those without a flag, and are judged on the faces
of another split with their own ages. Intervals are bootstrapped over groups of copies; differences are paired.

    python benchmarks/labels.py FACES --predictions predictions.val.parquet --split val [--share 0.3] [--seeds 3]

takes what `mien evaluate` wrote of a model that learnt from other faces, and tells the finding alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn

from mien.data.manifest import Manifest
from mien.data.pictures import resize
from mien.evaluation.labels import Views, audit_labels, doubt, folds
from mien.faces import MAX_AGE
from mien.files import to_json, whole, write_json, write_text
from mien.jobs.inputs import ManifestItems
from mien.jobs.stream import Loaded, stream
from mien.metrics.bootstrap import Bootstrap
from mien.metrics.weighted import mean
from mien.models.identity import load_identity
from mien.progress import track
from mien.report.numbers import share as percent
from mien.report.numbers import years

#: Years by which a label must be wrong to be one that has to be found, and the score from which it counts as found.
WRONG, FLAG = 15.0, 0.5
#: Directions of the features that a head reads, its width, passes and step.
DIRECTIONS, HIDDEN, EPOCHS, RATE = 256, 256, 12, 2e-3
#: Deviation, in years, of the distribution that a head learns for an age.
SOFT = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--weights", type=Path, help="MobileFaceNet's, with its embedding")
    parser.add_argument("--predictions", type=Path, help="of a model that learnt from other faces")
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--split", default="train")
    parser.add_argument("--judged", default="val")
    parser.add_argument("--limit", type=int, help="at most so many faces of each split, drawn at random")
    parser.add_argument("-o", "--out", type=Path, default=Path("labels-benchmark"))
    given = parser.parse_args()

    everyone = Manifest.open(given.manifest)
    learnt = drawn(everyone.split(given.split), given.limit)
    found: dict[str, Any] = {"faces": len(learnt), "share": given.share}
    if given.predictions is not None:
        told, std = read(given.predictions, learnt)
        found["seeds"] = [finding(learnt, told, std, given.share, seed)[0] for seed in range(given.seeds)]
    elif given.weights is not None:
        judged = drawn(everyone.split(given.judged), given.limit)
        seen = directions(*(features(part, given.weights, given.out) for part in (learnt, judged)))
        found |= {"judged on": len(judged), "folds": given.folds}
        found["seeds"] = [
            one_seed(learnt, judged, *seen, given.share, given.folds, seed) for seed in range(given.seeds)
        ]
    else:
        parser.error("name --weights, or --predictions")
    write_json(given.out / "labels.json", found)
    write_text(given.out / "labels.md", table(found))
    print(to_json(found))


def drawn(part: Manifest, limit: int | None) -> Manifest:
    """The faces of a split with an exact age, at most `limit` of them."""
    low, high = part.numbers("age_low"), part.numbers("age_high")
    rows = np.flatnonzero(low == high)
    return part.take(np.sort(np.random.default_rng(0).permutation(rows)[:limit]))


def features(part: Manifest, weights: Path, folder: Path) -> np.ndarray:
    """What layers of an identity network say of each face, (N, F) float16; kept in `folder`."""
    path = folder / f"features-{part.hash[:16]}.npy"
    if path.exists():
        kept: np.ndarray = np.load(path)
        return kept
    backbone = load_identity(weights)
    maps: list[torch.Tensor] = []
    for layer in (backbone.net.features[4], backbone.net.features[12], backbone.net.conv2, backbone.net.gdconv):
        layer.register_forward_hook(lambda _, __, output: maps.append(output))

    @torch.inference_mode()
    def look(images: list[np.ndarray]) -> list[np.ndarray]:
        maps.clear()
        backbone(torch.from_numpy(np.stack(images)))
        said = [one.mean((2, 3)) for one in maps] + [one.std((2, 3)) for one in maps if one.shape[2] > 1]
        return list(torch.cat(said, dim=1).half().numpy())

    asked = stream(ManifestItems(part), lambda item: Loaded([resize(item.read(), 112)]), look, 64, 0)
    rows = [done.results[0] for done in track(asked, len(part), "faces", "features")]
    with whole(path) as beside:
        np.save(beside, np.stack(rows))
    return np.stack(rows)


def directions(learnt: np.ndarray, judged: np.ndarray) -> list[torch.Tensor]:
    """Both along the main directions of the first, (N, DIRECTIONS) float32 of deviation 1; ages play no part."""
    both = [torch.from_numpy(one).float() for one in (learnt, judged)]
    middle, scale = both[0].mean(0), both[0].std(0) + 1e-3
    both = [(one - middle) / scale for one in both]
    main_ = torch.linalg.eigh(both[0].T @ both[0])[1][:, -DIRECTIONS:]
    spread = (both[0] @ main_).std(0)
    return [one @ main_ / spread for one in both]


def read(path: Path, part: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """The ages and their spread that predictions hold of the faces of `part`, (N,) each, NaN where they hold none."""
    table_ = pq.read_table(path, columns=["path", "age", "age_std"])
    rows = {one: row for row, one in enumerate(table_["path"].to_pylist())}
    place = np.array([rows.get(one, -1) for one in part.strings("path")])
    ages, stds = (np.append(table_[name].to_numpy(), np.nan)[place].astype(np.float64) for name in ("age", "age_std"))
    return ages, stds


def replaced_ages(clean: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The ages of which a share changed places, and which those are (N,) bool."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(clean))[: round(share * len(clean))])
    noisy, moved = clean.copy(), np.zeros(len(clean), dtype=bool)
    noisy[chosen], moved[chosen] = rng.permutation(clean[chosen]), True
    return noisy, moved


def finding(
    part: Manifest, told: np.ndarray, std: np.ndarray, share: float, seed: int
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """What the audit finds of ages that were replaced, told what models say; its flags, and the ages it would put."""
    clean = part.numbers("age_low").astype(np.float64)
    noisy, moved = replaced_ages(clean, share, seed)
    views = Views(["models"], told[None], std[None])
    doubts = doubt(noisy, noisy, views)
    flagged, better = np.zeros(len(clean), dtype=bool), noisy.copy()
    for one in audit_labels(part.with_columns({"age_low": noisy, "age_high": noisy}), views, doubts):
        if one.score >= FLAG:
            corrected = one.corrections.get("age", "")
            flagged[one.row], better[one.row] = True, np.nan if corrected == "" else float(corrected)
    boot, wrong = Bootstrap(part.groups(), seed=seed), np.abs(noisy - clean) > WRONG
    off = np.nan_to_num(np.abs(told - clean))
    figures: dict[str, Any] = {
        "wrong": int(wrong.sum()),
        "flags": int(flagged.sum()),
        "share told": doubts.share,
        "by chance": float(moved.mean()),
        "found": boot.estimates({"f": lambda w: mean(flagged[wrong], w)}, wrong)["f"],
        "right": boot.estimates({"r": lambda w: mean(moved[flagged], w)}, flagged)["r"],
        "mae of the judge": boot.estimates({"m": lambda w: mean(off, w)})["m"],
    }
    return figures, flagged, better


def one_seed(
    learnt: Manifest, judged: Manifest, x: torch.Tensor, y: torch.Tensor, share: float, count: int, seed: int
) -> dict[str, Any]:
    """Replace, judge by folds, audit, relabel, learn, judge; `x` and `y` are the features of the two sets of faces."""
    clean = learnt.numbers("age_low").astype(np.float64)
    noisy, _ = replaced_ages(clean, share, seed)
    told = np.full(len(clean), np.nan)
    for fold in folds(learnt, count, seed):
        held = fold.strings("split") == "val"
        told[held] = ages_of(x[~held], noisy[~held], x[held], seed)
    figures, flagged, better = finding(learnt, told, spread_of(told, noisy), share, seed)
    everyone, true = np.ones(len(clean), dtype=bool), judged.numbers("age_low").astype(np.float64)
    sets = {
        "clean": (clean, everyone),
        "noisy": (noisy, everyone),
        "relabelled": (better, ~np.isnan(better)),
        "without flagged": (noisy, ~flagged),
    }
    errors = {name: np.abs(ages_of(x[rows], ages[rows], y, seed) - true) for name, (ages, rows) in sets.items()}
    errors["constant"] = np.abs(np.median(noisy) - true)
    boot = Bootstrap(judged.groups(), seed=seed)
    for name, error in errors.items():
        figures[f"mae {name}"] = boot.estimates({"m": lambda w, e=error: mean(e, w)})["m"]
        figures[f"less noisy {name}"] = boot.estimates({"d": lambda w, e=error: mean(e - errors["noisy"], w)})["d"]
    return figures


def ages_of(x: torch.Tensor, ages: np.ndarray, y: torch.Tensor, seed: int) -> np.ndarray:
    """Ages that a head, fitted on the faces `x` with `ages`, tells of `y`: the median of its distribution, (M,) years.

    A network of one hidden layer learns a soft distribution over ages by its cross-entropy. Labels put at random raise
    all its ages' probabilities alike, which moves the median little.
    """
    steps = torch.arange(MAX_AGE + 1.0)
    goal = (-((steps - torch.from_numpy(ages)[:, None]) ** 2) / (2 * SOFT**2)).softmax(1).float()
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Dropout(0.3),
                         nn.Linear(HIDDEN, len(steps)))  # fmt: skip
    optimiser = torch.optim.AdamW(head.parameters(), RATE, weight_decay=0.01)
    batches = [rows for _ in range(EPOCHS) for rows in torch.randperm(len(x)).split(256)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, len(batches))
    for rows in batches:
        loss = nn.functional.cross_entropy(head(x[rows]), goal[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.inference_mode():
        reached = head.eval()(y).softmax(1).cumsum(1)
    return (reached < 0.5).sum(1).double().numpy()


def spread_of(told: np.ndarray, labels: np.ndarray, parts: int = 12) -> np.ndarray:
    """How far labels usually lie from an age that is told, (N,) years: their median distance, by that age."""
    edges = np.quantile(told, np.linspace(0, 1, parts + 1))
    place = np.clip(np.searchsorted(edges, told, side="right") - 1, 0, parts - 1)
    middles = [told[place == part].mean() for part in range(parts) if (place == part).any()]
    medians = [np.median(np.abs(labels - told)[place == part]) for part in range(parts) if (place == part).any()]
    return np.maximum(np.interp(told, middles, medians), 0.5)


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown, a column a seed."""
    names = {
        "found": f"labels wrong by more than {WRONG:g} years that are flagged",
        "right": "flags that stand on replaced labels",
        "mae of the judge": "MAE of the folds' heads to the clean ages (years)",
    }
    kinds = ("clean", "noisy", "relabelled", "without flagged", "constant")
    names |= {f"mae {kind}": f"MAE of a head that learnt from: {kind} (years)" for kind in kinds}
    names |= {f"less noisy {kind}": f"the same, less that of noisy: {kind}" for kind in kinds if kind != "noisy"}
    seeds = found["seeds"]
    judged = f"; heads judged on {found['judged on']:,} others" if "judged on" in found else ""
    lines = [
        f"{found['share']:.0%} of {found['faces']:,} ages replaced{judged}; 95 % intervals.",
        "",
        "| | " + " | ".join(f"seed {seed}" for seed in range(len(seeds))) + " |",
        "|---" * (len(seeds) + 1) + "|",
    ]
    for key, name in ((key, name) for key, name in names.items() if key in seeds[0]):
        write = percent if key in ("found", "right") else years
        lines.append(f"| {name} | " + " | ".join(write(one[key]) for one in seeds) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
