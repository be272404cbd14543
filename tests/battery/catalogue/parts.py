"""Confirmed events and streams: numbers, credit, and frames at the wrong time."""

from __future__ import annotations

from typing import Any

from tests.battery.catalogue.cases import (
    ANSWER,
    PLAIN,
    WELCOME,
    Chapter,
    House,
    Told,
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

__all__ = ["CHAPTER"]

HEARD = (("e", 1),)
SMALL: dict[str, Any] = {"house": House.SMALL}
BARE = control("hello", versions=[1])


def deliver(number: Any, lowest: Any = 0, /, **fields: Any) -> bytes:
    return control("deliver", **{"number": number, "event": "e", "data": 1, "lowest": lowest, **fields})


def done(number: int, code: str = "", **more: Any) -> Told:
    """An outcome; fields that have their default are left out."""
    return says("outcome", number=number, **({"code": code} if code else {}), **more)


def rows(call: Any, count: Any, items: Any = 100, size: Any = 10_000, /, **fields: Any) -> bytes:
    return control("stream", **{"call": call, "event": "rows", "data": count, "items": items, "size": size, **fields})


def credit(call: Any, items: Any = 1, size: Any = 1) -> bytes:
    return control("credit", call=call, items=items, size=size)


def items(call: int, *numbers: int) -> tuple[Told, ...]:
    return tuple(says("item", call=call, data=number) for number in numbers)


def end(call: int) -> Told:
    return says("end", call=call)


def failure(call: int, code: str, data: object = None) -> Told:
    return says("error", call=call, code=code, data=data)


def session(name: str) -> dict[str, Any]:
    return {"first": control("hello", versions=[1], features=["confirm"], session=name)}


CONFIRMED = (
    kept("without a session", deliver(1, 1), hears=HEARD, told=(done(1),)),
    kept("with a session", deliver(1, 1), hears=HEARD, told=(done(1),), **session("a")),
    kept("from a plain peer", deliver(1, 1), first=PLAIN, hears=HEARD, told=(done(1),)),
    kept("from a pyipc peer that has not named the feature", deliver(1, 1), first=BARE, hears=HEARD, told=(done(1),)),
    kept("twice with one number: handled once", deliver(1, 1) * 2, hears=HEARD, told=(done(1), done(1))),
    kept("a hundred times with one number", deliver(1, 1) * 100, hears=HEARD, told=(done(1),) * 100),
    kept(
        "twice with one number, and other data",
        deliver(1, 1) + deliver(1, 1, data=2),
        hears=HEARD,
        told=(
            done(1),
            done(1),
        ),
    ),
    kept("number 0", deliver(0), hears=HEARD, told=(done(0),)),
    kept("a number after a gap", deliver(1, 1) + deliver(1_000, 1), hears=HEARD * 2, told=(done(1), done(1_000))),
    kept("numbers that go backwards", deliver(5, 1) + deliver(3, 1), hears=HEARD * 2, told=(done(5), done(3))),
    kept("a number below the lowest: no answer", deliver(9, 9) + deliver(3, 3), hears=HEARD, told=(done(9),)),
    kept("a lowest that goes backwards", deliver(9, 9) + deliver(10, 1), hears=HEARD * 2, told=(done(9), done(10))),
    kept("the largest number", deliver(2**53 - 1, 2**53 - 1), hears=HEARD, told=(done(2**53 - 1),)),
    closed("2^53", "control", deliver(2**53, 2**53)),
    closed("a number below 0", "control", deliver(-1)),
    closed("a number with a fraction", "control", deliver(1.5)),
    closed("a number as text", "control", deliver("1")),
    closed("a number that is null", "control", deliver(None)),
    closed("a number that is true", "control", deliver(True)),
    closed("no number", "control", control("deliver", event="e")),
    closed("no event", "control", control("deliver", number=1)),
    closed("an event that is a number", "control", deliver(1, 1, event=1)),
    closed("a lowest above the number", "control", deliver(1, 2)),
    closed("a lowest below 0", "control", deliver(1, -1)),
    closed("a lowest that is text", "control", deliver(1, "1")),
    closed("again that is a number", "control", deliver(1, 1, again=1)),
    kept("again, though it never came", deliver(1, 1, again=True), hears=HEARD, told=(done(1),)),
    kept("the highest number in the window", deliver(8, 1), hears=HEARD, told=(done(8),), **SMALL),
    closed("one above the window", "control", deliver(9, 1), **SMALL),
    closed("far above the window", "control", deliver(2**53 - 1)),
    closed("65,536 above the lowest", "control", deliver(65_536)),
    kept("an event that nobody handles", deliver(1, 1, event="nobody"), unheard=1, told=(done(1, "no-handler"),)),
    kept("an empty name", deliver(1, 1, event=""), unheard=1, told=(done(1, "no-handler"),)),
    kept(
        "data that does not fit",
        deliver(1, 1, event="typed", data="x"),
        told=(done(1, "invalid-data", data={"path": "$"}),),
    ),
    kept("the handler refuses", deliver(1, 1, event="fails"), told=(done(1, "busy", data={"wait": 1}),)),
    kept("attached bytes", record(b"x") + deliver(1, 1), hears=(("e", 1, b"x"),), told=(done(1),)),
    kept(
        "in order with plain events",
        frame("e", 0) + deliver(1, 1) + frame("e", 2),
        hears=(
            ("e", 0),
            ("e", 1),
            ("e", 2),
        ),
        told=(done(1),),
    ),
    kept(
        "in the hello's own read",
        session("b")["first"] + deliver(1, 1),
        first=PLAIN,
        hears=HEARD,
        told=(
            WELCOME,
            done(1),
        ),
    ),
    cut_off("half of it, and the end of the stream", deliver(1, 1)[:-5]),
    kept(
        "half a character as name",
        event(b'{"number":1,"event":"\\ud800","lowest":1}', b"pyipc.deliver"),
        hears=(("\ud800", None),),
        told=(done(1),),
    ),
)
OUTCOMES = (
    kept("of a number that was never sent: ignored", control("outcome", number=1)),
    kept("of the largest number: ignored", control("outcome", number=2**53 - 1)),
    kept("of an event of its own: ignored", deliver(1, 1) + control("outcome", number=1), hears=HEARD, told=(done(1),)),
    closed("of 2^53", "control", control("outcome", number=2**53)),
    closed("of a number below 0", "control", control("outcome", number=-1)),
    closed("of no number", "control", control("outcome")),
    closed("of a number as text", "control", control("outcome", number="1")),
    closed("with a code that is a number", "control", control("outcome", number=1, code=1)),
    kept("10,000 of them", b"".join(control("outcome", number=number) for number in range(10_000))),
)
STREAMS = (
    kept("three items", rows(1, 3), told=(*items(1, 0, 1, 2), end(1))),
    kept("no items", rows(1, 0), told=(end(1),)),
    kept("from a plain peer", rows(1, 1), first=PLAIN, told=(*items(1, 0), end(1))),
    kept("no credit: nothing comes", rows(1, 3, 0, 0), control("cancel", call=1)),
    kept("credit for one item", rows(1, 3, 1), ANSWER, control("cancel", call=1), told=items(1, 0)),
    kept(
        "credit for one byte, which is enough for one item",
        rows(1, 3, 9, 1),
        ANSWER,
        control("cancel", call=1),
        told=items(1, 0),
    ),
    kept("credit later", rows(1, 3, 0, 0), credit(1, 9, 9_000), told=(*items(1, 0, 1, 2), end(1))),
    kept("credit of nothing", rows(1, 3, 0, 0), credit(1, 0, 0), control("cancel", call=1)),
    kept("the largest credit there is", rows(1, 1, 2**53 - 1, 2**53 - 1), told=(*items(1, 0), end(1))),
    kept(
        "more credit than a number can count",
        rows(1, 2, 0, 0),
        credit(1, 2**53 - 1, 2**53 - 1) * 9,
        told=(
            *items(1, 0, 1),
            end(1),
        ),
    ),
    closed("credit below 0", "control", rows(1, 3, 0, 0) + credit(1, -1)),
    closed("credit below 0, in bytes", "control", rows(1, 3, 0, 0) + credit(1, 1, -1)),
    closed("credit of 2^53", "control", rows(1, 3, 0, 0) + credit(1, 2**53)),
    closed("credit with a fraction", "control", credit(1, 0.5)),
    closed("credit as text", "control", credit(1, "1")),
    closed("credit without a call", "control", control("credit", items=1)),
    closed("credit below 0, at the opening", "control", rows(1, 3, -1)),
    closed("credit below 0 in bytes, at the opening", "control", rows(1, 3, 1, -1)),
    closed("credit of 2^64, at the opening", "control", rows(1, 3, 2**64)),
    kept("credit for a stream that never was: ignored", credit(7)),
    kept("credit for a request: ignored", request(1, "wait") + credit(1) + control("cancel", call=1)),
    kept("credit for a stream that is over: ignored", rows(1, 0), ANSWER, credit(1), told=(end(1),)),
    closed("opened twice with one number", "control", rows(1, 3, 0, 0) + rows(1, 3)),
    closed("a request with the number of a stream", "control", rows(1, 3, 0, 0) + request(1)),
    kept("the number of a stream that is over", rows(1, 0), ANSWER, rows(1, 0), told=(end(1), end(1))),
    kept("cancelled twice", rows(1, 3, 0, 0), control("cancel", call=1) * 2),
    kept("cancelled before it was asked for", control("cancel", call=1) + rows(1, 0), told=(end(1),)),
    closed("number -1", "control", rows(-1, 3)),
    closed("number 2^53", "control", rows(2**53, 3)),
    closed("no number", "control", control("stream", event="rows")),
    closed("no name", "control", control("stream", call=1)),
    closed("a name that is an object", "control", rows(1, 3, 1, 1, event={})),
    kept("nobody streams that", rows(1, 3, 1, 1, event="nobody"), told=(failure(1, "no-handler"),)),
    kept("a request asked for as a stream", rows(1, 3, 1, 1, event="echo"), told=(failure(1, "not-a-stream"),)),
    kept("data that the generator does not take", rows(1, "x"), told=(failure(1, "invalid-data", {"path": "$"}),)),
    kept(
        "one more than may be under way",
        rows(1, 1, 0) + rows(2, 1, 0) + rows(3, 1, 0),
        *(control("cancel", call=call) for call in (1, 2)),
        told=(failure(3, "too-many"),),
        **SMALL,
    ),
    kept(
        "100 at once",
        b"".join(rows(number, 1, 0) for number in range(100)),
        b"".join(control("cancel", call=number) for number in range(64)),
        told=tuple(failure(number, "too-many") for number in range(64, 100)),
    ),
    closed("an item to who streams", "control", rows(1, 3, 0, 0) + control("item", call=1, data=1)),
    closed("an end to who streams", "control", rows(1, 3, 0, 0) + control("end", call=1)),
    closed("a reply to who streams", "control", rows(1, 3, 0, 0) + control("reply", call=1)),
    closed("an item without number", "control", control("item", data=1)),
    closed("an end of a number as text", "control", control("end", call="1")),
)
TRACES = (
    kept("an event with a trace that is none", control("event", event="e", data=1, traceparent="x"), hears=HEARD),
    kept(
        "an event with a trace of 100,000 characters",
        control("event", event="e", data=1, traceparent="0" * 100_000),
        hears=HEARD,
    ),
    closed("an event whose trace is null", "control", control("event", event="e", traceparent=None)),
    closed("an event without name", "control", control("event", data=1)),
    kept("an event with an empty name", control("event", event=""), unheard=1),
)

CHAPTER = Chapter(
    "Confirmed events and streams",
    "A number is handled once however often it comes, and credit is what the receiver says. What comes for a "
    "stream that is over is ignored; what cannot be meant is refused. *Small limits* are a window of 8 numbers, "
    "and 2 streams.",
    {"Confirmed events": CONFIRMED, "Outcomes": OUTCOMES, "Streams": STREAMS, "Traces": TRACES},
)
