"""Sending with attachments: what is the same for events, requests and whatever else may have them."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from pyipc.errors import InvalidData, PeerLacksFeature, RequestTimeout, UnsupportedByTransport
from pyipc.protocol.codec import convert
from pyipc.protocol.features import ATTACHMENTS
from pyipc.protocol.parcels import NO_ATTACHMENTS, Parcel, SmallParcel, freeze, listed, pack, view_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyipc.connection import Connection
    from pyipc.protocol.conversation import Conversation
    from pyipc.protocol.parcels import Buffer, Frame

    Records = Sequence[bytes | memoryview]

__all__ = [
    "Attached",
    "AttachmentTally",
    "ask_attached",
    "emit_attached",
    "emit_attached_nowait",
    "fits",
    "frozen",
    "know_peer_until",
    "note_received",
    "note_sent",
    "pack_kept",
    "send_packed",
    "send_parcel",
    "wrap",
]

T_co = TypeVar("T_co", covariant=True)


class Attached(Generic[T_co]):
    """An answer that is data and attachments: what a handler returns, and what whoever asked gets.

    Args:
        data: Anything that has a JSON form.
        attachments: Buffers of bytes, such as `bytes`, `bytearray`, `memoryview` or an array. `bytes` are sent from
            where they are; of what could change meanwhile a copy is made when it is sent.

    Attributes:
        data: As given; where it has arrived, the decoded JSON.
        attachments: As given; where they have arrived, each is `bytes`.
    """

    __slots__ = ("attachments", "data")

    def __init__(self, data: T_co, attachments: Iterable[Buffer] = NO_ATTACHMENTS) -> None:
        self.data: T_co = data
        self.attachments: Sequence[Any] = tuple(listed(attachments))

    def __repr__(self) -> str:
        # What it holds may be secret or huge, and this text ends up in logs.
        return f"<Attached with {len(self.attachments)} attachments>"


class AttachmentTally:
    """What went over one connection as attachments. Made with the first: most connections never see one.

    Attributes:
        sent: How many were sent.
        sent_size: Bytes of those.
        received: How many arrived.
        received_size: Bytes of those.
    """

    __slots__ = ("received", "received_size", "sent", "sent_size")

    def __init__(self) -> None:
        self.sent: int = 0
        self.sent_size: int = 0
        self.received: int = 0
        self.received_size: int = 0


def note_sent(connection: Connection, parcel: Parcel | SmallParcel) -> None:
    """Count what was sent."""
    tally = connection._attachments = connection._attachments or AttachmentTally()
    tally.sent += parcel.attachments_count
    tally.sent_size += parcel.attachments_size


def note_received(connection: Connection, attachments: Sequence[bytes]) -> None:
    """Count what has arrived."""
    tally = connection._attachments = connection._attachments or AttachmentTally()
    tally.received += len(attachments)
    tally.received_size += sum(map(len, attachments))


def wrap(conversation: Conversation, frame: bytes, attachments: Iterable[Buffer]) -> Parcel | SmallParcel:
    """A frame with its attachments, as this peer takes them.

    Raises:
        UnencodableData: One of them is no buffer of bytes, or is not contiguous.
        MessageTooLarge: They are too many, or too large.
        PeerLacksFeature: The peer takes none, as far as it is known by now.
    """
    views = [view_of(each, number) for number, each in enumerate(attachments)]
    conversation.check_attachments(len(views), sum(view.nbytes for view in views))
    return pack(frame, map(freeze, views))


def frozen(attachments: Iterable[Buffer]) -> Records:
    """Attachments as they are, for an event that may be sent more than once.

    Raises:
        UnencodableData: One of them is no buffer of bytes, or is not contiguous.
    """
    return tuple(freeze(view_of(each, number)) for number, each in enumerate(attachments))


def pack_kept(template: Conversation, frame: bytes, attachments: Iterable[Buffer]) -> Parcel | SmallParcel:
    """A frame with its attachments, for a peer that is not known yet.

    Raises:
        UnencodableData: One of them is no buffer of bytes, or is not contiguous.
        PeerLacksFeature: There will be no peer that takes any.
    """
    try:
        template.check_feature(ATTACHMENTS)
    except UnsupportedByTransport:
        raise
    except PeerLacksFeature:
        if not template.awaits_welcome:
            raise
    return pack(frame, frozen(attachments))


async def emit_attached(
    connection: Connection, event: str, data: object, attachments: list[Buffer], traceparent: str
) -> None:
    """`Connection.emit`, with attachments, for a caller that has looked whether it is cancelled.

    Raises:
        LocalProtocolError, ConnectionClosed: As there.
    """
    if not connection.is_open:
        raise connection._gone()
    await connection.know_peer()
    frame = _frame(connection, event, data, traceparent)
    parcel = wrap(connection._conversation, frame, attachments)
    outbox = connection._outbox
    if outbox.size + outbox.shared >= outbox.high_water_size:
        with connection.waiting_for_peer():
            await outbox.wait_for_room()
        if not connection.is_open:
            raise connection._gone()
    outbox.push(parcel)
    connection._events_sent += 1
    note_sent(connection, parcel)
    if connection._watch is not None:
        connection._watch.sent("event", event, len(parcel), connection)


def emit_attached_nowait(
    connection: Connection, event: str, data: object, attachments: list[Buffer], traceparent: str
) -> None:
    """`Connection.emit_nowait`, with attachments.

    Raises:
        trio.WouldBlock: The outbox is above its high-water mark, or it is not known yet whether the peer takes any.
        LocalProtocolError, ConnectionClosed: As there.
    """
    if not connection.is_open:
        raise connection._gone()
    conversation, outbox = connection._conversation, connection._outbox
    frame = _frame(connection, event, data, traceparent)
    try:
        parcel = wrap(conversation, frame, attachments)
    except UnsupportedByTransport:
        raise
    except PeerLacksFeature:
        if conversation.awaits_welcome:
            raise trio.WouldBlock from None
        raise
    if outbox.size >= outbox.high_water_size:
        raise trio.WouldBlock
    outbox.push(parcel)
    connection._events_sent += 1
    note_sent(connection, parcel)
    if connection._watch is not None:
        connection._watch.sent("event", event, len(parcel), connection)


def _frame(connection: Connection, event: str, data: object, traceparent: str) -> bytes:
    if traceparent and connection._carries(traceparent):
        return connection._conversation.traced_event(event, data, traceparent)
    return connection._conversation.event(event, data)


def send_parcel(connection: Connection, event: str | None, parcel: Frame) -> bool:
    """`Connection._send_encoded`, for what has attachments.

    Raises:
        LocalProtocolError, ConnectionClosed: As there.
    """
    assert isinstance(parcel, Parcel | SmallParcel)
    if event is not None and connection.is_open:
        connection._conversation.check(event, parcel)
    is_sent = connection._send_encoded(event, parcel)
    if is_sent:
        note_sent(connection, parcel)
    return is_sent


async def know_peer_until(connection: Connection, event: str, timeout: float | None, deadline: float) -> None:
    """Wait until it is clear whether the peer takes attachments, but not beyond the time-out of a request.

    Raises:
        RequestTimeout: That is over.
        ConnectionClosed: The connection ended meanwhile.
    """
    with trio.move_on_at(deadline) as scope:
        await connection.know_peer()
    if scope.cancelled_caught:
        assert timeout is not None
        raise RequestTimeout(event, timeout)


def ask_attached(connection: Connection, frame: bytes, attachments: list[Buffer]) -> int:
    """Send the frame of a request, with attachments; say how many bytes that are.

    Raises:
        LocalProtocolError, ConnectionLost: As `Connection.request`.
    """
    return _send(connection, wrap(connection._conversation, frame, attachments))


def send_packed(connection: Connection, frame: bytes, records: Records) -> int:
    """Send a frame with attachments that will not change; say how many bytes that are.

    Raises:
        LocalProtocolError, ConnectionLost: As `Connection.emit`.
    """
    parcel = pack(frame, records)
    connection._conversation.check_size(parcel)
    return _send(connection, parcel)


def _send(connection: Connection, parcel: Parcel | SmallParcel) -> int:
    connection._outbox.push(parcel)
    connection._outbox.flush_nowait()
    note_sent(connection, parcel)
    return len(parcel)


def fits(answer: Any, result: Any) -> Any:
    """An answer as the type that whoever asked wants it to be; see `Connection.request`.

    Raises:
        InvalidData: It does not fit.
    """
    wanted = typing.get_origin(result) or result
    if wanted is Attached:
        kinds = typing.get_args(result)
        answer = answer if type(answer) is Attached else Attached(answer)
        return Attached(convert(answer.data, kinds[0]), answer.attachments) if kinds else answer
    if type(answer) is Attached:
        raise InvalidData(
            f"the answer has {len(answer.attachments)} attachments, which the declared type has no place for; "
            "declare result=pyipc.Attached, or result=pyipc.Attached[...] with that type"
        )
    return convert(answer, result)
