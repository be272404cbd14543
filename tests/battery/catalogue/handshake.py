"""How a conversation begins, and everything else that may knock at the door."""

from __future__ import annotations

from typing import Any

from tests.battery.catalogue.cases import (
    FF,
    HELLO,
    PLAIN,
    WELCOME,
    Case,
    Chapter,
    House,
    closed,
    control,
    cut_off,
    event,
    frame,
    kept,
    record,
    request,
    says,
)

__all__ = ["CHAPTER", "CLIENT_HELLO"]

GOOD = frame("e", 1)
HEARD = (("e", 1),)
NEW: dict[str, Any] = {"first": PLAIN}
STRICT: dict[str, Any] = {"first": PLAIN, "house": House.STRICT}
HURRIED: dict[str, Any] = {"first": PLAIN, "house": House.HURRIED}
MET: dict[str, Any] = {"first": PLAIN, "told": (WELCOME,)}
STREAM = says("reply", call=1, data=None)

#: The beginning of a connection over TLS: a record of the handshake, with a hello of TLS 1.2.
CLIENT_HELLO = (
    b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + bytes(range(32)) + b"\x00\x00\x04\x13\x01\x00\xff\x01\x00"
)


def hello(**fields: object) -> bytes:
    return control("hello", **{"versions": [1], **fields})


def refused(name: str, code: str, sends: bytes) -> Case:
    """The peer means to introduce itself, so it is told what is wrong with that."""
    return closed(name, code, sends, told=(says("goodbye", code=code),), first=PLAIN)


VERSIONS = (
    kept("this version", hello(), **MET),
    kept("this version among others", hello(versions=[3, 2, 1]), **MET),
    kept("this version twice", hello(versions=[1, 1]), **MET),
    refused("an old version", "version", hello(versions=[0])),
    refused("a future version", "version", hello(versions=[2])),
    refused("a version below 0", "version", hello(versions=[-1])),
    refused("a version of 400 digits", "version", hello(versions=[10**400])),
    refused("no version", "version", hello(versions=[])),
    refused("10,000 versions", "version", hello(versions=[*range(2, 10_002)])),
    refused("versions left out", "control", control("hello")),
    refused("versions that are null", "control", hello(versions=None)),
    refused("a version instead of versions", "control", hello(versions=1)),
    refused("a version as text", "control", hello(versions=["1"])),
    refused("a version with a fraction", "control", hello(versions=[1.0])),
    refused("a version that is true", "control", hello(versions=[True])),
    refused("versions in versions", "control", hello(versions=[[1]])),
)
FIELDS = (
    kept("features that do not exist", hello(features=["teleport", "", "x" * 100_000]), **MET),
    kept("10,000 features", hello(features=[f"f{number}" for number in range(10_000)]), **MET),
    refused("features that are text", "control", hello(features="streams")),
    refused("a feature that is a number", "control", hello(features=[1])),
    refused("features that are null", "control", hello(features=None)),
    kept("the least max_frame_size, in which no answer fits", hello(max_frame_size=1_000), **MET),
    refused("max_frame_size 0", "control", hello(max_frame_size=0)),
    refused("max_frame_size below 0", "control", hello(max_frame_size=-1)),
    kept("max_frame_size of 400 digits", hello(max_frame_size=10**400), **MET),
    refused("max_frame_size with a fraction", "control", hello(max_frame_size=1.5)),
    refused("max_frame_size as text", "control", hello(max_frame_size="1")),
    kept("heartbeat 0: taken for 0.01 s", hello(heartbeat=None), **MET),
    kept("heartbeat 1e308: taken for a day", hello(heartbeat=1e308), **MET),
    refused("heartbeat as text", "control", hello(heartbeat="10")),
    closed("heartbeat that is NaN", "json", event(b'{"versions":[1],"heartbeat":NaN}', b"pyipc.hello"), **NEW),
    kept("an agent of 100,000 characters", hello(agent="x" * 100_000), **MET),
    kept("an agent that would move a cursor", hello(agent="\x1b[2J\n"), **MET),
    kept("half a character as agent", event(b'{"versions":[1],"agent":"\\ud800"}', b"pyipc.hello"), **MET),
    refused("an agent that is null", "control", hello(agent=None)),
    refused("an agent that is an object", "control", hello(agent={})),
    kept("no session", hello(session=""), **MET),
    kept("a session that is short", hello(session="x"), **MET),
    kept("a session of 256 characters", hello(session="s" * 256), **MET),
    kept("a session of 257 characters: taken for none", hello(session="s" * 257), **MET),
    kept("a session of 100,000 characters: taken for none", hello(session="s" * 100_000), **MET),
    kept("a session with a NUL", hello(session="\0"), **MET),
    kept("half a character as session", event(b'{"versions":[1],"session":"\\ud800"}', b"pyipc.hello"), **MET),
    refused("a session that is null", "control", hello(session=None)),
    refused("a session that is a number", "control", hello(session=1)),
    refused("a session that is an array", "control", hello(session=[])),
    kept("a window of 0: taken for 1", hello(session_window=0), **MET),
    kept("a window below 0: taken for 1", hello(session_window=-5), **MET),
    kept("a window of 2^64: taken for the largest", hello(session_window=2**64), **MET),
    refused("a window as text", "control", hello(session_window="8")),
    kept("max_attachments_size below 0", hello(features=["attachments"], max_attachments_size=-1), **MET),
    refused("max_attachments_size as text", "control", hello(max_attachments_size="1")),
    kept("fields that nobody knows", hello(id=7, token="x", versions_=[]), **MET),
    kept("a field twice: the last one counts", event(b'{"versions":[9],"versions":[1]}', b"pyipc.hello"), **MET),
    kept("a hello of 900,000 bytes", hello(padding="." * 900_000), **MET),
    closed("a hello of more than 1 MiB", "size", hello(padding="." * 1_100_000), **NEW),
    refused("a hello that is an array", "control", frame("pyipc.hello", [1])),
    refused("a hello without data", "control", b'{"type":"pyipc.hello"}\f'),
    closed("a hello with a record before it", "json", record(b"x") + hello(), **NEW),
)
ORDER = (
    kept("skipped: a plain peer", GOOD, hears=HEARD, **NEW),
    closed("repeated", "control", HELLO),
    closed("repeated at once", "control", HELLO + HELLO, told=(WELCOME,), has_goodbye=True, **NEW),
    closed("repeated with another version", "control", hello(versions=[2])),
    kept("late, after an event", GOOD + hello(), hears=HEARD, **MET),
    kept("late, after a request", request(1), hello(), first=PLAIN, told=(STREAM, WELCOME)),
    closed(
        "late and repeated", "control", GOOD + hello() + hello(), hears=HEARD, told=(WELCOME,), has_goodbye=True, **NEW
    ),
    kept("an event right behind it", hello() + GOOD, hears=HEARD, **MET),
    kept("in single bytes", *(bytes([byte]) for byte in hello()), **MET),
    closed("a welcome instead", "control", control("welcome", version=1), **NEW),
    closed("a welcome after the hello", "control", control("welcome", version=1)),
    kept("in capitals: an event that nobody handles", frame("PYIPC.HELLO", {"versions": [1]}), unheard=1, **NEW),
    cut_off("begun, and never finished", hello()[:30], **NEW),
    cut_off("nothing but the end of the stream", **NEW),
    closed("required, and an event comes", "hello", GOOD, **STRICT),
    closed("required, and a request comes", "hello", request(1), **STRICT),
    closed("required, and a ping comes", "hello", control("ping"), **STRICT),
    closed("required, and a frame of a later version comes", "hello", control("later"), **STRICT),
    closed("required, and a goodbye comes", "hello", control("goodbye"), **STRICT),
    closed("required, and an event comes before it", "hello", GOOD + hello(), **STRICT),
    closed("required, and nonsense comes", "json", b"x" + FF, **STRICT),
    closed("required, and an empty frame comes", "json", FF, **STRICT),
    closed(
        "required, and of another version",
        "version",
        hello(versions=[2]),
        told=(says("goodbye", code="version"),),
        **STRICT,
    ),
    kept("required, and there", hello(), told=(WELCOME,), **STRICT),
    closed("required, and repeated", "control", hello() + hello(), told=(WELCOME,), has_goodbye=True, **STRICT),
    cut_off("required, and nothing but the end of the stream", **STRICT),
    closed("required, and nothing comes", "handshake", **HURRIED),
    closed("required, and half of it comes", "handshake", hello()[:20], **HURRIED),
    closed("there, and then half a frame", "slow", hello() + GOOD[:9], told=(WELCOME,), has_goodbye=True, **HURRIED),
)


def _stranger(name: str, text: bytes, code: str = "json") -> tuple[Case, Case]:
    """Somebody else's words: refused where they would be a frame, dropped where they never end."""
    return (
        closed(f"{name}, and a delimiter", code, text + FF, **NEW),
        cut_off(f"{name}, and the end of the stream", text, **NEW),
    )


STRANGERS = (
    *_stranger("HTTP GET", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    *_stranger("HTTP POST with a good frame as body", b"POST / HTTP/1.1\r\n\r\n" + GOOD[:-1]),
    *_stranger("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
    *_stranger("an SSH banner", b"SSH-2.0-OpenSSH_9.6\r\n"),
    *_stranger("SMTP", b"EHLO example.org\r\n"),
    *_stranger("Redis", b"*1\r\n$4\r\nPING\r\n"),
    *_stranger("D-Bus", b"\0AUTH EXTERNAL 30\r\n"),
    *_stranger("ZeroMQ", b"\xff\0\0\0\0\0\0\0\1\x7f\3", "utf8"),
    *_stranger("nanomsg", b"\0SP\0\0\x50\0\0"),
    *_stranger("MessagePack", b"\x82\xa4type\xa1e\xa4data\1", "utf8"),
    *_stranger("a pickle", b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x02os", "utf8"),
    *_stranger("multiprocessing", b"\0\0\0\x14#CHALLENGE#{sha256}"),
    *_stranger("four bytes of length, and a good frame", b"\0\0\0\x17" + GOOD[:-1]),
    *_stranger("a name in front of the frame", b"pyipc/1 " + GOOD[:-1]),
    closed("a hello of TLS", "tls", CLIENT_HELLO, told=(says("goodbye", code="tls"),), **NEW),
    closed("the first byte of a hello of TLS", "tls", CLIENT_HELLO[:1], told=(says("goodbye", code="tls"),), **NEW),
    closed("an alert of TLS", "tls", b"\x15\x03\x03\0\x02\x02\x28", told=(says("goodbye", code="tls"),), **NEW),
    closed("a hello of TLS after a good frame", "json", GOOD + CLIENT_HELLO + FF, hears=HEARD, **NEW),
    closed(
        "a hello of TLS, where a hello is required", "tls", CLIENT_HELLO, told=(says("goodbye", code="tls"),), **STRICT
    ),
)

CHAPTER = Chapter(
    "Hello, and others at the door",
    "A peer that says hello is a pyipc peer from then on; one that does not is a plain one, unless the server "
    "requires it (`plain_peers=False`). Fields of the hello that nobody knows, and features that do not exist, "
    "are ignored.",
    {
        "Versions of a hello": VERSIONS,
        "Other fields of a hello": FIELDS,
        "When it comes": ORDER,
        "Who else may come": STRANGERS,
    },
)
