"""A conversation in datagrams, which may be lost, come twice or out of order, and from anybody.

Each datagram holds whole frames and stands for itself: nothing that is in one is the beginning of what is in another,
and nothing that anybody can send ends the conversation. What cannot be read is reported, and the rest is read; but not
without end, since anybody can fill a datagram with thousands of frames that take longer to refuse than to send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from pyipc.errors import MessageTooLarge, RemoteProtocolError, UnsupportedByTransport
from pyipc.protocol import codec
from pyipc.protocol.conversation import DATAGRAM_ADVICE, Inbound, Role
from pyipc.protocol.framed import OPTIONAL_PARTS, JsonConversation
from pyipc.protocol.messages import (
    MAX_TEXT,
    PROTOCOL_VERSIONS,
    DatagramHello,
    DatagramWelcome,
    Echo,
    Goaway,
    Goodbye,
    Hello,
    Malformed,
    Verified,
    Welcome,
)

if TYPE_CHECKING:
    from pyipc.options import Options
    from pyipc.protocol.framing import Json
    from pyipc.protocol.parcels import Frame

__all__ = ["HELLO_SIZE", "DatagramConversation"]

#: Bytes of a hello, unless datagrams are to be smaller. A server that does not know yet who is there sends no more than
#: it got, so the welcome has to be smaller.
HELLO_SIZE = 512

# After so many bad frames the rest of a datagram is not read: whoever sends that many means nothing good.
_MAX_BAD_FRAMES = 4
# What is obeyed once in a datagram, since more of the same would say nothing new, and take time.
_ONCE = frozenset({Hello.type, Welcome.type, Goaway.type, Goodbye.type})
_NOTHING: frozenset[str] = frozenset()


@final
class DatagramConversation(JsonConversation):
    """What `JsonConversation` says, a few frames at a time.

    A client says hello again and again, since any of them may be lost, and the server may have been restarted. The
    server answers each with a token, which the client echoes: so the server learns that the client really is at the
    address that its datagrams come from.

    Args:
        role: Which side this is.
        framing: The delimiter.
        options: Sizes, depths and names that are allowed.
        max_size: Bytes that a datagram holds.
        token: Server: what the client is to echo; nobody must be able to guess it.
        hello: Client: introduce this side. Server: answer introductions.
        require_hello: Server: heed nothing that a peer sends before its hello.
        agent: What this side calls itself.
    """

    frames_completed: int

    def __init__(
        self,
        role: Role,
        framing: Json,
        options: Options,
        *,
        max_size: int,
        token: str = "",
        hello: bool = True,
        require_hello: bool = False,
        agent: str = "",
    ) -> None:
        super().__init__(role, framing, options, hello=hello, require_hello=require_hello, agent=agent)
        self._max_size = max_size
        self._token = token
        # Of the datagram that is being read: its bad frames, and what was obeyed of what is obeyed once.
        self._bad_frames = 0
        self._obeyed = _NOTHING
        self.shared_size: int = min(options.max_shared_datagram_size, max_size)

    def check_size(self, frame: Frame) -> None:
        if len(frame) > self._max_size and type(frame) is bytes:
            raise MessageTooLarge(len(frame), self._max_size, DATAGRAM_ADVICE)
        super().check_size(frame)

    def open(self) -> bytes:
        if self._role is Role.SERVER or not self._hello:
            return b""
        hello = DatagramHello(list(PROTOCOL_VERSIONS), **self._introduction())
        missing = min(HELLO_SIZE, self.shared_size) - len(self._control(hello))
        return self._control(DatagramHello(list(PROTOCOL_VERSIONS), **self._introduction(), padding="." * missing))

    def ping(self) -> bytes:
        return self.open()  # which a server that has been restarted understands as well

    def goodbye(self, code: str, message: str) -> bytes:
        if self._role is Role.CLIENT and self._hello:
            return self._control(Goodbye(code, message))  # the server may know us, although we heard nothing of it
        return super().goodbye(code, message)

    def check_feature(self, feature: str) -> None:
        raise UnsupportedByTransport(
            feature, f"{feature!r} does not work over datagrams, of which any may be lost; use another transport"
        )

    def _introduction(self) -> dict[str, Any]:
        # Silence means nothing where anything may be lost, so nobody is asked to break it; and what needs to know that
        # nothing was lost is not offered.
        return {**super()._introduction(), "features": [], "heartbeat": None}

    def _shared_features(self, peer: Hello | Welcome) -> frozenset[str]:
        return _NOTHING  # whatever the peer says

    def _welcome(self, version: int, hello: Hello) -> Welcome:
        return DatagramWelcome(version, **self._introduction(), token=self._token)

    # --- bytes in, events out ---

    def receive_data(self, data: bytes) -> list[Inbound]:
        events: list[Inbound] = []
        self._bad_frames, self._obeyed = 0, _NOTHING
        end = data.rfind(self._delimiter) + 1
        if end:
            self.frames_completed += 1
        if self._take_whole(data[:end], events) and (end < len(data) or not data):
            error = RemoteProtocolError("truncated", "the peer sent a datagram that does not end with a whole frame")
            self._reject(error, events)
        return events

    def _take_whole(self, frames: bytes, events: list[Inbound]) -> bool:
        """Read whole frames; say whether to go on with what follows."""
        count = frames.count(self._delimiter)
        if count > 1 and len(frames) <= self._options.max_frame_size:
            batch = codec.decode_frames(frames, self._delimiter, count, self._options.max_depth)
            if batch is not None:
                return all(self._take(event, events) for event in batch)
        return self._take_one_by_one(frames, events) is not None

    def _reject(self, error: RemoteProtocolError, events: list[Inbound]) -> bool:
        """Report what was refused; say whether to go on with the next frame."""
        # Also where it is a hello of another version: who that is from nobody knows, and it has its answer.
        events.append(Malformed(error, fatal=False))
        self._bad_frames += 1
        return self._bad_frames < _MAX_BAD_FRAMES

    def _obey(self, name: str, data: Any, events: list[Inbound]) -> None:
        if name in _ONCE:
            if name in self._obeyed:
                return
            self._obeyed |= {name}
        fields = {} if data is None else data
        if name == Echo.type:
            self._on_echo(codec.convert_control(fields, Echo), events)
        elif name == Hello.type:
            self._on_hello(codec.convert_control(fields, DatagramHello), events)
        elif name == Welcome.type:
            self._on_welcome(codec.convert_control(fields, DatagramWelcome), events)
        elif name not in OPTIONAL_PARTS:  # those are for streams; here they are as good as unknown
            super()._obey(name, data, events)

    def _answer(self, frame: bytes) -> None:
        # One answer is enough for all that is in a datagram, or it could ask for more than it weighs.
        self._answers = frame
        self.has_data_to_send = True

    def _on_hello(self, hello: Hello, events: list[Inbound]) -> None:
        if self._role is Role.SERVER and self.protocol != "plain":
            # The client keeps itself in mind, or a welcome was lost; or another program has its address now, or it
            # was somebody else who sent the last one in its name. What it says now holds.
            self._heed_limit(hello)
            self._answer(self._control(self._welcome(PROTOCOL_VERSIONS[0], hello)))
        else:
            super()._on_hello(hello, events)

    def _on_welcome(self, welcome: Welcome, events: list[Inbound]) -> None:
        if self.protocol == "plain" or self._role is Role.SERVER:
            super()._on_welcome(welcome, events)
        if isinstance(welcome, DatagramWelcome) and 0 < len(welcome.token) <= MAX_TEXT:
            self._answer(self._control(Echo(welcome.token)))

    def _on_echo(self, echo: Echo, events: list[Inbound]) -> None:
        if self._role is Role.CLIENT or not self._token or echo.token != self._token:
            raise RemoteProtocolError("control", "the peer echoed a token that it was not given")
        events.append(Verified())
