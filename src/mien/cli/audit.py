"""`mien audit`: when a model is wrong, and for whom; whether a renderer shows what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mien.data.detect import Detector
    from mien.evaluation.robustness.audit import Audited
    from mien.jobs.predict import Model


#: What is asked unless it is said.
EVERY, FINDER, ALIGNER, ANCHORS, FAR, BATCH = "1,2,3,4,5", "cascade", "auto", "5:75:10", 0.001, 128


def audit(
    faces: Annotated[Path | None, typer.Argument(help="A manifest; a run's own is the default.")] = None,
    robustness: Annotated[bool, typer.Option("--robustness", help="What bad light and bad pictures do to it.")] = False,
    ageing: Annotated[
        str | None,
        typer.Option(
            "--ageing", metavar="MODEL", help="Judge a renderer: a run, a checkpoint, or a folder of renders."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A run, a checkpoint or a shipped model.")] = None,
    split: Annotated[str, typer.Option(help="train, select, val, test, or all for every face.")] = "val",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder; AUDIT.SPLIT/ in the run, else at the manifest."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="A run, checkpoint or shipped model that errors are held against.")
    ] = None,
    corruptions: Annotated[str | None, typer.Option(help="Some, as jpeg,defocus_blur; all if left out.")] = None,
    severities: Annotated[str, typer.Option(help="Some of 1,2,3,4,5.")] = EVERY,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            help="At most so many faces: with --robustness in the proportions of the split, with --ageing even over "
            "ages, genders and races.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the faces of --limit.")] = 0,
    photos: Annotated[
        bool, typer.Option("--photos", help="Pictures are whole photos: find the face in every corrupted one.")
    ] = False,
    detector: Annotated[str, typer.Option(help="What finds faces: cascade, yunet:PATH, uniface.")] = FINDER,
    landmarker: Annotated[
        str, typer.Option(help="Aligns faces found in photos: auto (the shipped one), none, a run or a checkpoint.")
    ] = ALIGNER,
    against: Annotated[
        list[str] | None, typer.Option(help="Ageing: another renderer in the same tables; may be given again.")
    ] = None,
    aim: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Ageing: aim the renderer by this estimator of ages, as `mien render` does."
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Ageing: who judges ages: a run, a shipped model, a YAML list of experts.")
    ] = None,
    identity: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="Ageing: MobileFaceNet's, or a run or shipped model.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FACES", help="Ageing: a manifest of named persons, for thresholds.")
    ] = None,
    far: Annotated[
        float, typer.Option(min=0, max=0.5, help="Ageing: share of pairs of different persons that pass for one.")
    ] = FAR,
    ages: Annotated[str, typer.Option(help="Ageing: FIRST:LAST:STEP, or some with commas.")] = ANCHORS,
    also: Annotated[str, typer.Option(help="Ageing: ages that are told, but count in no summary.")] = "",
    told: Annotated[bool, typer.Option("--told", help="Ageing: tell renderers the labelled age of each face.")] = False,
    allow_relabelled: Annotated[
        bool, typer.Option("--allow-relabelled", help="Judge on ages, or by experts, of `mien relabel`, too.")
    ] = False,
    bootstraps: Annotated[int, typer.Option(min=100, help="Resamples behind each interval.")] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Robustness: faces in one pass.")] = BATCH,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every figure.")] = False,
) -> None:
    """Audit a model: --robustness for 18 corruptions at five severities, --ageing for a renderer's faces at other ages.

    Writes figures as JSON, a page, and the answers of every pass. A broken-off audit goes on when the same command is
    given again; more corruptions, severities or renderers are added to what is there.

    Examples: mien audit utk --robustness --limit 800; mien audit utk --robustness -m runs/b --baseline runs/a;
    mien audit photos --robustness --photos --corruptions jpeg,motion_blur --severities 1,3,5;
    mien audit utk --ageing runs/ageing --against runs/vae --identity mobilefacenet.safetensors --pairs fgnet
    """
    from mien.cli.console import print_json, ready, say
    from mien.cli.evaluate import faces_of, run_of
    from mien.errors import MienError
    from mien.evaluation.evaluate import require_labels
    from mien.evaluation.relabelled import guard_labels
    from mien.evaluation.robustness.audit import PAGE, audit_robustness
    from mien.jobs.predict import load

    if robustness and ageing is not None:
        raise MienError("--robustness and --ageing are two audits; give one command for each")
    if ageing is not None:
        from mien.cli.ageing import audit_renderers, print_ageing
        from mien.evaluation.ageing.audit import PAGE as AGEING_PAGE

        if model is not None:
            raise MienError(f"--model {model}: an ageing audit's renderer is --ageing's, its judge --judge's")
        _refuse(
            "--robustness",
            baseline=(baseline, None),
            corruptions=(corruptions, None),
            photos=(photos, False),
            severities=(severities, EVERY),
            detector=(detector, FINDER),
            batch=(batch, BATCH),
        )
        manifest = faces_of(faces, run_of(ageing))
        if not allow_relabelled:
            guard_labels(manifest.split(split))
        if out is None:
            out = (run_of(ageing) or (manifest.path or Path("faces.parquet")).parent) / f"ageing.{split}"
        ready(out)
        metrics = audit_renderers(
            manifest,
            [ageing, *(against or [])],
            split,
            out,
            aim=aim,
            judge=judge,
            identity=identity,
            pairs=pairs,
            far=far,
            landmarker=landmarker,
            ages=ages,
            also=also,
            told=told,
            allow_relabelled=allow_relabelled,
            limit=limit,
            seed=seed,
            bootstraps=bootstraps,
            device=device,
            show=not json,
        )
        if json:
            print_json(metrics)
        else:
            print_ageing(metrics)
            say(f"report: {out / AGEING_PAGE}")
        return
    if not robustness:
        raise MienError("no audit is named; say which with --robustness, or --ageing MODEL")
    _refuse(
        "--ageing",
        against=(against or None, None),
        aim=(aim, None),
        judge=(judge, None),
        identity=(identity, None),
        pairs=(pairs, None),
        told=(told, False),
        ages=(ages, ANCHORS),
        also=(also, ""),
        far=(far, FAR),
    )
    asked = load(model, device)
    run = run_of(model)
    manifest = faces_of(faces, run)
    if not allow_relabelled:
        guard_labels(manifest.split(split))
    whole = photos or manifest.crop.template == "photo"
    if not whole:
        # Crops are not searched for faces, and of photos there is always to tell how often one is no longer found.
        _refuse("--photos", detector=(detector, FINDER), landmarker=(landmarker, ALIGNER))
        require_labels(asked.estimator, manifest.split(split))
    if out is None:
        out = (run or (manifest.path or Path("faces.parquet")).parent) / f"robustness.{split}"
    ready(out)
    audited = _audited(asked, run, out)
    other = None
    if baseline is not None:
        other = _audited(load(baseline, device), run_of(baseline), out / "baseline")
    metrics = audit_robustness(
        audited,
        manifest,
        split,
        baseline=other,
        corruptions=None if corruptions is None else _list(corruptions),
        severities=_numbers(severities),
        limit=limit,
        seed=seed,
        detector=_detector(detector, landmarker, asked) if whole else None,
        device=asked.device,
        batch=batch,
        resamples=bootstraps,
    )
    if json:
        print_json(metrics)
        return
    _print_table(metrics)
    for key, whose in (("caution", "model"), ("caution_baseline", "baseline")):
        if key in metrics["about"]:
            say(f"caution: {metrics['about'][whose]}: {metrics['about'][key]}")
    say(f"report: {out / PAGE}")


def _refuse(audit: str, **given: tuple[Any, Any]) -> None:
    """Refuse the options that only the other `audit` has a use for, each with its default, where they are not that."""
    from mien.errors import MienError

    named = [f"--{name}" for name, (value, default) in given.items() if value != default]
    if named:
        raise MienError(f"{', '.join(named)}: only {audit} has a use for it; leave it out")


def _audited(asked: Model, run: Path | None, folder: Path) -> Audited:
    from mien.evaluation.robustness.audit import Audited
    from mien.training.recipe import load_recipe
    from mien.training.record import CONFIG

    settings = asked.estimator.settings
    if "augment" not in settings and run is not None and (run / CONFIG).is_file():
        # Models saved before they told how their training faces were changed.
        settings["augment"] = load_recipe(run / CONFIG).augment.model_dump(mode="json")
    return Audited(asked.estimator, asked.hash(), folder)


def _detector(name: str, landmarker: str, asked: Model) -> Detector:
    from mien.data.detect import build_detector
    from mien.evaluation.locate import build_locator
    from mien.evaluation.robustness.subjects import Aligning

    detector, locator = build_detector(name), build_locator(landmarker, asked.device)
    return detector if locator is None else Aligning(detector, locator)


def _list(text: str) -> list[str]:
    return [word.strip().replace("-", "_") for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[int]:
    from mien.errors import MienError

    try:
        return [int(word) for word in _list(text)]
    except ValueError:
        raise MienError(f"--severities {text!r}: expected whole numbers from 1 to 5, such as 1,3,5") from None


def _print_table(metrics: dict[str, Any]) -> None:
    from mien.cli.console import table
    from mien.report.numbers import share, years
    from mien.report.robustness import HEADINGS, LOST, NAMES, WRITTEN
    from mien.report.style import words

    about = metrics["about"]
    compared = about["baseline"] is not None
    rows = []
    for name, part in metrics["tasks"].items():
        write, lost = WRITTEN[part["figure"]], LOST[part["figure"]]
        label = f"{name}: {NAMES[part['figure']]}"
        rows.append([label, "clean", write(part["clean"]), "", *([""] if compared else [])])
        for key, entry in part["summary"].items():
            told = [label, HEADINGS[key], write(entry["mean"]), lost(entry["drop"])]
            rows.append([*told, *([years(entry.get("mce"), 3)] if compared else [])])
    if rows:
        table(
            ("figure", "pictures", "value [95 % interval]", "drop", *(("mCE",) if compared else ())),
            rows,
            title=f"{about['model']} on {about['split']} ({about['faces']:,} faces)",
        )
    if "found" in metrics:
        found = metrics["found"]
        print(
            f"photos: {share(found['mean'])} of {found['n']:,} lose their face in a corrupted one, on average; "
            f"{found['unfound_clean']:,} more have none that is found"
        )
    elif not rows:
        print(f"photos: the face of all {about['faces']:,} is found in every corrupted one")
    for name, part in metrics["tasks"].items():
        lost = LOST[part["figure"]]
        drops = {one: entry["drop"]["value"] for one, entry in part["corruptions"].items()}
        # Where a corruption leaves no face to be found there is no drop, NaN, which no order holds.
        hard = sorted((one for one in drops if drops[one] > 0), key=lambda one: -drops[one])[:3]
        named = ", ".join(f"{one} {lost(drops[one])}" for one in hard)
        print(f"{name}: loses most by {named}" if named else f"{name}: loses nothing by any of them")
        for by, worst in part["worst_group"].items():
            print(f"{name}: by {words(by)} loses most {worst['group']} {lost(worst['drop'])}")
