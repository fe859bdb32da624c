"""What is fitted on held-out faces after training: blend, temperature, conformal intervals.

Fitting takes and gives plain numpy, and every fitted thing is JSON-able. What decoding asks of it afterwards is written
in torch, so that an exported network does it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Temperatures are searched between 1 / this and this.
MAX_TEMPERATURE = 4.0
#: Folds of the cross-fitted conformal scores.
FOLDS = 5
#: Faces to a knot of the map from a distribution's std to the expected error, and knots at most.
FACES_PER_KNOT, MAX_KNOTS = 50, 20
#: Predicted ages at which the scale is corrected; width in years of the kernel that smooths the correction;
#: how many faces' worth of "no correction" stands against the data at each of them.
AGE_KNOTS, AGE_BANDWIDTH, AGE_PRIOR = np.arange(0.0, 101.0, 5.0), 5.0, 20.0
#: No face's scale falls below this many years: a distribution may be surer than any label is right.
MIN_SCALE = 0.5


def fit_blend(first: np.ndarray, second: np.ndarray, truth: np.ndarray) -> float:
    """The share w in [0, 1] of `first` with the least mean of |w first + (1 - w) second - truth|; all (n,).

    The mean is a sum of |d| |w - (truth - second) / d| with d = first - second: convex, least at the weighted
    median.
    """
    difference = np.asarray(first, np.float64) - second
    apart = np.abs(difference) > 1e-9
    if not apart.any():
        return 0.5
    weight = np.abs(difference[apart])
    best = (np.asarray(truth, np.float64) - second)[apart] / difference[apart]
    order = np.argsort(best, kind="stable")
    reached = np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)
    return float(np.clip(best[order][min(int(reached), len(order) - 1)], 0.0, 1.0))


def fit_temperature(nll: Callable[[float], float]) -> float:
    """The temperature of least mean negative log-likelihood `nll(temperature)`; Guo et al., ICML 2017."""
    from scipy.optimize import minimize_scalar

    bound = math.log(MAX_TEMPERATURE)
    found = minimize_scalar(
        lambda x: nll(math.exp(x)), bounds=(-bound, bound), method="bounded", options={"xatol": 1e-3}
    )
    return math.exp(float(found.x))


def fit_conformal(age: np.ndarray, std: np.ndarray, truth: np.ndarray, level: float = 0.9) -> dict[str, Any]:
    """Normalised split-conformal intervals (Lei et al., JASA 2018, section 5.2) round `age`; all arrays (n,).

    The score of a face is |truth - age| / scale(face), and the interval is age +- quantile * scale. The
    scores are cross-fitted: each face's scale comes from the other folds, else the errors that made the scale
    would seem too well explained. `std` may be NaN throughout (a head without distribution); the width then
    follows the age alone.

    Returns {} where there are too few faces for the quantile to exist (fewer than 9 for 90 %).
    """
    age, std, truth = (np.asarray(x, np.float64) for x in (age, std, truth))
    n = len(age)
    rank = math.ceil((n + 1) * level)
    if n < 2 or rank > n:
        return {}
    error = np.abs(truth - age)
    fold = np.random.default_rng(0).permutation(n) % min(FOLDS, n)
    score = np.empty(n)
    for held in range(min(FOLDS, n)):
        inside = fold == held
        scale = fit_scale(age[~inside], std[~inside], error[~inside])
        expected = scale_of(scale, torch.from_numpy(age[inside]), torch.from_numpy(std[inside]))
        score[inside] = error[inside] / expected.numpy()
    quantile = float(np.sort(score)[rank - 1])
    return {"level": level, "n": n, "quantile": quantile, "scale": fit_scale(age, std, error)}


def conformal_half_width(conformal: dict[str, Any], age: Tensor, std: Tensor) -> Tensor:
    """Half the width in years of each face's interval, (n,), from its age and the std of its distribution, (n,)."""
    return scale_of(conformal["scale"], age, std) * conformal["quantile"]


def fit_scale(age: np.ndarray, std: np.ndarray, error: np.ndarray) -> dict[str, list[float]]:
    """The expected |error| of a face by the std of its distribution, then by its predicted age; all (n,).

    The first is monotone (isotonic through equally full knots), the second a smooth factor shrunk towards 1.
    """
    from scipy.optimize import isotonic_regression

    scale: dict[str, list[float]] = {}
    if np.isfinite(std).all():
        parts = np.array_split(np.argsort(std, kind="stable"), np.clip(len(std) // FACES_PER_KNOT, 1, MAX_KNOTS))
        means = isotonic_regression([error[part].mean() for part in parts], weights=[len(part) for part in parts]).x
        scale |= {
            "std": [float(std[part].mean()) for part in parts],
            "error": [float(mean) for mean in means],
        }
    else:
        scale |= {"std": [], "error": [float(error.mean())]}
    ratio = error / _scale_of_std(scale, torch.from_numpy(std)).numpy()
    kernel = np.exp(-0.5 * ((AGE_KNOTS[:, None] - age[None, :]) / AGE_BANDWIDTH) ** 2)
    factor = (kernel @ ratio + AGE_PRIOR * ratio.mean()) / (kernel.sum(1) + AGE_PRIOR)
    return scale | {"age": AGE_KNOTS.tolist(), "factor": factor.tolist()}


def scale_of(scale: dict[str, list[float]], age: Tensor, std: Tensor) -> Tensor:
    """The expected |error| in years that `fit_scale` learnt, (n,), at least `MIN_SCALE`."""
    factor = interpolated(age, scale["age"], scale["factor"])
    return (_scale_of_std(scale, std) * factor).clamp_min(MIN_SCALE)


def _scale_of_std(scale: dict[str, list[float]], std: Tensor) -> Tensor:
    if not scale["std"]:
        return torch.full_like(std, max(scale["error"][0], MIN_SCALE))
    # Beyond the last knot it grows with the std: a face less certain than any seen must not look ordinary.
    beyond = (std / max(scale["std"][-1], MIN_SCALE)).clamp_min(1.0)
    return (interpolated(std, scale["std"], scale["error"]) * beyond).clamp_min(MIN_SCALE)


def interpolated(x: Tensor, knots: list[float], values: list[float]) -> Tensor:
    """`numpy.interp`, to the bit: linear between rising `knots`, constant beyond them; (n,). NaN stays NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):  # between knots that coincide nothing lies
        between = (np.diff(values) / np.diff(knots)).tolist()
    where, what, rise = (
        torch.tensor(numbers, dtype=x.dtype, device=x.device)
        for numbers in ([knots[0], *knots], [values[0], *values], [0.0, *between, 0.0])
    )
    place = (x[:, None] >= where[1:]).sum(1)
    return rise[place] * (x.clamp(knots[0], knots[-1]) - where[place]) + what[place]
