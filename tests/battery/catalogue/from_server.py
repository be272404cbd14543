"""The same from the other side: what a hostile server may send to a client that waits for it."""

from __future__ import annotations

from typing import Any

from tests.battery.catalogue.cases import (
    FF,
    PLAIN,
    RECORD,
    Case,
    Chapter,
    Told,
    closed,
    control,
    event,
    frame,
    kept,
    length,
    nested,
    record,
    request,
    says,
)

__all__ = ["CHAPTER", "CREDIT", "WELCOME_FRAME"]

#: The first frame of a server that can do everything.
WELCOME_FRAME = control(
    "welcome",
    version=1,
    features=["attachments", "confirm", "streams", "topics"],
    max_attachments_size=1_000_000,
    instance="i",
    session_timeout=120.0,
    incarnation="c",
)
GOOD = frame("e", 1)
HEARD = (("e", 1),)
#: For how many items of a stream the client gives credit: so few that all, and one more, come in one read.
CREDIT = 8
ASK, ROWS, SUBSCRIPTION = 1, 2, 3  # the calls of the client, of which it waits for an answer
NEW: dict[str, Any] = {"first": PLAIN}


def lives(name: str, *sends: bytes, first: bytes = WELCOME_FRAME, **outcome: Any) -> Case:
    return kept(name, *sends, first=first, **outcome)


def ends(name: str, code: str, *sends: bytes, first: bytes = WELCOME_FRAME, **outcome: Any) -> Case:
    return closed(name, code, *sends, first=first, **outcome)


def welcome(**fields: Any) -> bytes:
    return control("welcome", **{"version": 1, **fields})


def reply(call: Any, data: Any = None) -> bytes:
    return control("reply", call=call, data=data)


def item(call: Any, data: Any = None) -> bytes:
    return control("item", call=call, data=data)


def published(topic: Any, data: Any = None, **fields: Any) -> bytes:
    return control("published", topic=topic, data=data, **fields)


def answered(call: int, data: Any = None) -> Told:
    return says("reply", call=call, data=data)


WELCOMES = (
    lives("none: a plain server", GOOD, hears=HEARD, **NEW),
    lives("late, after an event", GOOD + welcome(), hears=HEARD, **NEW),
    lives("features that do not exist", welcome(features=["teleport"]), **NEW),
    lives("fields that nobody knows", welcome(id=7, x=[]), **NEW),
    lives("an instance of 100,000 characters: taken for none", welcome(instance="x" * 100_000), **NEW),
    lives("an agent that would move a cursor", welcome(agent="\x1b[2J"), **NEW),
    lives("a session_timeout below 0", welcome(session_timeout=-1), **NEW),
    lives("a session_window below 0", welcome(session_window=-1), **NEW),
    ends("a future version", "version", welcome(version=2), **NEW),
    ends("an old version", "version", welcome(version=0), **NEW),
    ends("no version", "control", control("welcome"), **NEW),
    ends("a version as text", "control", welcome(version="1"), **NEW),
    ends("features that are null", "control", welcome(features=None), **NEW),
    ends("an instance that is a number", "control", welcome(instance=1), **NEW),
    ends("an incarnation that is null", "control", welcome(incarnation=None), **NEW),
    ends("a session_timeout as text", "control", welcome(session_timeout="120"), **NEW),
    lives("a welcome for datagrams", control("welcome", version=1, token=None), **NEW),
    ends("max_frame_size 0", "control", welcome(max_frame_size=0), has_goodbye=True, **NEW),
    ends("twice", "control", WELCOME_FRAME),
    ends("a hello instead", "control", control("hello", versions=[1]), **NEW),
    ends("a hello after it", "control", control("hello", versions=[1])),
    ends("HTTP", "json", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + FF, **NEW),
    ends("an SSH banner", "json", b"SSH-2.0-OpenSSH_9.6\r\n" + FF, **NEW),
    ends("an alert of TLS", "tls", b"\x15\x03\x03\0\x02\x02\x28", **NEW),
    ends("a hello of TLS", "tls", b"\x16\x03\x03\0\x30\x02", **NEW),
    ends("a record before it", "json", record(b"x") + welcome(), **NEW),
)
FRAMES = (
    ends("an empty frame", "json", FF),
    ends("no JSON", "json", b"hello" + FF),
    ends("two values", "json", GOOD[:-1] + GOOD),
    ends("an array", "envelope", b"[]" + FF),
    ends("a name that is a number", "envelope", b'{"type":1}' + FF),
    ends("a name of 257 bytes", "name", frame("x" * 257)),
    ends("65 levels", "depth", event(nested(64))),
    ends(
        "100,000 levels in a reply",
        "depth",
        b'{"type":"pyipc.reply","data":{"call":1,"data":' + nested(100_000) + b"}}\f",
    ),
    ends("2 MiB without a delimiter", "size", b"x" * 2_097_152),
    ends("invalid UTF-8", "utf8", event(b'"\xff"')),
    ends("NaN in a reply", "json", b'{"type":"pyipc.reply","data":{"call":1,"data":NaN}}\f'),
    ends("1e400 in an item", "json", b'{"type":"pyipc.item","data":{"call":2,"data":1e400}}\f'),
    ends("5,000 digits in an item", "json", b'{"type":"pyipc.item","data":{"call":2,"data":' + b"9" * 5_000 + b"}}\f"),
    ends("a good event, and then nonsense", "json", GOOD + b"x" + FF, hears=HEARD),
    lives("a frame of a later version", control("later", x=1)),
    lives("an event that nobody handles", frame("nobody"), unheard=1),
    ends("a record of 2^63 bytes announced", "size", length(2**63)),
    ends("a record before a ping", "control", record(b"x") + control("ping")),
    ends("a record within a frame", "json", GOOD[:-1] + RECORD + FF),
    lives("a record before an event", record(b"x") + GOOD, hears=(("e", 1, b"x"),)),
)
ANSWERS = (
    lives("the reply", reply(ASK, 5), hears=(("ask", 5),)),
    lives("the reply twice: the second one is late", reply(ASK, 5) + reply(ASK, 6), hears=(("ask", 5),)),
    lives("an error", control("error", call=ASK, code="busy"), hears=(("ask", "RemoteError busy"),)),
    lives(
        "an error whose code is none",
        control("error", call=ASK, code="\x1b[2J"),
        hears=(("ask", "RemoteError unknown"),),
    ),
    lives("an error with an empty code", control("error", call=ASK, code=""), hears=(("ask", "RemoteError unknown"),)),
    lives(
        "an error with a message of 100,000 characters",
        control("error", call=ASK, code="busy", message="x" * 100_000),
        hears=(("ask", "RemoteError busy"),),
    ),
    lives(
        "an error, and then the reply",
        control("error", call=ASK, code="busy") + reply(ASK),
        hears=(("ask", "RemoteError busy"),),
    ),
    ends("a reply to a call that was never made", "control", reply(99)),
    ends("a reply to call 0", "control", reply(0)),
    ends("a reply to call -1", "control", reply(-1)),
    ends("a reply without number", "control", control("reply", data=1)),
    ends("a reply to a call as text", "control", reply("1")),
    ends("an error for a call that was never made", "control", control("error", call=99, code="x")),
    ends("an error without code", "control", control("error", call=ASK)),
    ends("an item in answer to a request", "control", item(ASK)),
    ends("an end in answer to a request", "control", control("end", call=ASK)),
    ends("a reply to a stream", "control", reply(ROWS)),
    ends("an item of a stream that was never asked for", "control", item(99)),
    ends("the end of a stream that was never asked for", "control", control("end", call=99)),
    ends("an item without number", "control", control("item")),
    lives(
        "two items and the end", item(ROWS, 1) + item(ROWS, 2) + control("end", call=ROWS), hears=(("rows", [1, 2]),)
    ),
    lives("an item after the end: ignored", control("end", call=ROWS) + item(ROWS, 1), hears=(("rows", []),)),
    lives("the end twice", control("end", call=ROWS) * 2, hears=(("rows", []),)),
    lives(
        "an item, and an error",
        item(ROWS, 1) + control("error", call=ROWS, code="busy"),
        hears=(("rows", "RemoteError busy"),),
    ),
    ends("one item more than there is credit for", "control", item(ROWS) * (CREDIT + 1)),
    ends("more bytes than there is credit for", "control", item(ROWS, "x" * 262_144) + item(ROWS)),
    lives(
        "one item that takes more than all credit",
        item(ROWS, "x" * 300_000) + control("end", call=ROWS),
        hears=(("rows", ["x" * 300_000]),),
    ),
    lives("credit for a request of the client's: ignored", control("credit", call=ASK, items=1)),
    lives("a cancel of a call of the client's: ignored", control("cancel", call=ASK)),
)
OTHERS = (
    lives("the outcome", control("outcome", number=1), hears=(("confirmed",),)),
    lives(
        "an outcome with a code", control("outcome", number=1, code="busy"), hears=(("confirmed", "RemoteError busy"),)
    ),
    lives("the outcome twice", control("outcome", number=1) * 2, hears=(("confirmed",),)),
    lives("the outcome of an event that was never sent: ignored", control("outcome", number=77)),
    ends("an outcome without number", "control", control("outcome")),
    lives(
        "a confirmed event",
        control("deliver", number=1, event="e", data=1, lowest=1),
        hears=HEARD,
        told=(says("outcome", number=1),),
    ),
    ends("a confirmed event far above the window", "control", control("deliver", number=70_000, event="e")),
    lives("a message before the subscription is answered: not for it", published("t", 1)),
    lives("the answer, and a message", reply(SUBSCRIPTION) + published("t", 1), hears=(("t", 1),)),
    lives("a message of another topic: ignored", reply(SUBSCRIPTION) + published("u", 1)),
    lives("a message for another subscription: ignored", reply(SUBSCRIPTION) + published("t", 1, call=99)),
    ends("a message without topic", "control", control("published", data=1)),
    ends("a message of a reserved topic", "name", published("pyipc.t")),
    ends("a message of a topic of 257 bytes", "name", published("x" * 257)),
    lives("a message of an empty topic: ignored", published("")),
    lives("a refusal of what was never published: ignored", control("unpublished", topic="x", code="\x1b[2J")),
    ends("a refusal without code", "control", control("unpublished", topic="x")),
    ends("a subscription, which is the client's to ask for", "control", control("subscribe", call=1, pattern="t")),
    ends("the end of a subscription, which is the client's to say", "control", control("unsubscribe", call=1)),
    ends("something to publish, which is the client's to send", "control", control("publish", topic="t")),
    lives("a request", request(1, "echo", 5), told=(answered(1, 5),)),
    lives(
        "a request that nobody handles",
        request(1, "nobody"),
        told=(says("error", call=1, code="no-handler", data=None),),
    ),
    ends("a request for a reserved name", "name", request(1, "pyipc.hello")),
    lives("10,000 pings", control("ping") * 10_000),
    ends("a goodbye", "goodbye", control("goodbye"), has_goodbye=False),
    ends("nonsense after a goodbye: not read", "goodbye", control("goodbye") + b"x", has_goodbye=False),
)

CHAPTER = Chapter(
    "From a server to a client",
    "The client waits for a reply, the items of a stream, the answer to a subscription, and the outcome of an event. "
    "Whatever the server sends, it ends this connection at most: the client connects again, with its subscription and "
    "its unconfirmed event, and what could not be answered raises `ConnectionLost`. Only where the server speaks no "
    "version of the protocol that the client knows, it gives up.",
    {"The welcome": WELCOMES, "Frames": FRAMES, "Answers": ANSWERS, "Confirmed events, topics, and others": OTHERS},
)
