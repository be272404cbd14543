"""The optional parts of the protocol: what they are called in hello and welcome, and their frames.

A part may be used once both sides have named it. A program that has not introduced itself, such as a node-ipc program,
may take part in topics, and in what it answers, by sending the frames as it would any event.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from pyipc.protocol.codec import ControlStruct
from pyipc.protocol.codec import Item as Item  # there are many of them; the codec reads them in one step

__all__ = [
    "ATTACHMENTS",
    "CONFIRM",
    "FEATURES",
    "PUBLISH_START",
    "STREAMS",
    "TOPICS",
    "Credit",
    "Deliver",
    "EndOfStream",
    "Item",
    "OpenStream",
    "OptionalPart",
    "Outcome",
    "Publish",
    "Published",
    "ReceivedItem",
    "ReceivedOpening",
    "Subscribe",
    "TopicFrame",
    "TracedEvent",
    "Unpublished",
    "Unsubscribe",
]

#: Binary records before a frame, which belong to it.
ATTACHMENTS: Final = "attachments"
#: Events whose handling is confirmed, and which are sent again when a connection breaks.
CONFIRM: Final = "confirm"
#: Many answers to one question.
STREAMS: Final = "streams"
#: Events for whoever has subscribed to their names.
TOPICS: Final = "topics"
#: All that this side can do.
FEATURES: Final = (ATTACHMENTS, CONFIRM, STREAMS, TOPICS)


class TracedEvent(ControlStruct):
    """A plain event that belongs to a trace.

    Attributes:
        event: Its name.
        data: Any JSON.
        traceparent: Which span it comes from, as W3C Trace Context writes it.
    """

    type: ClassVar[str] = "pyipc.event"
    event: str
    data: Any = None
    traceparent: str = ""


class Deliver(ControlStruct):
    """An event whose handling is to be confirmed.

    Attributes:
        number: A number that grows with every such event of a session, or of a connection without session.
        event: Its name.
        data: Any JSON.
        lowest: The lowest number whose outcome the sender may still want to hear; what is below may be forgotten.
        again: Whether it may have been handled before, by a receiver that this one cannot answer for.
        traceparent: Which span it comes from.
    """

    type: ClassVar[str] = "pyipc.deliver"
    number: int
    event: str
    data: Any = None
    lowest: int = 0
    again: bool = False
    traceparent: str = ""


class Outcome(ControlStruct):
    """What became of an event that was to be confirmed.

    Attributes:
        number: That of the event.
        code: Empty where it was handled; else a short name for what went wrong, as in an error.
        message: What went wrong, for people.
        data: Whatever else the handler said about that.
    """

    type: ClassVar[str] = "pyipc.outcome"
    number: int
    code: str = ""
    message: str = ""
    data: Any = None


class OpenStream(ControlStruct):
    """Asks for many answers: items, and an end or an error.

    Attributes:
        call: A number that the asking side never uses again, for requests either.
        event: The name of the stream.
        data: Any JSON.
        items: How many items may be sent before more credit comes.
        size: How many bytes of frames likewise.
        traceparent: Which span it comes from.
    """

    type: ClassVar[str] = "pyipc.stream"
    call: int
    event: str
    data: Any = None
    items: int = 0
    size: int = 0
    traceparent: str = ""


class ReceivedOpening(OpenStream):
    """A stream that was asked for with attachments, as it is reported.

    Attributes:
        attachments: Their contents.
    """

    attachments: tuple[bytes, ...] = ()


class ReceivedItem(Item):
    """One of the answers of a stream, as it is reported.

    Attributes:
        size: Bytes of its frame, without the delimiter: what it takes of the credit.
    """

    size: int = 0


class EndOfStream(ControlStruct):
    """There are no more answers."""

    type: ClassVar[str] = "pyipc.end"
    call: int


class Credit(ControlStruct):
    """So much more may be sent of a stream.

    Attributes:
        call: The number of the stream.
        items: Items more.
        size: Bytes of frames more.
    """

    type: ClassVar[str] = "pyipc.credit"
    call: int
    items: int = 0
    size: int = 0


class Subscribe(ControlStruct):
    """Asks for everything that is published under names that match; answered as a request is.

    Attributes:
        call: A number that the asking side never uses again; the subscription's name.
        pattern: Which names.
        retained: Whether to begin with the values that are kept of matching topics.
    """

    type: ClassVar[str] = "pyipc.subscribe"
    call: int
    pattern: str
    retained: bool = True


class Unsubscribe(ControlStruct):
    """Asks for no more of it; not answered.

    Attributes:
        call: The number of the subscription.
    """

    type: ClassVar[str] = "pyipc.unsubscribe"
    call: int


class Publish(ControlStruct):
    """An event for whoever has subscribed to its name; not answered unless it is refused.

    Attributes:
        topic: Its name.
        data: Any JSON.
        retain: Whether to keep it for those who subscribe later.
        traceparent: Which span it comes from.
    """

    type: ClassVar[str] = "pyipc.publish"
    topic: str
    data: Any = None
    retain: bool = False
    traceparent: str = ""


#: How the frame of a `Publish` begins.
PUBLISH_START: Final = b'{"type":"pyipc.publish",'


class Published(ControlStruct):
    """What somebody published, on its way to a subscriber: once, however many subscriptions match.

    Attributes:
        topic: Its name.
        data: Any JSON.
        call: The number of the one subscription that it is for, where it was kept and is older than that.
        traceparent: Which span it comes from.
    """

    type: ClassVar[str] = "pyipc.published"
    topic: str
    data: Any = None
    call: int | None = None
    traceparent: str = ""


class Unpublished(ControlStruct):
    """What the peer published was refused.

    Attributes:
        topic: Its name.
        code: A short name for the reason.
        message: The reason, for people.
    """

    type: ClassVar[str] = "pyipc.unpublished"
    topic: str
    code: str
    message: str = ""


#: Any frame about topics.
TopicFrame = Subscribe | Unsubscribe | Publish | Published | Unpublished

#: Any of these frames.
OptionalPart = (
    TracedEvent
    | Deliver
    | Outcome
    | OpenStream
    | Item
    | EndOfStream
    | Credit
    | Subscribe
    | Unsubscribe
    | Publish
    | Published
    | Unpublished
)
