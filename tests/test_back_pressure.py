"""Events that are handled slowly, while something on their connection waits for long: nothing is lost or locked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import pyipc
from pyipc import Message
from tests.conformance.sides import until
from tests.wire import frame, join

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(30)

SMALL: Any = {"inbox_high_water_size": 10_000, "max_inbox_size": 400_000}
FILL = "x" * 10_000


@pytest.mark.parametrize("waits_for", ["items", "credit", "topics"])
async def test_who_waits_for_long_does_not_switch_off_the_back_pressure(
    waits_for: str, autojump_clock: MockClock
) -> None:
    """Far more comes than the receiver may hold, and its handler is slow, while another task of it just waits."""
    router = pyipc.Router()
    handled: list[int] = []

    @router.on("work")
    async def work(message: Message[Any]) -> None:
        await trio.sleep(0.01)
        handled.append(message.data[0])

    @router.on("rows")
    async def rows(message: Message[Any]) -> AsyncIterator[str]:
        while True:
            if waits_for == "items":
                await trio.sleep_forever()
            yield FILL

    async with (
        pyipc.Server("memory:long", router=router, **SMALL) as server,
        pyipc.connect("memory:long", router=router, **SMALL) as client,
        trio.open_nursery() as nursery,
    ):

        async def wait() -> None:
            if waits_for == "topics":
                async with client.subscribe("news") as news:
                    await news.get()
            else:
                async with client.stream("rows", timeout=None) as asked:
                    if waits_for == "items":
                        await anext(asked)
                    await trio.sleep_forever()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        (connection,) = server.connections
        sender: Any = client if waits_for == "credit" else connection
        for number in range(200):
            await sender.emit("work", [number, FILL])
        await until(lambda: len(handled) == 200)
        assert handled == list(range(200))
        assert client.statistics().connects == 1
        nursery.cancel_scope.cancel()


async def test_a_handler_that_feeds_a_stream_of_its_own_connection_goes_on(autojump_clock: MockClock) -> None:
    """What it puts is taken by a generator, which waits for credit, which stands behind more events than have room.

    That the one waits for the other cannot be seen from outside.
    """
    router = pyipc.Router()
    handled: list[int] = []
    feed, eat = trio.open_memory_channel[int](0)

    @router.on("put")
    async def put(message: Message[Any]) -> None:
        await feed.send(message.data[0])
        handled.append(message.data[0])

    @router.on("rows")
    async def rows(message: Message[Any]) -> AsyncIterator[int]:
        async for number in eat:
            yield number

    async with pyipc.Server(router=router, **SMALL) as server:
        peer = join(server)
        (connection,) = server.connections
        await peer.send(frame("pyipc.stream", {"call": 1, "event": "rows", "items": 1, "size": 1}))
        for number in range(9):
            await peer.send(frame("put", [number, FILL]))
        await wait_all_tasks_blocked()
        assert connection.statistics().inbox_size > 2 * SMALL["inbox_high_water_size"]
        await peer.send(frame("pyipc.credit", {"call": 1, "items": 100, "size": 10_000}))
        for number in range(9):
            assert await peer.read() == ("pyipc.item", {"call": 1, "data": number})
        await until(lambda: len(handled) == 9)
        await peer.link.aclose()


@pytest.mark.parametrize("who", ["on_connect", "event", "request", "child"])
async def test_a_handler_that_reads_a_stream_of_its_own_connection_goes_on_beyond(
    who: str, autojump_clock: MockClock
) -> None:
    """Its item stands behind more events than anybody else would have let in, none of which can be handled before."""
    router = pyipc.Router()
    taken: list[int] = []

    async def read(connection: pyipc.Connection) -> None:
        await trio.sleep(1)  # by then the peer has introduced itself
        async with connection.stream("rows") as rows:
            taken.append(await anext(rows))

    @router.on("event")
    @router.on("request")
    async def handle(message: Message[Any]) -> None:
        if message.data == "child":
            async with trio.open_nursery() as nursery:
                await trio.lowlevel.checkpoint()
                nursery.start_soon(read, message.connection)
        else:
            await read(message.connection)

    server = pyipc.Server(router=router, max_concurrent_requests=1, **SMALL)
    if who == "on_connect":
        server.on_connect(read)
    async with server:
        peer = join(server)
        (connection,) = server.connections
        await peer.send(frame("pyipc.hello", {"versions": [1], "features": ["streams"], "heartbeat": None}))
        if who == "request":
            await peer.send(frame("pyipc.request", {"call": 1, "event": "request"}))
            router.on("busy", lambda message: trio.sleep(1_000))
            await peer.send(frame("busy"))
        elif who != "on_connect":
            await peer.send(frame("event", who))
        await peer.read_until("pyipc.stream")
        for _ in range(30):
            await peer.send(frame("other", FILL))
        await wait_all_tasks_blocked()
        assert connection.statistics().inbox_size > SMALL["max_inbox_size"] // 2
        await peer.send(frame("pyipc.item", {"call": 1, "data": 7}))
        await until(lambda: taken == [7])
        assert connection.is_open
        await peer.link.aclose()


@pytest.mark.parametrize("what", ["request", "stream", "waiting"])
async def test_a_cancel_behind_more_events_than_have_room_is_heard(what: str, autojump_clock: MockClock) -> None:
    """The handler that is cancelled would else be at work until the events before are handled, however long that is."""
    router = pyipc.Router()
    stopped: list[float] = []

    @router.on("slow")
    async def slow(message: Message[Any]) -> None:
        await trio.sleep(1_000)

    @router.on("request")
    async def request(message: Message[Any]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            stopped.append(trio.current_time())

    @router.on("stream")
    async def stream(message: Message[Any]) -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            stopped.append(trio.current_time())

    slots = {"max_concurrent_requests": 1} if what == "waiting" else {}
    async with (
        pyipc.Server("memory:behind", router=router, **slots, **SMALL) as server,
        pyipc.connect("memory:behind") as client,
        trio.open_nursery() as nursery,
    ):
        scope = trio.CancelScope()

        async def ask() -> None:
            if what == "stream":
                async with client.stream("stream", timeout=None) as rows:
                    async for _ in rows:
                        pass
            else:
                await client.request("request", timeout=None)

        async def ask_all() -> None:
            with scope:
                async with trio.open_nursery() as nursery:
                    for _ in range(3 if what == "waiting" else 1):
                        nursery.start_soon(ask)

        nursery.start_soon(ask_all)
        await wait_all_tasks_blocked()
        for _ in range(15):
            await client.emit("slow", FILL)
        await client.flush()
        (connection,) = server.connections
        await until(lambda: connection.statistics().inbox_size > 5 * SMALL["inbox_high_water_size"])
        before = trio.current_time()
        scope.cancel()
        await trio.sleep(10)
        assert stopped == [pytest.approx(before, abs=1)]
        assert connection.statistics().concurrent_requests == 0


async def test_requests_at_work_do_not_switch_off_the_back_pressure(autojump_clock: MockClock) -> None:
    """More is read than else, half of what may wait, and then no more: whoever sends waits, and nothing is closed."""
    router = pyipc.Router()
    handled: list[int] = []

    @router.on("work")
    async def work(message: Message[Any]) -> None:
        await trio.sleep(0.01)
        handled.append(message.data[0])

    @router.on("request")
    async def request(message: Message[Any]) -> None:
        await trio.sleep_forever()

    async with (
        pyipc.Server("memory:at-work", router=router, **SMALL) as server,
        pyipc.connect("memory:at-work") as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.request, "request")
        await wait_all_tasks_blocked()
        (connection,) = server.connections
        most = 0
        for number in range(200):
            await client.emit("work", [number, FILL])
            most = max(most, connection.statistics().inbox_size)
        await until(lambda: len(handled) == 200)
        assert handled == list(range(200))
        assert SMALL["max_inbox_size"] // 2 < most < SMALL["max_inbox_size"]
        assert client.statistics().connects == 1
        nursery.cancel_scope.cancel()
