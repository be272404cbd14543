"""What arrives comes to its handlers: in order, without waiting for user code, without deadlock, in bounded memory."""

from __future__ import annotations

import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Message
from pyipc.testing import pair
from tests.wire import WirePeer, frame, give_way, hello, join, request, stay

if TYPE_CHECKING:
    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(30)

KIB = 1024


@pytest.fixture
def router() -> pyipc.Router:
    return pyipc.Router()


async def introduced(server: pyipc.Server, **options: Any) -> WirePeer:
    peer = join(server, **options)
    await peer.send(hello())
    await peer.read_until("pyipc.welcome")
    return peer


async def leave(peer: WirePeer) -> list[tuple[str, Any]]:
    """Close as a peer does that has nothing more to say, and give what was still to be read."""
    peer.link.send_eof()
    return await peer.read_all()


def the_connection(server: pyipc.Server) -> pyipc.Connection:
    (connection,) = server.connections
    return connection


# --- order ------------------------------------------------------------------------------------------------------


async def test_events_stay_in_order_when_handlers_wait(router: pyipc.Router, autojump_clock: MockClock) -> None:
    rng = random.Random(2)
    got: list[int] = []
    at_work = 0

    @router.on("number")
    async def number(message: Message[int]) -> None:
        nonlocal at_work
        at_work += 1
        assert at_work == 1
        how = rng.random()
        if how < 0.3:
            await trio.sleep(rng.random())
        elif how < 0.6:
            await trio.lowlevel.checkpoint()
        got.append(message.data)
        at_work -= 1

    async with pair(router) as (client, _):
        for n in range(500):
            await client.emit("number", n)
            if rng.random() < 0.05:
                await trio.sleep(rng.random())
        await trio.sleep(1_000)
    assert got == list(range(500))


async def test_an_event_runs_its_handlers_one_after_the_other(router: pyipc.Router, autojump_clock: MockClock) -> None:
    order: list[str] = []

    @router.on("a.*")
    async def first(message: Message[Any]) -> None:
        await trio.sleep(1)
        order.append(f"first {message.data}")

    @router.on("a.b")
    def second(message: Message[Any]) -> None:
        order.append(f"second {message.data}")

    @router.on("**")
    async def third(message: Message[Any]) -> None:
        await trio.lowlevel.checkpoint()
        order.append(f"third {message.data}")

    async with pair(router) as (client, _):
        await client.emit("a.b", 1)
        await client.emit("a.b", 2)
        await trio.sleep(10)
    assert order == ["first 1", "second 1", "third 1", "first 2", "second 2", "third 2"]


async def test_requests_run_beside_events(router: pyipc.Router) -> None:
    release = trio.Event()
    router.on("stay", lambda message: release.wait())
    router.on("plain", lambda message: message.data)

    @router.on("wait")
    async def wait(message: Message[Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return message.data

    with trio.fail_after(5):
        async with pair(router) as (client, server):
            await client.emit("stay")
            await client.emit("stay")
            assert await client.request("plain", 1) == 1
            assert await client.request("wait", 2) == 2
            assert the_connection(server).statistics().inbox_size > 0
            release.set()
            await trio.testing.wait_all_tasks_blocked()
            assert the_connection(server).statistics().inbox_size == 0


async def test_a_request_after_an_event_sees_what_a_plain_handler_did(router: pyipc.Router) -> None:
    seen: list[int] = []
    router.on("add", lambda message: seen.append(message.data))
    router.on("count", lambda message: len(seen))
    with trio.fail_after(5):
        async with pair(router) as (client, _):
            for n in range(100):
                await client.emit("add", n)
                assert await client.request("count") == n + 1


async def test_requests_are_limited_and_answered_as_they_finish(
    router: pyipc.Router, autojump_clock: MockClock
) -> None:
    running = most = 0

    @router.on("sleep")
    async def sleep(message: Message[float]) -> float:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(message.data)
        running -= 1
        return message.data

    finished: list[float] = []
    async with pair(router, server_options={"max_concurrent_requests": 3}) as (client, _):

        async def ask(seconds: float) -> None:
            finished.append(await client.request("sleep", seconds, timeout=None))

        async with trio.open_nursery() as nursery:
            for seconds in (3.0, 1.0, 2.0):
                nursery.start_soon(ask, seconds)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(20):
                nursery.start_soon(ask, 5.0)
    assert most == 3
    assert finished[:3] == [1.0, 2.0, 3.0]


# --- nothing waits for what waits for it ------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3])
async def test_calls_nested_100_deep_finish(router: pyipc.Router, slots: int, autojump_clock: MockClock) -> None:
    """Each handler asks back over its own connection before it answers."""

    async def nest(message: Message[int]) -> int:
        if message.data == 0:
            return 0
        depth: int = await message.connection.request("nest", message.data - 1)
        return depth + 1

    router.on("nest", nest)
    client_router = pyipc.Router()
    client_router.on("nest", nest)
    options = {"max_concurrent_requests": slots}
    with trio.fail_after(20):
        async with pair(router, client_router=client_router, server_options=options, client_options=options) as (
            client,
            server,
        ):
            assert await client.request("nest", 100) == 100
            assert await the_connection(server).request("nest", 100) == 100
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(client.request, "nest", 30)
                    nursery.start_soon(the_connection(server).request, "nest", 30)
            await trio.testing.wait_all_tasks_blocked()
            assert the_connection(server).statistics().concurrent_requests == 0


async def test_a_handler_may_ask_in_several_tasks_at_once(router: pyipc.Router) -> None:
    """One slot is given up for as long as any of them waits."""

    @router.on("fan out")
    async def fan_out(message: Message[int]) -> int:
        total = 0

        async def ask(connection: pyipc.Connection, depth: int) -> None:
            nonlocal total
            answer = await connection.request("fan out", depth)
            total += answer

        if message.data == 0:
            return 1
        async with trio.open_nursery() as nursery:
            for depth in range(message.data):
                nursery.start_soon(ask, message.connection, depth)
        return total + 1

    options = {"max_concurrent_requests": 1}
    with trio.fail_after(10):
        async with pair(router, client_router=router, server_options=options, client_options=options) as (
            client,
            server,
        ):
            assert await client.request("fan out", 5) == 32
            await trio.testing.wait_all_tasks_blocked()
            assert the_connection(server).statistics().concurrent_requests == 0


async def test_slot_of_another_handler_is_not_given_up(router: pyipc.Router) -> None:
    """The task that takes over the lead is started by a handler that waits; it must not run in that one's slot."""
    first_may_end, client_router = trio.Event(), pyipc.Router()
    answer = trio.Event()

    @router.on("first")
    async def first(message: Message[Any]) -> str:
        await first_may_end.wait()
        return "first"

    @router.on("event")
    async def event(message: Message[Any]) -> None:
        await message.connection.request("answer later")

    router.on("plain", give_way)

    @client_router.on("answer later")
    async def answer_later(message: Message[Any]) -> None:
        await answer.wait()

    with trio.fail_after(5):
        async with pair(router, client_router=client_router, server_options={"max_concurrent_requests": 1}) as (
            client,
            server,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.request, "first")
                await trio.testing.wait_all_tasks_blocked()
                await client.emit("event")
                await trio.testing.wait_all_tasks_blocked()
                assert the_connection(server).statistics().concurrent_requests == 1
                first_may_end.set()
                await trio.testing.wait_all_tasks_blocked()
                answer.set()
            await trio.testing.wait_all_tasks_blocked()
            assert the_connection(server).statistics().concurrent_requests == 0
            await client.request("plain")


async def test_slot_of_a_handler_that_has_ended_stays_free(router: pyipc.Router) -> None:
    """A task that outlives its handler waits on; when its wait ends the slot must not be taken again."""
    client_router, answer = pyipc.Router(), trio.Event()

    @client_router.on("answer later")
    async def answer_later(message: Message[Any]) -> None:
        await answer.wait()

    with trio.fail_after(5):
        async with trio.open_nursery() as outside:

            @router.on("leave a task behind")
            async def leave_a_task_behind(message: Message[Any]) -> None:
                outside.start_soon(message.connection.request, "answer later")
                await trio.testing.wait_all_tasks_blocked()

            async with pair(router, client_router=client_router, server_options={"max_concurrent_requests": 1}) as (
                client,
                server,
            ):
                await client.request("leave a task behind")
                assert the_connection(server).statistics().concurrent_requests == 0
                answer.set()
                await trio.testing.wait_all_tasks_blocked()
                assert the_connection(server).statistics().concurrent_requests == 0
                await client.request("leave a task behind")


async def test_a_cancelled_task_never_leads(router: pyipc.Router) -> None:
    """A handler that outlives its cancellation ends just when the lead is free: somebody else must take it."""
    finish = [trio.Event()]

    @router.on("stubborn")
    async def stubborn(message: Message[Any]) -> None:
        with trio.CancelScope(shield=True):
            await finish[0].wait()

    @router.on("release")
    async def release(message: Message[Any]) -> None:
        finish[0].set()
        await trio.lowlevel.checkpoint()

    router.on("plain", lambda message: message.data)
    with trio.fail_after(10):
        async with pyipc.Server(router=router) as server:
            peer = await introduced(server)
            for call in range(1, 60, 2):  # which of two tasks runs first is up to chance
                finish[0] = trio.Event()
                await peer.send(request(call, "stubborn"))
                await trio.testing.wait_all_tasks_blocked()
                await peer.send(frame("pyipc.cancel", {"call": call}) + frame("release"))
                await trio.testing.wait_all_tasks_blocked()
                await peer.send(request(call + 1, "plain", call))
                while (await peer.read_until("pyipc.reply"))["call"] != call + 1:
                    pass
            await leave(peer)


async def test_an_event_handler_may_ask_while_the_inbox_is_full(router: pyipc.Router) -> None:
    """Reading goes on while a handler waits for the peer, though more waits than the high-water mark."""
    client_router = pyipc.Router()
    asked = handled = 0
    all_handled = trio.Event()

    @router.on("event")
    async def event(message: Message[Any]) -> None:
        nonlocal asked, handled
        handled += 1
        if message.data[0] == 0:
            await trio.sleep(0.01)  # so that much more arrives
            asked = await message.connection.request("what")
        if handled == 2_000:
            all_handled.set()

    client_router.on("what", lambda message: 7)
    options = {"inbox_high_water_size": KIB, "max_inbox_size": 8 * KIB * KIB}
    with trio.fail_after(10):
        async with pair(router, client_router=client_router, server_options=options) as (client, server):
            for n in range(2_000):
                await client.emit("event", [n, "x" * 100])
            await all_handled.wait()
            assert asked == 7
            assert the_connection(server).statistics().inbox_size == 0


async def test_an_echo_storm_does_not_lock_up(router: pyipc.Router) -> None:
    """Handlers of both sides wait for room to send, and nobody would ever read if that stopped reading."""
    got = {"server": 0, "client": 0}
    done = trio.Event()

    def echo(side: str) -> Any:
        async def handle(message: Message[Any]) -> None:
            left, text = message.data
            got[side] += 1
            if sum(got.values()) == 4_000:
                done.set()
            if left:
                await message.connection.emit("echo", [left - 1, text])

        return handle

    client_router = pyipc.Router()
    router.on("echo", echo("server"))
    client_router.on("echo", echo("client"))
    options = {"outbox_high_water_size": KIB, "inbox_high_water_size": KIB}
    with trio.fail_after(20):
        async with pair(
            router, client_router=client_router, server_options=options, client_options=options, buffer_size=500
        ) as (client, server):

            async def flood(emit: Any) -> None:
                for _ in range(500):
                    await emit("echo", [3, "x" * 100])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood, client.emit)
                nursery.start_soon(flood, the_connection(server).emit)
            await done.wait()
    assert got == {"server": 2_000, "client": 2_000}


# --- back-pressure and bounds -----------------------------------------------------------------------------------


async def test_reading_pauses_when_handlers_are_slow_and_resumes(router: pyipc.Router) -> None:
    release, got = trio.Event(), []

    @router.on("number")
    async def number(message: Message[Any]) -> None:
        await release.wait()
        got.append(message.data[0])

    with trio.fail_after(10):
        async with pair(
            router,
            server_options={"inbox_high_water_size": 20 * KIB},
            client_options={"outbox_high_water_size": 10 * KIB},
        ) as (client, server):
            sent = 0

            async def send() -> None:
                nonlocal sent
                for sent in range(5_000):
                    await client.emit("number", [sent, "x" * 100])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                await trio.testing.wait_all_tasks_blocked()
                statistics = the_connection(server).statistics()
                assert statistics.reading_paused
                # One chunk of 64 KiB may come on top, and each event in it counts 256 bytes more.
                assert statistics.inbox_size < 20 * KIB + 64 * KIB * 4
                assert sent < 2_500
                release.set()
            while len(got) < 5_000:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            assert not the_connection(server).statistics().reading_paused
    assert got == list(range(5_000))


async def test_with_a_wait_pending_the_hard_cap_closes_with_the_reason(
    router: pyipc.Router, autojump_clock: MockClock
) -> None:
    @router.on("event")
    async def event(message: Message[Any]) -> None:
        if message.connection.is_open:
            with pytest.raises(pyipc.ConnectionLost):
                await message.connection.request("never answered", timeout=None)

    ended: list[pyipc.Disconnected] = []
    async with pyipc.Server(router=router, inbox_high_water_size=10 * KIB, max_inbox_size=100 * KIB) as server:
        server.on_disconnect(ended.append)
        peer = await introduced(server)
        await peer.send(frame("event"))
        await peer.read_until("pyipc.request")
        connection = the_connection(server)
        sent = 0
        while connection.is_open and sent < 1_000:
            await peer.send(frame("event", "x" * KIB))
            sent += 1
        assert 70 < sent < 200
        goodbye = await peer.read_until("pyipc.goodbye")
        assert goodbye["code"] == "slow"
        await peer.link.aclose()
        await trio.sleep(60)
        (reason,) = ended
        assert reason.code == "slow"
        assert not reason.by_peer


@pytest.mark.parametrize("cut", [None, 1])
async def test_memory_of_the_inbox_is_bounded_in_bytes_that_arrived(router: pyipc.Router, cut: int | None) -> None:
    """Also where the last byte of each large frame comes alone."""
    router.on("big", stay)
    with trio.fail_after(20):
        async with pyipc.Server(router=router, inbox_high_water_size=300 * KIB, close_timeout=0.1) as server:
            peer = await introduced(server)
            big = frame("big", "x" * 100 * KIB)
            sent = 0
            with trio.move_on_after(1) as scope:
                while sent < 100:
                    if cut:
                        await peer.send(big[:-cut])
                        await trio.testing.wait_all_tasks_blocked()
                        await peer.send(big[-cut:])
                    else:
                        await peer.send(big)
                    sent += 1
                    await trio.testing.wait_all_tasks_blocked()
            assert scope.cancelled_caught
            assert sent <= 6
            statistics = the_connection(server).statistics()
            assert statistics.reading_paused
            assert 300 * KIB <= statistics.inbox_size <= 420 * KIB
            await peer.link.aclose()


async def test_a_flood_of_tiny_events_weighs_something(router: pyipc.Router, autojump_clock: MockClock) -> None:
    """Thirteen bytes on the wire are a few hundred in memory."""
    router.on("a", stay)
    async with pyipc.Server(router=router, inbox_high_water_size=KIB * KIB) as server:
        peer = await introduced(server)
        flood = b'{"type":"a"}\f' * 1_000
        sent = 0
        with trio.move_on_after(5) as scope:
            while sent < 1_000:
                await peer.send(flood)
                sent += 1
        assert scope.cancelled_caught
        assert sent < 20
        assert the_connection(server).statistics().inbox_size > KIB * KIB
        await peer.link.aclose()


async def test_queued_requests_are_bounded_too(router: pyipc.Router, autojump_clock: MockClock) -> None:
    router.on("never", stay)
    async with pyipc.Server(router=router, inbox_high_water_size=50 * KIB, max_concurrent_requests=2) as server:
        peer = await introduced(server)
        with trio.move_on_after(5) as scope:
            for call in range(1, 10_000):
                await peer.send(request(call, "never", "x" * KIB))
        assert scope.cancelled_caught
        statistics = the_connection(server).statistics()
        assert statistics.reading_paused
        assert statistics.concurrent_requests == 2
        assert statistics.inbox_size < 150 * KIB
        await peer.link.aclose()


async def test_a_peer_that_asks_and_never_reads_is_closed(router: pyipc.Router, autojump_clock: MockClock) -> None:
    router.on("big", lambda message: "x" * 10 * KIB)
    ended: list[pyipc.Disconnected] = []
    async with pyipc.Server(router=router, max_outbox_size=100 * KIB) as server:
        server.on_disconnect(ended.append)
        peer = await introduced(server)
        connection = the_connection(server)
        call = 0
        while connection.is_open:
            call += 1
            await peer.send(request(call, "big"))
        assert connection.statistics().outbox_size <= 100 * KIB
        await trio.sleep(60)
        with pytest.raises(pyipc.ConnectionLost):
            await peer.send(request(call + 1, "big"))
        assert [reason.code for reason in ended] == ["slow"]


async def test_abort_while_reading_is_paused_ends_the_connection(
    router: pyipc.Router, autojump_clock: MockClock
) -> None:
    """A stuck handler and a peer that is given up: the link must not stay open."""
    release = trio.Event()
    router.on("stuck", lambda message: release.wait())
    async with pyipc.Server(
        router=router, inbox_high_water_size=KIB, outbox_high_water_size=KIB, max_outbox_size=2 * KIB
    ) as server:
        peer = await introduced(server, buffer_size=100)
        with trio.move_on_after(1):
            while True:
                await peer.send(frame("stuck", "x" * 100))
        assert the_connection(server).statistics().reading_paused
        for _ in range(30):
            await server.broadcast("news", "x" * 100)
        await trio.sleep(30)
        with pytest.raises(pyipc.ConnectionLost):
            await peer.send(b"x" * 10_000)
        assert not the_connection(server).is_open
        release.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not server.connections


# --- the end ----------------------------------------------------------------------------------------------------


async def test_what_arrived_before_the_end_of_the_stream_is_all_handled(
    router: pyipc.Router, autojump_clock: MockClock
) -> None:
    got: list[int] = []

    @router.on("number")
    async def number(message: Message[int]) -> None:
        await trio.sleep(1)
        got.append(message.data)

    ended: list[pyipc.Disconnected] = []
    async with pyipc.Server(router=router) as server:
        server.on_disconnect(ended.append)
        peer = join(server)
        await peer.send(*(frame("number", n) for n in range(50)))
        await peer.link.aclose()
        await trio.sleep(100)
        assert got == list(range(50))
        assert [reason.code for reason in ended] == ["eof"]
        assert not server.connections


async def test_requests_that_arrived_before_half_a_close_are_answered(
    router: pyipc.Router, autojump_clock: MockClock
) -> None:
    @router.on("double")
    async def double(message: Message[int]) -> int:
        await trio.sleep(1)
        return 2 * message.data

    async with pyipc.Server(router=router, max_concurrent_requests=2) as server:
        peer = await introduced(server)
        await peer.send(*(request(n, "double", n) for n in range(1, 7)))
        replies = [data for name, data in await leave(peer) if name == "pyipc.reply"]
        assert {reply["call"]: reply["data"] for reply in replies} == {n: 2 * n for n in range(1, 7)}


async def test_close_delivers_everything_that_was_queued(router: pyipc.Router) -> None:
    got: list[int] = []
    router.on("number", lambda message: got.append(message.data[0]))
    with trio.fail_after(20):
        async with pair(router) as (client, _):
            for n in range(3_000):
                await client.emit("number", [n, "x" * KIB])
            await client.aclose()
            assert not client.connected
    assert got == list(range(3_000))


async def test_a_server_that_closes_delivers_what_it_queued() -> None:
    got: list[int] = []
    client_router = pyipc.Router()
    client_router.on("number", lambda message: got.append(message.data[0]))
    with trio.fail_after(20):
        async with pair(client_router=client_router, server_options={"max_outbox_size": 4 * KIB * KIB}) as (_, server):
            for n in range(3_000):
                await server.broadcast("number", [n, "x" * KIB])
            await server.aclose()
            assert got == list(range(3_000))


async def test_what_could_not_be_delivered_is_counted(autojump_clock: MockClock) -> None:
    async with pyipc.Server(outbox_high_water_size=KIB * KIB, close_timeout=3) as server:
        peer = join(server, buffer_size=100)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(10):
            await the_connection(server).emit("news", "x" * 200)
        began = trio.current_time()
        with pytest.raises(pyipc.Undelivered) as caught:
            await the_connection(server).aclose()
        assert trio.current_time() - began == pytest.approx(3)
        assert caught.value.count == 10
        await peer.link.aclose()


async def test_close_while_the_peer_sends(router: pyipc.Router) -> None:
    """What we sent arrives, though the peer is in the middle of sending 10 MiB."""
    router.on("flood", lambda message: None)
    frames: list[tuple[str, Any]] = []
    with trio.fail_after(20):
        async with pyipc.Server(router=router) as server:
            peer = await introduced(server)

            async def flood() -> None:
                block = frame("flood", "x" * 10 * KIB)
                for _ in range(1_024):
                    await peer.link.send(block)
                peer.link.send_eof()

            async def read() -> None:
                frames.extend(await peer.read_all())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood)
                nursery.start_soon(read)
                await trio.sleep(0.01)
                for n in range(100):
                    await the_connection(server).emit("last words", n)
                await the_connection(server).aclose()
            await peer.link.aclose()
    assert [data for name, data in frames if name == "last words"] == list(range(100))
    assert frames[-1][0] == "pyipc.goodbye"


async def test_closing_twice_and_at_the_same_time() -> None:
    with trio.fail_after(5):
        async with pair() as (client, server):
            connection = the_connection(server)
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(connection.aclose)
                    nursery.start_soon(connection.wait_closed)
            await connection.aclose()
            await client.aclose()
            await client.aclose()


async def test_a_handler_may_close_its_own_connection(router: pyipc.Router, autojump_clock: MockClock) -> None:
    router.on("go away", lambda message: message.connection.aclose())
    async with pyipc.Server(router=router) as server:
        peer = await introduced(server)
        await peer.send(frame("go away"))
        assert (await peer.read_until("pyipc.goodbye"))["code"] == "closed"
        await peer.link.aclose()
        await trio.sleep(10)
        assert not server.connections


async def test_cancelled_close_is_at_once(autojump_clock: MockClock) -> None:
    async with pyipc.Server(outbox_high_water_size=KIB * KIB) as server:
        peer = join(server, buffer_size=100)
        await trio.testing.wait_all_tasks_blocked()
        connection = the_connection(server)
        await connection.emit("news", "x" * 1_000)
        began = trio.current_time()
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.aclose()
        assert scope.cancelled_caught
        await connection.wait_closed()
        assert trio.current_time() == began
        with pytest.raises(pyipc.ConnectionLost):
            await peer.link.send(b"x")


# --- handlers that fail -----------------------------------------------------------------------------------------


async def test_a_handler_that_fails_hurts_nobody_else(router: pyipc.Router, caplog: pytest.LogCaptureFixture) -> None:
    got: list[Any] = []

    @router.on("fails")
    def fails(message: Message[Any]) -> None:
        raise ValueError("secret payload not included")

    @router.on("fails later")
    async def fails_later(message: Message[Any]) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("later")

    @router.on("fails alone")
    def fails_alone(message: Message[Any]) -> None:
        raise ValueError("alone")

    router.on("typed", lambda message: None)

    @router.on("fails")
    def after(message: Message[Any]) -> None:
        got.append(message.data)

    with trio.fail_after(5):
        async with pair(router) as (client, server):
            await client.emit("fails alone")
            await client.emit("fails", 1)
            await client.emit("fails later", 2)
            await client.emit("fails", 3)
            with pytest.raises(pyipc.RemoteError, match="later") as caught:
                await client.request("fails later")
            assert caught.value.code == "handler-failed"
            assert got == [1, 3]
            assert the_connection(server).statistics().handler_errors == 5
            assert client.connected
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 5
    assert all(record.exc_info for record in errors)


@pytest.mark.parametrize("event", ["now", "later"])
@pytest.mark.parametrize("as_request", [False, True])
async def test_keyboard_interrupt_in_a_handler_propagates(router: pyipc.Router, event: str, as_request: bool) -> None:
    @router.on("now")
    def now(message: Message[Any]) -> None:
        raise KeyboardInterrupt

    @router.on("later")
    async def later(message: Message[Any]) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    with trio.fail_after(5), pytest.raises(KeyboardInterrupt):
        async with pyipc.Server(router=router) as server:
            peer = await introduced(server)
            await peer.send(request(1, event) if as_request else frame(event))
            await trio.sleep_forever()


async def test_a_reply_that_cannot_be_sent_is_told(router: pyipc.Router, caplog: pytest.LogCaptureFixture) -> None:
    router.on("object", lambda message: object())
    router.on("huge", lambda message: "x" * 2 * KIB * KIB)
    with trio.fail_after(5):
        async with pair(router) as (client, _):
            with pytest.raises(pyipc.RemoteError) as failed:
                await client.request("object")
            assert failed.value.code == "handler-failed"
            with pytest.raises(pyipc.RemoteError) as large:
                await client.request("huge")
            assert large.value.code == "reply-too-large"
            assert client.connected


async def test_events_without_a_handler_are_counted() -> None:
    with trio.fail_after(5):
        async with pair() as (client, server):
            for _ in range(3):
                await client.emit("nobody")
            await trio.testing.wait_all_tasks_blocked()
            statistics = the_connection(server).statistics()
            assert (statistics.events_received, statistics.unheard) == (3, 3)


async def test_an_event_counts_once_however_many_handlers_are_awaited(router: pyipc.Router) -> None:
    with trio.fail_after(5):
        async with pair(router) as (client, server):
            for handler in (give_way, give_way, stay):
                router.on("tick", handler)
            for _ in range(2):
                await client.emit("tick")  # the second one waits in the inbox, and is drained
            await trio.testing.wait_all_tasks_blocked()
            router.off("tick", stay)
            statistics = the_connection(server).statistics()
            assert (statistics.events_received, statistics.unheard) == (1, 0)


async def test_once_is_once_for_all_connections(router: pyipc.Router) -> None:
    got: list[Any] = []
    with trio.fail_after(5):
        async with pyipc.Server(router=router) as server:
            server.once("first", lambda message: got.append(message.data))
            peers = [join(server) for _ in range(5)]
            for peer in peers:
                await peer.send(frame("first", 1), frame("first", 2))
            await trio.testing.wait_all_tasks_blocked()
            for peer in peers:
                await peer.link.aclose()
    assert got == [1]


async def test_data_that_does_not_fit_does_not_fill_the_log(
    router: pyipc.Router, caplog: pytest.LogCaptureFixture
) -> None:
    """What a peer sends is its own choice."""

    @router.on("typed")
    def typed(message: Message[int]) -> None:
        pytest.fail("it does not fit")

    with trio.fail_after(5):
        async with pair(router) as (client, _):
            for _ in range(100):
                await client.emit("typed", "text")
            with pytest.raises(pyipc.NoHandler):
                await client.request("nobody")
    assert sum("does not fit at $" in record.message for record in caplog.records if record.levelname == "WARNING") == 3


@pytest.mark.parametrize("cut", [True, False])
async def test_what_is_behind_the_end_is_not_heard(
    cut: bool, router: pyipc.Router, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """However the bytes were cut; and of many frames that each end the connection one is told of."""
    got: list[Any] = []
    router.on("e", lambda message: got.append(message.data))
    fatal = frame("pyipc.deliver", {"number": 70_000, "event": "e"})
    rest = (
        fatal * 3 + frame("e", 1) + frame("pyipc.deliver", {"number": 1, "event": "e", "data": 2}) + request(1, "e", 3)
    )
    async with pyipc.Server(router=router) as server:
        for last in (fatal, frame("pyipc.goodbye", {"code": "closed", "message": ""})):
            peer = await introduced(server)
            connection = the_connection(server)
            await peer.send(frame("e", 0) + last + (b"" if cut else rest))
            if cut:
                await trio.testing.wait_all_tasks_blocked()
                with contextlib.suppress(pyipc.ConnectionLost):
                    await peer.send(rest)
            await trio.testing.wait_all_tasks_blocked()
            assert not connection.is_open
            await peer.link.aclose()
            await connection.wait_closed()
    assert got == [0, 0]
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 1
