"""What a handler gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from pyipc.protocol.traces import usable_traceparent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.connection import Connection

__all__ = ["FullMessage", "Message"]

T = TypeVar("T")


class Message(Generic[T]):
    """One event or request that arrived.

    A handler that is annotated with a type, as in ``Message[Point]``, gets `data` checked and
    converted to it.

    Attributes:
        event: Its name.
        data: Its decoded JSON, or bytes on a raw connection; ``None`` where the peer sent none.
        connection: Where it came from; answers, requests back and who the peer is.
        attachments: Binary data that came with it.
        redelivered: Whether it may have been handled before, by a receiver that has been started again since.
        traceparent: Which span of a trace it comes from, as W3C Trace Context writes it; empty if that was not told.
        retained: Whether it was kept from before the subscription.
    """

    __slots__ = ("connection", "data", "event")

    # Nearly every message has none of these, so none takes the time to set them: see `FullMessage`.
    attachments: Sequence[bytes] = ()
    redelivered: bool = False
    traceparent: str = ""
    retained: bool = False

    def __init__(self, event: str, data: T, connection: Connection) -> None:
        self.event: str = event
        self.data: T = data
        self.connection: Connection = connection

    def __repr__(self) -> str:
        # Payloads may be secret or huge, and this text ends up in logs.
        return f"<Message {self.event!r} from {self.connection.peer.address}>"


class FullMessage(Message[T]):
    """A message that has one of the rarer attributes."""

    __slots__ = ("attachments", "redelivered", "retained", "traceparent")

    def __init__(
        self,
        event: str,
        data: T,
        connection: Connection,
        *,
        attachments: Sequence[bytes] = (),
        redelivered: bool = False,
        retained: bool = False,
        traceparent: str = "",
    ) -> None:
        super().__init__(event, data, connection)
        self.attachments: Sequence[bytes] = attachments
        self.redelivered: bool = redelivered
        self.retained: bool = retained
        self.traceparent: str = usable_traceparent(traceparent)
