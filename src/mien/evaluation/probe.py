"""Can one tell from a model's features which data set a face is from?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.evaluation.groups import FEWEST
from mien.metrics.bootstrap import Bootstrap
from mien.metrics.weighted import mean

if TYPE_CHECKING:
    from mien.data.manifest import Manifest

#: Folds of the cross-validation; a group is in one of them.
FOLDS = 5
#: Weight of the ridge penalty as a share of the faces learnt from, features being standardised.
RIDGE = 0.01


def sources_of(manifest: Manifest) -> np.ndarray | None:
    """(N,) the data set of each face, None where unknown or of fewer than 30 faces; None where fewer than two are
    left to tell apart."""
    sources = manifest.strings("source")
    names = [name for name in np.unique(sources.astype(str)) if FEWEST <= (sources == name).sum() < len(sources)]
    if len(names) < 2:
        return None
    return np.array([name if name in names else None for name in sources], dtype=object)


def source_probe(
    features: np.ndarray, sources: Sequence[str | None] | np.ndarray, groups: np.ndarray, resamples: int, seed: int = 0
) -> dict[str, Any]:
    """How often a linear probe names a face's data set, judged on faces of groups that it did not learn from.

    The probe is ridge regression on one-hot data sets: five folds, no group in two of them. Beside it the share of
    the largest data set, which is right without looking, and the share of each that is named rightly.

    Args:
        features: (N, F) what the heads see of each face.
        sources: (N,) the data set of each; None: left out.
        groups: (N,) which faces belong together (persons, copies).

    Returns `{"n", "accuracy": Estimate, "majority": Estimate, "above_majority": Estimate, "recall": {name: share}}`.
    """
    known = np.array([source is not None for source in sources])
    names, codes = np.unique(np.asarray(sources, dtype=object)[known].astype(str), return_inverse=True)
    said = _out_of_fold(features[known].astype(np.float64), codes, np.asarray(groups)[known], len(names), seed)
    right, largest = said == codes, codes == np.bincount(codes).argmax()
    boot = Bootstrap(np.asarray(groups)[known], resamples, seed)
    figures = {
        "accuracy": partial(mean, right),
        "majority": partial(mean, largest),
        "above_majority": partial(mean, right.astype(float) - largest),
    }
    recall = {str(name): float(right[codes == code].mean()) for code, name in enumerate(names)}
    return {"n": len(codes), **boot.estimates(figures), "recall": recall}


def _out_of_fold(features: np.ndarray, codes: np.ndarray, groups: np.ndarray, classes: int, seed: int) -> np.ndarray:
    _, members = np.unique(groups, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(members.max() + 1) % FOLDS)[members]
    said = np.zeros(len(codes), dtype=np.int64)
    for held in range(FOLDS):
        mine, others = fold == held, fold != held
        if not mine.any() or not others.any():
            continue
        centre, spread = features[others].mean(axis=0), features[others].std(axis=0) + 1e-9
        x, y = (features[others] - centre) / spread, np.eye(classes)[codes[others]]
        gram = x.T @ x + RIDGE * len(x) * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x.T @ (y - y.mean(axis=0)))
        said[mine] = ((features[mine] - centre) / spread @ weights + y.mean(axis=0)).argmax(axis=1)
    return said
