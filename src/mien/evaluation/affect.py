"""Valence and arousal, and expression where many raters have voted: figures, baselines, groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from mien.evaluation import groups
from mien.evaluation.classes import probabilities
from mien.evaluation.groups import Partition, pair_figures
from mien.evaluation.predictions import Predictions
from mien.faces import EXPRESSIONS
from mien.metrics import age, concordance, raters
from mien.metrics.bootstrap import Bootstrap
from mien.metrics.weighted import mean

#: Name in the JSON -> function of (true, predicted, weights).
CONTINUOUS_FIGURES: dict[str, Callable[..., np.ndarray]] = {
    "ccc": concordance.ccc,
    "pearson": concordance.pearson,
    "rmse": age.rmse,
    "mae": age.mae,
    "sagr": concordance.sagr,
    "bias": age.bias,
}
#: Those given for every group.
BY_GROUP = ("ccc", "rmse", "bias")
#: Why a figure may be null.
UNDEFINED = {
    "ccc": "all labels are one number, so there is nothing to go with",
    "pearson": "all labels, or all predictions, are one number",
}


def judge_continuous(
    predictions: Predictions, name: str, boot: Bootstrap, found: Mapping[str, Partition]
) -> dict[str, Any]:
    """The part of valence or arousal: figures, the mean and the two signs as baselines, groups.

    A figure that is not defined is NaN (null in JSON) and `undefined` says why.
    """
    true, predicted = predictions.numbers(f"true_{name}"), predictions.numbers(name)
    known = ~np.isnan(true) & ~np.isnan(predicted)
    rows = np.flatnonzero(known)
    result: dict[str, Any] = {"n": len(rows)}
    if not len(rows):
        return result
    result |= boot.estimates(pair_figures(true, predicted, CONTINUOUS_FIGURES)(rows), rows)

    def constant(value: float, *figures: str) -> dict[str, Any]:
        functions = {figure: CONTINUOUS_FIGURES[figure] for figure in figures}
        return dict(boot.estimates(pair_figures(true, np.full(len(true), value), functions)(rows), rows))

    average = float(true[rows].mean())
    result["constant"] = {"value": average, **constant(average, "ccc", "rmse", "mae", "sagr")}
    result["always_negative"], result["always_positive"] = constant(-1.0, "sagr"), constant(1.0, "sagr")
    reasons = {figure: why for figure, why in UNDEFINED.items() if np.isnan(result[figure]["value"])}
    if reasons:
        result["undefined"] = reasons
    figures = pair_figures(true, predicted, {figure: CONTINUOUS_FIGURES[figure] for figure in BY_GROUP})
    result["groups"] = {
        by: groups.group_table(groups.group_replicates(boot, partition, figures, known))
        for by, partition in {**_expressions(predictions), **found}.items()
        if (known & (partition.codes >= 0)).any()
    }
    return result


def judge_raters(predictions: Predictions, boot: Bootstrap) -> dict[str, Any]:
    """How far raters agree with each other, and the model with them, from votes on expressions; {} without votes.

    Of the faces with two or more votes for an expression and no more for "unknown" or "no face" than for each of
    them; those votes themselves are abstentions, but `alpha_with_unknown` takes them for values of their own, over
    all faces. `one_rater` is a rater against the plurality of the others, `model` the model against the same others.
    Cross-entropy and divergence (of the raters' shares from the model's probabilities) are in nats.
    """
    votes = predictions.votes()
    said = predictions.codes("expression", EXPRESSIONS)
    named = votes[:, : len(EXPRESSIONS)]
    shares = raters.expression_labels(votes)
    voted, taught = ~np.isnan(votes[:, 0]) & (said >= 0), ~np.isnan(shares[:, 0])
    rows = np.flatnonzero(voted & taught & (named.sum(axis=1) > 1))
    if not len(rows):
        return {}
    one, model = raters.against_rest(named[rows]), raters.against_rest(named[rows], said[rows])
    figures = {
        "alpha": partial(raters.alpha, named[rows]),
        "one_rater": partial(mean, one),
        "model": partial(mean, model),
        "model_minus_one_rater": partial(mean, model - one),
        "constant_cross_entropy": partial(raters.mean_cross_entropy_of_constant, shares[rows]),
    }
    scores = probabilities(predictions, "expression", EXPRESSIONS)
    if scores is not None:
        figures["cross_entropy"] = partial(mean, raters.cross_entropy(shares[rows], scores[rows]))
        figures["divergence"] = partial(mean, raters.divergence(shares[rows], scores[rows]))
    everyone = np.flatnonzero(voted)
    return {
        "n": len(rows),
        "votes_a_face": float(named[rows].sum(axis=1).mean()),
        **boot.estimates(figures, rows),
        **boot.estimates({"alpha_with_unknown": partial(raters.alpha, votes[everyone])}, everyone),
        "tied": int((raters.plurality(shares[rows]) < 0).sum()),
        "mostly_unknown": int((voted & ~taught).sum()),
    }


def _expressions(predictions: Predictions) -> dict[str, Partition]:
    codes = predictions.codes("true_expression", EXPRESSIONS)
    return {"expression": Partition(codes, EXPRESSIONS)} if (codes >= 0).any() else {}
