"""Streams: what is on the wire, when a generator is cancelled, what waits for what, and for how long."""

from __future__ import annotations

import contextlib
import functools
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

import pyipc
from pyipc import Message
from pyipc.testing import pair
from pyipc.transports import transport_for
from tests.wire import frame, hello, join

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

    from tests.wire import WirePeer

pytestmark = pytest.mark.time_limit(30)


class Counter:
    """Streams of numbers, and what has become of them."""

    def __init__(self) -> None:
        self.router = pyipc.Router()
        self.made = self.ended = 0
        self.router.on("count", self.count)
        self.router.on("slow", self.slow)

    async def count(self, message: Message[Any]) -> AsyncIterator[int]:
        try:
            for number in range(message.data):
                self.made += 1
                yield number
        finally:
            self.ended += 1

    async def slow(self, message: Message[Any]) -> AsyncIterator[float]:
        """Numbers, each after so many seconds."""
        try:
            for seconds in message.data:
                await trio.sleep(seconds)
                yield seconds
        finally:
            self.ended += 1


@pytest.fixture
def counter() -> Counter:
    return Counter()


# --- the wire ---------------------------------------------------------------------------------------------------


def opening(call: int, event: str, data: Any = None, *, items: int = 100, size: int = 100_000) -> bytes:
    fields = {"call": call, "event": event, "data": data, "items": items, "size": size}
    return frame("pyipc.stream", fields)


def credit(call: int, items: int = 0, size: int = 0) -> bytes:
    return frame("pyipc.credit", {"call": call, "items": items, "size": size})


@asynccontextmanager
async def asked(counter: Counter, **options: Any) -> AsyncIterator[tuple[WirePeer, pyipc.Server]]:
    """A server with a peer that is nothing but bytes."""
    async with pyipc.Server(router=counter.router, **options) as server:
        peer = join(server)
        yield peer, server
        await peer.link.aclose()


async def test_a_plain_peer_asks_and_gives_credit(counter: Counter, autojump_clock: MockClock) -> None:
    async with asked(counter) as (peer, _):
        await peer.send(opening(7, "count", 5, items=2))
        assert await peer.read() == ("pyipc.item", {"call": 7, "data": 0})
        assert await peer.read() == ("pyipc.item", {"call": 7, "data": 1})
        await wait_all_tasks_blocked()
        assert counter.made == 3
        await peer.send(credit(7, items=1), credit(8, items=9), credit(7, size=1))
        assert await peer.read() == ("pyipc.item", {"call": 7, "data": 2})
        await wait_all_tasks_blocked()
        assert counter.made == 4
        await peer.send(credit(7, items=100))
        assert [await peer.read() for _ in range(3)] == [
            ("pyipc.item", {"call": 7, "data": 3}),
            ("pyipc.item", {"call": 7, "data": 4}),
            ("pyipc.end", {"call": 7}),
        ]
        await peer.send(credit(7, items=1), frame("pyipc.cancel", {"call": 7}), frame("pyipc.request", {"call": 9}))
        assert await peer.read() is None  # a request without a name; all before it was fine


@pytest.mark.parametrize(("items", "size"), [(0, 1_000), (5, 0)])
async def test_without_credit_nothing_is_sent(
    counter: Counter, items: int, size: int, autojump_clock: MockClock
) -> None:
    async with asked(counter) as (peer, _):
        await peer.send(opening(1, "count", 5, items=items, size=size))
        await wait_all_tasks_blocked()
        assert counter.made == 1
        await peer.send(credit(1, items=1, size=1))
        assert await peer.read() == ("pyipc.item", {"call": 1, "data": 0})


async def test_sizes_are_those_of_frames(counter: Counter, autojump_clock: MockClock) -> None:
    async with asked(counter) as (peer, _):
        size = len('{"type":"pyipc.item","data":{"call":1,"data":0}}')
        await peer.send(opening(1, "count", 9, size=3 * size))
        await wait_all_tasks_blocked()
        assert counter.made == 4
        await peer.send(credit(1, size=1))
        await wait_all_tasks_blocked()
        assert counter.made == 5  # an item may exceed what is left
        await peer.send(credit(1, size=size - 1))
        await wait_all_tasks_blocked()
        assert counter.made == 5
        await peer.send(credit(1, size=1))
        await wait_all_tasks_blocked()
        assert counter.made == 6


async def test_a_number_of_a_call_is_used_once(counter: Counter, autojump_clock: MockClock) -> None:
    for second in (opening(1, "slow", [1]), frame("pyipc.request", {"call": 1, "event": "x"})):
        async with asked(counter) as (peer, server):
            (connection,) = server.connections
            await peer.send(hello(), opening(1, "slow", [9e9]))
            await wait_all_tasks_blocked()
            await peer.send(second)
            assert (await peer.read_until("pyipc.goodbye"))["code"] == "control"
            await peer.link.aclose()
            await connection.wait_closed()
    assert counter.ended == 2


async def test_a_server_that_is_greeting_lets_streams_wait(counter: Counter, autojump_clock: MockClock) -> None:
    async with pyipc.Server(router=counter.router) as server:
        greeted = trio.Event()

        @server.on_connect
        async def greet(connection: pyipc.Connection) -> None:
            await greeted.wait()

        peer = join(server)
        await peer.send(opening(1, "count", 1), opening(2, "count", 1), opening(3, "count", 2))
        await peer.send(frame("pyipc.cancel", {"call": 2}))
        await wait_all_tasks_blocked()
        assert counter.made == 0
        greeted.set()
        received = [await peer.read() for _ in range(5)]
        assert sorted(read[1]["call"] for read in received if read) == [1, 1, 3, 3, 3]
        await peer.link.aclose()


async def test_a_stream_that_is_cancelled_at_once_never_begins(counter: Counter, autojump_clock: MockClock) -> None:
    async with asked(counter) as (peer, server):
        (connection,) = server.connections
        await peer.send(opening(1, "count", 1) + frame("pyipc.cancel", {"call": 1}))
        await wait_all_tasks_blocked()
        assert counter.made == counter.ended == connection.statistics().open_streams == 0
        assert connection.statistics().streams_served == 1


async def test_a_trace_reaches_the_handler(counter: Counter, autojump_clock: MockClock) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    @counter.router.on("trace")
    async def trace(message: Message[Any]) -> AsyncIterator[Any]:
        yield [message.event, message.data, message.traceparent]

    async with asked(counter) as (peer, _):
        fields = {"call": 1, "event": "trace", "data": 5, "items": 1, "size": 1, "traceparent": parent}
        await peer.send(frame("pyipc.stream", fields))
        assert await peer.read() == ("pyipc.item", {"call": 1, "data": ["trace", 5, parent]})


@asynccontextmanager
async def asking(**options: Any) -> AsyncIterator[tuple[pyipc.Connection, WirePeer]]:
    """A connection to a peer that is nothing but bytes, and has introduced itself."""
    async with pyipc.Server(**options) as server:
        peer = join(server)
        (connection,) = server.connections
        await peer.send(frame("pyipc.hello", {"versions": [1], "features": ["streams"], "heartbeat": None}))
        await peer.read_until("pyipc.welcome")
        yield connection, peer
        await peer.link.aclose()


async def test_what_is_asked_and_credited(autojump_clock: MockClock) -> None:
    async with asking(max_stream_items=4, max_stream_size=1_000) as (connection, peer):
        async with connection.stream("rows", {"a": 1}) as rows:
            asked = {"call": 1, "event": "rows", "data": {"a": 1}, "items": 4, "size": 1_000}
            assert await peer.read() == ("pyipc.stream", asked)
            item = frame("pyipc.item", {"call": 1, "data": 0})
            size = len(item) - 1
            await peer.send(item * 4)
            assert repr(rows) == "<Stream 'rows' open, 0 waiting>"
            assert [await anext(rows) for _ in range(2)] == [0, 0]
            assert repr(rows) == "<Stream 'rows' open, 2 waiting>"
            assert await peer.read() == ("pyipc.credit", {"call": 1, "items": 2, "size": 2 * size})
            large = frame("pyipc.item", {"call": 1, "data": "x" * 1_000})
            await peer.send(large)
            assert [await anext(rows) for _ in range(2)] == [0, 0]
            assert await peer.read() == ("pyipc.credit", {"call": 1, "items": 2, "size": 2 * size})
            await anext(rows)
            assert await peer.read() == ("pyipc.credit", {"call": 1, "items": 1, "size": len(large) - 1})
        assert await peer.read() == ("pyipc.cancel", {"call": 1})
        assert repr(rows) == "<Stream 'rows' left, 0 waiting>"
        # What was under way then, and what never was, says nothing.
        await peer.send(item * 10, frame("pyipc.end", {"call": 1}), frame("pyipc.error", {"call": 1, "code": "x"}))
        await wait_all_tasks_blocked()
        assert connection.is_open


async def test_no_credit_for_a_stream_that_is_over(autojump_clock: MockClock) -> None:
    async with asking(max_stream_items=2) as (connection, peer):
        async with connection.stream("rows") as rows:
            await peer.send(frame("pyipc.item", {"call": 1}) * 2, frame("pyipc.end", {"call": 1}))
            assert [row async for row in rows] == [None, None]
        await connection.emit("last")
        assert [await peer.read() for _ in range(2)] == [
            ("pyipc.stream", {"call": 1, "event": "rows", "items": 2, "size": 262_144}),
            ("last", None),
        ]


@pytest.mark.parametrize("limits", [{"max_stream_items": 3}, {"max_stream_size": 150}])
async def test_a_peer_that_exceeds_its_credit_is_refused(limits: dict[str, int], autojump_clock: MockClock) -> None:
    async with asking(**limits) as (connection, peer):
        async with connection.stream("rows") as rows:
            await peer.send(frame("pyipc.item", {"call": 1, "data": "x" * 10}) * 3)
            await wait_all_tasks_blocked()
            assert connection.is_open
            await peer.send(frame("pyipc.item", {"call": 1, "data": "x"}))
            assert (await peer.read_until("pyipc.goodbye"))["code"] == "control"
            assert [await anext(rows) for _ in range(3)] == ["x" * 10] * 3
            with pytest.raises(pyipc.ConnectionLost, match="credit"):
                await anext(rows)
        assert connection.reason is not None
        assert connection.reason.code == "control"


async def test_items_of_what_was_never_asked_are_refused(autojump_clock: MockClock) -> None:
    async with asking() as (connection, peer), connection.stream("rows"):
        await peer.send(frame("pyipc.item", {"call": 2}))
        assert (await peer.read_until("pyipc.goodbye"))["code"] == "control"


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (("pyipc.reply", {"call": 1, "data": 1}), "answered the stream 1 as if it were a call"),
        (("pyipc.item", {"call": 2, "data": 1}), "answered the call 2 as if it were a stream"),
        (("pyipc.end", {"call": 2}), "answered the call 2 as if it were a stream"),
    ],
)
async def test_requests_and_streams_do_not_mix(answer: tuple[str, Any], what: str, autojump_clock: MockClock) -> None:
    """A reply to a stream, or an item of a request, is a mistake of the peer: whoever asked would wait for ever."""
    async with asking() as (connection, peer), trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(pyipc.ConnectionLost, match=what):
                await connection.request("one", timeout=None)

        async with connection.stream("rows", timeout=None) as rows:
            nursery.start_soon(ask)
            await peer.read_until("pyipc.request")
            await peer.send(frame("pyipc.item", {"call": 1, "data": 0}), frame(*answer))
            assert await anext(rows) == 0
            with pytest.raises(pyipc.ConnectionLost, match=what):
                await anext(rows)
        assert (await peer.read_until("pyipc.goodbye"))["code"] == "control"


@pytest.mark.parametrize("name", ["pyipc.reply", "pyipc.item", "pyipc.end", "pyipc.error"])
async def test_what_comes_for_a_call_that_is_over_is_ignored(name: str, autojump_clock: MockClock) -> None:
    async with asking() as (connection, peer):
        async with connection.stream("rows"):
            pass
        with pytest.raises(pyipc.RequestTimeout):
            await connection.request("one", timeout=1)
        for call in (1, 2):
            await peer.send(frame(name, {"call": call, "code": "late", "message": ""}))
        await wait_all_tasks_blocked()
        assert connection.is_open


# --- time -------------------------------------------------------------------------------------------------------


async def test_the_time_is_for_each_item(counter: Counter, autojump_clock: MockClock) -> None:
    async with pair(counter.router, client_options={"request_timeout": 7.0}) as (client, server):
        (connection,) = server.connections
        cases: list[tuple[dict[str, Any], float]] = [({}, 7.0), ({"timeout": 2.5}, 2.5)]
        for options, seconds in cases:
            began = trio.current_time()
            async with client.stream("slow", [2, 1, 2, 60], **options) as rows:
                assert [await anext(rows) for _ in range(3)] == [2, 1, 2]
                with pytest.raises(pyipc.RequestTimeout) as late:
                    await anext(rows)
                assert trio.current_time() - began == pytest.approx(5 + seconds)
                await wait_all_tasks_blocked()
                assert connection.statistics().open_streams == 0  # without leaving the block
                with pytest.raises(pyipc.RequestTimeout):
                    await anext(rows)
            assert (late.value.event, late.value.timeout) == ("slow", seconds)
        assert counter.ended == 2
        async with client.stream("slow", [3600.0], timeout=None) as rows:
            assert [row async for row in rows] == [3600.0]


async def test_time_that_the_consumer_takes_is_its_own(counter: Counter, autojump_clock: MockClock) -> None:
    async with pair(counter.router) as (client, _), client.stream("slow", [1] * 50, timeout=2) as rows:
        taken = 0
        async for _ in rows:
            taken += 1
            await trio.sleep(5)
        assert taken == 50


async def test_one_timer_serves_all_waits(counter: Counter, autojump_clock: MockClock) -> None:
    async with pair(counter.router) as (client, _):
        async with client.stream("slow", [0.01] * 200, timeout=50) as rows:
            timers = client._up._timers
            await anext(rows)
            count = len(timers)
            async for _ in rows:
                assert len(timers) <= count
        assert len(timers) < count


# --- entering and leaving ---------------------------------------------------------------------------------------


async def test_it_is_entered_once_and_used_inside(counter: Counter, autojump_clock: MockClock) -> None:
    async with pair(counter.router) as (client, _):
        rows = client.stream("count", 1)
        assert repr(rows) == "<Stream 'count' new, 0 waiting>"
        with pytest.raises(RuntimeError, match="async with"):
            async for _ in rows:
                pass
        async with rows:
            assert [row async for row in rows] == [0]
            assert repr(rows) == "<Stream 'count' over, 0 waiting>"
        with pytest.raises(RuntimeError, match="once"):
            await rows.__aenter__()
        with pytest.raises(trio.ClosedResourceError):
            await anext(rows)


async def test_one_task_at_a_time_waits(counter: Counter, autojump_clock: MockClock) -> None:
    async with pair(counter.router) as (client, _), client.stream("slow", [1, 1]) as rows, trio.open_nursery() as tasks:
        tasks.start_soon(anext, rows)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await anext(rows)
    async with pair(counter.router) as (client, _), trio.open_nursery() as tasks, client.stream("slow", [100]) as rows:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await anext(rows)

        tasks.start_soon(wait)
        await wait_all_tasks_blocked()


async def test_a_client_waits_for_a_connection(counter: Counter, autojump_clock: MockClock) -> None:
    address = "memory:not-there-yet"

    async def serve() -> None:
        await trio.sleep(3)
        async with pyipc.Server(address, router=counter.router):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with pyipc.connect(address, wait=False) as client:
            began = trio.current_time()
            with pytest.raises(pyipc.RequestTimeout, match="no connection"):
                async with client.stream("count", 3, timeout=2):
                    pass
            assert trio.current_time() - began == pytest.approx(2)
            nursery.start_soon(serve)
            async with client.stream("count", 3) as rows:
                assert [row async for row in rows] == [0, 1, 2]
        nursery.cancel_scope.cancel()
    async with pyipc.connect(address, wait=False, offline="raise") as client:
        with pytest.raises(pyipc.ConnectionLost):
            async with client.stream("count", 3):
                pass
    with pytest.raises(pyipc.ConnectionClosed):
        async with client.stream("count", 3):
            pass


async def test_a_lost_stream_is_not_asked_for_again(counter: Counter, autojump_clock: MockClock) -> None:
    async with pair(counter.router) as (client, server):
        async with client.stream("slow", [0, 0, 100]) as rows:
            assert [await anext(rows) for _ in range(2)] == [0, 0]
            (connection,) = server.connections
            connection.abort("test", "lost")
            with pytest.raises(pyipc.ConnectionLost) as lost:
                await anext(rows)
            assert lost.value.maybe_handled
            await trio.sleep(10)
            assert client.connected
            with pytest.raises(pyipc.ConnectionLost):
                await anext(rows)
        async with client.stream("count", 2) as rows:
            assert [row async for row in rows] == [0, 1]
        assert counter.ended == 2


@pytest.mark.parametrize("feature", ["plain", "raw"])
async def test_peers_without_streams(feature: str, counter: Counter, autojump_clock: MockClock) -> None:
    if feature == "plain":
        endpoint, error = pyipc.Endpoint("memory:without", hello=False), pyipc.PeerLacksFeature
    else:
        endpoint, error = pyipc.Endpoint("memory:without", framing=pyipc.Raw()), pyipc.UnsupportedByTransport
    async with pyipc.Server(endpoint, router=counter.router) as serving, pyipc.connect(endpoint) as connected:
        for source in (connected, *serving.connections):
            with pytest.raises(pyipc.PeerLacksFeature) as lacking:
                async with source.stream("count", 1):
                    pass
            assert type(lacking.value) is error
            assert lacking.value.feature == "streams"


async def test_a_server_that_does_not_introduce_itself(autojump_clock: MockClock) -> None:
    address = pyipc.parse_address("memory:mute")
    listener = await transport_for("memory").listen(address, {})
    async with pyipc.connect(address) as client:
        link = await listener.accept()
        began = trio.current_time()
        with pytest.raises(pyipc.RequestTimeout):
            async with client.stream("count", timeout=2):
                pass
        assert trio.current_time() - began == pytest.approx(2)
        with pytest.raises(pyipc.PeerLacksFeature, match="has not introduced itself"):
            async with client.stream("count"):
                pass
        assert trio.current_time() - began == pytest.approx(2 + 5)  # handshake_timeout
        await link.aclose()
    await listener.aclose()


async def test_asking_waits_for_room(counter: Counter, autojump_clock: MockClock) -> None:
    """And no longer than it may."""
    async with asking(outbox_high_water_size=1_000) as (connection, peer):
        await connection.emit("fill", "x" * 100_000)
        with pytest.raises(pyipc.RequestTimeout):
            async with connection.stream("rows", timeout=1):
                pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.read_until, "pyipc.stream")
            async with connection.stream("rows"):
                pass


# --- generators -------------------------------------------------------------------------------------------------


async def test_a_generator_hears_of_its_own_scope_at_its_yield(autojump_clock: MockClock) -> None:
    """Its own time is over while it stands at a yield, for want of credit: that is no end of the stream."""
    router = pyipc.Router()

    @router.on("timed")
    async def timed(message: Message[Any]) -> AsyncIterator[Any]:
        with trio.move_on_after(5) as scope:
            for number in range(100):
                yield number
        yield f"cancelled: {scope.cancelled_caught}"

    async with pair(router, client_options={"max_stream_items": 3}) as (client, _), client.stream("timed") as rows:
        await trio.sleep(10)
        assert [row async for row in rows] == [0, 1, 2, "cancelled: True"]


async def test_what_a_generator_does_at_its_end(autojump_clock: MockClock) -> None:
    """It is cancelled at its yield; what it shields is waited for, and the connection goes on meanwhile."""
    router = pyipc.Router()
    steps: list[str] = []

    @router.on("tidy")
    async def tidy(message: Message[Any]) -> AsyncIterator[Any]:
        try:
            yield 1
            yield 2
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)
            steps.append("tidied")
            await trio.sleep(10)
            steps.append("never")

    router.on("echo", lambda message: message.data)
    async with pair(router, client_options={"max_stream_items": 1}) as (client, server):
        (connection,) = server.connections
        async with client.stream("tidy"):
            await wait_all_tasks_blocked()
        assert await client.request("echo", 5) == 5
        assert connection.statistics().open_streams == 1
        await trio.sleep(15)
        assert connection.statistics().open_streams == 0
    assert steps == ["tidied"]


async def test_a_generator_that_will_not_end(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    router = pyipc.Router()

    @router.on("stubborn")
    async def stubborn(message: Message[Any]) -> AsyncIterator[Any]:
        yield 1
        with contextlib.suppress(BaseException):
            yield 2
        yield 3

    async with pair(router, client_options={"max_stream_items": 1}) as (client, server):
        (connection,) = server.connections
        async with client.stream("stubborn"):
            await wait_all_tasks_blocked()
        await trio.sleep(1)
        assert connection.statistics().open_streams == 0
    assert "ignored GeneratorExit" in caplog.text


async def test_events_and_requests_do_not_reach_it(
    counter: Counter, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pyipc.dispatch")
    heard: list[Any] = []
    counter.router.on("count", lambda message: heard.append(message.data))
    counter.router.off("count", counter.count)
    counter.router.on("*", counter.count)
    async with pair(counter.router) as (client, server):
        (connection,) = server.connections
        await client.emit("count", 5)
        await client.emit("other", 6)
        with pytest.raises(pyipc.RemoteError, match=r"Counter\.count is an async generator") as refused:
            await client.request("other", 7)
        assert refused.value.code == "is-a-stream"
        assert heard == [5]
        assert connection.statistics().handler_errors == 0  # it is the peer that is wrong
    assert counter.made == 0
    told = [record for record in caplog.records if "is an async generator" in record.getMessage()]
    assert len(told) == 3
    assert not any(record.exc_info for record in told)


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(message: Message[Any]) -> Any:
        return function(message)

    return wrapper


def listing(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(message: Message[Any]) -> list[Any]:
        return [item async for item in function(message)]

    return wrapper


class Yielding:
    async def __call__(self, message: Message[Any]) -> AsyncIterator[Any]:
        yield message.data


async def two(extra: Any, message: Message[Any]) -> AsyncIterator[Any]:
    yield message.data


async def one(message: Message[Any]) -> AsyncIterator[Any]:
    yield message.data


async def test_what_is_a_handler_of_streams(autojump_clock: MockClock) -> None:
    router = pyipc.Router()
    handlers: list[Any] = [one, functools.partial(two, 1), Yielding(), wrapped(one)]
    for number, handler in enumerate(handlers):
        router.on(str(number), handler)
    router.on("listed", listing(one))
    router.on("wrong", functools.wraps(one)(lambda message: 5))
    async with pair(router) as (client, _):
        for number in range(4):
            async with client.stream(str(number), number) as rows:
                assert [row async for row in rows] == [number]
        assert await client.request("listed", 3) == [3]
        with pytest.raises(pyipc.RemoteError, match="no async generator"):
            async with client.stream("wrong") as rows:
                await anext(rows)


async def test_two_handlers_of_one_stream(counter: Counter, autojump_clock: MockClock) -> None:
    counter.router.on("count", one)
    async with pair(counter.router) as (client, _), client.stream("count", 3) as rows:
        with pytest.raises(pyipc.RemoteError, match="two handlers"):
            await anext(rows)


async def test_a_handler_is_removed_by_its_function(counter: Counter, autojump_clock: MockClock) -> None:
    counter.router.off("count", counter.count)
    async with pair(counter.router) as (client, _), client.stream("count", 3) as rows:
        with pytest.raises(pyipc.NoHandler):
            await anext(rows)


# --- who gets a turn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("works", ["producer", "consumer"])
async def test_who_never_waits_lets_others_have_their_turn(works: str, counter: Counter) -> None:
    """There is credit for everything; so neither side has to wait for the other."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    options = {"max_stream_items": 10**9, "max_stream_size": 10**9}
    async with pair(counter.router, client_options=options) as (client, _), trio.open_nursery() as nursery:
        async with client.stream("count", 20_000) as rows:
            if works == "consumer":
                while counter.ended == 0:  # noqa: ASYNC110 - the end is what is waited for
                    await trio.sleep(0.001)
                await wait_all_tasks_blocked()
            nursery.start_soon(other)
            before, taken = turns, 0
            async for _ in rows:
                taken += 1
            assert turns - before >= 20_000 // 256 - 2
        nursery.cancel_scope.cancel()
    assert taken == 20_000


async def test_a_consumer_that_waits_keeps_reading_on(autojump_clock: MockClock) -> None:
    """Its inbox is full, and the item that it waits for is behind that."""
    release = trio.Event()
    router = pyipc.Router()

    @router.on("blocked")
    async def blocked(message: Message[Any]) -> None:
        await release.wait()

    async with (
        asking(router=router, inbox_high_water_size=1_000) as (connection, peer),
        connection.stream("rows") as rows,
    ):
        await peer.send(frame("blocked", "x" * 500) * 100)
        await wait_all_tasks_blocked()
        assert connection.statistics().reading_paused
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.send, frame("pyipc.item", {"call": 1, "data": 5}))
                assert await anext(rows) == 5
                scope.cancel()
        release.set()


@pytest.mark.parametrize("timeout", [60.0, None])
async def test_a_peer_that_gives_no_credit_is_not_waited_for_for_ever(
    timeout: float | None, counter: Counter, autojump_clock: MockClock
) -> None:
    async with asked(counter, stream_stall_timeout=timeout, heartbeat_interval=None) as (peer, server):
        await peer.send(opening(1, "count", 9, items=1), opening(2, "count", 9, items=0), opening(3, "count", 9))
        for _ in range(11):  # the credit of one of them, and all of the last with its end
            await peer.read()
        assert counter.ended == 1
        await trio.sleep(59)
        await peer.send(credit(1, items=1))  # which begins the time anew
        await peer.read_until("pyipc.item")
        await trio.sleep(59)
        if timeout is None:
            await trio.sleep(600)
            assert counter.ended == 1
            return
        assert counter.ended == 2
        stalled = await peer.read_until("pyipc.error")
        assert (stalled["call"], stalled["code"]) == (2, "stalled")
        assert "stream_stall_timeout" in stalled["message"]
        await trio.sleep(2)
        assert counter.ended == 3
        assert (await peer.read_until("pyipc.error"))["call"] == 1
        assert server.statistics().connections == 1


ATTACHING = {"versions": [1], "features": ["attachments", "streams"], "max_attachments_size": 1_000}


def record(data: bytes) -> bytes:
    return b"\x01" + len(data).to_bytes(8, "big") + data


@pytest.mark.parametrize("greets", [False, True])
async def test_what_is_attached_to_the_opening_reaches_the_handler(greets: bool, autojump_clock: MockClock) -> None:
    router = pyipc.Router()

    @router.on("rows")
    async def rows(message: Message[Any]) -> AsyncIterator[list[str]]:
        yield [bytes(one).decode() for one in message.attachments]

    server = pyipc.Server(router=router)
    if greets:
        server.on_connect(lambda connection: trio.sleep(1))
    async with server:
        peer = join(server)
        await peer.send(frame("pyipc.hello", ATTACHING), record(b"a"), record(b"bc"), opening(1, "rows"))
        assert await peer.read_until("pyipc.item") == {"call": 1, "data": ["a", "bc"]}
        await peer.link.aclose()


@pytest.mark.parametrize("surplus", [0, 1])
async def test_what_is_attached_takes_credit_too(surplus: int, autojump_clock: MockClock) -> None:
    """Three bytes attached to a frame of 54 make 66."""
    item = record(b"abc") + frame("pyipc.item", {"call": 1, "data": "xxxxx"})
    assert len(item) - 1 == 66
    async with pyipc.Server(max_stream_size=66 + 1 - surplus, close_timeout=1) as server:
        peer = join(server)
        (connection,) = server.connections
        await peer.send(frame("pyipc.hello", ATTACHING))
        await peer.read_until("pyipc.welcome")
        async with connection.stream("rows") as asked:
            await peer.send(item + item)
            with contextlib.suppress(pyipc.ConnectionLost):
                for _ in range(2):
                    assert (await anext(asked)).attachments == (b"abc",)
            assert connection.is_open is not bool(surplus)
        await peer.link.aclose()


async def test_statistics_and_logs_know_no_payload(
    counter: Counter, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    router = pyipc.Router()

    @router.on("secret")
    async def secret(message: Message[int]) -> AsyncIterator[Any]:
        yield "hunter2"
        raise ValueError("no more")

    async with pair(router) as (client, _):
        for data in (1, "hunter2"):
            with pytest.raises((pyipc.RemoteError, pyipc.InvalidData)):
                async with client.stream("secret", data) as rows:
                    async for _ in rows:
                        assert "hunter2" not in repr(rows)
    assert "hunter2" not in caplog.text


async def test_who_takes_what_another_was_woken_for_does_not_take_its_place(autojump_clock: MockClock) -> None:
    """Else one of the two would never be woken, not even by the end."""
    async with asking() as (connection, peer), connection.stream("rows", timeout=5) as rows:
        taken: list[Any] = []

        async def first() -> None:
            async for row in rows:
                taken.append(row)  # noqa: PERF401 - the other is to see it at once

        async def second() -> None:
            while not rows._buffer and not taken:  # whoever of the two runs first
                await trio.lowlevel.checkpoint()
            try:
                while True:
                    taken.append(await anext(rows))
            except (StopAsyncIteration, trio.BusyResourceError):
                pass

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                await wait_all_tasks_blocked()
                nursery.start_soon(second)
                await peer.send(frame("pyipc.item", {"call": 1, "data": 1}))
                await wait_all_tasks_blocked()
                await peer.send(frame("pyipc.item", {"call": 1, "data": 2}), frame("pyipc.end", {"call": 1}))
        assert sorted(taken) == [1, 2]


async def test_an_event_for_a_stream_is_no_failure_of_its_handler(
    counter: Counter, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with pair(counter.router) as (client, server):
        await client.emit("count", 1)
        with pytest.raises(pyipc.RemoteError) as refused:
            await client.emit("count", 1, confirm=True)
        assert refused.value.code == "is-a-stream"
        (connection,) = server.connections
        assert connection.statistics().handler_errors == 0
    assert all(record.levelno < logging.ERROR and not record.exc_info for record in caplog.records)
