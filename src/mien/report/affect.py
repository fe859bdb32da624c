"""The parts of an evaluation's page on expression, valence and arousal, and on the data sets behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mien.report.html import Card, Page, Picture
from mien.report.numbers import count, number, share, years

#: Rows of the table of valence and arousal: name, key, how it is written.
ROWS = (
    ("CCC", "ccc", lambda value: years(value, 3)),
    ("Pearson's r", "pearson", lambda value: years(value, 3)),
    ("RMSE", "rmse", lambda value: years(value, 3)),
    ("Mean absolute error", "mae", lambda value: years(value, 3)),
    ("SAGR: same sign", "sagr", share),
    ("Bias", "bias", lambda value: years(value, 3, sign=True)),
)
#: Columns of a table of groups.
COLUMNS = (
    ("CCC", "ccc", lambda value: years(value, 2)),
    ("RMSE", "rmse", lambda value: years(value, 2)),
    ("bias", "bias", lambda value: years(value, 2, sign=True)),
)
DEFINITIONS = {
    "Valence and arousal": "How pleasant and how activated a face looks, each in [−1, 1].",
    "CCC": "Concordance correlation, 2 cov(ŷ, y) / (var ŷ + var y + (mean ŷ − mean y)²), variances over n: 1 where all "
    "predictions are the truth; a constant has 0.",
    "Bias, RMSE of valence and arousal": "(1/n) Σ (ŷ − y), above 0 where faces are taken for more pleasant or "
    "activated than they are; √((1/n) Σ (ŷ − y)²).",
    "Pearson's r": "Correlation: goes with the truth, at whatever scale. Undefined for a constant.",
    "SAGR": "Share of faces whose prediction has the sign of the truth; an exact 0 is a sign of its own.",
    "One rater against the rest": "How often a rater's expression is the one that most of the other raters of the face "
    "saw; ties share. A model at this figure is as good as one more rater.",
    "Cross-entropy, divergence": "In nats: −Σ v log p of the raters' shares v and the probabilities p; divergence is 0 "
    "where p is v.",
}
LIMITS = ("An expression, valence and arousal are what raters saw in one picture; they do not say what a person felt.",)


def is_continuous(part: Any) -> bool:
    """Whether this part of the metrics is that of valence or arousal."""
    return isinstance(part, Mapping) and "ccc" in part and "sagr" in part


def cards(parts: Mapping[str, Mapping[str, Any]]) -> list[Card]:
    """A headline for each of valence and arousal."""
    return [
        Card(
            f"{name.capitalize()}: concordance (CCC)",
            years(part["ccc"], 3),
            f"a constant has 0; RMSE {years(number(part['rmse']).value, 3)}, "
            f"always the mean {years(number(part['constant']['rmse']).value, 3)}",
        )
        for name, part in parts.items()
        if number(part.get("ccc")).known
    ]


def sentences(metrics: Mapping[str, Any]) -> list[str]:
    """The findings on valence and arousal, and on raters, a sentence each."""
    found = []
    for name, part in metrics.items():
        if is_continuous(part) and number(part["ccc"]).known:
            signs = {kind: number(part[f"always_{kind}"]["sagr"]) for kind in ("negative", "positive")}
            likelier = max(signs, key=lambda kind: signs[kind].value)
            found.append(
                f"{name.capitalize()} goes with the truth at a CCC of **{years(part['ccc'], 3)}** (n {part['n']:,}) "
                f"and has its sign for {share(number(part['sagr']).value)} of faces; always {likelier} would have "
                f"it for {share(signs[likelier].value)}."
            )
    raters = (metrics.get("expression") or {}).get("raters")
    if raters:
        found.append(
            f"Held against the other raters of a face, the model names their expression for "
            f"**{share(raters['model'])}** of faces, one rater for {share(raters['one_rater'])}."
        )
    return found


def continuous(page: Page, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """The table of valence and arousal, each beside always answering its mean."""
    heads, rows = [""], [[row[0]] for row in ROWS]
    for name, part in parts.items():
        heads += [name, f"always {years(part['constant']['value'], 2, sign=True)}"]
        for row, (_, key, write) in zip(rows, ROWS, strict=True):
            beside = part["constant"].get(key)
            row += [write(part.get(key)), write(number(beside).value) if beside is not None else ""]
    page.table(heads, rows)
    signs = "; ".join(
        f"{name}: always negative {share(number(part['always_negative']['sagr']).value)}, "
        f"always positive {share(number(part['always_positive']['sagr']).value)}"
        for name, part in parts.items()
    )
    sizes = ", ".join(f"{name} n {part['n']:,}" for name, part in parts.items())
    page.note(f"{sizes}; [low, high]: 95 % interval. Same sign by one answer for all: {signs}.")
    for name, part in parts.items():
        undefined(page, name, part)


def undefined(page: Page, name: str, part: Mapping[str, Any]) -> None:
    """Why figures of this task are missing."""
    for figure, why in (part.get("undefined") or {}).items():
        page.note(f"{name}, {figure}: not defined here, since {why}.")


def raters(page: Page, part: Mapping[str, Any]) -> None:
    """The model among raters."""
    page.heading("Among raters", 3)
    rows = [
        ("Names what most of the other raters see", share(part["model"]), share(part["one_rater"])),
        ("Difference, model − one rater", share(part["model_minus_one_rater"], sign=True), ""),
        ("Cross-entropy with the raters (nats)", years(part.get("cross_entropy"), 3), ""),
        ("Divergence of the raters from the model (nats)", years(part.get("divergence"), 3), ""),
    ]
    page.table(("", "this model", "one rater"), rows)
    page.note(
        f"n {count(part['n'])} faces with {part['votes_a_face']:.1f} votes for an expression each, on "
        f"{count(part['tied'])} of which raters are tied. {count(part['mostly_unknown'])} more, mostly unknown or no "
        f"face, are left out. Raters agree with each other at Krippendorff's alpha {years(part['alpha'], 3)} (with "
        f"unknown and no face as values: {years(part['alpha_with_unknown'], 3)}). One answer for all faces has a "
        f"cross-entropy of at least {years(part['constant_cross_entropy'], 3)}."
    )


def per_class(page: Page, name: str, classes: Mapping[str, Mapping[str, Any]]) -> None:
    """Each class of a task against the rest."""
    columns = (("precision", share), ("found (recall)", share), ("F1", share), ("AUROC", _area), ("AUPR", _area))
    keys = ("precision", "recall", "f1", "auroc", "aupr")
    shown = [place for place, key in enumerate(keys) if any(number(each.get(key)).known for each in classes.values())]
    rows = [
        [word, each["n"], *(columns[place][1](each.get(keys[place])) for place in shown)]
        for word, each in classes.items()
    ]
    with page.details(f"{name.capitalize()}: each class against the rest", open=len(classes) > 2):
        page.table(["", "n", *(columns[place][0] for place in shown)], rows)


def source_probe(page: Page, probe: Mapping[str, Any]) -> None:
    """Whether the data set can be told from the features."""
    page.heading("Can it tell the data sets apart?")
    page.text(
        f"A linear probe on what the heads see names the data set of **{share(probe['accuracy'])}** of faces; naming "
        f"the largest one every time is right for {share(probe['majority'])}. The nearer the two, the less the model "
        "can lean on where a face is from."
    )
    page.table(("data set", "named rightly"), [(name, share(value)) for name, value in probe["recall"].items()])
    page.note(f"n {count(probe['n'])}; five folds, persons and copies never in two of them.")


def tiles(page: Page, found: Sequence[Mapping[str, Any]]) -> None:
    """Faces that the model was right and wrong about."""
    page.heading("Right and wrong")
    page.text("Drawn at random, half of them right as far as there are so many; truth → prediction.")
    page.images(
        [Picture(tile["image"], f"{'✓' if tile['right'] else '✗'} {tile['title']}", tile["lines"]) for tile in found]
    )


def _area(value: Any) -> str:
    return years(value, 3)
