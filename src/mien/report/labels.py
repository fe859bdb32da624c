"""The page of `mien labels`: the labels most in doubt, to look through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mien.report.html import Card, Page, Picture
from mien.report.numbers import DASH, count, share

DEFINITIONS = {
    "Score": "How likely the label is wrong, from 0 to 1. From models: the probability that it was put at random and "
    "not for this face, given how far off the models usually are. From copies: how few of them agree with it.",
    "Usually off by": "The scale of the models' errors for faces of such spread, fitted on this set, years.",
    "A say": "Only models that did not learn from a face judge its label: one that did has learnt the mistake too.",
}


def labels_page(findings: Mapping[str, Any], pictures: Sequence[Picture], facts: Mapping[str, Any]) -> str:
    """One HTML file: `findings` is `labels.json` without its list, `pictures` the faces most in doubt, the first
    first."""
    page = Page("Labels in doubt", "Which are wrong, and what speaks against them")
    page.heading("In short")
    page.cards(
        [
            Card("Faces", count(findings["faces"])),
            Card("Labels in doubt", count(findings["flagged"]), f"score at least {findings['threshold']:g}"),
            Card("Judged by models", count(findings["judged"]), "that did not learn from the face"),
            Card("Wrong ages, by the models", share(findings["share"]) if findings["judged"] else DASH, "of those"),
        ]
    )
    page.heading("What was looked at")
    page.facts(facts)
    page.heading("The labels most in doubt")
    if pictures:
        page.images(pictures)
    else:
        page.text("Nothing speaks against any label.")
    page.heading("How to read this page")
    page.facts(DEFINITIONS)
    return page.html()
