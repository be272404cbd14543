"""Binary records: read alike however they are cut, refused where they must be, and never believed."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyipc.errors import MessageTooLarge, PeerLacksFeature, RemoteProtocolError, UnsupportedByTransport
from pyipc.options import Options
from pyipc.protocol.codec import Event, Reply, Request, control_frame
from pyipc.protocol.conversation import Role
from pyipc.protocol.datagram import DatagramConversation
from pyipc.protocol.features import Deliver, Item, OpenStream, Publish, Published, ReceivedItem, TracedEvent
from pyipc.protocol.framing import Json
from pyipc.protocol.messages import Hello, Introduced, Malformed, StreamHello, StreamWelcome
from pyipc.protocol.parcels import JOINED_SIZE, Parcel, SmallParcel, pack
from pyipc.protocol.raw import RawConversation
from pyipc.protocol.records import WithAttachments
from tests.protocol.helpers import FF, code, conversation, cut, introduced, large_from, one_of_each, other, receive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyipc.protocol.conversation import Inbound
    from pyipc.protocol.framed import JsonConversation

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "v1-records.json").read_text("ascii"))["vectors"]
MIB = 2**20
MANY = settings(max_examples=3 * settings().max_examples)
EVENT = b'{"type":"e"}\f'


def record(content: bytes) -> bytes:
    return b"\x01" + len(content).to_bytes(8, "big") + content


def announced(length: int) -> bytes:
    return b"\x01" + length.to_bytes(8, "big")


def told(items: Iterable[Inbound]) -> list[Any]:
    """What was reported, as values that can be compared."""
    said: list[Any] = []
    for item in items:
        match item:
            case WithAttachments():
                said.append((repr(item.item), item.attachments))
            case Malformed(error, fatal):
                said.append((error.code, fatal))
            case _:
                said.append(repr(item))
    return said


def receiver(role: Role = Role.SERVER, **options: Any) -> JsonConversation:
    """A side that has agreed on records, and has made a call."""
    mine, peer = conversation(role, **options), conversation(other(role))
    client, server = (mine, peer) if role is Role.CLIENT else (peer, mine)
    introduced(client, server)
    mine.next_call()
    return mine


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in VECTORS])
@pytest.mark.parametrize("role", Role)
def test_vectors(vector: dict[str, Any], role: Role) -> None:
    wire = bytes.fromhex(vector["hex"])
    for size in (1, 2, 7, 10, len(wire)):
        items = receive(receiver(role), cut(wire + (b"" if "parts" in vector else EVENT), size))
        if "code" in vector:
            assert len(items) == 1
            assert code(items) == vector["code"]
            continue
        assert len(items) == len(vector["parts"])
        for item, part in zip(items, vector["parts"], strict=True):
            (plain,) = receiver(role).receive_data(part["frame"].encode() + FF)
            contents = tuple(bytes.fromhex(content) for content in part["attachments"])
            assert told([item]) == ([(repr(plain), contents)] if contents else [repr(plain)])
    if vector.get("canonical"):
        written = b""
        for part in vector["parts"]:
            frame = part["frame"].encode() + FF
            contents = tuple(bytes.fromhex(content) for content in part["attachments"])
            written += bytes(pack(frame, contents)) if contents else frame  # type: ignore[arg-type]
        assert written == wire


@pytest.mark.parametrize(
    ("role", "body"),
    [
        *((role, body) for role in Role for body in (Request(1, "e"), Reply(1), TracedEvent("e"), Deliver(1, "e"))),
        *((role, body) for role in Role for body in (OpenStream(1, "e"), Item(1))),
        (Role.SERVER, Publish("t")),
        (Role.CLIENT, Published("t")),
    ],
)
def test_every_frame_that_may_have_attachments(role: Role, body: Any) -> None:
    (item,) = receiver(role).receive_data(record(b"x") + control_frame(body) + FF)
    assert isinstance(item, WithAttachments)
    assert item.attachments == (b"x",)
    assert repr(item) == f"{item.item!r} with attachments of 1 bytes"
    if isinstance(body, Item):
        assert item.item == ReceivedItem(body.call, body.data, len(control_frame(body)))
    else:
        assert item.item == body


def test_where_they_are_not_agreed_on_the_byte_is_no_json() -> None:
    for side in (
        conversation(Role.SERVER),
        conversation(Role.CLIENT),
        receiver_of(StreamHello([1], features=["streams"], max_attachments_size=100)),
    ):
        assert code(side.receive_data(record(b"x") + EVENT)) == "json"


def receiver_of(hello: Hello) -> JsonConversation:
    side = conversation()
    (met,) = side.receive_data(control_frame(hello) + FF)
    assert isinstance(met, Introduced)
    return side


@pytest.mark.parametrize("before", [b"", EVENT, b'{"type":"\xff', b'{"type":"e","data":"' + b"x" * 70_000 + b'"}\f'])
def test_they_may_follow_an_introduction_at_once(before: bytes) -> None:
    """Whoever sends them so could not know that they are taken, but the cut must make no difference."""
    hello = conversation(Role.CLIENT).open()
    # What stands in a batch, or is large, is read in other ways.
    stream = EVENT + hello if not before else hello
    stream += record(b"\f1") + EVENT + before.replace(b"\xff", b"") + (b'"}\f' if b"\xff" in before else b"")
    stream += record(b"2") + record(b"\x01") + EVENT + record(b"3")[:9]
    expected = told(receive(conversation(), cut(stream, 1)))
    assert expected[-1] == (repr(Event("e")), (b"2", b"\x01"))
    for size in (*range(2, 40), len(hello), len(hello) + 1, len(hello) + 5, len(stream)):
        side = conversation()
        assert told(receive(side, cut(stream, size))) == expected
        assert side.partial_size == 9


def test_a_large_introduction_may_be_followed_by_one_too() -> None:
    hello = control_frame(StreamHello([1], features=["attachments"], agent="a" * 70_000)) + FF
    for size in (len(hello) + 3, len(hello), 50_000):
        items = receive(conversation(), cut(hello + record(b"x") + EVENT, size))
        assert told(items)[1:] == [(repr(Event("e")), (b"x",))]


def test_what_arrived_in_part_is_counted_and_told_apart() -> None:
    side = receiver()
    completed = side.frames_completed
    assert side.receive_data(b"\x01\0\0") == []
    assert side.partial_size == 3
    assert side.receive_data(bytes(4) + b"\x01\0" + b"\f" * 100) == []
    assert side.partial_size == 109
    assert side.receive_data(b"\f" * 156 + announced(2)) == []
    assert side.partial_size == 274
    assert side.receive_data(b"\x01\x01" + EVENT[:5]) == []
    assert side.partial_size == 281
    assert side.frames_completed == completed
    (item,) = side.receive_data(EVENT[5:])
    assert isinstance(item, WithAttachments)
    assert item.attachments == (b"\f" * 256, b"\x01\x01")
    assert (side.partial_size, side.frames_completed) == (0, completed + 1)
    assert told(side.receive_data(EVENT)) == [repr(Event("e"))]


def test_limits() -> None:
    side = receiver(max_attachments=2, max_attachments_size=10)
    assert len(side.receive_data((record(b"x" * 5) + record(b"y" * 5) + EVENT) * 3)) == 3
    assert side.receive_data(record(b"x" * 5) + announced(6)[:-1]) == []
    assert code(side.receive_data(b"\x06")) == "size"
    assert side.receive_data(EVENT) == []
    side = receiver(max_attachments=2, max_attachments_size=10)
    assert code(side.receive_data(record(b"") * 3)) == "size"


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 4 * MIB])
def test_an_announced_length_costs_nothing(length: int) -> None:
    side = receiver()
    wire = announced(length) + b"x"
    tracemalloc.start()
    try:
        items = side.receive_data(wire)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told(items) == ([] if length == 4 * MIB else [("size", True)])
    assert peak < 10_000


def test_memory_grows_with_what_arrived() -> None:
    side = receiver()
    tracemalloc.start()
    try:
        side.receive_data(announced(MIB))
        for _ in range(100_000):
            assert side.receive_data(b"\x01") == []
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 250_000


def test_what_is_large_is_joined_once() -> None:
    """The pieces as they came, and the whole."""
    size = 16 * MIB
    side = receiver(max_attachments_size=size)
    pieces = cut(bytes(size), MIB)
    tracemalloc.start()
    try:
        side.receive_data(announced(size))
        for piece in pieces:
            side.receive_data(piece)
        items = side.receive_data(EVENT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told(items) == [(repr(Event("e")), (bytes(size),))]
    assert peak < 1.1 * size  # the pieces are not counted here, as they were there before


# --- any bytes ---

_contents = st.binary(max_size=12) | st.sampled_from([EVENT, record(b"x"), b"\f\x01\f", b"\x01" * 10, b"z" * 60])
_PIECES = [
    *(EVENT, b'{"type":"f","data":[1]}\f', b'{"type":"pyipc.request","data":{"call":1,"event":"a"}}\f', b"\f", b"\x01"),
    *(b'{"type":"pyipc.ping","data":{}}\f', b'{"type":"pyipc.reply","data":{"call":1}}\f', b'{"type":', b'"a"}', b"\0"),
    *(announced(0), announced(3), announced(81), announced(2**63), announced(5)[:4], b"xyz", b"\xff", b" ", b"[[[[[["),
    b"x" * 390,
    *(b'{"type":"pyipc.goodbye","data":{}}\f', b'{"type":"pyipc.item","data":{"call":1}}\f', b'{"type":"\x01"}\f'),
]
_streams = st.lists(st.sampled_from(_PIECES) | _contents.map(record) | st.binary(max_size=3), max_size=14).map(b"".join)
_LIMITS = {"max_attachments": 3, "max_attachments_size": 80, "max_frame_size": 400, "max_depth": 4}


@pytest.mark.parametrize("role", Role)
@MANY
@given(_streams, st.lists(st.integers(0, 300), max_size=6))
def test_any_bytes_say_the_same_however_cut(role: Role, stream: bytes, cuts: list[int]) -> None:
    whole = receiver(role, **_LIMITS)
    expected = told(whole.receive_data(stream))
    assert all(not (isinstance(item, tuple) and item[1] is True) for item in expected[:-1]), "something after the end"
    places = sorted({0, len(stream), *(place for place in cuts if place < len(stream))})
    at_random = [stream[start:end] for start, end in itertools.pairwise(places)]
    for chunks in ([stream], cut(stream, 1), at_random):
        side = receiver(role, **_LIMITS)
        assert told(receive(side, chunks)) == expected
        if not side._failed:
            assert side.partial_size == whole.partial_size or b"\x01" in stream
        with large_from(10):
            side = receiver(role, **_LIMITS)
            assert told(receive(side, chunks)) == expected
    for item in receiver(role, **_LIMITS).receive_data(stream):
        assert not isinstance(item, Malformed) or isinstance(item.error, RemoteProtocolError)


@MANY
@given(
    st.lists(st.tuples(st.lists(_contents, max_size=3), st.sampled_from(["e", "f", "\x01", "\f"])), max_size=8),
    st.lists(st.integers(0, 1_000), max_size=8),
    st.sampled_from([b"\f", b"\n", b"\0", b"\x1e"]),
    st.sampled_from([10, 65_536]),
)
def test_what_is_sent_arrives(
    messages: list[tuple[list[bytes], str]], cuts: list[int], delimiter: bytes, large: int
) -> None:
    sender, taker = introduced(
        conversation(Role.CLIENT, delimiter=delimiter), conversation(Role.SERVER, delimiter=delimiter)
    )
    stream, expected = b"", []
    for number, (contents, name) in enumerate(messages):
        frame = sender.event(name, number)
        stream += bytes(pack(frame, contents)) if contents else frame  # type: ignore[arg-type]
        event = repr(Event(name, number))
        expected.append((event, tuple(contents)) if contents else event)
    places = sorted({0, len(stream), *(place for place in cuts if place < len(stream))})
    with large_from(large):
        assert told(receive(taker, [stream[start:end] for start, end in itertools.pairwise(places)])) == expected
    assert taker.partial_size == 0


# --- what may be sent ---


def test_only_a_peer_that_said_so_gets_them() -> None:
    with pytest.raises(PeerLacksFeature, match="has not introduced itself") as lacking:
        conversation().check_attachments(1, 1)
    assert lacking.value.feature == "attachments"
    with pytest.raises(PeerLacksFeature, match="introduced itself without it"):
        receiver_of(StreamHello([1], max_attachments_size=5)).check_attachments(1, 1)
    with pytest.raises(PeerLacksFeature, match="did not say how much"):
        receiver_of(StreamHello([1], features=["attachments"])).check_attachments(1, 1)
    for side in (
        RawConversation(),
        DatagramConversation(Role.CLIENT, Json(), Options(unsafe_names=True), max_size=100),
    ):
        with pytest.raises(UnsupportedByTransport):
            side.check_attachments(1, 1)
        with pytest.raises(UnsupportedByTransport):
            side.check_size(pack(b"{}\f", [b"x" * 200]))
        with pytest.raises(UnsupportedByTransport):
            side.check("data", pack(b"{}\f", [b"x"]))


@pytest.mark.parametrize("role", Role)
def test_each_side_says_how_much(role: Role) -> None:
    mine, peer = conversation(role, max_attachments=3), conversation(other(role), max_attachments_size=10)
    introduced(*((mine, peer) if role is Role.CLIENT else (peer, mine)))
    mine.check_attachments(3, 10)
    with pytest.raises(
        MessageTooLarge, match=r"11 bytes and the limit is 10 .*max_attachments_size on both sides"
    ) as large:
        mine.check_attachments(1, 11)
    assert (large.value.size, large.value.limit) == (11, 10)
    with pytest.raises(MessageTooLarge, match=r"4 attachments and the limit is 3.*max_attachments on both") as many:
        mine.check_attachments(4, 0)
    assert (many.value.size, many.value.limit) == (4, 3)


def test_a_parcel_is_checked_as_a_whole() -> None:
    client, server = one_of_each(Role.CLIENT)
    frame = client.event("e", "x" * 1_000)
    for contents in ([b"x"], [bytes(4 * MIB)]):
        parcel = pack(frame, contents)
        client.check("e", parcel)
        client.check_size(parcel)
    with pytest.raises(MessageTooLarge, match="attachments take"):
        client.check_size(pack(frame, [bytes(4 * MIB), b"x"]))
    small = conversation(Role.SERVER, max_frame_size=500)
    client = conversation(Role.CLIENT)
    introduced(client, small)
    for contents in ([b"x"], [bytes(MIB)]):
        with pytest.raises(MessageTooLarge) as caught:
            client.check_size(pack(frame, contents))
        assert (caught.value.size, caught.value.limit) == (len(frame) - 1, 500)
    assert server.receive_data(bytes(pack(frame, [b"x"]))) != []  # type: ignore[arg-type]


def test_the_welcome_counts_as_the_hello_does() -> None:
    client = conversation(Role.CLIENT)
    client.open()
    client.receive_data(control_frame(StreamWelcome(1, features=["attachments"], max_attachments_size=7)) + FF)
    client.check_attachments(1, 7)
    with pytest.raises(MessageTooLarge):
        client.check_attachments(1, 8)


def test_sizes_of_parcels() -> None:
    for size, kind in ((JOINED_SIZE - 9 - len(EVENT), SmallParcel), (JOINED_SIZE - 8 - len(EVENT), Parcel)):
        assert type(pack(EVENT, [bytes(size)])) is kind
