"""UDP: a server that calls from its own port, and how that ends and begins again."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from tests.conftest import CANNOT_RUN
from tests.test_udp import ANY_PORT, plain, until
from tests.wire import frame

if TYPE_CHECKING:
    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(30)


async def test_calling_again_while_the_connection_closes_gives_another() -> None:
    got: list[Any] = []
    async with pyipc.Server(ANY_PORT) as one, pyipc.Server(ANY_PORT) as two, trio.open_nursery() as nursery:
        two.on("e", lambda message: got.append(message.data))
        first = await one.dial(two.addresses[0])
        await first.emit("e", 1)
        await first.flush()
        nursery.start_soon(first.aclose)
        await trio.lowlevel.checkpoint()
        second = await one.dial(two.addresses[0])
        assert second is not first
        await second.emit("e", 2)
        await until(lambda: got == [1, 2])


async def test_a_handler_calls_back_a_peer_that_has_said_goodbye() -> None:
    """The old connection ends with its handlers, one of which calls: it must not wait for itself."""
    called = trio.Event()
    server = pyipc.Server(ANY_PORT)
    async with server, plain(server.addresses[0]) as peer:
        host, port = peer.sock.getsockname()[:2]

        @server.on("e")
        async def call_back(message: pyipc.Message[Any]) -> None:
            await until(lambda: not message.connection.is_open)
            await (await server.dial(f"udp://{host}:{port}")).emit("back")
            called.set()

        await peer.send(frame("e"), frame("pyipc.goodbye"))
        assert await peer.receive() == [("back", None)]
        await called.wait()


async def test_a_peer_that_was_just_turned_away_is_not_called_in_vain() -> None:
    async with pyipc.Server(ANY_PORT, max_connections=1) as server, plain(server.addresses[0]) as peer:
        called = await server.dial("udp://127.0.0.1:9")
        host, port = peer.sock.getsockname()[:2]
        for times in range(1, 4):
            await peer.send(frame("e"))
            await until(lambda times=times: server.statistics().refused == times)  # type: ignore[misc]
        await called.aclose()
        connection = await server.dial(f"udp://{host}:{port}")
        await trio.testing.wait_all_tasks_blocked()
        assert connection.is_open


async def test_whom_a_server_calls_need_not_introduce_itself(autojump_clock: MockClock) -> None:
    got: list[Any] = []
    server = pyipc.Server(ANY_PORT, plain_peers=False)
    server.on("e", lambda message: got.append(message.data))
    async with server, plain(server.addresses[0]) as peer:
        host, port = peer.sock.getsockname()[:2]
        await peer.send(frame("e", "not introduced"))
        await until(lambda: len(server.connections) == 1)
        (waited_for,) = server.connections
        connection = await server.dial(f"udp://{host}:{port}")
        assert connection is not waited_for
        assert await server.dial(f"udp://{host}:{port}") is connection
        await trio.sleep(1_000)
        assert connection.is_open
        await peer.send(frame("e", "called"))
        await until(lambda: bool(got))
        assert got == ["called"]


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} sockets are inherited on Unix")
async def test_a_server_calls_from_a_socket_that_it_inherited() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        async with pyipc.Server(f"fd:{os.dup(sock.fileno())}") as server, pyipc.Server(ANY_PORT) as other:
            got: list[str] = []
            other.on("e", lambda message: got.append(message.connection.peer.address))
            await (await server.dial(other.addresses[0])).emit("e")
            await until(lambda: bool(got))
            assert got == [str(server.addresses[0])]
