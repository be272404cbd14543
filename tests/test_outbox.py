"""`Outbox`: whole frames in order, high water, cap, and what can be taken back; and sending through a connection."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Message
from pyipc.errors import ConnectionLost
from pyipc.flusher import Flusher
from pyipc.outbox import Outbox
from pyipc.testing import pair
from pyipc.transports import Link, memory_link_pair
from tests.wire import frame, hello, join, lone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(20)


class Box:
    def __init__(self, nursery: trio.Nursery, *, high_water_size: int = 100, max_size: int = 1_000, buffer: int = 64):
        self.flusher = Flusher()
        nursery.start_soon(self.flusher.run)
        self.link, self.peer = memory_link_pair(buffer_size=buffer)
        self.broken: list[ConnectionLost] = []
        self.outbox = Outbox(
            self.link,
            self.flusher,
            high_water_size=high_water_size,
            max_size=max_size,
            spawn=nursery.start_soon,
            connection=lone(self.broken.append),
        )

    async def read(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            received += await self.peer.receive()
        return bytes(received)


@asynccontextmanager
async def box(**options: int) -> AsyncIterator[Box]:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            yield Box(nursery, **options)
            nursery.cancel_scope.cancel()


# --- the queue --------------------------------------------------------------------------------------------------


async def test_all_that_is_pushed_in_a_turn_leaves_in_one_write() -> None:
    async with box(buffer=1_000) as it:
        for number in range(50):
            it.outbox.push(b"%d;" % number)
        assert it.outbox.bytes_sent == 0
        assert await it.peer.receive() == b"".join(b"%d;" % number for number in range(50))
        assert len(it.outbox) == 0
        assert it.outbox.size == 0


async def test_order_and_bytes_survive_a_link_that_takes_little() -> None:
    rng = random.Random(5)
    frames = [rng.randbytes(rng.choice([1, 10, 63, 64, 65, 500, 300_000])) for _ in range(40)]
    total = sum(map(len, frames))
    async with box(buffer=10_000) as it:
        for one in frames[:20]:
            it.outbox.push(one)
        it.outbox.flush_nowait()
        for one in frames[20:]:
            it.outbox.push(one)
        assert await it.read(total) == b"".join(frames)
        await trio.testing.wait_all_tasks_blocked()
        assert it.outbox.size == 0
        assert it.outbox.bytes_sent == total


async def test_what_goes_at_once_keeps_its_place_and_is_not_begun_anew() -> None:
    async with box(buffer=64) as it:
        for one in (b"a" * 100, b"b" * 100):
            it.outbox.push_now(one, trio.current_time())  # the link takes a part of the first one
        it.outbox.push(b"c" * 100)
        it.outbox.end()
        received = bytearray()
        while chunk := await it.peer.receive():
            received += chunk
        assert received == b"a" * 100 + b"b" * 100 + b"c" * 100
        assert it.outbox.size == 0


async def test_high_water_holds_senders_back() -> None:
    async with box() as it:
        it.outbox.push(b"x" * 300)
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.05):
            await it.outbox.wait_for_room()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.outbox.wait_for_room)
            await it.read(260)
        assert it.outbox.size < 100


async def test_the_end_comes_after_what_is_being_written() -> None:
    async with box(buffer=64) as it:
        it.outbox.push(b"x" * 300)
        it.outbox.flush_nowait()
        it.outbox.end()
        it.outbox.fail(ConnectionLost("it is over"))
        assert await it.read(300) == b"x" * 300
        assert await it.peer.receive() == b""
    async with box() as it:
        it.outbox.end()
        assert await it.peer.receive() == b""


async def test_waiting_for_room_is_always_a_schedule_point() -> None:
    async with box() as it:
        with trio.testing.assert_checkpoints():
            await it.outbox.wait_for_room()
        with trio.testing.assert_checkpoints():
            await it.outbox.flush()


async def test_the_cap_bounds_what_piles_up_and_not_a_single_frame() -> None:
    async with box(max_size=1_000) as it:
        assert it.outbox.offer(b"x" * 5_000)
        assert not it.outbox.offer(b"y")
        await it.read(5_000)
        assert it.outbox.offer(b"y")


async def test_flush_waits_for_the_last_byte() -> None:
    async with box() as it:
        it.outbox.push(b"x" * 1_000)
        async with trio.open_nursery() as nursery:
            flushed = trio.Event()

            async def flush() -> None:
                await it.outbox.flush()
                flushed.set()

            nursery.start_soon(flush)
            await it.read(896)
            assert not flushed.is_set()
            await it.read(104)
        assert flushed.is_set()


async def test_a_broken_link_wakes_everybody_and_is_told_once() -> None:
    async with box() as it:
        it.outbox.push(b"x" * 1_000)
        woken = 0

        async def wait(flush: bool) -> None:
            nonlocal woken
            with pytest.raises(ConnectionLost):
                await (it.outbox.flush() if flush else it.outbox.wait_for_room())
            woken += 1

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(wait, number % 2 == 0)
            await trio.testing.wait_all_tasks_blocked()
            await it.peer.aclose()
        assert woken == 6
        assert len(it.broken) == 1
        with pytest.raises(ConnectionLost):
            it.outbox.push(b"more")
        with pytest.raises(ConnectionLost):
            it.outbox.offer(b"more")
        it.outbox.flush_nowait()
        assert len(it.broken) == 1


async def test_what_was_not_begun_can_be_taken_back() -> None:
    async with box(buffer=10) as it:
        frames = [frame("e", number) for number in range(10)]
        it.outbox.push(frames[0] * 4)  # under way, and too large for the link
        it.outbox.flush_nowait()
        await trio.testing.wait_all_tasks_blocked()
        for one in frames[1:5]:
            it.outbox.push(one)
        it.outbox.push(frame("pyipc.ping", {}))
        for one in frames[5:]:
            it.outbox.push(one)
        assert it.outbox.count_events() == 10
        assert it.outbox.reclaim_events() == frames[1:]
        assert it.outbox.reclaim_events() == []
        rest = frames[0] * 4 + frame("pyipc.ping", {})
        assert await it.read(len(rest)) == rest
        await trio.testing.wait_all_tasks_blocked()
        assert it.outbox.size == 0


async def test_frames_that_were_in_a_failed_write_are_not_taken_back() -> None:
    """How much of them arrived is unknown, and twice is worse than not at all."""
    async with box(buffer=10) as it:
        frames = [frame("e", number) for number in range(6)]
        for one in frames[:3]:
            it.outbox.push(one)
        it.outbox.flush_nowait()
        await trio.testing.wait_all_tasks_blocked()
        for one in frames[3:]:
            it.outbox.push(one)
        await it.peer.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert it.broken
        left = it.outbox.reclaim_events()
        assert left == frames[-len(left) :]
        assert frames[3:] == left[-3:]
        assert frames[0] not in left
        assert it.outbox.size == 0


class Counting(Link):
    """A link that takes all at once and counts the writes."""

    def __init__(self) -> None:
        self.writes: list[int] = []

    @property
    def peer(self) -> pyipc.Peer:
        return pyipc.Peer(address="memory:count")

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        self.writes.append(len(data))
        return len(data)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError("send_nowait takes all")

    async def receive(self) -> bytes:
        raise AssertionError("nothing is received")

    def send_eof(self) -> bool:
        return True

    async def aclose(self) -> None:
        pass


async def test_writes_are_joined_up_to_a_size_and_large_frames_go_uncopied() -> None:
    link = Counting()
    outbox = Outbox(link, Flusher(), high_water_size=1, max_size=2, spawn=lambda *_: None, connection=lone())
    for _ in range(10_000):
        outbox.push(b"x" * 100)
    outbox.push(b"y" * 1_000_000)
    outbox.push(b"z")
    outbox.flush_nowait()
    assert sum(link.writes) == 2_000_001
    assert len(link.writes) <= 18
    assert link.writes[-2:] == [1_000_000, 1]


# --- through a connection ---------------------------------------------------------------------------------------


async def test_a_cancelled_emit_has_sent_nothing(autojump_clock: MockClock) -> None:
    async with pyipc.Server(outbox_high_water_size=1_000) as server:
        peer = join(server, buffer_size=100)
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server.connections
        sent = 0
        with trio.move_on_after(5) as scope:
            while True:
                await connection.emit("number", sent)
                sent += 1
        assert scope.cancelled_caught
        assert 10 < sent < 200
        assert connection.statistics().events_sent == sent
        peer.link.send_eof()
        numbers = [data for _, data in await peer.read_all()]
        assert numbers == list(range(sent))


async def test_emit_is_always_a_cancellation_point() -> None:
    with trio.fail_after(5):
        async with pair() as (client, server):
            (connection,) = server.connections
            for emit in (client.emit, connection.emit):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await emit("never")
                assert scope.cancelled_caught
            assert connection.statistics().events_sent == 0
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.emit("never")
        assert scope.cancelled_caught


async def test_emit_gives_way_once_in_a_high_water_mark() -> None:
    with trio.fail_after(5):
        async with pair(server_options={"outbox_high_water_size": 10_000}) as (_, server):
            (connection,) = server.connections
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                await trio.lowlevel.checkpoint()
                turns = 0
                for _ in range(1_000):
                    await connection.emit("x", "y" * 100)
                nursery.cancel_scope.cancel()
            assert turns >= 10


async def test_emit_nowait_raises_above_high_water() -> None:
    with trio.fail_after(5):
        async with pyipc.Server(outbox_high_water_size=1_000, close_timeout=0.0) as server:
            peer = join(server)
            await trio.testing.wait_all_tasks_blocked()
            (connection,) = server.connections
            sent = 0
            with pytest.raises(trio.WouldBlock):
                while True:
                    connection.emit_nowait("number", sent)
                    sent += 1
            assert connection.statistics().events_sent == sent
            assert 10 < sent < 100
            await trio.testing.wait_all_tasks_blocked()
            connection.emit_nowait("number", sent)
            for number in range(sent + 1):
                assert await peer.read() == ("number", number)
            await peer.link.aclose()


async def test_cancelled_senders_tear_no_frame(autojump_clock: MockClock) -> None:
    """Many tasks that are cancelled at random: what arrives is whole, and is what was sent."""
    rng = random.Random(11)
    got: list[int] = []
    sent: set[int] = set()
    router = pyipc.Router()

    @router.on("number")
    def number(message: Message[Any]) -> None:
        got.append(message.data[0])

    async with pair(router, client_options={"outbox_high_water_size": 2_000}, buffer_size=500) as (client, _):

        async def send(first: int) -> None:
            with trio.move_on_after(rng.random() * 0.01):
                for offset in range(50):
                    await client.emit("number", [first + offset, "x" * rng.randrange(200)])
                    sent.add(first + offset)
                    if rng.random() < 0.1:
                        await trio.sleep(rng.random() * 0.002)

        async with trio.open_nursery() as nursery:
            for task in range(100):
                nursery.start_soon(send, task * 1_000)
        await client.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert len(got) == len(sent)
        assert set(got) == sent
        for task in range(100):
            mine = [one for one in got if one // 1_000 == task]
            assert mine == sorted(mine)
    assert 500 < len(sent) < 5_000


async def test_flush_ends_when_the_peer_has_read(autojump_clock: MockClock) -> None:
    async with pyipc.Server(outbox_high_water_size=100_000) as server:
        peer = join(server, buffer_size=100)
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server.connections
        await connection.emit("big", "x" * 5_000)
        with trio.move_on_after(10) as scope:
            await connection.flush()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.flush)
            assert await peer.read() == ("big", "x" * 5_000)
        peer.link.send_eof()
        assert await peer.read_all() == []


async def test_sending_on_a_closed_connection() -> None:
    with trio.fail_after(5):
        async with pair() as (client, server):
            (connection,) = server.connections
            await connection.aclose()
            for error in (pyipc.ConnectionClosed,):
                with pytest.raises(error):
                    await connection.emit("x")
                with pytest.raises(error):
                    connection.emit_nowait("x")
                with pytest.raises(error):
                    await connection.request("x")
                with pytest.raises(error):
                    await connection.flush()
            assert not connection.is_open
            assert connection.reason is not None
            assert connection.reason.code == "closed"
            assert not connection.reason.by_peer
            del client


async def test_a_hello_is_answered_before_anything_else_is_sent() -> None:
    with trio.fail_after(5):
        async with pyipc.Server() as server:
            peer = join(server)
            await peer.send(hello(), frame("x"))
            first = await peer.read()
            assert first is not None
            assert first[0] == "pyipc.welcome"
            assert first[1]["version"] == 1
            await peer.link.aclose()
