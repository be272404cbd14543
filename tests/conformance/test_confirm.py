"""Confirmed events: handled when it says so, once, whatever becomes of the connection."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.conformance.sides import until
from tests.conformance.subjects import Feature, lacks, needs

if TYPE_CHECKING:
    from tests.conformance.sides import Stage
    from tests.conformance.subjects import Subject


@needs(Feature.CONFIRM)
async def test_an_event_is_confirmed_when_it_is_handled(stage: Stage) -> None:
    theirs = pyipc.Router()
    done: list[int] = []

    @theirs.on("work")
    async def work(message: pyipc.Message[int]) -> None:
        if message.data % 2:
            await trio.sleep(0.001)
        done.append(message.data)
        assert not message.redelivered

    async with stage.open(theirs=theirs) as wire:
        for number in range(20):
            await wire.ours.conn.emit("work", number, confirm=True)
            assert done == list(range(number + 1))
        with pytest.raises(pyipc.NoHandler):
            await wire.ours.conn.emit("nobody", confirm=True)
        assert wire.ours.conn.is_open


@needs(Feature.CONFIRM, Feature.ORDER)
async def test_many_at_once_keep_their_order_among_plain_events(stage: Stage) -> None:
    theirs = pyipc.Router()
    seen: list[int] = []

    @theirs.on("n")
    async def note(message: pyipc.Message[int]) -> None:
        if message.data % 7 == 0:
            await trio.lowlevel.checkpoint()
        seen.append(message.data)

    async with stage.open(theirs=theirs) as wire:
        connection = wire.ours.conn
        async with trio.open_nursery() as nursery:

            async def confirmed(number: int, *, task_status: trio.TaskStatus[None]) -> None:
                task_status.started()
                await connection.emit("n", number, confirm=True)

            for number in range(300):
                if number % 3:
                    await nursery.start(confirmed, number)
                else:
                    await connection.emit("n", number)
                await trio.lowlevel.checkpoint()
        await connection.request("conformance.ready")
        await until(lambda: len(seen) == 300)
    # Those that are started go when their task runs, and so do not keep the order in which they were started exactly.
    assert [number for number in seen if number % 3 == 0] == list(range(0, 300, 3))
    assert sorted(seen) == list(range(300))


@needs(Feature.CONFIRM, Feature.LARGE)
async def test_large_ones_are_confirmed_too(stage: Stage) -> None:
    theirs = pyipc.Router()
    sizes: list[int] = []
    theirs.on("large", lambda message: sizes.append(len(message.data)))
    async with stage.open(theirs=theirs) as wire, trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(lambda: wire.ours.conn.emit("large", "x" * 900_000, confirm=True))
    assert sizes == [900_000] * 12


@needs(Feature.CONFIRM, Feature.RECONNECT)
async def test_what_a_lost_connection_left_open_is_settled_over_the_next(subject: Subject) -> None:
    router = pyipc.Router()
    begun: list[Any] = []
    release = trio.Event()

    @router.on("work")
    async def work(message: pyipc.Message[int]) -> None:
        begun.append((message.data, message.redelivered))
        await release.wait()

    connections: list[pyipc.Connection] = []
    async with pyipc.Server(subject.server_endpoint(), router=router) as server:
        server.on_connect(connections.append)
        async with (
            pyipc.connect(subject.client_endpoint(server.addresses[0]), reconnect_interval=0.01) as client,
            trio.open_nursery() as nursery,
        ):
            for number in range(3):
                nursery.start_soon(partial(client.emit, "work", number, confirm=True))
            await until(lambda: len(begun) == 1)
            connections[0].abort("slow", "the test cuts it off", linger=False)
            await until(lambda: len(connections) == 2)
            await until(lambda: client.statistics().resent == 3)
            release.set()
        assert sorted(begun) == [(0, False), (1, False), (2, False)]
        assert server.statistics().duplicates >= 1


@needs(Feature.MESSAGES)
@lacks(Feature.CONFIRM)
async def test_where_anything_may_be_lost_nothing_is_confirmed(stage: Stage) -> None:
    async with stage.open() as wire:
        with pytest.raises(pyipc.UnsupportedByTransport):
            await wire.ours.conn.emit("x", confirm=True)
        with pytest.raises(pyipc.UnsupportedByTransport):
            await wire.client.emit("x", confirm=True)
        assert await wire.ours.conn.request("conformance.ready") is True
