"""The page of `mien inspect`: what a set of faces holds, what is lacking in it, what is twice in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mien.report.html import Card, Page, Picture
from mien.report.numbers import count, share, years
from mien.report.style import words

Findings = Mapping[str, Any]
#: Lines of a list of files on the page; the JSON has them all.
LISTED = 200
CAPTIONS = {
    "dataset_analysis": "Ages given as an interval count in equal parts in each of their years.",
    "affect_analysis": "Faces whose raters are tied or unsure have no expression, but votes.",
}
DEFINITIONS = {
    "Largest : smallest": "The most frequent class against the rarest, in faces. Where it is large, look at "
    "the figures of the rare class on their own.",
    "Weight": "N / (K · nₖ), for N labelled faces in K classes of nₖ faces: in a loss weighted so, every "
    "class counts alike.",
    "Same picture": "Byte for byte, or saved again, re-lit, marked, cropped a little or mirrored.",
    "Labels that disagree": "At least one label of such a group is wrong.",
    "In more than one split": "The model is judged on pictures that it may have learnt by heart.",
}


def inspection_page(
    findings: Findings,
    figures: Mapping[str, Figure],
    conflicts: Sequence[Sequence[Picture]] = (),
    facts: Mapping[str, Any] | None = None,
) -> str:
    """The report of an inspection as one HTML file.

    Args:
        findings: what `data/inspection.py` found; parts may be missing or None: `{"faces", "counts": {label:
            {word: n, "missing": n}}, "age", "imbalance": {label: {"ratio", "classes": {word: {"count",
            "share", "weight"}}}}, "unreadable": [{"path", "reason"}], "changed": [path], "duplicates":
            {"groups", "faces", "identical", "conflicting", "disagreements", "across_splits": [{"paths", "splits"}]}}`.
        figures: `dataset_analysis` and others, in the order of the page.
        conflicts: a row of pictures for each group of the same picture whose labels disagree, worst first.
        facts: what was inspected: faces, root, crop, date ...; shown as it is.
    """
    facts = dict(facts or {})
    name = next((value for key, value in facts.items() if key.lower() == "faces"), None)
    title = f"Inspection of {name}" if name else "Inspection"
    page = Page(title, "What it holds, what it lacks, what is in it twice")
    duplicates, unreadable = findings.get("duplicates") or {}, findings.get("unreadable") or []
    page.heading("In short")
    page.cards(_cards(findings, duplicates, unreadable))
    page.points(_summary(findings, duplicates, unreadable))
    if facts:
        page.heading("What was inspected")
        page.facts(facts)
    page.heading("What it holds")
    _counts(page, findings)
    _feelings(page, findings)
    for key, figure in figures.items():
        page.figure(figure, CAPTIONS.get(key, ""), alt=key.replace("_", " "))
    if findings.get("imbalance"):
        _imbalance(page, findings["imbalance"])
    if duplicates:
        _duplicates(page, duplicates, conflicts)
    if unreadable:
        page.heading("Pictures that cannot be read")
        _list(page, ("picture", "reason"), [(face["path"], face["reason"]) for face in unreadable])
    if findings.get("changed"):
        page.heading("Pictures that are not those that were prepared")
        _list(page, ("picture",), [(path,) for path in findings["changed"]])
    page.heading("How to read this page")
    page.facts(DEFINITIONS)
    return page.html()


def _cards(findings: Findings, duplicates: Findings, unreadable: Sequence[Any]) -> list[Card]:
    cards = [Card("Faces", count(findings.get("faces")))]
    cards.append(Card("Pictures that cannot be read", count(len(unreadable))))
    if duplicates:
        faces = f"{count(duplicates.get('faces'))} faces"
        cards.append(Card("Groups of the same picture", _many(duplicates, "groups"), faces))
        cards.append(Card("of them with labels that disagree", _many(duplicates, "conflicting")))
        cards.append(Card("of them in more than one split", _many(duplicates, "across_splits")))
    return cards


def _summary(findings: Findings, duplicates: Findings, unreadable: Sequence[Any]) -> list[str]:
    found = []
    age = findings.get("age") or {}
    if age.get("median") is not None:
        found.append(
            f"Ages run from {age['lowest']:.0f} to {age['highest']:.0f} years, median {age['median']:.0f}, "
            f"mean {age['mean']:.1f}."
        )
    if duplicates.get("across_splits"):
        found.append(
            f"Groups of the same picture in more than one split: **{_many(duplicates, 'across_splits')}**. "
            "Evaluations flatter; `mien prepare` keeps each group on one side."
        )
    if duplicates.get("conflicting"):
        tally = (duplicates.get("disagreements") or {}).items()
        on = ", ".join(f"{_label(name)}: {count(n)}" for name, n in tally)
        found.append(
            f"Groups of the same picture with labels that disagree: **{_many(duplicates, 'conflicting')}**"
            f"{f' ({on})' if on else ''}. Correct them, or leave them out."
        )
    if unreadable:
        found.append(f"Pictures that cannot be read: **{count(len(unreadable))}**. Training and judging skip them.")
    if findings.get("changed"):
        found.append(
            f"Pictures that are not those that were prepared: **{count(len(findings['changed']))}**. Their labels may "
            "be another face's; prepare them again."
        )
    return found


def _many(duplicates: Findings, key: str) -> str:
    return count(len(duplicates.get(key) or []))


def _label(name: str) -> str:
    """`age_over_5` as people say it: `age by more than 5 years`."""
    label, _, far = name.partition("_over_")
    return f"{words(label)} by more than {far} years" if far else words(label)


def _counts(page: Page, findings: Findings) -> None:
    rows = []
    for label, table in (findings.get("counts") or {}).items():
        known = {word: n for word, n in table.items() if word != "missing"}
        total = sum(table.values())
        named = ", ".join(f"{word} {count(n)}" for word, n in known.items() if n)
        rows.append((words(label), sum(known.values()), table.get("missing"), named))
        if not total:
            rows.pop()
    if rows:
        page.table(("label", "faces with it", "without", "of them"), rows, text_columns=(0, 3))


def _feelings(page: Page, findings: Findings) -> None:
    """Valence and arousal, votes on the expression, landmarks: those that are there."""
    feelings = findings.get("feelings") or {}
    if feelings:
        keys = ("mean", "deviation", "lowest", "highest")
        rows = [
            (name, one["count"], one["missing"], *(years(one[key]) for key in keys), one["zero"])
            for name, one in feelings.items()
        ]
        page.table(("", "faces with it", "without", *keys, "exactly 0"), rows)
    found = []
    if votes := findings.get("votes"):
        found.append(
            f"Faces with votes on their expression: **{count(votes['faces'])}**; tied {count(votes['tied'])}, most "
            f"raters unsure {count(votes['unsure'])}; on average {share(votes['agreement'])} of the votes agree."
        )
    if points := findings.get("landmarks"):
        line = f"Faces with landmarks: **{count(points['faces'])}**"
        if points["outside"] is not None:
            line += f"; some outside the picture {count(points['outside'])}, by more than a tenth of it "
            line += f"{count(points['far_outside'])}. They are kept as they are"
        found.append(f"{line}.")
    if found:
        page.points(found)


def _imbalance(page: Page, imbalance: Findings) -> None:
    page.heading("Imbalance")
    page.text("Rare classes are learnt worst. Such weights make every class count alike in a loss.")
    for label, part in imbalance.items():
        ratio = part.get("ratio")
        rows = [
            (name, count(round(c["count"])), share(c.get("share")), years(c.get("weight")))
            for name, c in part["classes"].items()
        ]
        title = words(label).capitalize()
        if ratio is not None:
            title += f": largest : smallest = {ratio:.1f}"
        page.table((words(label), "faces", "share", "weight"), rows, caption=title)


def _duplicates(page: Page, duplicates: Findings, conflicts: Sequence[Sequence[Picture]]) -> None:
    page.heading("The same picture again")
    rows = [
        (name, len(value) if isinstance(value, Sequence) else value)
        for name, value in (
            ("Groups of the same picture", duplicates.get("groups")),
            ("Faces in them", duplicates.get("faces")),
            ("Groups with byte-identical pictures", duplicates.get("identical")),
            ("Pairs of mirrored pictures", duplicates.get("mirrored")),
            ("Faces in the largest group", duplicates.get("largest")),
        )
        if value is not None
    ]
    page.table(("", "found"), rows)
    total = len(duplicates.get("conflicting") or [])
    if total:
        page.heading("The same picture, labels that disagree")
        if len(conflicts) < total:
            page.note(f"The worst {count(len(conflicts))} of {count(total)}; the JSON has them all.")
        page.image_rows(conflicts)
    across = duplicates.get("across_splits") or []
    if across:
        page.heading("The same picture in more than one split")
        _list(page, ("splits", "pictures"), [(", ".join(g["splits"]), ", ".join(g["paths"])) for g in across])


def _list(page: Page, headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    page.table(headers, rows[:LISTED], text_columns=range(len(headers)))
    if len(rows) > LISTED:
        page.note(f"The first {LISTED} of {count(len(rows))}; the JSON has them all.")
