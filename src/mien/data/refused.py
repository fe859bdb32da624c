"""The sheet of faces that a quality filter refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mien.data.reading import Poor
from mien.data.sources import Rejected

#: Faces on the sheet, at most so many of each reason.
SHEET, EACH = 60, 15


def reason_of(poor: Poor) -> str:
    """The reason without its figures: `quality: blur, dark`."""
    return poor.rejected.reason.partition(" (")[0]


def _evenly(poor: list[Poor]) -> list[Poor]:
    """The first of every reason, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for item in poor:
        turns.append(seen[reason_of(item)])
        seen[reason_of(item)] += 1
    return [item for _, item in sorted(zip(turns, poor, strict=True), key=lambda pair: pair[0])]


def show_refused(path: Path, poor: list[Poor], rejected: list[Rejected]) -> None:
    """Write a sheet of refused faces by reason, each with what was measured; `rejected` are all that were."""
    from mien.report.figures import contact_sheet, save

    shown = sorted(_evenly(poor)[:SHEET], key=reason_of)
    refused = sum(item.reason.startswith("quality: ") for item in rejected)
    captions = [f"{Path(one.rejected.path).name}\n{one.rejected.reason.partition(': ')[2]}" for one in shown]
    title = f"{len(shown):,} of {refused:,} faces refused for their quality; rejected.csv lists all"
    save(contact_sheet([one.picture for one in shown], captions, columns=6, title=title, side=1.7, most=5), path)
