"""Rendered faces as people look at them: strips with the ages written on them, grids, moving pictures, PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from mien.files import whole

#: Side in pixels of a face on a strip: smaller ones are enlarged, larger ones shrunk.
LEAST, MOST = 112, 256
#: Above the first face of a strip, the one that was given.
GIVEN = "given"
#: Milliseconds a picture of a moving picture is shown.
SHOWN = 200


def synthetic(model: str, ages: Sequence[float]) -> str:
    """What every rendered picture says of itself."""
    named = f"age {ages[0]:g}" if len(ages) == 1 else f"ages {', '.join(f'{age:g}' for age in ages)}"
    return f"synthetic: rendered by mien, model {model}, {named}"


def strip(given: np.ndarray, made: np.ndarray, ages: Sequence[float]) -> np.ndarray:
    """A face (3, S, S) and its renders (A, 3, S, S) side by side, all uint8, each under its age: (3, H, W)."""
    side = int(np.clip(given.shape[1], LEAST, MOST))
    words = [GIVEN, *(f"{age:g}" for age in ages)]
    letters = max(14, side / 8)
    font, band = ImageFont.load_default(letters), round(1.6 * letters)
    sheet = Image.new("RGB", (len(words) * side, side + band), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (word, face) in enumerate(zip(words, [given, *made], strict=True)):
        tile = Image.fromarray(np.ascontiguousarray(face.transpose(1, 2, 0)))
        sheet.paste(tile.resize((side, side), Image.Resampling.BICUBIC), (place * side, band))
        pen.text(((place + 0.5) * side, band / 2), word, font=font, fill="black", anchor="mm")
    return np.ascontiguousarray(np.asarray(sheet).transpose(2, 0, 1))


def grid(strips: Sequence[np.ndarray]) -> np.ndarray:
    """Strips (3, H, W) of the same ages below each other, as wide as the widest: (3, H', W')."""
    width = max(one.shape[2] for one in strips)
    rows = []
    for one in strips:
        picture = Image.fromarray(np.ascontiguousarray(one.transpose(1, 2, 0)))
        height = round(picture.height * width / picture.width)
        rows.append(np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1))
    return np.ascontiguousarray(np.concatenate(rows, axis=1))


def save_png(path: Path, image: np.ndarray, text: str) -> None:
    """Write (3, H, W) uint8 as PNG with `text` in a chunk `Description`; the file appears whole."""
    told = PngInfo()
    told.add_text("Description", text)
    told.add_text("Software", "mien")
    with whole(path) as beside:
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(beside, pnginfo=told)


def save_gif(path: Path, made: np.ndarray, text: str) -> None:
    """Write renders (A, 3, S, S) uint8 as a moving picture, there and back, with `text` as its comment."""
    frames = [Image.fromarray(np.ascontiguousarray(one.transpose(1, 2, 0))) for one in [*made, *made[-2:0:-1]]]
    with whole(path) as beside:
        frames[0].save(
            beside, save_all=True, append_images=frames[1:], duration=SHOWN, loop=0, comment=text.encode("utf-8")
        )
