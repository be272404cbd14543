"""A server: listens on any number of addresses and talks to everybody who connects."""

from __future__ import annotations

import collections
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import trio

from pyipc.callbacks import Callbacks
from pyipc.connection import Connection
from pyipc.endpoint import Endpoint, as_endpoint
from pyipc.errors import ConnectionClosed, LocalProtocolError, PeerNotAllowed, Undelivered
from pyipc.flusher import Flusher
from pyipc.identity import AGENT, overflow_uid, own_uid
from pyipc.nursery import hidden_nursery
from pyipc.options import OptionOverrides, Options
from pyipc.protocol.conversation import Role
from pyipc.protocol.framing import Json
from pyipc.protocol.names import check_event_name
from pyipc.router import Router
from pyipc.statistics import BroadcastReport, Disconnected, ServerStatistics
from pyipc.timers import Timers
from pyipc.transports.registry import transport_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from pyipc.message import Message
    from pyipc.protocol.addresses import Address
    from pyipc.protocol.conversation import Conversation
    from pyipc.protocol.framing import Framing
    from pyipc.transports.port import Link, Listener, Peer

__all__ = ["Server"]

F = TypeVar("F", bound="Callable[[Message[Any]], object]")
logger: logging.Logger = logging.getLogger("pyipc.server")

# After a failed accept, such as for want of descriptors, others get the chance to close theirs.
_ACCEPT_PAUSE = 0.1
# A peer that is turned away may still be told why, but only so many at a time.
_MAX_REFUSALS = 64


class Server:
    """Serves every client of its addresses.

    Run it with ``trio.run(server.run)``, with ``await nursery.start(server.run)``, which returns
    the addresses, or with ``async with server:``.

    Args:
        *addresses: Where to listen; an `Endpoint` for an address with options of its own. None at
            all is fine for a server that only adopts links.
        router: Handlers; more can be added with `on`.
        plain_peers: Whether to serve peers that do not speak pyipc's protocol, such as node-ipc
            programs. With ``False`` everybody has to introduce itself within ``handshake_timeout``.
        **options: Any of `pyipc.Options`.

    Raises:
        AddressError: An address is wrong.
    """

    def __init__(
        self,
        *addresses: str | Address | Endpoint,
        router: Router | None = None,
        plain_peers: bool = True,
        **options: Unpack[OptionOverrides],
    ) -> None:
        self._endpoints = [as_endpoint(address) for address in addresses]
        self._options = Options.of(options)
        self._plain_peers = plain_peers
        self._router = Router()
        if router is not None:
            self._router.include(router)
        self._timers = Timers()
        self._flusher = Flusher()
        self._connections: dict[Connection, Endpoint] = {}
        # How many connections have each: to ask them all for every broadcast would cost as much as sending it.
        self._framings: collections.Counter[Framing] = collections.Counter()
        self._per_peer: collections.Counter[object] = collections.Counter()
        self._refusals = 0
        self._serving_tasks = 0
        self._undelivered = 0
        # Encode what is broadcast, one for each framing.
        self._templates: dict[Framing, Conversation] = {}
        self._served = trio.lowlevel.ParkingLot()
        self._accepted_now = 0
        self._listeners: list[Listener] = []
        self._nursery: trio.Nursery | None = None
        self._accepting = trio.CancelScope()
        self._context: AsyncExitStack | None = None
        self._stopped = trio.Event()
        self._closing = False
        self._connect_callbacks: Callbacks[Connection] = Callbacks("on_connect")
        self._disconnect_callbacks: Callbacks[Disconnected] = Callbacks("on_disconnect")
        self._accepted = self._refused = self._denied = self._accept_errors = 0
        self._broadcasts = self._broadcasts_dropped = 0

    def __repr__(self) -> str:
        state = "closed" if self._closing else "listening" if self._nursery is not None else "not running"
        where = ", ".join(str(address) for address in self.addresses) or "no address"
        return f"<Server {where} {state}, {len(self._connections)} connections>"

    # --- what it is ---

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, with the ports that were really taken; before it runs, where it will."""
        return [listener.address for listener in self._listeners] or [point.parsed for point in self._endpoints]

    @property
    def connections(self) -> frozenset[Connection]:
        """The connections there are now."""
        return frozenset(self._connections)

    def statistics(self) -> ServerStatistics:
        """A snapshot of the counters."""
        return ServerStatistics(
            connections=len(self._connections),
            accepted=self._accepted,
            refused=self._refused,
            denied=self._denied,
            accept_errors=self._accept_errors,
            broadcasts=self._broadcasts,
            broadcasts_dropped=self._broadcasts_dropped,
        )

    # --- handlers ---

    @overload
    def on(self, pattern: str, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def on(self, pattern: str, handler: F) -> F: ...

    def on(self, pattern: str, handler: Any = None) -> Any:
        """Register a handler, directly or as a decorator; see `Router.on`."""
        return self._router.on(pattern, handler)

    @overload
    def once(self, pattern: str, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def once(self, pattern: str, handler: F) -> F: ...

    def once(self, pattern: str, handler: Any = None) -> Any:
        """Register a handler for one message; see `Router.once`."""
        return self._router.once(pattern, handler)

    def off(self, pattern: str, handler: Callable[[Message[Any]], object] | None = None) -> None:
        """Remove handlers; see `Router.off`."""
        self._router.off(pattern, handler)

    def on_connect(self, function: Callable[[Connection], object]) -> Callable[[Connection], object]:
        """Call a function, plain or async, with every new connection before its messages are handled."""
        return self._connect_callbacks.add(function)

    def on_disconnect(self, function: Callable[[Disconnected], object]) -> Callable[[Disconnected], object]:
        """Call a function, plain or async, with the reason when a connection has ended."""
        return self._disconnect_callbacks.add(function)

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
                await self._listen(self._nursery)
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
                await self._stop_listening()

    async def _listen(self, nursery: trio.Nursery) -> None:
        for endpoint in self._endpoints:
            transport = endpoint.transport or transport_for(endpoint.parsed.scheme)
            listener = await transport.listen(endpoint.parsed, endpoint.listen_options)
            self._listeners.append(listener)
            logger.info("listening on %s", listener.address)
        # Only when all addresses are taken is anybody served: a server runs as a whole or not at all.
        nursery.start_soon(self._accept_all)

    async def _stop_listening(self) -> None:
        self._accepting.cancel()
        for listener in self._listeners:
            # Even under cancellation a listener is closed before it gives way.
            with trio.CancelScope(shield=True):
                await listener.aclose()

    async def _accept_all(self) -> None:
        with self._accepting:
            async with trio.open_nursery() as nursery:
                for listener, endpoint in zip(self._listeners, self._endpoints, strict=True):
                    nursery.start_soon(self._accept, listener, endpoint)

    async def _accept(self, listener: Listener, endpoint: Endpoint) -> None:
        while True:
            try:
                link = await listener.accept()
            except ConnectionClosed:
                return
            except OSError as error:
                self._accept_errors += 1
                logger.error("cannot accept on %s for now: %s", listener.address.redacted, error)
                await trio.sleep(_ACCEPT_PAUSE)
            else:
                await self._admit(link, endpoint)

    async def _admit(self, link: Link, endpoint: Endpoint) -> None:
        try:
            endpoint.admit(link.peer, own_uid=own_uid(), overflow_uid=overflow_uid())
        except PeerNotAllowed as error:
            self._denied += 1
            logger.warning("turned away: %s", error)
            await link.aclose()
        except Exception:
            # The function given as allow= failed; what cannot be decided is denied.
            self._denied += 1
            logger.exception("turned away %s, because allow= failed", link.peer.address)
            await link.aclose()
        else:
            self._begin(link, endpoint)

    def adopt(self, link: Link, endpoint: Endpoint | None = None) -> None:
        """Serve a link that was made elsewhere, such as an inherited socket or one end of a pair.

        Args:
            link: The link; the server closes it.
            endpoint: Options for it, apart from where it is; by default those of ``memory:``.

        Raises:
            RuntimeError: The server is not running.
            PeerNotAllowed: ``endpoint`` does not admit the peer.
        """
        if self._nursery is None or self._closing:
            raise RuntimeError("the server is not running; enter it, or start run, before adopting a link")
        if endpoint is None:
            endpoint = Endpoint("memory:adopted")
        endpoint.admit(link.peer, own_uid=own_uid(), overflow_uid=overflow_uid())
        self._begin(link, endpoint)

    def _begin(self, link: Link, endpoint: Endpoint) -> None:
        """Serve a peer that may be here, or tell it that there are too many."""
        assert self._nursery is not None
        refusal = self._refusal(link.peer)
        if refusal is None:
            self._accepted += 1
            self._nursery.start_soon(self._serve, link, endpoint)
            return
        self._refused += 1
        logger.warning("turned away %s: %s", link.peer.address, refusal)
        if self._refusals < _MAX_REFUSALS:
            self._nursery.start_soon(self._refuse, link, endpoint, refusal)
        else:
            self._nursery.start_soon(link.aclose)

    def _refusal(self, peer: Peer) -> str | None:
        options = self._options
        if self._accepted_now >= options.max_connections:
            return f"the server has {options.max_connections:,} connections already (max_connections)"
        key = _quota_key(peer)
        if key is not None and self._per_peer[key] >= options.max_connections_per_peer:
            return f"{key[0]} {key[1]} has {self._per_peer[key]:,} connections already (max_connections_per_peer)"
        self._accepted_now += 1
        if key is not None:
            self._per_peer[key] += 1
        return None

    def _leave(self, peer: Peer) -> None:
        self._accepted_now -= 1
        key = _quota_key(peer)
        if key is not None:
            self._per_peer[key] -= 1
            if not self._per_peer[key]:
                del self._per_peer[key]

    def _connection(self, link: Link, endpoint: Endpoint, refusal: tuple[str, str] | None = None) -> Connection:
        assert self._nursery is not None
        require_hello = refusal is not None or not self._plain_peers
        return Connection(
            link,
            endpoint.converse(Role.SERVER, self._options, agent=AGENT, require_hello=require_hello, refusal=refusal),
            nursery=self._nursery,
            router=self._router,
            options=self._options,
            timers=self._timers,
            flusher=self._flusher,
            greet=self._connect_callbacks.call if len(self._connect_callbacks) and refusal is None else None,
            require_hello=require_hello,
        )

    async def _serve(self, link: Link, endpoint: Endpoint) -> None:
        connection = self._connection(link, endpoint)
        self._connections[connection] = endpoint
        self._framings[endpoint.framing] += 1
        self._serving_tasks += 1
        logger.info("%s connected", link.peer.address)
        try:
            try:
                await connection.run()
            finally:
                del self._connections[connection]
                self._framings[endpoint.framing] -= 1
                self._leave(link.peer)
            reason = connection.reason
            assert reason is not None
            logger.info("%s disconnected: %s", link.peer.address, reason.message)
            await self._disconnect_callbacks.call(reason)
        finally:
            self._serving_tasks -= 1
            self._served.unpark_all()

    async def _refuse(self, link: Link, endpoint: Endpoint, why: str) -> None:
        """Hear the peer's hello, so that it can be told why it is turned away, and close."""
        self._refusals += 1
        try:
            with trio.move_on_after(self._options.close_timeout):
                await self._connection(link, endpoint, ("full", why)).run()
        finally:
            self._refusals -= 1
            await link.aclose()

    # --- sending ---

    async def broadcast(
        self,
        event: str,
        data: object = None,
        *,
        exclude: Connection | Collection[Connection] | None = None,
        where: Callable[[Connection], bool] | None = None,
    ) -> BroadcastReport:
        """Send an event to every client on every address.

        It is encoded once, and nobody waits for the slowest: a client whose outbox is full is
        closed, or misses this event, as the option ``slow_peer`` says.

        Args:
            event: The name.
            data: Anything that has a JSON form.
            exclude: Connections that do not get it.
            where: Only connections for which this is true get it.

        Returns:
            To how many it was sent, and for how many it was dropped.

        Raises:
            LocalProtocolError: The name or the data cannot be sent; nothing was.

        Cancellation: a cancelled broadcast has sent nothing. Always a schedule point.
        """
        await trio.lowlevel.checkpoint()
        frames = self._encode_for_all(event, data)
        excluded = (exclude,) if isinstance(exclude, Connection) else exclude or ()
        sent = dropped = 0
        framing: Framing | None = None
        frame: bytes | None = None
        for connection, endpoint in list(self._connections.items()):
            if not connection.is_open or connection in excluded or (where is not None and not where(connection)):
                continue
            if endpoint.framing is not framing:  # looked up for each run of connections to one endpoint
                framing = endpoint.framing
                frame = frames.get(framing)
            try:
                taken = frame is not None and connection._send_encoded(event, frame)
            except ConnectionClosed:
                continue
            except LocalProtocolError as error:
                # What this client cannot take is no reason for the others not to get it.
                logger.warning("%s does not get %r: %s", connection.peer.address, event, error)
                taken = False
            if taken:
                sent += 1
            else:
                dropped += 1
        self._broadcasts += 1
        self._broadcasts_dropped += dropped
        return BroadcastReport(sent, dropped)

    def _encode_for_all(self, event: str, data: object) -> dict[Framing, bytes]:
        """The bytes of an event for every framing that can carry it.

        Raises:
            LocalProtocolError: No framing can.
        """
        check_event_name(event, self._options.max_event_name_size)
        frames: dict[Framing, bytes] = {}
        error: LocalProtocolError | None = None
        for framing in {*(point.framing for point in self._endpoints), *+self._framings} or {Json()}:
            template = self._templates.get(framing)
            if template is None:
                point = Endpoint("memory:template", framing=framing)
                template = self._templates[framing] = point.converse(Role.SERVER, self._options, agent=AGENT)
            try:
                frame = template.encode(event, data)
                template.check_size(frame)
            except LocalProtocolError as refused:
                error = refused
            else:
                frames[framing] = frame
        if error is not None and not frames:
            raise error
        return frames

    async def aclose(self) -> None:
        """Stop listening; send every client what is queued for it, say goodbye, and close.

        Takes at most twice the option ``close_timeout``. May be called more than once, also by a
        handler.

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
            await self._stop_listening()
            async with trio.open_nursery() as nursery:
                for connection in list(self._connections):
                    nursery.start_soon(close, connection)
            with trio.move_on_after(self._options.close_timeout):
                while self._serving_tasks:
                    await self._served.park()
        finally:
            self._stopped.set()


def _quota_key(peer: Peer) -> tuple[str, object] | None:
    """What connections of one origin are counted by."""
    if peer.uid is not None:
        return "uid", peer.uid
    return None if peer.host is None else ("host", peer.host)
