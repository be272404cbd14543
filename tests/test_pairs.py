"""`pyipc.testing.pair`: a client and a server joined in memory."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Message
from pyipc.testing import Faults, FaultyTransport, pair
from tests.wire import stay

pytestmark = pytest.mark.time_limit(10)


async def test_both_sides_have_their_handlers() -> None:
    router, client_router = pyipc.Router(), pyipc.Router()

    @router.on("add")
    def add(message: Message[list[int]]) -> int:
        return sum(message.data)

    @client_router.on("name")
    def name(message: Message[Any]) -> str:
        return "Ada"

    with trio.fail_after(5):
        async with pair(router, client_router=client_router) as (client, server):
            assert await client.request("add", [1, 2]) == 3
            (connection,) = server.connections
            assert await connection.request("name") == "Ada"


async def test_options_go_to_the_right_side(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    router.on("never", stay)
    async with pair(router, client_options={"request_timeout": 3.0}, server_options={"max_connections": 1}) as (
        client,
        server,
    ):
        began = trio.current_time()
        with pytest.raises(pyipc.RequestTimeout):
            await client.request("never")
        assert trio.current_time() - began == pytest.approx(3.0)
        assert server.statistics().refused == 0


async def test_the_server_sees_the_peer_that_the_test_chose() -> None:
    router = pyipc.Router()
    router.on("who", lambda message: message.connection.peer.uid)
    with trio.fail_after(5):
        async with pair(router, peer=pyipc.Peer(address="memory:stranger", uid=4242)) as (client, _):
            assert await client.request("who") == 4242


async def test_the_client_comes_back_to_the_same_server(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    router.on("echo", lambda message: message.data)
    async with pair(router) as (client, server):
        (connection,) = server.connections
        await connection.aclose()
        assert await client.request("echo", 1) == 1
        assert client.statistics().connects == 2
        assert connection not in server.connections


async def test_links_can_be_made_to_fail(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    router.on("echo", lambda message: message.data)
    transport = FaultyTransport(Faults(split=1))
    async with pair(router, faults=transport) as (client, _):
        assert await client.request("echo", "x" * 100) == "x" * 100
        transport.links[-1].blackhole()
        with pytest.raises(pyipc.RequestTimeout):
            await client.request("echo", 1, timeout=1)


async def test_faults_alone_will_do(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    router.on("echo", lambda message: message.data)
    async with pair(router, faults=Faults(delay=2.0)) as (client, _):
        began = trio.current_time()
        assert await client.request("echo", 1) == 1
        assert trio.current_time() - began >= 2.0


async def test_many_side_by_side() -> None:
    with trio.fail_after(5):
        async with pair() as (one, first), pair() as (two, second):
            assert first.connections != second.connections
            await first.aclose()
            await trio.testing.wait_all_tasks_blocked()
            assert not one.connected
            assert two.connected


async def test_a_server_that_is_closed_cannot_be_reached(autojump_clock: trio.testing.MockClock) -> None:
    async with pair() as (client, server):
        await server.aclose()
        await trio.sleep(1)
        with pytest.raises(pyipc.ConnectError, match="closed"):
            await client.wait_connected(timeout=1)


async def test_an_error_in_the_body_arrives_as_itself() -> None:
    with pytest.raises(ZeroDivisionError):
        async with pair():
            raise ZeroDivisionError
