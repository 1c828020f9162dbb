"""Intervals over seeds, against scipy's."""

import math

import pytest
from scipy import stats

from eqcollapse.report.intervals import estimate


def test_the_interval_is_students():
    values = [91.0, 92.5, 90.2, 91.1]
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    found = estimate(values)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_one_seed_has_no_interval():
    found = estimate([3.0])
    assert found.mean == 3.0
    assert math.isnan(found.half)
    assert found.p_apart(0.0) == 1
