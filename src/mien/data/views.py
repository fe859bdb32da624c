"""A view: the window of a picture that a network sees, cut out, turned and mirrored in one go."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from mien.data.pictures import resize
from mien.faces import MIRRORED


@dataclass(frozen=True, slots=True)
class View:
    """The window of the picture that the output shows, in shares of the picture's width and height.

    `x`, `y` is its centre, `angle` how far it is turned, in radians; `flip` mirrors what it shows.
    """

    x: float = 0.5
    y: float = 0.5
    width: float = 1.0
    height: float = 1.0
    angle: float = 0.0
    flip: bool = False


#: How much finer than the output a picture is when it is turned, so that bilinear turning keeps it sharp.
FINER = 1.35


def look(image: np.ndarray, view: View, size: int) -> tuple[np.ndarray, np.ndarray]:
    """What a window shows: antialiased, reflected where it leaves the picture.

    Args:
        image: uint8 (3, H, W).

    Returns:
        uint8 (size, size, 3), and the (2, 3) matrix that leads from a place in the output to one in the
        picture, both in pixels counted from the corner (the first one's centre is 0.5).
    """
    _, height, width = image.shape
    if replace(view, flip=False) == View():
        pixels = resize(image, size).transpose(1, 2, 0)
        return pixels[:, ::-1] if view.flip else pixels, _matrix(view, width, height, size)
    if view.angle == 0:
        # Whole pixels of the picture are cut out: one resampling is then all it takes.
        left, right = _edges(view.x, view.width, width)
        top, bottom = _edges(view.y, view.height, height)
        x, y = (left + right) / 2 / width, (top + bottom) / 2 / height
        view = replace(view, x=x, y=y, width=(right - left) / width, height=(bottom - top) / height)
        pixels = rescale(_cut(image, left, top, right, bottom), size, size)
        return pixels[:, ::-1] if view.flip else pixels, _matrix(view, width, height, size)
    matrix = _matrix(view, width, height, size)
    corners = matrix @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]], dtype=float)
    left, top = (math.floor(value) - 1 for value in corners.min(axis=1))
    right, bottom = (math.ceil(value) + 1 for value in corners.max(axis=1))
    cut = _cut(image, left, top, right, bottom)
    shrink = min(1.0, FINER / max(np.hypot(*matrix[:, 0]), np.hypot(*matrix[:, 1])))
    stage = rescale(cut, math.ceil(cut.shape[0] * shrink), math.ceil(cut.shape[1] * shrink))
    to_stage = matrix - [[0, 0, left], [0, 0, top]]
    to_stage *= [[stage.shape[1] / cut.shape[1]], [stage.shape[0] / cut.shape[0]]]
    turned = Image.fromarray(stage).transform(
        (size, size), Image.Transform.AFFINE, tuple(to_stage.ravel()), resample=Image.Resampling.BILINEAR
    )
    return np.asarray(turned), matrix


def move_landmarks(landmarks: np.ndarray, matrix: np.ndarray, flip: bool) -> np.ndarray:
    """Landmarks (68, 2) of a picture in pixels of the output that `matrix` (of `look`) belongs to."""
    points = np.linalg.solve(matrix[:, :2], (landmarks + 0.5 - matrix[:, 2]).T).T - 0.5
    return points[MIRRORED] if flip else points


def _matrix(view: View, width: int, height: int, size: int) -> np.ndarray:
    cosine, sine = math.cos(view.angle), math.sin(view.angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    window = np.array([-view.width if view.flip else view.width, view.height])
    linear = np.array([[width], [height]]) * turn * window / size
    centre = np.array([view.x * width, view.y * height])
    return np.column_stack([linear, centre - linear @ [size / 2, size / 2]])


def _edges(centre: float, share: float, length: int) -> tuple[int, int]:
    first = round((centre - share / 2) * length)
    return first, max(first + 1, round((centre + share / 2) * length))


def _cut(image: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Rows top to bottom, columns left to right of (3, H, W) as (h, w, 3), reflected beyond the borders."""
    _, height, width = image.shape
    inside = image.transpose(1, 2, 0)[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return inside.copy()
    beyond = ((max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0)), (0, 0))
    return np.pad(inside, beyond, mode="symmetric")


def rescale(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w, 3) to (height, width, 3), antialiased; torch's is thrice as quick as Pillow's."""
    # In this order torch knows the channels to lie last, and answers likewise.
    tensor = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = F.interpolate(tensor, size=(height, width), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1)[0].numpy()
