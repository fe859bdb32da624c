"""From what the judges said of the renders to figures, each with its interval: by age asked for, by group of faces."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from mien.evaluation.ageing.passes import Arrays
from mien.evaluation.ageing.sample import Faces
from mien.evaluation.ageing.verification import GAPS, Verification, gap_of
from mien.evaluation.groups import FEWEST
from mien.metrics import ageing
from mien.metrics.bootstrap import Bootstrap, Estimate, estimate
from mien.metrics.concordance import pearson
from mien.metrics.weighted import mean_of_known, ratio

#: Figures told for each group of faces at each age; the others would make the table too wide to read.
CELL = ("mae", "bias", "in_band", "cosine", "verified", "joint")
#: Figures in which two renderers are compared on the same faces.
COMPARED = ("mae", "in_band", "cosine", "verified", "joint", "outside", "truth")


def values_of(
    answers: Arrays, faces: Faces, asked: np.ndarray, counted: np.ndarray, verification: Verification | None
) -> Arrays:
    """Figures of each face at each age asked for, (N, A) each; NaN where unknown. The bands of the ages that are
    `counted` do not depend on the others.

    - `judged`: the judged age; `bias` less the age asked for; `mae` that without its sign; `in_band` 1 within its band;
    - `cosine` with the given picture, `verified` 1 above the threshold of the age gap, `joint` 1 where in_band as well;
    - `gender_kept`, `race_kept`, `expression_kept`: 1 where the judge says of the render what it says of the face;
    - `points_moved`: mean distance of the 68 points from the given picture's, in eye distances;
    - `changed`, `outside`: mean absolute change of all pixels, and of those beyond the face, of 1;
    - `truth`: mean absolute difference from the drawn face as it truly is.
    """
    judged = answers["age"]
    values = {"judged": judged, "bias": judged - asked, "mae": np.abs(judged - asked)}
    values["in_band"] = ageing.in_band(judged, ageing.bands(asked, counted))
    if "cosine" in answers:
        values["cosine"] = answers["cosine"]
        if verification is not None:
            same = verification.same(answers["cosine"], asked[None] - faces.ages[:, None])
            values |= {"verified": same, "joint": same * values["in_band"]}
    plain = ("gender_kept", "race_kept", "expression_kept", "points_moved", "outside", "changed", "truth")
    return values | {name: answers[name] for name in plain if name in answers}


def per_face(values: Arrays, answers: Arrays, faces: Faces, asked: np.ndarray, counted: np.ndarray) -> Arrays:
    """Figures of each face, (N,): those of `values_of` over the ages that count, `rising`, `spearman` and `slope` of
    the judged ones, and `own_...` of the face at its own age."""
    found = {name: mean_of_known(each[:, counted]) for name, each in values.items() if name != "judged"}
    if counted.sum() > 1:
        judged, years = values["judged"][:, counted], asked[counted]
        found |= {
            "rising": ageing.rising(judged),
            "spearman": ageing.spearman(judged, years),
            "slope": ageing.slope(judged, years),
        }
    for name, own in answers.items():
        if name.startswith("own/") and name != "own/age":
            found[name.replace("/", "_")] = own
    if "own/age" in answers:
        found["own_mae"] = np.where(faces.exact, np.abs(answers["own/age"] - faces.ages), np.nan)
    return found


def judge_renders(
    answers: Arrays,
    faces: Faces,
    asked: np.ndarray,
    counted: np.ndarray,
    verification: Verification | None,
    boot: Bootstrap,
) -> dict[str, Any]:
    """All figures of one renderer, JSON-able.

    `summary` over the ages that count, `ages` for each age asked for, `gaps` identity by how far from its own a face is
    aged, `groups` the summary by age group, gender and race, `cells` each age group at each age. Groups of fewer than
    30 faces are suppressed.
    """
    values = values_of(answers, faces, asked, counted, verification)
    each = per_face(values, answers, faces, asked, counted)
    everyone = np.arange(len(faces))
    summary: dict[str, Any] = dict(estimates(each, boot, everyone))
    if counted.sum() > 1:
        summary |= boot.estimates({"spearman_pooled": _pooled(values["judged"][:, counted], asked[counted])})
    words = [f"{age:g}" for age in asked]
    result: dict[str, Any] = {
        "n": len(faces),
        "summary": summary,
        "ages": {
            word: estimates({name: one[:, place] for name, one in values.items()}, boot, everyone)
            for place, word in enumerate(words)
        },
        "gaps": _by_gap(values, faces, asked, boot),
        "groups": {},
        "cells": {},
    }
    everybody = np.ones(len(faces), dtype=bool)
    for by, partition in faces.partitions.items():
        result["groups"][by] = {}
        for group, rows in partition.groups(everybody):
            few = len(rows) < FEWEST
            told = {"suppressed": True} if few else estimates(each, boot, rows)
            result["groups"][by][group] = {"n": len(rows), **told}
            if by == "age_bin":
                result["cells"][group] = {"n": len(rows), **({"suppressed": True} if few else {})}
                for place, word in enumerate(words if not few else []):
                    some = {name: values[name][:, place] for name in CELL if name in values}
                    result["cells"][group][word] = estimates(some, boot, rows)
    return result


def _by_gap(values: Arrays, faces: Faces, asked: np.ndarray, boot: Bootstrap) -> dict[str, Any]:
    """Identity at each gap of `GAPS` between the face's age and the one asked for: each face's mean over its ages."""
    place = gap_of(asked[None] - faces.ages[:, None])
    there = [name for name in ("cosine", "verified") if name in values]
    return {
        f"{low}-{high - 1}": estimates(
            {name: mean_of_known(np.where(place == number, values[name], np.nan)) for name in there},
            boot,
            np.arange(len(faces)),
        )
        for number, (low, high) in enumerate(GAPS)
    }


def compared(one: Arrays, other: Arrays, boot: Bootstrap) -> dict[str, Any]:
    """The first renderer's `per_face` figures less the other's, paired on the same faces; `joint_ratio` and
    `truth_ratio` are the one's over the other's."""
    there = [name for name in COMPARED if name in one and name in other]
    rows = np.arange(len(boot))
    found: dict[str, Any] = dict(estimates({name: one[name] - other[name] for name in there}, boot, rows))
    for name in ("joint", "truth"):
        if name in there and not np.isnan([one[name], other[name]]).any():
            found |= boot.estimates({f"{name}_ratio": partial(_ratio, one[name], other[name])})
    return found


def estimates(values: Mapping[str, np.ndarray], boot: Bootstrap, rows: np.ndarray) -> dict[str, Estimate]:
    """The mean of each of `values` (N,) over `rows`, with its interval; n is of those that are known."""
    if not values:
        return {}
    table = np.stack([values[name][rows] for name in values], axis=1).astype(np.float64)
    known = ~np.isnan(table)
    filled = np.where(known, table, 0.0)
    drawn = boot.replicates({"mean": lambda weights: ratio(weights @ filled, weights @ known)}, rows)["mean"]
    counts = known.sum(axis=0)
    return {name: estimate(drawn[:, place], int(counts[place])) for place, name in enumerate(values)}


def _ratio(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return ratio(weights @ one, weights @ other)


def _pooled(judged: np.ndarray, asked: np.ndarray) -> Any:
    """Spearman's correlation over all renders that were judged; the ranks are those of all faces, whichever are
    drawn."""
    from scipy.stats import rankdata

    known = ~np.isnan(judged.ravel())
    said = rankdata(judged.ravel()[known])
    wanted = rankdata(np.tile(asked, len(judged))[known])

    def figure(weights: np.ndarray, count: int) -> np.ndarray:
        found: np.ndarray = pearson(wanted, said, np.repeat(weights, count, axis=-1)[..., known])
        return found

    return partial(figure, count=len(asked))
