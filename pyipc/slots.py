"""The places in which requests of one connection are handled at the same time."""

from __future__ import annotations

import contextvars
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyipc.responder import Responder

__all__ = ["Slot", "current_slot"]

#: The slot of the handler that this task belongs to.
current_slot: contextvars.ContextVar[Slot | None] = contextvars.ContextVar("pyipc_slot", default=None)


class Slot:
    """One of the places in which requests of a connection are handled at the same time.

    Args:
        responder: Whose it is.
        size: Bytes of what is attached to the request, which its handler holds.
    """

    __slots__ = ("_ended", "_responder", "_size", "_waiters")

    def __init__(self, responder: Responder, size: int = 0) -> None:
        self._responder = responder
        self._size = size
        self._ended = False
        # A handler may wait in several tasks at once; it lends its slot while any of them does.
        self._waiters = 0
        responder.slots_used += 1
        responder.held_size += size

    def belongs_to(self, responder: Responder) -> bool:
        """Whether it is one of a connection's, and its handler is at work."""
        return responder is self._responder and not self._ended

    @contextmanager
    def given_up(self, responder: Responder) -> Iterator[None]:
        """Lend the slot to others while its handler waits for the connection it came from."""
        if responder is not self._responder or self._ended:
            yield
            return
        if self._waiters == 0:
            self._free()
        self._waiters += 1
        try:
            yield
        finally:
            self._waiters -= 1
            if self._waiters == 0 and not self._ended:
                # Taken back without waiting, even beyond the limit: waiting here could be the deadlock.
                self._responder.slots_used += 1
                self._responder.held_size += self._size

    def release(self) -> None:
        """Give the slot back for good: its handler is done. May be called more than once."""
        if self._ended:
            return
        self._ended = True
        if self._waiters == 0:
            self._free()

    def _free(self) -> None:
        self._responder.slots_used -= 1
        self._responder.held_size -= self._size
        self._responder.start_queued()
