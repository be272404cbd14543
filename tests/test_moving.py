"""A client whose server asks it to go elsewhere, or that has several addresses, or may send a request again."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import pyipc
from pyipc.protocol.addresses import parse_address
from pyipc.testing import pair
from pyipc.transports import Link, Listener, transport_for
from tests.conformance.sides import until

if TYPE_CHECKING:
    from trio.testing import MockClock

    from pyipc.options import OptionOverrides

ADDRESS = "memory:moving"
WELCOME = b'{"type":"pyipc.welcome","data":{"version":1}}\f'
GOAWAY = b'{"type":"pyipc.goaway","data":{"message":"update"}}\f'


async def listen(address: str = ADDRESS) -> Listener:
    """A server in the hands of the test."""
    return await transport_for("memory").listen(parse_address(address), {})


async def meet(listener: Listener) -> Link:
    """The next client, once it has introduced itself."""
    link = await listener.accept()
    assert (await link.receive()).startswith(b'{"type":"pyipc.hello"')
    await link.send(WELCOME)
    return link


def reply(call: int, data: int) -> bytes:
    return b'{"type":"pyipc.reply","data":{"call":%d,"data":%d}}\f' % (call, data)


# --- going elsewhere ---


async def test_new_work_goes_to_a_new_connection_and_old_work_stays(autojump_clock: MockClock) -> None:
    listener = await listen()
    met: list[pyipc.Connection] = []
    gone: list[pyipc.Disconnected] = []
    answers: dict[str, int] = {}
    async with trio.open_nursery() as nursery:

        async def program() -> None:
            async with pyipc.connect(ADDRESS, on_connect=met.append, on_disconnect=gone.append) as client:
                clients.append(client)

                async def ask(name: str) -> None:
                    answers[name] = await client.request(name)

                async with trio.open_nursery() as asking:
                    asking.start_soon(ask, "old")
                    await until(lambda: client.statistics().moves == 1)
                    asking.start_soon(ask, "new")
                await until(lambda: len(gone) == 1)

        clients: list[pyipc.Client] = []
        nursery.start_soon(program)
        first = await meet(listener)
        assert b'"event":"old"' in await first.receive()
        began = trio.current_time()
        await first.send(GOAWAY)
        second = await meet(listener)
        assert trio.current_time() - began < 0.05  # without a pause
        assert b'"event":"new"' in await second.receive()
        assert clients[0].statistics().departing == 1
        assert "1 departing" in repr(clients[0])
        await second.send(reply(1, 2))
        await trio.sleep(10)
        assert answers == {"new": 2}
        assert not gone
        await first.send(reply(1, 1))
        assert await first.receive() == b""  # it has finished sending, without a goodbye, and still takes what comes
        await first.aclose()
        with pytest.raises(pyipc.ConnectionLost):
            while await second.receive():
                pass
            await second.aclose()
            raise pyipc.ConnectionLost("it said goodbye")
    assert answers == {"new": 2, "old": 1}
    assert [reason.connection for reason in gone] == met
    assert [reason.code for reason in gone] == ["finished", "closed"]
    assert not gone[0].by_peer
    await listener.aclose()


async def test_what_a_server_sends_until_its_end_is_handled(autojump_clock: MockClock) -> None:
    listener = await listen()
    seen: list[object] = []
    router = pyipc.Router()
    router.on("news", lambda message: seen.append(message.data))
    async with trio.open_nursery() as nursery:

        async def program() -> None:
            async with pyipc.connect(ADDRESS, router=router):
                await until(lambda: len(seen) == 3)

        nursery.start_soon(program)
        first = await meet(listener)
        await first.send(b'{"type":"news","data":1}\f' + GOAWAY + b'{"type":"news","data":2}\f')
        second = await meet(listener)
        assert await first.receive() == b""
        await first.send(b'{"type":"news","data":3}\f')
        await first.aclose()
        while await second.receive():
            pass
        await second.aclose()
    assert seen == [1, 2, 3]
    await listener.aclose()


async def test_a_handler_at_work_and_an_expected_answer_keep_the_old_connection(autojump_clock: MockClock) -> None:
    listener = await listen()
    router = pyipc.Router()
    at_work, go_on = trio.Event(), trio.Event()

    @router.on("work")
    async def work(message: pyipc.Message[None]) -> None:
        at_work.set()
        await go_on.wait()
        await message.connection.emit("done")

    got: list[object] = []
    async with trio.open_nursery() as nursery:

        async def program() -> None:
            async with pyipc.connect(ADDRESS, router=router) as client:
                async with client.expect("sum") as answer:
                    await client.emit("add", [1, 2])
                    got.append((await answer.get()).data)
                await until(lambda: client.statistics().moves == 1 and not client.statistics().departing)

        nursery.start_soon(program)
        first = await meet(listener)
        await first.send(b'{"type":"work"}\f')
        await at_work.wait()
        await first.send(GOAWAY)
        second = await meet(listener)
        await trio.sleep(5)
        go_on.set()
        assert b'"add"' in await first.receive()
        assert b'"done"' in await first.receive()
        await first.send(b'{"type":"sum","data":3}\f')
        assert await first.receive() == b""
        await first.aclose()
        while await second.receive():
            pass
        await second.aclose()
    assert got == [3]
    await listener.aclose()


async def test_the_end_of_the_old_connection_is_the_end_of_what_was_expected_there_alone(
    autojump_clock: MockClock,
) -> None:
    listener = await listen()
    async with trio.open_nursery() as nursery:

        async def program() -> None:
            async with pyipc.connect(ADDRESS) as client, client.expect("old") as old:
                await until(lambda: client.statistics().moves == 1 and client.connected)
                async with client.expect("new") as new:
                    with pytest.raises(pyipc.ConnectionLost):
                        await old.get()
                    assert (await new.get()).data == 1

        nursery.start_soon(program)
        first = await meet(listener)
        await first.send(GOAWAY)
        second = await meet(listener)
        await trio.sleep(1)
        await first.aclose()
        await trio.sleep(1)
        await second.send(b'{"type":"new","data":1}\f')
        while await second.receive():
            pass
        await second.aclose()
    await listener.aclose()


async def test_without_a_new_server_the_old_one_is_left_all_the_same(autojump_clock: MockClock) -> None:
    listener = await listen()
    async with trio.open_nursery() as nursery:

        async def program() -> None:
            async with pyipc.connect(ADDRESS, reconnect_jitter=False) as client:
                await until(lambda: client.statistics().moves == 1)
                await client.emit("seen", 1)
                with pytest.raises(pyipc.RequestTimeout, match=r"no connection \(.*about to close: update\)|nobody"):
                    await client.request("sum", timeout=1)
                assert client.statistics().offline_messages == 1
                await until(lambda: client.connected)

        nursery.start_soon(program)
        first = await meet(listener)
        await listener.aclose()
        await first.send(GOAWAY)
        assert await first.receive() == b""
        await first.aclose()
        await trio.sleep(3)
        listener = await listen()
        second = await listener.accept()
        got = b""
        while chunk := await second.receive():
            got += chunk
        assert b'{"type":"seen","data":1}' in got
        await second.aclose()
    await listener.aclose()


async def test_servers_that_all_send_it_away_are_not_overrun(autojump_clock: MockClock) -> None:
    listener = await listen()
    times: list[float] = []
    async with trio.open_nursery() as nursery:

        async def refer() -> None:
            while True:
                link = await meet(listener)
                times.append(trio.current_time())
                await link.send(GOAWAY)
                nursery.start_soon(end, link)

        async def end(link: Link) -> None:
            while await link.receive():
                pass
            await link.aclose()

        nursery.start_soon(refer)
        async with pyipc.connect(ADDRESS, reconnect_jitter=False) as client:
            await trio.sleep(60)
            assert client.statistics().moves == len(times)
        nursery.cancel_scope.cancel()
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses[0] < 0.05
    assert pauses[1:5] == pytest.approx([0.1, 0.2, 0.4, 0.8], abs=0.05)
    assert len(times) < 15
    await listener.aclose()


async def test_what_the_old_connection_could_not_send_goes_to_the_new_one(autojump_clock: MockClock) -> None:
    listener = await listen()
    events = [b'{"type":"e","data":"%d%s"}' % (number, b"x" * 30_000) for number in range(10)]
    async with trio.open_nursery() as nursery:

        async def program() -> None:
            async with pyipc.connect(ADDRESS, max_frame_size=100_000, outbox_high_water_size=1_000_000) as client:
                for number in range(10):
                    await client.emit("e", f"{number}{'x' * 30_000}")
                await until(lambda: client.statistics().moves == 1 and client.connected)
                await until(lambda: client.statistics().departing == 0)

        nursery.start_soon(program)
        first = await meet(listener)
        await first.send(GOAWAY)
        second = await meet(listener)
        await trio.sleep(1)
        by_old, by_new = bytearray(), bytearray()
        for _ in range(2):
            by_old += await first.receive()
        await first.aclose()  # in the middle: some of the events have not left the client
        while chunk := await second.receive():
            by_new += chunk
        await second.aclose()
    arrived = [[frame for frame in bytes(got).split(b"\f") if frame in events] for got in (by_old, by_new)]
    assert arrived[0] == events[: len(arrived[0])]
    assert len(arrived[1]) >= 4
    assert arrived[1] == events[-len(arrived[1]) :]
    assert (
        len(arrived[0]) + len(arrived[1]) <= 10
    )  # what was being written when it broke may be lost; nothing is doubled
    await listener.aclose()


async def test_closing_closes_both(autojump_clock: MockClock) -> None:
    gone: list[str] = []
    async with pyipc.Server(ADDRESS) as old:
        asked = trio.Event()

        @old.on("slow")
        async def slow(message: pyipc.Message[None]) -> None:
            asked.set()
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            async with pyipc.connect(ADDRESS, on_disconnect=lambda reason: gone.append(reason.code)) as client:

                async def ask() -> None:
                    with pytest.raises(pyipc.ConnectionClosed):
                        await client.request("slow")

                nursery.start_soon(ask)
                await asked.wait()
                nursery.start_soon(old.drain)
                await until(lambda: old.draining)
                async with pyipc.Server(ADDRESS) as new:
                    await client.wait_connected()
                    assert client.statistics().departing == 1
                    await client.aclose()
                    await until(lambda: client.statistics().departing == 0)
                    assert not new.connections
            await until(lambda: not old.connections)
    assert gone == ["closed", "closed"]


async def test_a_cancelled_block_leaves_both_at_once(autojump_clock: MockClock) -> None:
    async with pyipc.Server(ADDRESS) as old, trio.open_nursery() as nursery:
        asked = trio.Event()

        @old.on("slow")
        async def slow(message: pyipc.Message[None]) -> None:
            asked.set()
            await trio.sleep_forever()

        with trio.CancelScope() as scope:
            async with pyipc.connect(ADDRESS) as client, trio.open_nursery() as asking:
                asking.start_soon(client.request, "slow")
                await asked.wait()
                nursery.start_soon(old.drain, 1000)
                await until(lambda: client.statistics().departing == 1)
                began = trio.current_time()
                scope.cancel()
        assert scope.cancelled_caught
        assert trio.current_time() == began
        await until(lambda: not old.connections)


# --- several addresses ---


async def test_whichever_address_answers_is_used_and_kept_to(autojump_clock: MockClock) -> None:
    failed: list[str] = []
    async with pyipc.Server("memory:b") as b:
        b.on("who", lambda message: "b")
        async with pyipc.connect(
            "memory:a", "memory:b", on_failed_connect=lambda error: failed.append(str(error))
        ) as client:
            assert await client.request("who") == "b"
            assert len(failed) == client.statistics().failed_connects == 1
            assert "memory:a" in failed[0]
            assert repr(client) == "<Client memory:b or memory:a connected, 0 queued>"
            async with pyipc.Server("memory:a") as a:
                a.on("who", lambda message: "a")
                assert await client.request("who") == "b"
                await next(iter(b.connections)).aclose()
                assert await client.request("who") == "b"
                assert client.statistics().connects == 2
                await b.drain()
                assert await client.request("who") == "a"
    assert len(failed) == 1


async def test_the_one_that_is_about_to_close_is_tried_last(autojump_clock: MockClock) -> None:
    async with pyipc.Server("memory:b") as b, pyipc.Server("memory:a") as a:
        a.on("who", lambda message: "a")
        b.on("who", lambda message: "b")
        async with pyipc.connect("memory:a", "memory:b") as client:
            assert await client.request("who") == "a"
            await a.drain()
            assert await client.request("who") == "b"
            async with pyipc.Server("memory:a") as again:
                again.on("who", lambda message: "a again")
                assert await client.request("who") == "b"
                await b.drain()
                assert await client.request("who") == "a again"


async def test_errors_name_every_address_that_was_tried(autojump_clock: MockClock) -> None:
    with pytest.raises(
        pyipc.ConnectError, match=r"could not connect to memory:a or memory:b within 1 s: none of 2"
    ) as e:
        async with pyipc.connect("memory:a", "memory:b", connect_timeout=1):
            pass
    assert "memory:a" in str(e.value.__cause__)
    assert "memory:b" in str(e.value.__cause__)


async def test_addresses_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="must be of one framing"):
        async with pyipc.connect("memory:a", pyipc.Endpoint("memory:b", framing=pyipc.Raw())):
            pass
    with pytest.raises(ValueError, match="some are for streams, some for datagrams"):
        async with pyipc.connect("memory:a", "udp://127.0.0.1:1"):
            pass


async def test_a_udp_client_moves_if_it_has_another_address() -> None:
    async with pyipc.Server("udp://127.0.0.1:0") as one, pyipc.Server("udp://127.0.0.1:0") as two:
        one.on("who", lambda message: 1)
        two.on("who", lambda message: 2)
        async with pyipc.connect(one.addresses[0], two.addresses[0]) as client:
            assert await client.request("who") == 1
            assert await one.drain() == pyipc.DrainReport(left=1)
            assert await client.request("who") == 2
            assert client.statistics().connects == 2


# --- requests that may be sent again ---


@pytest.mark.parametrize("idempotent", [False, True])
async def test_an_idempotent_request_is_sent_again_though_it_may_have_been_handled(
    idempotent: bool, autojump_clock: MockClock
) -> None:
    handled: list[pyipc.Connection] = []
    async with pyipc.Server(ADDRESS) as server, pyipc.connect(ADDRESS) as client:

        @server.on("get")
        async def get(message: pyipc.Message[int]) -> int:
            handled.append(message.connection)
            if len(handled) == 1:
                message.connection.abort("lost", "for a test")
                await trio.sleep_forever()
            return message.data

        if idempotent:
            assert await client.request("get", 5, idempotent=True) == 5
            assert len(handled) == 2
        else:
            with pytest.raises(pyipc.ConnectionLost) as lost:
                await client.request("get", 5)
            assert lost.value.maybe_handled
            assert len(handled) == 1


async def test_an_idempotent_request_outlives_a_drain_that_cuts_it_off(autojump_clock: MockClock) -> None:
    asked = trio.Event()
    async with pyipc.Server("memory:a", close_timeout=0.1) as a, pyipc.Server("memory:b") as b:

        @a.on("get")
        async def get(message: pyipc.Message[None]) -> None:
            asked.set()
            await trio.sleep_forever()

        b.on("get", lambda message: "b")
        answers: list[object] = []
        async with pyipc.connect("memory:a", "memory:b") as client, trio.open_nursery() as nursery:

            async def ask() -> None:
                answers.append(await client.request("get", idempotent=True))

            nursery.start_soon(ask)
            await asked.wait()
            assert (await a.drain(5)).cut_off == 1
        assert answers == ["b"]


async def test_all_attempts_of_an_idempotent_request_are_within_one_time(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with pyipc.Server(ADDRESS, close_timeout=0.1) as server, pyipc.connect(ADDRESS) as client:

        @server.on("get")
        async def get(message: pyipc.Message[None]) -> None:
            await trio.sleep(2)
            message.connection.abort("lost", "for a test")

        with pytest.raises(pyipc.RequestTimeout):
            await client.request("get", timeout=7, idempotent=True)
        assert trio.current_time() - began == pytest.approx(7, abs=0.1)


async def test_when_there_is_no_next_connection_it_is_still_told_that_it_may_have_been_handled(
    autojump_clock: MockClock,
) -> None:
    async with pyipc.Server(ADDRESS) as server, pyipc.connect(ADDRESS, reconnect=False) as client:

        @server.on("get")
        async def get(message: pyipc.Message[None]) -> None:
            message.connection.abort("lost", "for a test")
            await trio.sleep_forever()

        with pytest.raises(pyipc.ConnectionLost, match="given up") as lost:
            await client.request("get", idempotent=True)
        assert lost.value.maybe_handled


# --- who gives up waiting is heard by the handler ---


@pytest.mark.parametrize("give_up", ["cancel", "time-out"])
@pytest.mark.parametrize("where", ["handler", "inbox", "turn"])
async def test_giving_up_a_request_reaches_wherever_it_is(give_up: str, where: str, autojump_clock: MockClock) -> None:
    """At work, waiting for a slot of the peer's, or not sent at all."""
    router = pyipc.Router()
    begun: list[str] = []
    ended: list[str] = []

    @router.on("slow")
    async def slow(message: pyipc.Message[str]) -> None:
        begun.append(message.data)
        try:
            await trio.sleep_forever()
        finally:
            ended.append(message.data)

    slots: OptionOverrides = {"max_concurrent_requests": 1} if where == "inbox" else {}
    turns: OptionOverrides = {"max_pending_requests": 1} if where == "turn" else {}
    async with (
        pair(router, server_options=slots, client_options=turns) as (client, server),
        trio.open_nursery() as nursery,
    ):
        if where in ("inbox", "turn"):
            nursery.start_soon(client.request, "slow", "first")
            await until(lambda: begun == ["first"])
        with trio.CancelScope() as scope:
            if give_up == "cancel":

                async def cancel() -> None:
                    await trio.sleep(1)
                    scope.cancel()

                nursery.start_soon(cancel)
            try:
                await client.request("slow", "second", timeout=1 if give_up == "time-out" else None)
            except pyipc.RequestTimeout:
                assert give_up == "time-out"
        await trio.sleep(1)
        (connection,) = server.connections
        if where == "handler":
            assert begun == ended == ["second"]
            assert connection.statistics().concurrent_requests == 0
        else:
            assert begun == ["first"]
            assert not ended
            assert connection.statistics().inbox_size == 0
        nursery.cancel_scope.cancel()


async def test_giving_up_a_request_that_waits_behind_others_to_be_sent_follows_it(autojump_clock: MockClock) -> None:
    listener = await listen()
    async with trio.open_nursery() as nursery:

        async def program() -> None:
            async with pyipc.connect(ADDRESS, outbox_high_water_size=1_000_000) as client:
                for _ in range(10):
                    await client.emit("filler", "x" * 30_000)
                with pytest.raises(pyipc.RequestTimeout):
                    await client.request("slow", timeout=1)

        nursery.start_soon(program)
        link = await meet(listener)
        await trio.sleep(2)
        got = b""
        while b"goodbye" not in got:
            got += await link.receive()
        await link.aclose()
    frames = [frame for frame in got.split(b"\f") if b"filler" not in frame]
    assert frames[0].startswith(b'{"type":"pyipc.request","data":{"call":1')
    assert frames[1] == b'{"type":"pyipc.cancel","data":{"call":1}}'
    await listener.aclose()
