"""What a descriptor that somebody else opened is: no socket, or which kind of socket, and where it is.

Owns the questions to the kernel and the sentences about what cannot be used. Takes nothing over: whatever is refused is
left as it was.
"""

from __future__ import annotations

import enum
import os
import socket
import stat
from typing import TYPE_CHECKING, Final

from pyipc.errors import AddressError
from pyipc.protocol.addresses import parse_address

if TYPE_CHECKING:
    from pyipc.protocol.addresses import Address

__all__ = ["SocketKind", "is_unix", "kind_of", "local_address", "open_descriptor"]

_UNIX: Final = getattr(socket, "AF_UNIX", None)  # not on Windows
_NETWORK: Final = (socket.AF_INET, socket.AF_INET6)


class SocketKind(enum.Enum):
    """What can be done with a socket; the values are said to people."""

    LISTENING = "listening on"
    CONNECTED = "connected from"
    DATAGRAMS = "datagrams at"


def open_descriptor(address: Address, descriptor: int) -> socket.socket:
    """A socket object for a descriptor. To give it up unharmed, detach it.

    Args:
        address: What the sentence is to begin with.
        descriptor: Its number.

    Raises:
        AddressError: There is no socket, or it is of no use; the sentence says what to do.
    """
    try:
        is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError as error:
        raise AddressError(
            f"{address} cannot be used: descriptor {descriptor} is not open ({error.strerror}); let whoever starts "
            "this program pass it on, in Python with pass_fds="
        ) from error
    if not is_socket:
        raise AddressError(f"{address} cannot be used: descriptor {descriptor} is not a socket; pass one on")
    sock = socket.socket(fileno=descriptor)
    if reason := _unfit(sock):
        sock.detach()
        raise AddressError(f"{address} cannot be used: the socket on descriptor {descriptor} {reason}")
    return sock


def kind_of(sock: socket.socket) -> SocketKind:
    """What a socket that `open_descriptor` returned is good for."""
    if sock.type == socket.SOCK_DGRAM:
        return SocketKind.DATAGRAMS
    return SocketKind.LISTENING if _is_listening(sock) else SocketKind.CONNECTED


def is_unix(sock: socket.socket) -> bool:
    """Whether a socket is a Unix domain socket, and not one of the network."""
    return sock.family == _UNIX


def local_address(sock: socket.socket, *, tls: bool = False) -> Address | None:
    """Where a socket is, as an address for clients; ``None`` if they could not use it.

    Args:
        sock: The socket.
        tls: Whether TLS is spoken there.
    """
    name = sock.getsockname()
    if not is_unix(sock):
        host, port = name[:2]
        scheme = "udp" if kind_of(sock) is SocketKind.DATAGRAMS else "tls" if tls else "tcp"
        return parse_address(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
    # The kernel gives an abstract name as bytes with a zero in front, and a path as it was written.
    text = f"@{os.fsdecode(name[1:])}" if isinstance(name, bytes) else name
    try:
        return parse_address(f"unix:{text}")
    except AddressError:
        return None


def _unfit(sock: socket.socket) -> str | None:
    """Why a socket cannot be used, as the end of a sentence."""
    if sock.family in _NETWORK and sock.type == socket.SOCK_DGRAM:
        return None if sock.getsockname()[1] else "has no port yet; call bind() on it before it is passed on"
    if sock.type != socket.SOCK_STREAM or not (is_unix(sock) or sock.family in _NETWORK):
        return f"is neither a stream nor of UDP ({sock.family!r}, {sock.type!r}); pass a Unix, TCP or UDP socket on"
    if not _is_listening(sock) and not _is_connected(sock):
        return "neither listens nor is connected; call listen() on it before it is passed on"
    return None


def _is_listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
