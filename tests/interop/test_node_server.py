"""pyipc clients of real node-ipc servers."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING

import pytest
import trio

import pyipc
from tests.interop.node import Heard, Place, eventually, frame
from tests.interop.payloads import FROM_NODE, FROM_PYTHON

if TYPE_CHECKING:
    from tests.interop.conftest import StartNode, StartTap

MIB = 1024 * 1024


def plainly(place: Place) -> pyipc.Endpoint:
    """How to reach a program that is known to be node-ipc: without introducing oneself."""
    return pyipc.Endpoint(place.address, hello=False)


async def test_what_is_emitted_is_what_node_gets(node: StartNode, tap: StartTap, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        wire = await tap(await peer.serve(place, on=["thing"]))
        async with pyipc.connect(plainly(wire.place)) as client:
            for value, text, seen in FROM_PYTHON:
                before = len(wire.sent)
                await client.emit("thing", value)
                event = await peer.event("thing")
                assert event["data"] == seen, value
                assert type(event["data"]) is type(seen), value
                assert wire.sent[before:] == b'{"type":"thing","data":%b}\f' % text
        assert wire.answered == b""


async def test_what_node_emits_is_what_handlers_get(node: StartNode, tap: StartTap, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        wire = await tap(await peer.serve(place))
        router = pyipc.Router()
        heard = Heard(router)
        async with pyipc.connect(plainly(wire.place), router=router):
            await peer.event("connect")
            for expression, text, value in FROM_NODE:
                before = len(wire.answered)
                await peer.command("emit", socket=0, event="thing", js=expression)
                message = await heard.next()
                assert message.data == value, expression
                sent = b'{"type":"thing"}' if text is None else b'{"type":"thing","data":%b}' % text
                assert wire.answered[before:] == sent + b"\f"
        assert wire.sent == b""


async def test_the_hello_hurts_nobody(node: StartNode, tap: StartTap, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        wire = await tap(await peer.serve(place, on=["thing", "pyipc.hello"], echo=["thing"]))
        router = pyipc.Router()
        heard = Heard(router)
        async with pyipc.connect(wire.place.address, router=router) as client:
            hello = await peer.event("pyipc.hello")
            assert hello["label"] is None, "node-ipc must not take anything in it for the name of the socket"
            await client.emit("thing", 1)
            assert await heard.take(1) == [("thing", 1)]
            assert client.peer is not None
            assert client.peer.protocol == "plain"
        first, rest = wire.sent.split(b"\f", 1)
        assert json.loads(first)["type"] == "pyipc.hello"
        assert rest == frame("thing", 1), "a peer that gave no welcome gets no goodbye"


async def test_frames_in_pieces_and_in_heaps(node: StartNode, tap: StartTap, place: Place) -> None:
    texts = ["é", "😀 and 日本", "x" * 300]
    with trio.fail_after(50):
        peer = await node()
        where = await peer.serve(place, on=["thing"], echo=["thing"])
        wire = await tap(where, chunk=1)
        router = pyipc.Router()
        heard = Heard(router)
        async with pyipc.connect(plainly(wire.place), router=router) as client:
            await peer.event("connect")
            for text in texts:
                await client.emit("thing", text)
            assert await heard.take(3) == [("thing", text) for text in texts]
            assert [event["data"] for event in peer.seen("thing")] == texts
        async with pyipc.connect(plainly(where), router=router):
            await peer.event("connect")
            cut = frame("last", "é")
            heap = b"".join(frame("thing", number) for number in range(100)) + cut[:-4]
            await peer.command("write", socket=1, hex=heap.hex())
            assert await heard.take(100) == [("thing", number) for number in range(100)]
            assert heard.waiting == 0
            await peer.command("write", socket=1, hex=cut[-4:].hex())
            assert await heard.take(1) == [("last", "é")]


async def test_a_burst_keeps_its_order(node: StartNode, place: Place) -> None:
    """Node-ipc withholds frames unless what has arrived ends with a delimiter, so all of it has to, in the end."""
    count = 5_000
    with trio.fail_after(50):
        peer = await node()
        where = await peer.serve(place, on=["thing"])
        router = pyipc.Router()
        heard = Heard(router)
        async with pyipc.connect(where.address, router=router) as client:
            for number in range(count):
                await client.emit("thing", number)
            await eventually(lambda: len(peer.seen("thing")) == count)
            assert [event["data"] for event in peer.seen("thing")] == list(range(count))
            await peer.command("emit", socket=0, event="thing", times=count)
            assert await heard.take(count) == [("thing", number) for number in range(count)]


async def test_the_path_that_node_derives_from_its_id(node: StartNode) -> None:
    name = f"pyipc-test-{os.getpid()}-{time.monotonic_ns()}"
    with trio.fail_after(50):
        peer = await node()
        await peer.command("serve", on=["thing", "pyipc.hello"], config={"id": name})
        await peer.wait_for("started")
        try:
            async with pyipc.connect(f"node-ipc:{name}") as client:
                await client.emit("thing", 1)
                await peer.event("thing")
                assert not peer.seen("pyipc.hello")
        finally:
            await peer.command("stop")  # node-ipc takes the socket away


async def test_sixteen_mib_both_ways(node: StartNode, unix: Place) -> None:
    text = "é" * (8 * MIB)
    digest = {"$long": 8 * MIB, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    with trio.fail_after(55):
        peer = await node()
        await peer.serve(unix, on=["big"])
        router = pyipc.Router()
        heard = Heard(router)
        sizes = {"max_frame_size": 17 * MIB, "max_inbox_size": 20 * MIB, "max_outbox_size": 20 * MIB}
        async with pyipc.connect(unix.address, router=router, **sizes) as client:  # type: ignore[arg-type]
            await client.emit("big", text)
            assert (await peer.event("big"))["data"] == digest
            await peer.command("emit", socket=0, event="big", js=f"'é'.repeat({8 * MIB})")
            assert (await heard.next()).data == text


async def test_one_byte_over_the_limit(node: StartNode, place: Place) -> None:
    limit = 5_000
    fits = "x" * (limit - len(frame("big", "")) + 1)
    with trio.fail_after(50):
        peer = await node()
        where = await peer.serve(place, on=["big"])
        router = pyipc.Router()
        heard = Heard(router)
        reasons: list[pyipc.Disconnected] = []
        async with pyipc.connect(where.address, router=router, max_frame_size=limit) as client:
            client.on_disconnect(reasons.append)
            with pytest.raises(pyipc.MessageTooLarge):
                await client.emit("big", fits + "x")
            await client.emit("big", fits)
            assert (await peer.event("big"))["data"] == fits

            await peer.command("emit", socket=0, event="big", data=fits)
            assert (await heard.next()).data == fits
            await peer.command("emit", socket=0, event="big", data=fits + "x")
            await eventually(lambda: reasons)
            assert (reasons[0].code, reasons[0].by_peer) == ("size", False)
            await eventually(lambda: len(peer.seen("connect")) == 2)
            assert heard.waiting == 0


async def test_emitting_and_leaving_at_once_loses_nothing(node: StartNode, place: Place) -> None:
    """With node-ipc on both sides all of this is lost."""
    text = "x" * MIB
    digest = {"$long": MIB, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    with trio.fail_after(50):
        peer = await node()
        where = await peer.serve(place, on=["big", "last"])
        async with pyipc.connect(where.address, max_frame_size=2 * MIB) as client:
            for _ in range(3):
                await client.emit("big", text)
            await client.emit("last")
        await peer.event("last")
        assert [event["data"] for event in peer.seen("big")] == [digest] * 3


async def test_broadcast_and_unicast(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        where = await peer.serve(place)
        routers = [pyipc.Router() for _ in range(3)]
        heard = [Heard(router) for router in routers]
        async with (
            pyipc.connect(where.address, router=routers[0]),
            pyipc.connect(where.address, router=routers[1]),
            pyipc.connect(plainly(where), router=routers[2]),
        ):
            await eventually(lambda: len(peer.seen("connect")) == 3)
            await peer.command("broadcast", event="news", data=1)
            for number in range(3):
                await peer.command("emit", socket=number, event="yours", data=number)
            await peer.command("broadcast", event="news", data=2)
            numbers = set()
            for one in heard:
                news, (name, number), more = await one.take(3)
                assert (news, name, more) == (("news", 1), "yours", ("news", 2))
                numbers.add(number)
            assert numbers == {0, 1, 2}


async def test_node_is_killed_and_comes_back(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        where = await peer.serve(place, on=["thing"], echo=["thing"])
        router = pyipc.Router()
        heard = Heard(router)
        reasons: list[pyipc.Disconnected] = []
        connections: list[pyipc.Connection] = []
        async with pyipc.connect(where.address, router=router, reconnect_interval=0.02) as client:
            client.on_disconnect(reasons.append)
            client.on_connect(connections.append)
            await client.emit("thing", "before")
            assert await heard.take(1) == [("thing", "before")]

            await peer.kill()
            await eventually(lambda: reasons)
            assert reasons[0].by_peer
            for number in range(3):
                await client.emit("thing", number)
            assert not client.connected

            again = await node()
            await again.serve(where, on=["thing"], echo=["thing"])
            assert await heard.take(3) == [("thing", number) for number in range(3)]
            assert len(connections) == 1
            assert len(reasons) == 1


async def test_node_is_killed_in_the_middle_of_a_frame(node: StartNode, place: Place) -> None:
    sent = frame("whole") + frame("half", "x" * 50)[:-9]
    with trio.fail_after(50):
        peer = await node()
        where = await peer.serve(place)
        router = pyipc.Router()
        heard = Heard(router)
        reasons: list[pyipc.Disconnected] = []
        async with pyipc.connect(plainly(where), router=router, reconnect_interval=0.02) as client:
            client.on_disconnect(reasons.append)
            await peer.event("connect")
            await peer.command("write", socket=0, hex=sent.hex())
            connection = (await heard.next()).connection
            await eventually(lambda: connection.statistics().bytes_received == len(sent))
            await peer.kill()
            await eventually(lambda: reasons)
            again = await node()
            await again.serve(where)
            await again.event("connect")
            await again.command("emit", socket=0, event="after", data=1)
            assert await heard.take(1) == [("after", 1)]
            assert [(reason.by_peer, reason.connection) for reason in reasons] == [(True, connection)]


async def test_a_server_that_only_stops_listening_keeps_its_clients(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        where = await peer.serve(place, echo=["thing"])
        router = pyipc.Router()
        heard = Heard(router)
        async with pyipc.connect(where.address, router=router) as client:
            await peer.event("connect")
            await peer.command("stop")
            await client.emit("thing", 1)
            assert await heard.take(1) == [("thing", 1)]


async def test_a_server_that_is_full(node: StartNode, tap: StartTap, place: Place) -> None:
    """It accepts and closes at once, which is no reason to try again at once."""
    with trio.fail_after(50):
        peer = await node()
        where = await peer.serve(place, on=["thing"], echo=["thing"], maxConnections=1)
        wire = await tap(where)
        async with pyipc.connect(where.address) as first:
            await peer.event("connect")
            async with pyipc.connect(
                wire.place.address, wait=False, reconnect_interval=0.1, reconnect_jitter=False
            ) as second:
                heard = Heard(second)
                await eventually(lambda: len(wire.opened) == 5)
                gaps = [later - earlier for earlier, later in zip(wire.opened, wire.opened[1:], strict=False)]
                print("seconds between attempts:", [round(gap, 2) for gap in gaps])
                for gap, least in zip(gaps, (0.1, 0.2, 0.4, 0.8), strict=True):
                    assert gap >= 0.9 * least
                await first.emit("thing", "I am not disturbed")
                await peer.event("thing")

                await first.aclose()
                await peer.event("connect")
                await second.emit("thing", "my turn")
                assert await heard.take(1) == [("thing", "my turn")]


@pytest.mark.parametrize("encoding", ["hex", "latin1"])
async def test_raw_bytes(node: StartNode, tap: StartTap, place: Place, encoding: str) -> None:
    data = bytes.fromhex("00ff80c3a90c")
    with trio.fail_after(50):
        peer = await node()
        wire = await tap(await peer.serve(place, on=["data"], echo=["data"], rawBuffer=True, encoding=encoding))
        router = pyipc.Router()
        heard = Heard(router)
        async with pyipc.connect(pyipc.Endpoint(wire.place.address, framing=pyipc.Raw()), router=router) as client:
            for sent in (data, bytes(range(256))):
                await client.emit("data", sent)
                assert (await peer.event("data"))["data"] == {"$bytes": sent.hex()}
                assert await heard.take(1) == [("data", sent)]
        assert wire.sent == wire.answered == data + bytes(range(256))


async def test_newline_as_delimiter(node: StartNode, tap: StartTap, place: Place) -> None:
    texts = ["two\nlines\fand é", "plain"]
    with trio.fail_after(50):
        peer = await node()
        wire = await tap(await peer.serve(place, on=["thing"], echo=["thing"], delimiter="\n"), chunk=1)
        router = pyipc.Router()
        heard = Heard(router)
        endpoint = pyipc.Endpoint(wire.place.address, framing=pyipc.Json(delimiter=b"\n"), hello=False)
        async with pyipc.connect(endpoint, router=router) as client:
            for text in texts:
                await client.emit("thing", text)
            assert await heard.take(2) == [("thing", text) for text in texts]
            assert wire.sent == wire.answered == b"".join(frame("thing", text, b"\n") for text in texts)


async def test_ask_by_event_and_wait_for_the_answer(node: StartNode, unix: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        await peer.serve(unix, echo=["sum"])
        async with pyipc.connect(unix.address) as client, client.expect("sum") as answer:
            await client.emit("sum", [1, 2])
            assert (await answer.get(timeout=5)).data == [1, 2]


async def test_a_request_that_node_does_not_know(node: StartNode, unix: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        await peer.serve(unix, on=["pyipc.request", "thing"])
        async with pyipc.connect(plainly(unix)) as client:
            with pytest.raises(pyipc.RequestTimeout):
                await client.request("sum", [1, 2], timeout=0.1)
            request = await peer.event("pyipc.request")
            assert request["data"] == {"call": 1, "event": "sum", "data": [1, 2]}
            assert request["label"] is None
            await client.emit("thing")
            await peer.event("thing")
