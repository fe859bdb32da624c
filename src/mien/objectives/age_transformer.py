"""Training the AgeTransformer on single photos: nobody is seen at two ages, other networks say what a face would be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import MienError
from mien.faces import GENDERS, FaceBatch
from mien.models.age_transformer import AgeTransformer, Rendered
from mien.models.checkpoint import save_renderer
from mien.models.discriminator import Discriminator
from mien.models.language import HashedLanguage, Language, age_texts
from mien.models.perceptual import Perceptual
from mien.models.renderer import as_float, resized
from mien.objectives.adversarial import AdaptiveAugment, gradient_penalty, taken_for_made, taken_for_real
from mien.objectives.ageing import GENDER, SPREAD, TEXT, Ageing, as_guided, collapse, label_spread
from mien.objectives.ageing_settings import AgeTransformerObjectiveSettings
from mien.objectives.base import Objective, Reduce, Terms, averaged, say
from mien.objectives.coding import AGE
from mien.objectives.guides import (
    changed_traits,
    guides_of,
    jittered,
    same_person,
    without_colour,
)
from mien.objectives.latent import ramp
from mien.tasks.age import smooth_decades

if TYPE_CHECKING:
    from mien.data.loading import FaceLoader

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
#: Faces of the strips in TensorBoard.
SHOWN = 6
#: Years beyond the outermost anchors that are still trained.
BEYOND = 5.0
#: An age this far from a face's own is wrong for it.
WRONG = 15.0
#: A guide that is this unsure of an age, in years, counts half.
UNSURE = 5.0


class CollapseError(MienError):
    """Renders that depend on nothing stopped the training."""


#: Figures of `validate` of which more is better.
RISING = ("cosine", "pairs", "faces", "slope", "share")


class AgeTransformerObjective(Objective):
    """Two players, the generator and, where `adversarial` is not 0, the discriminator.

    Each face is shown at its own age and at others, from one encoding; one of the others, at random, meets the
    discriminator, the identity guide and the way back. Terms are means over pixels and renders, sums over faces:

    - generator: `adversarial`, `age_class`, `own`, `cycle`, `identity` (times `same_person`), `age` (the guide's smooth
      L1 / 10 years / (1 + its deviation / 5 years)), `ordering` (short of rising by half the years between two
      neighbours, two at most), `traits` (`changed_traits`), `perceptual` (times (1 - years / 100)^2), `mask`, `smooth`,
      `source`, `direction`.
    - discriminator: `real`, `made`, `mismatch`, `age_class`, and at every so many steps `r1`: its mean over an epoch is
      one over all steps. The minibatch's standard deviation couples the faces of one process.

    Faces whose label is more uncertain than the curriculum allows by then meet the discriminator without their age;
    others count 1 / (1 + (deviation / 5)^2) where a term learns from the label.
    """

    def __init__(
        self,
        network: AgeTransformer,
        select: FaceLoader,
        settings: AgeTransformerObjectiveSettings,
        ages: np.ndarray,
        steps: int,
        language: Language | None = None,
    ) -> None:
        """`ages` are the training faces' (N, 2) years, NaN unknown; `steps` the length of the training."""
        self.network, self.settings, self.select, self.steps = network, settings, select, steps
        self.players: dict[str, nn.Module] = {GENERATOR: network}
        self.discriminator: Discriminator | None = None
        if settings.adversarial:
            self.discriminator = Discriminator(network.input_size, settings.width, network.settings.anchors)
            self.players[DISCRIMINATOR] = self.discriminator
        self.chooses = (settings.choose, not settings.choose.endswith(RISING))
        middle = ages.mean(axis=1)
        middle = middle[~np.isnan(middle)]
        if len(middle):
            network.ages = (float(middle.min()), float(middle.max()))
        anchors = network.settings.anchors
        self.between = (max(network.ages[0], anchors[0] - BEYOND), min(network.ages[1], anchors[-1] + BEYOND))
        within = [age for age in anchors if network.ages[0] <= age <= network.ages[1]]
        if settings.guide_model and len(within) < 2:
            raise MienError(
                f"the training faces are {network.ages[0]:g} to {network.ages[1]:g} years old, and {len(within)} of "
                "age_transformer.anchors lies within, too few to judge an epoch by; give some among those ages: "
                f"age_transformer.anchors=[{network.ages[0]:.0f},{network.ages[1]:.0f}]"
            )
        self.guide, self.identity = guides_of(settings)
        if self.guide is not None:
            self.guide.require_traits(settings.traits, "age_transformer_objective")
        self.perceptual = (
            Perceptual(settings.perceptual_backbone, settings.perceptual_weights) if settings.perceptual else None
        )
        self.language = (language or HashedLanguage()) if settings.direction else None
        self.augment = AdaptiveAugment(settings.augment, settings.augment_faces)
        self.collapsed = 0
        self._made: list[tuple[FaceBatch, Tensor, Tensor]] = []
        self._shown: tuple[list[np.ndarray], np.ndarray | None] = ([], None)

    def weights(self, player: str) -> Mapping[str, float]:
        options = self.settings
        if player == DISCRIMINATOR:
            weights = {
                "real": options.adversarial,
                "made": options.adversarial,
                "mismatch": options.adversarial * options.mismatch,
                "age_class": options.age_class,
                "r1": options.r1 / 2 * options.r1_every,
            }
        else:
            names = ("adversarial", "own", "cycle", "identity", "age", "ordering", "traits", "perceptual", "mask")
            weights = {name: float(getattr(options, name)) for name in (*names, "smooth", "source", "direction")}
            weights["age_class"] = options.age_class if options.adversarial else 0.0
        return {term: weight for term, weight in weights.items() if weight}

    def counts(self, player: str, batch: FaceBatch) -> dict[str, int]:
        known = int((~batch.labels[AGE].isnan().any(dim=1)).sum())
        special = {"source": known, "cycle": self._part(batch), "mismatch": known}
        if player == DISCRIMINATOR:
            special["age_class"] = known
        counts = {term: special.get(term, len(batch)) for term in self.weights(player)}
        return {term: count for term, count in counts.items() if count}

    def losses(self, player: str, batch: FaceBatch, step: int) -> Terms:
        found = self._judging(batch, step) if player == DISCRIMINATOR else self._rendering(batch, step)
        counts = self.counts(player, batch)
        heavy = batch.weights
        terms: Terms = {}
        for term, per_face in found.items():
            if term in counts:
                per_face = per_face.float()
                total = per_face.sum() if heavy is None else (per_face * heavy[: len(per_face)]).sum()
                terms[term] = (total, total.new_tensor(float(counts[term])))
        return terms

    def _rendering(self, batch: FaceBatch, step: int) -> dict[str, Tensor]:
        """The generator's terms, (B,) or fewer faces each."""
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
        network, wanted = self.network.train(), self.weights(GENERATOR)
        pictures = resized(as_float(batch.images), network.input_size)
        interval, count = batch.labels[AGE], len(batch)
        age, spread = interval.mean(dim=1), label_spread(interval, batch.labels.get(SPREAD))
        told = age.masked_fill(torch.rand(count, device=age.device) < self.settings.withhold, torch.nan)
        seen = network.encode(pictures)
        own = torch.where(told.isnan(), seen.own_age.detach(), told).clamp(0, 120)
        asked = self._asked(own, step)
        codes = network.codes(seen, torch.cat([own[:, None], asked], dim=1), told, spread, self._text(batch))
        made = network.decode(seen, codes)
        faces = torch.arange(count, device=age.device)
        one = torch.randint(0, asked.shape[1], (count,), device=age.device)
        shown, years = made.pictures[faces, 1 + one], asked[faces, one]
        self._made = [(batch, shown.detach(), years), *self._made][:8]
        terms: dict[str, Tensor] = {}
        if self.discriminator is not None:
            verdicts, classes = self.discriminator(self.augment(shown), years)
            terms["adversarial"] = taken_for_real(verdicts)
            terms["age_class"] = F.cross_entropy(classes, self.discriminator.class_of(years), reduction="none")
        if "own" in wanted:
            terms["own"] = (made.pictures[:, 0] - pictures).abs().mean(dim=(1, 2, 3))
        if "cycle" in wanted:
            part = self._part(batch)
            back = network(shown[:part], own[:part, None], years[:part]).pictures[:, 0]
            terms["cycle"] = (back - pictures[:part]).abs().mean(dim=(1, 2, 3))
        if "source" in wanted:
            low, high = interval.nan_to_num().unbind(dim=1)
            outside = (low - seen.own_age).relu() + (seen.own_age - high).relu()
            terms["source"] = smooth_decades(outside) * self._trust(spread, step)
        terms |= self._regular(made, wanted)
        large, aged = as_guided(batch.images, made, self.settings.guided_at)
        return terms | self._guided(large, aged[:, 1:], asked, one, own, batch, wanted)

    def _guided(
        self,
        pictures: Tensor,
        aged: Tensor,
        asked: Tensor,
        one: Tensor,
        own: Tensor,
        batch: FaceBatch,
        wanted: Mapping[str, float],
    ) -> dict[str, Tensor]:
        """Terms of the networks that guide, (B,) each, of faces (B, 3, S, S) that became `aged` (B, A, 3, S, S) at the
        ages `asked` (B, A); `one` (B,) is the place of the age that identity is held at."""
        terms: dict[str, Tensor] = {}
        faces = torch.arange(len(asked), device=asked.device)
        shown, years = aged[faces, one], asked[faces, one]
        apart = (years - own).abs()
        if self.guide is not None and wanted.keys() & {"age", "ordering", "traits"}:
            guide, which = self.guide.to(shown.device), self.guide.draw()
            # Of one face the picture and all ages alike: traits are told by colour too.
            grey = torch.rand(len(asked), device=asked.device) < self.settings.grey
            seen = guide.ask(which, jittered(without_colour(aged, grey).flatten(0, 1), self.settings.jitter))
            judged, unsure = seen.age.view_as(asked), seen.deviation.view_as(asked)
            if "age" in wanted:
                terms["age"] = (smooth_decades((judged - asked).abs()) / (1 + unsure / UNSURE)).mean(dim=1)
            if "ordering" in wanted:
                enough = (asked.diff(dim=1) / 2).clamp(max=2.0)
                terms["ordering"] = (enough - judged.diff(dim=1)).relu().mean(dim=1) / 10
            if "traits" in wanted:
                with torch.no_grad():
                    own_traits = guide.ask(which, without_colour(pictures, grey))
                terms["traits"] = changed_traits(own_traits, seen).view_as(asked).mean(dim=1)
        if self.identity is not None and "identity" in wanted:
            self.identity.to(shown.device)
            with torch.no_grad():
                given = self.identity(pictures)
            terms["identity"] = (1 - (given * self.identity(shown)).sum(dim=1)) * same_person(apart)
        if self.perceptual is not None:
            near = (1 - apart / 100).clamp_min(0).square()
            terms["perceptual"] = self.perceptual.to(shown.device)(pictures, shown) * near
        if self.language is not None:
            codes = batch.labels.get(GENDER)
            names = [None] * len(years) if codes is None else [GENDERS[i] if i >= 0 else None for i in codes.tolist()]
            words = self.language.texts(age_texts(years.tolist(), names))
            words = (words - self.language.texts(age_texts(own.tolist(), names))).to(shown.device)
            change = self.language.images(shown) - self.language.images(pictures)
            terms["direction"] = 1 - F.cosine_similarity(change, words, dim=1)
        return terms

    def _regular(self, made: Rendered, wanted: Mapping[str, float]) -> dict[str, Tensor]:
        masks, terms = made.masks, {}
        if "mask" in wanted:
            terms["mask"] = masks.mean(dim=(1, 2, 3, 4))
        if "smooth" in wanted:
            terms["smooth"] = variation(masks)
            if made.change.flows is not None:
                # In pixels: a fold of one is as bad as a mask that ends within one.
                terms["smooth"] = terms["smooth"] + variation(made.change.flows * masks.shape[-1])
        return terms

    def _judging(self, batch: FaceBatch, step: int) -> dict[str, Tensor]:
        """The discriminator's terms, (B,) each."""
        assert self.discriminator is not None
        discriminator, wanted = self.discriminator.train().requires_grad_(True), self.weights(DISCRIMINATOR)
        pictures = resized(as_float(batch.images), self.network.input_size)
        interval = batch.labels[AGE]
        trust = self._trust(label_spread(interval, batch.labels.get(SPREAD)), step)
        age = interval.mean(dim=1).masked_fill(trust == 0, torch.nan)
        made, years = self._fakes(batch, pictures, interval.mean(dim=1), step)
        real = self.augment(pictures)
        verdicts, classes = discriminator(real, age)
        self.augment.see(verdicts)
        terms = {"real": taken_for_real(verdicts)}
        terms["made"] = taken_for_made(discriminator(self.augment(made), years)[0])
        if "mismatch" in wanted:
            youngest, oldest = self.between
            wrong = youngest + (oldest - youngest) * torch.rand(len(age), device=age.device)
            far = ((wrong - age).abs() >= WRONG).float()
            terms["mismatch"] = taken_for_made(discriminator(real, wrong)[0]) * far
        if "age_class" in wanted:
            target = discriminator.class_of(age.nan_to_num())
            terms["age_class"] = F.cross_entropy(classes, target, reduction="none") * trust
        if "r1" in wanted and step % self.settings.r1_every == 0:
            terms["r1"] = gradient_penalty(lambda leaf: discriminator(leaf, age)[0], real)
        return terms

    def _fakes(self, batch: FaceBatch, pictures: Tensor, age: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The renders that the generator's own step made of this batch, or else new ones."""
        for of, made, years in self._made:
            if of is batch:
                return made, years
        with torch.no_grad():
            seen = self.network.encode(pictures)
            years = self._asked(torch.where(age.isnan(), seen.own_age, age), step)[:, :1]
            return self.network.decode(seen, self.network.codes(seen, years, age)).pictures[:, 0], years[:, 0]

    def _asked(self, own: Tensor, step: int) -> Tensor:
        """Ages to show each face at, (B, renders), rising: even over the parts of what the curriculum allows by now."""
        first, last = self.settings.years
        reach = first + (last - first) * self._progress(step)
        youngest, oldest = self.between
        low, high = (own - reach).clamp(min=youngest), (own + reach).clamp(max=oldest)
        low, high = torch.minimum(low, high), torch.maximum(low, high)
        count = self.settings.renders
        places = torch.arange(count, device=own.device) + torch.rand(len(own), count, device=own.device)
        return (low[:, None] + (high - low)[:, None] * places / count).clamp(0, 120)

    def _trust(self, spread: Tensor, step: int) -> Tensor:
        """How much each label counts by its standard deviation (B,), in [0, 1]; an unknown one not at all."""
        first, last = self.settings.spread
        most = first + (last - first) * self._progress(step)
        return torch.where(spread <= most, 1 / (1 + (spread / UNSURE).square()), 0.0)

    def _progress(self, step: int) -> float:
        return ramp(step, self.settings.over * self.steps)

    def _part(self, batch: FaceBatch) -> int:
        return max(1, round(self.settings.cycle_part * len(batch)))

    def _text(self, batch: FaceBatch) -> Tensor | None:
        text = batch.labels.get(TEXT)
        if text is None or not self.network.settings.text:
            return None
        hidden = torch.rand(len(text), device=text.device) < self.settings.text_withhold
        return text.masked_fill(hidden[:, None, None], torch.nan)

    def after_step(self, reduce: Reduce) -> None:
        self._made = []
        if self.discriminator is not None:
            self.augment.adapt(reduce)

    def validate(self, averages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        """Figures on `select`, at the anchors within the ages learnt from: `own/l1` of a face at its own age; `age/mae`
        and `age/slope` by the guide; `ordering/pairs` and `ordering/faces`, the shares of neighbouring anchors and of
        faces whose judged ages rise; `identity/cosine` by the guide; `change/far` from the input 20 years away or more;
        `spread/share`, how much faces at one age differ over how much real ones do; `mask/mean`; `source/mae`;
        `augment/p`; and `score`: what the guided terms and `own` come to by their weights.

        Raises:
            CollapseError: the renders have been constant, copies, or of one age for `patience` epochs.
        """
        device = next(self.network.parameters()).device
        with averaged(self.network, averages.get(GENERATOR)), torch.no_grad():
            self.network.eval()
            tally = Ageing(self.network, self.guide, self.identity, SHOWN, self.settings.guided_at)
            for batch in self.judged_batches():
                tally.see(batch, device)
        figures, options = tally.figures(), self.settings
        figures["augment/p"] = self.augment.p
        figures["score"] = (
            options.own * figures["own/l1"]
            + options.age * figures.get("age/mae", 0.0) / 10
            + options.identity * (1 - figures.get("identity/cosine", 1.0))
        )
        self._shown = (tally.strips, tally.column("judged") if self.guide is not None else None)
        said = collapse(figures)
        self.collapsed = self.collapsed + 1 if said else 0
        figures["collapse"] = float(self.collapsed)
        if said:
            if options.stop_on_collapse and self.collapsed >= options.patience:
                raise CollapseError(f"{said}; stopped after {self.collapsed} epochs of it")
            say(said)
        return figures

    def figures(self) -> dict[str, Any]:
        """Faces of `select`: as they are, and at the anchors, with the ages that the guide sees there."""
        strips, judged = self._shown
        if not strips:
            return {}
        from mien.report import figures

        captions = []
        for row in range(len(strips)):
            captions.append("picture")
            for place, anchor in enumerate(self.network.settings.anchors):
                captions.append(f"{anchor:g}" if judged is None else f"{anchor:g}: {judged[row, place]:.0f}")
        flat = [picture for strip in strips for picture in strip]
        return {"select/ages": figures.contact_sheet(flat, captions, columns=len(strips[0]), side=1.0)}

    def save_model(self, folder: Path, averages: Mapping[str, Mapping[str, Tensor]]) -> None:
        save_renderer(folder, self.network, averages.get(GENERATOR))

    def state_dict(self) -> dict[str, Any]:
        return {"augment": self.augment.p, "collapsed": self.collapsed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.augment.p, self.collapsed = float(state["augment"]), int(state["collapsed"])
        self._made = []


def variation(maps: Tensor) -> Tensor:
    """The total variation of each face's maps (B, A, C, H, W), a mean over pixels, (B,)."""
    across, down = maps.diff(dim=4).abs(), maps.diff(dim=3).abs()
    return across.mean(dim=(1, 2, 3, 4)) + down.mean(dim=(1, 2, 3, 4))
