"""Pictures that a representation makes, in rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mien.report.figures.pictures import as_picture
from mien.report.style import DPI, INK, MUTED, Sheet, nothing, plain, sheet, styled

#: Inches of a face, of the band of column names, of the names of rows.
SIDE, HEAD, LEFT = 0.95, 0.32, 0.95


@styled
def face_rows(rows: Sequence[Sequence[np.ndarray]], columns: Sequence[str], names: Sequence[str] = ()) -> Figure:
    """Faces in rows, each column under its name; `names` stand left of the rows.

    Pictures are (3, H, W), uint8 or float in [0, 1].
    """
    if not rows:
        figure = sheet(6.0, 1.5)
        nothing(figure.subplots(), "", "no picture to show")
        return figure
    left = LEFT if any(names) else 0.08
    width, height = left + len(columns) * SIDE + 0.08, HEAD + len(rows) * SIDE + 0.08
    figure = Sheet(figsize=(width, height), dpi=DPI)
    for place, name in enumerate(columns):
        x, y = (left + (place + 0.5) * SIDE) / width, 1 - HEAD / 2 / height
        figure.text(x, y, plain(name), ha="center", va="center", fontsize=9, color=INK)
    for line, row in enumerate(rows):
        bottom = height - HEAD - (line + 1) * SIDE
        if any(names):
            y = (bottom + SIDE / 2) / height
            figure.text((left - 0.1) / width, y, plain(names[line]), ha="right", va="center", fontsize=9, color=MUTED)
        for place, picture in enumerate(row):
            box = ((left + place * SIDE) / width, bottom / height, 0.97 * SIDE / width, 0.97 * SIDE / height)
            axes = figure.add_axes(box)
            axes.imshow(as_picture(picture), interpolation="bilinear")
            axes.axis("off")
    return figure
