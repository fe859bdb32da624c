"""Do renders at an age look like real faces of that age to a network? KID, and FID beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from mien.metrics.bootstrap import Bootstrap, estimate
from mien.metrics.image import fid, kid

#: Fewer faces on either side give no figure.
FEWEST = 100
#: Resamples behind the interval of FID, each of which takes the roots of a matrix.
RESAMPLES = 20


def realism(
    real: np.ndarray, made: np.ndarray, boot: Bootstrap, seed: int = 0, groups: np.ndarray | None = None
) -> dict[str, Any]:
    """KID and FID between features of real faces (N, F) and of renders (M, F), over whose faces `boot` draws; of the
    real ones whole `groups` (N,) are drawn.

    KID's interval is the percentile bootstrap over both sets, pairs of one face with itself left out. FID is biased
    upwards for few faces, and more so when resampled: its interval is the normal one, value -+ 1.96 of the
    resamples' deviation. With fewer than 100 faces on a side there is a `reason` instead.
    """
    counts = {"real": len(real), "made": len(made)}
    if min(counts.values()) < FEWEST:
        return counts | {"reason": f"{len(real)} real faces and {len(made)} renders; {FEWEST} of each are needed"}
    real, made = real.astype(np.float64), made.astype(np.float64)
    other = Bootstrap(np.arange(len(real)) if groups is None else groups, boot.resamples, seed + 1)
    drawn_real, drawn_made = (one.replicates({"w": _self})["w"] for one in (other, boot))
    values = _kids(real, made, drawn_real, drawn_made)
    values[0] = kid(real, made)
    value = fid(real, made)
    some = np.flatnonzero((drawn_made.sum(axis=1) > 0) & (drawn_real.sum(axis=1) > 0))[1 : RESAMPLES + 1]
    resampled = [fid(_drawn(real, drawn_real[row]), _drawn(made, drawn_made[row])) for row in some]
    spread = float(np.std(resampled)) if len(some) > 1 else np.nan
    low, high = value - 1.96 * spread, value + 1.96 * spread
    return counts | {
        "kid": estimate(values, len(made)),
        "fid": {"value": value, "low": max(low, 0.0), "high": high, "n": len(made)},
    }


def _self(weights: np.ndarray) -> np.ndarray:
    return weights


def _drawn(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.repeat(features, weights.astype(np.int64), axis=0)


def _kids(real: np.ndarray, made: np.ndarray, w_real: np.ndarray, w_made: np.ndarray) -> np.ndarray:
    """KID for each row of weights, (R,): of each set the mean of the kernel over pairs of two different faces."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        result: np.ndarray = (x @ y.T / x.shape[1] + 1) ** 3
        return result

    def within(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
        own = kernel(features, features)
        np.fill_diagonal(own, 0.0)
        pairs = weights.sum(axis=1) ** 2 - np.square(weights).sum(axis=1)
        result: np.ndarray = ((weights @ own) * weights).sum(axis=1) / pairs
        return result

    across = ((w_real @ kernel(real, made)) * w_made).sum(axis=1) / (w_real.sum(axis=1) * w_made.sum(axis=1))
    return within(real, w_real) + within(made, w_made) - 2 * across
