"""How evenly pictures change along a way through the code: between two faces, and with age."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mien.evaluation.latents.codes import BATCH, Coded
from mien.metrics.ageing import slope, spearman
from mien.metrics.bootstrap import Bootstrap
from mien.metrics.weighted import mean, ratio
from mien.models.beta_vae import BetaVae
from mien.models.estimator import Estimator

#: Pairs of faces and faces that are looked at, at most.
PAIRS, FACES = 256, 32
#: A short step on the way between two codes; of the path lengths the outermost shares are left out (Karras et al.).
STEP, TRIMMED = 1e-2, 0.01
#: The ages of the path, two years apart.
AGES = tuple(float(age) for age in range(5, 86, 2))
Distance = Callable[[Tensor, Tensor], Tensor]


def pixel_distance(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared difference of each pair of pictures (B, 3, H, W) in [0, 1], (B,)."""
    return (a - b).square().mean(dim=(1, 2, 3))


@torch.inference_mode()
def judge_smoothness(
    vae: BetaVae,
    faces: Coded,
    boot: Bootstrap,
    perceptual: nn.Module | None = None,
    judge: Estimator | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> dict[str, Any]:
    """Path length between faces, and how evenly the face changes in two-year steps from 5 to 85.

    - `path_length`: d(x(t), x(t + 0.01)) / 0.01^2 at a random place between the codes of two faces (Karras et al.,
      2019), in squared distances; the outermost 1 % at each end are left out.
    - `largest_step`: the largest two-year step over the mean one, 1 for a face that changes evenly.
    - `rising`: Spearman's correlation of age with the distance from the youngest picture; `judged`: with the judged
      age, and `judged_slope` judged years a year.

    `perceptual` maps two batches of pictures to squared distances (B,), else pixels are compared; its name is told.
    """
    distance: Distance = pixel_distance if perceptual is None else perceptual
    name = "mean squared difference of pixels" if perceptual is None else f"perceptual, {perceptual.name}"
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {"distance": name}
    first = rng.permutation(len(faces))[:PAIRS]
    lengths = _path_lengths(vae, faces, first, distance, rng, device)
    low, high = np.quantile(lengths, [TRIMMED, 1 - TRIMMED])
    kept = (lengths >= low) & (lengths <= high)
    result |= boot.estimates({"path_length": partial(mean, lengths[kept])}, first[kept])
    rows = np.sort(rng.permutation(len(faces))[:FACES])
    steps, away, told = _age_path(vae, faces, rows, distance, judge, device)
    values = {
        "largest_step": np.nan_to_num(ratio(steps.max(axis=1), steps.mean(axis=1)), nan=1.0),
        "rising": spearman(away, np.array(AGES)),
    }
    if told is not None:
        values |= {"judged": spearman(told, np.array(AGES)), "judged_slope": slope(told, np.array(AGES))}
    result |= boot.estimates({key: partial(mean, value) for key, value in values.items()}, rows)
    return result


def _path_lengths(
    vae: BetaVae,
    faces: Coded,
    first: np.ndarray,
    distance: Distance,
    rng: np.random.Generator,
    device: str | torch.device,
) -> np.ndarray:
    second, places = np.roll(first, 1), rng.random(len(first)).astype(np.float32) * (1 - STEP)
    parts = []
    for chosen in np.array_split(np.arange(len(first)), max(1, -(-len(first) // BATCH))):
        a, b = (torch.from_numpy(faces.codes[rows[chosen]]).to(device) for rows in (first, second))
        told, t = faces.told(first[chosen], device), torch.from_numpy(places[chosen]).to(device)[:, None]
        here, there = (vae.decode(torch.lerp(a, b, at), told) for at in (t, t + STEP))
        parts.append((distance(here, there) / STEP**2).float().cpu().numpy())
    return np.concatenate(parts)


def _age_path(
    vae: BetaVae,
    faces: Coded,
    rows: np.ndarray,
    distance: Distance,
    judge: Estimator | None,
    device: str | torch.device,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Distances of neighbours (n, A - 1) and from the youngest (n, A), roots of squared ones; judged ages (n, A)."""
    ages = torch.tensor([AGES], device=device)
    steps, away, told = [], [], []
    for row in rows:
        one = np.array([row])
        made = vae.render(faces.images(one, device), ages, None, faces.told(one, device))[0]
        steps.append(distance(made[1:], made[:-1]).sqrt().float().cpu().numpy())
        away.append(distance(made, made[:1].expand_as(made)).sqrt().float().cpu().numpy())
        if judge is not None:
            told.append(judge.predict((made * 255).round().to(torch.uint8))["age"])
    return np.stack(steps), np.stack(away), np.stack(told) if told else None
