"""From a predictions table alone to every figure of an evaluation, with its interval and its baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mien.evaluation import groups, uncertainty
from mien.evaluation.affect import judge_continuous, judge_raters
from mien.evaluation.classes import judge_classes
from mien.evaluation.groups import COMPARED, Partition, pair_figures
from mien.evaluation.predictions import Predictions
from mien.faces import CONTINUOUS, VOCABULARIES
from mien.metrics import age
from mien.metrics.bootstrap import Bootstrap

#: Name in the JSON -> function of (true, predicted, weights).
AGE_FIGURES: dict[str, Callable[..., np.ndarray]] = {
    "mae": age.mae,
    "median_ae": age.median_ae,
    "rmse": age.rmse,
    "macro_mae": age.macro_mae,
    "cs5": age.cs5,
    "bias": age.bias,
    "bias_slope": age.bias_slope,
}
#: Those given for every group.
GROUP_FIGURES = ("mae", "bias", "cs5")
#: Predicted columns whose MAE stands beside the blended age's.
HEADS = ("age_ordinal", "age_regression")
TrainingCounts = Mapping[str, Mapping[str, int]]


def judge(
    predictions: Predictions,
    *,
    resamples: int = 1000,
    seed: int = 0,
    training_counts: TrainingCounts | None = None,
) -> dict[str, Any]:
    """Everything about these predictions, by task: `{"age": {...}, "gender": {...}, "valence": {...}}`, JSON-able.

    Args:
        predictions: the table; tasks without predictions or without a label are left out.
        resamples: bootstrap resamples behind every interval, drawn by group.
        seed: determines the resamples.
        training_counts: faces of each group that the model learnt from, as `groups.counts` gives them.
    """
    boot = Bootstrap(predictions.groups(), resamples, seed)
    found = predictions.partitions()
    result: dict[str, Any] = {}
    if predictions.has("age") and predictions.has("true_age_low"):
        result["age"] = judge_age(predictions, boot, found, training_counts or {})
    for name, classes in VOCABULARIES.items():
        if predictions.has(name) and predictions.has(f"true_{name}"):
            result[name] = judge_classes(predictions, name, classes, boot, found)
    raters = judge_raters(predictions, boot) if predictions.has("expression") else {}
    if raters:
        result.setdefault("expression", {"n": 0, "classes": list(VOCABULARIES["expression"])})["raters"] = raters
    for name in CONTINUOUS:
        if predictions.has(name) and predictions.has(f"true_{name}"):
            result[name] = judge_continuous(predictions, name, boot, found)
    return result


def judge_age(
    predictions: Predictions, boot: Bootstrap, found: Mapping[str, Partition], training_counts: TrainingCounts
) -> dict[str, Any]:
    """The age part. Only exact ages enter; faces whose age is an interval have figures of their own."""
    low, high = predictions.numbers("true_age_low"), predictions.numbers("true_age_high")
    predicted = predictions.numbers("age")
    told = ~np.isnan(predicted) & ~np.isnan(low)
    exact = told & (low == high)
    result: dict[str, Any] = {"n": int(exact.sum())}
    wide = np.flatnonzero(told & (low < high))
    if len(wide):

        def inside(weights: np.ndarray) -> np.ndarray:
            return age.inside(low[wide], high[wide], predicted[wide], weights)

        result["interval_labels"] = {"n": len(wide), **boot.estimates({"inside": inside}, wide)}
    rows = np.flatnonzero(exact)
    if not len(rows):
        return result
    true = low
    result |= boot.estimates(pair_figures(true, predicted, AGE_FIGURES)(rows), rows)
    result["macro_bins"] = int(np.isfinite(age.mae_by_bin(true[rows], predicted[rows])).sum())
    result["cs"] = age.cumulative_scores(true[rows], predicted[rows]).tolist()
    result["constant"] = _constant(true, rows, boot)
    heads = {name: predictions.numbers(name) for name in HEADS if predictions.has(name)}
    if len(heads) > 1:
        result["heads"] = {
            name: boot.estimates(pair_figures(true, values, {"mae": age.mae})(rows), rows)
            for name, values in heads.items()
        }
    _by_group(result, predictions, boot, found, exact, training_counts)
    return result


def _constant(true: np.ndarray, rows: np.ndarray, boot: Bootstrap) -> dict[str, Any]:
    years = age.constant(true[rows])
    constant = np.full(len(true), years)
    functions = {"mae": age.mae, "macro_mae": age.macro_mae}
    return {
        "years": years,
        **boot.estimates(pair_figures(true, constant, functions)(rows), rows),
        "cs": age.cumulative_scores(true[rows], constant[rows]).tolist(),
    }


def _by_group(
    result: dict[str, Any],
    predictions: Predictions,
    boot: Bootstrap,
    found: Mapping[str, Partition],
    exact: np.ndarray,
    training_counts: TrainingCounts,
) -> None:
    true, predicted = predictions.numbers("true_age_low"), predictions.numbers("age")
    low, high = predictions.numbers("age_low"), predictions.numbers("age_high")
    sure = exact & ~np.isnan(low) & ~np.isnan(high)
    intervals = uncertainty.interval_figures(true, low, high) if sure.any() else None
    if intervals is not None:
        rows = np.flatnonzero(sure)
        result |= boot.estimates(intervals(rows), rows)
        result["undercovered"] = []
    functions = {name: AGE_FIGURES[name] for name in GROUP_FIGURES}
    result["groups"], result["gaps"] = {}, {}
    for name, partition in {**found, "predicted_age": uncertainty.by_prediction(predicted)}.items():
        more = {"mae_by_bin": age.mae_by_bin} if name in COMPARED else {}
        figures = pair_figures(true, predicted, functions | more)
        replicates = groups.group_replicates(boot, partition, figures, exact)
        table = groups.group_table(replicates)
        if name in COMPARED:
            gaps, standardised = groups.age_gaps(replicates, true, dict(partition.groups(exact)))
            if gaps is not None:
                result["gaps"][name] = gaps
            for group, value in standardised.items():
                table[group]["mae_age_standardised"] = value
        if intervals is not None:
            drawn = groups.group_replicates(boot, partition, intervals, sure)
            for group, values in groups.group_table(drawn).items():
                if not values.get("suppressed"):
                    table[group] |= {key: value for key, value in values.items() if key != "n"}
            failing = uncertainty.flag(table, partition, sure, true, low, high, drawn)
            result["undercovered"] += [f"{name}: {group}" for group in failing]
        for group, trained in training_counts.get(name, {}).items():
            if group in table:
                table[group]["train_n"] = trained
        result["groups"][name] = table
