"""Is one factor in one place of a code? MIG, DCI and SAP of latent codes against known factors.

Codes are (N, D) real numbers. A factor is (N,): whole numbers of classes (-1 unknown), or real numbers (NaN unknown);
faces of unknown factor are left out of that factor's figures. Formulas and defaults are those of Locatello et al.,
"Challenging common assumptions in the unsupervised learning of disentangled representations" (2019), appendix B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from mien.errors import need
from mien.metrics.weighted import ratio

#: Bins of equal width into which a latent is cut for mutual information.
BINS = 20
#: The share of faces on which DCI and SAP learn; the others tell how well.
LEARN = 2 / 3


class Gap(TypedDict):
    """The best place of a factor, and how far the second best stays behind."""

    gap: float
    best: int
    second: int


def classes(factor: np.ndarray, bins: int = 10) -> np.ndarray:
    """A factor as classes, (N,) int64 with -1 for unknown: real numbers in `bins` quantile bins."""
    factor = np.asarray(factor)
    if factor.dtype.kind in "iub":
        return factor.astype(np.int64)
    known = ~np.isnan(factor)
    codes = np.full(len(factor), -1, dtype=np.int64)
    edges = np.unique(np.quantile(factor[known], np.linspace(0, 1, bins + 1)[1:-1])) if known.any() else np.array([])
    codes[known] = np.searchsorted(edges, factor[known], side="right")
    return codes


def mutual_information(codes: np.ndarray, factor: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, float]:
    """I(z_j; v) of each latent with a factor of classes, and the factor's entropy, in nats: (D,) and a number."""
    known = factor >= 0
    codes, factor = codes[known], factor[known]
    names, rows = np.unique(factor, return_inverse=True)
    information = np.zeros(codes.shape[1])
    for place in range(codes.shape[1]):
        values = codes[:, place]
        if len(values) == 0 or values.min() == values.max():
            continue
        edges = np.histogram_bin_edges(values, bins)
        columns = np.clip(np.digitize(values, edges[1:-1]), 0, bins - 1)
        table = np.bincount(rows * bins + columns, minlength=len(names) * bins).reshape(len(names), bins)
        information[place] = _entropy(table.sum(0)) + _entropy(table.sum(1)) - _entropy(table.ravel())
    return np.maximum(information, 0.0), _entropy(np.bincount(rows))


def mig(codes: np.ndarray, factors: Mapping[str, np.ndarray], bins: int = BINS) -> dict[str, Gap]:
    """The mutual information gap of each factor: (I_best - I_second) / H(v), in [0, 1] (Chen et al., 2018).

    NaN where the factor has fewer than two classes among these faces. With one latent the second best is nothing.
    """
    return {name: _mig(codes, classes(factor), bins) for name, factor in factors.items()}


def mig_null(
    codes: np.ndarray,
    factor: np.ndarray,
    repeats: int = 100,
    seed: int = 0,
    bins: int = BINS,
    groups: np.ndarray | None = None,
) -> tuple[float, float]:
    """What the gap would be of a factor that has nothing to do with the codes: the 2.5th and 97.5th percentile over
    `repeats` permutations of its values among the faces.

    Faces of one of `groups` (N,) get the values of another one's, over and over where that has fewer: pictures of one
    person have like codes and like factors, so that chance does more than among strangers.
    """
    generator = np.random.default_rng(seed)
    labels = classes(factor)
    known = labels >= 0
    codes, labels, members = codes[known], labels[known], _members(known, groups)
    order, sizes = np.argsort(members, kind="stable"), np.bincount(members)
    starts = np.cumsum(sizes) - sizes
    place = np.empty(len(members), dtype=np.int64)  # of each face in its group
    place[order] = np.arange(len(members)) - np.repeat(starts, sizes)
    gaps = []
    for _ in range(repeats):
        giver = generator.permutation(len(sizes))[members]
        gaps.append(_mig(codes, labels[order[starts[giver] + place % sizes[giver]]], bins)["gap"])
    low, high = np.percentile(gaps, [2.5, 97.5])
    return float(low), float(high)


def sap(
    codes: np.ndarray, factors: Mapping[str, np.ndarray], seed: int = 0, groups: np.ndarray | None = None
) -> dict[str, Gap]:
    """The separated attribute predictability of each factor: how much better the best single latent tells it than the
    second best (Kumar et al., 2018).

    Told is a real factor by its squared correlation with the latent, one of classes by the accuracy of a linear
    classifier on the latent alone, on faces none of whose `groups` (N,) it learnt from. NaN where the factor has fewer
    than two values among the faces learnt from.
    """
    result: dict[str, Gap] = {}
    for name, factor in factors.items():
        factor = np.asarray(factor)
        if factor.dtype.kind == "f":
            known = ~np.isnan(factor)
            scores = np.array([_squared_correlation(column, factor[known]) for column in codes[known].T])
            if len(np.unique(factor[known])) < 2:
                scores[:] = np.nan
        else:
            known = factor >= 0
            scores = _accuracies(codes[known], factor[known], _members(known, groups), seed)
        result[name] = _gap(scores, 1.0)
    return result


class Dci(TypedDict):
    """DCI's three figures, each in [0, 1] but informativeness (R squared may be negative), and what they come from."""

    disentanglement: float
    completeness: dict[str, float]
    informativeness: dict[str, float]
    importance: list[list[float]]


def dci(codes: np.ndarray, factors: Mapping[str, np.ndarray], seed: int = 0, groups: np.ndarray | None = None) -> Dci:
    """Disentanglement, completeness and informativeness (Eastwood & Williams, 2018), by gradient-boosted trees.

    `importance` is (factors, D): how much each latent helps to tell each factor, rows sum to 1. Disentanglement: each
    latent speaks of one factor (1 minus the entropy of its column, weighted by importance). Completeness: each factor
    is in one latent (1 minus the entropy of its row). Informativeness: accuracy or R squared on held-out faces, none
    of whose `groups` (N,) was learnt from.

    Raises:
        MienError: scikit-learn is not installed.
    """
    ensemble = need("sklearn.ensemble", "represent")
    rows, told = [], {}
    for name, factor in factors.items():
        factor = np.asarray(factor)
        real = factor.dtype.kind == "f"
        known = ~np.isnan(factor) if real else factor >= 0
        learn, judge = _halves(_members(known, groups), seed)
        x, y = codes[known], factor[known]
        boosted = ensemble.GradientBoostingRegressor if real else ensemble.GradientBoostingClassifier
        model = boosted(n_estimators=50, max_depth=3, subsample=0.5, random_state=seed)
        if len(np.unique(y[learn])) < 2:
            rows.append(np.full(codes.shape[1], np.nan))
            told[name] = float("nan")
            continue
        model.fit(x[learn], y[learn])
        told[name] = float(model.score(x[judge], y[judge]))
        rows.append(model.feature_importances_)
    importance = np.array(rows).reshape(len(rows), codes.shape[1])
    usable = importance[~np.isnan(importance).any(axis=1)]
    disentanglement = float("nan")
    if len(usable):
        weight = usable.sum(0) / usable.sum()
        disentanglement = float((weight * (1 - _relative_entropy(usable.T))).sum())
    completeness = 1 - _relative_entropy(importance)
    return {
        "disentanglement": disentanglement,
        "completeness": dict(zip(factors, completeness.tolist(), strict=True)),
        "informativeness": told,
        "importance": importance.tolist(),
    }


def _mig(codes: np.ndarray, labels: np.ndarray, bins: int) -> Gap:
    information, entropy = mutual_information(codes, labels, bins)
    return _gap(information, entropy)


def _gap(scores: np.ndarray, whole: float) -> Gap:
    order = np.argsort(-scores, kind="stable")
    second = scores[order[1]] if len(scores) > 1 else 0.0
    return {
        "gap": float(ratio(np.array(scores[order[0]] - second), np.array(whole))),
        "best": int(order[0]),
        "second": int(order[1]) if len(scores) > 1 else -1,
    }


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log(shares)).sum())


def _relative_entropy(rows: np.ndarray) -> np.ndarray:
    """Entropy of each row of weights over that of an even one; 1 for a row without weight, 0 with one column."""
    if rows.shape[1] < 2:
        return np.where(np.isnan(rows[:, 0]), np.nan, 0.0)
    total = rows.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, rows / np.where(total > 0, total, 1), 1 / rows.shape[1])
    logs = np.log(np.where(shares > 0, shares, 1))
    entropy: np.ndarray = -(shares * logs).sum(axis=1) / np.log(rows.shape[1])
    return np.where(np.isnan(rows).any(axis=1), np.nan, entropy)


def _squared_correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1] ** 2)


def _accuracies(codes: np.ndarray, labels: np.ndarray, members: np.ndarray, seed: int) -> np.ndarray:
    """Accuracy of a linear classifier on each latent alone, on held-out faces, (D,)."""
    svm = need("sklearn.svm", "represent")
    learn, judge = _halves(members, seed)
    if len(np.unique(labels[learn])) < 2:
        return np.full(codes.shape[1], np.nan)
    scale = codes[learn].std(axis=0)
    scaled = codes / np.where(scale > 0, scale, 1)
    scores = []
    for place in range(codes.shape[1]):
        model = svm.LinearSVC(C=0.01, class_weight="balanced", random_state=seed)
        model.fit(scaled[learn, place, None], labels[learn])
        scores.append(model.score(scaled[judge, place, None], labels[judge]))
    return np.array(scores)


def _members(known: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Number of the group of each face that is `known` (N,) bool; every face is one of its own without `groups`."""
    if groups is None:
        return np.arange(int(known.sum()))
    return np.unique(groups[known], return_inverse=True)[1]


def _halves(members: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Faces to learn from and to judge on; `members` (N,) are numbers of groups, none of which is in both."""
    count = int(members.max(initial=-1)) + 1
    place = np.argsort(np.random.default_rng(seed).permutation(count))[members]
    order = np.argsort(place, kind="stable")
    first = int((place < int(count * LEARN)).sum())
    return order[:first], order[first:]
