"""The life of one connection: from its first byte to its last, and why it ended.

Joins the parts that each do one thing: `Outbox` writes, `Dispatcher` reads and brings what arrives
to handlers, `Calls` waits for answers, `Vigil` watches for silence. What users call is in
`pyipc.connection`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import TYPE_CHECKING, cast

import trio

from pyipc.calls import Calls
from pyipc.crew import Crew
from pyipc.datagram_vigil import DatagramVigil
from pyipc.dispatch import Dispatcher
from pyipc.errors import ConnectionClosed, ConnectionLost, HandshakeFailed, PeerRefused, Undelivered
from pyipc.finishing import end_when_done
from pyipc.inbox import Inbox
from pyipc.landmark import Landmark
from pyipc.outbox import STREAM_WRITE_SIZE, Outbox
from pyipc.protocol.messages import Reply
from pyipc.reader import Reader
from pyipc.responder import Responder
from pyipc.settling import settle
from pyipc.statistics import Disconnected
from pyipc.vigil import Vigil

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.arrival import Arrival, FullRequest
    from pyipc.attaching import AttachmentTally
    from pyipc.confirming import Window
    from pyipc.connection import Connection
    from pyipc.flusher import Flusher
    from pyipc.options import Options
    from pyipc.owner import Owner
    from pyipc.protocol.conversation import Conversation, Inbound
    from pyipc.router import Router
    from pyipc.sessions import Receipts
    from pyipc.streams import Streams
    from pyipc.timers import Timer, Timers
    from pyipc.transports.port import Link, Peer

__all__ = ["Lifecycle"]

logger: logging.Logger = logging.getLogger("pyipc.connection")


class Lifecycle:
    """A link, a conversation about it, and the tasks between.

    Args:
        link: Moves the bytes.
        conversation: Knows what they mean.
        nursery: The owner's nursery, for tasks beside the one that calls `run`.
        router: Finds handlers.
        options: Limits and times.
        timers: The owner's clock.
        flusher: The owner's flusher.
        owner: The server or client that it belongs to.
        greet: Called with the connection before any message is handled; may be async.
        require_hello: Whether the peer must introduce itself in time.

    Attributes:
        is_open: Whether messages can be sent.
    """

    __slots__ = (
        "__weakref__",
        "_attachments",
        "_bytes_received",
        "_calls",
        "_closed",
        "_closing",
        "_conversation",
        "_crew",
        "_dispatcher",
        "_dropped",
        "_events_sent",
        "_hears",
        "_inbox",
        "_introduced",
        "_last_call",
        "_link",
        "_malformed",
        "_now",
        "_options",
        "_outbox",
        "_owner",
        "_quiet",
        "_reader",
        "_reading_ended",
        "_reason",
        "_receipts",
        "_responder",
        "_running",
        "_streams",
        "_timers",
        "_vigil",
        "_waiting",
        "_window",
        "is_open",
    )

    def __init__(
        self,
        link: Link,
        conversation: Conversation,
        *,
        nursery: trio.Nursery,
        router: Router,
        options: Options,
        timers: Timers,
        flusher: Flusher,
        owner: Owner,
        greet: Callable[[Connection], object] | None = None,
        require_hello: bool = False,
    ) -> None:
        self._link = link
        self._owner = owner
        self._conversation = conversation
        self._options = options
        self._timers = timers
        self._now = flusher.now
        self._crew = Crew(nursery)
        self._running = False
        self._reason: Disconnected | None = None
        self._closing = False
        self._hears = True
        self.is_open: bool = True
        self._closed = Landmark()
        self._reading_ended = Landmark()
        self._introduced: trio.Event | None = None
        self._last_call: Timer | None = None
        # What is confirmed of either side's events; made when it is first needed.
        self._receipts: Receipts | None = None
        self._window: Window | None = None
        self._quiet: trio.lowlevel.ParkingLot | None = None
        self._waiting = 0
        self._streams: Streams | None = None
        self._bytes_received = 0
        self._attachments: AttachmentTally | None = None
        self._events_sent = 0
        self._malformed = 0
        self._dropped = 0
        connection = cast("Connection", self)
        spawn = self._crew.start  # one method for all: ten thousand connections would have as many more
        self._outbox = Outbox(
            link,
            flusher,
            write_size=STREAM_WRITE_SIZE if link.reliable else conversation.shared_size,
            high_water_size=options.outbox_high_water_size,
            max_size=options.max_outbox_size if link.reliable else options.outbox_high_water_size,
            spawn=spawn,
            connection=connection,
        )
        self._calls = Calls(timers, self._on_abandoned_call)
        self._reader = Reader(link, connection)
        self._inbox = Inbox(
            connection,
            high_water_size=options.inbox_high_water_size,
            max_size=options.max_inbox_size,
        )
        self._responder = Responder(
            connection,
            conversation=conversation,
            outbox=self._outbox,
            inbox=self._inbox,
            reader=self._reader,
            router=router,
            options=options,
            spawn=spawn,
        )
        self._dispatcher = Dispatcher(
            connection,
            link=link,
            reader=self._reader,
            inbox=self._inbox,
            outbox=self._outbox,
            responder=self._responder,
            router=router,
            options=options,
            greet=greet,
            greet_after_hello=require_hello,
        )
        self._vigil = (Vigil if link.reliable else DatagramVigil)(
            connection,
            options=options,
            conversation=conversation,
            outbox=self._outbox,
            dispatcher=self._dispatcher,
            reader=self._reader,
            timers=timers,
            require_hello=require_hello,
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else "closing" if self._reason or self._closing else "open"
        return (
            f"<Connection {self._link.peer.address} {state} protocol={self._conversation.protocol} "
            f"out={self._outbox.size}B in={self._inbox.size}B calls={len(self._calls.pending)}>"
        )

    # --- what it is ---

    @property
    def peer(self) -> Peer:
        """Who is on the other side, as the kernel or the transport tells."""
        peer = self._link.peer
        protocol = self._conversation.protocol
        return peer if peer.protocol == protocol else dataclasses.replace(peer, protocol=protocol)

    @property
    def is_waiting(self) -> bool:
        """Whether something on this side waits for the peer or its end, so that reading must not pause."""
        if self._window is not None and self._window.pending:
            return True
        return self._waiting > 0 or len(self._calls.pending) > 0 or self._reason is not None

    @property
    def reason(self) -> Disconnected | None:
        """Why the connection ended, once it has."""
        return self._reason

    # --- what its parts tell it: by methods, as each has the connection anyway and a callback more would weigh ---

    def _on_broken_link(self, error: Exception) -> None:
        """Reading failed."""
        if not isinstance(error, ConnectionLost):
            logger.error("the link to %s failed", self._link.peer.address, exc_info=error)
        if isinstance(refusal := error.__cause__, HandshakeFailed):
            self._end(refusal.code, str(refusal), by_peer=True, error=refusal)
        else:
            self._end("lost", f"the connection broke: {error}", by_peer=True, error=error)
        self._reading_ended.set()

    def _answer(self, frames: bytes) -> None:
        """Send what the protocol itself answers."""
        if not self._link.reliable:
            self._outbox.push_ahead(frames)  # what else is to be sent may depend on it
        elif not self._offer(frames):
            self._on_overflow()

    def _note_quiet(self) -> None:
        """Something is under way no more."""
        if self._quiet is not None:
            self._quiet.unpark_all()
        if not self._hears:
            end_when_done(cast("Connection", self))

    def _resume_reading(self) -> None:
        """Something waits no more, and there is room to read on."""
        self._dispatcher.resume()

    def _offer(self, frame: bytes) -> bool:
        """Queue what the protocol itself says; a broken link is noticed elsewhere."""
        try:
            return not frame or self._outbox.offer(frame)
        except ConnectionLost:
            return True

    def _settle(self, item: Inbound) -> Arrival | FullRequest | None:
        """Deal with what is neither a plain event nor a request; return what is for handlers all the same."""
        if type(item) is Reply and (self._streams is None or item.call not in self._streams.open):  # nearly always
            self._calls.settle(item)
            self._reader.note_answer(alone=not self._calls.pending)
            return None
        return settle(cast("Connection", self), item)

    def _on_abandoned_call(self, number: int) -> None:
        if self.is_open:
            with contextlib.suppress(ConnectionLost):  # then nobody is at work for it any more
                self._outbox.push(self._conversation.cancel(number))  # there are no more of them than of calls

    def _fail_calls(self, message: str, *, lost: bool, maybe_handled: bool) -> None:
        """Tell whoever waits for an answer that none will come, and end what would be answered bit by bit."""
        self._calls.fail_all(message, lost=lost, maybe_handled=maybe_handled)
        if self._streams is not None:
            self._streams.fail_all(message, lost=lost, maybe_handled=maybe_handled)
        if self._responder.producers is not None:
            self._responder.producers.cancel_all()

    def _on_overflow(self) -> None:
        """More waits than may: end the connection, or lose what came last where anything may be lost."""
        if not self._link.reliable:
            self._dropped += 1
            return
        self.abort(
            "slow",
            f"too much waits on this connection ({self._outbox.size:,} bytes to send, "
            f"{self._inbox.size:,} bytes to handle)",
        )

    def _on_write_failure(self, error: ConnectionLost) -> None:
        self.is_open = False
        # What the peer sent before it went can still be read, but it is not waited for long.
        self._sever_later()

    # --- ending ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until the connection ends and everything that arrived has been handled.

        Raises nothing; `reason` tells why it ended.

        Cancellation: the connection is closed at once.
        """
        self._running = True
        try:
            async with self._crew as scope:
                if self._closing:
                    return
                opening = self._conversation.open()
                if opening:
                    self._outbox.push(opening)
                    self._outbox.flush_nowait()
                self._vigil.begin()
                task_status.started()
                await self._dispatcher.work(scope)
        except Exception as error:
            # It is a fault of ours, since what users' code raises is told elsewhere. It ends this connection alone.
            logger.exception("the connection to %s failed", self._link.peer.address)
            self._end("failed", f"this side failed: {type(error).__name__}: {error}", by_peer=False, error=error)
        finally:
            if self.is_open and not self._link.reliable:
                self._outbox.push_ahead(self._conversation.goodbye("closed", ""))  # else nothing would tell the peer
            self._end("closed", "this side closed the connection", by_peer=False)
            self._vigil.end()
            if self._last_call is not None:
                self._last_call.cancel()
            self._reading_ended.set()
            try:
                # Even under cancellation this closes the link before it gives way.
                await self._link.aclose()
            finally:
                self._closed.set()

    def _end(self, code: str, message: str, *, by_peer: bool, error: BaseException | None = None) -> None:
        """Note why it ended, wake whoever waits for the peer, and give handlers a while to answer."""
        self.is_open = False
        if self._reason is None:
            self._reason = Disconnected(self, code, message, by_peer, error)
            self._sever_later()
        # A peer that refused the connection has looked at nothing else.
        refused = isinstance(error, PeerRefused | HandshakeFailed) and self._conversation.protocol == "plain"
        self._fail_calls(message, lost=code != "closed", maybe_handled=not refused)
        self._owner.ended(cast("Connection", self))
        if self._introduced is not None:
            self._introduced.set()
        self._note_quiet()
        if code == "eof":
            self._outbox.flush_nowait()  # the peer may have closed only its own direction, and still read
        else:
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
        self._outbox.end()
        self._end(code, message, by_peer=False, error=error)
        self._dispatcher.resume()
        self._reader.call_back()
        if not linger or not self._link.reliable:
            self._sever()

    def _sever_later(self) -> None:
        if self._last_call is None:
            when = trio.current_time() + self._options.close_timeout
            self._last_call = self._timers.call_at(when, lambda late: self._sever())

    def _sever(self) -> None:
        """Give up on the link; handlers of events that arrived go on."""
        if self._closed.is_set() or not self._running:
            return
        self._outbox.fail(ConnectionLost("the connection was closed"))
        self._responder.cancel_all()
        self._reader.call_back()
        self._crew.start(self._link.aclose)

    async def aclose(self, code: str = "closed", message: str = "") -> None:
        """Send what is queued, say goodbye, and close.

        Reads and discards what still comes until the peer has closed too, since closing with
        unread input would reset some connections and so lose what was sent; not where the link has no
        end of the stream but its closing, and keeps what was sent. (A peer over UDP that has not shown
        who it is gets no more than fits.) Takes at most the
        option ``close_timeout``. Handlers at work are cancelled at the end. May be called more
        than once.

        Raises:
            Undelivered: Not everything could be handed to the peer. Not raised for a connection
                that had ended before; `reason` tells of that.

        Cancellation: closes at once.
        """
        if self._closing or not self._running:
            self._closing = True  # should it not be running yet, it will not start
            self.is_open = False
            await self._closed.wait()
            return
        self._closing = True
        self.is_open = False
        by_us = self._reason is None
        if by_us:
            self._reason = Disconnected(self, "closed", "this side closed the connection", False)
        self._fail_calls("this side closed the connection", lost=False, maybe_handled=True)
        self._owner.ended(cast("Connection", self))
        self._dispatcher.discard()
        self._reader.call_back()
        undelivered = 0
        try:
            with trio.move_on_after(self._options.close_timeout):
                if self._owner.shelter is not None:
                    await self._owner.shelter.close(cast("Connection", self), self._options.close_timeout / 2)
                try:
                    if by_us:
                        self._offer(self._conversation.goodbye(code, message))
                    if self._link.verified:
                        await self._outbox.flush()
                    else:
                        self._outbox.flush_nowait()
                    is_eof_sent = self._link.send_eof()
                except ConnectionLost:
                    pass  # what was not sent is counted below
                else:
                    # A peer that is not told of the end would not close either.
                    if is_eof_sent or not self._link.keeps_sent:
                        await self._reading_ended.wait()
            if by_us and self._link.verified:  # else the loss was reported with the connection's end
                undelivered = self._outbox.count_events()
        finally:
            if self._owner.shelter is not None:
                self._owner.shelter.expose(cast("Connection", self))
            self._crew.cancel()
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

    def _gone(self) -> ConnectionClosed:
        """What to raise for the use of a connection that has ended."""
        reason = self._reason
        if reason is None and not self._closing:
            # Its end is still being read.
            return ConnectionLost(
                "this side has finished sending" if self._outbox.finished else "the connection broke while sending"
            )
        if reason is None or reason.code == "closed":
            return ConnectionClosed("the connection is closed")
        error = ConnectionLost(reason.message)
        error.__cause__ = reason.error
        return error
