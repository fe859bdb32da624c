"""The body of a drawn face: from its factors to the shapes, landmarks and colours that are painted.

Lengths are in distances between the eyes; the origin lies midway between them, x to the right of the picture
and y down. Adult proportions follow the median of landmarked portraits; a child's shrink the jaw and the nose
and widen forehead, cheeks and eyes, as skulls grow. Every number is a smooth function of age.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mien.data.drawing.factors import Factors, traits

#: One side of the face's outline from ear to chin; the 17 landmarks of the jaw are this and its mirror image.
JAW_ADULT = [(1.10, 0.02), (1.085, 0.30), (1.045, 0.58), (0.985, 0.85), (0.88, 1.10), (0.725, 1.325),
             (0.51, 1.51), (0.275, 1.65), (0.0, 1.69)]  # fmt: skip
JAW_CHILD = [(1.13, 0.02), (1.14, 0.25), (1.13, 0.48), (1.08, 0.70), (0.97, 0.90), (0.80, 1.08), (0.56, 1.22),
             (0.29, 1.31), (0.0, 1.335)]  # fmt: skip
#: The skull from above the ear to the crown.
SKULL_ADULT = [(1.12, -0.30), (1.09, -0.65), (0.97, -1.00), (0.73, -1.30), (0.39, -1.50), (0.0, -1.57)]
SKULL_CHILD = [(1.17, -0.30), (1.18, -0.65), (1.08, -1.05), (0.82, -1.40), (0.45, -1.62), (0.0, -1.70)]

#: What each expression moves at full intensity: lengths, except `eye` and `lips` (shares of their height) and
#: `smile`, `frown`, `sneer` (strength of the folds). `corner_*` lifts a corner of the mouth, `raise` the
#: upper lip, `brow_inner` and `brow_outer` an end of the brows, which `brow_close` brings together.
MUSCLES = ("brow_inner", "brow_outer", "brow_close", "eye", "width", "corner_left", "corner_right", "gap",
           "lips", "raise", "smile", "frown", "sneer")  # fmt: skip
MOVES: dict[str, tuple[float, ...]] = {
    "Neutral": (0,) * 13,
    "Happy": (0.01, 0.01, 0, -0.24, 0.09, 0.10, 0.10, 0.11, -0.12, 0.04, 1.0, 0, 0.1),
    "Sad": (0.10, -0.05, 0.02, -0.18, -0.03, -0.085, -0.085, 0, 0.0, 0.0, 0, 0.5, 0),
    "Surprise": (0.15, 0.13, 0, 0.38, -0.07, -0.01, -0.01, 0.30, 0.0, 0.02, 0, 0, 0),
    "Fear": (0.13, 0.04, 0.03, 0.34, 0.05, -0.05, -0.05, 0.13, -0.15, 0.02, 0, 0.4, 0),
    "Disgust": (-0.05, -0.02, 0.03, -0.32, -0.01, -0.05, -0.05, 0.04, 0.0, 0.09, 0.3, 0.5, 1.0),
    "Anger": (-0.11, 0.03, 0.06, 0.05, -0.04, -0.05, -0.05, 0.0, -0.45, 0.0, 0, 1.0, 0.5),
    "Contempt": (0.0, 0.03, 0, -0.14, 0.02, -0.01, 0.11, 0, -0.15, 0.0, 0.15, 0, 0.1),
}
#: sRGB of the skin from the lightest to the darkest of each race; the ranges overlap as they do among people.
SKIN = {
    "White": ((234, 196, 175), (202, 156, 130)),
    "Asian": ((236, 202, 174), (194, 150, 118)),
    "Others": ((222, 180, 150), (158, 112, 82)),
    "Indian": ((198, 150, 116), (120, 82, 58)),
    "Black": ((150, 106, 80), (74, 50, 40)),
}


def smooth(value: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`, a smooth step between."""
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True, slots=True)
class Arc:
    """A curve from `start` to `end`, bent by `bend` (downwards where it runs to the right) at its middle.

    A place on it is u, from -1 at the start to 1 at the end.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    bend: float = 0.0

    def at(self, u: np.ndarray) -> np.ndarray:
        """Points (N, 2) at places u (N,)."""
        mx, my, half, tx, ty = self.frame()
        side = self.bend * (1 - u * u)
        return np.stack([mx + u * half * tx - side * ty, my + u * half * ty + side * tx], axis=1)

    def frame(self) -> tuple[float, float, float, float, float]:
        """Middle (x, y), half the length, and the direction (x, y)."""
        (ax, ay), (bx, by) = self.start, self.end
        half = math.hypot(bx - ax, by - ay) / 2
        return (ax + bx) / 2, (ay + by) / 2, half, (bx - ax) / 2 / half, (by - ay) / 2 / half


@dataclass(frozen=True, slots=True)
class Eyes:
    """Both eyes, mirror images around (±0.5, 0): half width, opening of the lids, lift of the outer corner.

    A place t on an eye runs from -1 at the inner corner to 1 at the outer one.
    """

    width: float
    upper: float
    lower: float
    tilt: float

    def lids(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heights of the upper and the lower lid at t."""
        line, arch = 0.012 - self.tilt * t, 1 - t * t
        return line - self.upper * arch, line + self.lower * arch


@dataclass(frozen=True, slots=True)
class Mouth:
    """Lips around (0, `y`): half width, lips' heights, lift of the corners, opening."""

    y: float
    width: float
    upper: float
    lower: float
    left: float
    right: float
    gap: float
    lift: float

    def curves(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Heights at t (-1 to 1) of the lips' edges: upper outer, upper inner, lower inner, lower outer."""
        t2 = t * t
        arch = 1 - t2
        line = self.y - np.where(t < 0, self.left, self.right) * t2
        bow = arch * (1 + 0.35 * t2) - 0.22 * np.exp(-((t / 0.13) ** 2))
        over = line - self.lift * arch
        under = line + self.gap * arch
        return over - self.upper * bow, over, under, under + self.lower * arch * (1 + 0.25 * t2)


@dataclass(frozen=True, slots=True)
class Hair:
    """Hair: all lengths as elsewhere, the rest in 0-1. `bottom` is how far down it hangs at the sides."""

    top: float
    temples: float
    bottom: float
    volume: float
    curl: float
    coil: float
    fringe: float
    parting: float
    density: float
    beard: float
    moustache: float
    stubble: float


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The shapes and colours of one face; colours are linear RGB in 0-1."""

    grown: float
    adult: float
    ageing: float
    sagging: float
    male: float
    outline: np.ndarray
    eyes: Eyes
    brow: Arc
    brow_weight: float
    mouth: Mouth
    nose_width: float
    nose_base: float
    nose_height: float
    hair: Hair
    make_up: float
    skin: np.ndarray
    hair_colour: np.ndarray
    brow_colour: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    moves: dict[str, float]

    def landmarks(self) -> np.ndarray:
        """The 68 points in iBUG's order, (68, 2) float64, in the face's own lengths."""
        fifths, thirds = np.linspace(-1, 1, 5), np.linspace(-1, 1, 4)
        mirror = np.array([-1, 1])
        brow = self.brow.at(fifths)
        bridge = np.stack([np.zeros(4), np.linspace(-0.02, self.nose_base - 0.15, 4)], axis=1)
        rim = np.stack([fifths * self.nose_width, self.nose_base + 0.035 - 0.065 * np.abs(fifths)], axis=1)
        upper, lower = self.eyes.lids(thirds)
        x = 0.5 + thirds * self.eyes.width
        eye = np.concatenate([np.stack([x, upper], axis=1), np.stack([x, lower], axis=1)[2:0:-1]])
        points = [self.outline[:17], brow[::-1] * mirror, brow, bridge, rim]
        points += [eye[[3, 2, 1, 0, 5, 4]] * mirror, eye]
        outer, inner = [-1, -0.62, -0.25, 0, 0.25, 0.62, 1], [-0.9, -0.3, 0, 0.3, 0.9]
        t = np.array(outer + inner)
        edges = np.stack([t * self.mouth.width, *self.mouth.curves(t)], axis=1)
        points += [edges[:7, [0, 1]], edges[5:0:-1, [0, 4]], edges[7:, [0, 2]], edges[10:7:-1, [0, 3]]]
        return np.concatenate(points)


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """An sRGB colour of 0-255 as the drawing's linear RGB: the square, whose root is taken at the end."""
    return (np.array([red, green, blue], dtype=np.float32) / 255) ** 2


def mix(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """`share` of `b`, the rest of `a`."""
    return a + (b - a) * np.float32(share)


def tinted(colour: np.ndarray, *shares: float) -> np.ndarray:
    """`colour` with its red, green and blue multiplied by `shares`."""
    return colour * np.array(shares, dtype=np.float32)


def anatomy(factors: Factors) -> Anatomy:
    """The shapes and colours of the face that `factors` describe."""
    trait, race = traits(factors.person), factors.race
    age, male = factors.age, float(factors.gender == "Male")
    grown = math.tanh((age + 0.3) / 11)
    child = 1 - grown
    adult = smooth(age, 11, 19)
    man, woman = male * adult, (1 - male) * adult
    ageing = max(0.0, (age - 20) / 72) ** 1.1 * (1 + 0.1 * trait["wrinkling"])
    sagging = smooth(age, 30, 98) * (1 + 0.1 * trait["sagging"])
    moves = {name: value * factors.intensity for name, value in zip(MUSCLES, MOVES[factors.expression], strict=True)}

    wide = (0.205 + 0.034 * child) * (1 + 0.06 * trait["eye_size"])
    asian = float(race == "Asian")
    opening = (1 + 0.12 * trait["eye_size"]) * (1 + moves["eye"]) * (1 - 0.20 * sagging) * (1 - 0.10 * asian)
    upper = (0.086 + 0.040 * child + 0.006 * woman) * opening
    lower = (0.048 + 0.020 * child) * (opening if moves["eye"] > 0 else 1 + 1.3 * moves["eye"])
    tilt = 0.012 + 0.011 * trait["eye_tilt"] + 0.010 * asian - 0.016 * sagging

    height = 0.25 + 0.027 * trait["brow_height"] + 0.045 * child + 0.02 * woman - 0.03 * sagging
    inner = (0.185 - moves["brow_close"], -height - moves["brow_inner"])
    outer = (0.90 - 0.05 * child, -height + 0.045 - moves["brow_outer"] + 0.05 * sagging)
    bend = -(0.10 + 0.024 * trait["brow_arch"] + 0.012 * woman + 0.25 * max(moves["brow_outer"], 0))
    thick = (0.5 + 0.5 * adult) * (1 + 0.27 * trait["brow_weight"]) * (1 + 0.35 * man) * (1 - 0.15 * woman)

    broad = {"White": 0.0, "Asian": 0.012, "Others": 0.010, "Indian": 0.010, "Black": 0.038}[race]
    nose_width = 0.205 * grown + 0.19 * child + broad + 0.02 * trait["nose_width"] + 0.012 * man
    nose_width += 0.02 * smooth(age, 45, 95) + 0.02 * moves["smile"] + 0.015 * moves["sneer"]
    bridge = {"White": 0.1, "Asian": -0.2, "Others": 0.05, "Indian": 0.05, "Black": -0.15}[race]

    full = {"White": 0.0, "Asian": 0.08, "Others": 0.1, "Indian": 0.12, "Black": 0.38}[race]
    lips = (1 - 0.45 * smooth(age, 35, 95)) * (1 + full) * (1 + moves["lips"])
    mouth_width = (0.385 * grown + 0.315 * child) * (1 + 0.075 * trait["mouth_width"] + 0.04 * man)
    mouth_y = (1.025 * grown + 0.885 * child) * (1 + 0.015 * trait["mouth_height"] + 0.02 * trait["length"])
    mouth = Mouth(
        y=mouth_y + 0.02 * sagging,
        width=mouth_width + moves["width"],
        upper=(0.078 + 0.01 * child) * (1 + 0.24 * trait["upper_lip"]) * lips * (1 - 0.1 * man),
        lower=(0.115 - 0.01 * child) * (1 + 0.2 * trait["lower_lip"]) * lips * (1 - 0.08 * man),
        left=moves["corner_left"] - 0.03 * sagging,
        right=moves["corner_right"] - 0.03 * sagging,
        gap=moves["gap"],
        lift=moves["raise"],
    )
    grey = smooth(age, 38 + 4 * trait["greying"], 74 + 6 * trait["greying"])
    skin, hair, iris = colours(factors, trait, grey)
    red = mix(skin, tinted(skin, 1.0, 0.52, 0.52), 0.85 + 0.2 * child - 0.35 * ageing)
    make_up = 0.45 * max(0.0, trait["make_up"]) * woman
    return Anatomy(
        grown=grown,
        adult=adult,
        ageing=ageing,
        sagging=sagging,
        male=male,
        outline=outline(factors, trait, grown, adult, sagging, moves),
        eyes=Eyes(wide, upper, lower, tilt),
        brow=Arc(inner, outer, bend),
        brow_weight=thick * (1 - 0.25 * smooth(age, 60, 95) * (1 - male)),
        mouth=mouth,
        nose_width=nose_width,
        nose_base=(0.68 * grown + 0.52 * child) * (1 + 0.045 * trait["nose_length"]) + 0.05 * sagging,
        nose_height=(0.25 + 0.75 * grown) * (1 + bridge + 0.15 * trait["nose_bridge"] + 0.1 * man),
        hair=hairstyle(factors, trait, grown),
        make_up=make_up,
        skin=skin,
        hair_colour=hair,
        brow_colour=mix(mix(hair, rgb(60, 44, 34), 0.35 * (1 - grey)), skin, 0.08),
        iris=iris,
        lips=mix(red, tinted(skin, 0.92, 0.26, 0.30), make_up),
        moves=moves,
    )


def outline(
    factors: Factors,
    trait: dict[str, float],
    grown: float,
    adult: float,
    sagging: float,
    moves: dict[str, float],
) -> np.ndarray:
    """The closed outline of the head (28, 2): the jaw's 17 landmarks, then over the crown and back."""
    age, man = factors.age, float(factors.gender == "Male") * adult
    weight = trait["weight"] + 0.6 * smooth(age, 20, 55) - 0.9 * smooth(age, 65, 95)
    jaw = np.array(JAW_ADULT) * grown + np.array(JAW_CHILD) * (1 - grown)
    low = np.linspace(0, 1, 9) ** 1.2
    jaw[:, 0] *= 1 + 0.035 * trait["width"] + low * (0.05 * trait["jaw"] + 0.05 * man - 0.02 * adult)
    jaw[:, 0] *= 1 + 0.035 * weight * np.sin(np.linspace(0.2, 1, 9) * 2.8)
    jaw[:, 0] += 0.06 * sagging * np.exp(-(((np.arange(9) - 5.3) / 1.3) ** 2))
    jaw[-1, 0] = 0.0
    jaw[:, 1] *= 1 + 0.04 * trait["length"] + 0.03 * man - 0.015 * adult
    jaw[:, 1] += low**3 * (0.03 * trait["chin"] * adult + 0.55 * moves["gap"] + 0.03 * moves["lips"])
    skull = np.array(SKULL_ADULT) * grown + np.array(SKULL_CHILD) * (1 - grown)
    skull *= (1 + 0.035 * trait["width"], 1 + 0.03 * trait["forehead"])
    mirror = np.array([-1, 1])
    return np.concatenate([jaw * mirror, jaw[-2::-1], skull, skull[-2::-1] * mirror])


def hairstyle(factors: Factors, trait: dict[str, float], grown: float) -> Hair:
    """How the hair lies: a child's grows in during the first years, a man's may recede and thin."""
    age, race, male = factors.age, factors.race, float(factors.gender == "Male")
    bald = male * smooth(age, 22, 75) * min(max(0.55 + 0.45 * trait["balding"], 0.0), 1.0)
    infant = 1 - smooth(age, 0, 3.5)
    curl = min(max(0.25 + 0.35 * trait["curl"] - 0.5 * (race == "Asian"), 0.0), 1.0)
    coil = float(race == "Black") * (1.0 if male else smooth(trait["curl"], -1.0, -0.6))
    wish = trait["hair_length"] + (0.7 - 0.6 * smooth(age, 45, 85) if not male else -2.6)
    length = smooth(wish, -1.2, 1.6) * smooth(age, 0.5, 9.0)
    beard = male * smooth(age, 16, 26) * min(max(0.65 * trait["beard"] - 0.25, 0.0), 1.0)
    moustache = male * smooth(age, 15, 24) * min(max(0.6 * trait["moustache"] - 0.2, 0.0), 1.0)
    thinning = 0.3 * (1 - male) * smooth(age, 50, 95)
    volume = 0.07 + 0.05 * length + 0.02 * trait["hair_volume"] + (0.10 * coil + 0.06 * curl) * (1 - male)
    fringe = max(0.0, 0.42 * (trait["fringe"] - 0.3 - 0.9 * male * smooth(age, 11, 19)))
    return Hair(
        top=-0.91 - 0.20 * (1 - grown) - 0.06 * trait["hairline"] - 0.7 * bald**1.6 - 0.25 * infant,
        temples=0.45 * bald + 0.06 * male * smooth(age, 11, 19),
        bottom=0.12 + 0.10 * male * smooth(age, 11, 19) + 2.2 * length - 0.3 * infant,
        volume=volume * (1 - 0.6 * bald) * (1 - 0.8 * infant) * (1 - 0.3 * smooth(age, 55, 95)),
        curl=curl,
        coil=coil,
        fringe=fringe * smooth(age, 1.5, 4) * (1 - bald) * (1 - coil),
        parting=trait["parting"],
        density=(1 - 0.7 * bald * smooth(age, 45, 90)) * (1 - thinning) * (1 - 0.6 * infant),
        beard=beard,
        moustache=max(beard * 0.9, moustache),
        stubble=male * smooth(age, 15, 24) * (0.20 + 0.10 * trait["beard"]),
    )  # fmt: skip


def colours(factors: Factors, trait: dict[str, float], grey: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear RGB of the skin, the hair and the iris."""
    age, race = factors.age, factors.race
    light, dark = (rgb(*tone) for tone in SKIN[race])
    skin = mix(light, dark, 0.5 + 0.24 * trait["tone"])
    skin = mix(skin, tinted(skin, 1.03, 0.9, 0.88), 0.5 * trait["ruddy"] * (0.5 if race == "Black" else 1.0))
    skin = mix(skin, skin.mean() * np.array([1.20, 0.97, 0.83], dtype=np.float32), 0.35 * smooth(age, 40, 95))
    skin = np.minimum(skin * np.float32(1 + 0.08 * (1 - smooth(age, 0, 14))), 0.93)
    black, brown, fair, red = rgb(26, 22, 21), rgb(84, 56, 38), rgb(196, 160, 108), rgb(150, 76, 40)
    if race == "White":
        shade = min(max(0.45 + 0.33 * trait["hair_shade"] + 0.3 * (1 - smooth(age, 2, 16)), 0.0), 1.0)
        hair = mix(brown, fair, 2 * shade - 1) if shade > 0.5 else mix(black, brown, 2 * shade)
        hair = mix(hair, red, smooth(trait["hair_red"], 0.9, 1.6) * 0.8)
        pale = rgb(108, 138, 160) if trait["hair_red"] < 0.4 else rgb(104, 118, 80)
        iris = mix(rgb(74, 46, 28), pale, smooth(trait["iris"], -0.4, 0.5))
    else:
        share = {"Asian": 0.12, "Black": 0.06, "Indian": 0.12, "Others": 0.45}[race]
        hair = mix(black, brown, share * (1 + 0.4 * trait["hair_shade"]))
        iris = mix(rgb(56, 34, 22), rgb(92, 62, 36), smooth(trait["iris"], -1, 2))
    dyed = float(factors.gender == "Female") * 0.75 * smooth(trait["dyed"], -0.5, 0.6) * (1 - smooth(age, 66, 88))
    return skin, mix(hair, rgb(200, 198, 196), 0.92 * grey * (1 - dyed)), iris
