"""The server's side of UDP: one socket for all peers, told apart by the address that their datagrams come from.

Anybody can write any address on a datagram. So a peer is a *stranger* until it has shown that it is where it says: it
is sent at most as many bytes and datagrams as came from there, and there is room for a fixed number of strangers, of
whom the one that was silent for longest makes room for the next. Neither can they be used to flood somebody, nor can
they fill up anything, nor get into the way of peers that are no strangers.
"""

from __future__ import annotations

import collections
import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from pyipc.errors import AddressError, ConnectionClosed
from pyipc.transports.binding import resolve
from pyipc.transports.datagrams import DatagramLink
from pyipc.transports.port import Listener, Peer
from pyipc.transports.pump import Pump

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyipc.protocol.addresses import Address
    from pyipc.transports.datagrams import DatagramSocket
    from pyipc.transports.port import Link

__all__ = ["SourceLink", "UdpListener", "peer_at"]

#: Peers that wait for `UdpListener.accept`, strangers not counted.
_BACKLOG: Final = 128
#: Bytes of datagrams that wait in one link, each counted with what it takes besides its bytes.
_MAX_QUEUE_SIZE: Final = 256 * 1024
_DATAGRAM_WEIGHT: Final = 128

_Source: TypeAlias = "tuple[DatagramSocket, Any]"


def peer_at(where: tuple[Any, ...]) -> Peer:
    """Who is at an address that the operating system reports."""
    host, port = where[:2]
    return Peer(address=f"udp://{f'[{host}]' if ':' in host else host}:{port}", host=host)


class SourceLink(DatagramLink):
    """One of the peers of a listener, which makes it.

    Args:
        listener: Whose peer it is.
        source: Where its datagrams come from.
        verified: Whether it is no stranger.
        expires: Whether it is to be forgotten when it is silent.
    """

    def __init__(self, listener: UdpListener, source: _Source, *, verified: bool, expires: bool) -> None:
        sock, where = source
        super().__init__(sock, peer_at(where), where)
        self._listener = listener
        self._queue: collections.deque[bytes] = collections.deque()
        self._queue_size = 0
        # What a stranger may still be sent: bytes, and datagrams, since there is more to each than its bytes. And who
        # waits for more.
        self._bytes_allowed = 0
        self._datagrams_allowed = 0
        self._waiting: trio.lowlevel.ParkingLot | None = None
        self._tell_forgotten: Callable[[str], None] | None = None
        self.verified: bool = verified
        self.expires: bool = expires

    @property
    def source(self) -> _Source:
        """Where its datagrams come from: through which socket, and from which address."""
        return self._socket, self._where

    def verify(self) -> None:
        """The peer is no stranger any more."""
        self.verified = True
        self._listener._on_verified(self)
        self._let_send()

    def tell_forgotten(self, tell: Callable[[str], None]) -> None:
        """Have a function called with the reason if the listener needs the room for another stranger."""
        self._tell_forgotten = tell

    async def receive(self) -> bytes:
        """Wait for the next datagram. Always a schedule point.

        Raises:
            ConnectionLost: `aclose` was called, or the listener needed the room for another stranger.

        Cancellation: loses nothing.
        """
        pump = self._listener.pump
        if self._queue or self._closed:
            await trio.lowlevel.checkpoint()
        try:
            while not self._queue:
                self._check_open()
                await pump.wait(self)
            self._check_open()
            data = self._queue.popleft()
        finally:
            pump.pass_on(self)
        self._queue_size -= len(data) + _DATAGRAM_WEIGHT
        return data

    async def aclose(self) -> None:
        """Forget the peer, at once and more than once. Wakes whoever is in `send` or `receive`.

        Cancellation: it is forgotten all the same.
        """
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self, why: str = "") -> None:
        """Like `aclose`, without giving way; ``why``, as a sentence, if it was not asked for."""
        if not self._closed:
            self._closed = True
            self._why = why
            self._queue.clear()
            self._listener._forget(self)
            self._let_send()
            if why and self._tell_forgotten is not None:
                self._tell_forgotten(why)

    def put(self, data: bytes) -> None:
        """Take a datagram that came from the peer."""
        self._bytes_allowed += len(data)
        self._datagrams_allowed += 1
        self._let_send()
        weight = len(data) + _DATAGRAM_WEIGHT
        if self._queue_size + weight > _MAX_QUEUE_SIZE:
            self._lost += 1
        else:
            self._queue.append(data)
            self._queue_size += weight

    def _hand_over(self, data: bytes | bytearray | memoryview) -> bool:
        if not self._may_have(len(data)):
            return False
        taken = super()._hand_over(data)
        if taken:
            self._bytes_allowed -= len(data)
            self._datagrams_allowed -= 1
        return taken

    async def _wait_to_send(self, size: int) -> None:
        if self._may_have(size):
            await super()._wait_to_send(size)
        else:
            if self._waiting is None:
                self._waiting = trio.lowlevel.ParkingLot()
            await self._waiting.park()

    def _may_have(self, size: int) -> bool:
        return self.verified or (size <= self._bytes_allowed and self._datagrams_allowed > 0)

    def _let_send(self) -> None:
        if self._waiting is not None:
            self._waiting.unpark_all()


class UdpListener(Listener):
    """Sorts datagrams by where they come from, and makes a link of each source.

    The address is released when the listener and all of its links are closed.

    Args:
        sockets: At least one bound socket; the listener owns them from here on.
        address: Where they are, as the user knows it.
        trusts: Whether a host cannot be a stranger.
        max_strangers: How many strangers are remembered.

    Attributes:
        pump: Who waits for datagrams, and whose turn it is to read them.
        dropped: Datagrams lost because there was no room for their source, or it came too late.
    """

    def __init__(
        self,
        sockets: Sequence[DatagramSocket],
        address: Address,
        *,
        trusts: Callable[[str], bool],
        max_strangers: int,
    ) -> None:
        self._sockets = sockets
        self._address = address
        self._trusts = trusts
        self._max_strangers = max_strangers
        self._closed = False
        self._links: dict[_Source, SourceLink] = {}
        # Links that nobody has accepted yet, in order; and those of strangers, the longest silent first.
        self._fresh: dict[SourceLink, None] = {}
        self._strangers: collections.OrderedDict[SourceLink, None] = collections.OrderedDict()
        self._lost = 0
        self.pump: Pump = Pump(sockets, self._sort)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"sockets: {len(self._sockets)}"
        return f"<UdpListener on {self._address}, {state}, links: {len(self._links)}>"

    @property
    def address(self) -> Address:
        """Where it listens, with the port that was really taken."""
        return self._address

    @property
    def dropped(self) -> int:
        """Datagrams that belong to no link and were lost: there was no room for their source, or they were cut."""
        return self._lost + sum(sock.dropped for sock in self._sockets)

    async def accept(self) -> Link:
        """Wait for a datagram from a source that has no link. Always a schedule point.

        Raises:
            ConnectionClosed: `aclose` was called.

        Cancellation: loses no peer.
        """
        if self._fresh or self._closed:
            await trio.lowlevel.checkpoint()
        try:
            while not self._fresh:
                self._check_open()
                await self.pump.wait(self)
            self._check_open()
            link = next(iter(self._fresh))
            del self._fresh[link]
        finally:
            self.pump.pass_on(self)
        return link

    async def dial(self, address: Address) -> Link:
        """Open a link to a peer that has sent nothing yet, or find the one that there is.

        The peer is no stranger: it was this side that asked for it.

        Raises:
            AddressError: There is no such host, or none of a family that is listened on.
            ConnectionClosed: `aclose` was called.

        Cancellation: nothing stays open.
        """
        if address.scheme != self._address.scheme or not address.port:
            raise AddressError(f"what listens on {self._address} cannot call {address}; write udp://host:port")
        try:
            places = await resolve(address, socket.SOCK_DGRAM)
        except (socket.gaierror, UnicodeError) as error:
            raise AddressError(f"the host of {address} cannot be found ({error}); check its name") from error
        self._check_open()
        sources = [(sock, where) for family, where in places for sock in self._sockets if sock.family == family]
        if not sources:
            raise AddressError(f"{address} cannot be reached from {self._address}, which is of another family")
        link = next((self._links[source] for source in sources if source in self._links), None)
        if link is None:
            link = self._links[sources[0]] = SourceLink(self, sources[0], verified=True, expires=False)
        link.expires = False
        link.verify()
        self._fresh.pop(link, None)
        return link

    def retire(self) -> list[Link]:
        """Take no new peers, and hand out those that nobody has accepted yet."""
        fresh: list[Link] = list(self._fresh)
        self._fresh.clear()
        if not self._closed:
            self._closed = True
            self.pump.wake(self)
            self._release()
        return fresh

    async def aclose(self) -> None:
        """Take no new peers, at once and more than once. Wakes whoever is in `accept`.

        The links that were accepted go on; with the last of them the address is released.

        Cancellation: everything is done all the same.
        """
        if not self._closed:
            for link in list(self._fresh):
                link.close()
            self.retire()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionClosed(f"the listener on {self._address} is closed")

    def _sort(self, sock: DatagramSocket, data: bytes, where: Any) -> None:
        """Bring a datagram to the link that it is for."""
        link = self._links.get((sock, where))
        if link is None:
            link = self._meet(sock, where)
            if link is None:
                self._lost += 1
                return
        elif not link.verified:
            self._strangers.move_to_end(link)
        link.put(data)
        self.pump.wake(link)

    def _meet(self, sock: DatagramSocket, where: Any) -> SourceLink | None:
        """Make a link for a new source; ``None`` if there is no room."""
        if self._closed:
            return None
        verified = self._trusts(where[0])
        if verified:
            if len(self._fresh) >= _BACKLOG + self._max_strangers:
                return None
        elif len(self._strangers) >= self._max_strangers:
            next(iter(self._strangers)).close("there are more peers of its kind than are remembered")
        link = self._links[(sock, where)] = SourceLink(self, (sock, where), verified=verified, expires=True)
        if not verified:
            self._strangers[link] = None
        self._fresh[link] = None
        self.pump.wake(self)
        return link

    def _on_verified(self, link: SourceLink) -> None:
        self._strangers.pop(link, None)

    def _forget(self, link: SourceLink) -> None:
        self._links.pop(link.source, None)
        self._fresh.pop(link, None)
        self._strangers.pop(link, None)
        self.pump.wake(link)
        self._release()

    def _release(self) -> None:
        if self._closed and not self._links:
            for sock in self._sockets:
                sock.close()
