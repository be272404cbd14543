"""Name patterns: which events and topics a handler or a subscription is meant for.

Owns the one grammar for both. Knows neither handlers nor subscriptions.

A name is any text that is not empty; the dots in it divide it into segments, which may be empty.
A pattern is a name in which whole segments may be wildcards:

* ``*`` stands for exactly one segment: ``orders.*`` matches ``orders.new``, not ``orders`` and not
  ``orders.new.eu``.
* ``**``, as the last segment, stands for all the rest, which may be nothing: ``orders.**`` matches
  ``orders``, ``orders.new`` and ``orders.new.eu``; ``**`` alone matches every name. The rest may be
  nothing because whoever asks for all about orders means the plain ``orders`` too, as with ``#`` in
  AMQP and MQTT; ``orders.*`` is there for whoever does not.
"""

from __future__ import annotations

import dataclasses

from pyipc.errors import InvalidEventName

__all__ = ["Pattern"]

#: How much a segment says, from least to most. The end of a pattern ranks above ``**``, because a
#: pattern that stops says more than one that goes on at will.
_REST, _END, _ONE, _LITERAL = range(4)


@dataclasses.dataclass(frozen=True, slots=True)
class Pattern:
    """A valid pattern.

    Attributes:
        text: The pattern as it was written.
        is_literal: Whether it has no wildcard, so that it matches its own text alone.
        specificity: Sorts patterns that match the same name: the greater says more. They are
            compared segment by segment from the left, a literal above ``*`` above ``**``; so the
            name itself is above every pattern with a wildcard. Two that match the same name and
            are equal in this are the same pattern.
        segments: Those before ``**``, or all of them; ``None`` stands for ``*``.
        takes_rest: Whether ``**`` is the last segment.

    Raises:
        InvalidEventName: The text is no pattern; the message says why.
    """

    text: str
    is_literal: bool = dataclasses.field(init=False, repr=False, compare=False)
    specificity: tuple[int, ...] = dataclasses.field(init=False, repr=False, compare=False)
    segments: tuple[str | None, ...] = dataclasses.field(init=False, repr=False, compare=False)
    takes_rest: bool = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        segments = _split(self.text)
        takes_rest = segments[-1] == "**"
        if takes_rest:
            segments.pop()
        is_literal = not takes_rest and "*" not in segments
        ranks = [_ONE if segment == "*" else _LITERAL for segment in segments]
        # The only way to set a field of a frozen dataclass.
        assign = object.__setattr__
        assign(self, "is_literal", is_literal)
        assign(self, "specificity", (*ranks, _REST if takes_rest else _END))
        assign(self, "segments", tuple(None if segment == "*" else segment for segment in segments))
        assign(self, "takes_rest", takes_rest)

    def __str__(self) -> str:
        return self.text

    def matches(self, name: str) -> bool:
        """Whether ``name`` is one that the pattern means. Takes time linear in the length of both."""
        if self.is_literal:
            return name == self.text
        wanted = self.segments
        # No more pieces than can matter, however many dots a hostile name has.
        parts = name.split(".", len(wanted))
        if len(parts) < len(wanted) or (len(parts) > len(wanted) and not self.takes_rest):
            return False
        return all(segment is None or segment == part for segment, part in zip(wanted, parts, strict=False))


def _split(text: str) -> list[str]:
    if not isinstance(text, str):
        raise InvalidEventName(text, f"a name or pattern is text, such as 'orders.new', and not {_shortened(text)}")
    if not text:
        raise InvalidEventName(text, "a name or pattern must not be empty; '**' matches every name")
    segments = text.split(".")
    for segment in segments:
        if "*" in segment and segment not in ("*", "**"):
            raise InvalidEventName(
                text,
                f"{_shortened(text)} has a '*' inside the segment {_shortened(segment)}; a wildcard stands for "
                "whole segments, so write '*' or '**' between the dots and nothing beside it",
            )
    if "**" in segments[:-1]:
        raise InvalidEventName(
            text,
            f"{_shortened(text)} goes on after '**', which stands for all the rest; put it last, "
            "or write '*' for exactly one segment",
        )
    return segments


def _shortened(value: object) -> str:
    """How a message quotes a value that may be very long."""
    quoted = repr(value)
    return quoted if len(quoted) <= 100 else f"{quoted[:100]}..."
