"""Shift vectors: each estimator finds the direction that codes were made with; what cannot be told is said."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from mien.errors import MienError
from mien.faces import Crop
from mien.models.beta_vae import BetaVae, BetaVaeSettings
from mien.models.shift import METHODS, Method, render_shifted, shift

DIRECTION = np.array([0.04, 0.01, -0.02, 0.0, 0.03])


class Planted:
    """Codes that move by `DIRECTION` a year, and otherwise by gender, race, person and noise."""

    def __init__(self, noise: float = 0.02, count: int = 600) -> None:
        rng = np.random.default_rng(0)
        self.persons = np.repeat(np.arange(count // 3), 3)
        self.genders = np.repeat(rng.integers(0, 2, count // 3), 3)
        self.races = np.repeat(rng.integers(-1, 4, count // 3), 3)
        # Men are older here: means that are not freed of gender take its offset for age.
        self.ages = np.clip(rng.uniform(5, 60, count) + 25 * (self.genders == 0), 0, 100)
        self.gender_offset, self.race_offset = rng.normal(0, 1, (2, 5)), rng.normal(0, 1, (5, 5))
        self.plain = self.ages[:, None] * DIRECTION + rng.normal(0, noise, (count, 5))
        self.codes = self.plain + self.gender_offset[self.genders] + self.race_offset[self.races]


@pytest.mark.parametrize("method", ["means", "ridge", "pairs"])
def test_a_planted_direction_is_found(method: Method) -> None:
    made = Planted()
    # Ridge finds what tells age best: it is judged where age alone moves the code.
    codes = made.plain if method == "ridge" else made.codes
    ages = made.ages.copy()
    ages[::7] = np.nan
    codes = np.where(np.isnan(ages)[:, None], 99.0, codes)  # a face without an age says nothing
    found = shift(method, codes, ages, made.genders, made.races, made.persons)
    np.testing.assert_allclose(found, DIRECTION, atol=0.002)


def test_means_not_freed_of_gender_take_it_for_age() -> None:
    made = Planted()
    assert np.abs(shift("means", made.codes, made.ages) - DIRECTION).max() > 0.01


def test_pairs_are_all_pairs_of_each_person() -> None:
    made = Planted(noise=1.0, count=30)
    above, below = np.zeros(5), 0.0
    for i, j in combinations(range(30), 2):
        if made.persons[i] == made.persons[j]:
            years = made.ages[j] - made.ages[i]
            above += (made.codes[j] - made.codes[i]) * years
            below += years**2
    np.testing.assert_allclose(shift("pairs", made.codes, made.ages, persons=made.persons), above / below)


def test_ridge_adds_a_year_to_what_the_regression_says() -> None:
    made = Planted(noise=0.3)
    found = shift("ridge", made.codes, made.ages)
    x, y = made.codes - made.codes.mean(0), made.ages - made.ages.mean()
    weights = np.linalg.lstsq(
        np.vstack([x, np.sqrt(0.01 * len(x)) * np.eye(5)]), np.concatenate([y, np.zeros(5)]), rcond=None
    )[0]
    assert weights @ found == pytest.approx(1)
    np.testing.assert_allclose(found / np.linalg.norm(found), weights / np.linalg.norm(weights))


def test_what_cannot_be_told_is_refused() -> None:
    made = Planted()
    with pytest.raises(MienError, match="unknown shift method 'mean'; did you mean 'means'"):
        shift("mean", made.codes, made.ages)  # type: ignore[arg-type]
    for method in METHODS[1:]:
        with pytest.raises(MienError, match=f"shift by {method}: 4 faces of known age"):
            shift(method, made.codes[:4], made.ages[:4], persons=made.persons[:4])
    with pytest.raises(MienError, match="nobody is named"):
        shift("pairs", made.codes, made.ages)
    with pytest.raises(MienError, match="nobody is shown at two ages"):
        shift("pairs", made.codes, made.ages, persons=np.arange(len(made.ages)))
    with pytest.raises(MienError, match="the codes do not vary"):
        shift("ridge", np.ones((20, 3)), np.arange(20.0))
    with pytest.raises(MienError, match="gender and race tell the age already"):
        shift("means", made.codes[:20], np.arange(20.0), np.arange(20))


@pytest.mark.parametrize("age_dims", [1, 3])
def test_the_conditional_shift_is_rendering_at_a_later_age(age_dims: int) -> None:
    torch.manual_seed(0)
    vae = BetaVae(BetaVaeSettings(size=32, width=8, id_dims=6, age_dims=age_dims), Crop("chip")).eval()
    for name, parameter in vae.named_parameters():
        if "modulation" in name or "conv2" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    line = torch.nn.functional.normalize(vae.direction.detach(), dim=0).numpy()
    change = shift("conditional", np.zeros((1, age_dims + 6)), np.zeros(1), line=line)
    with torch.no_grad():
        posterior = vae.encode(images)
        own, who = posterior.age[0], posterior.identity[0]
        years = torch.tensor([[0.0, 30.0], [-30.0, 12.5]])
        later = own[:, None] + vae.age_code(50 + years)  # 50 has the code 0
        expected = vae.render_codes(images, own, later, who, who)
        found = render_shifted(vae, images, years, change)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found[0, 0], images[0])
    assert (found[0, 1] - images[0]).abs().max() > 1e-3


def test_a_conditional_network_is_told_the_age_that_is_shifted() -> None:
    torch.manual_seed(0)
    vae = BetaVae(BetaVaeSettings(size=32, width=8, id_dims=6, conditional=True), Crop("chip")).eval()
    for name, parameter in vae.named_parameters():
        if "modulation" in name or "conv2" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    images, ages = torch.rand(2, 3, 32, 32), torch.tensor([20.0, 60.0])
    change = shift("conditional", np.zeros((1, 7)), np.zeros(1), line=np.ones(1))
    with torch.no_grad():
        found = render_shifted(vae, images, torch.tensor([[0.0, 30.0]] * 2), change, residual=False, ages=ages)
        torch.testing.assert_close(
            found, vae.render(images, ages[:, None] + torch.tensor([0.0, 30.0]), ages, residual=False)
        )
