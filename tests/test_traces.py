"""`traceparent`: carried when given, from whichever side, and by nothing that cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Message
from pyipc.testing import pair
from tests.wire import WirePeer, frame, hello, join

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.time_limit(30)

SPAN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-00"
NO_SPANS = ["", "nonsense", SPAN.upper(), SPAN + "-more", "ff" + SPAN[2:]]


def listening() -> tuple[pyipc.Router, list[tuple[str, Any, str]]]:
    """A router, and what its handlers got: event, data and span."""
    router, heard = pyipc.Router(), []

    @router.on("**")
    def hear(message: Message[Any]) -> str:
        heard.append((message.event, message.data, message.traceparent))
        return message.traceparent

    return router, heard


async def test_from_the_client() -> None:
    router, heard = listening()
    async with pair(router) as (client, _):
        await client.request("first")  # from then on both sides know each other
        assert await client.request("asked", 1, traceparent=SPAN) == SPAN
        await client.emit("told", 2, traceparent=OTHER)
        client.emit_nowait("told at once", 3, traceparent=SPAN)
        await client.emit("plain", 4)
        await client.request("last")
    assert heard == [
        ("first", None, ""),
        ("asked", 1, SPAN),
        ("told", 2, OTHER),
        ("told at once", 3, SPAN),
        ("plain", 4, ""),
        ("last", None, ""),
    ]


async def test_from_the_server() -> None:
    router, heard = listening()
    async with pair(client_router=router) as (client, server):
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server.connections
        assert await connection.request("asked", 1, traceparent=SPAN) == SPAN
        await connection.emit("told", 2, traceparent=OTHER)
        connection.emit_nowait("told at once", 3, traceparent=SPAN)
        assert await server.broadcast("news", 4, traceparent=OTHER) == pyipc.BroadcastReport(1, 0)
        assert server.broadcast_nowait("news", 5, traceparent=SPAN) == pyipc.BroadcastReport(1, 0)
        await server.broadcast("news", 6)
        await connection.request("last")
        del client
    assert heard[1:-1] == [
        ("told", 2, OTHER),
        ("told at once", 3, SPAN),
        ("news", 4, OTHER),
        ("news", 5, SPAN),
        ("news", 6, ""),
    ]


@pytest.fixture
async def plain_peer() -> AsyncIterator[tuple[pyipc.Server, WirePeer]]:
    """A server, and a peer that speaks requests but has not introduced itself."""
    async with pyipc.Server() as server:
        peer = join(server)
        await peer.send(frame("pyipc.request", {"call": 1, "event": "nobody"}))
        await peer.read_until("pyipc.error")
        yield server, peer
        await peer.link.aclose()


async def test_a_plain_peer_gets_the_plain_event(plain_peer: tuple[pyipc.Server, WirePeer]) -> None:
    server, peer = plain_peer
    (connection,) = server.connections
    await connection.emit("a", 1, traceparent=SPAN)
    connection.emit_nowait("b", 2, traceparent=SPAN)
    await server.broadcast("c", 3, traceparent=SPAN)
    assert [await peer.read() for _ in range(3)] == [("a", 1), ("b", 2), ("c", 3)]
    assert peer.received.endswith(b'{"type":"a","data":1}\f{"type":"b","data":2}\f{"type":"c","data":3}\f')


async def test_a_broadcast_goes_to_each_as_it_can(plain_peer: tuple[pyipc.Server, WirePeer]) -> None:
    server, plain = plain_peer
    router, heard = listening()
    ours = join(server)
    await ours.send(frame("pyipc.hello", {"versions": [1], "features": ["topics"], "heartbeat": None}))
    await ours.read_until("pyipc.welcome")
    older = join(server)
    await older.send(hello())
    await older.read_until("pyipc.welcome")
    assert await server.broadcast("news", [1], traceparent=SPAN) == pyipc.BroadcastReport(3, 0)
    assert await plain.read() == ("news", [1])
    assert await older.read() == ("news", [1])
    assert await ours.read() == ("pyipc.event", {"event": "news", "data": [1], "traceparent": SPAN})
    for peer in (ours, older):
        await peer.link.aclose()
    del router, heard


@pytest.mark.parametrize("text", NO_SPANS[1:])
async def test_what_is_no_span_is_not_sent(text: str) -> None:
    router, heard = listening()
    async with pair(router) as (client, server):
        await client.request("first")
        (connection,) = server.connections
        for side in (client, connection):
            for call in (side.emit, side.request):
                with pytest.raises(pyipc.LocalProtocolError, match="is no traceparent"):
                    await call("e", traceparent=text)
            with pytest.raises(pyipc.LocalProtocolError, match="is no traceparent"):
                side.emit_nowait("e", traceparent=text)
        with pytest.raises(pyipc.LocalProtocolError, match="is no traceparent"):
            await server.broadcast("e", traceparent=text)
    async with pyipc.connect("memory:nobody", wait=False) as client:
        with pytest.raises(pyipc.LocalProtocolError, match="is no traceparent"):
            await client.emit("e", traceparent=text)
    assert [event for event, _, _ in heard] == ["first"]


@pytest.mark.parametrize("text", [*NO_SPANS, "x" * 10_000, "\ud800"])
async def test_what_is_no_span_is_ignored_when_it_arrives(text: str) -> None:
    router, heard = listening()
    async with pyipc.Server(router=router) as server:
        peer = join(server)
        await peer.send(
            frame("pyipc.event", {"event": "told", "data": 1, "traceparent": text}),
            frame("pyipc.request", {"call": 1, "event": "asked", "data": 2, "traceparent": text}),
            frame("pyipc.request", {"call": 2, "event": "asked", "data": 3, "traceparent": SPAN}),
        )
        assert await peer.read_until("pyipc.reply") == {"call": 1, "data": ""}
        assert await peer.read_until("pyipc.reply") == {"call": 2, "data": SPAN}
        await peer.link.aclose()
    assert heard == [("told", 1, ""), ("asked", 2, ""), ("asked", 3, SPAN)]


async def test_what_is_queued_without_a_connection_goes_without() -> None:
    router, heard = listening()
    server = pyipc.Server("memory:late", router=router)
    async with pyipc.connect("memory:late", wait=False, reconnect_interval=0.01) as client:
        await client.emit("told", 1, traceparent=SPAN)
        client.emit_nowait("told", 2, traceparent=SPAN)
        async with server:
            await client.request("asked", 3, traceparent=SPAN)
    assert heard == [("told", 1, ""), ("told", 2, ""), ("asked", 3, SPAN)]


async def test_undelivered_events_with_a_span_are_counted() -> None:
    async with pyipc.Server(close_timeout=0.05) as server:
        peer = join(server, buffer_size=1_000)
        await peer.send(frame("pyipc.hello", {"versions": [1], "features": ["topics"], "heartbeat": None}))
        await peer.read_until("pyipc.welcome")
        (connection,) = server.connections
        for _ in range(3):
            await connection.emit("told", "x" * 2_000, traceparent=SPAN)
        with pytest.raises(pyipc.Undelivered) as undelivered:
            await connection.aclose()
        assert undelivered.value.count == 3
        await peer.link.aclose()


async def test_bytes_as_they_are_go_as_they_are() -> None:
    heard: list[tuple[Any, str]] = []
    router = pyipc.Router()
    router.on("data", lambda message: heard.append((message.data, message.traceparent)))
    raw = pyipc.Endpoint("memory:raw-traces", framing=pyipc.Raw())
    async with pyipc.Server(raw, router=router) as server, pyipc.connect(raw) as client:
        await client.emit("data", b"one", traceparent=SPAN)
        client.emit_nowait("data", b"two", traceparent=SPAN)
        with pytest.raises(pyipc.UnsupportedByTransport):
            await client.request("data", b"three", traceparent=SPAN)
        await trio.testing.wait_all_tasks_blocked()
        await server.broadcast("data", b"four", traceparent=SPAN)
    assert b"".join(data for data, _ in heard) == b"onetwo"
    assert {span for _, span in heard} == {""}
