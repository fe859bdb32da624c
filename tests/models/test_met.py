"""Which pictures were learnt from is told from few of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.models.met import KEPT, MARK, Met


def hashes(first: int, last: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(first, last)]


def test_of_few_pictures_each_is_told() -> None:
    met = Met.of([*hashes(0, 100), None])
    assert met.exact
    assert met.among([*hashes(98, 102), None])[:4].tolist() == [1, 1, 0, 0]
    assert np.isnan(met.among([None])).all()
    assert not Met(()).among(hashes(0, 3)).any()


def test_of_many_the_share_is_told() -> None:
    met = Met.of(hashes(0, 20_000))
    assert not met.exact
    assert len(met.text()) <= 4 * MARK * KEPT / 3 + 4
    told = met.among(hashes(17_000, 22_000))  # three in five
    known = told[np.isfinite(told)]
    assert len(known) == pytest.approx(5_000 * KEPT / 20_000, rel=0.15)
    assert known.mean() == pytest.approx(0.6, abs=0.05)
    assert not np.nansum(met.among(hashes(20_000, 30_000)))


@given(st.integers(0, 9_000), st.integers(0, 9_000), st.integers(0, 9_000), st.integers(0, 9_000))
def test_two_sets_together_are_the_set_of_both(first: int, second: int, third: int, fourth: int) -> None:
    one, other = ALL[first:second], ALL[third:fourth]
    assert Met.of(one) | Met.of(other) == Met.of([*one, *other])


ALL = hashes(0, 9_000)


def test_it_is_read_as_it_was_written() -> None:
    for met in (Met(()), Met.of(hashes(0, 3)), Met.of(hashes(0, 9_000))):
        assert Met.read(met.text()) == met
    for damaged in ("no base64!", "AAAA"):
        with pytest.raises(ValueError, match=r"base64|bytes"):
            Met.read(damaged)
