"""Attachments arrive as they were sent: of every size, with whatever is in them, in order with everything else."""

from __future__ import annotations

import hashlib
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.protocol.parcels import pack
from tests.conformance.sides import cancelled_at, until
from tests.conformance.subjects import Feature, lacks, needs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conformance.sides import Stage
    from tests.conformance.subjects import Subject

MIB = 2**20
CONTENTS: list[list[bytes]] = [
    [b""],
    [b"x"],
    [b"\f"],
    [b"\x01"],
    [b'{"type":"conformance.ready"}\f' * 3],
    [b"\x01" + bytes(7) + b"\x05inner\f"],
    [bytes(range(256)) * 5],
    [b"", b"\f\x01", b"", b"last"],
    [b"%d" % number for number in range(64)],
    [b"\f" * 65_535, b"\x01" * 65_536, b"\0" * 65_537],
    [random.Random(1).randbytes(300_000), b"small", random.Random(2).randbytes(200_000)],
]


def digest(contents: Any) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in contents]


def hello(feature: str = "attachments", *, welcome: bool = False) -> bytes:
    name, version = ("welcome", '"version":1') if welcome else ("hello", '"versions":[1]')
    text = '{"type":"pyipc.%s","data":{%s,"features":["%s"],"max_attachments_size":4194304}}\f'
    return (text % (name, version, feature)).encode()


@needs(Feature.ATTACHMENTS)
async def test_they_arrive_as_they_were_sent_with_events_requests_and_answers(stage: Stage) -> None:
    got: list[Any] = []
    theirs = pyipc.Router()
    theirs.on("note", lambda message: got.append((message.data, list(message.attachments))))

    @theirs.on("echo")
    def echo(message: pyipc.Message[int]) -> pyipc.Attached[int]:
        return pyipc.Attached(message.data, message.attachments)

    @theirs.on("later")
    async def later(message: pyipc.Message[int]) -> pyipc.Attached[int]:
        await trio.lowlevel.checkpoint()
        return pyipc.Attached(message.data, message.attachments)

    async with stage.open(theirs=theirs) as wire:
        ours = wire.ours.conn
        for number, contents in enumerate(CONTENTS):
            await ours.emit("note", number, attachments=contents)
            for name in ("echo", "later"):
                answer = await ours.request(name, number, attachments=contents)
                assert isinstance(answer, pyipc.Attached)
                assert (answer.data, list(answer.attachments)) == (number, contents)
        assert got == list(enumerate(CONTENTS))
        assert all(type(content) is bytes for _, contents in got for content in contents)
        sent, received = ours.statistics(), wire.theirs.conn.statistics()
        count, size = sum(map(len, CONTENTS)), sum(sum(map(len, contents)) for contents in CONTENTS)
        assert (sent.attachments_sent, sent.attachments_sent_size) == (3 * count, 3 * size)
        assert (received.attachments_received, received.attachments_received_size) == (3 * count, 3 * size)
        assert (sent.attachments_received, received.attachments_sent) == (2 * count, 2 * count)
        assert (sent.attachments_received_size, received.attachments_sent_size) == (2 * size, 2 * size)


@needs(Feature.ATTACHMENTS, Feature.STREAMS, Feature.CONFIRM)
async def test_they_come_with_items_of_streams_and_confirmed_events(stage: Stage) -> None:
    got: list[Any] = []
    theirs = pyipc.Router()

    @theirs.on("rows")
    async def rows(message: pyipc.Message[Any]) -> AsyncIterator[object]:
        assert list(message.attachments) == CONTENTS[-2]
        for number, contents in enumerate(CONTENTS):
            yield pyipc.Attached(number, contents)
            yield number

    theirs.on("note", lambda message: got.append(list(message.attachments)))
    async with stage.open(theirs=theirs) as wire:
        taken: list[Any] = []
        async with wire.ours.conn.stream("rows", attachments=CONTENTS[-2]) as stream:
            async for item in stream:
                if isinstance(item, pyipc.Attached):
                    item = item.data, list(item.attachments)
                taken.append(item)
        assert taken == [each for pair in enumerate(CONTENTS) for each in (pair, pair[0])]
        for contents in CONTENTS:
            await wire.ours.conn.emit("note", confirm=True, attachments=contents)
        assert got == CONTENTS


@needs(Feature.ATTACHMENTS, Feature.ORDER)
async def test_order_is_kept_among_events_with_and_without_in_both_directions_at_once(stage: Stage) -> None:
    count = 400
    got: dict[str, list[Any]] = {"ours": [], "theirs": []}
    ours, theirs = pyipc.Router(), pyipc.Router()
    ours.on("n", lambda message: got["ours"].append((message.data, *map(len, message.attachments))))

    @theirs.on("n")
    async def take_a_while(message: pyipc.Message[int]) -> None:
        if message.data % 50 == 0:
            await trio.lowlevel.checkpoint()
        got["theirs"].append((message.data, *map(len, message.attachments)))

    draw = random.Random(4)
    sizes = [[draw.choice([0, 1, 100, 10_000, 90_000]) for _ in range(draw.choice([0, 0, 1, 3]))] for _ in range(count)]

    async def send(connection: pyipc.Connection) -> None:
        for number, each in enumerate(sizes):
            await connection.emit("n", number, attachments=[b"\f" * size for size in each])

    async with stage.open(ours, theirs) as wire:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, wire.ours.conn)
            nursery.start_soon(send, wire.theirs.conn)
        await until(lambda: len(got["ours"]) == len(got["theirs"]) == count)
    expected = [(number, *each) for number, each in enumerate(sizes)]
    assert got == {"ours": expected, "theirs": expected}


@needs(Feature.ATTACHMENTS, Feature.LARGE)
async def test_as_much_as_both_sides_accept_and_no_more(stage: Stage) -> None:
    theirs = pyipc.Router()
    theirs.on("much", lambda message: digest(message.attachments))
    contents = [random.Random(3).randbytes(3 * MIB), b"x" * MIB]
    async with stage.open(theirs=theirs) as wire:
        connection = wire.ours.conn
        assert await connection.request("much", attachments=contents) == digest(contents)
        for send in (connection.emit, connection.request):
            with pytest.raises(pyipc.MessageTooLarge, match="max_attachments_size") as caught:
                await send("much", attachments=[*contents, b"x"])
            assert (caught.value.size, caught.value.limit) == (4 * MIB + 1, 4 * MIB)
            with pytest.raises(pyipc.MessageTooLarge, match="65 attachments"):
                await send("much", attachments=[b""] * 65)
        with pytest.raises(pyipc.MessageTooLarge):
            connection.emit_nowait("much", attachments=[*contents, b"x"])
        assert await connection.request("much", attachments=[b"x"]) == digest([b"x"])


@needs(Feature.ATTACHMENTS)
async def test_the_smaller_limit_of_the_two_holds_for_both(stage: Stage) -> None:
    theirs = pyipc.Router()
    theirs.on("much", lambda message: digest(message.attachments))
    async with stage.open(theirs=theirs, our_options={"max_attachments_size": 1}) as wire:
        for side in (wire.ours, wire.theirs):
            with pytest.raises(pyipc.MessageTooLarge, match="the limit is 1 "):
                await side.conn.emit("much", attachments=[b"xx"])
        assert await wire.ours.conn.request("much", attachments=[b"x"]) == digest([b"x"])


@needs(Feature.ATTACHMENTS)
async def test_an_answer_with_more_than_is_accepted_is_an_error(stage: Stage) -> None:
    theirs = pyipc.Router()
    theirs.on("large", lambda message: pyipc.Attached(None, [bytes(101)]))
    theirs.on("wrong", lambda message: pyipc.Attached(None, ["text"]))  # type: ignore[list-item]
    theirs.on("none", lambda message: pyipc.Attached(7))
    async with stage.open(theirs=theirs, our_options={"max_attachments_size": 100}) as wire:
        for name, code in (("large", "reply-too-large"), ("wrong", "handler-failed")):
            with pytest.raises(pyipc.RemoteError) as caught:
                await wire.ours.conn.request(name)
            assert caught.value.code == code
        assert await wire.ours.conn.request("none") == 7
        empty = await wire.ours.conn.request("none", result=pyipc.Attached[int])
        assert (empty.data, list(empty.attachments)) == (7, [])


@needs(Feature.ATTACHMENTS, Feature.DELIVERY, Feature.PRESSURE)
async def test_a_slow_handler_holds_the_sender_back_and_loses_nothing(stage: Stage) -> None:
    got: list[int] = []
    theirs = pyipc.Router()
    go_on = trio.Event()

    @theirs.on("e")
    async def slow(message: pyipc.Message[int]) -> None:
        await go_on.wait()
        assert message.attachments == (bytes([message.data % 256]) * 300_000,)
        got.append(message.data)

    count = 0

    async def send() -> None:
        nonlocal count
        while not go_on.is_set():
            await wire.ours.conn.emit("e", count, attachments=[bytes([count % 256]) * 300_000])
            count += 1

    async with stage.open(theirs=theirs, their_options={"inbox_high_water_size": 500_000}) as wire:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await until(lambda: wire.theirs.conn.statistics().reading_paused)
            await until(lambda: wire.ours.conn.statistics().outbox_size >= 64 * 1024)
            assert wire.theirs.conn.statistics().inbox_size < 2_000_000
            with pytest.raises(trio.WouldBlock):
                wire.ours.conn.emit_nowait("e", -1, attachments=[b"x"])
            go_on.set()
        await until(lambda: len(got) == count)
    assert got == list(range(count))


@needs(Feature.ATTACHMENTS, Feature.DELIVERY)
async def test_one_that_is_larger_than_what_may_wait_waits_all_the_same(stage: Stage) -> None:
    """The caps of outbox and inbox bound what piles up, and not how large a message may be."""
    got: list[int] = []
    theirs = pyipc.Router()
    go_on = trio.Event()

    @theirs.on("e")
    async def slow(message: pyipc.Message[Any]) -> None:
        await go_on.wait()
        got.append(sum(map(len, message.attachments)))

    options: dict[str, Any] = {"max_inbox_size": 300_000, "max_outbox_size": 100_000}
    async with stage.open(theirs=theirs, **options) as wire:
        # As it waits for an answer, this side reads on whatever waits.
        async with trio.open_nursery() as nursery:
            for size in (1, 1, 2 * MIB):
                await wire.ours.conn.emit("e", attachments=[bytes(size)])
            await until(lambda: wire.theirs.conn.statistics().inbox_size > 2 * MIB)
            nursery.start_soon(wire.theirs.conn.request, "conformance.ready")
            await wire.ours.conn.emit("e", attachments=[b"1234"])
            go_on.set()
        await until(lambda: len(got) == 4)
    assert got == [1, 1, 2 * MIB, 4]


@needs(Feature.ATTACHMENTS)
async def test_cancelling_leaves_whole_messages(stage: Stage) -> None:
    got: list[Any] = []
    theirs = pyipc.Router()
    theirs.on("e", lambda message: got.append((message.data, digest(message.attachments))))
    contents = [bytes(200_000), b"\f"]
    sent = []
    async with stage.open(theirs=theirs) as wire:
        for step in range(6):

            async def emit(step: int = step) -> None:
                await wire.ours.conn.emit("e", step, attachments=contents)
                sent.append(step)

            await cancelled_at(step, emit)
        await wire.ours.conn.request("conformance.ready")
        await until(lambda: len(got) >= len(sent))
        assert got == [(step, digest(contents)) for step in sent]


@needs(Feature.ATTACHMENTS, Feature.BROADCAST, Feature.MANY)
async def test_a_broadcast_reaches_everybody_who_takes_them(subject: Subject) -> None:
    got: list[Any] = []
    router, served = pyipc.Router(), pyipc.Router()
    router.on("news", lambda message: got.append((message.data, list(message.attachments))))
    served.on("hello", lambda message: None)
    async with pyipc.Server(subject.server_endpoint(), router=served) as server:
        where = subject.client_endpoint(server.addresses[0])
        async with AsyncExitStack() as stack:
            for _ in range(3):
                client = await stack.enter_async_context(pyipc.connect(where, router=router))
                await client.request("hello")
            for contents in ([b"small\f"], [bytes(100_000), b"\x01"]):
                got.clear()
                report = await server.broadcast("news", 1, attachments=contents)
                assert (report.sent, report.dropped) == (3, 0)
                await until(lambda expected=[(1, contents)] * 3: got == expected)  # type: ignore[misc]


@needs(Feature.ATTACHMENTS, Feature.CHUNKS)
@pytest.mark.parametrize("seed", range(4))
async def test_the_bytes_may_be_cut_anywhere(stage: Stage, seed: int) -> None:
    got: list[Any] = []
    router = pyipc.Router()
    router.on("e", lambda message: got.append((message.data, list(message.attachments))))
    draw = random.Random(seed)
    stream, expected = b"", []
    for number, contents in enumerate(CONTENTS[:9]):
        stream += bytes(pack(b'{"type":"e","data":%d}\f' % number, contents))  # type: ignore[arg-type]
        stream += b'{"type":"e","data":null}\f'
        expected += [(number, contents), (None, [])]
    async with stage.open_raw(router) as wire:
        await wire.link.send(hello(welcome=stage.role == "client"))
        while stream:
            cut = 1 if seed == 0 else draw.choice([1, 2, 3, 7, 9, 50, 400])
            await wire.link.send(stream[:cut])
            if draw.random() < 0.3:
                await trio.lowlevel.checkpoint()
            stream = stream[cut:]
        await until(lambda: len(got) == len(expected))
    assert got == expected


@needs(Feature.ATTACHMENTS, Feature.ENDING)
@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (b"\x01" + b"\xff" * 8, "size"),
        (b"\x01" + bytes(8) + b'{"type":"pyipc.ping"}\f', "control"),
        (b"\x01" + bytes(8) + b'{"type":\x01}\f', "json"),
    ],
)
async def test_wrong_records_end_the_connection(stage: Stage, wrong: bytes, code: str) -> None:
    async with stage.open_raw(pyipc.Router(), close_timeout=0.1, reconnect=False) as wire:
        await wire.link.send(hello(welcome=stage.role == "client") + wrong)
        await until(lambda: len(wire.ours.ended) == 1)
    assert wire.ours.ended[0].code == code


@needs(Feature.ATTACHMENTS)
async def test_a_peer_that_does_not_take_them_is_sent_none(stage: Stage) -> None:
    router = pyipc.Router()
    async with stage.open_raw(router, handshake_timeout=0.1, close_timeout=0.1) as wire:
        await until(lambda: wire.ours.connection is not None)
        connection = wire.ours.conn
        for send in (connection.emit, connection.request):
            with pytest.raises(pyipc.PeerLacksFeature):
                await send("e", attachments=[b"x"])  # nobody has introduced itself
        await wire.link.send(hello("streams", welcome=stage.role == "client"))
        await connection.know_peer()
        await until(lambda: connection.peer.protocol == "pyipc/1")
        for send in (connection.emit, connection.request):
            with pytest.raises(pyipc.PeerLacksFeature) as caught:
                await send("e", attachments=[b"x"])
            assert caught.value.feature == "attachments"
        with pytest.raises(pyipc.PeerLacksFeature):
            connection.emit_nowait("e", attachments=[b"x"])
        await connection.emit("e", attachments=[])  # which are none
        received = b""
        while not received.endswith(b'{"type":"e","data":null}\f'):
            received += await wire.link.receive()
        assert b"\x01" not in received


@lacks(Feature.ATTACHMENTS)
@needs(Feature.MESSAGES)
async def test_where_there_are_none_that_is_an_error_here(stage: Stage) -> None:
    theirs = pyipc.Router()
    theirs.on("answer", lambda message: pyipc.Attached(None, [b"x"]))
    async with stage.open(theirs=theirs) as wire:
        connection = wire.ours.conn
        for send in (connection.emit, connection.request):
            with pytest.raises(pyipc.UnsupportedByTransport) as caught:
                await send("e", attachments=[b"x"])
            assert caught.value.feature == "attachments"
        with pytest.raises(pyipc.UnsupportedByTransport):
            connection.emit_nowait("e", attachments=[b"x"])
        with pytest.raises(pyipc.RemoteError) as failed:
            await connection.request("answer")
        assert failed.value.code == "handler-failed"
        assert await wire.server.broadcast("e", attachments=[b"x"]) == pyipc.BroadcastReport(0, 1)
        assert await connection.request("conformance.ready")
