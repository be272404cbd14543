"""Who reads a link: a task that asks one thing after the other reads its own answers, and nothing is lost by that.

Real sockets, and a clock that jumps where nothing is left to do, and otherwise hardly moves.
"""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import pyipc
from pyipc import Message
from pyipc.protocol import framed
from pyipc.reader import REST, SOON
from pyipc.testing import Faults, FaultyTransport
from pyipc.transports import Link, Transport, transport_for
from tests.wire import WirePeer, frame, give_way, stay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from pyipc.transports import Listener, Peer

pytestmark = [
    pytest.mark.time_limit(20),
    pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="cannot run here: needs Unix domain sockets"),
]

#: Requests after which a task surely reads for itself.
ROW = 8


@pytest.fixture
def autojump_clock() -> MockClock:
    """By a clock that stands still nobody ever reads for itself, so this one moves: by a microsecond a second."""
    return MockClock(rate=1e-6, autojump_threshold=0)


class SpyLink(Link):
    """Passes everything on, and notes which task reads."""

    def __init__(self, link: Link, *, can_wake_receiver: bool) -> None:
        self._link = link
        self._reading = False
        self.can_wake_receiver = can_wake_receiver
        self.readers: list[str] = []

    @property
    def peer(self) -> Peer:
        return self._link.peer

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        return self._link.send_nowait(data)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        await self._link.send(data)

    async def receive(self) -> bytes:
        assert not self._reading, "two tasks read one link"
        self._reading = True
        self.readers.append(trio.lowlevel.current_task().name)
        try:
            return await self._link.receive()
        finally:
            self._reading = False

    def wake_receiver(self) -> None:
        assert self.can_wake_receiver
        self._link.wake_receiver()

    def send_eof(self) -> bool:
        return self._link.send_eof()

    async def aclose(self) -> None:
        await self._link.aclose()


class SpyTransport(Transport):
    """The transport of the address, with a spy on every link."""

    def __init__(self, *, can_wake_receiver: bool = True) -> None:
        self._can_wake_receiver = can_wake_receiver
        self.links: list[SpyLink] = []

    async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> Link:
        link = await transport_for(address.scheme).connect(address, options)
        self.links.append(SpyLink(link, can_wake_receiver=self._can_wake_receiver))
        return self.links[-1]

    async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> Listener:
        raise NotImplementedError

    def forget(self) -> None:
        for link in self.links:
            link.readers.clear()

    @property
    def readers(self) -> list[str]:
        """Who read since `forget`: "asker" is the task `main` of a test."""
        return [name for link in self.links for name in link.readers]


def me() -> str:
    return trio.lowlevel.current_task().name


@contextlib.asynccontextmanager
async def served(
    router: pyipc.Router,
    tmp_path: Path,
    *,
    client_router: pyipc.Router | None = None,
    spy: Transport | None = None,
    scheme: str = "unix",
    **options: Any,
) -> AsyncIterator[tuple[pyipc.Client, pyipc.Server, SpyTransport]]:
    """A server and a client of it on a real socket, with a spy in the client."""
    router.on("echo", lambda message: message.data)
    spy = spy or SpyTransport()
    address = f"unix:{tmp_path}/s" if scheme == "unix" else "tcp://127.0.0.1:0"
    async with pyipc.Server(address, router=router) as server:
        endpoint = pyipc.Endpoint(str(server.addresses[0]), transport=spy)
        async with pyipc.connect(endpoint, router=client_router, **options) as client:
            await client.request("echo")  # both have introduced themselves
            yield client, server, spy  # type: ignore[misc]


class Scripted(WirePeer):
    """A server that is nothing but bytes, and answers when it is told to."""

    async def take(self) -> int:
        """The number of the next call."""
        call = (await self.read_until("pyipc.request"))["call"]
        assert isinstance(call, int)
        return call

    async def serve(self, count: int) -> None:
        """Answer so many requests with their numbers."""
        for _ in range(count):
            call = await self.take()
            await self.send(reply(call))


def reply(call: int) -> bytes:
    return frame("pyipc.reply", {"call": call, "data": call})


@contextlib.asynccontextmanager
async def scripted(
    tmp_path: Path, *, scheme: str = "unix", **options: Any
) -> AsyncIterator[tuple[pyipc.Client, Scripted, SpyTransport]]:
    """A client of a scripted server, with a row of requests behind it: the next one reads for itself."""
    spy = SpyTransport()
    address = f"unix:{tmp_path}/s" if scheme == "unix" else "tcp://127.0.0.1:0"
    listener = await transport_for(scheme).listen(pyipc.parse_address(address), {})
    options = {"reconnect": False, "close_timeout": 1.0, **options}
    async with pyipc.connect(pyipc.Endpoint(str(listener.address), transport=spy), **options) as client:
        peer = Scripted(await listener.accept())
        try:
            await peer.read_until("pyipc.hello")
            await peer.send(frame("pyipc.welcome", {"version": 1, "heartbeat": options.get("heartbeat_interval")}))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.serve, ROW)
                await row(client)
            spy.forget()
            yield client, peer, spy
        finally:
            with trio.CancelScope(shield=True):
                await peer.link.aclose()
                await listener.aclose()


async def row(client: pyipc.Client | pyipc.Connection, count: int = ROW) -> None:
    for number in range(count):
        await client.request("echo", number)


def ours(client: pyipc.Client) -> pyipc.ConnectionStatistics:
    statistics = client.statistics().connection
    assert statistics is not None
    return statistics


class Steps(trio.abc.Instrument):
    """Counts how often the scheduler runs a task."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


# --- who reads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["unix", "tcp"])
async def test_who_asks_again_and_again_reads_the_answers(
    scheme: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    steps = Steps()
    counts = []
    async with served(pyipc.Router(), tmp_path, scheme=scheme) as (client, _, spy):
        await trio.sleep(2 * SOON)
        spy.forget()
        trio.lowlevel.add_instrument(steps)
        for number in range(20):
            before = steps.count
            assert await client.request("echo", number) == number
            counts.append(steps.count - before)
        trio.lowlevel.remove_instrument(steps)
        assert me() not in spy.readers[:3]  # for the first one the leader was there before
        assert spy.readers[3:] == [me()] * 16
    # The server's leader and the asker; at first also the client's leader.
    assert counts == [3] * 4 + [2] * 16


async def test_both_sides_read_their_own_answers(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Each side asks in turn; the server's rows are seen by what a request costs."""
    router, steps = pyipc.Router(), Steps()
    async with served(pyipc.Router(), tmp_path, client_router=router) as (_, server, _):
        router.on("echo", lambda message: message.data)
        (connection,) = server.connections
        await row(connection)
        trio.lowlevel.add_instrument(steps)
        await row(connection, 10)
        trio.lowlevel.remove_instrument(steps)
    assert steps.count == 20


async def test_who_asks_now_and_then_does_not_read(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with served(pyipc.Router(), tmp_path) as (client, _, spy):
        spy.forget()
        for _ in range(10):
            await trio.sleep(2 * SOON)
            await client.request("echo")
        assert me() not in spy.readers


async def test_who_asks_at_a_steady_pace_reads(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The rest lasts from one answer to the next, though all of them together are far longer."""
    async with served(pyipc.Router(), tmp_path) as (client, _, spy):
        await row(client)
        spy.forget()
        for _ in range(30):
            await trio.sleep(0.7 * REST)
            await client.request("echo")
        assert spy.readers == [me()] * 30


async def test_the_leader_reads_for_many_who_ask_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with served(pyipc.Router(), tmp_path) as (client, _, spy):
        names = []

        async def ask() -> None:
            names.append(me())
            await row(client, 50)

        await trio.sleep(1)
        spy.forget()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(ask, name=f"asker {number}")
        assert trio.current_time() == pytest.approx(began, abs=REST / 100)
        assert spy.readers
        assert not {*spy.readers} & {*names}


async def test_a_link_that_cannot_wake_its_receiver_is_read_by_the_leader(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with served(pyipc.Router(), tmp_path, spy=SpyTransport(can_wake_receiver=False)) as (client, _, spy):
        await row(client, 20)
        assert me() not in spy.readers


async def test_a_link_that_splits_and_delays(tmp_path: Path, autojump_clock: MockClock) -> None:
    faulty = FaultyTransport(Faults(seed=3, split=3, delay=(0.0, 0.002)), inbound=Faults(seed=4, split=2))
    heard: list[int] = []
    router = pyipc.Router()
    router.on("heard", lambda message: heard.append(message.data))
    async with served(router, tmp_path, spy=faulty) as (client, _, _):
        for number in range(30):
            await client.emit("heard", number)
            assert await client.request("echo", number) == number
    assert heard == list(range(30))


async def test_a_row_goes_on_over_a_new_connection(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with served(pyipc.Router(), tmp_path) as (client, server, spy):
        await row(client)
        (connection,) = server.connections
        await connection.aclose()
        await row(client, 20)
        assert len(spy.links) == 2
        for link in spy.links:
            assert me() in link.readers


# --- what else arrives ------------------------------------------------------------------------------------------


async def test_what_comes_after_a_row_is_read_before_long(tmp_path: Path, autojump_clock: MockClock) -> None:
    heard: list[tuple[int, float]] = []
    began = trio.current_time()
    async with scripted(tmp_path) as (client, peer, spy):
        client.on("tick", lambda message: heard.append((message.data, trio.current_time() - began)))
        began = trio.current_time()
        for number in range(5):
            await peer.send(frame("tick", number))
        await trio.sleep(2 * REST)
        assert [number for number, _ in heard] == [0, 1, 2, 3, 4]
        assert max(when for _, when in heard) <= REST * 1.01
        began = trio.current_time()
        await peer.send(frame("tick", 5))
        await trio.testing.wait_all_tasks_blocked()
        ((number, when),) = heard[5:]
        assert number == 5
        assert when == pytest.approx(0.0, abs=REST / 100)  # the leader is back, and nothing waits any more
        assert me() not in spy.readers


async def test_the_end_after_a_row_is_seen_before_long(tmp_path: Path, autojump_clock: MockClock) -> None:
    ended = trio.Event()
    async with scripted(tmp_path) as (client, peer, _):
        client.on_disconnect(lambda reason: ended.set())
        began = trio.current_time()
        await peer.link.aclose()
        await ended.wait()
        assert trio.current_time() - began <= REST * 1.01


async def test_events_that_share_a_read_with_the_answer(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Those before the answer are handled before whoever asked goes on; all are, in order."""
    log: list[Any] = []
    async with scripted(tmp_path) as (client, peer, spy):
        client.on("tick", lambda message: log.append(message.data))

        async def serve() -> None:
            for number in range(6):
                call = await peer.take()
                await peer.send(frame("tick", f"before {number}"), reply(call), frame("tick", f"after {number}"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            for number in range(6):
                await client.request("echo")
                assert f"before {number}" in log
                await trio.testing.wait_all_tasks_blocked()
        assert spy.readers.count(me()) == 2  # it was of no use, so it is tried only now and then
    assert log == [f"{when} {number}" for number in range(6) for when in ("before", "after")]


@pytest.mark.parametrize("first", ["answer", "event"])
async def test_a_large_event_that_shares_a_read_with_the_answer(
    first: str, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader goes on with it at once, whatever else the asker has read."""
    monkeypatch.setattr(framed, "_LARGE", 2_000)
    log: list[Any] = []
    async with scripted(tmp_path) as (client, peer, spy):
        client.on("large", lambda message: log.append(len(message.data)))

        async def serve() -> None:
            frames = [reply(await peer.take()), frame("large", "x" * 3_000)]
            await peer.send(*(frames if first == "answer" else frames[::-1]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            assert await client.request("echo") == ROW + 1
        assert me() in spy.readers
        await trio.testing.wait_all_tasks_blocked()
        assert log == [3_000]


async def test_an_answer_in_pieces(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted(tmp_path) as (client, peer, spy):

        async def serve() -> None:
            for _ in range(ROW):
                answer = reply(await peer.take())
                for start in range(0, len(answer), 10):
                    await peer.send(answer[start : start + 10])
                    await trio.testing.wait_all_tasks_blocked()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            for number in range(ROW):
                assert await client.request("echo") == ROW + number + 1
        assert me() in spy.readers
        assert ours(client).late_answers == 0


async def test_events_in_turn_with_requests_are_not_kept_waiting(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Ask, wait for an event, ask: the leader must not rest in between, though each request follows soon."""
    async with scripted(tmp_path) as (client, peer, _):
        mark = trio.current_time() + 1
        await trio.sleep_until(mark)

        async def serve() -> None:
            for number in range(20):
                await peer.send(reply(await peer.take()))
                await trio.testing.wait_all_tasks_blocked()
                await peer.send(frame("tick", number))

        ticks = trio.Semaphore(0)
        client.on("tick", lambda message: ticks.release())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            for _ in range(20):
                await client.request("echo")
                await ticks.acquire()
        assert trio.current_time() == pytest.approx(mark, abs=REST / 100)


async def test_who_expects_an_event_after_a_row_does_not_wait_longer(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted(tmp_path) as (client, peer, _):
        began = trio.current_time()
        async with client.expect("sum") as answer:
            await peer.send(frame("sum", 3))
            assert (await answer.get()).data == 3
        assert trio.current_time() == pytest.approx(began, abs=REST / 100)


async def test_a_handler_that_waits_while_an_asker_reads(tmp_path: Path, autojump_clock: MockClock) -> None:
    log: list[Any] = []
    go_on = trio.Event()
    async with scripted(tmp_path) as (client, peer, _):

        @client.on("tick")
        async def tick(message: Message[int]) -> None:
            log.append(("begins", message.data))
            await go_on.wait()
            log.append(("ends", message.data))

        async def serve() -> None:
            await peer.send(frame("tick", 0), reply(await peer.take()))
            await peer.serve(ROW)
            await peer.send(frame("tick", 1), reply(await peer.take()))
            await peer.serve(ROW)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await row(client, 2 * ROW + 2)
            assert log == [("begins", 0)]
            go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert log == [("begins", 0), ("ends", 0), ("begins", 1), ("ends", 1)]


async def test_the_leader_does_not_rest_when_the_next_request_was_faster(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The answer that ends a row of the leader's shares a read with an event whose handler waits.

    Then a new leader and whoever had the answer are woken at once; which of them comes first is the scheduler's
    choice, so it is tried often.
    """
    async with scripted(tmp_path) as (client, peer, _):
        client.on("tick", give_way)

        async def serve() -> None:
            await peer.serve(3)
            await peer.send(reply(await peer.take()), frame("tick"))
            await peer.serve(3)

        for _ in range(10):
            await trio.sleep(1)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                await row(client, 7)
            assert trio.current_time() == pytest.approx(began, abs=REST / 100)


async def test_two_tasks_wait_for_the_peer_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One calls the leader back, the other would read; again in either order."""
    async with scripted(tmp_path) as (client, peer, _):

        async def expect() -> None:
            async with client.expect("sum") as answer:
                assert (await answer.get()).data == 3

        async def serve() -> None:
            await peer.send(reply(await peer.take()), frame("sum", 3))

        for _ in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.serve, ROW)
                await row(client)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect)
                nursery.start_soon(row, client, 1)
                nursery.start_soon(serve)
            assert trio.current_time() == pytest.approx(began, abs=REST / 100)


async def test_a_handler_that_asks_in_a_row(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A handler of an event reads for itself too, and the events behind it keep their order."""
    log: list[Any] = []
    async with scripted(tmp_path) as (client, peer, _spy):

        @client.on("tick")
        async def tick(message: Message[int]) -> None:
            await row(client)
            log.append(message.data)

        await peer.send(frame("tick", 0), frame("tick", 1))
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(REST)
        await peer.serve(2 * ROW)
        await trio.testing.wait_all_tasks_blocked()
        assert log == [0, 1]
        assert ours(client).pending_requests == 0


async def test_the_peer_asks_back_during_a_row(tmp_path: Path, autojump_clock: MockClock) -> None:
    """From within its handler, and by itself afterwards; neither waits for the leader."""
    router, asked = pyipc.Router(), pyipc.Router()
    asked.on("name", lambda message: ["Ada", message.data])

    @router.on("greet")
    async def greet(message: Message[int]) -> Any:
        return await message.connection.request("name", message.data)

    async with served(router, tmp_path, client_router=asked) as (client, server, _):
        await trio.sleep(1)
        began = trio.current_time()
        for number in range(20):
            assert await client.request("greet", number) == ["Ada", number]
        assert trio.current_time() == pytest.approx(began, abs=REST / 100)
        await row(client)
        (connection,) = server.connections
        assert await connection.request("name", "after") == ["Ada", "after"]
        assert trio.current_time() - began <= REST * 1.01


async def test_a_handler_s_own_request_calls_the_leader_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A task with a slot cannot read for itself; while the leader rests, nobody would read its answer."""
    async with scripted(tmp_path) as (client, peer, _):
        gate = trio.Event()

        @client.on("work")
        async def work(message: Message[None]) -> Any:
            await gate.wait()
            return await client.request("echo")

        await trio.sleep(1)  # the leader is back
        await peer.send(frame("pyipc.request", {"call": 1, "event": "work"}))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve, ROW)
            await row(client)
        began = trio.current_time()
        gate.set()
        call = await peer.take()
        await peer.send(reply(call))
        assert await peer.read_until("pyipc.reply") == {"call": 1, "data": call}
        assert trio.current_time() == pytest.approx(began, abs=REST / 100)


async def test_handlers_that_ask_make_no_row(tmp_path: Path, autojump_clock: MockClock) -> None:
    """They do not read, so the leader would rest for nobody, and the peer's next request would wait."""
    async with scripted(tmp_path) as (client, peer, _):

        @client.on("work")
        async def work(message: Message[None]) -> None:
            await row(client)

        await trio.sleep(1)  # the leader is back
        began = trio.current_time()
        for call in range(1, 4):
            await peer.send(frame("pyipc.request", {"call": call, "event": "work"}))
            await peer.serve(ROW)
            assert await peer.read_until("pyipc.reply") == {"call": call, "data": None}
        assert trio.current_time() == pytest.approx(began, abs=REST / 100)


async def test_a_second_asker_is_not_left_alone_by_the_first(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The first reads; the second asked meanwhile, and its answer comes later: the leader must be back by then."""
    async with scripted(tmp_path) as (client, peer, spy):
        began = trio.current_time()
        answers: list[tuple[str, Any]] = []

        async def ask(name: str) -> None:
            answers.append((name, await client.request("echo")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first", name="first")
            first = await peer.take()
            nursery.start_soon(ask, "second", name="second")
            second = await peer.take()
            await peer.send(reply(first))
            await trio.testing.wait_all_tasks_blocked()
            assert answers == [("first", first)]
            await peer.send(reply(second))
        assert answers == [("first", first), ("second", second)]
        assert trio.current_time() == pytest.approx(began, abs=REST / 100)
        assert "first" in spy.readers
        assert "second" not in spy.readers


async def test_the_answer_of_another_asker_comes_first(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted(tmp_path) as (client, peer, _):
        began = trio.current_time()
        answers: list[tuple[str, Any]] = []

        async def ask(name: str) -> None:
            answers.append((name, await client.request("echo")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first")
            first = await peer.take()
            nursery.start_soon(ask, "second")
            second = await peer.take()
            await peer.send(reply(second))
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(reply(first))
        assert answers == [("second", second), ("first", first)]
        assert trio.current_time() == pytest.approx(began, abs=REST / 100)


async def test_slow_answers(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An asker reads for longer than the leader rests at a time, and then the leader still comes back."""
    router, heard = pyipc.Router(), []

    @router.on("slow")
    async def slow(message: Message[float]) -> float:
        await trio.sleep(message.data)
        return message.data

    async with served(router, tmp_path) as (client, server, spy):
        client.on("tick", lambda message: heard.append(message.data))
        await row(client)
        spy.forget()
        began = trio.current_time()
        waits = [0.3 * REST, 0.6 * REST, 0.9 * REST, 5 * REST, 0.2 * REST, 100 * REST]
        for wait in waits:
            assert await client.request("slow", wait) == wait
        assert trio.current_time() - began == pytest.approx(sum(waits))
        assert spy.readers[0] == me()
        assert spy.readers.count(me()) == len(waits)
        await server.broadcast("tick", 1)
        await trio.sleep(2 * REST)
        assert heard == [1]


# --- calls that end in another way ------------------------------------------------------------------------------


async def test_a_time_out_of_who_reads(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted(tmp_path) as (client, peer, spy):
        began = trio.current_time()
        with pytest.raises(pyipc.RequestTimeout):
            await client.request("echo", timeout=2.5)
        assert spy.readers[0] == me()
        assert trio.current_time() - began == pytest.approx(2.5)
        call = await peer.take()
        assert await peer.read_until("pyipc.cancel") == {"call": call}
        await peer.send(reply(call))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve, ROW)
            await row(client)
        assert ours(client).late_answers == 1
        assert ours(client).pending_requests == 0
        assert spy.readers[-1] == me()


async def test_no_time_at_all_for_who_reads(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted(tmp_path) as (client, _peer, spy):
        began = trio.current_time()
        for timeout in (0.0, -1.0):
            with pytest.raises(pyipc.RequestTimeout):
                await client.request("echo", timeout=timeout)
        assert trio.current_time() == pytest.approx(began, abs=REST / 100)
        assert me() in spy.readers


async def test_an_answer_in_the_very_turn_of_the_time_out(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Either may win; the call ends once, and an answer that lost is counted."""
    late = 0
    async with scripted(tmp_path) as (client, peer, _):

        async def answer(when: float) -> None:
            call = await peer.take()
            await trio.sleep_until(when)
            await peer.send(reply(call))

        for _ in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.serve, ROW)
                await row(client)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer, trio.current_time() + 1)
                try:
                    await client.request("echo", timeout=1)
                except pyipc.RequestTimeout:
                    late += 1
        await trio.sleep(1)
        assert ours(client).late_answers == late
        assert ours(client).pending_requests == 0


@pytest.mark.parametrize("delay", [0.1 * REST, 0.5 * REST, 3 * REST])
async def test_who_reads_is_cancelled(delay: float, tmp_path: Path, autojump_clock: MockClock) -> None:
    heard: list[Any] = []
    async with scripted(tmp_path) as (client, peer, spy):
        client.on("tick", lambda message: heard.append(message.data))
        with trio.move_on_after(delay) as scope:
            await client.request("echo")
        assert scope.cancelled_caught
        assert spy.readers[0] == me()
        await peer.send(frame("tick", 1))
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [1]  # the leader reads again, at once
        call = await peer.take()
        assert await peer.read_until("pyipc.cancel") == {"call": call}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve, ROW)
            await row(client)
        assert spy.readers[-1] == me()


async def test_cancelled_before_it_begins_nothing_is_asked(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted(tmp_path) as (client, peer, spy):
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.request("echo")
        assert scope.cancelled_caught
        assert me() not in spy.readers
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve, 1)
            assert await client.request("echo") == ROW + 1  # no number was used in vain


# --- the end of the connection ----------------------------------------------------------------------------------


async def _close(peer: Scripted) -> None:
    await peer.link.aclose()


async def _half_close(peer: Scripted) -> None:
    peer.link.send_eof()


async def _say_goodbye(peer: Scripted) -> None:
    await peer.send(frame("pyipc.goodbye", {"code": "closed", "message": "enough"}))


async def _talk_nonsense(peer: Scripted) -> None:
    await peer.send(b'{"type":\f')


async def _answer_what_was_not_asked(peer: Scripted) -> None:
    await peer.send(reply(10_000))


async def _send_half_an_answer_and_close(peer: Scripted) -> None:
    await peer.send(reply(ROW + 1)[:-5])
    await peer.link.aclose()


async def _reset(peer: Scripted) -> None:
    sock = peer.link._socket  # type: ignore[attr-defined]
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await peer.link.aclose()


@pytest.mark.parametrize("wait", [0.0, 3 * REST])
@pytest.mark.parametrize(
    ("scheme", "end", "code"),
    [
        ("unix", _close, "eof"),
        ("unix", _half_close, "eof"),
        ("tcp", _reset, "lost"),
        ("unix", _say_goodbye, "goodbye"),
        ("unix", _talk_nonsense, "json"),
        ("unix", _answer_what_was_not_asked, "control"),
        ("unix", _send_half_an_answer_and_close, "eof"),
    ],
)
async def test_the_connection_ends_while_an_asker_reads(
    scheme: str, end: Any, code: str, wait: float, tmp_path: Path, autojump_clock: MockClock
) -> None:
    reasons: list[pyipc.Disconnected] = []
    async with scripted(tmp_path, scheme=scheme) as (client, peer, spy):
        client.on_disconnect(reasons.append)

        async def end_soon() -> None:
            await peer.take()
            await trio.sleep(wait)
            await end(peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_soon)
            with pytest.raises(pyipc.ConnectionLost) as lost:
                await client.request("echo", timeout=None)
        assert lost.value.maybe_handled
        assert spy.readers[0] == me()
        await peer.link.aclose()
        with pytest.raises(pyipc.ConnectionLost):
            await client.request("echo")
        await trio.testing.wait_all_tasks_blocked()
    assert [reason.code for reason in reasons] == [code]


async def test_the_peer_is_killed_while_an_asker_reads(tmp_path: Path) -> None:
    script = """
import json, os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
peer, _ = listener.accept()
data = b""
while True:
    data += peer.recv(65536)
    while b"\\f" in data:
        text, _, data = data.partition(b"\\f")
        frame = json.loads(text)
        if frame["type"] == "pyipc.request" and frame["data"]["event"] == "echo":
            answer = {"type": "pyipc.reply", "data": {"call": frame["data"]["call"], "data": None}}
            peer.sendall(json.dumps(answer).encode() + b"\\f")
        elif frame["type"] == "pyipc.request":
            print("asked", flush=True)
"""
    path = str(tmp_path / "s")
    with subprocess.Popen(  # noqa: ASYNC220 - a moment
        [sys.executable, "-c", script, path], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            async with pyipc.connect(f"unix:{path}", reconnect=False) as client:
                await row(client, 50)

                async def kill() -> None:
                    assert process.stdout is not None
                    await trio.to_thread.run_sync(process.stdout.readline)
                    process.send_signal(signal.SIGKILL)

                with trio.fail_after(30):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(kill)
                        with pytest.raises(pyipc.ConnectionLost):
                            await client.request("stay", timeout=None)
        finally:
            process.kill()


@pytest.mark.parametrize("who", ["client", "server"])
async def test_it_is_closed_by_another_task_while_an_asker_reads(
    who: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    router = pyipc.Router()
    router.on("stay", stay)
    async with served(router, tmp_path, reconnect=False) as (client, server, spy):
        await row(client)
        began = trio.current_time()

        async def close() -> None:
            await trio.sleep(10 * REST)
            await (client if who == "client" else server).aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            with pytest.raises(pyipc.ConnectionClosed if who == "client" else pyipc.ConnectionLost):
                await client.request("stay", timeout=None)
        assert trio.current_time() - began < 1  # nobody waited for close_timeout
        assert spy.readers[-2] == me()


async def test_closing_right_after_a_row(tmp_path: Path, autojump_clock: MockClock) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with served(pyipc.Router(), tmp_path) as (client, _, _):
        await row(client)
        began = trio.current_time()
    assert trio.current_time() == pytest.approx(began, abs=REST / 100)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_a_cancelled_program_ends_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    router = pyipc.Router()
    router.on("stay", stay)
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.move_on_after(1) as scope:
        async with served(router, tmp_path) as (client, _, _):
            await row(client)
            await client.request("stay", timeout=None)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(1, abs=REST / 100)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


# --- heartbeats -------------------------------------------------------------------------------------------------


async def test_heartbeats_go_on_while_an_asker_reads(tmp_path: Path, autojump_clock: MockClock) -> None:
    router = pyipc.Router()

    @router.on("slow")
    async def slow(message: Message[None]) -> str:
        await trio.sleep(60)
        return "at last"

    async with served(router, tmp_path, heartbeat_interval=1.0, request_timeout=None) as (client, server, spy):
        await row(client)
        spy.forget()
        assert await client.request("slow") == "at last"
        assert spy.readers[0] == me()
        assert client.statistics().connects == 1
        (connection,) = server.connections
        assert connection.reason is None


async def test_a_silent_peer_is_given_up_while_an_asker_reads(tmp_path: Path, autojump_clock: MockClock) -> None:
    reasons: list[pyipc.Disconnected] = []
    async with scripted(tmp_path, heartbeat_interval=1.0, request_timeout=None) as (client, _, spy):
        client.on_disconnect(reasons.append)
        began = trio.current_time()
        with pytest.raises(pyipc.ConnectionLost):
            await client.request("echo")
        assert trio.current_time() - began == pytest.approx(3.0, abs=0.1)
        assert spy.readers[0] == me()
    assert [reason.code for reason in reasons] == ["silent"]


# --- all of it at once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_anything_at_any_moment(
    seed: int, tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows of requests of several tasks both ways, time-outs, cancellations, events both ways.

    Nothing is lost, nothing comes twice, order holds, every answer goes to whoever asked, and nobody is left over.
    """
    rng = random.Random(seed)
    tasks = trio.lowlevel.current_statistics().tasks_living
    moments = (0.0, 0.0, 0.0, 0.3 * REST, 0.7 * REST, 2 * REST)
    sent: dict[str, list[int]] = {"up": [], "down": []}
    heard: dict[str, list[int]] = {"up": [], "down": []}
    outcomes = {"answered": 0, "cancelled": 0, "timed out": 0, "wrong": 0}
    router, client_router = pyipc.Router(), pyipc.Router()

    def prepare(router: pyipc.Router, inward: str, outward: str) -> None:
        def tell(connection: Any) -> None:
            sent[outward].append(len(sent[outward]))
            connection.emit_nowait(outward, sent[outward][-1])

        @router.on(inward)
        def hear(message: Message[int]) -> Any:
            heard[inward].append(message.data)
            return trio.sleep(rng.choice(moments)) if rng.random() < 0.3 else None

        @router.on("plain")
        def plain(message: Message[Any]) -> Any:
            if rng.random() < 0.2:
                tell(message.connection)
            return message.data

        @router.on("waits")
        async def waits(message: Message[Any]) -> Any:
            await trio.sleep(rng.choice(moments))
            if rng.random() < 0.2:
                tell(message.connection)
            return message.data

        @router.on("asks back")
        async def asks_back(message: Message[Any]) -> Any:
            return await message.connection.request("plain", message.data)

    prepare(router, "up", "down")
    prepare(client_router, "down", "up")

    async def ask(side: Any, name: str, count: int) -> None:
        for number in range(count):
            token = [name, number]
            if rng.random() < 0.1:
                await trio.sleep(rng.choice(moments))
            event = rng.choice(("plain", "plain", "plain", "plain", "waits", "asks back"))
            with trio.CancelScope() as scope:
                if rng.random() < 0.15:
                    scope.deadline = trio.current_time() + rng.choice(moments)
                timeout = rng.choice(moments) if rng.random() < 0.15 else None
                try:
                    answer = await side.request(event, token, timeout=timeout)
                except pyipc.RequestTimeout:
                    outcomes["timed out"] += 1
                else:
                    outcomes["answered" if answer == token else "wrong"] += 1
            outcomes["cancelled"] += scope.cancelled_caught

    async def chat(side: Any, outward: str, count: int) -> None:
        for _ in range(count):
            await trio.sleep(rng.choice(moments) * 10)
            sent[outward].append(len(sent[outward]))
            await side.emit(outward, sent[outward][-1])

    async with served(router, tmp_path, client_router=client_router) as (client, server, spy):
        (connection,) = server.connections
        for askers in (1, 2, 1, 3, 1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chat, client, "up", 10)
                nursery.start_soon(chat, connection, "down", 10)
                for number in range(askers):
                    nursery.start_soon(ask, client, f"up {number}", 40, name="asker")
                if rng.random() < 0.5:
                    nursery.start_soon(ask, connection, "down", 40)
        await trio.sleep(1)
        assert "asker" in spy.readers
        assert outcomes["wrong"] == 0
        assert outcomes["answered"] > 150
        assert outcomes["cancelled"] > 10
        assert outcomes["timed out"] > 10
        assert heard == sent
        mine, theirs = ours(client), connection.statistics()
        for one in (mine, theirs):
            assert (one.pending_requests, one.concurrent_requests, one.inbox_size, one.outbox_size) == (0, 0, 0, 0)
            assert one.handler_errors == one.malformed == one.dropped == one.unheard == 0
        assert mine.bytes_sent == theirs.bytes_received
        assert mine.bytes_received == theirs.bytes_sent
        assert mine.late_answers + theirs.late_answers <= outcomes["cancelled"] + outcomes["timed out"]
        assert client.statistics().connects == 1
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert not caplog.records
