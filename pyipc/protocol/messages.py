"""The vocabulary: pyipc's own frames, and what a conversation reports.

Every frame that pyipc adds to node-ipc's wire is an ordinary event whose name starts with
``pyipc.`` and whose data is an object of the fields below. None of them has a field ``id`` or
``_maxListeners``: node-ipc gives these a meaning of its own (it would name the socket after the
one and drop the payload for the other).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Protocol

from pyipc.errors import RemoteProtocolError  # noqa: TC001 - dataclass fields are resolved at run time
from pyipc.protocol.codec import Reply as Reply  # the two of every call; the codec reads them in one step
from pyipc.protocol.codec import Request as Request

__all__ = [
    "CONTROL_PREFIX",
    "MAX_TEXT",
    "MAX_WINDOW",
    "PROTOCOL_VERSIONS",
    "Cancel",
    "ControlFrame",
    "DatagramHello",
    "DatagramWelcome",
    "Echo",
    "Failure",
    "Goaway",
    "Goodbye",
    "Hello",
    "Introduced",
    "Malformed",
    "Ping",
    "Reply",
    "Request",
    "StreamHello",
    "StreamWelcome",
    "Verified",
    "Welcome",
    "one_line",
]

#: What the names of pyipc's own frames start with.
CONTROL_PREFIX = "pyipc."
#: Versions of the protocol that this side speaks, best first.
PROTOCOL_VERSIONS = (1,)
#: Characters of a text that only people read.
MAX_TEXT = 256
#: How far above the lowest number without an outcome any other may be, whatever the two sides say.
MAX_WINDOW = 65_536


def one_line(text: str, most: int = MAX_TEXT) -> str:
    """A text of the peer for people and their logs: with an end, and without what begins a line or moves a cursor."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:most])


class ControlFrame(Protocol):
    """A dataclass that knows its name on the wire."""

    type: ClassVar[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Hello:
    """A client introduces itself: its first frame.

    Attributes:
        versions: Versions of the protocol it speaks, best first.
        features: Names of optional parts it can do.
        max_frame_size: The largest frame it accepts, in bytes.
        heartbeat: Seconds of silence after which it wants to hear a ping; ``None`` for never.
        agent: What it is, for logs.
    """

    type: ClassVar[str] = "pyipc.hello"
    versions: list[int]
    features: list[str] = dataclasses.field(default_factory=list)
    max_frame_size: int | None = None
    heartbeat: float | None = None
    agent: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Welcome:
    """A server answers the hello. The fields mean the same, with the one version it chose."""

    type: ClassVar[str] = "pyipc.welcome"
    version: int
    features: list[str] = dataclasses.field(default_factory=list)
    max_frame_size: int | None = None
    heartbeat: float | None = None
    agent: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class StreamHello(Hello):
    """A hello over a stream, where the optional parts of the protocol work.

    Attributes:
        max_attachments_size: The most that this side accepts of attachments to one frame, in bytes.
        session: A secret that only this client knows, and tells every server again: under it the server remembers
            which events were handled. Empty for a client that wants nothing confirmed.
        session_window: How far above the lowest number without an outcome this side lets any other number be.
    """

    max_attachments_size: int | None = None
    session: str = ""
    session_window: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class StreamWelcome(Welcome):
    """A welcome over a stream.

    Attributes:
        max_attachments_size: As in the hello.
        instance: Another for every server that is started: who says the same has not been started again since.
        session_timeout: Seconds for which the session is remembered after its last connection has ended.
        incarnation: Another for every session that this server begins: who was told the same before is remembered.
        session_window: As in the hello.
    """

    max_attachments_size: int | None = None
    instance: str = ""
    session_timeout: float | None = None
    incarnation: str = ""
    session_window: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class DatagramHello(Hello):
    """A hello in a datagram of its own.

    Attributes:
        padding: Makes it so large that the answer is smaller.
    """

    padding: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class DatagramWelcome(Welcome):
    """A welcome in a datagram.

    Attributes:
        token: What only somebody who really is at the client's address can know, and echo.
    """

    token: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Echo:
    """A client shows that it is where it says.

    Attributes:
        token: That of the welcome.
    """

    type: ClassVar[str] = "pyipc.echo"
    token: str


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A request that could not be answered."""

    type: ClassVar[str] = "pyipc.error"
    call: int
    code: str
    message: str = ""
    data: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for the answer any more. It need not be answered."""

    type: ClassVar[str] = "pyipc.cancel"
    call: int


@dataclasses.dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life; it has no answer."""

    type: ClassVar[str] = "pyipc.ping"


@dataclasses.dataclass(frozen=True, slots=True)
class Goaway:
    """The sender will close before long; new work should go elsewhere."""

    type: ClassVar[str] = "pyipc.goaway"
    message: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Goodbye:
    """The sender's last frame: it closes on purpose, and here is why."""

    type: ClassVar[str] = "pyipc.goodbye"
    code: str = "closed"
    message: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Introduced:
    """Reported once: the other side has shown that it speaks pyipc's protocol.

    Attributes:
        protocol: Such as ``"pyipc/1"``.
        heartbeat: Seconds of silence after which it wants a ping from us; ``None`` for never.
        agent: What it calls itself.
        session: Of a client: under which name it wants to be remembered, if it does.
        instance: Of a server: another when it was started again.
        session_timeout: Of a server: for how many seconds it remembers a session without connection.
        incarnation: What the server calls its memory of this client, in the words of the server's own welcome: another
            where it has begun to remember anew.
        session_window: How far above the lowest number without an outcome any other may be.
    """

    protocol: str
    heartbeat: float | None
    agent: str
    session: str = ""
    instance: str = ""
    session_timeout: float = 0.0
    incarnation: str = ""
    session_window: int = MAX_WINDOW


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """Reported where the other side has shown that it is where its datagrams say they come from."""


@dataclasses.dataclass(frozen=True, slots=True)
class Malformed:
    """Reported where the peer broke the protocol; if ``fatal``, nothing more is read from it."""

    error: RemoteProtocolError
    fatal: bool

    def __post_init__(self) -> None:
        # Whoever keeps the error, as in a list of what ended, must not keep the frame too, which all these hold.
        error, cause = self.error, self.error.__cause__
        error.__traceback__ = error.__context__ = None
        error.__cause__ = None if cause is None else ValueError(str(cause))
