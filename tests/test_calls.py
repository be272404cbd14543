"""Requests: every answer to whom it belongs, time-outs by one clock, cancellation, and nobody left waiting."""

from __future__ import annotations

import random
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Message
from pyipc.calls import Calls
from pyipc.protocol.messages import Reply
from pyipc.testing import pair
from pyipc.timers import Timers
from tests.conftest import CANNOT_RUN
from tests.wire import frame, hello, join, request, stay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(30)


@pytest.fixture
def router() -> pyipc.Router:
    router = pyipc.Router()

    @router.on("echo")
    async def echo(message: Message[Any]) -> Any:
        return message.data

    @router.on("plain")
    def plain(message: Message[Any]) -> Any:
        return message.data

    @router.on("slow")
    async def slow(message: Message[float]) -> float:
        await trio.sleep(message.data)
        return message.data

    @router.on("fails")
    def fails(message: Message[Any]) -> None:
        raise LookupError("no such thing")

    @router.on("typed")
    def typed(message: Message[list[int]]) -> int:
        return sum(message.data)

    return router


async def test_answers_and_refusals(router: pyipc.Router, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(5):
        async with pair(router) as (client, _):
            assert await client.request("echo", {"a": [1, None]}) == {"a": [1, None]}
            assert await client.request("plain") is None
            assert await client.request("typed", [1, 2], result=int) == 3
            with pytest.raises(pyipc.NoHandler) as nobody:
                await client.request("nobody")
            assert nobody.value.event == "nobody"
            with pytest.raises(pyipc.RemoteError) as failed:
                await client.request("fails")
            assert failed.value.code == "handler-failed"
            assert "no such thing" in failed.value.message
            with pytest.raises(pyipc.InvalidData) as theirs:
                await client.request("typed", [1, "two"])
            assert theirs.value.path == "$[1]"
            with pytest.raises(pyipc.InvalidData) as ours:
                await client.request("echo", {"n": "x"}, result=dict[str, int])
            assert ours.value.path.startswith("$")
            assert await client.request("echo", 1) == 1


async def test_a_time_out_is_kept_to_the_clock(router: pyipc.Router, autojump_clock: MockClock) -> None:
    async with pair(router, client_options={"request_timeout": 7.0}) as (client, server):
        cases: list[tuple[dict[str, Any], float]] = [({}, 7.0), ({"timeout": 2.5}, 2.5), ({"timeout": 0.0}, 0.0)]
        for options, seconds in cases:
            began = trio.current_time()
            with pytest.raises(pyipc.RequestTimeout) as late:
                await client.request("slow", 60.0, **options)
            assert trio.current_time() - began == pytest.approx(seconds)
            assert late.value.timeout == seconds
            assert late.value.event == "slow"
            assert isinstance(late.value, TimeoutError)
        assert await client.request("slow", 3600.0, timeout=None) == 3600.0
        (connection,) = server.connections
        assert connection.statistics().concurrent_requests == 0


async def test_many_time_outs_fire_in_order(router: pyipc.Router, autojump_clock: MockClock) -> None:
    order: list[float] = []
    rng = random.Random(3)
    async with pair(router, server_options={"max_concurrent_requests": 4}) as (client, server):

        async def ask(timeout: float) -> None:
            with pytest.raises(pyipc.RequestTimeout):
                await client.request("slow", 1_000.0, timeout=timeout)
            assert trio.current_time() - began == pytest.approx(timeout)
            order.append(timeout)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(ask, rng.random() * 100)
        assert order == sorted(order)
        (connection,) = server.connections
        await trio.testing.wait_all_tasks_blocked()
        statistics = connection.statistics()
        assert statistics.concurrent_requests == 0
        assert statistics.inbox_size == 0
        assert client.statistics().connection is not None


async def test_a_cancelled_request_cancels_the_handler() -> None:
    entered, cancelled = trio.Event(), trio.Event()
    router = pyipc.Router()

    @router.on("stay")
    async def stay(message: Message[Any]) -> None:
        entered.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    router.on("plain", lambda message: message.data)
    with trio.fail_after(5):
        async with pair(router) as (client, server):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.request, "stay")
                await entered.wait()
                nursery.cancel_scope.cancel()
            await cancelled.wait()
            assert await client.request("plain", 2) == 2
            (connection,) = server.connections
            assert connection.statistics().concurrent_requests == 0
            assert connection.statistics().handler_errors == 0


async def test_a_request_that_was_cancelled_in_the_queue_is_never_handled() -> None:
    calls: list[Any] = []
    finish = trio.Event()
    router = pyipc.Router()

    @router.on("one")
    async def one(message: Message[Any]) -> None:
        calls.append(message.data)
        await finish.wait()

    with trio.fail_after(5):
        async with (
            pair(router, server_options={"max_concurrent_requests": 1}) as (client, _),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(client.request, "one", 1)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as inner:
                inner.start_soon(client.request, "one", 2)
                await trio.testing.wait_all_tasks_blocked()
                inner.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(client.request, "one", 3)
            await trio.testing.wait_all_tasks_blocked()
            finish.set()
    assert calls == [1, 3]


async def test_a_late_answer_goes_to_nobody() -> None:
    with trio.fail_after(5):
        async with pyipc.Server() as server:
            peer = join(server)
            await peer.send(hello())
            await peer.read_until("pyipc.welcome")
            (connection,) = server.connections
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.request, "first")
                asked = await peer.read_until("pyipc.request")
                nursery.cancel_scope.cancel()
            assert await peer.read_until("pyipc.cancel") == {"call": asked["call"]}
            answers: list[Any] = []

            async def second() -> None:
                answers.append(await connection.request("second"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(second)
                again = await peer.read_until("pyipc.request")
                assert again["call"] != asked["call"]
                await peer.send(frame("pyipc.reply", {"call": asked["call"], "data": "late"}))
                await trio.testing.wait_all_tasks_blocked()
                assert answers == []
                await peer.send(frame("pyipc.reply", {"call": again["call"], "data": "mine"}))
            assert answers == ["mine"]
            assert connection.statistics().late_answers == 1
            await peer.link.aclose()


async def test_a_handler_that_will_not_be_cancelled_answers_nobody() -> None:
    finish = trio.Event()
    router = pyipc.Router()

    @router.on("stubborn")
    async def stubborn(message: Message[Any]) -> str:
        with trio.CancelScope(shield=True):
            await finish.wait()
        return "late"

    router.on("plain", lambda message: message.data)
    with trio.fail_after(5):
        async with pair(router) as (client, _):
            with trio.move_on_after(0.01):
                await client.request("stubborn")
            finish.set()
            await trio.testing.wait_all_tasks_blocked()
            assert await client.request("plain", 1) == 1
            statistics = client.statistics().connection
            assert statistics is not None
            assert statistics.late_answers == 1


@pytest.mark.time_limit(120)
@pytest.mark.slow
async def test_20_000_requests_a_third_of_which_are_cancelled(autojump_clock: MockClock) -> None:
    """No answer goes to the wrong caller, whatever is cancelled when, and nothing is left over."""
    rng = random.Random(1)
    router = pyipc.Router()
    handled = 0

    @router.on("echo")
    async def echo(message: Message[Any]) -> Any:
        nonlocal handled
        handled += 1
        how = rng.random()
        if how < 0.3:
            await trio.lowlevel.checkpoint()
        elif how < 0.6:
            await trio.sleep(rng.randrange(1, 4) / 1_000)
        return message.data

    outcomes = {"answered": 0, "cancelled": 0, "wrong": 0}
    async with pair(router, server_options={"max_concurrent_requests": 20}) as (client, server):

        async def work(task: int) -> None:
            for number in range(200):
                token = [task, number]
                doomed = rng.random() < 1 / 3
                with trio.CancelScope() as scope:
                    if doomed:
                        scope.deadline = trio.current_time() + rng.randrange(4) / 1_000
                    answer = await client.request("echo", token)
                    outcomes["answered" if answer == token else "wrong"] += 1
                outcomes["cancelled"] += scope.cancelled_caught

        async with trio.open_nursery() as nursery:
            for task in range(100):
                nursery.start_soon(work, task)
        await trio.sleep(1)
        (connection,) = server.connections
        statistics = connection.statistics()
        ours = client.statistics().connection
        assert ours is not None
        assert outcomes["wrong"] == 0
        assert outcomes["answered"] + outcomes["cancelled"] == 20_000
        assert outcomes["cancelled"] > 4_000
        assert handled >= outcomes["answered"]
        assert (statistics.concurrent_requests, statistics.inbox_size, statistics.outbox_size) == (0, 0, 0)
        assert ours.pending_requests == 0
        assert await client.request("echo", "still well") == "still well"


async def test_the_number_of_pending_requests_is_bounded() -> None:
    release = trio.Event()
    router = pyipc.Router()
    running = most = 0

    @router.on("wait")
    async def wait(message: Message[Any]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    with trio.fail_after(5):
        async with (
            pair(router, client_options={"max_pending_requests": 10}) as (client, _),
            trio.open_nursery() as nursery,
        ):
            for _ in range(50):
                nursery.start_soon(client.request, "wait")
            await trio.testing.wait_all_tasks_blocked()
            statistics = client.statistics().connection
            assert statistics is not None
            assert statistics.pending_requests == 10
            release.set()
    assert most == 10


async def test_waiting_for_one_s_turn_counts_against_the_time_out(
    router: pyipc.Router, autojump_clock: MockClock
) -> None:
    async with pair(router, client_options={"max_pending_requests": 1}) as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: client.request("slow", 10.0, timeout=None))
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(pyipc.RequestTimeout):
            await client.request("echo", 1, timeout=3)
        assert trio.current_time() - began == pytest.approx(3)
        assert await client.request("echo", 1, timeout=20) == 1


def _close_ours(client: pyipc.Client, server: pyipc.Server) -> Any:
    return client.aclose()


def _close_theirs(client: pyipc.Client, server: pyipc.Server) -> Any:
    return server.aclose()


@pytest.mark.parametrize(
    ("close", "error"), [(_close_ours, pyipc.ConnectionClosed), (_close_theirs, pyipc.ConnectionLost)]
)
async def test_closing_wakes_every_request(
    close: Callable[[pyipc.Client, pyipc.Server], Any], error: type[Exception], autojump_clock: MockClock
) -> None:
    """Those that wait for an answer, for their turn, for room, and for a connection."""
    router = pyipc.Router()
    router.on("never", stay)
    options = {"max_pending_requests": 5, "request_timeout": None, "reconnect": False}
    woken: list[Exception] = []
    async with pair(router, client_options=options) as (client, server):

        async def ask() -> None:
            with pytest.raises(pyipc.ConnectionClosed) as caught:
                await client.request("never")
            woken.append(caught.value)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await close(client, server)
        assert trio.current_time() < 10
    assert len(woken) == 20
    assert all(isinstance(one, error) for one in woken)
    if error is pyipc.ConnectionLost:
        certain = [one for one in woken if isinstance(one, pyipc.ConnectionLost) and not one.maybe_handled]
        assert len(certain) == 15  # those that were never sent


async def test_nothing_is_sent_after_the_goodbye(autojump_clock: MockClock) -> None:
    """A request that waits for room when the connection is closed is not sent."""
    async with pyipc.Server(outbox_high_water_size=1_000) as server:
        peer = join(server, buffer_size=100)
        await peer.send(hello())
        await peer.read_until("pyipc.welcome")
        (connection,) = server.connections
        with trio.move_on_after(1):
            while True:
                await connection.emit("fill", "x" * 100)

        async def ask() -> None:
            with pytest.raises(pyipc.ConnectionClosed):
                await connection.request("too late")

        frames: list[Any] = []

        async def read() -> None:
            frames.extend(await peer.read_all())
            peer.link.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(connection.aclose)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(read)
    assert [name for name, _ in frames[:-1]] == ["fill"] * (len(frames) - 1)
    assert frames[-1][0] == "pyipc.goodbye"


async def test_the_same_number_twice_ends_the_connection(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    router = pyipc.Router()
    router.on("never", stay)
    with trio.fail_after(5):
        async with pyipc.Server(router=router) as server:
            peer = join(server)
            await peer.send(hello(), request(1, "never"), request(1, "never"))
            goodbye = await peer.read_until("pyipc.goodbye")
            assert goodbye["code"] == "control"
            await peer.link.aclose()


async def test_a_plain_peer_cannot_be_asked_by_the_server() -> None:
    with trio.fail_after(5):
        async with pyipc.Server() as server:
            peer = join(server)
            await trio.testing.wait_all_tasks_blocked()
            (connection,) = server.connections
            with pytest.raises(pyipc.PeerLacksFeature):
                await connection.request("x")
            peer.link.send_eof()
            assert await peer.read_all() == []


async def test_an_answer_in_the_very_turn_of_its_time_out_stops_no_clock(autojump_clock: MockClock) -> None:
    """Which of the two comes first is the scheduler's choice, so it is tried often."""
    timers, outcomes = Timers(), set[str]()

    async def settle(calls: Calls, number: int, when: float) -> None:
        await trio.sleep_until(when)
        calls.settle(Reply(number, "answer"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        for number in range(40):
            calls = Calls(timers, abandoned=lambda number: None)
            when = trio.current_time() + 5
            nursery.start_soon(settle, calls, number, when)
            try:
                outcomes.add(await calls.wait(calls.begin(number, "event", 5, when)))
            except pyipc.RequestTimeout:
                outcomes.add("time-out")
        nursery.cancel_scope.cancel()
    assert outcomes <= {"answer", "time-out"}
    assert outcomes


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} needs Unix domain sockets")
async def test_requests_on_a_link_that_breaks_while_writing_wait_for_the_next(tmp_path: Path) -> None:
    """The write fails before the end is read: asking again must not spin on the connection that is over."""
    path = str(tmp_path / "socket")
    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(path)
    listener.listen()
    outcomes: list[str] = []
    async with pyipc.connect(pyipc.Endpoint(f"unix:{path}", hello=False), request_timeout=0.5) as client:
        peer, _ = await listener.accept()
        await trio.testing.wait_all_tasks_blocked()

        async def ask() -> None:
            try:
                await client.request("question")
            except (pyipc.RequestTimeout, pyipc.ConnectionLost) as error:
                outcomes.append(type(error).__name__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            peer.close()
            listener.close()
    assert len(outcomes) == 2


@pytest.mark.parametrize("code", ["", "two words", "x" * 65, "na\u00efve", "line\n", "\x1b[31m"])
async def test_a_code_that_is_none_is_unknown(code: str, autojump_clock: MockClock) -> None:
    async with pyipc.Server() as server:
        peer = join(server)
        await peer.send(hello())
        await peer.read_until("pyipc.welcome")
        (connection,) = server.connections

        async def refuse() -> None:
            call = (await peer.read_until("pyipc.request"))["call"]
            await peer.send(frame("pyipc.error", {"call": call, "code": code, "message": "why\r\nnot", "data": [1]}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            with pytest.raises(pyipc.RemoteError) as error:
                await connection.request("a")
        assert (error.value.code, error.value.message, error.value.data) == ("unknown", "why\r\nnot", [1])
        assert str(error.value) == "unknown: why\ufffd\ufffdnot"
        await peer.link.aclose()
