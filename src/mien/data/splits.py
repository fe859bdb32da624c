"""Which faces are learnt from, chosen on, calibrated on and tested on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.faces import AGE_BINS, GENDERS, SPLITS, age_bin

#: Shares of train, select, val and test.
FRACTIONS = (0.54, 0.06, 0.20, 0.20)


def assign_splits(
    ages: np.ndarray,
    genders: np.ndarray,
    groups: np.ndarray,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    *,
    expressions: np.ndarray | None = None,
) -> np.ndarray:
    """Codes into `faces.SPLITS`, (N,) int8: the same share of every age bin x gender, no group cut.

    `ages` are years (the middle of an interval), NaN where missing; `genders` codes, -1 where missing;
    `groups` numbers shared by faces that must stay together, negative where a face stands alone;
    `expressions` codes, -1 where missing: they take the age bin's place where the age is missing. A missing
    label is a stratum of its own. The same arguments give the same codes.

    Groups are placed one by one, large ones first, where their faces are most wanted; the faces that stand
    alone then fill each stratum, and what rounding leaves over in one is made up in the next. So the shares
    hold also in a small set, as far as its groups allow; a set too small for all four splits leaves the
    smallest empty.

    Raises:
        MienError: not four shares that sum to one.
    """
    shares = _checked(fractions)
    random = np.random.default_rng(seed)
    bins = age_bin(ages) + 1
    if expressions is not None:
        bins = np.where((bins == 0) & (expressions >= 0), len(AGE_BINS) + 1 + expressions, bins)
    strata = bins * (len(GENDERS) + 1) + np.asarray(genders) + 1
    total = np.bincount(strata, minlength=(len(AGE_BINS) + 1) * (len(GENDERS) + 1))
    groups = combine_groups(groups)
    codes = np.full(len(groups), -1, dtype=np.int8)
    together = np.flatnonzero(groups >= 0)
    codes[together] = _place_groups(strata[together], groups[together], total, shares, random)
    alone = np.flatnonzero(groups < 0)
    wanted = shares[:, None] * total
    for split in range(len(SPLITS)):
        wanted[split] -= np.bincount(strata[codes == split], minlength=len(total))
    codes[alone] = _place_faces(strata[alone], wanted, random)
    return codes


def split_rest(manifest: Manifest, groups: np.ndarray, seed: int) -> np.ndarray:
    """Codes into `faces.SPLITS`, (N,): a manifest's own; all four are made where it has none, the other three where it
    only tells the test faces. A face of the same group as a given test face gets none, -1: as a teacher it would give
    away what is judged, and a published test set stays what it is."""
    given = manifest.codes("split")
    test = given == SPLITS.index("test")
    rest = np.flatnonzero(~test)
    if (given[rest] >= 0).any() or not len(rest):
        return given
    shares = np.array(FRACTIONS)
    if test.any():
        shares[SPLITS.index("test")] = 0.0
        rest = rest[~np.isin(groups[rest], groups[test & (groups >= 0)])]
        if not len(rest):
            return given
    ages = (manifest.numbers("age_low") + manifest.numbers("age_high")) / 2
    genders, expressions = manifest.codes("gender")[rest], manifest.codes("expression")[rest]
    fractions = (shares / shares.sum()).tolist()
    given[rest] = assign_splits(ages[rest], genders, groups[rest], fractions, seed, expressions=expressions)
    return given


def combine_groups(*columns: np.ndarray) -> np.ndarray:
    """Faces that share a number in any of the columns, (N,) int64 each, directly or through others: one
    group.

    Negative numbers stand for no group. Returns (N,) int64: groups counted from 0 in the order of their first
    faces, -1 for a face that stands alone.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(columns[0])
    faces, owners, nodes = [], [], count
    for column in columns:
        rows = np.flatnonzero(np.asarray(column) >= 0)
        names, which = np.unique(np.asarray(column)[rows], return_inverse=True)
        faces.append(rows)
        owners.append(which.reshape(-1) + nodes)
        nodes += len(names)
    one, other = np.concatenate(faces), np.concatenate(owners)
    graph = coo_matrix((np.ones(len(one), dtype=np.int8), (one, other)), shape=(nodes, nodes))
    labels = connected_components(graph, directed=False)[1][:count]
    _, first, which, size = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    several = np.flatnonzero(size > 1)
    numbers = np.full(len(size), -1, dtype=np.int64)
    numbers[several[np.argsort(first[several])]] = np.arange(len(several))
    return numbers[which.reshape(-1)]


def _checked(fractions: Sequence[float]) -> np.ndarray:
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (len(SPLITS),) or not (shares >= 0).all() or not np.isclose(shares.sum(), 1):
        raise MienError(
            f"fractions {tuple(fractions)}: give {len(SPLITS)} shares that sum to 1, for {', '.join(SPLITS)}"
        )
    return shares


def _place_groups(
    strata: np.ndarray,
    groups: np.ndarray,
    total: np.ndarray,
    fractions: np.ndarray,
    random: np.random.Generator,
) -> np.ndarray:
    """Splits of faces in groups, (N,): each group goes where it leaves most of the share unfilled."""
    size = np.bincount(groups)
    order = np.argsort(groups, kind="stable")
    starts = np.concatenate([[0], np.cumsum(size)])
    turns = random.permutation(len(size))
    turns = turns[np.argsort(-size[turns], kind="stable")]
    open_splits = [split for split in np.argsort(-fractions, kind="stable").tolist() if fractions[split] > 0]
    # Plain lists: numpy's overhead on a handful of faces would cost seconds over a hundred thousand groups.
    # The last entry counts all faces, so that the shares of the whole hold beside those of the strata. One
    # face more is allowed in a stratum, so that one of three faces, which no share suits, does not decide.
    everything = len(total)
    target = [[*(share * total + 1).tolist(), share * float(total.sum())] for share in fractions]
    filled = [[0.0] * (everything + 1) for _ in SPLITS]
    ordered, place = strata[order].tolist(), np.empty(len(size), dtype=np.int8)
    for group in turns.tolist():
        members = ordered[starts[group] : starts[group + 1]]
        counts = {stratum: members.count(stratum) for stratum in set(members)}
        counts[everything] = len(members)
        best, most = open_splits[0], -np.inf
        for split in open_splits:
            has, may = filled[split], target[split]
            left = sum(n * (1 - (has[stratum] + n / 2) / may[stratum]) for stratum, n in counts.items())
            if left > most + 1e-9:
                best, most = split, left
        for stratum, n in counts.items():
            filled[best][stratum] += n
        place[group] = best
    return place[groups]


def _place_faces(strata: np.ndarray, wanted: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Splits of faces that stand alone, (N,), as each stratum wants them; `wanted` is (splits, strata)."""
    codes = np.empty(len(strata), dtype=np.int8)
    order = random.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    ends = np.cumsum(np.bincount(strata, minlength=wanted.shape[1]))
    owed = np.zeros(len(wanted))
    for stratum, (start, end) in enumerate(zip(np.concatenate([[0], ends]), ends, strict=False)):
        if start == end:
            continue
        share = np.clip(wanted[:, stratum], 0, None)
        share *= (end - start) / share.sum()
        counts = _round(share + owed, end - start)
        owed += share - counts
        codes[order[start:end]] = random.permutation(np.repeat(np.arange(len(wanted), dtype=np.int8), counts))
    return codes


def _round(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers >= 0 near `shares` that sum to `total`: the largest remainders are rounded up."""
    counts = np.floor(np.clip(shares, 0, None)).astype(np.int64)
    while counts.sum() > total:  # what others were owed too much of
        counts[np.argmax(np.where(counts > 0, counts - shares, -np.inf))] -= 1
    order = np.argsort(counts - shares, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


def teachers(manifest: Manifest, split: str) -> Manifest:
    """The faces that may teach what is judged on `split`: those of `train`, but of no group that has a face in it."""
    groups = manifest.groups()
    train, judged = (manifest.codes("split") == SPLITS.index(name) for name in ("train", split))
    return manifest.where(train & ~np.isin(groups, groups[judged]))
