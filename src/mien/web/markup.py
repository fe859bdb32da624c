"""The page's answers as HTML: all text is escaped, pictures stand in it as base64, nothing is fetched."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mien.data.pictures import encode
from mien.errors import MienError
from mien.faces import CONTINUOUS, VOCABULARIES
from mien.jobs.prediction import NAMED
from mien.jobs.workers import Row
from mien.report.numbers import DASH
from mien.web.answers import FACES, Aged, AgedPhoto, Told

#: A class whose probability is below this is left out of the table.
LEAST = 0.01
#: What a reader must know of the columns, as the models' cards say it.
INTERVAL = "The 90 % interval holds the true age for 90 of 100 faces like those that it was calibrated on."
GROUPS = "Gender and race are the classes of the data, as others saw them, not what a person is."
AFFECT = (
    "Expression, valence and arousal (from −1 to +1) are what onlookers read in a picture, not what a person feels."
)
#: Where a line must not break.
SPACE = "\N{NO-BREAK SPACE}"
#: The heading of each column that tells a class or a number.
HEADINGS = {task: task.capitalize() for task in (*NAMED, *CONTINUOUS)}


def notice(text: str, kind: str = "") -> str:
    """A sentence in a box of its own."""
    return f'<p class="notice {kind}" role="status">{escape(text)}</p>'


def problem(error: MienError) -> str:
    """What went wrong and what to do, as a sentence for people."""
    text = " ".join(str(error).split())
    return notice(f"{text[:1].upper()}{text[1:].rstrip('.')}.", "problem")


def told_faces(told: Told) -> str:
    """The photo with its faces drawn in, and a table with a row a face."""
    count = len(told.rows)
    if not count:
        nobody = "No face was found in this photo. Faces are found from the front, upright, and not too small."
        return notice(nobody) + _photo(told.drawn, "the photo, in which no face was found")
    unaligned = sum(row["aligned"] is False for row in told.rows)
    parts = [_photo(told.drawn, "the photo with a frame and an age for each face"), _table(told)]
    notes = [
        *(["Faces are numbered from the left."] if count > 1 else []),
        *([INTERVAL] if any(row["age_low"] is not None for row in told.rows) else []),
        *([GROUPS] if any(row.get(task) for row in told.rows for task in ("gender", "race")) else []),
        *(
            [AFFECT]
            if any(row.get(task) is not None for row in told.rows for task in ("expression", *CONTINUOUS))
            else []
        ),
    ]
    if unaligned:
        some = "This face is" if count == 1 else f"{unaligned} of {count} faces are"
        parts.append(
            notice(f"{some} unaligned (an orange frame): nothing tells where the eyes are. Expect larger errors.")
        )
    return "".join(parts) + f'<p class="note">{escape(" ".join(notes))}</p>'


def _table(told: Told) -> str:
    rows = told.rows
    named = [task for task in NAMED if any(row.get(task) is not None for row in rows)]
    numbers = [task for task in CONTINUOUS if any(row.get(task) is not None for row in rows)]
    aged = any(row["age"] is not None for row in rows)
    heads = ["Face", *(["Age"] if aged else []), *(HEADINGS[task] for task in (*named, *numbers))]
    lines = []
    for number, (row, face) in enumerate(zip(rows, told.faces, strict=True), 1):
        unaligned = "<small>unaligned</small>" if row["aligned"] is False else ""
        cells = [
            f'<div class="who"><img src="{_jpeg(face)}" alt="face {number}"><span>{number}{unaligned}</span></div>'
        ]
        cells += [_age(row)] if aged else []
        cells += [_classes(row, task) for task in named]
        cells += [f"<b>{_signed(row.get(task))}</b>" for task in numbers]
        lines.append(cells)
    return _grid(heads, lines, "faces")


def _age(row: Row) -> str:
    """`35` and below it the interval."""
    age, low, high = row["age"], row["age_low"], row["age_high"]
    if age is None:
        return DASH
    interval = "" if low is None or high is None else f'<small class="whole">{low:.0f}–{high:.0f} (90 %)</small>'
    return f"<b>{age:.0f}</b>{interval}"


def _classes(row: Row, task: str) -> str:
    """The likeliest class with its probability, and below it the others that are not next to nothing."""
    if row.get(task) is None:
        return DASH
    shares = {name: float(row.get(f"{task}_{name}") or 0.0) for name in VOCABULARIES[task]}
    others = sorted((name for name in shares if name != row[task]), key=lambda name: -shares[name])
    rest = ", ".join(f"{escape(name)}{SPACE}{_percent(shares[name])}" for name in others if shares[name] >= LEAST)
    return f"<b>{escape(row[task])}</b> {_percent(row[f'{task}_p'])}<small>{rest}</small>"


def aged_faces(aged: AgedPhoto, name: str, guessed: Sequence[float]) -> str:
    """Each face of a photo at other ages: the strip, and the pictures one by one, the last one moving.

    `guessed` are ages that the renderer `name` has seen nobody at.
    """
    if not aged.faces:
        return notice("No face was found in this photo, so there is none to show at other ages.")
    parts = []
    if guessed:
        years = ", ".join(f"{age:g}" for age in guessed)
        parts.append(notice(f"{name} has seen nobody of {years} years: what it shows there is a guess."))
    if aged.found > len(aged.faces):
        parts.append(notice(f"{aged.found} faces were found; the {FACES} largest are shown. mien render shows all."))
    several = len(aged.faces) > 1
    for face in aged.faces:
        parts.append(f"<section>{f'<h3>Face {face.number}</h3>' if several else ''}{_ages(face, aged.ages)}</section>")
    return "".join(parts)


def _ages(face: Aged, ages: Sequence[float]) -> str:
    given = _figure(_uri(face.given, "png"), "the face as it was given", "given", "as it is")
    tiles = [
        _figure(_uri(picture, "png"), f"the face rendered at {age:g}", f"age {age:g}", "synthetic")
        for age, picture in zip(ages, face.pictures, strict=True)
    ]
    if len(ages) > 1:
        tiles.append(_figure(_uri(face.moving, "gif"), "the ages one after the other", "all ages", "synthetic"))
    # As wide as the page, but neither blown up nor so small that nothing is seen.
    tiles_across = len(ages) + 1
    strip = (
        f'<img class="strip" style="width:{10 * tiles_across}rem;min-width:{3 * tiles_across}rem" '
        f'src="{_uri(face.strip, "png")}" alt="the face as given and at each age, side by side">'
    )
    crooked = "" if face.aligned else notice("This face is unaligned: expect worse pictures.")
    return f'{crooked}<div class="scroll">{strip}</div><div class="tiles">{given}{"".join(tiles)}</div>'


def synthetic_note(name: str, card: Mapping[str, Any]) -> str:
    """What must be known of rendered pictures: that they are none of a person, and how far the renderer's card goes."""
    figures = ", ".join(f"{key} {value}" for key, value in card.get("figures", {}).items())
    learnt = f" It learnt from {card['data']}." if card.get("data") else ""
    judged = f" Its card: {figures}." if figures else ""
    return (
        f"These pictures are synthetic: {name} guesses how people of an age look, and knows nothing of how this person "
        f"did or will.{learnt}{judged}"
    )


def models_table(shipped: Iterable[Mapping[str, Any]], answering: Iterable[Mapping[str, Any]]) -> str:
    """What `mien models` prints of the shipped models, and the same of those that answer here and are not shipped."""
    shipped, answering = list(shipped), list(answering)
    here, known = {row["name"] for row in answering}, {row["name"] for row in shipped}
    lines = []
    for row in (*shipped, *(row for row in answering if row["name"] not in known)):
        figures = (f"<span>{escape(key)} <b>{escape(str(value))}</b></span>" for key, value in row["figures"].items())
        file = DASH
        if row["name"] in known:
            file = f"{row['megabytes']:.2f} MB<small><code>{escape(row['sha256'][:16])}</code></small>"
        lines.append(
            [
                f"<b>{escape(row['name'])}</b>{'<small>answers here</small>' if row['name'] in here else ''}",
                escape(", ".join(row["tasks"]).replace("_", " ")),
                "".join(figures) or DASH,
                escape(row["terms"] or "none stated"),
                file,
            ]
        )
    return _grid(["Model", "Tasks", "Figures", "Terms", "File, SHA-256"], lines, "models")


def terms_in_short(answering: Iterable[Mapping[str, Any]]) -> str:
    """The terms of the models that answer, in one line: how each begins, said once for all that begin alike."""
    named: dict[str, list[str]] = {}
    for row in answering:
        first = re.split(r"[,.;]", row["terms"])[0].strip() or "no terms stated"
        named.setdefault(first[0].upper() + first[1:], []).append(row["name"])
    return "; ".join(f"{terms}: {', '.join(names)}" for terms, names in named.items())


def _grid(heads: Sequence[str], lines: Iterable[Sequence[str]], kind: str) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for cells in lines)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _photo(image: np.ndarray, alt: str) -> str:
    return f'<figure class="photo"><img src="{_jpeg(image)}" alt="{escape(alt, quote=True)}"></figure>'


def _figure(source: str, alt: str, first: str, second: str) -> str:
    return (
        f'<figure><img src="{source}" alt="{escape(alt, quote=True)}">'
        f"<figcaption><b>{escape(first)}</b> {escape(second)}</figcaption></figure>"
    )


def _jpeg(image: np.ndarray) -> str:
    return _uri(encode(image, quality=90), "jpeg")


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}{SPACE}%"


def _signed(value: float | None) -> str:
    return DASH if value is None else f"{value:+.2f}".replace("-", "−")
