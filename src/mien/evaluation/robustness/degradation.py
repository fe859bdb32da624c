"""From the passes of a robustness audit to its figures: how much worse a model becomes, by what, and for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mien.data.corruptions import TABLE
from mien.evaluation.groups import FEWEST, Partition
from mien.evaluation.predictions import Predictions
from mien.evaluation.robustness.cells import Cell, Passes
from mien.faces import CONTINUOUS, VOCABULARIES
from mien.metrics import age, concordance, weighted
from mien.metrics.bootstrap import Bootstrap, Figure, estimate

#: Partitions whose groups are told apart.
GROUPED = ("age_bin", "gender", "race")
#: Subsets of the corruptions that are summed up: by what the model was shown in training.
PARTS = ("all", "seen", "unseen", "unknown")

#: Replicates (1 + resamples,) of a figure: of clean faces (None) and of each cell; see `Judged.figures`.
Drawn = dict[Any, np.ndarray]


@dataclass(frozen=True)
class Measure:
    """The figure that tells how well a task is done. Its error is what a corruption error is made of: the figure itself
    where less is better, else how much it lacks to 1."""

    figure: str
    unit: str
    lower: bool
    function: Callable[..., np.ndarray]

    def error(self, values: np.ndarray) -> np.ndarray:
        return values if self.lower else 1 - values


AGE = Measure("mae", "years", True, age.mae)
CONCORDANCE = Measure("ccc", "", False, concordance.ccc)


@dataclass(frozen=True)
class Judged:
    """A task on N faces: the truth, the answers on clean, mirrored and corrupted pictures, and which are there."""

    measure: Measure
    true: np.ndarray
    clean: np.ndarray
    mirrored: np.ndarray
    cells: dict[Cell, np.ndarray]
    known: np.ndarray

    def figures(self, rows: np.ndarray) -> dict[Any, Figure]:
        """The figure of clean faces (key None) and of each cell, on those of `rows` that the cell has an answer for.

        Where a cell lacks some, the figure that these very faces have clean stands under (cell, "clean").
        """
        true, clean, function = self.true[rows], self.clean[rows], self.measure.function
        found: dict[Any, Figure] = {None: _figure(function, true, clean)}
        for cell, values in self.cells.items():
            found[cell] = _figure(function, true, values[rows])
            gone = np.isnan(values[rows])
            if gone.any():
                found[cell, "clean"] = _figure(function, true, np.where(gone, np.nan, clean))
        return found


def judge_passes(
    passes: Passes,
    training: set[str] | None,
    baseline: Passes | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every figure of an audit: `{"tasks": {"age": {...}, ...}, "found": {...}}`, JSON-able.

    `training` names the families of corruptions that the model was shown in training, None where nobody knows.
    `baseline` is the audit of another model on the same faces; corruption errors are against it.
    """
    boot = Bootstrap(passes.clean.groups(), resamples, seed)
    result: dict[str, Any] = {"tasks": {}}
    for name in tasks_of(passes):
        other = judged(baseline, name) if baseline is not None and name in tasks_of(baseline) else None
        result["tasks"][name] = judge_task(passes, name, boot, training, other)
    if any(not answers.found.all() for answers in passes.cells.values()) or passes.unfound:
        result["found"] = _found(passes, boot)
    return result


def tasks_of(passes: Passes) -> list[str]:
    """Tasks that the model answers and some face has the label of."""
    names = ("age", *VOCABULARIES, *CONTINUOUS)
    return [name for name in names if passes.clean.has(name) and judged(passes, name).known.any()]


def judged(passes: Passes, name: str) -> Judged:
    """The truth and the answers of one task: ages and numbers as they are, classes as codes, NaN where missing."""
    clean = passes.clean
    if name in VOCABULARIES:
        codes = {word: float(code) for code, word in enumerate(VOCABULARIES[name])}

        def read(words: np.ndarray) -> np.ndarray:
            return np.array([codes.get(word, np.nan) for word in words], dtype=np.float64)

        measure = Measure("accuracy", "share", False, _accuracy)
        true, told = read(clean.strings(f"true_{name}")), read(clean.strings(name))
        answers = {cell: read(found.values[name]) for cell, found in passes.cells.items()}
        mirrored = read(passes.mirrored.values[name])
    else:
        measure = AGE if name == "age" else CONCORDANCE
        true, told = _truth(clean, name), clean.numbers(name)
        answers = {cell: found.values[name] for cell, found in passes.cells.items()}
        mirrored = passes.mirrored.values[name]
    return Judged(measure, true, told, mirrored, answers, ~np.isnan(true) & ~np.isnan(told))


def judge_task(
    passes: Passes, name: str, boot: Bootstrap, training: set[str] | None, other: Judged | None = None
) -> dict[str, Any]:
    """The part of one task; see `docs/audit.md` for what each figure is."""
    mine = judged(passes, name)
    measure, rows = mine.measure, np.flatnonzero(mine.known if other is None else mine.known & other.known)
    drawn: Drawn = boot.replicates(mine.figures(rows), rows)
    against: Drawn | None = boot.replicates(other.figures(rows), rows) if other is not None else None
    n = len(rows)
    seen = {corruption: seen_in(corruption, training) for corruption, _ in mine.cells}
    result: dict[str, Any] = {
        "figure": measure.figure,
        "unit": measure.unit,
        "better": "lower" if measure.lower else "higher",
        "n": n,
        "clean": estimate(drawn[None], n),
        "constant": _constant(mine, rows, boot),
        "flip": _flip(mine, rows, boot, name),
        "corruptions": {},
        "summary": {},
    }
    groups = _groups(passes.clean, mine, rows, boot)
    for corruption in seen:
        cells = [cell for cell in mine.cells if cell[0] == corruption]
        levels = {}
        for cell in cells:
            there = int((~np.isnan(mine.cells[cell][rows])).sum())
            found = {measure.figure: estimate(drawn[cell], there), "drop": estimate(_drop(measure, drawn, cell), there)}
            levels[str(cell[1])] = found
        entry: dict[str, Any] = {
            "family": TABLE[corruption].family,
            "seen": seen[corruption],
            "levels": levels,
            "mean": estimate(_mean(drawn[cell] for cell in cells), n),
            "drop": estimate(_mean(_drop(measure, drawn, cell) for cell in cells), n),
        }
        if against is not None and (both := _told(cells, drawn, against)):
            entry["ce"] = estimate(corruption_error(measure, drawn, against, both), n)
            entry["relative_ce"] = estimate(relative_error(measure, drawn, against, both), n)
        worst = _worst({by: _group_drops(measure, parts, cells) for by, parts in groups.items()})
        if worst is not None:
            entry["worst_group"] = worst
        result["corruptions"][corruption] = entry
    for part in PARTS:
        names = [one for one, said in seen.items() if part in ("all", _word(said))]
        if names:
            result["summary"][part] = _sum_up(measure, drawn, against, names, list(mine.cells), n)
    drops = {by: _group_drops(measure, parts, list(mine.cells)) for by, parts in groups.items()}
    result["groups"] = {
        by: {group: _group_entry(parts[group], drops[by].get(group), list(mine.cells)) for group in parts}
        for by, parts in groups.items()
    }
    result["worst_group"] = {by: worst for by in drops if (worst := _worst({by: drops[by]})) is not None}
    return result


def seen_in(corruption: str, training: set[str] | None) -> bool | None:
    """Whether training showed something of a corruption's family; None where nobody knows."""
    return None if training is None else TABLE[corruption].family in training


def corruption_error(measure: Measure, drawn: Drawn, against: Drawn, cells: Sequence[Cell]) -> np.ndarray:
    """CE of one corruption: the sum of a model's errors over severities by that of the baseline's."""
    errors, others = (sum(measure.error(values[cell]) for cell in cells) for values in (drawn, against))
    return weighted.ratio(np.asarray(errors), np.asarray(others))


def relative_error(measure: Measure, drawn: Drawn, against: Drawn, cells: Sequence[Cell]) -> np.ndarray:
    """Relative CE of one corruption: the same with each model's error on clean faces taken off.

    NaN where the baseline does not become worse: there is nothing to divide by.
    """
    extra, others = (sum(_drop(measure, values, cell) for cell in cells) for values in (drawn, against))
    others = np.asarray(others)
    return weighted.ratio(np.asarray(extra), np.where(others > 0, others, 0.0))


def _sum_up(
    measure: Measure,
    drawn: Drawn,
    against: Drawn | None,
    names: Sequence[str],
    cells: Sequence[Cell],
    n: int,
) -> dict[str, Any]:
    """Means over the corruptions `names`, and how they compare with the baseline's; cells in which one of the two has
    no figure are left out."""
    chosen = [_told([cell for cell in cells if cell[0] == name], drawn, against) for name in names]
    chosen = [part for part in chosen if part] or [[cell for cell in cells if cell[0] in names]]
    mine = [cell for part in chosen for cell in part]
    mean = _mean(drawn[cell] for cell in mine)
    result: dict[str, Any] = {
        "corruptions": len({name for name, _ in mine}),
        "cells": len(mine),
        "mean": estimate(mean, n),
        "drop": estimate(_mean(_drop(measure, drawn, cell) for cell in mine), n),
    }
    if against is not None:
        other = _mean(against[cell] for cell in mine)
        result |= {
            "mce": estimate(np.mean([corruption_error(measure, drawn, against, part) for part in chosen], axis=0), n),
            # Where one corruption has none, that of all is not known.
            "relative_mce": estimate(
                np.mean([relative_error(measure, drawn, against, part) for part in chosen], axis=0), n
            ),
            "baseline": {
                "clean": estimate(against[None], n),
                "mean": estimate(other, n),
                "clean_difference": estimate(drawn[None] - against[None], n),
                "difference": estimate(mean - other, n),
                "ratio": estimate(weighted.ratio(measure.error(mean), measure.error(other)), n),
            },
        }
    return result


def _figure(function: Callable[..., np.ndarray], true: np.ndarray, told: np.ndarray) -> Figure:
    there = ~np.isnan(told)
    if there.all():
        return lambda weights: function(true, told, weights)
    return lambda weights: function(true[there], told[there], weights[..., there])


def _accuracy(true: np.ndarray, told: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    return weighted.mean(true == told, weights)


def _truth(clean: Predictions, name: str) -> np.ndarray:
    if name != "age":
        return clean.numbers(f"true_{name}")
    low, high = clean.numbers("true_age_low"), clean.numbers("true_age_high")
    return np.where(low == high, low, np.nan)


def _drop(measure: Measure, drawn: Drawn, cell: Cell) -> np.ndarray:
    """How much worse a cell is than clean faces, above 0 where it is worse."""
    return measure.error(drawn[cell]) - measure.error(_clean_of(drawn, cell))


def _clean_of(drawn: Drawn, cell: Cell) -> np.ndarray:
    return drawn.get((cell, "clean"), drawn[None])


def _mean(parts: Iterable[np.ndarray]) -> np.ndarray:
    """The mean of replicates over cells, without those that have no figure: nobody was found in them."""
    all_ = list(parts)
    known = [one for one in all_ if not np.isnan(one[0])]
    return weighted.mean_of_known(np.stack(known, axis=-1)) if known else all_[0]


def _told(cells: Sequence[Cell], *sides: Drawn | None) -> list[Cell]:
    """The cells that have a figure on every side that is there."""
    return [cell for cell in cells if not any(np.isnan(drawn[cell][0]) for drawn in sides if drawn is not None)]


def _word(seen: bool | None) -> str:
    return "unknown" if seen is None else "seen" if seen else "unseen"


def _constant(mine: Judged, rows: np.ndarray, boot: Bootstrap) -> dict[str, Any]:
    """What always the same answer gets: the median age, the most frequent class, the mean."""
    true = mine.true[rows]
    if mine.measure.figure == "mae":
        answer = age.constant(true)
    elif mine.measure.figure == "accuracy":
        codes, counts = np.unique(true, return_counts=True)
        answer = float(codes[counts.argmax()])
    else:
        answer = float(true.mean())
    told = np.full(len(true), answer)
    (found,) = boot.estimates({"constant": _figure(mine.measure.function, true, told)}, rows).values()
    return dict(found)


def _flip(mine: Judged, rows: np.ndarray, boot: Bootstrap, name: str) -> dict[str, Any]:
    """Whether a face and its mirror image, where it is found in it, are given the same answer."""
    rows = rows[~np.isnan(mine.mirrored[rows])]
    clean, mirrored = mine.clean[rows], mine.mirrored[rows]
    classes = mine.measure.figure == "accuracy"
    values = (clean == mirrored).astype(float) if classes else np.abs(clean - mirrored)
    (found,) = boot.estimates({name: lambda weights: weighted.mean(values, weights)}, rows).values()
    return {"figure": "agreement" if classes else "difference", **found}


def _groups(
    clean: Predictions, mine: Judged, rows: np.ndarray, boot: Bootstrap
) -> dict[str, dict[str, tuple[int, Drawn]]]:
    """Replicates of every cell for each group, {} for groups of fewer than `FEWEST` faces."""
    known = np.zeros(len(clean), dtype=bool)
    known[rows] = True
    found: dict[str, Partition] = clean.partitions()
    return {
        by: {
            group: (len(part), boot.replicates(mine.figures(part), part) if len(part) >= FEWEST else {})
            for group, part in found[by].groups(known)
        }
        for by in GROUPED
        if by in found
    }


def _group_drops(
    measure: Measure, parts: Mapping[str, tuple[int, Drawn]], cells: Sequence[Cell]
) -> dict[str, dict[str, Any]]:
    return {
        group: dict(estimate(_mean(_drop(measure, drawn, cell) for cell in cells), n))
        for group, (n, drawn) in parts.items()
        if drawn
    }


def _group_entry(part: tuple[int, Drawn], drop: dict[str, Any] | None, cells: Sequence[Cell]) -> dict[str, Any]:
    n, drawn = part
    if drop is None:
        return {"n": n, "suppressed": True}
    mean = estimate(_mean(drawn[cell] for cell in cells), n)
    return {"n": n, "clean": estimate(drawn[None], n), "mean": mean, "drop": drop}


def _worst(drops: Mapping[str, Mapping[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """The group that loses most; chosen on the faces it is judged on, so its interval is a little too good.

    None where no partition has two groups large enough: one alone is not the worst of anything.
    """
    compared = {by: groups for by, groups in drops.items() if len(groups) > 1}
    found = [(drop["value"], by, group, drop) for by, groups in compared.items() for group, drop in groups.items()]
    known = [one for one in found if np.isfinite(one[0])]
    if not known:
        return None
    _, by, group, drop = max(known, key=lambda one: one[0])
    return {"by": by, "group": group, "drop": drop}


def _found(passes: Passes, boot: Bootstrap) -> dict[str, Any]:
    """Of the photos whose face was found when clean, the share in which it is no longer found."""
    rows = np.arange(len(passes.clean))
    lost = {cell: (~answers.found).astype(float) for cell, answers in passes.cells.items()}
    figures: dict[Any, Figure] = {
        cell: lambda weights, values=values: weighted.mean(values, weights)  # type: ignore[misc]
        for cell, values in lost.items()
    }
    drawn: Drawn = boot.replicates(figures, rows)
    names = dict.fromkeys(cell[0] for cell in lost)
    return {
        "n": len(rows),
        "unfound_clean": len(passes.unfound),
        "lost": {
            name: {str(cell[1]): estimate(drawn[cell], len(rows)) for cell in lost if cell[0] == name} for name in names
        },
        "mean": estimate(_mean(drawn.values()), len(rows)),
    }
