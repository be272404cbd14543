"""One side of a conversation: bytes in, events out; calls in, bytes out.

A conversation holds what is true between two peers: who has introduced itself, what the other side
accepts, which call numbers are in use. It does no I/O and knows no time: its owner moves the bytes
and keeps the clock. Both sides use the same class; the role decides only who says hello first. This
module has the interface; `framed` speaks JSON in frames, `datagram` the same where any of it may be lost, `raw`
bytes as they are.
"""

from __future__ import annotations

import dataclasses
import enum
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pyipc.errors import LocalProtocolError
from pyipc.protocol.codec import Event
from pyipc.protocol.features import ATTACHMENTS, OptionalPart, ReceivedItem, TracedEvent
from pyipc.protocol.messages import (
    MAX_WINDOW,
    Cancel,
    Failure,
    Goaway,
    Goodbye,
    Introduced,
    Malformed,
    Reply,
    Request,
    Verified,
)
from pyipc.protocol.records import WithAttachments

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pyipc.protocol.messages import ControlFrame
    from pyipc.protocol.parcels import Frame

__all__ = ["DATAGRAM_ADVICE", "Conversation", "Inbound", "Role", "SessionTerms"]

#: What to do where a message does not fit into a datagram.
DATAGRAM_ADVICE = "a datagram holds no more, so send less at a time, or use another transport"

Inbound = (
    Event
    | Request
    | Reply
    | ReceivedItem
    | Failure
    | Cancel
    | Introduced
    | Verified
    | Goaway
    | Goodbye
    | Malformed
    | OptionalPart
    | WithAttachments
)


@dataclasses.dataclass(frozen=True, slots=True)
class SessionTerms:
    """What a server says about remembering its clients.

    Attributes:
        instance: The server's own name, another whenever it is started.
        timeout: Seconds for which it remembers a session after its last connection has ended.
        incarnation_of: What it calls its memory of a session, for the peer of this conversation. Begins to remember one
            that it does not know.
    """

    instance: str
    timeout: float
    incarnation_of: Callable[[str], str]


class Role(enum.Enum):
    """Which side of the connection this is."""

    CLIENT = "client"
    SERVER = "server"


class Conversation(ABC):
    """What a connection needs of a protocol, whatever the framing."""

    #: Bytes that have arrived and are not reported: of a frame that is here in part, or is being read.
    partial_size: int
    #: Whether a large frame is being read. Then `go_on` is to be called, and nothing received, until it has been.
    is_busy: bool = False
    #: How far above the lowest number without an outcome the peer lets any other number be.
    session_window: int = MAX_WINDOW
    #: Grows whenever frames were completed.
    frames_completed: int
    #: Whether `data_to_send` has something.
    has_data_to_send: bool
    #: Names of events that may be sent to this peer, as far as that has been found out.
    known_names: Collection[str]
    #: Bytes that a frame may surely have.
    known_size: int
    #: ``"pyipc/1"`` once the other side has introduced itself, ``"plain"`` until then.
    protocol: str
    #: Up to how many bytes of frames may share a datagram; 0 where each has to have one of its own.
    shared_size: int = 0
    #: Names of the optional parts that both sides have; none until the other side has introduced itself.
    features: frozenset[str] = frozenset()

    @abstractmethod
    def open(self) -> bytes:
        """The first bytes to send; may be empty."""

    @abstractmethod
    def encode(self, event: str, data: object) -> bytes:
        """The bytes that carry an event to any peer with this framing.

        Raises:
            UnencodableData: ``data`` has no form on this wire.
        """

    @abstractmethod
    def check(self, event: str, frame: Frame) -> None:
        """Whether bytes from `encode`, with attachments or without, may go to this peer.

        Raises:
            InvalidEventName: The name may not.
            MessageTooLarge, PeerLacksFeature: As `check_size`.
        """

    @abstractmethod
    def check_size(self, frame: Frame) -> None:
        """Whether bytes from `encode`, with attachments or without, suit this side and the peer.

        Raises:
            MessageTooLarge: They are too large.
            PeerLacksFeature: The peer takes no attachments, as far as it is known by now.
        """

    def check_attachments(self, count: int, size: int) -> None:
        """Whether the peer takes so many attachments to one frame, with so many bytes in all.

        Raises:
            MessageTooLarge: Not so many.
            PeerLacksFeature: None at all, as far as it is known by now.
        """
        self.check_feature(ATTACHMENTS)

    def event(self, event: str, data: object) -> bytes:
        """The bytes that carry an event to this peer. Raises what `encode` and `check` raise."""
        frame = self.encode(event, data)
        self.check(event, frame)
        return frame

    def traced_event(self, event: str, data: object, traceparent: str) -> bytes:
        """The bytes that carry an event and which span it comes from, to a peer that has the feature ``"topics"``.

        Where there is no room for both it goes without, as `event` makes it. Raises what that raises.
        """
        try:
            return self.say(TracedEvent(event, data, traceparent))
        except LocalProtocolError:
            return self.event(event, data)

    @abstractmethod
    def request(self, event: str, data: object, traceparent: str = "") -> tuple[int, bytes]:
        """The number of a new call and the bytes that make it; with the span that it comes from, if there is one.

        Raises:
            PeerLacksFeature: The peer cannot take requests.
        """

    @abstractmethod
    def check_feature(self, feature: str) -> None:
        """Whether an optional part of the protocol may be used with this peer, as far as it is known by now.

        Raises:
            UnsupportedByTransport: It is not for this kind of connection.
            PeerLacksFeature: The peer does not have it, or has not introduced itself (yet: see `awaits_welcome`).
        """

    @abstractmethod
    def next_call(self) -> int:
        """The number of a new call that `say` is going to make."""

    @abstractmethod
    def say(self, body: ControlFrame) -> bytes:
        """The bytes of a frame of an optional part, which the peer has.

        Raises:
            InvalidEventName: The event or topic in it cannot be sent.
            UnencodableData: Its data has no JSON form, or is nested too deep.
            MessageTooLarge: The frame is larger than this side or the peer accepts.
        """

    @abstractmethod
    def reply(self, call: int, data: object) -> bytes:
        """The bytes that answer a call of the peer."""

    @abstractmethod
    def item(self, call: int, data: object) -> bytes:
        """The bytes of one of the answers of a stream that the peer has asked for. Raises what `say` does."""

    @abstractmethod
    def failure(self, call: int, code: str, message: str, data: object = None) -> bytes:
        """The bytes that tell the peer why its call has no answer; without ``data`` if it cannot be sent."""

    @abstractmethod
    def cancel(self, call: int) -> bytes:
        """The bytes that tell the peer that nobody waits for a call any more."""

    @abstractmethod
    def ping(self) -> bytes:
        """A sign of life, or nothing for a peer that does not know it."""

    @abstractmethod
    def goaway(self, message: str) -> bytes:
        """The bytes that ask the peer to move on, or nothing for a plain peer."""

    @abstractmethod
    def goodbye(self, code: str, message: str) -> bytes:
        """The last bytes before closing, or nothing for a plain peer."""

    @abstractmethod
    def receive_data(self, data: bytes) -> list[Inbound]:
        """Take bytes that arrived; report what they say, in order.

        After a fatal `Malformed`, which is always the last, nothing more is reported.
        """

    @abstractmethod
    def go_on(self) -> list[Inbound]:
        """Read some more of a large frame, while `is_busy`: as much as takes a few milliseconds at most.

        Returns:
            As `receive_data`: nothing, or what the frame says and what is behind it.
        """

    @abstractmethod
    def give_up(self) -> None:
        """Forget what has arrived of a frame that is not complete, or not read yet, and behind it."""

    @abstractmethod
    def data_to_send(self) -> bytes:
        """Answers that the protocol itself gives; to be asked after a `receive_data` that left `has_data_to_send`."""

    @property
    @abstractmethod
    def awaits_welcome(self) -> bool:
        """Whether it is still open if the peer speaks pyipc's protocol."""

    @abstractmethod
    def is_risky(self, event: object) -> bool:
        """Whether the name may go only to a peer that has introduced itself."""
