"""Keeping a connection up: one after the other, with pauses between, and a queue meanwhile."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import TYPE_CHECKING

import trio

from pyipc.attendance import Attendance
from pyipc.backoff import Backoff
from pyipc.callbacks import Callbacks
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
from pyipc.offline import OfflineQueue
from pyipc.owner import Owner
from pyipc.protocol.conversation import Role
from pyipc.timers import Timers
from pyipc.transports.registry import transport_for
from pyipc.watched import connection_class, watched

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.connection import Connection
    from pyipc.endpoint import Endpoint
    from pyipc.options import Options
    from pyipc.router import Router
    from pyipc.statistics import Disconnected
    from pyipc.transports.port import Link
    from pyipc.watch import Watch

__all__ = ["Reconnecting"]

logger: logging.Logger = logging.getLogger("pyipc.client")

# Trying again soon will not mend these, so whoever waits for the first connection is told at once.
_HOPELESS = (AddressError, UnsafePath, PeerNotAllowed, PeerRefused)


class Reconnecting:
    """Connects, lives through the connection, and connects again.

    Args:
        endpoint: Where to.
        router: Handlers for what the server sends.
        options: Times and bounds.
        on_loss: Called with the error when a connection has ended; when there will be no other,
            with ``final`` true.
        watch: Tells an instrument what happens, if there is one.

    Attributes:
        now: Trio's time; once it was started, by the shortest way.
        connection: The present connection, if there is one.
        offline: What waits for the next one.
        failure: Why it was given up, if it was.
        running: The tasks of the connections, until whoever wanted to know of their end was told.
        last_error: Why the last attempt or connection ended.
        connects: Connections made.
        failed_connects: Attempts that failed.
        on_connect: Who wants to know of new connections.
        on_disconnect: Who wants to know why one ended.
        on_failed_connect: Who wants to know why an attempt failed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        router: Router,
        options: Options,
        on_loss: Callable[[IPCError, bool], None],
        watch: Watch | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._router = watched(router, watch)
        self._options = options
        self._on_loss = on_loss
        self._transport = endpoint.transport or transport_for(endpoint.parsed.scheme)
        # Encodes what is emitted while there is no connection.
        max_size = self._transport.max_chunk_size(endpoint.parsed)
        self._template = endpoint.converse(Role.CLIENT, options, agent=AGENT, max_size=max_size)
        self._timers = Timers()
        self._flusher = Flusher()
        self._owner = Owner(watch)
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._supervision = trio.CancelScope()
        self._stopped = False
        self.running: Attendance = Attendance()
        self.now: Callable[[], float] = trio.current_time
        self.connection: Connection | None = None
        self.offline: OfflineQueue = OfflineQueue(options)
        self.failure: IPCError | None = None
        self.last_error: IPCError | None = None
        self.connects: int = 0
        self.failed_connects: int = 0
        self.on_connect: Callbacks[Connection] = Callbacks("on_connect")
        self.on_disconnect: Callbacks[Disconnected] = Callbacks("on_disconnect")
        self.on_failed_connect: Callbacks[IPCError] = Callbacks("on_failed_connect")

    def start(self, nursery: trio.Nursery) -> None:
        """Begin to connect, in the background."""
        self._nursery = nursery
        self.now = trio.lowlevel.current_clock().current_time
        nursery.start_soon(self._timers.run)
        nursery.start_soon(self._flusher.run)
        nursery.start_soon(self._supervise)

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
                f"could not connect to {self._endpoint.parsed.redacted} within {timeout:g} s: {self.why_not}"
            ) from self.last_error

    def keep(self, event: str, data: object) -> None:
        """Keep an event for the next connection; see `OfflineQueue.put`."""
        frame = self._template.encode(event, data)
        self._template.check_size(frame)
        self.offline.put(event, frame, self.why_not)

    async def _supervise(self) -> None:
        """Keep a connection up until it is stopped or trying again makes no sense."""
        backoff = Backoff(self._options)
        with self._supervision:
            while True:
                try:
                    link = await self._dial()
                except IPCError as error:
                    self.failed_connects += 1
                    self.last_error = error
                    logger.info("could not connect to %s: %s", self._endpoint.parsed.redacted, error)
                    await self.on_failed_connect.call(error)
                    if isinstance(error, AddressError):
                        self._give_up(error)
                        return
                else:
                    began = trio.current_time()
                    reason, heard = await self._live(link)
                    lived = trio.current_time() - began
                    if isinstance(reason.error, PeerRefused | HandshakeFailed):
                        self.last_error = reason.error
                    else:
                        self.last_error = ConnectionLost(reason.message)
                        # A peer that accepts and closes at once is not a success to start over from.
                        if heard or lived > self._options.reconnect_max_interval:
                            backoff.reset()
                    # Of datagrams nobody knows who sent them, so that nothing that is in one is final.
                    if not self._options.reconnect or (reason.code == "version" and link.reliable):
                        self._give_up(self.last_error)
                        return
                self.tell()
                limit = self._options.max_reconnects
                if limit is not None and backoff.attempts >= limit:
                    self._give_up(self.last_error)
                    return
                await trio.sleep(backoff.next_delay())

    async def _dial(self) -> Link:
        timeout = self._options.connect_timeout
        with trio.move_on_after(math.inf if timeout is None else timeout):
            link = await self._transport.connect(self._endpoint.parsed, self._endpoint.connect_options)
            try:
                self._endpoint.admit(link.peer)
            except PeerNotAllowed:
                await link.aclose()
                raise
            return link
        raise ConnectError(f"no answer from {self._endpoint.parsed.redacted} within {timeout:g} s (connect_timeout)")

    async def _live(self, link: Link) -> tuple[Disconnected, bool]:
        """Live through one connection; say why it ended and whether the server ever spoke."""
        assert self._nursery is not None
        # Who agreed on our protocol in the handshake answers the hello, or says why it will not. Until then nobody is
        # told of a connection: of TLS a client sees the end before the server has looked at its certificate.
        is_promised = self._endpoint.says_hello and link.peer.protocol != "plain"
        connection = connection_class(self._owner)(
            link,
            self._endpoint.converse(Role.CLIENT, self._options, agent=AGENT, link=link),
            nursery=self._nursery,
            router=self._router,
            options=self._options,
            timers=self._timers,
            flusher=self._flusher,
            owner=self._owner,
            greet=self.on_connect.call if len(self.on_connect) else None,
            require_hello=is_promised,
        )
        # Whether some events may be sent depends on who it is.
        is_awaited = is_promised or any(
            event is not None and self._template.is_risky(event) for event in self.offline.names()
        )
        try:
            if not is_promised:  # else once it has introduced itself
                self._owner.connected(connection)
            await self._nursery.start(self._run, connection, is_promised)
            if is_awaited:
                try:
                    await connection.know_peer()
                except ConnectionClosed:
                    await connection.wait_lost()  # where sending failed, what the server said before is still read
        except trio.Cancelled:
            await connection.aclose()  # stopped just now: nobody else knows this connection
            raise
        if is_promised and connection.peer.protocol == "plain":
            return await self._give_back(connection), False
        self._send_kept(connection)
        self.connection = connection
        self.connects += 1
        self.tell()
        await connection.wait_lost()
        self.connection = None
        self.offline.put_back(connection.reclaim_events())
        reason = connection.reason
        assert reason is not None
        self._on_loss(ConnectionLost(reason.message, maybe_handled=True), False)
        return reason, connection.statistics().bytes_received > 0

    async def _give_back(self, connection: Connection) -> Disconnected:
        """End a connection whose server did not keep its promise to answer; nobody was told of it. Say why."""
        connection.abort("handshake", "the server did not answer the introduction", linger=False)
        await connection.aclose()
        reason = connection.reason
        assert reason is not None
        error = reason.error
        if not isinstance(error, PeerRefused | HandshakeFailed):
            code = "timeout" if reason.code == "handshake" else "closed"
            error = HandshakeFailed(code, f"{self._endpoint.parsed.redacted} agreed on pyipc/1, but {reason.message}")
            reason = dataclasses.replace(reason, error=error)
        self.failed_connects += 1
        logger.info("could not connect to %s: %s", self._endpoint.parsed.redacted, error)
        await self.on_failed_connect.call(error)
        return reason

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

    def _send_kept(self, connection: Connection) -> None:
        """Put what was kept into a new connection, before anything else gets there."""
        for event, frame in self.offline.take_all():
            try:
                connection._send_kept(event, frame)
            except LocalProtocolError as error:
                self.offline.dropped += 1
                logger.warning("an event that was queued cannot be sent to this server: %s", error)
            except ConnectionClosed:
                self.offline.put_back([frame])
                return

    def _give_up(self, error: IPCError) -> None:
        self.failure = error
        self._on_loss(ConnectionLost(f"the client has given up: {error}"), True)
        self.tell()


def _is_refusal(error: BaseException | None) -> bool:
    """Whether an error says that one side does not accept who the other is, which somebody has to mend."""
    if isinstance(error, HandshakeFailed):
        return not error.may_pass
    return isinstance(error, PeerRefused) and error.code == "not-allowed"
