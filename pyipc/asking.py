"""What one connection can ask its peer for: one answer, or a stream of them; and waiting for it without deadlock."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import trio

from pyipc.attaching import ask_attached, fits, know_peer_until
from pyipc.errors import RequestTimeout
from pyipc.finishing import check_hears
from pyipc.lifecycle import Lifecycle
from pyipc.options import UNSET, Unset, check_timeout
from pyipc.protocol.features import STREAMS
from pyipc.protocol.parcels import NO_ATTACHMENTS, listed
from pyipc.protocol.traces import check_traceparent
from pyipc.reader import SOON
from pyipc.slots import current_slot
from pyipc.streams import Stream, Streams, StreamSource
from pyipc.timers import GRACE, LAG

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyipc.connection import Connection
    from pyipc.protocol.parcels import Buffer
    from pyipc.watch import Watch

__all__ = ["Asking"]

T = TypeVar("T")
# With so many requests under way, a scheduler turn to write the next costs less than a write of its own.
_FEW = 4


class Asking(Lifecycle, StreamSource):
    """A connection over which something can be asked."""

    __slots__ = ()

    # Who is told of what is sent, if somebody is: see `WatchedConnection`.
    _watch: Watch | None = None

    @overload
    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        timeout: float | Unset | None = UNSET,
        traceparent: str = "",
    ) -> Any: ...

    @overload
    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        timeout: float | Unset | None = UNSET,
        result: type[T],
        traceparent: str = "",
    ) -> T: ...

    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        timeout: float | Unset | None = UNSET,
        result: Any = None,
        traceparent: str = "",
    ) -> Any:
        """Ask the peer and wait for its answer.

        Args:
            event: The name of the request.
            data: Anything that has a JSON form.
            attachments: Buffers of bytes; see `emit`.
            timeout: Seconds to wait; ``None`` for ever; by default the option ``request_timeout``.
            result: A type that the answer is checked against and converted to. With `pyipc.Attached` it may have
                attachments and comes as one even if it has none; ``pyipc.Attached[Point]`` converts its data. Any other
                type has no place for attachments, and an answer that has some does not fit it.
            traceparent: Which span of a trace it comes from, as W3C Trace Context writes it.

        Returns:
            The answer, decoded; a `pyipc.Attached` if it has attachments.

        Raises:
            RequestTimeout: No answer came in time.
            NoHandler: Nobody there handles it.
            RemoteError: The handler there failed, or refused.
            InvalidData: The data does not fit what the handler expects, or the answer does not fit ``result``.
            PeerLacksFeature: The peer cannot take requests, or no attachments.
            ConnectionLost: The connection broke; ``maybe_handled`` says whether the peer may have acted.
            LocalProtocolError: The name, the data or the attachments cannot be sent; nothing was.

        Cancellation: the peer is told and cancels its handler; a late answer is ignored.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if traceparent:
            check_traceparent(traceparent)
        if isinstance(timeout, Unset):
            timeout = self._options.request_timeout
        else:
            check_timeout(timeout, may_be_over=True)
        now = self._now()
        deadline = math.inf if timeout is None else now + timeout
        buffers = [] if attachments is NO_ATTACHMENTS else listed(attachments)
        return await self._request_until(event, data, timeout, deadline, now, result, buffers, traceparent)

    async def _request_until(
        self,
        event: str,
        data: object,
        timeout: float | None,
        deadline: float,
        now: float,
        result: Any,
        buffers: list[Buffer],
        traceparent: str,
    ) -> Any:
        """Like `request`, for a caller that has looked at the clock already, and whether it is cancelled.

        Args:
            event: The name of the request.
            data: Anything that has a JSON form.
            timeout: Seconds that the caller waits in all, for the error.
            deadline: When they are over, in trio's time.
            now: Trio's time now.
            result: A type that the answer is checked against and converted to, or ``None``.
            buffers: What is attached.
            traceparent: Which span it comes from, which has been checked; empty for none.

        Raises:
            RequestError, ConnectionLost, LocalProtocolError: As `request`.

        Cancellation: the peer is told and cancels its handler; a late answer is ignored.
        """
        if not self.is_open:
            raise self._gone()
        if not self._hears:
            check_hears(cast("Connection", self))
        if buffers:
            await know_peer_until(cast("Connection", self), event, timeout, deadline)
        calls, outbox, reader = self._calls, self._outbox, self._reader
        if outbox.size >= outbox.high_water_size or len(calls.pending) >= self._options.max_pending_requests:
            await self._wait_for_turn(event, timeout, deadline)
            if not self.is_open:
                raise self._gone()
        try:
            number, frame = self._conversation.request(event, data, traceparent)
            size = 0
            if buffers:
                size = ask_attached(cast("Connection", self), frame, buffers)
            elif len(calls.pending) < _FEW:
                outbox.push_now(frame, now)
            else:
                outbox.push_share(frame)  # others are likely to ask in this very turn, and one write serves many
            self._events_sent += 1
            if self._watch is not None:
                self._watch.sent("request", event, size or len(frame), cast("Connection", self))
            slot = current_slot.get()
            reads = self._conversation.frames_completed
            if slot is None and not calls.pending and reads == reader.reads + 1 and 0.0 < now - reader.time <= SOON:
                reader.row += 1
            else:
                reader.row = 0
            reader.reads = reads
            call = calls.begin(number, event, timeout, deadline)
            if self._dispatcher.paused:
                self._dispatcher.resume()
            if slot is None and reader.is_free:
                answer = await reader.read_answer(call, calls)
            else:
                reader.call_back()
                if slot is None:
                    answer = await calls.wait(call)
                else:
                    with slot.given_up(self._responder):
                        answer = await calls.wait(call)
        finally:
            if calls.room is not None:
                calls.pass_on()
        return answer if result is None else fits(answer, result)

    async def _open_stream(self, stream: Stream[Any], deadline: float) -> None:
        if not self.is_open:
            raise self._gone()
        outbox = self._outbox
        with trio.move_on_at(deadline) as scope:
            if self._conversation.awaits_welcome:
                await self.know_peer()
            self._conversation.check_feature(STREAMS)
            if outbox.size >= outbox.high_water_size:
                with self.waiting_for_peer():
                    await outbox.wait_for_room()
        if scope.cancelled_caught:
            assert stream.timeout is not None
            raise RequestTimeout(stream.event, stream.timeout, "; the peer did not even read what was sent before")
        if not self.is_open:
            raise self._gone()
        check_hears(cast("Connection", self))
        if self._streams is None:
            self._streams = Streams(cast("Connection", self))
        number = self._conversation.next_call()
        size = stream.ask(cast("Connection", self), number)
        self._streams.add(number, stream)
        if self._watch is not None:
            self._watch.sent("stream", stream.event, size, cast("Connection", self))

    async def _wait_for_turn(self, event: str, timeout: float | None, deadline: float) -> None:
        """Wait until one more request fits, but not beyond its own time-out."""
        try:
            with self.waiting_for_peer(), trio.move_on_at(deadline) as scope:
                while len(self._calls.pending) >= self._options.max_pending_requests:
                    await self._calls.wait_for_room()
                    if not self.is_open:
                        raise self._gone()
                if self._outbox.size >= self._outbox.high_water_size:
                    await self._outbox.wait_for_room()
        except BaseException:
            self._calls.pass_on()
            raise
        if scope.cancelled_caught:
            self._calls.pass_on()
            assert timeout is not None
            raise RequestTimeout(event, timeout)

    def _giving_up_slot(self) -> contextlib.AbstractContextManager[None]:
        slot = current_slot.get()
        return _NOTHING if slot is None else slot.given_up(self._responder)

    async def know_peer(self) -> None:
        """Wait until it is clear whether the peer speaks pyipc's protocol, but not for long.

        Raises:
            ConnectionClosed: The connection ended meanwhile.

        Cancellation: changes nothing.
        """
        timeout = self._options.handshake_timeout
        if self._introduced is None:
            self._introduced = trio.Event()
        with trio.move_on_after(math.inf if timeout is None else timeout) as patience:
            if self._conversation.awaits_welcome and self.is_open:
                await self._introduced.wait()
        if patience.cancelled_caught and self._now() > patience.deadline + LAG:
            # It was us: the answer may have arrived long ago, and is read now.
            with trio.move_on_after(GRACE):
                await self._introduced.wait()
        if not self.is_open:
            raise self._gone()

    @contextlib.contextmanager
    def waiting_for_peer(self) -> Iterator[None]:
        """A context in which reading does not pause, since something waits for what the peer sends."""
        self._waiting += 1
        self._dispatcher.resume()
        self._reader.call_back()
        try:
            with self._giving_up_slot():
                yield
        finally:
            self._waiting -= 1

    @contextlib.contextmanager
    def waiting_at_length(self) -> Iterator[None]:
        """Like `waiting_for_peer`, for what may take long though nothing is wrong, such as the next item of a stream.

        If the present task is no handler of this connection, reading pauses later than else, but it does pause.
        """
        dispatcher = self._dispatcher
        if dispatcher.is_handling():
            with self.waiting_for_peer():
                yield
            return
        dispatcher.bystanders += 1
        dispatcher.resume()
        self._reader.call_back()
        try:
            yield
        finally:
            dispatcher.bystanders -= 1


# What a task without a slot gives up; it can be entered any number of times.
_NOTHING = contextlib.nullcontext()
