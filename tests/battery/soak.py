"""A server that does everything, and clients that come, ask for all of it and go: for as long as one likes.

``python -m tests.battery.soak serve|live ...``. Nothing here grows with the time that it takes: of what was sent and
handled there are chains, which client and server compare whenever a client is about to go.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import os
import random
import sys
import time
import zlib
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from tests.battery.chain import Chain
from tests.battery.leaks import leak_gate, resident_size
from tests.battery.program import tell, told
from tests.conformance.sides import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Seconds between two messages for everybody, and that a client pauses on average between two things that it does.
TICK, PAUSE = 0.1, 0.1
#: The shortest and the longest time that a client stays, in seconds.
STAY = (2.0, 10.0)
#: What clients do, and how often compared with each other.
ACTIONS = {"request": 40, "note": 30, "keep": 15, "publish": 10, "stream": 3, "attach": 2}
#: How many items a stream has.
ITEMS = 20


class Soaked:
    """The server's program."""

    def __init__(self, address: str) -> None:
        # What is remembered of clients that have gone is all there before long.
        self.server = pyipc.Server(address, session_timeout=10)
        self.chains: dict[str, dict[str, Chain]] = {}
        self.messages = 0
        self.ends: collections.Counter[str] = collections.Counter()
        for event in ("note", "keep"):
            self.server.on(event, self.note)
        self.server.on("double", self.double)
        self.server.on("mirror", self.mirror)
        self.server.on("count", self.count)
        self.server.on("settle", self.settle)
        self.server.on_disconnect(self.ended)

    def note(self, message: pyipc.Message[list[str]]) -> None:
        sender, text = message.data
        self.chains.setdefault(sender, {}).setdefault(message.event, Chain()).add(text)
        self.messages += 1

    def double(self, message: pyipc.Message[int]) -> int:
        self.messages += 2
        return 2 * message.data

    async def mirror(self, message: pyipc.Message[None]) -> pyipc.Attached[int]:
        await trio.sleep(0.001)
        self.messages += 2
        return pyipc.Attached(zlib.crc32(message.attachments[0]), [message.attachments[0][::-1]])

    async def count(self, message: pyipc.Message[int]) -> AsyncIterator[int]:
        for number in range(message.data):
            self.messages += 1
            yield number

    def settle(self, message: pyipc.Message[str]) -> dict[str, tuple[int, int]]:
        """Tell a client that is about to go what was handled of it, and forget that."""
        chains = self.chains.pop(message.data, {})
        return {event: dataclasses.astuple(chain) for event, chain in chains.items()}

    def ended(self, reason: pyipc.Disconnected) -> None:
        self.ends[reason.code] += 1

    async def tick(self) -> None:
        number = 0
        while True:
            report = await self.server.publish("tick", number)
            assert report.dropped == 0
            self.messages += report.sent
            number += 1
            await trio.sleep(TICK)

    async def run(self) -> None:
        async with self.server, leak_gate():
            tell(str(self.server.addresses[0]))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.tick)
                async for _ in told():
                    tell(self.sample())
                nursery.cancel_scope.cancel()

    def sample(self) -> dict[str, Any]:
        statistics = self.server.statistics()
        return {
            "at": time.monotonic(),
            "memory": resident_size(),
            "descriptors": len(os.listdir("/proc/self/fd")) - statistics.connections,
            "connections": statistics.connections,
            "messages": self.messages + 2 * statistics.publishes,
            "dropped": statistics.publishes_dropped,
            "unsettled": len(self.chains),
            "ends": self.ends,
        }


class Population:
    """The clients' program.

    Args:
        address: Of the server.
        name: What their names begin with.
        count: How many there are at a time.
    """

    def __init__(self, address: str, name: str, count: int) -> None:
        self.address = address
        self.name = name
        self.count = count
        self.over = False
        self.lives = 0
        self.settled: collections.Counter[str] = collections.Counter()
        #: How many requests took how long: by the logarithm of their time, so that there are few numbers.
        self.times: collections.Counter[int] = collections.Counter()
        self.faults: list[str] = []

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self.count):
                nursery.start_soon(self.live, f"{self.name}-{number}")
            async with contextlib.aclosing(told()) as words:
                async for word in words:
                    if word == "go":
                        break
                    tell({"times": self.times, "faults": self.faults})
                    self.times = collections.Counter()
            self.over = True
        tell({"lives": self.lives, "settled": self.settled, "faults": self.faults})

    async def live(self, name: str) -> None:
        rng = random.Random(name)
        await trio.sleep(rng.uniform(0, 1))  # not all of them at once
        while not self.over:
            self.lives += 1
            await Life(self, f"{name}-{self.lives}", rng).run()

    def fault(self, what: str) -> None:
        if len(self.faults) < 10:
            self.faults.append(what)


class Life:
    """One client, from its coming to its going."""

    def __init__(self, population: Population, name: str, rng: random.Random) -> None:
        self.population = population
        self.name = name
        self.rng = rng
        self.sent = {"note": Chain(), "keep": Chain(), "publish": Chain()}
        self.heard = Chain()

    async def run(self) -> None:
        end = trio.current_time() + self.rng.uniform(*STAY)
        room = f"room.{self.name}"
        async with pyipc.connect(self.population.address) as client:
            async with client.subscribe("tick") as ticks, client.subscribe(room) as own, trio.open_nursery() as nursery:
                nursery.start_soon(self.hear_ticks, ticks)
                nursery.start_soon(self.hear, own)
                while trio.current_time() < end and not self.population.over:
                    await self.act(client, self.rng.choices(list(ACTIONS), list(ACTIONS.values()))[0])
                    await trio.sleep(self.rng.uniform(0, 2 * PAUSE))
                handled = await client.request("settle", self.name)
                with trio.move_on_after(30):
                    await until(lambda: self.heard.count >= self.sent["publish"].count)
                nursery.cancel_scope.cancel()
            self.settle({event: Chain(*found) for event, found in handled.items()} | {"publish": self.heard})
            if client.statistics().published_dropped:
                self.population.fault(f"{self.name} dropped what was published")

    def settle(self, handled: dict[str, Chain]) -> None:
        """Compare what was sent with what was handled of it."""
        for event, sent in self.sent.items():
            if handled.get(event, Chain()) != sent:
                self.population.fault(f"of {self.name}, {event}: sent {sent}, handled {handled.get(event)}")
            self.population.settled[event] += sent.count

    async def hear_ticks(self, ticks: pyipc.Subscription) -> None:
        last = None
        async for message in ticks:
            if last is not None and message.data != last + 1:
                self.population.fault(f"{self.name} heard tick {message.data} after {last}")
            last = message.data

    async def hear(self, own: pyipc.Subscription) -> None:
        async for message in own:
            self.heard.add(message.data)

    async def act(self, client: pyipc.Client, action: str) -> None:
        rng = self.rng
        match action:
            case "request":
                number = rng.randrange(1_000_000)
                began = time.monotonic()
                self.check(action, await client.request("double", number) == 2 * number)
                self.population.times[bucket(time.monotonic() - began)] += 1
            case "note" | "keep":
                text = self.text(action)
                await client.emit(action, [self.name, text], confirm=action == "keep")
            case "publish":
                await client.publish(f"room.{self.name}", self.text(action))
            case "stream":
                async with client.stream("count", ITEMS) as numbers:
                    self.check(action, [number async for number in numbers] == list(range(ITEMS)))
            case "attach":
                data = rng.randbytes(rng.randrange(1, 65_536))
                answer = await client.request("mirror", attachments=[data])
                self.check(action, answer.data == zlib.crc32(data) and answer.attachments == (data[::-1],))

    def text(self, action: str) -> str:
        """What to say next, which is noted as sent."""
        chain = self.sent[action]
        text = f"{self.name} {chain.count} ".ljust(self.rng.randrange(30, 300), "x")
        chain.add(text)
        return text

    def check(self, action: str, is_right: bool) -> None:
        if not is_right:
            self.population.fault(f"{self.name} got a wrong answer: {action}")
        self.population.settled[action] += 1


def bucket(seconds: float) -> int:
    """A number for a time, of which there are ten for each time that is ten times as long."""
    return round(10 * math.log10(max(seconds, 1e-6)))


def percentile(times: dict[int, int], share: float) -> float:
    """The time, in seconds, below which so much of what was counted is."""
    left = share * sum(times.values())
    for number, count in sorted(times.items()):
        left -= count
        if left <= 0:
            return float(10 ** (number / 10))
    return 0.0


if __name__ == "__main__":
    role, at, *words = sys.argv[1:]
    if role == "serve":
        trio.run(Soaked(at).run)
    else:
        name, count = words
        trio.run(Population(at, name, int(count)).run)
