"""The transport of ``udp`` addresses.

Owns finding the addresses of a host, binding and connecting, and the link of a client; what comes to a listener is
sorted in `udp_listener`. Must not know whether traffic may leave this host: that was decided before.
"""

from __future__ import annotations

import dataclasses
import errno
import socket
import sys
from typing import TYPE_CHECKING, Any

import trio

from pyipc.errors import ConnectError
from pyipc.protocol.addresses import is_loopback
from pyipc.transports.binding import bind_host, resolve
from pyipc.transports.datagrams import MAX_DATAGRAM_SIZE, DatagramLink, DatagramSocket
from pyipc.transports.port import Transport
from pyipc.transports.sockets import refuse_unknown_options
from pyipc.transports.udp_listener import UdpListener, peer_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Link, Listener

__all__ = ["UdpLink", "UdpTransport"]


class UdpTransport(Transport):
    """Reaches and listens on ``udp://host:port``.

    Args:
        trusts: Whether a host that sends something is certain to be there, so that it may be answered at any length
            and told what it did not ask for. By default the hosts of the loopback, whose addresses nobody can forge.
        max_strangers: How many peers a listener remembers of which it is not certain that they are there. For a new
            one, the one that was silent for longest is forgotten; peers that are certain to be there never are.

    Raises:
        ValueError: ``max_strangers`` is not at least 1: whoever is certain to be there was a stranger first.
    """

    def __init__(self, *, trusts: Callable[[str], bool] = is_loopback, max_strangers: int = 256) -> None:
        if max_strangers < 1:
            raise ValueError(f"max_strangers must be at least 1, not {max_strangers!r}")
        self._trusts = trusts
        self._max_strangers = max_strangers

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Make a socket that sends to the host and hears nobody else. Whether anybody is there is not asked.

        Raises:
            ConnectError: The host is unknown, or cannot be reached from here at all.
            TypeError: An option does not exist.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, (), f"connecting to {address}")
        try:
            places = await resolve(address, socket.SOCK_DGRAM)
        except (socket.gaierror, UnicodeError) as error:
            raise ConnectError(f"the host of {address} cannot be found ({error}); check its name") from error
        reasons: list[OSError] = []
        for family, where in places:
            try:
                sock = _connect(family, where)
            except OSError as error:
                reasons.append(error)
            else:
                return UdpLink(DatagramSocket(sock), peer_at(where))
        why = ", ".join(dict.fromkeys(error.strerror or str(error) for error in reasons))
        raise ConnectError(f"{address} cannot be reached from here ({why}); check host and port") from reasons[0]

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        """Take every address of the host, with the same port on all of them.

        Raises:
            AddressInUse: Another program has the port.
            ListenError: The host is unknown, is not this machine, or the port is not for us.
            TypeError: An option does not exist.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, ("trust_sources",), f"listening on {address}")
        sockets = await bind_host(address, socket.SOCK_DGRAM, _bind_one)
        taken = dataclasses.replace(address, port=sockets[0].getsockname()[1])
        return UdpListener(
            [DatagramSocket(sock) for sock in sockets],
            taken,
            trusts=(lambda host: True) if options.get("trust_sources") else self._trusts,
            max_strangers=self._max_strangers,
        )

    def max_chunk_size(self, address: Address) -> int | None:
        """What a datagram holds."""
        return MAX_DATAGRAM_SIZE


class UdpLink(DatagramLink):
    """A connected socket: what a client sends and hears through."""

    can_wake_receiver = True
    _is_woken = False

    @property
    def dropped(self) -> int:
        """How many datagrams were lost: the system refused them, or told later that nobody was there."""
        return self._lost + self._socket.complaints

    async def receive(self) -> bytes:
        """Wait for the next datagram. Always a schedule point.

        Raises:
            ConnectionLost: `aclose` was called.
            trio.WouldBlock: `wake_receiver` was called meanwhile.

        Cancellation: loses nothing.
        """
        self._is_woken = False
        while True:
            self._check_open()
            await self._socket.wait_readable()
            received = self._socket.receive()
            if received is not None:
                return received[0]
            if self._is_woken and not self._closed:
                raise trio.WouldBlock

    def wake_receiver(self) -> None:
        """Let a task that waits in `receive` raise `trio.WouldBlock` instead, having lost nothing."""
        self._is_woken = True
        self._socket.wake()

    async def aclose(self) -> None:
        """Close the socket, at once and more than once. Wakes whoever is in `send` or `receive`.

        Cancellation: the socket is closed all the same.
        """
        self._closed = True
        self._socket.close()
        await trio.lowlevel.checkpoint()


def _connect(family: int, where: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.connect(where)
        if sock.getsockname() == sock.getpeername():
            # The port that the system picked for us is the one we are to send to: nobody else can be there.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the connection led back to itself")
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_one(family: int, where: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if sys.platform == "win32":
            # There another program could bind the same port, and take what is meant for us.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        if family == socket.AF_INET6:
            # What arrives by IPv4 is for a socket of its own, or IPv4 sources would come in disguise.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock
