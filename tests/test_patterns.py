"""The pattern grammar of events and topics."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyipc.errors import InvalidEventName, LocalProtocolError
from pyipc.protocol.patterns import Pattern

MATCHES = {
    "a": (["a"], ["b", "a.b", "A", "", "a.", ".a"]),
    "a.b": (["a.b"], ["a", "a.b.c", "a.c", "a.B"]),
    "*": (["a", "pyipc", "*", "", "ü \n"], ["a.b", "."]),
    "a.*": (["a.b", "a.*", "a."], ["a", "a.b.c", "b.b", "ab"]),
    "*.b": (["a.b", ".b"], ["b", "a.b.c", "a.a.b"]),
    "a.*.c": (["a.b.c", "a..c"], ["a.c", "a.b.b.c", "a.b.c.d", "a.b.d"]),
    "*.*": (["a.b", "."], ["a", "a.b.c"]),
    # "**" stands for all the rest, and that may be nothing.
    "**": (["a", "a.b", "a.b.c", ".", "..."], []),
    "a.**": (["a", "a.b", "a.b.c", "a.", "a.b..c"], ["b", "ab", "b.a", "ab.c"]),
    "a.b.**": (["a.b", "a.b.c", "a.b.c.d"], ["a", "a.c", "a.c.b"]),
    "*.**": (["a", "a.b", "a.b.c"], []),
    "a.*.**": (["a.b", "a.b.c", "a.b.c.d"], ["a", "b.b"]),
    # Segments may be empty: peers may send such names, so there must be a way to handle them.
    ".": (["."], ["", "..", "a."]),
    "a..b": (["a..b"], ["a.b", "a.x.b"]),
    # Nothing else is special.
    "a?[b]+(c)\\d$": (["a?[b]+(c)\\d$"], ["ab", "a?[b]+(c)1$"]),
    "toString": (["toString"], ["tostring"]),
}


@pytest.mark.parametrize("text", MATCHES)
def test_matches(text: str) -> None:
    pattern = Pattern(text)
    yes, no = MATCHES[text]
    assert [name for name in yes if not pattern.matches(name)] == []
    assert [name for name in no if pattern.matches(name)] == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must not be empty"),
        (None, "is text"),
        (b"a", "is text"),
        (print, "is text"),
        ("a*b", "inside the segment 'a*b'"),
        ("*a", "inside the segment '*a'"),
        ("x.a*.y", "inside the segment 'a*'"),
        ("***", "inside the segment '***'"),
        ("a.**b", "inside the segment '**b'"),
        ("**.a", "put it last"),
        ("a.**.b", "put it last"),
        ("**.**", "put it last"),
        ("**.", "put it last"),
        ("a*" * 10_000, "inside the segment"),
        ("**." * 10_000, "put it last"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_refuses_with_the_reason(text: object, reason: str) -> None:
    with pytest.raises(InvalidEventName, match=re.escape(reason)) as caught:
        Pattern(text)  # type: ignore[arg-type]
    assert isinstance(caught.value, LocalProtocolError)
    assert caught.value.event is text
    assert len(str(caught.value)) < 500


def test_literals() -> None:
    assert [text for text in MATCHES if Pattern(text).is_literal] == [
        *("a", "a.b", ".", "a..b", "a?[b]+(c)\\d$", "toString")
    ]


@pytest.mark.parametrize(
    ("name", "ranking"),
    [
        ("a.b.c", ["a.b.c", "a.b.*", "a.b.**", "a.*.c", "a.*.*", "a.*.**", "a.**", "*.b.c", "*.*.*", "*.**", "**"]),
        ("a.b", ["a.b", "a.b.**", "a.*", "a.*.**", "a.**", "*.b", "*.b.**", "*.*", "*.*.**", "*.**", "**"]),
        ("a", ["a", "a.**", "*", "*.**", "**"]),
    ],
)
def test_the_most_specific_first(name: str, ranking: list[str]) -> None:
    patterns = [Pattern(text) for text in ranking]
    assert all(pattern.matches(name) for pattern in patterns)
    backwards = patterns[::-1]
    ranked = sorted(backwards, key=lambda pattern: pattern.specificity, reverse=True)
    assert [pattern.text for pattern in ranked] == ranking


def test_a_pattern_is_a_value() -> None:
    assert Pattern("a.*") == Pattern("a.*")
    assert len({Pattern("a.*"), Pattern("a.*"), Pattern("a.**")}) == 2
    assert str(Pattern("a.*")) == "a.*"
    assert repr(Pattern("a.*")) == "Pattern(text='a.*')"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Pattern("a").text = "b"  # type: ignore[misc]


SEGMENT = st.sampled_from(["a", "b", "", "*"])
NAME = st.lists(st.sampled_from(["a", "b", "", "c"]), min_size=1, max_size=5).map(".".join).filter(bool)
PATTERN = st.builds(
    lambda segments, rest: ".".join([*segments, *rest]),
    st.lists(SEGMENT, max_size=5),
    st.sampled_from([[], ["**"]]),
).filter(bool)


def matches_by_definition(pattern: list[str], name: list[str]) -> bool:
    if not pattern or not name:
        return pattern in ([], ["**"]) and not name
    if pattern[0] == "**":
        return True
    return pattern[0] in ("*", name[0]) and matches_by_definition(pattern[1:], name[1:])


@given(PATTERN, NAME)
@example("a.**", "a")
def test_matches_what_the_definition_says(text: str, name: str) -> None:
    assert Pattern(text).matches(name) == matches_by_definition(text.split("."), name.split("."))


@given(PATTERN, PATTERN, NAME)
def test_equally_specific_for_a_name_are_the_same(one: str, other: str, name: str) -> None:
    first, second = Pattern(one), Pattern(other)
    if first.matches(name) and second.matches(name):
        assert (first.specificity == second.specificity) == (first == second)


@given(st.text())
def test_any_text_is_a_pattern_or_an_error(text: str) -> None:
    try:
        pattern = Pattern(text)
    except InvalidEventName:
        assert "*" in text or not text
    else:
        assert pattern.matches(text)


def test_hostile_names_and_patterns_take_linear_time() -> None:
    # With backtracking these would not end.
    name = "a." * 100_000 + "b"
    assert not Pattern("*." * 50_000 + "x").matches(name)
    assert not Pattern("*." * 100_000 + "c").matches(name)
    assert Pattern("*." * 100_000 + "b").matches(name)
    assert Pattern("*." * 100_000 + "**").matches(name)
