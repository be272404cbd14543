"""One connection: a link, a conversation about it, and the tasks between.

Both sides use this class. It joins the parts that each do one thing: `Outbox` writes, `Dispatcher`
reads and brings what arrives to handlers, `Calls` waits for answers, `Vigil` watches for silence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from typing import TYPE_CHECKING, Any, TypeVar, overload

import trio

from pyipc.calls import Calls
from pyipc.dispatch import Dispatcher, current_slot
from pyipc.errors import (
    ConnectionClosed,
    ConnectionLost,
    PeerRefused,
    RequestTimeout,
    Undelivered,
)
from pyipc.options import UNSET, Unset
from pyipc.outbox import Outbox
from pyipc.protocol.codec import convert
from pyipc.protocol.messages import Failure, Goaway, Goodbye, Introduced, Malformed, Reply
from pyipc.statistics import ConnectionStatistics, Disconnected
from pyipc.vigil import Vigil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyipc.flusher import Flusher
    from pyipc.options import Options
    from pyipc.protocol.conversation import Conversation, Inbound
    from pyipc.router import Router
    from pyipc.timers import Timer, Timers
    from pyipc.transports.port import Link, Peer

__all__ = ["Connection"]

T = TypeVar("T")
logger = logging.getLogger("pyipc.connection")


class Connection:
    """A connection to one peer. Made by servers and clients, not by users.

    Args:
        link: Moves the bytes.
        conversation: Knows what they mean.
        router: Finds handlers.
        options: Limits and times.
        timers: The owner's clock.
        flusher: The owner's flusher.
        greet: Called with the connection before any message is handled; may be async.
        require_hello: Whether the peer must introduce itself in time.
    """

    def __init__(
        self,
        link: Link,
        conversation: Conversation,
        *,
        router: Router,
        options: Options,
        timers: Timers,
        flusher: Flusher,
        greet: Callable[[Connection], object] | None = None,
        require_hello: bool = False,
    ) -> None:
        self._link = link
        self._conversation = conversation
        self._options = options
        self._timers = timers
        self._nursery: trio.Nursery | None = None
        self._reason: Disconnected | None = None
        self._closing = False
        self._closed = trio.Event()
        self._reading_ended = trio.Event()
        self._introduced: trio.Event | None = None
        self._last_call: Timer | None = None
        self._waiting = 0
        self._bytes_received = 0
        self._events_sent = 0
        self._malformed = 0
        self._dropped = 0
        self._outbox = Outbox(
            link,
            flusher,
            high_water_size=options.outbox_high_water_size,
            max_size=options.max_outbox_size,
            spawn=self._spawn,
            broken=self._on_write_failure,
        )
        self._calls = Calls(timers, self._on_abandoned_call)
        self._dispatcher = Dispatcher(
            self,
            conversation=conversation,
            outbox=self._outbox,
            router=router,
            options=options,
            receive=self._receive,
            settle=self._settle,
            overflow=self._on_overflow,
            greet=greet,
            greet_after_hello=require_hello,
        )
        self._vigil = Vigil(
            options, conversation, self._outbox, self._dispatcher, timers, self.abort, require_hello=require_hello
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else "closing" if self._reason or self._closing else "open"
        return (
            f"<Connection {self._link.peer.address} {state} protocol={self._conversation.protocol} "
            f"out={self._outbox.size}B in={self._dispatcher.size}B calls={len(self._calls)}>"
        )

    # --- what it is ---

    @property
    def peer(self) -> Peer:
        """Who is on the other side, as the kernel or the transport tells."""
        peer = self._link.peer
        protocol = self._conversation.protocol
        return peer if peer.protocol == protocol else dataclasses.replace(peer, protocol=protocol)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return not self._closing and self._reason is None

    @property
    def is_waiting(self) -> bool:
        """Whether something on this side waits for the peer, so that reading must not pause."""
        return self._waiting > 0 or len(self._calls) > 0

    @property
    def reason(self) -> Disconnected | None:
        """Why the connection ended, once it has."""
        return self._reason

    def statistics(self) -> ConnectionStatistics:
        """A snapshot of the counters."""
        return ConnectionStatistics(
            bytes_sent=self._outbox.bytes_sent,
            bytes_received=self._bytes_received,
            events_sent=self._events_sent,
            events_received=self._dispatcher.events_received,
            unheard=self._dispatcher.unheard,
            handler_errors=self._dispatcher.handler_errors,
            malformed=self._malformed,
            dropped=self._dropped,
            late_answers=self._calls.late_answers,
            outbox_size=self._outbox.size,
            inbox_size=self._dispatcher.size,
            pending_requests=len(self._calls),
            concurrent_requests=self._dispatcher.slots_used,
            reading_paused=self._dispatcher.paused,
        )

    # --- sending ---

    async def emit(self, event: str, data: object = None) -> None:
        """Send an event; nobody answers.

        Returns when the message is in the outbox, which is at once unless the outbox is above its
        high-water mark. Messages arrive in the order in which they were emitted.

        Args:
            event: Its name.
            data: Anything that has a JSON form; bytes on a raw connection.

        Raises:
            LocalProtocolError: The name or the data cannot be sent; nothing was.
            ConnectionClosed: The connection is closed, or lost; nothing was sent.

        Cancellation: a cancelled emit has sent nothing. Always a cancellation point, but a
        schedule point only once per high-water mark (64 KiB): giving way to the scheduler costs
        ten times what a message does.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing or self._reason is not None:
            raise self._gone()
        if self._conversation.is_risky(event):
            await self._know_peer()
        frame = self._conversation.event(event, data)
        outbox = self._outbox
        if outbox.size >= outbox.high_water_size:
            with self._giving_up_slot():
                await outbox.wait_for_room()
            if self._closing:
                raise self._gone()
        outbox.push(frame)
        self._events_sent += 1

    def emit_nowait(self, event: str, data: object = None) -> None:
        """Send an event if that is possible without waiting.

        Raises:
            trio.WouldBlock: The outbox is above its high-water mark; nothing was sent.
            LocalProtocolError: The name or the data cannot be sent; nothing was.
            ConnectionClosed: The connection is closed, or lost; nothing was sent.
        """
        if not self.is_open:
            raise self._gone()
        frame = self._conversation.event(event, data)
        if self._outbox.size >= self._outbox.high_water_size:
            raise trio.WouldBlock
        self._outbox.push(frame)
        self._events_sent += 1

    def encode(self, event: str, data: object) -> bytes:
        """The bytes of an event for every peer with this framing; see `send_encoded`."""
        return self._conversation.encode(event, data)

    def send_encoded(self, event: str, frame: bytes) -> bool:
        """Send bytes from `encode` without waiting, up to the outbox's cap.

        Returns:
            Whether they were queued. If not, the peer is too slow, and has been dealt with as the
            option ``slow_peer`` says.

        Raises:
            LocalProtocolError: The name or size does not suit this peer; nothing was sent.
            ConnectionClosed: The connection is closed, or lost; nothing was sent.
        """
        if not self.is_open:
            raise self._gone()
        self._conversation.check(event, frame)
        if self._outbox.offer(frame):
            self._events_sent += 1
            return True
        self._dropped += 1
        if self._options.slow_peer == "close":
            self.abort("slow", f"the peer read too slowly: {self._outbox.size:,} bytes wait for it (max_outbox_size)")
        return False

    async def flush(self) -> None:
        """Wait until everything sent so far is with the operating system.

        Raises:
            ConnectionClosed: The connection is closed, or lost; something may not have been sent.

        Cancellation: nothing is unsent by it.
        """
        if not self.is_open:
            await trio.lowlevel.checkpoint()
            raise self._gone()
        with self._giving_up_slot():
            await self._outbox.flush()

    @overload
    async def request(self, event: str, data: object = None, *, timeout: float | Unset | None = UNSET) -> Any: ...

    @overload
    async def request(
        self, event: str, data: object = None, *, timeout: float | Unset | None = UNSET, result: type[T]
    ) -> T: ...

    async def request(
        self, event: str, data: object = None, *, timeout: float | Unset | None = UNSET, result: Any = None
    ) -> Any:
        """Ask the peer and wait for its answer.

        Args:
            event: The name of the request.
            data: Anything that has a JSON form.
            timeout: Seconds to wait; ``None`` for ever; by default the option ``request_timeout``.
            result: A type that the answer is checked against and converted to.

        Returns:
            The answer, decoded.

        Raises:
            RequestTimeout: No answer came in time.
            NoHandler: Nobody there handles it.
            RemoteError: The handler there failed.
            InvalidData: The data does not fit what the handler expects, or the answer does not fit ``result``.
            PeerLacksFeature: The peer cannot take requests.
            ConnectionLost: The connection broke; ``maybe_handled`` says whether the peer may have acted.
            LocalProtocolError: The name or the data cannot be sent; nothing was.

        Cancellation: the peer is told and cancels its handler; a late answer is ignored.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if timeout is UNSET or isinstance(timeout, Unset):
            timeout = self._options.request_timeout
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        if not self.is_open:
            raise self._gone()
        if (
            self._outbox.size >= self._outbox.high_water_size
            or len(self._calls) >= self._options.max_pending_requests
        ):
            await self._wait_for_turn(event, timeout, deadline)
        number, frame = self._conversation.request(event, data)
        self._outbox.push(frame)
        self._events_sent += 1
        # Whoever is about to wait flushes first: it saves the turn of the flusher.
        self._outbox.flush_nowait()
        self._dispatcher.resume()
        with self._giving_up_slot():
            answer = await self._calls.wait(number, event, timeout, deadline)
        return answer if result is None else convert(answer, result)

    async def _wait_for_turn(self, event: str, timeout: float | None, deadline: float) -> None:
        """Wait until one more request fits, but not beyond its own time-out."""
        with self.waiting_for_peer(), trio.move_on_at(deadline) as scope:
            while len(self._calls) >= self._options.max_pending_requests:
                await self._calls.room.park()
                if not self.is_open:
                    raise self._gone()
            if self._outbox.size >= self._outbox.high_water_size:
                await self._outbox.wait_for_room()
        if scope.cancelled_caught:
            assert timeout is not None
            raise RequestTimeout(event, timeout)

    def _giving_up_slot(self) -> contextlib.AbstractContextManager[None]:
        slot = current_slot.get()
        return _NOTHING if slot is None else slot.given_up(self._dispatcher)

    async def _know_peer(self) -> None:
        """Wait until it is clear whether the peer speaks pyipc's protocol, but not for long."""
        timeout = self._options.handshake_timeout
        if self._introduced is None:
            self._introduced = trio.Event()
        with trio.move_on_after(math.inf if timeout is None else timeout):
            if self._conversation.awaits_welcome:
                await self._introduced.wait()
        if not self.is_open:
            raise self._gone()

    @contextlib.contextmanager
    def waiting_for_peer(self) -> Iterator[None]:
        """A context in which reading does not pause, since something waits for what the peer sends."""
        self._waiting += 1
        self._dispatcher.resume()
        try:
            with self._giving_up_slot():
                yield
        finally:
            self._waiting -= 1

    # --- receiving ---

    async def _receive(self) -> tuple[list[Inbound], int] | None:
        try:
            chunk = await self._link.receive()
        except ConnectionLost as error:
            self._end("lost", f"the connection broke: {error}", by_peer=True, error=error)
            self._reading_ended.set()
            return None
        if not chunk:
            self._end("eof", "the peer closed the connection", by_peer=True)
            self._reading_ended.set()
            return None
        self._bytes_received += len(chunk)
        if self._reason is not None or self._closing:
            # What comes after the end is read only so that the peer can finish in peace.
            return [], 0
        items = self._conversation.receive_data(chunk)
        answers = self._conversation.data_to_send()
        if answers and not self._offer(answers):
            self._on_overflow()
        self._vigil.received()
        return items, len(chunk)

    def _offer(self, frame: bytes) -> bool:
        """Queue what the protocol itself says; a broken link is noticed elsewhere."""
        try:
            return not frame or self._outbox.offer(frame)
        except ConnectionLost:
            return True

    def _settle(self, item: Inbound) -> None:
        """Deal with what arrived and is not for handlers."""
        match item:
            case Reply() | Failure():
                self._calls.settle(item)
            case Introduced():
                self._vigil.meet(item.heartbeat)
                if self._introduced is not None:
                    self._introduced.set()
            case Malformed(error, fatal):
                if fatal:
                    logger.warning("%s: %s; the connection is closed", self._link.peer.address, error)
                    self.abort(error.code, str(error), error=error)
                else:
                    self._malformed += 1
                    logger.warning("%s: %s; the frame was skipped", self._link.peer.address, error)
            case Goodbye(code, message):
                error = PeerRefused(code, message) if code != "closed" else None
                self._end("goodbye" if error is None else code, message or "the peer closed", by_peer=True, error=error)
                self._sever()
            case Goaway(message):
                logger.info("%s will close before long: %s", self._link.peer.address, message)

    def _on_abandoned_call(self, number: int) -> None:
        if self.is_open:
            self._offer(self._conversation.cancel(number))

    def _on_overflow(self) -> None:
        self.abort(
            "slow",
            f"too much waits on this connection ({self._outbox.size:,} bytes to send, "
            f"{self._dispatcher.size:,} bytes to handle)",
        )

    def _on_write_failure(self, error: ConnectionLost) -> None:
        # What the peer sent before it went can still be read, but it is not waited for long.
        self._sever_later()

    # --- ending ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until the connection ends and everything that arrived has been handled.

        Raises nothing; `reason` tells why it ended.

        Cancellation: the connection is closed at once.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                if self._closing:
                    return
                opening = self._conversation.open()
                if opening:
                    self._outbox.push(opening)
                    self._outbox.flush_nowait()
                self._vigil.begin()
                task_status.started()
                await self._dispatcher.run(self._nursery.start_soon)
        finally:
            self._end("closed", "this side closed the connection", by_peer=False)
            self._vigil.end()
            if self._last_call is not None:
                self._last_call.cancel()
            self._reading_ended.set()
            self._closed.set()
            # Even under cancellation this closes the link before it gives way.
            await self._link.aclose()

    def _spawn(self, task: Callable[..., Any], *args: Any) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(task, *args)

    def _end(self, code: str, message: str, *, by_peer: bool, error: BaseException | None = None) -> None:
        """Note why it ended, wake whoever waits for the peer, and give handlers a while to answer."""
        if self._reason is None:
            self._reason = Disconnected(self, code, message, by_peer, error)
            self._sever_later()
        self._calls.fail_all(message, lost=by_peer)
        if self._introduced is not None:
            self._introduced.set()
        if not by_peer or code != "eof":
            # Nobody is left to read what waits; after a mere end of stream the peer may still be reading.
            self._outbox.fail(ConnectionLost(message))

    def abort(self, code: str, message: str, *, error: BaseException | None = None, linger: bool = True) -> None:
        """Close because of something that the peer did or failed to do.

        A peer that speaks pyipc's protocol is told why, if that is possible without waiting. What
        it still sends is read and discarded for a while, so that it gets to read the reason; with
        ``linger=False`` the link is closed at once.
        """
        if self._reason is not None:
            return
        self._offer(self._conversation.goodbye(code, message))
        self._outbox.flush_nowait()
        self._link.send_eof()
        self._end(code, message, by_peer=False, error=error)
        self._dispatcher.resume()
        if not linger:
            self._sever()

    def _sever_later(self) -> None:
        if self._last_call is None:
            when = trio.current_time() + self._options.close_timeout
            self._last_call = self._timers.call_at(when, lambda late: self._sever())

    def _sever(self) -> None:
        """Give up on the link; handlers of events that arrived go on."""
        if self._closed.is_set() or self._nursery is None:
            return
        self._outbox.fail(ConnectionLost("the connection was closed"))
        self._dispatcher.cancel_requests()
        self._spawn(self._link.aclose)

    async def aclose(self, code: str = "closed", message: str = "") -> None:
        """Send what is queued, say goodbye, and close.

        Reads and discards what still comes until the peer has closed too, since closing with
        unread input would reset some connections and so lose what was sent. Takes at most the
        option ``close_timeout``. Handlers at work are cancelled at the end. May be called more
        than once.

        Raises:
            Undelivered: Not everything could be handed to the peer.

        Cancellation: closes at once.
        """
        if self._closing or self._nursery is None:
            self._closing = True  # should it not be running yet, it will not start
            await self._closed.wait()
            return
        self._closing = True
        self._calls.fail_all("this side closed the connection", lost=False)
        self._dispatcher.discard()
        undelivered = 0
        try:
            with trio.move_on_after(self._options.close_timeout):
                try:
                    if self._reason is None:
                        self._offer(self._conversation.goodbye(code, message))
                    await self._outbox.flush()
                    self._link.send_eof()
                except ConnectionLost:
                    pass  # what was not sent is counted below
                else:
                    await self._reading_ended.wait()
            undelivered = self._outbox.count_events()
        finally:
            self._nursery.cancel_scope.cancel()
        await self._closed.wait()
        if undelivered:
            raise Undelivered(
                undelivered,
                f"{undelivered} messages could not be sent to {self._link.peer.address} before it was closed",
            )

    async def wait_closed(self) -> None:
        """Wait until the connection has ended and its handlers are done."""
        await self._closed.wait()

    async def wait_lost(self) -> None:
        """Wait until nothing more arrives; handlers may still be at work."""
        await self._reading_ended.wait()

    def reclaim_events(self) -> list[bytes]:
        """Take back the events of which nothing was sent before the connection ended."""
        return self._outbox.reclaim_events()

    def requeue(self, frame: bytes) -> None:
        """Send what another connection to the same server had accepted.

        Raises:
            ConnectionLost: This one is broken as well.
        """
        self._outbox.push(frame)

    def _gone(self) -> ConnectionClosed:
        reason = self._reason
        if reason is None or not reason.by_peer:
            return ConnectionClosed("the connection is closed" if reason is None else reason.message)
        error = ConnectionLost(reason.message)
        error.__cause__ = reason.error
        return error


# What a task without a slot gives up; it can be entered any number of times.
_NOTHING = contextlib.nullcontext()
