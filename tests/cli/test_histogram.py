"""The histogram: what it promises about its error and its memory, against sorted lists."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyipc.cli.benching.histogram import Histogram

GREATEST = 2**63 - 1
values = st.lists(
    st.one_of(st.integers(0, 1_000), st.integers(0, 10**10), st.integers(0, GREATEST)), min_size=1, max_size=60
)


def of(numbers: list[int]) -> Histogram:
    histogram = Histogram()
    for number in numbers:
        histogram.record(number)
    return histogram


@given(values, st.floats(0, 100))
def test_a_percentile_is_never_too_low_and_hardly_too_high(numbers: list[int], percent: float) -> None:
    true = sorted(numbers)[max(1, math.ceil(len(numbers) * percent / 100)) - 1]
    found = of(numbers).percentile(percent)
    assert true <= found
    # In whole numbers: floats are too coarse up there.
    assert (found - true) * 128 <= true


@given(values)
def test_count_mean_and_extremes_are_exact(numbers: list[int]) -> None:
    histogram = of(numbers)
    assert (histogram.count, histogram.minimum, histogram.maximum) == (len(numbers), min(numbers), max(numbers))
    assert histogram.mean == sum(numbers) / len(numbers)
    assert histogram.percentile(100) == max(numbers)


@given(values, st.integers(1, 40))
def test_rows_join_up_and_hold_exactly_what_is_in_their_range(numbers: list[int], most: int) -> None:
    rows = of(numbers).rows(most)
    assert 1 <= len(rows) <= most
    assert all(one.high == next_.low for one, next_ in pairwise(rows))
    assert [row.count for row in rows] == [sum(row.low <= number < row.high for number in numbers) for row in rows]
    assert sum(row.count for row in rows) == len(numbers)


def test_small_values_are_exact() -> None:
    for number in range(256):
        assert of([number, 255]).percentile(50) == number


def test_nothing_recorded() -> None:
    empty = Histogram()
    assert (empty.count, empty.mean, empty.percentile(50), empty.rows()) == (0, 0, 0, [])


def test_memory_does_not_grow() -> None:
    histogram = Histogram()
    before = sys.getsizeof(histogram._counts)
    for exponent in range(63):
        histogram.record(3**39 % 2**exponent)
    assert sys.getsizeof(histogram._counts) == before < 64 * 1024


@pytest.mark.parametrize("value", [-1, 2**63])
def test_what_does_not_fit_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="takes values from 0"):
        Histogram().record(value)


@pytest.mark.parametrize("percent", [-0.1, 100.1, math.nan])
def test_what_is_no_percentile_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 100"):
        of([1]).percentile(percent)
