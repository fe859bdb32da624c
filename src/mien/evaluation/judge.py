"""From a predictions table alone to every figure of an evaluation, with its interval and its baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from mien.evaluation import groups, uncertainty
from mien.evaluation.groups import Partition
from mien.evaluation.predictions import Predictions
from mien.faces import VOCABULARIES
from mien.metrics import age, agreement, calibration
from mien.metrics.bootstrap import Bootstrap, Figure, estimate

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
#: Name in the JSON -> function of a confusion matrix.
CLASS_FIGURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": agreement.accuracy,
    "macro_f1": agreement.macro_f1,
}
#: Partitions between whose groups gaps are told.
COMPARED = ("gender", "race", f"gender{groups.CROSS}race")
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
    """Everything about these predictions: `{"age": {...}, "gender": {...}, "race": {...}}`, JSON-able.

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
    result |= boot.estimates(age_figures(true, predicted, AGE_FIGURES)(rows), rows)
    result["macro_bins"] = int(np.isfinite(age.mae_by_bin(true[rows], predicted[rows])).sum())
    result["cs"] = age.cumulative_scores(true[rows], predicted[rows]).tolist()
    result["constant"] = _constant(true, rows, boot)
    heads = {name: predictions.numbers(name) for name in HEADS if predictions.has(name)}
    if len(heads) > 1:
        result["heads"] = {
            name: boot.estimates(age_figures(true, values, {"mae": age.mae})(rows), rows)
            for name, values in heads.items()
        }
    _by_group(result, predictions, boot, found, exact, training_counts)
    return result


def age_figures(
    true: np.ndarray, predicted: np.ndarray, functions: Mapping[str, Callable[..., np.ndarray]]
) -> groups.Figures:
    """`functions` of (true, predicted, weights) as figures of any rows of these ages (N,)."""

    def figures(rows: np.ndarray) -> Mapping[str, Figure]:
        t, p = true[rows], predicted[rows]
        return {name: partial(function, t, p) for name, function in functions.items()}

    return figures


def _constant(true: np.ndarray, rows: np.ndarray, boot: Bootstrap) -> dict[str, Any]:
    years = age.constant(true[rows])
    constant = np.full(len(true), years)
    functions = {"mae": age.mae, "macro_mae": age.macro_mae}
    return {
        "years": years,
        **boot.estimates(age_figures(true, constant, functions)(rows), rows),
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
        figures = age_figures(true, predicted, functions | more)
        replicates = groups.group_replicates(boot, partition, figures, exact)
        table = groups.group_table(replicates)
        if name in COMPARED:
            gaps, standardised = groups.age_gaps(replicates, true, dict(partition.groups(exact)))
            if gaps is not None:
                result["gaps"][name] = gaps
            for group, value in standardised.items():
                table[group]["mae_age_standardised"] = value
        if intervals is not None:
            covered = groups.group_table(groups.group_replicates(boot, partition, intervals, sure))
            for group, values in covered.items():
                if not values.get("suppressed"):
                    table[group] |= {key: value for key, value in values.items() if key != "n"}
            failing = uncertainty.flag(table, partition, sure, true, low, high)
            result["undercovered"] += [f"{name}: {group}" for group in failing]
        for group, trained in training_counts.get(name, {}).items():
            if group in table:
                table[group]["train_n"] = trained
        result["groups"][name] = table


def judge_classes(
    predictions: Predictions,
    name: str,
    classes: tuple[str, ...],
    boot: Bootstrap,
    found: Mapping[str, Partition],
) -> dict[str, Any]:
    """The part of one task with classes: accuracy, F1, recall, confusion, calibration, groups, baseline."""
    true, predicted = predictions.codes(f"true_{name}", classes), predictions.codes(name, classes)
    known = (true >= 0) & (predicted >= 0)
    rows = np.flatnonzero(known)
    result: dict[str, Any] = {"n": len(rows), "classes": list(classes)}
    if not len(rows):
        return result
    figures = confusion_figure(true, predicted, len(classes))
    matrices = boot.replicates(figures(rows), rows)["confusion"]
    matrix = matrices[0]
    for figure, function in CLASS_FIGURES.items():
        result[figure] = estimate(function(matrices), len(rows))
    recalls, sizes = agreement.recall(matrices), matrix.sum(axis=1)
    result["recall"] = {
        word: estimate(recalls[:, code], int(sizes[code])) for code, word in enumerate(classes) if sizes[code]
    }
    result["confusion"] = matrix.astype(int).tolist()
    result["majority"] = {
        "class": classes[int(sizes.argmax())],
        "accuracy": estimate(agreement.majority(matrices), len(rows)),
    }
    if predictions.has(f"{name}_p"):
        confidence, correct = predictions.numbers(f"{name}_p")[rows], (true == predicted)[rows]

        def error(weights: np.ndarray) -> np.ndarray:
            return calibration.expected_calibration_error(confidence, correct, weights)

        result |= boot.estimates({"ece": error}, rows)
    result["groups"], result["gaps"] = {}, {}
    for by, partition in found.items():
        accuracies = {
            group: (n, {"accuracy": agreement.accuracy(drawn["confusion"])} if drawn else {})
            for group, (n, drawn) in groups.group_replicates(boot, partition, figures, known).items()
        }
        result["groups"][by] = groups.group_table(accuracies)
        large = {group: drawn["accuracy"] for group, (_, drawn) in accuracies.items() if drawn}
        gap = groups.gap(large, {group: accuracies[group][0] for group in large})
        if gap is not None and by in COMPARED:
            result["gaps"][by] = {"raw": gap[0], "between": gap[1]}
    return result


def confusion_figure(true: np.ndarray, predicted: np.ndarray, classes: int) -> groups.Figures:
    """The confusion matrix of any rows of these codes (N,): every figure of classes follows from it."""

    def figures(rows: np.ndarray) -> Mapping[str, Figure]:
        t, p = true[rows], predicted[rows]
        return {"confusion": lambda w: agreement.confusion(t, p, classes, w)}

    return figures
