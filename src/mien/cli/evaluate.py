"""`mien evaluate`: how well a model tells what it was taught, and for whom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mien.data.manifest import Manifest


def evaluate(
    faces: Annotated[Path | None, typer.Argument(help="A manifest; a run's own is the default.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A run, a checkpoint or a shipped model.")] = None,
    split: Annotated[str, typer.Option(help="train, select, val, test, or all for every face.")] = "val",
    checkpoint: Annotated[str, typer.Option(help="Of a run: best, last, or a checkpoint's folder.")] = "best",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder. By default the run, for its best weights on its own faces, or evaluation/FACES in it for "
            "others; of a shipped model evaluation/ at the manifest.",
        ),
    ] = None,
    bootstraps: Annotated[int, typer.Option(min=100, help="Resamples behind each interval.")] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Faces in one pass.")] = 128,
    grid: Annotated[
        int, typer.Option(min=0, metavar="N", help="Show N faces it was right and wrong about, with truth and answer.")
    ] = 0,
    allow_relabelled: Annotated[
        bool, typer.Option("--allow-relabelled", help="Judge on ages that `mien relabel` made, too.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every figure.")] = False,
) -> None:
    """Judge a model on labelled faces: figures with intervals and baselines, by group, and a page.

    Writes metrics.SPLIT.json, predictions.SPLIT.parquet, report.html and figures/. Look at `test` once, at
    the end. Age, gender, race, expression, valence and arousal are judged, as far as model and labels have them.

    Examples: mien evaluate utk; mien evaluate --model runs/mine --split test; mien evaluate utk --split all
    --json
    """
    from mien.cli.console import print_json, ready, say
    from mien.evaluation.evaluate import evaluate_model, require_labels
    from mien.evaluation.relabelled import guard_labels
    from mien.jobs.predict import load

    run = run_of(model)
    folder = _checkpoint(model, run, checkpoint)
    asked = load(folder, device)
    manifest = faces_of(faces, run)
    if not allow_relabelled:
        guard_labels(manifest.split(split))
    require_labels(asked.estimator, manifest.split(split))
    if out is None:
        out = place(run, manifest, checkpoint)
    ready(out)
    result = evaluate_model(
        asked.estimator, manifest, split, out, device=asked.device, batch=batch, resamples=bootstraps, grid=grid
    )
    if json:
        print_json(result.metrics)
        return
    print_figures(result.metrics)
    if "caution" in result.metrics["about"]:
        say(f"caution: {result.metrics['about']['caution']}")
    unread = len(result.metrics["about"]["rejected"])
    if unread:
        say(f"{unread:,} pictures could not be read; metrics.{split}.json lists them with the reason")
    say(f"report: {result.report}")


def _checkpoint(model: str | None, run: Path | None, which: str) -> Path:
    """The folder of the weights that are judged: the best or the last of a run, one by its name, or any by its path."""
    from mien.errors import MienError
    from mien.models.checkpoint import find_checkpoint

    if which in ("best", "last"):
        return find_checkpoint(model, which)
    if model is None:
        return Path(which)
    own = None if run is None else run / "checkpoints"
    if own is not None:
        for folder in (own / which, Path(which)):
            if folder.is_dir() and own.resolve() in folder.resolve().parents:
                return folder
    there = [] if own is None else sorted(one.name for one in own.glob("step-*"))
    known = f"; it has best, last, {', '.join(there)}" if there else ""
    raise MienError(f"--checkpoint {which} is none of --model {model}{known}; name one of the two alone")


def place(run: Path | None, manifest: Manifest, checkpoint: str) -> Path:
    """Where an evaluation goes unless it is said: the run's own record is that of its best weights on its own faces."""
    from mien.data.manifest import FILE
    from mien.models.checkpoint import read_json
    from mien.training.record import CONFIG

    path = (manifest.path or Path(FILE)).resolve()
    if run is None:
        return path.parent / "evaluation"
    if not (run / CONFIG).is_file():
        return run
    record = read_json(run / CONFIG, "put it back, or say with -o where to write").get("record") or {}
    own = record.get("manifest") == manifest.hash
    if own and checkpoint == "best":
        return run
    name = path.parent.name if path.name == FILE else path.stem
    parts = [*([] if own else [name, manifest.hash[:8]]), *([] if checkpoint == "best" else [Path(checkpoint).name])]
    return run / "evaluation" / "-".join(parts)


def run_of(model: str | None) -> Path | None:
    """The run that `model` names, None where it names something else."""
    return Path(model) if model is not None and (Path(model) / "checkpoints").is_dir() else None


def faces_of(faces: Path | None, run: Path | None) -> Manifest:
    """The manifest named, else that of the run."""
    from mien.data.manifest import Manifest
    from mien.errors import MienError
    from mien.training.recipe import load_recipe
    from mien.training.record import CONFIG, open_faces

    if faces is not None:
        return Manifest.open(faces)
    if run is None or not (run / CONFIG).is_file():
        raise MienError("no faces to judge on: name a manifest (`mien prepare` makes one), or a run with --model")
    return open_faces(load_recipe(run / CONFIG))


def print_figures(metrics: dict[str, Any]) -> None:
    """The main figures of an evaluation as a table, and what it found of groups."""
    from mien.cli.console import table
    from mien.report.affect import ROWS, is_continuous
    from mien.report.evaluation import CLASS_ROWS
    from mien.report.explain import group_name, only_ages
    from mien.report.numbers import count, number, share, years

    rows: list[tuple[str, str, str, str]] = []
    age = metrics.get("age", {})
    constant = age.get("constant", {})
    for label, key, write in (
        ("age: MAE, years", "mae", years),
        ("age: macro MAE over age bins", "macro_mae", years),
        ("age: median error", "median_ae", years),
        ("age: RMSE", "rmse", years),
        ("age: bias", "bias", years),
        ("age: within 5 years", "cs5", share),
        ("age: coverage of 90 % intervals", "coverage90", share),
        ("age: width of 90 % intervals", "width90", years),
    ):
        if key in age:
            beside = f"{years(number(constant[key]).value)} (always {constant['years']:.0f})" if key in constant else ""
            rows.append((label, write(age[key]), beside, count(age[key]["n"])))
    if "interval_labels" in age:
        inside = age["interval_labels"]
        rows.append(("age: inside the labelled interval", share(inside["inside"]), "", count(inside["n"])))
    for name, part in metrics.items():
        if "accuracy" in part:
            majority = part["majority"]
            beside = f"{share(majority['accuracy']['value'])} (always {majority['class']})"
            rows.append((f"{name}: accuracy", share(part["accuracy"]), beside, count(part["n"])))
            for label, key, put in CLASS_ROWS[1:]:
                if key in part:
                    beside = put(number(majority[key]).value) if key in majority else ""
                    rows.append((f"{name}: {label}", put(part[key]), beside, count(part["n"])))
        if "raters" in part:
            raters = part["raters"]
            beside = f"{share(raters['one_rater']['value'])} (one rater)"
            rows.append((f"{name}: as most raters", share(raters["model"]), beside, count(raters["n"])))
        if is_continuous(part):
            constant = part["constant"]
            for label, key, put in ROWS:
                value = number(constant.get(key)).value if key in constant else None
                beside = "" if value is None else f"{put(value)} (always {years(constant['value'], 2)})"
                rows.append((f"{name}: {label}", put(part[key]), beside, count(part["n"])))
    about = metrics["about"]
    table(
        ("figure", "value [95 % interval]", "constant predictor", "n"),
        rows,
        title=f"{about['model']} on {about['split']} ({about['faces']:,} faces)",
    )
    for by, gap in age.get("gaps", {}).items():
        if by in ("gender", "race"):
            least, most = gap["between"]
            adjusted = ""
            if "age_standardised" in gap:
                # With ages made equal, other groups may be the furthest apart.
                lower, upper = gap["between_standardised"]
                names = "" if [lower, upper] == [least, most] else f"{upper} - {lower} "
                adjusted = f"; ages made equal{only_ages(gap)} {names}{years(gap['age_standardised'])}"
            print(f"gap by {by}: {most} - {least} {years(gap['raw'])} years{adjusted}")
    if age.get("undercovered"):
        print(f"intervals cover significantly under 85 % of: {', '.join(map(group_name, age['undercovered']))}")
