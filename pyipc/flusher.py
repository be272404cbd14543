"""Writing once a scheduler turn what was queued during it.

A message that is emitted is only put in its outbox. The first one wakes the flusher, which runs
when the emitting task next gives way and by then finds everything that was emitted meanwhile: one
system call for all of it.

What is broadcast may take longer: when it has filled the outboxes of a thousand peers, the flusher
writes to some of them a turn. So nobody else waits for all of it, and what is broadcast next goes to
the others in the same write.
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

    __slots__ = ("_dirty", "_idle", "_later", "now")

    def __init__(self) -> None:
        self._dirty: list[Outbox] = []
        self._later: collections.deque[Outbox] = collections.deque()
        self._idle = trio.lowlevel.ParkingLot()
        self.now: Callable[[], float] = trio.current_time

    def __len__(self) -> int:
        return len(self._dirty) + len(self._later)

    def add(self, outbox: Outbox) -> None:
        """Flush an outbox, which is not here already, at the next scheduler turn."""
        self._dirty.append(outbox)
        if len(self) == 1:
            self._idle.unpark()

    def add_later(self, outbox: Outbox) -> None:
        """Flush an outbox, which is not here already, when those have been flushed that were added before."""
        self._later.append(outbox)
        if len(self) == 1:
            self._idle.unpark()

    async def run(self) -> None:
        """Flush what is added, until cancelled."""
        self.now = trio.lowlevel.current_clock().current_time
        while True:
            if len(self):
                await trio.lowlevel.checkpoint()
            else:
                await self._idle.park()
            self._flush()

    def _flush(self) -> None:
        # Not in `run`, whose variables would keep the last connection alive for as long as nothing is sent.
        dirty, self._dirty = self._dirty, []
        for outbox in dirty:
            outbox.is_queued = False
            outbox.flush_nowait()
        written = 0
        while self._later and written < _OUTBOXES_A_TURN:
            outbox = self._later.popleft()
            outbox.is_queued_later = False
            written += len(outbox.frames) > 0  # somebody else may have flushed it meanwhile
            outbox.flush_nowait()
