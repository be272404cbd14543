"""Who may be on the other side of a link that a command opened or accepted itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

import pyipc

if TYPE_CHECKING:
    from pyipc.transports import Link

__all__ = ["check_peer", "own_uid"]

#: Seconds that somebody who came may take to prove who it is.
_HANDSHAKE_TIMEOUT: Final = pyipc.Options().handshake_timeout or 5.0


async def check_peer(endpoint: pyipc.Endpoint, link: Link) -> None:
    """Apply the rules of an endpoint, as servers and clients do; a link that they refuse is closed.

    Raises:
        HandshakeFailed: It was not found out who is there.
        PeerNotAllowed: Whoever is there is not to be talked to.

    Cancellation: the link is closed.
    """
    try:
        if link.needs_handshake:
            with trio.move_on_after(_HANDSHAKE_TIMEOUT) as scope:
                await link.handshake()
            if scope.cancelled_caught:
                raise pyipc.HandshakeFailed("timeout", f"no handshake within {_HANDSHAKE_TIMEOUT:g} s")
        endpoint.admit(link.peer)
    except BaseException:
        await link.aclose()
        raise


def own_uid() -> int | None:
    """The user this process runs as; ``None`` on Windows."""
    return os.geteuid() if hasattr(os, "geteuid") else None
