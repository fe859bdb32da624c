from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mien.data.manifest import Manifest
from mien.data.sampling import Sampling, balanced_chances, cut, order, repeats
from mien.faces import GENDERS, RACES, Crop, Face, age_bin


def manifest(count: int = 2000) -> Manifest:
    """Mostly twenties, few old; every fiftieth without an age."""
    rng = np.random.default_rng(0)
    ages = np.where(rng.random(count) < 0.8, rng.integers(20, 30, count), rng.integers(0, 100, count))
    return Manifest.from_faces(
        [
            Face(
                path=f"{row}.png",
                age=None if row % 50 == 0 else (float(age), float(age)),
                gender=GENDERS[row % 2],
                race=RACES[min(4, int(rng.exponential(1.0)))],
            )
            for row, age in enumerate(ages)
        ],
        ".",
        Crop("photo"),
    )


def test_uniform_is_a_permutation_that_changes_with_seed_and_epoch() -> None:
    first = order(1000, seed=1, epoch=0)
    np.testing.assert_array_equal(np.sort(first), np.arange(1000))
    np.testing.assert_array_equal(first, order(1000, seed=1, epoch=0))
    assert (first != order(1000, seed=1, epoch=1)).mean() > 0.9
    assert (first != order(1000, seed=2, epoch=0)).mean() > 0.9
    # No trend: a row's place tells nothing of its number.
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.13


@given(
    groups=st.lists(st.integers(-1, 5), min_size=1, max_size=200),
    balance=st.floats(0, 1),
    at_most=st.floats(1, 20),
)
def test_chances_have_mean_one_and_keep_the_limit(groups: list[int], balance: float, at_most: float) -> None:
    codes = np.array(groups)
    chances = balanced_chances(codes, balance, at_most)
    assert chances.mean() == pytest.approx(1)
    assert chances.max() <= at_most * (1 + 1e-6)
    assert (chances[codes < 0] == 1).all()
    for group in set(groups):
        assert np.ptp(chances[codes == group]) < 1e-9


def test_balance_turns_from_as_found_to_equal() -> None:
    groups = np.repeat([0, 1, 2], [900, 90, 10])
    share = {
        balance: np.bincount(groups, balanced_chances(groups, balance, 1000)) / 1000 for balance in (0.0, 0.5, 1.0)
    }
    np.testing.assert_allclose(share[0.0], [0.9, 0.09, 0.01])
    roots = np.sqrt([900, 90, 10])
    np.testing.assert_allclose(share[0.5], roots / roots.sum())
    np.testing.assert_allclose(share[1.0], [1 / 3] * 3)
    limited = np.bincount(groups, balanced_chances(groups, 1.0, 10)) / 1000
    np.testing.assert_allclose(limited, [0.45, 0.45, 0.1])


def test_balanced_epochs_show_faces_as_often_as_they_should() -> None:
    faces = manifest()
    sampling = Sampling(by="age", at_most=1000)
    chances = sampling.chances(faces)
    assert chances is not None
    bins = age_bin(faces.numbers("age_low"))
    epochs = [order(len(faces), 0, epoch, chances) for epoch in range(20)]
    for rows in epochs:
        assert len(rows) == len(faces)
        # Systematic sampling: never more than rounding away from what was asked.
        shown = np.bincount(rows, minlength=len(faces))
        assert np.abs(shown - chances).max() < 1 + 1e-6
        # Of faces with an age the eight bins come equally often, to a face or two.
        found = np.bincount(bins[rows][bins[rows] >= 0], minlength=8)
        assert np.ptp(found) <= 2
        assert (bins[rows] < 0).sum() == pytest.approx((bins < 0).sum(), abs=3)
    total = np.bincount(np.concatenate(epochs), minlength=len(faces))
    expected = 20 * chances
    assert ((total - expected) ** 2 / expected).sum() < 1.2 * len(faces)
    assert (epochs[0] != epochs[1]).mean() > 0.5


def test_a_face_is_shown_as_often_as_its_chance_says_over_many_epochs() -> None:
    rows = np.concatenate([order(3, 0, epoch, np.array([0.4, 0.6, 2.0])) for epoch in range(400)])
    np.testing.assert_allclose(np.bincount(rows, minlength=3) / 400, [0.4, 0.6, 2.0], atol=0.08)


def test_age_and_race_together() -> None:
    faces = manifest()
    chances = Sampling(by="age_race", balance=0.5).chances(faces)
    assert chances is not None
    bins, races = age_bin(faces.numbers("age_low")), faces.codes("race")
    shares = {}
    for group in {(b, r) for b, r in zip(bins, races, strict=True) if b >= 0}:
        inside = (bins == group[0]) & (races == group[1])
        assert np.ptp(chances[inside]) < 1e-9
        shares[inside.sum()] = chances[inside][0]
    sizes = sorted(shares)
    assert all(shares[small] >= shares[large] for small, large in pairwise(sizes))


def test_expressions_come_equally_often_and_faces_without_one_once() -> None:
    words = ["Happy"] * 60 + ["Contempt"] * 12 + [None] * 8
    faces = Manifest.from_faces([Face(f"{i}.png", expression=word) for i, word in enumerate(words)], ".", Crop("chip"))
    chances = Sampling(by="expression").chances(faces)
    assert chances is not None
    assert chances[:60].sum() == pytest.approx(chances[60:72].sum())
    assert (chances[72:] == 1).all()
    assert chances.sum() == pytest.approx(80)


def test_uniform_needs_no_chances() -> None:
    faces = manifest(50)
    assert Sampling().chances(faces) is None
    assert Sampling(by="age", balance=0).chances(faces) is None
    assert Sampling().loss_weights(faces) is None


@pytest.mark.parametrize("kind", ["inverse", "root", "lds"])
def test_loss_weights_favour_rare_ages(kind: str) -> None:
    faces = manifest()
    weights = Sampling.model_validate({"weights": kind}).loss_weights(faces)
    assert weights is not None
    ages = faces.numbers("age_low")
    known = ~np.isnan(ages)
    assert weights[known].mean() == pytest.approx(1, rel=1e-3)
    assert (weights[~known] == 1).all()
    assert weights[ages > 60].min() > 1.5 * weights[(ages >= 22) & (ages < 28)].max()


def test_root_weights_are_the_root_of_the_count() -> None:
    faces = manifest()
    weights = Sampling(weights="root").loss_weights(faces)
    assert weights is not None
    known = ~np.isnan(faces.numbers("age_low"))
    ages = faces.numbers("age_low")[known].astype(int)
    expected = 1 / np.sqrt(np.bincount(ages)[ages])
    np.testing.assert_allclose(weights[known], expected / expected.mean(), rtol=1e-5)


@given(
    count=st.integers(1, 120),
    batch=st.integers(1, 13),
    world=st.integers(1, 4),
    even=st.booleans(),
)
def test_processes_together_read_what_one_would(count: int, batch: int, world: int, even: bool) -> None:
    rows = np.random.default_rng(0).permutation(count)
    alone = cut(rows, batch * world, 0, 1, even=even)
    shares = [cut(rows, batch, rank, world, even=even) for rank in range(world)]
    for step, expected in enumerate(alone):
        found = [share[step] for share in shares if step < len(share)]
        np.testing.assert_array_equal(np.concatenate(found), expected)
    read = np.concatenate([part for share in shares for part in share])
    if even and count >= batch * world:
        assert {len(part) for share in shares for part in share} == {batch}
        assert len(read) == count // (batch * world) * batch * world
    else:
        assert sorted(read) == list(range(count))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="age_race"):
        Sampling.model_validate({"by": "gender"})
    with pytest.raises(ValidationError):
        Sampling.model_validate({"balance": 2})


@given(st.lists(st.integers(0, 5), max_size=30))
def test_repeats_count_what_stood_before(rows: list[int]) -> None:
    expected = [rows[:place].count(row) for place, row in enumerate(rows)]
    np.testing.assert_array_equal(repeats(np.array(rows, dtype=np.int64)), expected)
