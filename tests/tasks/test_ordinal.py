"""Every age method against an independent truth."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from coral_pytorch.dataset import levels_from_labelbatch
from coral_pytorch.losses import coral_loss, corn_loss
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mien.tasks.grid import GridSettings, bin_of
from mien.tasks.ordinal import METHODS, AgeMethod, Coral, Corn, OrCnn

NAMES = [name for name, method in METHODS.items() if method is not None]
THRESHOLD_NAMES = ["coral", "or_cnn"]
DISTRIBUTION_NAMES = ["classification", "dldl", "dldl_v2", "mean_variance", "soft_label"]
SEED_000 = GridSettings(first=1, last=90, step=2)


def make(name: str, grid: GridSettings | None = None, inputs: int = 6) -> AgeMethod:
    method = METHODS[name]
    assert method is not None
    return method(inputs, (grid or GridSettings()).edges())


def logits_of(method: AgeMethod, n: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(n, method.outputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ages(n: int, seed: int = 1) -> Tensor:
    return torch.randint(1, 90, (n,), generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("grid", [GridSettings(), SEED_000], ids=["every year", "44 x 2"])
@pytest.mark.parametrize("name", THRESHOLD_NAMES)
def test_threshold_losses_are_coral_pytorchs(name: str, grid: GridSettings) -> None:
    method, age = make(name, grid), ages(40)
    logits = logits_of(method, 40)
    bins = torch.tensor([int((a - grid.first) // grid.step) for a in age.tolist()])
    levels = levels_from_labelbatch(bins, method.bins, dtype=torch.float64)
    reference = coral_loss(logits, levels, reduction=None) / method.outputs
    torch.testing.assert_close(method.loss(logits, age, age), reference, rtol=1e-12, atol=0)


@pytest.mark.parametrize("grid", [GridSettings(), SEED_000], ids=["every year", "44 x 2"])
def test_corn_loss_is_coral_pytorchs_but_for_the_divisor(grid: GridSettings) -> None:
    method, age = make("corn", grid), ages(40)
    logits = logits_of(method, 40)
    bins = torch.tensor([int((a - grid.first) // grid.step) for a in age.tolist()])
    tasks_that_held = int((bins + 1).clamp_max(method.outputs).sum())
    reference = corn_loss(logits, bins, method.bins) * tasks_that_held / method.outputs
    torch.testing.assert_close(method.loss(logits, age, age).sum(), reference, rtol=1e-12, atol=0)


def by_hand(name: str, logits: np.ndarray, age: float) -> float:
    """The papers' formulas over the 101 years 0-100, in numpy."""
    years = np.arange(101)
    p = scipy.special.softmax(logits)
    nll, expected = -np.log(p[int(age)]), float(p @ years)
    gaussian = scipy.stats.norm.pdf(years, age, 2.0)
    kl = scipy.stats.entropy(gaussian, p)  # normalises, then KL in nats
    if name == "classification":
        return nll
    if name == "dldl":
        return kl
    if name == "dldl_v2":
        return kl + abs(expected - age)
    if name == "mean_variance":
        return nll + 0.2 * (expected - age) ** 2 / 2 + 0.05 * float(p @ (years - expected) ** 2)
    return scipy.stats.entropy(np.exp(-np.abs(years - age)), p)


@pytest.mark.parametrize("name", DISTRIBUTION_NAMES)
def test_distribution_losses_are_the_papers(name: str) -> None:
    method, age = make(name), ages(30)
    logits = logits_of(method, 30)
    reference = [by_hand(name, row.numpy(), float(a)) for row, a in zip(logits, age, strict=True)]
    np.testing.assert_allclose(method.loss(logits, age, age).numpy(), reference, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str) -> None:
    method = make(name, GridSettings(first=20, last=29))
    low = torch.tensor([20.0, 23.0, 29.0, 22.0, 20.0], dtype=torch.float64)
    high = torch.tensor([20.0, 23.0, 29.0, 26.0, 29.0], dtype=torch.float64)
    logits = logits_of(method, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: method.loss(x, low, high), (logits,))
    method.double()
    inputs = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    parameters = tuple(method.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: method.loss(method(x), low, high), (inputs, *parameters))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", [GridSettings(), SEED_000, GridSettings(groups=[3, 10, 20, 60])])
def test_pmf_is_a_distribution(name: str, grid: GridSettings) -> None:
    method = make(name, grid)
    pmf = method.pmf(logits_of(method, 50).float() * 10)
    assert pmf.shape == (50, len(grid.edges()) - 1)
    assert (pmf >= 0).all()
    torch.testing.assert_close(pmf.sum(1), torch.ones(50), rtol=0, atol=1e-5)


finite = st.floats(-1e4, 1e4, width=32)


@settings(deadline=None, max_examples=50)
@given(st.lists(finite, min_size=10, max_size=10), finite, st.lists(finite, min_size=6, max_size=6))
def test_coral_ranks_agree_for_any_weights(gaps: list[float], first: float, vector: list[float]) -> None:
    method = Coral(6, GridSettings(first=10, last=21).edges())
    with torch.no_grad():
        method.gaps.copy_(torch.tensor(gaps))
        method.first.fill_(first)
        method.linear.weight.copy_(torch.tensor(vector))
    logits = method(torch.randn(20, 6))
    assert (logits.diff(dim=1) <= 0).all()
    assert (logits.sigmoid().diff(dim=1) <= 1e-7).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(finite, min_size=11 * 6, max_size=11 * 6), st.lists(finite, min_size=11, max_size=11))
def test_corn_ranks_agree_for_any_weights(weight: list[float], bias: list[float]) -> None:
    method = Corn(6, GridSettings(first=10, last=21).edges())
    with torch.no_grad():
        method.linear.weight.copy_(torch.tensor(weight).reshape(11, 6))
        method.linear.bias.copy_(torch.tensor(bias))
    share = method.pmf(method(torch.randn(20, 6)))
    assert (share >= 0).all()  # so that being older than a later threshold is never the likelier
    torch.testing.assert_close(share.sum(1), torch.ones(20))


def test_or_cnn_ranks_may_disagree_and_its_pmf_keeps_the_sum() -> None:
    method = OrCnn(6, GridSettings(first=10, last=21).edges())
    logits = logits_of(method, 20)
    assert (logits.diff(dim=1) > 0).any()
    pmf = method.pmf(logits)
    older = 1 - pmf.cumsum(1)[:, :-1]
    torch.testing.assert_close(older.sum(1), logits.sigmoid().sum(1))


def test_corn_pmf_is_the_difference_of_its_cumulative_probabilities() -> None:
    method = make("corn")
    logits = logits_of(method, 10)
    older = np.cumprod(scipy.special.expit(logits.numpy()), axis=1)
    reference = -np.diff(np.concatenate([np.ones((10, 1)), older, np.zeros((10, 1))], axis=1), axis=1)
    np.testing.assert_allclose(method.pmf(logits).numpy(), reference, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_head_is_not_sure(name: str) -> None:
    method = make(name)
    pmf = method.pmf(method(torch.zeros(1, 6)))
    assert pmf.max() < 0.1


@pytest.mark.parametrize("name", THRESHOLD_NAMES)
def test_thresholds_inside_an_interval_are_left_out(name: str) -> None:
    method = make(name, GridSettings(first=0, last=9))
    logits = logits_of(method, 1)
    low, high = torch.tensor([3.0]), torch.tensor([6.0])
    x = logits[0].numpy()
    # Older than 0.5, 1.5, 2.5 for sure; 3.5, 4.5, 5.5 unknown; not older than 6.5, 7.5, 8.5.
    reference = (np.log1p(np.exp(-x[:3])).sum() + np.log1p(np.exp(x[6:])).sum()) / 9
    np.testing.assert_allclose(method.loss(logits, low, high).item(), reference, rtol=1e-9)


@pytest.mark.parametrize("name", ["corn", *DISTRIBUTION_NAMES])
def test_an_interval_is_asked_for_its_probability(name: str) -> None:
    method = make(name, GridSettings(first=0, last=9))
    logits = logits_of(method, 8)
    low, high = torch.full((8,), 3.0), torch.full((8,), 6.0)
    reference = -np.log(method.pmf(logits).numpy()[:, 3:7].sum(1)) / (9 if name == "corn" else 1)
    np.testing.assert_allclose(method.loss(logits, low, high).numpy(), reference, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_an_interval_of_all_ages_teaches_nothing(name: str) -> None:
    method = make(name)
    logits = logits_of(method, 4).requires_grad_()
    loss = method.loss(logits, torch.zeros(4), torch.full((4,), 120.0))
    loss.sum().backward()
    np.testing.assert_allclose(loss.detach().numpy(), 0, atol=1e-12)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), 0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_ages_beyond_the_grid_count_as_its_ends(name: str) -> None:
    method = make(name, GridSettings(first=10, last=59))
    logits = logits_of(method, 4)
    beyond, ends = torch.tensor([0.0, 9.0, 60.0, 116.0]), torch.tensor([10.0, 10.0, 59.0, 59.0])
    torch.testing.assert_close(method.loss(logits, beyond, beyond), method.loss(logits, ends, ends), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [0.0, 1.0, 300.0])
def test_finite_at_any_size_in_any_precision(name: str, dtype: torch.dtype, size: float) -> None:
    method = make(name)
    logits = (size * logits_of(method, 30)).to(dtype).requires_grad_()
    low = torch.cat([ages(20), ages(10).clamp_max(50)])
    high = torch.cat([ages(20), ages(10).clamp_max(50) + 9])
    loss = method.loss(logits, low, high)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(method.pmf(logits)).all()


def test_seed_000_grid() -> None:
    edges = SEED_000.edges()
    assert len(edges) - 2 == 44
    age = torch.arange(1, 91).float()
    # The seed's 1 + 2 sum(1[a > t]) with t = 2, 4, ..., 88.
    np.testing.assert_array_equal(
        1 + 2 * bin_of(age, edges), [1 + 2 * sum(a > t for t in range(2, 89, 2)) for a in age]
    )


@pytest.mark.parametrize("name", DISTRIBUTION_NAMES)
def test_bins_of_different_widths_are_learnt_as_their_own(name: str) -> None:
    # 50 years are nearer to the middle of 30-39 than to that of 40-100, which holds them.
    method = make(name, GridSettings(groups=[10, 20, 30, 40]))
    logits = torch.zeros(1, method.outputs, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    age = torch.tensor([50.0], dtype=torch.float64)
    for _ in range(300):
        optimiser.zero_grad()
        method.loss(logits, age, age).sum().backward()
        optimiser.step()
    assert int(method.pmf(logits).argmax()) == 4
