"""What is around a drawn face: background, neck, clothes and hair."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mien.data.drawing.canvas import Canvas, bell, ramp, stretch


@lru_cache(maxsize=64)
def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two colours of the background (3,), how they mix (5, 5), and the colour of the clothes (3,)."""
    rng = np.random.default_rng([seed, 7])
    base, other, cloth = (rng.uniform(0.05, 0.92, (3, 3)) ** 2).astype(np.float32)
    blobs = (rng.uniform(0, 1, (5, 5)) ** 2 * rng.uniform(0.1, 1.0)).astype(np.float32)
    return np.float32(0.4) * base + np.float32(0.6) * base.mean(), other, blobs, cloth


def paint_background(canvas: Canvas) -> None:
    """A background out of focus: a few soft blobs between two colours."""
    base, other, blobs, _ = scene(canvas.factors.scene)
    rows = stretch(canvas.size, 5)
    share = rows @ blobs @ rows.T
    for channel, (start, change) in enumerate(zip(base.tolist(), (0.6 * (other - base)).tolist(), strict=True)):
        canvas.image[channel] = start + change * share


def paint_body(canvas: Canvas) -> None:
    """Hair behind the head, neck in its shadow, clothes."""
    body, style = canvas.body, canvas.body.hair
    x, y = canvas.x, canvas.y
    across, chin = np.abs(x), float(body.outline[8, 1])
    if style.bottom > 0.5:
        mask = ramp(_spread(canvas, across, style.volume), 0.05) * ramp(style.bottom - y, 0.15)
        canvas.paint(body.hair_colour * 0.45, mask)
    box = canvas.box(-4, chin - 0.75, 4, 4)
    across, below = across[box], y[box] - chin
    wide = 0.30 + 0.30 * body.grown + 0.09 * body.male * body.adult
    trapezius = 0.5 * np.square(np.maximum(below - 0.15, 0))
    neck = ramp(np.minimum(wide - across + trapezius, below + 0.7), 0.04)
    canvas.paint(body.skin, neck, box)
    canvas.relight(0.38 + 0.3 * np.clip(below / 0.6, 0, 1) - 0.1 * np.clip(across / wide, 0, 1), neck, box)
    shoulders = below - 0.04 - 0.12 * body.grown - 0.33 * np.maximum(across - wide, 0)
    collar = below - 0.50 + 0.42 * np.minimum(across, wide + 0.15)
    cloth = ramp(np.minimum(shoulders, collar), 0.03)
    canvas.paint(scene(canvas.factors.scene)[3], cloth, box)
    canvas.relight(0.75, cloth, box)


def _spread(canvas: Canvas, across: np.ndarray, volume: np.ndarray | float) -> np.ndarray:
    """Distance to the outer edge of the hair, positive within: around the skull, then straight down."""
    hanging = float(canvas.body.outline[16, 0]) * (1 + volume) - across
    return np.where(canvas.y > 0.05, hanging, canvas.inside + canvas.radius * volume)


def paint_hair(canvas: Canvas) -> None:
    """The hair in front: hairline, fringe, sides; strands or coils under the light."""
    body, style, factors = canvas.body, canvas.body.hair, canvas.factors
    x, y = canvas.x, canvas.y
    across = np.abs(x)
    comb = x / (1.35 + 0.30 * np.maximum(y, -3)) + 0.05 * style.curl * np.sin(y * 8 + x * 3)
    strand = canvas.strand(comb)
    coiled = max(style.coil, 0.6 * (style.curl - 0.4), 0.0)
    if coiled:
        strand += (np.maximum(canvas.surface(), -1.5) - strand) * coiled
    long = min(max((style.bottom - 0.4) / 0.8, 0.0), 1.0)

    wave = np.square(across / 1.02)
    side = across - (1.03 - 0.07 * long) + 0.03 * long * np.sin(y * 2.3 + 2.0 * style.parting)
    line = style.top + 0.85 * wave * wave
    line -= style.temples * bell((across - 0.62) / 0.26)
    if style.fringe:
        line += style.fringe * (1.2 + 0.35 * style.parting * x) * bell(wave * 1.44)
    line += 0.035 * strand
    outer = _spread(canvas, across, style.volume * (1 + 0.12 * strand))
    edge = max(0.03, canvas.px)
    mask = np.maximum(ramp(line - y, 0.05 + 0.03 * (1 - style.density)), ramp(side, edge)) * ramp(outer, edge)
    mask *= ramp(style.bottom + 0.035 * strand - y, 0.05)
    mask *= style.density * (1 + 0.5 * (1 - style.density) * strand)
    np.minimum(np.maximum(mask, 0, out=mask), 1, out=mask)

    shine = bell((y + 1.05 + 0.2 * factors.light_y) / 0.3) + 0.6 * np.minimum(np.maximum(across - 1.0, 0), 0.3)
    light = 0.66 + (0.16 - 0.05 * coiled) * strand + 0.4 * factors.light * (1 - 0.6 * style.coil) * shine
    light *= 1 + 0.30 * factors.light_x * np.minimum(np.maximum(x, -1.2), 1.2)
    shadow = ramp(line - y + 0.10, 0.10) * (canvas.inside > 0)
    canvas.light *= 1 - 0.22 * shadow
    canvas.paint(body.hair_colour, mask)
    canvas.relight(np.maximum(light, 0.1) * 1.15, mask)
