"""An expert: anything that gives an age and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Answers:
    """What one expert says of N faces; NaN where it says nothing.

    `ages` (N,) are in years. `confidences` (N,) are higher the surer it is, on a scale of its own. `variances` (N,) are
    what it takes its error's variance to be, in years squared, NaN where it does not know.
    """

    ages: np.ndarray
    confidences: np.ndarray
    variances: np.ndarray

    @classmethod
    def expected(cls, shares: np.ndarray, ages: np.ndarray) -> Answers:
        """Of distributions (N, K) over `ages` (K,): the expectation, minus the standard deviation, the variance."""
        mean = shares @ ages
        variance = (shares * (ages - mean[:, None]) ** 2).sum(1)
        return cls(mean, -np.sqrt(variance), variance)


class Expert(Protocol):
    """Tells the age of face crops.

    `name` heads its columns, `terms` says what its weights may be used for.
    """

    name: str
    terms: str

    def ask(self, images: Sequence[np.ndarray]) -> Answers:
        """What it says of pictures (3, H, W), uint8 RGB, each of any size; one answer a picture, in their order."""
