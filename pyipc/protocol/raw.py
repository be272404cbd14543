"""A conversation without frames: bytes as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from pyipc.errors import InvalidEventName, MessageTooLarge, UnencodableData, UnsupportedByTransport
from pyipc.protocol.codec import Event
from pyipc.protocol.conversation import DATAGRAM_ADVICE, Conversation
from pyipc.protocol.features import ATTACHMENTS
from pyipc.protocol.parcels import Parcel, SmallParcel

if TYPE_CHECKING:
    from collections.abc import Collection

    from pyipc.protocol.conversation import Inbound
    from pyipc.protocol.messages import ControlFrame
    from pyipc.protocol.parcels import Frame

__all__ = ["RawConversation"]


@final
class RawConversation(Conversation):
    """Bytes as they are: every chunk is an event named ``"data"``, and nothing else exists.

    Args:
        max_size: Bytes that go at once, where they are not a stream.
    """

    protocol = "plain"
    partial_size = 0
    frames_completed = 0
    has_data_to_send = False
    known_names: Collection[str] = ()
    known_size = 0
    awaits_welcome = False

    def __init__(self, max_size: int | None = None) -> None:
        self._max_size = max_size

    def open(self) -> bytes:
        return b""

    def encode(self, event: str, data: object) -> bytes:
        if event != "data":
            raise InvalidEventName(event, f"a raw connection has only the event 'data', not {event!r}")
        if not isinstance(data, bytes | bytearray | memoryview):
            raise UnencodableData(f"a raw connection carries bytes, not {type(data).__name__}")
        return bytes(data)

    def check(self, event: str, frame: Frame) -> None:
        self.check_size(frame)

    def check_size(self, frame: Frame) -> None:
        if isinstance(frame, Parcel | SmallParcel):
            self.check_feature(ATTACHMENTS)
        if self._max_size is not None and len(frame) > self._max_size:
            raise MessageTooLarge(len(frame), self._max_size, DATAGRAM_ADVICE)

    def is_risky(self, event: object) -> bool:
        return False

    def _none(self, feature: str = "request") -> UnsupportedByTransport:
        return UnsupportedByTransport(feature, f"a raw connection carries bytes only; {feature!r} needs framing=Json()")

    def request(self, event: str, data: object, traceparent: str = "") -> tuple[int, bytes]:
        raise self._none()

    def check_feature(self, feature: str) -> None:
        raise self._none(feature)

    def next_call(self) -> int:
        raise self._none()

    def say(self, body: ControlFrame) -> bytes:
        raise self._none(body.type)

    def reply(self, call: int, data: object) -> bytes:
        raise self._none()

    def item(self, call: int, data: object) -> bytes:
        raise self._none("streams")

    def failure(self, call: int, code: str, message: str, data: object = None) -> bytes:
        raise self._none()

    def cancel(self, call: int) -> bytes:
        raise self._none()

    def ping(self) -> bytes:
        return b""

    def goaway(self, message: str) -> bytes:
        return b""

    def goodbye(self, code: str, message: str) -> bytes:
        return b""

    def receive_data(self, data: bytes) -> list[Inbound]:
        return [Event("data", data)]

    def go_on(self) -> list[Inbound]:
        return []

    def give_up(self) -> None:
        pass

    def data_to_send(self) -> bytes:
        return b""
