"""Attachments by clients and servers: without a connection, with peers that take none, broken links, copies made."""

from __future__ import annotations

import hashlib
import logging
import random
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.errors import ConnectionLost
from pyipc.flusher import Flusher
from pyipc.outbox import STREAM_WRITE_SIZE, Outbox
from pyipc.protocol.codec import control_frame
from pyipc.protocol.features import Deliver
from pyipc.protocol.parcels import JOINED_SIZE, Parcel, SmallParcel, pack, with_frame
from pyipc.testing import Faults, FaultyTransport, pair
from pyipc.transports import Link, memory_link_pair
from tests.conformance.sides import until
from tests.conftest import SCALE
from tests.wire import frame, hello, join, lone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio.testing import MockClock

MIB = 2**20
EVENT = b'{"type":"e","data":null}\f'


def digest(contents: Sequence[bytes]) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in contents]


# --- without a connection, or with one that is not known yet ----------------------------------------------------


async def test_they_wait_for_a_connection_and_for_the_welcome(autojump_clock: MockClock) -> None:
    got: list[Any] = []
    router = pyipc.Router()
    router.on("e", lambda message: got.append((message.data, list(message.attachments))))
    contents: list[list[bytes]] = [[b"small\f"], [], [bytes(100_000), b"x"]]
    async with pyipc.connect("memory:attached", wait=False) as client:
        changing = bytearray(b"before")
        await client.emit("e", -1, attachments=[changing])
        changing[:] = b"after!"
        for number, each in enumerate(contents):
            client.emit_nowait("e", number, attachments=each)
        statistics = client.statistics()
        assert statistics.offline_messages == 4
        assert 100_000 < statistics.offline_size < 100_300
        async with pyipc.Server("memory:attached", router=router):
            await client.wait_connected(timeout=60)
            await client.request("e")
            connection = client.statistics().connection
            assert connection is not None
            assert (connection.attachments_sent, connection.attachments_sent_size) == (4, 100_013)
            await client.aclose()
    assert got[:-1] == [(-1, [b"before"]), *enumerate(contents)]


async def test_what_waited_is_dropped_where_the_server_takes_none(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    listener = await pyipc.transports.transport_for("memory").listen(pyipc.parse_address("memory:old"), {})
    async with pyipc.connect("memory:old", wait=False, handshake_timeout=3.0, close_timeout=0.1) as client:
        await client.emit("e", 1, attachments=[b"x"])
        await client.emit("e", 2)
        link = await listener.accept()
        await link.send(frame("pyipc.welcome", {"version": 1, "features": ["streams"]}))
        await client.wait_connected()
        received = b""
        while not received.endswith(b'"data":2}\f'):
            received += await link.receive()
        assert b"\x01" not in received
        assert client.statistics().offline_dropped == 1
        assert "cannot be sent to this server: this needs a pyipc peer with 'attachments'" in caplog.text
        await link.aclose()
    await listener.aclose()


async def test_where_nobody_will_ever_take_them_nothing_waits() -> None:
    for address, error in (
        ("node-ipc:world", pyipc.PeerLacksFeature),
        ("udp://127.0.0.1:9", pyipc.UnsupportedByTransport),
        (pyipc.Endpoint("memory:nowhere", framing=pyipc.Raw()), pyipc.UnsupportedByTransport),
    ):
        async with pyipc.connect(address, wait=False) as client:
            for emit in (client.emit, _as_async(client.emit_nowait)):
                if client.connected:
                    continue  # over UDP at once, which the suite of all transports has a test for
                with pytest.raises(error):
                    await emit("data", b"", attachments=[b"x"])


def _as_async(function: Callable[..., None]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)

    return call


async def test_wrong_ones_are_an_error_with_and_without_a_connection() -> None:
    wrong: list[Any] = [b"x", "x", 5, ["x"], [memoryview(b"abcd")[::2]]]
    async with pair() as (client, server), pyipc.connect("memory:nowhere", wait=False) as offline:
        (connection,) = server.connections
        for attachments in wrong:
            for ask in (client.emit, client.request, connection.emit, connection.request, offline.emit):
                with pytest.raises(pyipc.UnencodableData):
                    await ask("e", attachments=attachments)
            for now in (client.emit_nowait, connection.emit_nowait, offline.emit_nowait, server.broadcast_nowait):
                with pytest.raises(pyipc.UnencodableData):
                    now("e", attachments=attachments)
        assert client.statistics().connection is not None
        assert offline.statistics().offline_messages == 0


async def test_one_that_the_offline_queue_has_no_room_for_says_so() -> None:
    async with pyipc.connect("memory:nowhere", wait=False, max_offline_size=1_000) as client:
        with pytest.raises(ConnectionLost, match=r"0 messages, 0 bytes, and no room for 2,0\d\d more"):
            await client.emit("e", attachments=[bytes(2_000)])


async def test_nothing_is_sent_at_once_before_the_welcome_but_it_is_waited_for(autojump_clock: MockClock) -> None:
    listener = await pyipc.transports.transport_for("memory").listen(pyipc.parse_address("memory:slow"), {})
    async with pyipc.connect("memory:slow", close_timeout=0.1) as client:
        link = await listener.accept()
        with pytest.raises(trio.WouldBlock):
            client.emit_nowait("e", attachments=[b"x"])
        with pytest.raises(pyipc.RequestTimeout, match="within 1 s"):
            await client.request("e", attachments=[b"x"], timeout=1)
        with pytest.raises(pyipc.PeerLacksFeature, match="has not introduced itself"):
            await client.emit("e", attachments=[b"x"])
        assert trio.current_time() >= 5.0  # handshake_timeout

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.emit("e", attachments=[b"xyz"]))
            await trio.testing.wait_all_tasks_blocked()
            welcome = {"version": 1, "features": ["attachments"], "max_attachments_size": 3}
            await link.send(frame("pyipc.welcome", welcome))
        received = b""
        while not received.endswith(EVENT):
            received += await link.receive()
        assert received.endswith(b"\f\x01" + bytes(7) + b"\x03xyz" + EVENT)
        with pytest.raises(pyipc.MessageTooLarge):
            client.emit_nowait("e", attachments=[b"wxyz"])
        await link.aclose()
    await listener.aclose()


async def test_who_waits_for_the_welcome_hears_of_the_end(autojump_clock: MockClock) -> None:
    listener = await pyipc.transports.transport_for("memory").listen(pyipc.parse_address("memory:ends"), {})
    async with pyipc.connect("memory:ends", offline="raise", reconnect=False, close_timeout=0.1) as client:
        link = await listener.accept()

        async def lose(send: Any) -> None:
            with pytest.raises(ConnectionLost):
                await send("e", attachments=[b"x"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, client.emit)
            nursery.start_soon(lose, client.request)
            await trio.testing.wait_all_tasks_blocked()
            await link.aclose()
        assert trio.current_time() < 5.0
    await listener.aclose()


async def test_generators_and_empty_lists() -> None:
    got: list[Any] = []
    router = pyipc.Router()
    router.on("e", lambda message: got.append(list(message.attachments)))
    async with pair(router) as (client, _):
        await client.emit("e", attachments=(content for content in (b"a", b"b")))
        client.emit_nowait("e", attachments=iter([b"c"]))
        await client.request("e", attachments=iter([b"d"]))
        nothing: list[Any] = [[], (), iter([])]
        for none in nothing:
            await client.emit("e", attachments=none)
        await client.request("e", attachments=[])
    assert got == [[b"a", b"b"], [b"c"], [b"d"], [], [], [], []]


# --- answers ----------------------------------------------------------------------------------------------------


async def test_the_type_of_an_answer() -> None:
    router = pyipc.Router()
    router.on("one", lambda message: pyipc.Attached({"n": 1}, [b"x"]))
    router.on("none", lambda message: {"n": 2})
    async with pair(router) as (client, _):
        plain = await client.request("one")
        assert repr(plain) == "<Attached with 1 attachments>"
        assert (plain.data, plain.attachments) == ({"n": 1}, (b"x",))
        typed = await client.request("one", result=pyipc.Attached[dict[str, int]])
        assert (typed.data, typed.attachments) == ({"n": 1}, (b"x",))
        bare = await client.request("none", result=pyipc.Attached)
        assert (bare.data, bare.attachments) == ({"n": 2}, ())
        with pytest.raises(pyipc.InvalidData, match=r"1 attachments, which the declared type has no place for"):
            await client.request("one", result=dict[str, int])
        with pytest.raises(pyipc.InvalidData):
            await client.request("one", result=pyipc.Attached[list[int]])
        with pytest.raises(pyipc.UnencodableData):
            await client.emit("one", pyipc.Attached(1, [b"x"]))  # which is no data


async def test_a_peer_that_does_not_take_them_gets_an_error_for_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    router = pyipc.Router()
    router.on("ask", lambda message: pyipc.Attached(1, [b"x"]))
    async with pyipc.Server(router=router, close_timeout=0.1) as server:
        peer = join(server)
        await peer.send(frame("pyipc.request", {"call": 1, "event": "ask"}))
        error = await peer.read_until("pyipc.error")
        assert error["code"] == "handler-failed"
        assert "PeerLacksFeature" in error["message"]
        await peer.link.aclose()


async def test_a_broadcast_leaves_out_who_takes_none(caplog: pytest.LogCaptureFixture) -> None:
    got: list[Any] = []
    router = pyipc.Router()
    router.on("news", lambda message: got.append(list(message.attachments)))
    caplog.set_level(logging.WARNING)
    async with pair(client_router=router) as (client, server):
        with pytest.raises(pyipc.NoHandler):
            await client.request("nothing")  # it has introduced itself
        plain, old = join(server), join(server)
        await old.send(hello())
        await old.read_until("pyipc.welcome")
        for contents in ([b"x"], [bytes(100_000)]):
            report = server.broadcast_nowait("news", attachments=contents)
            assert report == pyipc.BroadcastReport(1, 2)
        assert server.broadcast_nowait("news", attachments=[]) == pyipc.BroadcastReport(3, 0)
        assert (
            caplog.text.count("does not get 'news': this needs a pyipc peer with 'attachments'") == 2
        )  # once for each
        assert await plain.read() == await old.read() == ("news", None)
        with trio.fail_after(5):
            while len(got) < 3:
                await trio.lowlevel.checkpoint()
        assert server.statistics().broadcasts_dropped == 4
        await plain.link.aclose()
        await old.link.aclose()
    assert got == [[b"x"], [bytes(100_000)], []]


@pytest.mark.parametrize("kind", ["request", "stream", "nested"])
async def test_what_handlers_at_work_hold_has_a_bound(kind: str, autojump_clock: MockClock) -> None:
    """Not only what waits: sixty-four handlers may be at work, each with as much attached as one message may have."""
    router = pyipc.Router()
    done = trio.Event()
    at_work = most = finished = 0

    async def work(message: pyipc.Message[Any]) -> None:
        nonlocal at_work, most, finished
        at_work += sum(map(len, message.attachments))
        most = max(most, at_work)
        if message.data == "nested":
            await message.connection.request("back", timeout=None)
        await done.wait()
        at_work -= sum(map(len, message.attachments))
        finished += 1

    @router.on("stream")
    async def stream(message: pyipc.Message[Any]) -> Any:
        await work(message)
        yield 1

    router.on("request", work)
    sizes: Any = {"max_inbox_size": 100_000, "inbox_high_water_size": 20_000}
    async with (
        pyipc.Server("memory:held", router=router, **sizes) as server,
        pyipc.connect("memory:held") as client,
        trio.open_nursery() as nursery,
    ):

        async def ask(data: str) -> None:
            if kind != "stream":
                await client.request("request", data, attachments=[bytes(30_000)], timeout=None)
            else:
                async with client.stream("stream", data, attachments=[bytes(30_000)], timeout=None) as items:
                    assert [item async for item in items] == [1]

        @client.on("back")
        async def back(message: pyipc.Message[Any]) -> None:
            await trio.sleep(0.5)  # all the others have asked by then
            await client.request("small", attachments=[b"x"], timeout=None)

        router.on("small", lambda message: None)
        for number in range(20):
            nursery.start_soon(ask, kind if number == 0 else "")
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1)
        (connection,) = server.connections
        # Of who asks back the answer may depend on any of the others, so that they must not wait.
        assert most == (600_000 if kind == "nested" else 120_000)
        assert connection.statistics().inbox_size < 100_000
        done.set()
        await until(lambda: finished == 20)
        assert client.statistics().connects == 1


async def test_raw_connections_have_none() -> None:
    endpoint = pyipc.Endpoint("memory:raw", framing=pyipc.Raw())
    async with pyipc.Server(endpoint) as server, pyipc.connect(endpoint) as client:
        for send in (client.emit, client.request):
            with pytest.raises(pyipc.UnsupportedByTransport):
                await send("data", b"x", attachments=[b"x"])
        with pytest.raises(pyipc.UnsupportedByTransport):
            client.emit_nowait("data", b"x", attachments=[b"x"])
        with pytest.raises(pyipc.UnsupportedByTransport):
            await server.broadcast("data", b"x", attachments=[b"x"])


# --- the outbox -------------------------------------------------------------------------------------------------


class Counting(Link):
    """Takes what it is given, a little at a time, and remembers it."""

    def __init__(self, *, at_once: int) -> None:
        self.at_once = at_once
        self.taken: list[Any] = []

    @property
    def peer(self) -> pyipc.Peer:
        return pyipc.Peer(address="counting:")

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        piece = data[: self.at_once] if self.at_once < len(data) else data
        self.taken.append(piece)
        return len(piece)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.taken.append(data)

    async def receive(self) -> bytes:
        raise NotImplementedError

    def send_eof(self) -> bool:
        return True

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def test_what_is_joined_is_as_large_as_a_write() -> None:
    assert STREAM_WRITE_SIZE <= JOINED_SIZE


@pytest.mark.parametrize("at_once", [1_000, 65_536, 70_000, 10**9])
async def test_parcels_leave_whole_and_in_order(at_once: int) -> None:
    draw = random.Random(at_once)
    frames: list[bytes | Parcel] = []
    for _ in range(60):
        contents = [draw.randbytes(draw.choice([0, 10, 70_000])) for _ in range(draw.choice([0, 1, 3]))]
        frames.append(pack(EVENT, contents) if contents else EVENT)
    link = Counting(at_once=at_once)
    async with trio.open_nursery() as nursery:
        outbox = Outbox(link, Flusher(), high_water_size=1, max_size=1, spawn=nursery.start_soon, connection=lone())
        for each in frames:
            outbox.push(each)
        assert outbox.size == sum(map(len, frames))
        await outbox.flush()
    assert (outbox.size, len(outbox)) == (0, 0)
    expected = b"".join(b"".join(each.parts) if isinstance(each, Parcel) else each for each in frames)
    assert b"".join(link.taken) == expected
    assert outbox.bytes_sent == len(expected)


async def test_what_is_large_is_handed_over_as_it_is() -> None:
    large = bytes(100_000)
    link = Counting(at_once=10**9)
    outbox = Outbox(link, Flusher(), high_water_size=1, max_size=1, spawn=lambda *_: None, connection=lone())
    outbox.push(pack(EVENT, [large, b"small", large]))
    outbox.flush_nowait()
    assert [len(each) for each in link.taken] == [9, 100_000, 9 + 5 + 9, 100_000, len(EVENT)]
    assert link.taken[1] is link.taken[3] is large


async def test_what_can_be_taken_back_is_whole_and_the_rest_is_counted() -> None:
    link, peer = memory_link_pair(buffer_size=100_000)
    async with trio.open_nursery() as nursery:
        outbox = Outbox(link, Flusher(), high_water_size=1, max_size=1, spawn=nursery.start_soon, connection=lone())
        begun, small, control, large = (
            pack(EVENT, [bytes(70_000), bytes(70_000)]),
            pack(EVENT, [b"x"]),
            pack(control_frame(Deliver(1, "e")) + b"\f", [b"x"]),
            pack(EVENT, [bytes(70_000)]),
        )
        for each in (begun, small, control, large):
            outbox.push(each)
        outbox.flush_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert outbox.count_events() == 3
        assert outbox.reclaim_events() == [small, large]
        assert outbox.size == len(begun) + len(control) - (outbox.bytes_sent)
        await peer.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert outbox.count_events() == 1  # of what had begun nobody knows how much arrived
        assert outbox.size == len(control)
    assert isinstance(begun, Parcel)
    assert isinstance(small, SmallParcel)


async def test_one_that_exceeds_the_cap_is_taken_where_little_waits() -> None:
    link = Counting(at_once=0)
    outbox = Outbox(link, Flusher(), high_water_size=100, max_size=1_000, spawn=lambda *_: None, connection=lone())
    large = pack(EVENT, [bytes(70_000)])
    assert outbox.offer(b"x" * 50)
    assert outbox.offer(large)
    assert not outbox.offer(large)
    assert not outbox.offer(b"x")


# --- broken links -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12 * SCALE))
async def test_the_ledger_of_a_faulty_link(seed: int, autojump_clock: MockClock) -> None:
    """What arrives is what was sent, whole and in order and once; what does not was under way when a link broke."""
    draw = random.Random(seed)
    sizes = [0, 1, 9, 1_000, 65_527, 65_536, 200_000]
    sent: list[list[str]] = []
    events: list[tuple[int, list[str]]] = []
    answers: dict[int, list[str]] = {}
    router = pyipc.Router()
    router.on("e", lambda message: events.append((message.data, digest(message.attachments))))
    router.on("r", lambda message: pyipc.Attached(message.data, message.attachments))
    faults = Faults(
        seed=seed,
        split=draw.choice([None, 5_000, 60_000]),
        coalesce=draw.choice([1, 3]),
        delay=draw.choice([0.0, 0.01]),
        reset_after=draw.choice([None, 500_000]),
    )
    transport = FaultyTransport(faults)
    async with pair(router, faults=transport, client_options={"reconnect_jitter": False}) as (client, _):

        async def ask(number: int, contents: list[bytes]) -> None:
            try:
                answer = await client.request("r", number, attachments=contents, timeout=60)
            except ConnectionLost as lost:
                assert lost.maybe_handled
            else:
                given = answer.attachments if isinstance(answer, pyipc.Attached) else ()
                answers[number] = digest(given)

        async with trio.open_nursery() as nursery:
            for number in range(40):
                contents = [draw.randbytes(draw.choice(sizes)) for _ in range(draw.choice([0, 1, 1, 4]))]
                sent.append(digest(contents))
                await client.emit("e", number, attachments=contents)
                if number % 4 == 0:
                    nursery.start_soon(ask, number, contents)
                if draw.random() < 0.2:
                    await trio.sleep(draw.random())
        await trio.sleep(60)
        losses = client.statistics().connects - 1
    numbers = [number for number, _ in events]
    assert numbers == sorted(set(numbers)), f"seed {seed}: out of order or twice"
    for number, hashes in events:
        assert hashes == sent[number], f"seed {seed}: {number} is not what was sent"
    for number, hashes in answers.items():
        assert hashes == sent[number], f"seed {seed}: the answer to {number} is not what was sent"
    assert losses == 0 or faults.reset_after is not None
    if not losses:
        assert numbers == list(range(40)), f"seed {seed}: something is missing"
        assert len(answers) == 10, f"seed {seed}: an answer is missing"


# --- copies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16 * MIB, 64 * MIB])
async def test_a_large_attachment_is_copied_once(size: int) -> None:
    """Both ends are in this process: what was given, the pieces that arrived and the whole of them."""
    given = bytes(size)
    router = pyipc.Router()
    router.on("length", lambda message: len(message.attachments[0]))
    options = {"max_attachments_size": size}
    async with pair(router, server_options=options, client_options=options) as (client, _):
        for attachment, copies in ((given, 2), (memoryview(given), 2), (bytearray(given), 3)):
            tracemalloc.start()
            try:
                assert await client.request("length", attachments=[attachment]) == size
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            print(f"{type(attachment).__name__}: {peak / size:.2f} times its size")
            assert peak <= (copies + 0.1) * size


@pytest.mark.parametrize("wrong", [b"abc", bytearray(b"abc"), memoryview(b"abc"), "abc"])
def test_what_is_attached_to_an_answer_is_a_list(wrong: Any) -> None:
    """Not taken apart into numbers or characters, of which the peer would hear when the handler is done."""
    with pytest.raises(pyipc.LocalProtocolError, match="list"):
        pyipc.Attached(None, wrong)


async def test_the_smaller_limit_of_both_sides_holds_for_what_is_sent(autojump_clock: MockClock) -> None:
    async with pair(client_options={"max_attachments_size": 1_000}) as (client, _):
        with pytest.raises(pyipc.NoHandler):
            await client.request("nothing")  # both are introduced
        await client.emit("e", attachments=[bytes(1_000)])
        with pytest.raises(pyipc.MessageTooLarge):
            await client.emit("e", attachments=[bytes(1_001)])


@pytest.mark.parametrize("over", [-40, 0, 49])
def test_one_that_becomes_small_with_another_frame_is_one_piece(over: int) -> None:
    """The outbox joins what is small, and relies on parcels being larger."""
    frame_size = 200
    parcel = pack(b"x" * frame_size, (bytes(JOINED_SIZE - 9 - frame_size + 51 + over),))
    assert type(parcel) is Parcel
    other = with_frame(parcel, b"y" * (frame_size - 100))
    assert type(other) is SmallParcel
    assert bytes(other).endswith(b"y" * (frame_size - 100))
    assert len(other) == len(bytes(other)) <= JOINED_SIZE
    larger = with_frame(other, b"z" * (frame_size + 200))
    assert (type(larger) is Parcel) == (len(larger) > JOINED_SIZE)
