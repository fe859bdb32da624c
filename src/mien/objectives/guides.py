"""Frozen networks that guide a renderer: how old a picture looks and how sure that is, and whose face it is.

What guides is never what judges: MobileFaceNet judges identity, so it is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.data.align import require_view
from mien.errors import MienError
from mien.faces import Crop
from mien.models.backbone import build_backbone
from mien.models.checkpoint import load_estimator
from mien.models.estimator import Estimator
from mien.models.renderer import toned
from mien.objectives.ageing_settings import AgeTransformerObjectiveSettings
from mien.tasks import grid
from mien.tasks.age import AgeTask
from mien.tasks.head import precise

#: What must stay as it is when a face gets older.
TRAITS = ("gender", "race")
#: The network that judges identity.
JUDGE = "mobilefacenet"
#: How far `jittered` turns (radians), scales (logarithm) and shifts (of half the side), and its strongest grain.
TURN, SCALE, SHIFT, GRAIN = 0.1, 0.1, 0.12, 0.08


class Seen(NamedTuple):
    """What an estimator sees in B pictures: years and their standard deviation, (B,) float32 each, the second without a
    gradient and 0 where the estimator gives no distribution; and log-probabilities (B, C) of each of `TRAITS` that it
    tells."""

    age: Tensor
    deviation: Tensor
    traits: tuple[Tensor, ...]


class AgeGuide(nn.Module):
    """Estimators of ages whose gradient reaches the pictures.

    What one network takes for age by mistake another, of another architecture or training, takes for nothing; a
    renderer that meets a different one at every step cannot please all by such patterns.

    Args:
        models: a run or checkpoint, or several.
    """

    def __init__(self, models: str | Sequence[str]) -> None:
        super().__init__()
        named = [models] if isinstance(models, str) else models
        self.estimators = nn.ModuleList([load_estimator(model).requires_grad_(False) for model in named])
        for estimator in self.estimators:
            cast(Estimator, estimator).task("age")

    def train(self, mode: bool = True) -> AgeGuide:
        """It never learns."""
        return super().train(False)

    def check(self, crop: Crop) -> None:
        """Pass when faces of a crop are what every estimator learnt to see.

        Raises:
            MienError: they are not.
        """
        for estimator in self.estimators:
            require_view(crop, cast(Estimator, estimator).crop, f"for the guide {estimator.name}: the manifest")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Age and standard deviation of uint8 or float [0, 1] pictures (B, 3, H, W), as all estimators together see
        them, (B,) float32 years each; the deviation passes no gradient."""
        seen = [self.ask(place, images) for place in range(len(self.estimators))]
        ages, deviations = torch.stack([one.age for one in seen]), torch.stack([one.deviation for one in seen])
        apart = ages.detach().var(dim=0, correction=0)
        return ages.mean(dim=0), (deviations.square().mean(dim=0) + apart).sqrt()

    def require_traits(self, weight: float, section: str) -> None:
        """Pass when `traits` in this section of a recipe has no weight, or any estimator tells any of `TRAITS`.

        Raises:
            MienError: none does.
        """
        if weight and not any(name in cast(Estimator, one).tasks for one in self.estimators for name in TRAITS):
            raise MienError(
                f"{section}.traits is {weight:g}, but no guide_model tells {' or '.join(TRAITS)}; name one that does, "
                "or set traits=0"
            )

    def draw(self) -> int:
        """The place of one of the estimators, at random."""
        count = len(self.estimators)
        return int(torch.randint(count, ())) if count > 1 else 0

    def ask(self, place: int, images: Tensor) -> Seen:
        """What the estimator at a place sees."""
        estimator = cast(Estimator, self.estimators[place])
        task = cast(AgeTask, estimator.task("age"))
        outputs = estimator(images)
        traits = tuple(precise(outputs[name]["logits"]).log_softmax(1) for name in TRAITS if name in outputs)
        if task.ordinal is None:
            age = precise(outputs["age"]["regression"])
            return Seen(age, torch.zeros_like(age), traits)
        chances = task.ordinal.pmf(precise(outputs["age"]["ordinal"]))
        edges = task.ordinal.edges.to(chances.device)
        return Seen(grid.mean(chances, edges).float(), grid.std(chances.detach(), edges).float(), traits)


class IdentityGuide(nn.Module):
    """Features in which a person is to stay: those of a backbone with weights, or of an estimator of ours.

    Args:
        backbone: an architecture of timm, with `weights`, a file, at `size` pixels.
        model: a run or checkpoint of an estimator instead.
    """

    def __init__(
        self, backbone: str, weights: str | None = None, size: int | None = None, model: str | None = None
    ) -> None:
        super().__init__()
        net: nn.Module
        self.crop: Crop | None = None
        if model is None:
            names, net = [backbone], build_backbone(backbone, weights, size)
        else:
            estimator: Estimator = load_estimator(model)
            names, net, self.crop = estimator.backbone_names, estimator.backbone, estimator.crop
        if JUDGE in names:
            raise MienError(
                "age_transformer_objective.identity: mobilefacenet judges identity, so it must not guide; name another "
                "identity_backbone, such as mobilenetv2_100 with identity_weights, or an identity_model of another"
            )
        self.net = net.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> IdentityGuide:
        """It never learns."""
        return super().train(False)

    def check(self, crop: Crop) -> None:
        """Pass when faces of a crop are what the estimator learnt to see; a backbone alone takes any.

        Raises:
            MienError: they are not.
        """
        if self.crop is not None:
            require_view(crop, self.crop, "for identity_model: the manifest")

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, F) float32 of length 1."""
        return F.normalize(self.net(images).float(), dim=1)


def guides_of(options: AgeTransformerObjectiveSettings) -> tuple[AgeGuide | None, IdentityGuide | None]:
    """The guides of age and of identity that the settings name."""
    guide = AgeGuide(options.guide_model) if options.guide_model else None
    if not (options.identity_weights or options.identity_model):
        return guide, None
    return guide, IdentityGuide(
        options.identity_backbone, options.identity_weights, options.identity_size, options.identity_model
    )


def jittered(images: Tensor, amount: float) -> Tensor:
    """Float pictures (B, 3, H, W) in [0, 1], each turned, scaled, shifted and made grainy at random; gradients pass.

    A renderer learns to please a guide by patterns of single pixels that no other eye takes for age; patterns that
    have to survive this are features of a face (Athalye et al., 2018, https://arxiv.org/abs/1707.07397, turned round).

    Args:
        amount: in [0, 1]; 0 leaves the pictures as they are.
    """
    if not amount:
        return images

    def even(most: float) -> Tensor:
        return (torch.rand(len(images), device=images.device) * 2 - 1) * most * amount

    angle, size = even(TURN), even(SCALE).exp()
    cosine, sine = angle.cos() * size, angle.sin() * size
    rows = [torch.stack([cosine, -sine, even(SHIFT)], dim=1), torch.stack([sine, cosine, even(SHIFT)], dim=1)]
    places = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, places, padding_mode="reflection", align_corners=False)
    return moved + even(GRAIN).abs()[:, None, None, None] * torch.randn_like(moved)


def without_colour(images: Tensor, rows: Tensor) -> Tensor:
    """Pictures (B, ..., 3, H, W), those of `rows` (B,) bool in grey.

    A guide takes blue eyes for a child's; where it often cannot see them, a renderer has to change the face.
    """
    if not bool(rows.any()):
        return images
    return torch.where(rows.view(-1, *[1] * (images.ndim - 1)), toned(images, 0.0), images)


def changed_traits(given: Seen, made: Seen) -> Tensor:
    """By how much the traits of renders (B * A) differ from those of the B faces they were made of, in nats, (B * A,):
    the Kullback-Leibler divergence, summed over traits; 0 where the estimator tells none."""
    total = torch.zeros_like(made.age)
    for before, after in zip(given.traits, made.traits, strict=True):
        before = before.repeat_interleave(len(after) // len(before), dim=0)
        total = total + (before.exp() * (before - after)).sum(dim=1).float()
    return total


def same_person(distance: Tensor) -> Tensor:
    """How much identity counts over so many years (B,), from 1 to 0.5 in a century: SAM's weights (Alaluf et al., 2021,
    https://arxiv.org/abs/2102.02754), a child's face being another than the adult's."""
    return 0.25 * torch.cos(math.pi * distance.abs().clamp(max=100) / 100) + 0.75
