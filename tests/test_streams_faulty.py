"""Streams over links that misbehave: what is taken is the beginning of what was made, in order, each item once.

The end is told only after all of it; else the connection was lost, and whoever waits is told that. The seed of a run
that fails is in the name of its test.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import pyipc
from pyipc.testing import Faults, FaultyTransport, pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(60)

SEEDS = range(60)
STREAMS = 6


class Ledger:
    """What was made and what was taken of each stream, and how it ended."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.made: dict[int, list[Any]] = {}
        self.taken: dict[int, list[Any]] = {}
        self.ends: dict[int, str] = {}
        self.finished: dict[int, bool] = {}
        self.begun = self.closed = 0
        self.router = pyipc.Router()
        self.router.on("rows", self.rows)

    async def rows(self, message: pyipc.Message[int]) -> AsyncIterator[Any]:
        name, draw = message.data, self.draw
        made = self.made.setdefault(name, [])
        self.begun += 1
        try:
            for number in range(draw.choice((0, 1, 30, 200))):
                if draw.random() < 0.1:
                    await trio.sleep(draw.random())
                row = [name, number, "x" * draw.choice((0, 10, 3_000))]
                made.append(row)
                yield row
            self.finished[name] = True
        finally:
            self.closed += 1

    async def take(self, source: pyipc.Client | pyipc.Connection, name: int) -> None:
        draw = self.draw
        taken = self.taken[name] = []
        leaves = draw.random() < 0.3
        try:
            async with source.stream("rows", name) as rows:
                async for row in rows:
                    taken.append(row)
                    if draw.random() < 0.05:
                        await trio.sleep(draw.random() * 2)
                    if leaves and draw.random() < 0.05:
                        self.ends[name] = "left"
                        return
            self.ends[name] = "end"
        except pyipc.ConnectionLost:
            self.ends[name] = "lost"

    def check(self) -> None:
        assert self.begun == self.closed
        for name, taken in self.taken.items():
            made = self.made.get(name, [])
            assert taken == made[: len(taken)], name
            if self.ends[name] == "end":
                assert taken == made
                assert self.finished[name]


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_is_taken_is_the_beginning_of_what_was_made(seed: int, autojump_clock: MockClock) -> None:
    ledger = Ledger(seed)
    draw = random.Random(~seed)
    options = {"max_stream_items": draw.choice((1, 7, 256)), "max_stream_size": draw.choice((1, 5_000, 2**18))}

    def faults() -> Faults:
        return Faults(
            seed=draw.randrange(2**32),
            delay=draw.choice((0.0, (0.0, 0.02))),
            split=draw.choice((None, 1_000)),
            coalesce=draw.choice((1, 3)),
            tear=draw.choice((0.0, 0.0, 0.01)),
            reset_after=draw.choice((None, None, 20_000, 200_000)),
        )

    both = {**options, "outbox_high_water_size": draw.choice((2_000, 65_536)), "heartbeat_interval": None}
    transport = FaultyTransport(faults(), inbound=faults())
    async with pair(ledger.router, client_router=ledger.router, client_options=both, server_options=both,
                    faults=transport, buffer_size=draw.choice((500, 65_536))) as (client, server):  # fmt: skip
        async with trio.open_nursery() as nursery:
            for name in range(STREAMS):
                nursery.start_soon(ledger.take, client, name)
            await wait_all_tasks_blocked()
            for connection in server.connections:
                if connection.peer.protocol != "plain":
                    for name in range(STREAMS, 2 * STREAMS):
                        nursery.start_soon(ledger.take, connection, name)
        await trio.sleep(60)
        for connection in server.connections:
            assert connection.statistics().open_streams == 0
    assert set(ledger.ends) == set(ledger.taken) >= set(range(STREAMS))
    ledger.check()


def test_the_seeds_have_some_of_everything() -> None:
    """The faults above end some streams and leave others alone."""

    async def run(seed: int) -> Ledger:
        ledger = Ledger(seed)
        faults = Faults(seed=seed, split=700, reset_after=None if seed % 2 else 30_000)
        async with (
            pair(ledger.router, faults=FaultyTransport(faults, inbound=faults)) as (client, _),
            trio.open_nursery() as nursery,
        ):
            for name in range(STREAMS):
                nursery.start_soon(ledger.take, client, name)
        ledger.check()
        return ledger

    ends: set[str] = set()
    for seed in range(10):
        ledger = trio.run(run, seed, clock=trio.testing.MockClock(autojump_threshold=0))
        ends.update(ledger.ends.values())
    assert ends == {"end", "left", "lost"}
