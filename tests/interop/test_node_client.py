"""Real node-ipc clients of a pyipc server."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.interop.node import Heard, Place, eventually, frame, place_of
from tests.interop.payloads import FROM_NODE, FROM_PYTHON

if TYPE_CHECKING:
    from tests.interop.conftest import StartNode, StartTap

MIB = 1024 * 1024


def echo(server: pyipc.Server, event: str = "ask", answer: str = "answer") -> None:
    """Answer every event of one name with an event of another."""

    @server.on(event)
    async def reply(message: pyipc.Message[Any]) -> None:
        await message.connection.emit(answer, message.data)


async def test_what_node_sends_is_what_handlers_get(node: StartNode, tap: StartTap, place: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            heard = Heard(server)
            wire = await tap(place_of(server))
            peer = await node()
            await peer.connect(wire.place)
            for expression, json, value in FROM_NODE:
                before = len(wire.sent)
                await peer.command("emit", id="world", event="thing", js=expression)
                message = await heard.next()
                assert message.event == "thing"
                assert message.data == value, expression
                assert type(message.data) is type(value), expression
                assert message.connection.peer.protocol == "plain"
                sent = wire.sent[before:]
                assert sent == (b'{"type":"thing"}' if json is None else b'{"type":"thing","data":%b}' % json) + b"\f"
            assert wire.answered == b""


async def test_what_handlers_answer_is_what_node_gets(node: StartNode, tap: StartTap, place: Place) -> None:
    values = iter(FROM_PYTHON)

    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:

            @server.on("next")
            async def answer(message: pyipc.Message[Any]) -> None:
                await message.connection.emit("thing", next(values)[0])

            wire = await tap(place_of(server))
            peer = await node()
            await peer.connect(wire.place, on=["thing"])
            for value, json, seen in FROM_PYTHON:
                before = len(wire.answered)
                await peer.command("emit", id="world", event="next")
                event = await peer.event("thing")
                assert event["data"] == seen, value
                assert wire.answered[before:] == b'{"type":"thing","data":%b}\f' % json


async def test_missing_data_and_no_data(node: StartNode, unix: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(unix.address) as server:
            heard = Heard(server)
            peer = await node()
            await peer.connect(unix, on=["nothing"])
            await peer.command("write", id="world", hex=b'{"type":"nothing"}\f'.hex())
            message = await heard.next()
            assert message.data is None
            await message.connection.emit("nothing")
            event = await peer.event("nothing")
            assert event["data"] is None


async def test_frames_in_pieces_and_in_heaps(node: StartNode, tap: StartTap, place: Place) -> None:
    texts = ["é", "😀 and 日本", "x" * 300]
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            echo(server)
            wire = await tap(place_of(server), chunk=1)
            peer = await node()
            await peer.connect(wire.place, on=["answer"])
            await peer.command("write", id="world", hex=b"".join(frame("ask", text) for text in texts).hex())
            for text in texts:
                assert (await peer.event("answer"))["data"] == text

            heard = Heard(server)
            await peer.connect(place_of(server), id="direct", on=["answer"])
            heap = b"".join(frame("ask", number) for number in range(100))
            await peer.command("write", id="direct", hex=heap.hex())
            assert await heard.take(100) == [("ask", number) for number in range(100)]


async def test_a_complete_frame_does_not_wait_for_the_next(node: StartNode, unix: Place) -> None:
    """As it does with node-ipc, which holds it back until its buffer happens to end with a delimiter."""
    second = frame("second", "é")
    cut = second.index("é".encode()) + 1
    with trio.fail_after(50):
        async with pyipc.Server(unix.address) as server:
            heard = Heard(server)
            peer = await node()
            await peer.connect(unix)
            await peer.command("write", id="world", hex=(frame("first") + second[:cut]).hex())
            assert await heard.take(1) == [("first", None)]
            assert heard.waiting == 0
            await peer.command("write", id="world", hex=second[cut:].hex())
            assert await heard.take(1) == [("second", "é")]


async def test_a_burst_keeps_its_order(node: StartNode, place: Place) -> None:
    count = 5_000
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            echo(server)
            heard = Heard(server)
            peer = await node()
            await peer.connect(place_of(server), on=["answer"])
            await peer.command("emit", id="world", event="ask", times=count)
            assert await heard.take(count) == [("ask", number) for number in range(count)]
            await eventually(lambda: len(peer.seen("answer")) == count)
            assert [event["data"] for event in peer.seen("answer")] == list(range(count))


async def test_emitted_before_connected(node: StartNode, unix: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(unix.address) as server:
            heard = Heard(server)
            peer = await node()
            await peer.command("connect", id="world", **unix.node)
            await peer.command("emit", id="world", event="early", data=1)
            await peer.command("emit", id="world", event="late", data=2)
            assert await heard.take(2) == [("early", 1), ("late", 2)]


async def test_the_path_that_node_derives_from_an_id(node: StartNode) -> None:
    name = f"pyipc-test-{os.getpid()}-{time.monotonic_ns()}"
    with trio.fail_after(50):
        async with pyipc.Server(f"node-ipc:{name}") as server:
            echo(server)
            peer = await node()
            await peer.command("connect", id=name, on=["answer"])
            await peer.event("connect")
            await peer.command("emit", id=name, event="ask", data={"x": 1})
            assert (await peer.event("answer"))["data"] == {"x": 1}


async def test_sixteen_mib_both_ways(node: StartNode, unix: Place) -> None:
    def text(size: int) -> str:
        return "é" * (size // 2)

    with trio.fail_after(55):
        async with pyipc.Server(
            unix.address, max_frame_size=17 * MIB, max_inbox_size=20 * MIB, max_outbox_size=20 * MIB
        ) as server:
            echo(server)
            heard = Heard(server)
            peer = await node()
            await peer.connect(unix, on=["answer"])
            spent = {}
            for size in (2 * MIB, 16 * MIB):
                before = time.process_time()
                await peer.command("emit", id="world", event="big", js=f"'é'.repeat({size // 2})")
                message = await heard.next()
                spent[size] = time.process_time() - before
                assert message.data == text(size)
            # Quadratic work, which is what node-ipc does, would take 64 times as much.
            print(f"pyipc read 2 MiB in {spent[2 * MIB]:.3f} s and 16 MiB in {spent[16 * MIB]:.3f} s of its own time")
            assert spent[16 * MIB] < 30 * max(spent[2 * MIB], 0.02)

            await message.connection.emit("answer", text(16 * MIB))
            digest = hashlib.sha256(text(16 * MIB).encode()).hexdigest()
            assert (await peer.event("answer"))["data"] == {"$long": 8 * MIB, "sha256": digest}


async def test_one_byte_over_the_limit(node: StartNode, place: Place) -> None:
    limit = 5_000
    fits = "x" * (limit - len(frame("big", "")) + 1)
    assert len(frame("big", fits)) == limit + 1, "the delimiter is no part of the frame"
    with trio.fail_after(50):
        async with pyipc.Server(place.address, max_frame_size=limit) as server:
            heard = Heard(server)
            reasons: list[pyipc.Disconnected] = []
            server.on_disconnect(reasons.append)
            where = place_of(server)
            peer = await node()
            await peer.connect(where, id="other", on=["ok"], maxRetries=0)
            await peer.connect(where, id="greedy", on=["ok"])
            await peer.command("emit", id="greedy", event="big", data=fits)
            message = await heard.next()
            assert message.data == fits

            with pytest.raises(pyipc.MessageTooLarge) as caught:
                await message.connection.emit("big", fits + "x")
            assert (caught.value.size, caught.value.limit) == (limit + 1, limit)
            await message.connection.emit("ok")
            await peer.event("ok", id="greedy")

            await peer.command("emit", id="greedy", event="big", data=fits + "x")
            await peer.event("disconnect", id="greedy")
            await eventually(lambda: len(reasons) == 1)
            assert (reasons[0].code, reasons[0].connection, reasons[0].by_peer) == ("size", message.connection, False)

            await peer.command("emit", id="other", event="still here")
            assert await heard.take(1) == [("still here", {})]
            assert len(server.connections) == 1


async def test_broadcast_reaches_everybody(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            heard = Heard(server)
            first, second = await node(), await node()
            where = place_of(server)
            await first.connect(where, id="a", on=["news"])
            await first.connect(where, id="b", on=["news"])
            await second.connect(where, id="c", on=["news"])
            await first.command("emit", id="a", event="mine")
            mine = (await heard.next()).connection
            assert await server.broadcast("news", 1) == pyipc.BroadcastReport(sent=3, dropped=0)
            assert await server.broadcast("news", 2, exclude=mine) == pyipc.BroadcastReport(sent=2, dropped=0)
            await mine.emit("news", 3)
            for peer, id, expected in ((first, "a", [1, 3]), (first, "b", [1, 2]), (second, "c", [1, 2])):
                for data in expected:
                    assert (await peer.event("news", id=id))["data"] == data
                assert len(peer.seen("news", id=id)) == 2


async def test_node_comes_back_to_a_server_that_restarts(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            where = place_of(server)
            peer = await node()
            await peer.connect(where, on=["news"], retry=30)
            await eventually(lambda: len(server.connections) == 1)
            await server.broadcast("news", "last words")
        assert (await peer.event("news"))["data"] == "last words"
        await peer.event("disconnect")
        async with pyipc.Server(where.address) as server:
            heard = Heard(server)
            await peer.event("connect")
            await peer.command("emit", id="world", event="back")
            message = await heard.next()
            assert message.event == "back"
            await message.connection.emit("news", "welcome back")
            assert (await peer.event("news"))["data"] == "welcome back"


async def test_killed_in_the_middle_of_a_frame(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            heard = Heard(server)
            reasons: list[pyipc.Disconnected] = []
            server.on_disconnect(reasons.append)
            where = place_of(server)
            peer = await node()
            await peer.connect(where)
            sent = frame("whole") + frame("half", "x" * 50)[:-9]
            await peer.command("write", id="world", hex=sent.hex())
            message = await heard.next()
            assert message.event == "whole"
            (connection,) = server.connections
            await eventually(lambda: connection.statistics().bytes_received == len(sent))
            await peer.kill()
            await eventually(lambda: reasons and not server.connections)
            assert [(reason.by_peer, reason.connection) for reason in reasons] == [(True, connection)]
            assert reasons[0].code in ("eof", "lost")

            other = await node()
            await other.connect(where)
            await other.command("emit", id="world", event="after")
            assert await heard.take(1) == [("after", {})]
            assert len(reasons) == 1


async def test_node_disconnects(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            reasons: list[pyipc.Disconnected] = []
            server.on_disconnect(reasons.append)
            peer = await node()
            await peer.connect(place_of(server))
            await peer.command("disconnect", id="world")
            await peer.event("destroy")
            await eventually(lambda: reasons)
            assert [(reason.code, reason.by_peer) for reason in reasons] == [("eof", True)]


async def test_one_connection_too_many(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(place.address, max_connections=1, handshake_timeout=0.05) as server:
            heard = Heard(server)
            where = place_of(server)
            peer = await node()
            await peer.connect(where, id="first", retry=50)
            await eventually(lambda: len(server.connections) == 1)
            await peer.connect(where, id="second")
            await peer.event("disconnect", id="second")
            assert server.statistics().refused >= 1
            await peer.command("emit", id="first", event="mine")
            assert await heard.take(1) == [("mine", {})]

            await peer.command("disconnect", id="first")
            await eventually(lambda: server.statistics().accepted == 2)
            await peer.command("emit", id="second", event="at last")
            assert await heard.take(1) == [("at last", {})]


async def test_a_sync_client_is_released_by_replies_alone(node: StartNode, tap: StartTap, place: Place) -> None:
    """It sends its next message when anything at all arrives, so the server must be silent but for the replies."""
    count = 5
    with trio.fail_after(50):
        async with pyipc.Server(place.address, heartbeat_interval=0.02) as server:
            release, released = trio.open_memory_channel[None](0)

            @server.on("ask")
            async def answer(message: pyipc.Message[int]) -> None:
                await released.receive()
                await message.connection.emit("answer", message.data)

            wire = await tap(place_of(server))
            peer = await node()
            await peer.connect(wire.place, on=["answer"], sync=True)
            await peer.command("emit", id="world", event="ask", times=count)
            for number in range(count):
                await eventually(lambda number=number: wire.sent.endswith(frame("ask", number)))  # type: ignore[misc]
                await trio.sleep(0.1)  # five heartbeats, with which a pyipc peer would be pinged
                assert wire.sent == b"".join(frame("ask", asked) for asked in range(number + 1))
                assert wire.answered == b"".join(frame("answer", answered) for answered in range(number))
                await release.send(None)
                assert (await peer.event("answer"))["data"] == number


async def test_a_client_that_only_listens_is_left_in_peace(node: StartNode, tap: StartTap, place: Place) -> None:
    interval = 0.05
    with trio.fail_after(50):
        async with pyipc.Server(
            place.address,
            heartbeat_interval=interval,
            heartbeat_misses=1,
            handshake_timeout=interval,
            frame_timeout=interval,
        ) as server:
            wire = await tap(place_of(server))
            peer = await node()
            await peer.connect(wire.place, on=["news"])
            await eventually(lambda: len(server.connections) == 1)
            await trio.sleep(25 * interval)
            assert wire.log == []
            assert not peer.seen("disconnect")
            await server.broadcast("news", "at last")
            assert (await peer.event("news"))["data"] == "at last"
            assert wire.answered == frame("news", "at last")


@pytest.mark.parametrize("encoding", ["hex", "latin1"])
async def test_raw_bytes(node: StartNode, tap: StartTap, place: Place, encoding: str) -> None:
    data = bytes.fromhex("00ff80c3a90c")
    everything = bytes(range(256))
    with trio.fail_after(50):
        async with pyipc.Server(pyipc.Endpoint(place.address, framing=pyipc.Raw())) as server:
            heard = Heard(server)
            wire = await tap(place_of(server))
            peer = await node()
            await peer.connect(wire.place, on=["data"], rawBuffer=True, encoding=encoding)
            await peer.command("emit", id="world", hex=data.hex())
            message = await heard.next()
            assert (message.event, message.data) == ("data", data)
            assert wire.sent == data
            await message.connection.emit("data", message.data)
            assert (await peer.event("data"))["data"] == {"$bytes": data.hex()}
            await server.broadcast("data", everything)
            assert (await peer.event("data"))["data"] == {"$bytes": everything.hex()}
            assert wire.answered == data + everything


async def test_newline_as_delimiter(node: StartNode, tap: StartTap, place: Place) -> None:
    text = "two\nlines\fand é"
    with trio.fail_after(50):
        async with pyipc.Server(pyipc.Endpoint(place.address, framing=pyipc.Json(delimiter=b"\n"))) as server:
            echo(server)
            wire = await tap(place_of(server), chunk=1)
            peer = await node()
            await peer.connect(wire.place, on=["answer"], delimiter="\n")
            await peer.command("write", id="world", hex=(frame("ask", 1, b"\n") + frame("ask", text, b"\n")).hex())
            assert (await peer.event("answer"))["data"] == 1
            assert (await peer.event("answer"))["data"] == text
            assert wire.answered == frame("answer", 1, b"\n") + frame("answer", text, b"\n")


async def test_a_plain_client_cannot_be_asked(node: StartNode, unix: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(unix.address) as server:
            peer = await node()
            await peer.connect(unix)
            await eventually(lambda: len(server.connections) == 1)
            (connection,) = server.connections
            with pytest.raises(pyipc.PeerLacksFeature) as caught:
                await connection.request("sum", [1, 2])
            assert caught.value.feature == "request"
