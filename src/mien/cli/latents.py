"""`mien latents`: what a representation keeps of a face, and where in it the age is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def latents(
    faces: Annotated[Path, typer.Argument(help="A manifest of labelled faces.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A beta-VAE: a run or a checkpoint.")],
    split: Annotated[str, typer.Option(help="train, select, val, test, or all for every face.")] = "val",
    identity: Annotated[
        Path | None, typer.Option(metavar="WEIGHTS", help="MobileFaceNet's, for cosines and perceptual distances.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="An estimator that judges shifted faces: a run, a checkpoint, a shipped one.")
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

    PCA of the same size, an untrained encoder and the mean picture stand in the same tables. Writes latents.json,
    latents.html, and the figures as files.

    Examples: mien latents drawn -m runs/vae; mien latents utk -m runs/vae --judge face-mobile
    --identity mobilefacenet.safetensors --between 3 17
    """
    from mien.cli.console import print_json, say
    from mien.data.manifest import Manifest
    from mien.errors import MienError
    from mien.evaluation.latents import PAGE, evaluate_latents
    from mien.jobs.predict import usable
    from mien.models.beta_vae import BetaVae
    from mien.models.checkpoint import load_estimator, load_renderer

    where = usable(device)
    vae = load_renderer(model, where)
    if not isinstance(vae, BetaVae):
        raise MienError(f"{model} is a {type(vae).__name__} and has no code to judge; name a beta-VAE")
    if out is None:
        run = Path(model)
        out = (run if (run / "checkpoints").is_dir() else Path()) / f"latents.{split}"
    metrics = evaluate_latents(
        vae,
        Manifest.open(faces),
        split,
        out,
        judge=None if judge is None else load_estimator(judge, where),
        identity=identity,
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
    if metrics["collapse"]:
        say(metrics["collapse"])
    say(f"report: {out / PAGE}")


def _print_tables(metrics: dict[str, Any]) -> None:
    from mien.cli.console import table
    from mien.report.latents import SHIFTS
    from mien.report.numbers import number, years

    about = metrics["about"]
    rows = []
    for name, found in metrics["separation"].items():
        age, probe = found["factors"].get("age"), metrics["probes"].get(name) or {}
        rebuilt = metrics["reconstruction"].get(name)
        rows.append(
            [
                name,
                None if rebuilt is None else years(rebuilt["mse"], 5),
                None if rebuilt is None else years(rebuilt["ssim"], 3),
                None if age is None else years(age["mig"], 3),
                years(found["disentanglement"], 3),
                years(probe.get("ratio")),
            ]
        )
    table(
        ("code", "MSE", "SSIM", "MIG of age", "DCI disentanglement", "age probe / constant"),
        rows,
        title=f"{about['model']} on {about['split']} ({about['faces']:,} faces)",
    )
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
