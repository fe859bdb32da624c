"""The page of an ageing audit: how old renders look, whether they are still the same person, and what else moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mien.report.figures.ageing import ageing_curves
from mien.report.html import Card, Page, Picture
from mien.report.numbers import DASH, count, number, share, suppressed, years
from mien.report.style import words


class Strip(NamedTuple):
    """A face and its renders: (3, S, S) and (A, 3, S, S) uint8, its age and what else is known of it, and for each age
    the judged one and the cosine with the face (A,), NaN where unknown."""

    given: np.ndarray
    made: np.ndarray
    age: float
    about: str
    judged: np.ndarray
    cosines: np.ndarray


def _levels(value: Any) -> str:
    """A difference of pixels in [0, 1] as levels of 255."""
    found = number(value)
    return years(found._replace(value=255 * found.value, low=255 * found.low, high=255 * found.high), 2)


def _three(value: Any) -> str:
    return years(value, 3)


#: Figure -> its heading and how it is written.
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "mae": ("age error", years),
    "bias": ("bias", lambda value: years(value, sign=True)),
    "in_band": ("in band", share),
    "cosine": ("cosine", _three),
    "verified": ("same person", share),
    "joint": ("both", share),
    "rising": ("all rise", share),
    "spearman": ("Spearman", _three),
    "spearman_pooled": ("Spearman, pooled", _three),
    "slope": ("slope", _three),
    "gender_kept": ("gender kept", share),
    "race_kept": ("race kept", share),
    "expression_kept": ("expression kept", share),
    "points_moved": ("points moved", _three),
    "outside": ("change outside", _levels),
    "changed": ("change", _levels),
    "truth": ("from the truth", _levels),
    "own_l1": ("own age: L1", _levels),
    "own_psnr": ("PSNR, dB", years),
    "own_ssim": ("SSIM", _three),
    "own_perceptual": ("perceptual", _three),
    "own_cosine": ("cosine", _three),
    "own_mae": ("age error", years),
}
AGE = ("mae", "bias", "in_band", "rising", "spearman", "spearman_pooled", "slope")
PERSON = ("cosine", "verified", "joint", "gender_kept", "race_kept", "expression_kept")
PLACE = ("points_moved", "outside", "changed", "truth")
OWN = ("own_l1", "own_psnr", "own_ssim", "own_perceptual", "own_cosine", "own_mae")
#: Faces of each other renderer whose strips are shown.
FEW = 4
DEFINITIONS = {
    "Judge": "Networks that guided no renderer, as far as is known. Nobody knows how old people would take a rendered "
    "face to be: read every error beside the judge's own on real faces, which is printed first.",
    "Age error": "Mean of |judged age − age asked for| over faces and ages; bias is the same with its sign.",
    "In band": "Share whose judged age lies in the band of the age asked for; bands meet halfway between neighbours.",
    "Same person": "Share whose cosine with the given face is above the threshold that few pairs of different persons "
    "pass at that age gap.",
    "Both": "Share that are in band and the same person at once. A copy is the same person and seldom in band, a mean "
    "face is in band and nobody: only this figure asks for both.",
    "All rise": "Share of faces each of whose judged ages is above the one before.",
    "Spearman, slope": "Of judged with asked ages of each face, mean over faces; pooled: over all renders at once. The "
    "slope is judged years for each year asked for.",
    "Kept": "Share whose label, as the judge tells it, is that of the given face.",
    "Points moved": "Mean distance of the 68 points from the given face's, in eye distances; a child's face has other "
    "proportions, so 0 is not the aim at every age.",
    "Change outside": "Mean absolute change of pixels beyond an ellipse about the face, in levels of 255.",
    "From the truth": "Of drawn faces: mean absolute difference from the same person, drawn at that age with the same "
    "pose, light and background, in levels of 255.",
    "Trivial renderers": "The input; the mean face of the age asked for; the input and what that mean face has "
    "more than the one of its own age. They are told the labelled ages, so that they are the harder to beat.",
    "KID, FID": "Distances of features of the renders from those of real faces of that age, by the identity network. "
    "Read KID; FID is biased upwards for so few faces.",
    "95 % interval, [low, high]": "Percentile bootstrap over persons or sets of copies; FID's is the normal one. The "
    "thresholds are taken as they are.",
}


def ageing_page(metrics: Mapping[str, Any], strips: Mapping[str, Sequence[Strip]], asked: Sequence[float]) -> Page:
    """The report of an ageing audit: its figures, and some faces as each renderer shows them."""
    about, renderers = metrics["about"], metrics["renderers"]
    first = next(iter(renderers))
    page = Page(f"Ageing by {first}", "Whether faces look the age that was asked for, and are still the same person")
    page.heading("In short")
    page.cards(_cards(metrics, first))
    page.points([f"**Note:** {note}" for note in about["notes"]])
    page.heading("The judge")
    _judge(page, metrics)
    page.heading("Renderers side by side")
    counted = ", ".join(f"{age:g}" for age in about["counted"])
    page.text(f"The same {about['faces']:,} faces at {counted} years; each figure with its 95 % interval.")
    lines = ["Dashed: what was asked for."]
    lines += ["Dotted: real faces of that age."] if metrics["real"] else []
    lines += ["Dash-dotted: real pairs of one person at that gap."] if metrics["verification"] else []
    page.figure(ageing_curves(metrics), " ".join(lines))
    for title, names in (("Age", AGE), ("The person", PERSON), ("Pixels and points", PLACE), ("At its own age", OWN)):
        _side_by_side(page, renderers, title, names)
    _versus(page, renderers, first)
    _costs(page, renderers)
    page.heading("Age by age")
    for name, found in renderers.items():
        with page.details(name, open=name == first):
            _by_age(page, found)
    page.heading("For whom")
    for name, found in renderers.items():
        with page.details(name, open=name == first):
            _by_group(page, found)
    page.heading("Faces")
    _faces(page, strips, asked, first)
    page.heading("What was audited")
    page.facts(_facts(metrics))
    page.heading("How to read this page")
    page.facts(DEFINITIONS)
    return page


def written(found: Mapping[str, Any], name: str) -> str:
    """The figure `name` of a table of figures as people read it."""
    return COLUMNS[name][1](found.get(name))


def _known(tables: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    return [name for name in names if any(number(table.get(name)).known for table in tables)]


def _cards(metrics: Mapping[str, Any], first: str) -> list[Card]:
    renderers = metrics["renderers"]
    cards = []
    for name in ("mae", "spearman", "joint", "cosine", "truth"):
        if number(renderers[first]["summary"].get(name)).known:
            others = [f"{other} {COLUMNS[name][1](number(found['summary'].get(name)).value)}" for other, found in
                      renderers.items() if other != first]  # fmt: skip
            cards.append(
                Card(COLUMNS[name][0].capitalize(), written(renderers[first]["summary"], name), "; ".join(others))
            )
    own = metrics["judge"]
    if number(own.get("mae")).known:
        cards.append(Card("The judge's own error", years(own["mae"]), f"always {own['constant']:.0f}: "
                          f"{years(number(own['constant_mae']).value)}"))  # fmt: skip
    return cards


def _judge(page: Page, metrics: Mapping[str, Any]) -> None:
    own, judges = metrics["judge"], metrics["about"]["judges"]
    identity = judges["identity"]
    page.text(
        f"Age is judged by **{judges['age']['name']}**, identity by **{identity['name'] if identity else 'nobody'}**."
    )
    if not own["n"]:
        page.text("No face has an exact age, so that the judge's own error is not known.")
        return
    rows = [["all", count(own["n"]), years(own["mae"]), years(own["bias"], sign=True), years(own["constant_mae"])]]
    for by, groups in own["groups"].items():
        for group, entry in groups.items():
            few = suppressed(entry)
            told = ["too few to say", "", ""] if few else [years(entry["mae"]), years(entry["bias"], sign=True),
                                                           years(entry["constant_mae"])]  # fmt: skip
            rows.append([f"{words(by)} {group}", count(entry["n"]), *told])
    headers = ["faces", "n", "error, years", "bias", f"always {own['constant']:.0f}"]
    page.table(headers, rows, "The judge on the given faces, as they are")
    if metrics["real"]:
        rows = [
            [age, count(found["n"]), years(found.get("judged")), years(found.get("mae")), share(found.get("in_band"))]
            for age, found in metrics["real"].items()
        ]
        page.table(
            ["age", "n", "mean judged age", "error, years", "in band"],
            rows,
            "The judge on other real faces of each age: the best that renders can be expected to do",
        )
    rebuilt = {name: found["summary"]["own_mae"] for name, found in metrics["renderers"].items() if "own_mae" in
               found["summary"]}  # fmt: skip
    if rebuilt:
        page.table(
            ["renderer", "error, years"],
            [[name, years(value)] for name, value in rebuilt.items()],
            "The judge on faces rendered at their own age",
        )


def _side_by_side(page: Page, renderers: Mapping[str, Any], title: str, names: Sequence[str]) -> None:
    there = _known([found["summary"] for found in renderers.values()], names)
    if there:
        rows = [[name, *(written(found["summary"], one) for one in there)] for name, found in renderers.items()]
        page.table(["renderer", *(COLUMNS[one][0] for one in there)], rows, title)


def _versus(page: Page, renderers: Mapping[str, Any], first: str) -> None:
    others = {name: found["first_less_this"] for name, found in renderers.items() if found["first_less_this"]}
    there = [name for name in COLUMNS if any(name in found for found in others.values())]
    if not others:
        return
    headers = ["less", *(COLUMNS[name][0] for name in there), "both, ratio", "truth, ratio"]
    rows = []
    for name, found in others.items():
        ratios = [years(found.get(f"{one}_ratio")) for one in ("joint", "truth")]
        rows.append([name, *(written(found, one) for one in there), *ratios])
    page.table(headers, rows, f"{first} less each other, on the same faces")


def _costs(page: Page, renderers: Mapping[str, Any]) -> None:
    def told(value: Any, unit: str) -> str:
        return f"{float(value):,.0f} {unit}" if number(value).known else DASH

    rows = [
        [
            name,
            found["kind"],
            count(found["parameters"]),
            told(found["cost"]["ms"], "ms"),
            told(found["cost"]["mib"], "MiB"),
        ]
        for name, found in renderers.items()
    ]
    page.table(["renderer", "kind", "parameters", "ten renders of a face", "memory"], rows, "Cost", (0, 1))


def _by_age(page: Page, found: Mapping[str, Any]) -> None:
    ages = found["ages"]
    there = _known(list(ages.values()), ("mae", "bias", *PERSON, "in_band", *PLACE))
    rows = [[age, years(table["judged"]), *(written(table, name) for name in there)] for age, table in ages.items()]
    page.table(["age", "judged", *(COLUMNS[name][0] for name in there)], rows, f"n {found['n']:,} at each age")
    if found["realism"]:
        lines = []
        for age, one in found["realism"].items():
            told = [one["reason"], ""] if "reason" in one else [years(one["kid"], 4), years(one["fid"], 1)]
            lines.append([age, count(one["real"]), count(one["made"]), *told])
        page.table(["age", "real", "renders", "KID", "FID"], lines, "Against real faces of that age")


def _by_group(page: Page, found: Mapping[str, Any]) -> None:
    summary = [table for groups in found["groups"].values() for table in groups.values()]
    there = _known(summary, ("mae", "bias", "in_band", *PERSON, "rising", "spearman", "outside", "truth"))
    if not there:
        page.text("Every group has fewer than 30 faces: take more with -n.")
        return
    rows = []
    for by, groups in found["groups"].items():
        for group, table in groups.items():
            told = ["too few to say"] if suppressed(table) else [written(table, name) for name in there]
            rows.append([f"{words(by)} {group}", count(table["n"]), *told, *[""] * (len(there) - len(told))])
    page.table(["group", "n", *(COLUMNS[name][0] for name in there)], rows, "Over the ages that count")
    for key in ("mae", "in_band", "cosine", "joint"):
        rows = [
            [group, count(table["n"]), *(written(table[age], key) for age in found["ages"])]
            for group, table in found["cells"].items()
            if not suppressed(table) and key in table[next(iter(found["ages"]))]
        ]
        if rows:
            page.table(["faces of", "n", *found["ages"]], rows, f"{COLUMNS[key][0].capitalize()} by age asked for")


def _faces(page: Page, strips: Mapping[str, Sequence[Strip]], asked: Sequence[float], first: str) -> None:
    page.text("Below each render the age asked for, the judged age, and the cosine with the given face.")
    for name, shown in strips.items():
        some = shown if name == first else shown[:: max(1, len(shown) // FEW)][:FEW]
        with page.details(name, open=name == first):
            for strip in some:
                page.strip(_row(strip, asked))


def _row(strip: Strip, asked: Sequence[float]) -> list[Picture]:
    given = Picture(strip.given, f"given, {strip.age:.0f}", [strip.about])
    made = []
    for picture, age, judged, same in zip(strip.made, asked, strip.judged, strip.cosines, strict=True):
        lines = [f"judged {judged:.0f}"] + ([f"cosine {same:.2f}"] if np.isfinite(same) else [])
        made.append(Picture(picture, f"{age:g}", lines))
    return [given, *made]


def _facts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    about = metrics["about"]
    bands = ", ".join(f"{age:g}: {low:g} to {high:g}" for age, (low, high) in zip(about["ages"], about["bands"],
                                                                                  strict=True))  # fmt: skip
    facts = {
        "Faces": f"{about['faces']:,} of split {about['split']!r}, {about['groups']:,} independent groups, even over "
        f"ages, genders and races; drawn by seed {about['seed']}",
        "Not readable": len(about["rejected"]),
        "Given at": f"{about['side']} px",
        "Bands, years": bands,
        "Not in the summaries": ", ".join(f"{age:g}" for age in about["ages"] if age not in about["counted"]) or "none",
        "Mean faces from": "none" if about["taught_by"] is None else f"{about['taught_by']:,} faces",
        "Intervals": f"95 %, bootstrap of {about['resamples']:,} resamples by group",
        "Manifest": about["manifest"],
    }
    if metrics["verification"]:
        found = metrics["verification"]
        people = f"{found['faces']:,} faces of {found['persons']:,} persons"
        facts["Thresholds"] = f"false accepts {share(found['far'])}; {people}"
        for gap in found["gaps"]:
            low, high = gap["gap"]
            told = f"cosine above {gap['threshold']:.3f}, from {gap['different']:,} pairs of different persons"
            told += " (too few: the next smaller gap's)" if gap["borrowed"] else ""
            if gap["same"]:
                told += f"; {share(gap['passed'])} of {gap['same']:,} pairs of one person pass"
            facts[f"Gap of {low} to {high - 1} years"] = told
    return facts
