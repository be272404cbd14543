"""Lines of Node's channel and frames of pyipc: what is one thing over there is the same thing here."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from pyipc.cluster.node.lines import DELIMITER, as_frame, as_lines, is_internal, is_reserved, line

TEXTS = strategies.text(strategies.characters(), max_size=20)
VALUES = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**53), 2**53)
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda values: strategies.lists(values, max_size=4) | strategies.dictionaries(TEXTS, values, max_size=4),
    max_leaves=12,
)
#: Names with which a reader that looks for marks in the text could go wrong.
TRICKY = ["x", "", 'a"b', "a\\", '","data":', '\\","data":', "grüße", "\U0001f600", "NODE_x", "\0", "\x0c\n", "pyipc"]


def frame(type: str, data: Any) -> bytes:
    """As a connection of pyipc writes it."""
    text = json.dumps({"type": type, "data": data}, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + DELIMITER


def read(text: bytes) -> tuple[str, Any]:
    """The name and the data of a frame."""
    assert text.endswith(DELIMITER)
    assert text.count(DELIMITER) == 1
    message = json.loads(text[:-1])
    return message["type"], message["data"]


def framed(value: Any) -> tuple[str, Any]:
    """A message of Node, as it is read here."""
    found = as_frame(line(value)[:-1])
    assert isinstance(found, bytes)
    return read(found)


@hypothesis.given(VALUES)
def test_any_value_that_node_says_is_a_message_with_that_value(value: Any) -> None:
    assert line(value).count(b"\n") == 1
    assert framed(value) == ("message", value)


@hypothesis.given(VALUES)
def test_any_value_that_is_said_here_is_that_value_for_node(value: Any) -> None:
    lines = as_lines(frame("message", value))
    assert lines.count(b"\n") == 1
    assert json.loads(lines) == value


@hypothesis.given(TEXTS | strategies.sampled_from(TRICKY), VALUES)
def test_an_event_of_any_name_is_the_same_event_when_it_comes_back(name: str, value: Any) -> None:
    hypothesis.assume(name != "message" and not name.startswith("pyipc."))
    lines = as_lines(frame(name, value))
    told = json.loads(lines)
    assert told == {"type": "pyipc.event", "data": {"event": name, "data": value}}
    found = as_frame(lines[:-1])
    assert isinstance(found, bytes)
    assert read(found) == (name, value)


@hypothesis.given(strategies.lists(strategies.tuples(strategies.sampled_from(["message", *TRICKY]), VALUES)))
def test_frames_in_one_piece_are_lines_in_the_same_order(events: list[tuple[str, Any]]) -> None:
    lines = as_lines(b"".join(frame(*event) for event in events))
    assert lines.count(b"\n") == len(events)
    told = []
    for each in lines.split(b"\n")[:-1]:
        found = as_frame(each)
        assert isinstance(found, bytes)
        told.append(read(found))
    assert told == events


INTERNAL = [
    '{"cmd":"NODE_x"}',
    '{"cmd":"NODE_HANDLE","type":"net.Native","msg":1}',
    '{ "a" : 1 , "cmd" : "NODE_x" }',
    r'{"cmd":"\u004eODE_x"}',
    r'{"cmd":"NOD\u0045_x"}',
    r'{"\u0063md":"NODE\u005fx"}',
    '{"cmd":"x","cmd":"NODE_x"}',
    '{"cmd":"NODE_x","type":"pyipc.event","data":{"event":"message","data":1}}',
    '{"type":"pyipc.event","cmd":"NODE_x","data":{"event":"message","data":1}}',
    '{"cmd":"NODE_\U0001f600"}',
    r'{"cmd":"NODE_\ud83d"}',
    '{"cmd":"NODE_x","deep":' + "[" * 200 + "]" * 200 + "}",
]


@pytest.mark.parametrize("text", INTERNAL)
def test_what_is_nodes_own_is_no_message_in_any_spelling(text: str) -> None:
    found = as_frame(text.encode())
    assert isinstance(found, dict)
    assert is_internal(found)


@pytest.mark.parametrize("text", INTERNAL)
def test_what_node_would_take_for_its_own_is_never_written(text: str) -> None:
    around = frame("message", 1)
    assert as_lines(around + b'{"type":"message","data":' + text.encode() + b"}" + DELIMITER + around) == b"1\n1\n"


@pytest.mark.parametrize(
    "text",
    [
        '{"cmd":"NODE_"}',
        '{"cmd":"node_x"}',
        '{"cmd":"XNODE_x"}',
        '{"cmd":["NODE_x"]}',
        '{"cmd":7}',
        '["cmd","NODE_x"]',
        '"NODE_x"',
        '{"data":{"cmd":"NODE_x"}}',
        '{"cmd":"NODE_x","cmd":"x"}',
        '{"Cmd":"NODE_x"}',
        '{"type":"pyipc"}',
        '{"type":["pyipc.event"]}',
        '{"type":"a","data":"pyipc.event"}',
    ],
)
def test_what_only_looks_like_it_is_a_message(text: str) -> None:
    found = as_frame(text.encode())
    assert isinstance(found, bytes)
    assert read(found) == ("message", json.loads(text))
    assert json.loads(as_lines(found)) == json.loads(text)


@pytest.mark.parametrize(
    "text", ['{"type":"pyipc.ready"}', r'{"\u0074ype":"pyipc\u002eready"}', '{"type":"pyipc.taking"}']
)
def test_what_a_worker_says_of_itself_is_no_message(text: str) -> None:
    found = as_frame(text.encode())
    assert isinstance(found, dict)
    assert is_reserved(found)


@pytest.mark.parametrize("name", ["request", "reply", "hello", "whatever"])
@pytest.mark.parametrize(
    "spelling", ['{"type":"pyipc.%s","data":{"call":1}}', '{"data":{"call":1}, "type":"pyipc\\u002e%s"}']
)
def test_frames_of_pyipc_stay_what_they_are(name: str, spelling: str) -> None:
    found = as_frame((spelling % name).encode())
    assert isinstance(found, bytes)
    assert read(found) == (f"pyipc.{name}", {"call": 1})
    assert json.loads(as_lines(found)) == {"type": f"pyipc.{name}", "data": {"call": 1}}


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"pyipc.event"}',
        '{"type":"pyipc.event","data":null}',
        '{"type":"pyipc.event","data":[]}',
        '{"type":"pyipc.event","data":{"event":7}}',
        '{"type":"pyipc.event","data":{"event":"pyipc.ready"}}',
    ],
)
def test_an_event_without_a_good_name_is_no_frame(text: str) -> None:
    assert as_frame(text.encode()) == json.loads(text)


def test_an_event_may_have_no_data() -> None:
    found = as_frame(b'{"type":"pyipc.event","data":{"event":"news"}}')
    assert isinstance(found, bytes)
    assert read(found) == ("news", None)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no JSON",
        b"\xff\xfe",
        b'{"cmd":"NODE_x"',
        b'{"cmd":"NODE_x"} {"cmd":"NODE_x"}',
        b'1,"data":{"cmd":"NODE_x"}',
        b'1},{"type":"NODE_x"',
        b"[" * 100_000,
        b'"NODE_",' + b"[" * 100_000,
        b'{"cmd":"NODE_x","number":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_is_no_good_frame_either(text: bytes) -> None:
    """Whoever reads it refuses it; nothing in it can pass for a message."""
    found = as_frame(text)
    assert isinstance(found, bytes)
    with pytest.raises((ValueError, RecursionError)):
        json.loads(found[:-1])
