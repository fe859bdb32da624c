from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from mien.faces import EXPRESSIONS
from mien.report import affect, figures
from mien.report.evaluation import evaluation_page
from mien.report.html import Page


def estimate(value: float, n: int = 640) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": n}


def continuous(**figures_of: float) -> dict:
    part = {"ccc": 0.5, "pearson": 0.55, "rmse": 0.37, "mae": 0.3, "sagr": 0.78, "bias": -0.02} | figures_of
    constant = {
        "value": -0.14,
        "ccc": estimate(0.0),
        "rmse": estimate(0.466),
        "mae": estimate(0.41),
        "sagr": estimate(0.7),
    }
    signs = {"always_negative": {"sagr": estimate(0.7)}, "always_positive": {"sagr": estimate(0.28)}}
    groups = {"expression": {"Happy": {"n": 80, "ccc": estimate(0.2), "rmse": estimate(0.3), "bias": estimate(-0.1)}}}
    return {"n": 640, **{k: estimate(v) for k, v in part.items()}, "constant": constant, **signs, "groups": groups}


def expression() -> dict:
    each = {key: estimate(0.4, 80) for key in ("precision", "recall", "f1", "auroc", "aupr")}
    return {
        "n": 640,
        "classes": list(EXPRESSIONS),
        **{key: estimate(0.47) for key in ("accuracy", "macro_f1", "kappa", "alpha", "aupr", "ece")},
        "auroc": {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 640},
        "undefined": {"auroc": "all labels are of one class"},
        "majority": {
            "class": "Sad",
            "accuracy": estimate(0.125),
            "macro_f1": estimate(0.03),
            "auroc": 0.5,
            "aupr": 0.125,
        },
        "per_class": {word: {"n": 80, **each} for word in EXPRESSIONS},
        "raters": {
            "n": 500,
            "votes_a_face": 9.4,
            "tied": 31,
            "mostly_unknown": 12,
            **{
                key: estimate(0.6)
                for key in (
                    *("alpha", "one_rater", "model", "model_minus_one_rater", "cross_entropy", "divergence"),
                    *("constant_cross_entropy", "alpha_with_unknown"),
                )
            },
        },
    }


def test_the_page_of_an_affect_model() -> None:
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 255, (3, 40, 40), dtype=np.uint8)
    probe = {"n": 640, "accuracy": estimate(0.9), "majority": estimate(0.6), "above_majority": estimate(0.3)}
    metrics = {
        "expression": expression(),
        "valence": continuous(),
        "arousal": continuous(ccc=0.37),
        "about": {"source_probe": probe | {"recall": {"affect": 0.8, "ferplus": 0.95}}},
    }
    drawn = {"affect_plane": figures.affect_plane(generator.uniform(-1, 1, (9, 2)), generator.uniform(-1, 1, (9, 2)))}
    tiles = [
        {"image": picture, "right": True, "title": "Sad → Sad (0.80)", "lines": ["valence −0.61 → −0.20"]},
        {"image": None, "right": False, "title": "Fear → <b>Sad</b>", "lines": []},
    ]
    page = evaluation_page(metrics, drawn, facts={"Model": "affect-mobile"}, tiles=tiles)
    for words in (
        "Valence and arousal", "CCC of <strong>0.500", "always −0.14", "0.466", "Right and wrong", "Sad → Sad (0.80)",
        "Can it tell the data sets apart?", "Among raters", "Krippendorff", "auroc: not defined here",
        "always negative 70.0 %", "SAGR", "Expression: each class against the rest", "Valence by expression",
        "always Sad",
        "they do not say what a person felt",
    ):  # fmt: skip
        assert words in page, words
    assert "<b>Sad</b>" not in page
    assert "Age: how far off" not in page
    assert "SAGR" not in evaluation_page({"gender": {"classes": ["Male", "Female"], "accuracy": estimate(0.9)}}, {})


def test_valence_alone() -> None:
    page = Page("x")
    affect.continuous(page, {"valence": continuous()})
    assert "arousal" not in page.html()
    assert [card.label for card in affect.cards({"valence": continuous()})] == ["Valence: concordance (CCC)"]


def labels(figure: Figure) -> str:
    named = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    texts = [text.get_text() for axes in figure.axes for text in (axes.title, *axes.texts)]
    legends = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    below = [axes.get_xlabel() for axes in figure.axes]
    return "\n".join([*texts, *legends, *named, *below])


def test_the_plane_of_valence_and_arousal() -> None:
    generator = np.random.default_rng(0)
    true, said = generator.uniform(-1, 1, (300, 2)), generator.uniform(-1, 1, (300, 2))
    true[5, 0] = np.nan
    codes = generator.integers(-1, 8, 300)
    figure = figures.affect_plane(true, said, codes)
    assert "120 of 299 faces" in labels(figure)
    quivers = figure.axes[0].collections
    assert quivers[0].U.size == 120
    mean = figure.axes[1].collections[0]
    known = (codes == 0) & np.isfinite(true).all(1)
    np.testing.assert_allclose((mean.X[0], mean.Y[0]), true[known].mean(0))
    np.testing.assert_allclose((mean.U[0], mean.V[0]), (said - true)[known].mean(0))
    assert f"Neutral, n {known.sum()}" in labels(figure)
    assert "cells of 3 or more" in labels(figures.affect_plane(true, said))
    nobody = np.full((4, 2), np.nan)
    assert "no face has both" in labels(figures.affect_plane(nobody, nobody))


def test_curves_of_the_classes_that_occur() -> None:
    generator = np.random.default_rng(1)
    true = generator.integers(-1, 3, 200)
    scores = generator.dirichlet(np.ones(4), 200)
    figure = figures.class_curves(true, scores, ("a", "b", "c", "absent"))
    names = [text.get_text().split()[0] for text in figure.legends[0].get_texts()]
    assert names == ["a", "b", "c"]
    assert "no two classes" in labels(figures.class_curves(np.zeros(5, int), np.ones((5, 2)) / 2, ("a", "b")))


@pytest.mark.parametrize("count", [0, 1, 8])
def test_the_grid_of_right_and_wrong_faces(count: int) -> None:
    picture = np.zeros((3, 20, 20), dtype=np.uint8)
    tiles = [
        {
            "image": picture if i else None,
            "right": i % 2 == 0,
            "title": f"Sad → {i}",
            "lines": [f"line {n}" for n in range(6)],
        }
        for i in range(count)
    ]
    figure = figures.right_and_wrong(tiles)
    if not count:
        assert "no face has both" in labels(figure)
        return
    assert len(figure.axes) == count
    for i, axes in enumerate(figure.axes):
        lines = [text.get_text() for text in axes.texts if text.get_text() != "picture not\nreadable"]
        assert lines == [f"{'✓' if i % 2 == 0 else '✗'} Sad → {i}", *(f"line {n}" for n in range(6))]
        assert axes.spines["top"].get_visible()
    colours = {axes.spines["top"].get_edgecolor() for axes in figure.axes}
    assert len(colours) == min(count, 2)
