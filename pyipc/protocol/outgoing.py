"""The half of a JSON conversation that makes frames: what may be sent to the peer, and its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyipc.errors import InvalidEventName, LocalProtocolError, MessageTooLarge, PeerLacksFeature, UnencodableData
from pyipc.protocol import codec, nesting
from pyipc.protocol.conversation import Conversation, Role
from pyipc.protocol.features import ATTACHMENTS, Item
from pyipc.protocol.messages import MAX_TEXT, Cancel, ControlFrame, Failure, Goaway, Goodbye, Ping
from pyipc.protocol.names import MAX_KNOWN_NAMES, UNSAFE_NAMES, check_event_name
from pyipc.protocol.parcels import Parcel, SmallParcel

if TYPE_CHECKING:
    from pyipc.options import Options
    from pyipc.protocol.framing import Json
    from pyipc.protocol.parcels import Frame

__all__ = ["OutgoingFrames"]

_REQUEST_START = b'{"type":"pyipc.request","data":{"call":%d'
_ITEM_START = b'{"type":"pyipc.item","data":{"call":%d,"data":'
_REPLY_START = b'{"type":"pyipc.reply","data":{"call":%d,"data":'


class OutgoingFrames(Conversation):
    """Calls in, bytes out.

    Args:
        role: Which side this is.
        framing: The delimiter.
        options: Sizes, depths and names that are allowed.
    """

    def __init__(self, role: Role, framing: Json, options: Options) -> None:
        self._role = role
        self._delimiter = framing.delimiter
        self._event_end = b"}" + framing.delimiter
        self._call_end = b"}}" + framing.delimiter
        self._options = options
        self._send_limit = options.max_frame_size
        # Frames up to this size can be neither too deep nor too large.
        self.known_size: int = min(2 * options.max_depth, self._send_limit)
        # What stands before the data in a frame, by the names that have been found fit to send.
        self.known_names: dict[str, bytes] = {}
        self._request_prefixes: dict[str, bytes] = {}
        self._last_call = 0
        self._peer_speaks_pyipc = False
        # What both sides accept as attachments to one frame, once the peer has said so.
        self._attachments_limit: int | None = None
        self.protocol: str = "plain"

    def _control(self, body: ControlFrame) -> bytes:
        return codec.control_frame(body) + self._delimiter

    def encode(self, event: str, data: object) -> bytes:
        frame = codec.encode(event, data)
        if len(frame) > self.known_size:
            self._check_depth(frame, event)
        return frame + self._delimiter

    def check(self, event: str, frame: Frame) -> None:
        if event not in self.known_names:
            self._vet_outgoing(event)
        self.check_size(frame)

    def check_size(self, frame: Frame) -> None:
        if isinstance(frame, Parcel | SmallParcel):
            self.check_attachments(frame.attachments_count, frame.attachments_size)
            size = frame.frame_size - 1
        else:
            size = len(frame) - 1
        if size > self._send_limit:
            raise MessageTooLarge(size, self._send_limit)

    def check_attachments(self, count: int, size: int) -> None:
        self.check_feature(ATTACHMENTS)
        limit = self._attachments_limit
        if limit is None:
            raise PeerLacksFeature(ATTACHMENTS, "the peer did not say how much it takes as attachments")
        if size > limit:
            raise MessageTooLarge(
                size,
                limit,
                message=f"the attachments take {size:,} bytes and the limit is {limit:,} to one message; "
                "send less at a time, or raise max_attachments_size on both sides",
            )
        limit = self._options.max_attachments
        if count > limit:
            raise MessageTooLarge(
                count,
                limit,
                message=f"the message has {count:,} attachments and the limit is {limit:,}; "
                "send fewer at a time, or raise max_attachments on both sides",
            )

    def _check_depth(self, frame: bytes, what: str) -> None:
        if nesting.too_deep(frame, self._options.max_depth):
            raise UnencodableData(
                f"the data of {what!r} is nested deeper than {self._options.max_depth} levels (max_depth)"
            )

    def event(self, event: str, data: object) -> bytes:
        # What `encode` and `check` do, in one: this is the hottest path there is.
        try:
            prefix = self.known_names.get(event)
        except TypeError:
            prefix = None
        if prefix is None:
            prefix = self._vet_outgoing(event)
        try:
            text = codec.fast_json(data)
        except Exception:
            text = codec.encode_value(data, event)
        frame = b"".join((prefix, text, self._event_end))  # one copy, however large
        if len(frame) > self.known_size:
            self._check_fits(frame, event)
        return frame

    def is_risky(self, event: object) -> bool:
        # A name may be anything here, also what is no text and cannot be looked up.
        return (
            self.protocol == "plain"
            and not self._options.unsafe_names
            and isinstance(event, str)
            and event in UNSAFE_NAMES
        )

    def _vet_outgoing(self, event: str) -> bytes:
        check_event_name(event, self._options.max_event_name_size)
        if self.is_risky(event):
            raise InvalidEventName(
                event,
                f"a node-ipc program would take an event named {event!r} for its own, or stop; "
                "choose another name, or pass unsafe_names=True",
            )
        if len(self.known_names) >= MAX_KNOWN_NAMES:
            self.known_names.clear()
        prefix = self.known_names[event] = codec.event_prefix(event)
        return prefix

    def request(self, event: str, data: object, traceparent: str = "") -> tuple[int, bytes]:
        if self._role is Role.SERVER and not self._peer_speaks_pyipc:
            raise PeerLacksFeature(
                "request", "the peer has sent no pyipc frame, so it cannot be asked; emit an event instead"
            )
        try:
            prefix = self._request_prefixes.get(event)
        except TypeError:
            prefix = None
        if prefix is None:
            prefix = self._vet_request(event)
        call = self._last_call + 1
        try:
            text = codec.fast_json(data)
        except Exception:
            text = codec.encode_value(data, event)
        end = self._call_end
        if traceparent:
            end = b',"traceparent":%b%b' % (codec.encode_value(traceparent, "the span"), end)
        frame = b"".join((_REQUEST_START % call, prefix, text, end))
        if len(frame) > self.known_size:
            try:
                self._check_fits(frame, event)
            except MessageTooLarge:
                if traceparent:
                    return self.request(event, data)  # better without than not at all
                raise
        self._last_call = call
        return call, frame

    def _vet_request(self, event: str) -> bytes:
        check_event_name(event, self._options.max_event_name_size)
        if len(self._request_prefixes) >= MAX_KNOWN_NAMES:
            self._request_prefixes.clear()
        prefix = self._request_prefixes[event] = b',"event":%b,"data":' % codec.encode_value(event, event)
        return prefix

    def check_feature(self, feature: str) -> None:
        if feature in self.features:
            return
        if self.protocol == "plain":
            why = "the peer has not introduced itself, as programs of node-ipc and others do not"
        else:
            why = "the peer introduced itself without it; it may be of an older version"
        raise PeerLacksFeature(feature, f"this needs a pyipc peer with {feature!r}, and {why}")

    def next_call(self) -> int:
        self._last_call += 1
        return self._last_call

    def say(self, body: ControlFrame) -> bytes:
        what = getattr(body, "event", None) or getattr(body, "topic", None) or body.type
        if what is not body.type:
            check_event_name(what, self._options.max_event_name_size)
        frame = codec.control_frame(body, what) + self._delimiter
        if len(frame) > self.known_size:
            try:
                self._check_fits(frame, what)
            except MessageTooLarge:
                if not getattr(body, "traceparent", ""):
                    raise
                return self.say(codec.replaced(body, traceparent=""))  # better without than not at all
        return frame

    def reply(self, call: int, data: object) -> bytes:
        try:
            text = codec.fast_json(data)
        except Exception:
            text = codec.encode_value(data, "the reply")
        frame = b"".join((_REPLY_START % call, text, self._call_end))
        if len(frame) > self.known_size:
            self._check_fits(frame, "the reply")
        return frame

    def item(self, call: int, data: object) -> bytes:
        if data is None:
            return self.say(Item(call))
        try:
            text = codec.fast_json(data)
        except Exception:
            text = codec.encode_value(data, "the item")
        frame = b"".join((_ITEM_START % call, text, self._call_end))
        if len(frame) > self.known_size:
            self._check_fits(frame, "the item")
        return frame

    def _check_fits(self, frame: bytes, what: str) -> None:
        self._check_depth(frame, what)
        self.check_size(frame)

    def failure(self, call: int, code: str, message: str, data: object = None) -> bytes:
        for details in (data, None):
            body = {"call": call, "code": code, "message": message, "data": details}
            try:
                frame = codec.encode(Failure.type, body) + self._delimiter
                self._check_fits(frame, "the error")
            except LocalProtocolError:
                continue
            return frame
        # Whoever asked must hear that there is no answer, even where its details cannot be sent.
        return self._control(Failure(call, code[:MAX_TEXT], message[:MAX_TEXT]))

    def cancel(self, call: int) -> bytes:
        return self._control(Cancel(call))

    def ping(self) -> bytes:
        return self._unasked(Ping())

    def goaway(self, message: str) -> bytes:
        return self._unasked(Goaway(message))

    def goodbye(self, code: str, message: str) -> bytes:
        return self._unasked(Goodbye(code, message))

    def _unasked(self, body: ControlFrame) -> bytes:
        """A frame that only a peer which has introduced itself may get."""
        return self._control(body) if self.protocol != "plain" else b""
