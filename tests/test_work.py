"""Speed, guarded by counting work instead of time: scheduler turns, system calls, calls of functions, memory.

Each bound is a little above what was counted when it was written. Work that exceeds one has become dearer, on any
machine and under any load. `docs/explanation/performance.md` says what the figures mean in time.
"""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Unpack

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import pyipc
from pyipc.protocol import codec
from pyipc.transports import Link, Listener, Peer, Transport, memory_link_pair, transport_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from pathlib import Path
    from types import FrameType

    from pyipc import Address
    from pyipc.options import OptionOverrides

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: needs Unix sockets")

PACKAGE = os.path.dirname(pyipc.__file__)
DATA = {"n": 123, "s": "abcdefghijklmnop", "f": 1.25}


class Tally(trio.abc.Instrument):
    """Counts what both ends of a connection in this process do."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.turns = self.steps = self.sends = self.receives = 0

    def per(self, count: int) -> str:
        """The figures for each of so many."""
        return ", ".join(f"{value / count:.3f} {name}" for name, value in vars(self).items())

    def before_io_wait(self, timeout: float) -> None:
        self.turns += 1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1


class CountedLink(Link):
    def __init__(self, link: Link, tally: Tally) -> None:
        self._link = link
        self._tally = tally
        self.can_wake_receiver = link.can_wake_receiver

    @property
    def peer(self) -> Peer:
        return self._link.peer

    def send_nowait(self, data: Any) -> int:
        self._tally.sends += 1
        return self._link.send_nowait(data)

    async def send(self, data: Any) -> None:
        self._tally.sends += 1
        await self._link.send(data)

    async def receive(self) -> bytes:
        self._tally.receives += 1
        return await self._link.receive()

    def wake_receiver(self) -> None:
        self._link.wake_receiver()

    def send_eof(self) -> bool:
        return self._link.send_eof()

    async def aclose(self) -> None:
        await self._link.aclose()


class CountedListener(Listener):
    def __init__(self, listener: Listener, tally: Tally) -> None:
        self._listener = listener
        self._tally = tally

    @property
    def address(self) -> Address:
        return self._listener.address

    async def accept(self) -> Link:
        return CountedLink(await self._listener.accept(), self._tally)

    async def aclose(self) -> None:
        await self._listener.aclose()


class CountedTransport(Transport):
    """The transport for Unix sockets, with a tally of its calls."""

    def __init__(self, tally: Tally) -> None:
        self._transport = transport_for("unix")
        self._tally = tally

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        return CountedLink(await self._transport.connect(address, options), self._tally)

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        return CountedListener(await self._transport.listen(address, options), self._tally)


@pytest.fixture
def tally() -> Iterator[Tally]:
    """A tally for one test, with the garbage collector, whose doings are nobody's work, switched off."""
    gc.collect()
    gc.disable()
    yield Tally()
    gc.enable()


@pytest.fixture
def slow_clock() -> MockClock:
    """A clock by which all of a test takes no time, however busy the machine is; but one that moves."""
    return MockClock(rate=1e-6)


@asynccontextmanager
async def counted_pair(
    tally: Tally, path: Path, **options: Unpack[OptionOverrides]
) -> AsyncIterator[tuple[pyipc.Client, pyipc.Server]]:
    """A client and a server on one Unix socket; the handlers that the tests need are there."""
    endpoint = pyipc.Endpoint(f"unix:{path / 's'}", transport=CountedTransport(tally))
    server = pyipc.Server(endpoint, **options)
    server.on("plain", lambda message: message.data)

    @server.on("async")
    async def answer(message: pyipc.Message[Any]) -> Any:
        return message.data

    server.on("tick", lambda message: None)

    @server.on("echo")
    async def echo(message: pyipc.Message[Any]) -> None:
        await message.connection.emit("echo", message.data)

    server.on("length", lambda message: f"{len(message.data):08}")

    async with server, pyipc.connect(endpoint, **options) as client:
        trio.lowlevel.add_instrument(tally)
        try:
            yield client, server
        finally:
            trio.lowlevel.remove_instrument(tally)


async def calls_in_pyipc(work: Callable[[], Awaitable[object]]) -> int:
    """How often functions of pyipc are called, and resumed, at both ends, while something is awaited."""
    calls = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    sys.setprofile(profile)
    try:
        await work()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("event", ["plain", "async"])
async def test_one_request_after_the_other(event: str, tally: Tally, tmp_path: Path, slow_clock: MockClock) -> None:
    count = 200
    async with counted_pair(tally, tmp_path) as (client, _):

        async def ask() -> None:
            for _ in range(count):
                assert await client.request(event, DATA) == DATA

        await ask()
        tally.clear()
        calls = await calls_in_pyipc(ask)
        print(f"per request: {tally.per(count)}, {calls / count:.1f} calls")
        # The server wakes to answer and the client wakes with the answer: a turn, a step, a read and a write each.
        assert tally.turns <= 2.1 * count
        assert tally.steps <= 2.1 * count
        assert tally.sends == 2 * count
        assert tally.receives <= 2.1 * count
        assert calls <= (39 if event == "async" else 34) * count


async def test_requests_of_many_tasks_share_turns_and_writes(
    tally: Tally, tmp_path: Path, slow_clock: MockClock
) -> None:
    tasks, each = 100, 10
    async with counted_pair(tally, tmp_path) as (client, _):

        async def ask() -> None:
            for _ in range(each):
                await client.request("plain", DATA)

        async def ask_all() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(ask)

        await ask_all()
        tally.clear()
        calls = await calls_in_pyipc(ask_all)
        count = tasks * each
        print(f"per request: {tally.per(count)}, {calls / count:.1f} calls")
        assert tally.turns <= 0.1 * count
        assert tally.steps <= 1.3 * count  # that of the task that asks, and those of the two that read
        assert tally.sends <= 0.2 * count  # 2 KiB each, so that both ends are at work at once
        assert calls <= 34 * count


async def test_events_share_turns_and_writes(tally: Tally, tmp_path: Path, slow_clock: MockClock) -> None:
    count = 10_000
    async with counted_pair(tally, tmp_path) as (client, _):

        async def emit() -> None:
            for _ in range(count):
                await client.emit("tick", DATA)
            await client.request("plain")

        await emit()
        tally.clear()
        calls = await calls_in_pyipc(emit)
        print(f"per event: {tally.per(count)}, {calls / count:.1f} calls")
        # 64 KiB go at a time, which is a thousand of them.
        assert tally.turns <= 0.01 * count
        assert tally.sends <= 0.003 * count
        assert tally.receives <= 0.003 * count
        assert calls <= 5 * count


async def test_events_answered_by_events(tally: Tally, tmp_path: Path, slow_clock: MockClock) -> None:
    count, outstanding = 5_000, 100
    async with counted_pair(tally, tmp_path) as (client, _):
        sent = received = 0
        finished = trio.Event()

        @client.on("echo")
        async def again(message: pyipc.Message[Any]) -> None:
            nonlocal sent, received
            received += 1
            if sent < count:
                sent += 1
                await client.emit("echo", DATA)
            elif received == count:
                finished.set()

        async def start() -> None:
            nonlocal sent
            for _ in range(outstanding):
                sent += 1
                await client.emit("echo", DATA)
            await finished.wait()

        tally.clear()
        calls = await calls_in_pyipc(start)
        print(f"per echo: {tally.per(count)}, {calls / count:.1f} calls")
        assert tally.turns <= 0.1 * count
        assert tally.sends <= 0.1 * count  # 2 KiB each, so that both ends are at work at once
        assert calls <= 17 * count


async def test_a_broadcast_is_encoded_once_and_later_ones_join_its_write(
    tally: Tally, tmp_path: Path, slow_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients, count = 200, 50
    encoded = 0
    encode = codec.encode

    def counting(event: str, data: object) -> bytes:
        nonlocal encoded
        encoded += event == "news"
        return encode(event, data)

    monkeypatch.setattr(codec, "encode", counting)
    async with counted_pair(tally, tmp_path) as (_, server):
        pairs = [memory_link_pair(buffer_size=2**20) for _ in range(clients)]
        for ours, _ in pairs:
            server.adopt(CountedLink(ours, tally))
        await trio.testing.wait_all_tasks_blocked()
        tally.clear()

        async def broadcast() -> None:
            for _ in range(count):
                report = await server.broadcast("news", DATA)
                assert report == pyipc.BroadcastReport(clients + 1, 0)

        calls = await calls_in_pyipc(broadcast)
        await trio.testing.wait_all_tasks_blocked()
        sends = tally.sends
        print(f"per delivery: {tally.per(count * clients)}, {calls / count / clients:.1f} calls")
        for _, theirs in pairs:
            await theirs.aclose()
    assert encoded == count
    assert sends <= 0.5 * count * clients
    assert calls <= 6 * count * clients


async def test_what_waits_to_be_sent_takes_little_memory(tally: Tally, tmp_path: Path) -> None:
    """An event in the outbox is its frame, of 65 bytes, and a place in a queue."""
    count = 500
    async with counted_pair(tally, tmp_path) as (client, _):
        await client.request("plain")
        tracemalloc.start()
        try:
            for _ in range(count):
                client.emit_nowait("tick", DATA)
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        print(f"{size / count:.0f} bytes an event")
        assert size <= 150 * count


async def test_a_large_message_is_copied_a_fixed_number_of_times(tally: Tally, tmp_path: Path) -> None:
    """Both ends are in this process: what was given, its JSON and frame; the pieces, the whole and the text of them."""
    size = 16 * 2**20
    large = 4 * size
    async with counted_pair(tally, tmp_path, max_frame_size=large, max_inbox_size=large, max_outbox_size=large) as (
        client,
        _,
    ):
        text = "x" * size
        tracemalloc.start()
        try:
            assert len(await client.request("length", text)) == 8
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        print(f"{peak / size:.1f} times its size")
        assert peak <= 4.2 * size
