"""Everything about a task with classes: agreement, ranking, calibration, each class, groups, the majority."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from mien.evaluation import groups
from mien.evaluation.groups import COMPARED, Figures, Partition
from mien.evaluation.predictions import Predictions
from mien.metrics import agreement, calibration, ranking
from mien.metrics.bootstrap import Bootstrap, Figure, estimate, estimate_from_above
from mien.metrics.weighted import mean_of_known

#: Name in the JSON -> function of a confusion matrix.
CLASS_FIGURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": agreement.accuracy,
    "macro_f1": agreement.macro_f1,
    "kappa": agreement.kappa,
    "alpha": agreement.alpha,
}
#: Names in the JSON of `ranking.one_vs_rest`'s two areas; of a task, the mean over the classes that occur.
RANKINGS = ("auroc", "aupr")
#: Name in the JSON -> function of a confusion matrix that gives a figure for each class.
EACH: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "precision": agreement.precision,
    "recall": agreement.recall,
    "f1": agreement.f1,
}
#: Why a figure may be null.
UNDEFINED = {
    "kappa": "labels and predictions are one and the same class throughout, so chance alone is always right",
    "alpha": "labels and predictions are one and the same class throughout, so no disagreement can be expected",
    "auroc": "all labels are of one class, so there is nothing to rank it against",
}


def judge_classes(
    predictions: Predictions,
    name: str,
    classes: tuple[str, ...],
    boot: Bootstrap,
    found: Mapping[str, Partition],
) -> dict[str, Any]:
    """The part of one task with classes.

    Agreement from the confusion matrix; AUROC and AUPR from probabilities, one class against the rest, their means
    over the classes that occur among the labels; each of these by class; calibration; groups; the majority class.
    A figure that is not defined is NaN (null in JSON) and `undefined` says why.
    """
    true, predicted = predictions.codes(f"true_{name}", classes), predictions.codes(name, classes)
    known = (true >= 0) & (predicted >= 0)
    rows = np.flatnonzero(known)
    result: dict[str, Any] = {"n": len(rows), "classes": list(classes)}
    if not len(rows):
        return result
    drawn = boot.replicates(class_figures(predictions, name, classes)(rows), rows)
    for figure, values in overall(drawn).items():
        result[figure] = (estimate_from_above if figure == "ece" else estimate)(values, len(rows))
    matrices = drawn["confusion"]
    result["confusion"] = matrices[0].astype(int).tolist()
    result["per_class"] = _each_class(drawn, classes)
    result["majority"] = _majority(matrices, classes)
    reasons = {
        figure: why for figure, why in UNDEFINED.items() if figure in result and np.isnan(result[figure]["value"])
    }
    if reasons:
        result["undefined"] = reasons
    result["groups"], result["gaps"] = {}, {}
    figures = confusion_figure(true, predicted, len(classes))
    for by, partition in found.items():
        accuracies = {
            group: (n, {"accuracy": agreement.accuracy(part["confusion"])} if part else {})
            for group, (n, part) in groups.group_replicates(boot, partition, figures, known).items()
        }
        result["groups"][by] = groups.group_table(accuracies)
        large = {group: part["accuracy"] for group, (_, part) in accuracies.items() if part}
        gap = groups.gap(large, {group: accuracies[group][0] for group in large})
        if gap is not None and by in COMPARED:
            result["gaps"][by] = {"raw": gap[0], "between": gap[1]}
    return result


def class_figures(predictions: Predictions, name: str, classes: tuple[str, ...]) -> Figures:
    """What every figure of a task follows from: `confusion`, and where there are probabilities the `RANKINGS` of each
    class, as `areas`, and `ece`."""
    true, predicted = predictions.codes(f"true_{name}", classes), predictions.codes(name, classes)
    scores = probabilities(predictions, name, classes)
    confidence = predictions.numbers(f"{name}_p") if predictions.has(f"{name}_p") else None
    matrix = confusion_figure(true, predicted, len(classes))

    def figures(rows: np.ndarray) -> Mapping[str, Figure]:
        found = dict(matrix(rows))
        if scores is not None:
            found["areas"] = ranking.one_vs_rest(true[rows], scores[rows])
        if confidence is not None:
            correct = (true == predicted)[rows]
            found["ece"] = partial(calibration.expected_calibration_error, confidence[rows], correct)
        return found

    return figures


def confusion_figure(true: np.ndarray, predicted: np.ndarray, classes: int) -> Figures:
    """The confusion matrix of any rows of these codes (N,)."""

    def figures(rows: np.ndarray) -> Mapping[str, Figure]:
        t, p = true[rows], predicted[rows]
        return {"confusion": lambda w: agreement.confusion(t, p, classes, w)}

    return figures


def overall(drawn: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The figures of a task, (...,) each, from what `class_figures` gave."""
    found = {figure: function(drawn["confusion"]) for figure, function in CLASS_FIGURES.items()}
    found |= {figure: mean_of_known(areas) for figure, areas in _rankings(drawn).items()}
    return found | ({"ece": drawn["ece"]} if "ece" in drawn else {})


def _rankings(drawn: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The areas of each class, (..., K), by name; none where there are no probabilities."""
    return {figure: drawn["areas"][..., at, :] for at, figure in enumerate(RANKINGS) if "areas" in drawn}


def probabilities(predictions: Predictions, name: str, classes: tuple[str, ...]) -> np.ndarray | None:
    """The probability of each class, (N, K) in [0, 1]; None where the table does not have all of them."""
    columns = [f"{name}_{word}" for word in classes]
    if not all(predictions.has(column) for column in columns):
        return None
    return np.stack([predictions.numbers(column) for column in columns], axis=1)


def _each_class(drawn: Mapping[str, np.ndarray], classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    matrices = drawn["confusion"]
    found = {figure: function(matrices) for figure, function in EACH.items()}
    found |= _rankings(drawn)
    sizes, given = matrices[0].sum(axis=1), matrices[0].sum(axis=0)
    return {
        word: {
            "n": int(sizes[code]),
            **{
                figure: estimate(values[:, code], int((given if figure == "precision" else sizes)[code]))
                for figure, values in found.items()
            },
        }
        for code, word in enumerate(classes)
    }


def _majority(matrices: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Always naming the most frequent class: a constant ranks nothing, so its AUROC is a half, its AUPR the share."""
    sizes = matrices[0].sum(axis=1)
    code, n = int(sizes.argmax()), int(sizes.sum())
    constant = np.zeros_like(matrices)
    constant[:, :, code] = matrices.sum(axis=2)
    return {
        "class": classes[code],
        **{figure: estimate(function(constant), n) for figure, function in CLASS_FIGURES.items()},
        "auroc": 0.5,
        "aupr": 1 / int((sizes > 0).sum()),
    }
