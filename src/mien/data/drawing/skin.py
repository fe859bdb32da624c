"""The surface of a drawn face: its relief under the light, flush, texture, beard, spots and folds."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from mien.data.drawing.anatomy import Anatomy, Arc, mix, tinted
from mien.data.drawing.canvas import Canvas, bell, ramp
from mien.data.drawing.factors import traits

#: The relief is a sum of Gaussian bumps, laid out on a lattice of the face: first place, spacing and count.
LATTICE_X, LATTICE_Y = (-1.5, 1 / 24, 73), (-1.9, 1 / 24, 98)


def relief(body: Anatomy) -> np.ndarray:
    """Slopes (x, y), flush, hollows and beard of the face on the lattice, (rows, columns, 5) float32."""
    grown, adult, male, age, sag = body.grown, body.adult, body.male, body.ageing, body.sagging
    child, nb, my = 1 - grown, body.nose_base, body.mouth.y
    nose, smile, sneer = body.nose_height, body.moves["smile"], body.moves["sneer"]
    chin = float(body.outline[8, 1])
    whiskers, moustache, stubble = body.hair.beard, body.hair.moustache, body.hair.stubble
    shave = min(1.0, whiskers + stubble)
    gap, wing = body.moves["gap"], body.nose_width
    # x, y, width, height, relief, flush, hollow, beard; those with x > 0 stand on both sides
    bumps = [
        (0.47, -0.05, 0.25, 0.15, -0.07 - 0.035 * adult - 0.03 * age, 0.1, 0.22 + 0.1 * (adult + age), 0),
        (0.22, -0.02, 0.09, 0.12, -0.05 * grown, 0.05, 0.16 * grown, 0),
        (0.5, 0.0, 0.17, 0.10, 0.045, 0, 0, 0),
        (0.46, -0.27, 0.32, 0.085, 0.02 + (0.025 + 0.03 * male) * adult, 0, 0, 0),
        (0.0, -0.55, 0.6, 0.3, 0.05 + 0.06 * child, 0, 0, 0),
        (0.0, 0.02, 0.085, 0.15, 0.045 * nose, 0, 0, 0),
        (0.0, 0.22, 0.085, 0.16, 0.065 * nose, 0, 0, 0),
        (0.0, 0.40, 0.095, 0.13, 0.075 * nose, 0.1, 0, 0),
        (0.0, nb - 0.13, 0.125, 0.11, 0.15 * (0.35 + 0.65 * nose), 0.35 + 0.2 * age, 0, 0),
        (wing * 0.74, nb - 0.06, 0.065, 0.07, 0.07 * (0.5 + 0.5 * nose), 0.25, 0, 0),
        (0.0, nb + 0.075, 0.17, 0.045, -0.03, 0, 0.36, 0),
        (wing + 0.06, nb - 0.06, 0.05, 0.09, -0.02 - 0.03 * (smile + sneer), 0, 0.16 + 0.1 * age, 0),
        (0.74, 0.42, 0.27, 0.20, 0.045 + 0.02 * grown, 0.25, 0, 0),
        (0.64, 0.66, 0.30, 0.26, 0.12 * child, 0.65 * child + 0.1, 0, 0),
        (0.60, 0.46, 0.20, 0.15, 0.06 * smile, 0.3 * smile, 0, 0),
        (0.98, -0.35, 0.16, 0.28, -0.05 * grown - 0.03 * age, 0, 0.05 * grown, 0),
        (0.0, my - 0.08, 0.26, 0.12, 0.04, 0.05, 0, 0),
        (0.0, my - 0.15, 0.035, 0.07, -0.014, 0, 0.07, 0),
        (0.0, my + 0.08 + gap, 0.20, 0.055, 0.045, 0, 0, 0),
        (0.0, my + 0.225 + gap, 0.24, 0.05, -0.035, 0, 0.20, 0),
        (0.0, chin - 0.20, 0.20, 0.13, 0.06, 0.15, 0, 0),
        (body.mouth.width + 0.05, my + 0.03, 0.06, 0.08, -0.03 - 0.02 * sag, 0, 0.12 + 0.12 * sag, 0),
        (0.78, 0.86, 0.20, 0.26, -0.05 * adult * grown - 0.06 * sag, 0, 0.06 * adult + 0.12 * sag, 0),
        (0.64, 1.26, 0.15, 0.13, 0.07 * sag, 0, 0, 0),
        (0.47, 0.21, 0.18, 0.05, 0.035 * age + 0.012, 0.15 * age, 0.04, 0),
        (0.40, 0.29, 0.16, 0.05, -0.03 * age - 0.008, 0.1, 0.07 + 0.17 * age, 0),
        (0.42, 0.62, 0.12, 0.12, 0.04 * sag, 0, 0, 0),
        (0.0, chin - 0.18, 0.36, 0.24, 0, 0, 0, 0.9 * shave),
        (0.55, my + 0.25, 0.22, 0.22, 0, 0, 0, 0.55 * shave),
        (0.82, 0.80, 0.17, 0.36, 0, 0, 0, 0.85 * shave),
        (1.0, 0.35, 0.10, 0.35, 0, 0, 0, 0.7 * shave),
        (0.17, my - 0.15, 0.17, 0.05, 0, 0, 0, 0.85 * max(moustache, stubble)),
        (0.40, my + 0.02, 0.06, 0.14, 0, 0, 0, 0.5 * min(moustache, shave)),
    ]  # fmt: skip
    table = np.array(bumps, dtype=np.float32)
    both = table[table[:, 0] > 0]
    both[:, 0] *= -1
    table = np.concatenate([table, both])
    (x0, step, nx), (y0, _, ny) = LATTICE_X, LATTICE_Y
    dx = (x0 + step * np.arange(nx, dtype=np.float32))[None] - table[:, :1]
    dy = (y0 + step * np.arange(ny, dtype=np.float32))[None] - table[:, 1:2]
    sx, sy = table[:, 2:3], table[:, 3:4]
    gx, gy = np.exp(-0.5 * (dx / sx) ** 2), np.exp(-0.5 * (dy / sy) ** 2)
    fields = np.empty((ny, nx, 5), dtype=np.float32)
    fields[..., 0] = (gy * table[:, 4:5]).T @ (gx * -dx / sx**2)
    fields[..., 1] = (gy * -dy / sy**2 * table[:, 4:5]).T @ gx
    for channel in range(5, 8):
        used = table[:, channel] != 0
        fields[..., channel - 3] = (gy[used] * table[used, channel, None]).T @ gx[used]
    return fields


def sampled(fields: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The lattice's fields (rows, columns, C) at places (H, W) of the face, linearly between: (C, H, W)."""
    (left, step, columns), (top, _, rows) = LATTICE_X, LATTICE_Y
    u = np.clip((x - left) / step, 0, columns - 1.01).ravel()
    v = np.clip((y - top) / step, 0, rows - 1.01).ravel()
    i, j = u.astype(np.int32), v.astype(np.int32)
    u, v = (u - i)[:, None], (v - j)[:, None]
    flat, index = fields.reshape(columns * rows, -1), j * columns + i
    upper = np.take(flat, index, axis=0)
    upper += u * (np.take(flat, index + 1, axis=0) - upper)
    lower = np.take(flat, index + columns, axis=0)
    lower += u * (np.take(flat, index + columns + 1, axis=0) - lower)
    upper += v * (lower - upper)
    return np.ascontiguousarray(upper.T).reshape(-1, *x.shape)


def paint_skin(canvas: Canvas) -> None:
    """Ears, then the head: relief under the light, flush, texture, beard and spots."""
    body, factors, trait = canvas.body, canvas.factors, traits(canvas.factors.person)
    slope_x, slope_y, flush, hollow, beard = sampled(relief(body), *canvas.nodes)
    smooth = [*lit(canvas, slope_x, slope_y, hollow), flush] + [beard] * (body.hair.stubble > 0)
    light, sheen, flush, *rest = canvas.finely(np.stack(smooth))
    texture = canvas.surface()
    light *= 1 + (0.012 + 0.026 * body.ageing) * texture
    if body.hair.bottom < 0.6:
        paint_ears(canvas, light)

    flush *= 0.33 + 0.08 * trait["ruddy"]
    np.minimum(flush, 0.6, out=flush)
    colour = np.empty_like(canvas.image)
    red, green, blue = body.skin.tolist()
    colour[0] = red
    np.multiply(flush, -0.42 * green, out=colour[1])
    np.multiply(flush, -0.36 * blue, out=colour[2])
    colour[1] += green
    colour[2] += blue
    if body.hair.stubble > 0:
        full = max(body.hair.beard, body.hair.moustache)
        share = np.minimum(rest[0] * (1.1 + 0.09 * texture), 0.92)
        share *= 0.75 + 0.25 * full
        whiskers = mix(mix(body.skin * 0.45, body.hair_colour, 0.4), body.hair_colour, min(1.0, 1.6 * full))
        for channel, tint in enumerate(whiskers.tolist()):
            colour[channel] += share * (tint - colour[channel])
        sheen *= 1 - share
    mask = ramp(canvas.inside, max(0.012, 0.75 * canvas.px))
    canvas.paint(colour, mask)
    # Sheen is the lamp's own colour and strength: on dark skin it stands out more.
    oily = (0.24 + 0.08 * body.adult - 0.10 * body.ageing) * factors.light * math.sqrt(0.4 / float(body.skin.mean()))
    canvas.relight(light + sheen * oily, mask)
    paint_spots(canvas)


def lit(canvas: Canvas, slope_x: np.ndarray, slope_y: np.ndarray, hollow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Light at the nodes on an ellipsoid with relief: diffuse (Lambert, wrapped) and sheen (Blinn)."""
    factors = canvas.factors
    lamp = np.array([1.1 * factors.light_x, -1.1 * factors.light_y, 1.0])
    lamp = headward(canvas, lamp / np.linalg.norm(lamp))
    half = lamp + headward(canvas, np.array([0.0, 0.0, 1.0]))
    half /= np.linalg.norm(half)
    x, y = canvas.nodes
    nx, ny = x / 1.30, (y - 0.15) / 2.0
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.05))
    nx -= slope_x
    ny -= slope_y
    norm = 1 / np.sqrt(nx * nx + ny * ny + nz * nz)

    def facing(direction: np.ndarray) -> np.ndarray:
        a, b, c = direction.tolist()
        return (nx * a + ny * b + nz * c) * norm

    sheen = np.maximum(facing(half), 0)
    for _ in range(4):  # to the power of 16
        sheen *= sheen
    key = 0.35 + 0.55 * factors.light
    diffuse = np.maximum(0.92 * facing(lamp) + 0.20, 0)
    return (1.10 - key) * (1 - hollow) + key * diffuse, sheen


def headward(canvas: Canvas, direction: np.ndarray) -> np.ndarray:
    """A direction in the picture (right, down, to the viewer) as the turned head sees it."""
    cy, sy, cp, sp = canvas.turn
    c, s = (canvas.matrix[:, 0] / canvas.unit).tolist()
    x, y, z = direction[0] * c + direction[1] * s, direction[1] * c - direction[0] * s, direction[2]
    x, z = x * cy - z * sy, z * cy + x * sy
    return np.array([x, y * cp - z * sp, z * cp + y * sp])


def paint_ears(canvas: Canvas, light: np.ndarray) -> None:
    """An ear on each side, half behind the head."""
    height = 0.30 + 0.02 * traits(canvas.factors.person)["ears"]
    for side in (-1, 1):
        box = canvas.box(side * 1.15 - 0.18, -0.25, side * 1.15 + 0.18, 0.65)
        far = np.square((canvas.x[box] - side * 1.13) / 0.13) + np.square((canvas.y[box] - 0.2) / height)
        out = 1 - np.sqrt(far)
        mask = ramp(out, max(0.1, 4 * canvas.px))
        canvas.paint(tinted(canvas.body.skin, 0.95, 0.78, 0.74), mask, box)
        canvas.relight(0.4 + 0.5 * light[box] * (1 - 0.7 * bell((out - 0.45) / 0.25)), mask, box)


@lru_cache(maxsize=1024)
def marks(person: int) -> tuple[np.ndarray, np.ndarray]:
    """What time leaves on a person's skin: spots (10, 5) as x, y, radius, depth and first year, and how much
    deeper or shallower than others' each fold is, left and right (2, 20).
    """
    rng = np.random.default_rng([person, 11])
    spots = rng.uniform((-0.95, -0.7, 0.025, 0.25, 40), (0.95, 1.15, 0.06, 0.25, 88), (10, 5))
    spots[: rng.integers(4), 2:] = (0.02, 0.6, 2)  # moles come early and stay
    spots[:, 3] *= np.hypot(spots[:, 0] / 1.05, spots[:, 1] / 1.5) < 0.95
    return spots, rng.normal(1, 0.25, (2, 20)).clip(0.5, 1.5)


def paint_spots(canvas: Canvas) -> None:
    """Moles and the spots that come with age, each growing from its year on."""
    spots = marks(canvas.factors.person)[0]
    grown = np.clip((canvas.factors.age - spots[:, 4]) / 16, 0, 1) * spots[:, 3]
    tone = tinted(canvas.body.skin, 0.40, 0.28, 0.22)
    for spot in np.flatnonzero(grown > 0.02):
        x, y, radius = spots[spot, :3].tolist()
        soft = max(radius, 0.8 * canvas.px)
        box = canvas.box(x - 2.2 * soft, y - 2.2 * soft, x + 2.2 * soft, y + 2.2 * soft)
        far = np.square(canvas.x[box] - x) + 1.3 * np.square(canvas.y[box] - y)
        canvas.paint(tone, float(grown[spot]) * (radius / soft) ** 2 * np.exp(far * (-1 / soft**2)), box)


def furrows(body: Anatomy) -> list[tuple[Arc, float, float, bool]]:
    """Every fold a face can have: its arc, depth, width, and whether it has a twin on the other side."""
    age, grown = body.ageing, body.grown
    smile, frown, sneer = body.moves["smile"], body.moves["frown"], body.moves["sneer"]
    grin = smile * grown
    raised = max(body.moves["brow_inner"], body.moves["brow_outer"], 0) * 4 * grown
    wing, base, my, corner = body.nose_width, body.nose_base, body.mouth.y, body.mouth.width

    def late(onset: float, strength: float) -> float:
        return 0.8 * strength * max(0.0, age - onset) / (1 - onset)

    crow = 0.5 + body.eyes.width
    cheek = 0.03 * grown + late(0.05, 0.50) + 0.42 * smile + 0.3 * sneer
    dimple = late(0.45, 0.5) + 0.18 * grin
    jowl = 0.55 * max(0.0, body.sagging - 0.1)
    return [
        (Arc((-0.52, -0.50), (0.52, -0.50), -0.05), late(0.15, 0.50) + 0.25 * raised, 0.030, False),
        (Arc((-0.60, -0.64), (0.60, -0.64), -0.06), late(0.10, 0.55) + 0.25 * raised, 0.030, False),
        (Arc((-0.52, -0.79), (0.50, -0.78), -0.06), late(0.25, 0.50) + 0.15 * raised, 0.030, False),
        (Arc((0.085, -0.32), (0.075, -0.10), 0.01), late(0.15, 0.38) + 0.40 * frown, 0.026, True),
        (Arc((crow + 0.05, -0.03), (crow + 0.25, -0.11), -0.015), late(0.1, 0.42) + 0.20 * grin, 0.022, True),
        (Arc((crow + 0.06, 0.03), (crow + 0.27, 0.03), 0.01), late(0.1, 0.45) + 0.24 * grin, 0.022, True),
        (Arc((crow + 0.04, 0.08), (crow + 0.23, 0.16), 0.02), late(0.15, 0.42) + 0.20 * grin, 0.022, True),
        (Arc((0.30, 0.13), (0.68, 0.12), 0.065), 0.10 + late(0.1, 0.34) + 0.12 * smile, 0.028, True),
        (Arc((0.27, 0.20), (0.66, 0.23), 0.10), late(0.2, 0.46), 0.034, True),
        (Arc((wing + 0.04, base - 0.10), (corner + 0.12, my - 0.01), -0.05), cheek, 0.036, True),
        (Arc((corner + 0.05, my + 0.07), (corner + 0.04, my + 0.32), -0.03), jowl, 0.034, True),
        (Arc((corner + 0.22, my - 0.12), (corner + 0.20, my + 0.24), -0.05), dimple, 0.028, True),
        (Arc((0.72, 0.40), (0.62, 0.72), -0.05), late(0.5, 0.42), 0.028, True),
        (Arc((-0.13, -0.01), (0.13, -0.01), 0.02), late(0.4, 0.2) + 0.16 * sneer, 0.034, False),
    ]  # fmt: skip


def paint_folds(canvas: Canvas) -> None:
    """Folds of age and expression: a dark line with a lit lip beside it, each person's a little different."""
    own = marks(canvas.factors.person)[1].tolist()
    for number, (arc, depth, width, twin) in enumerate(furrows(canvas.body)):
        if depth < 0.02:
            continue
        (ax, ay), (bx, by) = arc.start, arc.end
        soft = max(width * (1 + 0.3 * canvas.body.ageing), 0.7 * canvas.px)
        wide = soft * 2.2 + abs(arc.bend)
        right = max(ax, bx) + wide
        box = canvas.box(-right if twin else min(ax, bx) - wide, min(ay, by) - wide, right, max(ay, by) + wide)
        u, far = canvas.along(arc, box, twin)
        far *= 1 / soft
        line = bell(far) * ramp(1 - np.abs(u), 0.45)
        left, right = (-min(depth * share[number], 0.6) * width / soft for share in own)
        line *= np.where(canvas.x[box] < 0, np.float32(left), np.float32(right)) * (1 - 0.45 * far)
        line += 1
        canvas.light[box] *= line
