"""Finding the 68 landmarks of a face whose place in a photo is roughly known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mien.data.align import CHIP, crop_face, crop_matrix, move_points
from mien.data.detect import Detection
from mien.faces import Crop
from mien.metrics.landmarks import eye_centre_distance
from mien.models.checkpoint import LANDMARKER, load_landmarker, shipped_models
from mien.models.estimator import digest_with
from mien.models.landmarker import Landmarker

#: Error, in eye distances, above which a fit is refused where the landmarker does not say: there a detector's box
#: places the face as well.
REFUSE = 0.2


@dataclass(frozen=True, slots=True)
class Fit:
    """68 points (68, 2) float64 in pixels of the photo, and their mean distance from the truth, as the landmarker
    expects it, in eye distances. `sure`: that is low enough to align by.
    """

    points: np.ndarray
    error: float
    sure: bool


class Locator:
    """A landmarker at work on photos: what it says of a box is looked at again, upright and centred by itself.

    Args:
        passes: how often a face is looked at. The second look sees the face as the landmarker says it lies, and
            takes away most of what the box was wrong by.
    """

    def __init__(self, landmarker: Landmarker, device: str | torch.device = "cpu", passes: int = 2) -> None:
        self.landmarker = landmarker.eval().to(device)
        self.device, self.passes = torch.device(device), passes

    def __call__(self, image: np.ndarray, where: np.ndarray) -> Fit:
        """The landmarks of the face of `image` (3, H, W) uint8 at `where`: as `align.crop_matrix` takes it.

        May be called from several threads at once.
        """
        points, error = np.asarray(where, dtype=np.float64), float("inf")
        for _ in range(self.passes):
            face, matrix = crop_face(image, points, self.landmarker.crop)
            with torch.inference_mode():
                found, spread = self.landmarker(torch.from_numpy(face)[None].to(self.device))
            cut = found.cpu().double().numpy()
            scale = float(eye_centre_distance(cut)[0])
            if not np.isfinite(cut).all() or scale < 1:  # nothing that a crop could be cut by
                return Fit(np.full((68, 2), np.nan), float("inf"), False)
            error = float(spread.mean()) / scale
            back = np.linalg.inv(matrix[:, :2])
            points = move_points(cut[0], np.column_stack([back, -back @ matrix[:, 2]]))
        limit = REFUSE if self.landmarker.refuse is None else self.landmarker.refuse
        return Fit(points, error, error <= limit)

    def detection(self, image: np.ndarray, found: Detection) -> Detection:
        """The detection with landmarks, where they can be trusted."""
        fit = self(image, found.where)
        if not fit.sure:
            return found
        return Detection(found.box, found.score, found.points, fit.points)

    def crop(self, image: np.ndarray, crop: Crop) -> np.ndarray | None:
        """The landmarks (68, 2) of the one face that `image` shows cut as `crop`, None where they cannot be trusted."""
        _, height, width = image.shape
        share = 1 / (1 + 2 * crop.margin)
        middle, half = np.array([width, height]) / 2, min(width, height) * share / 2
        fit = self(image, np.concatenate([middle - half, middle + half]))
        return fit.points if fit.sure else None

    def hash(self) -> str:
        """sha256 over the weights and what a fit depends on beside them."""
        about = f"{self.landmarker.crop} {self.landmarker.refuse} {self.passes}"
        return digest_with(self.landmarker, about + " mirrored" * self.landmarker.settings.mirror)


def build_locator(model: str | Path | None = "auto", device: str | torch.device = "cpu") -> Locator | None:
    """The locator with the landmarker `model`: a run, a checkpoint, or a shipped one by name.

    "auto" is the shipped one, or None where none is shipped; "none" is None.

    Raises:
        MienError: there is no such model, or it is no landmarker.
    """
    if model in (None, "none") or (model == "auto" and LANDMARKER not in shipped_models()):
        return None
    return Locator(load_landmarker(None if model == "auto" else model, device), device)


def mean_face(landmarker: Landmarker, where: np.ndarray) -> np.ndarray:
    """The landmarker's mean face (68, 2) laid into the box `where` (4,), in pixels of the photo: the baseline."""
    box = np.asarray(where, dtype=np.float64)
    side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * landmarker.crop.margin)
    return landmarker.shape.cpu().double().numpy() * side + (box[:2] + box[2:] - 1) / 2


def given_square(points: np.ndarray) -> np.ndarray:
    """The upright square (4,), edges in pixels, that the plain chip of a face with 68 points (68, 2) shows."""
    matrix = crop_matrix(points, Crop(CHIP.template, 0.0, 100))
    inverse = np.linalg.inv(matrix[:, :2])
    centre = inverse @ (np.array([49.5, 49.5]) - matrix[:, 2]) + 0.5
    half = 50 / float(np.sqrt(np.linalg.det(matrix[:, :2])))
    return np.concatenate([centre - half, centre + half])
