"""UDP and too many peers: who makes room for whom, and that nobody else has to."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.testing import Faults, FaultyTransport
from pyipc.transports.udp import UdpTransport
from tests.test_udp import ANY_PORT, plain, strangers, until
from tests.test_udp_hostile import CrowdTransport, settle
from tests.wire import frame, hello

pytestmark = pytest.mark.time_limit(30)


class Sleepers:
    """A server's handler that never ends by itself."""

    def __init__(self, server: pyipc.Server) -> None:
        self.begun: list[Any] = []
        self.cancelled: list[Any] = []
        self.ended: list[str] = []
        server.on("sleep", self.sleep)
        server.on_disconnect(lambda reason: self.ended.append(reason.code))

    async def sleep(self, message: pyipc.Message[Any]) -> None:
        self.begun.append(message.data)
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.append(message.data)


async def test_forged_sources_take_the_place_of_nobody_and_their_handlers_end_at_once() -> None:
    server = pyipc.Server(strangers(), "tcp://127.0.0.1:0", max_connections=3)
    server.on("add", lambda message: sum(message.data))
    sleepers = Sleepers(server)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        udp, tcp = server.addresses
        for number in range(10):
            peer = await stack.enter_async_context(plain(udp))
            await peer.send(frame("sleep", number))
            await until(lambda number=number: number in sleepers.begun)  # type: ignore[misc]
        await until(lambda: len(sleepers.ended) == 7)
        assert sleepers.cancelled == list(range(7))
        assert sleepers.ended == ["crowded"] * 7
        clients = [await stack.enter_async_context(pyipc.connect(str(tcp))) for _ in range(3)]
        assert [await client.request("add", [1, 2]) for client in clients] == [3] * 3
        assert len(server.connections) == 6
        assert server.statistics().refused == 0
        # A client finds room among them, and keeps it.
        async with pyipc.connect(str(udp)) as client:
            assert await client.request("add", [1, 2]) == 3
            await until(lambda: any(one.peer.protocol != "plain" and one._link.verified for one in server.connections))
            for number in range(10, 20):
                peer = await stack.enter_async_context(plain(udp))
                await peer.send(frame("sleep", number))
                await until(lambda number=number: number in sleepers.begun)  # type: ignore[misc]
            assert await client.request("add", [1, 2]) == 3
            assert client.statistics().connects == 1


async def test_a_host_whose_name_was_forged_has_its_whole_share() -> None:
    server = pyipc.Server(strangers(), "tcp://127.0.0.1:0", max_connections_per_peer=2)
    sleepers = Sleepers(server)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        udp, tcp = server.addresses
        for number in range(5):
            peer = await stack.enter_async_context(plain(udp))
            await peer.send(frame("sleep", number))
            await until(lambda number=number: number in sleepers.begun)  # type: ignore[misc]
        await until(lambda: sleepers.cancelled == [0, 1, 2])
        for _ in range(2):
            await stack.enter_async_context(pyipc.connect(str(tcp)))
        assert server.statistics().refused == 0


async def test_senders_with_a_socket_each_are_all_heard_and_whoever_goes_on_stays() -> None:
    got: list[int] = []
    ended: list[pyipc.Disconnected] = []
    server = pyipc.Server(ANY_PORT, max_connections_per_peer=5)
    server.on("metric", lambda message: got.append(message.data))
    server.on_disconnect(ended.append)
    async with server, plain(server.addresses[0]) as steady:
        await steady.send(frame("metric", -1))
        await until(lambda: got == [-1])
        (connection,) = server.connections
        for number in range(40):
            async with plain(server.addresses[0]) as peer:
                await peer.send(frame("metric", number))
                await until(lambda number=number: number in got)  # type: ignore[misc]
            await steady.send(frame("metric", -number))
            await until(lambda number=number: got[-1] == -number)  # type: ignore[misc]
        assert connection.is_open
        assert len(server.connections) == 5
        assert server.statistics().refused == 0
    assert {reason.code for reason in ended[:-5]} == {"crowded"}


async def test_who_is_known_makes_no_room() -> None:
    server = pyipc.Server(ANY_PORT, max_connections=2)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        (where,) = server.addresses
        called = await server.dial("udp://127.0.0.1:9")
        known = await stack.enter_async_context(plain(where))
        await known.send(hello())
        await known.receive()
        for number in range(5):
            peer = await stack.enter_async_context(plain(where))
            await peer.send(frame("e"))
            await until(lambda number=number: server.statistics().refused == number + 1)  # type: ignore[misc]
        assert called.is_open
        assert len(server.connections) == 2


async def test_calling_somebody_finds_room_among_those_who_are_not_known() -> None:
    async with pyipc.Server(ANY_PORT, max_connections=1) as server, plain(server.addresses[0]) as peer:
        await peer.send(frame("e"))
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        assert (await server.dial("udp://127.0.0.1:9")).is_open
        await connection.wait_closed()
        assert len(server.connections) == 1


async def test_who_may_not_exist_pushes_out_none_that_does() -> None:
    transport = CrowdTransport(trusts=lambda host: host == "192.0.2.1")
    endpoint = pyipc.Endpoint("udp://0.0.0.0:9", transport=transport, allow=pyipc.ANYONE)
    async with pyipc.Server(endpoint, max_connections=3) as server:
        for where in [("192.0.2.1", 1), ("192.0.2.1", 2), ("198.51.100.1", 1), ("198.51.100.2", 1)]:
            transport.crowd.arrive(frame("e"), where)
            await settle(server)
        assert {one.peer.host for one in server.connections} == {"192.0.2.1", "198.51.100.2"}
        for where in [("192.0.2.1", 3), ("198.51.100.3", 1)]:
            transport.crowd.arrive(frame("e"), where)
            await settle(server)
        assert {one.peer.host for one in server.connections} == {"192.0.2.1"}
        assert server.statistics().refused == 1


@pytest.mark.parametrize("faulty", [False, True])
async def test_a_stranger_that_a_listener_forgets_ends_at_once_also_when_nothing_is_read(faulty: bool) -> None:
    transport: Any = UdpTransport(trusts=lambda host: False, max_strangers=2)
    if faulty:
        transport = FaultyTransport(Faults(), transport=transport)
    server = pyipc.Server(pyipc.Endpoint(ANY_PORT, transport=transport), inbox_high_water_size=1_000)
    sleepers = Sleepers(server)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        first = await stack.enter_async_context(plain(server.addresses[0]))
        await first.send(*[frame("sleep", "first")] * 50)
        await until(lambda: sleepers.begun == ["first"])
        (connection,) = server.connections
        await until(lambda: connection.statistics().reading_paused)
        for number in range(2):
            peer = await stack.enter_async_context(plain(server.addresses[0]))
            await peer.send(frame("sleep", number))
        await connection.wait_closed()
        assert sleepers.cancelled == ["first"]
        assert connection.reason is not None
        assert connection.reason.code == "crowded"
        await until(lambda: len(server.connections) == 2)
