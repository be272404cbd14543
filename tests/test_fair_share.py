"""What one peer or handler does must not cost the others: memory, broadcasts, turns, context, a close cut short."""

from __future__ import annotations

import contextvars
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.flusher import Flusher
from pyipc.outbox import Outbox
from pyipc.protocol.addresses import parse_address
from pyipc.transports import Link, Peer, memory_link_pair, transport_for
from tests.wire import lone

if TYPE_CHECKING:
    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(20)
HELLO = b'{"type":"pyipc.hello","data":{"versions":[1],"max_frame_size":%d}}\f'


def adopted(server: pyipc.Server, hello: bytes = b"") -> Link:
    """A link to the server in the hands of the test, with its first bytes sent."""
    ours, theirs = memory_link_pair(buffer_size=1 << 24)
    server.adopt(theirs)
    assert ours.send_nowait(hello) == len(hello)
    return ours


async def read_all(link: Link) -> bytes:
    received = b""
    while chunk := await link.receive():
        received += chunk
    return received


async def test_a_handler_that_closes_the_server_cuts_nobody_short(autojump_clock: MockClock) -> None:
    server = pyipc.Server("memory:shutdown", max_outbox_size=1 << 24)

    @server.on("shutdown")
    async def shutdown(message: pyipc.Message[None]) -> None:
        await server.aclose()

    count, size, got = 100, 10_000, b""

    async def read_late(link: Link) -> None:
        nonlocal got
        await trio.sleep(0.5)
        got = await read_all(link)
        await link.aclose()

    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        slow = await transport_for("memory").connect(parse_address("memory:shutdown"), {})
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(count):
            await server.broadcast("e", "x" * size)
        nursery.start_soon(read_late, slow)
        async with pyipc.connect("memory:shutdown", reconnect=False, offline="drop") as client:
            await client.emit("shutdown")
            await client.flush()
            await trio.sleep(10)
    assert got.count(b"\f") == count


async def test_a_message_cannot_hide_its_size_among_many_that_never_wait(autojump_clock: MockClock) -> None:
    async with pyipc.Server(inbox_high_water_size=300_000, close_timeout=0.1) as server:
        server.on("work", lambda message: trio.sleep_forever())
        peer = adopted(server, HELLO % 1_000_000)
        big = json.dumps({"type": "work", "data": "x" * 60_000}).encode() + b"\f"
        cancels = b'{"type":"pyipc.cancel","data":{"call":9}}\f' * 100
        with trio.move_on_after(5):
            for _ in range(200):
                await peer.send(big + cancels)
        (connection,) = server.connections
        assert connection.statistics().reading_paused
        assert connection.statistics().inbox_size < 500_000
        await peer.aclose()


async def test_a_peer_that_takes_little_keeps_no_broadcast_from_others(autojump_clock: MockClock) -> None:
    async with pyipc.Server(close_timeout=0.1) as server:
        small = adopted(server, HELLO % 100)
        await trio.testing.wait_all_tasks_blocked()
        large = adopted(server, HELLO % 1_000_000)
        await trio.testing.wait_all_tasks_blocked()
        assert await server.broadcast("news", "x" * 1_000) == pyipc.BroadcastReport(sent=1, dropped=1)
        await small.aclose()
        await large.aclose()


async def test_a_wrong_broadcast_is_an_error_with_nobody_there() -> None:
    async with pyipc.Server() as server:
        with pytest.raises(pyipc.InvalidEventName):
            await server.broadcast("pyipc.hello")
        with pytest.raises(pyipc.UnencodableData):
            await server.broadcast("news", object())
        with pytest.raises(pyipc.MessageTooLarge):
            await server.broadcast("news", "x" * 2_000_000)


async def test_user_ids_admit_nobody_where_no_user_can_be_known() -> None:
    with pytest.raises(pyipc.AddressError, match="user ids"):
        pyipc.Endpoint("tcp://127.0.0.1:1", allow={1_000})
    with pytest.raises(pyipc.PeerNotAllowed):
        pyipc.Endpoint("memory:x", allow={4_242}).admit(Peer(address="memory:x"), own_uid=0)


async def test_an_event_that_was_being_written_when_the_peer_left_is_reported(autojump_clock: MockClock) -> None:
    listener = await transport_for("memory").listen(parse_address("memory:leaves"), {})

    async def leave() -> None:
        link = await listener.accept()
        await trio.sleep(1)
        await link.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        with pytest.raises(pyipc.Undelivered) as caught:
            async with pyipc.connect("memory:leaves", reconnect=False) as client:
                client.emit_nowait("e", "x" * 900_000)
        assert caught.value.count == 1
    await listener.aclose()


async def test_a_frame_that_was_begun_is_not_taken_back() -> None:
    ours, theirs = memory_link_pair(buffer_size=10)
    outbox = Outbox(ours, Flusher(), high_water_size=1, max_size=1_000, spawn=lambda *_: None, connection=lone())
    for event in (b'{"type":"a"}\f', b'{"type":"b"}\f'):
        outbox.push(event)
    outbox.flush_nowait()  # ten bytes go, and the task for the rest has not run yet
    assert outbox.reclaim_events() == [b'{"type":"b"}\f']
    assert outbox.size == 3
    await ours.aclose()
    await theirs.aclose()


async def test_a_request_that_cannot_be_sent_passes_its_turn_on(autojump_clock: MockClock) -> None:
    server = pyipc.Server("memory:turns")
    outcomes: list[Any] = []

    @server.on("slow")
    async def slow(message: pyipc.Message[Any]) -> Any:
        await trio.sleep(1)
        return message.data

    async with (
        server,
        pyipc.connect("memory:turns", max_pending_requests=1, request_timeout=None) as client,
        trio.open_nursery() as nursery,
    ):

        async def ask(data: object) -> None:
            try:
                outcomes.append(await client.request("slow", data))
            except pyipc.UnencodableData:
                outcomes.append("unencodable")

        for data in (1, object(), 3):
            nursery.start_soon(ask, data)
            await trio.testing.wait_all_tasks_blocked()
    assert outcomes == [1, "unencodable", 3]


async def test_a_request_does_not_inherit_the_context_of_a_handler_that_waits(autojump_clock: MockClock) -> None:
    user: contextvars.ContextVar[str | None] = contextvars.ContextVar("user", default=None)
    server = pyipc.Server("memory:context")

    @server.on("login")
    async def login(message: pyipc.Message[str]) -> str | None:
        user.set(message.data)
        await trio.sleep(1)
        return user.get()

    server.on("who", lambda message: user.get())
    async with server, pyipc.connect("memory:context") as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.request, "login", "ada")
        await trio.testing.wait_all_tasks_blocked()
        assert await client.request("who") is None


async def test_data_that_does_not_fit_is_not_blamed_on_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    server = pyipc.Server("memory:typed")

    @server.on("number")
    def number(message: pyipc.Message[int]) -> None:
        raise AssertionError("must not be called")

    server.on("done", lambda message: None)
    with caplog.at_level(logging.WARNING, "pyipc"):
        async with server, pyipc.connect("memory:typed") as client:
            await client.emit("number", "a secret")
            await client.request("done")
            (connection,) = server.connections
            assert connection.statistics().handler_errors == 0
    (record,) = caplog.records
    assert record.exc_info is None
    assert "secret" not in record.getMessage()
