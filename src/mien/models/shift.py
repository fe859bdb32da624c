"""How a code changes with a year of age: a vector to add, by four estimators, and the pictures that it makes."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mien.errors import MienError, unknown
from mien.models.beta_vae import UNIT, BetaVae
from mien.models.renderer import as_float

Method = Literal["conditional", "means", "ridge", "pairs"]
METHODS: tuple[Method, ...] = get_args(Method)
#: Ridge penalty as a share of the faces; latents vary by about 1.
PENALTY = 0.01
#: Fewer faces of known age give no vector.
FEWEST = 10


def shift(
    method: Method,
    codes: np.ndarray,
    ages: np.ndarray,
    genders: np.ndarray | None = None,
    races: np.ndarray | None = None,
    persons: np.ndarray | None = None,
    *,
    line: np.ndarray | None = None,
) -> np.ndarray:
    """The change of a code in a year, (D,) float64.

    - `conditional`: z_age moves along the ages that it was taught, by a year over 25; z_id stays.
    - `means`: codes of the older third of the faces less those of the younger one, over the years between, codes and
      ages freed of the means of each gender and race first.
    - `ridge`: w / |w|^2, w the ridge regression of age on codes: the shortest step that adds a year to its answer.
    - `pairs`: over all pairs of pictures of one person, sum (z_j - z_i)(a_j - a_i) / sum (a_j - a_i)^2.

    Args:
        codes: (N, D) posterior means, z_age first.
        ages: (N,) years, NaN unknown: left out.
        genders, races: (N,) codes, -1 unknown (a group of its own); None: not freed of them.
        persons: (N,) a number for each person; `pairs` alone looks at them.
        line: (age_dims,) the direction of ages in z_age, of length 1; None: z_age is one latent.

    Raises:
        MienError: an unknown method, fewer than 10 faces of known age, ages all alike, nobody shown at two ages.
    """
    if method not in METHODS:
        raise unknown("shift method", method, METHODS)
    codes, ages = np.asarray(codes, dtype=np.float64), np.asarray(ages, dtype=np.float64)
    if method == "conditional":
        along = np.ones(1) if line is None else np.asarray(line, dtype=np.float64)
        return np.concatenate([along / UNIT, np.zeros(codes.shape[1] - len(along))])
    known = ~np.isnan(ages)
    codes, ages = codes[known], ages[known]
    if len(ages) < FEWEST or np.ptp(ages) == 0:
        raise MienError(
            f"shift by {method}: {len(ages)} faces of known age, {len(np.unique(ages))} of them different; "
            f"expected {FEWEST} faces or more, not all of one age"
        )
    if method == "means":
        groups = [values[known] for values in (genders, races) if values is not None]
        return _means(codes, ages, groups)
    if method == "ridge":
        return _ridge(codes, ages)
    if persons is None:
        raise MienError("shift by pairs: nobody is named; give the person of each face, or take another method")
    return _pairs(codes, ages, np.asarray(persons)[known])


def render_shifted(
    vae: BetaVae,
    images: Tensor,
    years: Tensor,
    change: np.ndarray,
    attributes: Tensor | None = None,
    *,
    residual: bool | None = None,
    ages: Tensor | None = None,
) -> Tensor:
    """Pictures (B, A, 3, H, W) in [0, 1] of faces (B, 3, H, W) made older by `years` (B, A), younger where negative.

    `change` is what `shift` gave for this network; `attributes` and `residual` are as in `BetaVae.render`. `ages` (B,)
    are the faces' own, which a conditional network is told.
    """
    posterior = vae.encode(as_float(images), ages, attributes)
    step = torch.as_tensor(change, dtype=posterior.mean.dtype, device=posterior.mean.device)
    moved = posterior.mean[:, None] + years.to(posterior.mean)[..., None] * step
    count = posterior.age_dims
    own_age, own_id = posterior.age[0], posterior.identity[0]
    return vae.render_codes(
        images, own_age, moved[..., :count], own_id, moved[..., count:], attributes, residual=residual
    )


def _means(codes: np.ndarray, ages: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    # Indicators of each group, their span of full rank or not: least squares takes the shortest solution.
    columns = [np.ones((len(ages), 1)), *(values[:, None] == np.unique(values) for values in groups)]
    told = np.hstack(columns).astype(np.float64)
    both = np.column_stack([codes, ages])
    both = both - told @ np.linalg.lstsq(told, both, rcond=None)[0]
    low, high = np.quantile(ages, [1 / 3, 2 / 3])
    young, old = ages <= low, ages >= high
    difference = both[old].mean(axis=0) - both[young].mean(axis=0)
    if not difference[-1] > 1e-6:
        raise MienError("shift by means: gender and race tell the age already; take another method, or more faces")
    result: np.ndarray = difference[:-1] / difference[-1]
    return result


def _ridge(codes: np.ndarray, ages: np.ndarray) -> np.ndarray:
    x, y = codes - codes.mean(axis=0), ages - ages.mean()
    weights = np.linalg.solve(x.T @ x + PENALTY * len(x) * np.eye(x.shape[1]), x.T @ y)
    length = float(weights @ weights)
    if length == 0:
        raise MienError("shift by ridge: the codes do not vary; train the model longer, it has collapsed")
    result: np.ndarray = weights / length
    return result


def _pairs(codes: np.ndarray, ages: np.ndarray, persons: np.ndarray) -> np.ndarray:
    # Over all pairs of n pictures, sum (z_j - z_i)(a_j - a_i) is n times the sum of products about their means.
    _, members, counts = np.unique(persons, return_inverse=True, return_counts=True)
    totals = np.zeros((len(counts), codes.shape[1] + 1))
    both = np.column_stack([codes, ages])
    np.add.at(totals, members, both)
    centred = both - (totals / counts[:, None])[members]
    weighted = counts[members] * centred[:, -1]
    spread = float(weighted @ centred[:, -1])
    if spread == 0:
        raise MienError("shift by pairs: nobody is shown at two ages; take another method")
    result: np.ndarray = weighted @ centred[:, :-1] / spread
    return result
