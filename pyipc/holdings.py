"""What a server holds for the peers of one origin together: bounded, at the cost of those who make it hold most.

Every connection has bounds of its own, but one user may have hundreds of connections. Nothing is counted while messages
come and go: a connection tells of itself only when something piles up on it, beyond its high-water marks. The first
time, and whenever it has used up its *share*, all are looked at that have told of themselves and are of its origin. The
shares are what they hold, and an equal part each of what is left. So nobody is looked at often while there is much
left, and all together hold no more than the limit before the next look, or a little more if there is nearly nothing
left.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from pyipc.rounds import level_of
from pyipc.seats import origin_of

if TYPE_CHECKING:
    from pyipc.connection import Connection
    from pyipc.options import Options

__all__ = ["Holdings", "held_for"]

logger: logging.Logger = logging.getLogger("pyipc.server")

# The least that is left to each: looking at hundreds of connections takes as long as reading so many bytes.
_LEAST = 64 * 1024


class Holdings:
    """Bounds what is held for each origin.

    Args:
        options: ``max_held_size``.

    Attributes:
        outgrown: Connections that were closed.
    """

    def __init__(self, options: Options) -> None:
        # One message is never too much: what it may take is for other options to say.
        self._limit = max(options.max_held_size, options.max_frame_size + options.max_attachments_size)
        self._shares: dict[object, dict[Connection, float]] = {}
        self.outgrown: int = 0

    def weigh(self, connection: Connection) -> None:
        """Something piles up on a connection. If that is too much, some are closed: this one, or others."""
        origin = origin_of(connection._link.peer)
        if origin is None or connection._reason is not None:
            return
        shares = self._shares.setdefault(origin, {})
        if held_for(connection) > shares.setdefault(connection, 0):
            self._look(origin, shares)

    def forget(self, connection: Connection) -> None:
        """A connection has ended. Does nothing for one that never told of itself."""
        if not self._shares:
            return
        origin = origin_of(connection._link.peer)
        shares = self._shares.get(origin, {})
        shares.pop(connection, None)
        if not shares:
            self._shares.pop(origin, None)

    def _look(self, origin: tuple[str, object], shares: dict[Connection, float]) -> None:
        held = {connection: held_for(connection) for connection in shares}
        total = sum(held.values())
        while held and total > self._limit:
            most = max(held, key=held.__getitem__)
            size = held.pop(most)
            self._close(most, size, origin, total)
            total -= size
        part = max(_LEAST, (self._limit - total) // max(1, len(held)))
        shares.update({connection: size + part for connection, size in held.items()})

    def _close(self, connection: Connection, size: int, origin: tuple[str, object], total: int) -> None:
        self._shares[origin][connection] = math.inf  # it is not to be looked at while it says goodbye
        self.outgrown += 1
        message = (
            f"{total:,} bytes are held for {origin[0]} {origin[1]}, of which this connection has most, {size:,} "
            "(max_held_size)"
        )
        logger.log(level_of(self.outgrown), "%s: %s; it is closed", connection._link.peer.address, message)
        # What it holds is let go at once, or others would be closed for it as well.
        connection._dispatcher.discard()
        connection._outbox.discard()
        connection._responder.cancel_all()
        connection.abort("slow", message)


def held_for(connection: Connection) -> int:
    """Bytes that are held for one connection: what waits for its handlers, for its peer, or to be complete."""
    return (
        connection._inbox.size
        + connection._outbox.own_size
        + connection._conversation.partial_size
        + connection._responder.held_size
    )
