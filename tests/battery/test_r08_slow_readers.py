"""Slow readers: one of a hundred subscribers never reads. The others miss nothing, and memory stays within the cap.

A server publishes to a hundred subscribers as fast as ninety-nine of them take it, or broadcasts to twenty-one
clients, and one of them never reads. Its memory grows by no more than ``max_outbox_size`` and a tenth of that. The
others get every message, once and in order. Whoever publishes is told exactly how much was dropped: with
``slow_peer="drop"`` the slow one gets, as soon as it reads, just what it was not said to have missed; with ``"close"``
it is closed. A sender that waits, a subscription that nobody takes from, and a peer that asks and never reads the
answers are bounded in the same way.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trio

import pyipc
from tests.battery.chain import Chain
from tests.battery.leaks import leak_gate
from tests.battery.program import needs_processes, running
from tests.battery.sizes import sized
from tests.battery.slow_readers import Plan, payload
from tests.conformance.sides import until
from tests.wire import frame, hello

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pyipc.subscription import Policy
    from tests.battery.conftest import Tally

pytestmark = pytest.mark.time_limit(120)

CAP = pyipc.Options().max_outbox_size
#: What the allocator may hold beyond what was asked of it.
SPARE = 1 << 20


class SlowPeer:
    """One who says what it wants and reads nothing of what it gets, until it is told to."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._rest = b""

    async def next(self) -> tuple[str, Any] | None:
        """The next frame; ``None`` at the end."""
        while b"\f" not in self._rest:
            try:
                chunk = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not chunk:
                return None
            self._rest += chunk
        one, _, self._rest = self._rest.partition(b"\f")
        said = json.loads(one)
        return said["type"], said.get("data")

    async def text(self) -> str:
        """What is in the next event that it gets."""
        while (found := await self.next()) is not None:
            if found[0] == "topic.0":
                return str(found[1])
        raise AssertionError("the connection has ended")

    async def rest(self) -> list[str]:
        """What is in all events and topics that it gets until the end."""
        texts = []
        while (found := await self.next()) is not None:
            match found:
                case "pyipc.published", {"data": str(text)}:
                    texts.append(text)
                case "topic.0", str(text):
                    texts.append(text)
        return texts


@contextlib.asynccontextmanager
async def slow_peer(address: str, topics: int = 0) -> AsyncIterator[SlowPeer]:
    """Connect one, which has subscribed to so many topics."""
    where = pyipc.parse_address(address)
    if where.scheme == "unix":
        stream = await trio.open_unix_socket(where.name)
    else:
        stream = await trio.open_tcp_stream(where.host, where.port)
    async with stream:
        peer = SlowPeer(stream)
        await stream.send_all(hello())
        for topic in range(topics):
            await stream.send_all(frame("pyipc.subscribe", {"call": topic + 1, "pattern": f"topic.{topic}"}))
        for answer in ["pyipc.welcome", *["pyipc.reply"] * topics]:  # from here on it gets everything
            found = await peer.next()
            assert found is not None
            assert found[0] == answer
        yield peer


@needs_processes
@pytest.mark.parametrize("policy", ["drop", "close"])
@pytest.mark.parametrize("verb", ["publish", "broadcast"])
async def test_one_who_never_reads_harms_nobody_else(
    verb: Literal["publish", "broadcast"], policy: Literal["drop", "close"], tmp_path: Path, tally: Tally
) -> None:
    if verb == "publish":
        plan, counter = Plan(verb, policy, size=1_024, topics=20, readers=99), "publishes_dropped"
        count = sized(20, least=20) * 1_000
    else:
        plan, counter = Plan(verb, policy, size=8_192, topics=1, readers=20), "broadcasts_dropped"
        count = sized(25, least=25) * 100
    calm_count = count // 4
    async with leak_gate(tmp_path), contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(running("slow_readers", "serve", f"unix:{tmp_path}/server", *plan.words()))
        address = await server.next()
        readers = await enter(running("slow_readers", "read", address, *plan.words()))
        assert await readers.next() == "ready"
        await server.tell({"tell": calm_count})
        calm = await server.next()
        slow = await enter(slow_peer(address, plan.topics if verb == "publish" else 0))
        await server.tell({"tell": count})
        storm = await server.next()
        await server.tell("balance")
        balance = await server.next()
        await readers.tell(balance["chains"])
        taken = await readers.next()
        await readers.end()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.end)  # which sends what it still has for the slow one
            texts = await slow.rest()
    # The others have lost nothing.
    assert len(taken) == plan.readers
    assert [chain for _, *chain in taken] == [balance["chains"][topic] for topic, *_ in taken]
    handled = sum(number for _, number, _ in taken)
    # The server has not held more than it may.
    growth = storm["memory"] - calm["memory"]
    print(f"{count:,} messages of {plan.size:,} bytes: memory grew by {growth / 2**20:.1f} MiB")
    assert count * plan.size > 2 * CAP, "too few to tell"
    assert growth <= CAP * 1.1 + SPARE
    # It has told what became of each copy.
    assert calm["dropped"] == 0
    assert balance["statistics"][counter] == storm["dropped"]
    if policy == "drop":
        assert balance["thrown_out"] == {}
        assert balance["by_connection"] == [*[0] * plan.readers, storm["dropped"]]
        assert storm["sent"] + storm["dropped"] == handled + count
    else:
        assert balance["thrown_out"] == {"slow": 1}
        assert storm["dropped"] == 1
    # And the slow one has all that was not said to be dropped, or what there was before it was closed.
    assert 0 < len(texts) < count
    numbers = [int(text.split()[0]) for text in texts]
    assert texts == [payload(number, plan.size) for number in numbers]
    if policy == "drop":
        assert len(texts) == count - storm["dropped"]
        assert numbers == sorted(set(numbers))
    else:
        assert len(texts) <= storm["sent"] - handled
        assert numbers == list(range(calm_count, calm_count + len(texts)))
    tally.add(messages=handled, lost=0)


async def test_a_sender_waits_for_one_who_never_reads(tally: Tally) -> None:
    count, size = sized(4_000, least=2_000), 8_192
    most = 0
    served = 0
    options = pyipc.Options()

    async def send(connection: pyipc.Connection) -> None:
        nonlocal most
        for number in range(count):
            await connection.emit("topic.0", payload(number, size))
            most = max(most, connection.statistics().outbox_size)

    server = pyipc.Server("tcp://127.0.0.1:0", heartbeat_interval=None)
    server.on("double", lambda message: 2 * message.data)
    async with leak_gate(), server, slow_peer(str(server.addresses[0])) as slow, trio.open_nursery() as nursery:
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        nursery.start_soon(send, connection)
        await until(lambda: connection.statistics().outbox_size >= options.outbox_high_water_size)
        async with pyipc.connect(server.addresses[0]) as other:
            for number in range(sized(1_000, least=100)):
                assert await other.request("double", number) == 2 * number
                served += 1
        assert connection.is_open
        for number in range(count):
            assert await slow.text() == payload(number, size)
    print(f"no more than {most:,} bytes waited")
    assert most <= options.outbox_high_water_size + size + 100
    tally.add(messages=count + served, lost=0)


async def test_one_who_asks_and_never_reads_is_cut_off(tally: Tally) -> None:
    peers, size = sized(3), 64 << 10
    tell_end, ends = trio.open_memory_channel[pyipc.Disconnected](1)
    most = 0

    def answer(message: pyipc.Message[None]) -> str:
        nonlocal most
        most = max(most, message.connection.statistics().outbox_size)
        return payload(0, size)

    server = pyipc.Server("tcp://127.0.0.1:0", heartbeat_interval=None, close_timeout=1)
    server.on("fetch", answer)
    server.on_disconnect(tell_end.send_nowait)
    async with leak_gate(), server, pyipc.connect(server.addresses[0]) as other:
        for _ in range(peers):
            async with slow_peer(str(server.addresses[0])) as slow:
                with contextlib.suppress(trio.BrokenResourceError):
                    for call in range(1_000):
                        await slow.stream.send_all(frame("pyipc.request", {"call": call, "event": "fetch"}))
                assert len(await other.request("fetch")) == size
                end = await ends.receive()
                assert end.code == "slow", end.message
    print(f"no more than {most:,} bytes waited")
    assert CAP // 2 < most <= CAP + size + 100
    tally.add(hostile=peers)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "close"])
async def test_a_subscription_that_nobody_takes_from_is_bounded_and_told(policy: Policy, tally: Tally) -> None:
    count, room = sized(20_000, least=2_000), 1_000
    taken = Chain()
    sent = Chain()

    async def take(subscription: pyipc.Subscription) -> None:
        async for message in subscription:
            taken.add(message.data)

    server = pyipc.Server("tcp://127.0.0.1:0")
    async with leak_gate(), server, pyipc.connect(server.addresses[0]) as client, trio.open_nursery() as nursery:
        beside = client.subscribe("topic.*", policy="close", max_buffered=count)
        neglected = client.subscribe("topic.*", policy=policy, max_buffered=room)
        async with beside, neglected:
            nursery.start_soon(take, beside)
            for number in range(count):
                sent.add(payload(number, 1_024))
                report = await server.publish("topic.0", payload(number, 1_024))
                assert (report.sent, report.dropped) == (1, 0)
                if number % 1_000 == 999:
                    await until(lambda: taken.count == sent.count)
            told = neglected.statistics()
            left = [int(message.data.split()[0]) for message in [await neglected.get() for _ in range(told.waiting)]]
            if policy == "close":
                assert (told.received, told.dropped, told.waiting) == (room + 1, 1, room)
                with pytest.raises(pyipc.SubscriptionOverflow):
                    await neglected.get()
            else:
                assert (told.received, told.dropped, told.waiting) == (count, count - room, room)
            assert left == list(range(count - room, count) if policy == "drop_oldest" else range(room))
    assert taken == sent
    tally.add(messages=count, lost=0)
