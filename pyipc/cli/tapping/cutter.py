"""Cutting what goes past into frames, for showing them: in constant memory, whatever their size."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Budget", "Cutter", "Piece"]


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A frame, or the beginning of one.

    Attributes:
        data: Its bytes, or the first of them if it is larger than is kept.
        size: How many bytes it has altogether, without its delimiter.
        finished: Whether its delimiter has come.
    """

    data: bytes
    size: int
    finished: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether ``data`` is all of it."""
        return self.finished and len(self.data) == self.size


class Budget:
    """Bytes that all cutters together may keep of frames that have not ended.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, wanted: int) -> int:
        """Take so many bytes, or those that are left; return how many."""
        taken = min(wanted, self._left)
        self._left -= taken
        return taken

    def give_back(self, size: int) -> None:
        """Let others have them."""
        self._left += size


class Cutter:
    """Divides one direction of a connection.

    Args:
        delimiter: The byte that ends each frame.
        max_kept_size: Bytes of each frame that are kept; the rest is counted.
        budget: Shared with other cutters; less is kept of each frame while it is used up.
    """

    def __init__(self, delimiter: bytes, max_kept_size: int, budget: Budget) -> None:
        self._delimiter = delimiter
        self._max_kept_size = max_kept_size
        self._budget = budget
        self._kept = bytearray()
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """The frames that end in ``chunk``."""
        start = 0
        while (end := chunk.find(self._delimiter, start)) >= 0:
            self._keep(chunk, start, end)
            yield self._take(finished=True)
            start = end + 1
        self._keep(chunk, start, len(chunk))

    def rest(self) -> Piece | None:
        """What has begun and will not be finished, if there is something."""
        return self._take(finished=False) if self._size else None

    def drop(self) -> None:
        """Forget what is kept, at the end of a connection."""
        self._take(finished=False)

    def _keep(self, chunk: bytes, start: int, end: int) -> None:
        # What lacks a part is not continued, so that what is kept is always a beginning.
        if len(self._kept) == self._size:
            room = self._budget.take(min(end - start, self._max_kept_size - len(self._kept)))
            self._kept += chunk[start : start + room]
        self._size += end - start

    def _take(self, *, finished: bool) -> Piece:
        piece = Piece(bytes(self._kept), self._size, finished)
        self._budget.give_back(len(self._kept))
        self._kept.clear()
        self._size = 0
        return piece
