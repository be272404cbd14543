"""Where a connection comes from, and what it said first: found out without taking anything from it."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

import trio

from pyipc.transports import Peer, peer_credentials

if TYPE_CHECKING:
    from pyipc.cluster.courier import Carrier

__all__ = ["first_bytes", "origin"]

_UNIX: Final = getattr(socket, "AF_UNIX", None)  # not on Windows


def origin(carrier: Carrier) -> Peer:
    """Who is on the other side, as the kernel says; nobody knows who, if the peer is gone by now."""
    if not isinstance(carrier, socket.socket):
        return Peer(address="pipe")  # Windows tells who it is once somebody reads it
    with contextlib.suppress(OSError):
        if carrier.family == _UNIX:
            pid, uid, gid = peer_credentials(carrier)
            return Peer(address="unix", pid=pid, uid=uid, gid=gid)
        host, port = carrier.getpeername()[:2]
        return Peer(address=f"tcp://{f'[{host}]' if ':' in host else host}:{port}", host=host)
    return Peer(address="unknown")


async def first_bytes(carrier: Carrier, size: int, timeout: float) -> bytes:
    """What the peer has sent first; whoever serves the connection reads it as well.

    Args:
        carrier: The connection.
        size: How many bytes at most.
        timeout: Seconds to wait for the first of them.

    Returns:
        What has come together, which may be less; nothing if nothing came in time, or the peer is gone.

    Cancellation: takes nothing from the connection.
    """
    if not isinstance(carrier, socket.socket):
        return b""  # there is no looking without taking
    carrier.setblocking(False)
    with trio.move_on_after(timeout):
        while True:
            await trio.lowlevel.wait_readable(carrier)
            try:
                return carrier.recv(size, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except OSError:
                return b""
    return b""
