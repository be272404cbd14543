"""Leaving a connection behind: because its server asked for that, while what is under way goes on, or is silent."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import TYPE_CHECKING

import trio

from pyipc.errors import HandshakeFailed, PeerRefused, Undelivered
from pyipc.finishing import finish
from pyipc.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pyipc.connection import Connection
    from pyipc.endpoint import Endpoint
    from pyipc.listening import Expected
    from pyipc.offline import OfflineQueue
    from pyipc.statistics import Disconnected

__all__ = ["ClientOwner", "close_all", "depart", "give_back"]

logger: logging.Logger = logging.getLogger("pyipc.client")


async def depart(connection: Connection, expected: Expected, timeout: float) -> None:
    """Wait until nothing is under way on a connection, then end it: by half, so that nothing of the server's is lost.

    Args:
        connection: Which; nobody begins anything new on it.
        expected: Answers that will come over it as events.
        timeout: Seconds that the server may take to send its last, once it was told that ours was sent.

    Cancellation: the connection is left as it is.
    """
    async with trio.open_nursery() as nursery:

        async def notice_end() -> None:
            await connection.wait_lost()
            nursery.cancel_scope.cancel()

        nursery.start_soon(notice_end)
        await expected.wait_for_all()
        if await finish(connection):
            await trio.sleep(timeout)
        await _close(connection)
        nursery.cancel_scope.cancel()


async def give_back(connection: Connection, endpoint: Endpoint) -> Disconnected:
    """End a connection whose server should have answered the introduction, and did not; nobody was told of it.

    Returns:
        Why it ended; the error is the one of an attempt to connect.

    Cancellation: the connection is ended all the same.
    """
    connection.abort("handshake", "the server did not answer the introduction", linger=False)
    await connection.aclose()
    reason = connection.reason
    assert reason is not None
    error = reason.error
    if not isinstance(error, PeerRefused | HandshakeFailed):
        code = "timeout" if reason.code == "handshake" else "closed"
        error = HandshakeFailed(code, f"{endpoint.parsed.redacted} speaks pyipc/1, but {reason.message}")
        reason = dataclasses.replace(reason, error=error)
    logger.info("could not connect to %s: %s", endpoint.parsed.redacted, error)
    return reason


class ClientOwner(Owner):
    """What the connections of a client tell it.

    Args:
        going_away: Called with a connection whose server asks for new work to go elsewhere, and why.
    """

    def __init__(self, going_away: Callable[[Connection, str], None]) -> None:
        self._going_away = going_away

    def going_away(self, connection: Connection, message: str) -> None:
        """The peer will close before long, and asks for new work to go elsewhere."""
        super().going_away(connection, message)
        self._going_away(connection, message)


async def _close(connection: Connection) -> None:
    with contextlib.suppress(Undelivered):  # what was not sent is taken back afterwards
        await connection.aclose()


async def close_all(connections: Collection[Connection], offline: OfflineQueue) -> int:
    """Close the last connections of a client.

    Args:
        connections: All of them.
        offline: Where to keep what those that had ended left unsent, and nobody has taken back yet.

    Returns:
        How many events the others could not send.

    Cancellation: closes them at once.
    """
    undelivered = 0

    async def close(connection: Connection) -> None:
        nonlocal undelivered
        had_ended = not connection.is_open
        try:
            await connection.aclose()
        except Undelivered as error:
            undelivered += error.count
        else:
            if had_ended:
                offline.put_back([(frame, 0) for frame in connection._outbox.reclaim_events()])

    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(close, connection)
    return undelivered
