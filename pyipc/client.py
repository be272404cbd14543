"""A client: a connection that comes back."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING, Any, TypeVar, overload

import trio

from pyipc.departing import close_all
from pyipc.errors import (
    ConnectionClosed,
    ConnectionLost,
    IPCError,
    RequestTimeout,
    Undelivered,
)
from pyipc.finishing import wait_handled
from pyipc.handling import Handling
from pyipc.listening import EventStream, EventStreams
from pyipc.options import UNSET, Options, Unset, check_timeout
from pyipc.protocol.names import check_event_name
from pyipc.protocol.parcels import NO_ATTACHMENTS, listed
from pyipc.protocol.traces import check_traceparent
from pyipc.reconnecting import Reconnecting
from pyipc.router import Router
from pyipc.statistics import ClientStatistics
from pyipc.streams import Stream, StreamSource
from pyipc.subscribing import Subscriptions, TopicClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyipc.connection import Connection
    from pyipc.endpoint import Endpoint
    from pyipc.message import Message
    from pyipc.protocol.parcels import Buffer
    from pyipc.transports.port import Peer
    from pyipc.watch import Watch

__all__ = ["Client"]

T = TypeVar("T")
F = TypeVar("F", bound="Callable[[Message[Any]], object]")
logger: logging.Logger = logging.getLogger("pyipc.client")
_checkpoint_if_cancelled = trio.lowlevel.checkpoint_if_cancelled


class Client(Handling, StreamSource, TopicClient):
    """What `pyipc.connect` gives: talks to one server, through one connection after the other."""

    def __init__(
        self, endpoints: Sequence[Endpoint], router: Router | None, options: Options, watch: Watch | None = None
    ) -> None:
        self._options = options
        self._router = Router()
        if router is not None:
            self._router.include(router)
        self._event_streams = EventStreams(self._router, self._waiting_for_peer)
        self._up = Reconnecting(
            endpoints,
            self._router,
            options,
            on_loss=self._on_loss,
            on_move=self._event_streams.leave_answers,
            watch=watch,
        )
        self._connect_callbacks, self._disconnect_callbacks = self._up.on_connect, self._up.on_disconnect
        self._topics = Subscriptions(
            self._up,
            options,
            connected=self._wait_for_connection,
            check_usable=self._check_usable,
        )
        self._up.serve_topics(self._topics)
        self._closing = False
        self._leaving = False
        self._left = trio.Event()

    def __repr__(self) -> str:
        state = "closed" if self._closing else "connected" if self.connected else "not connected"
        departing = f", {len(self._up.departing)} departing" if self._up.departing else ""
        return f"<Client {self._up.destinations} {state}, {len(self._up.offline)} queued{departing}>"

    # --- what it is ---

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._up.is_connected

    @property
    def peer(self) -> Peer | None:
        """Who the server is, while there is a connection."""
        return None if self._up.connection is None else self._up.connection.peer

    def statistics(self) -> ClientStatistics:
        """A snapshot of the counters."""
        return ClientStatistics(
            connected=self.connected,
            connects=self._up.connects,
            failed_connects=self._up.failed_connects,
            moves=self._up.moves,
            departing=len(self._up.departing),
            offline_messages=len(self._up.offline),
            offline_size=self._up.offline.size,
            offline_dropped=self._up.offline.dropped,
            unsettled=len(self._up.window.pending),
            confirmed=self._up.window.confirmed,
            resent=self._up.window.resent,
            unconfirmed=self._up.window.unconfirmed,
            subscriptions=len(self._topics),
            published_received=self._topics.received,
            published_dropped=self._topics.dropped,
            publishes_refused=self._topics.refused,
            connection=None if self._up.connection is None else self._up.connection.statistics(),
        )

    # --- handlers ---

    def on_failed_connect(self, function: Callable[[IPCError], object]) -> Callable[[IPCError], object]:
        """Call a function, plain or async, with the error of every attempt to connect that failed.

        The next attempt waits for it.
        """
        return self._up.on_failed_connect.add(function)

    def events(self, pattern: str, *, max_buffered: int = 1_024) -> EventStream[Any]:
        """The events of some names as an asynchronous iterator, from now on and across reconnects.

        Args:
            pattern: A name, or a pattern as for handlers.
            max_buffered: Events that may wait in it before the server is held back.
        """
        return self._listen(pattern, max_buffered)

    def expect(self, pattern: str, *, max_buffered: int = 1_024) -> EventStream[Any]:
        """Listen for an answer that comes as an event, as those of node-ipc programs do.

        Enter it before emitting the question: ``async with client.expect("sum") as answer:``. If
        the connection is lost, waiting for the answer raises `ConnectionLost`.
        """
        return self._listen(pattern, max_buffered, is_answer=True)

    def _listen(self, pattern: str, max_buffered: int, *, is_answer: bool = False) -> EventStream[Any]:
        stream = self._event_streams.open(pattern, max_buffered, is_answer=is_answer)
        if self._closing:
            stream.end()
        elif self._up.failure is not None:
            stream.end(ConnectionLost(f"the client has given up: {self._up.failure}"))
        return stream

    def _waiting_for_peer(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._up.connection is None else self._up.connection.waiting_for_peer()

    # --- sending ---

    async def emit(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        confirm: bool = False,
        timeout: float | Unset | None = UNSET,
        traceparent: str = "",
    ) -> None:
        """Send an event; nobody answers. See `Connection.emit`.

        While there is no connection the event is queued, refused or dropped, as the option
        ``offline`` says. If it turns out that the server takes no attachments, or not so many, an event with them that
        was queued is dropped and logged. With ``confirm`` one that a lost connection left open is sent again over the
        next, if ``offline`` is ``"queue"``: it is handled once in the life of a server, and handlers of a server that
        was started since see ``message.redelivered``.

        Args:
            event: Its name.
            data: Anything that has a JSON form.
            attachments: Buffers of bytes; see `Connection.emit`.
            confirm: Wait until the server has handled it.
            timeout: With ``confirm``: seconds to wait; ``None`` for ever; by default the option ``confirm_timeout``.
            traceparent: Which span of a trace it comes from, as W3C Trace Context writes it. What is queued goes
                without, unless it is to be confirmed.

        Raises:
            LocalProtocolError: The name, the data or the attachments cannot be sent; nothing was.
            ConnectionClosed: The client is closed, or not connected and cannot queue; nothing was sent.
            PeerLacksFeature: With ``confirm``: the server cannot confirm, or nobody can over this transport.
            RequestError: With ``confirm``: it was not handled, or a handler failed; as for `request`.
            Unconfirmed: With ``confirm``: its outcome is not known, and ``maybe_handled`` says what is.
            ConnectionLost: With ``confirm``: likewise, where nothing is sent again.

        Cancellation: a cancelled emit has sent nothing, unless it was waiting to be confirmed: then the event may be
        handled all the same, and is not sent again.
        """
        if confirm:
            await self._up.window.emit_anyhow(event, data, timeout, listed(attachments), traceparent)
            return
        connection = self._up.connection
        if connection is not None:
            try:
                await _checkpoint_if_cancelled()
                if attachments is not NO_ATTACHMENTS:
                    attachments = listed(attachments)
                    await connection.emit(event, data, attachments=attachments, traceparent=traceparent)
                    return
                # Nearly always there is nothing to wait for, and a coroutine would cost as much as the rest.
                if traceparent or not connection._emit_at_once(event, data):
                    await connection.emit(event, data, traceparent=traceparent)
            except ConnectionLost:
                pass  # it was not sent, and goes the way of all that is emitted without a connection
            else:
                return
        # Without a connection it gives way each time: a loop that emits must not keep the next one from being made.
        await trio.lowlevel.checkpoint()
        if self._up.connection not in (None, connection):
            await self.emit(event, data, attachments=attachments, traceparent=traceparent)
            return
        self._emit_offline(event, data, attachments, traceparent)

    def emit_nowait(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        traceparent: str = "",
    ) -> None:
        """Send an event if that is possible without waiting. See `Connection.emit_nowait`.

        Raises:
            trio.WouldBlock: The outbox is above its high-water mark, or there are attachments and it is not known yet
                whether the server takes any; nothing was sent.
            LocalProtocolError: The name, the data or the attachments cannot be sent; nothing was.
            ConnectionClosed: The client is closed, or not connected and cannot queue; nothing was sent.
        """
        connection = self._up.connection
        if attachments is not NO_ATTACHMENTS:
            attachments = listed(attachments)
        if connection is not None:
            with contextlib.suppress(ConnectionLost):
                connection.emit_nowait(event, data, attachments=attachments, traceparent=traceparent)
                return
        self._emit_offline(event, data, attachments, traceparent)

    def _emit_offline(self, event: str, data: object, attachments: Iterable[Buffer], traceparent: str) -> None:
        self._check_usable()
        if traceparent:
            check_traceparent(traceparent)
        check_event_name(event, self._options.max_event_name_size)
        self._up.keep(event, data, attachments)

    @overload
    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        timeout: float | Unset | None = UNSET,
        idempotent: bool = False,
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
        idempotent: bool = False,
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
        idempotent: bool = False,
        result: Any = None,
        traceparent: str = "",
    ) -> Any:
        """Ask the server and wait for its answer. See `Connection.request`.

        While there is no connection it waits for one, within the same time-out, unless the option
        ``offline`` is ``"raise"`` or ``"drop"``.

        Args:
            event: The name of the request.
            data: Anything that has a JSON form.
            timeout: Seconds to wait in all; ``None`` for ever; by default the option ``request_timeout``.
            idempotent: Whether it does no harm to handle it twice. If so it is sent again when the connection was lost,
                though it may have been handled.
            result: A type that the answer is checked against and converted to.

        Raises:
            RequestError, ConnectionLost, LocalProtocolError: As `Connection.request`.

        Cancellation: the server is told and cancels its handler.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if traceparent:
            check_traceparent(traceparent)
        if isinstance(timeout, Unset):
            timeout = self._options.request_timeout
        else:
            check_timeout(timeout, may_be_over=True)
        now = self._up.now()
        deadline = math.inf if timeout is None else now + timeout
        buffers = [] if attachments is NO_ATTACHMENTS else listed(attachments)
        loss: ConnectionLost | None = None  # of a connection over which it may have been handled
        while True:
            connection = self._up.connection
            if connection is None or not connection.is_open:
                try:
                    connection = await self._wait_for_connection(event, timeout, deadline)
                except ConnectionLost as lost:
                    if loss is None:
                        raise
                    raise ConnectionLost(str(lost), maybe_handled=True) from loss
            try:
                return await connection._request_until(
                    event, data, timeout, deadline, now, result, buffers, traceparent
                )
            except ConnectionLost as lost:
                if lost.maybe_handled:
                    loss = lost
                    if not idempotent:
                        raise
                if self._options.offline != "queue" and self._up.connection in (None, connection):
                    raise
                now = self._up.now()
            except RequestTimeout as late:
                assert timeout is not None
                hint = ""
                if not connection._link.reliable and not connection.statistics().bytes_received:
                    hint = "; nothing has come from there, so the server may not be running"
                elif connection.peer.protocol == "plain":
                    hint = "; the peer has not introduced itself, so it may be a plain node-ipc program"
                raise RequestTimeout(event, timeout, hint) from late

    async def _open_stream(self, stream: Stream[Any], deadline: float) -> None:
        while True:
            connection = self._up.connection
            if connection is None or not connection.is_open:
                connection = await self._wait_for_connection(stream.event, stream.timeout, deadline)
            try:
                await connection._open_stream(stream, deadline)
                return
            except ConnectionLost:  # nothing was sent
                if self._options.offline != "queue":
                    raise

    async def _wait_for_connection(self, event: str, timeout: float | None, deadline: float) -> Connection:
        if self._options.offline != "queue":
            await trio.lowlevel.checkpoint()
            self._check_usable()
            raise ConnectionLost(f"not connected ({self._up.why_not})")
        with trio.move_on_at(deadline):
            while True:
                self._check_usable()
                if self._up.connection is not None and self._up.connection.is_open:
                    return self._up.connection
                if self._up.refusal is not None:
                    raise ConnectionLost(f"not connected ({self._up.why_not})") from self._up.refusal
                await self._up.wait_for_change()
        assert timeout is not None
        raise RequestTimeout(event, timeout, f"; there was no connection ({self._up.why_not})")

    async def flush(self) -> None:
        """Wait until everything sent so far is with the operating system.

        Raises:
            ConnectionClosed: There is no connection, or it ended meanwhile.

        Cancellation: nothing is unsent by it.
        """
        for departing in tuple(self._up.departing):
            with contextlib.suppress(ConnectionLost):  # what it has not sent goes to the present one
                await departing.flush()
        if self._up.connection is None:
            await trio.lowlevel.checkpoint()
            self._check_usable()
            raise ConnectionLost(f"not connected ({self._up.why_not})")
        await self._up.connection.flush()

    async def wait_handled(self) -> None:
        """Wait until nothing that has arrived is still to be handled: before a program ends, say.

        Not to be called by a handler of what the server sends, which would wait for itself.

        Cancellation: nothing is changed by it.
        """
        if self._up.connection is None:
            await trio.lowlevel.checkpoint()
        else:
            await wait_handled(self._up.connection)

    def _check_usable(self) -> None:
        if self._closing:
            raise ConnectionClosed("the client is closed")
        if self._up.failure is not None:
            raise ConnectionLost(f"the client has given up: {self._up.failure}") from self._up.failure

    # --- the connection ---

    async def wait_connected(self, timeout: float | Unset | None = UNSET) -> None:
        """Wait until there is a connection.

        Args:
            timeout: Seconds to wait; ``None`` for ever; by default the option ``connect_timeout``.

        Raises:
            ConnectError: There was none in time; the last attempt's error is the cause.
            AddressError: There cannot be one.

        Cancellation: nothing is changed by it.
        """
        if isinstance(timeout, Unset):
            timeout = self._options.connect_timeout
        else:
            check_timeout(timeout)
        await self._up.wait_connected(timeout)

    def _start(self, nursery: trio.Nursery) -> None:
        self._up.start(nursery)

    def _on_loss(self, error: IPCError, final: bool) -> None:
        """Tell those whose events will not come: all of them, or those who expect an answer."""
        if final:
            self._event_streams.end(error)
            self._topics.end_all(error)
        else:
            self._event_streams.end_answers(error)

    async def aclose(self) -> None:
        """Send what is queued, say goodbye, and close. May be called more than once, also by `on_disconnect`.

        What was queued without a connection is given the option ``close_timeout`` to find one.

        Raises:
            Undelivered: Not everything could be handed to the server.

        Cancellation: closes at once.
        """
        with self._up.running.excused():
            if self._leaving:
                await self._left.wait()
            else:
                self._leaving = True
                await self._leave()

    async def _leave(self) -> None:
        undelivered = 0
        try:
            if len(self._up.offline) or self._up.window.pending:
                with trio.move_on_after(self._options.close_timeout):
                    if len(self._up.offline):
                        await self._up.wait_settled()
                    await self._up.window.wait_empty()
            self._closing = True
            self._up.window.close()
            connections = self._up.connections
            self._up.stop()
            undelivered = await close_all(connections, self._up.offline)
            with trio.move_on_after(self._options.close_timeout):
                await self._up.running.wait_for_all()
            await trio.lowlevel.checkpoint()
        except BaseException:
            # Cancelled, most likely: what could not be closed in order is closed at once.
            self._closing = True
            with trio.CancelScope() as scope:
                scope.cancel()
                await close_all(self._up.connections, self._up.offline)
            raise
        finally:
            self._closing = True
            self._up.window.close()
            self._up.stop()
            self._event_streams.end(None)
            self._topics.end_all(None)
            self._up.tell()
            self._left.set()
        undelivered += len(self._up.offline)
        if undelivered:
            why = f": {self._up.last_error}" if self._up.last_error else ""
            raise Undelivered(undelivered, f"{undelivered} messages could not be sent to {self._up.destinations}{why}")
