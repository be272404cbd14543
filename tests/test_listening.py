"""Events as an iterator: nothing missed, in order, nothing lost, and an end."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Message
from pyipc.testing import pair
from tests.wire import give_way

if TYPE_CHECKING:
    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(20)


def the_connection(server: pyipc.Server) -> pyipc.Connection:
    (connection,) = server.connections
    return connection


async def test_events_in_order_from_the_call_on() -> None:
    with trio.fail_after(5):
        async with pair() as (client, server):
            await server.broadcast("n", -1)
            await trio.testing.wait_all_tasks_blocked()
            events = client.events("n")
            for n in range(100):
                await server.broadcast("n", n)
            await trio.testing.wait_all_tasks_blocked()
            got = []
            async for message in events:
                got.append(message.data)
                if message.data == 99:
                    break
            assert got == list(range(100))


async def test_patterns_and_several_streams() -> None:
    with trio.fail_after(5):
        async with pair() as (client, server):
            exact, all_of_a, everything = client.events("a.b"), client.events("a.*"), client.events("**")
            for name in ("a.b", "a.c", "d"):
                await server.broadcast(name)
            assert (await exact.get()).event == "a.b"
            assert [(await all_of_a.get()).event for _ in range(2)] == ["a.b", "a.c"]
            assert [(await everything.get()).event for _ in range(3)] == ["a.b", "a.c", "d"]


async def test_leaving_the_loop_by_break_unregisters() -> None:
    with trio.fail_after(5):
        async with pair() as (client, server):

            async def first() -> Any:
                async for message in client.events("n"):
                    return message.data
                raise AssertionError("the stream ended")

            async def send() -> None:
                while True:
                    await server.broadcast("n", 1)
                    await trio.testing.wait_all_tasks_blocked()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                assert await first() == 1
                nursery.cancel_scope.cancel()
            gc.collect()
            await trio.testing.wait_all_tasks_blocked()
            statistics = client.statistics().connection
            assert statistics is not None
            unheard = statistics.unheard
            await server.broadcast("n", 2)
            await trio.testing.wait_all_tasks_blocked()
            statistics = client.statistics().connection
            assert statistics is not None
            assert statistics.unheard == unheard + 1


async def test_the_block_ends_the_stream() -> None:
    with trio.fail_after(5):
        async with pair() as (client, server):
            async with client.events("n") as events:
                await server.broadcast("n", 1)
                assert (await events.get()).data == 1
            with pytest.raises(trio.EndOfChannel):
                await events.get()
            events.close()
            assert [message async for message in events] == []


async def test_closing_wakes_who_waits() -> None:
    with trio.fail_after(5):
        async with pair() as (client, _):
            events = client.events("n")

            async def wait() -> None:
                with pytest.raises(trio.EndOfChannel):
                    await events.get()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                events.close()


async def test_removing_all_handlers_of_the_name_does_not_break_it() -> None:
    with trio.fail_after(5):
        async with pair() as (client, server):
            events = client.events("n")
            await server.broadcast("n", 1)
            await trio.testing.wait_all_tasks_blocked()
            client.off("n")
            await server.broadcast("n", 2)
            assert (await events.get()).data == 1
            events.close()


async def test_a_full_stream_holds_the_server_back_and_loses_nothing(autojump_clock: MockClock) -> None:
    total = 3_000
    async with pair(
        client_options={"inbox_high_water_size": 20_000}, server_options={"outbox_high_water_size": 10_000}
    ) as (client, server):
        events = client.events("n", max_buffered=10)
        sent = 0

        async def send() -> None:
            nonlocal sent
            for sent in range(total):
                await the_connection(server).emit("n", [sent, "x" * 100])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(5)
            statistics = client.statistics().connection
            assert statistics is not None
            assert statistics.reading_paused
            assert sent < total - 500
            got = [(await events.get()).data[0] for _ in range(total)]
        assert got == list(range(total))


async def test_waiting_for_an_event_goes_beyond_a_full_inbox() -> None:
    """The awaited event is behind many others: reading must go on while somebody waits for it."""
    client_router = pyipc.Router()
    client_router.on("noise", give_way)
    with trio.fail_after(10):
        async with pair(client_router=client_router, client_options={"inbox_high_water_size": 1_000}) as (
            client,
            server,
        ):

            async def send() -> None:
                for _ in range(500):
                    await the_connection(server).emit("noise", "x" * 100)
                await the_connection(server).emit("signal", 1)

            async with client.expect("signal") as answer, trio.open_nursery() as nursery:
                nursery.start_soon(send)
                assert (await answer.get(timeout=5)).data == 1


async def test_a_question_and_its_answer() -> None:
    router = pyipc.Router()

    @router.on("add")
    async def add(message: Message[list[int]]) -> None:
        await message.connection.emit("sum", sum(message.data))

    with trio.fail_after(5):
        async with pair(router) as (client, _):
            for n in range(20):
                async with client.expect("sum") as answer:
                    await client.emit("add", [n, 1])
                    assert (await answer.get(timeout=1)).data == n + 1


async def test_an_answer_that_does_not_come(autojump_clock: MockClock) -> None:
    async with pair() as (client, _), client.expect("sum") as answer:
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await answer.get(timeout=5)
        assert trio.current_time() - began == pytest.approx(5)


async def test_an_answer_does_not_come_over_a_lost_connection(autojump_clock: MockClock) -> None:
    async with pair() as (client, server):
        progress: list[Any] = []

        async def follow() -> None:
            async for message in client.events("progress"):
                progress.append(message.data)  # noqa: PERF401 - each at once

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            async with client.expect("sum") as answer:
                await the_connection(server).emit("sum", 1)
                await the_connection(server).emit("sum", 2)
                await the_connection(server).aclose()
                assert (await answer.get()).data == 1
                assert (await answer.get()).data == 2
                with pytest.raises(pyipc.ConnectionLost) as lost:
                    await answer.get()
                assert lost.value.maybe_handled
            # Plain events go on over the next connection.
            await trio.sleep(1)
            await server.broadcast("progress", 7)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert progress == [7]


async def test_streams_end_with_the_client() -> None:
    with trio.fail_after(5):
        async with pair() as (client, server):
            got: list[Any] = []
            answers: list[type[Exception]] = []

            async def follow() -> None:
                async for message in client.events("n"):
                    got.append(message.data)  # noqa: PERF401 - each at once

            async def expect() -> None:
                async with client.expect("sum") as answer:
                    try:
                        await answer.get()
                    except Exception as error:
                        answers.append(type(error))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow)
                nursery.start_soon(expect)
                await trio.testing.wait_all_tasks_blocked()
                await server.broadcast("n", 1)
                await trio.testing.wait_all_tasks_blocked()
                await client.aclose()
            assert got == [1]
            assert answers == [trio.EndOfChannel]


async def test_streams_of_a_client_that_gave_up(autojump_clock: MockClock) -> None:
    async with pair(client_options={"reconnect": False}) as (client, server):
        events = client.events("n")
        await server.broadcast("n", 1)
        await trio.testing.wait_all_tasks_blocked()
        await server.aclose()
        await trio.sleep(1)
        assert (await events.get()).data == 1
        with pytest.raises(pyipc.ConnectionLost, match="given up"):
            await events.get()


async def test_a_stream_that_is_made_too_late_ends_at_once(autojump_clock: MockClock) -> None:
    """After the client has been closed, or has given up, no event can come."""
    async with pair(client_options={"reconnect": False}) as (client, server):
        await server.aclose()
        await trio.sleep(1)
        with pytest.raises(pyipc.ConnectionLost):
            await client.events("n").get(timeout=5)
    with pytest.raises(trio.EndOfChannel):
        await client.events("n").get(timeout=5)


async def test_cancelling_a_wait_loses_no_event(autojump_clock: MockClock) -> None:
    async with pair() as (client, server):
        events = client.events("n")
        got: list[Any] = []
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for n in range(200):
                    await server.broadcast("n", n)
                    await trio.sleep(0.01)

            nursery.start_soon(send)
            while len(got) < 200:
                with trio.move_on_after(0.01):
                    while True:
                        got.append((await events.get()).data)
        assert got == list(range(200))


async def test_several_tasks_share_a_stream() -> None:
    got: list[int] = []
    with trio.fail_after(5):
        async with pair() as (client, server):
            events = client.events("n")

            async def take() -> None:
                for _ in range(20):
                    got.append((await events.get()).data)  # noqa: PERF401 - each at once

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(take)
                for n in range(100):
                    await server.broadcast("n", n)
    assert sorted(got) == list(range(100))


async def test_a_stream_needs_room() -> None:
    with trio.fail_after(5):
        async with pair() as (client, _):
            with pytest.raises(ValueError, match="max_buffered"):
                client.events("n", max_buffered=0)
            with pytest.raises(pyipc.InvalidEventName):
                client.events("pyipc.ping")
