"""Landmarks as input: what the 68 points of a face add to the features of its picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.faces import MIRRORED

#: Where the eye centres go: one unit apart, the origin between them.
EYES = ((-0.5, 0.0), (0.5, 0.0))
#: Points are degenerate when the eyes are nearer than this share of their extent: nothing fixes scale and turn.
LEAST = 0.05
#: No normalised coordinate is larger; a face fills about ±1.5.
MOST = 4.0


def umeyama(points: Tensor, template: Tensor) -> Tensor:
    """Scale, rotation and shift that take `points` (B, N, 2) nearest to `template` (N, 2), as (B, 2, 3).

    Least squares without reflection (Umeyama, PAMI 1991, equations 38-42), the batched twin of
    `data.align.similarity`. With x + iy for a point it is an ordinary regression on one complex factor:
    a = sum(conj(s) t) / sum(|s|^2) over centred points. Points that are all one give a scale of 0.
    """
    middle, goal = points.mean(dim=1, keepdim=True), template.mean(dim=0)
    s, t = points - middle, template - goal
    power = s.square().sum(dim=(1, 2)).clamp_min(torch.finfo(points.dtype).tiny)
    real = (s * t).sum(dim=(1, 2)) / power
    turn = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(dim=1) / power
    linear = torch.stack([torch.stack([real, -turn], dim=1), torch.stack([turn, real], dim=1)], dim=1)
    shift = goal - (linear * middle).sum(dim=2)
    return torch.cat([linear, shift[:, :, None]], dim=2)


def move(points: Tensor, matrix: Tensor) -> Tensor:
    """`points` (B, N, 2) moved by `matrix` (B, 2, 3)."""
    # Not a matrix product: autocast would take pixels of up to 500 in bf16, to the nearest 2.
    return (points[:, :, None] * matrix[:, None, :, :2]).sum(dim=3) + matrix[:, None, :, 2]


def eye_centres(points: Tensor) -> Tensor:
    """The subject's right and left eye centre (..., 2, 2) of iBUG's points (..., 68, 2)."""
    return torch.stack([points[..., 36:42, :].mean(dim=-2), points[..., 42:48, :].mean(dim=-2)], dim=-2)


def normalise(points: Tensor) -> tuple[Tensor, Tensor]:
    """Points (B, 68, 2) with their eyes at `EYES`, and (B,) whether that could be done.

    Where it could not (a point is not finite, or the eyes are nearly one place) all are 0.
    """
    points = points.float()
    known = points.isfinite().all(dim=2).all(dim=1)
    points = torch.where(known[:, None, None], points, torch.zeros_like(points))
    eyes = eye_centres(points)
    extent = (points.amax(dim=1) - points.amin(dim=1)).amax(dim=1)
    known &= (eyes[:, 1] - eyes[:, 0]).norm(dim=1) > LEAST * extent
    matrix = umeyama(eyes, points.new_tensor(EYES))
    moved = move(points, matrix).clamp(-MOST, MOST)
    return torch.where(known[:, None, None], moved, torch.zeros_like(moved)), known


def mirrored(points: Tensor, width: int) -> Tensor:
    """Points (B, 68, 2) in pixels of a picture `width` wide, as they lie in its mirror image."""
    swapped = points[:, torch.as_tensor(MIRRORED, device=points.device)]
    return torch.stack([width - 1 - swapped[..., 0], swapped[..., 1]], dim=-1)


class LandmarkBranch(nn.Module):
    """Features (B, F) of pictures, plus what their landmarks say, by as much as a gate that sees both lets through.

    The network reads the normalised points and a flag that they are known. In training each face's points are
    dropped as a whole with probability `dropout`, so that one network serves faces with and without them. At
    the start it adds exactly nothing: a trained backbone is not disturbed.
    """

    def __init__(self, features: int, dropout: float = 0.3, hidden: int = 128) -> None:
        super().__init__()
        self.dropout = dropout
        self.read = nn.Sequential(
            nn.Linear(68 * 2 + 1, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.ReLU()
        )
        self.gate = nn.Linear(features + hidden, 1)
        self.add = nn.Linear(hidden, features)
        for parameter in (*self.gate.parameters(), *self.add.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Features (B, F) and points (B, 68, 2) in pixels of the pictures, NaN where unknown (None: all are)."""
        if landmarks is None:
            landmarks = torch.full((len(features), 68, 2), torch.nan, device=features.device)
        points, known = normalise(landmarks)
        if self.training and self.dropout:
            known &= torch.rand(len(known), device=known.device) >= self.dropout
            points = points * known[:, None, None]
        read = self.read(torch.cat([points.flatten(1), known[:, None].to(points.dtype)], dim=1))
        gate = torch.sigmoid(self.gate(torch.cat([features, read.to(features.dtype)], dim=1)))
        return features + gate * self.add(read)
