"""Any bytes give events or one error, and the same ones however they are cut.

The reading of whole chunks (where a batch may be decoded at once) is held against two others: byte by byte, where there
never is a batch, and a reading frame by frame with the standard library's JSON and nothing of ours.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyipc.errors import RemoteProtocolError
from pyipc.protocol import codec, nesting
from pyipc.protocol.codec import Event
from pyipc.protocol.conversation import Role
from pyipc.protocol.messages import Hello, Malformed
from tests.protocol.helpers import FF, conversation, cut, frame, large_from, received, second_opinion, told

if TYPE_CHECKING:
    from pyipc.protocol.framed import JsonConversation

# 64 levels are far away for a fuzzer; four are reached at once.
LIMITS = {"max_depth": 4, "max_frame_size": 200, "max_event_name_size": 12}
# Where a difference would be found, if there is one.
MANY = settings(max_examples=3 * settings().max_examples)
DELIMITERS = [b"\f", b"\n", b"\0", b"\x1e"]

# `~` stands for the delimiter.
PIECES = [
    *(b'{ } [ ] , : " \\ ~ ~ ~ 1 - . e'.split()),
    *(b"\n", b"\r", b"\t", b" ", b"\0", b"\x01", b"\f", b"\xff", b"\xc3\xa9", b"\xed\xa0\xbd", b"\xef\xbb\xbf"),
    *(
        b"}{",
        b"}~{",
        b"}\n{",
        b"}~{}~{",
        b"~~",
        b"~ ~",
        b"~\n~",
        b"}} ~",
        b"]}~{",
        b'"}~{"',
        b'"}\n{"',
        b'\\"',
        b"\\\\",
    ),
    *(b"null", b"true", b"NaN", b"1e400", b"-0.0", b"9007199254740993", b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\'),
    *(b"[[", b"]]", b"[[[[[", b"]]]]]", b"[[[[", b"]]]]", b'{"a":', b'"type"', b'"data"', b'"a"', b'"toolonganame1"'),
    *(b'{"type":', b'{"type":"a"', b'{"type":"a","data":', b'{"type":"a","x":', b'{"type":5}', b'{"data":1}'),
    *(b'{"type":"a"}', b'{"type":"a","data":1}', b'{"type":"b"}~', b'{"type":"a"}~', b'{"type":"a"}{"type":"a"}'),
    *(b'{"type":"a","data":[[[]]]}~', b'{"type":"a","data":[[[[]]]]}~', b'{"type":"a","x":"\xff"}~'),
    *(b'{"type":"a","x":1e400}~', b'{"type":"a","data":{"a":1,"a":2},"data":2}~', b'{"type":"a","data":"~"}~'),
    *(b'{"type":"pyipc.', b'{"type":"pyipc.new"}~', b'{"type":"pyipc.ping","data":{}}~', b"x" * 190),
    *(b'{"type":"pyipc.hello","data":{"versions":[1]}}~', b'{"type":"pyipc.hello","data":{"versions":[2]}}~'),
    *(b'{"type":"pyipc.welcome","data":{"version":1}}~', b'{"type":"pyipc.goodbye","data":{}}~'),
    *(b'{"type":"pyipc.request","data":{"call":1,"event":"a"}}~', b'{"type":"pyipc.reply","data":{"call":1}}~'),
    *(b'{"type":"pyipc.cancel","data":{"call":1}}~', b'{"type":"pyipc.error","data":{"call":1,"code":"a"}}~'),
    b'{"type":"pyipc.request","data":{"call":1,"event":"pyipc.hello"}}~',
    b'{"type":"pyipc.hello","data":{"\\ud800":1}}~',
]

delimiters = st.sampled_from(DELIMITERS)
streams = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=12).map(b"".join)


def side(role: Role, delimiter: bytes, **options: Any) -> JsonConversation:
    """A conversation that has made calls, so that an answer to them is legal."""
    made = conversation(role, delimiter=delimiter, **{**LIMITS, **options})
    if role is Role.CLIENT:
        made.request("a", None)
    return made


def expected(stream: bytes, delimiter: bytes, *, skip: bool) -> list[str]:
    """What plain events and wrong frames say, one frame at a time; up to the first frame of pyipc's own."""
    said: list[str] = []
    if stream[:1] in (b"\x15", b"\x16") and not stream.startswith(delimiter):
        return ["refused"]  # it is TLS
    *frames, partial = stream.split(delimiter)
    for text in frames:
        event = None if len(text) > LIMITS["max_frame_size"] else second_opinion(text, LIMITS["max_depth"])
        if event is not None and event[0].startswith("pyipc."):
            return said
        if event is not None and len(event[0].encode("utf-8", "surrogatepass")) <= LIMITS["max_event_name_size"]:
            said.append(repr(Event(*event)))
            continue
        said.append("refused")
        if not skip or len(text) > LIMITS["max_frame_size"]:
            return said
    if len(partial) > LIMITS["max_frame_size"]:
        said.append("refused")
    return said


def without_codes(items: list[Any]) -> list[str]:
    return ["refused" if isinstance(item, Malformed) else repr(item) for item in items]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("malformed", ["close", "skip"])
@MANY
@given(streams, delimiters, st.lists(st.integers(0, 400), max_size=6))
@example(b'{"type":"a","x":"}~{"}~{"type":"b"}{"type":"c"}~', b"\f", [])
@example(b'{"type":"a"}~{"type":"a"}{"type":"a"}~~', b"\f", [])
@example(b'{"type":"a"~}~{"type":"b"}{"type":"c"}~', b"\n", [])
@example(b'{"type":"a"}~' * 3 + b"x" * 201 + b'~{"type":"b"}~', b"\f", [30])
@example(b'\x16\x03\x01~{"type":"b"}~', b"\f", [])
def test_however_cut_it_says_the_same(
    malformed: str, role: Role, stream: bytes, delimiter: bytes, cuts: list[int]
) -> None:
    stream = stream.replace(b"~", delimiter)

    def read(chunks: list[bytes]) -> tuple[list[Any], bytes, str]:
        reader = side(role, delimiter, malformed=malformed)
        items: list[Any] = []
        for chunk in chunks:
            items += received(reader, chunk)
        for item in items[:-1]:
            assert not (isinstance(item, Malformed) and item.fatal), "something was reported after a fatal error"
        if items and isinstance(items[-1], Malformed) and items[-1].fatal:
            assert reader.receive_data(b'{"type":"a"}' + delimiter) == []
        return items, reader.data_to_send(), reader.protocol

    whole, answers, protocol = read([stream])
    places = sorted({0, len(stream), *(place for place in cuts if place < len(stream))})
    at_random = [stream[start:end] for start, end in itertools.pairwise(places)]
    for chunks in (cut(stream, 1), at_random):
        items, more_answers, same_protocol = read(chunks)
        assert told(items) == told(whole)
        assert (more_answers, same_protocol) == (answers, protocol)
    with large_from(10):
        for chunks in ([stream], cut(stream, 1), at_random):
            items, more_answers, same_protocol = read(chunks)
            assert told(items) == told(whole)
            assert (more_answers, same_protocol) == (answers, protocol)

    said = expected(stream, delimiter, skip=malformed == "skip")
    assert without_codes(whole)[: len(said)] == said
    if b"pyipc." not in stream and b"\\u" not in stream:
        assert len(whole) == len(said)


@MANY
@given(streams, delimiters)
def test_the_batch_never_differs_from_frame_by_frame(stream: bytes, delimiter: bytes) -> None:
    """Attacks the proof in `codec.decode_frames` directly."""
    complete = stream.replace(b"~", delimiter) + delimiter
    *frames, _ = complete.split(delimiter)
    batch = codec.decode_frames(complete, delimiter, len(frames), LIMITS["max_depth"])
    if batch is not None:
        assert [repr(event) for event in batch] == [repr(Event(*_opinion(text))) for text in frames]


def _opinion(text: bytes) -> tuple[str, Any]:
    event = second_opinion(text, LIMITS["max_depth"])
    assert event is not None, f"the batch took {text!r}"
    return event


_braced = st.lists(
    st.sampled_from(
        [b'"type":"a"', b'"x":"', b'"', b",", b"{", b"}", b"}{", b"\n", b"}\n{", b"[", b"]", b'"data":', b"1"]
    ),
    max_size=8,
).map(lambda inner: b"{" + b"".join(inner) + b"}")


@MANY
@given(st.lists(_braced | st.just(b'{"type":"a"}'), min_size=1, max_size=4), delimiters)
def test_the_batch_never_differs_where_each_frame_has_braces(frames: list[bytes], delimiter: bytes) -> None:
    """The same, for streams that pass the batch's cheap conditions."""
    complete = b"".join(text + delimiter for text in frames)
    frames = complete.split(delimiter)[:-1]
    batch = codec.decode_frames(complete, delimiter, len(frames), LIMITS["max_depth"])
    if batch is not None:
        assert [repr(event) for event in batch] == [repr(Event(*_opinion(text))) for text in frames]


@pytest.mark.parametrize("role", Role)
@given(chunks=st.lists(st.binary(max_size=50), max_size=10))
def test_any_bytes_at_all(role: Role, chunks: list[bytes]) -> None:
    reader = side(role, FF)
    for chunk in chunks:
        for item in reader.receive_data(chunk):
            assert not isinstance(item, Malformed) or isinstance(item.error, RemoteProtocolError)


@given(st.binary(max_size=100) | st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join))
def test_a_frame_is_an_event_or_an_error(text: bytes) -> None:
    event = second_opinion(text, LIMITS["max_depth"])
    try:
        decoded = None if nesting.too_deep(text, LIMITS["max_depth"]) else codec.decode(text)
    except RemoteProtocolError as error:
        assert error.code in {"json", "utf8", "envelope"}
        assert event is None
    else:
        assert repr(decoded) == repr(None if event is None else Event(*event))


_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]))
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=[])) | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)


@pytest.mark.parametrize("delimiter", DELIMITERS)
@given(event=st.text(st.characters(exclude_categories=[]), min_size=1, max_size=40), data=_anything)
def test_whatever_is_sent_is_one_frame_that_both_readers_read_alike(delimiter: bytes, event: str, data: object) -> None:
    sent = conversation(delimiter=delimiter, unsafe_names=True).event("x" + event, data)
    assert sent.count(delimiter) == 1
    assert sent.endswith(delimiter)
    assert b"\x01" not in sent
    (item,) = conversation(delimiter=delimiter).receive_data(sent)
    assert isinstance(item, Event)
    assert repr((item.type, item.data)) == repr(second_opinion(sent[:-1], 64))


_fields = st.dictionaries(
    st.sampled_from(
        ["versions", "version", "features", "max_frame_size", "heartbeat", "agent", "call", "event", "code"]
    )
    | st.text(st.characters(exclude_categories=[]), max_size=3),
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.just(2**53)
    | st.floats(allow_nan=False)
    | st.lists(st.integers(0, 2))
    | st.sampled_from(["a", "pyipc.hello", "\ud800", "toString", "n" * 257])
    | st.lists(st.text(max_size=2)),
)
_names = st.sampled_from(["hello", "welcome", "request", "reply", "error", "cancel", "ping", "goaway", "goodbye", "x"])


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("require_hello", [False, True])
@given(frames=st.lists(st.tuples(_names, _fields | st.none() | st.integers()), max_size=5))
def test_any_frames_of_our_own(require_hello: bool, role: Role, frames: list[tuple[str, Any]]) -> None:
    reader = conversation(role, require_hello=require_hello)
    for name, data in frames:
        items = reader.receive_data(codec.encode(f"pyipc.{name}", data) + FF)
        for item in items:
            assert not isinstance(item, Event), "one of our own frames was taken for a user's event"
            if isinstance(item, Malformed):
                assert item.error.code in {"control", "version", "name", "hello"}
        told(reader.receive_data(frame(b"1", b'"pyipc.ping"') + FF))
        reader.data_to_send()


def test_a_hello_with_every_field_wrong_is_one_error() -> None:
    fields = {"versions": [1], "features": [], "max_frame_size": 1, "heartbeat": 1.0, "agent": ""}
    wrong: list[Any] = ["a", 1, True, [[]], {}, 10**400, "\ud800", None]
    refused = 0
    for field in fields:
        for value in wrong:
            reader = conversation()
            items = reader.receive_data(codec.encode(Hello.type, {**fields, field: value}) + FF)
            refused += any(isinstance(item, Malformed) for item in items)
            assert len(items) == 1
    assert refused == 33
