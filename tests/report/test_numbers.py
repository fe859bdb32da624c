import math

import numpy as np
import pytest

from mien.report.numbers import DASH, Number, count, number, share, size, suppressed, years

ESTIMATE = {"value": 4.2004, "low": 4.081, "high": 4.329, "n": 4740}


def test_years_writes_value_and_interval():
    assert years(ESTIMATE) == "4.20 [4.08, 4.33]"
    assert years(ESTIMATE, digits=1) == "4.2 [4.1, 4.3]"


def test_share_is_in_per_cent():
    assert share({"value": 0.931, "low": 0.9234, "high": 0.9381, "n": 10}) == "93.1 % [92.3, 93.8]"
    assert share(0.5) == "50.0 %"


def test_signs_and_negative_zero():
    assert years({"value": -0.3, "low": -0.5, "high": 0.1, "n": 9}, sign=True) == "−0.30 [−0.50, +0.10]"
    assert years(-0.001) == "0.00"


@pytest.mark.parametrize("value", [None, math.nan, {}, {"value": None}, {"value": math.nan, "n": 4}])
def test_what_is_unknown_is_a_dash(value):
    assert years(value) == share(value) == DASH


def test_interval_is_left_out_where_unknown():
    assert years({"value": 1.0, "low": None, "high": math.nan, "n": 3}) == "1.00"


def test_number_reads_dicts_floats_and_numpy():
    assert number(ESTIMATE) == Number(4.2004, 4.081, 4.329, 4740)
    assert number(np.float32(2.5)).value == 2.5
    assert number(number(ESTIMATE)) is not None
    assert not number(None).known


def test_size_and_suppressed():
    assert size({"n": 12, "suppressed": True}) == 12
    assert size({"mae": ESTIMATE}) == 4740
    assert size({}) == size(None) == 0
    assert suppressed({"n": 12, "suppressed": True})
    assert not suppressed({"n": 12})


def test_count_marks_thousands():
    assert count(1234567) == "1,234,567"
    assert count(None) == count(math.nan) == DASH
