"""One self-contained HTML file: inline style, pictures in base64, no script, nothing fetched."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mien.files import write_text
from mien.report.figures.pictures import as_picture
from mien.report.numbers import DASH
from mien.report.style import to_base64

#: Longest side of a face on a page, in pixels.
THUMBNAIL = 224
#: Pixels an inch of a figure takes on a page, so that text has one size in all of them.
PIXELS = 78
#: Inches from which on a phone shows a figure by its left part, to be moved with a finger.
WIDE = 7.6
_INTERVAL = re.compile(r" (\[[^\[\]]+\])$")
_STYLE = Path(__file__).with_name("page.css")


class Card(NamedTuple):
    """A headline figure: what it is, its value with its interval, and what to hold it against."""

    label: str
    value: str
    beside: str = ""


class Picture(NamedTuple):
    """A face on a page: (3, H, W) uint8 RGB (None: not readable), a first line, further lines, tags."""

    image: np.ndarray | None
    title: str
    lines: Sequence[str] = ()
    tags: Sequence[str] = ()


class Page:
    """A page that is filled from top to bottom. All text is escaped; headings make the table of contents."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._parts: list[str] = []
        self._contents: list[tuple[str, str]] = []

    def heading(self, text: str, level: int = 2) -> None:
        """A heading of level 2 (stands in the table of contents), 3 or 4."""
        if level == 2:
            anchor = f"s{len(self._contents) + 1}"
            self._contents.append((anchor, text))
            self._parts.append(f'<h2 id="{anchor}">{escape(text)}</h2>')
        else:
            self._parts.append(f"<h{level}>{escape(text)}</h{level}>")

    def text(self, *paragraphs: str) -> None:
        """Paragraphs; what stands between ** is bold, between backticks code."""
        for paragraph in paragraphs:
            self._parts.append(f"<p>{_inline(paragraph)}</p>")

    def note(self, text: str) -> None:
        """A muted remark below what it explains."""
        self._parts.append(f'<p class="note">{_inline(text)}</p>')

    def points(self, items: Sequence[str]) -> None:
        """A list of short sentences, marked up as in `text`."""
        if items:
            self._parts.append(f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>")

    def cards(self, cards: Sequence[Card]) -> None:
        """Headline figures side by side."""
        boxes = "".join(
            f'<div class="card"><span>{escape(card.label)}</span><strong>{_number(card.value)}</strong>'
            f"<small>{_inline(card.beside)}</small></div>"
            for card in cards
        )
        self._parts.append(f'<div class="cards">{boxes}</div>')

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Names and values, one a line."""
        lines = "".join(f"<dt>{escape(name)}</dt><dd>{_cell(value)}</dd>" for name, value in facts.items())
        self._parts.append(f'<dl class="facts">{lines}</dl>')

    def table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[Any]],
        caption: str = "",
        text_columns: Sequence[int] = (0,),
    ) -> None:
        """A table; `text_columns` are aligned left, the others right. Intervals in brackets are muted."""
        words = set(text_columns)

        def line(tag: str, cells: Sequence[Any]) -> str:
            shown = (
                f"<{tag}{' class=w' if place in words else ''}>{_cell(cell)}</{tag}>"
                for place, cell in enumerate(cells)
            )
            return f"<tr>{''.join(shown)}</tr>"

        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        head, body = line("th", headers), "".join(line("td", row) for row in rows)
        table = f"<table>{title}<thead>{head}</thead><tbody>{body}</tbody></table>"
        self._parts.append(f'<div class="scroll">{table}</div>')

    def figure(self, figure: Figure, caption: str = "", alt: str = "") -> None:
        """A figure with its caption; a click or tap shows it in its own size."""
        inches = float(figure.get_size_inches()[0])
        wide = " wide" if inches > WIDE else ""
        self._parts.append(
            f'<figure><label class="zoom"><input type="checkbox" aria-label="show in full size">'
            f'<span class="frame{wide}"><img style="width:{inches * PIXELS:.0f}px" '
            f'alt="{escape(alt or caption, quote=True)}" '
            f'src="data:image/png;base64,{to_base64(figure)}"></span></label>'
            f"<figcaption>{_inline(caption)}</figcaption></figure>"
        )

    def images(self, pictures: Sequence[Picture]) -> None:
        """Faces in a grid that follows the width of the page."""
        self._parts.append(f'<div class="faces">{"".join(map(_face, pictures))}</div>')

    def image_rows(self, rows: Sequence[Sequence[Picture]]) -> None:
        """Faces that belong together, a frame for each set."""
        sets = (f'<div class="faces set">{"".join(map(_face, row))}</div>' for row in rows)
        self._parts.append(f'<div class="sets">{"".join(sets)}</div>')

    def strip(self, pictures: Sequence[Picture]) -> None:
        """Faces in one line, however many: a narrow page moves them sideways."""
        self._parts.append(f'<div class="scroll"><div class="strip">{"".join(map(_face, pictures))}</div></div>')

    @contextmanager
    def details(self, summary: str, open: bool = False) -> Iterator[None]:  # noqa: A002
        """What is added inside is folded away behind `summary`; printing unfolds nothing that is folded."""
        self._parts.append(f"<details{' open' if open else ''}><summary>{escape(summary)}</summary>")
        yield
        self._parts.append("</details>")

    def html(self) -> str:
        """The whole file."""
        links = "".join(f'<li><a href="#{anchor}">{escape(text)}</a></li>' for anchor, text in self._contents)
        contents = f'<nav aria-label="Contents"><ol>{links}</ol></nav>' if len(self._contents) > 2 else ""
        subtitle = f'<p class="subtitle">{escape(self.subtitle)}</p>' if self.subtitle else ""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
            f"<title>{escape(self.title)}</title><style>{_STYLE.read_text(encoding='utf-8')}</style></head>\n"
            f"<body><header><h1>{escape(self.title)}</h1>{subtitle}</header>\n"
            f"{contents}\n<main>\n" + "\n".join(self._parts) + "\n</main></body></html>\n"
        )

    def save(self, path: str | Path) -> None:
        """Write the page; the file appears whole."""
        write_text(path, self.html())


def _inline(text: str) -> str:
    bold = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(str(text)))
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", bold)


def _number(text: str) -> str:
    return _INTERVAL.sub(r' <span class="interval">\1</span>', escape(text))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{float(value):.3g}" if abs(float(value)) < 1 else f"{float(value):.2f}"
    return _number(str(value))


def _face(picture: Picture) -> str:
    alt = escape(picture.title, quote=True)
    if picture.image is None:
        image = '<span class="missing">picture not readable</span>'
    else:
        image = f'<img alt="{alt}" src="data:image/jpeg;base64,{_jpeg(picture.image)}">'
    lines = "".join(f"<span>{escape(line)}</span>" for line in picture.lines)
    tags = "".join(f"<i>{escape(tag)}</i>" for tag in picture.tags)
    return (
        f'<div class="face">{image}<b>{escape(picture.title)}</b>{lines}'
        f"{f'<span class=tags>{tags}</span>' if tags else ''}</div>"
    )


def _jpeg(image: np.ndarray) -> str:
    picture = Image.fromarray(as_picture(image))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    with io.BytesIO() as stream:
        picture.save(stream, format="JPEG", quality=88)
        return base64.b64encode(stream.getvalue()).decode("ascii")
