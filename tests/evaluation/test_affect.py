"""Expression, valence and arousal: every figure against an independent one, and every degenerate split."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import krippendorff
import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from sklearn import metrics as sk

from mien.evaluation.compare import compare
from mien.evaluation.judge import judge
from mien.evaluation.predictions import Predictions
from mien.faces import EXPRESSIONS
from mien.files import to_json
from mien.metrics import raters
from mien.metrics.bootstrap import Bootstrap

Table = Callable[..., Predictions]
WORDS = np.array(EXPRESSIONS, dtype=object)


def affect_columns(n: int = 400, seed: int = 0, classes: int = 8, **columns: Any) -> dict[str, Any]:
    """Labels and answers of expression, valence and arousal; `columns` replace or add."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, classes, n)
    logits = generator.normal(size=(n, 8)) + 1.2 * np.eye(8)[true]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    said = p.argmax(1)
    feeling = generator.uniform(-1, 1, (n, 2)).round(2)
    answer = np.clip(0.6 * feeling + generator.normal(0, 0.25, (n, 2)), -1, 1)
    made = {
        "true_expression": WORDS[true],
        "expression": WORDS[said],
        "expression_p": p.max(1),
        **{f"expression_{word}": p[:, code] for code, word in enumerate(EXPRESSIONS)},
        "true_valence": feeling[:, 0],
        "true_arousal": feeling[:, 1],
        "valence": answer[:, 0],
        "arousal": answer[:, 1],
        "gender": None,
        "race": None,
        "age": None,
    }
    return {**made, **columns}


def vote_columns(n: int, seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    chances = generator.dirichlet(np.full(10, 0.4), n)
    votes = np.stack([generator.multinomial(10, each) for each in chances]).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(votes.ravel()), 10, mask=pa.array(np.arange(n) % 7 == 0))
    return {"votes": votes, "true_expression_votes": column}


def scores(predictions: Predictions) -> np.ndarray:
    return np.stack([predictions.numbers(f"expression_{word}") for word in EXPRESSIONS], axis=1)


def test_expression_against_sklearn_and_krippendorff(table: Table) -> None:
    predictions = table(400, **affect_columns())
    result = judge(predictions, resamples=20)["expression"]
    true, said = (predictions.codes(name, EXPRESSIONS) for name in ("true_expression", "expression"))
    p = scores(predictions)
    assert {key: result[key]["value"] for key in ("accuracy", "macro_f1", "kappa", "alpha", "auroc", "aupr")} == {
        "accuracy": pytest.approx(sk.accuracy_score(true, said)),
        "macro_f1": pytest.approx(sk.f1_score(true, said, labels=range(8), average="macro")),
        "kappa": pytest.approx(sk.cohen_kappa_score(true, said)),
        "alpha": pytest.approx(krippendorff.alpha([true, said], level_of_measurement="nominal", value_domain=range(8))),
        "auroc": pytest.approx(sk.roc_auc_score(true, p / p.sum(1, keepdims=True), multi_class="ovr")),
        "aupr": pytest.approx(sk.average_precision_score(np.eye(8)[true], p)),
    }
    assert all(result[key]["low"] < result[key]["value"] < result[key]["high"] for key in ("auroc", "kappa", "aupr"))
    precision, recall, f1, n = sk.precision_recall_fscore_support(true, said, labels=range(8))
    for code, word in enumerate(EXPRESSIONS):
        each = result["per_class"][word]
        assert each["n"] == n[code]
        assert each["precision"]["value"] == pytest.approx(precision[code])
        assert each["recall"]["value"] == pytest.approx(recall[code])
        assert each["f1"]["value"] == pytest.approx(f1[code])
        assert each["auroc"]["value"] == pytest.approx(sk.roc_auc_score(true == code, p[:, code]))
        assert each["aupr"]["value"] == pytest.approx(sk.average_precision_score(true == code, p[:, code]))
        assert each["precision"]["n"] == (said == code).sum()
    majority = result["majority"]
    always = np.full(len(true), np.bincount(true).argmax())
    assert majority["accuracy"]["value"] == pytest.approx(sk.accuracy_score(true, always))
    # One answer for all resamples: a majority found anew in each would lie above the value.
    assert majority["accuracy"]["low"] <= majority["accuracy"]["value"] <= majority["accuracy"]["high"]
    assert majority["macro_f1"]["value"] == pytest.approx(
        sk.f1_score(true, always, labels=range(8), average="macro", zero_division=0)
    )
    assert majority["kappa"]["value"] == pytest.approx(0)
    flat = np.full((len(true), 8), 1 / 8)
    assert majority["auroc"] == sk.roc_auc_score(true, flat, multi_class="ovr")
    assert majority["aupr"] == pytest.approx(sk.average_precision_score(np.eye(8)[true], flat))
    assert "undefined" not in result


def test_valence_against_closed_forms(table: Table) -> None:
    predictions = table(400, **affect_columns())
    result = judge(predictions, resamples=20)["valence"]
    t, p = predictions.numbers("true_valence"), predictions.numbers("valence")
    assert result["ccc"]["value"] == pytest.approx(
        2 * np.cov(t, p, bias=True)[0, 1] / (t.var() + p.var() + (t.mean() - p.mean()) ** 2)
    )
    assert result["pearson"]["value"] == pytest.approx(stats.pearsonr(t, p).statistic)
    assert result["rmse"]["value"] == pytest.approx(sk.root_mean_squared_error(t, p))
    assert result["mae"]["value"] == pytest.approx(sk.mean_absolute_error(t, p))
    assert result["sagr"]["value"] == pytest.approx(np.mean(np.sign(t) == np.sign(p)))
    assert result["ccc"]["n"] == result["n"] == 400
    assert result["constant"]["value"] == pytest.approx(t.mean())
    assert result["constant"]["rmse"]["value"] == pytest.approx(t.std())
    assert result["constant"]["ccc"]["value"] == 0
    assert result["always_negative"]["sagr"]["value"] == pytest.approx((t < 0).mean())
    assert result["always_positive"]["sagr"]["value"] == pytest.approx((t > 0).mean())
    assert result["always_positive"]["sagr"]["value"] == pytest.approx((t > 0).mean())
    by = result["groups"]["expression"]
    members = predictions.strings("true_expression") == "Sad"
    assert by["Sad"]["n"] == members.sum()
    assert by["Sad"]["bias"]["value"] == pytest.approx((p - t)[members].mean())


def test_resampling_by_weights_is_judging_the_resampled_rows(table: Table) -> None:
    predictions = table(60, **affect_columns(60))
    plain = judge(predictions, resamples=3)
    boot = Bootstrap(predictions.groups(), 3, 0)
    drawn = boot.replicates({"weights": lambda w: w})["weights"][1:].astype(int)
    found: dict[tuple[str, str], list[float]] = {}
    for weights in drawn:
        again = judge(predictions.take(np.repeat(np.arange(60), weights)), resamples=1)
        for task, figures in (
            ("expression", ("accuracy", "macro_f1", "kappa", "alpha", "auroc", "aupr", "ece")),
            ("valence", ("ccc", "pearson", "rmse", "sagr")),
        ):
            for figure in figures:
                found.setdefault((task, figure), []).append(again[task][figure]["value"])
    for (task, figure), values in found.items():
        low, high = np.percentile(values, [2.5, 97.5])
        if figure == "ece":  # what resamples add to it is taken off
            value = plain[task][figure]["value"]
            low, high = max(2 * value**2 - high**2, 0) ** 0.5, max(max(2 * value**2 - low**2, 0) ** 0.5, value)
        assert plain[task][figure]["low"] == pytest.approx(low), figure
        assert plain[task][figure]["high"] == pytest.approx(high), figure


@pytest.mark.parametrize("classes", [1, 3])
def test_absent_classes_and_one_class(table: Table, classes: int) -> None:
    result = json.loads(to_json(judge(table(60, **affect_columns(60, classes=classes)), resamples=20)["expression"]))
    for word in EXPRESSIONS[classes:]:
        each = result["per_class"][word]
        assert (each["n"], each["recall"]["value"], each["auroc"]["value"], each["aupr"]["value"]) == (
            0,
            None,
            None,
            None,
        )
    if classes == 1:
        assert result["auroc"]["value"] is None
        assert "one class" in result["undefined"]["auroc"]
        assert result["aupr"]["value"] == result["majority"]["aupr"] == 1
        assert result["kappa"]["value"] == 0  # predictions vary: chance, and no more
    else:
        present = [result["per_class"][word]["auroc"]["value"] for word in EXPRESSIONS[:3]]
        assert result["auroc"]["value"] == pytest.approx(np.mean(present))


def test_all_right_in_one_class_is_no_agreement_beyond_chance(table: Table) -> None:
    said = affect_columns(40, classes=1, expression=np.full(40, "Neutral", dtype=object))
    result = json.loads(to_json(judge(table(40, **said), resamples=20)["expression"]))
    assert result["accuracy"]["value"] == 1
    assert result["kappa"]["value"] is result["alpha"]["value"] is None
    assert set(result["undefined"]) == {"kappa", "alpha", "auroc"}


def test_constant_answers_and_constant_labels(table: Table) -> None:
    n = 50
    result = judge(table(n, **affect_columns(n, valence=np.full(n, 0.25), true_arousal=np.full(n, 0.5))), resamples=20)
    result = json.loads(to_json(result))
    valence, arousal = result["valence"], result["arousal"]
    assert valence["ccc"]["value"] == 0  # by its formula, as the constant predictor's
    assert valence["pearson"]["value"] is None
    assert list(valence["undefined"]) == ["pearson"]
    assert arousal["ccc"]["value"] is arousal["pearson"]["value"] is None
    assert set(arousal["undefined"]) == {"ccc", "pearson"}
    assert arousal["constant"]["rmse"]["value"] == 0


def test_nothing_labelled(table: Table) -> None:
    empty = np.full(30, np.nan)
    columns = affect_columns(30, true_valence=empty, true_arousal=empty, true_expression=[None] * 30)
    assert judge(table(30, **columns), resamples=5) == {}
    some = empty.copy()
    some[3] = 0.5
    one = judge(table(30, **affect_columns(30, true_valence=some)), resamples=5)["valence"]
    assert one["n"] == 1
    assert np.isnan(one["ccc"]["value"])
    assert np.isfinite(one["rmse"]["value"])


def test_among_raters(table: Table) -> None:
    drawn = vote_columns(300)
    votes = drawn.pop("votes")
    predictions = table(300, **affect_columns(300, **drawn))
    voted = np.arange(300) % 7 != 0
    np.testing.assert_array_equal(predictions.votes()[voted], votes[voted])
    assert np.isnan(predictions.votes()[~voted]).all()
    found = judge(predictions, resamples=50)["expression"]["raters"]
    shares = raters.expression_labels(votes)
    rows = np.flatnonzero(voted & ~np.isnan(shares[:, 0]) & (votes[:, :8].sum(1) > 1))
    assert found["n"] == len(rows)
    assert found["mostly_unknown"] == (voted & np.isnan(shares[:, 0])).sum() > 0
    assert found["tied"] == (raters.plurality(shares[rows]) < 0).sum() > 0

    # Krippendorff's own package, one column a face, abstentions missing.
    table_of = np.full((10, len(rows)), np.nan)
    for column, counts in enumerate(votes[rows, :8].astype(int)):
        table_of[: counts.sum(), column] = np.repeat(np.arange(8), counts)
    expected = krippendorff.alpha(table_of, level_of_measurement="nominal", value_domain=range(8))
    assert found["alpha"]["value"] == pytest.approx(expected)
    assert found["alpha"]["low"] < expected < found["alpha"]["high"]

    said = predictions.codes("expression", EXPRESSIONS)[rows]
    assert found["one_rater"]["value"] == pytest.approx(raters.against_rest(votes[rows, :8]).mean())
    assert found["model"]["value"] == pytest.approx(raters.against_rest(votes[rows, :8], said).mean())
    difference = found["model"]["value"] - found["one_rater"]["value"]
    assert found["model_minus_one_rater"]["value"] == pytest.approx(difference)
    assert found["votes_a_face"] == pytest.approx(votes[rows, :8].sum(1).mean())
    everyone = np.full((int(votes.sum(1).max()), voted.sum()), np.nan)
    for column, counts in enumerate(votes[voted].astype(int)):
        everyone[: counts.sum(), column] = np.repeat(np.arange(10), counts)
    expected = krippendorff.alpha(everyone, level_of_measurement="nominal", value_domain=range(10))
    assert found["alpha_with_unknown"]["value"] == pytest.approx(expected)
    p = scores(predictions)
    divergences = [stats.entropy(s, q) for s, q in zip(shares[rows], p[rows], strict=True)]
    assert found["divergence"]["value"] == pytest.approx(np.mean(divergences), rel=1e-5)
    assert found["cross_entropy"]["value"] == pytest.approx(
        np.mean([stats.entropy(s) + stats.entropy(s, q) for s, q in zip(shares[rows], p[rows], strict=True)]),
        rel=1e-5,
    )
    assert found["constant_cross_entropy"]["value"] == pytest.approx(stats.entropy(shares[rows].mean(0)), rel=1e-5)
    assert "raters" not in judge(table(300, **affect_columns(300)), resamples=5)["expression"]


def test_figures_by_source_where_there_are_several(table: Table) -> None:
    sources = np.array(["affect", "ferplus"], dtype=object)[np.arange(200) % 2]
    predictions = table(200, **affect_columns(200), source=sources)
    result = judge(predictions, resamples=20)
    for name, group in result["expression"]["groups"]["source"].items():
        members = sources == name
        right = predictions.strings("expression")[members] == predictions.strings("true_expression")[members]
        assert group["accuracy"]["value"] == pytest.approx(right.mean())
    assert set(result["valence"]["groups"]["source"]) == {"affect", "ferplus"}
    assert "source" not in judge(table(200, **affect_columns(200)), resamples=5)["expression"]["groups"]


def test_compared_face_by_face(table: Table) -> None:
    first = table(300, **affect_columns(300))
    better = affect_columns(300, valence=first.numbers("true_valence"), expression=first.strings("true_expression"))
    second = table(300, **better)
    result = compare(first, second, resamples=50)
    assert result["faces"]["labels_differ"] == 0
    for task, figures in (
        ("valence", ("ccc", "pearson", "rmse", "mae", "sagr")),
        ("expression", ("accuracy", "kappa")),
    ):
        for figure in figures:
            assert result[task][figure]["better"] == "second", figure
            assert result[task][figure]["excludes_zero"]
    assert result["expression"]["auroc"]["difference"]["value"] == 0
    assert result["arousal"]["ccc"]["better"] is None


def test_a_face_without_a_label_or_one_of_the_two_answers_is_not_compared(table: Table) -> None:
    columns = affect_columns(100)
    columns["true_valence"][95:], columns["true_expression"][95:] = np.nan, None
    fewer = {name: columns[name].copy() for name in ("valence", "expression")}
    fewer["valence"][:10], fewer["expression"][:20] = np.nan, None
    for pair in ((columns, columns | fewer), (columns | fewer, columns)):
        result = compare(*(table(100, **each) for each in pair), resamples=5)
        assert (result["valence"]["n"], result["expression"]["n"]) == (85, 75)
        assert result["valence"]["mae"]["difference"]["value"] == 0
        assert result["expression"]["accuracy"]["difference"]["value"] == 0


def test_faces_that_lack_a_number_have_the_same_labels(table: Table) -> None:
    ages = np.where(np.arange(100) % 2, np.nan, 30.0)
    columns = affect_columns(100, true_age_low=ages, true_age_high=ages)
    assert compare(table(100, **columns), table(100, **columns), resamples=5)["faces"]["labels_differ"] == 0
