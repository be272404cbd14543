"""What is sent back and forth: as one side writes it, as it stands on the wire, as the other side sees it."""

from __future__ import annotations

from typing import Any

__all__ = ["FROM_NODE", "FROM_PYTHON"]

#: The JavaScript expression that node-ipc is given; the JSON it makes of it (``None``: no ``data`` at all); what
#: pyipc's handlers get.
FROM_NODE: list[tuple[str, bytes | None, Any]] = [
    ("{a: 1, id: 'hello'}", b'{"a":1,"id":"hello"}', {"a": 1, "id": "hello"}),
    ("{a: {b: [{c: null}, [], {}]}}", b'{"a":{"b":[{"c":null},[],{}]}}', {"a": {"b": [{"c": None}, [], {}]}}),
    ("'hello'", b'"hello"', "hello"),
    ("0", b"0", 0),
    ("-0", b"0", 0),
    ("false", b"false", False),
    ("true", b"true", True),
    ("3.5", b"3.5", 3.5),
    ("1e21", b"1e+21", 1e21),
    ("[1, 2, 'x']", b'[1,2,"x"]', [1, 2, "x"]),
    ("[]", b"[]", []),
    # node-ipc itself puts an empty object in the place of most that is falsy.
    ("''", b"{}", {}),
    ("null", b"{}", {}),
    ("undefined", b"{}", {}),
    ("NaN", b"{}", {}),
    ("Infinity", b"null", None),
    ("[NaN, undefined]", b"[null,null]", [None, None]),
    ("(() => 1)", None, None),
    ("{_maxListeners: 5, keep: 'me'}", b"{}", {}),
    ("Buffer.from([0, 1, 255])", b'{"type":"Buffer","data":[0,1,255]}', {"type": "Buffer", "data": [0, 1, 255]}),
    ("new Date(0)", b'"1970-01-01T00:00:00.000Z"', "1970-01-01T00:00:00.000Z"),
    ("12345678901234567890", b"12345678901234567000", 12345678901234567000),
    ("'café 😀 \\u2028 日本'", '"café 😀 \u2028 日本"'.encode(), "café 😀 \u2028 日本"),
    ("'a\\ud800b'", b'"a\\ud800b"', "a\ud800b"),
    ("{'\\udfff': ['\\udc00\\ud83d', 1.5]}", b'{"\\udfff":["\\udc00\\ud83d",1.5]}', {"\udfff": ["\udc00\ud83d", 1.5]}),
    (
        "'form\\ffeed\\n\\r\\t\\b\\0\\x01\\x7f\"\\\\/'",
        b'"form\\ffeed\\n\\r\\t\\b\\u0000\\u0001\x7f\\"\\\\/"',
        'form\ffeed\n\r\t\b\0\x01\x7f"\\/',
    ),
]

#: What pyipc is given; the JSON it makes of it; what node-ipc's handlers get.
FROM_PYTHON: list[tuple[Any, bytes, Any]] = [
    ({"a": 1, "b": [True, None]}, b'{"a":1,"b":[true,null]}', {"a": 1, "b": [True, None]}),
    ({"a": {"b": [{"c": {}}]}}, b'{"a":{"b":[{"c":{}}]}}', {"a": {"b": [{"c": {}}]}}),
    ("hello", b'"hello"', "hello"),
    (0, b"0", 0),
    (False, b"false", False),
    (True, b"true", True),
    (3.5, b"3.5", 3.5),
    ([1, 2, "x"], b'[1,2,"x"]', [1, 2, "x"]),
    ([], b"[]", []),
    ({}, b"{}", {}),
    # Unlike node-ipc's own senders, pyipc tells these apart; its receivers do too.
    ("", b'""', ""),
    (None, b"null", None),
    (float("nan"), b"null", None),
    ([float("inf"), float("-inf")], b"[null,null]", [None, None]),
    (2**53 + 1, b"9007199254740993", 2**53),
    ("café 😀 \u2028 日本", '"café 😀 \u2028 日本"'.encode(), "café 😀 \u2028 日本"),
    ("a\ud800b", b'"a\\ud800b"', "a\ud800b"),
    ({"\udfff": ["\udc00\ud83d", 1.5]}, b'{"\\udfff":["\\udc00\\ud83d",1.5]}', {"\udfff": ["\udc00\ud83d", 1.5]}),
    (
        'form\ffeed\n\r\t\b\0\x01\x7f"\\/',
        b'"form\\ffeed\\n\\r\\t\\b\\u0000\\u0001\x7f\\"\\\\/"',
        'form\ffeed\n\r\t\b\0\x01\x7f"\\/',
    ),
]
