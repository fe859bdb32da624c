from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mien.tasks.grid import GridSettings, argmax, bin_of, mean, median, std


def distributions(bins: int, n: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (4 * torch.randn(n, bins, generator=generator, dtype=torch.float64)).softmax(1)


GRIDS = [GridSettings(), GridSettings(first=1, last=90, step=2), GridSettings(groups=[3, 10, 20, 60])]


@pytest.mark.parametrize("grid", GRIDS, ids=["years", "two years", "groups"])
def test_median_is_where_the_cumulative_curve_crosses_a_half(grid: GridSettings) -> None:
    edges = grid.edges()
    pmf = distributions(len(edges) - 1)
    cumulative = np.concatenate([np.zeros((60, 1)), np.cumsum(pmf.numpy(), axis=1)], axis=1)
    reference = [np.interp(0.5, curve, edges.numpy()) for curve in cumulative]
    np.testing.assert_allclose(median(pmf, edges).numpy(), reference, atol=1e-9)


@pytest.mark.parametrize("grid", GRIDS, ids=["years", "two years", "groups"])
def test_mean_std_and_argmax_against_a_sample(grid: GridSettings) -> None:
    edges = grid.edges().numpy()
    pmf = distributions(len(edges) - 1, n=5)
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    generator = np.random.default_rng(0)
    for row, m, s, top in zip(
        pmf.numpy(), mean(pmf, grid.edges()), std(pmf, grid.edges()), argmax(pmf, grid.edges()), strict=True
    ):
        assert float(m) == pytest.approx(np.average(middle, weights=row), abs=1e-6)
        bins = generator.choice(len(row), 200_000, p=row)
        sample = middle[bins] + width[bins] * (generator.random(200_000) - 0.5)
        assert float(s) == pytest.approx(sample.std(), rel=0.02)
        assert float(top) == middle[np.argmax(row)]


def test_a_grid_of_two_years_does_not_round() -> None:
    edges = GridSettings(first=1, last=90, step=2).edges()
    index = bin_of(torch.tensor([40.0]), edges)
    pmf = torch.zeros(1, len(edges) - 1)
    pmf[0, index], pmf[0, index - 1] = 0.6, 0.4
    assert float(median(pmf, edges)) == pytest.approx(38.5 + 2 * 0.1 / 0.6)


def test_a_certain_distribution_gives_its_year_and_a_half_at_an_edge_the_edge() -> None:
    edges = GridSettings().edges()
    pmf = torch.zeros(2, 101)
    pmf[0, 37] = 1
    pmf[1, 30] = pmf[1, 50] = 0.5
    torch.testing.assert_close(median(pmf, edges), torch.tensor([37.0, 30.5]))


def test_bins_are_clamped_into_the_grid() -> None:
    edges = GridSettings(first=10, last=19, step=5).edges()
    assert bin_of(torch.tensor([0.0, 10.0, 14.0, 15.0, 19.0, 116.0]), edges).tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"first": 50, "last": 50}, "not above"),
        ({"step": 2}, "make `last` 99"),
        ({"first": 0, "last": 9, "step": 10}, "make `last` 19"),
        ({"groups": [20, 10]}, "do not rise"),
        ({"groups": [0, 10]}, "do not rise"),
        ({"groups": []}, "do not rise"),
        ({"groups": [50, 101]}, "do not rise"),
        ({"last": 121}, "less than or equal to 120"),
    ],
)
def test_grids_that_make_no_sense(values: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        GridSettings(**values)


def test_the_corrections_offered_are_right() -> None:
    GridSettings(step=2, last=99)
    GridSettings(first=0, last=19, step=10)


def test_means_are_not_rounded_by_autocast() -> None:
    edges = torch.arange(102) - 0.5
    pmf = torch.zeros(3, 101)
    for row, age in enumerate((20, 50, 70)):
        pmf[row, age], pmf[row, age + 1] = 0.7, 0.3
    with torch.autocast("cpu", torch.bfloat16):
        found = mean(pmf, edges)
    torch.testing.assert_close(found, torch.tensor([20.3, 50.3, 70.3]))
