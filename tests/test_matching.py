"""Who wants what is published: the same as if every pattern were tried, and found without trying every pattern."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyipc.matching import Matches, shape_of
from pyipc.protocol.patterns import Pattern
from pyipc.rounds import is_round

if TYPE_CHECKING:
    from types import FrameType

SEGMENTS = st.sampled_from(["a", "b", "", "*"])
PATTERNS = st.builds(
    lambda segments, rest: ".".join([*segments, *(["**"] if rest or segments in ([], [""]) else [])]),
    st.lists(SEGMENTS, max_size=4),
    st.booleans(),
)
NAMES = st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=5).map(".".join).filter(bool)


@given(st.lists(st.tuples(PATTERNS, st.integers(0, 3)), max_size=12), st.lists(NAMES, max_size=4), st.data())
def test_it_finds_what_trying_every_pattern_would_find(
    wanted: list[tuple[str, int]], names: list[str], data: st.DataObject
) -> None:
    matches: Matches[int] = Matches()
    there: list[tuple[Pattern, int]] = []

    def check() -> None:
        for name in names:
            found = matches.find(name)
            assert len(set(found)) == len(found)
            assert set(found) == {holder for pattern, holder in there if pattern.matches(name)}
            assert matches.find(name) is found  # as long as nothing changes

    for text, holder in wanted:
        pattern = Pattern(text)
        there.append((pattern, holder))
        matches.add(pattern, holder)
        check()
    while there:
        pattern, holder = there.pop(data.draw(st.integers(0, len(there) - 1)))
        matches.remove(pattern, holder)
        check()
    assert matches._shapes == {}


def work(matches: Matches[int], name: str) -> int:
    """How many lines of the module run to find who wants something."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal lines
        if not frame.f_code.co_filename.endswith("matching.py"):
            return None
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        matches.find(name)
    finally:
        sys.settrace(before)
    return lines


def test_what_it_costs_does_not_grow_with_the_number_of_subscribers() -> None:
    costs = []
    for count in (10, 10_000):
        matches: Matches[int] = Matches()
        for number in range(count):
            matches.add(Pattern(f"user.{number}.*"), number)
            matches.add(Pattern(f"user.{number}.status"), number)
        costs.append(work(matches, "user.7.status"))
        assert matches.find("user.8.status") == (8,)
    assert costs[0] == costs[1]


def test_what_is_remembered_of_names_has_an_end() -> None:
    matches: Matches[int] = Matches()
    matches.add(Pattern("**"), 1)
    for number in range(5_000):
        assert matches.find(f"name.{number}") == (1,)
        assert len(matches._found) <= 1_024


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [("a.*", "b.*", True), ("a.*", "*.a", False), ("a.**", "b.**", True), ("a.*", "a.**", False), ("a", "b", True)],
)
def test_shapes(one: str, other: str, alike: bool) -> None:
    assert (shape_of(Pattern(one)) == shape_of(Pattern(other))) is alike


def test_round_numbers() -> None:
    assert [count for count in range(30_001) if is_round(count)] == [1, 10, 100, 1_000, 10_000, 20_000, 30_000]
