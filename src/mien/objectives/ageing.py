"""What a renderer in training does with faces that it does not learn from, and whether it has collapsed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mien.faces import FaceBatch
from mien.metrics.ageing import rising, slope
from mien.models.age_transformer import AgeTransformer, Rendered, cut
from mien.models.renderer import as_float, laid_over, resized
from mien.objectives.coding import AGE
from mien.objectives.guides import AgeGuide, IdentityGuide

#: Keys of a batch's labels beside `AGE`: (B,) float32 years, NaN unknown; (B, L, T) float32, NaN for no token;
#: (B,) int64, -1 unknown.
SPREAD, TEXT, GENDER = "age_std", "text", "gender"
#: Years between two ages that must look different.
FAR = 20.0
#: A renderer has collapsed when faces at one age differ less than this share of what real ones do,
LEAST_SPREAD = 0.1
#: when at ages far from its own a face changes by less than half a level of grey,
LEAST_CHANGE = 0.5 / 255
#: or when its faces' judged ages rise by less than this share of the years asked for.
LEAST_SLOPE = 0.1


def label_spread(ages: Tensor, spread: Tensor | None) -> Tensor:
    """The standard deviation of each label in years, (B,): of an age that may be anywhere in its interval (B, 2), and
    of the label's own uncertainty (B,) where there is one. NaN where the age is unknown."""
    variance = (ages[:, 1] - ages[:, 0]).square() / 12
    return (variance if spread is None else variance + spread.nan_to_num().square()).sqrt()


def as_guided(images: Tensor, made: Rendered, side: int | None) -> tuple[Tensor, Tensor]:
    """Faces (B, 3, S, S) and their renders (B, A, 3, S, S), float32 in [0, 1], as guides see them: at working size, or
    the `images` (B, 3, H, W) at `side` pixels with the change enlarged and laid over, as where it is shown."""
    small = made.inputs
    if side is None or side == small.shape[-1]:
        return small, made.pictures
    large = resized(as_float(images), side)
    return large, cut(laid_over(large, made.change))


class Ageing:
    """Figures of renders at the anchors over the batches it has `see`n.

    `strips` are the first `shown` faces, each float32 (1 + anchors, 3, size, size), the picture first, and `judged`
    the ages of their renders by the guide, where there is one.
    """

    def __init__(
        self,
        network: AgeTransformer,
        guide: AgeGuide | None,
        identity: IdentityGuide | None,
        shown: int = 0,
        guided_at: int | None = None,
    ) -> None:
        self.network, self.guide, self.identity, self.shown = network, guide, identity, shown
        self.guided_at = guided_at
        self.strips: list[np.ndarray] = []
        self.columns: dict[str, list[np.ndarray]] = {}
        self._sums: list[tuple[Tensor, Tensor, int]] = []

    def see(self, batch: FaceBatch, device: torch.device) -> None:
        """Take a batch into account; its labels are those that the objective trains on."""
        faces, network = batch.to(device), self.network
        pictures = resized(as_float(faces.images), network.input_size)
        age = faces.labels[AGE].mean(dim=1)
        anchors = network.anchors.to(device).expand(len(faces), -1)
        seen = network.encode(pictures)
        own = torch.where(age.isnan(), seen.own_age, age).clamp(0, 120)
        codes = network.codes(
            seen,
            torch.cat([own[:, None], anchors], dim=1),
            age,
            label_spread(faces.labels[AGE], faces.labels.get(SPREAD)),
            faces.labels.get(TEXT),
        )
        made = network.decode(seen, codes)
        again, aged = made.pictures[:, 0], made.pictures[:, 1:]
        years = (anchors - own[:, None]).abs()
        changed = (aged - pictures[:, None]).abs().mean(dim=(2, 3, 4))
        columns = {
            "own": (again - pictures).abs().mean(dim=(1, 2, 3)),
            "age": torch.where(faces.labels[AGE][:, 0] == faces.labels[AGE][:, 1], age, torch.nan),
            "looks": made.own_age,
            "changed": torch.where(years >= FAR, changed, torch.nan),
            "mask": made.masks[:, 1:].mean(dim=(1, 2, 3, 4)),
        }
        large, looked_at = as_guided(faces.images, made, self.guided_at)
        looked_at = looked_at[:, 1:].flatten(0, 1)
        if self.guide is not None:
            judged = self.guide.to(device)(looked_at)[0]
            columns["judged"] = judged.unflatten(0, (len(faces), -1))
        if self.identity is not None:
            given, kept = self.identity.to(device)(large), self.identity(looked_at)
            columns["cosine"] = (kept.unflatten(0, (len(faces), -1)) * given[:, None]).sum(dim=2)
        for name, values in columns.items():
            self.columns.setdefault(name, []).append(values.float().cpu().numpy())
        both = torch.cat([pictures[:, None], aged], dim=1).cpu().double()
        self._sums.append((both.sum(dim=0), both.square().sum(dim=0), len(faces)))
        if len(self.strips) < self.shown:
            self.strips += list(both[: self.shown - len(self.strips)].float().numpy())

    def column(self, name: str) -> np.ndarray:
        """What was gathered under a name, (N, ...)."""
        return np.concatenate(self.columns[name])

    def figures(self) -> dict[str, float]:
        """Means over the faces seen; see `AgeTransformerObjective.validate`."""
        anchors = self.network.anchors.cpu().numpy().astype(np.float64)
        figures = {"own/l1": float(self.column("own").mean()), "mask/mean": float(self.column("mask").mean())}
        changed = self.column("changed")
        figures["change/far"] = float(np.nanmean(changed)) if (~np.isnan(changed)).any() else float("nan")
        count = sum(n for *_, n in self._sums)
        mean = torch.stack([total for total, _, _ in self._sums]).sum(dim=0) / count
        square = torch.stack([power for _, power, _ in self._sums]).sum(dim=0) / count
        spread = (square - mean.square()).clamp_min(0).mean(dim=(1, 2, 3)).sqrt().numpy()
        # One face differs from nobody: neither do its renders, and nothing has collapsed.
        figures["spread/share"] = float(spread[1:].min() / spread[0]) if spread[0] > 0 else float("nan")
        age, looks = self.column("age"), self.column("looks")
        known = ~np.isnan(age)
        if known.any():
            figures["source/mae"] = float(np.abs(looks - age)[known].mean())
        if "cosine" in self.columns:
            figures["identity/cosine"] = float(self.column("cosine").mean())
        if "judged" in self.columns:
            youngest, oldest = self.network.ages
            within = (anchors >= youngest) & (anchors <= oldest)
            judged = self.column("judged").astype(np.float64)
            figures["age/mae"] = float(np.abs(judged - anchors)[:, within].mean())
            figures["age/slope"] = float(slope(judged[:, within], anchors[within]).mean())
            figures["ordering/pairs"] = float((np.diff(judged[:, within], axis=1) > 0).mean())
            figures["ordering/faces"] = float(rising(judged[:, within]).mean())
        return figures


def collapse(figures: Mapping[str, float]) -> str:
    """What to say of renders that no longer depend on the face or the age, with what to change; else an empty string.

    `figures` are those of `Ageing`. Where there is no guide, one age for all is not looked for.
    """
    if figures["spread/share"] < LEAST_SPREAD:
        return (
            f"collapse: constant pictures, faces at one age differ by {figures['spread/share']:.0%} of what real ones "
            "do; raise own, cycle and identity, lower adversarial or optim.lr"
        )
    if figures["change/far"] < LEAST_CHANGE:
        return (
            f"collapse: copies of the input, faces {FAR:.0f} years away change by {255 * figures['change/far']:.2f} of "
            "255 levels; raise age or adversarial, lower mask and own, or let it learn longer if it has only begun"
        )
    if figures.get("age/slope", 1.0) < LEAST_SLOPE:
        return (
            f"collapse: one age for all, judged ages rise by {figures['age/slope']:.2f} years for each year asked for; "
            "raise age and ordering, or let it learn longer if it has only begun"
        )
    return ""
