"""Several experts' ages made one.

w_i = softmax(((c_i - mu_i) / sigma_i) / tau + gamma r_i) over the experts that answered, age = sum_i w_i age_i. Each
expert's confidence c_i is standardised by its own mean and spread on a trusted set: a mu common to all would cancel in
the softmax, and a raw confidence of one expert means nothing beside another's. Standardised, it no longer tells a good
expert from a poor one: that is what the merit r_i does, less the logarithm of its mean squared error on the trusted
set. tau, gamma and the corrections of each expert's bias are fitted there too, and the interval on the errors at
trusted faces that the rest was not fitted on.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import MienError
from mien.faces import MAX_AGE, MIN_AGE
from mien.files import write_json

#: Temperatures tried: from "the surest alone" to "all alike".
TAUS = np.geomspace(0.05, 100, 76)
#: Weights of the merits tried: from "all alike" over the inverse squared error (1) to "the best alone".
GAMMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 13.0, 20.0)
#: Share of trusted faces that the fitted interval holds.
LEVEL = 0.9
#: Years of a knot of the bias correction, and the faces at a knot at which half of their mean error is believed.
KNOT, BELIEF = 5.0, 20.0
#: Trusted faces that a fit takes at least, and answers at them that tell how good and how sure an expert is.
LEAST, FEWEST = 50, 10
#: Parts of the trusted faces; the errors at each, by a fit on the others, tell the interval.
FOLDS = 10


@dataclass(frozen=True)
class Fused:
    """The fused answer for N faces; NaN where no expert answered.

    `between` is the weighted variance of the experts' ages, `total` that and their own variances together (the law of
    total variance; an expert that gives none adds nothing; `Method` knows none of a single one), both in years squared.
    Experts err together, so both are too small as they are: `low` and `high` are the fitted interval, NaN before a fit.
    `weights` is (N, E), 0 for an expert that did not answer; `answered` (N,) counts those that did.
    """

    age: np.ndarray
    between: np.ndarray
    total: np.ndarray
    low: np.ndarray
    high: np.ndarray
    weights: np.ndarray
    answered: np.ndarray


@dataclass
class Fusion:
    """Experts' names in the order of the columns, and what was fitted on the trusted set.

    `bias` maps an expert to its error, knot by knot, at ages it says (`knots`, years). `interval` is (a, b, q): the
    interval is age -+ q sqrt(a + b total). `hashes` are of the experts' weights, where the fusion knows them. `mae` is
    how many years each expert's answers, as they come, are off on the trusted faces (None: it answered for none),
    `fused_mae` how many the fused age is, each face held out of the fit.
    """

    experts: list[str]
    mu: list[float]
    sigma: list[float]
    tau: float = 1.0
    merit: list[float] = field(default_factory=list)
    gamma: float = 0.0
    knots: list[float] = field(default_factory=list)
    bias: dict[str, list[float]] = field(default_factory=dict)
    interval: tuple[float, float, float] | None = None
    trusted: int = 0
    hashes: list[str] = field(default_factory=list)
    mae: dict[str, float | None] = field(default_factory=dict)
    fused_mae: float | None = None

    def __post_init__(self) -> None:
        count = len(self.experts)
        if not (count and len(self.mu) == len(self.sigma) == count):
            raise MienError(f"a fusion of {count} experts has {len(self.mu)} mu and {len(self.sigma)} sigma")
        if self.merit and len(self.merit) != count:
            raise MienError(f"a fusion of {count} experts has {len(self.merit)} merits")
        if not self.tau > 0:
            raise MienError(f"tau is {self.tau}, expected a number above 0")
        if count > 1 and any(self.sigma) and len(set(self.mu)) == 1 and len(set(self.sigma)) == 1:
            warnings.warn(
                "mu is common to all experts: it cancels in the softmax and has no effect; fit it for each expert",
                stacklevel=2,
            )

    def __call__(self, ages: np.ndarray, confidences: np.ndarray, variances: np.ndarray | None = None) -> Fused:
        """Fuse ages (N, E) in years with confidences (N, E) and, where known, variances (N, E).

        NaN ages are experts that did not answer; an expert that answered without a confidence counts as sure as it
        usually is.
        """
        ages, confidences = self._checked(ages), self._checked(confidences)
        known = np.isfinite(ages)
        corrected = self._corrected(ages)
        logits = self._standardised(confidences) / self.tau
        if self.merit:
            logits = logits + self.gamma * np.array(self.merit)
        weights = masked_softmax(logits, known)
        own = np.zeros_like(corrected) if variances is None else np.nan_to_num(self._checked(variances), nan=0.0)
        filled = np.where(known, corrected, 0.0)
        age = (weights * filled).sum(1)
        between = (weights * (filled - age[:, None]) ** 2).sum(1)
        total = between + (weights * own).sum(1)
        gone = ~known.any(1)
        age, between, total = (np.where(gone, np.nan, values) for values in (age, between, total))
        low = high = np.full(len(age), np.nan)
        if self.interval is not None:
            a, b, q = self.interval
            half = q * np.sqrt(a + b * total)
            low, high = np.clip([age - half, age + half], MIN_AGE, MAX_AGE)
        return Fused(age, between, total, low, high, weights, known.sum(1))

    def save(self, path: str | Path) -> None:
        """Write the fusion as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Fusion:
        """What `save` wrote, read back.

        Raises:
            MienError: it is something else.
        """
        try:
            interval = value.get("interval")
            fusion = cls(**{**value, "interval": None if interval is None else tuple(interval)})
            told = [fusion.mu, fusion.sigma, [fusion.tau, fusion.gamma], fusion.merit, fusion.knots]
            told += [*fusion.bias.values(), list(fusion.interval or (1.0, 1.0, 1.0))]
            if not all(isinstance(one, (int, float)) and np.isfinite(one) for numbers in told for one in numbers):
                raise ValueError("not all of its numbers are numbers, and finite")
            if len(told[-1]) != 3:
                raise ValueError(f"its interval has {len(told[-1])} numbers, expected 3")
            if fusion.knots and any(len(fusion.bias[name]) != len(fusion.knots) for name in fusion.experts):
                raise ValueError("an expert's bias has not a number a knot")
        except MienError:
            raise
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise MienError(f"not a fusion of experts: {error}") from None
        return fusion

    def _checked(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.experts):
            raise MienError(f"answers of shape {values.shape}, expected (faces, {len(self.experts)}), one column each")
        return values

    def _standardised(self, confidences: np.ndarray) -> np.ndarray:
        spread = np.array([sigma if sigma > 0 else np.inf for sigma in self.sigma])
        return np.nan_to_num((confidences - self.mu) / spread, nan=0.0, posinf=1e6, neginf=-1e6)

    def _corrected(self, ages: np.ndarray) -> np.ndarray:
        if not self.knots:
            return ages
        off = [np.interp(ages[:, i], self.knots, self.bias[name]) for i, name in enumerate(self.experts)]
        corrected: np.ndarray = np.clip(ages - np.column_stack(off), MIN_AGE, MAX_AGE)
        return corrected


def masked_softmax(logits: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Softmax over each row's known entries, (N, E); 0 elsewhere, and a row of zeros where none is known."""
    filled = np.where(known, logits, -np.inf)
    top = np.where(known.any(1), filled.max(1), 0.0)
    powers = np.where(known, np.exp(np.minimum(filled - top[:, None], 0.0)), 0.0)
    total = powers.sum(1, keepdims=True)
    result: np.ndarray = powers / np.where(total > 0, total, 1.0)
    return result


def fit(
    experts: Sequence[str],
    ages: np.ndarray,
    confidences: np.ndarray,
    true: np.ndarray,
    variances: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Fusion:
    """A fusion fitted on trusted faces: mu and sigma of each expert's confidence, its bias by age and its merit, tau
    and gamma by the least mean absolute error, and the interval by conformal scores of the fused error.

    The scores are of faces held out, `FOLDS` parts of them in turn, a person or a set of copies in one part: at faces
    that it was fitted on a fusion errs less than at others, and the fewer they are the more so.

    Args:
        ages, confidences, variances: (N, E), NaN for no answer.
        true: (N,) years.
        groups: (N,) a number a person or set of copies, negative for a face that stands alone; all do by default.

    Raises:
        MienError: fewer than `LEAST` trusted faces with an age and an answer, or all of one group.
    """
    ages, confidences = np.asarray(ages, dtype=np.float64), np.asarray(confidences, dtype=np.float64)
    usable = np.isfinite(true) & np.isfinite(ages).any(1)
    count = int(usable.sum())
    if count < LEAST:
        raise MienError(f"{count} trusted faces with an age and an answer; a fit takes {LEAST} or more")
    ages, confidences, true = ages[usable], confidences[usable], np.asarray(true, dtype=np.float64)[usable]
    variances = None if variances is None else np.asarray(variances, dtype=np.float64)[usable]
    errors, total = np.empty(count), np.empty(count)
    numbers = np.full(count, -1) if groups is None else np.asarray(groups)[usable].astype(np.int64)
    alone = numbers < 0
    numbers[alone] = numbers.max(initial=-1) + 1 + np.arange(alone.sum())
    names, members = np.unique(numbers, return_inverse=True)
    if len(names) < 2:
        raise MienError(f"the {count} trusted faces are all of one person or picture; a fit takes several")
    # Drawn, for manifests are often in the order of ages or of data sets.
    part = (np.random.default_rng(0).permutation(len(names)) % FOLDS)[members]
    for held in (part == number for number in np.unique(part)):
        other = _fit(experts, ages[~held], confidences[~held], true[~held])
        fused = other(ages[held], confidences[held], None if variances is None else variances[held])
        errors[held], total[held] = np.abs(fused.age - true[held]), fused.total
    fusion = _fit(experts, ages, confidences, true)
    fusion.interval = _interval(errors, total)
    off = np.abs(ages - true[:, None])
    fusion.mae = {
        name: float(np.nanmean(off[:, i])) if np.isfinite(off[:, i]).any() else None
        for i, name in enumerate(fusion.experts)
    }
    fusion.fused_mae = float(errors.mean())
    return fusion


def _fit(experts: Sequence[str], ages: np.ndarray, confidences: np.ndarray, true: np.ndarray) -> Fusion:
    """All that is fitted but the interval."""
    mu, sigma = [], []
    for column in confidences.T:
        told = column[np.isfinite(column)]
        mu.append(float(told.mean()) if len(told) else 0.0)
        sigma.append(float(told.std()) if len(told) >= FEWEST else 0.0)
    fusion = Fusion(list(experts), mu, sigma, trusted=len(true))
    fusion.knots = np.arange(0.0, 101.0, KNOT).tolist()
    fusion.bias = {name: _bias(ages[:, i], true, fusion.knots) for i, name in enumerate(fusion.experts)}
    corrected = fusion._corrected(ages)
    squared = np.square(corrected - true[:, None])
    counts = np.isfinite(squared).sum(0)
    answered = counts >= min(FEWEST, counts.max())
    # One that hardly ever answered here counts as the poorest: a single answer, freed of its bias, would be perfect.
    worst = np.nanmean(squared[:, answered], axis=0).max()
    mean = np.array([np.nanmean(squared[:, i]) if there else worst for i, there in enumerate(answered)])
    fusion.merit = (-np.log(np.maximum(mean, 1e-6))).tolist()
    # An expert a row: over many faces that is several times as quick, and hundreds of pairs are tried.
    corrected, standardised = (np.ascontiguousarray(one.T) for one in (corrected, fusion._standardised(confidences)))
    known, merit = np.isfinite(corrected), np.array(fusion.merit)[:, None]
    filled = np.where(known, corrected, 0.0)
    errors = {}
    for gamma in GAMMAS:
        for tau in TAUS:
            logits = np.where(known, standardised / tau + gamma * merit, -np.inf)
            powers = np.exp(logits - logits.max(0))
            errors[gamma, float(tau)] = np.abs((powers * filled).sum(0) / powers.sum(0) - true).mean()
    fusion.gamma, fusion.tau = min(errors, key=lambda choice: errors[choice])
    return fusion


def _bias(said: np.ndarray, true: np.ndarray, knots: Sequence[float]) -> list[float]:
    """An expert's mean error around each age that it says, drawn towards its mean error where it said it seldom; 0 with
    fewer than `FEWEST` answers."""
    known = np.isfinite(said)
    error, said = (said - true)[known], said[known]
    if len(error) < FEWEST:
        return [0.0] * len(knots)
    overall = float(error.mean())
    result = []
    for knot in knots:
        near = np.maximum(1 - np.abs(said - knot) / KNOT, 0.0)
        result.append(float(((near * error).sum() + BELIEF * overall) / (near.sum() + BELIEF)))
    return result


def _interval(errors: np.ndarray, total: np.ndarray) -> tuple[float, float, float]:
    """(a, b, q): squared errors grow like a + b total, by least squares; q is the conformal quantile of the rest."""
    design = np.column_stack([np.ones(len(total)), total])
    a, b = np.linalg.lstsq(design, errors**2, rcond=None)[0]
    if not (a > 0 and b >= 0):  # the variance tells nothing of the error
        a, b = max(float(np.mean(errors**2)), 1e-12), 0.0  # above 0 for experts that are never wrong
    scores = np.sort(errors / np.sqrt(a + b * total))
    rank = min(int(np.ceil((len(scores) + 1) * LEVEL)), len(scores)) - 1
    return float(a), float(b), float(scores[rank])
