"""A frame that is read in blocks says what it says when it is read at once, or is refused for the same reason."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyipc.errors import RemoteProtocolError
from pyipc.protocol import codec, nesting
from pyipc.protocol.blocks import BLOCK_SIZE, LargeFrame
from pyipc.protocol.codec import Event
from tests.protocol.helpers import frame, nested
from tests.protocol.test_codec import INBOUND

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = settings(max_examples=3 * settings().max_examples)
#: So small that nearly every comma is a place to cut at, and that strings, escapes and brackets lie across blocks.
TINY = (1, 2, 3, 7, 20)


def at_once(text: bytes, max_depth: int) -> str:
    try:
        if nesting.too_deep(text, max_depth):
            raise nesting.nested_too_deep(max_depth)
        return repr(codec.decode(text))
    except RemoteProtocolError as error:
        return error.code


def events(text: bytes, max_depth: int, block_size: int, behind: bytes = b"") -> Iterator[Event | None]:
    large = LargeFrame(text + behind, len(text), max_depth, block_size)
    event = None
    while event is None:
        yield (event := large.go_on())


def in_blocks(text: bytes, max_depth: int, block_size: int) -> str:
    try:
        *_, event = events(text, max_depth, block_size, b"\f")
    except RemoteProtocolError as error:
        return error.code
    return repr(event)


def agree(text: bytes, max_depth: int, sizes: tuple[int, ...] = TINY) -> str:
    """What a text says or is refused for, however it is read."""
    expected = at_once(text, max_depth)
    assert {size: in_blocks(text, max_depth, size) for size in sizes} == dict.fromkeys(sizes, expected)
    return expected


# --- any text -----------------------------------------------------------------------------------------------------

_space = st.sampled_from([b"", b"", b"", b" ", b"\n", b" \t\r\n"])
_scalar = st.sampled_from(
    [
        *(b"1", b"-2.5e3", b"-0", b"-0.0", b"1E5", b"9007199254740993", b"1" * 30, b"null", b"true", b"false"),
        *(
            b'""',
            b'"a"',
            b'"a,]"',
            b'"{,["',
            b'"\\","',
            b'"\\\\"',
            b'"\\\\\\","',
            b'"\xc3\xa9,"',
            b'"\xf0\x9f\x98\x80"',
        ),
        *(b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\x7f"', b'"\x7f\x7f"', b'"\\u007f"', b'"' + b"x" * 40 + b'"'),
    ]
)
# Among them those that a block gets from us, which the peer may use like any other.
_key = st.sampled_from(
    [
        b'"a"',
        b'"b"',
        b'"c"',
        b'"type"',
        b'"data"',
        b'"\x7f"',
        b'"\\u007f"',
        b'"\x7f\x7f"',
        b'"\x7f\\u007f\x7f"',
        b'"\\""',
    ]
)


def _list_of(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(lambda items, space: b"[" + space + (b"," + space).join(items) + b"]", st.lists(values), _space)


def _object_of(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    member = st.builds(lambda key, space, value: key + space + b":" + space + value + space, _key, _space, values)
    return st.builds(lambda items, space: b"{" + space + (b"," + space).join(items) + b"}", st.lists(member), _space)


_json = st.recursive(_scalar, lambda inner: _list_of(inner) | _object_of(inner), max_leaves=30)
_text = _json.map(frame) | _json
_mutation = st.sampled_from(
    [
        *(b"", b",", b"[", b"]", b"{", b"}", b'"', b"\\", b":", b" ", b"1", b"\xff", b"\0", b"\x01", b"\n", b",,"),
        *(b"\xef\xbb\xbf", b"[]", b"{}", b"[,", b",]", b'"a":', b',"a":', b"NaN", b"1e400", b"\xed\xa0\x80", b"[[[["),
    ]
)
depths = st.sampled_from([2, 3, 4, 6, 64])


@MANY
@given(_text, depths)
@example(b'{"type":"e","data":{"a":1,"b":[2],"a":{"c":[3,4],"c":5,"d":{"e":[{},6]}}}}', 64)
@example(b'{"data":[{"a":[1,2],"a":[3,4]}],"type":"e","data":[{"b":1,"a":[5,6],"b":[7,8]}]}', 64)
def test_any_json(text: bytes, max_depth: int) -> None:
    agree(text, max_depth)


@MANY
@given(_text, st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), _mutation), min_size=1, max_size=3), depths)
def test_any_json_with_faults(text: bytes, faults: list[tuple[float, int, bytes]], max_depth: int) -> None:
    for where, removed, added in faults:
        start = int(where * len(text))
        text = text[:start] + added + text[start + removed :]
    agree(text, max_depth)


@given(st.binary(max_size=60), depths)
def test_any_bytes(text: bytes, max_depth: int) -> None:
    agree(text, max_depth)


@pytest.mark.parametrize("name", [name for name, (text, _) in INBOUND.items() if len(text) < 10_000])
def test_all_that_the_codec_is_tested_with(name: str) -> None:
    text, (code, _) = INBOUND[name]
    said = agree(text, 64)
    assert said == code or said.startswith("Event(")


# --- by hand ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        *(b"[1,]", b"[,1]", b"[1,,2]", b"[,]", b'{"a":1,}', b'{,"a":1}', b'{"a":1,,"b":2}', b"[1,2,}", b"[[1,2},3]"),
        *(b'{"a":1,2}', b'{1,"a":2}', b'["a":1,2]', b'[1,"a":2]', b'{"a",1}', b'{"a":,"b":1}', b'{"a":1,"b"}'),
        *(b"[1,2]]", b"[1,2", b"1,2", b'[1,2] , {"a":1}', b"[1 2,3]", b'["a" "b",1]', b"[1,2]}{", b"[1,tru,e]"),
        *(b"[1,-,2]", b"[1,.5,2]", b"[1,2,\0]", b'["\n,",1]', b'["a,1]', b"[1,'a',2]", b"[1,\\,2]"),
        *(b"[1,\xef\xbb\xbf2]", b"[NaN,1]", b"[1,1e400]", b'[1e400,"\\ud800"]', b'["\\ud800",01]', b'["\\x",1]'),
        b'["\\u12,3"]',
    ],
)  # fmt: skip
def test_what_no_block_may_hide(data: bytes) -> None:
    assert agree(frame(data), 64) == "json"
    assert agree(data, 64) == "json"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"[1,2]", "envelope"),
        (b'{"type":"a","data":[1,2],"type":5}', "envelope"),
        (b'{"type":"a","x":["\xff",1],"y":2', "utf8"),
        (b'{"type":"a"},[\xe2,{"', "utf8"),
        (frame(b"[1," + nested(63) + b"]") + b"\xff", "depth"),
        (frame(b"[\xff," + b"[" * 63), "depth"),
        (frame(b"[1,2" + b"}" * 70 + b"{" * 70), "depth"),
        (frame(b'["' + b"[" * 70 + b'",1'), "depth"),  # as at once: brackets in strings count where others do not match
        (frame(b'["' + b"[" * 40 + b'",1'), "json"),
        (frame(b"[1,2}]"), "json"),
    ],
)
def test_the_first_of_several_faults(text: bytes, code: str) -> None:
    assert agree(text, 64) == code


@pytest.mark.parametrize("levels", [62, 63])
def test_the_deepest_that_may_be(levels: int) -> None:
    """The depth is counted exactly, also where a block leaves many levels and enters others."""
    data = b"[" * 40 + b'{"a":' * (levels - 41) + nested(1) + b"}" * (levels - 41) + b",1" + b"]" * 40
    stairs = b"[%b]" % b",".join([data] * 5)
    assert agree(frame(data), 64).startswith("Event(")
    assert agree(frame(stairs), 64, (7, 50, 200)).startswith("Event(" if levels == 62 else "depth")


@pytest.mark.parametrize("levels", range(1, 20))
def test_levels_of_both_kinds(levels: int) -> None:
    """Pairs are taken away quickly where that cannot hide too many levels."""
    text = b'[{"a":' * levels + b"[1,2]" + b"}]" * levels
    assert agree(text, 2 * levels, (7, 1_000)) == "depth"
    assert agree(text, 2 * levels + 1, (7, 1_000)) == "envelope"
    text = b'{"a":[' * levels + b"1,2" + b"]}" * levels
    assert agree(text, 2 * levels - 1, (7, 1_000)) == "depth"
    assert agree(text, 2 * levels, (7, 1_000)) == "envelope"


def test_the_last_of_equal_keys_counts_and_the_first_gives_the_place() -> None:
    text = b'{"type":"e","data":{"a":[1,2],"b":[3,4],"a":[5,{"c":6,"d":7,"c":[8,9]}],"e":10}}'
    *_, event = events(text, 64, 1)
    assert event is not None
    assert json.dumps(event.data) == '{"a": [5, {"c": [8, 9], "d": 7}], "b": [3, 4], "e": 10}'


def test_a_container_whose_key_came_before_is_found_again() -> None:
    """What is open at the end of a block is not behind all others then."""
    open_again = b'"a":[[5,6],{"c":0,"d":[[8]],"c":{"e":[],"f":[9,10],"e":[11,12]},"g":13}]'
    text = frame(b'{"a":1,"b":[[7],{},"x"],%b,"h":[{"a":[14],"i":[15],"a":[16,17]}]}' % open_again)
    assert agree(text, 64, tuple(range(1, len(text)))).startswith("Event(")


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_keys_that_look_like_ours(count: int, others: int, escaped: bool) -> None:
    deletes = (b"\\u007f" if escaped else b"\x7f") * count
    data = b'{"%b":[1,2],"x":["%b",{"%b":3,"y":[4,"%b"]}],"%b":5}' % (
        deletes,
        deletes,
        deletes,
        deletes,
        b"\x7f" * others,
    )
    assert agree(frame(data), 64).startswith("Event(")


def test_what_is_wrong_and_where() -> None:
    text = frame(b"[" + b"1," * 50 + b"x," + b"2," * 50 + b"3]")
    with pytest.raises(
        RemoteProtocolError, match="not JSON: JSON is malformed: invalid character, between byte 1"
    ) as caught:
        list(events(text, 64, 20))
    words = str(caught.value).split()
    start, end = int(words[-4]), int(words[-1])
    assert b"x" in text[start:end]
    assert end - start < 60


# --- the work -----------------------------------------------------------------------------------------------------

SIZE = 6 * BLOCK_SIZE


def many(unit: bytes) -> bytes:
    return frame(b"[" + b",".join([unit] * (SIZE // (len(unit) + 1))) + b"]")


HOSTILE = {
    "lists": many(b"[]"),
    "staircases": many(b"[" * 60 + b"]" * 60),
    "mixed staircases": many(b'[{"":' * 30 + b"1" + b"}]" * 30),
    "long numbers": many(b"8.988465674311579538646525953945123e307"),
    "deep, and wide there": frame(b"[" * 60 + b",".join([b"[[1]]"] * (SIZE // 6)) + b"]" * 60),
    "one object": frame(b"{" + b",".join(b'"%d":{}' % number for number in range(SIZE // 10)) + b"}"),
    "equal keys": many(b'{"a":1,"b":[1,2],"a":[[],[],{}]}'),
    "one string": many(b'"' + b"x" * (SIZE - 10) + b'"'),
    "one string of quotes": many(b'"' + b'\\"' * (SIZE // 2 - 10) + b'"'),
    "one string of commas": many(b'"' + b",]" * (SIZE // 2 - 10) + b'"'),
    "backslashes": many(b'"' + b"\\\\" * (SIZE // 2 - 10) + b'"'),
    "empty strings": many(b'""'),
    "surrogates": many(b'"\\ud800"'),
    "spaces": frame(b" " * SIZE + b"1"),
    "deletes": many(b'{"\x7f":"\x7f\x7f"}'),
    "quotes without end": frame(b'"' * SIZE),
    "openers without end": frame(b"[" * SIZE),
    "closers without end": frame(b"]" * SIZE),
    "pairs that do not match": frame(b"[}" * (SIZE // 2)),
    "values without commas": frame(b"[]" * (SIZE // 2)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_blocks_are_few_and_say_the_same(name: str) -> None:
    """As many steps as blocks, twice: none is looked at more often, whatever stands in it."""
    text = HOSTILE[name]
    steps, said = 0, ""
    try:
        for event in events(text, 64, BLOCK_SIZE, b"\f"):
            steps += 1
            said = repr(event)
    except RemoteProtocolError as error:
        said = error.code
    blocks = -(-len(text) // BLOCK_SIZE)
    assert steps <= 2 * blocks + 1
    assert said == at_once(text, 64)


@pytest.mark.parametrize("unit", [b"[]", b'{"a":[1,"b"]}', b'"abc"', b"1.5", b'["a\\"b,c"]'])
def test_blocks_are_about_as_large_as_they_should_be(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read_json = codec.read_json

    def noting(text: bytes) -> Any:
        sizes.append(len(text))
        return read_json(text)

    monkeypatch.setattr(codec, "read_json", noting)
    assert in_blocks(many(unit), 64, BLOCK_SIZE) == at_once(many(unit), 64)
    assert len(sizes) >= 4
    assert max(sizes) < 2 * BLOCK_SIZE


def test_a_string_too_large_for_a_block_is_not_copied_with_what_is_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "read_json", lambda text: pytest.fail("it was put together anew"))
    text = frame(b'{"name":"x","content":"' + b"ab,]" * BLOCK_SIZE + b'"}')
    assert in_blocks(text, 64, BLOCK_SIZE) == at_once(text, 64)


def test_large_random_frames() -> None:
    """Blocks of the size that is used, with all kinds of values in them."""
    chance = random.Random(7)

    def value(levels: int) -> Any:
        kind = chance.randrange(8 if levels else 5)
        if kind < 5:
            return (chance.random(), chance.randrange(10**6), 'a,]"\\é\x7f' * chance.randrange(5), None, True)[kind]
        if kind == 5:
            return {chance.choice("abcdefghij\x7f"): value(levels - 1) for _ in range(8)}
        return [value(levels - 1) for _ in range(8)]

    for ascii_only in (True, False):
        data = [value(6) for _ in range(300)]
        text = codec.encode("e", None)[:-5] + json.dumps(data, ensure_ascii=ascii_only).encode() + b"}"
        assert len(text) > 3 * BLOCK_SIZE
        *_, event = events(text, 64, BLOCK_SIZE)
        assert event == Event("e", data)


def test_a_text_that_is_nearly_all_of_it_is_not_copied_in_front_of_a_late_comma() -> None:
    text = b'{"type":"a","data":{"n":1,"s":"%b","f":1.5}}' % (b"x" * 300_000)
    frame = LargeFrame(text, len(text), 64, BLOCK_SIZE)
    while (event := frame.go_on()) is None:
        pass
    assert event.data == {"n": 1, "s": "x" * 300_000, "f": 1.5}
    assert frame._outline.cuts == []
    # But what would take others' time is read in blocks, however long the text before it is.
    text = b'["%b",%b]' % (b"x" * 300_000, b",".join([b"[]"] * 30_000))
    frame = LargeFrame(text, len(text), 64, BLOCK_SIZE)
    while not frame._outline.is_complete:
        frame.go_on()
    assert len(frame._outline.cuts) > 1
