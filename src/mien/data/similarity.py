"""How alike two pictures are, whatever their light, compression, watermark, small crop or mirror.

Light and contrast go by local normalisation (each pixel less its neighbourhood's mean, over its
neighbourhood's deviation). Crops, shifts and turns go by aligning one picture to the other: a similarity
transform found by Gauss-Newton steps, coarse to fine, in the inverse compositional manner of Baker and
Matthews (2004, "Lucas-Kanade 20 years on"), which needs the gradients of one picture only.
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

#: Side of the grey pictures that are compared.
SIDE = 48
#: Side of the pictures whose plain correlation proposes pairs, and of the first alignment.
COARSE, MIDDLE = 16, 24
#: Radius in pixels of the neighbourhood at each side: at the finest one small enough to tell persons apart.
RADIUS = {COARSE: 2.0, MIDDLE: 2.0, SIDE: 1.5}
#: Grey levels added to the local deviation, so that the noise of plain areas stays small.
FLOOR = 4.0
#: Least deviation, in grey levels, of a picture in which anything can be recognised.
PLAIN = 2.0
#: Largest scale, turn or shift an alignment may find, as a share of half the side.
REACH = 0.2


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(3, H, W) uint8 RGB to (SIDE, SIDE) uint8 grey, each pixel the mean of the area it covers."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).convert("L")
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))


def normalise(thumbs: np.ndarray, side: int) -> np.ndarray:
    """(N, SIDE, SIDE) uint8 to (N, side, side) float32, locally normalised; `side` divides SIDE."""
    shrink = _area(SIDE, side)
    grey = thumbs.astype(np.float32)
    grey = grey if side == SIDE else shrink @ grey @ shrink.T
    blur = _gaussian(side, RADIUS[side])
    detail = grey - blur @ grey @ blur.T
    deviation = np.sqrt(blur @ (detail * detail) @ blur.T)
    return detail / (deviation + FLOOR)


def describe(thumbs: np.ndarray) -> np.ndarray:
    """Unit vectors, (N, COARSE^2) float32, whose products propose pairs; zero where a picture is plain."""
    flat = normalise(thumbs, COARSE).reshape(len(thumbs), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    seen = thumbs.reshape(len(thumbs), -1).std(axis=1, dtype=np.float32)[:, None] >= PLAIN
    return np.where(seen, flat / np.maximum(norm, 1e-6), 0).astype(np.float32)


def mirror(descriptors: np.ndarray) -> np.ndarray:
    """The descriptors, (N, COARSE^2), of the same pictures mirrored."""
    return np.ascontiguousarray(descriptors.reshape(-1, COARSE, COARSE)[:, :, ::-1]).reshape(descriptors.shape)


def aligned(first: np.ndarray, second: np.ndarray, enough: float) -> np.ndarray:
    """Correlation in [-1, 1] of pairs of thumbnails, (N, SIDE, SIDE) uint8 each, once aligned; (N,) float32.

    Pairs whose correlation at the middle size is at most `enough` are not looked at more closely and get 0.
    """
    scores = np.zeros(len(first), dtype=np.float32)
    transforms = np.zeros((len(first), 4), dtype=np.float32)
    rough, transforms = _align(normalise(first, MIDDLE), normalise(second, MIDDLE), transforms, steps=6)
    close = np.flatnonzero(rough > enough)
    if len(close):
        fine = _align(normalise(first[close], SIDE), normalise(second[close], SIDE), transforms[close], steps=4)
        scores[close] = fine[0]
    return scores


def _align(first: np.ndarray, second: np.ndarray, transforms: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlations (N,) and the transforms (N, 4) of `second`: scale, turn, shift to the right, downwards."""
    count, side, _ = first.shape
    half = (side - 1) / 2
    y, x = (np.mgrid[:side, :side].reshape(2, -1).astype(np.float32) - half) / half
    slope_y, slope_x = (slope.reshape(count, -1) * half for slope in np.gradient(first, axis=(1, 2)))
    change = np.stack([slope_x * x + slope_y * y, slope_y * x - slope_x * y, slope_x, slope_y], axis=1)
    hessian = change @ change.transpose(0, 2, 1)
    damping = 1e-3 * np.trace(hessian, axis1=1, axis2=2)[:, None, None] + 1e-6
    solve = np.linalg.inv(hessian + damping * np.eye(4, dtype=np.float32)) @ change
    target = first.reshape(count, -1)
    for _ in range(steps):
        moved, inside = _move(second, transforms, x, y)
        gap = np.where(inside, target - moved, 0)
        transforms = np.clip(transforms + (solve @ gap[:, :, None])[:, :, 0], -REACH, REACH)
    moved, inside = _move(second, transforms, x, y)
    return _correlation(target, moved, inside.astype(np.float32)), transforms


def _move(images: np.ndarray, transforms: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, side^2) pixels of `images` under their transforms, bilinear, and which of them lie inside."""
    count, side, _ = images.shape
    half = (side - 1) / 2
    scale, turn, right, down = transforms.T[:, :, None]
    across = (x + scale * x - turn * y + right) * half + half
    along = (y + turn * x + scale * y + down) * half + half
    inside = (across >= 0) & (across <= side - 1) & (along >= 0) & (along <= side - 1)
    across, along = np.clip(across, 0, side - 1.001), np.clip(along, 0, side - 1.001)
    left, top = across.astype(np.int32), along.astype(np.int32)
    across -= left
    along -= top
    flat, place = images.ravel(), top * side + left + (np.arange(count) * side * side)[:, None]
    upper, lower = flat.take(place), flat.take(place + side)
    upper += (flat.take(place + 1) - upper) * across
    lower += (flat.take(place + side + 1) - lower) * across
    return upper + (lower - upper) * along, inside


def _correlation(first: np.ndarray, second: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row over the pixels `inside` (0 or 1), all (N, P); (N,)."""
    total = np.maximum(inside.sum(axis=1, keepdims=True), 1)
    first = (first - (first * inside).sum(axis=1, keepdims=True) / total) * inside
    second = (second - (second * inside).sum(axis=1, keepdims=True) / total) * inside
    scale = np.sqrt((first * first).sum(axis=1) * (second * second).sum(axis=1))
    return (first * second).sum(axis=1) / np.maximum(scale, 1e-6)


@functools.lru_cache(maxsize=64)
def _area(old: int, new: int) -> np.ndarray:
    """(new, old) weights that average the old pixels under each new one."""
    edges = np.arange(new + 1) * old / new
    pixels = np.arange(old)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(covered, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _gaussian(side: int, radius: float) -> np.ndarray:
    """(side, side) matrix that blurs rows; at the edge the weights that remain are brought to one."""
    distance = np.arange(side)[:, None] - np.arange(side)
    weights = np.exp(-0.5 * (distance / radius) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
