"""The transport of ``tcp`` addresses.

Owns finding the addresses of a host, dialing and binding them, and how TCP is tuned. Must not know
whether traffic may leave this host: that was decided before anybody asks for a socket here.

`dial` and `claim_host` hand out plain sockets, for transports that are built on TCP.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

import trio

from pyipc.errors import ConnectError
from pyipc.transports.binding import bind_host
from pyipc.transports.claims import ClaimListener, SocketClaim, socket_adopter
from pyipc.transports.port import Peer, Transport
from pyipc.transports.sockets import BACKLOG, SHORTAGE, SocketLink, refuse_unknown_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Carrier, Link, Listener

__all__ = ["TcpTransport", "claim_host", "dial", "peer_of", "tcp_link", "tune"]

#: Keepalive: seconds of silence before the first probe, seconds between probes, probes. A plain
#: peer that vanished is noticed after a minute.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPALIVE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class TcpTransport(Transport):
    """Reaches and listens on ``tcp://host:port``. Has no options."""

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Connect to the first address of the host that answers.

        Raises:
            ConnectError: The host is unknown or nobody answered; the operating system's error is the cause.
            TypeError: An option does not exist.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, (), f"connecting to {address}")
        sock = await dial(address)
        try:
            return SocketLink(sock, peer_of(sock, address.scheme))
        except OSError as error:
            sock.close()
            raise ConnectError(f"the connection to {address} broke at once: {error.strerror}; try again") from error

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        """Listen on every address of the host, with the same port on all of them.

        Raises:
            AddressInUse, ListenError, TypeError: As `claim`.

        Cancellation: nothing stays open.
        """
        return ClaimListener(await self.claim(address, options), self.adopter(address, options))

    async def claim(self, address: Address, options: Mapping[str, object]) -> SocketClaim:
        """Take every address of the host, with the same port on all of them.

        Raises:
            AddressInUse: Another program listens there.
            ListenError: The host is unknown, is not this machine, or the port is not for us.
            TypeError: An option does not exist.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, (), f"listening on {address}")
        return await claim_host(address)

    def adopter(self, address: Address, options: Mapping[str, object]) -> Callable[[Carrier], Link]:
        """How links are made of sockets that were accepted on ``address``.

        Raises:
            TypeError: An option does not exist.
        """
        refuse_unknown_options(options, (), f"listening on {address}")
        return socket_adopter(functools.partial(tcp_link, scheme=address.scheme), address)


async def dial(address: Address) -> socket.socket:
    """Open a connected TCP socket, tuned for messages.

    Addresses of a host that do not answer at once are tried beside the next ones (happy eyeballs).

    Args:
        address: Where to; only ``host`` and ``port`` matter.

    Raises:
        ConnectError: The host is unknown or nobody answered; the operating system's error is the cause.

    Cancellation: nothing stays open.
    """
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
    except (socket.gaierror, UnicodeError) as error:
        raise ConnectError(f"the host of {address} cannot be found ({error}); check its name") from error
    except OSError as error:
        raise _nobody(address, error) from error
    trio_socket = stream.socket
    family, kind, protocol = trio_socket.family, trio_socket.type, trio_socket.proto
    sock = socket.socket(family, kind, protocol, fileno=trio_socket.detach())
    sock.setblocking(False)
    try:
        if sock.getsockname() == sock.getpeername():
            # With no listener on a port from which the system picks ports for outgoing
            # connections, a client that tries often enough is connected to itself.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the connection led back to itself")
    except OSError as error:
        sock.close()
        raise _nobody(address, error) from error
    tune(sock)
    return sock


async def claim_host(address: Address) -> SocketClaim:
    """Open listening TCP sockets on every address of a host, all with the same port.

    Args:
        address: Where. Port 0 takes a free one.

    Raises:
        AddressInUse: Another program listens there.
        ListenError: The host is unknown, is not this machine, or the port is not for us.

    Cancellation: nothing stays open.
    """
    sockets = await bind_host(address, socket.SOCK_STREAM, _bind_one)
    return SocketClaim(sockets, dataclasses.replace(address, port=sockets[0].getsockname()[1]))


def peer_of(sock: socket.socket, scheme: str) -> Peer:
    """Who is on the other side of a connected TCP socket.

    Args:
        sock: The socket.
        scheme: What the peer's address begins with.

    Raises:
        OSError: The connection is broken already.
    """
    host, port = sock.getpeername()[:2]
    return Peer(address=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}", host=host)


def tcp_link(sock: socket.socket, scheme: str = "tcp") -> SocketLink:
    """Make a link of a connected TCP socket, and tune it for messages.

    Args:
        sock: The socket. The link owns it, unless this fails.
        scheme: What the peer's address begins with.

    Raises:
        OSError: The connection is broken already.
    """
    tune(sock)
    return SocketLink(sock, peer_of(sock, scheme))


def _nobody(address: Address, error: OSError) -> ConnectError:
    # For a host with several addresses trio reports a group: one error for each.
    several = error.__cause__.exceptions if isinstance(error.__cause__, ExceptionGroup) else (error,)
    reasons = [_words(one.errno) if isinstance(one, OSError) and one.errno else str(one) for one in several]
    why = ", ".join(dict.fromkeys(reasons))
    if any(isinstance(one, OSError) and one.errno in SHORTAGE for one in several):
        return ConnectError(f"cannot connect to {address}: {why}; close some files, or raise the limit (ulimit -n)")
    return ConnectError(f"nobody answers on {address} ({why}); start the server there, or check host and port")


def _words(code: int) -> str:
    """What an error means, without the address that is told anyway."""
    # Windows numbers the errors of sockets differently, and `os.strerror` knows none of those.
    windows: dict[int, str] = getattr(socket, "errorTab", {})
    return windows[code].rstrip(".") if code in windows else os.strerror(code)


def _bind_one(family: int, where: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            # There SO_REUSEADDR would let anybody take the port away from us.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # Restarting must not wait for connections of the last run to be forgotten.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # What arrives by IPv4 is for a socket of its own, or IPv4 sources would come in disguise.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def tune(sock: socket.socket) -> None:
    """No waiting to fill packets, and probes while it is quiet. Where that fails, TCP works all the same."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        # macOS refuses this for a connection that the peer has reset; the next read will tell.
        return
