"""A conversation in frames of JSON: node-ipc's wire, with pyipc's own frames among the others.

The half that makes frames is in `outgoing`, and how both sides introduce themselves in `introducing`; here is the half
that understands frames.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

from pyipc.errors import RemoteProtocolError
from pyipc.protocol import codec, nesting
from pyipc.protocol.blocks import BLOCK_SIZE, LargeFrame
from pyipc.protocol.conversation import Inbound, Role
from pyipc.protocol.features import Item, OptionalPart, ReceivedItem
from pyipc.protocol.frames import FrameBuffer
from pyipc.protocol.introducing import Introducing
from pyipc.protocol.messages import (
    CONTROL_PREFIX,
    MAX_TEXT,
    Cancel,
    Failure,
    Goaway,
    Goodbye,
    Hello,
    Malformed,
    Ping,
    Reply,
    Request,
    StreamHello,
    StreamWelcome,
    Welcome,
    one_line,
)
from pyipc.protocol.names import MAX_KNOWN_NAMES
from pyipc.protocol.parcels import RECORD
from pyipc.protocol.parts import MAX_NUMBER, check_number, check_part, name_in, never_made
from pyipc.protocol.records import attach_records, receive_records

if TYPE_CHECKING:
    from pyipc.options import Options
    from pyipc.protocol.codec import Event
    from pyipc.protocol.conversation import SessionTerms
    from pyipc.protocol.framing import Json
    from pyipc.protocol.records import RecordBuffer

__all__ = ["OPTIONAL_PARTS", "JsonConversation"]

# An empty set takes more than any other empty container, and there may be many connections that say nothing.
_NO_NAMES: frozenset[str] = frozenset()
# The first byte of what TLS begins with, an alert or a handshake. No JSON begins with one of these.
_TLS_STARTS = (b"\x15", b"\x16")


class JsonConversation(Introducing):
    """node-ipc's frames, with pyipc's own among them once both sides are known to speak them.

    Args:
        role: Which side this is.
        framing: The delimiter.
        options: Sizes, depths and names that are allowed.
        hello: Client: introduce this side. Server: answer introductions.
        require_hello: Server: refuse a peer whose first frame is not a hello.
        refusal: Server: answer a hello with a goodbye of this code and message.
        agent: What this side calls itself.
        session: Client: the secret name under which servers remember it.
        terms: Server: what it remembers.
    """

    # Records are kept until their frame is here, and a large frame, with the bytes behind it, until it has been read.
    _records: RecordBuffer | None = None
    _large: tuple[LargeFrame, bytes] | None = None
    is_busy: bool = False

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
        session: str = "",
        terms: SessionTerms | None = None,
    ) -> None:
        super().__init__(
            role, framing, options, hello=hello, refusal=refusal, agent=agent, session=session, terms=terms
        )
        self._require_hello = require_hello and role is Role.SERVER
        self._buffer = FrameBuffer(framing.delimiter, options.max_frame_size)
        self._incoming_names: set[str] | frozenset[str] = _NO_NAMES
        # Of the frame that is being read, where frames are read one by one.
        self._frame_size = 0
        self.partial_size: int = 0
        self.frames_completed: int = 0

    # --- bytes in, events out ---

    def receive_data(self, data: bytes) -> list[Inbound]:
        if self._failed:
            return []
        events: list[Inbound] = []
        if not self.frames_completed and self._begins_tls(data):
            # Else it would be a frame without an end.
            message = "the peer speaks TLS, and this side plain text; use tls:// on both sides, or on neither"
            if self._role is Role.SERVER:
                self._answer(self._control(Goodbye("tls", message)))  # it is waiting to hear TLS, and sees at once
            self._reject(RemoteProtocolError("tls", message), events)
            return events
        takes_records = self._takes_records
        if takes_records and (self._records is not None or _RECORD_CODE in data):
            return receive_records(self, data)
        buffer = self._buffer
        size = len(data)
        if data and data.find(self._delimiter) == size - 1 and not self.partial_size and size <= _LARGE:
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
            if len(complete) > _LARGE and (start := self._find_large(complete)) >= 0:
                behind = buffer.take_back()
                if start:
                    return self.receive_data(complete[:start]) + self.receive_data(complete[start:] + behind)
                self._begin_large(complete, behind, events)
                return events
            self.frames_completed += 1
            first = complete.find(self._delimiter)
            batch = None
            names: set[str] | frozenset[str] = _NO_NAMES
            # A batch must be small frames: to look at the whole of it several times costs more than it saves else.
            if (
                first < _SMALL
                and len(complete) <= self._options.max_frame_size
                and not complete.startswith(_CALL_START)
            ):
                count = complete.count(self._delimiter)
                batch = codec.decode_frames(complete, self._delimiter, count, self._options.max_depth)
            tail_fits = self.partial_size <= self._options.max_frame_size
            if batch is not None:
                names = {event.type for event in batch}
                if tail_fits and names <= self._incoming_names:
                    return batch  # type: ignore[return-value]  # the usual case of a stream: plain events, known names
            if batch is not None and Item.type not in names:  # of items the sizes matter, which a batch does not have
                for event in batch:
                    if not self._take(event, events):
                        return events
            elif self.protocol != "plain" and complete.startswith(_ITEM_TYPE):
                if not self._take_items(complete, events):
                    return events
            else:
                rest = self._take_one_by_one(complete, events)
                if rest is None:
                    return events
                if rest:
                    return events + self.receive_data(rest + buffer.take_back())
        if takes_records is not self._takes_records and self.partial_size:
            return events + self.receive_data(buffer.take_back())
        try:
            buffer.check()
        except RemoteProtocolError as error:
            self._reject(error, events)
        return events

    def _begins_tls(self, data: bytes) -> bool:
        """Whether the peer's first byte is of TLS."""
        first = data[:1]
        return first in _TLS_STARTS and first != self._delimiter and not self.partial_size

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
                return request if request.event in self._incoming_names and 0 <= request.call <= MAX_NUMBER else None
        except codec.MALFORMED:
            pass
        return None

    def _take_frame(self, frame: bytes, events: list[Inbound]) -> bool:
        """Read one frame and take it; say whether to go on with the next."""
        try:
            self._frame_size = size = len(frame)
            if size > self.known_size:
                self._check_incoming(frame, size)
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

    def _find_large(self, complete: bytes) -> int:
        """Where the first frame begins that is too large to be read at once; -1 if there is none."""
        start = 0
        while len(complete) - start > _LARGE:
            border = complete.rfind(self._delimiter, start, start + _LARGE + 1)
            if border < 0:
                return start
            start = border + 1
        return -1

    def _begin_large(self, complete: bytes, behind: bytes, events: list[Inbound]) -> None:
        """Let a large frame, and what came behind it, be read by `go_on`."""
        size = complete.index(self._delimiter)
        if size + 1 < len(complete):
            behind = complete[size + 1 :] + behind
            complete = complete[: size + 1]
        try:
            self._check_incoming_size(size)
        except RemoteProtocolError as error:
            self._reject(error, events)
            return
        self._large = LargeFrame(complete, size, self._options.max_depth, BLOCK_SIZE), behind
        self.partial_size = len(complete) + len(behind)
        self.is_busy = True

    def _wait_behind(self, data: bytes) -> None:
        """Let bytes wait behind the large frame that is being read."""
        assert self._large is not None
        large, behind = self._large
        self._large = large, behind + data
        self.partial_size += len(data)

    def go_on(self) -> list[Inbound]:
        events: list[Inbound] = []
        if self._large is None:
            return events
        large, behind = self._large
        try:
            event = large.go_on()
        except RemoteProtocolError as error:
            self._reject(error, events)
        else:
            if event is None:
                return events
            self._frame_size = large.size
            self._take(event, events)
        self._end_large()
        self.frames_completed += 1
        if self._records is not None:
            events = attach_records(self, events)
        return events + self.receive_data(behind)

    def give_up(self) -> None:
        # Each connection that ends comes here: where there is nothing, it is not to get more attributes than it has.
        if self._large is not None:
            self._end_large()
        if self._records is not None:
            self._records = None
        self._buffer.take_back()
        self.partial_size = 0

    def _end_large(self) -> None:
        self._large = None
        self.partial_size = 0
        self.is_busy = False

    def _check_incoming(self, frame: bytes, size: int) -> None:
        """Refuse a frame that is too large, or nested too deep for anything recursive to look at."""
        self._check_incoming_size(size)
        if nesting.too_deep(frame, self._options.max_depth):
            raise nesting.nested_too_deep(self._options.max_depth)

    def _check_incoming_size(self, size: int) -> None:
        if size > self._options.max_frame_size:
            raise RemoteProtocolError(
                "size",
                f"the peer sent a frame of {size:,} bytes and the limit is "
                f"{self._options.max_frame_size:,} (max_frame_size)",
            )

    def _take_one_by_one(self, complete: bytes, events: list[Inbound]) -> bytes | None:
        """Take whole frames; return those from where records may come, which need another look, or `None` to stop."""
        start = 0
        takes_records = self._takes_records
        while start < len(complete):
            end = complete.index(self._delimiter, start)
            if not self._take_frame(complete[start:end], events):
                return None
            start = end + 1
            if takes_records is not self._takes_records:
                return complete[start:]
        return b""

    def _take_items(self, complete: bytes, events: list[Inbound]) -> bool:
        """Like `_take_one_by_one`, for frames of which many are likely to be items of streams."""
        for frame in complete[:-1].split(self._delimiter):
            size = len(frame)
            if size <= _SMALL and frame.startswith(_ITEM_TYPE):
                try:
                    if size > self.known_size:
                        self._check_incoming(frame, size)
                    item = codec.fast_item(frame).data
                except (*codec.MALFORMED, RemoteProtocolError):
                    pass  # it is judged below
                else:
                    if 0 < item.call <= self._last_call:
                        events.append(ReceivedItem(item.call, item.data, size))
                        continue
            if not self._take_frame(frame, events):
                return False
        return True

    def _reject(self, error: RemoteProtocolError, events: list[Inbound]) -> bool:
        """Report a frame that was refused; say whether to go on with the next."""
        skips = self._options.malformed == "skip" and not self._require_hello
        if skips and self.protocol == "plain" and error.code in _SKIPPED:
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
        if len(self._incoming_names) >= MAX_KNOWN_NAMES:
            self._incoming_names = _NO_NAMES
        if isinstance(self._incoming_names, frozenset):
            self._incoming_names = set()
        self._incoming_names.add(name)

    def _vet_inner(self, name: str) -> None:
        """Refuse a name inside of one of pyipc's own frames that no event may have."""
        if name.startswith(CONTROL_PREFIX):
            raise RemoteProtocolError("name", f"the peer used the reserved name {name[:MAX_TEXT]!r}")
        self._vet_incoming(name)

    def _obey(self, name: str, data: Any, events: list[Inbound]) -> None:
        kind = _CONTROL_FRAMES.get(name)
        if kind is None:
            return  # a later version's frame; whoever sends it knows that we may not understand
        try:
            body = codec.convert_control({} if data is None else data, kind)
        except RemoteProtocolError as error:
            if kind is StreamHello:
                self._refuse_hello(error)
            raise
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
            case Goodbye(code, message):
                events.append(Goodbye(one_line(code), one_line(message)))
            case Goaway(message):
                events.append(Goaway(one_line(message)))
            case Item():
                self._take_item(body, events)
            case _:
                check_part(body, from_client=self._role is Role.SERVER, last_call=self._last_call)
                part_name = name_in(body)
                if part_name not in self._incoming_names:
                    self._vet_inner(part_name)
                self._peer_speaks_pyipc = True
                events.append(body)

    def _take_item(self, item: Item, events: list[Inbound]) -> None:
        """Report one of the answers of a stream."""
        if not 0 < item.call <= self._last_call:
            raise never_made(item.call)
        self._peer_speaks_pyipc = True
        events.append(ReceivedItem(item.call, item.data, self._frame_size))

    def _check_call(self, body: Request | Reply | Failure | Cancel) -> None:
        """Whether a frame about a call can be meant; a peer that sends one speaks pyipc's protocol."""
        if not 0 <= body.call <= MAX_NUMBER:
            check_number(body.call, "a call")
        if type(body) is Request:
            if body.event not in self._incoming_names:
                self._vet_inner(body.event)
        elif type(body) is not Cancel and not 0 < body.call <= self._last_call:
            raise never_made(body.call)
        self._peer_speaks_pyipc = True


# A chunk that starts with a call is likely to hold nothing else, and calls are read one by one.
_REQUEST_TYPE = b'{"type":"pyipc.request"'
_REPLY_TYPE = b'{"type":"pyipc.reply"'
_ITEM_TYPE = b'{"type":"pyipc.item"'
_CALL_START = (_REQUEST_TYPE, _REPLY_TYPE, _ITEM_TYPE)
# Frames above this many bytes are read in blocks.
_LARGE = 65_536
# What a record begins with, as a number: to look for that in bytes takes a tenth of the time.
_RECORD_CODE = RECORD[0]
# Frames below this many are read as a batch.
_SMALL = 2_048
# What a plain peer may send and be heard further, with malformed="skip". A frame that is too large is not
# among it: its end may never come.
_SKIPPED = frozenset({"json", "utf8", "envelope", "depth", "name"})

_PARTS: tuple[Any, ...] = typing.get_args(OptionalPart)
#: The names of the frames that belong to optional parts.
OPTIONAL_PARTS: frozenset[str] = frozenset(part.type for part in _PARTS)
_CONTROL_FRAMES: dict[str, type[Any]] = {
    kind.type: kind
    for kind in (StreamHello, StreamWelcome, Request, Reply, Failure, Cancel, Ping, Goaway, Goodbye, *_PARTS)
}
