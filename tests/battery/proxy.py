"""A proxy that misbehaves: it stands between real clients and a real server and passes on what it pleases."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

import trio

import pyipc
from pyipc.testing import Faults, FaultyLink
from pyipc.transports import SocketLink, transport_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pyipc.transports import Link, Listener

__all__ = ["Misfortune", "proxy"]


class Misfortune(NamedTuple):
    """What happens to one connection: to what its client says, and to what its server does."""

    outbound: Faults = Faults()
    inbound: Faults = Faults()

    @property
    def resets(self) -> bool:
        """Whether the connection is to be broken."""
        return any(each.reset_after is not None or each.tear for each in self)


@contextlib.asynccontextmanager
async def proxy(
    nearby: str, target: pyipc.Address, misfortune: Callable[[int], Misfortune]
) -> AsyncIterator[pyipc.Address]:
    """Carry what clients and a server say to each other, each connection with its own misfortune.

    Args:
        nearby: Where to listen.
        target: Where the server is.
        misfortune: What happens to a connection, by its number, counted from 0.

    Yields:
        Where clients find the proxy.
    """
    address = pyipc.parse_address(nearby)
    listener = await transport_for(address.scheme).listen(address, {})
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_accept, listener, target, misfortune, nursery)
            yield listener.address
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()


async def _accept(
    listener: Listener, target: pyipc.Address, misfortune: Callable[[int], Misfortune], nursery: trio.Nursery
) -> None:
    number = 0
    while True:
        nursery.start_soon(_carry, await listener.accept(), target, misfortune(number))
        number += 1


async def _carry(near: Link, target: pyipc.Address, misfortune: Misfortune) -> None:
    """Be one client's server, and one server's client."""
    try:
        real = await transport_for(target.scheme).connect(target, {})
    except pyipc.ConnectError:  # there is none just now
        await near.aclose()
        return
    far = FaultyLink(real, misfortune.outbound, inbound=misfortune.inbound)
    if misfortune.resets and target.scheme == "tcp":
        for link in (near, real):
            assert isinstance(link, SocketLink)
            link._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER, 1, 0))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pump, near, far, nursery)
            nursery.start_soon(_pump, far, near, nursery)
    finally:
        with trio.CancelScope(shield=True):
            await near.aclose()
            await far.aclose()


#: To close a socket of TCP with this is to reset the connection; Windows has it shorter.
_LINGER = "ii" if hasattr(socket, "AF_UNIX") else "hh"


async def _pump(source: Link, sink: Link, nursery: trio.Nursery) -> None:
    """Carry one direction until its end, and both until a break."""
    try:
        while (chunk := await source.receive()) or not source.reliable:
            await sink.send(chunk)
        sink.send_eof()
    except pyipc.ConnectionLost:
        nursery.cancel_scope.cancel()
