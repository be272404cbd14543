"""Frames that are JSON and not what a frame must be: names, fields, numbers."""

from __future__ import annotations

from typing import Any

from tests.battery.catalogue.cases import (
    FF,
    PLAIN,
    Chapter,
    House,
    closed,
    control,
    event,
    frame,
    kept,
    request,
    says,
)

__all__ = ["CHAPTER"]

GOOD = frame("e", 1)
HEARD = (("e", 1),)
SKIPS: dict[str, Any] = {"first": PLAIN, "house": House.SKIPS, "hears": HEARD}
E16 = "e." + "x" * 14

SHAPE = (
    closed("an array", "envelope", b"[]" + FF),
    closed("an array of name and data", "envelope", b'["e",1]' + FF),
    closed("a string", "envelope", b'"e"' + FF),
    closed("a number", "envelope", b"1" + FF),
    closed("null", "envelope", b"null" + FF),
    closed("true", "envelope", b"true" + FF),
    closed("an object without fields", "envelope", b"{}" + FF),
    closed("data without a name", "envelope", b'{"data":1}' + FF),
    closed("a name that is null", "envelope", b'{"type":null,"data":1}' + FF),
    closed("a name that is a number", "envelope", b'{"type":1,"data":1}' + FF),
    closed("a name that is true", "envelope", b'{"type":true,"data":1}' + FF),
    closed("a name that is an array", "envelope", b'{"type":["e"],"data":1}' + FF),
    closed("a name that is an object", "envelope", b'{"type":{"e":1},"data":1}' + FF),
    closed("the name under Type", "envelope", b'{"Type":"e","data":1}' + FF),
    closed("the name under event", "envelope", b'{"event":"e","data":1}' + FF),
    closed("JSON-RPC", "envelope", b'{"jsonrpc":"2.0","method":"e","id":1}' + FF),
    closed("an array around a good frame", "envelope", b"[" + GOOD[:-1] + b"]" + FF),
    closed("a string around a good frame", "envelope", b'"{\\"type\\":\\"e\\"}"' + FF),
    kept("no data, which is null", b'{"type":"e"}' + FF, hears=(("e", None),)),
    kept("data before the name", b'{"data":1,"type":"e"}' + FF, hears=HEARD),
    kept("fields that nobody knows", b'{"type":"e","data":1,"id":7,"x":[{}]}' + FF, hears=HEARD),
    kept("the name in escapes", b'{"\\u0074ype":"\\u0065","data":1}' + FF, hears=HEARD),
    kept("an array, from a plain peer", b"[]" + FF + GOOD, **SKIPS),
    kept("no name, from a plain peer", b"{}" + FF + GOOD, **SKIPS),
)
NAMES = (
    kept("an empty name", event(b"1", b""), unheard=1),
    kept("a name that nobody handles", event(b"1", b"nobody"), unheard=1),
    kept("a request sent as an event", event(b"1", b"echo")),
    kept("as long as may be", event(b"1", E16.encode()), hears=((E16, 1),), house=House.SMALL),
    closed("one byte too long", "name", event(b"1", E16.encode() + b"x"), house=House.SMALL),
    closed("too long in bytes, not in characters", "name", event(b"1", ("é" * 9).encode()), house=House.SMALL),
    kept("256 bytes, the default limit", event(b"1", b"e." + b"x" * 254), hears=(("e." + "x" * 254, 1),)),
    closed("257 bytes", "name", event(b"1", b"x" * 257)),
    closed("64 KiB", "name", event(b"1", b"x" * 65_536)),
    closed("257 bytes, all of them escapes", "name", event(b"1", b"\\u0000" * 257)),
    closed("too long, in a request", "name", request(1, "x" * 257)),
    kept("too long, from a plain peer", event(b"1", b"x" * 257) + GOOD, **SKIPS),
    kept("pyipc without a dot", frame("pyipc", 1), hears=(("pyipc", 1),)),
    kept("pyipcx", frame("pyipcx", 1), hears=(("pyipcx", 1),)),
    kept("PYIPC.hello", frame("PYIPC.hello", 1), hears=(("PYIPC.hello", 1),)),
    kept("pyipc. alone, reserved: ignored", frame("pyipc.", 1)),
    kept("pyipc.later, reserved: ignored", frame("pyipc.later", {"a": 1})),
    kept("pyipc.hello.more, reserved: ignored", frame("pyipc.hello.more", [1])),
    kept("a name of 100,000 bytes that is reserved: ignored", frame("pyipc." + "x" * 100_000)),
    closed("a request for a reserved name", "name", request(1, "pyipc.hello")),
    closed("a request for pyipc. alone", "name", request(1, "pyipc.")),
    closed("a confirmed event of a reserved name", "name", control("deliver", number=1, event="pyipc.ping")),
    closed("a traced event of a reserved name", "name", control("event", event="pyipc.goodbye")),
    closed("a stream of a reserved name", "name", control("stream", call=1, event="pyipc.item")),
    *(
        kept(f"{name}", frame(name, 1), hears=((name, 1),))
        for name in ("__proto__", "constructor", "hasOwnProperty", "toString", "__class__", "__init__", "connect")
    ),
    kept("a NUL", frame("\0", 1), hears=(("\0", 1),)),
    kept("a newline", frame("\n", 1), hears=(("\n", 1),)),
    kept("a lone surrogate", frame("\ud800", 1), hears=(("\ud800", 1),)),
    kept("a mark that turns the direction of text", frame("\u202e", 1), hears=(("\u202e", 1),)),
    kept("*, which is a name like others here", frame("*", 1), unheard=1),
    kept("10,000 different names", b"".join(frame(f"x{number}") for number in range(10_000)), unheard=10_000),
)
FIELDS = (
    closed("a request whose data is null", "control", frame("pyipc.request")),
    closed("a request whose data is an array", "control", frame("pyipc.request", [1, "echo"])),
    closed("a request whose data is a string", "control", frame("pyipc.request", "echo")),
    closed("a request without number", "control", control("request", event="echo")),
    closed("a request without name", "control", control("request", call=1)),
    closed("a request with nothing", "control", control("request")),
    closed("a number as text", "control", control("request", call="1", event="echo")),
    closed("a number that is null", "control", control("request", call=None, event="echo")),
    closed("a number that is true", "control", control("request", call=True, event="echo")),
    closed("a number with a fraction", "control", control("request", call=1.5, event="echo")),
    closed("a number in an array", "control", control("request", call=[1], event="echo")),
    closed("a number below 0", "control", request(-1)),
    closed("2^53", "control", request(2**53)),
    closed("2^63", "control", request(2**63)),
    closed("2^64", "control", request(2**64)),
    closed("a number of 400 digits", "control", request(10**400)),
    closed("a name that is null", "control", control("request", call=1, event=None)),
    closed("a name that is a number", "control", control("request", call=1, event=7)),
    closed("a name that is an array", "control", control("request", call=1, event=["echo"])),
    closed("a trace that is a number", "control", control("request", call=1, event="echo", traceparent=1)),
    kept(
        "a trace that is none: ignored",
        control("request", call=1, event="echo", data=5, traceparent="x"),
        told=(says("reply", call=1, data=5),),
    ),
    closed("a reply without number", "control", control("reply", data=1)),
    closed("an error without code", "control", control("error", call=1)),
    closed("an error whose code is a number", "control", control("error", call=1, code=500)),
    closed("a cancel without number", "control", control("cancel")),
    closed("a cancel of a number as text", "control", control("cancel", call="1")),
    closed("a cancel of a number below 0", "control", control("cancel", call=-1)),
    closed("a goodbye whose code is a number", "control", control("goodbye", code=1)),
    closed("a goaway whose message is an array", "control", control("goaway", message=[])),
    closed("a ping whose data is a number", "control", frame("pyipc.ping", 1)),
    closed("a ping whose data is an array", "control", frame("pyipc.ping", [])),
    kept("a ping without data", b'{"type":"pyipc.ping"}\f'),
    kept("a ping with fields that nobody knows", control("ping", a=1)),
    kept(
        "a request with fields that nobody knows",
        control("request", call=1, event="echo", id=7, x=[{}]),
        told=(says("reply", call=1, data=None),),
    ),
    kept(
        "a field twice: the last one counts",
        b'{"type":"pyipc.request","data":{"call":9,"call":1,"event":"echo"}}\f',
        told=(says("reply", call=1, data=None),),
    ),
    closed("a field whose name is half a character", "control", b'{"type":"pyipc.ping","data":{"\\ud800":1}}\f'),
    kept("number 0", request(0), told=(says("reply", call=0, data=None),)),
    kept(
        "number -0",
        b'{"type":"pyipc.request","data":{"call":-0,"event":"echo"}}\f',
        told=(says("reply", call=0, data=None),),
    ),
    closed("number 1.0", "control", b'{"type":"pyipc.request","data":{"call":1.0,"event":"echo"}}\f'),
    closed("number 1e0", "control", b'{"type":"pyipc.request","data":{"call":1e0,"event":"echo"}}\f'),
)

CHAPTER = Chapter(
    "Envelope and fields",
    'A frame is `{"type": name, "data": any JSON}`. Names are texts without meaning, whatever they mean to Python '
    "or JavaScript; those that begin with `pyipc.` are the protocol's own, and unknown ones of them are ignored, "
    "since a later version may have them. *Small limits* are names of 16 bytes.",
    {"The envelope": SHAPE, "Names": NAMES, "Fields": FIELDS},
)
