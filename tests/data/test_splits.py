"""Splits: shares by stratum, whole groups, the same by seed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.data.align import CHIP
from mien.data.manifest import Manifest
from mien.data.splits import FRACTIONS, _round, assign_splits, combine_groups, split_rest, teachers
from mien.errors import MienError
from mien.faces import SPLITS, Face, age_bin


def people(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    ages = np.clip(random.gamma(3, 11, count), 0, 116)
    ages[random.random(count) < 0.02] = np.nan
    return ages, random.integers(-1, 2, count)


def worst_share(codes: np.ndarray, ages: np.ndarray, genders: np.ndarray, least: int = 200) -> float:
    """Largest distance of a split's share from the wanted one, over strata of at least `least` faces."""
    strata = age_bin(ages) * 3 + genders
    gaps = []
    for stratum in np.unique(strata):
        inside = codes[strata == stratum]
        if len(inside) >= least:
            gaps.append(np.abs(np.bincount(inside, minlength=len(SPLITS)) / len(inside) - FRACTIONS).max())
    assert gaps
    return max(gaps)


def test_faces_alone_take_the_exact_share_of_every_stratum() -> None:
    ages, genders = people(20_000)
    codes = assign_splits(ages, genders, np.arange(20_000))
    assert np.abs(np.bincount(codes) / 20_000 - FRACTIONS).max() < 1e-3
    assert worst_share(codes, ages, genders) < 0.01


def test_shares_hold_within_two_points_where_persons_have_many_faces() -> None:
    ages, genders = people(12_000)
    random = np.random.default_rng(1)
    groups = np.where(random.random(12_000) < 0.3, random.integers(0, 900, 12_000), -1)
    codes = assign_splits(ages, genders, groups)
    assert np.abs(np.bincount(codes) / 12_000 - FRACTIONS).max() < 0.005
    assert worst_share(codes, ages, genders) < 0.02
    for group in range(900):
        assert len(np.unique(codes[groups == group])) <= 1


def test_copies_are_spread_over_all_splits() -> None:
    ages, genders = people(8_000)
    groups = np.where(np.arange(8_000) < 2_000, np.arange(8_000) // 2, -1)
    codes = assign_splits(ages, genders, groups)
    assert np.abs(np.bincount(codes[:2_000], minlength=4) / 2_000 - FRACTIONS).max() < 0.06


def test_a_seed_gives_the_same_splits_and_another_seed_others() -> None:
    ages, genders = people(500)
    groups = np.arange(500) // 3
    first = assign_splits(ages, genders, groups, seed=7)
    np.testing.assert_array_equal(first, assign_splits(ages, genders, groups, seed=7))
    assert (first != assign_splits(ages, genders, groups, seed=8)).any()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.just(float("nan")), st.floats(0, 120)), st.integers(-1, 1), st.integers(-1, 12)),
        max_size=60,
    ),
    st.integers(0, 5),
    st.sampled_from([FRACTIONS, (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.25, 0.25)]),
)
def test_every_face_gets_a_split_that_was_asked_for_and_no_group_is_cut(
    faces: list[tuple[float, int, int]], seed: int, fractions: tuple[float, ...]
) -> None:
    ages = np.array([age for age, _, _ in faces], dtype=np.float64)
    genders = np.array([gender for _, gender, _ in faces], dtype=np.int64)
    groups = np.array([group for _, _, group in faces], dtype=np.int64)
    codes = assign_splits(ages, genders, groups, fractions, seed)
    assert codes.dtype == np.int8
    assert codes.shape == (len(faces),)
    assert all(0 <= code < 4 and fractions[code] > 0 for code in codes)
    for group in set(groups[groups >= 0].tolist()):
        assert len(set(codes[groups == group].tolist())) == 1
    if len(faces) and (groups < 0).all():
        wanted = np.array(fractions) * len(faces)
        # Rounding is made up from stratum to stratum, so that little of it is left in the whole.
        assert np.abs(np.bincount(codes, minlength=4) - wanted).max() <= 2


@pytest.mark.parametrize(("count", "expected"), [(0, [0, 0, 0, 0]), (1, [1, 0, 0, 0]), (100, [54, 6, 20, 20])])
def test_tiny_sets_are_defined(count: int, expected: list[int]) -> None:
    codes = assign_splits(np.full(count, 30.0), np.zeros(count, np.int64), np.full(count, -1))
    assert np.bincount(codes, minlength=4).tolist() == expected


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.2, 0.2, 0.2), (1.2, -0.2, 0.0, 0.0)])
def test_shares_that_make_no_sense_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(MienError, match="4 shares that sum to 1, for train, select, val, test"):
        assign_splits(np.array([3.0]), np.array([0]), np.array([0]), fractions)


def test_what_was_given_too_much_is_taken_only_from_who_has_some() -> None:
    counts = _round(np.array([-0.6, -0.6, 1.1, 1.1]), 1)
    assert sorted(counts.tolist()) == [0, 0, 0, 1]
    ages = [45, 25, 45, 15, 35, 35, 45, 5, 15, 25, 45, 45, 35, 45, 5, 25, 45]
    genders = [0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1]
    groups = [0, -1, 0, 1, 1, 0, 1, 1, 0, 0, 0, -1, 1, 0, 0, -1, -1]
    codes = assign_splits(np.array(ages, dtype=float), np.array(genders), np.array(groups), (0.25,) * 4)
    assert set(codes.tolist()) <= {0, 1, 2, 3}


def test_groups_combine_through_shared_faces() -> None:
    persons = np.array([5, 5, -1, 9, -1, -1, 7])
    copies = np.array([-1, 2, 2, -1, 4, 4, -1])
    # 0 and 1 are one person, 1 and 2 one picture; 4 and 5 one picture; 3 and 6 stand alone.
    assert combine_groups(persons, copies).tolist() == [0, 0, 0, -1, 1, 1, -1]
    assert combine_groups(np.array([-1, -1])).tolist() == [-1, -1]
    assert combine_groups(np.array([], dtype=np.int64)).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), max_size=25))
def test_combined_groups_are_the_connected_sets(faces: list[tuple[int, int]]) -> None:
    first = np.array([a for a, _ in faces], dtype=np.int64)
    second = np.array([b for _, b in faces], dtype=np.int64)
    combined = combine_groups(first, second)
    # An independent way: spread the lowest row through shared numbers until nothing changes.
    lowest = list(range(len(faces)))
    for _ in faces:
        for i, (a, b) in enumerate(faces):
            for j, (c, d) in enumerate(faces):
                if (a >= 0 and a == c) or (b >= 0 and b == d):
                    lowest[i] = lowest[j] = min(lowest[i], lowest[j])
    for i in range(len(faces)):
        assert (combined[i] < 0) == (lowest.count(lowest[i]) == 1)
        for j in range(i):
            together = combined[i] >= 0 and combined[i] == combined[j]
            assert together == (lowest[i] == lowest[j])


def test_expressions_are_strata_where_ages_are_missing() -> None:
    ages, genders = people(9_000)
    expressions = np.random.default_rng(2).choice(9, 9_000, p=[0.3, 0.3, 0.15, 0.1, 0.05, 0.04, 0.03, 0.02, 0.01]) - 1
    none = np.full(9_000, np.nan)
    codes = assign_splits(none, genders, np.arange(9_000), expressions=expressions)
    for expression in range(-1, 8):
        share = np.bincount(codes[expressions == expression], minlength=4) / (expressions == expression).sum()
        assert np.abs(share - FRACTIONS).max() < 0.03
    # Faces with an age are split as if nobody had asked.
    ages = np.nan_to_num(ages, nan=30.0)
    groups = np.where(np.arange(9_000) % 5 == 0, np.arange(9_000) // 50, -1)
    with_them = assign_splits(ages, genders, groups, seed=4, expressions=expressions)
    np.testing.assert_array_equal(with_them, assign_splits(ages, genders, groups, seed=4))


def test_where_only_test_faces_are_given_the_rest_is_split_in_three(tmp_path: Path) -> None:
    faces = [Face(f"{n}.png", age=(n % 60, n % 60), split="test" if n < 30 else None) for n in range(200)]
    manifest = Manifest.from_faces(faces, tmp_path, CHIP)
    codes = split_rest(manifest, np.full(200, -1), seed=0)
    assert (codes[:30] == SPLITS.index("test")).all()
    counts = np.bincount(codes[30:], minlength=4)
    assert counts[3] == 0
    assert counts[:3].tolist() == pytest.approx([170 * 0.675, 170 * 0.075, 170 * 0.25], abs=2)
    bins = age_bin(np.arange(30, 200) % 60.0)
    for bin_ in range(6):  # of every age the same share
        assert (codes[30:][bins == bin_] == 0).sum() == pytest.approx(0.675 * (bins == bin_).sum(), abs=1)
    partly = [Face(f"{n}.png", split="train" if n else None) for n in range(3)]
    assert split_rest(Manifest.from_faces(partly, tmp_path, CHIP), np.full(3, -1), 0).tolist() == [-1, 0, 0]


def test_copies_and_persons_of_given_test_faces_get_no_split(tmp_path: Path) -> None:
    faces = [Face(f"{n}.png", age=(30, 30), split="test" if n < 10 else None) for n in range(200)]
    groups = np.full(200, -1)
    groups[:40] = np.arange(40) % 20  # 0-9 and 20-29 are of one person each, 10-19 and 30-39 too
    codes = split_rest(Manifest.from_faces(faces, tmp_path, CHIP), groups, seed=0)
    assert (codes[:10] == SPLITS.index("test")).all()
    assert (codes[20:30] == -1).all()
    assert (codes[10:20] == codes[30:40]).all()
    assert (codes[[*range(10, 20), *range(30, 200)]] >= 0).all()
    everyone = np.zeros(200, dtype=np.int64)
    assert set(split_rest(Manifest.from_faces(faces, tmp_path, CHIP), everyone, 0).tolist()) == {-1, 3}


def test_nobody_who_is_judged_teaches() -> None:
    faces = [Face(f"{row}.png", person=f"p{row // 2 % 5}" if row < 20 else None) for row in range(24)]
    manifest = Manifest.from_faces(faces, Path(), CHIP)
    groups = np.array([row // 2 % 5 if row < 20 else -1 for row in range(24)])
    split = [("train", "val")[row in (0, 3, 22)] for row in range(24)]
    manifest = manifest.with_columns({"group": groups, "split": split})
    found = teachers(manifest, "val")
    assert found.strings("path").tolist() == [
        f"{row}.png" for row in range(24) if groups[row] not in (0, 1) and row != 22
    ]
