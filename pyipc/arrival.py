"""What has arrived with more to it than a name and data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyipc.message import FullMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.connection import Connection
    from pyipc.protocol.features import OpenStream
    from pyipc.protocol.messages import Request
    from pyipc.router import Handler

__all__ = ["Arrival", "FullOpening", "FullRequest"]


class Arrival:
    """Takes the place of a plain event on the way to its handlers.

    Args:
        event: Its name.
        data: Its decoded JSON.
        attachments: Binary data that came with it.
        traceparent: Which span of a trace it comes from.
        handlers: Who is to deal with it, in the place of the handlers for events of its name.

    Attributes:
        type: Its name, called as that of a plain event.
        data: As given.
        attachments: As given.
        handlers: As given.
    """

    __slots__ = ("_traceparent", "attachments", "data", "handlers", "type")

    def __init__(
        self,
        event: str,
        data: Any,
        *,
        attachments: Sequence[bytes] = (),
        traceparent: str = "",
        handlers: tuple[Handler, ...] | None = None,
    ) -> None:
        self.type: str = event
        self.data: Any = data
        self.handlers: tuple[Handler, ...] | None = handlers
        self.attachments: Sequence[bytes] = attachments
        self._traceparent = traceparent

    def message(self, data: Any, connection: Connection) -> FullMessage[Any]:
        """What a handler gets.

        Args:
            data: The data, converted to the type that the handler declares.
            connection: Where it came from.
        """
        return FullMessage(self.type, data, connection, attachments=self.attachments, traceparent=self._traceparent)


class FullRequest:
    """Takes the place of a request on the way to its handler, where it came with attachments.

    Args:
        request: The request.
        attachments: Binary data that came with it.

    Attributes:
        call: The number of the call.
        event: Its name.
        data: Its decoded JSON.
        traceparent: Which span it comes from.
    """

    __slots__ = ("_attachments", "call", "data", "event", "traceparent")

    def __init__(self, request: Request, attachments: Sequence[bytes]) -> None:
        self.call: int = request.call
        self.event: str = request.event
        self.data: Any = request.data
        self.traceparent: str = request.traceparent
        self._attachments = attachments

    def message(self, data: Any, connection: Connection) -> FullMessage[Any]:
        """What the handler gets; as `Arrival.message`."""
        return FullMessage(self.event, data, connection, attachments=self._attachments, traceparent=self.traceparent)


class FullOpening:
    """Takes the place of the opening of a stream, where it came with attachments.

    Args:
        opening: The opening.
        attachments: Binary data that came with it.

    Attributes:
        call: The number of the call.
        event: The name of the stream.
        data: Its decoded JSON.
        items: The credit that comes with it, in items.
        size: Likewise, in bytes.
        traceparent: Which span it comes from.
        attachments: As given.
    """

    __slots__ = ("attachments", "call", "data", "event", "items", "size", "traceparent")

    def __init__(self, opening: OpenStream, attachments: Sequence[bytes]) -> None:
        self.call: int = opening.call
        self.event: str = opening.event
        self.data: Any = opening.data
        self.items: int = opening.items
        self.size: int = opening.size
        self.traceparent: str = opening.traceparent
        self.attachments: Sequence[bytes] = attachments
