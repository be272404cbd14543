"""What a handler gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from pyipc.connection import Connection

__all__ = ["Message"]

T = TypeVar("T")


class Message(Generic[T]):
    """One event or request that arrived.

    A handler that is annotated with a type, as in ``Message[Point]``, gets `data` checked and
    converted to it.

    Attributes:
        event: Its name.
        data: Its decoded JSON, or bytes on a raw connection; ``None`` where the peer sent none.
        connection: Where it came from; answers, requests back and who the peer is.
    """

    __slots__ = ("connection", "data", "event")

    def __init__(self, event: str, data: T, connection: Connection) -> None:
        self.event: str = event
        self.data: T = data
        self.connection: Connection = connection

    def __repr__(self) -> str:
        # Payloads may be secret or huge, and this text ends up in logs.
        return f"<Message {self.event!r} from {self.connection.peer.address}>"
