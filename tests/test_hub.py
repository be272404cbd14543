"""The server's side of topics, byte by byte: what peers may, what they cannot, what it costs, what is kept."""

from __future__ import annotations

import logging
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import pyipc
from pyipc.protocol import codec
from pyipc.protocol.features import Published
from pyipc.protocol.framed import JsonConversation
from pyipc.protocol.patterns import Pattern
from pyipc.transports import memory_link_pair
from tests.conformance.sides import until
from tests.wire import WirePeer, frame, join, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.time_limit(30)


def subscribe(call: int, pattern: str, **more: Any) -> bytes:
    return frame("pyipc.subscribe", {"call": call, "pattern": pattern, **more})


def publish(topic: str, data: Any = None, **more: Any) -> bytes:
    return frame("pyipc.publish", {"topic": topic, "data": data, **more})


@asynccontextmanager
async def peers(server: pyipc.Server, count: int = 1, **options: Any) -> AsyncIterator[list[WirePeer]]:
    """A server that runs, and plain peers of it."""
    with trio.fail_after(20):
        async with server:
            made = [join(server) for _ in range(count)]
            try:
                yield made
            finally:
                for peer in made:
                    await peer.link.aclose()


async def answers(peer: WirePeer, count: int) -> list[tuple[str, Any]]:
    found = [await peer.read() for _ in range(count)]
    return [one for one in found if one is not None]


async def test_a_plain_peer_subscribes_and_publishes_with_events() -> None:
    async with peers(pyipc.Server(), 2) as (one, other):
        await one.send(subscribe(1, "a.*"), subscribe(2, "a.**"), subscribe(3, "b"))
        assert await answers(one, 3) == [("pyipc.reply", {"call": call, "data": None}) for call in (1, 2, 3)]
        await other.send(publish("a.b", {"n": 1}), publish("c"), publish("b"), publish("a"))
        assert await answers(one, 3) == [
            ("pyipc.published", {"topic": "a.b", "data": {"n": 1}}),  # once, though two match
            ("pyipc.published", {"topic": "b"}),
            ("pyipc.published", {"topic": "a"}),
        ]
        await one.send(frame("pyipc.unsubscribe", {"call": 2}), publish("a"), publish("a.c", 5))
        assert await answers(one, 1) == [("pyipc.published", {"topic": "a.c", "data": 5})]


async def test_what_is_kept_comes_after_the_reply_and_says_for_which_subscription() -> None:
    server = pyipc.Server()
    async with peers(server) as (peer,):
        await server.publish("a.x", 1, retain=True)
        await peer.send(subscribe(1, "a.*"), subscribe(7, "**"), subscribe(8, "a.*", retained=False))
        kept = {"topic": "a.x", "data": 1}
        assert await answers(peer, 5) == [
            ("pyipc.reply", {"call": 1, "data": None}),
            ("pyipc.published", {**kept, "call": 1}),
            ("pyipc.reply", {"call": 7, "data": None}),
            ("pyipc.published", {**kept, "call": 7}),
            ("pyipc.reply", {"call": 8, "data": None}),
        ]


@pytest.mark.parametrize(
    ("pattern", "code"),
    [
        *(("a*", "bad-pattern"), ("**.a", "bad-pattern"), ("", "bad-pattern"), ("pyipc.*", "bad-pattern")),
        *(("x" * 257, "bad-pattern"), (".".join("*" * 200), "bad-pattern"), ("secret", "not-allowed")),
        *(("broken", "not-allowed"), ("many", "too-many")),
    ],
)
async def test_subscriptions_that_are_refused(pattern: str, code: str, caplog: pytest.LogCaptureFixture) -> None:
    def may_subscribe(peer: pyipc.Peer, asked: str) -> bool:
        if asked == "broken":
            raise LookupError("who is that?")
        return asked != "secret"

    server = pyipc.Server(may_subscribe=may_subscribe, max_subscriptions=1)
    async with peers(server) as (peer,):
        if code == "too-many":
            await peer.send(subscribe(1, "first"))
            await peer.read_until("pyipc.reply")
        await peer.send(subscribe(2, pattern))
        error = await peer.read_until("pyipc.error", "pyipc.reply")
        assert (error["call"], error.get("code")) == (2, code)
        assert error["message"]
        statistics = server.statistics()
        assert (statistics.subscriptions, statistics.subscriptions_refused) == (code == "too-many", 1)
        # Nothing is left of it, and the connection is as good as before.
        await peer.send(frame("pyipc.unsubscribe", {"call": 2}), frame("pyipc.unsubscribe", {"call": 1}))
        await peer.send(subscribe(3, "again"))
        await peer.read_until("pyipc.reply")
        assert server.statistics().subscriptions == 1
    told = [record for record in caplog.records if record.exc_info]
    assert all("whether memory: may have 'broken' could not be found out" in record.message for record in told)
    assert len(told) == (pattern == "broken")


@pytest.mark.parametrize(
    ("topic", "data", "more", "code"),
    [
        *(("a.*", 1, {}, "bad-pattern"), ("", 1, {}, "bad-pattern"), ("secret", 1, {}, "not-allowed")),
        *(("broken", 1, {}, "not-allowed"), ("other", 1, {"retain": True}, "too-many")),
        *(("kept", "x" * 80, {"retain": True}, "too-many"), ("large", "x" * 441, {}, "too-large")),
        ("a\ud800", 1, {}, "bad-pattern"),
    ],
)
async def test_publishes_that_are_refused(topic: str, data: Any, more: Any, code: str) -> None:
    def may_publish(peer: pyipc.Peer, asked: str) -> bool:
        if asked == "broken":
            raise LookupError("who is that?")
        return asked != "secret"

    server = pyipc.Server(may_publish=may_publish, max_retained_topics=1, max_retained_size=50, max_frame_size=500)
    async with peers(server, 2) as (peer, witness):
        await server.publish("kept", 1, retain=True)
        await witness.send(subscribe(1, "**", retained=False))
        await witness.read_until("pyipc.reply")
        await peer.send(publish(topic, data, **more))
        refused = await peer.read_until("pyipc.unpublished")
        assert refused["code"] == code
        assert refused["topic"] == topic
        assert refused["message"]
        statistics = server.statistics()
        assert statistics.publishes_refused == 1
        assert (statistics.publishes, statistics.retained_topics, statistics.retained_size) == (1, 1, 5)
        await peer.send(publish("kept", 2, retain=True))
        assert await witness.read_until("pyipc.published") == {"topic": "kept", "data": 2}


async def test_the_number_of_a_subscription_is_used_once() -> None:
    async with peers(pyipc.Server(close_timeout=0.1)) as (peer,):
        await peer.send(subscribe(1, "a"), subscribe(1, "b"))
        await peer.read_until("pyipc.reply")
        assert await peer.read() is None


async def test_ways_to_use_wildcards_have_an_end() -> None:
    server = pyipc.Server()
    async with peers(server) as (peer,):
        ways = [".".join("*" * (number + 1)) for number in range(64)]
        await peer.send(*(subscribe(number, way) for number, way in enumerate(ways)))
        assert {event for event, _ in await answers(peer, 64)} == {"pyipc.reply"}
        await peer.send(subscribe(100, "a.**"))
        assert (await peer.read_until("pyipc.error"))["code"] == "too-many"
        # What is in one of those ways is welcome, and so is what has no wildcard; and one that is given back is free.
        await peer.send(subscribe(101, "*"), subscribe(102, "a.b"))
        assert {event for event, _ in await answers(peer, 2)} == {"pyipc.reply"}
        await peer.send(frame("pyipc.unsubscribe", {"call": 63}), subscribe(103, "a.**"))
        assert await answers(peer, 1) == [("pyipc.reply", {"call": 103, "data": None})]


async def test_everything_of_a_connection_is_forgotten_with_it() -> None:
    server = pyipc.Server()
    async with peers(server, 2) as (peer, other):
        for number in range(300):
            await peer.send(subscribe(number, f"a.{number}.*"), subscribe(1_000 + number, f"b.{number}"))
        await answers(peer, 600)
        await other.send(subscribe(1, "a.1.*"))
        await other.read_until("pyipc.reply")
        assert server.statistics().subscriptions == 601
        await peer.link.aclose()
        await until(lambda: server.statistics().connections == 1)
        assert server.statistics().subscriptions == 1
        assert (await server.publish("a.1.x")).sent == 1


async def test_what_is_published_waits_its_turn_among_the_events_of_its_connection() -> None:
    router = pyipc.Router()
    release = trio.Event()
    server = pyipc.Server(router=router)

    @router.on("slow")
    async def slow(message: pyipc.Message[Any]) -> None:
        await release.wait()
        await server.publish("t", "from the handler")

    @router.on("ask")
    def ask(message: pyipc.Message[Any]) -> None:
        release.set()

    async with peers(server, 2) as (peer, witness):
        await witness.send(subscribe(1, "t"))
        await witness.read_until("pyipc.reply")
        await peer.send(frame("slow"), publish("t", 1), publish("t", 2))
        await until(lambda: any(one.statistics().concurrent_requests == 0 for one in server.connections))
        # Subscribing does not wait for it, nor do requests.
        await peer.send(subscribe(5, "x"), request(6, "ask"))
        assert await peer.read_until("pyipc.reply") == {"call": 5, "data": None}
        data = [(await witness.read_until("pyipc.published"))["data"] for _ in range(3)]
        assert data == ["from the handler", 1, 2]


async def test_others_get_their_turn_while_a_peer_publishes_to_very_many() -> None:
    """What is read at once may be a thousand messages for a thousand subscribers; they must not be sent in one go."""
    server = pyipc.Server()
    most = steps = 0

    class Counts(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal most, steps
            now = server.statistics().publishes
            most, steps = max(most, now - steps), now

    async with peers(server, 51) as (publisher, *subscribers):
        for subscriber in subscribers:
            await subscriber.send(subscribe(1, "t"))
            await subscriber.read_until("pyipc.reply")
        counts = Counts()
        trio.lowlevel.add_instrument(counts)
        try:
            await publisher.send(publish("t") * 200)
            await until(lambda: server.statistics().publishes == 200)
        finally:
            trio.lowlevel.remove_instrument(counts)
        # 2,048 copies, of which each message makes 50 and counts for one itself.
        assert 1 <= most <= 41
        for subscriber in subscribers:
            for _ in range(200):
                assert await subscriber.read_until("pyipc.published") == {"topic": "t"}


class Longest(trio.abc.Instrument):
    """Counts the most that was done in one step of any task, by a counter that only grows."""

    def __init__(self, done: Callable[[], int]) -> None:
        self.done = done
        self.most = self._before = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        now = self.done()
        self.most, self._before = max(self.most, now - self._before), now


async def test_others_get_their_turn_while_names_are_looked_up() -> None:
    """Nobody gets what is published, but it takes a look at each of many ways to have wildcards to find that out."""
    server = pyipc.Server()
    async with peers(server, 11) as (publisher, *subscribers):
        for number, subscriber in enumerate(subscribers):
            ways = (".".join("*" if at in (number, way) else "a" for at in range(60)) for way in range(11, 59))
            await subscriber.send(*(subscribe(call, way) for call, way in enumerate(ways)))
            await answers(subscriber, 48)
        longest = Longest(lambda: server._hub._matches.work)
        trio.lowlevel.add_instrument(longest)
        try:
            await publisher.send(*(publish(f"b.{number}") for number in range(200)))
            await until(lambda: server.statistics().publishes == 200)
        finally:
            trio.lowlevel.remove_instrument(longest)
        assert longest.most <= 2_048 + 480


@pytest.mark.parametrize("is_busy", [False, True])
async def test_others_get_their_turn_while_a_peer_subscribes_again_and_again(
    is_busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time all the topics are looked at of which something is kept."""
    router, release, looks = pyipc.Router(), trio.Event(), 0
    router.on("slow", lambda message: release.wait())
    matches = Pattern.matches

    def counted(self: Pattern, name: str) -> bool:
        nonlocal looks
        looks += 1
        return matches(self, name)

    server = pyipc.Server(router=router)
    async with peers(server) as (peer,):
        for number in range(500):
            await server.publish(f"t.{number}", retain=True)
        monkeypatch.setattr(Pattern, "matches", counted)
        longest = Longest(lambda: looks)
        trio.lowlevel.add_instrument(longest)
        try:
            if is_busy:
                await peer.send(frame("slow"))
            await peer.send(*(subscribe(n, "z.*") + frame("pyipc.unsubscribe", {"call": n}) for n in range(50)))
            if is_busy:
                for call in range(5):  # some do not wait for the handler
                    assert await peer.read_until("pyipc.reply") == {"call": call, "data": None}
                await trio.testing.wait_all_tasks_blocked()
                assert looks < 50 * 500
                release.set()
            await until(lambda: looks >= 50 * 500)
        finally:
            trio.lowlevel.remove_instrument(longest)
        assert longest.most <= 2_048 + 500
        await until(lambda: server.statistics().subscriptions == 0)
        looks = 0
        await peer.send(subscribe(100, "t.7"))  # which is found by its name
        assert (await peer.read_until("pyipc.published"))["topic"] == "t.7"
        assert looks == 0


async def test_what_is_kept_is_not_encoded_for_a_peer_that_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pyipc.Server(slow_peer="drop", outbox_high_water_size=2_000, max_outbox_size=2_000)
    async with server:
        peer = join(server, buffer_size=1_000)
        for number in range(100):
            await server.publish(f"t.{number}", "x" * 200, retain=True)
        said = 0
        say = JsonConversation.say

        def counted(self: JsonConversation, body: Any) -> bytes:
            nonlocal said
            said += isinstance(body, Published)
            return say(self, body)

        monkeypatch.setattr(JsonConversation, "say", counted)
        await peer.send(subscribe(1, "**"))
        await until(lambda: server.statistics().publishes_dropped > 0)
        assert 0 < said < 20
        assert server.statistics().publishes_dropped == 100 - said + 1
        await peer.link.aclose()


async def test_what_peers_keep_does_not_keep_the_program_from_keeping_as_much() -> None:
    server = pyipc.Server(max_retained_topics=3, max_retained_size=60)
    async with peers(server) as (peer,):
        await peer.send(*(publish(f"junk.{number}", "x" * 10, retain=True) for number in range(9)))
        await until(lambda: server.statistics().publishes_refused == 6)
        for number in range(3):
            await server.publish(f"own.{number}", "x" * 10, retain=True)
        with pytest.raises(pyipc.LocalProtocolError, match="max_retained_topics"):
            await server.publish("own.3", retain=True)
        assert server.statistics().retained_topics == 6
        # What was a peer's is the program's from when it publishes that; and what it keeps counts for peers too.
        assert server.forget("own.*") == 3
        await server.publish("junk.0", retain=True)
        assert server.forget("junk.2") == 1
        await peer.send(publish("junk.3", retain=True), publish("junk.4", retain=True))
        await until(lambda: server.statistics().publishes_refused == 7)
        with pytest.raises(pyipc.LocalProtocolError, match="max_retained_size"):
            await server.publish("junk.0", "x" * 60, retain=True)
        assert server.forget("**") == 3
        assert server.statistics().retained_size == 0
        await server.publish("own", "x" * 50, retain=True)


async def test_patterns_of_many_segments_have_no_wildcards() -> None:
    async with peers(pyipc.Server()) as (peer,):
        await peer.send(subscribe(1, "a." * 64 + "*"), subscribe(2, "a." * 63 + "*"), subscribe(3, "a." * 99 + "a"))
        assert (await peer.read_until("pyipc.error"))["call"] == 1
        assert await answers(peer, 2) == [("pyipc.reply", {"call": call, "data": None}) for call in (2, 3)]


async def test_what_a_subscription_takes_of_a_server() -> None:
    """Anybody may have a thousand of them, on each of many connections."""
    server = pyipc.Server()
    async with peers(server) as (peer,):
        texts = [f"{number:03}" + ".ab" * 80 for number in range(500)]
        frames = [subscribe(call, text) for call, text in enumerate(texts)]
        tracemalloc.start()
        try:
            await peer.send(*frames)
            await answers(peer, 500)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert server.statistics().subscriptions == 500
        assert held < 500 * 1_500


async def test_a_message_is_encoded_once_for_each_framing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pyipc.Server()
    async with peers(server, 20) as joined:
        for peer in joined:
            await peer.send(subscribe(1, "t"))
            await peer.read_until("pyipc.reply")
        ours, theirs = memory_link_pair()
        server.adopt(theirs, pyipc.Endpoint("memory:lines", framing=pyipc.Json(b"\n")))
        await ours.send(b'{"type":"pyipc.subscribe","data":{"call":1,"pattern":"t"}}\n')
        assert await ours.receive() == b'{"type":"pyipc.reply","data":{"call":1,"data":null}}\n'

        calls: list[str] = []
        whole = codec.control_frame

        def counting(body: Any, what: str = "") -> bytes:
            calls.append(body.type)
            return whole(body, what)

        monkeypatch.setattr(codec, "control_frame", counting)
        assert await server.publish("t", [1]) == pyipc.BroadcastReport(21, 0)
        assert calls == ["pyipc.published"] * 2
        assert await ours.receive() == b'{"type":"pyipc.published","data":{"topic":"t","data":[1]}}\n'
        await ours.aclose()


async def test_a_retained_message_that_a_peer_cannot_take_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    server = pyipc.Server()
    async with peers(server) as (peer,):
        await server.publish("a.large", "x" * 1_000, retain=True)
        await server.publish("a.small", 1, retain=True)
        await peer.send(frame("pyipc.hello", {"versions": [1], "features": ["topics"], "max_frame_size": 500}))
        await peer.read_until("pyipc.welcome")
        await peer.send(subscribe(1, "a.*"))
        await peer.read_until("pyipc.reply")
        assert await peer.read_until("pyipc.published") == {"topic": "a.small", "data": 1, "call": 1}
        assert await server.publish("a.large", "y" * 1_000) == pyipc.BroadcastReport(0, 1)
        assert await server.publish("a.small", 2) == pyipc.BroadcastReport(1, 0)
        assert await peer.read_until("pyipc.published") == {"topic": "a.small", "data": 2}
    assert [record.message.count("does not get 'a.large'") for record in caplog.records] == [1]
    assert server.statistics().publishes_dropped == 2


@pytest.mark.parametrize("slow_peer", ["close", "drop"])
async def test_a_peer_that_asks_for_what_is_kept_and_does_not_read_it(
    slow_peer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = pyipc.Server(slow_peer=slow_peer, max_outbox_size=70_000, close_timeout=0.1)
    with trio.fail_after(10):
        async with server:
            for number in range(4):
                await server.publish(f"t.{number}", "x" * 50_000, retain=True)
            deaf = join(server, buffer_size=1_000)
            await deaf.send(*(subscribe(number, "t.*") for number in range(5)))
            await until(lambda: server.statistics().publishes_dropped > 0)
            (connection,) = server.connections
            assert connection.statistics().outbox_size <= 70_000
            if slow_peer == "close":
                await until(lambda: connection.reason is not None)
                assert connection.reason is not None
                assert connection.reason.code == "slow"
            await deaf.link.aclose()
            await until(lambda: not server.connections)
            assert server.statistics().subscriptions == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_what_a_server_cannot_publish_is_told_to_its_program() -> None:
    server = pyipc.Server(max_retained_topics=2, max_retained_size=100, max_frame_size=1_000)
    async with server:
        with pytest.raises(pyipc.InvalidEventName, match="without it"):
            await server.publish("a.*", 1)
        with pytest.raises(pyipc.InvalidEventName, match="reserved"):
            server.publish_nowait("pyipc.x", 1)
        with pytest.raises(pyipc.UnencodableData):
            await server.publish("a", object())
        with pytest.raises(pyipc.MessageTooLarge):
            await server.publish("a", "x" * 1_000)
        deep: list[Any] = []
        for _ in range(70):
            deep = [deep]
        with pytest.raises(pyipc.UnencodableData, match="deep"):
            await server.publish("a", deep)
        await server.publish("a", "x" * 50, retain=True)
        with pytest.raises(pyipc.LocalProtocolError, match="max_retained_size"):
            await server.publish("b", "x" * 50, retain=True)
        await server.publish("a", "x" * 90, retain=True)  # in the place of the other
        await server.publish("b", retain=True)
        with pytest.raises(pyipc.LocalProtocolError, match="max_retained_topics"):
            await server.publish("c", retain=True)
        statistics = server.statistics()
        assert (statistics.retained_topics, statistics.retained_size) == (2, 1 + 92 + 1)
        with pytest.raises(pyipc.InvalidEventName):
            server.forget("a*")
        assert server.forget("nothing") == 0
        assert server.forget("a") == 1
        assert server.forget("*") == 1
        statistics = server.statistics()
        assert (statistics.retained_topics, statistics.retained_size) == (0, 0)
    with pytest.raises(TypeError, match="may_publish must be a function"):
        pyipc.Server(may_publish=True)  # type: ignore[arg-type]


async def test_a_server_that_only_has_datagrams_or_raw_bytes_has_no_topics() -> None:
    raw = pyipc.Endpoint("memory:raw", framing=pyipc.Raw())
    for endpoint in ("udp://127.0.0.1:0", raw):
        server = pyipc.Server(endpoint)
        with pytest.raises(pyipc.UnsupportedByTransport):
            server.publish_nowait("t")
        with pytest.raises(pyipc.UnsupportedByTransport):
            server.subscribe("t")
    for server in (pyipc.Server(), pyipc.Server(raw, "memory:other")):
        assert server.publish_nowait("t") == pyipc.BroadcastReport(0, 0)
    async with pyipc.Server(raw), pyipc.connect(raw) as client:
        with pytest.raises(pyipc.UnsupportedByTransport):
            await client.publish("t")
        with pytest.raises(pyipc.UnsupportedByTransport):
            async with client.subscribe("t"):
                pytest.fail("bytes have no topics")


async def test_the_own_program_subscribes_as_well() -> None:
    server = pyipc.Server()
    async with peers(server) as (peer,):
        await server.publish("kept", {"n": 0}, retain=True)
        data = {"n": 1}
        async with server.subscribe("**") as own, server.subscribe("**", retained=False) as other:
            await server.publish("t", data)
            await peer.send(publish("t", {"n": 2}))
            messages = [await own.get() for _ in range(3)]
            assert [(one.event, one.data, one.retained) for one in messages] == [
                ("kept", {"n": 0}, True),
                ("t", {"n": 1}, False),
                ("t", {"n": 2}, False),
            ]
            # Everybody has data of his own, as if it had come over a wire.
            assert messages[1].data is not data
            assert (await other.get()).data is not messages[1].data
            assert messages[0].connection is None
            assert messages[1].connection is None
            assert messages[2].connection in server.connections
            assert repr(messages[1]) == "<Message 't' from this program>"
            assert repr(messages[2]).startswith("<Message 't' from memory:")
            assert server.statistics().subscriptions == 2
        assert server.statistics().subscriptions == 0


async def test_a_closed_server_ends_the_subscriptions_of_its_program() -> None:
    server = pyipc.Server()
    got: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def listen(task_status: trio.TaskStatus[None]) -> None:
            async with server.subscribe("**") as own:
                task_status.started()
                got.extend([message.data async for message in own])

        await server.__aenter__()
        await nursery.start(listen)
        await server.publish("t", 1)
        await server.__aexit__(None, None, None)
    assert got == [1]
    async with server.subscribe("**") as late:
        with pytest.raises(trio.EndOfChannel):
            await late.get()


async def test_a_peer_that_drops_is_logged_without_what_it_missed(caplog: pytest.LogCaptureFixture) -> None:
    server = pyipc.Server()
    async with server:
        async with server.subscribe("t", max_buffered=2) as own:
            with caplog.at_level(logging.WARNING):
                for number in range(12):
                    await server.publish("t", f"secret {number}")
            assert [(await own.get()).data for _ in range(2)] == ["secret 10", "secret 11"]
            assert own.statistics() == pyipc.SubscriptionStatistics(received=12, dropped=10, waiting=0, restored=0)
        assert server.statistics().publishes_dropped == 10
    assert len(caplog.records) == 2  # the 1st and the 10th
    assert "secret" not in caplog.text


TEXT = st.one_of(
    st.sampled_from(["a", "a.b", "a.*", "**", "*", "", "x" * 257, "pyipc.x", "\ud800", "\n\x1b", "toString"]),
    st.text(max_size=8),
)
NUMBER = st.one_of(st.integers(0, 5), st.integers(-1, 2**53), st.just(2**60))
FRAMES = st.one_of(
    st.builds(lambda call, text, retained: subscribe(call, text, retained=retained), NUMBER, TEXT, st.booleans()),
    st.builds(lambda call: frame("pyipc.unsubscribe", {"call": call}), NUMBER),
    st.builds(lambda text, data, retain: publish(text, data, retain=retain), TEXT, TEXT, st.booleans()),
    st.just(publish("a", "x" * 2_000, retain=True)),
    st.just(frame("pyipc.published", {"topic": "a"})),
    st.just(frame("pyipc.subscribe", {"call": "x"})),
)


@given(st.lists(FRAMES, max_size=30))
def test_whatever_a_peer_sends_ends_at_most_its_own_connection_and_leaves_nothing(frames: list[bytes]) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"max_subscriptions": 3, "max_retained_topics": 3, "max_retained_size": 100}
        server = pyipc.Server(close_timeout=0.1, max_frame_size=1_000, **options)
        async with peers(server, 2) as (hostile, witness):
            await witness.send(subscribe(1, "witness"))
            await witness.read_until("pyipc.reply")
            await hostile.send(*frames, frame("e"))
            await hostile.link.aclose()
            await until(lambda: server.statistics().connections == 1)
            statistics = server.statistics()
            assert statistics.subscriptions == 1
            assert statistics.retained_topics <= 3
            assert statistics.retained_size <= 100
            assert server.forget("**") == statistics.retained_topics
            assert server.statistics().retained_size == 0
            await server.publish("witness", 1)
            assert (await witness.read_until("pyipc.published"))["data"] == 1
        failures = [record for record in caught if record.levelno >= logging.ERROR]
        assert failures == []

    caught: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = caught.append  # type: ignore[method-assign, assignment]
    logging.getLogger("pyipc").addHandler(handler)
    try:
        trio.run(main)
    finally:
        logging.getLogger("pyipc").removeHandler(handler)


async def test_what_peers_cannot_take_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """They choose it themselves: each subscribes to all, and takes next to nothing."""
    server = pyipc.Server()
    async with peers(server, 2) as two:
        for peer in two:
            await peer.send(frame("pyipc.hello", {"versions": [1], "features": ["topics"], "max_frame_size": 200}))
            await peer.read_until("pyipc.welcome")
            await peer.send(subscribe(1, "**"))
            await peer.read_until("pyipc.reply")
        for _ in range(100):
            assert await server.publish("a", "x" * 200) == pyipc.BroadcastReport(0, 2)
            assert server.broadcast_nowait("a", "x" * 200) == pyipc.BroadcastReport(0, 2)
        assert [connection.statistics().dropped for connection in server.connections] == [200, 200]
    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2 * len((1, 10, 100))
