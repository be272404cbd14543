"""The end of a connection: nothing accepted is lost, everybody waiting is told, others go on."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.conformance.sides import noise, until
from tests.conformance.subjects import Feature, lacks, needs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conformance.sides import Side, Stage


@needs(Feature.DELIVERY, Feature.ENDING)
async def test_closing_delivers_what_was_emitted(stage: Stage) -> None:
    got: list[int] = []
    theirs = pyipc.Router()
    theirs.on("e", lambda message: got.append(len(message.data)))
    async with stage.open(theirs=theirs) as wire:
        for _ in range(48):
            await wire.ours.conn.emit("e", noise(64_000))
        await wire.ours.conn.aclose()
        await until(lambda: len(wire.theirs.ended) == 1)
    assert got == [64_000] * 48
    assert wire.ours.ended[0].code == "closed"
    assert (wire.theirs.ended[0].code, wire.theirs.ended[0].by_peer) == ("goodbye", True)


# What the other side still had to send waits for its next connection.
@needs(Feature.DELIVERY, Feature.ENDING, Feature.PRESSURE, Feature.RECONNECT)
async def test_closing_while_the_peer_sends_ten_megabytes_loses_nothing_of_ours(stage: Stage) -> None:
    got: list[int] = []
    theirs = pyipc.Router()
    sending = trio.Event()
    theirs.on("e", lambda message: got.append(message.data))

    async def flood() -> None:
        with pytest.raises(pyipc.ConnectionClosed):
            for number in range(160):
                await wire.theirs.conn.emit("flood", [number, noise(65_000)])
                sending.set()
            await wire.theirs.conn.wait_closed()
            raise pyipc.ConnectionClosed("all 10 MiB were sent before the close")

    async with stage.open(theirs=theirs) as wire, trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        await sending.wait()
        for number in range(1_000):
            await wire.ours.conn.emit("e", number)
        await wire.ours.conn.aclose()
        await wire.theirs.conn.wait_closed()
    assert got == list(range(1_000))


@needs(Feature.ENDING)
async def test_everybody_who_waits_is_told_when_the_peer_goes(stage: Stage) -> None:
    theirs = pyipc.Router()

    @theirs.on("never")
    async def never(message: pyipc.Message[None]) -> None:
        await trio.sleep_forever()

    outcomes: list[BaseException] = []

    async def note(call: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            await call(*args)
        except pyipc.ConnectionLost as error:
            outcomes.append(error)

    async with stage.open(theirs=theirs, reconnect=False) as wire:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(note, wire.ours.conn.request, "never")
            await until(lambda: wire.theirs.conn.statistics().concurrent_requests == 3)
            await wire.theirs.conn.aclose()
        assert len(outcomes) == 3
        assert all(isinstance(error, pyipc.ConnectionLost) and error.maybe_handled for error in outcomes)
        with pytest.raises(pyipc.ConnectionLost) as lost:
            await wire.ours.conn.emit("more")
        assert not lost.value.maybe_handled


def batch() -> bytes:
    return b"".join(
        json.dumps({"type": "e", "data": data}, ensure_ascii=False).encode() + b"\f"
        for data in (1, "caf\u00e9 \U0001f600", {"a": [1, 2]})
    )


def has_ended(side: Side, times: int) -> bool:
    return len(side.ended) == times


@needs(Feature.CHUNKS, Feature.ENDING, Feature.MANY)
async def test_a_peer_that_goes_after_any_byte_leaves_whole_messages_and_one_disconnect(stage: Stage) -> None:
    got: list[Any] = []
    router = pyipc.Router()
    router.on("e", lambda message: got.append(message.data))
    stream = batch()
    ends = [index for index, byte in enumerate(stream) if byte == 0x0C]
    async with stage.open_raw(router, reconnect_interval=0.0, reconnect_max_interval=0.001) as wire:
        link = wire.link
        for length in range(len(stream) + 1):
            got.clear()
            disconnects = len(wire.ours.ended)
            await link.send(stream[:length]) if length else None
            await link.aclose()
            await until(partial(has_ended, wire.ours, disconnects + 1))
            assert len(got) == sum(end < length for end in ends)
            assert wire.ours.ended[-1].by_peer
            link = await wire.again()
        await link.aclose()


@needs(Feature.ENDING, Feature.PRESSURE)
async def test_a_peer_that_goes_while_we_send_is_noticed(stage: Stage) -> None:
    async with stage.open_raw(pyipc.Router(), reconnect=False, close_timeout=1.0, offline="drop") as wire:
        await until(lambda: wire.ours.connection is not None)

        async def leave() -> None:
            await until(lambda: wire.ours.conn.statistics().outbox_size >= 65_536)
            await wire.link.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            with pytest.raises(pyipc.ConnectionLost):
                for _ in range(1_000):
                    await wire.ours.conn.emit("e", noise(60_000))
        await until(lambda: len(wire.ours.ended) == 1)


def ask(event: str, data: object) -> bytes:
    """A request, as a peer without pyipc would write it."""
    return json.dumps({"type": "pyipc.request", "data": {"call": 1, "event": event, "data": data}}).encode() + b"\f"


@needs(Feature.HALF_CLOSE)
async def test_a_peer_that_has_finished_sending_still_gets_its_answer(stage: Stage) -> None:
    router = pyipc.Router()

    @router.on("add")
    async def add(message: pyipc.Message[list[int]]) -> int:
        await until(lambda: len(finished) == 1)
        return sum(message.data)

    finished: list[bool] = []
    async with stage.open_raw(router, reconnect=False) as wire:
        await wire.link.send(ask("add", [1, 2]))
        finished.append(wire.link.send_eof())
        received = b""
        while chunk := await wire.link.receive():
            received += chunk
        assert {"type": "pyipc.reply", "data": {"call": 1, "data": 3}} in [
            json.loads(frame) for frame in received.split(b"\f")[:-1]
        ]
        assert finished == [True]


@needs(Feature.CHUNKS)
@lacks(Feature.HALF_CLOSE)
async def test_a_link_says_that_its_end_is_the_end_of_both_directions(stage: Stage) -> None:
    async with stage.open_raw(pyipc.Router()) as wire:
        assert not wire.link.send_eof()


@needs(Feature.CHUNKS, Feature.DELIVERY, Feature.ENDING)
async def test_what_arrived_before_the_end_is_handled(stage: Stage) -> None:
    got: list[int] = []
    router = pyipc.Router()

    @router.on("e")
    async def slowly(message: pyipc.Message[int]) -> None:
        await trio.lowlevel.checkpoint()
        got.append(message.data)

    async with stage.open_raw(router, reconnect=False) as wire:
        await wire.link.send(b"".join(b'{"type":"e","data":%d}\f' % number for number in range(200)))
        await wire.link.aclose()
        await until(lambda: len(wire.ours.ended) == 1)
    assert got == list(range(200))


@needs(Feature.DELIVERY, Feature.ENDING, Feature.RECONNECT)
async def test_a_client_comes_back_and_sends_what_it_queued(stage: Stage) -> None:
    got: list[int] = []
    router = pyipc.Router()
    router.on("e", lambda message: got.append(message.data))
    server = pyipc.Server(stage.subject.server_endpoint(), router=router)
    async with server:
        address = server.addresses[0]
        async with pyipc.connect(stage.subject.client_endpoint(address), reconnect_interval=0.01) as client:
            await client.emit("e", 1)
            await client.flush()
            await until(lambda: got == [1])
            await server.aclose()
            await until(lambda: not client.connected)
            for number in (2, 3):
                await client.emit("e", number)
            assert client.statistics().offline_messages == 2
            async with pyipc.Server(stage.subject.server_endpoint_again(address), router=router):
                await client.emit("e", 4)
                await until(lambda: got == [1, 2, 3, 4])
                assert client.statistics().connects == 2


@needs(Feature.ENDING)
@lacks(Feature.RECONNECT)
async def test_a_client_that_cannot_come_back_says_so_and_gives_up(stage: Stage) -> None:
    async with stage.open(reconnect_interval=0.0) as wire:
        await wire.server.aclose()
        with pytest.raises(pyipc.AddressError, match="again"):
            while True:
                await wire.client.wait_connected()
                await trio.lowlevel.checkpoint()
        with pytest.raises(pyipc.ConnectionLost, match="given up"):
            await wire.client.emit("e")


@needs(Feature.ABSENCE, Feature.RECONNECT)
async def test_a_server_that_starts_late_is_waited_for(stage: Stage) -> None:
    async with pyipc.Server(stage.subject.server_endpoint()) as first:
        address = first.addresses[0]
    async with trio.open_nursery() as nursery:

        async def late() -> None:
            await trio.sleep(0.05)
            await nursery.start(pyipc.Server(stage.subject.server_endpoint_again(address)).run)

        nursery.start_soon(late)
        async with pyipc.connect(stage.subject.client_endpoint(address), reconnect_interval=0.01) as client:
            assert client.connected
        nursery.cancel_scope.cancel()


@needs(Feature.ABSENCE)
async def test_nobody_there_is_an_error_that_names_the_address(stage: Stage) -> None:
    async with pyipc.Server(stage.subject.server_endpoint()) as first:
        address = first.addresses[0]
    with pytest.raises(pyipc.ConnectError) as caught:
        async with pyipc.connect(stage.subject.client_endpoint(address), connect_timeout=0.05):
            pytest.fail("there is no server")
    assert str(address) in str(caught.value)
    assert isinstance(caught.value.__cause__, pyipc.ConnectError)


@needs(Feature.ENDING)
async def test_a_cancelled_body_closes_at_once(stage: Stage) -> None:
    async with pyipc.Server(stage.subject.server_endpoint()) as server:
        where = stage.subject.client_endpoint(server.addresses[0])
        with trio.move_on_after(0.01) as scope:
            async with pyipc.connect(where, close_timeout=1_000) as client:
                await client.emit("e", "x" * 1_000)
                await trio.sleep_forever()
        assert scope.cancelled_caught
        await until(lambda: not server.connections)
