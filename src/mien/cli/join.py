"""`mien join`: several models as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def join(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL MODEL...", help="Runs, checkpoints or shipped models of one set of tasks."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the joined model goes.")],
    faces: Annotated[
        Path | None,
        typer.Option(metavar="FACES", help="A manifest: calibrate on its val, then judge on that."),
    ] = None,
    allow_relabelled: Annotated[
        bool, typer.Option("--allow-relabelled", help="Calibrate and judge on ages that `mien relabel` made, too.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Faces in one pass.")] = 128,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every figure.")] = False,
) -> None:
    """Make one model that answers with the mean of several: their backbones side by side under one head.

    It is used like any other (predict, evaluate, export, model.init to train on). Intervals and temperatures are those
    of the joined model, so they are fitted anew: give --faces. It takes as long to answer as its parts together.

    Example: mien join runs/a runs/b -o runs/ab --faces utk
    """
    from mien.cli.console import print_json, say
    from mien.cli.evaluate import print_figures
    from mien.data.manifest import Manifest
    from mien.errors import MienError
    from mien.evaluation.evaluate import calibrate, evaluate_model
    from mien.evaluation.relabelled import guard_labels
    from mien.jobs.predict import usable
    from mien.models.checkpoint import load_estimator, save_estimator
    from mien.models.join import join as join_estimators

    if out.exists() and any(out.iterdir()):
        raise MienError(f"{out}: not empty; name a new folder with -o")
    device = usable(device)
    manifest = None
    if faces is not None:
        manifest = Manifest.open(faces)
        if not allow_relabelled:
            guard_labels(manifest.split("val"))
    joined = join_estimators([load_estimator(model) for model in models]).to(device)
    joined.name = out.name
    parts = ", ".join(models)
    metrics = {}
    raw = None
    if manifest is not None:
        raw = calibrate(joined, manifest, device=device, batch=batch)
    save_estimator(out, joined)
    if manifest is not None:
        result = evaluate_model(joined, manifest, "val", out, device=device, batch=batch, raw=raw)
        metrics = result.metrics
    size = sum(value.numel() for value in joined.parameters())
    if json:
        print_json({"model": str(out), "parts": models, "parameters": size, **metrics})
        return
    if metrics:
        print_figures(metrics)
        say(f"report: {result.report}")
    else:
        say("not calibrated: its answers have no intervals; --faces calibrates it on the val faces of a manifest")
    say(f"{parts} joined, {size:,} parameters: {out}")
