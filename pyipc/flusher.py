"""Writing once a scheduler turn what was queued during it.

A message that is emitted is only put in its outbox. The first one wakes the flusher, which runs
when the emitting task next gives way and by then finds everything that was emitted meanwhile: one
system call for all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from pyipc.outbox import Outbox

__all__ = ["Flusher"]


class Flusher:
    """Flushes the outboxes of many connections, from one task."""

    __slots__ = ("_dirty", "_idle")

    def __init__(self) -> None:
        self._dirty: list[Outbox] = []
        self._idle = trio.lowlevel.ParkingLot()

    def add(self, outbox: Outbox) -> None:
        """Flush an outbox at the next scheduler turn."""
        self._dirty.append(outbox)
        if len(self._dirty) == 1:
            self._idle.unpark()

    async def run(self) -> None:
        """Flush what is added, until cancelled."""
        while True:
            if self._dirty:
                await trio.lowlevel.checkpoint()
            else:
                await self._idle.park()
            dirty, self._dirty = self._dirty, []
            for outbox in dirty:
                outbox.flush_nowait()
