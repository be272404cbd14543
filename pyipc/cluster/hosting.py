"""How servers of a worker listen: their primary takes the address, and hands over who comes, or what to accept on."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import socket
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import trio

import pyipc
from pyipc.cluster.listeners import HandedListener, SharedTrioListener, TrioListener, shared_listener
from pyipc.transports import Listener, Transport, transport_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyipc.cluster.courier import Carrier
    from pyipc.cluster.exchange import Membership
    from pyipc.cluster.listeners import HandedStream
    from pyipc.cluster.receiving import Inlet, Receiving
    from pyipc.cluster.superior import Superior
    from pyipc.transports import Link

__all__ = ["WorkerHost"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

# Seconds that sockets which are on their way may take when they are not wanted any more.
_LAST_SOCKETS: Final = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Where this worker may listen.

    Attributes:
        claim: How the primary calls it.
        address: The address, with the port that was really taken.
        inlet: Where connections arrive that are handed over; ``None`` if this worker accepts by itself.
        sockets: On which.
    """

    claim: str
    address: pyipc.Address
    inlet: Inlet | None
    sockets: Sequence[socket.socket]


class WorkerHost(pyipc.Host):
    """Through whom the servers of this worker listen.

    Args:
        primary: Whom it asks.
        receiving: What the primary hands over.
        exchange: Brings what servers say to everybody to the clients of other workers.
        opened: Called when the first server, or the first listener, can serve.

    Attributes:
        begin: Is set when this worker may accept by itself, where it does so: once it is ready.
    """

    def __init__(
        self, primary: Superior, receiving: Receiving, exchange: Membership, opened: Callable[[], None]
    ) -> None:
        self._primary = primary
        self._receiving = receiving
        self._exchange = exchange
        self._places: set[str] = set()
        self._opened = opened
        self._servers: set[pyipc.Server] = set()
        self._turns: dict[str, int] = {}
        # How many there are here, by how the primary calls their address.
        self._listeners: collections.Counter[str] = collections.Counter()
        self.begin: trio.Event = trio.Event()

    # --- for servers ---

    def transport(self, endpoint: pyipc.Endpoint) -> Transport | None:
        """What a server listens by; ``None``, so that it does so by itself, where an address cannot be shared."""
        usual = transport_for(endpoint.parsed.scheme)
        if type(usual).claim is Transport.claim or not self._primary.shares(endpoint.parsed):
            return None
        return _Hosted(self, usual)

    def opened(self, server: pyipc.Server) -> None:
        """A server serves: this worker can do its work, unless it says otherwise, or nobody can come to that server."""
        self._servers.add(server)
        self._exchange.join(server, self._places & {str(address) for address in server.addresses})
        if server.addresses:
            self._opened()

    def closed(self, server: pyipc.Server) -> None:
        """A server serves nobody any more."""
        self._servers.discard(server)
        self._exchange.leave(server)

    def broadcast(
        self, server: pyipc.Server, event: str, data: object, *, attachments: Sequence[Any], traceparent: str
    ) -> None:
        """A server has sent something to all its clients: those of its address at other workers get it too."""
        self._exchange.broadcast(server, event, data, attachments, traceparent)

    def publish(
        self,
        server: pyipc.Server,
        topic: str,
        data: object,
        *,
        attachments: Sequence[Any],
        retain: bool,
        by_peer: bool,
        traceparent: str,
    ) -> None:
        """Something was published at a server: whoever subscribes at another worker gets it too."""
        self._exchange.publish(
            server, topic, data, attachments, retain=retain, by_peer=by_peer, traceparent=traceparent
        )

    def forget(self, server: pyipc.Server, pattern: str) -> None:
        """A server's program has let go of retained messages: others do as well."""
        self._exchange.forget(server, pattern)

    async def listen(
        self, address: pyipc.Address, options: Mapping[str, object], adopt: Callable[[Any], Link]
    ) -> Listener:
        """Listen for a server.

        Args:
            address: Where.
            options: As for the transport of the address.
            adopt: Makes a link of what was accepted.

        Raises:
            AddressInUse, ListenError, AddressError: As the transport of the address.
            ConnectionClosed: The primary is gone.

        Cancellation: the primary gives the address up after a while.
        """
        await self._exchange.open()
        place = await self._ask(address, options)
        self._places.add(str(place.address))
        tell = self._teller(place.claim)
        if place.inlet is not None:
            return _Told(HandedListener(place.inlet, place.address, adopt), tell)
        shared = shared_listener(place.sockets, place.address, adopt, self._receiving)
        return _Told(_Patient(shared, self.begin), tell)

    # --- for others ---

    async def open_listeners(self, address: str | pyipc.Address) -> list[trio.abc.Listener[HandedStream]]:
        """Listen for something that is not of pyipc, such as an HTTP server; see `Worker.open_listeners`.

        Raises:
            AddressInUse, ListenError, AddressError: As the transport of the address.
            ConnectionClosed: The primary is gone.

        Cancellation: the primary gives the address up after a while.
        """
        address = pyipc.parse_address(address)
        place = await self._ask(address, {})
        self._opened()
        if place.inlet is not None:
            now = trio.Event()
            now.set()
            return [_ToldTrio(TrioListener(place.inlet), now, self._teller(place.claim))]
        return [
            _ToldTrio(SharedTrioListener(sock, self._receiving), self.begin, self._teller(place.claim))
            for sock in place.sockets
        ]

    async def _ask(self, address: pyipc.Address, options: Mapping[str, object]) -> _Place:
        """Have the primary take an address."""
        text = str(address)
        turn = self._turns.get(text, 0)
        # Whoever serves makes the links: certificates do not leave this process.
        told = {name: _plain(value) for name, value in options.items() if name != "tls"}
        grant = await self._primary.listen(address, turn, told)
        self._turns[text] = turn + 1
        claim, count = grant.claim, grant.sockets
        inlet: Inlet | None = None
        sockets: list[Carrier] = []
        try:
            sockets = await self._receiving.listening(claim, count) if count else []
            inlet = None if count else self._receiving.open(claim)
            await self._primary.listening(grant)
        except trio.Cancelled:
            await self._give_up(claim, inlet, sockets, count - len(sockets))
            raise
        return _Place(claim, grant.address, inlet, [sock for sock in sockets if isinstance(sock, socket.socket)])

    async def _give_up(self, claim: str, inlet: Inlet | None, sockets: Sequence[Carrier], missing: int) -> None:
        """Nobody listens on what was taken just now."""
        if inlet is not None:
            inlet.close()
        with trio.move_on_after(_LAST_SOCKETS, shield=True), contextlib.suppress(pyipc.ConnectionClosed):
            for sock in [*sockets, *(await self._receiving.listening(claim, missing) if missing else ())]:
                sock.close()
        self._teller(claim)()

    def _teller(self, claim: str) -> Callable[[], None]:
        """One more listener here; what it calls when it is closed. The primary hears of the last one."""
        self._listeners[claim] += 1

        def closed() -> None:
            self._listeners[claim] -= 1
            if not self._listeners[claim]:
                with contextlib.suppress(trio.WouldBlock, pyipc.ConnectionClosed):
                    self._primary.unlisten(claim)

        return closed

    # --- leaving ---

    async def drain(self) -> None:
        """Take no more connections, and wait until those that there are have come to their end.

        Cancellation: the servers drain all the same.
        """
        self._receiving.retire()
        async with trio.open_nursery() as nursery:
            for server in self._servers:
                nursery.start_soon(server.drain, None)
        await self._receiving.wait_none_open()


def _plain(value: object) -> object:
    """An option as JSON."""
    return sorted(value) if isinstance(value, set | frozenset | tuple) else value


@final
class _Hosted(Transport):
    """Listens through the host."""

    def __init__(self, host: WorkerHost, usual: Transport) -> None:
        self._host = host
        self._usual = usual

    async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> Listener:
        """Listen through the host.

        Raises:
            AddressInUse, ListenError, AddressError, TypeError, ValueError: As the transport of the address.
            ConnectionClosed: The primary is gone.

        Cancellation: the primary gives the address up after a while.
        """
        return await self._host.listen(address, options, self._usual.adopter(address, options))

    async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> NoReturn:
        """Refuse: this is for servers.

        Raises:
            AddressError: Always.

        Cancellation: it is refused before anything is waited for.
        """
        raise pyipc.AddressError(f"{address} is listened on here")


class _Told(Listener):
    """A listener whose closing is told."""

    def __init__(self, listener: Listener, tell: Callable[[], None]) -> None:
        self._listener = listener
        self._tell = tell
        self._is_closed = False

    @property
    def address(self) -> pyipc.Address:
        return self._listener.address

    async def accept(self) -> Link:
        return await self._listener.accept()

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._tell()
        await self._listener.aclose()


class _Patient(Listener):
    """A listener that accepts nobody before its time has come."""

    def __init__(self, listener: Listener, begin: trio.Event) -> None:
        self._listener = listener
        self._begin = begin

    @property
    def address(self) -> pyipc.Address:
        return self._listener.address

    async def accept(self) -> Link:
        await self._begin.wait()
        return await self._listener.accept()

    async def aclose(self) -> None:
        await self._listener.aclose()


class _ToldTrio(trio.abc.Listener["HandedStream"]):
    """Both, for whatever serves listeners of trio."""

    def __init__(self, listener: trio.abc.Listener[HandedStream], begin: trio.Event, tell: Callable[[], None]) -> None:
        self._listener = listener
        self._begin = begin
        self._tell = tell
        self._is_closed = False

    async def accept(self) -> HandedStream:
        await self._begin.wait()
        return await self._listener.accept()

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._tell()
        await self._listener.aclose()
