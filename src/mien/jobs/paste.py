"""A rendered face back into its photo: at the photo's own resolution, feathered, the background as it was."""

from __future__ import annotations

import numpy as np
from PIL import Image

#: The share of a crop's side over which the paste fades to nothing towards its edge.
FEATHER = 0.18


def paste(photo: np.ndarray, cut: np.ndarray, made: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`photo` (3, H, W) uint8 with the face `cut` from it (3, S, S) by `matrix` (2, 3) changed to `made` (3, S, S).

    What is added to the photo is the difference of the two, so that detail finer than the crop stays; it fades
    towards the crop's edge. No pixel outside the crop changes.
    """
    size = cut.shape[1]
    _, height, width = photo.shape
    inverse = np.linalg.inv(matrix[:, :2])
    corners = (np.array([[0, 0], [size, 0], [size, size], [0, size]]) - 0.5 - matrix[:, 2]) @ inverse.T + 0.5
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, [width, height]).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, [width, height]).astype(int)
    if right <= left or bottom <= top:
        return photo
    change = (made.astype(np.float32) - cut) * feather(size)
    # Pillow's transform samples and does not average: a crop larger than its place in the photo is shrunk first.
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    small = max(1, round(size / max(scale, 1.0)))
    shrink = small / size
    linear = matrix[:, :2] * shrink
    # Pillow counts from edges, matrices from the centres of pixels.
    shift = (matrix[:, 2] + 0.5 - matrix[:, :2] @ [0.5, 0.5]) * shrink + linear @ [left, top]
    coefficients = (*linear[0], shift[0], *linear[1], shift[1])
    window = (int(right - left), int(bottom - top))
    layers = []
    for channel in change:
        layer = Image.fromarray(channel).resize((small, small), Image.Resampling.BILINEAR)
        layers.append(
            np.asarray(layer.transform(window, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR))
        )
    result = photo.copy()
    part = result[:, top:bottom, left:right]
    part[:] = np.clip(np.rint(part + np.stack(layers)), 0, 255).astype(np.uint8)
    return result


def feather(size: int) -> np.ndarray:
    """(size, size) float32: 1 in the middle of a crop, 0 at its edge, a half-cosine between."""
    inside = np.minimum(np.arange(size) + 0.5, size - 0.5 - np.arange(size)) / size
    rise = 0.5 - 0.5 * np.cos(np.pi * np.clip((inside - 0.5 / size) / FEATHER, 0, 1))
    return np.outer(rise, rise).astype(np.float32)
