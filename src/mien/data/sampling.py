"""Sampling: which faces an epoch shows, in which order, where, and how much each counts in the losses."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.random import Generator, Philox
from pydantic import BaseModel, ConfigDict, Field

from mien.data.manifest import Manifest
from mien.data.transforms import face_seed
from mien.errors import MienError
from mien.faces import RACES, age_bin
from mien.tasks.imbalance import age_histogram, inverse_weights, lds_weights, weights_of

#: The row whose random numbers shuffle an epoch; no manifest is that long.
SHUFFLE = (1 << 40) - 1


class Sampling(BaseModel):
    """How an epoch draws faces, and how their losses are weighted.

    An epoch has as many faces as the manifest. `uniform` shows each once. `age` and `age_race` show faces
    of rare ages (of `AGE_BINS`), or of rare ages and races, more often and others less, `expression` those of
    rare expressions; faces without these labels stay as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["uniform", "age", "age_race", "expression"] = Field(default="uniform", description="what is balanced")
    balance: float = Field(default=1.0, ge=0, le=1, description="from 0, as found, to 1, all groups equally often")
    at_most: float = Field(default=10.0, ge=1, description="times that a face is shown in an epoch, on average")
    weights: Literal["none", "inverse", "root", "lds", "reliability"] = Field(
        default="none",
        description="losses weighted by age: 1 / count, 1 / sqrt(count), with neighbouring ages (LDS); or by what "
        "`mien relabel` takes a face's age to be worth",
    )

    def chances(self, manifest: Manifest) -> np.ndarray | None:
        """How often each face is shown in an epoch, on average: (N,) float64 with mean 1; None: each once."""
        if self.by == "uniform" or self.balance == 0:
            return None
        if self.by == "expression":
            return balanced_chances(manifest.codes("expression"), self.balance, self.at_most)
        groups = age_bin((manifest.numbers("age_low") + manifest.numbers("age_high")) / 2)
        if self.by == "age_race":
            races = manifest.codes("race")
            groups = np.where((groups < 0) | (races < 0), -1, groups * len(RACES) + races)
        return balanced_chances(groups, self.balance, self.at_most)

    def loss_weights(self, manifest: Manifest) -> np.ndarray | None:
        """What each face's losses are multiplied with: (N,) float32 with mean 1; None: all count alike."""
        if self.weights == "none":
            return None
        if self.weights == "reliability":
            return _reliabilities(manifest)
        low, high = manifest.numbers("age_low"), manifest.numbers("age_high")
        histogram = age_histogram(low, high)
        if self.weights == "lds":
            return weights_of(low, high, lds_weights(histogram))
        return weights_of(low, high, inverse_weights(histogram, square_root=self.weights == "root"))


def _reliabilities(manifest: Manifest) -> np.ndarray:
    worth = manifest.numbers("moe_weight")
    if not manifest.has("moe_weight"):
        raise MienError("sampling.weights: reliability needs a relabelled manifest; make one with `mien relabel`")
    if not np.nansum(worth) > 0:
        raise MienError(
            "sampling.weights: reliability has nothing to go by: all moe_weight are 0, for no expert tells how far "
            "off it may be, or none of these faces passed the filter"
        )
    result: np.ndarray = np.nan_to_num(worth / np.nanmean(worth), nan=1.0)  # 1: of a joined set without
    return result


def balanced_chances(groups: np.ndarray, balance: float, at_most: float) -> np.ndarray:
    """How often each face is shown, (N,) with mean 1, in proportion to 1 / (faces of its group) ** balance.

    Faces of group -1 are shown once. No face is shown more than `at_most` times; what this takes from small
    groups goes to the others.
    """
    chances = np.ones(len(groups))
    known = groups >= 0
    if not known.any():
        return chances
    sizes = np.bincount(groups[known])
    wanted = sizes[groups[known]].astype(np.float64) ** -balance
    wanted /= wanted.mean()
    while wanted.max() > at_most * (1 + 1e-9):
        full = wanted >= at_most
        wanted[full] = at_most
        wanted[~full] *= (len(wanted) - at_most * full.sum()) / wanted[~full].sum()
    chances[known] = wanted
    return chances


def order(count: int, seed: int, epoch: int, chances: np.ndarray | None = None) -> np.ndarray:
    """The rows of an epoch in their order, (count,) int64: a function of its arguments alone.

    Without `chances` a permutation. With them, systematic sampling: each row comes as often as its chance
    says, rounded down or up, so that an epoch leaves out as few faces as it can.
    """
    rng = Generator(Philox(key=face_seed(seed, epoch, SHUFFLE)))
    rows = rng.permutation(count)
    if chances is None:
        return rows
    # Faces of a group stand together: it comes as often as its faces should, to one face.
    rows = rows[np.argsort(chances[rows], kind="stable")]
    ends = np.cumsum(chances[rows])
    places = (np.arange(count) + rng.random()) * (ends[-1] / count)
    drawn = rows[np.minimum(np.searchsorted(ends, places, side="right"), count - 1)]
    return rng.permutation(drawn)


def repeats(rows: np.ndarray) -> np.ndarray:
    """How often each entry of `rows` (N,) stands before it, (N,) int64."""
    ranked = np.argsort(rows, kind="stable")
    first = np.flatnonzero(np.diff(rows[ranked], prepend=-1))
    counts = np.diff(np.append(first, len(rows)))
    result = np.empty(len(rows), dtype=np.int64)
    result[ranked] = np.arange(len(rows)) - np.repeat(first, counts)
    return result


def cut(rows: np.ndarray, batch: int, rank: int, world: int, *, even: bool) -> list[np.ndarray]:
    """This process's batches of an epoch.

    Step k of all `world` processes together shows the rows that one process with a batch of world x batch
    would show. `even` drops the rest that does not fill a step; fewer faces than one step make one step of
    all of them. Otherwise the rest is shared out, and a process may have one step less than others.
    """
    whole = world * batch
    steps = len(rows) // whole
    parts = [rows[whole * step + batch * rank :][:batch] for step in range(steps)]
    if not even or steps == 0:
        rest = np.array_split(rows[steps * whole :], world)[rank]
        parts += [rest] if len(rest) else []
    return parts
