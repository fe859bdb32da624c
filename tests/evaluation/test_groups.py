"""Which group each face is in, crossed groups, and the ages that groups are held to: by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mien.evaluation.groups import CROSS, FEWEST_IN_BIN, Partition, counts, partitions, standard_shares
from mien.faces import GENDERS, RACES

nan = float("nan")
LOW, HIGH = np.array([5.0, 25, 20, 35, nan, 80]), np.array([5.0, 25, 29, 44, nan, 80])
AGE = ["0-9", "20-29", "20-29", None, None, "70+"]
GENDER, RACE = np.array([0, 1, 1, -1, 0, 1]), np.array([2, 0, 4, 1, -1, 3])


def named(partition: Partition) -> list[str | None]:
    return [None if code < 0 else partition.names[code] for code in partition.codes]


def test_each_face_is_in_its_groups_and_in_crossed_ones_where_it_is_in_both() -> None:
    found = partitions(LOW, HIGH, GENDER, RACE)
    genders = [None if code < 0 else GENDERS[code] for code in GENDER]
    races = [None if code < 0 else RACES[code] for code in RACE]
    assert (named(found["age_bin"]), named(found["gender"]), named(found["race"])) == (AGE, genders, races)
    for name, others in (("race", races), ("age_bin", AGE)):
        expected = [a and b and f"{a}{CROSS}{b}" for a, b in zip(genders, others, strict=True)]
        assert named(found[f"gender{CROSS}{name}"]) == expected
    assert counts(found)["gender"] == {GENDERS[0]: 2, GENDERS[1]: 3}
    assert set(partitions(LOW, HIGH, GENDER, np.full(6, -1))) == {"age_bin", "gender", f"gender{CROSS}age_bin"}


def test_groups_are_held_to_the_ages_that_all_of_them_have() -> None:
    few = FEWEST_IN_BIN
    ages = np.repeat([5.0, 25, 45, 25, 45, 65], [few, few, 2 * few, 3 * few, few - 1, few])
    rows = np.arange(len(ages))
    shares = standard_shares(ages, {"a": rows[: 4 * few], "b": rows[4 * few :]})
    assert shares.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    shares = standard_shares(np.append(ages, 45.0), {"a": rows[: 4 * few], "b": np.append(rows[4 * few :], len(rows))})
    np.testing.assert_allclose(shares, np.array([0, 0, 4, 0, 3, 0, 0, 0]) / 7)
    assert standard_shares(ages, {"a": rows[:few], "b": rows[-few:]}).sum() == pytest.approx(0)
