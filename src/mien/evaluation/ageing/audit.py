"""An ageing audit: renderers on the same faces, judged by networks that guided none of them; from faces to a page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.data.align import require_view
from mien.data.manifest import Manifest
from mien.data.splits import teachers
from mien.errors import MienError
from mien.evaluation.ageing.figures import compared, estimates, judge_renders, per_face, values_of
from mien.evaluation.ageing.judges import Judges
from mien.evaluation.ageing.passes import Arrays, kept, run_pass
from mien.evaluation.ageing.realism import realism
from mien.evaluation.ageing.sample import Faces, Truth, balanced, look_at, mean_faces, middle_age
from mien.evaluation.ageing.shown import Live, Shown, describe
from mien.evaluation.ageing.verification import Verification, fit_thresholds, pairs_of
from mien.evaluation.groups import FEWEST
from mien.files import write_json
from mien.metrics import age as age_metrics
from mien.metrics import ageing
from mien.metrics.bootstrap import Bootstrap
from mien.models.met import share_met
from mien.models.renderer import check_ages
from mien.models.trivial import Copy, MeanFace, PixelShift

#: Files of an audit, in its folder.
METRICS, PAGE = "ageing.json", "report.html"
#: Faces whose strips are shown; real faces of each age that renders are held against, at most.
STRIPS, REAL = 20, 200
#: Side in pixels at which mean faces are made, at most: they are blurred anyway.
BLURRED = 128


def audit_ageing(
    shown: Sequence[Shown],
    judges: Judges,
    manifest: Manifest,
    split: str,
    folder: Path,
    ages: Sequence[float],
    *,
    also: Sequence[float] = (),
    pairs: Manifest | None = None,
    count: int = 300,
    seed: int = 0,
    side: int = 112,
    far: float = 1e-3,
    resamples: int = 1000,
    remarks: Sequence[str] = (),
    device: str = "cpu",
    show: bool = True,
) -> dict[str, Any]:
    """Judge `shown`, and trivial renderers beside them, on faces of a split.

    Returns the figures, and writes them, a page and the answers of every pass to `folder`.

    What an earlier audit of the same faces, ages and judges left in the folder is not computed again.

    Args:
        ages: years asked for; `also` are told too, but do not count in the summaries.
        pairs: faces of named persons, for the thresholds of verification; `manifest` itself where it names any.
        count: faces, even over ages, genders and races, drawn by `seed`.
        side: pixels at which every renderer is given the faces.
        far: share of pairs of different persons that pass for one.
        remarks: what a reader must know of the judges.

    Raises:
        MienError: no face of known age, another crop, ages that nobody has.
    """
    asked = np.array(sorted({float(age) for age in (*ages, *also)}))
    counted = np.isin(asked, np.array(list(ages), dtype=np.float64))
    if not counted.any() or len(asked) < 2:
        raise MienError("an ageing audit takes two ages or more, of which one counts; --ages 5:75:10")
    check_ages(torch.from_numpy(asked)[None], 1)
    limits = ageing.bands(asked, counted)
    part = manifest.split(split)
    judges.age.check(part)
    if judges.identity is not None:
        judges.identity.check(part)
    if pairs is not None:
        require_view(pairs.crop, part.crop, f"for the thresholds of identity: {pairs.path or 'the manifest of pairs'}")
    available = np.ones(len(part), dtype=bool)
    for one in shown:
        one.check(part)
        available &= one.available(part, asked)
    part = part.where(available)
    chosen, groups = balanced(part, count, seed), part.groups()
    sample, others = part.take(chosen), part.where(~np.isin(groups, groups[chosen]))
    about: dict[str, Any] = {"judges": judges.facts(), "side": side}
    seen = kept(folder / "given.npz", about | {"faces": sample.hash}, lambda: look_at(sample, side, judges, device))
    rows, rejected = seen.pop("row"), {str(row): str(why) for row, why in seen.pop("rejected")}
    faces = Faces(sample.take(rows), side, seen, rejected)
    strips = balanced(faces.manifest, STRIPS, seed)
    facts = about | {"faces": faces.manifest.hash, "ages": asked.tolist(), "strips": strips.tolist()}
    boot = Bootstrap(faces.manifest.groups(), resamples, seed)

    notes = [*remarks, *_met(faces.manifest, shown)]
    truth, teaching = _truth(faces, notes), _teaching(manifest, split, others)
    trivial, taught_by = _trivial(faces, teaching, asked, limits, folder, device, notes)
    everyone = named([*shown, *trivial])
    passes = {}
    for name, one in everyone.items():
        told = facts | {"renderer": one.hash, "truth": truth is not None}
        run = _pass(one, faces, asked, judges, strips, truth, device, show)
        passes[name] = kept(folder / _slug(name) / "answers.npz", told, run)

    verification, why = _verification(
        manifest if pairs is None else pairs, judges, side, far, resamples, folder, device
    )
    if why:
        notes.append(why)
    real = _real_faces(others, limits, seed)
    known: Arrays = {}
    if len(real):
        known = kept(folder / "real.npz", about | {"faces": real.hash}, lambda: look_at(real, side, judges, device))
        real = real.take(known["row"])
    each = {
        name: per_face(values_of(one, faces, asked, counted, verification), one, faces, asked, counted)
        for name, one in passes.items()
    }
    first = next(iter(everyone))
    result: dict[str, Any] = {
        "about": {
            "manifest": manifest.hash,
            "split": split,
            "faces": len(faces),
            "groups": len(np.unique(faces.manifest.groups())),
            "ages": asked.tolist(),
            "counted": asked[counted].tolist(),
            "bands": limits.tolist(),
            "seed": seed,
            "resamples": resamples,
            "rejected": faces.rejected,
            "taught_by": taught_by,
            "notes": notes,
            **about,
        },
        "judge": _judge(faces, boot),
        "real": _judged_real(real, known, asked, limits, resamples, seed),
        "verification": None if verification is None else verification.about,
        "renderers": {},
    }
    for name, one in everyone.items():
        found = judge_renders(passes[name], faces, asked, counted, verification, boot)
        found["realism"] = _realism(passes[name], known, real, asked, limits, boot, seed)
        cost = {key: float(passes[name][key]) for key in ("ms", "mib")}
        versus = compared(each[first], each[name], boot) if name != first else None
        result["renderers"][name] = describe(one) | {"cost": cost} | found | {"first_less_this": versus}
    write_json(folder / METRICS, result)
    write_page(result, faces, passes, strips, folder / PAGE)
    return result


def named(shown: Sequence[Shown]) -> dict[str, Shown]:
    """Each by its name; a second one of a name is numbered."""
    found: dict[str, Shown] = {}
    for one in shown:
        name, number = one.name or one.kind, 2
        while name in found:
            name, number = f"{one.name or one.kind} ({number})", number + 1
        found[name] = one
    return found


def write_page(
    metrics: Mapping[str, Any], faces: Faces, passes: Mapping[str, Arrays], strips: np.ndarray, path: Path
) -> None:
    """The page of an audit, with the strips of some faces."""
    from mien.report.ageing import Strip, ageing_page

    asked = metrics["about"]["ages"]
    given: dict[int, np.ndarray] = {}
    for batch in faces.loader().epoch():
        pictures = dict(zip(batch.index.tolist(), batch.images.numpy(), strict=True))
        given |= {row: pictures[row] for row in strips.tolist() if row in pictures}
    genders, races = faces.manifest.strings("gender"), faces.manifest.strings("race")
    shown: dict[str, list[Strip]] = {}
    for name, answers in passes.items():
        cosines = answers.get("cosine", np.full(answers["age"].shape, np.nan))
        shown[name] = [
            Strip(
                given[row],
                answers["strips"][place],
                float(faces.ages[row]),
                " ".join(str(word) for word in (genders[row], races[row]) if word is not None),
                answers["age"][row],
                cosines[row],
            )
            for place, row in enumerate(strips.tolist())
        ]
    ageing_page(metrics, shown, asked).save(path)


def _met(manifest: Manifest, shown: Sequence[Shown]) -> list[str]:
    """Which renderers learnt from the faces that are judged, and keep what is theirs better than of others."""
    learnt = {one.name: getattr(one.renderer, "learnt", None) for one in shown if isinstance(one, Live)}
    told = {name: share_met(met, manifest.strings("sha256")) for name, met in learnt.items()}
    return [
        f"{name} learnt from {some} of these faces: its figures on others are worse"
        for name, some in told.items()
        if some
    ]


def _pass(one: Shown, *arguments: Any) -> Callable[[], Arrays]:
    return lambda: run_pass(one, *arguments)


def _truth(faces: Faces, notes: list[str]) -> Truth | None:
    try:
        return Truth(faces)
    except MienError as error:
        if set(faces.manifest.strings("source")) == {"drawn"}:
            notes.append(f"no error against the truth: {error}")
        return None


def _teaching(manifest: Manifest, split: str, others: Manifest) -> Manifest | None:
    """The faces of which mean faces are made: the split train, or the `others` of the split, which are not judged."""
    if split not in ("train", "all") and len(train := teachers(manifest, split)):
        return train
    return others if len(others) else None


def _trivial(
    faces: Faces,
    teaching: Manifest | None,
    asked: np.ndarray,
    limits: np.ndarray,
    folder: Path,
    device: str,
    notes: list[str],
) -> tuple[list[Shown], int | None]:
    """Copy, mean face and pixel shift, and of how many faces the mean ones are. They are told the faces' ages: a rival
    that knows more is the harder one."""
    crop, side = faces.manifest.crop, faces.side
    found: list[Shown] = [Live(Copy(crop, side), "trivial", True, device)]
    try:
        if teaching is None:
            raise MienError("no mean face: all faces of the split are judged, and there is no split train")
        least = min(side, BLURRED)
        facts = {"faces": teaching.hash, "bands": limits.tolist(), "side": least}
        made = kept(folder / "means.npz", facts, lambda: mean_faces(teaching, limits, least))
    except MienError as error:
        notes.append(str(error))
        return found, None
    count = int(made["counts"].sum())
    means, years = torch.from_numpy(made["means"]), torch.from_numpy(asked[made["bands"]]).float()
    found.append(Live(MeanFace(crop, means, years), "trivial", True, device))
    if lacking := sorted(set(asked.tolist()) - set(years.tolist())):
        ages = ", ".join(f"{age:g}" for age in lacking)
        notes.append(f"too few faces for a mean one of {ages} years: the nearest age's stands in")
    if len(years) < 2:
        notes.append("no shift by pixel means: it takes mean faces of two ages")
        return found, count
    return [*found, Live(PixelShift(crop, means, years), "trivial", True, device)], count


def _verification(
    manifest: Manifest, judges: Judges, side: int, far: float, resamples: int, folder: Path, device: str
) -> tuple[Verification | None, str]:
    """Thresholds from the pairs of a manifest, or why there are none."""
    if judges.identity is None:
        return None, "nobody judges identity; name a network with --identity"
    try:
        faces = pairs_of(manifest)
    except MienError as error:
        return None, f"no verification: {error}"
    facts = {"identity": judges.facts()["identity"], "side": side, "faces": faces.hash}
    found = kept(folder / "pairs.npz", facts, lambda: look_at(faces, side, judges, device))
    fitted = fit_thresholds(found["embedding"], faces.take(found["row"]), far, resamples)
    return fitted, ""


def _real_faces(others: Manifest, limits: np.ndarray, seed: int) -> Manifest:
    """Of the faces that are not judged at most `REAL` of each age asked for."""
    ages, rng = middle_age(others), np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero((ages >= low) & (ages < high)))[:REAL] for low, high in limits]
    return others.take(np.unique(np.concatenate(rows)))


def _judge(faces: Faces, boot: Bootstrap) -> dict[str, Any]:
    """The judge's own error on the given faces, and a constant answer's."""
    exact = np.flatnonzero(faces.exact)
    if not len(exact):
        return {"n": 0}
    error = faces.seen["age"] - faces.ages
    years = age_metrics.constant(faces.ages[exact])
    values = {"mae": np.abs(error), "bias": error, "constant_mae": np.abs(faces.ages - years)}
    everybody = {
        by: {
            group: {"n": len(rows), **({"suppressed": True} if len(rows) < FEWEST else estimates(values, boot, rows))}
            for group, rows in partition.groups(faces.exact)
        }
        for by, partition in faces.partitions.items()
    }
    return {"n": len(exact), **estimates(values, boot, exact), "constant": years, "groups": everybody}


def _judged_real(
    real: Manifest, seen: Arrays, asked: np.ndarray, limits: np.ndarray, resamples: int, seed: int
) -> dict[str, Any]:
    """What the judge says of real faces of each age: the most that renders can reach."""
    if not len(real):
        return {}
    ages, judged = middle_age(real), seen["age"]
    boot = Bootstrap(real.groups(), resamples, seed)
    found: dict[str, Any] = {}
    for place, (low, high) in enumerate(limits):
        rows = np.flatnonzero((ages >= low) & (ages < high))
        values = {
            "judged": judged,
            "mae": np.abs(judged - ages),
            "bias": judged - ages,
            "in_band": ageing.in_band(judged[:, None], limits[place : place + 1])[:, 0],
        }
        found[f"{asked[place]:g}"] = {"n": len(rows), **(estimates(values, boot, rows) if len(rows) else {})}
    return found


def _realism(
    answers: Arrays, seen: Arrays, real: Manifest, asked: np.ndarray, limits: np.ndarray, boot: Bootstrap, seed: int
) -> dict[str, Any] | None:
    if "embedding" not in answers or not len(real):
        return None
    ages, groups = middle_age(real), real.groups()
    # Embeddings have length 1; kernel and distance expect features of mean square 1.
    scale = np.sqrt(answers["embedding"].shape[-1])
    found = {}
    for place, (low, high) in enumerate(limits):
        mine = (ages >= low) & (ages < high)
        others, made = scale * seen["embedding"][mine], scale * answers["embedding"][:, place]
        found[f"{asked[place]:g}"] = realism(others, made, boot, seed, groups[mine])
    return found


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "renderer"
