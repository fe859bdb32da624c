"""What a code uses of its length, and what a straight line still reads in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: A latent whose mean varies less than this over faces is switched off (Burda et al., 2016).
ACTIVE = 0.01
#: Ridge penalties as shares of the faces learnt from, the code being standardised; the best is chosen within them.
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
#: A code with a smaller share of active latents has collapsed; one that explains less of the pictures says too little.
FEWEST_ACTIVE, LEAST_EXPLAINED = 0.05, 0.1


def active(means: np.ndarray) -> np.ndarray:
    """Which latents of the posterior means (N, D) are in use: (D,) bool."""
    result: np.ndarray = means.var(axis=0) > ACTIVE
    return result


def collapse(in_use: int, latents: int, rate: float, explained: float) -> str:
    """What to say of a code that says nothing of its pictures, with what to change; an empty string if it does.

    `rate` is in nats, `explained` the share of the pictures' variance about their mean that reconstructions explain.
    """
    used = in_use >= max(1.0, FEWEST_ACTIVE * latents)
    if used and explained >= LEAST_EXPLAINED:
        return ""
    fault = "a code that says next to nothing of the picture" if used else "posterior collapse"
    return (
        f"{fault}: {in_use} of {latents} latents of z_id are in use ({rate:.2f} nats a face), reconstructions explain "
        f"{explained:.0%} of the pictures' variance; lower beta, give a capacity or free_bits, raise "
        "reconstruction_weight, or let it learn longer if it has only begun"
    )


def linear_probe(codes: np.ndarray, values: np.ndarray, groups: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """What ridge regression reads of (N,) `values` in (N, D) `codes`, each half of the faces by what the other taught.

    The penalty is the best of `RIDGES` on the last third of the faces learnt from. No group is in both halves. NaN
    with fewer than four groups.
    """
    codes, values = codes.astype(np.float64), values.astype(np.float64)
    names, members = np.unique(np.arange(len(codes)) if groups is None else groups, return_inverse=True)
    said = np.full(len(codes), np.nan)
    if len(names) < 4:
        return said
    place = np.random.default_rng(seed).permutation(len(names))[members]
    for held in (0, 1):
        judged = place % 2 == held
        # Of the learning half the last third of the groups chooses the penalty.
        chooses = ~judged & (place % 6 // 2 == 2)
        best = RIDGES[-1]
        if chooses.any():
            guesses = _ridge(codes, values, ~judged & ~chooses, chooses, RIDGES)
            best = RIDGES[int(np.argmin([np.abs(guess - values[chooses]).mean() for guess in guesses]))]
        said[judged] = _ridge(codes, values, ~judged, judged, (best,))[0]
    return said


def _ridge(
    codes: np.ndarray, values: np.ndarray, learns: np.ndarray, judged: np.ndarray, penalties: Sequence[float]
) -> list[np.ndarray]:
    centre, spread = codes[learns].mean(axis=0), codes[learns].std(axis=0)
    # A latent that does not vary tells nothing, and must not blow up on other faces.
    scale = np.where(spread > 1e-6, spread, np.inf)
    x, y = (codes[learns] - centre) / scale, values[learns]
    products, wanted = x.T @ x, x.T @ (y - y.mean())
    shown = (codes[judged] - centre) / scale
    return [
        shown @ np.linalg.solve(products + penalty * len(x) * np.eye(x.shape[1]), wanted) + y.mean()
        for penalty in penalties
    ]
