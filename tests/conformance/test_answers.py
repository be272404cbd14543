"""Streams of answers: in order, as fast as they are taken and no faster, and over for both sides at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.conformance.sides import cancelled_at, noise, until, until_quiet
from tests.conformance.subjects import Feature, needs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conformance.sides import Stage, Wire

pytestmark = pytest.mark.time_limit(60)


class Rows:
    """A handler of streams, and what has become of it."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        #: Items that were yielded, or are at their ``yield``.
        self.made = 0
        self.router = pyipc.Router()
        self.router.on("rows", self.rows)
        self.router.on("silent", self.silent)

    async def rows(self, message: pyipc.Message[Any]) -> AsyncIterator[Any]:
        """So many numbers, or texts of so many characters."""
        count, size = message.data
        self.begun += 1
        try:
            for number in range(count):
                self.made += 1
                yield noise(size) if size else number
        finally:
            self.ended += 1

    async def silent(self, message: pyipc.Message[Any]) -> AsyncIterator[Any]:
        """Some numbers, and then nothing for ever."""
        self.begun += 1
        try:
            for number in range(message.data):
                yield number
            await trio.sleep_forever()
        finally:
            self.ended += 1


async def until_over(wire: Wire) -> None:
    """Wait until neither side has a stream under way."""
    await until(lambda: not any(side.conn.statistics().open_streams for side in (wire.ours, wire.theirs)))


@needs(Feature.STREAMS)
async def test_items_arrive_in_order_and_then_the_end(stage: Stage) -> None:
    theirs = Rows()
    async with stage.open(theirs=theirs.router) as wire:
        async with wire.ours.conn.stream("rows", [5_000, 0]) as rows:
            assert [row async for row in rows] == list(range(5_000))
            with pytest.raises(StopAsyncIteration):
                await anext(rows)
        async with wire.ours.conn.stream("rows", [0, 0]) as rows:
            assert [row async for row in rows] == []
        async with wire.ours.conn.stream("rows", [10, 0], result=int) as typed:
            assert [row + 1 async for row in typed] == list(range(1, 11))
        await until_over(wire)
        ours, peers = wire.ours.conn.statistics(), wire.theirs.conn.statistics()
        assert (ours.streams_asked, ours.items_received) == (3, 5_010)
        assert (peers.streams_served, peers.items_sent) == (3, 5_010)
    assert theirs.begun == theirs.ended == 3


@needs(Feature.STREAMS, Feature.LARGE)
async def test_items_of_any_size(stage: Stage) -> None:
    """Each is larger than all the credit for bytes, and some than any buffer on the way."""
    sizes = [1, 100_000, 2, 900_000, 30, 300_000, 1]
    theirs = pyipc.Router()
    texts = [noise(size) for size in sizes]

    @theirs.on("texts")
    async def send(message: pyipc.Message[Any]) -> AsyncIterator[str]:
        for text in texts:
            yield text

    async with stage.open(theirs=theirs, max_stream_size=1_000) as wire, wire.ours.conn.stream("texts") as rows:
        assert [row async for row in rows] == texts


@needs(Feature.STREAMS, Feature.ATTACHMENTS)
async def test_attachments_count_as_part_of_an_item_on_both_sides(stage: Stage) -> None:
    """Else the credit would become less with every item, or more."""
    theirs = pyipc.Router()

    @theirs.on("pieces")
    async def pieces(message: pyipc.Message[Any]) -> AsyncIterator[Any]:
        for number in range(300):
            yield pyipc.Attached(number, [b"x" * (number * 7), b""]) if number % 3 else number

    async with (
        stage.open(theirs=theirs, max_stream_size=4_000) as wire,
        wire.ours.conn.stream("pieces", result=pyipc.Attached, timeout=10) as rows,
    ):
        assert [(row.data, len(b"".join(row.attachments))) async for row in rows] == [
            (number, number * 7 if number % 3 else 0) for number in range(300)
        ]


@needs(Feature.STREAMS, Feature.PRESSURE)
async def test_a_slow_consumer_holds_the_producer(stage: Stage) -> None:
    theirs = Rows()
    async with (
        stage.open(theirs=theirs.router, our_options={"max_stream_items": 8}) as wire,
        wire.ours.conn.stream("rows", [100, 0]) as rows,
    ):
        await until_quiet(lambda: theirs.made)
        assert theirs.made == 9  # eight are sent, and one stands at its yield
        for taken in range(1, 92):
            assert await anext(rows) == taken - 1
            await wire.ours.conn.request("conformance.ready")
            assert theirs.made <= taken + 9
        assert [row async for row in rows] == list(range(91, 100))


@needs(Feature.STREAMS, Feature.PRESSURE)
async def test_a_slow_consumer_holds_the_producer_of_large_items(stage: Stage) -> None:
    theirs = Rows()
    async with (
        stage.open(theirs=theirs.router, our_options={"max_stream_size": 50_000}) as wire,
        wire.ours.conn.stream("rows", [100, 20_000]) as rows,
    ):
        await until_quiet(lambda: theirs.made)
        assert theirs.made == 4  # with the third the credit is used up
        count = 0
        async for row in rows:
            assert len(row) == 20_000
            count += 1
            assert theirs.made <= count + 5
    assert count == 100


@needs(Feature.STREAMS)
@pytest.mark.parametrize("event", ["rows", "silent"])
async def test_leaving_the_block_ends_the_producer_wherever_it_stands(stage: Stage, event: str) -> None:
    theirs = Rows()
    data: Any = [100_000, 0] if event == "rows" else 3
    async with stage.open(theirs=theirs.router) as wire:
        for count in (0, 1, 3):
            async with wire.ours.conn.stream(event, data) as rows:
                for number in range(count):
                    assert await anext(rows) == number
            await until_over(wire)
        assert theirs.begun == theirs.ended
        assert await wire.ours.conn.request("conformance.ready") is True  # and nobody minds the items under way
        with pytest.raises(trio.ClosedResourceError):
            await anext(rows)


@needs(Feature.STREAMS)
async def test_an_error_comes_after_the_items_before_it(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    theirs = pyipc.Router()

    @theirs.on("breaks")
    async def breaks(message: pyipc.Message[Any]) -> AsyncIterator[int]:
        for number in range(message.data):
            yield number
        raise LookupError("no more of them")

    @theirs.on("unencodable")
    async def unencodable(message: pyipc.Message[Any]) -> AsyncIterator[object]:
        yield 1
        yield object()

    @theirs.on("too.large")
    async def too_large(message: pyipc.Message[Any]) -> AsyncIterator[object]:
        yield "x" * 2**20

    async with stage.open(theirs=theirs) as wire:
        for event, data, before, code in (
            ("breaks", 0, 0, "handler-failed"),
            ("breaks", 700, 700, "handler-failed"),
            ("unencodable", None, 1, "handler-failed"),
            ("too.large", None, 0, "reply-too-large"),
        ):
            taken = 0
            async with wire.ours.conn.stream(event, data) as rows:
                with pytest.raises(pyipc.RemoteError) as failed:
                    async for _ in rows:
                        taken += 1
                with pytest.raises(pyipc.RemoteError):
                    await anext(rows)
            assert (taken, failed.value.code) == (before, code)
        await until_over(wire)
        assert wire.theirs.conn.statistics().handler_errors == 4
    assert sum(record.exc_info is not None for record in caplog.records) == 4


@needs(Feature.STREAMS)
async def test_what_cannot_be_streamed_says_why(stage: Stage) -> None:
    theirs = Rows()
    called = False

    @theirs.router.on("plain")
    def plain(message: pyipc.Message[Any]) -> int:
        nonlocal called
        called = True
        return 1

    @theirs.router.on("typed")
    async def typed(message: pyipc.Message[dict[str, int]]) -> AsyncIterator[Any]:
        yield message.data["n"]
        yield "text"

    @theirs.router.once("once")
    async def once(message: pyipc.Message[Any]) -> AsyncIterator[Any]:
        yield "once"

    async def first(event: str, data: object = None, **options: Any) -> Any:
        async with wire.ours.conn.stream(event, data, **options) as rows:
            return await anext(rows)

    async with stage.open(theirs=theirs.router, their_options={"max_concurrent_streams": 1}) as wire:
        with pytest.raises(pyipc.NoHandler) as nobody:
            await first("nobody")
        assert nobody.value.event == "nobody"
        with pytest.raises(pyipc.RemoteError, match=r"request\(\)") as one_answer:
            await first("plain")
        assert one_answer.value.code == "not-a-stream"
        assert not called
        with pytest.raises(pyipc.RemoteError, match=r"stream\(\)") as many_answers:
            await wire.ours.conn.request("rows", [1, 0])
        assert many_answers.value.code == "is-a-stream"
        with pytest.raises(pyipc.InvalidData) as invalid:
            await first("typed", {"n": "three"})
        assert invalid.value.path.startswith("$")
        await until_over(wire)
        async with wire.ours.conn.stream("typed", {"n": 3}, result=int) as rows:
            assert await anext(rows) == 3
            with pytest.raises(pyipc.InvalidData) as unfit:
                await anext(rows)
            assert unfit.value.path == "$"
        assert await first("once") == "once"
        await until_over(wire)
        with pytest.raises(pyipc.NoHandler):
            await first("once")
        async with wire.ours.conn.stream("silent", 1) as rows:
            assert await anext(rows) == 0
            with pytest.raises(pyipc.RemoteError) as too_many:
                await first("rows", [1, 0])
            assert too_many.value.code == "too-many"
            with pytest.raises(pyipc.UnencodableData):
                await first("rows", object())
            with pytest.raises(pyipc.InvalidEventName):
                await first("pyipc.rows")


@needs(Feature.STREAMS)
async def test_no_item_in_time_ends_the_stream(stage: Stage) -> None:
    theirs = Rows()
    async with stage.open(theirs=theirs.router) as wire:
        async with wire.ours.conn.stream("silent", 2, timeout=0.05) as rows:
            assert [await anext(rows), await anext(rows)] == [0, 1]
            with pytest.raises(pyipc.RequestTimeout) as late:
                await anext(rows)
            assert (late.value.event, late.value.timeout) == ("silent", 0.05)
            await until_over(wire)
        assert theirs.ended == 1
        assert await wire.ours.conn.request("conformance.ready") is True


@needs(Feature.STREAMS, Feature.ENDING)
async def test_a_lost_connection_ends_both(stage: Stage) -> None:
    theirs = Rows()
    async with stage.open(theirs=theirs.router) as wire:
        connection = wire.ours.conn  # later there may be another
        async with connection.stream("silent", 3) as rows:
            await until(lambda: connection.statistics().items_received == 3)
            wire.theirs.conn.abort("test", "this is the end")
            assert [await anext(rows) for _ in range(3)] == [0, 1, 2]  # they had arrived before
            with pytest.raises(pyipc.ConnectionLost):
                await anext(rows)
        await until(lambda: theirs.ended == 1)
        with pytest.raises(pyipc.ConnectionClosed):
            async with connection.stream("silent", 3):
                pass


@needs(Feature.STREAMS, Feature.ENDING)
async def test_closing_ends_both(stage: Stage) -> None:
    theirs = Rows()
    async with stage.open(theirs=theirs.router) as wire:
        async with wire.ours.conn.stream("rows", [1_000_000, 0]) as rows:
            assert await anext(rows) == 0
            await wire.ours.conn.aclose()
            with pytest.raises(pyipc.ConnectionClosed):
                async for _ in rows:
                    pass
        await until(lambda: theirs.ended == 1)


@needs(Feature.STREAMS)
@pytest.mark.parametrize("leaves", [False, True])
async def test_a_server_that_drains_lets_streams_finish(stage: Stage, leaves: bool) -> None:
    ours, theirs = Rows(), Rows()
    async with stage.open(ours.router, theirs.router, max_stream_items=4) as wire, trio.open_nursery() as nursery:
        connection = wire.ours.conn
        async with connection.stream("rows", [200, 0]) as rows:
            assert await anext(rows) == 0
            drained = trio.Event()

            async def drain() -> None:
                report = await wire.server.drain()
                assert report.cut_off == 0
                drained.set()

            nursery.start_soon(drain)
            await trio.sleep(0.05)
            assert not drained.is_set()
            if not leaves:
                assert [row async for row in rows] == list(range(1, 200))
        await drained.wait()
    assert theirs.ended == 1


@needs(Feature.STREAMS)
async def test_a_cancelled_consumer_loses_no_item(stage: Stage) -> None:
    theirs = Rows()
    taken: list[int] = []

    async def take_one() -> None:
        taken.append(await anext(rows))

    async with (
        stage.open(theirs=theirs.router, our_options={"max_stream_items": 2}) as wire,
        wire.ours.conn.stream("rows", [200, 0]) as rows,
    ):
        step = 0
        while len(taken) < 200:
            step = step + 1 if await cancelled_at(step, take_one) else 0
    assert taken == list(range(200))


@needs(Feature.STREAMS)
async def test_streams_within_streams_finish_with_one_slot(stage: Stage) -> None:
    """Each handler consumes a stream of the other side, whose handler asks back."""
    ours, theirs = pyipc.Router(), pyipc.Router()

    async def count(message: pyipc.Message[int]) -> AsyncIterator[int]:
        if message.data:
            async with message.connection.stream("count", message.data - 1) as below:
                async for number in below:
                    yield number
            yield await message.connection.request("total", message.data - 1)

    async def total(message: pyipc.Message[int]) -> int:
        async with message.connection.stream("count", message.data) as numbers:
            return 1 + sum([int(number) async for number in numbers])

    for router in (ours, theirs):
        router.on("count", count)
        router.on("total", total)
    async with stage.open(ours, theirs, max_concurrent_requests=1, max_stream_items=1) as wire:
        # The sum s(n) of the stream of n: that of n - 1, and 1 + s(n - 1).
        assert await wire.ours.conn.request("total", 6) == 2**6
        await until_over(wire)


@needs(Feature.STREAMS, Feature.PRESSURE)
async def test_both_sides_stream_what_arrives_and_nobody_waits_for_ever(stage: Stage) -> None:
    """Events fill what a stream sends back, both ways at once, with little room anywhere."""
    count = 300
    text = noise(2_000)

    def echoing() -> pyipc.Router:
        router = pyipc.Router()
        send, receive = trio.open_memory_channel[Any](0)

        @router.on("say")
        async def say(message: pyipc.Message[Any]) -> None:
            await send.send(message.data)

        @router.on("said")
        async def said(message: pyipc.Message[Any]) -> AsyncIterator[Any]:
            for _ in range(count):
                yield await receive.receive()

        return router

    async def use(connection: pyipc.Connection) -> None:
        async def say_all() -> None:
            for number in range(count):
                await connection.emit("say", [number, text])

        async with connection.stream("said") as rows, trio.open_nursery() as nursery:
            nursery.start_soon(say_all)
            assert [number async for number, _ in rows] == list(range(count))

    small: dict[str, Any] = {"inbox_high_water_size": 4_096, "outbox_high_water_size": 4_096, "max_stream_size": 4_096}
    async with stage.open(echoing(), echoing(), **small) as wire, trio.open_nursery() as nursery:
        nursery.start_soon(use, wire.ours.conn)
        nursery.start_soon(use, wire.theirs.conn)


@needs(Feature.STREAMS)
async def test_many_streams_share_a_connection(stage: Stage) -> None:
    theirs = Rows()

    async def take(count: int) -> None:
        async with wire.ours.conn.stream("rows", [count, 0]) as rows:
            expected = 0
            async for row in rows:
                assert row == expected
                expected += 1
                if expected % 50 == count % 50:
                    await trio.lowlevel.checkpoint()
        assert expected == count

    async with stage.open(theirs=theirs.router, max_stream_items=10) as wire:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(take, 10 * number)
        assert await wire.ours.conn.request("conformance.ready") is True
        await until_over(wire)


@pytest.mark.lacks(Feature.STREAMS)
@needs(Feature.MESSAGES)
async def test_where_any_of_it_may_be_lost_there_are_no_streams(stage: Stage) -> None:
    theirs = Rows()
    async with stage.open(theirs=theirs.router) as wire:
        with pytest.raises(pyipc.UnsupportedByTransport) as refused:
            async with wire.ours.conn.stream("rows", [1, 0]):
                pass
        assert refused.value.feature == "streams"
        assert await wire.ours.conn.request("conformance.ready") is True
    assert theirs.begun == 0
