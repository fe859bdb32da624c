"""Training the landmarker: the distance of its points from the true ones, and how well it knows that distance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mien.faces import FaceBatch
from mien.metrics.landmarks import eye_centre_distance, normalised_errors
from mien.models.checkpoint import save_landmarker
from mien.models.landmarker import Landmarker, eye_distance
from mien.objectives.base import Objective, Terms, averaged, normalising

if TYPE_CHECKING:
    from mien.data.loading import FaceLoader

#: Distances below this share of the eye distance count nearly as their square: annotators agree no better.
SOFT = 0.01
#: Faces seen from the side have no eye distance to speak of; as a share of the picture's side it counts at least this.
LEAST = 0.2
#: The widest strip that may be missing at a side of the picture, as a share of it.
STRIP = 0.2
#: A face whose points are on average farther off, in eye distances, counts as a failure.
FAILURE = 0.1


class LandmarkerObjective(Objective):
    """One player, the landmarker; faces of which a point is unknown are left out.

    `points` is the figure itself, the mean distance over the eye distance, rounded at 0. `spread` is the negative
    logarithm of the density exp(-d/b) / (2 pi b^2) of a point at distance d, whose mean distance 2b is what the network
    calls the spread; it moves no more than the last layer, so that hard points are not given up.
    """

    player = "landmarker"

    def __init__(self, landmarker: Landmarker, select: FaceLoader) -> None:
        self.landmarker = landmarker
        self.players: dict[str, nn.Module] = {self.player: landmarker}
        self.select = select
        self.chooses = ("landmarks/nme", True)

    def depths(self, player: str) -> list[list[str]]:
        names = [name for name, _ in self.landmarker.named_parameters()]
        backbone = [name for name in names if name.startswith("backbone.")]
        return [backbone, [name for name in names if name not in backbone]]

    def weights(self, player: str) -> Mapping[str, float]:
        return {"landmarks/points": 1.0, "landmarks/spread": 0.1}

    def counts(self, player: str, batch: FaceBatch) -> dict[str, int]:
        count = int(_known(batch).sum())
        return dict.fromkeys(self.weights(player), count) if count else {}

    def losses(self, player: str, batch: FaceBatch, step: int) -> Terms:
        self.landmarker.train()
        known = _known(batch)
        if not bool(known.any()) or batch.landmarks is None:
            return {}
        images = cut_frame(batch.images, self.landmarker.settings.frame)
        with normalising(len(batch)):
            points, spread = (output[known] for output in self.landmarker(images))
        true = batch.landmarks[known]
        scale = eye_distance(true).clamp_min(LEAST * images.shape[-1])[:, None]
        squared = ((points - true) / scale[..., None]).square().sum(dim=2)
        distance = (squared + SOFT**2).sqrt() - SOFT
        spread = spread / scale
        surprise = 2 * distance.detach() / spread + 2 * spread.log()
        count = known.sum()
        heavy = torch.ones_like(distance[:, 0]) if batch.weights is None else batch.weights[known]
        return {
            "landmarks/points": ((distance.mean(dim=1) * heavy).sum(), count),
            "landmarks/spread": ((surprise.mean(dim=1) * heavy).sum(), count),
        }

    def validate(self, averages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        landmarker = self.landmarker
        device = next(landmarker.parameters()).device
        errors, expected = [], []
        with averaged(landmarker, averages.get(self.player)), torch.inference_mode():
            landmarker.eval()
            for batch in self.judged_batches():
                known = _known(batch)
                if batch.landmarks is None or not bool(known.any()):
                    continue
                points, spread = landmarker(batch.images[known].to(device))
                true = batch.landmarks[known].numpy()
                scale = eye_centre_distance(true)
                errors.append(normalised_errors(points.cpu().numpy(), true, scale))
                expected.append(spread.mean(dim=1).cpu().numpy() / scale)
        error = np.concatenate(errors)
        return {
            "landmarks/nme": float(np.nanmean(error)),
            "landmarks/failures": float(np.nanmean(error > FAILURE)),
            "landmarks/expected": float(np.nanmean(np.concatenate(expected))),
        }

    def save_model(self, folder: Path, averages: Mapping[str, Mapping[str, Tensor]]) -> None:
        save_landmarker(folder, self.landmarker, averages.get(self.player))


def _known(batch: FaceBatch) -> Tensor:
    """(B,) whether all points of a face are known, and its eyes are two."""
    if batch.landmarks is None:
        return torch.zeros(len(batch), dtype=torch.bool, device=batch.images.device)
    return batch.landmarks.isfinite().all(dim=2).all(dim=1) & (eye_distance(batch.landmarks.nan_to_num()) > 0)


def cut_frame(images: Tensor, probability: float) -> Tensor:
    """Some of the pictures (B, 3, H, W) with black strips at their sides, as if a photo ended there.

    Cropped data sets end close around the face: where the black begins would tell where the face is, if it began
    nowhere else.
    """
    count, _, height, width = images.shape
    device = images.device
    cut = torch.rand(count, 4, device=device) * STRIP * (torch.rand(count, 4, device=device) < 0.5)
    cut = cut * (torch.rand(count, 1, device=device) < probability)
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    rows = (y > cut[:, :1]) & (y < 1 - cut[:, 1:2])
    columns = (x > cut[:, 2:3]) & (x < 1 - cut[:, 3:])
    return images * (rows[:, None, :, None] & columns[:, None, None, :]).to(images.dtype)
