"""Writing once a scheduler turn what was queued during it.

A message that is emitted is only put in its outbox. The first one wakes the flusher, which runs
when the emitting task next gives way and by then finds everything that was emitted meanwhile: one
system call for all of it.

When a broadcast has filled the outboxes of a thousand peers, the flusher writes to some of them a turn.
So nobody waits for all of it, and what is broadcast next goes to the others in the same write.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.outbox import Outbox

__all__ = ["Flusher"]

# A write takes microseconds: so many keep everybody else waiting for less than a millisecond.
_OUTBOXES_A_TURN = 64


class Flusher:
    """Flushes the outboxes of many connections, from one task.

    Attributes:
        now: Trio's time; once the flusher runs, by the shortest way.
    """

    __slots__ = ("_dirty", "_idle", "now")

    def __init__(self) -> None:
        self._dirty: collections.deque[Outbox] = collections.deque()
        self._idle = trio.lowlevel.ParkingLot()
        self.now: Callable[[], float] = trio.current_time

    def add(self, outbox: Outbox) -> None:
        """Flush an outbox at the next scheduler turn, or as soon as its turn comes."""
        self._dirty.append(outbox)
        if len(self._dirty) == 1:
            self._idle.unpark()

    async def run(self) -> None:
        """Flush what is added, until cancelled."""
        self.now = trio.lowlevel.current_clock().current_time
        dirty = self._dirty
        while True:
            if dirty:
                await trio.lowlevel.checkpoint()
            else:
                await self._idle.park()
            for _ in range(min(len(dirty), _OUTBOXES_A_TURN)):
                dirty.popleft().flush_nowait()
