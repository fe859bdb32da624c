"""The page of an evaluation: what was judged, how well it did, for whom it is wrong, how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mien.faces import CROSS
from mien.report import affect
from mien.report.explain import DEFINITIONS, LIMITS, OF_AGE, only_ages, summary
from mien.report.html import Card, Page, Picture
from mien.report.numbers import count, number, share, size, suppressed, years
from mien.report.style import crossed, words

Figures = Mapping[str, Figure]
#: Columns of a table of groups: head, key, how it is written. Columns without any figure are left out.
AGE_COLUMNS = (
    ("MAE", "mae", years),
    ("MAE, ages made equal", "mae_age_standardised", years),
    ("bias", "bias", lambda value: years(value, sign=True)),
    ("within 5 years", "cs5", share),
    ("coverage of 90 %", "coverage90", share),
    ("width", "width90", lambda value: years(value, 1)),
)
CLASS_COLUMNS = (("accuracy", "accuracy", share), ("macro F1", "macro_f1", share))
#: Rows of the table of a task with classes: name, key, how it is written.
CLASS_ROWS = (
    ("Accuracy", "accuracy", share),
    ("Macro F1", "macro_f1", share),
    ("Cohen's kappa", "kappa", lambda value: years(value, 3)),
    ("Krippendorff's alpha", "alpha", lambda value: years(value, 3)),
    ("AUROC, mean over classes", "auroc", lambda value: years(value, 3)),
    ("AUPR, mean over classes", "aupr", lambda value: years(value, 3)),
    ("ECE", "ece", share),
)
#: Rows of the table of all age figures: name, key, how it is written.
AGE_ROWS = (
    ("MAE (years)", "mae", years),
    ("Macro MAE over age bins (years)", "macro_mae", years),
    ("Median error (years)", "median_ae", years),
    ("RMSE (years)", "rmse", years),
    ("Bias (years)", "bias", lambda value: years(value, sign=True)),
    ("Bias slope (years a year)", "bias_slope", lambda value: years(value, 3, sign=True)),
    ("CS@5: within 5 years", "cs5", share),
    ("Coverage of the 90 % intervals", "coverage90", share),
    ("Width of the 90 % intervals (years)", "width90", lambda value: years(value, 1)),
)
CAPTIONS = {
    "error_analysis": "Where and how far ages are wrong. Whiskers: 95 % intervals; darker: more faces.",
    "cumulative_score": "Share of faces whose error is at most so many years.",
    "training_count": "Error of a group against the number of its faces that the model learnt from.",
    "coverage": "Do the 90 % intervals hold the true age for everybody, and how wide must they be for it? "
    "Intervals can promise this by predicted age; by true age, which nobody knows before, they may miss it.",
    "dataset_analysis": "The faces judged.",
    "affect_plane": "Where faces are, and where the model puts them: arrows run from the truth to the prediction, in "
    "the colours of the expressions.",
}


def evaluation_page(
    metrics: Mapping[str, Any],
    figures: Figures,
    worst: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, Any] | None = None,
    terms: Sequence[str] = (),
    tiles: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The report of an evaluation as one HTML file.

    Args:
        metrics: an evaluation's result, `{"age": {...}, "gender": {...}, ...}`; parts may be missing.
        figures: by the name of the function that drew it, with the task after it where there is one for each
            (`error_analysis`, `coverage`, `confusion_race`, `reliability_gender`). Others come at the end.
        worst: the largest errors of age, worst first: `{"image": (3, H, W) uint8 or None, "truth",
            "prediction", "low", "high": years, "tags": [...], "path"}`; only the first three are needed.
        facts: what was judged, in order: model, faces, split, date, calibration ...; shown as it is.
        terms: lines on the terms of the model and the data.
        tiles: faces that the model was right and wrong about: `{"image": (3, H, W) uint8 or None, "right",
            "title", "lines"}`.
    """
    facts = dict(facts or {})
    model = next((value for name, value in facts.items() if name.lower() == "model"), None)
    page = Page(
        f"Evaluation of {model}" if model else "Evaluation",
        "What it gets right, for whom, and how far to trust it",
    )
    left = dict(figures)
    age = metrics.get("age") or {}
    tasks = {name: part for name, part in metrics.items() if isinstance(part, Mapping) and "classes" in part}
    continuous = {name: part for name, part in metrics.items() if affect.is_continuous(part)}

    page.heading("In short")
    page.cards([*_cards(age, tasks), *affect.cards(continuous)])
    page.points([*summary(metrics), *affect.sentences(metrics)])
    page.heading("What was judged")
    page.facts(facts)
    _figure(page, left, "dataset_analysis")

    if number(age.get("mae")).known:
        page.heading("Age: how far off")
        _age_table(page, age)
        for name in ("error_analysis", "cumulative_score"):
            _figure(page, left, name)
        _for_whom(page, age, left)
        _how_sure(page, age, left)
    for name, part in tasks.items():
        _classes(page, name, part, left)
    if continuous:
        page.heading("Valence and arousal" if len(continuous) > 1 else next(iter(continuous)).capitalize())
        affect.continuous(page, continuous)
        _figure(page, left, "affect_plane")
        for name, part in continuous.items():
            for key, table in _groupings(part).items():
                with page.details(f"{name.capitalize()} by {words(key)}"):
                    _group_table(page, table, affect.COLUMNS)
    if tiles:
        affect.tiles(page, tiles)
    probe = (metrics.get("about") or {}).get("source_probe")
    if probe:
        affect.source_probe(page, probe)
    if worst:
        _worst(page, worst)
    if left:
        page.heading("More figures")
        for name in list(left):
            _figure(page, left, name)
    page.heading("How to read this page")
    felt = continuous or "expression" in tasks
    aged = number(age.get("mae")).known
    known = {name: text for name, text in DEFINITIONS.items() if aged or name not in OF_AGE}
    page.facts({**known, **affect.DEFINITIONS} if felt else known)
    page.heading("Terms and limits")
    page.points([*terms, *LIMITS, *(affect.LIMITS if felt else ())])
    return page.html()


def _cards(age: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> list[Card]:
    cards = []
    constant = age.get("constant") or {}
    for label, key in (
        ("Age: mean absolute error, years", "mae"),
        ("The same, every age alike (macro)", "macro_mae"),
    ):
        if number(age.get(key)).known:
            beside = f"constant predictor {years(number(constant.get(key)).value)}" if constant.get(key) else ""
            cards.append(Card(label, years(age[key]), beside))
    for name, part in tasks.items():
        if number(part.get("accuracy")).known:
            majority = number((part.get("majority") or {}).get("accuracy"))
            beside = f"majority class {share(majority.value)}" if majority.known else ""
            cards.append(Card(f"{name.capitalize()}: accuracy", share(part["accuracy"]), beside))
    if number(age.get("coverage90")).known:
        beside = f"promised 90 %; mean width {years(number(age.get('width90')).value, 1)} years"
        cards.append(Card("Age intervals: coverage", share(age["coverage90"]), beside))
    return cards


def _age_table(page: Page, age: Mapping[str, Any]) -> None:
    constant = age.get("constant") or {}
    rows = [
        (name, write(age[key]), write(number(constant[key]).value) if key in constant else "")
        for name, key, write in AGE_ROWS
        if number(age.get(key)).known
    ]
    rows += [
        (f"MAE of {name.removeprefix('age_')} alone (years)", years((head or {}).get("mae")), "")
        for name, head in (age.get("heads") or {}).items()
    ]
    page.table(("", "this model", "constant predictor"), rows)
    page.note(f"n {count(size(age) or number(age['mae']).n)} faces with an exact age; [low, high]: 95 % interval.")
    wide = age.get("interval_labels")
    if wide:
        page.text(
            f"{count(wide.get('n'))} more faces are labelled with an interval of ages; the prediction lies "
            f"inside it for {share(wide.get('inside'))}."
        )


def _for_whom(page: Page, age: Mapping[str, Any], figures: dict[str, Figure]) -> None:
    groups = _groupings(age)
    tags = groups.pop("tag", None)
    groups.pop("predicted_age", None)
    if groups:
        page.heading("Age: for whom it is wrong")
        _gaps(page, age.get("gaps") or {})
        for key, table in groups.items():
            if CROSS in key:
                with page.details(f"By {words(key)}"):
                    _group_table(page, table, AGE_COLUMNS)
            else:
                page.heading(f"By {words(key)}", 3)
                _group_table(page, table, AGE_COLUMNS)
            only = only_ages((age.get("gaps") or {}).get(key) or {})
            if only and any(number(_get(group, "mae_age_standardised")).known for group in table.values()):
                page.note(f"Ages made equal{only}: elsewhere some group has fewer than ten faces.")
        _figure(page, figures, "training_count")
    if tags:
        page.heading("Age: when it is wrong")
        page.text("Faces, of many a random sample, by what is hard about their picture; one may have several tags.")
        _group_table(page, tags, AGE_COLUMNS)


def _gaps(page: Page, gaps: Mapping[str, Any]) -> None:
    rows = []
    for key, gap in gaps.items():
        for label, figure, pair in (
            ("as they are", "raw", "between"),
            (f"ages made equal{only_ages(gap)}", "age_standardised", "between_standardised"),
        ):
            names = gap.get(pair) or gap.get("between")
            if number(gap.get(figure)).known:
                rows.append(
                    (words(key), label, words(f"{names[1]} − {names[0]}") if names else None, years(gap[figure]))
                )
    if rows:
        page.heading("Largest gaps between groups", 3)
        page.table(("", "", "between", "difference of MAE (years)"), rows, text_columns=(0, 1, 2))
        page.note(
            "The two groups that differ most; where the interval holds 0, chance could do it. The more groups, the "
            "further apart chance puts some two; the interval allows for that, the difference itself does not."
        )


def _how_sure(page: Page, age: Mapping[str, Any], figures: dict[str, Figure]) -> None:
    if not number(age.get("coverage90")).known:
        return
    page.heading("Age: how sure it is")
    page.text(
        "Each prediction comes with an interval that should hold the true age nine times in ten. It does so "
        f"for {share(age['coverage90'])} of faces; its mean width is {years(age.get('width90'), 1)} years."
    )
    _figure(page, figures, "coverage")
    table = (age.get("groups") or {}).get("predicted_age")
    if table:
        page.heading("By predicted age", 3)
        _group_table(page, table, AGE_COLUMNS)


def _classes(page: Page, name: str, part: Mapping[str, Any], figures: dict[str, Figure]) -> None:
    if not number(part.get("accuracy")).known:
        return
    page.heading(name.capitalize())
    majority = part.get("majority") or {}
    rows = [
        (label, write(part[key]), write(number(majority[key]).value) if key in majority else "")
        for label, key, write in CLASS_ROWS
        if number(part.get(key)).known
    ]
    always = f"always {majority['class']}" if majority.get("class") else "majority class"
    page.table(("", "this model", always), rows)
    page.note(f"n {count(size(part) or number(part['accuracy']).n)} faces; [low, high]: 95 % interval.")
    affect.undefined(page, name, part)
    for kind in ("confusion", "curves", "reliability"):
        _figure(page, figures, f"{kind}_{name}")
    if part.get("per_class"):
        affect.per_class(page, name, part["per_class"])
    if part.get("raters"):
        affect.raters(page, part["raters"])
    for key, table in _groupings(part).items():
        with page.details(f"{name.capitalize()} by {words(key)}"):
            _group_table(page, table, CLASS_COLUMNS)


def _group_table(page: Page, groups: Mapping[str, Any], columns: Sequence[tuple[str, str, Any]]) -> None:
    """A line a group; of groups too small only their n is shown."""
    shown = [column for column in columns if any(number(_get(g, column[1])).known for g in groups.values())]
    trained = any(_get(group, "train_n") is not None for group in groups.values())
    rows = []
    for name, group in groups.items():
        row: list[Any] = [crossed(name), size(group)]
        if trained:
            row.append(_get(group, "train_n"))
        if suppressed(group):
            row += ["too few to say", *[""] * (len(shown) - 1)] if shown else []
        else:
            row += [write(_get(group, key)) for _, key, write in shown]
            if _get(group, "undercovered"):
                place = [key for _, key, _ in shown].index("coverage90") - len(shown)
                row[place] = f"under 85 %: {row[place]}"
        rows.append(row)
    heads = ["group", "n", *(["trained on"] if trained else []), *(head for head, _, _ in shown)]
    page.table(heads, rows)


def _groupings(part: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of groups that hold any; without that of data sets where all labelled faces are of one."""
    tables = part.get("groups") or {}
    return {key: table for key, table in tables.items() if len(table) > (key == "source")}


def _get(group: Any, key: str) -> Any:
    return group.get(key) if isinstance(group, Mapping) else None


def _worst(page: Page, worst: Sequence[Mapping[str, Any]]) -> None:
    page.heading("The largest errors")
    page.text("Look at them: some are the model's, some are wrong labels, some are pictures nobody could judge.")
    pictures = []
    for face in worst:
        error = years(face["prediction"] - face["truth"], 0, sign=True)
        lines = [f"label {face['truth']:.0f}, error {error}"]
        if number(face.get("low")).known and number(face.get("high")).known:
            lines.append(f"interval {face['low']:.0f} to {face['high']:.0f}")
        if face.get("path"):
            lines.append(str(face["path"]))
        title = f"predicted {face['prediction']:.0f}"
        pictures.append(Picture(face.get("image"), title, lines, face.get("tags") or ()))
    page.images(pictures)


def _figure(page: Page, figures: dict[str, Figure], name: str) -> None:
    figure = figures.pop(name, None)
    if figure is None:
        return
    kind, _, task = name.partition("_")
    caption = CAPTIONS.get(name, "")
    if kind == "confusion":
        caption = f"True {task} in rows, predicted in columns: share of the row, and faces."
    elif kind == "curves":
        caption = f"Each {task} against the rest, by its probability; the legends give the areas."
    elif kind == "reliability":
        caption = f"How often a predicted {task} is right, by the probability given to it."
    page.figure(figure, caption, alt=caption or name.replace("_", " "))
