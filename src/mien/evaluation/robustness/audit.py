"""A robustness audit: what becomes of a model's answers when pictures are bad, from model and manifest to a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.data.corruptions import SEVERITIES, TABLE, VERSION, Place, corrupt, seen_families, table_hash
from mien.data.transforms import AugmentSettings
from mien.errors import MienError, unknown
from mien.evaluation.evaluate import caution
from mien.evaluation.robustness.cells import Cell, run_passes
from mien.evaluation.robustness.degradation import judge_passes
from mien.evaluation.robustness.subjects import Subjects
from mien.files import write_json

if TYPE_CHECKING:
    import torch

    from mien.data.detect import Detector
    from mien.data.manifest import Manifest
    from mien.models.estimator import Estimator

#: Files of an audit, in its folder.
METRICS, PAGE = "robustness.json", "robustness.html"
#: Corruptions of how a crop is cut: a photo is searched, not cut.
OF_CROPS = ("crop_shift", "crop_scale")


@dataclass(frozen=True)
class Audited:
    """A model to be audited: its network, the hash that tells it from others, its folder of passes."""

    estimator: Estimator
    identity: str
    folder: Path


def audit_robustness(
    model: Audited,
    manifest: Manifest,
    split: str,
    *,
    baseline: Audited | None = None,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    limit: int | None = None,
    seed: int = 0,
    detector: Detector | None = None,
    device: str | torch.device = "cpu",
    batch: int = 128,
    resamples: int = 1000,
    show: bool = True,
) -> dict[str, Any]:
    """Audit `model` on `split` of `manifest`, and write the figures and the page to its folder; returns the figures.

    Goes on where a broken-off audit stopped; cells that an earlier one computed are not computed again.

    Args:
        baseline: another model, audited on the same faces; corruption errors are against it.
        corruptions: names of `TABLE`; all by default (of photos, all but those of crops).
        limit: at most so many faces, drawn by `seed` in the split's proportions of ages, genders and races.
        detector: finds the faces, where the pictures are whole photos.

    Raises:
        MienError: an unknown corruption or severity, a folder of another audit, or no face that can be judged.
    """
    names = _names(corruptions, photos=detector is not None)
    wanted = _severities(severities)
    cells: list[Cell] = [(name, severity) for name in names for severity in wanted]
    part = manifest.split(split)
    rows = np.arange(len(part)) if limit is None else stratified(part, limit, seed)
    passes, other = (
        None
        if one is None
        else run_passes(
            one.estimator, manifest, split, rows, one.folder, cells,
            identity=one.identity, detector=detector, device=device, batch=batch, show=show, label=label,
        )
        for one, label in ((model, "audit"), (baseline, "audit the baseline"))
    )  # fmt: skip
    assert passes is not None
    if other is not None and other.clean.strings("path").tolist() != passes.clean.strings("path").tolist():
        raise MienError(
            f"the baseline {baseline.estimator.name if baseline else ''} was shown other faces; "
            "audit both models anew in an empty folder"
        )
    augment = training_augment(model.estimator)
    training = None if augment is None else seen_families(augment)
    metrics = judge_passes(passes, training, other, resamples=resamples, seed=seed)
    metrics["about"] = {
        "model": model.estimator.name,
        "baseline": None if baseline is None else baseline.estimator.name,
        "manifest": manifest.hash,
        "split": split,
        "faces": len(passes.clean),
        "groups": len(np.unique(passes.clean.groups())),
        "limit": limit,
        "photos": detector is not None,
        "corruptions": names,
        "severities": wanted,
        "table": {"version": VERSION, "sha256": table_hash()},
        "families": {name: TABLE[name].family for name in names},
        "training": None if training is None else sorted(training),
        "resamples": resamples,
        "rejected": [{"path": path, "reason": reason} for path, reason in passes.rejected.items()],
        "unfound": passes.unfound,
    }
    for key, one in (("caution", model), ("caution_baseline", baseline)):
        wrong = None if one is None else caution(one.estimator, manifest, split)
        if wrong is not None:
            metrics["about"][key] = wrong
    write_json(model.folder / METRICS, metrics)
    _write_page(model, part.take(rows), metrics, detector, passes.clean.numbers("row").astype(int))
    return metrics


def training_augment(estimator: Estimator) -> AugmentSettings | None:
    """What the model's recipe did to its training faces; None where the model does not say."""
    settings = estimator.settings.get("augment")
    return None if settings is None else AugmentSettings.model_validate(settings)


def stratified(manifest: Manifest, limit: int, seed: int) -> np.ndarray:
    """At most `limit` rows, rising, drawn by `seed` so that every stratum of age, gender, race and expression has the
    share that it has of all: a mean over them stays an unbiased one over all."""
    from mien.faces import age_bin

    if limit < 1:
        raise MienError(f"a limit of {limit} faces: expected a number above 0")
    count = len(manifest)
    if limit >= count:
        return np.arange(count)
    rng = np.random.default_rng(seed)
    labels = [manifest.codes(name) for name in ("expression", "race", "gender")]
    order = np.lexsort([rng.random(count), *labels, age_bin(manifest.numbers("age_low"))])
    # Systematic sampling: even steps through the sorted faces, from a random start.
    steps = np.floor((np.arange(limit) + rng.random()) * count / limit).astype(np.int64)
    return np.sort(order[steps])


def _names(corruptions: Sequence[str] | None, photos: bool) -> list[str]:
    if corruptions is None:
        return [name for name in TABLE if not (photos and name in OF_CROPS)]
    for name in corruptions:
        if name not in TABLE:
            raise unknown("corruption", name, TABLE)
        if photos and name in OF_CROPS:
            raise MienError(f"{name} is about crops; photos are searched for the face, so leave it out")
    if not corruptions:
        raise MienError(f"no corruption is named; known are {', '.join(TABLE)}")
    return list(dict.fromkeys(corruptions))


def _severities(severities: Sequence[int]) -> list[int]:
    bad = [severity for severity in severities if severity not in SEVERITIES]
    if bad or not severities:
        raise MienError(f"severity {bad[0] if bad else 'of none'}: expected some of 1, 2, 3, 4, 5")
    return sorted(set(severities))


def examples(
    subjects: Subjects, rows: Sequence[int] | np.ndarray, names: Sequence[str], severities: Sequence[int]
) -> tuple[np.ndarray | None, dict[str, list[np.ndarray]]]:
    """One readable face, clean and as each corruption leaves it: the first of `rows`."""
    for row in rows:
        try:
            one = subjects.read(int(row))
        except MienError:
            continue
        image, place = _close(one.image, one.place) if subjects.detector is not None else (one.image, one.place)
        return image, {
            name: [corrupt(image, name, severity, one.key, place) for severity in severities] for name in names
        }
    return None, {}


def _close(image: np.ndarray, place: Place) -> tuple[np.ndarray, Place]:
    """The part of a photo about its face, so that a small picture of it shows something."""
    centre = place.points.mean(axis=0)
    left, top = np.maximum(np.floor(centre - 0.9 * place.side), 0).astype(int)
    right, bottom = np.ceil(centre + 0.9 * place.side).astype(int)
    return image[:, top:bottom, left:right], Place(place.points - [left, top], place.side)


def _write_page(
    model: Audited, manifest: Manifest, metrics: dict[str, Any], detector: Detector | None, rows: np.ndarray
) -> None:
    from mien.report.robustness import robustness_page

    subjects = Subjects(manifest, model.estimator.crop, model.estimator.input_size, detector)
    about = metrics["about"]
    clean, sheet = examples(subjects, rows[len(rows) // 2 :], about["corruptions"], about["severities"])
    robustness_page(metrics, clean, sheet).save(model.folder / PAGE)
