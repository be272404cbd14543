"""Keeping a connection up: one after the other, with pauses between, and a queue meanwhile."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING

import trio

from pyipc.attaching import pack_kept
from pyipc.attendance import Attendance
from pyipc.backoff import Backoff
from pyipc.callbacks import Callbacks
from pyipc.departing import ClientOwner, depart, give_back
from pyipc.destinations import Destinations
from pyipc.errors import (
    AddressError,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    HandshakeFailed,
    IPCError,
    LocalProtocolError,
    PeerNotAllowed,
    PeerRefused,
    UnsafePath,
)
from pyipc.flusher import Flusher
from pyipc.identity import AGENT
from pyipc.offline import OfflineQueue, needs_feature, send_all_kept, send_kept
from pyipc.protocol.conversation import Role
from pyipc.protocol.parcels import NO_ATTACHMENTS, listed
from pyipc.resending import Resending
from pyipc.timers import Timers
from pyipc.watched import connection_class, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyipc.connection import Connection
    from pyipc.endpoint import Endpoint
    from pyipc.listening import Expected
    from pyipc.options import Options
    from pyipc.protocol.conversation import Conversation
    from pyipc.protocol.features import Publish
    from pyipc.protocol.parcels import Buffer, Frame
    from pyipc.router import Router
    from pyipc.statistics import Disconnected
    from pyipc.subscribing import Subscriptions
    from pyipc.transports.port import Link
    from pyipc.watch import Watch

__all__ = ["Reconnecting"]

logger: logging.Logger = logging.getLogger("pyipc.client")

# Connections that are left behind while something is under way on them; a server can make it so that it never ends.
_MAX_DEPARTING = 8
# Trying again soon will not mend these, so whoever waits for the first connection is told at once.
_HOPELESS = (AddressError, UnsafePath, PeerNotAllowed, PeerRefused)


class Reconnecting:
    """Connects, lives through the connection, and connects again.

    Args:
        endpoints: Where to; which of them is left to `Destinations`.
        router: Handlers for what the server sends.
        options: Times and bounds.
        on_loss: Called with the error when a connection has ended; when there will be no other,
            with ``final`` true.
        on_move: Called when a connection is left behind; returns the answers that will still come over it.
        watch: Tells an instrument what happens, if there is one.

    Attributes:
        now: Trio's time; once it was started, by the shortest way.
        connection: The present connection, if there is one.
        template: Encodes what is sent while there is no connection.
        subscriptions: What is subscribed to again over each connection; set by the client.
        departing: Those that were left behind, until nothing is under way on them any more.
        destinations: The addresses, best first.
        offline: What waits for the next one.
        window: The events that are to be confirmed.
        failure: Why it was given up, if it was.
        running: The tasks of the connections, until whoever wanted to know of their end was told.
        last_error: Why the last attempt or connection ended.
        connects: Connections made.
        failed_connects: Attempts that failed.
        moves: Connections left behind because their server asked for it.
        on_connect: Who wants to know of new connections.
        on_disconnect: Who wants to know why one ended.
        on_failed_connect: Who wants to know why an attempt failed.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        router: Router,
        options: Options,
        *,
        on_loss: Callable[[IPCError, bool], None],
        on_move: Callable[[], Expected],
        watch: Watch | None = None,
    ) -> None:
        self._router = watched(router, watch)
        self._options = options
        self._on_loss = on_loss
        self._on_move = on_move
        self.destinations: Destinations = Destinations(endpoints, options, self._on_failed_attempt)
        self.template: Conversation = endpoints[0].converse(
            Role.CLIENT, options, agent=AGENT, max_size=self.destinations.max_size
        )
        self._timers = Timers()
        self._flusher = Flusher()
        self.window: Resending = Resending(self, options, self._timers)
        self._owner = ClientOwner(self.going_away)
        self._owner.window = self.window
        self._owner.watch = watch
        # Which connection was asked to end, and what wakes the supervision of it.
        self._sent_away: Connection | None = None
        self._kept_on: Connection | None = None
        self._staying = trio.CancelScope()
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._supervision = trio.CancelScope()
        self._stopped = False
        # Until when a server that does not introduce itself is taken for the one before, which did.
        self._known_until = -math.inf
        self.running: Attendance = Attendance()
        self.now: Callable[[], float] = trio.current_time
        self.connection: Connection | None = None
        self.subscriptions: Subscriptions | None = None
        self.departing: dict[Connection, None] = {}
        self.offline: OfflineQueue = OfflineQueue(options)
        self.failure: IPCError | None = None
        self.last_error: IPCError | None = None
        self.connects: int = 0
        self.failed_connects: int = 0
        self.moves: int = 0
        self.on_connect: Callbacks[Connection] = Callbacks("on_connect")
        self.on_disconnect: Callbacks[Disconnected] = Callbacks("on_disconnect")
        self.on_failed_connect: Callbacks[IPCError] = Callbacks("on_failed_connect")

    def start(self, nursery: trio.Nursery) -> None:
        """Begin to connect, in the background."""
        self._nursery = nursery
        self.now = trio.lowlevel.current_clock().current_time
        nursery.start_soon(self._timers.run)
        nursery.start_soon(self._flusher.run)
        nursery.start_soon(self._supervise_to_the_end)

    def stop(self) -> None:
        """Connect no more; a connection that there is stays."""
        self._stopped = True
        self._supervision.cancel()
        self.tell()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that has not begun to end."""
        return self.connection is not None and self.connection.is_open

    @property
    def connections(self) -> set[Connection]:
        """The present one, and those that were left behind."""
        present = () if self.connection is None else (self.connection,)
        return {*self.departing, *present}

    @property
    def refusal(self) -> IPCError | None:
        """Why the server will have none of us, or we of it, if that is how the last attempt or connection ended."""
        return self.last_error if self.connection is None and _is_refusal(self.last_error) else None

    @property
    def why_not(self) -> str:
        """Why there is no connection, for people."""
        if self.connection is not None:
            return "the connection is ending"
        return str(self.last_error or "no connection was made yet")

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for_change(self) -> None:
        """Wait until a connection is made or lost, or given up."""
        await self._changed.wait()

    async def wait_settled(self) -> None:
        """Wait until there is a connection, or it is clear that there will be none."""
        while not self.is_connected and self.failure is None:
            await self.wait_for_change()

    async def wait_connected(self, timeout: float | None) -> None:
        """Wait until there is a connection; see `Client.wait_connected`."""
        before = self.connects
        with trio.move_on_after(math.inf if timeout is None else timeout):
            # One that is over by the time that this task runs was a connection all the same.
            while not self.is_connected and self.connects == before:
                if self._stopped:
                    raise ConnectionClosed("the client is closed")
                if self.failure is not None:
                    raise self.failure
                if self.connection is None and isinstance(self.last_error, _HOPELESS):
                    raise self.last_error
                if self.refusal is not None:
                    raise self.refusal
                await self.wait_for_change()
        if not self.is_connected and self.connects == before:
            raise ConnectError(
                f"could not connect to {self.destinations} within {timeout:g} s: {self.why_not}"
            ) from self.last_error

    def keep(self, event: str, data: object, attachments: Iterable[Buffer]) -> None:
        """Keep an event for the next connection; see `OfflineQueue.put`."""
        frame = self.template.encode(event, data)
        self.template.check_size(frame)
        buffers = [] if attachments is NO_ATTACHMENTS else listed(attachments)
        kept = pack_kept(self.template, frame, buffers) if buffers else frame
        self.offline.put(event, kept, self.why_not, self.window.last)

    async def _supervise_to_the_end(self) -> None:
        try:
            await self._supervise()
        finally:
            self.window.close()

    def keep_published(self, body: Publish, attachments: list[Buffer]) -> None:
        """Keep something that is published for the next connection; see `OfflineQueue.put`."""
        frame = self.template.say(body)
        kept = pack_kept(self.template, frame, attachments) if attachments else frame
        self.offline.put(body.topic, kept, self.why_not, self.window.last)

    def serve_topics(self, subscriptions: Subscriptions) -> None:
        """Let ``subscriptions`` have what arrives about topics, and take part in every new connection."""
        self.subscriptions = self._owner.topics = subscriptions

    async def _supervise(self) -> None:
        """Keep a connection up until it is stopped or trying again makes no sense."""
        backoff = Backoff(self._options)
        hurried = False
        with self._supervision:
            while True:
                try:
                    link, endpoint = await self.destinations.dial()
                except IPCError as error:
                    self.last_error = error
                    self._let_go()
                    if isinstance(error, AddressError):
                        self._give_up(error)
                        return
                else:
                    began = trio.current_time()
                    reason, heard = await self._live(link, endpoint)
                    # A peer that accepts and closes at once is not a success to start over from.
                    lasted = trio.current_time() - began > self._options.reconnect_max_interval
                    if reason is None:
                        if not self._options.reconnect:  # there is nowhere else to go
                            assert self.last_error is not None
                            self._give_up(self.last_error)
                            return
                        self.destinations.put_last(endpoint)
                        hurried = hurried and not lasted
                        if not hurried:  # else it is sent from one to the next, and has to take its time
                            hurried = True
                            backoff.reset()
                            continue
                    else:
                        hurried = False
                        if isinstance(reason.error, PeerRefused | HandshakeFailed):
                            self.last_error = reason.error
                        else:
                            self.last_error = ConnectionLost(reason.message)
                            if heard or lasted:
                                backoff.reset()
                        if not heard or reason.error is self.last_error:
                            self.destinations.put_last(endpoint)
                        # Of datagrams nobody knows who sent them, so that nothing that is in one is final.
                        if not self._options.reconnect or (reason.code == "version" and link.reliable):
                            self._give_up(self.last_error)
                            return
                self.tell()
                limit = self._options.max_reconnects
                if limit is not None and backoff.attempts >= limit:
                    assert self.last_error is not None
                    self._give_up(self.last_error)
                    return
                await trio.sleep(backoff.next_delay())

    async def _on_failed_attempt(self, error: IPCError) -> None:
        self.failed_connects += 1
        if len(self.destinations) == 1:
            self.last_error = error
        await self.on_failed_connect.call(error)

    async def _live(self, link: Link, endpoint: Endpoint) -> tuple[Disconnected | None, bool]:
        """Live through one connection; say why it ended and whether the server ever spoke.

        The reason is ``None`` if it has not ended, but was left behind.
        """
        assert self._nursery is not None
        # Who agreed on our protocol in the handshake answers the hello, or says why it will not. Until then nobody is
        # told of a connection: of TLS a client sees the end before the server has looked at its certificate.
        is_promised = endpoint.says_hello and link.peer.protocol != "plain"
        connection = connection_class(self._owner)(
            link,
            endpoint.converse(Role.CLIENT, self._options, agent=AGENT, link=link, session=self.window.session),
            nursery=self._nursery,
            router=self._router,
            options=self._options,
            timers=self._timers,
            flusher=self._flusher,
            owner=self._owner,
            greet=self.on_connect.call if len(self.on_connect) else None,
            require_hello=is_promised,
        )
        try:
            if not is_promised:  # else once it has introduced itself
                self._owner.connected(connection)
            await self._nursery.start(self._run, connection, is_promised)
            matters = is_promised or self._needs_to_know_peer()
            if matters:
                try:
                    await connection.know_peer()
                except ConnectionClosed:
                    await connection.wait_lost()  # where sending failed, what the server said before is still read
        except trio.Cancelled:
            await connection.aclose()  # stopped just now: nobody else knows this connection
            raise
        # A server that spoke our protocol a while ago, and is silent, is not another one but slow, or stopped: it still
        # knows what became of events that are to be confirmed, and will have the subscriptions back.
        is_owed = is_promised or self.window.is_owed or trio.current_time() < self._known_until
        if matters and is_owed and connection.peer.protocol == "plain":
            silence = await give_back(connection, endpoint)
            assert isinstance(silence.error, IPCError)
            await self._on_failed_attempt(silence.error)
            return silence, False
        self.connects += 1
        if self._sent_away is not connection:
            self._let_go()
            self._begin(connection)
            self.connection = connection
            self.tell()
            with trio.CancelScope() as self._staying:
                await connection.wait_lost()
            if connection.peer.protocol != "plain":
                self._known_until = connection._reader.time + self._options.session_timeout
            if self._keeps_for_now(connection):
                return None, True
            self.connection = None
        if self._sent_away is connection:
            self._sent_away = None
            if connection.reason is None:
                self._leave_behind(connection)
                return None, True
            await connection.wait_lost()
        self.offline.put_back(self.window.take_back(connection._outbox))
        reason = connection.reason
        assert reason is not None
        self._on_loss(ConnectionLost(reason.message, maybe_handled=True), False)
        return reason, connection.statistics().bytes_received > 0

    def _needs_to_know_peer(self) -> bool:
        """Whether it depends on who the server is what may be sent of what waits."""
        offline = self.offline
        return (
            bool(self.subscriptions)
            or offline.needs_feature
            or any(event is not None and self.template.is_risky(event) for event in offline.names())
            or bool(self.window.pending)
        )

    def _begin(self, connection: Connection) -> None:
        """Send over a new connection what has to come before anything else; the last of it is what was kept."""
        if self.subscriptions:
            self.subscriptions.restore(connection)
        send_all_kept(connection, self.offline, self.window, self._drop)

    # --- moving on ---

    def going_away(self, connection: Connection, message: str) -> None:
        """The server of a connection asks for new work to go elsewhere."""
        if not connection._link.reliable and (len(self.destinations) == 1 or not self._options.reconnect):
            return  # the successor can only be there when this server has gone, and nothing would tell of its absence
        if connection in self.departing:
            return
        self.last_error = ConnectionLost(f"the server is about to close{message and f': {message}'}")
        self._sent_away = connection
        if connection is self.connection:
            self._staying.cancel()

    def _keeps_for_now(self, connection: Connection) -> bool:
        """Whether a connection that is to be left stays the present one until there is another, or none is found.

        Where nothing is kept for the next one, what is said meanwhile would be lost, though its server still takes it.
        """
        options = self._options
        if self._sent_away is not connection or connection.reason is not None:
            return False
        if options.offline == "queue" or not options.reconnect:
            return False
        self._sent_away = None
        self._kept_on = connection
        return True

    def _let_go(self) -> None:
        """Leave the connection that was kept for now, if there is one."""
        connection, self._kept_on = self._kept_on, None
        if connection is not None:
            self.connection = None
            self._leave_behind(connection)

    def _leave_behind(self, connection: Connection) -> None:
        assert self._nursery is not None
        self.moves += 1
        if len(self.departing) >= _MAX_DEPARTING:
            oldest = next(iter(self.departing))
            oldest.abort("left", "too many connections were left behind with something under way", linger=False)
        self.departing[connection] = None
        self._nursery.start_soon(self._depart, connection, self._on_move())
        self.tell()

    async def _depart(self, connection: Connection, expected: Expected) -> None:
        """Let what is under way on a connection go on until it has ended."""
        await depart(connection, expected, max(self._options.drain_timeout, self._options.close_timeout))
        await connection.wait_lost()
        self.departing.pop(connection, None)
        if not self._stopped:  # else whoever closes it counts what it has not sent
            await self._take_over(self.window.take_back(connection._outbox))
        present = self.connection
        if self.window.pending and present is not None:
            with contextlib.suppress(ConnectionClosed):
                await present.know_peer()
                if self.connection is present:  # else the next one will see to it
                    self.window.resend(present, self.window.owed())  # what was to be confirmed, and was not
        assert connection.reason is not None
        expected.fail(ConnectionLost(connection.reason.message, maybe_handled=True))
        self.tell()

    async def _take_over(self, left: list[tuple[Frame, int]]) -> None:
        """Send what a connection has left unsent over the present one, or keep it for the next."""
        try:
            if self.connection is not None and any(needs_feature(frame) for frame, _ in left):
                await self.connection.know_peer()
            while left and self.connection is not None:
                try:
                    send_kept(self.connection, None, left[0][0])
                except LocalProtocolError as error:
                    self._drop(error)
                del left[0]
        except ConnectionClosed:
            pass  # its end is still being read; what is kept now goes to the next
        self.offline.put_back(left)

    # --- ending ---

    async def _run(
        self,
        connection: Connection,
        is_promised: bool,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self.running.arrive()
        try:
            await connection.run(task_status=task_status)
            assert connection.reason is not None
            if not is_promised or connection.peer.protocol != "plain":
                await self.on_disconnect.call(connection.reason)
        finally:
            self.running.leave()

    def _drop(self, error: LocalProtocolError) -> None:
        """Leave out an event that was queued for any server, and which this one cannot take."""
        self.offline.dropped += 1
        logger.warning("an event that was queued cannot be sent to this server: %s", error)

    def _give_up(self, error: IPCError) -> None:
        self.failure = error
        self._on_loss(ConnectionLost(f"the client has given up: {error}"), True)
        self.window.close()
        self.tell()


def _is_refusal(error: BaseException | None) -> bool:
    """Whether an error says that one side does not accept who the other is, which somebody has to mend."""
    if isinstance(error, HandshakeFailed):
        return not error.may_pass
    return isinstance(error, PeerRefused) and error.code == "not-allowed"
