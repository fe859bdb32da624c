"""One evaluation from model and manifest to files: predictions, metrics, figures, page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.errors import MienError
from mien.evaluation import groups
from mien.evaluation.judge import judge
from mien.evaluation.page import write_report
from mien.evaluation.predictions import (
    FEW,
    Predictions,
    Raw,
    calibrated_on,
    calibration_mark,
    decode,
    fit_states,
    predict_split,
    predictions_table,
)
from mien.evaluation.probe import source_probe, sources_of
from mien.evaluation.tiles import tiles
from mien.evaluation.worst import by_tag, worst_faces
from mien.faces import SPLITS
from mien.files import write_json
from mien.models.met import share_met

if TYPE_CHECKING:
    import torch

    from mien.data.manifest import Manifest
    from mien.models.estimator import Estimator

CROSSFITTED = "cross-fitted: on one half of these faces, judged on the other, and the other way round"
UNCALIBRATED = "none: the model carries nothing fitted on held-out faces"


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, and the page that tells it."""

    metrics: dict[str, Any]
    predictions: Predictions
    report: Path


def calibrate(
    estimator: Estimator,
    manifest: Manifest,
    split: str = "val",
    *,
    device: str | torch.device = "cpu",
    batch: int = 128,
    workers: int | None = None,
    show: bool = True,
) -> Raw:
    """Fit what decoding needs on `split` of `manifest`, and mark the estimator as calibrated on it.

    Returns the outputs it was fitted on, so that the split need not be passed through the network again.
    """
    part = manifest.split(split)
    raw = _predict(estimator, part, device=device, batch=batch, workers=workers, show=show)
    estimator.states = fit_states(estimator, raw, part)
    estimator.calibrated_on = calibration_mark(manifest, split)
    return raw


def evaluate_model(
    estimator: Estimator,
    manifest: Manifest,
    split: str,
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    batch: int = 128,
    workers: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    show: bool = True,
    raw: Raw | None = None,
    grid: int = 0,
) -> Evaluation:
    """Judge `estimator` on `split` of `manifest` (all: every face) and write what was found to `folder`.

    Writes `predictions.<split>.parquet`, `metrics.<split>.json`, `report.<split>.html` (and `report.html`,
    the same for the split judged last), and in `figures/` what the tasks give: `error_analysis.png` and
    `worst_predictions.png` of age, `confusion_expression.png`, `curves_expression.png`, `affect_plane.png`, and with
    `grid` > 0 `grid.png`, so many faces that the model was right and wrong about.

    Raises:
        MienError: see `judge_model`.
    """
    metrics, predictions, images = judge_model(
        estimator,
        manifest,
        split,
        device=device,
        batch=batch,
        workers=workers,
        resamples=resamples,
        seed=seed,
        show=show,
        raw=raw,
    )
    predictions.save(folder / f"predictions.{split}.parquet")
    write_json(folder / f"metrics.{split}.json", metrics)
    terms = estimator.card.get("terms") or ()
    terms = [terms] if isinstance(terms, str) else terms
    shown = tiles(predictions, manifest.pictures(), grid, seed)
    return Evaluation(metrics, predictions, write_report(metrics, predictions, images, folder, terms, shown))


def judge_model(
    estimator: Estimator,
    manifest: Manifest,
    split: str,
    *,
    device: str | torch.device = "cpu",
    batch: int = 128,
    workers: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    show: bool = True,
    raw: Raw | None = None,
) -> tuple[dict[str, Any], Predictions, list[np.ndarray | None]]:
    """The metrics, the predictions, and the pictures of the worst faces; nothing is written.

    `raw` holds the network's outputs for this very split where they are known already (`calibrate` gives them).

    What decoding needs is cross-fitted for those faces that the model's own was fitted on.
    `metrics["about"]` says what was judged and how.

    Raises:
        MienError: the split is empty, none of its pictures can be read, or they are in another crop than the
            model's.
    """
    part = manifest.split(split)
    if raw is None:
        raw = _predict(estimator, part, device=device, batch=batch, workers=workers, show=show)
    crossfit, calibration = _crossfit(estimator, manifest, split, raw.rows)
    columns = decode(estimator, raw, part, crossfit)
    paths = part.strings("path")
    about: dict[str, Any] = {
        "model": estimator.name,
        "manifest": manifest.hash,
        "split": split,
        "calibration": calibration,
        "faces": len(raw.rows),
        "rejected": [{"path": paths[row], "reason": reason} for row, reason in sorted(raw.rejected.items())],
    }
    wrong = caution(estimator, manifest, split)
    if wrong is not None:
        about["caution"] = wrong
    everywhere = np.arange(len(manifest)) if split == "all" else _rows(manifest, split)
    predictions = predictions_table(manifest, everywhere[raw.rows], columns, about)
    about |= {"resamples": resamples, "groups": len(np.unique(predictions.groups()))}

    counts = training_counts(estimator, manifest)
    metrics = judge(predictions, resamples=resamples, seed=seed, training_counts=counts)
    metrics["about"] = about
    sources = sources_of(part)
    if sources is not None and raw.features is not None:
        groups_of = predictions.groups()
        about["source_probe"] = source_probe(raw.features, sources[raw.rows], groups_of, resamples, seed)
    images: list[np.ndarray | None] = []
    if "mae" in metrics.get("age", {}):
        pictures = manifest.pictures()
        landmarks = part.landmarks()[raw.rows] if part.has("landmarks") else None
        metrics["age"]["worst"], images = worst_faces(predictions, pictures, landmarks)
        metrics["age"]["groups"]["tag"] = by_tag(
            predictions, pictures, landmarks, resamples=resamples, seed=seed, show=show
        )
    return metrics, predictions, images


def _predict(
    estimator: Estimator,
    part: Manifest,
    *,
    device: str | torch.device,
    batch: int,
    workers: int | None,
    show: bool,
) -> Raw:
    """What the network puts out; with the features where there are data sets to tell apart by them."""
    from mien.data.loading import readers

    features = sources_of(part) is not None
    workers = readers() if workers is None else workers
    return predict_split(estimator, part, batch=batch, device=device, workers=workers, show=show, features=features)


def _crossfit(estimator: Estimator, manifest: Manifest, split: str, rows: np.ndarray) -> tuple[np.ndarray, str]:
    """Which of the faces `rows` of a split are to be cross-fitted, (n,) bool, and how the figures are calibrated."""
    fitted = calibrated_on(estimator, manifest, split)[rows]
    count = int(fitted.sum())
    if fitted.all():
        return fitted, CROSSFITTED
    told = _calibration(estimator, manifest)
    if not count:
        return fitted, told
    if count < FEW and estimator.calibrated_on.get("manifest") != manifest.hash:
        return np.zeros_like(fitted), f"{told}; {count:,} of these faces are among those that it was fitted on"
    return fitted, f"{told}, for the {count:,} of these faces that it was fitted on {CROSSFITTED}"


def training_counts(estimator: Estimator, manifest: Manifest) -> dict[str, dict[str, int]]:
    """How many training faces each group has; {} unless the model is known to come from this manifest."""
    learnt = splits_of(estimator)[0]
    rows = np.arange(len(manifest)) if learnt == "all" else _rows(manifest, learnt)
    if estimator.calibrated_on.get("manifest") != manifest.hash or not len(rows):
        return {}
    faces = manifest.take(rows)
    found = groups.partitions(
        faces.numbers("age_low"), faces.numbers("age_high"), faces.codes("gender"), faces.codes("race")
    )
    return groups.counts(found)


def require_labels(estimator: Estimator, faces: Manifest) -> None:
    """Pass where there is something to judge `estimator` by.

    Raises:
        MienError: no face has a label of any of its tasks.
    """
    for name in estimator.tasks:
        task = estimator.task(name)
        if bool(task.labelled(task.encode(faces.columns(task.columns))).any()):
            return
    tasks = ", ".join(estimator.tasks)
    raise MienError(
        f"no face of {faces.path or 'the manifest'} has a label that {estimator.name} tells ({tasks}): "
        "there is nothing to judge it by; `mien prepare folder --labels` reads some, `mien predict` asks without"
    )


def splits_of(estimator: Estimator) -> tuple[str, str]:
    """The splits that an estimator learnt from, and that chose its best epoch."""
    told = estimator.settings.get("splits") or {}
    return str(told.get("train", "train")), str(told.get("select", "select"))


def caution(estimator: Estimator, manifest: Manifest, split: str) -> str | None:
    """What is wrong with judging `estimator` on a split of a manifest; None: nothing that is known."""
    if estimator.calibrated_on.get("manifest") == manifest.hash:
        learnt, chose = splits_of(estimator)
        if "all" in (learnt, split) or learnt == split:
            some = "some of " if learnt != "all" and split == "all" else ""
            return f"it learnt from {some}these faces (data.train={learnt}): its errors on them say nothing of others"
        if chose in ("all", split):
            return f"its best epoch was chosen on these faces (data.select={chose}): its errors on others are larger"
    return _met(estimator, manifest, split)


def _met(estimator: Estimator, manifest: Manifest, split: str) -> str | None:
    """Whether the estimator, or what it started from, learnt from faces of a split that is not its own."""
    some = share_met(estimator.learnt, manifest.split(split).strings("sha256"))
    return some and f"it learnt from {some} of these faces: its errors on them say nothing of others"


def _rows(manifest: Manifest, split: str) -> np.ndarray:
    return np.flatnonzero(manifest.codes("split") == SPLITS.index(split))


def _calibration(estimator: Estimator, manifest: Manifest) -> str:
    mark = estimator.calibrated_on
    if not mark:
        return UNCALIBRATED
    same = mark.get("manifest") == manifest.hash
    return f"fitted on the split {mark.get('split')!r} of {'this' if same else 'another'} manifest"
