"""A photo with what a model said of its faces: boxes, ages, intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mien.faces import CONTINUOUS
from mien.jobs.workers import Row

#: Shorter side in pixels below which a picture is enlarged, so that letters have room.
LEAST_SIDE = 480
#: Longer side that no picture is enlarged beyond: a strip of a few rows of pixels would fill the memory.
MOST_SIDE = 4096
#: Black or white letters are legible on each (contrast at least 5 : 1).
FRAME, UNALIGNED = (0, 158, 115), (230, 159, 0)


def age_text(row: Row) -> str:
    """A prediction's age as people read it: `34 (27-42)`, `abstains (interval 23-61)`."""
    low, high = row["age_low"], row["age_high"]
    interval = "" if low is None or high is None else f"{low:.0f}-{high:.0f}"
    if row["abstained"]:
        return f"abstains (interval {interval})"
    if row["age"] is None:
        return ""
    return f"{row['age']:.0f} ({interval})" if interval else f"{row['age']:.0f}"


def affect_text(row: Row) -> str:
    """Valence and arousal as people read them: `valence +0.31, arousal −0.12`; empty where neither is told."""
    told = [(name, row.get(name)) for name in CONTINUOUS]
    return ", ".join(f"{name} {value:+.2f}".replace("-", "−") for name, value in told if value is not None)


def draw_faces(image: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
    """`image` (3, H, W) uint8 with a labelled frame a face, (3, H', W') uint8; small pictures are enlarged.

    `rows` are those of `Prediction.to_row` for this picture; one without a box is a crop and is labelled in
    its corner. A frame is orange where the face is unaligned, else green. Landmarks, where a row has them, are dotted
    in.
    """
    photo = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    enlarged = max(1, min(-(-LEAST_SIDE // min(photo.size)), MOST_SIDE // max(photo.size)))
    photo = photo.resize((photo.width * enlarged, photo.height * enlarged), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(photo)
    line = max(2, round(min(photo.size) / 250))
    smallest = max(13, round(min(photo.size) / 45))
    for row in rows:
        if row["face"] is None:
            continue
        colour = UNALIGNED if row["aligned"] is False else FRAME
        letters = (0, 0, 0) if colour == UNALIGNED else (255, 255, 255)
        corners = [row[side] for side in ("left", "top", "right", "bottom")]
        box = [0.0, 0.0, *map(float, photo.size)]
        if None not in corners:
            box = [float(value) * enlarged for value in corners]
            pen.rectangle(tuple(box), outline=colour, width=line)
        for x, y in np.reshape(row.get("landmarks") or [], (-1, 2)) * enlarged:
            pen.ellipse((x - line / 2, y - line / 2, x + line / 2, y + line / 2), fill=colour)
        text = ", ".join(filter(None, (age_text(row), row.get("expression"))))
        text = text or f"{row['gender'] or ''} {row['race'] or ''}".strip() or affect_text(row)
        font = ImageFont.load_default(min(max(smallest, (box[2] - box[0]) / 7), 3 * smallest))
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        width, height = right - left + 2 * line + 4, bottom - top + 2 * line + 4
        # Above the frame, or inside it where the photo ends; never outside the picture.
        x = min(max(box[0], 0), max(photo.width - width, 0))
        y = box[1] - height if box[1] >= height else max(box[1], 0)
        y = min(y, max(photo.height - height, 0))
        pen.rectangle((x, y, x + width, y + height), fill=colour)
        pen.text((x + line + 2 - left, y + line + 2 - top), text, font=font, fill=letters)
    return np.ascontiguousarray(np.asarray(photo).transpose(2, 0, 1))
