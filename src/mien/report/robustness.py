"""The page of a robustness audit: what bad pictures do to a model, by what, how badly, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mien.report.figures.robustness import corruption_sheet, robustness_curves
from mien.report.html import Card, Page
from mien.report.numbers import count, number, share, suppressed, years
from mien.report.style import words

#: How a figure is written, and how a difference of two.
WRITTEN: dict[str, Callable[[Any], str]] = {"mae": years, "accuracy": share, "ccc": lambda value: years(value, 3)}
LOST: dict[str, Callable[[Any], str]] = {
    "mae": lambda value: years(value, sign=True),
    "accuracy": lambda value: share(value, sign=True).replace(" %", " points"),
    "ccc": lambda value: years(value, 3, sign=True),
}
NAMES = {"mae": "MAE, years", "accuracy": "accuracy", "ccc": "CCC"}
SEEN = {True: "seen in training", False: "unseen", None: "not known"}
HEADINGS = {
    "all": "all corruptions",
    "seen": "families seen in training",
    "unseen": "unseen families",
    "unknown": "families (training not known)",
}
DEFINITIONS = {
    "Severity": "1 is slight, 5 hard even for people; the table's version fixes what each one is. A picture keeps its "
    "random numbers (side of the light, place of the block, ...) over all severities.",
    "Mean corrupted": "The mean of the figure over all corruptions and severities, each counting alike; of photos, "
    "without those in which no face at all is found.",
    "Drop": "How much worse than on clean pictures of the same faces, above 0 where it is worse; paired, so that what "
    "makes a face hard in both cancels out of the interval.",
    "CE": "Corruption error (Hendrycks & Dietterich 2019): the model's errors summed over severities, by the "
    "baseline's. Error is the MAE, 1 − accuracy or 1 − CCC. Below 1 the model is better. mCE is the mean over "
    "corruptions.",
    "Relative CE": "The same with each model's error on clean pictures taken off first: who loses more.",
    "Seen, unseen": "Whether training changed pictures in any way that teaches the corruption's family, however "
    "slightly, by the recipe of the model's last training; what its starting weights were shown does not count.",
    "Worst group": "The group of at least 30 faces that loses most. It is chosen on the faces it is judged on, so its "
    "interval is a little too good.",
    "Flip": "A face and its mirror image should be told the same: share of equal answers, or mean difference.",
    "95 % interval, [low, high]": "Percentile bootstrap, whole persons or sets of copies drawn together.",
}
LIMITS = (
    "Corruptions are made by a computer. Real bad light is not gamma, a real mask is no rectangle: the figures tell "
    "models apart and show what they are sensitive to, not what a certain camera will do.",
    "A crop is damaged after it was cut; in real life the face must be found first. `--photos` tells what that loses.",
    "Labels are those of the clean pictures.",
)


def robustness_page(
    metrics: Mapping[str, Any], clean: np.ndarray | None = None, examples: Mapping[str, Sequence[np.ndarray]] = {}
) -> Page:
    """The report of a robustness audit.

    Args:
        metrics: the audit's result, `{"about", "tasks": {name: {...}}, "found"}`.
        clean, examples: one face (3, H, W) uint8 and, for each corruption, itself at each severity.
    """
    about, tasks = metrics["about"], metrics["tasks"]
    page = Page(f"Robustness of {about['model']}", "What bad pictures do to its answers, by what, and to whom")
    page.heading("In short")
    page.cards([card for name, part in tasks.items() for card in _cards(name, part)])
    page.points([line for name, part in tasks.items() for line in _summary(name, part, about)])
    page.heading("What was audited")
    page.facts(_facts(about))
    if clean is not None and examples:
        page.heading("What the severities look like")
        page.figure(
            corruption_sheet(clean, examples, about["severities"]),
            f"One face of the split; table of corruptions version {about['table']['version']}.",
        )
    for name, part in tasks.items():
        _task(page, name, part, about)
    if "found" in metrics:
        _found(page, metrics["found"], about)
    page.heading("How to read this page")
    page.facts(DEFINITIONS)
    page.heading("Limits")
    page.points(LIMITS)
    return page


def _facts(about: Mapping[str, Any]) -> dict[str, Any]:
    table = about["table"]
    facts = {
        "Model": about["model"],
        "Baseline": about["baseline"] or "none named (--baseline)",
        "Faces": f"{about['faces']:,} of split {about['split']!r}, {about['groups']:,} independent groups"
        + (f"; at most {about['limit']:,} drawn" if about["limit"] else ""),
        **({"Caution": about["caution"]} if "caution" in about else {}),
        **({"Caution, baseline": about["caution_baseline"]} if "caution_baseline" in about else {}),
        "Corruptions": f"{len(about['corruptions'])} x {len(about['severities'])} severities, table version "
        f"{table['version']} ({table['sha256'][:12]})",
        "Seen in training": _training(about),
        "Intervals": f"95 %, bootstrap of {about['resamples']:,} resamples by group",
        "Not readable": len(about["rejected"]),
        "Manifest": about["manifest"],
    }
    if about["photos"]:
        facts["Photos without a face found when clean"] = len(about["unfound"])
    return facts


def _training(about: Mapping[str, Any]) -> str:
    if about["training"] is None:
        return "not known: the model does not say how its training faces were changed"
    known = [family for family in about["training"] if family in about["families"].values()]
    unseen = sorted(set(about["families"].values()) - set(known))
    return f"{', '.join(known) or 'none'}; unseen: {', '.join(unseen) or 'none'}"


def _write(part: Mapping[str, Any], value: Any) -> str:
    return WRITTEN[part["figure"]](value)


def _lost(part: Mapping[str, Any], value: Any) -> str:
    return LOST[part["figure"]](value)


def _cards(name: str, part: Mapping[str, Any]) -> list[Card]:
    label = f"{name.capitalize()}: {NAMES[part['figure']]}"
    constant = f"always the same answer {_write(part, number(part['constant']).value)}"
    cards = [Card(f"{label}, clean", _write(part, part["clean"]), constant)]
    for key in ("all", "seen", "unseen"):
        if key in part["summary"]:
            entry = part["summary"][key]
            beside = f"loses {_lost(part, entry['drop'])}"
            if "mce" in entry:
                beside += f"; mCE {years(entry['mce'], 3)}"
            cards.append(Card(f"{label}, mean corrupted: {HEADINGS[key]}", _write(part, entry["mean"]), beside))
    return cards


def _summary(name: str, part: Mapping[str, Any], about: Mapping[str, Any]) -> list[str]:
    drops = {one: number(entry["drop"]) for one, entry in part["corruptions"].items()}
    order = sorted((one for one in drops if drops[one].known), key=lambda one: -drops[one].value)
    if not order:
        return []
    worse = [one for one in order[:3] if drops[one].value > 0]
    hard = ", ".join(f"{one.replace('_', ' ')} ({_lost(part, drops[one].value)})" for one in worse)
    least = f", and least from {order[-1].replace('_', ' ')}" if order[-1] not in worse else ""
    lines = [
        f"**{name.capitalize()}** suffers most from {hard}{least}."
        if worse
        else f"**{name.capitalize()}** suffers from none of the corruptions."
    ]
    worst = [f"{words(by)} {one['group']} ({_lost(part, one['drop'])})" for by, one in part["worst_group"].items()]
    if worst:
        lines.append(f"{name.capitalize()}: the groups that lose most are {'; '.join(worst)}.")
    baseline = part["summary"].get("all", {}).get("baseline")
    if baseline:
        less = "error" if part["better"] == "higher" else NAMES[part["figure"]].split(",")[0]
        lines.append(
            f"{name.capitalize()}: against {about['baseline']}, the mean corrupted {less} is "
            f"**{share(baseline['ratio'])}** of its; on clean pictures the difference is "
            f"{_lost(part, baseline['clean_difference'])}."
        )
    return lines


def _task(page: Page, name: str, part: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    factor = 100.0 if part["figure"] == "accuracy" else 1.0
    page.heading(f"{name.capitalize()}: {NAMES[part['figure']]}")
    for seen, title in SEEN.items():
        names = [one for one, entry in part["corruptions"].items() if entry["seen"] is seen]
        if names:
            page.heading(f"Corruptions {title}" if seen is not None else "Corruptions", 3)
            drawn = robustness_curves(part, names, f"{name.capitalize()} under corruptions: {title}", factor)
            page.figure(drawn, f"{NAMES[part['figure']]} over severity. {_better(part)} Dotted: clean; dashed: always "
                        "the same answer; bands: 95 % intervals.")  # fmt: skip
    _summary_table(page, part, about)
    _corruption_table(page, part, about)
    with page.details("Every severity with its interval"):
        _level_table(page, part, about)
    _group_table(page, part)
    flip = part["flip"]
    said = share(flip) if flip["figure"] == "agreement" else _write({"figure": part["figure"]}, flip)
    what = "the same class for" if flip["figure"] == "agreement" else "answers that differ on average by"
    page.text(f"A face and its mirror image get {what} **{said}**.")


def _better(part: Mapping[str, Any]) -> str:
    return "Lower is better." if part["better"] == "lower" else "Higher is better."


def _summary_table(page: Page, part: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    rows, headers = [], ["", "corruptions", "mean corrupted", "drop"]
    compared = about["baseline"] is not None
    if compared:
        headers += ["mCE", "relative mCE", "baseline's mean", "difference", "error by its"]
    for key, entry in part["summary"].items():
        row = [HEADINGS[key], count(entry["corruptions"]), _write(part, entry["mean"]), _lost(part, entry["drop"])]
        if compared and "mce" in entry:
            base = entry["baseline"]
            row += [years(entry["mce"], 3), years(entry["relative_mce"], 3), _write(part, base["mean"])]
            row += [_lost(part, base["difference"]), share(base["ratio"])]
        rows.append(row)
    clean = ["clean", "", _write(part, part["clean"]), ""]
    if compared and "baseline" in part["summary"]["all"]:
        base = part["summary"]["all"]["baseline"]
        clean += ["", "", _write(part, base["clean"]), _lost(part, base["clean_difference"]), ""]
    page.table(headers, [clean, *rows], f"Mean over corruptions and severities, n {part['n']:,}")


def _corruption_table(page: Page, part: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    compared = about["baseline"] is not None
    headers = ["corruption", "family", "training", "mean over severities", "drop", "worst group", "its drop"]
    rows = []
    for name, entry in part["corruptions"].items():
        worst = entry.get("worst_group")
        row = [name.replace("_", " "), entry["family"], SEEN[entry["seen"]], _write(part, entry["mean"])]
        row.append(_lost(part, entry["drop"]))
        row += [f"{words(worst['by'])} {worst['group']}", _lost(part, worst["drop"])] if worst else ["", ""]
        if compared and "ce" in entry:
            row += [years(entry["ce"], 3), years(entry["relative_ce"], 3)]
        rows.append(row)
    page.table(headers + (["CE", "relative CE"] if compared else []), rows, "By corruption", (0, 1, 2, 5))


def _level_table(page: Page, part: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    severities = [str(severity) for severity in about["severities"]]
    rows = [
        [name.replace("_", " "), *(_write(part, entry["levels"][level][part["figure"]]) for level in severities)]
        for name, entry in part["corruptions"].items()
    ]
    page.table(["corruption", *(f"severity {level}" for level in severities)], rows, NAMES[part["figure"]])
    rows = [
        [name.replace("_", " "), *(_lost(part, entry["levels"][level]["drop"]) for level in severities)]
        for name, entry in part["corruptions"].items()
    ]
    page.table(["corruption", *(f"severity {level}" for level in severities)], rows, "Drop against clean, paired")


def _group_table(page: Page, part: Mapping[str, Any]) -> None:
    rows = []
    for by, groups in part["groups"].items():
        for group, entry in groups.items():
            if suppressed(entry):
                rows.append([f"{words(by)} {group}", count(entry["n"]), "too few to say", "", ""])
            else:
                told = [_write(part, entry[key]) for key in ("clean", "mean")]
                drop = _lost(part, entry["drop"])
                rows.append([f"{words(by)} {group}", count(entry["n"]), *told, drop])
    if rows:
        page.table(["group", "n", "clean", "mean corrupted", "drop"], rows, "For whom")


def _found(page: Page, found: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    page.heading("Photos: faces no longer found")
    page.text(
        f"In {found['unfound_clean']:,} photos no face was found even when clean; they are in no figure. Of the other "
        f"{found['n']:,}, **{share(found['mean'])}** lose their face in a corrupted photo, on average over all cells. "
        "The figures above are those of the faces that are still found."
    )
    severities = [str(severity) for severity in about["severities"]]
    rows = [[name.replace("_", " "), *(share(levels[level]) for level in severities)] for name, levels in
            found["lost"].items()]  # fmt: skip
    page.table(["corruption", *(f"severity {level}" for level in severities)], rows, "Share no longer found")
