"""Events arrive: whole, in order, of every size, however the bytes are cut."""

from __future__ import annotations

import json
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.conformance.sides import until
from tests.conformance.subjects import Feature, lacks, needs

if TYPE_CHECKING:
    from tests.conformance.sides import Stage
    from tests.conformance.subjects import Subject

PAYLOADS: list[Any] = [
    *(None, True, False, 0, -1, 2**53 + 1, 1.5, "", "text", 'caf\u00e9 \U0001f600 \u2028 \f\n\r\t\0\x7f"\\/', "\ud800"),
    *([], {}, [1, [2, [3]]], {"a": {"b": [None]}}, {"": ""}, ["\f", "\x01"]),
]


def frame(event: str, data: object) -> bytes:
    return json.dumps({"type": event, "data": data}, separators=(",", ":")).encode() + b"\f"


@needs(Feature.MESSAGES)
@lacks(Feature.LARGE)
async def test_a_message_that_does_not_fit_is_a_local_error_and_ends_nothing(stage: Stage) -> None:
    theirs = pyipc.Router()
    theirs.on("echo", lambda message: message.data)
    theirs.on("much", lambda message: "x" * 1_000_000)
    async with stage.open(theirs=theirs) as wire:
        for send in (wire.ours.conn.emit, wire.ours.conn.request):
            with pytest.raises(pyipc.MessageTooLarge) as caught:
                await send("echo", "x" * 1_000_000)
            assert caught.value.size > 1_000_000 > caught.value.limit
        with pytest.raises(pyipc.RemoteError) as failed:
            await wire.ours.conn.request("much")
        assert failed.value.code == "reply-too-large"
        assert await wire.ours.conn.request("echo", "x" * 1_000) == "x" * 1_000


@needs(Feature.MESSAGES)
async def test_every_kind_of_payload_arrives_as_it_was_sent(stage: Stage) -> None:
    got: list[Any] = []
    theirs = pyipc.Router()
    theirs.on("echo", lambda message: message.data)
    theirs.on("note", lambda message: got.append(message.data))
    async with stage.open(theirs=theirs) as wire:
        for payload in PAYLOADS:
            assert await wire.ours.conn.request("echo", payload) == payload
            await wire.ours.conn.emit("note", payload)
        await wire.ours.conn.request("echo")
        assert got == PAYLOADS


@needs(Feature.DELIVERY, Feature.ORDER)
async def test_order_is_kept_in_both_directions_at_once(stage: Stage) -> None:
    count = 5_000
    got: dict[str, list[int]] = {"ours": [], "theirs": []}
    ours, theirs = pyipc.Router(), pyipc.Router()
    ours.on("n", lambda message: got["ours"].append(message.data))

    @theirs.on("n")
    async def take_a_while(message: pyipc.Message[int]) -> None:
        if message.data % 500 == 0:
            await trio.lowlevel.checkpoint()
        got["theirs"].append(message.data)

    async def send(connection: pyipc.Connection) -> None:
        for number in range(count):
            await connection.emit("n", number)

    async with stage.open(ours, theirs) as wire:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, wire.ours.conn)
            nursery.start_soon(send, wire.theirs.conn)
        await until(lambda: len(got["ours"]) == len(got["theirs"]) == count)
    assert got == {"ours": list(range(count)), "theirs": list(range(count))}


@needs(Feature.LARGE, Feature.ORDER)
async def test_the_largest_frame_passes_and_one_byte_more_does_not(stage: Stage) -> None:
    limit = 100_000
    theirs = pyipc.Router()
    theirs.on("big", lambda message: len(message.data))
    async with stage.open(theirs=theirs, max_frame_size=limit) as wire:
        envelope = len(frame("big", "")) - 1
        got = trio.Event()
        theirs.on("last", lambda message: got.set())
        largest = "x" * (limit - envelope)
        await wire.ours.conn.emit("big", largest)
        with pytest.raises(pyipc.MessageTooLarge) as caught:
            await wire.ours.conn.emit("big", largest + "x")
        assert (caught.value.size, caught.value.limit) == (limit + 1, limit)
        await wire.ours.conn.emit("last")
        await got.wait()
        assert wire.theirs.conn.statistics().events_received == 3 - (stage.role == "server")


@needs(Feature.MESSAGES)
async def test_the_smaller_limit_of_the_two_holds_for_both(stage: Stage) -> None:
    async with stage.open(their_options={"max_frame_size": 1_000}) as wire:
        with pytest.raises(pyipc.MessageTooLarge, match="1,000"):
            await wire.ours.conn.emit("big", "x" * 1_000)
        with pytest.raises(pyipc.MessageTooLarge, match="1,000"):
            await wire.ours.conn.request("big", "x" * 1_000)
        assert await wire.ours.conn.request("conformance.ready")


@needs(Feature.LARGE)
@pytest.mark.parametrize("size", [1, 64 * 1024, 1_000_000])
async def test_a_large_frame_is_whole(stage: Stage, size: int) -> None:
    theirs = pyipc.Router()
    theirs.on("echo", lambda message: message.data)
    text = random.Random(size).randbytes(size // 2 + 1).hex()[:size]
    async with stage.open(theirs=theirs) as wire:
        assert await wire.ours.conn.request("echo", text) == text


@needs(Feature.MESSAGES)
@lacks(Feature.LARGE)
async def test_what_is_too_large_for_the_transport_is_an_error_here(stage: Stage) -> None:
    async with stage.open() as wire:
        for send in (wire.ours.conn.emit, wire.ours.conn.request):
            with pytest.raises(pyipc.MessageTooLarge):
                await send("big", "x" * 1_000_000)
        assert await wire.ours.conn.request("conformance.ready")


@needs(Feature.BROADCAST, Feature.MANY)
async def test_a_broadcast_reaches_every_client(subject: Subject) -> None:
    got: list[Any] = []
    router = pyipc.Router()
    router.on("news", lambda message: got.append(message.data))
    served = pyipc.Router()
    served.on("hello", lambda message: None)
    async with pyipc.Server(subject.server_endpoint(), router=served) as server:
        where = subject.client_endpoint(server.addresses[0])
        async with AsyncExitStack() as stack:
            for _ in range(3):
                client = await stack.enter_async_context(pyipc.connect(where, router=router))
                await client.request("hello")
            report = await server.broadcast("news", {"n": 1})
            assert (report.sent, report.dropped) == (3, 0)
            await until(lambda: got == [{"n": 1}] * 3)


@needs(Feature.DELIVERY, Feature.ORDER, Feature.PRESSURE)
async def test_many_small_events_all_arrive(stage: Stage) -> None:
    count, got = 20_000, 0
    theirs = pyipc.Router()

    @theirs.on("tick")
    def tick(message: pyipc.Message[int]) -> None:
        nonlocal got
        assert message.data == got
        got += 1

    async with stage.open(theirs=theirs) as wire:
        for number in range(count):
            await wire.ours.conn.emit("tick", number)
        await wire.ours.conn.request("conformance.ready")
    assert got == count


@needs(Feature.CHUNKS)
@pytest.mark.parametrize("seed", range(4))
async def test_the_bytes_may_be_cut_anywhere(stage: Stage, seed: int) -> None:
    got: list[Any] = []
    router = pyipc.Router()
    router.on("e", lambda message: got.append(message.data))
    payloads = [payload for payload in PAYLOADS if payload != "\ud800"]
    stream = b"".join(frame("e", payload) for payload in payloads)
    draw = random.Random(seed)
    async with stage.open_raw(router) as wire:
        while stream:
            cut = 1 if seed == 0 else draw.choice([1, 2, 3, 7, 50, 400])
            await wire.link.send(stream[:cut])
            if draw.random() < 0.3:
                await trio.lowlevel.checkpoint()
            stream = stream[cut:]
        await until(lambda: len(got) == len(payloads))
    assert got == payloads


@needs(Feature.CHUNKS)
async def test_a_complete_frame_is_not_held_back_by_the_start_of_the_next(stage: Stage) -> None:
    got: list[Any] = []
    router = pyipc.Router()
    router.on("e", lambda message: got.append(message.data))
    async with stage.open_raw(router) as wire:
        await wire.link.send(frame("e", 1) + frame("e", 2)[:5])
        await until(lambda: got == [1])
        await wire.link.send(frame("e", 2)[5:])
        await until(lambda: got == [1, 2])


@needs(Feature.CHUNKS, Feature.MESSAGES)
async def test_a_plain_peer_is_sent_exactly_the_bytes_of_node_ipc(stage: Stage) -> None:
    async with stage.open_raw(pyipc.Router()) as wire:
        await until(lambda: wire.ours.connection is not None)
        received = b""
        if stage.role == "client":
            while not received.endswith(b"\f"):
                received += await wire.link.receive()
            assert received.startswith(b'{"type":"pyipc.hello","data":{')
            received = b""
        await wire.ours.conn.emit("message", {"a": 1, "id": "hello"})
        while not received.endswith(b"\f"):
            received += await wire.link.receive()
        assert received == b'{"type":"message","data":{"a":1,"id":"hello"}}\x0c'
