"""Slow peers, hostile peers and cancelled calls: bounds hold, and nobody else is hurt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.conformance.sides import cancelled_at, noise, until, until_quiet
from tests.conformance.subjects import Feature, needs

if TYPE_CHECKING:
    from tests.conformance.sides import Stage
    from tests.conformance.subjects import Subject

SMALL: dict[str, Any] = {"outbox_high_water_size": 20_000, "max_outbox_size": 200_000}


@needs(Feature.PRESSURE)
async def test_a_peer_that_does_not_read_holds_the_sender_back(stage: Stage) -> None:
    emitted = 0
    async with stage.open_raw(pyipc.Router(), close_timeout=0.05, offline="drop", **SMALL) as wire:
        await until(lambda: wire.ours.connection is not None)

        async def send() -> None:
            nonlocal emitted
            with pytest.raises(pyipc.ConnectionClosed):
                while True:
                    await wire.ours.conn.emit("e", noise(1_000))
                    emitted += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await until_quiet(lambda: emitted)
            before = emitted
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            assert emitted - before <= 1
            assert wire.ours.conn.statistics().outbox_size >= 20_000
            assert wire.ours.conn.statistics().outbox_size < 22_000
            with pytest.raises(trio.WouldBlock):
                wire.ours.conn.emit_nowait("e")
            await wire.link.aclose()


@needs(Feature.DELIVERY, Feature.PRESSURE)
async def test_a_slow_handler_holds_the_sender_back_and_loses_nothing(stage: Stage) -> None:
    got: list[int] = []
    theirs = pyipc.Router()
    go_on = trio.Event()

    @theirs.on("e")
    async def slow(message: pyipc.Message[list[Any]]) -> None:
        await go_on.wait()
        got.append(message.data[0])

    count = 0

    async def send() -> None:
        # Until it is held back, however much the kernel buffers on the way.
        nonlocal count
        while not go_on.is_set():
            await wire.ours.conn.emit("e", [count, noise(1_000)])
            count += 1

    async with stage.open(theirs=theirs, their_options={"inbox_high_water_size": 30_000}, **SMALL) as wire:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await until(lambda: wire.theirs.conn.statistics().reading_paused)
            await until(lambda: wire.ours.conn.statistics().outbox_size >= 20_000)
            assert wire.theirs.conn.statistics().inbox_size < 30_000 + 600_000
            go_on.set()
        await until(lambda: len(got) == count)
    assert got == list(range(count))


@needs(Feature.DELIVERY, Feature.PRESSURE)
async def test_a_pending_request_keeps_reading_on_however_full_the_inbox(stage: Stage) -> None:
    theirs = pyipc.Router()
    answers: list[Any] = []

    @theirs.on("e")
    async def ask_back(message: pyipc.Message[Any]) -> None:
        if not answers:
            answers.append(await message.connection.request("answer"))

    ours = pyipc.Router()

    @ours.on("answer")
    async def answer(message: pyipc.Message[None]) -> str:
        for number in range(500):
            await message.connection.emit("e", [number, noise(1_000)])
        return "here"

    async with stage.open(ours, theirs, their_options={"inbox_high_water_size": 10_000}) as wire:
        await wire.ours.conn.emit("e", "first")
        await until(lambda: answers == ["here"])


@needs(Feature.CHUNKS, Feature.ENDING, Feature.PRESSURE)
async def test_an_inbox_beyond_its_cap_closes_the_connection(stage: Stage) -> None:
    ours = pyipc.Router()

    @ours.on("e")
    async def ask(message: pyipc.Message[Any]) -> None:
        await message.connection.request("never")

    options: dict[str, Any] = {"inbox_high_water_size": 10_000, "max_inbox_size": 100_000, "close_timeout": 0.1}
    async with stage.open_raw(ours, reconnect=False, **options) as wire:
        await wire.link.send(b'{"type":"pyipc.cancel","data":{"call":5}}\f')  # shows that it can take requests

        async def flood() -> None:
            try:
                for _ in range(300):
                    await wire.link.send(b'{"type":"e","data":"%s"}\f' % noise(1_000).encode())
            except pyipc.ConnectionClosed:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await until(lambda: len(wire.ours.ended) == 1)
            nursery.cancel_scope.cancel()
        assert wire.ours.ended[0].code == "slow"


@needs(Feature.CHUNKS, Feature.ENDING, Feature.PRESSURE)
async def test_a_peer_that_asks_and_never_reads_is_closed(stage: Stage) -> None:
    router = pyipc.Router()
    router.on("big", lambda message: noise(50_000))
    async with stage.open_raw(router, reconnect=False, close_timeout=0.1, **SMALL) as wire:

        async def ask() -> None:
            try:
                for call in range(1, 200):
                    await wire.link.send(b'{"type":"pyipc.request","data":{"call":%d,"event":"big"}}\f' % call)
            except pyipc.ConnectionClosed:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: len(wire.ours.ended) == 1)
            nursery.cancel_scope.cancel()
        assert wire.ours.ended[0].code == "slow"


def has_all(got: list[int], count: int) -> bool:
    return len(got) == count


@needs(Feature.BROADCAST, Feature.DELIVERY, Feature.MANY, Feature.PRESSURE)
@pytest.mark.parametrize("policy", ["close", "drop"])
async def test_a_broadcast_waits_for_nobody(subject: Subject, policy: Any) -> None:
    got: list[int] = []
    router = pyipc.Router()
    router.on("news", lambda message: got.append(message.data[0]))
    server = pyipc.Server(subject.server_endpoint(), slow_peer=policy, close_timeout=0.1, **SMALL)
    async with server:
        where = subject.client_endpoint(server.addresses[0])
        stuck = trio.Event()
        slow_router = pyipc.Router()
        slow_router.on("news", lambda message: stuck.wait())
        async with (
            pyipc.connect(where, router=router) as fast,
            pyipc.connect(where, router=slow_router, inbox_high_water_size=1, reconnect=False) as slow,
        ):
            await fast.emit("hello")
            await slow.emit("hello")
            await until(lambda: len(server.connections) == 2)
            sent = dropped = 0
            while not dropped:
                report = await server.broadcast("news", [sent, noise(10_000)])
                sent += 1
                dropped += report.dropped
                assert report.sent + report.dropped == 2
                await until(partial(has_all, got, sent))
            assert got == list(range(sent))
            assert server.statistics().broadcasts_dropped == dropped
            if policy == "close":
                await until(lambda: len(server.connections) == 1)
            else:
                assert len(server.connections) == 2
            stuck.set()


@needs(Feature.CHUNKS, Feature.ENDING, Feature.MANY)
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"not json\f", "json"),
        (b"\f", "json"),
        (b"[1]\f", "envelope"),
        (b'{"type":5}\f', "envelope"),
        (b'{"type":"e","data":"\xff"}\f', "utf8"),
        (b'{"type":"e","data":' + b"[" * 70 + b"]" * 70 + b"}\f", "depth"),
        (b'{"type":"' + b"n" * 300 + b'"}\f', "name"),
        (b'{"type":"pyipc.reply","data":{"call":99}}\f', "control"),
        (b"\x01\x00\x00\x00\x04abcd\f", "json"),
        (b"x" * 5_000, "size"),
        (b'{"type":"e","data":"' + b"x" * 5_000 + b'"}\f', "size"),
    ],
)
async def test_bad_input_ends_its_connection_with_the_reason_and_no_other(stage: Stage, data: bytes, code: str) -> None:
    got: list[Any] = []
    router = pyipc.Router()
    router.on("e", lambda message: got.append(message.data))
    async with stage.open_raw(router, max_frame_size=4_000, reconnect_interval=0.0, close_timeout=0.2) as wire:
        await wire.link.send(b'{"type":"e","data":1}\f' + data + b'{"type":"e","data":2}\f')
        # The peer sees the end of the stream, not a reset, and may read why.
        while await wire.link.receive():
            pass
        await wire.link.aclose()
        await until(lambda: len(wire.ours.ended) == 1)
        assert got == [1]
        assert wire.ours.ended[0].code == code
        assert isinstance(wire.ours.ended[0].error, pyipc.RemoteProtocolError)
        other = await wire.again()
        await other.send(b'{"type":"e","data":3}\f')
        await until(lambda: got == [1, 3])
        await other.aclose()


@needs(Feature.ENDING, Feature.MANY)
async def test_a_server_counts_connections_and_says_why_it_turns_one_away(subject: Subject) -> None:
    server = pyipc.Server(subject.server_endpoint(), max_connections=2)
    async with server:
        where = subject.client_endpoint(server.addresses[0])
        async with pyipc.connect(where) as one, pyipc.connect(where) as two:
            assert one.connected
            await until(lambda: len(server.connections) == 2)
            # By how a connection ended, or, where there is an introduction first, by why there is none.
            told: list[Any] = []
            async with pyipc.connect(
                where, wait=False, on_disconnect=told.append, on_failed_connect=told.append, reconnect_interval=0.01
            ):
                await until(lambda: bool(told))
                assert told[0].code == "full"
                assert "max_connections" in told[0].message
                assert server.statistics().refused >= 1
                await two.aclose()
                await until(lambda: server.statistics().accepted == 3)


@needs(Feature.CANCEL, Feature.DELIVERY, Feature.ORDER)
async def test_a_call_cancelled_at_any_await_tears_nothing(stage: Stage) -> None:
    got: list[int] = []
    theirs = pyipc.Router()

    @theirs.on("e")
    async def note(message: pyipc.Message[list[Any]]) -> None:
        got.append(message.data[0])

    @theirs.on("double")
    async def double(message: pyipc.Message[int]) -> int:
        await trio.lowlevel.checkpoint()
        return message.data * 2

    accepted: list[int] = []
    number = 0
    async with stage.open(theirs=theirs, outbox_high_water_size=1_000) as wire:
        conn = wire.ours.conn
        for step in range(6):
            for _ in range(20):
                number += 1
                if not await cancelled_at(step, partial(conn.emit, "e", [number, "x" * 700])):
                    accepted.append(number)
                await cancelled_at(step, conn.flush)
                await cancelled_at(step, partial(conn.request, "double", number))
        assert await conn.request("double", 21) == 42
    assert got == accepted
    assert 0 < len(accepted) < number
