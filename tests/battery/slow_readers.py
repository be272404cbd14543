"""A server that tells many something, and those who take it: ``python -m tests.battery.slow_readers serve|read ...``.

It goes on only as far as those who take it are: the one who does not is the only one who is slow.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, Literal

import trio

import pyipc
from tests.battery.chain import Chain
from tests.battery.program import tell, told
from tests.conformance.sides import until
from tests.streaming import forget_peak, peak_memory

#: Those who read say every so many messages how far they are, and are never further behind than by so many.
STRIDE, WINDOW = 25, 100


def payload(number: int, size: int) -> str:
    """What the message of this number says."""
    return f"{number} ".ljust(size, "x")


@dataclasses.dataclass
class Plan:
    """What is to be done, as both programs are told it on the command line.

    Attributes:
        verb: ``publish`` or ``broadcast``.
        policy: What the server does with who is slow.
        size: Bytes of each.
        topics: How many topics they are published under in turn.
        readers: How many take them, of one topic each.
    """

    verb: Literal["publish", "broadcast"]
    policy: Literal["drop", "close"]
    size: int
    topics: int
    readers: int

    @classmethod
    def of(cls, verb: Any, policy: Any, *numbers: str) -> Plan:
        """From the words of the command line."""
        return cls(verb, policy, *map(int, numbers))

    def words(self) -> list[object]:
        """For the command line."""
        return list(dataclasses.astuple(self))


class Teller:
    """The server's program."""

    def __init__(self, address: str, plan: Plan) -> None:
        self.plan = plan
        self.server = pyipc.Server(
            address,
            slow_peer=plan.policy,
            heartbeat_interval=None,
            # Who is to be closed need not be waited for; who is not gets the time to read what there is.
            close_timeout=2 if plan.policy == "close" else 30,
        )
        self.progress: dict[pyipc.Connection, int] = {}
        self.news = trio.Event()
        self.sent = [Chain() for _ in range(plan.topics)]
        self.reported = {"sent": 0, "dropped": 0}
        # Of those who did not leave by themselves: why, and how much they did not get.
        self.thrown_out: dict[str, int] = {}
        self.server.on("far", self.far)
        self.server.on_disconnect(self.gone)

    def far(self, message: pyipc.Message[int]) -> None:
        """A reader says how far it is."""
        self.progress[message.connection] = message.data
        self.news.set()

    def gone(self, reason: pyipc.Disconnected) -> None:
        connection = reason.connection
        assert isinstance(connection, pyipc.Connection)
        if reason.code not in {"goodbye", "eof"}:
            self.thrown_out[reason.code] = connection.statistics().dropped
        self.progress.pop(connection, None)
        self.news.set()

    async def run(self) -> None:
        async with self.server:
            tell(str(self.server.addresses[0]))
            forget_peak()
            async for word in told():
                match word:
                    case {"tell": count}:
                        await self.tell_all(count)
                        tell({"memory": peak_memory(), **self.reported})
                    case "balance":
                        tell(await self.balance())

    async def balance(self) -> dict[str, Any]:
        """What was sent, and what became of it."""
        with trio.move_on_after(30):
            while self.plan.policy == "close" and not self.thrown_out:
                await self.hear()
        return {
            "chains": [dataclasses.astuple(each) for each in self.sent],
            "statistics": dataclasses.asdict(self.server.statistics()),
            "by_connection": sorted(each.statistics().dropped for each in self.server.connections),
            "thrown_out": self.thrown_out,
        }

    async def tell_all(self, count: int) -> None:
        plan = self.plan
        for _ in range(count):
            number = sum(chain.count for chain in self.sent)
            topic = number % plan.topics
            text = payload(number, plan.size)
            self.sent[topic].add(text)
            if plan.verb == "publish":
                report = await self.server.publish(f"topic.{topic}", text)
            else:
                report = await self.server.broadcast("topic.0", text)
            self.reported["sent"] += report.sent
            self.reported["dropped"] += report.dropped
            if number % STRIDE == 0:
                await self.catch_up()

    async def catch_up(self) -> None:
        """Wait until no reader is too far behind."""
        done = self.sent[-1].count
        while len(self.progress) < self.plan.readers or min(self.progress.values()) < done - WINDOW:
            await self.hear()

    async def hear(self) -> None:
        """Wait until a connection has something new."""
        self.news = trio.Event()
        await self.news.wait()


class Reader:
    """One who takes what there is of one topic."""

    def __init__(self, topic: int) -> None:
        self.topic = topic
        self.chain = Chain()

    async def run(self, address: str, plan: Plan, task_status: trio.TaskStatus[None]) -> None:
        async with pyipc.connect(address, heartbeat_interval=None) as client:
            await client.emit("far", 0)
            name = f"topic.{self.topic}"
            if plan.verb == "publish":
                async with client.subscribe(name) as messages:
                    task_status.started()
                    async for message in messages:
                        await self.take(client, message.data)
            else:
                events = client.events(name)
                task_status.started()
                async for message in events:
                    await self.take(client, message.data)

    async def wait_for(self, count: int) -> None:
        """Wait until it has taken so many messages."""
        await until(lambda: self.chain.count >= count)

    async def take(self, client: pyipc.Client, text: str) -> None:
        self.chain.add(text)
        if self.chain.count % STRIDE == 0:
            await client.emit("far", self.chain.count)


async def read(address: str, plan: Plan) -> None:
    """The program of those who read."""
    readers = [Reader(number % plan.topics) for number in range(plan.readers)]
    async with trio.open_nursery() as nursery:
        for reader in readers:
            await nursery.start(reader.run, address, plan)
        tell("ready")
        async for chains in told():
            for reader in readers:
                await reader.wait_for(chains[reader.topic][0])
            tell([(reader.topic, reader.chain.count, reader.chain.digest) for reader in readers])
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    role, at, *words = sys.argv[1:]
    if role == "serve":
        trio.run(Teller(at, Plan.of(*words)).run)
    else:
        trio.run(read, at, Plan.of(*words))
