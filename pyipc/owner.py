"""Whom connections belong to: what those of one server or client have in common, and what they tell."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyipc.connection import Connection
    from pyipc.protocol.messages import Introduced
    from pyipc.watch import Watch

__all__ = ["Owner"]

logger: logging.Logger = logging.getLogger("pyipc.connection")


class Owner:
    """Stands for the server or client of a connection. As it is, for one that wants to know of nothing.

    Args:
        watch: Tells an instrument what happens, if there is one.

    Attributes:
        watch: As given.
    """

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch: Watch | None = watch

    def connected(self, connection: Connection) -> None:
        """A connection was made. May be told more than once."""
        if self.watch is not None:
            self.watch.connected(connection)

    def introduced(self, connection: Connection, introduction: Introduced) -> None:
        """The peer has introduced itself."""

    def going_away(self, connection: Connection, message: str) -> None:
        """The peer will close before long, and asks for new work to go elsewhere."""
        logger.info("%s will close before long: %s", connection.peer.address, message)
