"""What waits to be shown: bounded, and honest about what it left out."""

from __future__ import annotations

import collections
import dataclasses
from typing import Generic, TypeVar

import trio

__all__ = ["Backlog", "Skipped"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """Stands where items were left out.

    Attributes:
        count: How many.
    """

    count: int


class Backlog(Generic[T]):
    """A queue between those who may not wait, or may, and one that is sometimes slow.

    Args:
        max_size: Bytes that may wait. An item larger than that still fits into an empty queue.
        max_items: Items that may wait.
    """

    def __init__(self, *, max_size: int, max_items: int) -> None:
        self._max_size = max_size
        self._max_items = max_items
        self._items: collections.deque[tuple[int, T, int]] = collections.deque()
        self._size = 0
        self._skipped = 0
        self._ended = False
        self._news = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    def offer(self, item: T, size: int) -> bool:
        """Put an item if there is room, else count it as skipped.

        Args:
            item: What is to be shown.
            size: The bytes it takes.

        Returns:
            Whether there was room.
        """
        if self._is_full(size):
            self._skipped += 1
            return False
        # What was left out until now was left out before this item.
        self._items.append((self._skipped, item, size))
        self._skipped = 0
        self._size += size
        self._news.unpark()
        return True

    async def put(self, item: T, size: int) -> None:
        """Put an item, waiting for room as long as it takes.

        Cancellation: the item was not put.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._is_full(size):
            await self._room.park()
        self.offer(item, size)

    def end(self) -> None:
        """Nothing more will be put; `take` says so once all is taken."""
        self._ended = True
        self._news.unpark_all()

    async def take(self) -> T | Skipped | None:
        """Wait for what is next: an item, or how many were left out before it; ``None`` after `end`.

        Cancellation: takes nothing.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._items:
                skipped, item, size = self._items.popleft()
                if skipped:
                    self._items.appendleft((0, item, size))
                    return Skipped(skipped)
                self._size -= size
                self._room.unpark_all()
                return item
            if self._skipped:
                skipped, self._skipped = self._skipped, 0
                return Skipped(skipped)
            if self._ended:
                return None
            await self._news.park()

    def _is_full(self, size: int) -> bool:
        return bool(self._items) and (len(self._items) >= self._max_items or self._size + size > self._max_size)
