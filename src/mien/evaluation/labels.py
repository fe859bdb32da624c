"""Which given labels are wrong: what models that never saw a face say of its age, copies that are labelled otherwise,
ages that hardly anyone reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mien.data.duplicates import Duplicates
from mien.data.inspection import FAR, Labels
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.experts.columns import SOURCE
from mien.faces import MAX_AGE, SPLITS, VOCABULARIES, middle
from mien.metrics.weighted import mean_of_known

#: Years above which an age is doubted whatever else is known: a handful of people in a million reach them.
OLDEST = 105.0
#: Years that a model's age is never taken to be surer than, and what it counts as where it tells no spread.
SUREST, UNSURE = 3.0, 6.0
#: Steps of the expectation-maximisation, labels that it takes at least, and at most to fit on.
STEPS, LEAST, MOST = 60, 50, 50_000
#: Scales of models' errors over their spread that are tried.
FACTORS = np.geomspace(0.05, 5, 60)
#: Years over which the distribution of the labels is smoothed.
SMOOTH = 3


@dataclass(frozen=True)
class Views:
    """What each of M views says of N faces: `ages` and `stds` are (M, N) years, NaN where it says nothing, or learnt
    from the face and has no say."""

    names: list[str]
    ages: np.ndarray
    stds: np.ndarray

    @classmethod
    def of(cls, manifest: Manifest, models: Sequence[tuple[str, np.ndarray, np.ndarray]] = ()) -> Views:
        """The `models`, (name, ages, stds) each, and the experts of `mien relabel` where the manifest has theirs.

        Where the label is the experts' own age, they have no say on it.
        """
        found = list(models)
        if manifest.has("moe_age"):
            theirs = manifest.strings("age_from") == SOURCE
            found.append(
                ("experts", np.where(theirs, np.nan, manifest.numbers("moe_age")), manifest.numbers("moe_std"))
            )
        blank = np.zeros((0, len(manifest)))
        return cls(
            [name for name, _, _ in found],
            np.array([ages for _, ages, _ in found], dtype=np.float64) if found else blank,
            np.array([stds for _, _, stds in found], dtype=np.float64) if found else blank,
        )

    def together(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean age over the views that have a say, and its spread: their own and that between them, (N,) each."""
        age = mean_of_known(self.ages.T)
        own = np.where(np.isfinite(self.ages), np.nan_to_num(self.stds, nan=UNSURE) ** 2, np.nan)
        variance = mean_of_known(own.T) + mean_of_known(((self.ages - age) ** 2).T)
        return age, np.maximum(np.sqrt(variance), SUREST)


@dataclass
class Suspect:
    """One face whose label is doubted: `score` in [0, 1], why, and what its labels might be instead ("" to drop)."""

    row: int
    score: float
    evidence: list[str]
    corrections: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Doubts:
    """What the ages told by models say of the labels, (N,) each, NaN where there is no telling.

    `wrong` is the probability that a label was put at random instead of for this face, `age` what the models say,
    `scale` how far off they usually are for such faces (years), `share` the share of labels so put.
    """

    wrong: np.ndarray
    age: np.ndarray
    scale: np.ndarray
    share: float


def doubt(low: np.ndarray, high: np.ndarray, views: Views) -> Doubts:
    """How likely each label, an interval `low` to `high` in years, is none of its face's.

    Labels are taken for a mixture: right ones lie around the models' age as a Laplace distribution says whose scale is
    in proportion to the models' spread; wrong ones are drawn from all labels. An interval has its whole probability
    under both, years at its ends included. Share and scale are fitted by expectation maximisation, so a set with few
    wrong labels needs more evidence for each of them.
    """
    age, std = views.together() if len(views.names) else (np.full(len(low), np.nan), np.full(len(low), np.nan))
    known = np.isfinite(age) & np.isfinite(low) & np.isfinite(high)
    wrong, scale = np.full(len(low), np.nan), np.full(len(low), np.nan)
    if known.sum() < LEAST:
        return Doubts(wrong, age, scale, 0.0)
    first, last, said, s = low[known] - 0.5, high[known] + 0.5, age[known], std[known]
    edges = np.arange(MAX_AGE + 2) - 0.5
    density = np.concatenate([[0.0], np.cumsum(_density(middle(low[known], high[known])))])
    anywhere = np.interp(last, edges, density) - np.interp(first, edges, density)
    some = np.linspace(0, len(said) - 1, min(len(said), MOST)).astype(int)
    logs = np.log([_within(first[some], last[some], said[some], factor * s[some]) for factor in FACTORS])
    best, share = len(FACTORS) // 2, 0.1
    for _ in range(STEPS):
        posterior = _by_chance(share, anywhere[some], np.exp(logs[best]))
        share = float(np.clip(posterior.mean(), 1e-4, 0.9))
        best = int(np.argmax(logs @ (1 - posterior)))
    b = FACTORS[best] * s
    wrong[known], scale[known] = _by_chance(share, anywhere, _within(first, last, said, b)), b
    return Doubts(wrong, age, scale, share)


def _within(first: np.ndarray, last: np.ndarray, age: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What a Laplace distribution around `age` gives to the years from `first` to `last`; never 0."""

    def beyond(years: np.ndarray) -> np.ndarray:
        return 0.5 * np.exp(-np.maximum(years / scale, 0))

    # On one side of the age two tails are told apart: two numbers next to 1 would differ by nothing.
    above, below = beyond(first - age) - beyond(last - age), beyond(age - last) - beyond(age - first)
    around = 1 - beyond(age - first) - beyond(last - age)
    mass = np.where(first > age, above, np.where(last < age, below, around))
    return np.maximum(mass, 1e-300)


def _by_chance(share: float, anywhere: np.ndarray, right: np.ndarray) -> np.ndarray:
    posterior: np.ndarray = share * anywhere / (share * anywhere + (1 - share) * right)
    return posterior


def audit_labels(
    manifest: Manifest, views: Views, doubts: Doubts, duplicates: Duplicates | None = None
) -> list[Suspect]:
    """Every face with some evidence against a label, the most doubtful first; `doubts` is what `views` say of ages."""
    labels = Labels(manifest)
    low, high = labels.low.astype(np.float64), labels.high.astype(np.float64)
    found: dict[int, Suspect] = {}

    def of(row: int) -> Suspect:
        return found.setdefault(row, Suspect(row, 0.0, []))

    for row in np.flatnonzero(np.nan_to_num(doubts.wrong) > 0.01).tolist():
        suspect = of(row)
        suspect.score = float(doubts.wrong[row])
        said = ", ".join(
            f"{name} {views.ages[i, row]:.0f}" for i, name in enumerate(views.names) if _says(views, i, row)
        )
        suspect.evidence.append(
            f"labelled {_years(low[row], high[row])}, judged {doubts.age[row]:.0f} "
            f"(usually off by {doubts.scale[row]:.0f}): {said}"
        )
        suspect.corrections["age"] = round(float(np.clip(doubts.age[row], 0, MAX_AGE)))
    if duplicates is not None:
        identical = duplicates.groups[duplicates.pairs[duplicates.identical, 0]] if len(duplicates.pairs) else []
        byte_identical = set(np.asarray(identical).tolist())
        for number, rows in enumerate(duplicates.members()):
            _copies(rows, labels, doubts, number in byte_identical, of)
    for row in np.flatnonzero(low > OLDEST).tolist():
        suspect = of(row)
        suspect.evidence.append(f"labelled {_years(low[row], high[row])}: hardly anyone grows so old")
        suspect.score = max(suspect.score, 0.5)
        suspect.corrections.setdefault("age", "")
    return sorted(found.values(), key=lambda one: (-one.score, one.row))


def _copies(rows: np.ndarray, labels: Labels, doubts: Doubts, identical: bool, of: Any) -> None:
    """Add what the labels of one picture's copies say against each other: fewer copies, and models, agree with them."""
    differ = labels.differ(rows)
    kind = "byte-identical" if identical else "nearly the same"
    if "age" in differ:
        known = rows[~np.isnan(labels.low[rows])]
        # By different ages, which are few: of a picture that stands for missing ones there may be ten thousand copies.
        given = np.stack([labels.low[known], labels.high[known]], axis=1).astype(np.float64)
        kinds, first, which, count = np.unique(
            given, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        which, (low, high) = which.reshape(-1), kinds.T
        years = middle(low, high)
        apart = np.maximum(low[:, None] - high, low - high[:, None])
        alike = apart <= 0.5 if identical else 1 - (apart / FAR).clip(0, 1)
        worth = np.ones(len(kinds))
        ages, scales = doubts.age[known], doubts.scale[known]
        told = np.isfinite(ages) & np.isfinite(scales)
        if told.any():  # the same picture: one age for all copies
            worth = np.exp(-np.abs(years - ages[told].mean()) / scales[told].mean()) + 1e-6
        right = alike @ (worth * count) / (worth * count).sum()
        likely = np.round(right - 1e-6 * (high - low), 9)  # of equals the narrowest, then the first
        best = int(np.lexsort((first, -likely))[0])
        decided = float(np.max(right)) > 0.6
        values, number = np.unique(np.repeat(years, count), return_counts=True)
        others = [", ".join(f"{value:.3g}" for value in values[(values != own) | (number > 1)]) for own in years]
        for row, kind_of in zip(known.tolist(), which.tolist(), strict=True):
            suspect = of(row)
            mine = _years(labels.low[row], labels.high[row])
            suspect.evidence.append(f"labelled {mine}, {kind} pictures {others[kind_of]} years")
            suspect.score = max(suspect.score, 1 - float(right[kind_of]))
            if not decided:
                suspect.corrections["age"] = ""
            elif apart[best, kind_of] > 0.5:
                suspect.corrections["age"] = round(float(years[best]), 2)
    for name in differ.keys() - {"age"}:
        codes = labels.words[name]
        known = rows[codes[rows] >= 0]
        counts = np.bincount(codes[known], minlength=len(VOCABULARIES[name]))
        for row in known.tolist():
            suspect = of(row)
            own, there = VOCABULARIES[name][codes[row]], counts - (np.arange(len(counts)) == codes[row])
            said = ", ".join(VOCABULARIES[name][code] for code in np.flatnonzero(there))
            suspect.evidence.append(f"labelled {own}, {kind} pictures {said}")
            suspect.score = max(suspect.score, 1 - counts[codes[row]] / len(known))
            top = np.flatnonzero(counts == counts.max())
            if len(top) > 1:
                suspect.corrections[name] = ""
            elif top[0] != codes[row]:
                suspect.corrections[name] = VOCABULARIES[name][top[0]]


def corrections(suspects: Sequence[Suspect], paths: np.ndarray, threshold: float) -> list[tuple[str, str, str]]:
    """Rows path, column, value of the faces whose score is `threshold` or more, as `mien prepare --corrections` takes
    them; an empty value drops the label."""
    return [
        (paths[one.row], column, f"{value:g}" if isinstance(value, (int, float)) else value)
        for one in suspects
        if one.score >= threshold
        for column, value in one.corrections.items()
    ]


def folds(manifest: Manifest, count: int, seed: int = 0) -> list[Manifest]:
    """The manifest `count` times, a different part of its faces held out as val each time; groups stay together.

    A tenth of the other groups is select, at least one. A model trained on each has a say on every face between them.

    Raises:
        MienError: fewer than two folds, or so few groups that a fold would have none to learn from.
    """
    groups = np.unique(manifest.groups(), return_inverse=True)[1]
    number = int(groups.max(initial=-1)) + 1
    if not 2 <= count <= number or number - -(-number // count) < 2:
        raise MienError(
            f"{count} folds of {number:,} groups of faces; take 2 or more, no more than these, and have at least two "
            "groups outside of each"
        )
    draw = np.random.default_rng(seed).permutation(number)
    made = []
    for fold in range(count):
        others = np.flatnonzero(draw % count != fold)
        of_group = np.full(number, SPLITS.index("val"))
        of_group[others] = SPLITS.index("train")
        chosen = others[np.argsort(draw[others])][: max(1, round(0.1 * len(others)))]
        of_group[chosen] = SPLITS.index("select")
        split = of_group[groups]
        made.append(manifest.with_columns({"split": split.astype(np.int64)}))
    return made


def _density(years: np.ndarray) -> np.ndarray:
    """Share of the labels at each whole year, smoothed; never 0."""
    counts = np.bincount(np.clip(np.round(years), 0, MAX_AGE).astype(int), minlength=MAX_AGE + 1) + 0.1
    kernel = np.ones(2 * SMOOTH + 1) / (2 * SMOOTH + 1)
    smooth = np.convolve(np.pad(counts, SMOOTH, mode="edge"), kernel, mode="valid")
    density: np.ndarray = smooth / smooth.sum()
    return density


def _says(views: Views, view: int, row: int) -> bool:
    return bool(np.isfinite(views.ages[view, row]))


def _years(low: float, high: float) -> str:
    return f"{low:.3g}" if low == high else f"{low:.3g}-{high:.3g}"
