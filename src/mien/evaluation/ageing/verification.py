"""How like two pictures of one person must be at an age gap: thresholds from real pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.evaluation.ageing.sample import middle_age
from mien.metrics.bootstrap import Bootstrap
from mien.metrics.identity import threshold_at_far, verification_rate
from mien.metrics.weighted import mean

#: Age gaps from (inclusive) and to (exclusive), in years, each with a threshold of its own.
GAPS = ((0, 5), (5, 15), (15, 25), (25, 35), (35, 45), (45, 121))
#: Pairs of different persons below which a gap takes the threshold of the next smaller one.
FEWEST = 1000
#: Faces whose pairs are looked at, at most.
FACES = 2500


@dataclass(frozen=True)
class Verification:
    """A threshold (G,) for each of `GAPS`, and how it came about, JSON-able."""

    thresholds: np.ndarray
    about: dict[str, Any]

    def same(self, cosines: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """1 where a cosine is above the threshold of its gap in years, else 0; all of one shape."""
        return (cosines > self.thresholds[gap_of(gaps)]).astype(np.float64)


def gap_of(years: np.ndarray) -> np.ndarray:
    """The number in `GAPS` of each gap, signed or not."""
    return np.searchsorted([low for low, _ in GAPS[1:]], np.abs(years), side="right")


def pairs_of(manifest: Manifest) -> Manifest:
    """The faces of a manifest of which person and age are known, at most `FACES`, whole persons.

    Raises:
        MienError: nobody is shown twice, or nobody else is there.
    """
    persons = manifest.strings("person").astype(str)
    known = manifest.where(~np.isnan(middle_age(manifest)) & (persons != "None"))
    names, members, counts = np.unique(known.strings("person").astype(str), return_inverse=True, return_counts=True)
    if not (counts > 1).any():
        raise MienError(
            f"{manifest.path or 'the manifest'} shows nobody twice: no pair of one person to fit a threshold on; "
            "name a manifest with persons, such as FG-NET's, with --pairs"
        )
    if len(names) < 2:
        raise MienError(
            f"{manifest.path or 'the manifest'} names only {names[0]}: thresholds need pairs of different persons too; "
            "name a manifest with more persons, such as FG-NET's, with --pairs"
        )
    order = np.random.default_rng(0).permutation(len(names))
    # Somebody who is shown twice, and somebody else, are there however many faces the two have.
    twice = order[counts[order] > 1][0]
    order = np.concatenate([[twice], order[order != twice]])
    drawn = order[np.cumsum(counts[order]) <= max(FACES, int(counts[order][:2].sum()))]
    return known.where(np.isin(members, drawn))


def fit_thresholds(
    embeddings: np.ndarray, manifest: Manifest, far: float = 1e-3, resamples: int = 1000
) -> Verification:
    """For each gap the cosine that at most a share `far` of pairs of different persons exceeds.

    `embeddings` (N, E) belong to the rows of `manifest`. Beside each threshold stands what real pairs of one person at
    that gap show: mean cosine and share above, with intervals over persons.
    """
    ages, persons = middle_age(manifest), np.unique(manifest.strings("person").astype(str), return_inverse=True)[1]
    first, second = np.triu_indices(len(ages), 1)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[first, second]
    gaps, same = gap_of(ages[first] - ages[second]), persons[first] == persons[second]
    thresholds, about = np.full(len(GAPS), np.nan), []
    last = float("nan")
    for place, (low, high) in enumerate(GAPS):
        others = cosines[(gaps == place) & ~same]
        borrowed = len(others) < FEWEST
        if not borrowed or np.isnan(last):
            # The first gap has no smaller one: strangers at any gap are more than too few.
            last = threshold_at_far(cosines[~same] if borrowed else others, far)
        thresholds[place] = last
        own = np.flatnonzero((gaps == place) & same)
        entry: dict[str, Any] = {
            "gap": [low, high],
            "threshold": last,
            "borrowed": borrowed,
            "different": len(others),
            "same": len(own),
            "persons": len(np.unique(persons[first[own]])),
        }
        if len(own):
            passed = (cosines[own] > last).astype(float)
            figures = {"cosine": partial(mean, cosines[own]), "passed": partial(mean, passed)}
            entry |= Bootstrap(persons[first[own]], resamples).estimates(figures)
        entry["false_accepts"] = verification_rate(others, last) if len(others) else None
        about.append(entry)
    return Verification(
        thresholds,
        {"far": far, "faces": len(ages), "persons": len(np.unique(persons)), "gaps": about},
    )
