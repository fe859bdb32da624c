"""Is a representation one that separates age from the person? From a beta-VAE and a manifest to figures and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mien.data.align import require_view
from mien.data.manifest import Manifest
from mien.data.splits import teachers
from mien.errors import MienError
from mien.evaluation.evaluate import caution
from mien.evaluation.latents.coders import Coder, coders, rebuilt_figures
from mien.evaluation.latents.codes import Coded, at_most, code_faces, factors
from mien.evaluation.latents.disentanglement import age_probes, separation
from mien.evaluation.latents.shifts import judge_shifts, shifted_rows
from mien.evaluation.latents.smoothness import judge_smoothness
from mien.files import write_json
from mien.metrics.bootstrap import Bootstrap, Estimate
from mien.metrics.coding import active, collapse
from mien.metrics.weighted import mean
from mien.models.autoencoder import Autoencoder
from mien.models.beta_vae import BetaVae
from mien.models.identity import load_identity
from mien.models.met import share_met
from mien.models.perceptual import Perceptual
from mien.progress import Progress

if TYPE_CHECKING:
    from mien.models.estimator import Estimator

#: Files of the evaluation, in its folder.
METRICS, PAGE = "latents.json", "latents.html"
#: Faces on the figures, ages of the strips, steps of an interpolation, latents and places of a traversal.
SHOWN, STRIP, STEPS, LATENTS = 6, (5, 20, 35, 50, 65, 80), 8, 8
PLACES = (-2.0, -1.0, 0.0, 1.0, 2.0)
#: Added to the name of a code that is looked at without the part that was taught the age, or told it.
ALONE = ", z_id alone"


def evaluate_latents(
    vae: BetaVae,
    manifest: Manifest,
    split: str,
    folder: Path,
    *,
    judge: Estimator | None = None,
    identity: str | Path | None = None,
    rivals: Mapping[str, BetaVae | Autoencoder] | None = None,
    pairs: Manifest | None = None,
    between: Sequence[tuple[int, int]] = (),
    limit: int = 2000,
    seeds: int = 3,
    resamples: int = 1000,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Judge `vae` on a split; write `latents.json`, `latents.html` and its pictures to `folder`; returns the figures.

    Rivals and shift vectors are learnt from the split `train`; where there is none, or it is the one judged, one half
    of the persons teaches and the other is judged.

    Args:
        judge: an estimator of ages, best of another architecture and other training faces; without it, no shift is
            judged.
        identity: weights of MobileFaceNet; without them no cosine and no perceptual distance is told.
        rivals: other trained networks by the name that they have in the tables, on the same faces.
        pairs: faces of named persons at several ages, whose cosine a shift's is held against, and which teach the
            vector by pairs where the teaching faces name nobody; without, `manifest`'s.
        between: rows of the judged split between which to interpolate; two pairs by default.
        limit: faces that teach, and that are judged, at most.
        seeds: repetitions behind the spread of MIG, DCI and SAP.

    Raises:
        MienError: faces in another crop, too few of them, rows that are not there, scikit-learn not installed.
    """
    require_view(manifest.crop, vae.crop, str(manifest.path or "the manifest"))
    if judge is not None:
        judge.task("age")
        require_view(manifest.crop, judge.crop, f"for the judge {judge.name}: {manifest.path or 'the manifest'}")
    if pairs is not None:
        require_view(pairs.crop, vae.crop, f"for the pairs: {pairs.path or 'their manifest'}")
    learning, judging = _parts(manifest, split, limit)
    learnt, judged = (code_faces(vae, part, device) for part in (learning, judging))
    if judge is not None:
        shifted_rows(judged.ages)  # said before the long work
    for row in {row for pair in between for row in pair}:
        if not 0 <= row < len(judged):
            raise MienError(f"row {row} to interpolate from: the judged faces are rows 0 to {len(judged) - 1}")
    boot = Bootstrap(judged.manifest.groups(), resamples)
    ways = coders(vae, learnt, judged, device, rivals=rivals)
    perceptual = None if identity is None else Perceptual("mobilefacenet", identity).to(device)
    embed = None if identity is None else load_identity(identity).to(device)
    metrics: dict[str, Any] = {
        "about": {
            "model": vae.name,
            "settings": vae.settings.model_dump(mode="json"),
            "parameters": sum(parameter.numel() for parameter in vae.parameters()),
            "manifest": manifest.hash,
            "split": split,
            "faces": len(judged),
            "groups": len(np.unique(judged.manifest.groups())),
            "learnt_from": len(learnt),
            "seeds": seeds,
            "resamples": resamples,
            "identity": None if identity is None else Path(identity).name,
            "coders": {way.name: way.about for way in ways},
            "coders_parameters": {way.name: way.parameters for way in ways},
        },
        "reconstruction": {},
        "rates": {way.name: _mean(boot, way.rate) for way in ways if way.rate is not None},
        "rate": boot.estimates({name: partial(mean, values) for name, values in judged.rates.items()}),
    }
    rebuilt = {way.name: rebuilt_figures(way, judged) for way in ways}
    if perceptual is not None:
        for way in ways:
            rebuilt[way.name]["perceptual"] = _perceptual(way, judged, perceptual, device)
    for name, values in rebuilt.items():
        metrics["reconstruction"][name] = boot.estimates({key: partial(mean, one) for key, one in values.items()})
    in_use = int(active(judged.identity).sum())
    explained = _explained(judged, rebuilt["beta-VAE"]["mse"])
    metrics["code"] = {"active": in_use, "latents": judged.identity.shape[1], "explained": explained}
    some = share_met(vae.learnt, judged.manifest.strings("sha256"))
    metrics["caution"] = some and f"it learnt from {some} of these faces: its figures on others are worse"
    # Of pictures that do not vary, such as one face, there is no telling.
    told = explained == explained
    rate = float(judged.rates["z_id"].mean())
    metrics["collapse"] = collapse(in_use, judged.identity.shape[1], rate, explained) if told else ""
    metrics |= _knowledge(ways, judged, boot, seeds)
    metrics["smoothness"] = judge_smoothness(vae, judged, boot, perceptual, judge, device)
    metrics["shifts"] = None
    if judge is not None:
        real = None if pairs is None else code_faces(vae, pairs, device)
        metrics["shifts"] = judge_shifts(vae, learnt, judged, judge, boot, embed, device, real)
        wrong = caution(judge, manifest, split)
        if wrong is not None:
            metrics["shifts"]["judge"]["caution"] = wrong
    write_json(folder / METRICS, metrics)
    _write_page(vae, judged, ways, metrics, between or _two_pairs(len(judged)), folder, device)
    return metrics


def _parts(manifest: Manifest, split: str, limit: int) -> tuple[Manifest, Manifest]:
    """The faces that teach and those that are judged, no person in both."""
    judged = manifest.split(split)
    if split not in ("all", "train") and len(learnt := teachers(manifest, split)):
        return at_most(learnt, limit), at_most(judged, limit)
    names, members = np.unique(judged.groups(), return_inverse=True)
    if len(names) < 2:
        raise MienError(f"{manifest.path or 'the manifest'}: {len(names)} group of faces; expected two or more")
    half = np.random.default_rng(0).permutation(len(names))[members] % 2 == 0
    return at_most(judged.where(half), limit), at_most(judged.where(~half), limit)


def _knowledge(ways: Sequence[Coder], judged: Coded, boot: Bootstrap, seeds: int) -> dict[str, Any]:
    """MIG, DCI, SAP and probes of age, of every code; and how well each z_age tells it."""
    known, groups, ages = factors(judged.manifest), judged.manifest.groups(), judged.ages
    apart: dict[str, Any] = {}
    probes: dict[str, Any] = {}
    told: dict[str, Any] = {}
    rows = np.flatnonzero(~np.isnan(ages))
    looked: dict[str, np.ndarray] = {}
    for way in ways:
        if way.codes is None:
            continue
        looked[way.name] = way.codes
        if way.age_dims:
            looked[way.name + ALONE] = way.codes[:, way.age_dims :]
        if way.said is not None and len(rows):
            told[way.name] = _mean(boot, np.abs(way.said - ages)[rows], rows)
    with Progress(2 * len(looked), "looks", "what codes tell of age and other factors") as progress:
        for name, codes in looked.items():
            apart[name] = separation(codes, known, groups, range(seeds))
            progress.advance(note=name)
            probes[name] = age_probes(codes, ages, groups, boot)
            progress.advance()
    result: dict[str, Any] = {"factors": {name: len(values) for name, values in known.items()}}
    own = ways[0].name
    return result | {
        "separation": apart,
        "probes": probes,
        "ages": told,
        "age": {"mae": told[own]} if own in told else {},
    }


def _mean(boot: Bootstrap, values: np.ndarray, rows: np.ndarray | None = None) -> Estimate:
    return boot.estimates({"mean": partial(mean, values)}, rows)["mean"]


def _explained(judged: Coded, errors: np.ndarray) -> float:
    """The share of the pictures' variance about their mean that reconstructions explain."""
    variance = float((judged.pictures.astype(np.float32) / 255).var(axis=0).mean())
    return 1 - float(errors.mean()) / variance if variance > 0 else float("nan")


@torch.inference_mode()
def _perceptual(way: Coder, judged: Coded, perceptual: Perceptual, device: str | torch.device) -> np.ndarray:
    parts = []
    for rows in np.array_split(np.arange(len(judged)), max(1, -(-len(judged) // 64))):
        made = torch.from_numpy(way.rebuild(rows)).to(device)
        parts.append(perceptual(made, judged.images(rows, device)).cpu().numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def _write_page(
    vae: BetaVae,
    judged: Coded,
    ways: Sequence[Coder],
    metrics: dict[str, Any],
    between: Sequence[tuple[int, int]],
    folder: Path,
    device: str | torch.device,
) -> None:
    """The page and its figures, each a file too."""
    from mien.report.figures import save
    from mien.report.figures.latents import face_rows
    from mien.report.latents import latents_page

    rows = np.unique(np.linspace(0, len(judged) - 1, min(SHOWN, len(judged))).astype(int))
    given = judged.images(rows, device)
    rebuilt = [way.rebuild(rows) for way in ways]
    ages = torch.tensor([STRIP], dtype=torch.float32, device=device).expand(len(rows), -1)
    strips = vae.render(given, ages, None, judged.told(rows, device)).float().cpu().numpy()
    pictures = judged.pictures[rows].astype(np.float32) / 255
    truth = [f"{age:.0f}" if age == age else "" for age in judged.ages[rows]]
    order, moved = _traversal(vae, judged, rows[:1], device)
    figures = {
        "reconstructions": face_rows(
            [[face, *(made[place] for made in rebuilt)] for place, face in enumerate(pictures)],
            ["given", *(way.name for way in ways)],
        ),
        "ages": face_rows(
            [[face, *strips[place]] for place, face in enumerate(pictures)],
            ["given", *(f"{age}" for age in STRIP)],
            truth,
        ),
        "traversals": face_rows(moved, [f"{place:+g} s" for place in PLACES], [f"z_id {one}" for one in order]),
        "interpolations": face_rows(
            [_between(vae, judged, pair, device) for pair in between],
            [f"{place / (STEPS - 1):.2f}" for place in range(STEPS)],
            [f"{a} to {b}" for a, b in between],
        ),
    }
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
    latents_page(metrics, figures).save(folder / PAGE)


def _traversal(
    vae: BetaVae, judged: Coded, row: np.ndarray, device: str | torch.device
) -> tuple[list[int], list[list[np.ndarray]]]:
    """One face with each of its most used latents of the person at -2 to 2 standard deviations of the faces'."""
    spread, centre = judged.identity.std(axis=0), judged.identity.mean(axis=0)
    order = np.argsort(-spread, kind="stable")[:LATENTS].tolist()
    told = judged.told(np.repeat(row, len(PLACES)), device)
    moved = []
    for latent in order:
        codes = np.repeat(judged.codes[row], len(PLACES), axis=0)
        codes[:, judged.age_dims + latent] = centre[latent] + np.array(PLACES) * spread[latent]
        moved.append(list(vae.decode(torch.from_numpy(codes).to(device), told).float().cpu().numpy()))
    return order, moved


def _two_pairs(count: int) -> list[tuple[int, int]]:
    """Rows of `count` faces between which to interpolate, as far as there are so many."""
    return [(0, count // 2), (min(1, count - 1), count - 1)]


def _between(vae: BetaVae, judged: Coded, pair: tuple[int, int], device: str | torch.device) -> list[np.ndarray]:
    """Pictures on the straight way from one face's code to another's."""
    places = np.linspace(0, 1, STEPS, dtype=np.float32)[:, None]
    a, b = (judged.codes[row] for row in pair)
    told = judged.told(np.repeat(pair[0], STEPS), device)
    codes = torch.from_numpy(((1 - places) * a + places * b).astype(np.float32)).to(device)
    return list(vae.decode(codes, told).float().cpu().numpy())
