"""What a case of the catalogue is: bytes that a peer sends, and all that comes of them."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Any

from pyipc.protocol.parcels import RECORD

__all__ = [
    "ANSWER",
    "FF",
    "HELLO",
    "PLAIN",
    "RECORD",
    "WELCOME",
    "Case",
    "Chapter",
    "Heard",
    "House",
    "Told",
    "closed",
    "control",
    "cut_off",
    "event",
    "frame",
    "kept",
    "length",
    "nested",
    "record",
    "request",
    "says",
]

FF = b"\f"
#: Among the pieces that a peer sends: it waits until it is told one thing more.
ANSWER = b""

#: What a handler got: the name of the event, its data, and its attachments, if there were any.
Heard = tuple[Any, ...]
#: What the peer was told: the name of the frame without ``pyipc.``, and its fields without the words for people.
Told = tuple[str, dict[str, Any]]


class House(enum.Enum):
    """The server that gets it, in the words of the page."""

    DEFAULT = "default options"
    SMALL = "small limits"
    STRICT = "`plain_peers=False`"
    SKIPS = '`malformed="skip"`'
    HURRIED = "`plain_peers=False`, short time-outs"


#: The options of each.
OPTIONS: dict[House, dict[str, Any]] = {
    House.DEFAULT: {},
    House.SMALL: {
        "max_frame_size": 300,
        "max_depth": 5,
        "max_event_name_size": 16,
        "max_attachments": 3,
        "max_attachments_size": 100,
        "max_concurrent_streams": 2,
        "max_subscriptions": 3,
        "max_retained_topics": 2,
        "max_session_window": 8,
    },
    House.STRICT: {"plain_peers": False},
    House.SKIPS: {"malformed": "skip"},
    House.HURRIED: {"plain_peers": False, "handshake_timeout": 0.5, "frame_timeout": 0.5},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that a peer may do, and its documented outcome.

    Attributes:
        name: What it does, for people.
        sends: The bytes, in pieces; each arrives before the next one is sent. `ANSWER` among them is a wait.
        first: What the peer has sent before: `HELLO`, or `PLAIN` for one that has not introduced itself.
        code: Why the connection ends; empty where it goes on, and answers a request after it.
        hears: What handlers get of it.
        told: What the peer is told, apart from the goodbye.
        has_goodbye: Whether it is told why the connection ends.
        unheard: How many events there are that nobody handles.
        finishes: Whether the peer ends its stream after it.
        house: The server.
        passes: What descriptors go with the first piece, in the words of `descriptors`; over Unix sockets alone.
        family: What the page calls it, where it is one of many that differ in a number.
    """

    name: str
    sends: tuple[bytes, ...]
    first: bytes
    code: str = ""
    hears: tuple[Heard, ...] = ()
    told: tuple[Told, ...] = ()
    has_goodbye: bool = False
    unheard: int = 0
    finishes: bool = False
    house: House = House.DEFAULT
    passes: tuple[str, ...] = ()
    family: str = ""


@dataclasses.dataclass(frozen=True)
class Chapter:
    """Cases of one kind.

    Attributes:
        title: The heading.
        about: What the reader should know, in Markdown.
        sections: The cases under their headings; each has a name of its own there.
    """

    title: str
    about: str
    sections: dict[str, tuple[Case, ...]]

    @property
    def cases(self) -> dict[str, Case]:
        """All of them, by heading and name."""
        return {f"{title}: {case.name}": case for title, cases in self.sections.items() for case in cases}


# --- cases ------------------------------------------------------------------------------------------------------


def control(kind: str, /, **fields: Any) -> bytes:
    """A frame of the protocol's own."""
    return frame(f"pyipc.{kind}", fields)


def frame(name: str, data: Any = None) -> bytes:
    """Any frame, as JSON writes it."""
    return json.dumps({"type": name, "data": data}, separators=(",", ":")).encode() + FF


def request(call: int, name: str = "echo", data: Any = None) -> bytes:
    """A request."""
    return control("request", call=call, event=name, data=data)


def event(data: bytes, name: bytes = b"e") -> bytes:
    """The frame of an event whose data is this text, be it JSON or not."""
    return b'{"type":"%b","data":%b}\f' % (name, data)


def record(content: bytes) -> bytes:
    """A binary record as it should be."""
    return length(len(content)) + content


def length(size: int) -> bytes:
    """The beginning of a record with so many bytes, which need not follow."""
    return RECORD + size.to_bytes(8, "big")


def nested(levels: int) -> bytes:
    """JSON of so many levels."""
    return b"[" * levels + b"]" * levels


def says(kind: str, /, **fields: Any) -> Told:
    """What the peer is told."""
    return kind, fields


#: The first frame of a pyipc peer that can do everything.
HELLO = control(
    "hello",
    versions=[1],
    features=["attachments", "confirm", "streams", "topics"],
    max_attachments_size=1_000_000,
)
#: A plain peer has said nothing.
PLAIN = b""
WELCOME = says("welcome")


def kept(name: str, *sends: bytes, first: bytes = HELLO, **outcome: Any) -> Case:
    """The connection lives on."""
    return Case(name=name, sends=sends, first=first, **outcome)


def closed(name: str, code: str, *sends: bytes, first: bytes = HELLO, **outcome: Any) -> Case:
    """The connection is closed, and a peer that has introduced itself is told why."""
    outcome.setdefault("has_goodbye", bool(first))
    return Case(name=name, sends=sends, first=first, code=code, **outcome)


def cut_off(name: str, *sends: bytes, first: bytes = HELLO, **outcome: Any) -> Case:
    """The peer ends its stream after it, and what is not complete is dropped."""
    return Case(name=name, sends=sends, first=first, code="eof", finishes=True, **outcome)
