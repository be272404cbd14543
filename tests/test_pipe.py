"""Named pipes of a real Windows, or of Wine: between tasks, and between processes.

What Wine accepts and does not enforce is expected to fail there; see also test_pipe_flags.py.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import secrets
import signal
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import parse_address
from pyipc.errors import AddressInUse, ConnectError, ConnectionClosed, ConnectionLost
from pyipc.transports.pipe import PipeTransport
from pyipc.transports.windows_api import WindowsApi
from tests.conformance.sides import until
from tests.conftest import CANNOT_RUN, ROOT, is_wine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyipc import Address
    from pyipc.transports import Link, Listener

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason=f"{CANNOT_RUN} needs Windows")


not_enforced = pytest.mark.xfail(is_wine(), reason="Wine does not enforce it", strict=True)


@pytest.fixture
def address() -> Address:
    return parse_address(f"pipe:pyipc-{secrets.token_hex(16)}")


async def connect(address: Address) -> Link:
    return await PipeTransport().connect(address, {})


async def listen(address: Address, **options: object) -> Listener:
    return await PipeTransport().listen(address, options)


@asynccontextmanager
async def pair(address: Address) -> AsyncIterator[tuple[Link, Link]]:
    """Both ends of a pipe: the client's, and the server's. The server listens no more."""
    listener = await listen(address)
    client = await connect(address)
    server = await listener.accept()
    await listener.aclose()
    try:
        yield client, server
    finally:
        with trio.CancelScope(shield=True):
            await client.aclose()
            await server.aclose()


async def receive_all(link: Link) -> bytes:
    received = bytearray()
    while chunk := await link.receive():
        received += chunk
    return bytes(received)


async def receive_exactly(link: Link, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = await link.receive()
        assert chunk, "the stream ended"
        received += chunk
    assert len(received) == size
    return bytes(received)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


# --- moving bytes ---


async def test_bytes_move_both_ways_at_once(address: Address) -> None:
    there, back = noise(2_000_000, 1), noise(2_000_000, 2)

    async def expect(link: Link, data: bytes) -> None:
        assert await receive_exactly(link, len(data)) == data

    async with pair(address) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.send, there)
        nursery.start_soon(server.send, back)
        nursery.start_soon(expect, server, there)
        nursery.start_soon(expect, client, back)


async def test_many_clients_at_once(address: Address) -> None:
    async def ask(number: int) -> None:
        link = await connect(address)
        await link.send(bytes([number]))
        assert await link.receive() == bytes([number, number])
        await link.aclose()

    async def answer(link: Link) -> None:
        await link.send(await link.receive() * 2)
        assert await link.receive() == b""
        await link.aclose()

    listener = await listen(address)
    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(ask, number)
        for _ in range(40):
            nursery.start_soon(answer, await listener.accept())
    await listener.aclose()


async def test_what_was_sent_before_closing_can_be_read(address: Address) -> None:
    data = noise(60_000)
    async with pair(address) as (client, server):
        await client.send(data)
        await client.aclose()
        assert await receive_all(server) == data


async def test_a_closed_peer_is_noticed_when_sending(address: Address) -> None:
    async with pair(address) as (client, server):
        await server.aclose()
        with pytest.raises(ConnectionLost):
            while True:
                await client.send(b"x")
        assert await client.receive() == b""


async def test_closing_wakes_whoever_reads_and_writes(address: Address) -> None:
    async def read(link: Link) -> None:
        with pytest.raises(ConnectionLost, match="closed on this side"):
            await link.receive()

    async def write(link: Link) -> None:
        with pytest.raises(ConnectionLost, match="closed on this side"):
            while True:
                await link.send(bytes(100_000))

    async with pair(address) as (client, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, client)
            nursery.start_soon(write, client)
            await trio.testing.wait_all_tasks_blocked()
            await client.aclose()
        with pytest.raises(ConnectionLost, match="closed on this side"):
            await client.receive()


@pytest.mark.parametrize("close_first", [True, False])
async def test_closing_and_cancelling_in_one_turn(address: Address, close_first: bool) -> None:
    """Trio would give up the whole run if it had to cancel what is under way on a closed handle."""
    async with pair(address) as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(client.receive)
        await trio.testing.wait_all_tasks_blocked()
        closing = client.aclose()
        if close_first:
            closing.send(None)  # up to where it gives way
        nursery.cancel_scope.cancel()
        if not close_first:
            closing.send(None)
        closing.close()


async def test_a_read_that_is_cancelled_loses_nothing(address: Address) -> None:
    async with pair(address) as (client, server):
        for _ in range(20):
            with trio.move_on_after(0.001) as scope:
                await server.receive()
            assert scope.cancelled_caught
        await client.send(b"all of it")
        assert await server.receive() == b"all of it"


async def test_a_write_can_be_cancelled(address: Address) -> None:
    async with pair(address) as (client, server):
        with trio.move_on_after(0.05) as scope:
            await client.send(bytes(10_000_000))
        assert scope.cancelled_caught
        await client.aclose()
        assert set(await receive_all(server)) <= {0}


async def test_random_cancellation_keeps_every_byte_in_its_place(address: Address, scale: int) -> None:
    """Reading, accepting and connecting are cancelled at random moments; nothing is lost, doubled or turned around."""
    for seed in range(4 * scale):
        chance = random.Random(seed)
        data = noise(400_000, seed)
        cancelled = 0

        async def retry(call: Any, chance: random.Random = chance) -> Any:
            nonlocal cancelled
            while True:
                with trio.CancelScope(deadline=trio.current_time() + chance.choice((0, 0, 0.0005, 0.002, 0.02))):
                    return await call()
                cancelled += 1

        async def serve(link: Link, data: bytes = data, retry: Any = retry) -> None:
            received = bytearray()
            while chunk := await retry(link.receive):
                received += chunk
                if len(received) == len(data):
                    break
            assert received == data
            await link.send(hashlib.sha256(received).digest())
            assert await retry(link.receive) == b""
            await link.aclose()

        async def call(data: bytes = data, chance: random.Random = chance, retry: Any = retry) -> None:
            link = await retry(partial(connect, address))
            view = memoryview(data)
            while view:
                size = chance.choice((1, 100, 5_000, 70_000))
                await link.send(view[:size])
                view = view[size:]
            assert await retry(link.receive) == hashlib.sha256(data).digest()
            await link.aclose()

        listener = await listen(address)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
            for _ in range(3):
                # No more come: `connect` has no checkpoint once it has the pipe.
                nursery.start_soon(serve, await retry(listener.accept))
        await listener.aclose()
        assert cancelled


# --- accepting and connecting ---


async def test_accepting_that_is_cancelled_loses_no_client(address: Address) -> None:
    listener = await listen(address)
    for _ in range(10):
        with trio.move_on_after(0.001) as scope:
            await listener.accept()
        assert scope.cancelled_caught
    client = await connect(address)
    server = await listener.accept()
    await client.send(b"here")
    assert await server.receive() == b"here"
    for each in (client, server, listener):
        await each.aclose()


async def test_a_client_that_has_gone_before_it_was_accepted(address: Address) -> None:
    listener = await listen(address)
    client = await connect(address)
    await client.send(b"last words")
    await client.aclose()
    server = await listener.accept()
    assert await receive_all(server) == b"last words"
    await server.aclose()
    # It has cost no instance.
    other = await connect(address)
    for each in (other, await listener.accept(), listener):
        await each.aclose()


async def test_a_connection_outlives_its_listener_and_keeps_others_waiting(address: Address) -> None:
    async with pair(address) as (client, server):
        with trio.move_on_after(0.2) as scope:
            await connect(address)
        assert scope.cancelled_caught
        await client.send(b"still here")
        assert await server.receive() == b"still here"
    with pytest.raises(ConnectError, match="no such pipe") as caught:
        await connect(address)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


async def test_closing_a_listener_wakes_whoever_accepts(address: Address) -> None:
    async def accept() -> None:
        with pytest.raises(ConnectionClosed):
            await listener.accept()

    listener = await listen(address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
    with pytest.raises(ConnectError, match="no such pipe"):
        await connect(address)


async def test_the_letters_of_a_name_may_be_large_or_small(address: Address) -> None:
    listener = await listen(address)
    client = await connect(parse_address(f"pipe:{address.name.upper()}"))
    for each in (client, await listener.accept(), listener):
        await each.aclose()


@not_enforced
async def test_a_name_can_be_taken_once(address: Address) -> None:
    listener = await listen(address)
    try:
        with pytest.raises(AddressInUse):
            await listen(address)
    finally:
        await listener.aclose()


# --- who ---


async def test_both_sides_know_each_other(address: Address) -> None:
    own = WindowsApi().own_sid()
    assert own.startswith("S-1-5-")
    async with pair(address) as (client, server):
        assert (client.peer.pid, client.peer.sid) == (os.getpid(), own)
        assert (server.peer.pid, server.peer.sid) == (os.getpid(), own)


async def test_where_others_may_come_the_client_is_asked_who_it_is(address: Address) -> None:
    listener = await listen(address, allow={"S-1-1-0"})
    client = await connect(address)
    server = await listener.accept()
    assert server.peer.sid == WindowsApi().own_sid()
    for each in (client, server, listener):
        await each.aclose()


async def test_a_server_for_everyone_and_one_for_nobody(address: Address) -> None:
    everyone = pyipc.Endpoint(address, allow=pyipc.ANYONE)
    async with pyipc.Server(everyone) as server, pyipc.connect(str(address)) as client:
        await client.flush()
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        assert connection.peer.sid == WindowsApi().own_sid()
    nobody = pyipc.Endpoint(address, allow={"S-1-5-18"})
    async with pyipc.Server(nobody) as server:
        with pytest.raises(pyipc.ConnectError):
            async with pyipc.connect(str(address), connect_timeout=1, reconnect=False):
                await until(lambda: server.statistics().denied > 0)
                raise pyipc.ConnectError("it was let in by Windows and turned away by us")
        assert server.statistics().denied


async def test_a_client_does_not_talk_to_another_users_server(address: Address) -> None:
    async with pyipc.Server(address):
        strangers = pyipc.Endpoint(address, allow={"S-1-5-18"})
        with pytest.raises(pyipc.ConnectError) as caught:
            async with pyipc.connect(strangers, connect_timeout=1):
                pytest.fail("it talks")
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, pyipc.PeerNotAllowed):
        error = error.__cause__
    assert error is not None


def rights_of(handle: int) -> str:
    """Owner and rights of a pipe, as text."""
    library = getattr(ctypes, "WinDLL")("advapi32")  # noqa: B009 - type checkers see no Windows here
    descriptor, text = ctypes.c_void_p(), ctypes.c_wchar_p()
    owner_and_rights = 1 | 4
    pipe = ctypes.c_void_p(handle)
    assert library.GetSecurityInfo(pipe, 6, owner_and_rights, *[None] * 4, ctypes.byref(descriptor)) == 0
    assert library.ConvertSecurityDescriptorToStringSecurityDescriptorW(
        descriptor, 1, owner_and_rights, ctypes.byref(text), None
    )
    return str(text.value)


async def test_the_rights_are_those_that_were_asked_for(address: Address) -> None:
    own = WindowsApi().own_sid()
    listener = await listen(address, allow={"S-1-5-18"})
    client = await connect(address)
    text = rights_of(getattr(client, "_handle"))  # noqa: B009
    assert text.startswith(f"O:{own}D:P(A;;")
    assert text.count("(A;;") == 2
    assert text.endswith(("(A;;0x12019b;;;SY)", "(A;;0x12019b;;;S-1-5-18)"))
    for each in (client, await listener.accept(), listener):
        await each.aclose()


@not_enforced
async def test_a_pipe_that_is_not_for_us(address: Address) -> None:
    windows = WindowsApi()
    security = windows.security(f"O:{windows.own_sid()}D:P(A;;GA;;;SY)")
    handle = windows.create_named_pipe(rf"\\.\pipe\{address.name}", 0x4000_0003, 8, 255, 4096, 4096, 0, security)
    try:
        with pytest.raises(ConnectError, match="we may not use"):
            await connect(address)
    finally:
        windows.close_handle(handle)


# --- the library over it ---


async def test_closing_does_not_wait_for_a_peer_that_goes_on_reading(address: Address) -> None:
    """A pipe has no end of the stream but closing, so a plain peer cannot know that it should close."""
    listener = await listen(address)
    frames = b"".join(b'{"type":"e","data":%d}\f' % number for number in range(1_000))
    async with trio.open_nursery() as nursery:
        peers: list[Link] = []

        async def be_peer() -> None:
            peers.append(await listener.accept())

        nursery.start_soon(be_peer)
        endpoint = pyipc.Endpoint(address, hello=False)
        with trio.fail_after(40):
            async with pyipc.connect(endpoint, close_timeout=1_000, reconnect=False) as client:
                for number in range(1_000):
                    await client.emit("e", number)
    assert await receive_all(peers[0]) == frames
    await peers[0].aclose()
    await listener.aclose()


async def test_bare_names_and_those_of_node_ipc_are_pipes() -> None:
    for name in (f"pyipc-{secrets.token_hex(8)}", f"node-ipc:{secrets.token_hex(8)}"):
        router = pyipc.Router()
        router.on("ask", lambda message: message.data)
        async with pyipc.Server(name, router=router) as server:
            assert str(server.addresses[0]) == name
            async with pyipc.connect(name) as client:
                assert await client.request("ask", [1], timeout=30) == [1]


# --- other processes ---

CHILD = """
    import os, sys, trio
    from pyipc import parse_address
    from pyipc.transports.pipe import PipeTransport

    async def main():
        link = await PipeTransport().connect(parse_address(sys.argv[1]), {})
        assert link.peer.pid == int(sys.argv[2]), link.peer
        match sys.argv[3]:
            case "echo":
                while chunk := await link.receive():
                    await link.send(chunk)
            case "leave":
                await link.send(b"bye")
                os._exit(3)
            case "stay":
                await link.send(b"here")
                await trio.sleep_forever()
        await link.aclose()

    trio.run(main)
"""


@asynccontextmanager
async def child(address: Address, what: str) -> AsyncIterator[tuple[Link, trio.Process]]:
    """Another process at the other end."""
    listener = await listen(address)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(address), str(os.getpid()), what],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        link = await listener.accept()
        assert link.peer.pid == process.pid
        yield link, process
        await link.aclose()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await listener.aclose()


async def test_echo_of_another_process(address: Address) -> None:
    data = noise(5_000_000)
    async with child(address, "echo") as (link, process):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.send, data)
            assert await receive_exactly(link, len(data)) == data
        await link.aclose()
        assert await process.wait() == 0


async def test_a_process_that_leaves(address: Address) -> None:
    async with child(address, "leave") as (link, process):
        assert await receive_all(link) == b"bye"
        assert await process.wait() == 3


async def test_a_process_that_is_killed(address: Address) -> None:
    async with child(address, "stay") as (link, process):
        assert await link.receive() == b"here"
        os.kill(process.pid, signal.SIGTERM)  # on Windows this is TerminateProcess
        assert await link.receive() == b""
