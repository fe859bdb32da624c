"""The landmarker: points it finds, by source, on faces it did not learn from; and splits for training it.

    python benchmarks/landmarker.py splits FACES                 # adds the test faces of a manifest to its train
    python benchmarks/landmarker.py judge MODEL FACES... [--split val] [--json FILE]
    python benchmarks/landmarker.py ship RUN --terms "..." --data "..." --command "mien train landmarker ..."

FACES are manifests prepared with --align --margin 0.5. `judge` starts every face from its own square, moved and scaled
by chance as the cascade's boxes scatter, and prints the mean distance over 68 points in distances of the eye centres
and of the outer corners, after one look and after two, beside the mean face laid into the same box; intervals
resample persons, or sets of near-identical pictures. Nothing is chosen on these faces.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.manifest import Manifest
from mien.evaluation.landmarks import evaluate_landmarker
from mien.faces import SPLITS
from mien.files import write_json, write_text
from mien.models.checkpoint import LANDMARKER, load_landmarker, save_landmarker

HOME = Path(__file__).resolve().parents[1] / "src" / "mien" / "weights"
ROWS = {
    "nme": "mean distance / eye centres",
    "nme_corners": "mean distance / outer eye corners",
    "mean_face": "the mean face in the box / eye centres",
    "failures": "faces beyond 10 % / eye centres",
    "refused": "faces it would not align",
}


def told(one: dict[str, Any]) -> str:
    return f"{100 * one['value']:.2f} % [{100 * one['low']:.2f}, {100 * one['high']:.2f}]"


def splits(faces: list[Path]) -> None:
    """Choosing uses `select` and reporting `val`: the landmarker needs no third split, and few faces have points."""
    for folder in faces:
        manifest = Manifest.open(folder)
        codes = manifest.codes("split")
        codes[codes == SPLITS.index("test")] = SPLITS.index("train")
        print(manifest.with_columns({"split": codes}).save(folder), np.bincount(codes[codes >= 0]).tolist())


def judge(model: str, faces: list[Path], split: str, file: Path | None) -> None:
    landmarker = load_landmarker(model)
    found: dict[str, Any] = {}
    for folder in faces:
        manifest = Manifest.open(folder)
        for passes in (1, 2):
            figures = evaluate_landmarker(landmarker, manifest, split, passes=passes)
            for source, of_source in figures["by_source"].items():
                found[f"{source}, {passes} look{'s' * (passes > 1)}"] = {**of_source, "order": figures["order"]}
    for name, figures in found.items():
        print(f"\n{name}, {figures['nme']['n']} faces (order of expected error {figures['order']:.2f})")
        for key, words in ROWS.items():
            print(f"  {words}: {told(figures[key])}")
    if file is not None:
        write_json(file, found)


def ship(run: Path, terms: str, data: str, command: str) -> None:
    """Figures come from the run's own metrics.val.json; nothing is written by hand."""
    metrics = json.loads((run / "metrics.val.json").read_text(encoding="utf-8"))
    config = json.loads((run / "config_used.json").read_text(encoding="utf-8"))
    landmarker = load_landmarker(run)
    landmarker.name = LANDMARKER
    headline = {f"NME {name}": f"{100 * one['nme']['value']:.1f} %" for name, one in metrics["by_source"].items()}
    landmarker.card = {"terms": terms, "data": data, "figures": headline}
    save_landmarker(HOME / LANDMARKER, landmarker)
    columns = [f"{name} ({one['nme']['n']})" for name, one in metrics["by_source"].items()]
    lines = [
        f"# {LANDMARKER}",
        "",
        f"**Terms.** {terms}",
        "",
        f"**Data.** {data}",
        "",
        f"**Made by** `{command}`, seed {config['seed']}, mien {config['record']['mien']}, on "
        f"{config['record']['machine']}.",
        "",
        f"**Judged** on split `{metrics['about']['split']}`, {metrics['about']['faces']:,} faces, started from their "
        "own squares, moved by chance as a detector's boxes scatter, two looks; 95 % bootstrap intervals over persons "
        "or sets of near-identical pictures.",
        "",
        f"| | {' | '.join(columns)} |",
        "|---" * (len(metrics["by_source"]) + 1) + "|",
    ]
    for key, words in ROWS.items():
        lines.append(f"| {words} | {' | '.join(told(one[key]) for one in metrics['by_source'].values())} |")
    lines += [
        "",
        "## Limits",
        "",
        "Faces from the front to about 45 degrees aside. Points of the jaw are the least certain: data sets place them "
        "differently. What it is shown without a face in it, it still gives points for; the error it expects is then "
        "mostly, not always, large.",
        "",
    ]
    write_text(HOME / LANDMARKER / "README.md", "\n".join(lines))
    print(HOME / LANDMARKER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("splits")
    one.add_argument("faces", type=Path, nargs="+")
    one = commands.add_parser("judge")
    one.add_argument("model")
    one.add_argument("faces", type=Path, nargs="+")
    one.add_argument("--split", default="val")
    one.add_argument("--json", type=Path)
    one = commands.add_parser("ship")
    one.add_argument("run", type=Path)
    for name in ("--terms", "--data", "--command"):
        one.add_argument(name, required=True, dest=f"about_{name[2:]}")
    given = parser.parse_args()
    if given.command == "splits":
        splits(given.faces)
    elif given.command == "judge":
        judge(given.model, given.faces, given.split, given.json)
    else:
        ship(given.run, given.about_terms, given.about_data, given.about_command)


if __name__ == "__main__":
    main()
