"""Where a long JSON text can be cut, found without reading it.

A comma outside of strings stands between two complete values, whatever they are. So the text can be cut there, and each
piece be read on its own, if it is known which containers are open at the cut. Strings and brackets are found as
`nesting.too_deep` does: in blocks, at the speed of memory, and no byte more than a fixed number of times.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

from pyipc.errors import RemoteProtocolError
from pyipc.protocol.nesting import (
    brackets_outside_strings,
    has_few_openers,
    nested_too_deep,
    without_escapes,
)

__all__ = ["Cut", "Outline"]

# How often the innermost pairs are taken away before brackets are looked at one by one: few are left of most texts.
_PASSES = 4


class Cut(NamedTuple):
    """Where a text can be cut.

    Attributes:
        position: Where the comma stands.
        open: The opening brackets of the containers that it stands in, outermost first.
    """

    position: int
    open: bytes


class Outline:
    """Looks at one text, block by block.

    Args:
        text: The text, and maybe something behind it.
        size: How many bytes of that are the text.
        max_depth: Levels of nesting allowed.
        block_size: About how far the cuts are to be apart, in bytes.

    Attributes:
        cuts: Those that were found, in order.
        is_complete: Whether the whole text was looked at.
    """

    __slots__ = (
        "_block_size",
        "_decoder",
        "_in_string",
        "_is_json",
        "_max_depth",
        "_not_utf8",
        "_open",
        "_position",
        "_size",
        "_text",
        "cuts",
        "is_complete",
    )

    def __init__(self, text: bytes, size: int, max_depth: int, block_size: int) -> None:
        self._text = text
        self._size = size
        self._max_depth = max_depth
        self._block_size = block_size
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._not_utf8: RemoteProtocolError | None = None
        self._position = 0
        self._in_string = False
        self._open = bytearray()
        # Once it is known that the text is none, it remains to be found out if it is UTF-8 at least.
        self._is_json = True
        self.cuts: list[Cut] = []
        self.is_complete: bool = False

    def go_on(self) -> None:
        """Look at one more block.

        Raises:
            RemoteProtocolError: What decoding the text at once would find too. It is nested too deep (``"depth"``),
                which is told at once; it is not UTF-8 (``"utf8"``), or its brackets do not match (``"json"``), which is
                told at the end.
        """
        start, size = self._position, self._size
        end = min(start + self._block_size, size)
        block = self._text[start:end]
        if end < size and (len(block) - len(block.rstrip(b"\\"))) % 2:
            end += 1  # a backslash and what it escapes stay together
            block = self._text[start:end]
        self._position = end
        self._check_utf8(block, is_last=end == size)
        # Of a long string most blocks have nothing but its text: then to look for more would take longer than decoding.
        if self._is_json and not (self._in_string and b'"' not in block):
            self._look_at(block)
        if end == size:
            self._finish()

    def _check_utf8(self, block: bytes, *, is_last: bool) -> None:
        if self._not_utf8 is None and not (block.isascii() and not self._decoder.getstate()[0]):
            try:
                self._decoder.decode(block, is_last)
            except UnicodeDecodeError as error:
                reason = f"the peer sent text that is not UTF-8: {error.reason}"
                self._not_utf8 = RemoteProtocolError("utf8", reason)

    def _look_at(self, block: bytes) -> None:
        plain = without_escapes(block)
        was_in_string = self._in_string
        self._in_string ^= plain.count(b'"') % 2 == 1
        comma = _last_comma(plain, in_string=self._in_string)
        position = self._position - len(plain) + comma
        last = self.cuts[-1].position if self.cuts else 0
        if comma < 0 or position - last < self._block_size // 2:  # so near, a long string behind it would be copied
            self._follow(brackets_outside_strings(plain, in_string=was_in_string))
            return
        self._follow(brackets_outside_strings(plain[:comma], in_string=was_in_string))
        self.cuts.append(Cut(position, bytes(self._open)))
        self._follow(brackets_outside_strings(plain[comma:]))

    def _follow(self, brackets: bytes) -> None:
        """Note which containers are open after some more brackets."""
        left = brackets
        for _ in range(_PASSES):
            left = left.replace(b"[]", b"").replace(b"{}", b"")
        opened, max_depth = self._open, self._max_depth
        # Each of the passes may have taken two levels away, the innermost of one kind and then of the other.
        if len(opened) + len(left) + 2 * _PASSES > max_depth:
            left = brackets
        for bracket in left:
            if bracket in b"[{":
                opened.append(bracket)
                if len(opened) > max_depth:
                    self._refuse()
            elif opened:
                opened.pop()  # whether it is of the same kind is seen when the block is read
            else:
                self._refuse()
            if not self._is_json:
                return

    def _refuse(self) -> None:
        """Tell apart what is nested too deep and what has brackets without partners, as `nesting.too_deep` does."""
        if not has_few_openers(self._text, self._max_depth):
            raise nested_too_deep(self._max_depth)
        self._is_json = False

    def _finish(self) -> None:
        if self._open:
            self._refuse()
        if self._not_utf8 is not None:
            raise self._not_utf8
        if not (self._is_json and all(cut.open for cut in self.cuts)):
            raise RemoteProtocolError("json", "the peer sent a frame that is not JSON: its brackets do not match")
        self.is_complete = True


def _last_comma(plain: bytes, *, in_string: bool) -> int:
    """Where the last comma outside of strings stands, -1 if there is none; ``in_string`` says how the block ends."""
    end = len(plain)
    while end >= 0:
        quote = plain.rfind(b'"', 0, end)
        if not in_string:
            comma = plain.rfind(b",", quote + 1, end)
            if comma >= 0:
                return comma
        end = quote
        in_string = not in_string
    return -1
