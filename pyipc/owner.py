"""Whom connections belong to: what those of one server or client have in common, and what they tell."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pyipc.arrival import Arrival
    from pyipc.connection import Connection
    from pyipc.protocol.features import TopicFrame
    from pyipc.protocol.messages import Introduced

__all__ = ["Owner", "TopicDesk"]

logger: logging.Logger = logging.getLogger("pyipc.connection")


class TopicDesk(Protocol):
    """What a server or client has to do with topics."""

    def take(self, connection: Connection, frame: TopicFrame) -> Arrival | None:
        """Deal with a frame about topics, without waiting; return what is to be dealt with in order with events."""


class Owner:
    """Stands for the server or client of a connection. As it is, for one that wants to know of nothing.

    Attributes:
        topics: What deals with topics, if anything does.
    """

    topics: TopicDesk | None = None

    def topic_frame(self, connection: Connection, frame: TopicFrame) -> Arrival | None:
        """A frame about topics has arrived; see `TopicDesk.take`."""
        return None if self.topics is None else self.topics.take(connection, frame)

    def introduced(self, connection: Connection, introduction: Introduced) -> None:
        """The peer has introduced itself."""

    def going_away(self, connection: Connection, message: str) -> None:
        """The peer will close before long, and asks for new work to go elsewhere."""
        logger.info("%s will close before long: %s", connection.peer.address, message)
