"""The age flow: a face is carried to noise at its own age, and back from there at another.

A velocity field, told the age, moves pictures of that age into white noise along straight lines on average (flow
matching: Lipman et al., 2023, https://arxiv.org/abs/2210.02747; Liu et al., 2023, https://arxiv.org/abs/2209.03003).
What a face has beside its age is then in its noise, which another age's field carries back: two flows that are joined
there are a bridge between ages that needs no pairs (Su et al., 2023, https://arxiv.org/abs/2203.08382).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mien.faces import VOCABULARIES, Crop
from mien.models.age_transformer import FOURIER, fourier
from mien.models.renderer import STRONGEST, Change, RenderingNetwork, as_float, check_ages, laid_over, resized, toned
from mien.models.residual import GROUPS, Block

#: Side of the smallest map.
SMALLEST = 4
#: Length of the vector that modulates the blocks, and of what each label adds to what it is made of.
CONDITION, LABEL = 192, 16
#: Years between the ages that are tried as a face's own, and the times at which.
APART, TIMES = 5.0, (0.3, 0.6)


class AgeFlowSettings(BaseModel):
    """What the network is. `width` is the dial: parameters grow with its square."""

    model_config = ConfigDict(extra="forbid")

    size: Literal[32, 64, 128, 256] = Field(default=64, description="side in pixels of the pictures it works on")
    width: int = Field(default=64, ge=8, multiple_of=8, description="channels at half the side; twice as many below")
    told: list[str] = Field(
        default_factory=list,
        description="labels, beside the age, that it is told where known: gender, race, expression, or numbers",
    )
    withhold: float = Field(default=0.1, ge=0, le=1, description="share of training faces whose labels are hidden")
    steps: int = Field(default=8, ge=1, le=100, description="midpoint steps to the noise, and as many back")
    enter: float = Field(
        default=0.1, ge=0, lt=1, description="time at which a picture sets out and its changed one is taken"
    )
    strength: float = Field(
        default=1.0, gt=0, le=STRONGEST, description="how much of the change is shown; training has all"
    )
    colour: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="how much of that change's colour is shown: 0 changes brightness alone; training has all",
    )


class AgeFlow(RenderingNetwork):
    """The velocity of noisy pictures by their age: a U-Net whose blocks are modulated by time and age.

    Time runs from 0, a picture in [-1, 1], to 1, standard normal noise: x(t) = (1 - t) picture + t noise. Nothing in it
    is random. It does not guess a face's own age: it is told, or looks for the one at which the face is likeliest.
    """

    settings: AgeFlowSettings
    usual: Tensor

    def __init__(self, settings: AgeFlowSettings, crop: Crop) -> None:
        super().__init__(settings, settings.size, crop)
        halvings = (settings.size // 2 // SMALLEST).bit_length() - 1
        channels = [settings.width, *[2 * settings.width] * halvings]
        self.labels = nn.ModuleDict(
            {
                name: nn.Embedding(len(VOCABULARIES[name]) + 1, LABEL) if name in VOCABULARIES else nn.Linear(2, LABEL)
                for name in settings.told
            }
        )
        #: Mean and deviation of each label that is a number, among the training faces.
        self.register_buffer("usual", torch.tensor([[0.0, 1.0]] * len(settings.told)).reshape(-1, 2))
        self.condition = nn.Sequential(
            nn.Linear(2 * FOURIER + LABEL * len(settings.told), CONDITION),
            nn.SiLU(),
            nn.Linear(CONDITION, CONDITION),
            nn.SiLU(),
        )
        self.read = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, channels[0], 3, padding=1))
        self.first = Block(channels[0], channels[0], CONDITION)
        self.down = nn.ModuleList(Block(a, b, CONDITION, stride=2) for a, b in pairwise(channels))
        self.keep = nn.ModuleList(Block(width, width, CONDITION) for width in channels)
        self.up = nn.ModuleList(Block(b, a, CONDITION, grow=True) for a, b in pairwise(channels))
        self.join = nn.ModuleList(Block(2 * width, width, CONDITION) for width in channels[:-1])
        self.last = Block(channels[0], channels[0], CONDITION)
        paint = nn.Conv2d(channels[0], 12, 3, padding=1)
        nn.init.zeros_(paint.weight)
        self.paint = nn.Sequential(nn.GroupNorm(GROUPS, channels[0]), nn.SiLU(), paint, nn.PixelShuffle(2))
        self.to(memory_format=torch.channels_last)

    def forward(self, noisy: Tensor, times: Tensor, ages: Tensor, labels: Tensor | None = None) -> Tensor:
        """The velocity (B, 3, S, S) float32, noise less picture, of `noisy` (B, 3, S, S) at `times` (B,) in [0, 1] for
        faces of `ages` (B,) years; `labels` as `labels_of` gives them, None: all unknown."""
        # A time is told as an age is, a century long.
        parts = [fourier(100 * times), fourier(ages), *self._known(labels, len(ages))]
        condition = self.condition(torch.cat(parts, dim=1))
        x = self.first(self.read(noisy.contiguous(memory_format=torch.channels_last)), condition)
        skips = []
        for place, keep in enumerate(self.keep):
            if place:
                x = self.down[place - 1](x, condition)
            x = keep(x, condition)
            skips.append(x)
        for place in reversed(range(len(self.up))):
            x = self.join[place](torch.cat([self.up[place](x, condition), skips[place]], dim=1), condition)
        velocity: Tensor = self.paint(self.last(x, condition)).float()
        return velocity

    def labels_of(self, columns: Mapping[str, np.ndarray]) -> Tensor | None:
        """What it is told of faces beside their age, (N, K) float32, NaN where unknown, from a manifest's columns; None
        where it is told nothing."""
        names = self.settings.told
        if not names:
            return None
        values = torch.stack([torch.as_tensor(columns[name]).float() for name in names], dim=1)
        words = torch.tensor([name in VOCABULARIES for name in names])
        return values.masked_fill(words & (values < 0), torch.nan)

    def fit(self, labels: Tensor | None) -> None:
        """Take the mean and the deviation of each number among the labels (N, K) of the training faces."""
        for place, name in enumerate(self.settings.told):
            known = torch.empty(0) if labels is None else labels[:, place][~labels[:, place].isnan()]
            if name not in VOCABULARIES and len(known) > 1:
                self.usual[place] = torch.stack([known.mean(), known.std().clamp_min(1e-6)])

    def carried(self, x: Tensor, ages: Tensor, labels: Tensor | None = None, *, back: bool = False) -> Tensor:
        """Pictures (B, 3, S, S) of `ages` (B,), as noisy as they are at the time `enter`, to their noise, or with
        `back` noise to such pictures, by midpoint steps."""
        enter = self.settings.enter
        step = (1 - enter) / self.settings.steps
        start, step = (1.0, -step) if back else (enter, step)
        for number in range(self.settings.steps):
            now = torch.full_like(ages, start + number * step)
            middle = x + step / 2 * self(x, now, ages, labels)
            x = x + step * self(middle, now + step / 2, ages, labels)
        return x

    def likeliest(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The age (B,) of those it learnt from at which it tells best what is noise and what is picture (B, 3, S, S) in
        [-1, 1] (a diffusion classifier: Li et al., 2023, https://arxiv.org/abs/2303.16203). The same noise for all."""
        youngest, oldest = self.ages
        count = max(3, round((oldest - youngest) / APART) + 1)
        tried = torch.linspace(youngest, oldest, count, device=x.device)
        ages, missed = tried.repeat(len(x)), x.new_zeros(len(x) * count)
        known = None if labels is None else labels.repeat_interleave(count, dim=0)
        noise = _noise(x)
        way = (noise - x).repeat_interleave(count, dim=0)
        for time in TIMES:
            noisy = ((1 - time) * x + time * noise).repeat_interleave(count, dim=0)
            missed += (self(noisy, torch.full_like(ages, time), ages, known) - way).square().mean(dim=(1, 2, 3))
        # Between those that were tried: where the parabola through the best and its neighbours is lowest.
        errors = missed.view(-1, count)
        best = errors[:, 1:-1].argmin(dim=1, keepdim=True) + 1
        before, at, after = (errors.gather(1, best + place)[:, 0] for place in (-1, 0, 1))
        off = 0.5 * (before - after) / (before - 2 * at + after).clamp_min(1e-12)
        return tried[best[:, 0]] + off.clamp(-1, 1) * (tried[1] - tried[0])

    def shown(
        self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None, labels: Tensor | None = None
    ) -> Change:
        """What is added to the pictures to show them at `ages`, at working size: what their noise becomes there, less
        what it becomes at the age it came from.

        Pictures set out at the time `enter`, with the noise they have by then, the same for all: the field has seldom
        met a cleaner one, and what of a face is finer than that noise is better left as it is than carried. The mean
        over that noise and its opposite is taken.
        """
        x = resized(as_float(images), self.input_size) * 2 - 1
        own = torch.full((len(x),), torch.nan, device=x.device) if source_ages is None else source_ages.float()
        if bool(own.isnan().any()):
            own = torch.where(own.isnan(), self.likeliest(x, labels), own)
        wanted = torch.cat([own[:, None], ages.float()], dim=1)
        count = wanted.shape[1]
        known = None if labels is None else labels.repeat_interleave(count, dim=0)
        clean = 1 - self.settings.enter
        added = self.settings.enter * _noise(x)
        changes = []
        for entering in (added, -added) if self.settings.enter else (added,):
            noise = self.carried(clean * x + entering, own, labels)
            made = self.carried(noise.repeat_interleave(count, dim=0), wanted.flatten(), known, back=True)
            made = made.unflatten(0, (len(x), count))
            changes.append(made[:, 1:] - made[:, :1])
        change = torch.stack(changes).mean(dim=0) / (2 * clean)
        return Change(self.settings.strength * toned(change, self.settings.colour))

    def render(
        self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """See `Renderer.render`. The change is made at the working size and laid over the pictures at their own."""
        check_ages(ages, len(images))
        return laid_over(as_float(images), self.shown(images, ages, source_ages, labels)).clamp(0, 1)

    def _known(self, labels: Tensor | None, count: int) -> list[Tensor]:
        parts = []
        for place, name in enumerate(self.settings.told):
            told = self.usual.new_full((count,), torch.nan) if labels is None else labels[:, place]
            layer, unknown = self.labels[name], told.isnan()
            if name in VOCABULARIES:
                parts.append(layer(torch.where(unknown, len(VOCABULARIES[name]), told.nan_to_num()).long()))
            else:
                middle, spread = self.usual[place]
                value = ((told - middle) / spread).clamp(-3, 3).nan_to_num()
                parts.append(layer(torch.stack([value, (~unknown).float()], dim=1)))
        return parts


def _noise(x: Tensor) -> Tensor:
    """The same standard normal noise (3, S, S) for every picture of `x`, for ever."""
    return torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
