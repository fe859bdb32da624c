"""Answers as HTML: what stands in the table, and that nothing of a user's becomes markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import numpy as np

from mien.errors import MienError
from mien.web import markup
from mien.web.answers import AgedPhoto, Service

BOXES = ((10, 10, 60), (90, 10, 60))
Make = Callable[..., Service]


def words(html: str) -> str:
    """What a reader sees, a space for each tag."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def table(html: str) -> list[list[str]]:
    return [
        [words(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in re.findall(r"<tr>.*?</tr>", html)
    ]


def test_a_row_a_face_with_interval_and_probabilities(service: Make, photo: np.ndarray) -> None:
    html = markup.told_faces(service(*BOXES).tell(photo))
    heads, first, second = table(html)
    assert heads == ["Face", "Age", "Gender", "Race", "Expression", "Valence", "Arousal"]
    classes = ["Male 75 % Female 25 %", "White 75 % Black 25 %", "Neutral 75 % Happy 25 %"]
    assert first == ["1", "40 36–44 (90 %)", *classes, "−0.50", "+0.25"]
    assert second[:2] == ["2", "80 72–88 (90 %)"]
    assert html.count("data:image/jpeg;base64,") == 3
    said = words(html)
    for sentence in (markup.INTERVAL, markup.GROUPS, markup.AFFECT, "Faces are numbered from the left."):
        assert sentence in said
    assert "unaligned" not in said


def test_gender_and_race_leave_their_columns_with_them(service: Make, photo: np.ndarray) -> None:
    html = markup.told_faces(service(*BOXES).tell(photo, groups=False))
    assert table(html)[0] == ["Face", "Age", "Expression", "Valence", "Arousal"]
    assert not re.search("gender|race|male|white", words(html), re.IGNORECASE)


def test_unaligned_faces_and_none_at_all_are_said(service: Make, photo: np.ndarray) -> None:
    assert "2 of 2 faces are unaligned" in words(markup.told_faces(service(*BOXES, points=False).tell(photo)))
    assert "This face is unaligned" in words(markup.told_faces(service(BOXES[0], points=False).tell(photo)))
    nobody = markup.told_faces(service().tell(photo))
    assert "No face was found in this photo" in words(nobody)
    assert "<table" not in nobody


def test_other_ages_stand_under_their_pictures(service: Make, photo: np.ndarray) -> None:
    asked = service(*BOXES)
    html = markup.aged_faces(asked.age(photo, [10, 119]), "tint", asked.beyond([10, 119]))
    captions = [words(one) for one in re.findall(r"<figcaption>.*?</figcaption>", html)]
    one = ["given as it is", "age 10 synthetic", "age 119 synthetic", "all ages synthetic"]
    assert captions == [*one, *one]
    assert html.count('class="strip"') == 2
    assert "tint has seen nobody of 119 years: what it shows there is a guess." in words(html)
    assert "Face 2" in words(html)
    single = markup.aged_faces(service(BOXES[0]).age(photo, [10]), "tint", [])
    assert "Face 1" not in single
    assert "image/gif" not in single
    assert "No face was found" in markup.aged_faces(AgedPhoto([10], 0, []), "tint", [])
    few = AgedPhoto([10], 9, asked.age(photo, [10]).faces)
    assert "9 faces were found; the 6 largest are shown" in words(markup.aged_faces(few, "tint", []))


def test_what_rendered_pictures_are_is_said_by_the_card_as_far_as_there_is_one() -> None:
    card = {"data": "12 drawings", "figures": {"judged age off by": "12.3 years", "person right": "0.9"}}
    note = markup.synthetic_note("tint", card)
    assert note.startswith("These pictures are synthetic: tint guesses")
    assert note.endswith("It learnt from 12 drawings. Its card: judged age off by 12.3 years, person right 0.9.")
    assert markup.synthetic_note("tint", {}).endswith("this person did or will.")


def row(name: str, terms: str = "Research only, as drawn.", **more: Any) -> dict[str, Any]:
    return {"name": name, "tasks": ["age"], "figures": {"age MAE": "4.20"}, "terms": terms} | more


def test_models_are_told_as_mien_models_does() -> None:
    shipped = [row("one", megabytes=4.068, sha256="ab" * 32), row("two", megabytes=1.0, sha256="cd" * 32)]
    lines = table(markup.models_table(shipped, [row("two"), row("mine", terms="", figures={})]))
    assert lines[1] == ["one", "age", "age MAE 4.20", "Research only, as drawn.", "4.07 MB abababababababab"]
    assert lines[2][0] == "two answers here"
    assert lines[3] == ["mine answers here", "age", "–", "none stated", "–"]


def test_terms_that_begin_alike_are_said_once() -> None:
    rows = [row("a", "Research only, as drawn."), row("b", "research only; more."), row("c", ""), row("d", "MIT")]
    assert markup.terms_in_short(rows) == "Research only: a, b; No terms stated: c; MIT: d"


def test_nothing_of_a_users_becomes_markup(service: Make, photo: np.ndarray) -> None:
    bad = "<img src=x onerror=alert(1)>"
    assert bad not in markup.notice(bad)
    assert bad not in markup.models_table([], [row(bad, bad, tasks=[bad], figures={bad: bad})])
    assert bad not in markup.aged_faces(AgedPhoto([10], 1, service(BOXES[0]).age(photo, [10]).faces), bad, [10])
    problem = markup.problem(MienError(f"ages '{bad}':\n expected others."))
    assert words(problem) == f"Ages '{bad}': expected others."
    assert "onerror=alert(1)>" not in problem
