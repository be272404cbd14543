"""Where a long JSON text can be cut, found without reading it.

A comma outside of strings stands between two complete values, whatever they are. So the text can be cut there, and each
piece be read on its own, if it is known which containers are open at the cut. Strings and brackets are found as
`codec.too_deep` does: in blocks, at the speed of memory, and no byte more than a fixed number of times.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

from pyipc.errors import RemoteProtocolError
from pyipc.protocol.codec import has_few_openers, has_pairs_within, nested_too_deep

__all__ = ["Cut", "Outline"]

_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


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
        "_depth",
        "_in_string",
        "_is_json",
        "_matches",
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
        self._depth = 0
        self._open = b""
        self._matches = True
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
        if self._is_json:
            self._look_at(block)
        if end == size:
            self._finish()

    def _check_utf8(self, block: bytes, *, is_last: bool) -> None:
        if self._not_utf8 is None:
            try:
                self._decoder.decode(block, is_last)
            except UnicodeDecodeError as error:
                reason = f"the peer sent text that is not UTF-8: {error.reason}"
                self._not_utf8 = RemoteProtocolError("utf8", reason)

    def _look_at(self, block: bytes) -> None:
        if b"\\" in block:
            block = block.replace(b"\\\\", b"..").replace(b'\\"', b"..")
        pieces = block.split(b'"')
        first = int(self._in_string)  # every other piece is outside of strings, from this one on
        self._in_string ^= len(pieces) % 2 == 0
        outside = pieces[first::2]
        index, comma = self._find_comma(pieces, first)
        if index >= 0:
            behind = pieces[index:]
            position = self._position - sum(map(len, behind)) - len(behind) + 1 + comma
            last = self.cuts[-1].position if self.cuts else 0
            if position - last >= self._block_size // 2:  # nearer, a long string behind it would be copied for little
                self._follow([*pieces[first:index:2], behind[0][:comma]])
                self.cuts.append(Cut(position, self._open))
                outside = [behind[0][comma:], *behind[2::2]]
        self._follow(outside)

    def _find_comma(self, pieces: list[bytes], first: int) -> tuple[int, int]:
        """Which piece has the last comma outside of strings, and where; ``(-1, -1)`` if there is none."""
        for index in range(len(pieces) - 1 - (len(pieces) - 1 - first) % 2, -1, -2):
            comma = pieces[index].rfind(b",")
            if comma >= 0:
                return index, comma
        return -1, -1

    def _follow(self, outside: list[bytes]) -> None:
        """Note which containers are open after what stands outside of strings."""
        brackets = b"".join(outside).translate(None, _NO_BRACKETS)
        if not brackets or not self._is_json:
            return
        square = brackets.translate(_AS_SQUARE)
        depth = self._depth + square.count(b"[") - square.count(b"]")
        if not has_pairs_within(b"[" * self._depth + square + b"]" * depth, self._max_depth):
            self._refuse()
        self._depth = depth
        if self._matches:
            self._open = _unpaired(self._open + brackets)
            self._matches = not self._open.strip(b"[{")

    def _refuse(self) -> None:
        """What is nested too deep, and what has brackets without a partner, are told apart as `codec.too_deep` does."""
        if not has_few_openers(self._text, self._max_depth):
            raise nested_too_deep(self._max_depth)
        self._is_json = False

    def _finish(self) -> None:
        if self._depth:
            self._refuse()
        if self._not_utf8 is not None:
            raise self._not_utf8
        if not (self._is_json and self._matches and all(cut.open for cut in self.cuts)):
            raise RemoteProtocolError("json", "the peer sent a frame that is not JSON: its brackets do not match")
        self.is_complete = True


def _unpaired(brackets: bytes) -> bytes:
    """What is left when all pairs are taken away."""
    size = -1
    while size != len(brackets):
        size = len(brackets)
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return brackets
