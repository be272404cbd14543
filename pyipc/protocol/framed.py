"""A conversation in frames of JSON: node-ipc's wire, with pyipc's own frames among the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from pyipc.errors import (
    InvalidEventName,
    LocalProtocolError,
    MessageTooLarge,
    PeerLacksFeature,
    RemoteProtocolError,
    UnencodableData,
)
from pyipc.options import SHORTEST_HEARTBEAT
from pyipc.protocol import codec
from pyipc.protocol.conversation import Conversation, Inbound, Role
from pyipc.protocol.frames import FrameBuffer
from pyipc.protocol.messages import (
    CONTROL_PREFIX,
    PROTOCOL_VERSIONS,
    Cancel,
    ControlFrame,
    Failure,
    Goaway,
    Goodbye,
    Hello,
    Introduced,
    Malformed,
    Ping,
    Reply,
    Request,
    Welcome,
)
from pyipc.protocol.names import UNSAFE_NAMES, check_event_name

if TYPE_CHECKING:
    from pyipc.options import Options
    from pyipc.protocol.codec import Event
    from pyipc.protocol.framing import Json

__all__ = ["JsonConversation"]

_MAX_KNOWN_NAMES = 1_024
_MAX_CALL = 2**53 - 1
# An empty set takes more than any other empty container, and there may be many connections that say nothing.
_NO_NAMES: frozenset[str] = frozenset()


@final
class JsonConversation(Conversation):
    """node-ipc's frames, with pyipc's own among them once both sides are known to speak them.

    Args:
        role: Which side this is.
        framing: The delimiter.
        options: Sizes, depths and names that are allowed.
        hello: Client: introduce this side. Server: answer introductions.
        require_hello: Server: refuse a peer whose first frame is not a hello.
        refusal: Server: answer a hello with a goodbye of this code and message.
        agent: What this side calls itself.
    """

    def __init__(
        self,
        role: Role,
        framing: Json,
        options: Options,
        *,
        hello: bool = True,
        require_hello: bool = False,
        refusal: tuple[str, str] | None = None,
        agent: str = "",
    ) -> None:
        self._role = role
        self._delimiter = framing.delimiter
        self._event_end = b"}" + framing.delimiter
        self._call_end = b"}}" + framing.delimiter
        self._options = options
        self._hello = hello
        self._require_hello = require_hello and role is Role.SERVER
        self._skips = options.malformed == "skip" and not self._require_hello
        self._refusal = refusal
        self._agent = agent
        self._buffer = FrameBuffer(framing.delimiter, options.max_frame_size)
        self._send_limit = options.max_frame_size
        # Frames up to this size can be neither too deep nor too large.
        self.known_size: int = min(2 * options.max_depth, options.max_frame_size)
        # What stands before the data in a frame, by the names that have been found fit to send.
        self.known_names: dict[str, bytes] = {}
        self._request_prefixes: dict[str, bytes] = {}
        self._incoming_names: set[str] | frozenset[str] = _NO_NAMES
        self._last_call = 0
        self._peer_speaks_pyipc = False
        self._failed = False
        self._answers = b""
        self.has_data_to_send: bool = False
        self.partial_size: int = 0
        self.frames_completed: int = 0
        self.protocol: str = "plain"

    @property
    def awaits_welcome(self) -> bool:
        return self._role is Role.CLIENT and self._hello and self.protocol == "plain" and not self._failed

    def open(self) -> bytes:
        if self._role is Role.SERVER or not self._hello:
            return b""
        return self._control(Hello(list(PROTOCOL_VERSIONS), **self._introduction()))

    def _introduction(self) -> dict[str, Any]:
        options = self._options
        return {
            "features": [],
            "max_frame_size": options.max_frame_size,
            "heartbeat": options.heartbeat_interval,
            "agent": self._agent,
        }

    def _control(self, body: ControlFrame) -> bytes:
        return codec.control_frame(body) + self._delimiter

    # --- calls in, bytes out ---

    def encode(self, event: str, data: object) -> bytes:
        frame = codec.encode(event, data)
        if len(frame) > self.known_size:
            self._check_depth(frame, event)
        return frame + self._delimiter

    def check(self, event: str, frame: bytes) -> None:
        if event not in self.known_names:
            self._vet_outgoing(event)
        if len(frame) - 1 > self._send_limit:
            raise MessageTooLarge(len(frame) - 1, self._send_limit)

    def check_size(self, frame: bytes) -> None:
        if len(frame) - 1 > self._send_limit:
            raise MessageTooLarge(len(frame) - 1, self._send_limit)

    def _check_depth(self, frame: bytes, what: str) -> None:
        if codec.too_deep(frame, self._options.max_depth):
            raise UnencodableData(
                f"the data of {what!r} is nested deeper than {self._options.max_depth} levels (max_depth)"
            )

    def event(self, event: str, data: object) -> bytes:
        # What `encode` and `check` do, in one: this is the hottest path there is.
        prefix = self.known_names.get(event) or self._vet_outgoing(event)
        try:
            text = codec.fast_json(data)
        except codec.UNENCODABLE:
            text = codec.encode_value(data, event)
        frame = b"".join((prefix, text, self._event_end))  # one copy, however large
        if len(frame) > self.known_size:
            self._check_fits(frame, event)
        return frame

    def is_risky(self, event: str) -> bool:
        return self.protocol == "plain" and event in UNSAFE_NAMES and not self._options.unsafe_names

    def _vet_outgoing(self, event: str) -> bytes:
        check_event_name(event, self._options.max_event_name_size)
        if self.is_risky(event):
            raise InvalidEventName(
                event,
                f"a node-ipc program would take an event named {event!r} for its own, or stop; "
                "choose another name, or pass unsafe_names=True",
            )
        if len(self.known_names) >= _MAX_KNOWN_NAMES:
            self.known_names.clear()
        prefix = self.known_names[event] = codec.event_prefix(event)
        return prefix

    def request(self, event: str, data: object) -> tuple[int, bytes]:
        if self._role is Role.SERVER and not self._peer_speaks_pyipc:
            raise PeerLacksFeature(
                "request", "the peer has sent no pyipc frame, so it cannot be asked; emit an event instead"
            )
        prefix = self._request_prefixes.get(event) or self._vet_request(event)
        call = self._last_call + 1
        try:
            text = codec.fast_json(data)
        except codec.UNENCODABLE:
            text = codec.encode_value(data, event)
        frame = b"".join((_REQUEST_START % call, prefix, text, self._call_end))
        if len(frame) > self.known_size:
            self._check_fits(frame, event)
        self._last_call = call
        return call, frame

    def _vet_request(self, event: str) -> bytes:
        check_event_name(event, self._options.max_event_name_size)
        if len(self._request_prefixes) >= _MAX_KNOWN_NAMES:
            self._request_prefixes.clear()
        prefix = self._request_prefixes[event] = b',"event":%b,"data":' % codec.encode_value(event, event)
        return prefix

    def reply(self, call: int, data: object) -> bytes:
        try:
            text = codec.fast_json(data)
        except codec.UNENCODABLE:
            text = codec.encode_value(data, "the reply")
        frame = b"".join((_REPLY_START % call, text, self._call_end))
        if len(frame) > self.known_size:
            self._check_fits(frame, "the reply")
        return frame

    def _check_fits(self, frame: bytes, what: str) -> None:
        self._check_depth(frame, what)
        self.check_size(frame)

    def failure(self, call: int, code: str, message: str, data: object = None) -> bytes:
        body = {"call": call, "code": code, "message": message, "data": data}
        try:
            frame = codec.encode(Failure.type, body) + self._delimiter
            self._check_fits(frame, "the error")
        except LocalProtocolError:
            # Whoever asked must hear that there is no answer, even where its details cannot be sent.
            return self._control(Failure(call, code[:_MAX_TEXT], message[:_MAX_TEXT]))
        return frame

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

    # --- bytes in, events out ---

    def receive_data(self, data: bytes) -> list[Inbound]:
        if self._failed:
            return []
        events: list[Inbound] = []
        buffer = self._buffer
        if data and data.find(self._delimiter) == len(data) - 1 and not self.partial_size:
            # A single frame, whole: the usual case where each side waits for the other.
            self.frames_completed += 1
            call = self._usual_call(data)
            if call is not None:
                return [call]
            self._take_frame(data[:-1], events)
            return events
        complete = buffer.feed(data)
        self.partial_size = buffer.partial_size
        if complete:
            self.frames_completed += 1
            first = complete.find(self._delimiter)
            if first > _LARGE and first == len(complete) - 1:
                if not self._take_large(complete, events):
                    return events
                complete = b""
            batch = None
            # A batch must be small frames: to look at the whole of it several times costs more than it saves else.
            if (
                complete
                and first < _SMALL
                and len(complete) <= self._options.max_frame_size
                and not complete.startswith(_CALL_START)
            ):
                count = complete.count(self._delimiter)
                batch = codec.decode_frames(complete, self._delimiter, count, self._options.max_depth)
            tail_fits = self.partial_size <= self._options.max_frame_size
            if batch is not None and tail_fits and {event.type for event in batch} <= self._incoming_names:
                return batch  # type: ignore[return-value]  # the usual case of a stream: plain events of known names
            if batch is not None:
                for event in batch:
                    if not self._take(event, events):
                        return events
            elif complete and not self._take_one_by_one(complete, events):
                return events
        try:
            buffer.check()
        except RemoteProtocolError as error:
            self._reject(error, events)
        return events

    def _usual_call(self, data: bytes) -> Request | Reply | None:
        """Read a frame that is a call like others before; every other one is for `_take_frame` to judge."""
        if len(data) > self.known_size:
            return None
        try:
            if data.startswith(_REPLY_TYPE):
                reply = codec.fast_reply(data[:-1]).data
                return reply if 0 < reply.call <= self._last_call else None
            if data.startswith(_REQUEST_TYPE) and self._peer_speaks_pyipc:
                request = codec.fast_request(data[:-1]).data
                return request if request.event in self._incoming_names and 0 <= request.call <= _MAX_CALL else None
        except codec.MALFORMED:
            pass
        return None

    def _take_frame(self, frame: bytes, events: list[Inbound]) -> bool:
        """Read one frame and take it; say whether to go on with the next."""
        try:
            if len(frame) > self.known_size:
                self._check_incoming(frame, len(frame))
            call = codec.decode_call(frame)
            if call is None:
                event = codec.decode(frame)
            elif self._require_hello and self.protocol == "plain":
                raise RemoteProtocolError("hello", "the peer sent a frame before it introduced itself")
            else:
                self._check_call(call)
                events.append(call)
                return True
        except RemoteProtocolError as error:
            return self._reject(error, events)
        return self._take(event, events)

    def _take_large(self, complete: bytes, events: list[Inbound]) -> bool:
        """Like `_take_frame`, for one frame with its delimiter, without a copy of it."""
        try:
            self._check_incoming(complete, len(complete) - 1)
            event = codec.decode(memoryview(complete)[:-1])
        except RemoteProtocolError as error:
            return self._reject(error, events)
        return self._take(event, events)

    def _check_incoming(self, frame: bytes, size: int) -> None:
        """Refuse a frame that is too large, or nested too deep for anything recursive to look at."""
        if size > self._options.max_frame_size:
            raise RemoteProtocolError(
                "size",
                f"the peer sent a frame of {size:,} bytes and the limit is "
                f"{self._options.max_frame_size:,} (max_frame_size)",
            )
        if codec.too_deep(frame, self._options.max_depth):
            raise RemoteProtocolError(
                "depth", f"the peer sent JSON nested deeper than {self._options.max_depth} levels (max_depth)"
            )

    def _take_one_by_one(self, complete: bytes, events: list[Inbound]) -> bool:
        start = 0
        while start < len(complete):
            end = complete.index(self._delimiter, start)
            if not self._take_frame(complete[start:end], events):
                return False
            start = end + 1
        return True

    def _reject(self, error: RemoteProtocolError, events: list[Inbound]) -> bool:
        """Report a frame that was refused; say whether to go on with the next."""
        if self._skips and self.protocol == "plain" and error.code in _SKIPPED:
            events.append(Malformed(error, fatal=False))
            return True
        self._failed = True
        events.append(Malformed(error, fatal=True))
        return False

    def _take(self, event: Event, events: list[Inbound]) -> bool:
        """Report one event, or obey one of pyipc's own frames; say whether to go on."""
        name = event.type
        try:
            if name not in self._incoming_names:
                if self._require_hello and self.protocol == "plain" and name != Hello.type:
                    raise RemoteProtocolError("hello", "the peer sent a frame before it introduced itself")
                if name.startswith(CONTROL_PREFIX):
                    self._obey(name, event.data, events)
                    return True
                self._vet_incoming(name)
        except RemoteProtocolError as error:
            return self._reject(error, events)
        events.append(event)
        return True

    def _vet_incoming(self, name: str) -> None:
        size = len(name.encode("utf-8", "surrogatepass"))
        if size > self._options.max_event_name_size:
            raise RemoteProtocolError(
                "name",
                f"the peer sent an event whose name takes {size:,} bytes and the limit is "
                f"{self._options.max_event_name_size:,} (max_event_name_size)",
            )
        if len(self._incoming_names) >= _MAX_KNOWN_NAMES:
            self._incoming_names = _NO_NAMES
        if isinstance(self._incoming_names, frozenset):
            self._incoming_names = set()
        self._incoming_names.add(name)

    def _obey(self, name: str, data: Any, events: list[Inbound]) -> None:
        kind = _CONTROL_FRAMES.get(name)
        if kind is None:
            return  # a later version's frame; whoever sends it knows that we may not understand
        body = codec.convert_control({} if data is None else data, kind)
        match body:
            case Hello():
                self._on_hello(body, events)
            case Welcome():
                self._on_welcome(body, events)
            case Ping():
                pass
            case Request() | Reply() | Failure() | Cancel():
                self._check_call(body)
                events.append(body)
            case _:
                events.append(body)

    def _check_call(self, body: Request | Reply | Failure | Cancel) -> None:
        """Whether a frame about a call can be meant; a peer that sends one speaks pyipc's protocol."""
        if not 0 <= body.call <= _MAX_CALL:
            raise RemoteProtocolError("control", f"the peer sent {body.call} as the number of a call")
        if type(body) is Request:
            if body.event not in self._incoming_names:
                if body.event.startswith(CONTROL_PREFIX):
                    raise RemoteProtocolError("name", f"the peer sent a request under the reserved name {body.event!r}")
                self._vet_incoming(body.event)
        elif type(body) is not Cancel and not 0 < body.call <= self._last_call:
            raise RemoteProtocolError("control", f"the peer answered call {body.call}, which was never made")
        self._peer_speaks_pyipc = True

    def _on_hello(self, hello: Hello, events: list[Inbound]) -> None:
        if self._role is Role.CLIENT:
            raise RemoteProtocolError("control", "the server sent a hello, which is the client's to send")
        if self.protocol != "plain":
            raise RemoteProtocolError("control", "the peer introduced itself twice")
        if not self._hello:
            return
        version = next((version for version in PROTOCOL_VERSIONS if version in hello.versions), None)
        if version is None:
            offered = ", ".join(map(str, hello.versions[:_MAX_TEXT])) or "none"
            message = f"this side speaks version {PROTOCOL_VERSIONS[0]} of the protocol, the other side {offered}"
            message = message[:_MAX_TEXT]
            self._answer(self._control(Goodbye("version", message)))
            raise RemoteProtocolError("version", message)
        if self._refusal is not None:
            self._answer(self._control(Goodbye(*self._refusal)))
            raise RemoteProtocolError(*self._refusal)
        self._meet(version, hello, events)
        self._answer(self._control(Welcome(version, **self._introduction())))

    def _on_welcome(self, welcome: Welcome, events: list[Inbound]) -> None:
        if self._role is Role.SERVER or not self._hello or self.protocol != "plain":
            raise RemoteProtocolError("control", "the peer sent a welcome that nobody asked for")
        if welcome.version not in PROTOCOL_VERSIONS:
            raise RemoteProtocolError("version", f"the server chose version {welcome.version}, which was not offered")
        self._meet(welcome.version, welcome, events)

    def _meet(self, version: int, peer: Hello | Welcome, events: list[Inbound]) -> None:
        self._peer_speaks_pyipc = True
        self.protocol = f"pyipc/{version}"
        if peer.max_frame_size is not None:
            if peer.max_frame_size < 1:
                raise RemoteProtocolError("control", "the peer accepts no frame at all (max_frame_size)")
            self._send_limit = min(self._send_limit, peer.max_frame_size)
            self.known_size = min(self.known_size, self._send_limit)
        heartbeat = peer.heartbeat
        if heartbeat is not None:
            heartbeat = min(max(heartbeat, SHORTEST_HEARTBEAT), _LONGEST_HEARTBEAT)
        events.append(Introduced(self.protocol, heartbeat, peer.agent[:_MAX_TEXT]))

    def _answer(self, frame: bytes) -> None:
        self._answers += frame
        self.has_data_to_send = True

    def data_to_send(self) -> bytes:
        answers, self._answers = self._answers, b""
        self.has_data_to_send = False
        return answers


_REQUEST_START = b'{"type":"pyipc.request","data":{"call":%d'
_REPLY_START = b'{"type":"pyipc.reply","data":{"call":%d,"data":'
# A chunk that starts with a call is likely to hold nothing else, and calls are read one by one.
_REQUEST_TYPE = b'{"type":"pyipc.request"'
_REPLY_TYPE = b'{"type":"pyipc.reply"'
_CALL_START = (_REQUEST_TYPE, _REPLY_TYPE)
# Frames above this many bytes are not copied to take their delimiter off.
_LARGE = 65_536
# Frames below this many are read as a batch.
_SMALL = 2_048
_LONGEST_HEARTBEAT = 86_400.0
# Characters of a text that only people read.
_MAX_TEXT = 256
# What a plain peer may send and be heard further, with malformed="skip". A frame that is too large is not
# among it: its end may never come.
_SKIPPED = frozenset({"json", "utf8", "envelope", "depth", "name"})

_CONTROL_FRAMES: dict[str, type[Any]] = {
    kind.type: kind for kind in (Hello, Welcome, Request, Reply, Failure, Cancel, Ping, Goaway, Goodbye)
}
