"""Servers that are drained over links that misbehave: nothing is handled twice, nothing hangs, and the ledgers agree.

The seed of a run that fails is in the name of its test.
"""

from __future__ import annotations

import collections
import random
from typing import TYPE_CHECKING

import pytest
import trio

import pyipc
from pyipc.testing import Faults, FaultyTransport

if TYPE_CHECKING:
    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(60)

SEEDS = range(20)
ROUNDS = 4


def faults(draw: random.Random, *, breaking: bool) -> Faults:
    """Links that are slow, cut and join; and that break after a while, if they may."""
    return Faults(
        seed=draw.randrange(1 << 30),
        delay=(0.0, draw.choice((0.001, 0.02))),
        split=draw.choice((None, 1, 7, 500)),
        coalesce=draw.choice((1, 3)),
        tear=draw.choice((0.0, 0.002)) if breaking else 0.0,
        reset_after=draw.choice((None, 4_000, 20_000)) if breaking else None,
        half_close_after=draw.choice((None, None, 9_000)) if breaking else None,
        blackhole_after=draw.choice((None, None, 15_000)) if breaking else None,
    )


class Ledger:
    """What was asked, handled, answered and lost, by numbers that are used once."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.asked = self.emitted = 0
        self.handled: collections.Counter[int] = collections.Counter()
        self.again: collections.Counter[int] = collections.Counter()
        self.answered: set[int] = set()
        self.lost: set[int] = set()
        self.received: collections.Counter[int] = collections.Counter()
        self.reports: list[pyipc.DrainReport] = []

    def serve(self, name: str) -> pyipc.Server:
        server = pyipc.Server(f"memory:{name}", close_timeout=1.0, heartbeat_interval=1.0)

        @server.on("work")
        async def work(message: pyipc.Message[int]) -> int:
            self.handled[message.data] += 1
            await trio.sleep(self.draw.choice((0, 0.01, 0.3)))
            return -message.data

        @server.on("get")
        async def get(message: pyipc.Message[int]) -> int:
            self.again[message.data] += 1
            await trio.sleep(self.draw.choice((0, 0.01)))
            return -message.data

        @server.on("seen")
        def seen(message: pyipc.Message[int]) -> None:
            self.received[message.data] += 1

        return server

    async def use(self, client: pyipc.Client, over: trio.Event) -> None:
        """Ask until it is over: what may be handled once, and what may be handled twice."""
        while not over.is_set():
            self.asked += 1
            number = self.asked
            idempotent = self.draw.random() < 0.3
            event = "get" if idempotent else "work"
            try:
                assert await client.request(event, number, timeout=200, idempotent=idempotent) == -number
                self.answered.add(number)
            except pyipc.ConnectionLost as error:
                assert not idempotent
                assert error.maybe_handled
                self.lost.add(number)
            self.emitted += 1
            await client.emit("seen", self.emitted)
            await trio.sleep(self.draw.choice((0.0, 0.05)))


@pytest.mark.parametrize("breaking", [False, True], ids=["whole", "breaking"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_drains_over_links_that_misbehave(seed: int, breaking: bool, autojump_clock: MockClock) -> None:
    ledger = Ledger(seed)
    draw = ledger.draw
    transports = [
        FaultyTransport(faults(draw, breaking=breaking), inbound=faults(draw, breaking=breaking)) for _ in range(2)
    ]
    names = [f"rolling-{seed}-{place}" for place in range(2)]
    endpoints = [
        pyipc.Endpoint(f"memory:{name}", transport=transport) for name, transport in zip(names, transports, strict=True)
    ]
    over = trio.Event()
    async with trio.open_nursery() as running:
        servers = [ledger.serve(name) for name in names]
        for server in servers:
            await running.start(server.run)
        async with pyipc.connect(*endpoints, heartbeat_interval=1.0, close_timeout=2.0) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(ledger.use, client, over)
                for turn in range(ROUNDS):
                    await trio.sleep(draw.choice((0.1, 1.0)))
                    place = turn % 2
                    began = trio.current_time()
                    ledger.reports.append(await servers[place].drain(20))
                    assert trio.current_time() - began < 25  # the deadline, and twice what closing may take
                    servers[place] = ledger.serve(names[place])
                    await running.start(servers[place].run)
                over.set()
            moves = client.statistics().moves
            await client.request("get", 0, timeout=200, idempotent=True)
        for server in servers:
            await server.aclose()
    del ledger.again[0]
    assert all(count == 1 for count in ledger.handled.values())
    assert all(count == 1 for count in ledger.received.values())
    assert ledger.answered | ledger.lost == set(range(1, ledger.asked + 1))
    assert not ledger.answered & ledger.lost
    assert ledger.answered <= ledger.handled.keys() | ledger.again.keys()
    assert ledger.handled.keys() <= ledger.answered | ledger.lost
    if not breaking:
        assert not ledger.lost
        assert ledger.received.keys() == set(range(1, ledger.emitted + 1))
        assert all(count == 1 for count in ledger.again.values())
        assert all(report.cut_off == 0 for report in ledger.reports)
        assert moves >= 1
    print(f"{ledger.asked} asked, {len(ledger.lost)} lost, {ledger.emitted} events, {moves} moves, {ledger.reports}")
