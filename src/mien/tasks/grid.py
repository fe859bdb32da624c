"""The bins that ages are counted in, and how a distribution over them becomes one age."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from mien.faces import MAX_AGE, MIN_AGE


class GridSettings(BaseModel):
    """Bins of whole years: 101 single ones, 0 to 100, by default. Seed 000's 44 thresholds: 1 to 90, step 2.

    A label of a years is a bin round a (a - 0.5 to a + 0.5), so that the middle of a single-year bin is its
    label. Labels outside the grid are counted in its first or last bin.
    """

    model_config = ConfigDict(extra="forbid")

    first: int = Field(default=0, ge=MIN_AGE, le=MAX_AGE, description="youngest age in years")
    last: int = Field(default=100, ge=MIN_AGE, le=MAX_AGE, description="oldest age; older faces are counted as it")
    step: int = Field(default=1, ge=1, description="years to a bin")
    groups: list[int] | None = Field(
        default=None,
        description="the first year of each bin after the first, instead of `step`: [10, 20, 30, ...]",
    )

    @model_validator(mode="after")
    def _whole(self) -> GridSettings:
        if self.last <= self.first:
            raise ValueError(f"last age {self.last} is not above the first, {self.first}")
        if self.groups is not None:
            starts = [self.first, *self.groups]
            if not self.groups or any(b <= a for a, b in zip(starts, [*self.groups, self.last + 1], strict=True)):
                raise ValueError(f"groups {self.groups} do not rise between {self.first + 1} and {self.last}")
        elif (self.last - self.first + 1) % self.step or self.last - self.first + 1 == self.step:
            years = self.last - self.first + 1
            raise ValueError(
                f"the {years} years {self.first}-{self.last} do not make two or more bins of {self.step}; "
                f"make `last` {self.first + self.step * max(2, years // self.step) - 1}"
            )
        return self

    def edges(self) -> Tensor:
        """Edges of the bins in years, (bins + 1,) float32, rising; the inner ones are the thresholds."""
        starts = range(self.first, self.last + 1, self.step) if self.groups is None else [self.first, *self.groups]
        return torch.tensor([*starts, self.last + 1], dtype=torch.float32) - 0.5


def bin_of(ages: Tensor, edges: Tensor) -> Tensor:
    """Index of the bin of each age (B,), int64: how many thresholds it has reached. Clamped into the grid."""
    return torch.searchsorted(edges[1:-1].to(ages.dtype), ages.contiguous(), right=True)


def centres(edges: Tensor) -> Tensor:
    """The middle of each bin in years, (bins,)."""
    return (edges[1:] + edges[:-1]) / 2


def mean(pmf: Tensor, edges: Tensor) -> Tensor:
    """Expected age of each distribution (B, bins), (B,) years: least squared error."""
    # No matrix product: under autocast that would be one in half precision, whatever it is given.
    return (pmf * centres(edges).to(pmf.dtype)).sum(1)


def median(pmf: Tensor, edges: Tensor) -> Tensor:
    """The age that half of each distribution (B, bins) lies below, (B,) years: least absolute error.

    Linear inside the bin that holds it, so a grid of two years does not round to two years.
    """
    edges = edges.to(pmf.dtype)
    cumulative = pmf.cumsum(1)
    half = cumulative[:, -1:] / 2
    bins = (cumulative < half).sum(1, keepdim=True).clamp_max(pmf.shape[1] - 1)
    inside = pmf.gather(1, bins)
    below = cumulative.gather(1, bins) - inside
    share = ((half - below) / inside.clamp_min(torch.finfo(pmf.dtype).tiny)).clamp(0, 1)
    return (edges[bins] + share * (edges[bins + 1] - edges[bins])).squeeze(1)


def argmax(pmf: Tensor, edges: Tensor) -> Tensor:
    """The middle of each distribution's likeliest bin, (B,) years."""
    return centres(edges).to(pmf.dtype)[pmf.argmax(1)]


def std(pmf: Tensor, edges: Tensor) -> Tensor:
    """Standard deviation of each distribution, (B,) years, each bin's mass spread evenly over the bin."""
    middle, width = centres(edges).to(pmf.dtype), edges.diff().to(pmf.dtype)
    spread = (middle - mean(pmf, edges)[:, None]) ** 2 + width**2 / 12
    return (pmf * spread).sum(1).sqrt()


#: How a distribution (B, bins) over bins with edges (bins + 1,) becomes one age a face, (B,) years.
DECODERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": mean, "median": median, "argmax": argmax}
