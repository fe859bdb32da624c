"""Simpler ways to make several experts' ages one: what a fusion has to beat. Ages are (N, E) years, NaN for no answer;
each gives (N,), NaN where no expert answered."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mien.experts.fusion import masked_softmax
from mien.metrics.weighted import mean_of_known

#: Years around the median to which a winsorised vote is clipped, as MiVOLO's own aggregation does.
CLIP = 6.0
#: Share of the mean variance added to a covariance's diagonal: experts that err alike make it nearly singular.
RIDGE = 1e-3
Combine = Callable[[np.ndarray], np.ndarray]


def mean(ages: np.ndarray) -> np.ndarray:
    """The mean of those who answered."""
    return mean_of_known(ages)


def median(ages: np.ndarray) -> np.ndarray:
    """The median of those who answered."""
    result = np.full(len(ages), np.nan)
    known = np.isfinite(ages).any(1)
    result[known] = np.nanmedian(ages[known], axis=1)
    return result


def winsorised(ages: np.ndarray) -> np.ndarray:
    """The mean of the ages clipped to within `CLIP` years of their median."""
    middle = median(ages)[:, None]
    return mean_of_known(np.clip(ages, middle - CLIP, middle + CLIP))


def inverse_error(ages: np.ndarray, true: np.ndarray) -> Combine:
    """Weights inverse to each expert's mean squared error on trusted faces."""
    weights = 1 / np.maximum(np.nanmean((ages - true[:, None]) ** 2, axis=0), 1e-9)
    return lambda asked: _weighted(asked, np.log(weights))


def best_linear(ages: np.ndarray, true: np.ndarray) -> Combine:
    """The unbiased linear combination of least variance (BLUE): weights S^-1 1 / (1' S^-1 1) with the full covariance S
    of the errors on trusted faces, their mean errors taken off; for missing experts with the covariance of the rest."""
    error = ages - true[:, None]
    bias = np.nanmean(error, axis=0)
    known = np.isfinite(error).all(1)
    covariance = np.cov((error - bias)[known], rowvar=False).reshape(len(bias), len(bias))
    covariance = covariance + RIDGE * np.trace(covariance) / len(bias) * np.eye(len(bias))

    def combine(asked: np.ndarray) -> np.ndarray:
        there = np.isfinite(asked)
        result = np.full(len(asked), np.nan)
        for pattern in np.unique(there, axis=0):
            if not pattern.any():
                continue
            rows = (there == pattern).all(1)
            weights = np.linalg.solve(covariance[np.ix_(pattern, pattern)], np.ones(pattern.sum()))
            result[rows] = (asked[rows][:, pattern] - bias[pattern]) @ (weights / weights.sum())
        return result

    return combine


def learned_gate(ages: np.ndarray, true: np.ndarray, steps: int = 400, seed: int = 0) -> Combine:
    """The gate of the published code: softmax of a linear map of the experts' ages, over those who answered; each age
    first through a small network of its own (1-16-1). Trained on trusted faces by the absolute error.

    A missing age enters the gate as the mean of those there are; the published code enters 0, an age.
    """
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    count = ages.shape[1]

    def linear(inputs: int, outputs: int) -> nn.Linear:
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            layer.weight.normal_(0, inputs**-0.5, generator=generator)
            layer.bias.zero_()
        return layer

    gate = linear(count, count)
    own = nn.ModuleList([nn.Sequential(linear(1, 16), nn.ReLU(), linear(16, 1)) for _ in range(count)])
    for network in own:
        nn.init.zeros_(network[2].weight)  # type: ignore[index]  # it starts as the age itself

    def run(asked: np.ndarray) -> torch.Tensor:
        there = torch.from_numpy(np.isfinite(asked))
        middle = mean(asked)
        filled = np.where(np.isfinite(asked), asked, np.nan_to_num(middle)[:, None])
        x = torch.from_numpy(filled).float() / 50 - 1
        weights = gate(x).masked_fill(~there, -torch.inf).softmax(1).nan_to_num(0.0)
        moved = torch.cat([x[:, i : i + 1] + network(x[:, i : i + 1]) for i, network in enumerate(own)], dim=1)
        return (weights * moved).sum(1) * 50 + 50

    usable = np.isfinite(true) & np.isfinite(ages).any(1)
    target = torch.from_numpy(true[usable]).float()
    optimiser = torch.optim.Adam([*gate.parameters(), *own.parameters()], lr=0.01)
    for _ in range(steps):
        loss = (run(ages[usable]) - target).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def combine(asked: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found = run(asked).double().numpy()
        return np.where(np.isfinite(asked).any(1), found, np.nan)

    return combine


def _weighted(ages: np.ndarray, logits: np.ndarray) -> np.ndarray:
    known = np.isfinite(ages)
    weights = masked_softmax(np.broadcast_to(logits, ages.shape), known)
    return np.where(known.any(1), (weights * np.where(known, ages, 0.0)).sum(1), np.nan)
