"""What has arrived on one connection and waits for a handler, and what it weighs."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyipc.arrival import Arrival, FullOpening, FullRequest
    from pyipc.connection import Connection
    from pyipc.protocol.codec import Event
    from pyipc.protocol.features import OpenStream
    from pyipc.protocol.messages import Request

__all__ = ["Inbox", "Read"]

# What an item takes in memory besides its bytes; without it, a flood of tiny ones would weigh nothing.
_ITEM_SIZE = 256
# What has never held anything: a deque takes most of a kilobyte as soon as it is made. This one stays empty.
_NOTHING: Any = collections.deque(maxlen=0)


class Read:
    """What was read at once, for as long as some of it waits.

    Its bytes weigh in full until the last of them is taken: to share them out among the items would let a peer hide a
    large one among many that never wait.

    Attributes:
        size: How many bytes were read.
        waiting: How many of the items wait.
        exempt: Bytes of it that the limit does not count: all of them, if there was room when it was read. So one
            message may be as large as its own limits allow, and the limit bounds what piles up behind it.
    """

    __slots__ = ("exempt", "size", "waiting")

    def __init__(self, size: int, exempt: int) -> None:
        self.size: int = size
        self.waiting: int = 0
        self.exempt: int = exempt


class Inbox:
    """Events, in order, and requests, by the numbers of their calls.

    Args:
        connection: Reads on when something was taken and there is room; ends when it is too much.
        high_water_size: Weight below which there is room for more.
        max_size: Weight that must not be exceeded, but by what was read while there was room.

    Attributes:
        events: The events that wait, and what they weigh with; oldest first.
        requests: The requests that wait, likewise.
        size: Bytes of the reads of which something waits, and 256 more for each such item.
        room: The weight below which reading goes on at present; set by whoever pauses it.
        extra_room: What that is where somebody waits for the peer for long.
        read_size: How many bytes the present read has; set by whoever reads.
        read: What is put belongs to it; set to ``None`` with each read.
    """

    __slots__ = (
        "_connection",
        "_exempt",
        "_max_size",
        "events",
        "extra_room",
        "read",
        "read_size",
        "requests",
        "room",
        "size",
    )

    def __init__(self, connection: Connection, *, high_water_size: int, max_size: int) -> None:
        self.room: int = high_water_size
        # A read that began below this must not reach the hard limit by the weight of its items alone.
        self.extra_room: int = max(high_water_size, max_size // 2)
        self._max_size = max_size
        self._connection = connection
        self._exempt = 0
        self.events: collections.deque[tuple[Event | Arrival, Read]] = _NOTHING
        self.read_size: int = 0
        self.read: Read | None = None
        self.requests: dict[int, tuple[Request | FullRequest | OpenStream | FullOpening, Read]] = {}
        self.size: int = 0

    def put_event(self, event: Event | Arrival) -> None:
        """Let an event wait."""
        if self.size >= self._max_size and self._drops():
            return
        if self.events is _NOTHING:
            self.events = collections.deque()
        self.events.append((event, self._grow()))
        self._check()

    def put_request(self, request: Request | FullRequest | OpenStream | FullOpening) -> None:
        """Let a request wait, or the opening of a stream."""
        if self.size >= self._max_size and self._drops():
            return
        self.requests[request.call] = (request, self._grow())
        self._check()

    def _grow(self) -> Read:
        read = self.read
        if read is None:
            size = self.read_size
            read = self.read = Read(size, size if self.size < self.room else 0)
        self.size += _ITEM_SIZE
        if not read.waiting:
            self.size += read.size
            self._exempt += read.exempt
        read.waiting += 1
        return read

    def _check(self) -> None:
        if self.size - self._exempt > self._max_size and self._connection._link.reliable:
            self._connection._on_overflow()

    def _drops(self) -> bool:
        """Drop what there is no room for, if it might as well have been lost on its way; say whether it was."""
        if self._connection._link.reliable:
            return False
        self._connection._on_overflow()
        return True

    def shed(self, read: Read) -> None:
        """One item of a read waits no more."""
        if not self.size:
            return  # all was forgotten while it was being handled
        read.waiting -= 1
        self.size -= _ITEM_SIZE
        if not read.waiting:
            self.size -= read.size
            self._exempt -= read.exempt
        if self.size < self.room:
            self._connection._resume_reading()

    def clear(self) -> None:
        """Forget everything."""
        self.events.clear()
        self.requests.clear()
        self.size = self._exempt = 0
