"""Streams that this side has asked for: many answers to one question, no faster than they are taken.

The peer may send as many items, and as many bytes of them, as it was given credit for. What has been taken by the user
is credited again, half of it all at a time. So what waits here has a bound, however slowly it is taken, and a peer
that is quick enough never has to wait for more credit.
"""

from __future__ import annotations

import collections
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import trio

from pyipc.attaching import fits, frozen, send_packed
from pyipc.calls import error_of
from pyipc.errors import ConnectionClosed, ConnectionLost, RemoteProtocolError, RequestTimeout
from pyipc.options import UNSET, Unset, check_timeout
from pyipc.pace import Pace
from pyipc.protocol.features import Credit, EndOfStream, OpenStream, ReceivedItem
from pyipc.protocol.messages import Malformed
from pyipc.protocol.parcels import NO_ATTACHMENTS, listed
from pyipc.protocol.traces import check_traceparent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from pyipc.connection import Connection
    from pyipc.options import Options
    from pyipc.protocol.messages import Failure
    from pyipc.protocol.parcels import Buffer
    from pyipc.timers import Timer

__all__ = ["Stream", "StreamSource", "Streams"]

T = TypeVar("T")
_checkpoint_if_cancelled = trio.lowlevel.checkpoint_if_cancelled


class Stream(Generic[T]):
    """The answers to one question, in order. Made by `Client.stream` and `Connection.stream`.

    Use it with ``async with``, and inside with ``async for``. Leaving the block early ends the stream for the peer too:
    its generator is cancelled where it is. One task at a time may wait for an item.

    Attributes:
        event: The name of the stream.
        timeout: Seconds to wait for each item; ``None`` for ever.
    """

    __slots__ = (
        "__weakref__",
        "_attachments",
        "_buffer",
        "_connection",
        "_data",
        "_deadline",
        "_error",
        "_is_waiting",
        "_items_left",
        "_items_taken",
        "_max_items",
        "_max_size",
        "_number",
        "_open",
        "_pace",
        "_result",
        "_size_left",
        "_size_taken",
        "_state",
        "_task",
        "_timer",
        "_traceparent",
        "event",
        "timeout",
    )

    def __init__(
        self,
        event: str,
        data: object,
        *,
        timeout: float | None,
        result: Any,
        options: Options,
        open: Callable[[Stream[Any], float], Awaitable[None]],
        traceparent: str = "",
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
    ) -> None:
        self.event: str = event
        self._traceparent = traceparent
        self._attachments = () if attachments is NO_ATTACHMENTS else frozen(listed(attachments))
        self._data = data
        self.timeout: float | None = timeout
        self._result = result
        self._open = open
        self._max_items = options.max_stream_items
        self._max_size = options.max_stream_size
        # What the peer may still send, as it will know once it has read all credit.
        self._items_left = self._max_items
        self._size_left = self._max_size
        # What has been taken since credit was given last.
        self._items_taken = 0
        self._size_taken = 0
        self._buffer: collections.deque[ReceivedItem] = collections.deque()
        self._state = "new"
        self._error: Exception | None = None
        self._connection: Connection | None = None
        self._number = 0
        self._pace: Pace | None = None
        self._is_waiting = False
        self._task: trio.lowlevel.Task | None = None
        self._deadline = math.inf
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Stream {self.event!r} {self._state}, {len(self._buffer)} waiting>"

    # --- what a program does ---

    async def __aenter__(self) -> Stream[T]:
        await _checkpoint_if_cancelled()
        if self._state != "new":
            raise RuntimeError("a stream is entered once; call stream() again for another")
        deadline = math.inf if self.timeout is None else trio.current_time() + self.timeout
        await self._open(self, deadline)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._leave()

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        """Take the next item.

        Raises:
            StopAsyncIteration: There are no more.
            RequestTimeout: None came in time; the stream is over.
            NoHandler, RemoteError, InvalidData: The handler failed, or there is none that streams; after the items
                that it sent before. `InvalidData` too where an item does not fit ``result``.
            ConnectionClosed: The connection ended; after the items that had arrived before.
            trio.BusyResourceError: Another task waits for an item already.

        Cancellation: loses no item.
        """
        await _checkpoint_if_cancelled()
        if self._buffer:
            assert self._pace is not None
            if self._pace.is_due():
                await trio.lowlevel.checkpoint()
        while not self._buffer:
            await self._wait()
        item = self._buffer.popleft()
        self._items_taken += 1
        self._size_taken += item.size
        if self._items_taken * 2 >= self._max_items or self._size_taken * 2 >= self._max_size:
            self._give_credit()
        taken: T = item.data if self._result is None else fits(item.data, self._result)
        return taken

    async def _wait(self) -> None:
        """Wait until there is an item, or raise why there will be none."""
        if self._is_waiting:
            raise trio.BusyResourceError("another task waits for an item of this stream already")
        connection = self._connection
        if self._state == "open":
            assert connection is not None
            self._is_waiting = True
            try:
                with connection.waiting_at_length():
                    self._begin_waiting(connection)
                    while self._state == "open" and not self._buffer:
                        self._task = trio.lowlevel.current_task()
                        await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
            finally:
                self._is_waiting = False
            assert self._pace is not None
            self._pace.begin()
        if self._buffer:
            return
        if self._error is not None:
            raise self._error
        if self._state == "over":
            raise StopAsyncIteration
        if self._state == "new":
            raise RuntimeError("enter the stream first: async with client.stream(...) as rows")
        raise trio.ClosedResourceError("the block of this stream has been left")

    def _begin_waiting(self, connection: Connection) -> None:
        """Set the time until which it waits. There is one timer for all waits, and most never see it fire."""
        if self.timeout is not None:
            self._deadline = connection._now() + self.timeout
            if self._timer is None:
                self._timer = connection._timers.call_at(self._deadline, self._on_time)

    def _stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _on_time(self, late: float) -> None:
        self._timer = None
        connection = self._connection
        if self._task is None or connection is None:
            return  # the next wait sets another
        if connection._now() < self._deadline:
            self._timer = connection._timers.call_at(self._deadline, self._on_time)
            return
        assert self.timeout is not None
        self._cancel()
        self.end(RequestTimeout(self.event, self.timeout, "; it is a stream, of which no further item came"))

    def _give_credit(self) -> None:
        """Let the peer send more, in place of what was taken."""
        items, size = self._items_taken, self._size_taken
        self._items_taken = self._size_taken = 0
        connection = self._connection
        if self._state != "open" or connection is None or not connection.is_open:
            return
        self._items_left += items
        self._size_left += size
        if not connection._offer(connection._conversation.say(Credit(self._number, items, size))):
            connection._on_overflow()

    def _cancel(self) -> None:
        """Tell the peer that nobody wants any more of it."""
        assert self._connection is not None
        assert self._connection._streams is not None
        del self._connection._streams.open[self._number]
        self._connection._on_abandoned_call(self._number)
        self._connection._note_quiet()

    def _leave(self) -> None:
        if self._state == "open":
            self._cancel()
        self.end(None)
        self._state = "left"
        self._buffer.clear()
        self._error = None

    # --- what the connection does ---

    def ask(self, connection: Connection, number: int) -> int:
        """Ask for it over a connection; return the size of what was sent.

        Raises:
            LocalProtocolError, ConnectionLost: It could not be asked for; nothing was sent.
        """
        opening = OpenStream(number, self.event, self._data, self._max_items, self._max_size, self._traceparent)
        frame = connection._conversation.say(opening)
        if self._attachments:
            return send_packed(connection, frame, self._attachments)
        connection._outbox.push_now(frame, connection._now())
        return len(frame)

    def begin(self, connection: Connection, number: int) -> None:
        """It was asked for over a connection."""
        self._connection = connection
        self._number = number
        self._pace = Pace(connection._now)
        self._state = "open"
        self._data, self._attachments = None, ()

    def end(self, error: Exception | None) -> None:
        """No more items will come. Those that wait are still given out, then ``error`` is raised."""
        if self._state == "open":
            self._state = "over"
            self._error = error
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._wake()

    def fail(self, failure: Failure) -> None:
        """The peer says why no more items will come."""
        self.end(error_of(self.event, failure))

    def _wake(self) -> None:
        assert self._task is not None
        task, self._task = self._task, None
        trio.lowlevel.reschedule(task)


class StreamSource(ABC):
    """Something that can be asked for streams: a client, or a connection."""

    __slots__ = ()
    _options: Options

    @overload
    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        timeout: float | Unset | None = UNSET,
        traceparent: str = "",
    ) -> Stream[Any]: ...

    @overload
    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        timeout: float | Unset | None = UNSET,
        result: type[T],
        traceparent: str = "",
    ) -> Stream[T]: ...

    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        timeout: float | Unset | None = UNSET,
        result: Any = None,
        traceparent: str = "",
    ) -> Stream[Any]:
        """Ask the peer for many answers, which its handler, an async generator function, yields.

        ``async with client.stream("rows") as rows:`` asks, and ``async for row in rows:`` takes one after the other.
        The handler is never further ahead than the options ``max_stream_items`` and ``max_stream_size`` of this side
        say. Leaving the block early cancels it.

        A stream belongs to one connection: if that is lost, the stream is not asked for again. A client that has no
        connection waits for one, as for a request.

        Args:
            event: The name of the stream.
            data: Anything that has a JSON form.
            attachments: Buffers of bytes; see `Connection.emit`.
            timeout: Seconds to wait for each item, and on entering; ``None`` for ever; by default the option
                ``request_timeout``.
            result: A type that each item is checked against and converted to.
            traceparent: Which span of a trace it comes from, as W3C Trace Context writes it.

        Returns:
            What is to be entered. Entering it raises `LocalProtocolError` where the name or the data cannot be sent,
            `PeerLacksFeature` where the peer has no streams, `ConnectionClosed`, and `RequestTimeout`. What the peer
            says later is raised by `Stream.__anext__`.

        Raises:
            LocalProtocolError: ``traceparent`` is none, or an attachment is no buffer of bytes.

        Cancellation: while it is entered, nothing was sent; later the handler is cancelled.
        """
        if traceparent:
            check_traceparent(traceparent)
        if isinstance(timeout, Unset):
            timeout = self._options.request_timeout
        else:
            check_timeout(timeout)
        return self._make_stream(
            event,
            data,
            timeout=timeout,
            result=result,
            options=self._options,
            open=self._open_stream,
            traceparent=traceparent,
            attachments=attachments,
        )

    def _make_stream(self, event: str, data: object, **how: Any) -> Stream[Any]:
        """A stream that is still to be entered; takes what `Stream` takes."""
        return Stream(event, data, **how)

    @abstractmethod
    async def _open_stream(self, stream: Stream[Any], deadline: float) -> None:
        """Ask for a stream.

        Args:
            stream: The stream.
            deadline: Until when to wait for what it takes, in trio's time.

        Raises:
            LocalProtocolError: The name or the data cannot be sent, or the peer has no streams; nothing was.
            ConnectionClosed: The connection is closed, or lost; nothing was sent.
            RequestTimeout: The deadline has come; nothing was sent.

        Cancellation: nothing was sent.
        """


class Streams:
    """The streams that one connection has asked for, by the numbers of their calls.

    Args:
        connection: Ends when the peer breaks the protocol.

    Attributes:
        open: Those of which more may come.
        asked: How many there have been.
        received: Items of them that have arrived.
    """

    __slots__ = ("_connection", "asked", "open", "received")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.open: dict[int, Stream[Any]] = {}
        self.asked: int = 0
        self.received: int = 0

    def add(self, number: int, stream: Stream[Any]) -> None:
        """Note a stream that was just asked for."""
        self.open[number] = stream
        self.asked += 1
        stream.begin(self._connection, number)

    def settle(self, item: ReceivedItem | EndOfStream) -> None:
        """Bring what has arrived to the stream that it is of. What comes for one that is over is ignored."""
        stream = self.open.get(item.call)
        if stream is None:
            return
        if isinstance(item, EndOfStream):
            del self.open[item.call]
            stream.end(None)
            self._connection._note_quiet()
            return
        self.received += 1
        if stream._items_left > 0 and stream._size_left > 0:
            stream._items_left -= 1
            stream._size_left -= item.size
            stream._buffer.append(item)
            if stream._task is not None:
                stream._wake()
        else:
            message = f"the peer sent more of the stream {item.call} than it had credit for"
            self._connection._settle(Malformed(RemoteProtocolError("control", message), fatal=True))

    def fail(self, failure: Failure) -> bool:
        """End a stream with an error, if that is what it is for; say whether it was."""
        stream = self.open.pop(failure.call, None)
        if stream is None:
            return False
        stream.fail(failure)
        self._connection._note_quiet()
        return True

    def fail_all(self, message: str, *, lost: bool, maybe_handled: bool) -> None:
        """Tell everybody that no more will come."""
        streams, self.open = self.open, {}
        for stream in streams.values():
            stream.end(ConnectionLost(message, maybe_handled=maybe_handled) if lost else ConnectionClosed(message))
