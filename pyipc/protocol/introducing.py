"""How two sides introduce themselves, and what follows from that: the hello, the welcome, and what both can do."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from pyipc.errors import RemoteProtocolError
from pyipc.options import SHORTEST_HEARTBEAT
from pyipc.protocol.conversation import Role
from pyipc.protocol.features import ATTACHMENTS, FEATURES
from pyipc.protocol.messages import (
    MAX_TEXT,
    MAX_WINDOW,
    PROTOCOL_VERSIONS,
    Goodbye,
    Hello,
    Introduced,
    StreamHello,
    StreamWelcome,
    Welcome,
    one_line,
)
from pyipc.protocol.outgoing import OutgoingFrames

if TYPE_CHECKING:
    from pyipc.options import Options
    from pyipc.protocol.conversation import Inbound, SessionTerms
    from pyipc.protocol.framing import Json

__all__ = ["Introducing"]

_LONGEST_HEARTBEAT = 86_400.0
_LONGEST_SESSION = 86_400.0
# One set for all connections.
_ALL_FEATURES = frozenset(FEATURES)


class _Own(NamedTuple):
    """What one side says of itself.

    Not in the conversation: an object of 30 attributes takes more memory than one of 29, and is slower to look into.
    """

    agent: str
    refusal: tuple[str, str] | None
    session: str
    terms: SessionTerms | None


class Introducing(OutgoingFrames):
    """What a conversation in frames says of this side, and learns of the other.

    Args:
        role: Which side this is.
        framing: The delimiter.
        options: Sizes, depths and names that are allowed.
        hello: Client: introduce this side. Server: answer introductions.
        refusal: Server: answer a hello with a goodbye of this code and message.
        agent: What this side calls itself.
        session: Client: the secret name under which servers remember it.
        terms: Server: what it remembers.
    """

    protocol: str
    known_size: int
    features: frozenset[str]
    # Records are looked for once both sides have agreed on them.
    _takes_records: bool = False

    def __init__(
        self,
        role: Role,
        framing: Json,
        options: Options,
        *,
        hello: bool,
        refusal: tuple[str, str] | None,
        agent: str,
        session: str,
        terms: SessionTerms | None,
    ) -> None:
        super().__init__(role, framing, options)
        self._hello = hello
        self._own = _Own(agent, refusal, session, terms)
        self._failed = False
        self._answers = b""
        self.has_data_to_send: bool = False

    @property
    def awaits_welcome(self) -> bool:
        return self._role is Role.CLIENT and self._hello and self.protocol == "plain" and not self._failed

    def open(self) -> bytes:
        if self._role is Role.SERVER or not self._hello:
            return b""
        introduction = self._introduction()
        size = self._options.max_attachments_size
        return self._control(
            StreamHello(
                list(PROTOCOL_VERSIONS),
                **introduction,
                max_attachments_size=size,
                session=self._own.session,
                session_window=self._session_window,
            )
        )

    @property
    def _session_window(self) -> int:
        return min(self._options.max_session_window, MAX_WINDOW)

    def _introduction(self) -> dict[str, Any]:
        options = self._options
        return {
            "features": list(FEATURES),
            "max_frame_size": options.max_frame_size,
            "heartbeat": options.heartbeat_interval,
            "agent": self._own.agent,
        }

    def _welcome(self, version: int, hello: Hello) -> Welcome:
        welcome = StreamWelcome(
            version,
            **self._introduction(),
            max_attachments_size=self._options.max_attachments_size,
            session_window=self._session_window,
        )
        terms = self._own.terms
        if terms is None:
            return welcome
        return dataclasses.replace(
            welcome,
            instance=terms.instance,
            session_timeout=terms.timeout,
            incarnation=terms.incarnation_of(session) if (session := _session_of(hello)) else "",
        )

    def _on_hello(self, hello: Hello, events: list[Inbound]) -> None:
        if self._role is Role.CLIENT:
            raise RemoteProtocolError("control", "the server sent a hello, which is the client's to send")
        if self.protocol != "plain":
            raise RemoteProtocolError("control", "the peer introduced itself twice")
        if not self._hello:
            return
        version = next((version for version in PROTOCOL_VERSIONS if version in hello.versions), None)
        if version is None:
            offered = ", ".join(map(str, hello.versions[:MAX_TEXT])) or "none"
            message = f"this side speaks version {PROTOCOL_VERSIONS[0]} of the protocol, the other side {offered}"
            message = message[:MAX_TEXT]
            self._answer(self._control(Goodbye("version", message)))
            raise RemoteProtocolError("version", message)
        if self._own.refusal is not None:
            self._answer(self._control(Goodbye(*self._own.refusal)))
            raise RemoteProtocolError(*self._own.refusal)
        welcome = self._welcome(version, hello)
        self._meet(version, hello, events, welcome.incarnation if isinstance(welcome, StreamWelcome) else "")
        self._answer(self._control(welcome))

    def _refuse_hello(self, error: RemoteProtocolError) -> None:
        """Tell a peer that means to introduce itself why it cannot; it is a plain one yet, and hears nothing else."""
        if self._role is Role.SERVER and self._hello and self.protocol == "plain":
            self._answer(self._control(Goodbye(error.code, str(error)[:MAX_TEXT])))

    def _on_welcome(self, welcome: Welcome, events: list[Inbound]) -> None:
        if self._role is Role.SERVER or not self._hello or self.protocol != "plain":
            raise RemoteProtocolError("control", "the peer sent a welcome that nobody asked for")
        if welcome.version not in PROTOCOL_VERSIONS:
            raise RemoteProtocolError("version", f"the server chose version {welcome.version}, which was not offered")
        incarnation = _short(welcome.incarnation) if isinstance(welcome, StreamWelcome) else ""
        self._meet(welcome.version, welcome, events, incarnation)

    def _meet(self, version: int, peer: Hello | Welcome, events: list[Inbound], incarnation: str) -> None:
        self._peer_speaks_pyipc = True
        self.protocol = f"pyipc/{version}"
        self._heed_limit(peer)
        heartbeat = peer.heartbeat
        if heartbeat is not None:
            heartbeat = min(max(heartbeat, SHORTEST_HEARTBEAT), _LONGEST_HEARTBEAT)
        self.features = self._shared_features(peer)
        if ATTACHMENTS in self.features and isinstance(peer, StreamHello | StreamWelcome):
            self._takes_records = True
            theirs = peer.max_attachments_size
            self._attachments_limit = None if theirs is None else min(theirs, self._options.max_attachments_size)
        window = _window(peer)
        if window != MAX_WINDOW:
            self.session_window = window
        events.append(
            Introduced(
                self.protocol,
                heartbeat,
                one_line(peer.agent),
                session=_session_of(peer),
                instance=_short(peer.instance) if isinstance(peer, StreamWelcome) else "",
                session_timeout=_seconds(peer.session_timeout) if isinstance(peer, StreamWelcome) else 0.0,
                incarnation=incarnation,
                session_window=window,
            )
        )

    def _shared_features(self, peer: Hello | Welcome) -> frozenset[str]:
        """The optional parts that both sides have."""
        return _ALL_FEATURES if peer.features == list(FEATURES) else _ALL_FEATURES.intersection(peer.features)

    def _heed_limit(self, peer: Hello | Welcome) -> None:
        """Send nothing larger than the peer says that it accepts."""
        options = self._options
        limit = options.max_frame_size if peer.max_frame_size is None else peer.max_frame_size
        if limit < 1:
            raise RemoteProtocolError("control", "the peer accepts no frame at all (max_frame_size)")
        self._send_limit = min(options.max_frame_size, limit)
        self.known_size = min(2 * options.max_depth, self._send_limit)

    def _answer(self, frame: bytes) -> None:
        self._answers += frame
        self.has_data_to_send = True

    def data_to_send(self) -> bytes:
        answers, self._answers = self._answers, b""
        self.has_data_to_send = False
        return answers


def _session_of(peer: Hello | Welcome) -> str:
    return _short(peer.session) if isinstance(peer, StreamHello) else ""


def _window(peer: Hello | Welcome) -> int:
    window = peer.session_window if isinstance(peer, StreamHello | StreamWelcome) else None
    return MAX_WINDOW if window is None else min(max(window, 1), MAX_WINDOW)


def _short(name: str) -> str:
    """A name that the peer chose, if it is not absurdly long."""
    return name if len(name) <= MAX_TEXT else ""


def _seconds(value: float | None) -> float:
    return min(max(value or 0.0, 0.0), _LONGEST_SESSION)
