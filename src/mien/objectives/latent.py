"""Terms that latent codes are trained by: rates, total correlation, what is dependent, a gradient turned round.

All are in float32 at least, whatever autocast says, and say how they reduce.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mien.models.beta_vae import BetaVae, Posterior
from mien.tasks.head import precise

LOG_2PI = math.log(2 * math.pi)


def normal_rate(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each latent, in nats, of the shape of `mean`."""
    mean, log_variance = precise(mean), precise(log_variance)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def conditional_rate(mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_std: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(prior_mean, prior_std^2)) of each latent, in nats."""
    mean, log_variance, variance = precise(mean), precise(log_variance), precise(prior_std).square()
    return 0.5 * (((mean - prior_mean).square() + log_variance.exp()) / variance - 1 - log_variance + variance.log())


def age_rate(vae: BetaVae, posterior: Posterior, ages: Tensor) -> Tensor:
    """KL of z_age against its prior given the ages (B, 2) in years, (B,) nats; against N(0, 1) where one is unknown."""
    known = ~ages.isnan().any(dim=1)
    mean = torch.where(known[:, None], vae.age_code(ages.mean(dim=1).nan_to_num()), 0.0)
    std = torch.where(known, vae.prior_std(ages), 1.0)[:, None]
    return conditional_rate(*posterior.age, mean, std).sum(dim=1)


def free_rate(rates: Tensor, free: float) -> Tensor:
    """The rate of a batch, a number in nats: the mean over faces of `rates` (B, D), then the sum over latents.

    A latent costs the same at and below `free` nats: no gradient there, so that it need not die (Kingma et al., 2016).
    """
    return rates.mean(dim=0).clamp_min(free).sum()


def total_correlation(z: Tensor, mean: Tensor, log_variance: Tensor, faces: int) -> Tensor:
    """KL(q(z) || prod_j q(z_j)) of a batch, a number in nats, for a training set of so many `faces`.

    Minibatch stratified sampling (Chen et al., 2018, https://arxiv.org/abs/1802.04942, appendix C.2): q(z_i) is the
    mean of the batch's posteriors at z_i, weighed by `stratified_weights`. Couples the faces of one process.
    """
    z, mean, log_variance = precise(z), precise(mean), precise(log_variance)
    difference = z[:, None] - mean[None]
    densities = -0.5 * (difference.square() * (-log_variance).exp()[None] + log_variance[None] + LOG_2PI)
    weights = stratified_weights(len(z), faces).to(z.device).log()
    joint = torch.logsumexp(weights + densities.sum(dim=2), dim=1)
    alone = torch.logsumexp(weights[..., None] + densities, dim=1).sum(dim=1)
    return (joint - alone).mean()


def stratified_weights(batch: int, faces: int) -> Tensor:
    """(batch, batch) weights, rows sum to 1: a face's own is 1 / faces, one other's (faces - m) / (faces m), that of
    the others 1 / m, where m = batch - 1."""
    others = batch - 1
    if others < 1:
        return torch.ones(batch, batch)
    faces = max(faces, batch)
    weights = torch.full((batch, batch), 1 / others)
    rows = torch.arange(batch)
    weights[rows, rows] = 1 / faces
    weights[rows, (rows + 1) % batch] = (faces - others) / (faces * others)
    return weights


def dependence(x: Tensor, y: Tensor) -> Tensor:
    """How dependent two variables of a batch are, a number in [0, 1]: the normalised HSIC of (B, D) and (B, E).

    HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)), HSIC(x, y) = tr(K H L H) / (B - 1)^2 (Gretton et al., 2005) with Gaussian
    kernels exp(-d^2 / (2 m^2)), m the median distance of two faces in the batch. 0, without a gradient, where one does
    not vary. Couples the faces of one process.
    """
    k, m = _centred_kernel(x), _centred_kernel(y)
    # Cut off before the root, whose gradient at 0 is none.
    norm = (k.square().sum() * m.square().sum()).clamp_min(1e-24).sqrt()
    return (k * m).sum() / norm


def _centred_kernel(x: Tensor) -> Tensor:
    x = precise(x)
    squared = (x[:, None] - x[None]).square().sum(dim=2)
    count = len(x)
    pairs = squared.detach()[*torch.triu_indices(count, count, 1, device=x.device)]
    median = pairs.median() if len(pairs) else pairs.new_ones(())
    kernel = torch.exp(-squared / (2 * median.clamp_min(1e-12)))
    kernel = kernel - kernel.mean(dim=0, keepdim=True)
    return kernel - kernel.mean(dim=1, keepdim=True)


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: Tensor) -> Tensor:
        ctx.save_for_backward(strength)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (strength,) = ctx.saved_tensors
        return -strength * gradients[0], None


def reversed_gradient(x: Tensor, strength: Tensor) -> Tensor:
    """`x` itself, whose gradient comes back times -`strength` (Ganin & Lempitsky, 2015); `strength` broadcasts."""
    result: Tensor = _Reverse.apply(x, strength)
    return result


def ramp(step: int, whole: float) -> float:
    """From 0 to 1 over `whole` steps, in a straight line; 1 where there is nothing to wait for."""
    return 1.0 if whole <= 0 else min(1.0, step / whole)
