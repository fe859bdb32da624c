"""Where a face sits in its crop: templates, similarity alignment, cutting, and what to do when crops differ.

Points are (x, y) in pixels, (0, 0) being the centre of the upper left pixel; boxes are edges, 0 to W and 0 to
H. The five points stand in YuNet's order: the subject's right eye (left in the picture), left eye, tip of the
nose, right and left corner of the mouth. The 68 points stand in iBUG's order.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from mien.errors import MienError, PictureError, unknown
from mien.faces import Crop

#: Five points in units of the crop's side, by template. "chip" is UTKFace's crop (dlib's face chip, padding
#: 0.2): the median over 1,163 frontal chips of 1,500, found by YuNet, made symmetric; single faces scatter by
#: 0.015 to 0.03. FairFace (dlib's padding 0.25) shows 6 % more around the face, which moves no point by more
#: than 0.022 of the side: less than faces differ among themselves, so it counts as "chip" too.
TEMPLATES: dict[str, np.ndarray] = {
    "chip": np.array([[0.3024, 0.2946], [0.6976, 0.2946], [0.5, 0.5164], [0.3252, 0.6789], [0.6748, 0.6789]]),
}
CHIP = Crop("chip")
#: The part of a data set's own crop that shows about what "chip" does, for faces without points: left, top and side
#: in units of its side. Both sets are cut with more forehead than UTKFace. Medians of five points in the window,
#: less those of "chip": FER2013 (758 frontal faces of 1,000, points by YuNet) eyes -0.006 and +0.022 across, 0.00
#: down, nose 0.00 down, mouth +0.03 down; AffectNet (its own points, 3,199 faces) eyes -0.012 and +0.016 across,
#: 0.00 down, nose -0.01 down, mouth +0.035 down. Single faces scatter by 0.06 in FER2013, 0.04 in AffectNet and
#: 0.02 in UTKFace. A larger window would fit the mouth better and show what is beyond the picture's lower edge. Of
#: 48 px it is 42 whole ones: nothing is resampled.
WINDOWS: dict[str, tuple[float, float, float]] = dict.fromkeys(("affectnet", "fer2013"), (1 / 16, 1 / 8, 7 / 8))


def similarity(points: np.ndarray, template: np.ndarray) -> np.ndarray:
    """The (2, 3) matrix of scale, rotation and shift that takes `points` (N, 2) nearest to `template` (N, 2).

    Least squares without reflection: Umeyama, "Least-squares estimation of transformation parameters between
    two point patterns", PAMI 1991, equations 38-42.

    Raises:
        PictureError: fewer than two different points, or one that is not finite.
    """
    source, target = np.asarray(points, dtype=np.float64), np.asarray(template, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise MienError(f"points of shape {source.shape} cannot be laid on a template of shape {target.shape}")
    if not np.isfinite(source).all() or np.ptp(source, axis=0).max(initial=0.0) < 1e-6:
        raise PictureError("the points of a face are all one, or not finite: nothing to align by")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_centred, target_centred = source - source_mean, target - target_mean
    left, singular, right = np.linalg.svd(target_centred.T @ source_centred)
    sign = np.array([1.0, np.sign(np.linalg.det(left @ right))])  # -1 forbids a mirrored face
    rotation = (left * sign) @ right
    scale = (singular * sign).sum() / np.square(source_centred).sum()
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def move_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`points` (..., 2) moved by `matrix` (2, 3); float64."""
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def five_points(points: np.ndarray) -> np.ndarray:
    """The five points (5, 2) of iBUG's 68 (68, 2): eye centres, tip of the nose, corners of the mouth."""
    points = np.asarray(points, dtype=np.float64)
    return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]])


def ibug_from_fgnet(points: np.ndarray) -> np.ndarray:
    """FG-NET's 68 points (68, 2) in iBUG's order and number.

    Both have 68, but of different places: FG-NET runs 0-14 jaw, 15-20 and 21-26 brows, 27-31 and 32-36 eyes
    with pupils, 37-47 nose, 48-59 outer lips, 60-66 inner lips, 67 tip of the nose. Points it has not are
    drawn from those it has: along the jaw, the middle of a brow, the arc of a lid, the bridge of the nose.
    """
    p = np.asarray(points, dtype=np.float64)
    if p.shape != (68, 2):
        raise MienError(f"FG-NET points have shape {p.shape}, expected (68, 2)")
    jaw = _along(p[:15], 17)
    right_brow = _along(np.stack([p[21], (p[22] + p[26]) / 2, (p[23] + p[25]) / 2, p[24]]), 5)
    left_brow = _along(np.stack([p[18], (p[17] + p[19]) / 2, (p[16] + p[20]) / 2, p[15]]), 5)
    bridge = _along(np.stack([(p[37] + p[45]) / 2, p[67]]), 4)
    nostrils = np.stack([p[40], p[46], p[41], p[47], p[42]])
    right_eye = _eye(p[27], p[28], p[29], p[30])
    left_eye = _eye(p[34], p[33], p[32], p[35])
    inner_lips = np.stack([p[48] * 0.8 + p[65] * 0.2, p[65], p[64], p[63], p[54] * 0.8 + p[63] * 0.2, *p[62:59:-1]])
    return np.concatenate([jaw, right_brow, left_brow, bridge, nostrils, right_eye, left_eye, p[48:60], inner_lips])


def _along(line: np.ndarray, count: int) -> np.ndarray:
    """`count` points at equal steps along a broken line (N, 2)."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    steps = np.linspace(0.0, length[-1], count)
    return np.column_stack([np.interp(steps, length, line[:, axis]) for axis in range(2)])


def _eye(first: np.ndarray, top: np.ndarray, second: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Six points around an eye from its corners and the middles of its lids, taking a lid for a parabola."""

    def lid(share: float, middle: np.ndarray) -> np.ndarray:
        return first + share * (second - first) + 4 * share * (1 - share) * (middle - (first + second) / 2)

    return np.stack([first, lid(1 / 3, top), lid(2 / 3, top), second, lid(2 / 3, bottom), lid(1 / 3, bottom)])


def crop_matrix(where: np.ndarray, crop: Crop) -> np.ndarray:
    """The (2, 3) matrix from a picture's pixels to those of the crop.

    `where` is five points (5, 2), iBUG's 68 points (68, 2), or a box (4,): left, top, right, bottom. A box is
    cut as a square about its centre with its longer side, upright: nothing aligns it.
    """
    where = np.asarray(where, dtype=np.float64)
    if crop.size < 1:
        raise MienError(f"a crop of size {crop.size} cannot be cut; give the side in pixels")
    share = crop.size / (1 + 2 * crop.margin)  # the part of the side that the template fills
    if where.shape == (4,):
        side = max(where[2] - where[0], where[3] - where[1])
        if not np.isfinite(where).all() or side <= 0:
            raise MienError(f"box {where.tolist()} is empty; expected left, top, right, bottom in pixels")
        scale = share / side
        centre = (where[:2] + where[2:] - 1) / 2
        return np.column_stack([np.eye(2) * scale, (crop.size - 1) / 2 - scale * centre])
    if where.shape == (68, 2):
        where = five_points(where)
    if where.shape != (5, 2):
        raise MienError(f"a face is cut by 5 or 68 points or a box of 4 numbers, not by shape {where.shape}")
    template = TEMPLATES.get(crop.template)
    if template is None:
        raise unknown("template", crop.template, TEMPLATES)
    return similarity(where, (template - 0.5) * share + (crop.size - 1) / 2)


def crop_face(
    image: np.ndarray, where: np.ndarray, crop: Crop, *, mirror: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Cut one face: `image` (3, H, W) uint8 to (3, S, S) uint8 with S = crop.size, and the matrix (2, 3) of
    the cut.

    `where` and the errors are those of `crop_matrix`; `move_points` takes landmarks along. Shrinking is
    antialiased. What lies outside the picture is black, as in dlib's chips, or with `mirror` the picture mirrored at
    its edge.
    """
    matrix = crop_matrix(where, crop)
    size = crop.size
    inverse = np.linalg.inv(matrix[:, :2])
    origin = 0.5 - inverse @ (matrix[:, 2] + 0.5)  # the crop's corner in the picture, both counted from edges
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]]) @ inverse.T + origin
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    # Pillow's affine transform samples and does not average: what shrinks is first resized to the crop's
    # scale.
    height, width = image.shape[1:]
    border = 4 / min(scale, 1.0)
    if mirror:
        first = np.maximum(np.ceil(border - corners.min(axis=0)), 0).astype(int)
        last = np.maximum(np.ceil(corners.max(axis=0) + border - [width, height]), 0).astype(int)
        image = np.pad(image, ((0, 0), (first[1], last[1]), (first[0], last[0])), mode="symmetric")
        origin, corners = origin + first, corners + first
        height, width = image.shape[1:]
    left, top = np.maximum(np.floor(corners.min(axis=0) - border), 0).astype(int)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0) + border), [width, height]).astype(int)
    if right - left < 1 or bottom - top < 1:
        return np.zeros((3, size, size), dtype=np.uint8), matrix
    part = Image.fromarray(np.ascontiguousarray(image[:, top:bottom, left:right].transpose(1, 2, 0)))
    shrink = np.ones(2)
    if scale < 1:
        new = np.maximum(np.round(np.array(part.size) * scale), 1).astype(int)
        shrink = new / np.array(part.size)
        part = part.resize((int(new[0]), int(new[1])), Image.Resampling.BICUBIC)
    # Pillow wants the way back: from the crop's pixels to those of `part`.
    linear = inverse * shrink[:, None]
    shift = (origin - [left, top]) * shrink
    coefficients = (*linear[0], shift[0], *linear[1], shift[1])
    face = part.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(face).transpose(2, 0, 1)), matrix


def window(template: str, width: int, height: int) -> np.ndarray | None:
    """The box (4,) of a picture in the crop `template` that shows what "chip" does; None where no such is known."""
    if template not in WINDOWS:
        return None
    left, top, side = WINDOWS[template]
    return np.array([left * width, top * height, (left + side) * width, (top + side) * height])


def seen(matrix: np.ndarray, crop: Crop, width: int, height: int, steps: int = 16) -> float:
    """The share of a crop, cut by `matrix` (2, 3) from a picture of this size, that shows the picture."""
    inverse = np.linalg.inv(matrix[:, :2])
    places = (np.arange(steps) + 0.5) / steps * crop.size - 0.5
    grid = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    there = (grid - matrix[:, 2]) @ inverse.T
    return float(((there >= -0.5) & (there <= [width - 0.5, height - 0.5])).all(axis=1).mean())


def describe(crop: Crop) -> str:
    """A crop in words: `chip with margin 0.1`."""
    return f"{crop.template} with margin {crop.margin:g}" if crop.margin else crop.template


def require_view(have: Crop, want: Crop, what: str) -> None:
    """Pass when faces cropped as `have` may stand where `want` is asked for.

    Raises:
        MienError: they may not; the message names `what`, both crops and the way to convert.
    """
    if have.same_view(want):
        return
    if have.template == want.template:
        way = "prepare them again from the original photos with this margin"
    elif have.template in ("photo", "box", *WINDOWS):
        way = "cut them with: mien prepare SOURCE PATH --align -o FACES (--landmarks where they come without points)"
    else:
        way = "prepare them again from the original photos with --align"
    raise MienError(f"{what} holds faces cropped as {describe(have)}, but {describe(want)} is wanted; {way}")
