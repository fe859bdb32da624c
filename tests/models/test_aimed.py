"""An aimed renderer, on a renderer and an estimator whose answers can be computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from torch import Tensor, nn

from mien.errors import MienError
from mien.faces import Crop
from mien.models.aimed import ENOUGH, PRICE, SHOWN, TRIED, Aimed, best_shares
from mien.models.beta_vae import BetaVae, BetaVaeSettings
from mien.models.renderer import Change, laid_over, renderer_hash
from mien.models.trivial import Copy

CROP = Crop("chip", 0.0, 16)


class Settings(BaseModel):
    strength: float = 1.0


class Greyer(nn.Module):
    """Adds a hundredth of white for each year of the age asked for beyond 30, or so much of it."""

    name, crop, ages, input_size = "greyer", CROP, (0.0, 100.0), 8

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.settings, self.card = Settings(strength=strength), {"terms": "none"}

    def shown(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Change:
        added = self.settings.strength * (ages - 30) / 100
        return Change(added[..., None, None, None].expand(-1, -1, 3, 8, 8))

    def render(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Tensor:
        return laid_over(images.float() / 255, self.shown(images, ages)).clamp(0, 1)


class Reader(nn.Module):
    """Takes a hundredth of white for `rate` years."""

    name, crop, input_size, states = "reader", CROP, 12, {}  # type: ignore[var-annotated]

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.settings, self.tasks = rate, {"model": {"rate": rate}}, {"age": None}

    def predict(self, images: Tensor) -> dict[str, Any]:
        assert images.shape[-2:] == (12, 12)
        return {"age": (images.mean(dim=(1, 2, 3)) * 100 * self.rate).numpy()}


def aimed(rate: float, strength: float = 1.0) -> Aimed:
    return Aimed(Greyer(strength), Reader(rate))  # type: ignore[arg-type]


def test_faces_change_as_far_as_it_takes_to_look_their_age() -> None:
    faces = torch.full((2, 3, 16, 16), 76, dtype=torch.uint8)  # .298 of white: 29.8 years, or half as much again
    given = 76 / 255
    ages = torch.tensor([[30.0, 50.0, 70.0], [45.0, 40.0, 60.0]])
    for rate, strength in ((1.0, 1.0), (1.5, 1.0), (1.0, 0.6), (1.0, 1.3)):
        made = aimed(rate, strength).render(faces, ages)
        assert made.shape == (2, 3, 3, 16, 16)
        white = (ages - 30) / 100 * strength  # what the whole change adds
        found = made[:, :, 0, 0, 0] - given
        off = ages - 100 * rate * made[:, :, 0, 0, 0]
        least = found.abs() < 1e-6
        most = ((found - TRIED[-1] * white).abs() < 1e-6) & ~least
        step = 100 * rate * white * (SHOWN[1] - SHOWN[0]) + 1e-3  # years between two shares
        # It stops short of the age by what is enough, unless it need not begin or cannot go on.
        assert (least | most | ((off >= ENOUGH - step) & (off <= ENOUGH + step))).all(), (rate, strength)
        assert (off[least] <= ENOUGH + 1e-3).all()
        assert (off[most] >= ENOUGH - step[most]).all()
    assert aimed(1.5).render(faces, ages[:, :1])[1, 0, 0, 0, 0] == pytest.approx(given)  # it looks 45 as it is
    assert aimed(1.0).name == "greyer, aimed by reader"
    assert aimed(1.0).card == {"terms": "none"}
    assert len({renderer_hash(one) for one in (aimed(1.0), aimed(1.5), aimed(1.0, 0.6))}) == 3


@given(st.lists(st.floats(0, 100), min_size=len(TRIED), max_size=len(TRIED)), st.floats(0, 100))
def test_no_other_share_is_nearer_for_its_price(judged: list[float], asked: float) -> None:
    found = float(best_shares(np.array(judged)[:, None], np.array([asked]))[0])
    cost = [max(abs(np.interp(share, TRIED, judged) - asked) - ENOUGH, 0) + PRICE * share for share in SHOWN]
    assert cost[int(np.abs(SHOWN - found).argmin())] == pytest.approx(min(cost))


def test_what_cannot_be_aimed_is_refused() -> None:
    with pytest.raises(MienError, match="copy of the input adds no change to the picture"):
        Aimed(Copy(CROP, 16), Reader(1.0))  # type: ignore[arg-type]
    decoded = BetaVae(BetaVaeSettings(size=32, width=8, id_dims=4, residual=False), CROP)
    with pytest.raises(MienError, match="adds no change to the picture"):
        Aimed(decoded, Reader(1.0))  # type: ignore[arg-type]
    silent = Reader(1.0)
    silent.tasks = {}
    with pytest.raises(MienError, match="reader tells no age; aim by an estimator that does, such as face-mobile"):
        Aimed(Greyer(), silent)  # type: ignore[arg-type]
    other = Reader(1.0)
    other.crop = Crop("chip", 0.4, 16)
    with pytest.raises(MienError, match=r"as chip with margin 0, reader sees them as chip with 0\.4; aim by"):
        Aimed(Greyer(), other)  # type: ignore[arg-type]
    with pytest.raises(MienError, match="age 130 to render"):
        aimed(1.0).render(torch.zeros(1, 3, 16, 16), torch.tensor([[130.0]]))
