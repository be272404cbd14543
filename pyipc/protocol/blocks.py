"""Reading one large frame in blocks, so that nobody waits for the whole of it.

What decodes JSON keeps the processor until it is done, in whatever thread it is called. So a large frame is first
looked at for places where it can be cut (`outline`); then each block is decoded on its own, and what it says is put
into the whole. To be read on its own, a block gets around it what it needs for that: in front of it the beginnings of
the containers that are open there, the innermost with a value already, since a comma came before; and behind it one
more value and the ends of those that are open then. So every byte is read where it stands, and a comma too many or too
few, or a bracket of the wrong kind, is wrong here too.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pyipc.errors import RemoteProtocolError
from pyipc.protocol import codec
from pyipc.protocol.outline import Outline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyipc.protocol.codec import Event

__all__ = ["BLOCK_SIZE", "LargeFrame"]

#: Bytes that are dealt with at once: the worst that can stand in them takes some ten milliseconds.
BLOCK_SIZE: Final = 32_768

_Container: TypeAlias = "list[Any] | dict[str, Any]"

# A key that a peer is not likely to send, and as often as is needed one that it cannot have sent.
_UNLIKELY = b"\x7f"
_PARTNERS = bytes.maketrans(b"[{", b"]}")


class LargeFrame:
    """One frame that is being read.

    Args:
        frame: The frame, and maybe its delimiter.
        size: How many bytes of that are the frame.
        max_depth: Levels of nesting allowed.
        block_size: Bytes that are dealt with at once.

    Attributes:
        size: Bytes of the frame.
    """

    __slots__ = ("_block_size", "_cut", "_frame", "_open", "_outline", "_spine", "_start", "size")

    def __init__(self, frame: bytes, size: int, max_depth: int, block_size: int) -> None:
        self._frame = memoryview(frame)
        self._block_size = block_size
        self._outline = Outline(frame, size, max_depth, block_size)
        # How many cuts are behind us, where the next block starts, and what is open there: as brackets, and as what has
        # been read of it.
        self._cut = 0
        self._start = 0
        self._open = b""
        self._spine: list[_Container] = []
        self.size: int = size

    def go_on(self) -> Event | None:
        """Deal with one more block.

        Returns:
            The event, once all of it was read.

        Raises:
            RemoteProtocolError: As `codec.decode`, or with the code ``"depth"``.
        """
        outline = self._outline
        if not outline.is_complete:
            outline.go_on()
            if outline.is_complete and self._is_nearly_one_block():
                outline.cuts.clear()  # it would be copied, and others would wait as long
            return None
        if not outline.cuts:
            return codec.decode(self._frame[: self.size])
        if self._cut < len(outline.cuts):
            cut = outline.cuts[self._cut]
            self._read(cut.position, cut.open)
            self._cut += 1
            return None
        return codec.event_of(self._read(self.size, b""))

    def _is_nearly_one_block(self) -> bool:
        """Whether a single text, say, is nearly all of the frame."""
        borders = [0, *(cut.position for cut in self._outline.cuts), self.size]
        widest = max(end - start for start, end in itertools.pairwise(borders))
        return self.size - widest <= self._block_size

    def _read(self, end: int, open_then: bytes) -> Any:
        """Read the block up to there; return the whole, as far as it is known by then."""
        block = self._frame[self._start : end]
        hold, mark = _keys_not_in(bytes(block))
        text = b"".join((_before(self._open, hold), block, _behind(open_then, mark)))
        try:
            piece = codec.read_json(text)
        except RemoteProtocolError as error:
            where = f"between byte {self._start:,} and byte {end:,}"
            raise RemoteProtocolError(error.code, f"{str(error).partition(' (')[0]}, {where}") from error
        path = _path_to(piece, len(open_then), mark.decode())
        whole = self._add(piece, path, hold.decode())
        self._start = end + 1
        self._open = open_then
        self._spine = path
        return whole

    def _add(self, piece: Any, path: list[_Container], hold: str) -> Any:
        """Put what a block says into the containers that were open before it; put these into its path."""
        for level, known in enumerate(self._spine):
            if level < len(path) and path[level] is piece:
                path[level] = known
            if isinstance(known, list):
                inner = piece[0]
                known += piece[1:]
            else:
                inner = piece.pop(hold)
                known.update(piece)
            piece = inner
        return self._spine[0] if self._spine else piece


def _keys_not_in(block: bytes) -> tuple[bytes, bytes]:
    """Two keys that are none in a block, however they might be written there."""
    count = 1
    if _UNLIKELY in block or b"\\u" in block:
        count += block.count(_UNLIKELY) + block.count(b"\\u")
    return _UNLIKELY * count, _UNLIKELY * (count + 1)


def _before(containers: bytes, hold: bytes) -> bytes:
    """What makes a block go on where containers are open: their beginnings, the innermost with a value."""
    if not containers:
        return b""
    return containers.replace(b"{", b'{"%b":' % hold) + b"0,"


def _behind(containers: bytes, mark: bytes) -> bytes:
    """What makes a block end where containers are open: another value, which marks the innermost, and their ends."""
    if not containers:
        return b""
    value = b',"%b":0' if containers.endswith(b"{") else b',"%b"'
    return value % mark + containers.translate(_PARTNERS)[::-1]


def _path_to(piece: Any, levels: int, mark: str) -> list[_Container]:
    """The containers that are open at the end of a block, outermost first; takes the mark out of the last one.

    Each of them is the last value of the one before, unless its key came before in the same object: then it stands
    where the key stood first. So the mark is looked for, from behind.
    """
    path: list[_Container] = []
    ways: list[Iterator[Any]] = [iter((piece,))] if levels else []
    while ways:
        node = next((node for node in ways[-1] if isinstance(node, list | dict)), None)
        if node is None:
            ways.pop()
            continue
        path[len(ways) - 1 :] = [node]
        if len(path) < levels:
            ways.append(reversed(node if isinstance(node, list) else node.values()))
        elif isinstance(node, dict):
            if node.pop(mark, None) is not None:
                break
        elif node and node[-1] == mark:
            node.pop()
            break
    return path
