"""What an address is in the words of Node's cluster, and what it means when the primary cannot listen there."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
from typing import TYPE_CHECKING, Final

import trio

import pyipc
from pyipc.transports import transport_for

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Place", "grant_error", "place_of"]

# What Node says of the kind of an address.
_PATH: Final = -1
_KINDS: Final = {socket.AF_INET: 4, socket.AF_INET6: 6}


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where to listen, as Node says it. Workers that say the same share it.

    Attributes:
        address: An IP address, or a path.
        port: The port; -1 with a path.
        addressType: Which of these it is.
    """

    address: str
    port: int
    addressType: int


async def place_of(address: pyipc.Address, options: Mapping[str, object]) -> Place:
    """Where an address is.

    Raises:
        ListenError: The host is unknown, there is no safe directory, or Node cannot do what the options ask for.
        AddressError: The address cannot be used on this system.

    Cancellation: nothing has happened, but that a directory may be there.
    """
    if options:
        raise pyipc.ListenError(
            f"Node listens on {address} for its workers, and has no {' or '.join(sorted(options))} for that; leave it "
            "out, or listen on another address in a process that is no worker"
        )
    if address.scheme in ("tcp", "tls"):
        return await _host_place(address)
    await trio.lowlevel.checkpoint()
    return Place(_path(address), -1, _PATH)


async def _host_place(address: pyipc.Address) -> Place:
    try:
        found = await trio.socket.getaddrinfo(
            address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise pyipc.ListenError(f"the host of {address} cannot be found ({error}); check its name") from error
    family, *_, where = found[0]
    return Place(str(where[0]), address.port, _KINDS[family])


def _path(address: pyipc.Address) -> str:
    """The path of a socket that is safe to listen on, in a directory that is there."""
    places = transport_for(address.scheme).places(address)
    for place in places:
        if place.obstacle is None:
            if address.scheme == "local":
                with contextlib.suppress(FileExistsError):
                    os.mkdir(os.path.dirname(place.name), 0o700)
            return place.name
    raise pyipc.ListenError(f"cannot listen on {address}: {'; '.join(str(place.obstacle) for place in places)}")


def grant_error(address: pyipc.Address, number: object) -> pyipc.IPCError:
    """Why the primary cannot listen somewhere.

    Args:
        address: Where.
        number: How the system calls it, below zero as Node has it.
    """
    code = -number if isinstance(number, int) else 0
    if code == errno.EADDRINUSE:
        return pyipc.AddressInUse(
            f"another program listens on {address}, or a worker of the same primary that names the host otherwise, or "
            "not at all; stop it, say the same in both, or use another address"
        )
    return pyipc.ListenError(f"the Node primary cannot listen on {address}: {os.strerror(code)}; use another address")
