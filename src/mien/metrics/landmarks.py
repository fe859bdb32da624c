"""How far predicted landmarks are from the true ones."""

from __future__ import annotations

import numpy as np


def eye_centre_distance(points: np.ndarray) -> np.ndarray:
    """Distance of the two eye centres (means of 36-41 and 42-47) of iBUG's points (N, 68, 2), (N,) in their unit."""
    points = np.asarray(points, dtype=np.float64)
    return np.linalg.norm(points[:, 42:48].mean(axis=1) - points[:, 36:42].mean(axis=1), axis=1)


def outer_eye_distance(points: np.ndarray) -> np.ndarray:
    """Distance of the outer eye corners (36 and 45) of iBUG's points (N, 68, 2), (N,) in their unit.

    The normalisation of the 300-W challenge (Sagonas et al., 2013); about 1.4 times that of the eye centres.
    """
    points = np.asarray(points, dtype=np.float64)
    return np.linalg.norm(points[:, 45] - points[:, 36], axis=1)


def normalised_errors(predicted: np.ndarray, true: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Mean distance of 68 points (N, 68, 2) from the true ones as a share of `scale` (N,); (N,) float64.

    NaN where a true point is unknown or the scale is 0.
    """
    distance = np.linalg.norm(np.asarray(predicted, dtype=np.float64) - true, axis=2).mean(axis=1)
    return np.where(scale > 0, distance / np.where(scale > 0, scale, 1.0), np.nan)
