"""Taking the addresses of a host to listen on: all that it has, with one port on all of them.

Shared by the transports over IP. What a socket has to be told before it is bound is theirs to say.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, Final

import trio

from pyipc.errors import AddressInUse, ListenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.protocol.addresses import Address

__all__ = ["bind_host", "resolve"]

#: A host with addresses of both families gets one port on all of them; this often another is tried
#: if the first is free on one family only.
_PORT_ATTEMPTS: Final = 20

#: What binding an address reports if this machine does not have its family, or not the address.
_NOT_HERE: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


async def resolve(address: Address, kind: socket.SocketKind, flags: int = 0) -> list[tuple[int, tuple[Any, ...]]]:
    """The addresses of a host, each with its family.

    Args:
        address: Of which host; with its port.
        kind: For which kind of socket.
        flags: Of ``getaddrinfo``.

    Raises:
        socket.gaierror, UnicodeError: There is no such host.

    Cancellation: changes nothing.
    """
    found = await trio.socket.getaddrinfo(address.host, address.port, type=kind, flags=flags)
    # Without its duplicates: a hosts file may name one address twice.
    return list(dict.fromkeys((family, where) for family, _, _, _, where in found))


async def bind_host(
    address: Address, kind: socket.SocketKind, bind_one: Callable[[int, tuple[Any, ...]], socket.socket]
) -> list[socket.socket]:
    """Open sockets on every address of a host, all with the same port.

    Args:
        address: Where; only ``host`` and ``port`` matter. Port 0 takes a free one.
        kind: Which kind of socket.
        bind_one: Opens one, of a family and on an address.

    Raises:
        AddressInUse: Another program listens there.
        ListenError: The host is unknown, is not this machine, or the port is not for us.

    Cancellation: nothing stays open.
    """
    try:
        places = await resolve(address, kind, socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ListenError(
            f"the host of {address} cannot be found ({error}); use an address of this machine, such as 127.0.0.1"
        ) from error
    attempts = _PORT_ATTEMPTS if address.port == 0 else 1
    while True:
        attempts -= 1
        try:
            return _bind_all(places, address.port, bind_one)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or attempts == 0:
                raise _refusal(error, address) from error


def _bind_all(
    places: list[tuple[int, tuple[Any, ...]]], port: int, bind_one: Callable[[int, tuple[Any, ...]], socket.socket]
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, where in places:
            try:
                sockets.append(bind_one(family, (where[0], port, *where[2:])))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                # "localhost" has an IPv6 address also on machines that do without IPv6.
                missing = error
            else:
                port = sockets[0].getsockname()[1]
        if not sockets:
            raise missing or OSError(errno.EADDRNOTAVAIL, "the host has no address")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _refusal(error: OSError, address: Address) -> ListenError:
    match error.errno:
        case errno.EADDRINUSE:
            return AddressInUse(f"another program listens on {address}; stop it, or use port 0 to get a free one")
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return ListenError(
                f"this machine does not have the address of {address}; use 127.0.0.1 or [::1] for programs on this "
                "machine, or 0.0.0.0 or [::] for every interface"
            )
        case errno.EACCES | errno.EPERM:
            return ListenError(
                f"we may not listen on {address}; ports below 1024 are for privileged programs: use another"
            )
    return ListenError(f"cannot listen on {address}: {error.strerror}; use another address")
