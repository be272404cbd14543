"""Events as an iterator, instead of through a handler."""

from __future__ import annotations

import collections
import contextlib
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from pyipc.errors import LocalProtocolError
from pyipc.landmark import Landmark
from pyipc.options import check_timeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractContextManager

    from pyipc.message import Message
    from pyipc.router import Router

__all__ = ["EventStream", "EventStreams", "Expected"]

T = TypeVar("T")


class _Buffer:
    """Messages that nobody has taken yet. Known to the router; does not know its stream."""

    __slots__ = ("__weakref__", "ended", "error", "messages", "news", "over", "room", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.messages: collections.deque[Message[Any]] = collections.deque()
        self.news = trio.lowlevel.ParkingLot()
        self.room = trio.lowlevel.ParkingLot()
        self.over = Landmark()
        self.ended = False
        self.error: Exception | None = None

    def put(self, message: Message[Any]) -> Awaitable[None] | None:
        """Take a message at once, or return what is to be awaited until there is room."""
        if len(self.messages) >= self.size and not self.ended:
            return self._put_later(message)
        self._add(message)
        return None

    async def _put_later(self, message: Message[Any]) -> None:
        while len(self.messages) >= self.size and not self.ended:
            await self.room.park()
        self._add(message)

    def _add(self, message: Message[Any]) -> None:
        if not self.ended:
            self.messages.append(message)
            self.news.unpark()

    def end(self, error: Exception | None) -> None:
        self.ended = True
        self.error = error
        self.over.set()
        self.news.unpark_all()
        self.room.unpark_all()


class EventStream(Generic[T]):
    """The events of some names in the order in which they arrive, from the call that made it on.

    Use it with ``async for`` or `get`; ``async with`` stops it at the end of a block, and so does
    letting go of it. When more events wait than it holds, later ones wait in the connection, and
    the peer is held back at last: nothing is dropped.
    """

    def __init__(
        self, router: Router, pattern: str, *, max_buffered: int, waiting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        if max_buffered < 1:
            raise ValueError(f"max_buffered must be above zero, not {max_buffered!r}")
        self._pattern = pattern
        self._waiting = waiting
        self._buffer = _Buffer(max_buffered)
        put = self._buffer.put
        router.on(pattern, put)
        # A loop that is left by `break` just drops the stream; its handler must not go on collecting.
        self._stop = weakref.finalize(self, _stop, router, pattern, put, self._buffer)
        self._stop.atexit = False

    def __repr__(self) -> str:
        return f"<EventStream {self._pattern!r}: {len(self._buffer.messages)} waiting>"

    def __aiter__(self) -> EventStream[T]:
        return self

    async def __anext__(self) -> Message[T]:
        try:
            return await self._next()
        except _Ended:
            raise StopAsyncIteration from None

    async def get(self, *, timeout: float | None = None) -> Message[T]:
        """Wait for the next event.

        Args:
            timeout: Seconds to wait; ``None`` for ever.

        Raises:
            trio.TooSlowError: None came in time.
            ConnectionLost: The connection broke, so that an expected answer will not come.
            trio.EndOfChannel: The stream or its client was closed.

        Cancellation: loses no event.
        """
        check_timeout(timeout)
        try:
            if timeout is None:
                return await self._next()
            with trio.fail_after(timeout):
                return await self._next()
        except _Ended:
            raise trio.EndOfChannel(f"no more {self._pattern!r} events: the client is closed") from None

    async def _next(self) -> Message[T]:
        buffer = self._buffer
        await trio.lowlevel.checkpoint_if_cancelled()
        if not buffer.messages:
            with self._waiting():
                while not buffer.messages:
                    if buffer.ended:
                        raise buffer.error or _Ended
                    await buffer.news.park()
        message = buffer.messages.popleft()
        buffer.room.unpark()
        return message

    async def __aenter__(self) -> EventStream[T]:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more events. May be called more than once."""
        self._stop()

    def end(self, error: Exception | None = None) -> None:
        """No more events will come: those that wait are still given out, then ``error`` is raised."""
        self._buffer.end(error)


class Expected:
    """The answers that are expected over one connection, as far as anybody still wants them.

    Args:
        streams: Those who do.
    """

    def __init__(self, streams: Iterable[EventStream[Any]]) -> None:
        self._buffers = [stream._buffer for stream in streams if not stream._buffer.ended]

    async def wait_for_all(self) -> None:
        """Wait until nobody wants any of them any more. Always a schedule point.

        Cancellation: changes nothing.
        """
        await trio.lowlevel.checkpoint()
        for buffer in self._buffers:
            await buffer.over.wait()

    def fail(self, error: Exception) -> None:
        """Tell those who still want one that it will not come."""
        for buffer in self._buffers:
            if not buffer.ended:
                buffer.end(error)


class EventStreams:
    """The streams of events that one client has given out, as far as anybody still has them.

    Args:
        router: Brings the events.
        waiting: A context around waiting for the server.
    """

    def __init__(self, router: Router, waiting: Callable[[], AbstractContextManager[None]]) -> None:
        self._router = router
        self._waiting = waiting
        self._all: weakref.WeakSet[EventStream[Any]] = weakref.WeakSet()
        self._answers: weakref.WeakSet[EventStream[Any]] = weakref.WeakSet()

    def open(self, pattern: str, max_buffered: int, *, is_answer: bool) -> EventStream[Any]:
        """A stream of the events of some names; of one connection alone, if it is for an answer."""
        stream: EventStream[Any] = EventStream(self._router, pattern, max_buffered=max_buffered, waiting=self._waiting)
        self._all.add(stream)
        if is_answer:
            self._answers.add(stream)
        return stream

    def end(self, error: Exception | None) -> None:
        """No more events will come for any of them."""
        for stream in list(self._all):
            stream.end(error)

    def end_answers(self, error: Exception) -> None:
        """The connection has ended over which answers were to come."""
        for stream in list(self._answers):
            stream.end(error)

    def leave_answers(self) -> Expected:
        """The answers that are expected so far will come over a connection that is not the present one any more."""
        expected = Expected(self._answers)
        self._answers.clear()
        return expected


class _Ended(Exception):
    """The stream is over and nothing went wrong."""


def _stop(router: Router, pattern: str, put: Callable[..., object], buffer: _Buffer) -> None:
    # off() for the whole pattern may have removed it already, and a finalizer has nobody to tell.
    with contextlib.suppress(LocalProtocolError):
        router.off(pattern, put)
    buffer.end(None)
