"""A renderer that looks at what it made: each face at each age changes as far as it takes to look that age."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from mien.errors import MienError
from mien.models.estimator import Estimator, weights_hash
from mien.models.renderer import Changing, Renderer, as_float, check_ages, laid_over, resized, strength_of

#: Shares of the change that are tried, none of it first; what lies between them is interpolated. Much more than all
#: of it is no face.
TRIED = (0.0, 0.4, 0.7, 0.9, 1.1, 1.4)
#: Shares that can be shown.
SHOWN = np.linspace(TRIED[0], TRIED[-1], 29)
#: Pictures that the estimator sees at once: somebody may ask for a thousand ages.
TOGETHER = 64
#: Years off its age that a face may look without changing further: more change is less of the person.
ENOUGH = 2.0
#: Years that it has to come nearer, beyond that, for the whole change once more.
PRICE = 1.0


class AimedSettings(BaseModel):
    """What decides how an aimed renderer shows faces, beside weights."""

    renderer: dict[str, Any]
    estimator: str
    tried: tuple[float, ...] = TRIED
    enough: float = ENOUGH
    price: float = PRICE


class Aimed(nn.Module):
    """The faces of a renderer that changes pictures, each at each age changed so far that the years by which it is more
    than `ENOUGH` off to an estimator of ages, and `PRICE` times the share of the change, are the least together.

    It takes one pass of the renderer, and of the estimator one a face and one a face and age for each of `TRIED` but
    the first. The estimator is flattered by what it has chosen: another one has to judge.

    Raises:
        MienError: the renderer does not change pictures but makes new ones; the estimator tells no age, or learnt from
            faces that were cut otherwise.
    """

    def __init__(self, renderer: Renderer, estimator: Estimator) -> None:
        super().__init__()
        name = renderer.name or type(renderer).__name__
        if strength_of(renderer) is None:
            raise MienError(f"{name} adds no change to the picture, so nothing can be aimed; leave the aim out")
        if "age" not in estimator.tasks:
            raise MienError(f"{estimator.name} tells no age; aim by an estimator that does, such as face-mobile")
        mine, its = renderer.crop, estimator.crop
        if not mine.same_view(its):
            raise MienError(
                f"{name} shows faces as {mine.template} with margin {mine.margin:g}, {estimator.name} sees them as "
                f"{its.template} with {its.margin:g}; aim by an estimator that learnt from the same crops"
            )
        assert isinstance(renderer, nn.Module)
        self.renderer = renderer
        self.estimator: Estimator = estimator
        own: BaseModel = renderer.settings  # type: ignore[assignment]
        self.settings = AimedSettings(renderer=own.model_dump(mode="json"), estimator=weights_hash(estimator))
        self.name = f"{name}, aimed by {estimator.name}"
        self.learnt = getattr(renderer, "learnt", None)
        self.crop, self.ages = renderer.crop, renderer.ages
        self.card: dict[str, Any] = renderer.card

    @property
    def input_size(self) -> int:
        """Side in pixels of the pictures that the renderer works on."""
        size: int = self.renderer.input_size
        return size

    @torch.no_grad()
    def render(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Tensor:
        """See `Renderer.render`."""
        check_ages(ages, len(images))
        ages = ages.float()
        change = cast(Changing, self.renderer).shown(images, ages, source_ages)
        given = as_float(images)
        small = resized(given, self.estimator.input_size)
        # Without any change a face looks the same at all ages: it is seen once.
        judged = [np.broadcast_to(self._looks(small)[:, None], ages.shape)]
        for share in TRIED[1:]:
            made = laid_over(small, change.times(share)).clamp(0, 1).flatten(0, 1)
            judged.append(self._looks(made).reshape(ages.shape))
        shares = torch.as_tensor(best_shares(np.stack(judged), ages.cpu().numpy()), dtype=torch.float32)
        return laid_over(given, change.times(shares.to(given.device))).clamp(0, 1)

    def _looks(self, pictures: Tensor) -> np.ndarray:
        """The years that pictures (N, 3, S, S) look, (N,)."""
        return np.concatenate([self.estimator.predict(part)["age"] for part in pictures.split(TOGETHER)])


def best_shares(judged: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """For faces that at the shares `TRIED` of their change look `judged` (K, ...) years, the one of `SHOWN` (...) at
    which they look nearest to `asked` (...) years, `ENOUGH` and `PRICE` considered; in between, years are on straight
    lines."""
    between = np.stack([np.interp(SHOWN, TRIED, row) for row in np.eye(len(TRIED))])
    looks = np.tensordot(judged.astype(np.float64), between, axes=(0, 0))
    cost = np.maximum(np.abs(looks - asked[..., None]) - ENOUGH, 0) + PRICE * SHOWN
    best: np.ndarray = SHOWN[cost.argmin(axis=-1)]
    return best
