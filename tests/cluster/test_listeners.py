"""Listeners in workers: for pyipc and for whatever serves listeners of trio, handed over or shared."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

import pytest
import trio

import pyipc
from pyipc.cluster.listeners import (
    HandedListener,
    HandedSocket,
    HandedStream,
    SharedTrioListener,
    TrioListener,
    shared_listener,
)
from pyipc.transports import Carrier, Link, Listener, Peer, SocketLink, Transport
from tests.battery.leaks import leak_gate
from tests.cluster.test_receiving import World, settled, world
from tests.cluster.worlds import CLAIM, local_workers, primary
from tests.conformance.sides import until
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyipc import Address

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows has no SCM_RIGHTS")


def adopt(sock: Carrier) -> Link:
    assert isinstance(sock, socket.socket)
    return SocketLink(sock, Peer(address="tcp://peer", host="127.0.0.1"))


class Given(Transport):
    """Listens with a listener that there is already."""

    def __init__(self, make: Callable[[Address], Listener]) -> None:
        self.make = make

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        raise NotImplementedError

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        return self.make(address)


def server(make: Callable[[Address], Listener], name: str) -> pyipc.Server:
    made = pyipc.Server(pyipc.Endpoint("tcp://127.0.0.1:1", transport=Given(make)))

    @made.on("who")
    async def who(message: pyipc.Message[None]) -> str:
        return name

    return made


async def test_servers_of_pyipc_in_workers_serve_one_address_and_drain() -> None:
    async with leak_gate(), primary() as (handing, source), local_workers("a", "b") as (a, b):
        servers = []
        for worker in (a, b):
            inlet = worker.receiving.open(CLAIM)
            servers.append(
                server(lambda address, inlet=inlet: HandedListener(inlet, address, adopt), worker.candidate.worker)  # type: ignore[misc]
            )
        where = "tcp://{}:{}".format(*source.where)
        async with servers[1]:
            async with servers[0], contextlib.AsyncExitStack() as stack:
                handing.join(a.candidate)
                handing.join(b.candidate)
                clients = [await stack.enter_async_context(pyipc.connect(where)) for _ in range(6)]
                answers = [await client.request("who", timeout=5) for client in clients]
                assert answers == ["a", "b"] * 3
                assert [a.receiving.open_connections, b.receiving.open_connections] == [3, 3]
                # One drains: its clients come back, and are all served by the other.
                handing.leave(a.candidate)
                await servers[0].drain()
                await a.receiving.wait_none_open()
                answers = [await client.request("who", timeout=5) for client in clients]
                assert answers == ["b"] * 6
            await until(lambda: b.candidate.open_connections == 0)
            handing.leave(b.candidate)


async def test_a_peer_that_cannot_be_adopted_is_turned_away(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[BaseException | None] = [OSError("unknown"), None, RuntimeError("a bug")]

    def picky(sock: Carrier) -> Link:
        if (answer := answers.pop(0)) is not None:
            raise answer
        return adopt(sock)

    async with world() as each:
        address = pyipc.parse_address("tcp://127.0.0.1:1")
        listener = HandedListener(each.receiving.open("a"), address, picky)
        assert listener.address == address
        with each.hand(1) as first, each.hand(2), each.hand(3) as third:
            link = await listener.accept()
            assert first.recv(1) == b""
            with pytest.raises(RuntimeError, match="a bug"):
                await listener.accept()
            assert third.recv(1) == b""
            assert each.receiving.open_connections == 1
            await link.aclose()
            assert each.receiving.open_connections == 0
        assert "cannot be identified: unknown" in caplog.text
        assert "waiting: 0" in repr(listener)
        await listener.aclose()
        await listener.aclose()
        with pytest.raises(pyipc.ConnectionClosed):
            await listener.accept()


async def test_a_handed_socket_tells_once_and_is_as_any_other() -> None:
    told: list[int] = []
    ours, theirs = socket.socketpair()
    with ours:
        handed = HandedSocket(theirs, lambda: told.append(1))
        assert theirs.fileno() == -1
        assert (handed.family, handed.type) == (ours.family, ours.type)
        handed.sendall(b"x")
        assert ours.recv(1) == b"x"
        assert told == []
        handed.close()
        handed.close()
        assert told == [1]
        assert ours.recv(1) == b""


async def test_a_handed_stream_is_a_stream_of_trio() -> None:
    told: list[int] = []

    async def pair() -> tuple[HandedStream, HandedStream]:
        streams = [trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in _connected()]
        return HandedStream(streams[0], lambda: told.append(1)), HandedStream(streams[1], lambda: told.append(1))

    async def clogged() -> tuple[HandedStream, HandedStream]:
        left, right = await pair()
        for stream in (left, right):
            with contextlib.suppress(BlockingIOError):
                raw = socket.socket(fileno=stream.socket.fileno())
                try:
                    while True:
                        raw.send(b"x" * 65_536)
                finally:
                    raw.detach()
        return left, right

    await trio.testing.check_half_closeable_stream(pair, clogged)
    assert told
    left, right = await pair()
    left.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert left.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert len(bytes(left.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))) == 8
    assert left.socket.getpeername() == right.socket.getsockname()
    assert "HandedStream" in repr(left)
    told.clear()
    await left.aclose()
    await left.aclose()
    assert told == [1]
    await right.aclose()


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        left = socket.create_connection(listening.getsockname())
        right = listening.accept()[0]
    for sock in (left, right):
        sock.setblocking(False)
    return left, right


async def test_a_trio_listener_hands_out_streams_until_it_is_closed() -> None:
    async with world() as each:
        listener = TrioListener(each.receiving.open("a"))
        with each.hand(1) as client:
            stream = await listener.accept()
            await stream.send_all(b"x")
            assert client.recv(1) == b"x"
            assert await each.notes(1) == [{"taken": 1}]
            await stream.aclose()
            assert await each.notes(1) == [{"closed": [1]}]
        with each.hand(2), each.hand(3):
            await settled()
            assert "waiting: 2" in repr(listener)
            await listener.aclose()
            assert await each.notes(1) == [{"refused": [2, 3]}]
        await listener.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()


async def test_a_shared_trio_listener_counts_and_leaves_the_rest_to_others_when_it_retires() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with world() as first, world() as second:
            one, other = (SharedTrioListener(sock.dup(), each.receiving) for each in (first, second))
            with socket.create_connection(sock.getsockname()):
                stream = await one.accept()
                assert first.receiving.open_connections == 1
                await stream.aclose()
                assert first.receiving.open_connections == 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.accept)  # neither raises nor takes anybody
                await settled()
                first.receiving.retire()
                await settled()
                for _ in range(10):
                    with socket.create_connection(sock.getsockname()):
                        await (await other.accept()).aclose()
                assert first.receiving.open_connections == 0
                nursery.cancel_scope.cancel()
            assert "SharedTrioListener" in repr(one)
            for listener in (one, other):
                await listener.aclose()
                with pytest.raises(trio.ClosedResourceError):
                    await listener.accept()


async def test_servers_of_pyipc_may_share_a_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with world() as first, world() as second:
            worlds: dict[str, World] = {"a": first, "b": second}
            servers = [
                server(
                    lambda address, each=each: shared_listener([sock.dup()], address, adopt, each.receiving),  # type: ignore[misc]
                    name,
                )
                for name, each in worlds.items()
            ]
            where = "tcp://{}:{}".format(*sock.getsockname())
            async with servers[0], servers[1]:
                async with pyipc.connect(where) as client:
                    name = await client.request("who", timeout=5)
                    assert worlds[name].receiving.open_connections == 1
                await until(lambda: worlds[name].receiving.open_connections == 0)
                await servers[0].drain()
                async with pyipc.connect(where) as client:
                    assert await client.request("who", timeout=5) == "b"
