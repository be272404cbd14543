"""Listening sockets of each worker's own at one address: the system shares out who comes (``SO_REUSEPORT``).

The primary only reserves the address, with sockets that are bound and do not listen, so that nobody else takes the port
while no worker is there.
"""

from __future__ import annotations

import dataclasses
import socket
from typing import TYPE_CHECKING, Final, NoReturn

import trio

import pyipc
from pyipc.transports import Claim

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Reservation", "reserve"]

_BACKLOG: Final = 1024


class Reservation(Claim):
    """An address that is kept for sockets of workers.

    Args:
        sockets: Bound, and not listening; they belong to the reservation from here on.
        address: Where, with the port that was really taken.
    """

    def __init__(self, sockets: Sequence[socket.socket], address: pyipc.Address) -> None:
        self._sockets = tuple(sockets)
        self._address = address

    def __repr__(self) -> str:
        return f"<Reservation of {self._address}>"

    @property
    def address(self) -> pyipc.Address:
        """Where it is, with the port that was really taken."""
        return self._address

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that keep the address; nobody can accept on them."""
        return self._sockets

    async def accept(self) -> NoReturn:
        """Nobody comes here.

        Cancellation: nothing is changed by it.
        """
        await trio.sleep_forever()
        raise AssertionError("it slept for ever")

    def listening_sockets(self) -> list[socket.socket]:
        """Sockets for one worker, which listen at the address from now on.

        Raises:
            OSError: The system has none.
        """
        made: list[socket.socket] = []
        try:
            for each in self._sockets:
                made.append(_bound(each.family, each.getsockname()))
                made[-1].listen(_BACKLOG)
        except BaseException:
            for sock in made:
                sock.close()
            raise
        return made

    async def aclose(self) -> None:
        """Release the address, at once and more than once.

        Cancellation: it is released all the same.
        """
        for sock in self._sockets:
            sock.close()
        await trio.lowlevel.checkpoint()


async def reserve(address: pyipc.Address) -> Reservation:
    """Keep an address of ``tcp`` or ``tls``.

    Raises:
        AddressInUse: Another program listens there.
        ListenError: The host is unknown or not this machine, or the system has no ``SO_REUSEPORT``.

    Cancellation: nothing stays open.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise pyipc.ListenError("this system has no SO_REUSEPORT; take another policy than 'reuse-port'")
    sockets: list[socket.socket] = []
    port = address.port
    try:
        flags = socket.AI_PASSIVE
        found = await trio.socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM, flags=flags)
        for family, where in dict.fromkeys((family, where) for family, _, _, _, where in found):
            sockets.append(_bound(family, (where[0], port, *where[2:])))
            port = sockets[0].getsockname()[1]
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise pyipc.ListenError(f"cannot listen on {address}: {error}; use another address") from error
    return Reservation(sockets, dataclasses.replace(address, port=port))


def _bound(family: int, where: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock
