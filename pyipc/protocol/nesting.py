"""How deep JSON text is nested, found without reading it: all of it runs at the speed of memory."""

from __future__ import annotations

from typing import Final

from pyipc.errors import RemoteProtocolError

__all__ = [
    "BRACES_AS_BRACKETS",
    "brackets_outside_strings",
    "has_few_openers",
    "nested_too_deep",
    "too_deep",
    "without_escapes",
]

#: For `bytes.translate`: one kind of brackets in the place of two.
BRACES_AS_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")

_ALL_BUT_BRACKETS_AND_QUOTES = bytes(byte for byte in range(256) if byte not in b'[]{}"')
# From this size on, in bytes, a loop around `find` is faster than `count`.
_LONG = 4_096


def too_deep(frame: bytes, max_depth: int) -> bool:
    """Whether JSON text is nested deeper than ``max_depth``; maybe also where it is not JSON at all."""
    if has_few_openers(frame, max_depth):
        return False
    brackets = brackets_outside_strings(without_escapes(frame)).translate(BRACES_AS_BRACKETS)
    # Every pass removes the innermost pairs, so what is left after so many is deeper, or no pair.
    for _ in range(max_depth):
        if not brackets:
            return False
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            return True
        brackets = shorter
    return bool(brackets)


def nested_too_deep(max_depth: int) -> RemoteProtocolError:
    """What is wrong with a frame that is `too_deep`."""
    return RemoteProtocolError("depth", f"the peer sent JSON nested deeper than {max_depth} levels (max_depth)")


def without_escapes(text: bytes) -> bytes:
    """The text, as long as it was, where every quote begins or ends a string."""
    return text.replace(b"\\\\", b"..").replace(b'\\"', b"..") if b"\\" in text else text


def brackets_outside_strings(plain: bytes, *, in_string: bool = False) -> bytes:
    """All brackets that are not in strings.

    Args:
        plain: Text `without_escapes`.
        in_string: Whether it begins inside of a string.
    """
    marks = plain.translate(None, _ALL_BUT_BRACKETS_AND_QUOTES)
    # Two quotes side by side change nothing for all that stands behind them, whichever strings they are of.
    marks = marks.replace(b'""', b"")
    return b"".join(marks.split(b'"')[in_string::2])


def has_few_openers(frame: bytes, limit: int) -> bool:
    """Whether there are at most so many opening brackets in a frame, inside of strings or not."""
    if len(frame) < _LONG:
        return frame.count(b"[") + frame.count(b"{") <= limit
    # `count` looks at one byte after the other, `find` at many at once.
    for opener in (b"[", b"{"):
        position = frame.find(opener)
        while position >= 0:
            limit -= 1
            if limit < 0:
                return False
            position = frame.find(opener, position + 1)
    return True
