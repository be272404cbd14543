"""Topics: everybody who has subscribed gets what is published, in order and once; nobody is held up by anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import pyipc
from tests.conformance.sides import dial_link, noise, until
from tests.conformance.subjects import Feature, lacks, needs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conformance.sides import Stage, Wire
    from tests.conformance.subjects import Subject


def sides(stage: Stage, wire: Wire) -> tuple[Callable[..., Awaitable[object]], Callable[..., pyipc.Subscription]]:
    """How this side publishes, and how the other one subscribes."""
    if stage.role == "client":
        return wire.client.publish, wire.server.subscribe
    return wire.server.publish, wire.client.subscribe


async def take(subscription: pyipc.Subscription, count: int) -> list[tuple[str, Any]]:
    """The next messages: their topics and data."""
    messages = [await subscription.get() for _ in range(count)]
    return [(message.event, message.data) for message in messages]


@needs(Feature.TOPICS, Feature.ORDER, Feature.DELIVERY)
async def test_what_is_published_comes_in_order_and_once_to_each_subscription(stage: Stage) -> None:
    total = 2_000
    async with stage.open() as wire:
        publish, subscribe = sides(stage, wire)
        async with (
            subscribe("orders.*", max_buffered=total) as some,
            subscribe("orders.**", max_buffered=total) as more,
            subscribe("orders.3", max_buffered=total) as one,
            subscribe("other", max_buffered=total) as other,
        ):
            for number in range(total):
                await publish(f"orders.{number % 7}", number)
            everything = [(f"orders.{number % 7}", number) for number in range(total)]
            assert await take(some, total) == everything
            assert await take(more, total) == everything
            assert await take(one, total // 7) == everything[3::7][: total // 7]
            await publish("other", "last")
            assert await take(other, 1) == [("other", "last")]
            for subscription in (some, more, other):
                assert subscription.statistics().dropped == 0
                assert subscription.statistics().waiting == 0


@needs(Feature.TOPICS)
async def test_a_subscription_has_begun_when_it_was_entered_and_is_over_when_it_was_left(stage: Stage) -> None:
    async with stage.open() as wire:
        publish, subscribe = sides(stage, wire)
        await publish("t", "before")
        await wire.client.request("conformance.ready")  # what the client has published is with the server
        async with subscribe("t") as subscription:
            await publish("t", "during")
            assert await take(subscription, 1) == [("t", "during")]
        await until(lambda: wire.server.statistics().subscriptions == 0)
        await publish("t", "after")
        assert [message.data async for message in subscription] == []
        report = await wire.server.publish("t")
        assert report == pyipc.BroadcastReport(0, 0)


@needs(Feature.TOPICS, Feature.LARGE)
async def test_large_messages_are_published(stage: Stage) -> None:
    text = noise(900_000)
    async with stage.open() as wire:
        publish, subscribe = sides(stage, wire)
        async with subscribe("**") as subscription:
            for number in range(5):
                await publish("large", [number, text])
            assert await take(subscription, 5) == [("large", [number, text]) for number in range(5)]


@needs(Feature.TOPICS)
async def test_what_is_published_has_its_attachments(stage: Stage) -> None:
    blobs = [b"", b"\x00\x01\x0c\n", noise(400_000).encode()]
    async with stage.open() as wire:
        publish, subscribe = sides(stage, wire)
        async with subscribe("t") as subscription:
            for number in range(12):
                await publish("t", number, attachments=blobs[: number % 4], retain=number == 11)
            for number in range(12):
                message = await subscription.get()
                assert (message.data, list(message.attachments)) == (number, blobs[: number % 4])
        async with subscribe("t") as late:
            message = await late.get()
            assert (message.data, list(message.attachments), message.retained) == (11, blobs, True)


@needs(Feature.TOPICS)
async def test_the_last_message_of_a_topic_is_kept_for_those_who_come_later(stage: Stage) -> None:
    async with stage.open() as wire:
        publish, subscribe = sides(stage, wire)
        async with subscribe("**", retained=False) as witness:
            for number in range(3):
                await publish("state.a", number, retain=True)
            await publish("state.b", None, retain=True)
            await publish("state.c", "not kept")
            await take(witness, 5)  # all of it is with the server
            async with subscribe("state.*") as late, subscribe("state.*", retained=False) as later:
                await publish("state.c", "now")
                messages = [await late.get() for _ in range(3)]
                kept = {(message.event, message.data, message.retained) for message in messages}
                assert kept == {("state.a", 2, True), ("state.b", None, True), ("state.c", "now", False)}
                assert messages[-1].event == "state.c"
                assert await take(later, 1) == [("state.c", "now")]
            assert wire.server.forget("state.a") == 1
            assert wire.server.forget("**") == 1
            async with subscribe("state.*") as empty:
                await publish("state.d")
                assert await take(empty, 1) == [("state.d", None)]
            assert await take(witness, 2) == [("state.c", "now"), ("state.d", None)]


@needs(Feature.TOPICS, Feature.RECONNECT)
async def test_a_subscription_is_restored_before_what_was_queued_is_published(subject: Subject) -> None:
    first = pyipc.Server(subject.server_endpoint())
    async with first:
        address = first.addresses[0]
        async with (
            pyipc.connect(subject.client_endpoint(address), reconnect_interval=0.01) as client,
            client.subscribe("t.*") as subscription,
        ):
            await first.publish("t.first", 1)
            assert await take(subscription, 1) == [("t.first", 1)]
            await first.aclose()
            await until(lambda: not client.connected)
            for number in range(3):
                await client.publish("t.queued", number)
            assert client.statistics().offline_messages == 3
            async with pyipc.Server(subject.server_endpoint_again(address)) as second:
                assert await take(subscription, 3) == [("t.queued", number) for number in range(3)]
                await second.publish("t.second", 2)
                assert await take(subscription, 1) == [("t.second", 2)]
                assert subscription.statistics().restored == 1


@needs(Feature.TOPICS)
async def test_peers_may_only_what_the_server_allows(subject: Subject) -> None:
    server = pyipc.Server(
        subject.server_endpoint(),
        may_subscribe=lambda peer, pattern: pattern.startswith("public."),
        may_publish=lambda peer, topic: topic == "public.chat",
    )
    async with server, pyipc.connect(subject.client_endpoint(server.addresses[0])) as client:
        with pytest.raises(pyipc.RemoteError) as refused:
            async with client.subscribe("private.*"):
                pytest.fail("it was not refused")
        assert refused.value.code == "not-allowed"
        async with client.subscribe("public.*") as subscription:
            await client.publish("private.x", 1)
            await client.publish("public.x", 2)
            await client.publish("public.chat", 3)
            assert await take(subscription, 1) == [("public.chat", 3)]
        assert client.statistics().publishes_refused == 2
        assert server.statistics().publishes_refused == 2
        assert server.statistics().subscriptions_refused == 1


@needs(Feature.TOPICS, Feature.MANY, Feature.PRESSURE)
@pytest.mark.parametrize("slow_peer", ["close", "drop"])
async def test_a_subscriber_that_never_reads_costs_its_bound_and_nobody_else_anything(
    subject: Subject, slow_peer: str
) -> None:
    bound, size = 200_000, 2_000
    options: dict[str, Any] = {"slow_peer": slow_peer, "max_outbox_size": bound, "close_timeout": 0.2}
    server = pyipc.Server(subject.server_endpoint(), **options)
    async with server:
        where = subject.client_endpoint(server.addresses[0])
        async with pyipc.connect(where) as publisher, pyipc.connect(where) as client, client.subscribe("t") as fast:
            others = server.connections
            link = await dial_link(where)
            await link.send(b'{"type":"pyipc.subscribe","data":{"call":1,"pattern":"**"}}\f')
            await until(lambda: server.statistics().subscriptions == 2)
            (deaf,) = server.connections - others
            sent = 0
            # On and on, until the one who does not read has cost what it may, and then once more as much.
            while (dropped := server.statistics().publishes_dropped) < (1 if slow_peer == "close" else 100):
                await publisher.publish("t", [sent, noise(size)])
                message = await fast.get()
                assert message.data[0] == sent
                sent += 1
                assert deaf.statistics().outbox_size <= bound
            for number in range(sent, sent + 100):
                await publisher.publish("t", [number, noise(size)])
            assert [(await fast.get()).data[0] for _ in range(100)] == list(range(sent, sent + 100))
            statistics = server.statistics()
            assert statistics.publishes == sent + 100
            assert fast.statistics().received == sent + 100
            assert fast.statistics().dropped == 0
            if slow_peer == "close":
                assert statistics.publishes_dropped == dropped == 1
                assert deaf.reason is not None
                assert deaf.reason.code == "slow"
            else:
                assert statistics.publishes_dropped == dropped + 100 == 200
                assert deaf.reason is None
                assert deaf.statistics().dropped == 200
                assert deaf.statistics().events_sent == sent - 100
            await link.aclose()
            await until(lambda: server.statistics().subscriptions == 1)


@needs(Feature.MESSAGES)
@lacks(Feature.TOPICS)
async def test_topics_that_cannot_be_are_refused_and_nothing_is_waited_for(stage: Stage) -> None:
    async with stage.open() as wire:
        for side in (wire.client, wire.server):
            with pytest.raises(pyipc.UnsupportedByTransport, match="another transport"):
                await side.publish("t", 1)
            with pytest.raises(pyipc.UnsupportedByTransport):
                async with side.subscribe("t"):
                    pytest.fail("nothing can be subscribed to")
        assert wire.client.statistics().subscriptions == 0


@needs(Feature.MESSAGES)
@lacks(Feature.TOPICS)
async def test_a_peer_that_asks_for_topics_all_the_same_is_not_heard(subject: Subject) -> None:
    async with pyipc.Server(subject.server_endpoint()) as server:
        link = await dial_link(subject.client_endpoint(server.addresses[0]))
        await link.send(b'{"type":"pyipc.subscribe","data":{"call":1,"pattern":"**"}}\f{"type":"e"}\f')
        await until(lambda: any(one.statistics().unheard for one in server.connections))
        assert server.statistics().subscriptions == 0
        await link.aclose()
