"""Ported programs over UDP: both sides are servers, which emit to addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.node_ipc import IPC
from pyipc.node_ipc.dialing import Dialing
from tests.interop.node import eventually
from tests.node_ipc.programs import Events

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.time_limit(40)


def serve(ipc: IPC, udp: str) -> Events:
    ipc.serve_net(0, udp)
    events = Events(ipc.server)
    ipc.server.start()
    return events


@pytest.mark.parametrize("udp", ["udp4", "udp6"])
async def test_two_programs(udp: str) -> None:
    here, there = IPC(), IPC()
    at_here, at_there = serve(here, udp), serve(there, udp)
    here.server.on("message", lambda data, socket: here.server.emit(socket, "answer", data))
    async with here, there:
        await at_here.wait_for("start")
        await at_there.wait_for("start")
        where = at_here.all[0][1]
        assert where["address"] == ("127.0.0.1" if udp == "udp4" else "::1")
        for number in range(3):
            there.server.emit(where, "message", {"id": "hello", "number": number})
        await at_there.wait_for("answer", 3)
        there.server.emit(where, "message", {"id": "hello", "number": 3})  # the address is known by now
        await at_there.wait_for("answer", 4)
        (socket,) = here.server.sockets
        assert (socket.address, socket.port) == (where["address"], at_there.all[0][1]["port"])
        assert socket.id == "hello"
        assert here.server.broadcast("news") == pyipc.BroadcastReport(1, 0)
        await at_there.wait_for("news")
        here.server.emit({"port": 1}, "more news")  # no address: everybody, as in node-ipc
        await at_there.wait_for("more news")
        # When the connection is closed, another is made for what is sent next.
        there.server.sockets[0].destroy()
        await at_there.wait_for("close")
        there.server.emit(where, "message", "again")
        await at_here.wait(lambda: "again" in at_here.data("message"))
        assert at_there.names.count("connect") == 2
        (known,) = there.server.sockets
        known.destroy()
        await at_there.wait_for("close", 2)
        there.server.emit(known, "message", "to a socket that is closed")
        await at_here.wait(lambda: "to a socket that is closed" in at_here.data("message"))


async def test_the_number_of_addresses_is_not_that_of_connections() -> None:
    here = IPC()
    here.config.max_connections = 1
    at_here = serve(here, "udp4")
    async with here:
        await at_here.wait_for("start")
        address = f"udp://127.0.0.1:{at_here.all[0][1]['port']}"
        async with pyipc.connect(address) as one, pyipc.connect(address) as other:
            await one.emit("message", 1)
            await other.emit("message", 2)
            await at_here.wait_for("message", 2)
        assert sorted(at_here.data("message")) == [1, 2]


async def test_only_udp_servers_send_to_addresses() -> None:
    ipc = IPC()
    ipc.serve_net(0)
    with pytest.raises(RuntimeError, match="only a UDP server that listens"):
        ipc.server.emit({"address": "127.0.0.1", "port": 1}, "message")


class _Waiting:
    """Stands for a server that does not find an address."""

    def __init__(self, error: pyipc.IPCError) -> None:
        self.found = trio.Event()
        self.error = error

    async def dial(self, address: str) -> Any:
        await self.found.wait()
        raise self.error


async def test_what_waits_for_an_address_has_a_bound() -> None:
    error = pyipc.AddressError("there is no such host")
    server = _Waiting(error)
    failures: list[Exception] = []
    async with trio.open_nursery() as nursery:

        def start(function: Callable[..., Any], *arguments: Any) -> None:
            nursery.start_soon(function, *arguments)

        dialing = Dialing(server, start, failures.append)  # type: ignore[arg-type]
        with pytest.raises(trio.WouldBlock, match="still being looked up"):
            for _ in range(2_000):
                dialing.emit("example.com", 1, "message", None)
        server.found.set()
        await eventually(lambda: failures)
    assert failures == [error]


async def test_a_failure_of_one_event_is_told() -> None:
    here = IPC()
    events = serve(here, "udp4")
    async with here:
        await events.wait_for("start")
        where = events.all[0][1]  # its own address
        here.server.emit(where, "message", "x" * 70_000)
        here.server.emit(where, "message", 1)
        await events.wait_for("message")
        assert [type(error) for error in events.data("error")] == [pyipc.MessageTooLarge]
