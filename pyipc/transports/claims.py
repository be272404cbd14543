"""Addresses that are taken, as far as sockets that are streams go: what is accepted there, and links made of it.

Owns accepting and closing of sockets that listen already. Must not know how they came to be, nor which links there are.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from typing import TYPE_CHECKING, Final

import trio

from pyipc.errors import ConnectionClosed
from pyipc.transports.port import Claim, Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Carrier, Link

__all__ = ["ClaimListener", "SocketClaim", "socket_adopter"]

logger: logging.Logger = logging.getLogger("pyipc.transports")

# More than any backlog: who listens on a socket that others use too must come to an end with its line.
_LONGEST_LINE: Final = 8_192

#: How many peers `SocketClaim.accept` takes before it lets other tasks run. A turn of the
#: scheduler costs more than accepting does, and whoever listens is often called by many at once.
_ACCEPTS_PER_TURN: Final = 16

#: What accept(2) reports about a peer that is gone already, rather than about ourselves. Linux
#: passes on errors of the new connection's network as well.
_PEER_IS_GONE: Final = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "ENOTCONN",
        "EPERM",
        "EPROTO",
    )
    if hasattr(errno, name)
)


class SocketClaim(Claim):
    """Listening sockets that all belong to one address.

    Args:
        sockets: At least one listening socket; the claim owns them from here on.
        address: Where they listen, as the user knows it.
        release: Called once, before the sockets are closed: gives back what goes with them.
    """

    __slots__ = ("_accepted", "_address", "_closed", "_next", "_release", "_sockets")

    def __init__(
        self, sockets: Sequence[socket.socket], address: Address, *, release: Callable[[], None] | None = None
    ) -> None:
        for sock in sockets:
            sock.setblocking(False)
        self._sockets = tuple(sockets)
        self._address = address
        self._release = release
        self._closed = False
        self._next = 0
        self._accepted = 0

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"sockets: {len(self._sockets)}"
        return f"<SocketClaim of {self._address}, {state}>"

    @property
    def address(self) -> Address:
        """Where it is, with the port that was really taken."""
        return self._address

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The listening sockets, which stay the claim's."""
        return self._sockets

    async def accept(self) -> socket.socket:
        """Wait for the next peer. A schedule point at least once for every sixteen peers.

        Raises:
            ConnectionClosed: `aclose` was called.
            OSError: Accepting failed for now (out of descriptors, say); wait a little and go on.

        Cancellation: loses no peer.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self._closed:
                raise ConnectionClosed(f"the listener on {self._address} is closed")
            if self._accepted < _ACCEPTS_PER_TURN and (connection := self._accept_nowait()) is not None:
                self._accepted += 1
                return connection
            self._accepted = 0
            await self._wait()

    def retire(self) -> list[socket.socket]:
        """Take no newcomers, as far as the system lets us say so, and hand out the peers that wait in line.

        A Unix socket is shut first: Linux then refuses whoever comes, and keeps those that came before. What listens on
        TCP cannot be shut without resetting them; so a peer that comes between the last look and `aclose` is reset.
        What was inherited is not shut, since others may listen on it.
        """
        connections: list[socket.socket] = []
        if self._closed:
            return connections
        if self._release is not None:
            self._release()
            self._release = None
            for sock in self._sockets:
                with contextlib.suppress(OSError):  # macOS does not let what listens be shut
                    sock.shutdown(socket.SHUT_RDWR)
        for sock in self._sockets:
            # Nobody is left in the line, or there are no descriptors left.
            with contextlib.suppress(OSError):
                for _ in range(_LONGEST_LINE):
                    connection = _accept_from(sock)
                    if connection is not None:
                        connections.append(connection)
        return connections

    async def aclose(self) -> None:
        """Stop listening and release the address, at once and more than once. Wakes whoever is in `accept`.

        Cancellation: everything is closed all the same.
        """
        if not self._closed:
            self._closed = True
            try:
                if self._release is not None:
                    self._release()
            finally:
                for sock in self._sockets:
                    trio.lowlevel.notify_closing(sock)
                    sock.close()
        await trio.lowlevel.checkpoint()

    def _accept_nowait(self) -> socket.socket | None:
        """The next peer that waits on any of the sockets; each socket gets its turn."""
        for _ in self._sockets:
            sock = self._sockets[self._next]
            self._next = (self._next + 1) % len(self._sockets)
            with contextlib.suppress(BlockingIOError):
                connection = _accept_from(sock)
                if connection is not None:
                    return connection
        return None

    async def _wait(self) -> None:
        """Wait until a socket can be read, or is closed."""
        if len(self._sockets) == 1:
            await _readable(self._sockets[0])
            return

        async def wait_for(sock: socket.socket) -> None:
            await _readable(sock)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for sock in self._sockets:
                nursery.start_soon(wait_for, sock)


class ClaimListener(Listener):
    """Serves in this process what is accepted on an address that this process has taken.

    Args:
        claim: The address; the listener owns it from here on.
        adopt: Makes a link of what was accepted, as `Transport.adopter` says. If it raises `OSError` the peer is turned
            away and the next one is waited for.
    """

    __slots__ = ("_adopt", "_claim")

    def __init__(self, claim: Claim, adopt: Callable[[Carrier], Link]) -> None:
        self._claim = claim
        self._adopt = adopt

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._claim!r}>"

    @property
    def address(self) -> Address:
        """Where it listens, with the port that was really taken."""
        return self._claim.address

    async def accept(self) -> Link:
        """Wait for the next peer.

        Raises:
            ConnectionClosed: `aclose` was called.
            OSError: Accepting failed for now (out of descriptors, say); wait a little and go on.

        Cancellation: loses no peer.
        """
        while True:
            link = self._adopted(await self._claim.accept())
            if link is not None:
                return link

    def retire(self) -> list[Link]:
        """Take no newcomers, and hand out the peers that wait in line, as far as the claim can do that."""
        links = map(self._adopted, self._claim.retire())
        return [link for link in links if link is not None]

    async def aclose(self) -> None:
        """Stop listening and release the address, at once and more than once. Wakes whoever is in `accept`.

        Cancellation: the address is released all the same.
        """
        await self._claim.aclose()

    def _adopted(self, carrier: Carrier) -> Link | None:
        """A link; ``None`` if the peer is turned away."""
        try:
            return self._adopt(carrier)
        except OSError as error:
            carrier.close()
            logger.warning("turned away a peer on %s, because it cannot be identified: %s", self.address, error)
        except BaseException:
            carrier.close()
            raise
        return None


def socket_adopter(make: Callable[[socket.socket], Link], address: Address) -> Callable[[Carrier], Link]:
    """What `Transport.adopter` returns, where all that is accepted are sockets.

    Args:
        make: Makes a link of a connected socket.
        address: Where it was accepted.
    """

    def adopt(carrier: Carrier) -> Link:
        if not isinstance(carrier, socket.socket):
            raise TypeError(f"what is accepted on {address} is a socket, and not {carrier!r}; pass that on")
        return make(carrier)

    return adopt


def _accept_from(sock: socket.socket) -> socket.socket | None:
    """The next peer that waits on a socket; ``None`` if it is gone by now.

    Raises:
        BlockingIOError: Nobody waits.
        OSError: Accepting failed.
    """
    try:
        connection, _address = sock.accept()
    except OSError as error:
        if error.errno in _PEER_IS_GONE:
            return None
        raise
    return connection


async def _readable(sock: socket.socket) -> None:
    try:
        await trio.lowlevel.wait_readable(sock)
    except trio.ClosedResourceError:
        # `SocketClaim.accept` looks why it was woken.
        return
