"""What waits to be sent to one peer, and the only code that writes to its link.

User tasks never write: they append whole frames, so cancelling one of them cannot tear a frame.
Bytes leave in one of two ways. `flush_nowait` hands the link what it takes at once, which is nearly
always everything; where it does not take everything, a task is started that waits for the rest and
ends with it.
"""

from __future__ import annotations

import collections
import itertools
import logging
import math
from typing import TYPE_CHECKING

import trio

from pyipc.errors import ConnectionLost
from pyipc.protocol.parcels import JOINED_SIZE, Parcel, SmallParcel, is_control, with_frame
from pyipc.protocol.traces import is_traced, untraced

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.connection import Connection
    from pyipc.flusher import Flusher
    from pyipc.protocol.parcels import Frame
    from pyipc.transports.port import Link

__all__ = ["SHARE_SIZE", "STREAM_WRITE_SIZE", "STRIDE", "Outbox"]

logger: logging.Logger = logging.getLogger("pyipc.connection")

#: Of what is sent in answer to a batch, so many bytes go at once, rather than all of it at the end: the peer can deal
#: with them while the rest of the batch is dealt with here.
SHARE_SIZE = 2_048

#: Frames are joined into writes of about this size on a stream. What is being written when a link breaks is lost, so a
#: larger size would lose more. What has several parts is larger, and so is never joined.
STREAM_WRITE_SIZE = JOINED_SIZE
#: Of what the link has to be waited for, so many bytes at a time, so that it is seen whether the peer takes any.
STRIDE = 256 * 1024
# What a frame takes in the queue, be its bytes shared or not.
_PLACE_SIZE = 8
# What has never held anything: a deque takes most of a kilobyte as soon as it is made. This one stays empty.
_NOTHING: collections.deque[Frame] = collections.deque(maxlen=0)


class Outbox:
    """Frames for one peer, in order.

    Args:
        link: Where they go.
        flusher: Who flushes at the end of a scheduler turn.
        write_size: Bytes up to which frames are joined; a larger frame is written by itself, uncopied.
        high_water_size: Bytes above which senders wait.
        max_size: Bytes above which what cannot wait is refused.
        spawn: Starts a task that lives as long as the connection.
        connection: Is told when the link takes nothing more, or nothing for now, and when much piles up.

    Attributes:
        frames: What waits, in order. While something does, a sender may append to it, and add to `size`, by itself.
        size: Bytes waiting.
        common: How many of them, at most, are the same bytes in the outboxes of others: of what is sent to many.
        is_queued: Whether the flusher has it for the next turn.
        is_queued_later: Whether the flusher has it for one of the next.
        corked: Whether the owner will flush by itself before long.
        shared: Bytes handed to the link since it was corked, which a sender that goes on and on must count as well.
        direct: Whether nothing follows, for now, that could go in the same write as an answer.
        finished: Whether the peer was told that nothing follows, while it may still send.
        last_sent: When bytes last left, in trio's time.
        bytes_sent: Bytes handed to the link.
    """

    __slots__ = (
        "_connection",
        "_error",
        "_flusher",
        "_head_sent",
        "_in_flight",
        "_is_last",
        "_link",
        "_lost_events",
        "_room",
        "_spawn",
        "_write_size",
        "_writing",
        "bytes_sent",
        "common",
        "corked",
        "direct",
        "finished",
        "frames",
        "high_water_size",
        "is_queued",
        "is_queued_later",
        "last_sent",
        "max_size",
        "shared",
        "size",
    )

    def __init__(
        self,
        link: Link,
        flusher: Flusher,
        *,
        write_size: int = STREAM_WRITE_SIZE,
        high_water_size: int,
        max_size: int,
        spawn: Callable[..., None],
        connection: Connection,
    ) -> None:
        self._link = link
        self._flusher = flusher
        self._spawn = spawn
        self._connection = connection
        self._write_size = write_size
        self._head_sent = 0
        self._in_flight = 0
        self._lost_events = 0
        self._writing = False
        self._is_last = False
        self._error: ConnectionLost | None = None
        self._room: trio.lowlevel.ParkingLot | None = None
        self.frames: collections.deque[Frame] = _NOTHING
        self.high_water_size: int = high_water_size
        self.max_size: int = max_size
        self.size: int = 0
        self.common: int = 0
        self.corked: bool = False
        self.direct: bool = False
        self.finished: bool = False
        self.is_queued: bool = False
        self.is_queued_later: bool = False
        self.shared: int = 0
        self.last_sent: float = -math.inf
        self.bytes_sent: int = 0

    def __len__(self) -> int:
        return len(self.frames)

    def push(self, frame: Frame) -> None:
        """Append a frame, however full the outbox is.

        Raises:
            ConnectionLost: Nothing more can be sent.
        """
        if self._error is not None:
            raise self._lost()
        if self.frames:
            self.frames.append(frame)  # whoever flushes what is there takes it along
            self.size += len(frame)
        elif not self._put_first(frame) and not self.is_queued:
            self.is_queued = True
            self._flusher.add(self)

    def push_later(self, frame: Frame) -> None:
        """Append a frame of which there are many for as many peers: it need not go at the next turn."""
        if self._error is not None:
            raise self._lost()
        self.common += len(frame)
        if self.frames:
            self.frames.append(frame)
            self.size += len(frame)
        elif not self._put_first(frame) and not self.is_queued and not self.is_queued_later:
            self.is_queued_later = True
            self._flusher.add_later(self)

    def _put_first(self, frame: Frame) -> bool:
        """Put a frame into the empty outbox; say whether somebody is going to flush by himself."""
        if self.frames is _NOTHING:
            self.frames = collections.deque()
        self.frames.append(frame)
        self.size += len(frame)
        return self.corked or self._writing

    def push_now(self, frame: bytes, now: float) -> None:
        """Append a frame and hand the link what it takes: for a sender that is about to wait.

        Unlike `push` this never wakes the flusher, whose turn would cost more than the frame.

        Args:
            frame: The frame.
            now: Trio's time, which whoever waits knows already.

        Raises:
            ConnectionLost: Nothing more can be sent.
        """
        if self._error is not None:
            raise self._lost()
        if self.frames:
            self.frames.append(frame)
            self.size += len(frame)
            self.flush_nowait()
            return
        # The usual case, without the queue.
        try:
            sent = self._link.send_nowait(frame)
        except Exception as error:
            self.frames = collections.deque([frame])
            self.size += len(frame)
            self._fail_by(error)
            return
        if sent:
            self.last_sent = now
            self.bytes_sent += sent
        if sent < len(frame):
            self.frames = collections.deque([frame])
            self._head_sent = sent
            self.size += len(frame) - sent
            self._write_later()

    def push_ahead(self, frames: bytes) -> None:
        """Hand an unreliable link what should not wait behind what does; lost if there is no room for it at all."""
        if not frames or self._error is not None:
            return
        try:
            sent = self._link.send_nowait(frames)
        except Exception as error:
            self._fail_by(error)
            return
        self.bytes_sent += sent
        if not sent:
            self.offer(frames)

    def offer(self, frame: Frame) -> bool:
        """Append a frame unless that would exceed the cap; say whether it was appended.

        An empty outbox takes any frame: the cap bounds what piles up, not what a message may be.

        Raises:
            ConnectionLost: Nothing more can be sent.
        """
        if not self.frames or self.size + len(frame) <= self.high_water_size:
            self.push(frame)
        elif self.size + len(frame) <= self.max_size or self.takes_whole(frame):
            self.push(frame)
            self._connection._owner.weigh(self._connection)
        else:
            return False
        return True

    def takes_whole(self, frame: Frame) -> bool:
        """Whether a frame larger than the cap may be appended all the same, since the peer is not slow so far."""
        return len(frame) > self.max_size and self.size < self.high_water_size

    def push_share(self, frame: Frame) -> None:
        """Append a frame, and hand the link what it takes if enough has come together; for one of many senders.

        Raises:
            ConnectionLost: Nothing more can be sent.
        """
        self.push(frame)
        if self.size >= SHARE_SIZE:
            size = self.size
            self.flush_nowait()
            if self.corked:
                self.shared += size - self.size

    def uncork(self) -> None:
        """The batch that was answered is over; hand the link what it takes."""
        self.corked = self.direct = False
        self.shared = 0
        if self.frames:
            self.flush_nowait()

    async def wait_for_room(self) -> None:
        """Wait until the outbox is below its high-water mark. Always a schedule point.

        Raises:
            ConnectionLost: The link broke meanwhile.
        """
        self.flush_nowait()
        if self.size < self.high_water_size:
            await trio.lowlevel.checkpoint()
        while self._error is None and self.size >= self.high_water_size:
            await self._wait_for_progress()
        if self._error is not None:
            raise self._lost()

    async def make_room(self) -> bool:
        """Hand the link what it takes, and say whether that has made room. Always a schedule point.

        Raises:
            ConnectionLost: The link broke meanwhile.
        """
        self.flush_nowait()
        await trio.lowlevel.checkpoint()
        if self._error is not None:
            raise self._lost()
        return self.size < self.high_water_size

    async def flush(self) -> None:
        """Wait until everything is with the operating system, but not for what the peer may not be sent yet.

        Raises:
            ConnectionLost: The link broke meanwhile.
        """
        self.flush_nowait()
        await trio.lowlevel.checkpoint()
        while self._error is None and self.frames and self._link.verified:
            await self._wait_for_progress()
        if self._error is not None:
            raise self._lost()

    async def _wait_for_progress(self) -> None:
        if self._room is None:
            self._room = trio.lowlevel.ParkingLot()
        await self._room.park()

    def _progress(self) -> None:
        if self._room is not None:
            self._room.unpark_all()

    def flush_nowait(self) -> None:
        """Hand the link what it takes at once; start a task for the rest."""
        while self.frames and not self._writing and self._error is None:
            try:
                chunk, count = self._next_chunk()
                sent = self._link.send_nowait(chunk)
                while not sent and count > 1 and not self._link.verified:
                    # Whoever may be sent only so much may be sent some of it.
                    count //= 2
                    chunk = b"".join(itertools.islice(self.frames, count))  # type: ignore[arg-type]
                    sent = self._link.send_nowait(chunk)
            except Exception as error:
                self._fail_by(error)
                return
            self._sent(sent, len(chunk), count)
            if sent < len(chunk):
                self._write_later()

    def _write_later(self) -> None:
        self._writing = True
        self._spawn(self._write)
        self._connection._vigil.watch_writing()

    def _next_chunk(self) -> tuple[bytes | memoryview, int]:
        """Some bytes from the front, and how many frames end with them: none where it is a part of one."""
        frames = self.frames
        first = frames[0]
        if isinstance(first, Parcel):
            return first.chunk_at(self._head_sent)
        if self._head_sent:
            return memoryview(first)[self._head_sent :], 1
        if len(frames) == 1 or len(first) >= self._write_size:
            return first, 1
        if self.size <= self._write_size:
            return b"".join(frames), len(frames)  # type: ignore[arg-type]
        batch: list[Frame] = []
        size = 0
        for frame in frames:
            size += len(frame)
            if size > self._write_size and batch:
                break
            batch.append(frame)
        return b"".join(batch), len(batch)  # type: ignore[arg-type]

    def _sent(self, sent: int, size: int, count: int) -> None:
        """Forget bytes that the link has taken, of a chunk of so many bytes with which so many frames end."""
        frames = self.frames
        if sent == size and count:  # frames may be empty where each is a datagram
            self._head_sent = 0
            if count == len(frames):
                frames.clear()
            else:
                for _ in range(count):
                    frames.popleft()
        elif sent:
            head = self._head_sent + sent
            while head >= len(frames[0]):
                head -= len(frames.popleft())
            self._head_sent = head
        else:
            return
        self.last_sent = self._flusher.now()
        self.bytes_sent += sent
        self.size -= sent
        if self.common:
            # As if that went first: so what is left is never thought to be common.
            self.common = self.common - sent if self.common > sent else 0
        self._progress()

    async def _write(self) -> None:
        """Send what is there, waiting for the link, until nothing is left."""
        try:
            while self.frames:
                # What is joined would wait until the peer may be sent all of it.
                chunk, count = self._next_chunk() if self._link.verified else (self.frames[0], 1)
                self._in_flight = count or 1
                size = len(chunk)
                if size > STRIDE and self._link.reliable:
                    chunk = memoryview(chunk)[:STRIDE]  # type: ignore[arg-type]  # where there are strides, it is bytes
                try:
                    await self._link.send(chunk)  # type: ignore[arg-type]  # where not verified, nothing has parts
                except Exception as error:
                    # How much of these frames arrived is unknown, so they are not to be sent again.
                    self._drop(self._in_flight)
                    self._in_flight = 0
                    self._fail_by(error)
                    return
                self._in_flight = 0
                self._sent(len(chunk), size, count)
        finally:
            self._writing = False
            if self._is_last:
                self._link.send_eof()

    def _drop(self, count: int) -> None:
        for _ in range(count):
            frame = self.frames.popleft()
            self._lost_events += not is_control(frame)
            self.size -= len(frame) - self._head_sent
            self._head_sent = 0

    def _fail_by(self, error: Exception) -> None:
        """The link raised. One of a third party may raise anything, and must not end what all connections share."""
        if not isinstance(error, ConnectionLost):
            logger.error("the link to %s failed", self._link.peer.address, exc_info=error)
            error = ConnectionLost(f"the link failed: {type(error).__name__}: {error}", maybe_handled=True)
        self.fail(error)

    def fail(self, error: ConnectionLost) -> None:
        """Take nothing more, and wake whoever waits here."""
        if self._error is None:
            self._error = error
            self._progress()
            self._connection._on_write_failure(error)

    def _lost(self) -> ConnectionLost:
        assert self._error is not None
        error = ConnectionLost(str(self._error))
        error.__cause__ = self._error
        return error

    def end(self) -> None:
        """Tell the peer that nothing follows, once the link has what is being written."""
        if self._writing:
            self._is_last = True
        else:
            self._link.send_eof()

    def finish(self) -> bool:
        """Take nothing more, now that all is sent, and tell the peer so; what it sends can still be read.

        Returns:
            Whether the link can do that. If not, nothing has changed.
        """
        self.finished = self._link.send_eof()
        if self.finished:
            self._error = ConnectionLost("this side has finished sending")
            self._progress()
        return self.finished

    def count_events(self) -> int:
        """How many of a user's events were not sent, or not surely: they wait, or a write of them failed."""
        return self._lost_events + sum(not is_control(frame) for frame in self.frames)

    @property
    def is_waiting(self) -> bool:
        """Whether the link is waited for, since it has not taken all that there is."""
        return self._writing

    @property
    def own_size(self) -> int:
        """Bytes that wait here and nowhere else, and the places of all that waits."""
        return max(0, self.size - self.common) + _PLACE_SIZE * len(self.frames)

    def _count_begun(self) -> int:
        """How many frames are being written, of which the peer may have a part."""
        return max(self._in_flight, 1 if self._head_sent else 0)

    def discard(self) -> None:
        """Forget what waits, but for what is being written, of which the peer may have a part."""
        self.frames = collections.deque(itertools.islice(self.frames, self._count_begun()))
        self.size = sum(map(len, self.frames)) - self._head_sent
        self.common = 0

    def reclaim_events(self) -> list[Frame]:
        """Take back a user's events of which nothing was sent, so that they may go another way."""
        frames = list(self.frames)
        begun = self._count_begun()
        busy, waiting = frames[:begun], frames[begun:]
        events = [frame for frame in waiting if not is_control(frame)]
        self.frames = collections.deque(busy + [frame for frame in waiting if is_control(frame)])
        self.size -= sum(map(len, events))
        return [_for_any_peer(frame) for frame in events]


def _for_any_peer(frame: Frame) -> Frame:
    """An event that nobody has got, for a peer of which nobody knows yet whether it understands traces."""
    if isinstance(frame, Parcel | SmallParcel):
        inner = frame.frame
        return with_frame(frame, untraced(inner)) if is_traced(inner) else frame
    return untraced(frame) if is_traced(frame) else frame
