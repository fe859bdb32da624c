"""What a code pays and what it gets: rate, reconstruction, and how far age is apart from the person, in one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from mien.evaluation.latents.codes import Coded, ages_said, decoded
from mien.evaluation.latents.disentanglement import age_probes, separation
from mien.metrics import image
from mien.metrics.bootstrap import Bootstrap, Estimate
from mien.metrics.weighted import mean, ratio
from mien.models.beta_vae import BetaVae


@dataclass(frozen=True)
class Point:
    """A network on the plane of rate and distortion, face by face, so that networks are compared on the same ones.

    `rate` is (N,) nats of the whole code given the age, `mse` (N,) of pictures decoded from its mean, `sampled` (N,)
    from one code drawn about it; `conditional` says whether it is seed 002's network, whose encoder is told the age.
    """

    name: str
    conditional: bool
    parameters: int
    rate: np.ndarray
    mse: np.ndarray
    sampled: np.ndarray


def place(vae: BetaVae, faces: Coded, device: str | torch.device = "cpu", seed: int = 0) -> Point:
    """Where `vae` stands, whose codes `faces` are."""
    rows, noise = np.arange(len(faces)), np.random.default_rng(seed)
    given = faces.pictures.astype(np.float32) / 255
    errors = [image.mse(given, decoded(vae, faces, rows, device, drawn)) for drawn in (None, noise)]
    parameters = sum(parameter.numel() for parameter in vae.parameters())
    return Point(vae.name, vae.settings.conditional, parameters, faces.rate, *errors)


def trade_off(
    point: Point, vae: BetaVae, faces: Coded, boot: Bootstrap, seeds: Sequence[int] = range(3)
) -> dict[str, Any]:
    """The row of one network: `rate`, `mse`, `mse_sampled`, `mig` of the age (whole code, with its null), and of z_id
    alone `probe`, the strongest probe's MAE over the constant's; `age` is the MAE of z_age. `boot` is over `faces`.

    A figure that cannot be told (few known ages, the age told to the network) is left out.

    Raises:
        MienError: scikit-learn is not installed.
    """
    values = {"rate": point.rate, "mse": point.mse, "mse_sampled": point.sampled}
    row: dict[str, Any] = {"n": len(faces), "parameters": point.parameters}
    row |= boot.estimates({name: partial(mean, one) for name, one in values.items()})
    ages, groups = faces.ages, faces.manifest.groups()
    probes = age_probes(faces.identity, ages, groups, boot)
    if not probes:
        return row
    row |= {"mig": separation(faces.codes, {"age": ages}, groups, seeds)["factors"]["age"]["mig"]}
    row |= {"probe": probes["ratio"], "strongest": probes["strongest"], "constant": probes["constant"]}
    if not vae.settings.conditional:
        errors = np.abs(ages_said(vae, faces) - ages)
        known = np.flatnonzero(~np.isnan(ages))
        row |= boot.estimates({"age": partial(mean, errors[known])}, known)
    return row


def at_equal_rate(ours: Point, others: Sequence[Point], boot: Bootstrap, sampled: bool = False) -> Estimate | None:
    """Our MSE over that of `others` at our rate, read off the straight line between the two that it lies between.

    Below 1 ours is better. None where our rate lies outside theirs: nothing is extrapolated. Paired by face; the line
    is drawn anew in every resample, rates included.
    """
    ranked = sorted(others, key=lambda other: float(other.rate.mean()))
    rates = [float(other.rate.mean()) for other in ranked]
    here = float(ours.rate.mean())
    if len(ranked) < 2 or not rates[0] <= here <= rates[-1]:
        return None
    upper = min(max(int(np.searchsorted(rates, here)), 1), len(ranked) - 1)
    below, above = ranked[upper - 1], ranked[upper]

    def error(point: Point, weights: np.ndarray) -> np.ndarray:
        return mean(point.sampled if sampled else point.mse, weights)

    def share(weights: np.ndarray) -> np.ndarray:
        low, high = mean(below.rate, weights), mean(above.rate, weights)
        way = ratio(mean(ours.rate, weights) - low, high - low)
        line = (1 - way) * error(below, weights) + way * error(above, weights)
        return ratio(error(ours, weights), line)

    return boot.estimates({"share": share})["share"]
