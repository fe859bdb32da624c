"""The picture being painted: what place of the face a pixel shows, how paint and light are laid on it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from mien.data.align import crop_matrix
from mien.data.drawing.anatomy import Anatomy, Arc
from mien.data.drawing.factors import Factors
from mien.faces import Crop

Box = tuple[slice, slice]
EVERYWHERE: Box = (slice(None), slice(None))
#: Pose, relief and light are smooth: they are worked out at every second pixel, but at this many at least.
NODES = 57
#: What turns with the head: width, height and depth of the nose; how the face falls away across and down.
NOSE, HEAD = (0.31, 0.33, 0.34), (0.42, 0.08)


def ramp(value: np.ndarray, width: float) -> np.ndarray:
    """0 to 1, smoothly, as `value` goes from -width to +width."""
    t = value * (0.5 / width)
    t += 0.5
    np.maximum(t, 0, out=t)
    np.minimum(t, 1, out=t)
    return t * t * (3 - 2 * t)


def bell(value: np.ndarray) -> np.ndarray:
    """exp(-value²)."""
    return np.exp(-(value * value))


@lru_cache(maxsize=16)
def stretch(size: int, nodes: int) -> np.ndarray:
    """Matrix (size, nodes): values at `nodes` even places of [0, 1] to `size` pixels' centres, linearly."""
    place = (np.arange(size) + 0.5) / size * (nodes - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(nodes)[None])).astype(np.float32)


#: Noise on the face repeats after this length.
PERIOD = 4.0


@lru_cache(maxsize=16)
def grain(cells: int) -> np.ndarray:
    """Smooth noise for the face's surface: a tile (cells, cells) of PERIOD x PERIOD, without a seam.

    More cells show the same noise more finely. Its standard deviation is about 1.
    """
    spectrum = np.fft.fftshift(np.fft.fft2(np.random.default_rng(1).standard_normal((128, 128))))
    frequency = np.hypot(*np.meshgrid(np.arange(-64, 64), np.arange(-64, 64)))
    spectrum *= np.exp(-((frequency / 30) ** 2) - (2 * frequency / cells) ** 2) * (frequency > 3)
    canvas = np.zeros((cells, cells), dtype=complex)
    part = min(64, cells // 2)
    canvas[cells // 2 - part : cells // 2 + part, cells // 2 - part : cells // 2 + part] = spectrum[
        64 - part : 64 + part, 64 - part : 64 + part
    ]
    tile = np.fft.ifft2(np.fft.ifftshift(canvas)).real * (cells / 128) ** 2
    return np.ascontiguousarray(tile * 3.8, dtype=np.float32)


@lru_cache(maxsize=1)
def curving(points: int) -> np.ndarray:
    """Matrix (12 * points, points): a closed Catmull-Rom curve, which meets each of the points."""
    t = np.linspace(0, 1, 12, endpoint=False)
    weights = 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])
    matrix = np.zeros((points, 12, points))
    for point in range(points):
        for k in range(4):
            matrix[point, :, (point + k - 1) % points] = weights[k]
    return matrix.reshape(12 * points, points)


@lru_cache(maxsize=64)
def strands(unit: int) -> np.ndarray:
    """Noise (1024,) across hair, 200 places to a length, as far as `unit` pixels to a length show it."""
    noise = np.fft.rfft(np.random.default_rng(2).standard_normal(1024))
    frequency = np.arange(513)
    spectrum = noise * np.exp(-((frequency / (2.5 * unit)) ** 2)) / (1 + frequency / 40) * (frequency > 8)
    return (np.fft.irfft(spectrum) * 5.5).clip(-2.5, 2.5).astype(np.float32)


class Canvas:
    """The picture and, for each of its pixels, the place (`x`, `y`) on the face that it shows.

    `image` is the linear colour (3, size, size) and `light` (size, size) what falls on it. `inside` is the
    distance to the outline of the head, positive within; `radius` that of the outline from the head's middle
    in the pixel's direction. `nodes` holds `x` and `y` on a coarser grid for what is smooth, which `finely`
    brings to the pixels. `unit` is the number of pixels to a length (the distance between the eyes), `px` a
    pixel in lengths.
    """

    def __init__(self, factors: Factors, body: Anatomy, size: int, margin: float = 0.0) -> None:
        self.factors, self.body, self.size = factors, body, size
        yaw, pitch, roll = (math.radians(angle) for angle in (factors.yaw, factors.pitch, factors.roll))
        self.turn = (math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch))
        landmarks = body.landmarks()
        upright = crop_matrix(self._posed(landmarks), Crop("chip", margin, size))
        c, s = math.cos(roll), math.sin(roll)
        spin = np.array([[c, -s], [s, c]])
        middle = (size - 1) / 2
        #: From posed lengths to pixels, counted from the first one's centre.
        self.matrix = np.column_stack([spin @ upright[:, :2], spin @ (upright[:, 2] - middle) + middle])
        self.landmarks = self.place(landmarks)
        self.unit = math.sqrt(abs(np.linalg.det(self.matrix[:, :2])))
        self.px = 1 / self.unit
        self.rows = stretch(size, max(NODES, size // 2 + 1))
        self.nodes = self._places()
        self.x, self.y, self.inside, self.radius = self.finely(np.stack([*self.nodes, *self._outlined()]))
        self.image = np.empty((3, size, size), dtype=np.float32)
        self.light = np.ones((size, size), dtype=np.float32)
        self._strands = strands(max(16, round(self.unit / 16) * 16))
        self._grain = grain(1 << max(5, math.ceil(math.log2(PERIOD * self.unit))))

    def _depth(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far the face stands out to the viewer, and how that changes along x."""
        nose = np.exp(-((x / NOSE[0]) ** 2) - ((y - self.body.nose_base + 0.13) / NOSE[1]) ** 2)
        nose *= NOSE[2] * self.body.nose_height
        near = np.minimum(np.maximum(x, -1.2), 1.2)
        depth = nose - HEAD[0] * near * near - HEAD[1] * np.minimum((y - 0.4) ** 2, 2)
        return depth, (-2 / NOSE[0] ** 2) * x * nose - 2 * HEAD[0] * near

    def _posed(self, points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0], points[:, 1]
        cy, sy, cp, sp = self.turn
        depth, _ = self._depth(x, y)
        return np.stack([x * cy + depth * sy, y * cp + depth * sp], axis=1)

    def place(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) that show places (N, 2) of the face."""
        return self._posed(points) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of `place` at the nodes, by Newton's steps across and fixed points down; float32."""
        line = np.linspace(-0.5, self.size - 0.5, self.rows.shape[1])
        cy, sy, cp, sp = self.turn
        back = np.linalg.inv(self.matrix[:, :2])
        across, down = line[None] - self.matrix[0, 2], line[:, None] - self.matrix[1, 2]
        u = (back[0, 0] * across + back[0, 1] * down).astype(np.float32)
        v = (back[1, 0] * across + back[1, 1] * down).astype(np.float32)
        x, y = u / cy, v / cp
        if sy or sp:
            for _ in range(5):
                depth, slope = self._depth(x, y)
                # A slope too steep to be seen would send the step astray.
                x -= (x * cy + depth * sy - u) / np.maximum(cy + slope * sy, 0.5)
                y = (v - depth * sp) / cp
        return x, y

    def finely(self, field: np.ndarray) -> np.ndarray:
        """A field (..., nodes, nodes) at every pixel (..., size, size)."""
        return self.rows @ field @ self.rows.T

    def _outlined(self) -> tuple[np.ndarray, np.ndarray]:
        """`inside` and `radius` at the nodes."""
        middle = 0.1
        curve = curving(len(self.body.outline)) @ (self.body.outline - (0.0, middle))
        turn = quarters(curve[:, 0], curve[:, 1])
        table = np.interp(np.arange(1024) / 256, turn, np.hypot(curve[:, 0], curve[:, 1]), period=4)
        x, down = self.nodes[0], self.nodes[1] - middle
        radius = np.take(table.astype(np.float32), (quarters(x, down) * 256).astype(np.int32) & 1023)
        return radius - np.sqrt(x * x + down * down), radius

    def box(self, left: float, top: float, right: float, bottom: float) -> Box:
        """The pixels that show a rectangle of the face (corners and middle decide)."""
        cy, sy, cp, sp = self.turn
        (a, b, e), (c, d, f) = self.matrix.tolist()
        across, down = [], []
        for x, y in (
            (left, top),
            (right, top),
            (left, bottom),
            (right, bottom),
            ((left + right) / 2, (top + bottom) / 2),
        ):
            depth = -HEAD[0] * min(x * x, 1.44) - HEAD[1] * min((y - 0.4) ** 2, 2)
            if abs(x) < 0.8:
                far = (y - self.body.nose_base + 0.13) / NOSE[1]
                depth += NOSE[2] * self.body.nose_height * math.exp(-((x / NOSE[0]) ** 2) - far * far)
            u, v = x * cy + depth * sy, y * cp + depth * sp
            across.append(a * u + b * v + e)
            down.append(c * u + d * v + f)
        size = self.size
        rows = slice(min(max(int(min(down)) - 1, 0), size), min(max(int(max(down)) + 2, 0), size))
        return rows, slice(min(max(int(min(across)) - 1, 0), size), min(max(int(max(across)) + 2, 0), size))

    def along(self, arc: Arc, box: Box, twin: bool) -> tuple[np.ndarray, np.ndarray]:
        """For each pixel of the box its place u along the arc (-1 to 1 on it) and its distance to the side.

        With `twin` the arc on the right has its mirror image on the left.
        """
        mx, my, half, tx, ty = arc.frame()
        x, y = (np.abs(self.x[box]) if twin else self.x[box]) - mx, self.y[box] - my
        u = x * (tx / half) + y * (ty / half)
        return u, y * tx - x * ty - arc.bend * (1 - u * u)

    def strand(self, across: np.ndarray) -> np.ndarray:
        """Noise of hair (h, w) where `across` is the place across the strands, in lengths."""
        return np.take(self._strands, (across * 200).astype(np.int32) & 1023)

    def surface(self) -> np.ndarray:
        """Noise of the surface (size, size), fixed to the face."""
        cells = len(self._grain)
        scale = cells / PERIOD
        index = ((self.y * scale).astype(np.int32) & (cells - 1)) * cells + (
            (self.x * scale).astype(np.int32) & (cells - 1)
        )
        return np.take(self._grain, index)

    def paint(self, colour: np.ndarray, mask: np.ndarray, box: Box = EVERYWHERE) -> None:
        """Lay a colour (3,) or (3, h, w) over the pixels of the box, `mask` (h, w) being its share."""
        for channel in range(3):
            part = self.image[channel][box]
            part += mask * (colour[channel] - part)

    def relight(self, light: np.ndarray | float, mask: np.ndarray, box: Box = EVERYWHERE) -> None:
        """Let `light` fall on the pixels of the box as far as `mask` covers them."""
        part = self.light[box]
        part += mask * (light - part)

    def developed(self) -> np.ndarray:
        """The finished picture, (3, size, size) uint8."""
        warm = self.factors.warmth
        out = self.image
        for channel, tint in enumerate((1 + 0.10 * warm, 1.0, 1 - 0.16 * warm)):
            out[channel] *= self.light * tint
        np.maximum(out, 0, out=out)
        np.sqrt(out, out=out)
        np.minimum(out, 1, out=out)
        out *= 255
        out += 0.5
        return out.astype(np.uint8)


def quarters(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A stand-in for the angle of (x, y) that needs no arctangent: 0 to 4 once around."""
    slope = x / (np.abs(x) + np.abs(y) + 1e-6)
    return np.where(y > 0, 1 + slope, 3 - slope)
