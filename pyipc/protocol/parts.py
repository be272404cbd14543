"""What a frame of an optional part must not say, whoever sends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyipc.errors import RemoteProtocolError
from pyipc.protocol.features import (
    Credit,
    Deliver,
    EndOfStream,
    OpenStream,
    Outcome,
    Publish,
    Published,
    Subscribe,
    TracedEvent,
    Unpublished,
    Unsubscribe,
)

if TYPE_CHECKING:
    from pyipc.protocol.features import OptionalPart

__all__ = ["MAX_NUMBER", "check_number", "check_part", "name_in", "never_made"]

#: The largest whole number that every program reads as it was written.
MAX_NUMBER: Final = 2**53 - 1

_FROM_CLIENT = (Subscribe, Unsubscribe, Publish)
_FROM_SERVER = (Published, Unpublished)


def check_part(body: OptionalPart, *, from_client: bool, last_call: int) -> None:
    """Refuse a frame that cannot be meant.

    Args:
        body: The frame.
        from_client: Whether the client sent it.
        last_call: The highest number of a call that this side has made.

    Raises:
        RemoteProtocolError: With the code ``"control"``.
    """
    if isinstance(body, _FROM_SERVER if from_client else _FROM_CLIENT):
        raise RemoteProtocolError("control", f"the peer sent a {body.type} frame, which its side does not send")
    match body:
        case Deliver(number=number, lowest=lowest):
            check_number(number, "an event to confirm")
            if not 0 <= lowest <= number:
                raise RemoteProtocolError("control", f"the peer sent {lowest} as the lowest number up to {number}")
        case Outcome(number=number):
            check_number(number, "an event that was confirmed")
        case OpenStream() | Credit():
            check_number(body.call, "a call")
            check_number(body.items, "items it has room for")
            check_number(body.size, "bytes it has room for")
        case Subscribe(call=call) | Unsubscribe(call=call) | Published(call=int(call)):
            check_number(call, "a call")
        case EndOfStream():
            if not 0 < body.call <= last_call:
                raise never_made(body.call)
        case _:
            pass


def check_number(number: int, what: str) -> None:
    """Refuse a number that not every program could read.

    Raises:
        RemoteProtocolError: With the code ``"control"``.
    """
    if not 0 <= number <= MAX_NUMBER:
        raise RemoteProtocolError("control", f"the peer sent {number} as the number of {what}")


def never_made(call: int) -> RemoteProtocolError:
    """What is wrong with an answer to a call that this side has not made."""
    return RemoteProtocolError("control", f"the peer answered call {call}, which was never made")


def name_in(body: OptionalPart) -> str:
    """The name of the event or topic that a frame is about; empty where it is about none."""
    match body:
        case TracedEvent() | Deliver() | OpenStream():
            return body.event
        case Publish() | Published() | Unpublished():
            return body.topic
        case _:
            return ""
