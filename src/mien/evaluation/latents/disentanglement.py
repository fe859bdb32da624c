"""What is where in a code: MIG, DCI and SAP of each known factor, and what probes still read of the age."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mien.errors import need
from mien.metrics.bootstrap import Bootstrap
from mien.metrics.latent import dci, mig, mig_null, sap
from mien.metrics.weighted import mean, ratio

#: Each seed judges another random share of the groups.
SHARE = 0.8
#: Permutations behind the interval of what MIG would be by chance.
PERMUTATIONS = 50
#: Faces from which DCI's boosted trees learn and are judged, at most.
TREES = 1500
#: Folds of the probes; no group is in two of them.
FOLDS = 3
#: Faces of known age that probes need.
FEWEST = 30


def separation(
    codes: np.ndarray, factors: Mapping[str, np.ndarray], groups: np.ndarray, seeds: Sequence[int]
) -> dict[str, Any]:
    """MIG, SAP and DCI of codes (N, D), over `seeds`: each draws four fifths of the groups and the classifiers' halves.

    Returns `{"factors": {name: {"mig": {"value", "low", "high", "null"}, "sap": ..., "completeness": ...,
    "informativeness": ..., "best", "n"}}, "disentanglement": {...}}`: value is the mean over seeds, low and high the
    least and largest, null the interval of MIG for a factor that has nothing to do with the code, whole
    groups having like values.
    """
    names, members = np.unique(groups, return_inverse=True)
    drawn: dict[str, dict[str, list[float]]] = {name: {} for name in factors}
    overall = []
    for seed in seeds:
        chosen = np.random.default_rng(seed).permutation(len(names))[: max(1, round(SHARE * len(names)))]
        rows = np.flatnonzero(np.isin(members, chosen))
        part = {name: values[rows] for name, values in factors.items()}
        gaps, predicted = mig(codes[rows], part), sap(codes[rows], part, seed, members[rows])
        few = np.random.default_rng([seed, 1]).permutation(len(rows))[:TREES]
        trees = dci(codes[rows[few]], {name: values[few] for name, values in part.items()}, seed, members[rows[few]])
        overall.append(trees["disentanglement"])
        for name in factors:
            told = {
                "mig": gaps[name]["gap"],
                "sap": predicted[name]["gap"],
                "completeness": trees["completeness"][name],
                "informativeness": trees["informativeness"][name],
            }
            for key, value in told.items():
                drawn[name].setdefault(key, []).append(value)
    whole = mig(codes, factors)
    result: dict[str, Any] = {}
    for name, values in factors.items():
        known = ~np.isnan(values) if values.dtype.kind == "f" else values >= 0
        count = int(known.sum())
        result[name] = {key: _spread(found, count) for key, found in drawn[name].items()}
        result[name]["mig"]["null"] = list(mig_null(codes, values, PERMUTATIONS, groups=groups))
        result[name] |= {"best": whole[name]["best"], "n": count}
    return {"factors": result, "disentanglement": _spread(overall, len(codes))}


def age_probes(
    codes: np.ndarray, ages: np.ndarray, groups: np.ndarray, boot: Bootstrap, seed: int = 0
) -> dict[str, Any]:
    """What a linear, a boosted and a multilayer probe read of the age in codes (N, D), out of fold.

    Beside them the median age of the faces learnt from; `ratio` is the strongest probe's MAE over the median's, paired.
    Faces of unknown age (NaN) are left out. Empty with fewer than 30 of known age.

    Raises:
        MienError: scikit-learn is not installed.
    """
    known = np.flatnonzero(~np.isnan(ages))
    if len(known) < FEWEST or np.ptp(ages[known]) == 0:
        return {}
    said = _said(codes[known].astype(np.float64), ages[known], groups[known], seed)
    errors = {name: np.abs(values - ages[known]) for name, values in said.items()}
    constant = errors.pop("constant")
    result = boot.estimates({name: partial(mean, values) for name, values in errors.items()}, known)
    strongest = min(errors, key=lambda name: float(errors[name].mean()))

    def share(weights: np.ndarray) -> np.ndarray:
        return ratio(mean(errors[strongest], weights), mean(constant, weights))

    compared = boot.estimates({"constant": partial(mean, constant), "ratio": share}, known)
    return {"n": len(known), "probes": result, "strongest": strongest, **compared}


def _said(codes: np.ndarray, ages: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    linear, ensemble = need("sklearn.linear_model", "represent"), need("sklearn.ensemble", "represent")
    network = need("sklearn.neural_network", "represent")
    names, members = np.unique(groups, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(names)) % FOLDS)[members]
    said = {name: np.full(len(ages), np.nan) for name in ("linear", "boosted", "mlp", "constant")}
    for held in range(FOLDS):
        mine, others = fold == held, fold != held
        if not mine.any() or not others.any():
            continue
        centre, spread = codes[others].mean(axis=0), codes[others].std(axis=0)
        scale = np.where(spread > 1e-9, spread, np.inf)
        x, shown = (codes[others] - centre) / scale, (codes[mine] - centre) / scale
        middle, width = ages[others].mean(), max(float(ages[others].std()), 1e-9)
        y = (ages[others] - middle) / width
        models = {
            "linear": linear.RidgeCV(alphas=np.logspace(-2, 4, 7)),
            "boosted": ensemble.HistGradientBoostingRegressor(
                loss="absolute_error", max_iter=150, learning_rate=0.1, random_state=seed
            ),
            # Stopped early on faces of its own: else it learns the few faces by heart and reads less.
            "mlp": network.MLPRegressor(
                hidden_layer_sizes=(128, 64),
                alpha=1e-3,
                early_stopping=len(y) >= 50,
                max_iter=200,
                random_state=seed,
            ),
        }
        for name, model in models.items():
            with warnings.catch_warnings():
                # A network that is not done after its 200 passes is as strong a probe as it will be.
                warnings.simplefilter("ignore", need("sklearn.exceptions", "represent").ConvergenceWarning)
                said[name][mine] = model.fit(x, y).predict(shown) * width + middle
        said["constant"][mine] = np.median(ages[others])
    return said


def _spread(values: Sequence[float], count: int) -> dict[str, Any]:
    """The mean over seeds, the least and the largest."""
    known = np.array([value for value in values if value == value])
    if not len(known):
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": count}
    return {"value": float(known.mean()), "low": float(known.min()), "high": float(known.max()), "n": count}
