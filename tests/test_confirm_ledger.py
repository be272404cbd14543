"""What was sent, handled and confirmed, written down, over links that misbehave: hundreds of seeds, no real time."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.testing import Faults, FaultyTransport
from tests.conftest import SCALE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.time_limit(120)

SENDERS, EACH = 3, 12


@dataclasses.dataclass
class Ledger:
    """Everything that happened; an event is its sender and its place among the events of that."""

    begun: list[list[tuple[int, int]]] = dataclasses.field(default_factory=list)
    done: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    redelivered: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    confirmed: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    failed: list[tuple[tuple[int, int], Exception]] = dataclasses.field(default_factory=list)

    def router(self, chance: random.Random) -> pyipc.Router:
        """The handlers of one life of the server."""
        router = pyipc.Router()
        life: list[tuple[int, int]] = []
        self.begun.append(life)

        @router.on("entry")
        async def entry(message: pyipc.Message[list[int]]) -> None:
            sender, place = message.data
            if message.redelivered:
                self.redelivered.add((sender, place))
            elif any((sender, place) in earlier for earlier in self.begun[:-1]):
                pytest.fail(f"{(sender, place)} came again, and nobody said so")
            life.append((sender, place))
            if chance.random() < 0.5:
                await trio.sleep(chance.uniform(0, 0.2))
            self.done.append((sender, place))

        return router

    async def send(self, client: pyipc.Client, sender: int, chance: random.Random) -> None:
        """What one sender does."""
        for place in range(EACH):
            if chance.random() < 0.3:
                await trio.sleep(chance.uniform(0, 0.5))
            try:
                await client.emit("entry", [sender, place], confirm=True)
            except (pyipc.Unconfirmed, pyipc.ConnectionLost) as error:
                self.failed.append(((sender, place), error))
            else:
                self.confirmed.append((sender, place))

    def check(self) -> None:
        """What must hold however badly it went."""
        assert set(self.confirmed) - set(self.done) == set()
        assert len(self.confirmed) + len(self.failed) == SENDERS * EACH
        for life in self.begun:
            assert [entry for entry, count in Counter(life).items() if count > 1] == []
            for sender in range(SENDERS):
                places = [place for each, place in life if each == sender]
                assert places == sorted(places)
        handled = {entry for life in self.begun for entry in life}
        for entry, error in self.failed:
            assert isinstance(error, pyipc.Unconfirmed | pyipc.ConnectionLost)
            assert error.maybe_handled or entry not in handled


def faults(chance: random.Random, seed: int) -> Faults:
    """Some misfortune or other; it lets through enough for a hello and what is sent again after it."""
    kinds: list[Callable[[], dict[str, Any]]] = [
        lambda: {"tear": chance.uniform(0.01, 0.15)},
        lambda: {"reset_after": chance.randrange(1_200, 5_000)},
        lambda: {"half_close_after": chance.randrange(1_200, 5_000)},
        lambda: {"blackhole_after": chance.randrange(1_200, 6_000)},
        dict,
    ]
    kind = chance.choice(kinds)()
    if chance.random() < 0.5:
        kind["delay"] = (0.0, chance.uniform(0, 0.3))
    if chance.random() < 0.3:
        kind["split"] = chance.choice([1, 7, 60])
    return Faults(seed=seed, **kind)


async def with_one_server(seed: int) -> Ledger:
    """The server stays; links break, tear frames, stall and fall silent."""
    chance = random.Random(seed)
    ledger = Ledger()
    transport = FaultyTransport(faults(chance, seed), inbound=faults(chance, seed + 1))
    endpoint = pyipc.Endpoint(f"memory:ledger-{seed}", transport=transport)
    async with (
        pyipc.Server(endpoint.address, router=ledger.router(chance)),
        pyipc.connect(
            endpoint, connect_timeout=None, confirm_timeout=None, heartbeat_interval=1.0, reconnect_max_interval=1.0
        ) as client,
        trio.open_nursery() as nursery,
    ):
        for sender in range(SENDERS):
            nursery.start_soon(ledger.send, client, sender, chance)
    # One server that remembers everything: nothing may be left in doubt.
    assert ledger.failed == []
    assert len(ledger.done) == SENDERS * EACH
    return ledger


async def with_many_servers(seed: int) -> Ledger:
    """Servers are cut off in the middle of whatever they do, and others come after them."""
    chance = random.Random(seed)
    ledger = Ledger()
    transport = FaultyTransport(faults(chance, seed), inbound=faults(chance, seed + 1))
    endpoint = pyipc.Endpoint(f"memory:lives-{seed}", transport=transport)

    async def serve() -> None:
        while True:
            with trio.move_on_after(chance.uniform(0.05, 3.0)):
                await pyipc.Server(endpoint.address, router=ledger.router(chance)).run()
            await trio.sleep(chance.uniform(0, 1.0))

    async with trio.open_nursery() as servers:
        servers.start_soon(serve)
        async with (
            pyipc.connect(
                endpoint,
                connect_timeout=None,
                confirm_timeout=chance.choice([None, 5.0]),
                heartbeat_interval=1.0,
                reconnect_max_interval=1.0,
                offline=chance.choice(["queue", "queue", "raise"]),
            ) as client,
            trio.open_nursery() as nursery,
        ):
            for sender in range(SENDERS):
                nursery.start_soon(ledger.send, client, sender, chance)
        servers.cancel_scope.cancel()
    return ledger


@pytest.mark.parametrize("scene", [with_one_server, with_many_servers])
def test_confirmed_is_handled_and_nothing_twice_in_one_life(scene: Callable[[int], Awaitable[Ledger]]) -> None:
    confirmed = failed = redelivered = 0
    for seed in range(100 * SCALE):
        try:
            ledger = trio.run(scene, seed, clock=trio.testing.MockClock(autojump_threshold=0))
            ledger.check()
        except BaseException:
            print(f"the seed was {seed}")
            raise
        confirmed += len(ledger.confirmed)
        failed += len(ledger.failed)
        redelivered += len(ledger.redelivered)
    assert confirmed > 100
    print(f"{confirmed} confirmed, {failed} in doubt or not sent, {redelivered} redelivered")
