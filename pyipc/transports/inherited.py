"""The transport of sockets that somebody else opened: ``fd:`` and ``systemd:``.

Owns the taking over of descriptors. What a socket is, Unix, TCP or UDP, listening or connected, is asked of the socket;
from there on it is like one of ours, but nobody here unlinks it, and it cannot be opened anew.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import trio

from pyipc.errors import AddressError, ConnectionClosed
from pyipc.protocol.addresses import is_loopback
from pyipc.transports.activation import passed_descriptors
from pyipc.transports.claims import SocketClaim, socket_adopter
from pyipc.transports.inspecting import SocketKind, is_unix, kind_of, local_address, open_descriptor
from pyipc.transports.port import Listener, Place, Transport
from pyipc.transports.sockets import SocketListener, refuse_unknown_options
from pyipc.transports.tcp import peer_of, tcp_link, tune
from pyipc.transports.unix import unix_link

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Carrier, Link

__all__ = ["InheritedTransport"]

#: What was taken in this process. A descriptor that is closed may be used for something else, so a number is never
#: taken again: whoever reconnects to ``fd:5`` must not get hold of a stranger's file.
_TAKEN: Final[set[int]] = set()

#: As on udp:// addresses: sources of datagrams that are remembered although they may be forged.
_MAX_STRANGERS: Final = 256


class InheritedTransport(Transport):
    """Listens on inherited sockets, and talks over inherited connections.

    Args:
        taken: The descriptors that were taken already; by default, those of the whole process.
        environment: Where systemd's variables are; by default, the environment of the process.
        platform: The operating system, as in ``sys.platform``.
    """

    def __init__(
        self,
        *,
        taken: set[int] = _TAKEN,
        environment: Mapping[str, str] = os.environ,
        platform: str = sys.platform,
    ) -> None:
        self._taken = taken
        self._environment = environment
        self._platform = platform

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Talk over a connected socket that was inherited.

        That works once. A client that wants to connect again is told so, and gives up.

        Raises:
            AddressError: There is no such socket, or it is not one for a client.
            TypeError: An option does not exist.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, ("tls",), f"connecting to {address}")
        await trio.lowlevel.checkpoint()
        if "tls" in options:
            raise AddressError(
                f"{address} has no TLS for clients: an inherited connection has no host name that a certificate could "
                "be for; leave out tls=, or connect to tls://host:port"
            )
        with self._taking(address) as (kind, sockets):
            if kind is SocketKind.LISTENING:
                raise AddressError(
                    f"{address} cannot be connected to: it is for a server, which listens on it; use the address that "
                    "the server's clients use"
                )
            if kind is SocketKind.DATAGRAMS:
                return _datagram_link(sockets[0], address)
            return _connected(sockets[0], address)

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        """Listen on the sockets that were inherited. On one that is connected already, there is one peer.

        Options: ``tls``, with a certificate, for TCP sockets.

        Raises:
            AddressError: There is no such socket, or it is not one for a server.
            TypeError: An option does not exist.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, ("tls",), f"listening on {address}")
        await trio.lowlevel.checkpoint()
        tls = options.get("tls")
        with self._taking(address) as (kind, sockets):
            if tls is not None:
                _check_tls(address, tls, is_tcp=kind is not SocketKind.DATAGRAMS and not any(map(is_unix, sockets)))
            if kind is SocketKind.CONNECTED:
                return _SinglePeerListener(address, _connected(sockets[0], address, tls))
            reached_at = local_address(sockets[0], tls=tls is not None) or address
            if kind is SocketKind.DATAGRAMS:
                return _datagram_listener(sockets, reached_at)
            return SocketListener(sockets, reached_at, adopt=lambda sock: _link(sock, reached_at, tls))

    async def claim(self, address: Address, options: Mapping[str, object]) -> SocketClaim:
        """Take the sockets that were inherited, if they listen.

        Options: ``tls``, for TCP sockets. Certificates are for whoever makes the links; here it only tells that there
        will be some.

        Raises:
            AddressError: There is no such socket, or it does not listen.
            TypeError: An option does not exist.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, ("tls",), f"listening on {address}")
        await trio.lowlevel.checkpoint()
        with self._taking(address) as (kind, sockets):
            if kind is not SocketKind.LISTENING:
                raise AddressError(
                    f"{address} cannot be shared between processes: its socket does not listen, but is connected or "
                    "for datagrams; let one process have it"
                )
            return SocketClaim(sockets, local_address(sockets[0], tls="tls" in options) or address)

    def adopter(self, address: Address, options: Mapping[str, object]) -> Callable[[Carrier], Link]:
        """How links are made of sockets that were accepted on ``address``, or on what it turned out to be.

        Options: ``tls``, with a certificate, for TCP sockets.

        Raises:
            AddressError: The certificate cannot be used, or it is for a Unix socket.
            TypeError: An option does not exist.
        """
        refuse_unknown_options(options, ("tls",), f"listening on {address}")
        tls = options.get("tls")
        if tls is not None:
            _check_tls(address, tls, is_tcp=address.scheme != "unix")
        return socket_adopter(functools.partial(_link, address=address, tls=tls), address)

    def places(self, address: Address) -> Sequence[Place]:
        """The sockets that ``address`` stands for, and what is wrong with them if anything is.

        Raises:
            AddressError: There are none.
        """
        return tuple(self._place(address, descriptor) for descriptor in self._descriptors(address))

    def _place(self, address: Address, descriptor: int) -> Place:
        try:
            sock = self._open(address, descriptor)
        except AddressError as error:
            return Place(f"descriptor {descriptor}", str(error))
        where = local_address(sock) or "a socket without an address"
        kind = kind_of(sock)
        sock.detach()
        return Place(f"descriptor {descriptor}, {kind.value} {where}")

    def _descriptors(self, address: Address) -> list[int]:
        if self._platform == "win32":
            raise AddressError(
                f"{address} cannot be used here: on Windows sockets are not inherited by their number; use a bare "
                "name, or tcp://127.0.0.1:port"
            )
        if address.scheme == "systemd":
            return passed_descriptors(address.name, self._environment, os.getpid())
        return [int(address.name)]

    @contextlib.contextmanager
    def _taking(self, address: Address) -> Iterator[tuple[SocketKind, list[socket.socket]]]:
        """Look at the sockets of an address. They are ours if the block says nothing against it, else left alone."""
        sockets: list[socket.socket] = []
        try:
            for descriptor in self._descriptors(address):
                sockets.append(self._open(address, descriptor))  # noqa: PERF401 - these are let go if the next fails
            yield _common_kind(address, sockets), sockets
        except BaseException:
            for sock in sockets:
                sock.detach()
            raise
        self._taken.update(sock.fileno() for sock in sockets)
        for sock in sockets:
            # Programs that this one starts must not keep it open.
            sock.set_inheritable(False)

    def _open(self, address: Address, descriptor: int) -> socket.socket:
        if descriptor in self._taken:
            raise AddressError(
                f"{address} cannot be used again: this process has taken descriptor {descriptor} already, and an "
                "inherited socket works once"
            )
        return open_descriptor(address, descriptor)


class _SinglePeerListener(Listener):
    """Hands out one link, and waits from then on."""

    def __init__(self, address: Address, link: Link) -> None:
        self._address = address
        self._link: Link | None = link
        self._closed = trio.Event()

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else "taken" if self._link is None else "waiting"
        return f"<SinglePeerListener on {self._address}, {state}>"

    @property
    def address(self) -> Address:
        return self._address

    async def accept(self) -> Link:
        await trio.lowlevel.checkpoint()
        if self._link is None:
            await self._closed.wait()
        if self._closed.is_set():
            raise ConnectionClosed(f"the listener on {self._address} is closed")
        link, self._link = self._link, None
        assert link is not None
        return link

    def retire(self) -> list[Link]:
        link, self._link = self._link, None
        return [] if link is None else [link]

    async def aclose(self) -> None:
        self._closed.set()
        link, self._link = self._link, None
        if link is None:
            await trio.lowlevel.checkpoint()
        else:
            await link.aclose()


def _common_kind(address: Address, sockets: Sequence[socket.socket]) -> SocketKind:
    """What all sockets of an address are, as they are to be used as one."""
    kinds = [kind_of(sock) for sock in sockets]
    if len(sockets) > 1 and (len(set(kinds)) > 1 or kinds[0] is SocketKind.CONNECTED):
        found = ", ".join(f"{kind.name.lower()} ({sock.fileno()})" for kind, sock in zip(kinds, sockets, strict=True))
        raise AddressError(
            f"{address} cannot be used: its {len(sockets)} sockets must all listen, or all be for datagrams; they are "
            f"{found}. Give each kind a name of its own (FileDescriptorName=)"
        )
    return kinds[0]


def _check_tls(address: Address, tls: Any, *, is_tcp: bool) -> None:
    from pyipc.transports.tls_settings import server_context  # brings ssl along

    if not is_tcp:
        raise AddressError(
            f"{address} cannot be used with tls=, which is for TCP sockets and not for UDP or Unix ones; leave it out"
        )
    try:
        server_context(tls)
    except ValueError as error:
        raise AddressError(f"{address}: {error}") from error


def _connected(sock: socket.socket, address: Address, tls: Any = None) -> Link:
    """A link over a socket that was inherited when it was connected already."""
    try:
        return _link(sock, address, tls)
    except OSError as error:
        raise AddressError(f"{address} cannot be used: its connection is broken ({error.strerror})") from error


def _link(sock: socket.socket, address: Address, tls: Any) -> Link:
    if is_unix(sock):
        if tls is not None:  # of an address that does not tell what it is
            _check_tls(address, tls, is_tcp=False)
        return unix_link(sock, str(address))
    if tls is None:
        return tcp_link(sock)
    from pyipc.transports.tls import server_link

    tune(sock)
    return server_link(sock, peer_of(sock, "tls"), tls)


def _datagram_listener(sockets: Sequence[socket.socket], address: Address) -> Listener:
    from pyipc.transports.datagrams import DatagramSocket
    from pyipc.transports.udp_listener import UdpListener

    bound = [DatagramSocket(sock) for sock in sockets]
    return UdpListener(bound, address, trusts=is_loopback, max_strangers=_MAX_STRANGERS)


def _datagram_link(sock: socket.socket, address: Address) -> Link:
    from pyipc.transports.datagrams import DatagramSocket
    from pyipc.transports.udp import UdpLink
    from pyipc.transports.udp_listener import peer_at

    try:
        peer = peer_at(sock.getpeername())
    except OSError as error:
        raise AddressError(
            f"{address} cannot be connected to: its UDP socket is not connected; call connect() on it before it is "
            "passed on, or let a server listen on it"
        ) from error
    return UdpLink(DatagramSocket(sock), peer)
