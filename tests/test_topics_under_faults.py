"""Topics over links that tear, break and cut, with a ledger of what was published, and of what came of it."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.testing import Faults, FaultyTransport
from tests.conformance.sides import until
from tests.conftest import SCALE

if TYPE_CHECKING:
    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(60)

MESSAGES = 400
QUICK: dict[str, Any] = {"reconnect_interval": 0.01, "reconnect_max_interval": 0.05, "close_timeout": 1.0}


def misfortune(rng: random.Random) -> FaultyTransport:
    """A transport of bad luck, in both directions."""

    def faults() -> Faults:
        return Faults(
            seed=rng.randrange(1_000_000),
            delay=(0.0, 0.002),
            tear=rng.choice([0.0, 0.01, 0.03]),
            split=rng.choice([None, 3, 50]),
            coalesce=rng.choice([1, 4]),
            hold_interval=0.005,
            reset_after=rng.choice([None, rng.randrange(1_000, 6_000)]),  # a whole introduction passes at least
        )

    return FaultyTransport(faults(), inbound=faults())


def places(part: list[int], whole: list[int]) -> list[int]:
    """Where each element of one list stands in the other, which has each element once."""
    index = {number: place for place, number in enumerate(whole)}
    assert len(index) == len(whole), "something was doubled"
    return [index[number] for number in part]  # KeyError: something was invented


@pytest.mark.parametrize("seed", range(30 * SCALE))
async def test_the_ledger(seed: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")
    out, back = misfortune(rng), misfortune(rng)
    retains = rng.random() < 0.5
    sent: list[int] = []
    through: list[int] = []  # what the server has published, in order
    received: list[int] = []
    kept: list[int] = []
    server = pyipc.Server("memory:ledger", close_timeout=1.0)

    async def witness(subscription: pyipc.Subscription) -> None:
        async for message in subscription:
            through.append(message.data)  # noqa: PERF401 - the others look at it meanwhile

    async def subscriber(subscription: pyipc.Subscription) -> None:
        async for message in subscription:
            (kept if message.retained else received).append(message.data)

    # Whatever else may be lost, nothing is lost because a connection broke before it was clear who the server is.
    caplog.set_level("WARNING")
    async with (
        server,
        pyipc.connect(pyipc.Endpoint("memory:ledger", transport=out), wait=False, **QUICK) as publisher,
        pyipc.connect(pyipc.Endpoint("memory:ledger", transport=back), wait=False, **QUICK) as client,
        server.subscribe("t.*", max_buffered=10_000) as everything,
        client.subscribe("t.*", max_buffered=10_000) as subscription,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(witness, everything)
        nursery.start_soon(subscriber, subscription)
        for number in range(MESSAGES):
            await publisher.publish(f"t.{number % 5}", number, retain=retains)
            sent.append(number)
            if rng.random() < 0.2:
                await trio.sleep(rng.choice([0.0, 0.001, 0.02]))
        # From here on links are good; and so many messages more that one certainly comes through.
        out.faults = back.faults = Faults()
        out.inbound = back.inbound = None
        for transport in (out, back):
            for link in transport.links:
                await link.reset()
        number = MESSAGES
        while not received or received[-1] < MESSAGES:
            await publisher.publish("t.x", number)
            sent.append(number)
            number += 1
            await trio.sleep(0.05)
        await until(lambda: received[-1] == through[-1] == sent[-1])
        statistics = subscription.statistics()
        connects = client.statistics().connects
        nursery.cancel_scope.cancel()

    # What the publisher sent: in order, none twice, none invented, and what was lost was lost with a connection.
    published = places(through, sent)
    assert published == sorted(published)
    # What the subscriber got of it: in order, none twice, none invented, gaps only across reconnects.
    seen = places(received, through)
    assert seen == sorted(set(seen))
    gaps = sum(after != before_it + 1 for before_it, after in itertools.pairwise(seen))
    assert gaps <= statistics.restored
    assert set(kept) <= set(through)
    # It was restored as often as a connection lasted until the answer; that the last message came shows the rest.
    assert 1 <= statistics.restored < connects
    assert statistics.dropped == 0
    assert statistics.received == len(received) + len(kept)
    if not retains:
        assert kept == []
    assert "cannot be sent" not in caplog.text
