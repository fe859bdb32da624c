"""`mien labels`: which given labels are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from mien.data.manifest import Manifest
    from mien.evaluation.labels import Suspect
    from mien.models.estimator import Estimator

#: Lines of the terminal's list.
LISTED = 15


def labels(
    faces: Annotated[Path, typer.Argument(help="A manifest, or the folder that `mien prepare` made.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A run, checkpoint or shipped model; several: folds, or more judges."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder; labels/ beside the manifest.")] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Score from which a label is corrected.")] = 0.5,
    top: Annotated[int, typer.Option(min=1, help="Faces on the page.")] = 50,
    duplicates: Annotated[
        bool, typer.Option("--duplicates/--no-duplicates", help="Look for copies that are labelled otherwise.")
    ] = True,
    folds: Annotated[
        int | None, typer.Option(min=2, metavar="K", help="Only write K manifests to train a model each on.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Faces in one pass.")] = 128,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every finding.")] = False,
) -> None:
    """Rank the labels by how likely they are wrong, with the evidence: models, experts, copies, impossible ages.

    A model has a say on faces that it did not learn from. Train one on each manifest of --folds and name them all:
    every face is then judged. Writes labels.json, labels.html with the faces most in doubt, and corrections.csv for
    `mien prepare --corrections`.

    Example: mien labels utk --model runs/a
    """
    from mien.cli.console import print_json, ready, say, table
    from mien.data.duplicates import DuplicateSettings, find_duplicates, read_thumbnails
    from mien.data.inspection import Labels
    from mien.data.manifest import Manifest
    from mien.errors import MienError
    from mien.evaluation import labels as audit
    from mien.files import write_json, write_text

    manifest = Manifest.open(faces)
    folder = out or (manifest.path or faces).parent / "labels"
    ready(folder)
    if folds is not None:
        if model:
            raise MienError(f"--model {model[0]}: --folds only writes manifests to train models on; leave one out")
        files = [part.save(folder / f"fold{number}") for number, part in enumerate(audit.folds(manifest, folds))]
        for file in files:
            say(f"written: {file}")
        if json:
            print_json({"folds": files})
        return
    if not manifest.has("age_low") and not duplicates:
        raise MienError(f"{faces}: no face has an age, and copies are not looked for: there is nothing to audit")
    judged = [_ages(name, manifest, batch, device) for name in model or ()]
    views = audit.Views.of(manifest, judged)
    settings = DuplicateSettings()
    looked = read_thumbnails(manifest) if duplicates else None
    paths = manifest.strings("path")
    unreadable = {} if looked is None else {paths[row]: why for row, why in looked.failed.items()}
    if unreadable and len(unreadable) == len(manifest):
        path, why = next(iter(unreadable.items()))
        raise MienError(f"none of the {len(manifest):,} pictures of {faces} can be read; {path}: {why}")
    copies = None if looked is None else find_duplicates(looked, settings)
    doubts = audit.doubt(manifest.numbers("age_low"), manifest.numbers("age_high"), views)
    suspects = audit.audit_labels(manifest, views, doubts, copies)
    findings: dict[str, Any] = {
        "faces": len(manifest),
        "manifest": manifest.hash,
        "judges": views.names,
        "judged": int((doubts.wrong == doubts.wrong).sum()),
        "share": doubts.share,
        "threshold": threshold,
        "flagged": sum(one.score >= threshold for one in suspects),
        "duplicates": settings.model_dump() if duplicates else None,
        "unreadable": unreadable,
    }
    given = Labels(manifest)
    listed = [
        {
            "path": paths[one.row],
            "row": one.row,
            "score": one.score,
            "labels": given.of(one.row),
            "evidence": one.evidence,
            "instead": one.corrections,
        }
        for one in suspects
    ]
    write_json(folder / "labels.json", findings | {"suspects": listed})
    corrected = audit.corrections(suspects, paths, threshold)
    write_text(folder / "corrections.csv", _csv([("path", "column", "value"), *corrected]))
    write_text(folder / "labels.html", _page(manifest, suspects[:top], findings, faces))
    if json:
        print_json(findings | {"suspects": listed})
        return
    title = f"{findings['flagged']:,} of {len(manifest):,} faces in doubt (score at least {threshold:g})"
    rows = [[one["score"], one["path"], "; ".join(one["evidence"])] for one in listed[:LISTED]]
    if rows:
        table(["score", "picture", "evidence"], rows, title=title)
    else:
        print(f"{title}: nothing speaks against any label")
    if unreadable:
        say(f"{len(unreadable):,} pictures could not be read, and are compared with none; labels.json lists them")
    if not views.names:
        say("no model was named: ages are compared among copies only")
    elif not findings["judged"] and 0 < int((views.ages == views.ages).any(axis=0).sum()) < audit.LEAST:
        say(f"fewer than {audit.LEAST} labelled faces that a model judges: too few to tell which labels are wrong")
    elif findings["judged"] < len(manifest):
        say(f"models that did not learn from it judge {findings['judged']:,} of {len(manifest):,} faces; see --folds")
    if doubts.share > 0.5:
        say(
            f"by these models {doubts.share:.0%} of the ages were put at random: rather they know too little of ages; "
            "do not correct by them"
        )
    say(f"page: {folder / 'labels.html'}; corrections: {folder / 'corrections.csv'}")


def _ages(name: str, manifest: Manifest, batch: int, device: str) -> tuple[str, np.ndarray, np.ndarray]:
    """The name of a model, its ages and their spread, (N,) each, NaN for faces that it learnt from."""
    import numpy as np

    from mien.errors import MienError
    from mien.evaluation.predictions import predict_split
    from mien.jobs.predict import load

    asked = load(name, device)
    estimator = asked.estimator
    if "age" not in estimator.tasks:
        raise MienError(f"the model {name} does not tell ages; name one that does")
    labelled = np.isfinite(manifest.numbers("age_low"))
    rows = np.flatnonzero(labelled & ~_learnt(name, estimator, manifest))
    ages, stds = np.full(len(manifest), np.nan), np.full(len(manifest), np.nan)
    if len(rows):
        raw = predict_split(estimator, manifest.take(rows), batch=batch, device=asked.device)
        columns = estimator.decode(raw.outputs)
        ages[rows[raw.rows]] = columns["age"]
        if "age_std" in columns:
            stds[rows[raw.rows]] = columns["age_std"]
    return Path(name).name, ages, stds


def _learnt(name: str, estimator: Estimator | None, manifest: Manifest) -> np.ndarray:
    """The faces that a model, or what it started from, learnt from, (N,) bool: by its run's recipe, else by the
    manifest it was calibrated on. The `estimator` is loaded where it is needed and not given.

    Raises:
        MienError: the faces of the run, or the model, are not there.
    """
    import numpy as np

    from mien.cli.console import say
    from mien.errors import MienError
    from mien.evaluation.evaluate import splits_of
    from mien.faces import SPLITS
    from mien.models.checkpoint import load_estimator
    from mien.models.met import share_met
    from mien.training.recipe import load_recipe
    from mien.training.record import CONFIG, open_faces

    untold = "{}: nothing tells which faces it learnt from; they are judged, too"
    if (Path(name) / CONFIG).is_file():
        recipe = load_recipe(Path(name) / CONFIG)
        learnt = open_faces(recipe).split(recipe.data.train)
        key = "sha256" if manifest.has("sha256") and learnt.has("sha256") else "path"
        seen = set(learnt.strings(key).tolist()) - {None}
        found = np.array([value in seen for value in manifest.strings(key)])
        if init := recipe.model.init:
            try:
                found |= _learnt(init, None, manifest)
            except MienError:  # it has moved, or its faces have; the run itself is whole and can judge
                say(untold.format(init))
        return found
    known = estimator if estimator is not None else load_estimator(name)
    if known.calibrated_on.get("manifest") == manifest.hash:
        split = splits_of(known)[0]
        return manifest.codes("split") == SPLITS.index(split) if split in SPLITS else np.ones(len(manifest), bool)
    if known.learnt is not None:
        met = known.learnt.among(manifest.strings("sha256"))
        if np.isnan(met).any() and (some := share_met(known.learnt, manifest.strings("sha256"))):
            say(f"{name} learnt from {some} of these faces; nothing tells from which: they are judged, too")
        return np.asarray(met == 1)
    say(untold.format(name))
    return np.zeros(len(manifest), dtype=bool)


def _csv(rows: list[tuple[str, str, str]]) -> str:
    import csv
    import io

    with io.StringIO() as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
        return stream.getvalue()


def _page(manifest: Manifest, suspects: list[Suspect], findings: dict[str, Any], faces: Path) -> str:
    from mien.errors import PictureError
    from mien.report.html import THUMBNAIL, Picture
    from mien.report.labels import labels_page

    pictures, archives, paths = manifest.pictures(), manifest.strings("archive"), manifest.strings("path")
    shown = []
    for one in suspects:
        image: np.ndarray | None
        try:
            image = pictures.image(paths[one.row], archives[one.row], side=THUMBNAIL)
        except PictureError:
            image = None
        instead = [f"{column}: {value if value != '' else 'drop'}" for column, value in one.corrections.items()]
        shown.append(Picture(image, f"score {one.score:.2f}", [*one.evidence, paths[one.row]], instead))
    facts = {
        "Faces": str(faces),
        "Judges": ", ".join(findings["judges"]) or "none: only copies and impossible ages",
        "Copies": "looked for" if findings["duplicates"] else "not looked for",
        "Content (sha256)": manifest.hash[:16],
    }
    return labels_page(findings, shown, facts)
