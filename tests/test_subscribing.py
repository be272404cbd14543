"""A client's subscriptions: entering, buffers, coming back, ending. And publishing, with and without a connection."""

from __future__ import annotations

import logging
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.protocol.features import Published
from pyipc.testing import Faults, FaultyTransport, pair
from pyipc.transports import memory_link_pair
from tests.conformance.sides import until
from tests.test_client import Scripted
from tests.wire import WirePeer, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from pyipc.subscription import Policy

pytestmark = pytest.mark.time_limit(30)

WELCOME = frame("pyipc.welcome", {"version": 1, "features": ["topics"]})


def published(topic: str, data: Any = None, **more: Any) -> bytes:
    return frame("pyipc.published", {"topic": topic, "data": data, **more})


def reply(call: int) -> bytes:
    return frame("pyipc.reply", {"call": call, "data": None})


def failure(call: int, code: str) -> bytes:
    return frame("pyipc.error", {"call": call, "code": code, "message": "no"})


@asynccontextmanager
async def scripted(**options: Any) -> AsyncIterator[tuple[pyipc.Client, Scripted]]:
    """A client whose server is in the hands of the test, which has welcomed it."""
    transport = Scripted()
    options = {"reconnect_interval": 0.01, "close_timeout": 0.1, **options}
    with trio.fail_after(20):
        async with pyipc.connect(transport.endpoint, **options) as client:
            await welcome(transport.peers[0])
            yield client, transport


async def welcome(peer: WirePeer) -> None:
    await peer.read_until("pyipc.hello")
    await peer.send(WELCOME)


async def next_peer(transport: Scripted, count: int) -> WirePeer:
    await until(lambda: len(transport.peers) == count)
    await welcome(transport.peers[-1])
    return transport.peers[-1]


async def answer(peer: WirePeer, *frames: bytes) -> None:
    await peer.read_until("pyipc.subscribe")
    await peer.send(*frames)


# --- entering ---------------------------------------------------------------------------------------------------


async def test_entering_asks_and_waits_for_the_answer() -> None:
    async with scripted() as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers
        subscription = client.subscribe("a.*", retained=False)
        assert repr(subscription) == "<Subscription 'a.*' not entered: 0 waiting, 0 dropped>"
        with pytest.raises(RuntimeError, match="enter the subscription first"):
            await subscription.get()
        nursery.start_soon(subscription.__aenter__)
        asked = await peer.read_until("pyipc.subscribe")
        assert asked == {"call": 1, "pattern": "a.*", "retained": False}
        # What comes before the answer belongs to nobody, and what comes right behind it to the subscription.
        await peer.send(published("a.x", 1), reply(1), published("a.x", 2), published("b", 3), published("a.y", 4))
        assert [(await subscription.get()).data for _ in range(2)] == [2, 4]
        with pytest.raises(RuntimeError, match="once"):
            await subscription.__aenter__()
        subscription.close()
        subscription.close()
        assert await peer.read_until("pyipc.unsubscribe") == {"call": 1}
        with pytest.raises(trio.EndOfChannel):
            await subscription.get()
        assert repr(subscription).startswith("<Subscription 'a.*' ended")
        assert client.statistics().subscriptions == 0


@pytest.mark.parametrize("code", ["not-allowed", "too-many", "bad-pattern"])
async def test_a_refusal_is_raised_and_leaves_nothing_behind(code: str) -> None:
    async with scripted() as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers

        async def enter() -> None:
            with pytest.raises(pyipc.RemoteError, match="no") as refused:
                async with client.subscribe("a"):
                    pytest.fail("it was refused")
            assert refused.value.code == code
            await client.emit("done")

        nursery.start_soon(enter)
        await peer.read_until("pyipc.subscribe")
        await peer.send(failure(1, code))
        # There is nothing to take back.
        assert await peer.read() == ("done", None)
        assert client.statistics().subscriptions == 0


async def test_no_answer_in_time(autojump_clock: MockClock) -> None:
    async with scripted(request_timeout=7) as (client, transport):
        began = trio.current_time()
        with pytest.raises(pyipc.RequestTimeout, match="subscribe a") as late:
            async with client.subscribe("a"):
                pytest.fail("nobody answered")
        assert late.value.timeout == 7
        assert trio.current_time() - began == pytest.approx(7, abs=0.1)
        # The server is told, since it may do it later.
        assert await transport.peers[0].read_until("pyipc.unsubscribe") == {"call": 1}
        await transport.peers[0].send(reply(1), published("a", 1))
        assert client.statistics().subscriptions == 0


async def test_a_cancelled_subscribe_has_not_subscribed_and_what_was_kept_for_it_reaches_nobody() -> None:
    async with scripted() as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers
        other = client.subscribe("a.*")
        nursery.start_soon(other.__aenter__)
        await peer.read_until("pyipc.subscribe")
        await peer.send(reply(1))
        scope = trio.CancelScope()

        async def enter() -> None:
            with scope:
                async with client.subscribe("a.x"):
                    pytest.fail("it was cancelled")

        nursery.start_soon(enter)
        assert (await peer.read_until("pyipc.subscribe"))["call"] == 2
        scope.cancel()
        assert await peer.read_until("pyipc.unsubscribe") == {"call": 2}
        statistics = client.statistics()
        assert statistics.connection is not None
        assert statistics.connection.pending_requests == 0
        await peer.send(reply(2), published("a.x", "kept", call=2), published("a.x", "new"))
        message = await other.get()
        assert (message.data, message.retained) == ("new", False)
        assert other.statistics().received == 1
        other.close()


@pytest.mark.parametrize("hello", [True, False])
async def test_a_server_without_topics(hello: bool, autojump_clock: MockClock) -> None:
    transport = Scripted()
    endpoint = pyipc.Endpoint("memory:scripted", transport=transport, hello=hello)
    async with pyipc.connect(endpoint, close_timeout=0.1, handshake_timeout=3) as client:
        began = trio.current_time()
        for _ in range(2):
            with pytest.raises(pyipc.PeerLacksFeature, match="has not introduced itself"):
                async with client.subscribe("a"):
                    pytest.fail("it is plain")
        with pytest.raises(pyipc.PeerLacksFeature):
            await client.publish("a")
        assert client.statistics().subscriptions == 0
        assert trio.current_time() - began == pytest.approx(9 if hello else 0, abs=0.1)


async def test_an_older_server() -> None:
    transport = Scripted()
    async with pyipc.connect(transport.endpoint, close_timeout=0.1) as client:
        await transport.peers[0].send(frame("pyipc.welcome", {"version": 1}))
        with pytest.raises(pyipc.PeerLacksFeature, match="older version"):
            async with client.subscribe("a"):
                pytest.fail("it is older")


async def test_what_cannot_be_subscribed_to() -> None:
    async with pair() as (client, server):
        for side in (client, server):
            for pattern in ("a*", "**.a", "", "pyipc.*", "x" * 257):
                with pytest.raises(pyipc.InvalidEventName):
                    side.subscribe(pattern)
            with pytest.raises(ValueError, match="max_buffered"):
                side.subscribe("a", max_buffered=0)
            with pytest.raises(ValueError, match="'drop_oldest', 'drop_newest', 'close'"):
                side.subscribe("a", policy="wait")  # type: ignore[arg-type]
        with pytest.raises(pyipc.InvalidEventName):
            await client.publish("a.*")


async def test_entering_waits_for_a_connection_or_not() -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    with trio.fail_after(10):
        async with pyipc.connect(transport.endpoint, wait=False, reconnect_interval=0.01, close_timeout=0.1) as client:
            async with trio.open_nursery() as nursery:
                subscription = client.subscribe("a")
                nursery.start_soon(subscription.__aenter__)
                await trio.testing.wait_all_tasks_blocked(0.02)
                transport.error = None
                peer = await next_peer(transport, 1)
                await peer.read_until("pyipc.subscribe")
                # The connection breaks before the answer: it is asked for over the next.
                await peer.link.aclose()
                peer = await next_peer(transport, 2)
                await peer.read_until("pyipc.subscribe")
                await peer.send(reply(1), published("a", 1))
            assert (await subscription.get()).data == 1
            assert subscription.statistics().restored == 0
        async with pyipc.connect(transport.endpoint, wait=False, offline="raise") as client:
            with pytest.raises(pyipc.ConnectionLost, match="not connected"):
                async with client.subscribe("a"):
                    pytest.fail("there is no connection")


async def test_a_subscribe_that_waits_does_not_keep_requests_from_their_turn() -> None:
    async with scripted(max_pending_requests=1) as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers
        subscription = client.subscribe("a")
        nursery.start_soon(subscription.__aenter__)
        await peer.read_until("pyipc.subscribe")
        nursery.start_soon(client.request, "e")
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(reply(1))
        assert (await peer.read_until("pyipc.request"))["call"] == 2
        await peer.send(reply(2))


# --- buffers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("drop_oldest", [7, 8, 9]), ("drop_newest", [0, 1, 2]), ("close", [0, 1, 2])],
)
async def test_more_than_it_holds(policy: Policy, expected: list[int], caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (client, server):
        async with (
            client.subscribe("t", max_buffered=3, policy=policy) as slow,
            client.subscribe("t") as fast,
        ):
            for number in range(10):
                await server.publish("t", number)
            assert [(await fast.get()).data for _ in range(10)] == list(range(10))
            assert [(await slow.get()).data for _ in range(3)] == expected
            if policy == "close":
                for _ in range(2):
                    with pytest.raises(pyipc.SubscriptionOverflow, match="max_buffered") as over:
                        await slow.get()
                assert (over.value.pattern, over.value.max_buffered) == ("t", 3)
                await until(lambda: server.statistics().subscriptions == 1)
                assert slow.statistics() == pyipc.SubscriptionStatistics(received=4, dropped=1, waiting=0, restored=0)
            else:
                assert slow.statistics() == pyipc.SubscriptionStatistics(received=10, dropped=7, waiting=0, restored=0)
                await server.publish("t", "more")
                assert (await slow.get()).data == "more"
        assert client.statistics().published_received == 10 + (policy != "close")
        assert client.statistics().published_dropped == (1 if policy == "close" else 7)
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == (policy != "close")


async def test_what_is_kept_reaches_the_new_subscription_alone() -> None:
    async with pair() as (client, server):
        await server.publish("state.a", 1, retain=True)
        async with client.subscribe("state.*") as first:
            assert (await first.get()).retained
            async with client.subscribe("state.**") as second, client.subscribe("**", retained=False) as third:
                message = await second.get()
                assert (message.event, message.data, message.retained) == ("state.a", 1, True)
                await server.publish("state.a", 2, retain=True)
                for subscription in (first, second, third):
                    message = await subscription.get()
                    assert (message.data, message.retained) == (2, False)
            assert [one.statistics().received for one in (first, second, third)] == [2, 2, 1]


async def test_getting_in_time_or_not(autojump_clock: MockClock) -> None:
    async with pair() as (client, server), client.subscribe("t") as subscription:
        with pytest.raises(trio.TooSlowError):
            await subscription.get(timeout=3)
        await server.publish("t", 1)
        assert (await subscription.get(timeout=3)).data == 1
        with trio.move_on_after(1) as scope:
            await subscription.get()
        assert scope.cancelled_caught
        await server.publish("t", 2)
        assert (await subscription.get()).data == 2


async def test_a_handler_that_waits_for_a_message_does_not_keep_it_from_being_read() -> None:
    router = pyipc.Router()
    got: list[Any] = []
    async with (
        pair(client_router=router, client_options={"inbox_high_water_size": 1_000}) as (client, server),
        client.subscribe("t") as subscription,
    ):

        @router.on("e")
        async def handler(message: pyipc.Message[Any]) -> None:
            got.append((await subscription.get()).data)

        for _ in range(50):
            await server.broadcast("e", "x" * 1_000)
        for number in range(50):
            await server.publish("t", number)
        await until(lambda: len(got) == 50)
    assert got == list(range(50))


# --- coming back ------------------------------------------------------------------------------------------------


async def test_the_words_of_the_server_are_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted() as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers
        subscription = client.subscribe("a")
        nursery.start_soon(subscription.__aenter__)
        await peer.read_until("pyipc.subscribe")
        await peer.send(reply(1), published("a", 1))
        assert (await subscription.get()).data == 1
        await peer.link.aclose()
        peer = await next_peer(transport, 2)
        await peer.read_until("pyipc.subscribe")
        words = "x\nCRITICAL:root:the disk is full\x1b[31m" + "y" * 5_000
        await peer.send(frame("pyipc.error", {"call": 1, "code": "no\nyes", "message": words}))
        with pytest.raises(pyipc.RemoteError) as error:
            await subscription.get()
        assert (error.value.code, error.value.message) == ("unknown", words)
        assert str(error.value).startswith("unknown: x\ufffdCRITICAL:root:the disk is full\ufffd[31myyy")
        assert len(str(error.value)) < 1_100
    (line,) = [record.getMessage() for record in caplog.records if "could not be restored" in record.getMessage()]
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 400


async def test_it_is_restored_and_a_refusal_then_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted() as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers
        lucky, refused = client.subscribe("lucky"), client.subscribe("refused")
        nursery.start_soon(lucky.__aenter__)
        await peer.read_until("pyipc.subscribe")
        nursery.start_soon(refused.__aenter__)
        await peer.read_until("pyipc.subscribe")
        await peer.send(reply(1), reply(2), published("lucky", 1), published("refused", 1))
        await until(lambda: refused.statistics().waiting == 1)
        await peer.link.aclose()
        peer = await next_peer(transport, 2)
        asked = [await peer.read_until("pyipc.subscribe") for _ in range(2)]
        assert [one["pattern"] for one in asked] == ["lucky", "refused"]
        await peer.send(published("lucky", "too early"), reply(1), failure(2, "not-allowed"), published("lucky", 2))
        assert [(await lucky.get()).data for _ in range(2)] == [1, 2]
        assert lucky.statistics().restored == 1
        assert (await refused.get()).data == 1
        with pytest.raises(pyipc.RemoteError) as error:
            await refused.get()
        assert error.value.code == "not-allowed"
        assert client.statistics().subscriptions == 1
        lucky.close()
    assert "the subscription to 'refused' could not be restored" in caplog.text


async def test_it_is_restored_before_what_was_queued_is_published() -> None:
    async with scripted() as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers
        subscription = client.subscribe("t")
        nursery.start_soon(subscription.__aenter__)
        await peer.read_until("pyipc.subscribe")
        await peer.send(reply(1), published("t", 0))
        assert (await subscription.get()).data == 0
        transport.error = pyipc.ConnectError("nobody there")
        await peer.link.aclose()
        await until(lambda: not client.connected)
        await client.publish("t", 1)
        transport.error = None
        peer = await next_peer(transport, 2)
        for expected in ("pyipc.subscribe", "pyipc.publish"):
            read = await peer.read()
            assert read is not None
            assert read[0] == expected
        subscription.close()


async def test_after_coming_back_to_another_kind_of_server_it_ends(autojump_clock: MockClock) -> None:
    async with scripted(handshake_timeout=2, session_timeout=1) as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers
        subscription = client.subscribe("a")
        nursery.start_soon(subscription.__aenter__)
        await peer.read_until("pyipc.subscribe")
        await peer.send(reply(1))
        await until(lambda: client.statistics().subscriptions == 1)
        await peer.link.aclose()
        await until(lambda: len(transport.peers) == 2)
        with pytest.raises(pyipc.PeerLacksFeature):
            await subscription.get()
        # Whatever else the client has to say goes on.
        await client.emit("e", 1)
        assert await transport.peers[1].read_until("e") == 1


async def test_a_server_that_is_only_slow_to_answer_does_not_end_it(autojump_clock: MockClock) -> None:
    """It was stopped, say: it takes connections, and says nothing for a while."""
    async with scripted(handshake_timeout=2) as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers
        subscription = client.subscribe("a")
        nursery.start_soon(subscription.__aenter__)
        await peer.read_until("pyipc.subscribe")
        await peer.send(reply(1))
        await until(lambda: client.statistics().subscriptions == 1)
        await peer.link.aclose()
        peer = await next_peer(transport, 4)  # two were silent
        await peer.read_until("pyipc.subscribe")
        await peer.send(reply(1), published("a", 3))
        assert (await subscription.get()).data == 3


async def test_a_connection_that_breaks_before_the_welcome_does_not_end_it() -> None:
    async with scripted() as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers
        subscription = client.subscribe("a")
        nursery.start_soon(subscription.__aenter__)
        await peer.read_until("pyipc.subscribe")
        await peer.send(reply(1))
        await peer.link.aclose()
        await until(lambda: len(transport.peers) == 2)
        await transport.peers[1].read_until("pyipc.hello")
        await transport.peers[1].link.aclose()
        peer = await next_peer(transport, 3)
        await peer.read_until("pyipc.subscribe")
        await peer.send(reply(1), published("a", 3))
        assert (await subscription.get()).data == 3
        subscription.close()


async def test_it_belongs_to_one_connection_at_a_time() -> None:
    """Where a client moves to a new connection while the old one is still there, nothing comes twice."""
    async with pair() as (client, server), client.subscribe("a") as subscription:
        old = client._up.connection
        assert old is not None
        async with pair() as (other, _):
            new = other._up.connection
            assert new is not None
            await until(lambda: "topics" in new._conversation.features)
            client._topics.take(new, Published("a", "not asked for there"))
            assert subscription.statistics().received == 0
            client._topics.restore(new)
            await until(lambda: subscription.statistics().restored == 1)
            client._topics.take(old, Published("a", "late"))
            client._topics.take(new, Published("a", "new"))
            assert (await subscription.get()).data == "new"
            # The old server was told.
            await until(lambda: server.statistics().subscriptions == 0)


async def test_it_moves_with_its_client_when_a_server_is_drained() -> None:
    go_on = trio.Event()
    first, second = pyipc.Server("memory:first"), pyipc.Server("memory:second")

    @first.on("slow")
    async def slow(message: pyipc.Message[None]) -> None:
        await go_on.wait()

    with trio.fail_after(10):
        async with (
            first,
            second,
            trio.open_nursery() as nursery,
            pyipc.connect("memory:first", "memory:second") as client,
            client.subscribe("t") as subscription,
        ):
            await first.publish("t", 1)
            nursery.start_soon(client.request, "slow")  # which keeps the old connection up
            await until(lambda: any(one.statistics().concurrent_requests for one in first.connections))
            nursery.start_soon(first.drain)
            await until(lambda: subscription.statistics().restored == 1)
            assert client.statistics().departing == 1
            # The old server was told. What goes through it from now on is for those who are still there.
            await until(lambda: first.statistics().subscriptions == 0)
            assert await first.publish("t", "nobody") == pyipc.BroadcastReport(0, 0)
            await second.publish("t", 2)
            await client.publish("t", 3)
            assert [(await subscription.get()).data for _ in range(3)] == [1, 2, 3]
            go_on.set()
            await until(lambda: client.statistics().departing == 0)
            assert second.statistics().subscriptions == 1


@pytest.mark.parametrize("features", [["topics"], []])
async def test_what_a_connection_left_unsent_goes_over_the_one_that_took_its_place(features: list[str]) -> None:
    """Also where that has not been introduced yet; a server without topics does not get what is published."""
    transport = Scripted()
    transport.buffer_size = 1_000
    with trio.fail_after(10):
        async with pyipc.connect(transport.endpoint, close_timeout=0.1, outbox_high_water_size=100_000) as client:
            await welcome(transport.peers[0])
            for number in range(20):
                await client.publish("t", [number, "x" * 1_000])
            await client.emit("e", "last")
            await trio.testing.wait_all_tasks_blocked()
            await transport.peers[0].send(frame("pyipc.goaway", {}))
            await until(lambda: len(transport.peers) == 2)
            await transport.peers[0].link.aclose()
            peer = transport.peers[1]
            await peer.read_until("pyipc.hello")
            await trio.testing.wait_all_tasks_blocked(0.01)
            await peer.send(frame("pyipc.welcome", {"version": 1, "features": features}))
            numbers: list[int] = []
            while (read := await peer.read()) != ("e", "last"):
                assert read is not None
                numbers.append(read[1]["data"][0])
            dropped = client.statistics().offline_dropped
            # Of what was being written when the connection broke nobody knows how much has arrived.
            assert (len(numbers) if features else dropped) >= 10
            assert numbers == list(range(20 - len(numbers), 20))
            assert dropped == 0 or not features


async def test_the_end_of_the_client_ends_it_quietly_and_giving_up_does_not() -> None:
    async with pair() as (client, server):
        subscription = client.subscribe("a")
        await subscription.__aenter__()
        await server.publish("a", 1)
        await until(lambda: subscription.statistics().received == 1)
        await client.aclose()
        assert [message.data async for message in subscription] == [1]
        for call in (client.subscribe("a").__aenter__(), client.publish("a")):
            with pytest.raises(pyipc.ConnectionClosed, match="closed"):
                await call
    async with pair(client_options={"reconnect": False}) as (client, server):
        subscription = client.subscribe("a")
        await subscription.__aenter__()
        await server.aclose()
        for _ in range(2):
            with pytest.raises(pyipc.ConnectionLost, match="given up"):
                await subscription.get()
        with pytest.raises(pyipc.ConnectionLost, match="given up"):
            await client.subscribe("a").__aenter__()


async def test_what_ends_it_before_its_entering_is_noticed_is_told_after_what_came_for_it() -> None:
    async with scripted() as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers
        subscription = client.subscribe("a", max_buffered=2, policy="close")
        nursery.start_soon(answer, peer, reply(1) + b"".join(published("a", number) for number in range(3)))
        async with subscription:
            assert [(await subscription.get()).data for _ in range(2)] == [0, 1]
            with pytest.raises(pyipc.SubscriptionOverflow):
                await subscription.get()


async def test_closing_the_client_ends_a_subscribe_that_waits() -> None:
    async with scripted() as (client, transport), trio.open_nursery() as nursery:

        async def enter() -> None:
            with pytest.raises(pyipc.ConnectionClosed):
                async with client.subscribe("a"):
                    pytest.fail("it was closed")

        nursery.start_soon(enter)
        await transport.peers[0].read_until("pyipc.subscribe")
        nursery.start_soon(client.aclose)
        while await transport.peers[0].read() is not None:
            pass
        await transport.peers[0].link.aclose()


# --- what a server may send -------------------------------------------------------------------------------------


async def test_frames_that_mean_nothing_here_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted() as (client, transport), trio.open_nursery() as nursery:
        (peer,) = transport.peers
        subscription = client.subscribe("a")
        nursery.start_soon(subscription.__aenter__)
        await peer.read_until("pyipc.subscribe")
        await peer.send(reply(1), published("a", 1, call=77), published("b", 2, call=1), published("b", 3))
        for number in range(12):
            await peer.send(frame("pyipc.unpublished", {"topic": f"t{number}", "code": "x\ny", "message": "no\nway"}))
        await peer.send(published("a", 4))
        assert (await subscription.get()).data == 4
        assert subscription.statistics().received == 1
        assert client.statistics().publishes_refused == 12
        subscription.close()
    told = [record.getMessage() for record in caplog.records if "refused what was published" in record.getMessage()]
    assert len(told) == 2  # the 1st and the 10th
    assert not any("\n" in text for text in told)


# --- publishing -------------------------------------------------------------------------------------------------


async def test_publishing_without_a_connection() -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    quick: dict[str, Any] = {"wait": False, "reconnect_interval": 0.01, "close_timeout": 0.1}
    with trio.fail_after(10):
        async with pyipc.connect(transport.endpoint, **quick) as client:
            await client.emit("e", 1)
            await client.publish("t", 2, retain=True)
            await client.emit("e", 3)
            assert client.statistics().offline_messages == 3
            with pytest.raises(pyipc.InvalidEventName):
                await client.publish("t.*")
            with pytest.raises(pyipc.UnencodableData):
                await client.publish("t", object())
            transport.error = None
            peer = await next_peer(transport, 1)
            assert [await peer.read() for _ in range(3)] == [
                ("e", 1),
                ("pyipc.publish", {"topic": "t", "data": 2, "retain": True}),
                ("e", 3),
            ]
        transport.error = pyipc.ConnectError("nobody there")
        async with pyipc.connect(transport.endpoint, offline="drop", **quick) as client:
            await client.publish("t", 1)
            assert client.statistics().offline_dropped == 1
        async with pyipc.connect(transport.endpoint, offline="raise", **quick) as client:
            with pytest.raises(pyipc.ConnectionLost, match="offline='raise'"):
                await client.publish("t", 1)


async def test_what_was_queued_is_not_published_to_a_server_without_topics(caplog: pytest.LogCaptureFixture) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    with trio.fail_after(10):
        async with pyipc.connect(transport.endpoint, wait=False, reconnect_interval=0.01, close_timeout=0.1) as client:
            await client.publish("t", 1)
            await client.emit("e", 2)
            transport.error = None
            await until(lambda: len(transport.peers) == 1)
            await transport.peers[0].send(frame("pyipc.welcome", {"version": 1}))
            await transport.peers[0].read_until("pyipc.hello")
            assert await transport.peers[0].read() == ("e", 2)
            assert client.statistics().offline_dropped == 1
    assert "cannot be sent to this server" in caplog.text


async def test_what_a_broken_connection_did_not_send_goes_over_the_next() -> None:
    transport = Scripted()
    transport.buffer_size = 1_000
    options: dict[str, Any] = {"reconnect_interval": 0.01, "close_timeout": 0.1, "outbox_high_water_size": 100_000}
    with trio.fail_after(10):
        async with pyipc.connect(transport.endpoint, **options) as client:
            await welcome(transport.peers[0])
            for number in range(30):
                await client.publish("t", [number, "x" * 1_000])
            await trio.testing.wait_all_tasks_blocked()
            await transport.peers[0].link.aclose()
            peer = await next_peer(transport, 2)
            numbers = [(await peer.read_until("pyipc.publish"))["data"][0] for _ in range(10)]
            # Of what was being written when it broke nobody knows how much has arrived, so that is not sent again.
            assert numbers == list(range(numbers[0], numbers[0] + 10))
            while numbers[-1] < 29:
                numbers.append((await peer.read_until("pyipc.publish"))["data"][0])


async def test_what_could_not_be_published_on_closing_is_counted() -> None:
    transport = Scripted()
    transport.buffer_size = 1_000
    with trio.fail_after(10):
        with pytest.raises(pyipc.Undelivered) as undelivered:
            async with pyipc.connect(transport.endpoint, close_timeout=0.05, reconnect=False) as client:
                await welcome(transport.peers[0])
                for _ in range(30):
                    await client.publish("t", "x" * 1_000)
        assert 20 < undelivered.value.count <= 30


async def test_a_publish_waits_for_room_and_a_cancelled_one_has_sent_nothing() -> None:
    transport = Scripted()
    transport.buffer_size = 1_000
    options: dict[str, Any] = {"outbox_high_water_size": 5_000, "close_timeout": 0.5}
    with trio.fail_after(10):
        async with pyipc.connect(transport.endpoint, **options) as client:
            await welcome(transport.peers[0])
            await client._up.connection.know_peer()  # type: ignore[union-attr]
            sent = 0
            with trio.CancelScope() as scope:
                while True:
                    with trio.move_on_after(0.05) as patience:
                        await client.publish("t", [sent, "x" * 1_000])
                        sent += 1
                    if patience.cancelled_caught:
                        break
            assert not scope.cancelled_caught
            statistics = client.statistics().connection
            assert statistics is not None
            assert 5_000 <= statistics.outbox_size < 6_100
            scope = trio.CancelScope()
            scope.cancel()
            with scope:
                await client.publish("t", "never")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.publish, "t", [sent, "last"])
                for number in range(sent + 1):
                    assert (await transport.peers[0].read_until("pyipc.publish"))["data"][0] == number
            await transport.peers[0].link.aclose()


# --- attachments ------------------------------------------------------------------------------------------------


async def test_what_is_published_may_have_attachments() -> None:
    large = bytes(range(256)) * 1_000
    async with pair() as (client, server):
        async with client.subscribe("t") as subscription, server.subscribe("t") as own:
            await client.publish("t", 1, attachments=[b"\x00\x0c", bytearray(b"two"), large])
            for each in (subscription, own):
                message = await each.get()
                assert (message.data, list(message.attachments)) == (1, [b"\x00\x0c", b"two", large])
            buffer = bytearray(b"before")
            report = await server.publish("t", 2, attachments=[buffer], retain=True)
            assert report == pyipc.BroadcastReport(1, 0)
            buffer[:] = b"after!"
            for each in (subscription, own):
                message = await each.get()
                assert (message.data, list(message.attachments)) == (2, [b"before"])
        assert server.statistics().retained_size == 1 + 1 + 6
        async with client.subscribe("t") as subscription, server.subscribe("t") as own:
            for each in (subscription, own):
                message = await each.get()
                assert (message.data, message.attachments[0], message.retained) == (2, b"before", True)
            await client.publish("t", 3, attachments=[large], retain=True)
            assert (await subscription.get()).attachments == (large,)
        assert server.statistics().retained_size == 1 + 1 + len(large)
        statistics = client.statistics().connection
        assert statistics is not None
        assert (statistics.attachments_sent, statistics.attachments_received) == (4, 6)
        with pytest.raises(pyipc.UnencodableData, match="list of buffers"):
            await client.publish("t", attachments=b"x")  # type: ignore[arg-type]
        with pytest.raises(pyipc.UnencodableData, match="list of buffers"):
            await server.publish("t", attachments="x")  # type: ignore[arg-type]


async def test_what_has_attachments_waits_for_a_connection_and_goes_where_it_is_taken() -> None:
    transport = FaultyTransport(Faults())
    client_options: dict[str, Any] = {"reconnect_interval": 0.01}
    async with pair(faults=transport, client_options=client_options) as (client, server), server.subscribe("t") as own:
        transport.links[-1].blackhole()
        await client.publish("t", 1, attachments=[b"one"])
        await trio.testing.wait_all_tasks_blocked()
        await transport.links[-1].reset()
        await until(lambda: client.statistics().connects == 2)
        await client.publish("t", 2, attachments=[b"two" * 50_000])
        message = await own.get()
        while message.data != 2:
            message = await own.get()
        assert message.attachments == (b"two" * 50_000,)
    waiting = Scripted()
    waiting.error = pyipc.ConnectError("nobody there")
    with trio.fail_after(10):
        async with pyipc.connect(waiting.endpoint, wait=False, reconnect_interval=0.01, close_timeout=0.1) as client:
            await client.publish("t", 1, attachments=[b"x" * 70_000])
            await client.publish("t", 2, attachments=[b"x"])
            assert client.statistics().offline_messages == 2
            waiting.error = None
            await until(lambda: len(waiting.peers) == 1)
            hello = {"version": 1, "features": ["attachments", "topics"], "max_attachments_size": 1_000}
            await waiting.peers[0].send(frame("pyipc.welcome", hello))
            sent = b""
            while not sent.endswith(b'"data":2}}\f'):
                sent += await waiting.peers[0].link.receive()
            assert b'\x01\0\0\0\0\0\0\0\x01x{"type":"pyipc.publish"' in sent
            assert client.statistics().offline_dropped == 1  # more than this server takes


async def test_who_takes_no_attachments_does_not_get_what_has_some(caplog: pytest.LogCaptureFixture) -> None:
    server = pyipc.Server()
    with trio.fail_after(10):
        async with server:
            ours, theirs = memory_link_pair()
            server.adopt(theirs)
            peer = WirePeer(ours)
            await server.publish("t", 0, attachments=[b"x"], retain=True)
            await peer.send(frame("pyipc.subscribe", {"call": 1, "pattern": "t"}))
            await peer.read_until("pyipc.reply")
            assert await server.publish("t", 1, attachments=[b"x"]) == pyipc.BroadcastReport(0, 1)
            assert await server.publish("t", 2) == pyipc.BroadcastReport(1, 0)
            assert await peer.read_until("pyipc.published") == {"topic": "t", "data": 2}
            assert server.statistics().publishes_dropped == 2
            await ours.aclose()
    assert caplog.text.count("does not get 't'") == 1


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize(
    ("policy", "left"), [("drop_oldest", [7, 8, 9]), ("drop_newest", [0, 1, 2]), ("close", [0, 1, 2])]
)
async def test_what_it_holds_is_bounded_in_bytes(side: str, policy: Policy, left: list[int]) -> None:
    """Of JSON as it arrived, and of attachments; a single message may be larger than all that."""
    async with pyipc.Server("memory:bytes") as server, pyipc.connect("memory:bytes") as client:
        subscriber: Any = {"client": client, "server": server}[side]
        async with (
            subscriber.subscribe("t", max_buffered_size=7_000, policy=policy) as slow,
            subscriber.subscribe("large", max_buffered_size=1_000) as single,
        ):
            for number in range(10):
                await server.publish("t", [number, "x" * 1_000], attachments=[b"y" * 1_000])
            await server.publish("large", "x" * 5_000)
            assert len((await single.get()).data) == 5_000
            assert [(await slow.get()).data[0] for _ in left] == left
            assert slow.statistics().received >= 4
            if policy == "close":
                with pytest.raises(pyipc.SubscriptionOverflow, match="max_buffered_size") as over:
                    await slow.get()
                assert over.value.max_buffered_size == 7_000
            else:
                assert slow.statistics().dropped == 7
                await server.publish("t", [10], attachments=[b""])
                message = await slow.get()
                assert (message.data, message.attachments) == ([10], (b"",))
        with pytest.raises(ValueError, match="max_buffered_size"):
            subscriber.subscribe("t", max_buffered_size=0)


async def test_what_waits_takes_no_more_than_its_bytes() -> None:
    """Many a small object is made of few bytes of JSON; they are made when the message is taken."""
    async with (
        pyipc.Server("memory:objects") as server,
        pyipc.connect("memory:objects") as client,
        client.subscribe("t") as messages,
    ):
        server.on("flush", lambda message: None)
        tracemalloc.start()
        try:
            for _ in range(20):
                await server.publish("t", [[]] * 10_000)
            await until(lambda: messages.statistics().waiting == 20)
            await client.request("flush")  # what was read last is held until something else is read
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 1_200_000  # decoded they take 13 million
        assert (await messages.get()).data == [[]] * 10_000


async def test_each_subscription_of_a_client_has_data_of_its_own() -> None:
    async with (
        pyipc.Server("memory:own") as server,
        pyipc.connect("memory:own") as client,
        client.subscribe("a.*") as one,
        client.subscribe("a.**") as other,
    ):
        await server.publish("a.b", {"list": []})
        (await one.get()).data["list"].append("spoiled")
        assert (await other.get()).data == {"list": []}
