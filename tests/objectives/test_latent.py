"""Terms of latent codes against torch.distributions, loops and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mien.objectives.latent import (
    conditional_rate,
    dependence,
    free_rate,
    normal_rate,
    ramp,
    reversed_gradient,
    stratified_weights,
    total_correlation,
)


def normals(count: int = 5, dims: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dims, generator=generator), torch.randn(count, dims, generator=generator)


def test_rates_are_the_divergences_of_torch() -> None:
    mean, log_variance = normals()
    posterior = Normal(mean, (0.5 * log_variance).exp())
    torch.testing.assert_close(normal_rate(mean, log_variance), kl_divergence(posterior, Normal(0.0, 1.0)))
    prior = Normal(
        torch.tensor([[1.0], [-2.0], [0.3], [0.0], [4.0]]), torch.tensor([[0.2], [1.0], [3.0], [0.1], [0.5]])
    )
    found = conditional_rate(mean, log_variance, prior.mean, prior.stddev)
    torch.testing.assert_close(found, kl_divergence(posterior, prior), rtol=1e-5, atol=1e-4)


def test_free_bits_cost_nothing_and_move_nothing() -> None:
    rates = torch.tensor([[0.1, 3.0], [0.3, 1.0]], requires_grad=True)
    rate = free_rate(rates, 0.5)
    assert rate.item() == pytest.approx(0.5 + 2.0)
    rate.backward()
    assert rates.grad is not None
    assert rates.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]
    assert free_rate(rates, 0.0).item() == pytest.approx(2.2)


@pytest.mark.parametrize(("batch", "faces"), [(4, 4), (4, 100), (2, 7)])
def test_stratified_weights_are_those_of_the_paper(batch: int, faces: int) -> None:
    weights = stratified_weights(batch, faces)
    m = batch - 1
    for row in range(batch):
        values = sorted(weights[row].tolist())
        expected = sorted([1 / faces, (faces - m) / (faces * m), *[1 / m] * (m - 1)])
        np.testing.assert_allclose(values, expected, rtol=1e-6)
        assert float(weights[row, row]) == pytest.approx(1 / faces)
        assert sum(values) == pytest.approx(1)
    assert stratified_weights(1, faces).tolist() == [[1.0]]
    # Of fewer faces than a batch shows (some of them twice) none is less than nothing.
    assert torch.equal(stratified_weights(batch, 1), stratified_weights(batch, batch))


def test_total_correlation_is_that_of_loops_over_faces_and_latents() -> None:
    mean, log_variance = normals(4, 3)
    z, _ = normals(4, 3, seed=1)
    faces = 50
    weights = stratified_weights(4, faces).double()
    total = 0.0
    for i in range(4):
        densities = Normal(mean, (0.5 * log_variance).exp()).log_prob(z[i]).double()
        joint = math.log(sum(float(weights[i, j] * densities[j].sum().exp()) for j in range(4)))
        alone = sum(math.log(sum(float(weights[i, j] * densities[j, d].exp()) for j in range(4))) for d in range(3))
        total += (joint - alone) / 4
    assert float(total_correlation(z, mean, log_variance, faces)) == pytest.approx(total, rel=1e-4)


def test_total_correlation_tells_copies_from_independent_latents() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(400, 1, generator=generator), torch.randn(400, 1, generator=generator)
    narrow = torch.full((400, 2), -3.0)
    same, other = torch.cat([one, one], dim=1), torch.cat([one, two], dim=1)
    copied = total_correlation(same, same, narrow, 400)
    assert float(copied) > float(total_correlation(other, other, narrow, 400)) + 0.7


def brute_hsic(x: np.ndarray, y: np.ndarray) -> float:
    count = len(x)

    def kernel(values: np.ndarray) -> np.ndarray:
        distances = np.array([[np.linalg.norm(a - b) for b in values] for a in values])
        middle = np.sort(distances[np.triu_indices(count, 1)])
        bandwidth = middle[(len(middle) - 1) // 2]  # torch's median is the lower one
        return np.exp(-(distances**2) / (2 * bandwidth**2))

    centre = np.eye(count) - np.ones((count, count)) / count
    return float(np.trace(kernel(x) @ centre @ kernel(y) @ centre) / (count - 1) ** 2)


def test_dependence_is_the_normalised_hsic() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(9, 1))
    expected = brute_hsic(x, y) / math.sqrt(brute_hsic(x, x) * brute_hsic(y, y))
    assert float(dependence(torch.from_numpy(x), torch.from_numpy(y))) == pytest.approx(expected, rel=1e-9)
    assert float(dependence(torch.from_numpy(y), torch.from_numpy(y))) == pytest.approx(1)
    square = dependence(torch.from_numpy(y), torch.from_numpy(y**2))
    assert float(square) > 2 * float(dependence(torch.from_numpy(y), torch.from_numpy(rng.permutation(y))))


def test_gradients_are_those_of_finite_differences() -> None:
    mean, spread = (value.double().requires_grad_() for value in normals())
    at, std = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    assert torch.autograd.gradcheck(normal_rate, (mean, spread))
    assert torch.autograd.gradcheck(lambda m, s: conditional_rate(m, s, at, std), (mean, spread))
    z = normals(seed=3)[0].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *args: total_correlation(*args, 40), (z, mean, spread))


@pytest.mark.parametrize("same", ["code", "age"])
def test_nothing_depends_on_what_does_not_vary(same: str) -> None:
    code, age = torch.randn(8, 3), torch.rand(8, 1)
    code = (code[:1].repeat(8, 1) if same == "code" else code).requires_grad_(True)
    found = dependence(code, age[:1].repeat(8, 1) if same == "age" else age)
    (slope,) = torch.autograd.grad(found, code)
    assert float(found.detach()) == pytest.approx(0, abs=1e-5)
    assert torch.equal(slope, torch.zeros(8, 3))


def test_dependence_pushes_away_from_dependence() -> None:
    generator = torch.Generator().manual_seed(0)
    age = torch.rand(40, 1, generator=generator)
    code = (torch.cat([age, age**2], dim=1) + 0.1 * torch.randn(40, 2, generator=generator)).requires_grad_()
    before = dependence(code, age)
    (slope,) = torch.autograd.grad(before, code)
    with torch.no_grad():
        assert float(dependence(code - 0.5 * slope, age)) < float(before.detach())


def test_a_reversed_gradient_comes_back_turned_and_scaled() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    strength = torch.tensor([[2.0], [0.0]])
    turned = reversed_gradient(x, strength)
    assert torch.equal(turned, x)
    turned.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[-2.0, -2.0], [0.0, 0.0]]


def test_a_ramp_rises_once() -> None:
    assert [ramp(step, 4.0) for step in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert ramp(0, 0.0) == 1.0
