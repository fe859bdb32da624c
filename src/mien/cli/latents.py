"""`mien latents`: what a representation keeps of a face, and where in it the age is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mien.models.autoencoder import Autoencoder
    from mien.models.beta_vae import BetaVae


def latents(
    faces: Annotated[Path, typer.Argument(help="A manifest of labelled faces.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A beta-VAE: a run, a checkpoint; the shipped one unless given."),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="Another beta-VAE for the same tables, such as seed 002's; may be repeated."),
    ] = None,
    autoencoder: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A pretrained AutoencoderKL or AutoencoderTiny of diffusers, likewise."),
    ] = None,
    split: Annotated[str, typer.Option(help="train, select, val, test, or all for every face.")] = "val",
    identity: Annotated[
        Path | None, typer.Option(metavar="WEIGHTS", help="MobileFaceNet's, for cosines and perceptual distances.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="An estimator that judges shifted faces: a run, a checkpoint, a shipped one.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FACES",
            help="Faces of named persons at several ages: to hold shifted faces against, and to learn the vector by "
            "pairs from where the training faces name nobody.",
        ),
    ] = None,
    between: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="ROW ROW", help="Interpolate between these two judged faces; rows count from 0."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=60, help="Faces that are judged, and that rivals learn from, at most.")
    ] = 2000,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions behind MIG, DCI and SAP.")] = 3,
    bootstraps: Annotated[int, typer.Option(min=100, help="Resamples behind each interval.")] = 1000,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Folder; latents.SPLIT/ in the run, else here.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every figure.")] = False,
) -> None:
    """Judge a beta-VAE: reconstruction, rate, MIG, DCI, SAP, probes of age, smoothness, shifts in age; and a page.

    PCA of the same size, an untrained encoder, the mean picture and what --beside and --autoencoder name stand in the
    same tables, on the same faces. Writes latents.json, latents.html, and the figures as files.

    Examples: mien latents utk; mien latents drawn -m runs/vae; mien latents utk -m runs/vae --judge face-mobile
    --identity mobilefacenet.safetensors --between 3 17; mien latents utk -m runs/vae --beside runs/cvae
    """
    from mien.cli.console import print_json, ready, say
    from mien.cli.evaluate import run_of
    from mien.data.manifest import Manifest
    from mien.errors import MienError
    from mien.evaluation.latents.audit import PAGE, evaluate_latents
    from mien.jobs.predict import usable
    from mien.models.beta_vae import BetaVae
    from mien.models.checkpoint import CODE, kind_of, load_estimator, load_renderer

    where = usable(device)
    model = model or CODE
    kind_of(model, "beta_vae")
    vae = load_renderer(model, where)
    assert isinstance(vae, BetaVae)
    if out is None:
        out = (run_of(model) or Path()) / f"latents.{split}"
    ready(out)
    if pairs is not None and judge is None:
        raise MienError("--pairs is for shifts, which a judge judges: give --judge too")
    metrics = evaluate_latents(
        vae,
        Manifest.open(faces),
        split,
        out,
        judge=None if judge is None else load_estimator(judge, where),
        identity=identity,
        rivals=_rivals(beside or [], autoencoder or [], where),
        pairs=None if pairs is None else Manifest.open(pairs),
        between=[] if between is None else [between],
        limit=limit,
        seeds=seeds,
        resamples=bootstraps,
        device=where,
    )
    if json:
        print_json(metrics)
    else:
        _print_tables(metrics)
    if metrics["caution"]:
        say(f"caution: {metrics['caution']}")
    if metrics["collapse"]:
        say(metrics["collapse"])
    if "caution" in (judged := (metrics["shifts"] or {}).get("judge", {})):
        say(f"caution: the judge {judged['name']}: {judged['caution']}")
    say(f"report: {out / PAGE}")


def _rivals(runs: list[str], folders: list[Path], device: str) -> dict[str, BetaVae | Autoencoder]:
    """The networks by the names of their folders. An autoencoder that cannot be loaded is said and left out: its
    weights are large, and a table without them is one still."""
    from mien.cli.console import say
    from mien.errors import MienError
    from mien.models.autoencoder import load_autoencoder
    from mien.models.beta_vae import BetaVae
    from mien.models.checkpoint import kind_of, load_renderer

    names = [*(Path(run).name for run in runs), *(folder.name for folder in folders)]
    if len(set(names)) < len(names):
        raise MienError(f"two of {', '.join(names)} are called alike: rename a folder, the tables know them by it")
    rivals: dict[str, BetaVae | Autoencoder] = {}
    for run in runs:
        kind_of(run, "beta_vae")
        found = load_renderer(run, device)
        assert isinstance(found, BetaVae)
        rivals[Path(run).name] = found
    for folder in folders:
        try:
            rivals[folder.name] = load_autoencoder(folder, device)
        except MienError as error:
            say(f"left out of the tables: {error}")
    return rivals


def _print_tables(metrics: dict[str, Any]) -> None:
    from mien.cli.console import table
    from mien.report.latents import SHIFTS, known, painted
    from mien.report.numbers import number, years

    about = metrics["about"]
    table(*painted(metrics), title=f"{about['model']} on {about['split']} ({about['faces']:,} faces)")
    table(*known(metrics))
    rates = ", ".join(f"{name} {years(value, 2)}" for name, value in metrics["rate"].items())
    print(f"rate in nats: {rates}; age from z_age: MAE {years(metrics['age'].get('mae'))}")
    if metrics["shifts"] is None:
        return
    judge = metrics["shifts"]["judge"]
    told = [key for key in SHIFTS if number(metrics["shifts"]["routes"]["copy"].get(key)).known]
    lines = [
        [name, route["reason"], *([None] * (len(told) - 1))]
        if "reason" in route
        else [name, *(years(route.get(key)) for key in told)]
        for name, route in metrics["shifts"]["routes"].items()
    ]
    table(
        ("shift by", *(SHIFTS[key] for key in told)),
        lines,
        title=f"30 years, {metrics['shifts']['n']:,} faces; the judge errs by {years(judge['mae'])} years",
    )
