"""Training the beta-VAE: what a picture is rebuilt from, at what rate, and that the age is in one place of it alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import MienError
from mien.faces import FaceBatch
from mien.metrics.coding import collapse
from mien.models.beta_vae import UNIT, BetaVae, Posterior
from mien.models.checkpoint import save_renderer
from mien.models.perceptual import Perceptual
from mien.models.renderer import as_float
from mien.objectives.base import Objective, Terms, averaged, say
from mien.objectives.beta_vae_settings import BetaVaeObjectiveSettings
from mien.objectives.coding import AGE, ATTRIBUTES, JUDGED, Tally
from mien.objectives.guides import AgeGuide, changed_traits, jittered
from mien.objectives.latent import (
    age_rate,
    dependence,
    free_rate,
    normal_rate,
    ramp,
    reversed_gradient,
    total_correlation,
)
from mien.tasks.age import smooth_decades

if TYPE_CHECKING:
    from mien.data.loading import FaceLoader

#: Bins of five years that the adversary tells apart.
BINS, BIN_YEARS = 20, 5.0
#: Width of the adversary's two hidden layers.
HIDDEN = 256
#: Faces and ages of the strips in TensorBoard.
SHOWN, STRIP = 6, (5, 20, 35, 50, 65, 80)
#: Terms of faces rendered at other ages.
RENDERED = ("guide", "traits", "cycle")
#: Fewer faces of known age make no kernel.
FEWEST = 4
#: Figures of `validate` of which more is better.
RISING = ("explained", "active", "ratio", "psnr")


class Learner(nn.Module):
    """All that learns: the VAE, the scale of its pixels, and the adversary that only training needs."""

    def __init__(self, vae: BetaVae, settings: BetaVaeObjectiveSettings) -> None:
        super().__init__()
        self.vae = vae
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.1))) if settings.reconstruction == "laplace" else None
        dims = vae.settings.id_dims
        self.adversary = (
            nn.Sequential(
                nn.Linear(dims, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, BINS)
            )
            if settings.adversary and not vae.settings.conditional
            else None
        )


class BetaVaeObjective(Objective):
    """One player, the learner. Every term is a sum over pixels or latents and a mean over faces:

    - `reconstruction`: |x - y|, (x - y)^2, or |x - y| / b + log 2b, over the 3HW numbers of a picture in [0, 1].
    - `rate`: KL of z_id against N(0, 1). With a capacity or free bits it is `batch_rate`, of the batch's mean rate R:
      gamma |R - C(t)| (Burgess et al., 2018), each latent free below its nats. Couples the faces of one process.
    - `batch_tc`: total correlation of the whole code, z_age included; weight beta - 1, as the rate holds one.
    - `age_rate`: KL of z_age against N(f(age), s^2), s^2 widened by the variance of an age that is an interval;
      against N(0, 1) where the age is unknown. `age`: the head's distance from the interval.
    - `leak`: cross-entropy of the adversary that reads bins of five years in the mean of z_id. Its gradient reaches
      the encoder reversed, and only of faces of which it knows more than the ages' frequencies tell: driven further,
      the encoder would write wrong ages there. `batch_hsic`: dependence of z_id and age, one process.
    - `guide`, `traits`, `cycle`: of faces rendered at ages drawn at random, as they would be shown: the distance of the
      judged age from the one asked for; by how much gender and race changed (`changed_traits`); and how far the
      encoder's code of the render, itself held fixed, is from that which it was rendered from: half the squared
      difference, z_age's over the prior's variance.

    `conditional` in the network's settings leaves reconstruction, rate and what goes with them: seed 002's last loss.
    """

    player = "learner"

    def __init__(
        self, vae: BetaVae, select: FaceLoader, settings: BetaVaeObjectiveSettings, ages: np.ndarray, steps: int
    ) -> None:
        """`ages` are the training faces' (N, 2) years, NaN unknown; `steps` the length of the training."""
        self.vae = vae
        self.settings = settings
        self.learner = Learner(vae, settings)
        self.players: dict[str, nn.Module] = {self.player: self.learner}
        self.select: FaceLoader = select
        self.steps, self.faces = steps, len(ages)
        self._check_choice(settings.choose)
        self.chooses = (settings.choose, not settings.choose.endswith(RISING))
        middle = ages.mean(axis=1)
        middle = middle[~np.isnan(middle)]
        self.log_frequency = torch.from_numpy(
            np.log((np.bincount(_bins(middle), minlength=BINS) + 1) / (len(middle) + BINS))
        ).float()
        self.between = tuple(np.percentile(middle, [1, 99]).tolist()) if len(middle) else (5.0, 85.0)
        if len(middle):
            vae.ages = (float(middle.min()), float(middle.max()))
        self.perceptual = (
            Perceptual(settings.perceptual_backbone, settings.perceptual_weights) if settings.perceptual else None
        )
        self.guide: AgeGuide | None = None
        if settings.guide_model and (settings.guide or settings.traits):
            self.guide = AgeGuide(settings.guide_model)
            self.guide.require_traits(settings.traits, "beta_vae_objective")
        self._shown: list[np.ndarray] = []

    def _check_choice(self, choose: str) -> None:
        """Pass where `validate` will give the figure."""
        if self.vae.settings.conditional and choose in ("rate/age", "age/mae"):
            raise MienError(f"beta_vae_objective.choose={choose}: a conditional network has no z_age; take rate/id")
        low, high = self.select.labels[AGE].T
        if choose in ("age/mae", "probe/ratio") and int((low == high).sum()) < JUDGED:
            raise MienError(
                f"beta_vae_objective.choose={choose} needs {JUDGED} faces of data.select with an age in years; it has "
                f"{int((low == high).sum())}; take reconstruction/mse"
            )

    def depths(self, player: str) -> list[list[str]]:
        names = [name for name, _ in self.learner.named_parameters()]
        own = [name for name in names if name.startswith("vae.")]
        # Last, as a head is: the adversary has to keep up with the encoder.
        return [own, [name for name in names if name not in own]] if len(own) < len(names) else [own]

    @property
    def _coupled(self) -> bool:
        return self.settings.capacity is not None or self.settings.free_bits > 0

    def weights(self, player: str) -> Mapping[str, float]:
        options = self.settings
        beta = 1.0 if options.tc else options.beta
        rate = options.gamma if options.capacity is not None else beta
        weights = {
            "reconstruction": options.reconstruction_weight,
            "batch_rate" if self._coupled else "rate": rate,
            "batch_tc": options.beta - 1 if options.tc else 0.0,
            "perceptual": options.perceptual,
        }
        if not self.vae.settings.conditional:
            weights |= {
                "age_rate": options.age_rate,
                "age": options.age,
                "leak": 1.0 if self.learner.adversary is not None else 0.0,
                "batch_hsic": options.hsic,
                "cycle": options.cycle,
            }
        weights |= {"guide": options.guide, "traits": options.traits}
        return {term: weight for term, weight in weights.items() if weight}

    def counts(self, player: str, batch: FaceBatch) -> dict[str, int]:
        known = int((~batch.labels[AGE].isnan().any(dim=1)).sum())
        special = {
            "age": known,
            "leak": known,
            "batch_hsic": known if known >= FEWEST else 0,
            **dict.fromkeys(RENDERED, self._rendered(len(batch))),
        }
        counts = {term: special.get(term, len(batch)) for term in self.weights(player)}
        return {term: count for term, count in counts.items() if count}

    def _rendered(self, faces: int) -> int:
        """How many of so many faces are rendered at other ages."""
        return max(1, round(self.settings.rendered * faces))

    def losses(self, player: str, batch: FaceBatch, step: int) -> Terms:
        self.learner.train()
        vae, wanted = self.vae, self.weights(player)
        pictures, age = as_float(batch.images), batch.labels[AGE]
        attributes = self._withheld(batch.labels.get(ATTRIBUTES))
        told = None
        if vae.settings.conditional:
            hidden = torch.rand(len(age), device=age.device) < vae.settings.withhold
            told = age.mean(dim=1).masked_fill(hidden, torch.nan)
        posterior: Posterior = vae(batch.images, told, attributes)
        z = posterior.sample()
        decoded = vae.decode(z, attributes)
        everyone = torch.ones(len(batch), device=z.device) if batch.weights is None else batch.weights
        count = everyone.new_tensor(float(len(batch)))
        terms: Terms = {"reconstruction": ((self._distance(decoded, pictures) * everyone).sum(), count)}
        rates = normal_rate(*posterior.identity)
        if "rate" in wanted:
            terms["rate"] = ((rates.sum(dim=1) * everyone).sum(), count)
        if "batch_rate" in wanted:
            rate = free_rate(rates, self.settings.free_bits)
            terms["batch_rate"] = (self._off_capacity(rate, step) * count, count)
        if "batch_tc" in wanted:
            mean, log_variance = (
                posterior.identity if vae.settings.conditional else (posterior.mean, posterior.log_variance)
            )
            sample = z[:, -mean.shape[1] :]
            terms["batch_tc"] = (total_correlation(sample, mean, log_variance, self.faces) * count, count)
        if self.perceptual is not None:
            self.perceptual.to(z.device)
            terms["perceptual"] = ((self.perceptual(decoded, pictures) * everyone).sum(), count)
        if not vae.settings.conditional:
            terms |= self._age_terms(posterior, age, everyone, step, wanted)
        if any(term in wanted for term in RENDERED):
            terms |= self._render_terms(batch.images, posterior, attributes, everyone, wanted)
        return terms

    def _distance(self, decoded: Tensor, pictures: Tensor) -> Tensor:
        """(B,) the reconstruction term of each face."""
        difference = decoded.float() - pictures
        if self.settings.reconstruction == "mse":
            return difference.square().sum(dim=(1, 2, 3))
        distance = difference.abs().sum(dim=(1, 2, 3))
        if self.learner.log_scale is None:
            return distance
        log_scale = self.learner.log_scale.clamp(-6, 1)
        return distance * (-log_scale).exp() + pictures[0].numel() * (math.log(2) + log_scale)

    def _off_capacity(self, rate: Tensor, step: int) -> Tensor:
        options = self.settings
        if options.capacity is None:
            return rate
        return (rate - options.capacity * ramp(step, options.capacity_over * self.steps)).abs()

    def _age_terms(
        self, posterior: Posterior, age: Tensor, everyone: Tensor, step: int, wanted: Mapping[str, float]
    ) -> Terms:
        vae, options = self.vae, self.settings
        low, high = age.unbind(dim=1)
        known = ~age.isnan().any(dim=1)
        rows = known.nonzero().squeeze(1)
        middle = ((low + high) / 2).nan_to_num()
        terms: Terms = {}
        if "age_rate" in wanted:
            rates = age_rate(vae, posterior, age)
            terms["age_rate"] = ((rates * everyone).sum(), everyone.new_tensor(float(len(age))))
        if len(rows) == 0:
            return terms
        heavy, seen = everyone[rows], everyone.new_tensor(float(len(rows)))
        if "age" in wanted:
            said = vae.age_of(posterior.age[0][rows])
            outside = (low[rows] - said).relu() + (said - high[rows]).relu()
            terms["age"] = ((smooth_decades(outside) * heavy).sum(), seen)
        code = posterior.identity[0][rows]
        if "leak" in wanted and self.learner.adversary is not None:
            bins = _bins(middle[rows])
            frequency = self.log_frequency.to(code.device)[bins]
            with torch.autocast(code.device.type, enabled=False):
                with torch.no_grad():
                    surprise = F.cross_entropy(self.learner.adversary(code), bins, reduction="none")
                strength = options.adversary * ramp(step, options.adversary_over * self.steps)
                gate = strength * (surprise < -frequency).float()[:, None]
                logits = self.learner.adversary(reversed_gradient(code, gate))
                leak = F.cross_entropy(logits, bins, reduction="none")
            terms["leak"] = ((leak * heavy).sum(), seen)
        if "batch_hsic" in wanted and len(rows) >= FEWEST:
            terms["batch_hsic"] = (dependence(code, middle[rows, None]) * seen, seen)
        return terms

    def _render_terms(
        self,
        images: Tensor,
        posterior: Posterior,
        attributes: Tensor | None,
        everyone: Tensor,
        wanted: Mapping[str, float],
    ) -> Terms:
        vae = self.vae
        count = self._rendered(len(images))
        low, high = self.between
        asked = low + (high - low) * torch.rand(count, device=images.device)
        # What a judge of pictures wants is for the decoder to learn: the encoder would write ages where they must not
        # be, and what is usual at an age would become what impresses the judge.
        z_age, z_id = posterior.age[0][:count].detach(), posterior.identity[0][:count].detach()
        known = None if attributes is None else attributes[:count]
        codes = vae.age_code(asked)[:, None].detach()
        with frozen(vae.usual):
            pictures = vae.render_codes(images[:count], z_age, codes, z_id, z_id, known).squeeze(1)
        seen, heavy = asked.new_tensor(float(count)), everyone[:count]
        terms: Terms = {}
        if self.guide is not None:
            guide, which = self.guide.to(images.device), self.guide.draw()
            made = guide.ask(which, jittered(pictures, self.settings.jitter))
            if "guide" in wanted:
                terms["guide"] = ((smooth_decades((made.age - asked).abs()) * heavy).sum(), seen)
            if "traits" in wanted:
                with torch.no_grad():
                    given = guide.ask(which, as_float(images[:count]))
                terms["traits"] = ((changed_traits(given, made) * heavy).sum(), seen)
        if "cycle" in wanted:
            # Fixed, lest encoder and decoder agree on a sign that no picture of a face bears.
            fixed = {name: parameter.detach() for name, parameter in vae.named_parameters()}
            again: Posterior = torch.func.functional_call(vae, fixed, (pictures, None, known))
            spread = vae.settings.prior_years / UNIT
            apart = (again.identity[0] - z_id).square().sum(dim=1)
            aged = ((again.age[0] - codes[:, 0]) / spread).square().sum(dim=1)
            terms["cycle"] = (0.5 * ((apart + aged) * heavy).sum(), seen)
        return terms

    def _withheld(self, attributes: Tensor | None) -> Tensor | None:
        if attributes is None or not self.vae.settings.attributes:
            return None
        hidden = torch.rand(len(attributes), 1, device=attributes.device) < self.vae.settings.withhold
        return attributes.masked_fill(hidden, -1)

    def validate(self, averages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        """Figures on `select`: `reconstruction/mse`, `l1`, `psnr` of decoded means, `mse_sampled` of sampled codes;
        `rate/id` and `rate/age` in nats; `code/active` latents and `code/explained` variance; `age/mae` of z_age; and
        `probe/mae` of age from z_id by a straight line, over `probe/constant` of the median: `probe/ratio`."""
        with averaged(self.learner, averages.get(self.player)), torch.no_grad():
            self.learner.eval()
            torch.manual_seed(0)
            told = Tally(self.vae, SHOWN, STRIP)
            for batch in self.judged_batches():
                told.see(batch, next(self.vae.parameters()).device)
            self._shown = told.strips
        figures = told.figures(self.select.manifest.groups())
        said = collapse(
            int(figures["code/active"]), self.vae.settings.id_dims, figures["rate/id"], figures["code/explained"]
        )
        if said:
            say(said)
        return figures

    def figures(self) -> dict[str, Any]:
        """Faces of `select`: as they are, decoded, and at six ages."""
        if not self._shown:
            return {}
        from mien.report import figures

        captions = ["picture", "decoded", *(str(age) for age in STRIP)] * len(self._shown)
        flat = [picture for strip in self._shown for picture in strip]
        return {"select/ages": figures.contact_sheet(flat, captions, columns=len(STRIP) + 2, side=1.0)}

    def save_model(self, folder: Path, averages: Mapping[str, Mapping[str, Tensor]]) -> None:
        weights = averages.get(self.player)
        own = None if weights is None else {n[4:]: value for n, value in weights.items() if n.startswith("vae.")}
        save_renderer(folder, self.vae, own)


@contextmanager
def frozen(network: nn.Module | None) -> Iterator[None]:
    """What is computed within sends no gradient to the parameters of `network`."""
    parameters = [] if network is None else [one for one in network.parameters() if one.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@overload
def _bins(ages: Tensor) -> Tensor: ...
@overload
def _bins(ages: np.ndarray) -> np.ndarray: ...
def _bins(ages: Any) -> Any:
    """The adversary's bin of each age in years."""
    if isinstance(ages, Tensor):
        return (ages / BIN_YEARS).long().clamp(0, BINS - 1)
    return np.clip(ages // BIN_YEARS, 0, BINS - 1).astype(np.int64)
