"""A server: listens on any number of addresses and talks to everybody who connects."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import trio

from pyipc.accepting import Acceptor
from pyipc.attendance import Attendance
from pyipc.broadcasting import Audience, BroadcastServer
from pyipc.callbacks import Callbacks
from pyipc.connection import Connection
from pyipc.dialing import call
from pyipc.draining import Draining, ServerOwner
from pyipc.endpoint import Endpoint, as_endpoint
from pyipc.errors import ConnectionClosed, Undelivered
from pyipc.flusher import Flusher
from pyipc.handling import Handling
from pyipc.holdings import Holdings
from pyipc.hosting import current_host, hosting
from pyipc.hub import Hub
from pyipc.identity import AGENT
from pyipc.nursery import hidden_nursery
from pyipc.options import UNSET, OptionOverrides, Options, Unset, check_timeout
from pyipc.protocol.addresses import parse_address
from pyipc.protocol.conversation import Role
from pyipc.publishing import TopicServer
from pyipc.router import Router
from pyipc.sessions import Sessions
from pyipc.shelter import Shelter
from pyipc.slots import current_slot
from pyipc.statistics import Disconnected, DrainReport, ServerStatistics
from pyipc.timers import Timers
from pyipc.watch import Watch
from pyipc.watched import connection_class, watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pyipc.instrument import Instrument
    from pyipc.message import Message
    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Link, Peer

__all__ = ["Server"]

F = TypeVar("F", bound="Callable[[Message[Any]], object]")
logger: logging.Logger = logging.getLogger("pyipc.server")


class Server(Handling, BroadcastServer, TopicServer):
    """Serves every client of its addresses.

    Run it with ``trio.run(server.run)``, with ``await nursery.start(server.run)``, which returns
    the addresses, or with ``async with server:``.

    Args:
        *addresses: Where to listen; an `Endpoint` for an address with options of its own. None at
            all is fine for a server that only adopts links.
        router: Handlers; more can be added with `on`.
        plain_peers: Whether to serve peers that do not speak pyipc's protocol, such as node-ipc
            programs. With ``False`` everybody has to introduce itself within ``handshake_timeout``.
        may_subscribe: Whether a peer may subscribe to a pattern: a plain function of the `Peer` and the pattern's text.
            Whoever is let in may subscribe to everything, if it is left out. One that raises denies it.
        may_publish: Whether a peer may publish under a topic, likewise.
        instrument: Is told what the server does, for metrics and traces.
        **options: Any of `pyipc.Options`.

    Raises:
        AddressError: An address is wrong.
        ValueError: An option is out of range, or does not go together with an endpoint.
    """

    def __init__(
        self,
        *addresses: str | Address | Endpoint,
        router: Router | None = None,
        plain_peers: bool = True,
        may_subscribe: Callable[[Peer, str], bool] | None = None,
        may_publish: Callable[[Peer, str], bool] | None = None,
        instrument: Instrument | None = None,
        **options: Unpack[OptionOverrides],
    ) -> None:
        self._endpoints = [as_endpoint(address) for address in addresses]
        self._options = Options.of(options)
        self._plain_peers = plain_peers
        if not plain_peers and any(not endpoint.can_refuse for endpoint in self._endpoints):
            raise ValueError(
                "with plain_peers=False everybody has to introduce itself, for which raw framing has no words; "
                "use framing=pyipc.Json() on every endpoint, or leave out plain_peers"
            )
        self._router = Router()
        if router is not None:
            self._router.include(router)
        self._timers = Timers()
        self._flusher = Flusher()
        self._draining = Draining(self._options, lambda: self._audience.connections)
        self._owner = ServerOwner(self._draining, Holdings(self._options))
        self._owner.watch = None if instrument is None else Watch(instrument)
        self._heard = watched(self._router, self._owner.watch)
        self._sessions = self._owner.sessions = Sessions(self._options, self._timers)
        self._shelter = self._owner.shelter = Shelter()
        self._acceptor = Acceptor(
            self._endpoints,
            self._options,
            serve=self._start_serving,
            refuse=self._refuse,
            requires_hello=not plain_peers,
        )
        self._owner.strangers = self._acceptor.strangers
        self._audience = Audience(self._endpoints, self._options, self._owner.watch)
        self._hub = Hub(self._audience, self._options, may_subscribe=may_subscribe, may_publish=may_publish)
        self._owner.topics = self._hub
        self._serving_tasks = Attendance()
        self._undelivered = 0
        self._nursery: trio.Nursery | None = None
        self._context: AsyncExitStack | None = None
        self._stopped = trio.Event()
        self._closing = False
        self._connect_callbacks: Callbacks[Connection] = Callbacks("on_connect")
        self._disconnect_callbacks: Callbacks[Disconnected] = Callbacks("on_disconnect")

    def __repr__(self) -> str:
        state = "closed" if self._closing else "listening" if self._nursery is not None else "not running"
        if self.draining:
            state = "draining"
        where = ", ".join(str(address) for address in self.addresses) or "no address"
        return f"<Server {where} {state}, {len(self._audience)} connections>"

    # --- what it is ---

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, with the ports that were really taken; before it runs, where it will."""
        return [listener.address for listener in self._acceptor.listeners] or [
            point.parsed for point in self._endpoints
        ]

    @property
    def connections(self) -> frozenset[Connection]:
        """The connections there are now."""
        return self._audience.connections

    @property
    def draining(self) -> bool:
        """Whether its addresses are free for a successor, and its clients asked to take new work elsewhere."""
        return self._draining.waiting

    @property
    def _is_serving(self) -> bool:
        return self._nursery is not None and not self._closing and not self._draining.begun

    def statistics(self) -> ServerStatistics:
        """A snapshot of the counters."""
        acceptor, audience, hub = self._acceptor, self._audience, self._hub
        return ServerStatistics(
            connections=len(audience),
            accepted=acceptor.accepted,
            refused=acceptor.refused,
            denied=acceptor.denied,
            handshake_errors=acceptor.handshake_errors,
            accept_errors=acceptor.accept_errors,
            outgrown=self._owner.holdings.outgrown,
            broadcasts=audience.broadcasts,
            broadcasts_dropped=audience.dropped,
            datagrams_dropped=sum(listener.dropped for listener in acceptor.listeners),
            sessions=len(self._sessions),
            duplicates=self._sessions.duplicates,
            redelivered=self._sessions.redelivered,
            subscriptions=hub.subscriptions,
            subscriptions_refused=hub.subscriptions_refused,
            publishes=hub.publishes,
            publishes_dropped=hub.dropped,
            publishes_refused=hub.publishes_refused,
            retained_topics=len(hub.retained),
            retained_size=hub.retained.size,
            draining=self.draining,
        )

    # --- running ---

    async def run(self, *, task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until `aclose` is called.

        ``await nursery.start(server.run)`` returns the addresses once it listens.

        Raises:
            AddressInUse: Somebody else has an address.
            ListenError: An address cannot be listened on.
            Undelivered: Not everything could be sent to the clients on closing.

        Cancellation: closes at once.
        """
        async with self._serving():
            task_status.started(self.addresses)
            await self._stopped.wait()

    async def __aenter__(self) -> Server:
        context = AsyncExitStack()
        await context.enter_async_context(self._serving())
        self._context = context
        return self

    async def __aexit__(self, *error: Any) -> None:
        assert self._context is not None
        context, self._context = self._context, None
        await context.__aexit__(*error)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        if self._nursery is not None or self._closing:
            raise RuntimeError("a server runs once; make another Server to listen again")
        async with hidden_nursery() as self._nursery:
            self._nursery.start_soon(self._timers.run)
            self._nursery.start_soon(self._flusher.run)
            try:
                # Only when all addresses are taken is anybody served: a server runs as a whole or not at all.
                host = current_host()
                await self._acceptor.listen(host)
                with hosting(host, self):
                    await self._nursery.start(self._acceptor.run)
                    try:
                        yield
                    except Exception:
                        try:
                            await self.aclose()
                        except Undelivered as undelivered:
                            logger.warning("%s", undelivered)
                        raise
                    await self.aclose()
            finally:
                self._closing = True
                self._stopped.set()
                self._hub.close()
                await self._acceptor.stop()

    def adopt(self, link: Link, endpoint: Endpoint | None = None) -> None:
        """Serve a link that was made elsewhere, such as an inherited socket or one end of a pair.

        Args:
            link: The link; the server closes it.
            endpoint: Options for it, apart from where it is; by default those of ``memory:``.

        Raises:
            RuntimeError: The server is not running.
            PeerNotAllowed: ``endpoint`` does not admit the peer. Of a link that needs a handshake first, that turns out
                later, and then the link is closed.
        """
        if not self._is_serving:
            raise RuntimeError("the server is not running; enter it, or start run, before adopting a link")
        assert self._nursery is not None
        if endpoint is None:
            endpoint = Endpoint("memory:adopted")
        if not self._acceptor.admit(link, endpoint):
            self._nursery.start_soon(link.aclose)

    async def dial(self, address: Address | str) -> Connection:
        """Open a connection to a peer from the very UDP socket that this server listens on.

        For programs that each listen on a port of their own and answer to the port that they hear from, as node-ipc's
        UDP servers do. Nothing is sent by it, and whether anybody is there cannot be known. The peer counts as one that
        is where it says, is not introduced to, and is not forgotten when it is silent: close the connection when it
        is not needed any more. (To be the client of a server, use `pyipc.connect`.)

        Args:
            address: Of the peer, such as ``"udp://127.0.0.1:8202"``.

        Returns:
            The connection to that peer; the one that there is, if there is one.

        Raises:
            AddressError: The address is wrong, or this server listens nowhere from where it could be reached.
            PeerNotAllowed: ``allow=`` of the server's own endpoint does not admit it.
            ConnectError: The server has as many connections as it may.
            ConnectionClosed: The server is closed, or not running.

        Cancellation: no connection is opened.
        """
        parsed = parse_address(address)
        if not self._is_serving:
            await trio.lowlevel.checkpoint()
            raise ConnectionClosed("the server is not running")
        return await call(parsed, self._acceptor, self._audience, self._endpoints)

    def _start_serving(self, link: Link, endpoint: Endpoint) -> Connection:
        assert self._nursery is not None
        connection = self._connection(link, endpoint)
        self._audience.join(connection, endpoint)
        self._nursery.start_soon(self._serve, connection, link)
        self._draining.join(connection)
        return connection

    def _connection(self, link: Link, endpoint: Endpoint, refusal: tuple[str, str] | None = None) -> Connection:
        assert self._nursery is not None
        # Whom this server called is not asked to introduce itself.
        is_called = not (link.reliable or link.expires)
        require_hello = refusal is not None or not (self._plain_peers or is_called)
        kind = connection_class(self._owner) if refusal is None else Connection
        return kind(
            link,
            endpoint.converse(
                Role.SERVER,
                self._options,
                agent=AGENT,
                link=link,
                require_hello=require_hello,
                refusal=refusal,
                terms=self._sessions.terms_for(link.peer),
            ),
            nursery=self._nursery,
            # Whoever is turned away gets to no handler, whatever it says.
            router=self._heard if refusal is None else Router(),
            options=self._options,
            timers=self._timers,
            flusher=self._flusher,
            owner=self._owner,
            greet=self._connect_callbacks.call if len(self._connect_callbacks) and refusal is None else None,
            require_hello=require_hello,
        )

    async def _serve(self, connection: Connection, link: Link) -> None:
        # Anybody can make up any number of peers over UDP.
        level = logging.INFO if link.verified else logging.DEBUG
        logger.log(level, "%s connected", link.peer.address)
        self._serving_tasks.arrive()
        try:
            try:
                self._owner.connected(connection)
                await connection.run()
            finally:
                self._audience.leave(connection)
                self._hub.forget_connection(connection)
                self._acceptor.leave(link)
                self._draining.leave()
            reason = connection.reason
            assert reason is not None
            logger.log(level, "%s disconnected: %s", link.peer.address, reason.message)
            await self._disconnect_callbacks.call(reason)
        finally:
            self._serving_tasks.leave()

    async def _refuse(self, link: Link, endpoint: Endpoint, code: str, why: str) -> None:
        await self._connection(link, endpoint, (code, why)).run()

    # --- leaving ---

    async def drain(self, timeout: float | Unset | None = UNSET, message: str = "") -> DrainReport:
        """Close once every client has left by itself, having lost nothing: for a successor to take over.

        The addresses are released at once, for the successor to listen there. Clients are asked to take new work
        elsewhere; whatever they still send here is handled until they leave or the time is over, and what they ask
        is answered. Then the server closes as with `aclose`, and `run` returns. To peers that do not speak pyipc's
        protocol, such as node-ipc programs, this side finishes sending once nothing of theirs is at work, after
        which they end the connection. Over UDP every connection is closed once nothing of it is at work.

        May be called more than once, also by a handler: the shortest time holds, and everybody gets the same report.
        What a handler that calls it does afterwards is not waited for.

        Args:
            timeout: Seconds until whoever is still there is cut off; ``None`` for never; by default the option
                ``drain_timeout``.
            message: Why, for the clients' logs.

        Returns:
            How many clients have left, and how many were cut off.

        Raises:
            ValueError: ``timeout`` is less than zero, or not a number.
            TypeError: It is something else.

        Cancellation: the drain goes on; `aclose` ends it, and so does a cancelled block of the server itself.
        """
        if isinstance(timeout, Unset):
            timeout = self._options.drain_timeout
        else:
            check_timeout(timeout)
        draining = self._draining
        if self._nursery is None:
            self._closing = True
            await trio.lowlevel.checkpoint()
            return draining.report
        draining.shorten(timeout)
        if self._is_serving:
            draining.begin(message)
            self._nursery.start_soon(self._drain)  # as with `aclose`, not in the caller's task
        if not self._stopped.is_set():
            self._shelter.expose_caller()  # else what is around it cannot be told
            caller = next((each for each in self.connections if each._crew.is_around_present_task()), None)
            if caller is not None:
                draining.excuse(caller, answers=current_slot.get() is not None)
        with self._serving_tasks.excused():
            await self._stopped.wait()
        return draining.report

    async def _drain(self) -> None:
        await self._acceptor.retire()
        await self._draining.wait()
        if not self._closing:
            self._closing = True
            await self._close_all()

    async def aclose(self) -> None:
        """Stop listening; send every client what is queued for it, say goodbye, and close.

        Takes at most twice the option ``close_timeout``. May be called more than once, also by a
        handler, and by whoever is told of a connection's end: the server waits for all others of those.

        Raises:
            Undelivered: Not everything could be handed to the clients. Raised once.

        Cancellation: the closing goes on; a cancelled block of the server itself ends it at once.
        """
        if self._nursery is None:
            self._closing = True
            await trio.lowlevel.checkpoint()
            return
        if not self._closing:
            self._closing = True
            # Not in the caller's task: a handler would be cancelled with its own connection.
            self._nursery.start_soon(self._close_all)
        self._shelter.expose_caller()
        with self._serving_tasks.excused():
            await self._stopped.wait()
        undelivered, self._undelivered = self._undelivered, 0
        if undelivered:
            raise Undelivered(undelivered, f"{undelivered} messages could not be sent before the server closed")

    async def _close_all(self) -> None:
        async def close(connection: Connection) -> None:
            try:
                await connection.aclose()
            except Undelivered as error:
                self._undelivered += error.count

        try:
            self._draining.end()
            await self._acceptor.stop()
            async with trio.open_nursery() as nursery:
                for connection in self.connections:
                    nursery.start_soon(close, connection)
            with trio.move_on_after(self._options.close_timeout):
                await self._serving_tasks.wait_for_all()
        finally:
            if self._draining.begun:  # whose report tells of it
                self._draining.undelivered, self._undelivered = self._undelivered, 0
            self._stopped.set()
