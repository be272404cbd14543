"""Who may be on the other side of a link that a command opened or accepted itself."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyipc
    from pyipc.transports import Link

__all__ = ["check_peer", "own_uid"]

#: Where Linux says by which id it shows users that have none in our namespace, and its usual value.
_OVERFLOW_UID_FILE: Final = "/proc/sys/kernel/overflowuid"
_OVERFLOW_UID: Final = 65534


async def check_peer(endpoint: pyipc.Endpoint, link: Link) -> None:
    """Apply the rules of an endpoint, as servers and clients do; a link that they refuse is closed.

    Raises:
        PeerNotAllowed: Whoever is there is not to be talked to.

    Cancellation: a link that is refused is closed all the same.
    """
    try:
        endpoint.admit(link.peer, own_uid=own_uid(), overflow_uid=_overflow_uid())
    except BaseException:
        await link.aclose()
        raise


def own_uid() -> int | None:
    """The user this process runs as; ``None`` on Windows."""
    return os.geteuid() if hasattr(os, "geteuid") else None


@functools.cache
def _overflow_uid() -> int:
    try:
        with open(_OVERFLOW_UID_FILE, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return _OVERFLOW_UID
