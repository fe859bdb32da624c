"""Two models on the same faces: every difference with its paired interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from mien.errors import MienError
from mien.evaluation import uncertainty
from mien.evaluation.affect import BY_GROUP, CONTINUOUS_FIGURES
from mien.evaluation.classes import class_figures, confusion_figure, overall
from mien.evaluation.groups import FEWEST, Figures, Partition, pair_figures
from mien.evaluation.judge import AGE_FIGURES
from mien.evaluation.predictions import Predictions
from mien.faces import CONTINUOUS, VOCABULARIES
from mien.metrics.bootstrap import Bootstrap, estimate

#: +1 where more is better, -1 where less is; a figure that is not here has no better side.
BETTER = {
    "mae": -1, "median_ae": -1, "rmse": -1, "macro_mae": -1, "cs5": 1, "width90": -1,
    "accuracy": 1, "macro_f1": 1, "kappa": 1, "alpha": 1, "auroc": 1, "aupr": 1, "ece": -1,
    "ccc": 1, "pearson": 1, "sagr": 1,
}  # fmt: skip
#: Figures of age that are compared group by group.
AGE_BY_GROUP = ("mae", "bias", "cs5")
NUMBERS = ("true_age_low", "true_age_high", *(f"true_{name}" for name in CONTINUOUS))
WORDS = tuple(f"true_{name}" for name in VOCABULARIES)


def compare(first: Predictions, second: Predictions, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Second minus first, per figure and group, on the faces that both tables hold with the same labels.

    Each figure is `{"first", "second", "difference": Estimate, "better": "first" | "second" | None,
    "excludes_zero"}`. Both models are judged on the same resamples, so what makes a face hard for both
    cancels out.

    Raises:
        MienError: the tables have no face in common, or no task that both predict.
    """
    a, b, faces = common(first, second)
    if not len(a):
        raise MienError(
            f"the two have no face with the same labels in common (of {faces['common']} common faces "
            f"{faces['labels_differ']} are labelled differently); judge both with `mien evaluate` on one "
            "manifest and split"
        )
    boot = Bootstrap(a.groups(), resamples, seed)
    partitions = a.partitions()
    result: dict[str, Any] = {"faces": faces}
    if all(table.has("age") and table.has("true_age_low") for table in (a, b)):
        compared = _compare_age(a, b, boot, partitions)
        if compared:
            result["age"] = compared
    for name, classes in VOCABULARIES.items():
        if all(table.has(name) and table.has(f"true_{name}") for table in (a, b)):
            result[name] = _compare_classes(a, b, name, classes, boot, partitions)
    for name in CONTINUOUS:
        if all(table.has(name) and table.has(f"true_{name}") for table in (a, b)):
            result[name] = _compare_continuous(a, b, name, boot, partitions)
    if len(result) == 1:
        tasks = ", ".join(("age", *VOCABULARIES, *CONTINUOUS))
        raise MienError(f"the two predict no labelled task in common: none of {tasks} is in both")
    return result


def common(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions, dict[str, int]]:
    """The faces that both hold with equal labels, in the same order, and how many were common or not.

    A face is known by its picture's sha256 and its file's name: copies under other names may bear other
    labels. Where the hash is unknown, by its whole path.
    """
    rows = {key: row for row, key in reversed(list(enumerate(_keys(second))))}
    pairs = [(row, rows.pop(key)) for row, key in enumerate(_keys(first)) if key in rows]
    left, right = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    a, b = first.take(left), second.take(right)
    same = np.ones(len(a), dtype=bool)
    for name in WORDS:
        if a.has(name) and b.has(name):
            same &= a.strings(name) == b.strings(name)
    for name in NUMBERS:
        if a.has(name) and b.has(name):
            one, other = a.numbers(name), b.numbers(name)
            same &= (one == other) | (np.isnan(one) & np.isnan(other))
    faces = {
        "common": len(a),
        "only_first": len(first) - len(a),
        "only_second": len(second) - len(a),
        "labels_differ": int((~same).sum()),
    }
    return a.take(same), b.take(same), faces


def _keys(table: Predictions) -> list[tuple[str, str]]:
    return [
        (digest, PurePosixPath(path).name) if digest else ("", path)
        for digest, path in zip(table.strings("sha256"), table.strings("path"), strict=True)
    ]


def _compare_age(
    a: Predictions, b: Predictions, boot: Bootstrap, partitions: Mapping[str, Partition]
) -> dict[str, Any]:
    true, high = a.numbers("true_age_low"), a.numbers("true_age_high")
    ages = [table.numbers("age") for table in (a, b)]
    exact = (true == high) & ~np.isnan(ages[0]) & ~np.isnan(ages[1])
    rows = np.flatnonzero(exact)
    if not len(rows):
        return {}
    result: dict[str, Any] = {"n": len(rows)}
    result |= _differences(boot, [pair_figures(true, values, AGE_FIGURES) for values in ages], rows)
    ends = [(table.numbers("age_low"), table.numbers("age_high")) for table in (a, b)]
    if not any(np.isnan(end[rows]).any() for pair in ends for end in pair):
        result |= _differences(boot, [uncertainty.interval_figures(true, *pair) for pair in ends], rows)
    functions = {name: AGE_FIGURES[name] for name in AGE_BY_GROUP}
    figures = [pair_figures(true, values, functions) for values in ages]
    result["groups"] = _by_group(boot, figures, partitions, exact)
    return result


def _compare_classes(
    a: Predictions,
    b: Predictions,
    name: str,
    classes: tuple[str, ...],
    boot: Bootstrap,
    partitions: Mapping[str, Partition],
) -> dict[str, Any]:
    true = a.codes(f"true_{name}", classes)
    found = [table.codes(name, classes) for table in (a, b)]
    known = (true >= 0) & (found[0] >= 0) & (found[1] >= 0)
    rows = np.flatnonzero(known)
    figures = [confusion_figure(true, predicted, len(classes)) for predicted in found]
    return {
        "n": len(rows),
        **_differences(boot, [class_figures(table, name, classes) for table in (a, b)], rows, overall),
        "groups": _by_group(boot, figures, partitions, known, _accuracy),
    }


def _compare_continuous(
    a: Predictions, b: Predictions, name: str, boot: Bootstrap, partitions: Mapping[str, Partition]
) -> dict[str, Any]:
    true = a.numbers(f"true_{name}")
    values = [table.numbers(name) for table in (a, b)]
    known = ~np.isnan(true) & ~np.isnan(values[0]) & ~np.isnan(values[1])
    rows = np.flatnonzero(known)
    by_group = {figure: CONTINUOUS_FIGURES[figure] for figure in BY_GROUP}
    return {
        "n": len(rows),
        **_differences(boot, [pair_figures(true, each, CONTINUOUS_FIGURES) for each in values], rows),
        "groups": _by_group(boot, [pair_figures(true, each, by_group) for each in values], partitions, known),
    }


#: Raw material of figures, such as a confusion matrix, to the figures themselves.
Derived = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def _accuracy(drawn: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    return {"accuracy": overall(drawn)["accuracy"]}


def _differences(
    boot: Bootstrap, figures: list[Figures], rows: np.ndarray, derived: Derived | None = None
) -> dict[str, Any]:
    """Each figure's comparison, or that of what is `derived` from them, where both models have it."""
    both = {f"{side} {name}": of for side, each in enumerate(figures) for name, of in each(rows).items()}
    replicates = boot.replicates(both, rows)
    drawn: list[Mapping[str, np.ndarray]] = [
        {name: replicates[f"{side} {name}"] for name in each(rows)} for side, each in enumerate(figures)
    ]
    if derived is not None:
        drawn = [derived(each) for each in drawn]
    return {name: verdict(name, drawn[0][name], drawn[1][name], len(rows)) for name in drawn[0] if name in drawn[1]}


def verdict(name: str, first: np.ndarray, second: np.ndarray, n: int) -> dict[str, Any]:
    """The comparison of one figure from its paired replicates, (1 + B,) each."""
    difference = estimate(second - first, n)
    direction = BETTER.get(name, 0) * difference["value"]
    return {
        "first": float(first[0]),
        "second": float(second[0]),
        "difference": difference,
        "better": "second" if direction > 0 else "first" if direction < 0 else None,
        "excludes_zero": difference["low"] > 0 or difference["high"] < 0,
    }


def _by_group(
    boot: Bootstrap,
    figures: list[Figures],
    partitions: Mapping[str, Partition],
    known: np.ndarray,
    derived: Derived | None = None,
) -> dict[str, Any]:
    return {
        by: {
            name: {"n": len(rows), "suppressed": True}
            if len(rows) < FEWEST
            else {"n": len(rows), **_differences(boot, figures, rows, derived)}
            for name, rows in partition.groups(known)
        }
        for by, partition in partitions.items()
    }
