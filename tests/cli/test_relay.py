"""The engine of ``pyipc tap``: joining links, cutting, the backlog, and reading what went past."""

from __future__ import annotations

import datetime
import json
import random
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import pyipc
from pyipc.cli.tapping.backlog import Backlog, Skipped
from pyipc.cli.tapping.cutter import Agreement, Budget, Cutter, Piece
from pyipc.cli.tapping.relay import Direction, relay
from pyipc.cli.tapping.transcript import Entry, Moment, Transcript
from pyipc.transports import memory_link_pair, transport_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pyipc.transports import Link

SIDES = ("memory", "tcp") if sys.platform == "win32" else ("memory", "unix", "tcp")


async def link_pair(kind: str, directory: Path) -> tuple[Link, Link]:
    if kind == "memory":
        return memory_link_pair()
    address = pyipc.parse_address(f"unix:{directory}/s" if kind == "unix" else "tcp://127.0.0.1:0")
    transport = transport_for(kind)
    listener = await transport.listen(address, {})
    near = await transport.connect(listener.address, {})
    far = await listener.accept()
    await listener.aclose()
    return near, far


class Joined:
    """A client and a server with a relay between them, and what it showed."""

    def __init__(self, client: Link, server: Link) -> None:
        self.client = client
        self.server = server
        self.seen = {each: bytearray() for each in Direction}
        self.ends: list[Direction] = []
        self.over = trio.Event()

    async def watch(self, direction: Direction, chunk: bytes) -> None:
        self.seen[direction] += chunk
        if not chunk:
            self.ends.append(direction)


@asynccontextmanager
async def joined(kind: str, directory: Path) -> AsyncIterator[Joined]:
    client, client_here = await link_pair(kind, directory)
    server, server_here = await link_pair(kind, directory)
    both = Joined(client, server)

    async def run() -> None:
        await relay(client_here, server_here, both.watch)
        both.over.set()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            try:
                yield both
            finally:
                await client.aclose()
                await server.aclose()
            nursery.cancel_scope.cancel()


async def receive_all(link: Link) -> bytes:
    data = bytearray()
    while chunk := await link.receive():
        data += chunk
    return bytes(data)


async def receive_exactly(link: Link, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = await link.receive()
        assert chunk, f"ended after {len(data)} of {count} bytes"
        data += chunk
    assert len(data) == count
    return bytes(data)


@pytest.mark.parametrize("kind", SIDES)
async def test_random_bytes_arrive_as_they_were_in_both_directions(kind: str, tmp_path: Path) -> None:
    chance = random.Random(7)
    there, back = chance.randbytes(700_001), chance.randbytes(900_001)

    async def send(link: Link, data: bytes) -> None:
        start = 0
        while start < len(data):
            step = chance.choice([1, 7, 4_096, 100_000])
            await link.send(data[start : start + step])
            start += step
        link.send_eof()

    got: dict[str, bytes] = {}

    async def receive(name: str, link: Link) -> None:
        got[name] = await receive_all(link)

    async with joined(kind, tmp_path) as both, trio.open_nursery() as nursery:
        nursery.start_soon(send, both.client, there)
        nursery.start_soon(send, both.server, back)
        nursery.start_soon(receive, "server", both.server)
        nursery.start_soon(receive, "client", both.client)
    assert got["server"] == there
    assert got["client"] == back
    assert {each: bytes(data) for each, data in both.seen.items()} == {
        Direction.TO_SERVER: there,
        Direction.TO_CLIENT: back,
    }


@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("first", ["client", "server"])
async def test_one_direction_ends_while_the_other_goes_on(kind: str, first: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as both:
        ending, going = (both.client, both.server) if first == "client" else (both.server, both.client)
        await ending.send(b"last words")
        ending.send_eof()
        assert await receive_all(going) == b"last words"
        for n in range(3):
            await going.send(b"still here %d" % n)
            assert await receive_exactly(ending, 12) == b"still here %d" % n
        assert not both.over.is_set()
        going.send_eof()
        assert await ending.receive() == b""
        await both.over.wait()
    assert len(both.ends) == 2


@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("first", ["client", "server"])
async def test_the_end_of_one_side_ends_the_other(kind: str, first: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as both:
        leaving, staying = (both.client, both.server) if first == "client" else (both.server, both.client)
        await leaving.send(b"bye")
        await leaving.aclose()
        assert await receive_exactly(staying, 3) == b"bye"
        with pytest.raises(pyipc.ConnectionLost):
            # It may take a few before the news has come back, as without a relay.
            while True:
                await staying.send(b"anybody there?")
                await trio.testing.wait_all_tasks_blocked()
        await staying.aclose()
        await both.over.wait()


@pytest.mark.parametrize("kind", [kind for kind in SIDES if kind != "tcp"])
async def test_what_a_side_said_before_it_went_is_heard(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as both:
        answer = b"x" * 30_000
        await both.server.send(answer)
        # The client is writing when the server goes; what the server said is delivered all the same.
        await trio.testing.wait_all_tasks_blocked()
        await both.server.aclose()
        await both.client.send(b"more")
        assert await receive_exactly(both.client, len(answer)) == answer


@pytest.mark.parametrize("kind", SIDES)
async def test_a_slow_reader_holds_back_the_writer(kind: str, tmp_path: Path) -> None:
    total = 64 * 1024 * 1024
    sent = 0

    async def send(link: Link) -> None:
        nonlocal sent
        chunk = bytes(65_536)
        while sent < total:
            await link.send(chunk)
            sent += len(chunk)
        link.send_eof()

    async with joined(kind, tmp_path) as both, trio.open_nursery() as nursery:
        nursery.start_soon(send, both.client)
        await trio.testing.wait_all_tasks_blocked(0.1)
        # What the kernel's buffers took, and a chunk in between.
        assert 0 < sent < 32 * 1024 * 1024
        received = 0
        while chunk := await both.server.receive():
            received += len(chunk)
    assert received == total


# --- cutting ---

frames = st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\f", b"")), max_size=8)


@given(frames, st.binary(max_size=10).map(lambda data: data.replace(b"\f", b"")), st.data())
def test_however_chunks_fall_the_pieces_are_the_same(parts: list[bytes], rest: bytes, data: st.DataObject) -> None:
    stream = b"".join(part + b"\f" for part in parts) + rest
    budget = Budget(10)
    cutter = Cutter(b"\f", 10, budget)
    pieces: list[Piece] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        pieces += cutter.feed(stream[:size])
        stream = stream[size:]
    assert pieces == [Piece(part[:10], len(part)) for part in parts]
    assert cutter.rest() == (Piece(rest[:10], len(rest), finished=False) if rest else None)
    assert cutter.rest() is None
    # All is given back.
    assert budget.take(11) == 10


def record(content: bytes) -> bytes:
    return b"\x01" + len(content).to_bytes(8, "big") + content


def introduced(features: str = '["attachments"]') -> Agreement:
    agreement = Agreement()
    for name in ("hello", "welcome"):
        agreement.note(f'{{"type":"pyipc.{name}","data":{{"features":{features}}}}}'.encode())
    return agreement


contents = st.lists(st.binary(max_size=40) | st.just(b"\f\x01{}\f"), max_size=3)


@given(st.lists(st.tuples(contents, st.sampled_from([b"{}", b"", b"x" * 20])), max_size=6), contents, st.data())
def test_however_chunks_fall_attachments_are_told_from_frames(
    messages: list[tuple[list[bytes], bytes]], last: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(b"".join(map(record, attached)) + frame + b"\f" for attached, frame in messages)
    stream += b"".join(map(record, last)) + record(b"unfinished")[:-3]
    cutter = Cutter(b"\f", 10, Budget(10), introduced())
    pieces: list[Piece] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        pieces += cutter.feed(stream[:size])
        stream = stream[size:]
    expected: list[Piece] = []
    for attached, frame in messages:
        expected += [Piece(b"", len(content), is_attachment=True) for content in attached]
        expected.append(Piece(frame[:10], len(frame)))
    expected += [Piece(b"", len(content), is_attachment=True) for content in last]
    assert pieces == expected
    assert cutter.rest() == Piece(b"", 7, finished=False, is_attachment=True)


def test_attachments_are_looked_for_once_both_sides_have_agreed_on_them() -> None:
    assert introduced().on_records
    assert not introduced('["streams"]').on_records
    assert not introduced('"attachments"').on_records
    agreement = Agreement()
    for frame in (b"pyipc.", b'{"type":"pyipc.hello"}', b'{"type":"pyipc.hello","data":null}', b"[" * 20_000, b"\xff"):
        agreement.note(frame)
    for _ in range(2):
        agreement.note(b'{"type":"pyipc.hello","data":{"features":["attachments"]}}')
    assert not agreement.on_records
    # In one direction the welcome may come with what it allows.
    welcome = b'{"type":"pyipc.welcome","data":{"features":["attachments"]}}'
    cutter = Cutter(b"\f", 100, Budget(100), agreement)
    pieces = list(cutter.feed(record(b"x")[:1] + b"\f" + welcome + b"\f" + record(b"\f") + b"{}\f"))
    assert pieces == [
        Piece(b"\x01", 1),
        Piece(welcome, len(welcome)),
        Piece(b"", 1, is_attachment=True),
        Piece(b"{}", 2),
    ]


def test_a_large_frame_is_kept_in_part_only() -> None:
    cutter = Cutter(b"\f", 100, Budget(100))
    for _ in range(1_000):
        assert list(cutter.feed(bytes(10_000))) == []
        assert len(cutter._kept) == 100
    assert list(cutter.feed(b"\f")) == [Piece(bytes(100), 10_000_000)]


def test_all_cutters_together_keep_no_more_than_the_budget() -> None:
    budget = Budget(150)
    first, second = (Cutter(b"\f", 100, budget) for _ in range(2))
    assert list(first.feed(b"a" * 90)) == list(second.feed(b"b" * 90)) == []
    # What is left free meanwhile does not make a frame whole that lacks its middle.
    assert list(first.feed(b"\f")) == [Piece(b"a" * 90, 90)]
    assert list(second.feed(b"c\f")) == [Piece(b"b" * 60, 91)]
    assert list(second.feed(b"d" * 90 + b"\f")) == [Piece(b"d" * 90, 90)]
    list(second.feed(b"e" * 90))
    assert budget.take(200) == 60
    second.drop()
    assert budget.take(200) == 90


# --- the backlog ---


async def test_what_there_is_no_room_for_is_counted_where_it_was() -> None:
    backlog: Backlog[str] = Backlog(max_size=100, max_items=2)
    assert [backlog.offer(name, 1) for name in "abcde"] == [True, True, False, False, False]
    assert await backlog.take() == "a"
    assert backlog.offer("f", 1)
    assert not backlog.offer("g", 1)
    backlog.end()
    assert [await backlog.take() for _ in range(5)] == ["b", Skipped(3), "f", Skipped(1), None]


async def test_bytes_count_as_well_but_one_item_always_fits() -> None:
    backlog: Backlog[str] = Backlog(max_size=100, max_items=10)
    assert backlog.offer("large", 1_000)
    assert not backlog.offer("small", 1)
    assert await backlog.take() == "large"


async def test_putting_waits_for_room(autojump_clock: trio.testing.MockClock) -> None:
    backlog: Backlog[int] = Backlog(max_size=100, max_items=2)
    put = 0

    async def fill() -> None:
        nonlocal put
        for number in range(6):
            await backlog.put(number, 1)
            put += 1
        backlog.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill)
        await trio.testing.wait_all_tasks_blocked()
        assert put == 2
        got = []
        while (item := await backlog.take()) is not None:
            got.append(item)
    assert got == [0, 1, 2, 3, 4, 5]


# --- reading ---

NOON = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)


def read(
    transcript: Transcript, data: bytes, direction: Direction = Direction.TO_SERVER, seconds: float = 0.0
) -> Entry:
    return transcript.frame(Moment(NOON, seconds), direction, Piece(data, len(data)))


def text(entry: Entry) -> str:
    return entry.line if isinstance(entry.line, str) else "".join(piece for piece, _ in entry.line)


def control(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": f"pyipc.{kind}", "data": fields}).encode()


def test_an_event() -> None:
    entry = read(Transcript(3, full=False), b'{"type":"greet","data":{"name":"Ada"}}')
    assert text(entry) == '12:00:00.000 #3 ->    38 B event "greet" {"name":"Ada"}'
    assert entry.record == {
        "kind": "event",
        "time": "2030-01-01T12:00:00.000000+00:00",
        "connection": 3,
        "direction": "->",
        "size": 38,
        "event": "greet",
        "data": {"name": "Ada"},
    }


def test_a_request_and_its_answer_belong_together() -> None:
    transcript = Transcript(1, full=False)
    assert 'request 7 "add" [1,2]' in text(read(transcript, control("request", call=7, event="add", data=[1, 2])))
    # The other side has a request 7 of its own.
    read(transcript, control("request", call=7, event="other"), Direction.TO_CLIENT, 1.0)
    answer = read(transcript, control("reply", call=7, data=3), Direction.TO_CLIENT, 0.0012)
    assert 'reply 7 to "add" after 1.2 ms 3' in text(answer)
    assert (answer.record["request"], answer.record["elapsed"], answer.record["data"]) == ("add", 0.0012, 3)
    failed = read(transcript, control("error", call=7, code="no-handler", message="nobody"), Direction.TO_SERVER, 3.0)
    assert text(failed).endswith('error 7 to "other" after 2 s no-handler: nobody')
    # An answer is given once.
    assert text(read(transcript, control("reply", call=7, data=3), Direction.TO_CLIENT)).endswith("reply 7 3")


def test_a_request_that_is_taken_back() -> None:
    transcript = Transcript(1, full=False)
    read(transcript, control("request", call=1, event="slow"))
    assert text(read(transcript, control("cancel", call=1), seconds=0.5)).endswith('cancel 1 to "slow" after 500 ms')


def test_requests_that_are_never_answered_are_forgotten() -> None:
    transcript = Transcript(1, full=False)
    for call in range(20_000):
        read(transcript, control("request", call=call, event="x"))
    assert len(transcript._calls) < 10_000


@pytest.mark.parametrize("kind", ["hello", "welcome", "ping", "goaway", "goodbye"])
def test_other_frames_of_pyipc_are_named(kind: str) -> None:
    entry = read(Transcript(1, full=False), control(kind, agent="me"))
    assert text(entry).endswith(f'{kind} {{"agent":"me"}}')
    assert (entry.record["kind"], entry.record["event"]) == (kind, f"pyipc.{kind}")


@pytest.mark.parametrize(
    "name",
    ["", "new", "skipped", "closed", "connected", "end", "event", "bytes", "large", "malformed", "control"],
)
def test_a_peer_cannot_choose_the_kind(name: str) -> None:
    """A script that counts what is closed or skipped counts what really was."""
    entry = read(Transcript(1, full=False), control(name, count=5))
    assert text(entry).endswith(f'control "pyipc.{name}" {{"count":5}}')
    assert (entry.record["kind"], entry.record["event"]) == ("control", f"pyipc.{name}")
    assert entry.record["data"] == {"count": 5}
    assert "count" not in entry.record


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"type":"a"}{"type":"b"}', "not JSON"),
        (b'{"type":"a","data":NaN}', "no number of JSON"),
        (b'{"type":"a","data":1e999}', "out of range"),
        (b'{"type":"a","data":' + b"9" * 5_000 + b"}", "not JSON"),
        (b'{"type":"\xff"}', "not UTF-8"),
        (b"[1,2]", "not an event"),
        (b'{"type":5}', "not an event"),
        (b"[" * 60_000, "nested too deep"),
    ],
)
def test_what_is_no_event_is_shown_as_malformed(frame: bytes, reason: str) -> None:
    entry = read(Transcript(1, full=False), frame)
    assert (entry.record["kind"], entry.record["size"]) == ("malformed", len(frame))
    assert reason in entry.record["reason"]
    assert f"malformed: {entry.record['reason']}: " in text(entry)


@pytest.mark.parametrize("data", [None, 5, [], {"call": "7"}, {"call": None, "event": {}}, {"call": 7}])
@pytest.mark.parametrize("kind", ["request", "reply", "error", "cancel", "hello"])
def test_ill_typed_frames_of_pyipc_are_shown_all_the_same(kind: str, data: Any) -> None:
    frame = json.dumps({"type": f"pyipc.{kind}", "data": data}).encode()
    assert kind in text(read(Transcript(1, full=False), frame))


@given(st.binary(max_size=200))
def test_any_bytes_can_be_shown(data: bytes) -> None:
    transcript = Transcript(1, full=False)
    for entry in (
        read(transcript, data),
        transcript.chunk(Moment(NOON, 0), Direction.TO_CLIENT, Piece(data, 9_999)),
        transcript.frame(Moment(NOON, 0), Direction.TO_CLIENT, Piece(data, 300, finished=False)),
    ):
        assert json.loads(json.dumps(entry.record)) == entry.record
        assert text(entry).startswith("12:00:00.000 #1")


def test_long_data_is_shortened_unless_it_is_wanted() -> None:
    frame = json.dumps({"type": "long", "data": "x" * 1_000}).encode()
    assert text(read(Transcript(1, full=False), frame)).endswith("xxx ...")
    assert text(read(Transcript(1, full=True), frame)).endswith("xxx" + '"')
    # Records are for programs and have it all.
    assert read(Transcript(1, full=False), frame).record["data"] == "x" * 1_000


def test_a_part_of_a_large_frame_is_shown() -> None:
    entry = Transcript(1, full=False).frame(Moment(NOON, 0), Direction.TO_SERVER, Piece(b'{"type":"x', 10_000_000))
    assert text(entry).endswith('9.54 MiB large: shown in part: {"type":"x')


def test_chunks_that_are_text_and_others() -> None:
    transcript = Transcript(1, full=False)

    def show(data: bytes) -> str:
        return text(transcript.chunk(Moment(NOON, 0), Direction.TO_SERVER, Piece(data, len(data))))

    assert show(b"GET / HTTP/1.1\r\n").endswith(r"16 B 'GET / HTTP/1.1\r\n'")
    assert show(bytes(range(18))).endswith(
        "18 B \n"
        "  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  ................\n"
        "  10 11                                            .."
    )
