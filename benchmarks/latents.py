"""Rate and distortion of beta-VAEs against seed 002's conditional VAE, and what four shift vectors make of a face.

    python benchmarks/latents.py FACES RUN [RUN ...] -o FOLDER [--judge MODEL] [--identity WEIGHTS] [--pairs FACES]

RUNs are trained beta-VAEs; those with `beta_vae.conditional=true` are seed 002's, told apart by themselves. All are
judged on the same faces of `--split`. At each of our rates that lies between two of theirs, our MSE stands over theirs
on the straight line between, with a paired 95 % bootstrap interval; parameters stand beside. With `--judge`, an
estimator of another architecture and other training faces than any guide, faces of 35 to 65 are shifted by 30 years
both ways by every estimator of `--shift` (the first RUN of ours by default). FOLDER gets `latents.md`,
`rate_distortion.png` and `latents.json`. The table of baselines is `mien latents FACES -m RUN --beside RUN ...`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mien.data.align import require_view
from mien.data.manifest import Manifest
from mien.data.splits import teachers
from mien.errors import MienError
from mien.evaluation.latents.codes import Coded, at_most, code_faces
from mien.evaluation.latents.shifts import judge_shifts
from mien.evaluation.latents.tradeoff import Point, at_equal_rate, place, trade_off
from mien.files import write_json, write_text
from mien.metrics.bootstrap import Bootstrap
from mien.models.beta_vae import BetaVae
from mien.models.checkpoint import load_estimator, load_renderer
from mien.models.identity import load_identity
from mien.models.renderer import with_strength
from mien.report.figures import save
from mien.report.figures.sweep import rate_distortion
from mien.report.latents import SHIFTS, with_real_pairs
from mien.report.numbers import DASH, count, number, share, years

OURS, THEIRS = "beta-VAE", "seed 002, conditional"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path, help="a manifest that no run has learnt this split of")
    parser.add_argument("runs", nargs="+", help="runs or checkpoints of beta-VAEs, conditional ones among them")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, default=2000, help="faces that are judged, and that vectors learn from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bootstraps", type=int, default=1000)
    parser.add_argument("--shift", help="the run whose shifts are judged")
    parser.add_argument("--strength", type=float, help="how much of the change it shows; as the run has it by default")
    parser.add_argument("--judge", help="an estimator of ages")
    parser.add_argument("--identity", type=Path, help="MobileFaceNet's weights")
    parser.add_argument("--pairs", type=Path, help="faces of named persons at several ages, such as FG-NET's")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.judge is None and (given.shift is not None or given.strength is not None):
        parser.error("--shift and --strength need --judge")

    manifest = Manifest.open(given.faces)
    networks = {Path(run).name: _network(run, given.device) for run in given.runs}
    if len(networks) < len(given.runs):
        raise MienError("two runs have the same folder's name: rename one, they are known by it")
    judged = at_most(manifest.split(given.split), given.limit)
    found, text = curves(networks, judged, given)
    if given.judge is not None:
        ours = [name for name, network in networks.items() if not network.settings.conditional]
        name = Path(given.shift).name if given.shift else ours[0]
        shown = networks[name] if given.strength is None else with_strength(networks[name], given.strength)
        found["shifts"] = shifts(shown, manifest, judged, given)
        text += shift_table(name, found["shifts"])
    write_json(given.out / "latents.json", found)
    write_text(given.out / "latents.md", text)
    print(text)


def _network(run: str, device: str) -> BetaVae:
    network = load_renderer(run, device)
    if not isinstance(network, BetaVae):
        raise MienError(f"{run} is a {type(network).__name__}; name a beta-VAE")
    return network


def curves(networks: dict[str, BetaVae], judged: Manifest, given: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Every network's place and row, their comparison at equal rate, and both as Markdown; writes the plot."""
    points: dict[str, Point] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, network in networks.items():
        require_view(judged.crop, network.crop, f"for {name}: the manifest")
        faces = code_faces(network, judged, given.device)
        boot = Bootstrap(faces.manifest.groups(), given.bootstraps)
        points[name] = place(network, faces, given.device)
        rows[name] = trade_off(points[name], network, faces, boot, range(given.seeds))
    theirs = [point for point in points.values() if point.conditional]
    lines: dict[str, list[tuple[str, dict[str, Any]]]] = {OURS: [], THEIRS: []}
    text = [
        f"{count(len(judged))} faces of `{given.split}`.\n",
        "| run | | parameters | rate, nats | MSE | MSE, sampled | MSE over 002's at this rate | sampled | "
        "age in z_id | age MAE |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    compared: dict[str, Any] = {}
    for name, point in points.items():
        row, kind = rows[name], THEIRS if point.conditional else OURS
        lines[kind].append((name, row))
        equal = [at_equal_rate(point, [] if point.conditional else theirs, boot, way) for way in (False, True)]
        if not point.conditional:
            compared[name] = dict(zip(("mean", "sampled"), equal, strict=True))
        cells = [
            *(count(point.parameters), years(row["rate"], 1), years(row["mse"], 5), years(row["mse_sampled"], 5)),
            *(DASH if point.conditional else "rate outside 002's" if one is None else years(one, 3) for one in equal),
            *(years(row.get("probe")), years(row.get("age"))),
        ]
        text.append(f"| {name} | {kind} | {' | '.join(cells)} |")
    save(rate_distortion({kind: line for kind, line in lines.items() if line}), given.out / "rate_distortion.png")
    return {"faces": len(judged), "rows": rows, "at_equal_rate": compared}, "\n".join(text) + "\n"


def shifts(network: BetaVae, manifest: Manifest, judged: Manifest, given: argparse.Namespace) -> dict[str, Any]:
    """What `judge_shifts` finds; vectors are learnt from `train`, those by pairs from `--pairs`."""
    judge = load_estimator(given.judge, given.device)
    require_view(judged.crop, judge.crop, f"for the judge {judge.name}: the manifest")

    def coded(faces: Manifest) -> Coded:
        require_view(faces.crop, network.crop, str(faces.path or "the manifest"))
        return code_faces(network, faces, given.device)

    learnt, shown = coded(at_most(teachers(manifest, given.split), given.limit)), coded(judged)
    embed = None if given.identity is None else load_identity(given.identity).to(given.device)
    pairs = None if given.pairs is None else coded(Manifest.open(given.pairs))
    boot = Bootstrap(shown.manifest.groups(), given.bootstraps)
    return judge_shifts(network, learnt, shown, judge, boot, embed, given.device, pairs)


def shift_table(name: str, found: dict[str, Any]) -> str:
    """The figures over the shift estimators as Markdown, the judge's own error and real pairs beside them."""
    judge, routes = found["judge"], with_real_pairs(found)
    told = [key for key in SHIFTS if number(found["routes"]["copy"].get(key)).known]
    lines = [
        f"\n{name}: {count(found['n'])} faces of 35 to 65 shifted by {found['years']:g} years. The judge "
        f"{judge['name']} errs by {years(judge['mae'])} years on them as they are, by "
        f"{years(judge['mae_reconstructed'])} on plain reconstructions.",
    ]
    lines += [f"\n| vector | {' | '.join(SHIFTS[key] for key in told)} |", f"|---|{'---|' * len(told)}"]
    for route, figures in routes.items():
        if "reason" in figures:
            lines.append(f"| {route} | {figures['reason']} |{' |' * (len(told) - 1)}")
            continue
        cells = [(share if key == "direction" or key.endswith("_kept") else years)(figures.get(key)) for key in told]
        lines.append(f"| {route} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
