"""Renderers that know nothing of faces: what any other must beat."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mien.faces import Crop
from mien.models.renderer import as_float, check_ages, resized


class Copy(nn.Module):
    """The picture as it is, at every age: identity is kept whole, and nothing happens."""

    name = "copy of the input"

    def __init__(self, crop: Crop, size: int) -> None:
        super().__init__()
        self.crop, self.input_size, self.ages = crop, size, (0.0, 120.0)
        self.card: dict[str, Any] = {}

    def render(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Tensor:
        """See `Renderer.render`."""
        check_ages(ages, len(images))
        return as_float(images)[:, None].expand(-1, ages.shape[1], -1, -1, -1)


class MeanFace(nn.Module):
    """The mean face of those as old, whoever is to be shown: the age is right, nobody is left.

    Args:
        means: (G, 3, S, S) float32 in [0, 1], the mean pictures of faces about `years`, (G,) rising.
    """

    name = "mean face of the age"
    means: Tensor
    years: Tensor

    def __init__(self, crop: Crop, means: Tensor, years: Tensor) -> None:
        super().__init__()
        self.crop, self.input_size = crop, int(means.shape[-1])
        self.ages = (float(years[0]), float(years[-1]))
        self.card: dict[str, Any] = {}
        self.register_buffer("means", means)
        self.register_buffer("years", years)

    def render(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Tensor:
        """See `Renderer.render`."""
        check_ages(ages, len(images))
        return self.mean(ages, images.shape[-1]).clamp(0, 1)

    def mean(self, ages: Tensor, side: int) -> Tensor:
        """The mean pictures of the years nearest to `ages` (...), (..., 3, side, side)."""
        nearest = (ages[..., None] - self.years).abs().argmin(dim=-1)
        return resized(self.means, side)[nearest]


class PixelShift(MeanFace):
    """The picture, and what the mean face of the age asked for has more than that of its own age.

    A face whose age is not told is taken to be as old as the mean face that it is nearest to, pixel by pixel.
    """

    name = "shift by pixel means"

    def render(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Tensor:
        """See `Renderer.render`."""
        check_ages(ages, len(images))
        pictures, side = as_float(images), images.shape[-1]
        apart = (pictures[:, None] - resized(self.means, side)).square().mean(dim=(2, 3, 4))
        own = self.years[apart.argmin(dim=1)]
        if source_ages is not None:
            own = torch.where(source_ages.isnan(), own, source_ages)
        return (pictures[:, None] + self.mean(ages, side) - self.mean(own, side)[:, None]).clamp(0, 1)
