"""Topics and patterns: what is none, what is too much, and what comes from the wrong side."""

from __future__ import annotations

from typing import Any

from tests.battery.catalogue.cases import (
    PLAIN,
    Chapter,
    House,
    Told,
    closed,
    control,
    event,
    kept,
    record,
    request,
    says,
)

__all__ = ["CHAPTER"]

SMALL: dict[str, Any] = {"house": House.SMALL}


def subscribe(call: Any, pattern: Any, /, **fields: Any) -> bytes:
    return control("subscribe", call=call, pattern=pattern, **fields)


def publish(topic: Any, data: Any = None, /, **fields: Any) -> bytes:
    return control("publish", topic=topic, data=data, **fields)


def unsubscribe(call: Any) -> bytes:
    return control("unsubscribe", call=call)


def done(call: int) -> Told:
    return says("reply", call=call, data=None)


def refused(call: int, code: str) -> Told:
    return says("error", call=call, code=code, data=None)


def published(topic: str, data: Any = None, **fields: Any) -> Told:
    return says("published", topic=topic, **({} if data is None else {"data": data}), **fields)


def unpublished(topic: str, code: str) -> Told:
    return says("unpublished", topic=topic, code=code)


def dots(count: int, segment: str = "a") -> str:
    return ".".join([segment] * count)


PATTERNS = (
    kept("a topic", subscribe(1, "t") + publish("t", 1), told=(done(1), published("t", 1))),
    kept("* alone", subscribe(1, "*") + publish("t", 1) + publish("t.u", 2), told=(done(1), published("t", 1))),
    kept("** alone", subscribe(1, "**") + publish("t.u", 1), told=(done(1), published("t.u", 1))),
    kept(
        "*.*.*", subscribe(1, "*.*.*") + publish("a.b.c", 1) + publish("a.b", 2), told=(done(1), published("a.b.c", 1))
    ),
    kept("dots alone: empty segments", subscribe(1, "...") + publish("...", 1), told=(done(1), published("...", 1))),
    kept("empty", subscribe(1, ""), told=(refused(1, "bad-pattern"),)),
    kept("***", subscribe(1, "***"), told=(refused(1, "bad-pattern"),)),
    kept("* inside a segment", subscribe(1, "a*"), told=(refused(1, "bad-pattern"),)),
    kept("** that is not last", subscribe(1, "**.a"), told=(refused(1, "bad-pattern"),)),
    kept("** twice", subscribe(1, "**.**"), told=(refused(1, "bad-pattern"),)),
    kept("reserved", subscribe(1, "pyipc.*"), told=(refused(1, "bad-pattern"),)),
    kept("256 bytes", subscribe(1, "x" * 256), told=(done(1),)),
    kept("257 bytes", subscribe(1, "x" * 257), told=(refused(1, "bad-pattern"),)),
    kept("64 KiB", subscribe(1, "x" * 65_536), told=(refused(1, "bad-pattern"),)),
    kept("10,000 levels", subscribe(1, dots(10_000)), told=(refused(1, "bad-pattern"),)),
    kept("10,000 levels of wildcards", subscribe(1, dots(10_000, "*")), told=(refused(1, "bad-pattern"),)),
    kept("128 levels, as many as 256 bytes hold", subscribe(1, dots(128)), told=(done(1),)),
    kept("64 levels with a wildcard", subscribe(1, f"{dots(63)}.*"), told=(done(1),)),
    kept("65 levels with a wildcard", subscribe(1, f"{dots(64)}.*"), told=(refused(1, "too-many"),)),
    kept(
        "wildcards in 65 different ways",
        b"".join(subscribe(number, f"{dots(number)}.*") for number in range(1, 64))
        + subscribe(64, "*")
        + subscribe(65, "*.a"),
        told=(*map(done, range(1, 65)), refused(65, "too-many")),
    ),
    kept("a NUL", subscribe(1, "\0") + publish("\0", 1), told=(done(1), published("\0", 1))),
    kept(
        "control characters", subscribe(1, "\x1b[2J") + publish("\x1b[2J", 1), told=(done(1), published("\x1b[2J", 1))
    ),
    kept("half a character", subscribe(1, "\ud800"), told=(done(1),)),
    closed("a pattern that is null", "control", subscribe(1, None)),
    closed("a pattern that is a number", "control", subscribe(1, 7)),
    closed("a pattern that is an array", "control", subscribe(1, ["a", "b"])),
    closed("no pattern", "control", control("subscribe", call=1)),
)
SUBSCRIPTIONS = (
    closed("twice with one number", "control", subscribe(1, "a") + subscribe(1, "b"), told=(done(1),)),
    kept(
        "twice to one pattern: each message once",
        subscribe(1, "t") + subscribe(2, "t") + publish("t", 1),
        told=(
            done(1),
            done(2),
            published("t", 1),
        ),
    ),
    kept(
        "one more than may be",
        b"".join(subscribe(number, "t") for number in range(4)),
        told=(
            *map(done, range(3)),
            refused(3, "too-many"),
        ),
        **SMALL,
    ),
    kept("ended twice", subscribe(1, "t") + unsubscribe(1) * 2 + publish("t", 1), told=(done(1),)),
    kept("ended and never begun: ignored", unsubscribe(7)),
    kept(
        "begun again with its number", subscribe(1, "t") + unsubscribe(1) + subscribe(1, "t"), told=(done(1), done(1))
    ),
    kept("begun and ended 5,000 times", (subscribe(1, "t") + unsubscribe(1)) * 5_000, told=(done(1),) * 5_000),
    closed("no number", "control", control("subscribe", pattern="t")),
    closed("a number as text", "control", subscribe("1", "t")),
    closed("a number below 0", "control", subscribe(-1, "t")),
    closed("number 2^53", "control", subscribe(2**53, "t")),
    closed("ended without a number", "control", control("unsubscribe")),
    closed("ended by 2^53", "control", unsubscribe(2**53)),
    closed("retained that is a number", "control", subscribe(1, "t", retained=1)),
    kept("from a plain peer", subscribe(1, "t") + publish("t", 1), first=PLAIN, told=(done(1), published("t", 1))),
    kept(
        "a cancel is no end of it",
        subscribe(1, "t") + control("cancel", call=1) + publish("t", 1),
        told=(
            done(1),
            published("t", 1),
        ),
    ),
    kept(
        "with the number of a request that waits",
        request(1, "wait") + subscribe(1, "t") + control("cancel", call=1),
        told=(done(1),),
    ),
)
PUBLISHED = (
    kept("nobody has subscribed", publish("t", 1)),
    kept("an empty topic", publish("", 1), told=(unpublished("", "bad-pattern"),)),
    kept("a topic with a wildcard", publish("a.*", 1), told=(unpublished("a.*", "bad-pattern"),)),
    kept("a topic of wildcards", publish("**", 1), told=(unpublished("**", "bad-pattern"),)),
    kept("a topic with * inside", publish("a*b", 1), told=(unpublished("a*b", "bad-pattern"),)),
    kept("half a character as topic", publish("\ud800", 1), told=(unpublished("\ud800", "bad-pattern"),)),
    closed("a reserved topic", "name", publish("pyipc.hello", 1)),
    kept("a topic of 256 bytes", publish("x" * 256, 1)),
    closed("a topic of 257 bytes", "name", publish("x" * 257, 1)),
    closed("a topic of 64 KiB", "name", publish("x" * 65_536, 1)),
    closed("a topic of 10,000 levels", "name", publish(dots(10_000), 1)),
    kept("a topic of 128 levels", subscribe(1, "**") + publish(dots(128), 1), told=(done(1), published(dots(128), 1))),
    closed("a topic that is null", "control", publish(None)),
    closed("a topic that is a number", "control", publish(1)),
    closed("no topic", "control", control("publish", data=1)),
    closed("retain that is text", "control", publish("t", 1, retain="yes")),
    kept(
        "data of half a character",
        subscribe(1, "t") + event(b'{"topic":"t","data":"\\ud800"}', b"pyipc.publish"),
        told=(done(1), published("t", "\ud800")),
    ),
    kept(
        "attached bytes to who takes them not",
        subscribe(1, "t") + record(b"x") + publish("t", 1),
        first=control("hello", versions=[1], features=["topics", "attachments"]),
        told=(done(1),),
    ),
    kept(
        "more retained topics than may be",
        *(publish(f"t{number}", number, retain=True) for number in range(3)),
        told=(unpublished("t2", "too-many"),),
        **SMALL,
    ),
    kept("retained and asked for", subscribe(5, "t0"), told=(done(5), published("t0", call=5, data=0)), **SMALL),
    kept("retained and not asked for", subscribe(5, "t0", retained=False), told=(done(5),), **SMALL),
    closed("a message of the server's, from a client", "control", control("published", topic="t")),
    closed("a refusal of the server's, from a client", "control", control("unpublished", topic="t", code="x")),
    kept("10,000 messages that nobody wants", publish("t", 1) * 10_000),
)

CHAPTER = Chapter(
    "Topics",
    "A topic that is none, or may not be, is told to its sender, and the connection lives on; frames that cannot "
    "be meant end it. *Small limits* are 3 subscriptions, and 2 retained topics.",
    {"Patterns": PATTERNS, "Subscriptions": SUBSCRIPTIONS, "Something to publish": PUBLISHED},
)
