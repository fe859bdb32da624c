"""Figures for groups of faces, by age, gender, race and their crossings; and the gaps between groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mien.faces import AGE_BIN_NAMES, CROSS, GENDERS, RACES, age_bin
from mien.metrics import age
from mien.metrics.bootstrap import Bootstrap, Figure, estimate, widest_difference

#: Groups with fewer faces are suppressed: their figures are mostly chance.
FEWEST = 30
#: An age bin enters the age-standardised comparison when every group compared has so many faces in it.
FEWEST_IN_BIN = 10
#: Partitions between whose groups gaps are told.
COMPARED = ("gender", "race", f"gender{CROSS}race")
#: `rows -> {name: figure}`: the figures of the faces `rows`, to be bootstrapped.
Figures = Callable[[np.ndarray], Mapping[str, Figure]]


@dataclass(frozen=True)
class Partition:
    """Which group each face is in: `codes` (N,) int64 into `names`, -1 for none."""

    codes: np.ndarray
    names: tuple[str, ...]

    def groups(self, known: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Name and rows (indices) of each group that has a face among `known` (N,) bool."""
        for code, name in enumerate(self.names):
            rows = np.flatnonzero(known & (self.codes == code))
            if len(rows):
                yield name, rows

    def cross(self, other: Partition) -> Partition:
        """The groups of both at once; a face that is in none of either is in none."""
        both = (self.codes >= 0) & (other.codes >= 0)
        codes = np.where(both, self.codes * len(other.names) + other.codes, -1)
        return Partition(codes, tuple(f"{a}{CROSS}{b}" for a in self.names for b in other.names))


def partitions(age_low: np.ndarray, age_high: np.ndarray, gender: np.ndarray, race: np.ndarray) -> dict[str, Partition]:
    """The partitions by true labels. Ages (N,) in years, NaN where missing; codes (N,), -1 where missing.

    A face whose age is an interval is in an age bin when both its ends are.
    """
    low, high = age_bin(age_low), age_bin(age_high)
    bins = Partition(np.where(low == high, low, -1), AGE_BIN_NAMES)
    genders, races = Partition(gender, GENDERS), Partition(race, RACES)
    found = {
        "age_bin": bins,
        "gender": genders,
        "race": races,
        f"gender{CROSS}race": genders.cross(races),
        f"gender{CROSS}age_bin": genders.cross(bins),
    }
    return {name: partition for name, partition in found.items() if (partition.codes >= 0).any()}


def pair_figures(
    true: np.ndarray, predicted: np.ndarray, functions: Mapping[str, Callable[..., np.ndarray]]
) -> Figures:
    """`functions` of (true, predicted, weights) as figures of any rows of these numbers, (N,) each."""

    def figures(rows: np.ndarray) -> Mapping[str, Figure]:
        t, p = true[rows], predicted[rows]
        return {name: partial(function, t, p) for name, function in functions.items()}

    return figures


def counts(found: Mapping[str, Partition]) -> dict[str, dict[str, int]]:
    """Faces in each group of each partition: `{"gender": {"Male": 6921, ...}, ...}`."""
    return {
        name: dict(
            zip(
                partition.names,
                np.bincount(partition.codes[partition.codes >= 0], minlength=len(partition.names)).tolist(),
                strict=True,
            )
        )
        for name, partition in found.items()
    }


def group_replicates(
    boot: Bootstrap, partition: Partition, figures: Figures, known: np.ndarray
) -> dict[str, tuple[int, dict[str, np.ndarray]]]:
    """For each group with a face among `known`: how many, and the replicates of each figure ({}: too few)."""
    return {
        name: (len(rows), boot.replicates(figures(rows), rows) if len(rows) >= FEWEST else {})
        for name, rows in partition.groups(known)
    }


def group_table(found: Mapping[str, tuple[int, dict[str, np.ndarray]]]) -> dict[str, dict[str, Any]]:
    """The JSON of a partition: `{"Male": {"n": 2500, "mae": Estimate}, ...}`; small groups are suppressed."""
    table: dict[str, dict[str, Any]] = {}
    for name, (n, replicates) in found.items():
        if not replicates:
            table[name] = {"n": n, "suppressed": True}
            continue
        table[name] = {"n": n}
        for figure, values in replicates.items():
            if values.ndim == 1:  # others are raw material, such as the MAE by age bin
                table[name][figure] = estimate(values, n)
    return table


def gap(replicates: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> tuple[dict[str, Any], list[str]] | None:
    """The largest difference of a figure between two groups, and the two: smaller first.

    None with fewer than two groups.

    The two are chosen on the faces they are judged on, for being apart; the interval, paired over the same resamples,
    allows for that (see `widest_difference`), and may hold 0.
    """
    names = [name for name, found in replicates.items() if np.isfinite(found[0])]
    if len(names) < 2:
        return None
    found, least, most = widest_difference(
        np.stack([replicates[name] for name in names]), np.array([sizes[name] for name in names])
    )
    return dict(found), [names[least], names[most]]


def standard_shares(true: np.ndarray, groups: Mapping[str, np.ndarray]) -> np.ndarray:
    """The age distribution (8,) to which groups are standardised: that of all faces of the groups together.

    `true` is (N,) exact ages, `groups` the rows of each group compared. Only bins that hold at least
    `FEWEST_IN_BIN` faces of every group have a share; the shares sum to 1, or to 0 when no bin is shared.
    """
    by_group = [np.bincount(age_bin(true[rows]), minlength=len(AGE_BIN_NAMES)) for rows in groups.values()]
    shared = np.min(by_group, axis=0) >= FEWEST_IN_BIN
    together = np.where(shared, np.sum(by_group, axis=0), 0).astype(np.float64)
    return together / max(together.sum(), 1.0)


def age_gaps(
    found: Mapping[str, tuple[int, dict[str, np.ndarray]]], true: np.ndarray, rows: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """The gap of MAE between the groups of one partition, raw and age-standardised, and each group's
    standardised MAE.

    Groups differ in age, and errors grow with age: the standardised gap is what is left when every group has
    the same ages (direct standardisation over the age bins that all share); its n is of the faces in these bins.
    """
    large = {name: (n, replicates) for name, (n, replicates) in found.items() if replicates}
    sizes = {name: n for name, (n, _) in large.items()}
    raw = gap({name: replicates["mae"] for name, (_, replicates) in large.items()}, sizes)
    if raw is None:
        return None, {}
    shares = standard_shares(true, {name: rows[name] for name in large})
    standardised = {name: age.standardised(replicates["mae_by_bin"], shares) for name, (_, replicates) in large.items()}
    result: dict[str, Any] = {"raw": raw[0], "between": raw[1]}
    within = {name: int((shares[age_bin(true[rows[name]])] > 0).sum()) for name in large}
    adjusted = gap(standardised, within)
    if adjusted is not None:
        result |= {"age_standardised": adjusted[0], "between_standardised": adjusted[1]}
        result["bins"] = [name for name, share in zip(AGE_BIN_NAMES, shares, strict=True) if share > 0]
    each = {name: dict(estimate(values, within[name])) for name, values in standardised.items()}
    return result, each
