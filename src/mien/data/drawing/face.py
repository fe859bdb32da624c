"""Draws one face."""

from __future__ import annotations

import numpy as np

from mien.data.drawing.anatomy import anatomy
from mien.data.drawing.canvas import Canvas
from mien.data.drawing.factors import Factors
from mien.data.drawing.features import paint_brows, paint_eyes, paint_mouth, paint_nostrils
from mien.data.drawing.scenery import paint_background, paint_body, paint_hair
from mien.data.drawing.skin import paint_folds, paint_skin
from mien.errors import MienError

SIZES = (32, 512)


def draw(factors: Factors, size: int = 112, margin: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The face that `factors` describe: its picture (3, size, size) uint8 RGB and its 68 landmarks.

    Landmarks are (68, 2) float32 in iBUG's order, x and y in pixels from the centre of the upper left one,
    exactly where they are drawn. Without roll the face is aligned by them to the "chip" template, with `margin`
    of its side around it. The same face at another size differs only in its pixels.

    Raises:
        MienError: `size` is outside 32-512, or `margin` outside 0-1.
    """
    if not 0 <= margin <= 1:
        raise MienError(f"margin {margin:g} of a drawn face is outside 0 to 1 of the crop's side")
    if not SIZES[0] <= size <= SIZES[1]:
        raise MienError(f"size {size} of a drawn face is outside {SIZES[0]} to {SIZES[1]} pixels")
    body = anatomy(factors)
    canvas = Canvas(factors, body, size, margin)
    paint_background(canvas)
    paint_body(canvas)
    paint_skin(canvas)
    paint_folds(canvas)
    paint_eyes(canvas)
    paint_brows(canvas)
    paint_nostrils(canvas)
    paint_mouth(canvas)
    paint_hair(canvas)
    return canvas.developed(), canvas.landmarks.astype(np.float32)
