"""The features of a drawn face: eyes, brows, nostrils and mouth."""

from __future__ import annotations

import numpy as np

from mien.data.drawing.anatomy import mix, rgb, tinted
from mien.data.drawing.canvas import Canvas, bell, ramp

IRIS, PUPIL = 0.096, 0.042


def paint_eyes(canvas: Canvas) -> None:
    """Eyeballs between the lids, lashes, the fold above and the rim below."""
    body, px, factors, shape = canvas.body, canvas.px, canvas.factors, canvas.body.eyes
    box = canvas.box(-0.84, -0.28, 0.84, 0.19)
    place, y = canvas.x[box], canvas.y[box]
    x = np.abs(place) - 0.5
    t = np.minimum(np.maximum(x / shape.width, -1.25), 1.25)
    width = np.abs(t)
    upper, lower = shape.lids(t)
    above = y - upper
    fine = max(0.011, 0.6 * px)
    opening = ramp(np.minimum(np.minimum(above, lower - y), (1 - width) * (0.6 * shape.width)), fine)
    look = x + 0.016
    far = np.sqrt(np.square(look) + np.square(y + 0.012))

    white = mix(rgb(222, 214, 209), rgb(206, 190, 174), body.ageing * 0.8)
    canvas.paint(mix(white, tinted(body.skin, 1.0, 0.92, 0.92), 0.12), opening, box)
    ring = opening * ramp(IRIS - far, fine)
    glow = 0.6 + 0.7 * np.minimum(np.maximum((y + 0.05) * 6, 0), 1) - 0.45 * (far > 0.8 * IRIS)
    canvas.paint(body.iris[:, None, None] * glow, ring, box)
    canvas.paint(rgb(12, 10, 10), opening * ramp(PUPIL - far, fine), box)
    canvas.relight(np.minimum(np.maximum(above / 0.085, 0.3), 1) * (0.95 - 0.24 * t * t), opening, box)

    lashes = body.adult * (1 - body.male) * (1 + 0.5 * body.make_up)
    thick = (0.017 + 0.010 * lashes) * (1 + 0.5 * t) + 0.25 * px
    edge = bell((above + 0.006) / thick) * ramp(1.06 - width, 0.12)
    dark = mix(body.brow_colour * 0.5, rgb(20, 14, 12), 0.6)
    canvas.paint(dark, edge * (0.60 + 0.1 * lashes + 0.1 * body.adult), box)
    rim = bell((y - lower) / (0.014 + 0.4 * px)) * ramp(1.0 - width, 0.15)
    canvas.paint(tinted(body.skin, 0.5, 0.32, 0.3), rim * (0.42 + 0.15 * lashes), box)
    if body.make_up:
        shadow = ramp(-above, 0.03) * bell((above + 0.06) / 0.06) * ramp(1.1 - width, 0.3)
        canvas.paint(tinted(body.skin, 0.45, 0.30, 0.32), shadow * (0.6 * body.make_up), box)
    crease = 0.045 - 0.012 * body.sagging + 0.02 * (1 - t * t)
    depth = (0.2 + 0.2 * body.adult) * (0.55 if factors.race == "Asian" else 1.0) + 0.1 * body.ageing
    fold = bell((above + crease) / (0.019 + 0.3 * px)) * ramp(1.1 - width, 0.2)
    canvas.relight(0.28, fold * depth, box)

    aside = look - np.sign(place) * (0.035 * factors.light_x + 0.01)
    glint = np.sqrt(np.square(aside) + np.square(y + 0.035 + 0.02 * factors.light_y))
    mask = ramp(0.020 - glint, max(0.012, 0.6 * px)) * opening * 0.9
    canvas.paint(rgb(250, 250, 250), mask, box)
    canvas.relight(1.1, mask, box)


def paint_brows(canvas: Canvas) -> None:
    """Eyebrows: hair along their arcs, full at the nose, thin at the temples."""
    body, arc = canvas.body, canvas.body.brow
    (_, low), (outer, end) = arc.start, arc.end
    box = canvas.box(-outer - 0.07, min(low, end) + arc.bend - 0.06, outer + 0.07, max(low, end) + 0.1)
    u, far = canvas.along(arc, box, twin=True)
    width = 0.050 * body.brow_weight * (0.78 - 0.38 * np.minimum(np.maximum(u, -0.7), 1)) + 0.2 * canvas.px
    hairs = canvas.strand(0.85 * (np.abs(canvas.x[box]) - canvas.y[box] * 0.8))
    mask = bell(far / width) * ramp(1.02 - np.abs(u), 0.12) * (1 + 0.14 * hairs)
    mask *= (0.42 + 0.38 * body.adult) * (1 - 0.25 * body.ageing)
    canvas.paint(body.brow_colour, np.minimum(np.maximum(mask, 0), 0.93), box)


def paint_mouth(canvas: Canvas) -> None:
    """Lips, and between them teeth and the dark of the mouth where it is open."""
    body, px, shape = canvas.body, canvas.px, canvas.body.mouth
    box = canvas.box(-shape.width - 0.08, shape.y - 0.32, shape.width + 0.08, shape.y + shape.gap + 0.32)
    x, y = canvas.x[box], canvas.y[box]
    t = np.minimum(np.maximum(x / shape.width, -1), 1)
    top, over, under, bottom = shape.curves(t)
    middle = (over + under) * 0.5
    soft = max(0.014, 0.7 * px)
    inside = ramp(1.02 - np.abs(x) / shape.width, 0.08)
    lips = ramp(np.minimum(y - top, bottom - y), soft * 1.4) * inside
    upper = ramp(middle - y, 0.03)
    for channel, tint in enumerate(body.lips.tolist()):
        part = canvas.image[channel][box]
        part += lips * 0.85 * (tint * (1 - 0.25 * upper) - part)
    gleam = bell(((y - under) / np.maximum(bottom - under, 0.02) - 0.42) / 0.28) * (1 - t * t)
    canvas.light[box] *= 1 + lips * (0.16 * gleam * (1 + body.adult * (1 - body.male)) - 0.08 * upper)
    canvas.relight(0.22, bell((y - middle) / (0.014 + 0.35 * px)) * inside * 0.72, box)
    if shape.gap < 0.01:
        return
    shown = min(1.0, (shape.gap - 0.01) / 0.03)
    cavity = ramp(np.minimum(y - over, under - y), soft) * ramp(0.96 - np.abs(t), 0.06) * shown
    canvas.paint(rgb(58, 22, 22), cavity, box)
    canvas.relight(0.6, cavity, box)
    edge = over + 0.115 * (0.75 + 0.25 * body.grown)
    teeth = ramp(np.minimum(np.minimum(y - over, edge - y), under - y), soft) * ramp(0.86 - np.abs(t), 0.1) * shown
    gaps = 1 - 0.10 * bell(((np.abs(x) * 11) % 1 - 0.02) / 0.12)
    canvas.paint(mix(rgb(234, 228, 220), rgb(204, 188, 158), body.ageing * 0.9), teeth * 0.93, box)
    canvas.relight(gaps * (0.90 - 0.35 * t * t), teeth, box)
    tongue = ramp(under - y, 0.05) * ramp(y - under + 0.09, 0.05) * cavity * (1 - teeth)
    canvas.paint(rgb(150, 72, 70), tongue * 0.7, box)


def paint_nostrils(canvas: Canvas) -> None:
    """Two dark openings under the tip, the curve of each wing, the shade beneath."""
    body = canvas.body
    base, wing = body.nose_base, body.nose_width
    box = canvas.box(-wing - 0.12, base - 0.2, wing + 0.12, base + 0.12)
    across, y = np.abs(canvas.x[box]), canvas.y[box] - base
    far = np.square((across - 0.50 * wing) / (0.26 * wing))
    far += np.square((y - 0.012 + 0.15 * (across - 0.5 * wing)) / 0.03)
    canvas.relight(0.14, np.exp(-far) * 0.70, box)
    curve = np.minimum(np.square((y + 0.065) / 0.13), 1)
    side = (across - wing - 0.01 + 0.27 * wing * curve) / (0.022 + 0.3 * canvas.px)
    mask = np.exp(-side * side - np.square((y + 0.06) / 0.085))
    canvas.relight(0.3, mask * (0.28 + 0.12 * body.adult), box)
    place = np.square(across / wing)
    under = (y - 0.035 + 0.10 * place) / (0.028 + 0.2 * canvas.px)
    canvas.relight(0.35, np.exp(-under * under - 1.9 * place * place) * 0.26, box)
