"""JSON both ways: one table for each direction fixes what happens to every awkward value."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import time
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyipc.errors import InvalidData, RemoteProtocolError, UnencodableData
from pyipc.protocol import codec, nesting
from pyipc.protocol.codec import Event
from pyipc.protocol.conversation import Role
from pyipc.protocol.features import Deliver
from pyipc.protocol.messages import Hello, Request
from tests.protocol.helpers import FF, conversation, cut, frame, nested, receive, received, told

NAN = float("nan")
INFINITY = float("inf")


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


class Color(enum.Enum):
    RED = "red"


class Word(str):
    __slots__ = ()


def deep(levels: int) -> object:
    value: object = []
    for _ in range(levels - 1):
        value = [value]
    return value


def endless() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


HIGH, LOW = "\ud83d", "\ude00"

# What stands in `data` on the wire, or None where the value cannot be sent.
OUTBOUND: dict[str, tuple[object, bytes | None]] = {
    "null": (None, b"null"),
    "false": (False, b"false"),
    "text": ("caf\u00e9 \U0001f600 \u2028\x7f", '"caf\u00e9 \U0001f600 \u2028\x7f"'.encode()),
    "escapes": ('\f\n\r\t\b\0\x01"\\/', b'"\\f\\n\\r\\t\\b\\u0000\\u0001\\"\\\\/"'),
    "nan": (NAN, b"null"),
    "infinity": ([INFINITY, -INFINITY, {"a": NAN}], b'[null,null,{"a":null}]'),
    "1e400": (1e400, b"null"),
    "minus zero": (-0.0, b"-0.0"),
    "2^53+1": (2**53 + 1, b"9007199254740993"),
    "-2^64": (-(2**64), b"-18446744073709551616"),
    "4300 digits": (10**4299, b"1" + b"0" * 4299),
    "5000 digits": (10**4999, None),
    "bytes": (b"\x00\xff", b'"AP8="'),
    "bytearray": (bytearray(b"\x00\xff"), b'"AP8="'),
    "set": ({1}, b"[1]"),
    "frozenset": (frozenset({"a"}), b'["a"]'),
    "tuple": ((1, 2), b"[1,2]"),
    "datetime": (
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        b'"2026-01-02T03:04:05Z"',
    ),
    "naive datetime": (datetime.datetime(2026, 1, 2, 3, 4, 5), b'"2026-01-02T03:04:05"'),
    "date": (datetime.date(2026, 1, 2), b'"2026-01-02"'),
    "uuid": (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
    "decimal": (decimal.Decimal("1.50"), b'"1.50"'),
    "enum": (Color.RED, b'"red"'),
    "dataclass": (Point(NAN, b"a"), b'{"x":null,"y":"YQ=="}'),
    "int keys": ({1: "a", -2: "b"}, b'{"1":"a","-2":"b"}'),
    "float key": ({1.5: "a"}, b'{"1.5":"a"}'),
    "keys that become one": ({1: "a", "1": "b"}, b'{"1":"a","1":"b"}'),
    "None as key": ({None: 1}, None),
    "bool as key": ({True: 1}, None),
    "tuple as key": ({(1, 2): 1}, None),
    "object": (object(), None),
    "function": (deep, None),
    "generator": (iter([1]), None),
    "complex": (1j, None),
    "subclass of str": (Word("a"), None),
    "endless": (endless(), None),
    "depth 63": (deep(63), nested(63)),
    "depth 64": (deep(64), None),  # the envelope is a level too
    "high surrogate": (HIGH, b'"\\ud83d"'),
    "low surrogate": (LOW, b'"\\ude00"'),
    "surrogates that make a pair": (HIGH + LOW, b'"\\ud83d\\ude00"'),
    "surrogates the wrong way round": (LOW + HIGH, b'"\\ude00\\ud83d"'),
    "surrogate beside text": ("\u00e9\ud800\U0001f600\n\\", '"\u00e9\\ud800\U0001f600\\n\\\\"'.encode()),
    "surrogate in a key": ({"a\udfff": 1}, b'{"a\\udfff":1}'),
    "surrogate with int key": ({1: "\ud800"}, b'{"1":"\\ud800"}'),
    "surrogate with NaN and dataclass": (
        {"p": Point(NAN, [HIGH, (INFINITY, 1.5)]), "s": {2}},
        b'{"p":{"x":null,"y":["\\ud83d",[null,1.5]]},"s":[2]}',
    ),
    "surrogate with bytes": ([HIGH, b"a"], b'["\\ud83d","YQ=="]'),
    "surrogate with object": ([HIGH, object()], None),
    "surrogate with None as key": ({HIGH: {None: 1}}, None),
    "surrogate in the endless": ([HIGH, endless()], None),
    "surrogate at depth 64": ([deep(63), HIGH], None),
    "surrogate with 5000 digits": ([HIGH, 10**4999], None),
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("name", OUTBOUND)
def test_outbound(name: str, role: Role) -> None:
    value, expected = OUTBOUND[name]
    side = conversation(role)
    if expected is None:
        with pytest.raises(UnencodableData, match="the data of 'e'"):
            side.event("e", value)
    else:
        assert side.event("e", value) == frame(expected) + FF
        # What we send, we and the standard library can read, and both read the same.
        (event,) = conversation(role).receive_data(side.event("e", value))
        assert isinstance(event, Event)
        assert event.data == json.loads(expected)


@pytest.mark.parametrize("name", OUTBOUND)
def test_outbound_in_a_request(name: str) -> None:
    value, expected = OUTBOUND[name]
    client = conversation(Role.CLIENT)
    if expected == nested(63):  # the data of a request is one level deeper than that of an event
        expected = None
    if expected is None:
        with pytest.raises(UnencodableData, match="the data of 'e'"):
            client.request("e", value)
        assert client.request("e", 1)[0] == 1  # the number was not used up
    else:
        _, sent = client.request("e", value)
        assert sent == b'{"type":"pyipc.request","data":{"call":1,"event":"e","data":' + expected + b"}}\f"


@pytest.mark.parametrize("event", ["e", "e\ud800"])
@pytest.mark.parametrize("data", [{"a": [1, None]}, "x\udc00", 1.5, float("nan")], ids=repr)
def test_what_was_encoded_before_stands_as_it_is(event: str, data: Any) -> None:
    twice = codec.control_frame(Deliver(1, event, codec.ready_json(data, event)), event)
    again = codec.decode(twice).data
    assert again == {"number": 1, "event": event, "data": None if data != data else data}


def test_what_cannot_be_encoded_is_found_the_first_time() -> None:
    with pytest.raises(UnencodableData):
        codec.ready_json(object(), "e")


def test_surrogates_in_the_name() -> None:
    client = conversation(Role.CLIENT)
    assert client.event("n\ud800", NAN) == b'{"type":"n\\ud800","data":null}\f'
    assert client.request("n\ud800", None)[1] == (
        b'{"type":"pyipc.request","data":{"call":1,"event":"n\\ud800","data":null}}\f'
    )
    server = conversation()
    assert told(server.receive_data(b'{"type":"n\\ud800","data":1}\f')) == [repr(Event("n\ud800", 1))]


OK = "ok"

# The whole frame; and the data of the event `e` that it is, or the code it is refused with.
INBOUND: dict[str, tuple[bytes, tuple[str, Any]]] = {
    "plain": (frame(b'{"a":[1,2.5,"x",true,null]}'), (OK, {"a": [1, 2.5, "x", True, None]})),
    "missing data": (b'{"type":"e"}', (OK, None)),
    "missing type": (b'{"data":1}', ("envelope", None)),
    "extra keys": (b'{"id":7,"type":"e","x":{"y":[1]},"data":1}', (OK, 1)),
    "extra key with 1e400": (b'{"type":"e","x":1e400}', ("json", None)),
    "extra key with 5000 digits": (b'{"type":"e","x":' + b"9" * 5000 + b"}", ("json", None)),
    "extra key with invalid UTF-8": (b'{"type":"e","x":"\xff"}', ("utf8", None)),
    "extra key that is invalid UTF-8": (b'{"type":"e","\xff":1}', ("utf8", None)),
    "extra key with a raw newline": (b'{"type":"e","x":"\n"}', ("json", None)),
    "extra key with NaN": (b'{"type":"e","x":NaN}', ("json", None)),
    "extra key with a surrogate": (b'{"type":"e","x":"\\ud800","\\udc00":1,"data":1}', (OK, 1)),
    "duplicate data": (b'{"type":"e","data":1,"data":2}', (OK, 2)),
    "duplicate key in data": (frame(b'{"a":1,"a":2}'), (OK, {"a": 2})),
    "duplicate type, the last counts": (b'{"type":5,"type":"e"}', (OK, None)),
    "duplicate type, the last is wrong": (b'{"type":"e","type":5}', ("envelope", None)),
    "escaped key": (b'{"t\\u0079pe":"e","data":1}', (OK, 1)),
    "white space around": (b' \t\r\n{ "type" : "e" , "data" : 1 } ', (OK, 1)),
    "numeric type": (b'{"type":5,"data":1}', ("envelope", None)),
    "null type": (b'{"type":null}', ("envelope", None)),
    "null": (b"null", ("envelope", None)),
    "number": (b"5", ("envelope", None)),
    "text": (b'"e"', ("envelope", None)),
    "text with a surrogate": (b'"\\ud800"', ("envelope", None)),
    "surrogate and numeric type": (b'{"type":5,"data":"\\ud800"}', ("envelope", None)),
    "array": (b'["e",1]', ("envelope", None)),
    "empty object": (b"{}", ("envelope", None)),
    "empty": (b"", ("json", None)),
    "white space": (b" \n ", ("json", None)),
    "not JSON": (b"{not json}", ("json", None)),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ("json", None)),
    "truncated": (b'{"type":"e","data":[1', ("json", None)),
    "trailing data": (frame(b"1") + b"x", ("json", None)),
    "two values": (frame(b"1") + frame(b"2"), ("json", None)),
    "two values on two lines": (frame(b"1") + b"\n" + frame(b"2"), ("json", None)),
    "trailing comma": (frame(b"[1,]"), ("json", None)),
    "comment": (frame(b"1/**/"), ("json", None)),
    "single quotes": (b"{'type':'e'}", ("json", None)),
    "NaN": (frame(b"NaN"), ("json", None)),
    "Infinity": (frame(b"Infinity"), ("json", None)),
    "-Infinity": (frame(b"-Infinity"), ("json", None)),
    "NaN with a surrogate": (frame(b'["\\ud800",NaN]'), ("json", None)),
    "1e400": (frame(b"1e400"), ("json", None)),
    "-1e400": (frame(b"-1e400"), ("json", None)),
    "1e400 with a surrogate": (frame(b'["\\ud800",1e400]'), ("json", None)),
    "1e-400": (frame(b"1e-400"), (OK, 0.0)),
    "-0.0": (frame(b"-0.0"), (OK, -0.0)),
    "-0": (frame(b"-0"), (OK, 0)),
    "01": (frame(b"01"), ("json", None)),
    "1.": (frame(b"1."), ("json", None)),
    "+1": (frame(b"+1"), ("json", None)),
    "0x1": (frame(b"0x1"), ("json", None)),
    "2^53+1": (frame(b"9007199254740993"), (OK, 2**53 + 1)),
    "2^64": (frame(b"18446744073709551616"), (OK, 2**64)),
    "4300 digits": (frame(b"9" * 4300), (OK, 10**4300 - 1)),
    "5000 digits": (frame(b"9" * 5000), ("json", None)),
    "5000 digits with a surrogate": (frame(b'["\\ud800",' + b"9" * 5000 + b"]"), ("json", None)),
    "float with 5000 digits": (frame(b"0." + b"1" * 5000), (OK, float("0." + "1" * 20))),
    "surrogate pair": (frame(b'"\\ud83d\\ude00"'), (OK, "\U0001f600")),
    "high surrogate": (frame(b'"\\ud83d"'), (OK, HIGH)),
    "low surrogate": (frame(b'"\\uDE00"'), (OK, LOW)),
    "surrogate and a pair": (frame(b'"\\ud83d\\ud83d\\ude00 1.5"'), (OK, HIGH + "\U0001f600 1.5")),
    "surrogates the wrong way round": (frame(b'"\\ude00\\ud83d"'), (OK, LOW + HIGH)),
    "surrogate in a key": (frame(b'{"\\ud83d":-1.5}'), (OK, {HIGH: -1.5})),
    "surrogate, escaped backslash": (frame(b'"\\\\ud83d"'), (OK, "\\ud83d")),
    "surrogate and broken JSON": (frame(b'"\\ud83d"]'), ("json", None)),
    "surrogate and invalid UTF-8": (frame(b'"\\ud83d\xff"'), ("utf8", None)),
    "surrogate as UTF-8": (frame(b'"\xed\xa0\xbd"'), ("utf8", None)),
    "surrogate at depth 64": (frame(b'["\\ud83d",' + nested(62) + b"]"), (OK, [HIGH, deep(62)])),
    "surrogate at depth 65": (frame(b'["\\ud83d",' + nested(63) + b"]"), ("depth", None)),
    "overlong UTF-8": (frame(b'"\xc0\xaf"'), ("utf8", None)),
    "beyond U+10FFFF": (frame(b'"\xf4\x90\x80\x80"'), ("utf8", None)),
    "cut UTF-8": (frame(b'"\xc3"'), ("utf8", None)),
    "invalid UTF-8 outside text": (b"\xff" + frame(b"1"), ("utf8", None)),
    "BOM": (b"\xef\xbb\xbf" + frame(b"1"), ("json", None)),
    "UTF-16 with BOM": ('{"type":"e"}'.encode("utf-16"), ("utf8", None)),
    "UTF-16": ('{"type":"e"}'.encode("utf-16-le"), ("json", None)),
    "UTF-32": ('{"type":"e"}'.encode("utf-32-be"), ("json", None)),
    "raw newline in text": (frame(b'"a\nb"'), ("json", None)),
    "raw tab in text": (frame(b'"a\tb"'), ("json", None)),
    "raw NUL in text": (frame(b'"a\x00b"'), ("json", None)),
    "raw 0x01 in text": (frame(b'"a\x01b"'), ("json", None)),
    "raw DEL in text": (frame(b'"a\x7fb"'), (OK, "a\x7fb")),
    "binary record": (b"\x01\x00\x00\x00\x01a", ("json", None)),
    "escaped NUL": (frame(b'"\\u0000"'), (OK, "\0")),
    "bad escape": (frame(b'"\\x41"'), ("json", None)),
    "short escape": (frame(b'"\\u12"'), ("json", None)),
    "U+2028": (frame('"\u2028"'.encode()), (OK, "\u2028")),
    "depth 64": (frame(nested(63)), (OK, deep(63))),
    "depth 65": (frame(nested(64)), ("depth", None)),
    "depth 65 of objects": (frame(b'{"a":' * 64 + b"1" + b"}" * 64), ("depth", None)),
    "depth 65 in an extra key": (b'{"type":"e","x":' + nested(64) + b"}", ("depth", None)),
    "depth 65 after flat ones": (frame(b"[" + b"[]," * 200 + nested(63) + b"]"), ("depth", None)),
    "depth 2, many brackets": (frame(b"[" + b",".join([b"[]"] * 200) + b"]"), (OK, [[]] * 200)),
    "brackets in text": (frame(b'"' + b"[{" * 100 + b'"'), (OK, "[{" * 100)),
    "brackets after an escaped quote": (frame(b'"\\"' + b"[" * 200 + b'"'), (OK, '"' + "[" * 200)),
    "brackets between backslashes": (frame(b'["\\\\",' + nested(63) + b"]"), ("depth", None)),
    "brackets after an escaped backslash": (frame(b'["\\\\\\"' + b"[" * 200 + b'"]'), (OK, ['\\"' + "[" * 200])),
    "depth 100,000": (b"[" * 100_000, ("depth", None)),
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("name", INBOUND)
def test_inbound(name: str, role: Role) -> None:
    wire, (code, value) = INBOUND[name]
    before, after = frame(b"1", b'"before"'), frame(b"2", b'"after"')
    expected = [repr(Event("e", value)) if code == OK else f"{code} (fatal)"]
    # Alone, among others in one chunk (which is where a batch may be taken), and a few bytes at a time.
    assert told(received(conversation(role), wire + FF)) == expected
    stream = before + FF + wire + FF + after + FF
    expected = [repr(Event("before", 1)), *expected]
    if code == OK:
        expected.append(repr(Event("after", 2)))
    assert told(received(conversation(role), stream)) == expected
    size = 1 if len(stream) < 10_000 else 997
    assert told(receive(conversation(role), cut(stream, size))) == expected


@pytest.mark.parametrize("name", INBOUND)
def test_inbound_is_skipped_on_request(name: str) -> None:
    wire, (code, value) = INBOUND[name]
    stream = frame(b"1") + FF + wire + FF + frame(b"2") + FF
    expected = [repr(Event("e", 1)), repr(Event("e", value)) if code == OK else code, repr(Event("e", 2))]
    assert told(received(conversation(malformed="skip"), stream)) == expected


def test_deeper_than_python_recurses() -> None:
    levels = 50_000
    wire = frame(nested(levels)) + FF
    (item,) = told(received(conversation(max_depth=levels + 1), wire))
    assert item == "depth (fatal)"
    wire = frame(b'["\\ud800",' + nested(levels) + b"]") + FF
    (item,) = told(received(conversation(max_depth=levels + 2), wire))
    assert item == "depth (fatal)"


# --- depth --------------------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\a'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[]{}"\\a', max_size=3), inner),
    max_leaves=20,
)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


@given(_json, st.integers(1, 6))
def test_too_deep_counts_as_a_parser_does(value: object, limit: int) -> None:
    assert nesting.too_deep(json.dumps(value).encode(), limit) is (_depth(value) > limit)


@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 2**20,
        b"[]" * 2**19,
        (b"[" * 64 + b"]" * 64) * 2**13,
        b"[[]" * (2**20 // 3),
        b'{"":' * 2**18,
        b"\\" * 2**20,
        b'"' * 2**20,
        b'\\"' * 2**19,
        b"[{" * 2**19,
        frame(b"[" + b",".join([nested(60)] * 8_000) + b"]"),
        frame(b"[" + b",".join([b"9" * 4300] * 240) + b"]"),
        frame(b'["\\ud800"' + b",[]" * 300_000 + b"]"),
        b"{}" * 2**19,
        (b"\n" * 2**20),
    ],
    ids=lambda hostile: repr(hostile[:12]),
)
def test_a_hostile_frame_takes_bounded_time(hostile: bytes) -> None:
    side = conversation(max_frame_size=2**20 + 100)
    start = time.perf_counter()
    side.receive_data(hostile + FF)
    taken = time.perf_counter() - start
    print(f"{taken * 1000:.1f} ms")  # the slowest measured: 600 ms, most of it for half a million lists
    assert taken < 5


# --- the fast way -------------------------------------------------------------------------------------------------


def test_the_batch_is_taken_where_it_may_be() -> None:
    stream = (frame(b"[1]") + FF) * 10
    assert codec.decode_frames(stream, FF, 10, 64) == [Event("e", [1])] * 10
    assert codec.decode_frames(stream.replace(FF, b"\n"), b"\n", 10, 64) == [Event("e", [1])] * 10


@pytest.mark.parametrize(
    "stream",
    [
        b'{"type":"a"}\f{"type":"b"} \f',
        b' {"type":"a"}\f{"type":"b"}\f',
        b'{"type":"a"}\f\f',
        b'{"type":"a"}{"type":"b"}\f{"type":"c"}\f',
        b'{"type":"a","x":"}\f{"}\f{"type":"b"}{"type":"c"}\f',
        b'{"type":"a","data":"\\ud800"}\f{"type":"b"}\f',
        b'{"type":"a","data":"\xff"}\f{"type":"b"}\f',
        frame(nested(64)) + b'\f{"type":"b"}\f',
    ],
)
def test_the_batch_is_left_where_it_could_differ(stream: bytes) -> None:
    assert codec.decode_frames(stream, FF, stream.count(FF), 64) is None


# --- types --------------------------------------------------------------------------------------------------------


def test_convert() -> None:
    assert codec.convert({"x": 1, "y": [2]}, Point) == Point(1, [2])
    assert codec.convert("AP8=", bytes) == b"\x00\xff"
    assert codec.convert("2026-01-02", datetime.date) == datetime.date(2026, 1, 2)


@pytest.mark.parametrize(
    ("data", "kind", "path"),
    [
        ("a", int, "$"),
        ([1, "a"], list[int], "$[1]"),
        ({"a": {"b": "c"}}, dict[str, dict[str, int]], "$[...][...]"),
        ({"y": 1}, Point, "$"),
        ("\ud800", bytes, "$"),
        ({"\ud800": 1}, Point, "$"),
    ],
)
def test_convert_says_where_it_does_not_fit(data: object, kind: Any, path: str) -> None:
    with pytest.raises(InvalidData) as caught:
        codec.convert(data, kind)
    assert caught.value.path == path


def test_convert_control() -> None:
    assert codec.convert_control({"versions": [1], "later": True}, Hello) == Hello([1])
    refused: list[object] = [[], {}, {"call": True, "event": "e"}, {"call": 1}, {"call": 1, "event": "e", "\ud800": 1}]
    for wrong in refused:
        with pytest.raises(RemoteProtocolError) as caught:
            codec.convert_control(wrong, Request)
        assert caught.value.code == "control"
