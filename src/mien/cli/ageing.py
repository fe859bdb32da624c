"""`mien audit --ageing`: whether a renderer's faces look the age that was asked for, and are still the same person."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.data.manifest import Manifest
    from mien.evaluation.ageing.judges import Judges
    from mien.models.estimator import Estimator

#: Faces judged unless told otherwise.
SAMPLE = 300
#: Figures on the terminal; the page has all.
SHORT = ("mae", "in_band", "spearman", "rising", "cosine", "verified", "joint", "outside", "truth")


def audit_renderers(
    manifest: Manifest,
    models: Sequence[str],
    split: str,
    out: Path,
    *,
    aim: str | None,
    judge: str | None,
    identity: str | None,
    pairs: Path | None,
    far: float,
    landmarker: str,
    ages: str,
    also: str,
    told: bool,
    allow_relabelled: bool,
    limit: int | None,
    seed: int,
    bootstraps: int,
    device: str,
    show: bool,
) -> dict[str, Any]:
    """Load everything by name, audit, and give the figures; see `evaluation.ageing.audit`. `aim` is the first's."""
    from mien.data.manifest import Manifest
    from mien.evaluation.ageing.audit import audit_ageing
    from mien.evaluation.ageing.judges import EstimatorJudge, IdentityJudge, Judges, PointsJudge, load_judge
    from mien.evaluation.ageing.shown import Live, open_shown
    from mien.evaluation.locate import build_locator
    from mien.jobs.predict import usable
    from mien.jobs.render import ages_from
    from mien.models.aimed import Aimed

    where = usable(device)
    asked, more = ages_from(ages), ages_from(also) if also else []
    shown = [open_shown(model, told, where, aim if place == 0 else None) for place, model in enumerate(models)]
    locator = build_locator(landmarker, where)
    judges = Judges(
        load_judge(judge, where),
        None if identity is None else IdentityJudge(identity, where),
        None if locator is None else PointsJudge(locator.landmarker, manifest.crop.margin),
    )
    if not allow_relabelled:
        for model in models:
            guard_judge(model, judges)
    renderers: list[object] = [one.renderer for one in shown if isinstance(one, Live)]
    aimed = [one for one in renderers if isinstance(one, Aimed)]
    sides = [one.renderer.input_size for one in shown if isinstance(one, Live)]
    if isinstance(judges.age, EstimatorJudge):
        sides.append(judges.age.estimator.input_size)
    if judges.identity is not None:
        sides.append(judges.identity.net.input_size)
    return audit_ageing(
        shown,
        judges,
        manifest,
        split,
        out,
        asked,
        also=more,
        pairs=None if pairs is None else Manifest.open(pairs),
        count=limit or SAMPLE,
        seed=seed,
        side=max([112, *sides]),
        far=far,
        resamples=bootstraps,
        remarks=[
            *(line for one in aimed for line in _taught(models[0], "aimed", one.estimator, judges)),
            *(line for model in models for line in remarks(model, judges)),
            *met(judges, manifest, split),
        ],
        device=where,
        show=show,
    )


def guard_judge(model: str, judges: Judges) -> None:
    """Refuse a judge of age that relabelled the faces which the run `model` learnt from, where that can be known."""
    from mien.errors import MienError
    from mien.evaluation.relabelled import guard
    from mien.training.recipe import load_recipe
    from mien.training.record import CONFIG, open_faces

    if not (Path(model) / CONFIG).is_file():
        return
    try:
        learnt = open_faces(load_recipe(Path(model) / CONFIG))
    except MienError:  # its faces have moved, or are gone
        return
    guard(f"the judge {judges.age.name}", judges.age.hashes, learnt)


def remarks(model: str, judges: Judges) -> list[str]:
    """What a reader must know of who taught `model`: no network may judge what it guided."""
    from mien.errors import MienError
    from mien.evaluation.ageing.judges import IdentityJudge
    from mien.evaluation.ageing.shown import is_renders
    from mien.models.checkpoint import load_estimator
    from mien.training.recipe import load_recipe
    from mien.training.record import CONFIG

    recipe = Path(model) / CONFIG
    if is_renders(model) or not recipe.is_file():
        return [f"{model} does not tell what guided it: see that neither judge did"]
    known = load_recipe(recipe)
    # What it started from was taught by somebody, too.
    found = remarks(known.model.init, judges) if known.model.init else []
    # The beta-VAE's `age` is what its own head reads in its code.
    asking = {"age_transformer_objective": ("age", "ordering", "traits"), "beta_vae_objective": ("guide", "traits")}
    for section, terms in asking.items():
        taught = getattr(known, section).model_dump()
        asked_age = any(taught.get(term) for term in terms)
        guides = (taught.get("guide_model") or []) if asked_age else []
        for guide in [guides] if isinstance(guides, str) else guides:
            try:
                other = load_estimator(guide)
            except MienError:
                found.append(f"{model} was guided by {guide}, which is not there: see that it is not the judge")
                continue
            found += _taught(model, "guided", other, judges)
        person = taught.get("identity_model") if taught.get("identity") else None
        with suppress(MienError):  # a guide that is gone cannot be compared
            if person and judges.identity is not None and IdentityJudge(person).hash == judges.identity.hash:
                found.append(f"{model} was guided by its judge of identity {judges.identity.name}; name another")
        if taught.get("perceptual") and taught.get("perceptual_backbone") == "mobilefacenet" and judges.identity:
            found.append(f"{model} learnt by a perceptual term of MobileFaceNet: its identity is judged too well")
    return found


def met(judges: Judges, manifest: Manifest, split: str) -> list[str]:
    """What is to be said where the judge of age learnt from the faces whose renders it judges, or was chosen by them:
    then its own error on real faces, beside which all others are read, is too small."""
    from mien.evaluation.ageing.judges import EstimatorJudge, MixtureJudge
    from mien.evaluation.evaluate import caution
    from mien.experts.ours import Ours

    asked: list[Estimator] = []
    if isinstance(judges.age, EstimatorJudge):
        asked = [judges.age.estimator]
    elif isinstance(judges.age, MixtureJudge):
        asked = [expert.estimator for expert in judges.age.experts if isinstance(expert, Ours)]
    found = [(one.name, caution(one, manifest, split)) for one in asked]
    return [f"the judge {name}: {wrong}; judge others, or name another" for name, wrong in found if wrong is not None]


def _taught(model: str, how: str, other: Estimator, judges: Judges) -> list[str]:
    """What is to be said of the judges of age and identity where `other` guided or aimed `model`."""
    from mien.evaluation.ageing.judges import EstimatorJudge
    from mien.models.estimator import fingerprint, weights_hash

    found = []
    if judges.identity is not None and fingerprint(other.backbone, {}) == judges.identity.hash:
        found = [f"{model} was {how} by its judge of identity {judges.identity.name}; name another"]
    if weights_hash(other) in judges.age.hashes:
        return [f"{model} was {how} by its judge {judges.age.name}: its ages prove nothing; name another", *found]
    if isinstance(judges.age, EstimatorJudge) and (
        set(other.backbone_names) & set(judges.age.estimator.backbone_names)
    ):
        return [f"{model} was {how} by a network of the judge's architecture, with other weights", *found]
    return found


def print_ageing(metrics: dict[str, Any]) -> None:
    """The judge's own error, then all renderers side by side."""
    from mien.cli.console import table
    from mien.report.ageing import COLUMNS, written
    from mien.report.numbers import number, years

    about, own = metrics["about"], metrics["judge"]
    if own["n"]:
        print(
            f"the judge {about['judges']['age']['name']} errs by {years(own['mae'])} years on the {own['n']:,} given "
            f"faces (always {own['constant']:.0f}: {years(own['constant_mae'])})"
        )
    real = [metrics["real"].get(f"{age:g}", {}) for age in about["counted"]]
    off, inside = ([one[key]["value"] for one in real if key in one] for key in ("mae", "in_band"))
    if off:
        years_off, share = sum(off) / len(off), 100 * sum(inside) / len(inside)
        print(
            f"other real faces of these ages look {years_off:.2f} years off to it, {share:.1f} % in band: hardly more "
            "can be expected of renders"
        )
    asked = ", ".join(f"{age:g}" for age in about["counted"])
    summaries = {name: found["summary"] for name, found in metrics["renderers"].items()}
    there = [key for key in SHORT if any(number(found.get(key)).known for found in summaries.values())]
    table(
        ("figure", *summaries),
        [[COLUMNS[key][0], *(written(found, key) for found in summaries.values())] for key in there],
        title=f"{about['faces']:,} faces of {about['split']} at {asked} years",
    )
    for note in about["notes"]:
        print(f"note: {note}")
