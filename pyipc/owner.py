"""Whom connections belong to: what those of one server or client have in common, and what they tell."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.arrival import Arrival
    from pyipc.connection import Connection
    from pyipc.protocol.features import TopicFrame
    from pyipc.protocol.messages import Introduced
    from pyipc.resending import Resending
    from pyipc.sessions import Sessions
    from pyipc.shelter import Shelter
    from pyipc.watch import Watch

__all__ = ["Owner", "TopicDesk"]

logger: logging.Logger = logging.getLogger("pyipc.connection")


class TopicDesk(Protocol):
    """What a server or client has to do with topics."""

    def take(self, connection: Connection, frame: TopicFrame, attachments: Sequence[bytes] = ()) -> Arrival | None:
        """Deal with a frame about topics, without waiting; return what is to be dealt with in order with events."""


class Owner:
    """Stands for the server or client of a connection. As it is, for one that wants to know of nothing.

    Attributes:
        sessions: A server's: what it remembers of its clients.
        window: A client's: its events that are to be confirmed.
        shelter: A server's: keeps handlers of such events from being cancelled with their connections.
        topics: What deals with topics, if anything does.
        watch: Tells an instrument what happens, if there is one.
    """

    sessions: Sessions | None = None
    window: Resending | None = None
    shelter: Shelter | None = None
    topics: TopicDesk | None = None
    watch: Watch | None = None

    def connected(self, connection: Connection) -> None:
        """A connection was made. May be told more than once."""
        if self.watch is not None:
            self.watch.connected(connection)

    @property
    def is_draining(self) -> bool:
        """Whether its peers are asked to leave, and are not hurried."""
        return False

    def topic_frame(
        self, connection: Connection, frame: TopicFrame, attachments: Sequence[bytes] = ()
    ) -> Arrival | None:
        """A frame about topics has arrived; see `TopicDesk.take`."""
        return None if self.topics is None else self.topics.take(connection, frame, attachments)

    def introduced(self, connection: Connection, introduction: Introduced) -> None:
        """The peer has introduced itself."""
        if self.sessions is not None and introduction.session:
            self.sessions.enter(connection, introduction.session, introduction.incarnation)
        if self.window is not None:
            self.window.meet(connection, introduction)
        elif connection._window is not None:
            connection._window.span = introduction.session_window

    def ended(self, connection: Connection) -> None:
        """The connection has ended; may be told more than once."""
        connection._conversation.give_up()  # now, as the garbage collector may take its time
        if self.sessions is not None:
            self.sessions.leave(connection)
        if connection._window is not None:
            connection._window.lose(connection)
        if self.window is not None:
            self.window.part(connection)

    def weigh(self, connection: Connection) -> None:
        """More is held for the connection than usual, and what others hold may be too much with it."""

    def going_away(self, connection: Connection, message: str) -> None:
        """The peer will close before long, and asks for new work to go elsewhere."""
        logger.info("%s will close before long: %s", connection.peer.address, message)
