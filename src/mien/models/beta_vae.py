"""The age-conditioned beta-VAE: a face as its age and its person, and back to a picture at any age.

The encoder sees the picture alone. Its code is z = (z_age, z_id). A prior ties z_age to the age; z_id, which tells how
a face differs from what is usual at its z_age, has a standard normal one, and the objective drives the rest of the age
out of it. The decoder builds a picture from both, every block modulated by z_age and by the attributes that are known
(FiLM: Perez et al., 2018, https://arxiv.org/abs/1709.07871).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from mien.errors import unknown
from mien.faces import VOCABULARIES, Crop
from mien.models.renderer import (
    STRONGEST,
    Change,
    RenderingNetwork,
    as_float,
    check_ages,
    enlarged,
    laid_over,
    resized,
    toned,
)
from mien.models.residual import GROUPS, Block

#: The age whose code is 0, and the years in one unit of the code: ages 0 to 100 are -2 to 2.
MIDDLE, UNIT = 50.0, 25.0
#: Side of the smallest map.
SMALLEST = 4
#: Length of the vector that modulates the decoder's blocks.
CONDITION = 128
#: Logarithm of a latent's variance stays within: beyond it a step of training could throw the code anywhere.
LOG_VARIANCE = (-12.0, 4.0)
#: Width of the network that says what is usual at an age, and how far the logarithm of its spread is from 0 at most.
USUAL, LOG_SPREAD = 64, 1.5


class BetaVaeSettings(BaseModel):
    """What the network is. `width` is the dial: parameters grow with its square."""

    model_config = ConfigDict(extra="forbid")

    size: Literal[32, 64, 128, 256] = Field(default=64, description="side in pixels of the pictures it works on")
    width: int = Field(default=32, ge=8, multiple_of=8, description="channels at half the side; four times at most")
    id_dims: int = Field(default=126, ge=1, description="latents of the person, z_id")
    age_dims: int = Field(default=1, ge=1, le=16, description="latents of the age, z_age; 1: the age itself, scaled")
    prior_years: float = Field(default=4.0, gt=0, description="standard deviation of z_age about a known age, in years")
    usual: bool = Field(
        default=False,
        description="z_id: how a face differs from what is usual at its z_age, by a prior given it; never conditional",
    )
    attributes: list[str] = Field(
        default_factory=list, description="labels that the decoder is told where known: gender, race, race7, expression"
    )
    withhold: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="share of training faces whose attributes (conditional: age too) are hidden",
    )
    conditional: bool = Field(
        default=False,
        description="baseline of seed 002: the encoder is told age and attributes too, there is no z_age",
    )
    residual: bool = Field(
        default=True, description="show the picture plus what changes with age, not the decoded picture alone"
    )
    strength: float = Field(
        default=1.0, gt=0, le=STRONGEST, description="how much of that change is shown; training has all"
    )
    colour: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="how much of that change's colour is shown: 0 changes brightness alone; training has all",
    )

    @field_validator("attributes")
    @classmethod
    def _known(cls, attributes: list[str]) -> list[str]:
        for name in attributes:
            if name not in VOCABULARIES:
                raise unknown("attribute", name, VOCABULARIES)
        return attributes


@dataclass(frozen=True, slots=True)
class Posterior:
    """Independent normals over the code of each face, both (B, age_dims + id_dims) float32, z_age first.

    A log-variance of minus infinity is a latent that is known exactly.
    """

    mean: Tensor
    log_variance: Tensor
    age_dims: int

    def sample(self) -> Tensor:
        """One code a face, (B, age_dims + id_dims)."""
        return self.mean + (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)

    @property
    def age(self) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z_age, (B, age_dims)."""
        return self.mean[:, : self.age_dims], self.log_variance[:, : self.age_dims]

    @property
    def identity(self) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z_id, (B, id_dims)."""
        return self.mean[:, self.age_dims :], self.log_variance[:, self.age_dims :]


class Usual(nn.Module):
    """What is usual at an age: the middle and the logarithm of the spread of a face's features, (B, id_dims) each, by
    its z_age (B, age_dims).

    A code c whose prior given the age is N(m(z_age), s(z_age)^2) costs as much as z_id = (c - m) / s against N(0, 1):
    the rate itself drives out of z_id what an age tells of a face, and the decoder, which knows m and s, puts it back.
    """

    def __init__(self, settings: BetaVaeSettings) -> None:
        super().__init__()
        last = nn.Linear(USUAL, 2 * settings.id_dims)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(settings.age_dims, USUAL), nn.SiLU(), last)

    def forward(self, z_age: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(z_age.device.type, enabled=False):
            middle, log_spread = self.net(z_age.float()).chunk(2, dim=1)
            return middle, LOG_SPREAD * torch.tanh(log_spread / LOG_SPREAD)

    def differing(self, features: Tensor, z_age: Tensor) -> Tensor:
        """z_id (B, id_dims) of features beside what is usual at z_age."""
        middle, log_spread = self(z_age)
        return (features - middle) * (-log_spread).exp()

    def features(self, z_id: Tensor, z_age: Tensor) -> Tensor:
        """The features (B, id_dims) again."""
        middle, log_spread = self(z_age)
        return middle + log_spread.exp() * z_id


class BetaVae(RenderingNetwork):
    """Encoder, decoder and the line of ages in z_age. Nothing in it is random but `Posterior.sample`.

    z_age of a known age a is N(f(a), s^2), f(a) = (a - 50) / 25 times a direction of length 1, which is 1 itself
    for one latent: it then is the age, scaled, by supervision and not by discovery. `age_head` reads the age back.
    """

    settings: BetaVaeSettings
    direction: Tensor

    def __init__(self, settings: BetaVaeSettings, crop: Crop) -> None:
        super().__init__(settings, settings.size, crop)
        channels = _channels(settings)
        deepest = channels[-1]
        flat = deepest * SMALLEST**2
        told = CONDITION if settings.conditional else 0
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, channels[0], 3, padding=1),
            *(Block(a, b, stride=2) for a, b in pairwise(channels)),
            Block(deepest, deepest),
            nn.GroupNorm(GROUPS, deepest),
            nn.SiLU(),
        )
        inferred = settings.id_dims + (0 if settings.conditional else settings.age_dims)
        self.posterior = nn.Linear(flat + told, 2 * inferred)
        # A tenth of the usual: the code starts near the prior, whatever the loss's scale.
        with torch.no_grad():
            self.posterior.weight.mul_(0.1)
            self.posterior.bias.zero_()
        self.attributes = nn.ModuleDict(
            {name: nn.Embedding(len(VOCABULARIES[name]) + 1, 16) for name in settings.attributes}
        )
        self.condition = nn.Sequential(
            nn.Linear(settings.age_dims + 16 * len(settings.attributes), CONDITION),
            nn.SiLU(),
            nn.Linear(CONDITION, CONDITION),
            nn.SiLU(),
        )
        self.unknown_age = nn.Parameter(torch.zeros(settings.age_dims)) if settings.conditional else None
        self.usual = Usual(settings) if settings.usual and not settings.conditional else None
        self.root = nn.Linear(settings.id_dims, flat)
        upwards = channels[::-1]
        self.decoder = nn.ModuleList(
            [
                Block(deepest, deepest, CONDITION),
                *(Block(a, b, CONDITION, grow=True) for a, b in pairwise(upwards)),
            ]
        )
        self.paint = nn.Sequential(
            nn.GroupNorm(GROUPS, channels[0]), nn.SiLU(), nn.Conv2d(channels[0], 12, 3, padding=1), nn.PixelShuffle(2)
        )
        even = torch.full((settings.age_dims,), settings.age_dims**-0.5)
        if settings.age_dims == 1:
            self.register_buffer("direction", even)
        else:
            self.direction = nn.Parameter(even)
        self.age_head = nn.Linear(settings.age_dims, 1)
        with torch.no_grad():
            self.age_head.weight.copy_(even)
            self.age_head.bias.zero_()
        self.to(memory_format=torch.channels_last)

    def age_code(self, ages: Tensor) -> Tensor:
        """The mean of z_age at `ages` (...) years, (..., age_dims)."""
        return ((ages.float() - MIDDLE) / UNIT)[..., None] * F.normalize(self.direction, dim=0)

    def prior_std(self, ages: Tensor) -> Tensor:
        """The standard deviation of z_age about known ages (B, 2) low and high, (B,): wider for an interval, by the
        variance of an age that may be anywhere in it."""
        width = (ages[:, 1] - ages[:, 0]).float()
        return (self.settings.prior_years**2 + width.square() / 12).sqrt() / UNIT

    def age_of(self, z_age: Tensor) -> Tensor:
        """The age that the head reads in z_age (..., age_dims), (...) years."""
        with torch.autocast(z_age.device.type, enabled=False):
            return MIDDLE + UNIT * self.age_head(z_age.float()).squeeze(-1)

    def forward(self, images: Tensor, ages: Tensor | None = None, attributes: Tensor | None = None) -> Posterior:
        """`encode`, as a call of the network."""
        return self.encode(images, ages, attributes)

    def encode(self, images: Tensor, ages: Tensor | None = None, attributes: Tensor | None = None) -> Posterior:
        """The posterior of uint8 or float [0, 1] pictures (B, 3, H, W).

        `ages` (B,) years (NaN unknown) and `attributes` (as `decode` takes them) are looked at by the conditional
        baseline alone, whose z_age is the age it was told.
        """
        x = resized(as_float(images), self.input_size) * 2 - 1
        features = self.encoder(x.contiguous(memory_format=torch.channels_last)).flatten(1)
        count = self.settings.age_dims
        with torch.autocast(images.device.type, enabled=False):
            features = features.float()
            if self.unknown_age is None:
                mean, log_variance = self.posterior(features).chunk(2, dim=1)
                log_variance = log_variance.clamp(*LOG_VARIANCE)
                if self.usual is not None:
                    z_age = mean[:, :count]
                    mean = torch.cat([z_age, self.usual.differing(mean[:, count:], z_age)], dim=1)
                    narrowed = log_variance[:, count:] - 2 * self.usual(z_age)[1]
                    log_variance = torch.cat([log_variance[:, :count], narrowed], dim=1)
                return Posterior(mean, log_variance, count)
            told = self._told_age(ages, len(images))
            condition = self._condition(told, attributes).float()
            mean, log_variance = self.posterior(torch.cat([features, condition], dim=1)).chunk(2, dim=1)
            exact = torch.full_like(told, -torch.inf)
            spread = torch.cat([exact, log_variance.clamp(*LOG_VARIANCE)], dim=1)
            return Posterior(torch.cat([told, mean], dim=1), spread, count)

    def decode(self, z: Tensor, attributes: Tensor | None = None) -> Tensor:
        """Codes (B, age_dims + id_dims), z_age first, to pictures (B, 3, size, size), float32 in [0, 1].

        `attributes` is (B, number of `settings.attributes`) int64 codes into their vocabularies, -1 where unknown;
        None: all are.
        """
        z_age, z_id = z[:, : self.settings.age_dims], z[:, self.settings.age_dims :]
        condition = self._condition(z_age, attributes)
        if self.usual is not None:
            z_id = self.usual.features(z_id, z_age)
        x = self.root(z_id).unflatten(1, (-1, SMALLEST, SMALLEST)).contiguous(memory_format=torch.channels_last)
        for block in self.decoder:
            x = block(x, condition)
        return self.paint(x).float().sigmoid()

    def render(
        self,
        images: Tensor,
        ages: Tensor,
        source_ages: Tensor | None = None,
        attributes: Tensor | None = None,
        *,
        residual: bool | None = None,
    ) -> Tensor:
        """See `Renderer.render`; z_id is the posterior's mean, z_age the code of the age asked for.

        With `residual` (None: as the settings say) a picture is the given one plus the difference of two decoded
        ones, at the age asked for and at its own: what the code does not hold stays, the person above all.
        """
        check_ages(ages, len(images))
        codes = self._moved(images, ages, source_ages, attributes)
        return self.render_codes(images, *codes, attributes, residual=residual)

    def shown(
        self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None, attributes: Tensor | None = None
    ) -> Change:
        """What is added to the pictures to show them at `ages`, at working size: the difference of two decoded ones."""
        return Change(self._decoded(*self._moved(images, ages, source_ages, attributes), attributes, True))

    def render_codes(
        self,
        images: Tensor,
        own_age: Tensor,
        z_ages: Tensor,
        own_id: Tensor,
        z_ids: Tensor,
        attributes: Tensor | None = None,
        *,
        residual: bool | None = None,
    ) -> Tensor:
        """Pictures (B, A, 3, H, W) of the codes `z_ages` (B, A, age_dims) with `z_ids` (B, id_dims) or (B, A, id_dims).

        `own_age` (B, age_dims) and `own_id` (B, id_dims) are the code of the pictures as they are.
        """
        residual = self.settings.residual if residual is None else residual
        made = self._decoded(own_age, z_ages, own_id, z_ids, attributes, residual)
        given = as_float(images)
        return (laid_over(given, Change(made)) if residual else enlarged(made, given)).clamp(0, 1)

    def _moved(
        self, images: Tensor, ages: Tensor, source_ages: Tensor | None, attributes: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The codes of pictures as they are and at `ages`, as `render_codes` takes them."""
        posterior = self.encode(images, source_ages, attributes)
        z_age, z_id = posterior.age[0], posterior.identity[0]
        if source_ages is not None:
            guess, z_age = (
                z_age,
                torch.where(source_ages.isnan()[:, None], z_age, self.age_code(source_ages.nan_to_num())),
            )
            if self.usual is not None:  # the same features, beside what is usual at the age that is told
                z_id = self.usual.differing(self.usual.features(z_id, guess), z_age)
        return z_age, self.age_code(ages), z_id, z_id

    def _decoded(
        self,
        own_age: Tensor,
        z_ages: Tensor,
        own_id: Tensor,
        z_ids: Tensor,
        attributes: Tensor | None,
        residual: bool,
    ) -> Tensor:
        """Pictures of codes at working size (B, A, 3, S, S); with `residual` what they have more than the own code's,
        as strongly as it is shown."""
        count, steps = z_ages.shape[:2]
        z_ids = z_ids[:, None].expand(-1, steps, -1) if z_ids.ndim == 2 else z_ids
        codes = torch.cat([z_ages, z_ids], dim=2)
        if residual:
            codes = torch.cat([torch.cat([own_age, own_id], dim=1)[:, None], codes], dim=1)
        known = None if attributes is None else attributes.repeat_interleave(codes.shape[1], dim=0)
        pictures = self.decode(codes.flatten(0, 1), known).unflatten(0, (count, -1))
        if residual:
            pictures = pictures[:, 1:] - pictures[:, :1]
            if not self.training:
                pictures = self.settings.strength * toned(pictures, self.settings.colour)
        return pictures

    def codes_of(self, columns: Mapping[str, np.ndarray]) -> Tensor | None:
        """The attributes that the decoder is told, (N, K) int64, from a manifest's columns; None: it is told none."""
        names = self.settings.attributes
        return torch.stack([torch.as_tensor(columns[name]) for name in names], dim=1) if names else None

    def _told_age(self, ages: Tensor | None, count: int) -> Tensor:
        assert self.unknown_age is not None
        if ages is None:
            return self.unknown_age.expand(count, -1)
        return torch.where(ages.isnan()[:, None], self.unknown_age, self.age_code(ages.nan_to_num()))

    def _condition(self, z_age: Tensor, attributes: Tensor | None) -> Tensor:
        parts = [z_age]
        for place, name in enumerate(self.settings.attributes):
            embedding = self.attributes[name]
            unknown_code = len(VOCABULARIES[name])
            codes = torch.full((len(z_age),), -1, device=z_age.device) if attributes is None else attributes[:, place]
            parts.append(embedding(torch.where(codes < 0, unknown_code, codes)))
        return self.condition(torch.cat(parts, dim=1))


def _channels(settings: BetaVaeSettings) -> list[int]:
    """Channels at each scale, from half the side to the smallest map.

    Whole pictures are four of half the side: blocks at the whole side would take more time than all others together.
    """
    halvings = int(np.log2(settings.size // 2 // SMALLEST))
    return [min(settings.width * 2**place, 4 * settings.width) for place in range(halvings + 1)]
