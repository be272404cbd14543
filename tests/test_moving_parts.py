"""What takes more than one message, while its server is drained: it goes on where it began, or moves as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

import pyipc
from tests.conformance.sides import until
from tests.wire import WirePeer, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

OLD, NEW = "memory:old", "memory:new"


async def test_a_stream_goes_on_where_it_began(autojump_clock: MockClock) -> None:
    async with pyipc.Server(OLD) as old, pyipc.Server(NEW) as new, pyipc.connect(OLD, NEW) as client:
        for server, name in ((old, "old"), (new, "new")):

            @server.on("rows")
            async def rows(message: pyipc.Message[None], name: str = name) -> AsyncIterator[tuple[str, int]]:
                for number in range(50):
                    await trio.sleep(0.1)
                    yield name, number

        got: list[list[object]] = []
        async with trio.open_nursery() as nursery, client.stream("rows") as stream:
            async for row in stream:
                got.append(row)
                if len(got) == 5:
                    nursery.start_soon(old.drain)
                if len(got) == 10:
                    assert client.statistics().departing == 1
                    async with client.stream("rows") as other:
                        assert await anext(aiter(other)) == ["new", 0]
        assert got == [["old", number] for number in range(50)]
        await until(lambda: client.statistics().departing == 0)
        assert not old.connections


async def test_an_event_to_be_confirmed_is_confirmed_where_it_was_sent(autojump_clock: MockClock) -> None:
    async with pyipc.Server(OLD) as old, pyipc.Server(NEW) as new, pyipc.connect(OLD, NEW) as client:
        handled: list[str] = []

        @old.on("pay")
        async def pay(message: pyipc.Message[int]) -> None:
            await trio.sleep(5)
            handled.append(f"old {message.data}")

        new.on("pay", lambda message: handled.append(f"new {message.data}"))
        reports: list[pyipc.DrainReport] = []

        async def drain() -> None:
            reports.append(await old.drain())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.emit("pay", 1, confirm=True))
            await trio.sleep(1)
            nursery.start_soon(drain)
            await until(lambda: client.statistics().moves == 1 and client.connected)
            await client.emit("pay", 2, confirm=True)
            assert handled == ["new 2"]
        assert handled == ["new 2", "old 1"]
        assert reports == [pyipc.DrainReport(left=1)]


async def test_subscriptions_move_and_nothing_comes_twice(autojump_clock: MockClock) -> None:
    got: list[object] = []
    async with pyipc.Server(OLD) as old, pyipc.Server(NEW) as new, pyipc.connect(OLD, NEW) as client:

        @old.on("slow")
        async def slow(message: pyipc.Message[None]) -> None:
            await trio.sleep(5)

        async with trio.open_nursery() as nursery, client.subscribe("news.*") as news:

            async def read(take: Callable[[object], None] = got.append) -> None:
                async for message in news:
                    take(message.data)

            nursery.start_soon(read)
            nursery.start_soon(client.request, "slow")  # which keeps the old connection for a while
            await trio.sleep(1)
            await old.publish("news.a", "old 1")
            nursery.start_soon(old.drain)
            await until(lambda: client.statistics().moves == 1 and client.connected)
            await trio.sleep(1)
            await new.publish("news.a", "new 1")
            await trio.sleep(10)
            await new.publish("news.a", "new 2")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert got == ["old 1", "new 1", "new 2"]


async def test_an_event_that_waits_for_room_on_the_old_connection_keeps_its_attachments(
    autojump_clock: MockClock,
) -> None:
    """Its connection is lost meanwhile, and it goes over the one that is there by then."""
    got: list[tuple[str, list[bytes]]] = []
    async with (
        pyipc.Server(OLD, inbox_high_water_size=1_000) as old,
        pyipc.Server(NEW) as new,
        pyipc.connect(OLD, NEW, outbox_high_water_size=1_000) as client,
        trio.open_nursery() as nursery,
    ):
        old.on("slow", lambda message: trio.sleep_forever())
        new.on("file", lambda message: got.append((message.data, list(message.attachments))))
        with trio.move_on_after(2):
            while True:
                await client.emit("slow", "x" * 60_000)

        async def send() -> None:
            await client.emit("file", "name", attachments=[b"contents"])

        nursery.start_soon(send)
        await trio.sleep(1)
        await old.drain(timeout=1)
        await until(lambda: len(got) > 0)
        assert got == [("name", [b"contents"])]


async def test_only_the_server_that_was_sent_an_event_confirms_it(autojump_clock: MockClock) -> None:
    """The client has moved on to another, which is asked to confirm something else, and says more than that."""
    listener = await pyipc.transports.transport_for("memory").listen(pyipc.parse_address(NEW), {})
    handled: list[int] = []
    confirmed: list[list[int]] = []
    async with pyipc.Server(OLD) as old, pyipc.connect(OLD, NEW) as client, trio.open_nursery() as nursery:

        @old.on("pay")
        async def pay(message: pyipc.Message[int]) -> None:
            await trio.sleep(10)
            handled.append(message.data)

        async def confirm(event: str) -> None:
            await client.emit(event, 7, confirm=True)
            confirmed.append(list(handled))

        nursery.start_soon(confirm, "pay")
        await trio.sleep(1)
        nursery.start_soon(old.drain)
        peer = WirePeer(await listener.accept())
        terms = {"instance": "other", "session_timeout": 120, "incarnation": "", "resumed": False}
        await peer.send(frame("pyipc.welcome", {"version": 1, "features": ["confirm"], "heartbeat": None} | terms))
        nursery.start_soon(confirm, "other")
        number = (await peer.read_until("pyipc.deliver"))["number"]
        for each in range(number + 1):
            await peer.send(frame("pyipc.outcome", {"number": each}))
        await until(lambda: len(confirmed) == 2)
        assert confirmed == [[], [7]]
        nursery.cancel_scope.cancel()
    await peer.link.aclose()
    await listener.aclose()
