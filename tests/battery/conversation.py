"""One client and one server that use all that there is, and note it: what rows with faults in between are made of."""

from __future__ import annotations

import collections
import itertools
import random
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from tests.battery.ledger import Entry, Ledger, digest_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Conversation", "Datagrams"]

#: How many there are of each.
EVENTS, CONFIRMED, REQUESTS, ROWS, NEWS = 40, 12, 12, 120, 30

#: Times, in seconds, that fit into a short conversation.
QUICK: Final[dict[str, Any]] = {
    "heartbeat_interval": 0.5,
    "close_timeout": 1.0,
    "reconnect_interval": 0.01,
    "reconnect_max_interval": 0.2,
    "connect_timeout": None,
    "confirm_timeout": None,
}


class Conversation:
    """A client tells a server events, some to be confirmed, asks it, and takes a stream and what it publishes.

    Args:
        seed: What all sizes and pauses come from.

    Attributes:
        events: The plain events; each connection is a life of its own, since that is as far as their order goes.
        confirmed: Those that were to be confirmed, in the one life of the server.
        outcomes: How often requests were answered and lost, and streams came to an end and were lost.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(f"conversation {seed}")
        self.events = Ledger()
        self.confirmed = Ledger()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._published: list[int] = []
        self._heard: list[int] = []
        self._lives: dict[pyipc.Connection, str] = {}
        self._router = pyipc.Router()
        self._router.on("event", self._on_event)
        self._router.on("confirmed", self._on_confirmed)
        self._router.on("square", self._on_square)
        self._router.on("reverse", self._on_reverse)
        self._router.on("rows", self._on_rows)

    def server(self, address: str) -> pyipc.Server:
        """The server that the client is to reach."""
        return pyipc.Server(address, router=self._router, **QUICK)

    async def hold(self, server: pyipc.Server, address: pyipc.Address | pyipc.Endpoint) -> None:
        """Hold the conversation, to its end.

        Args:
            server: The one that was made here, which is running.
            address: Where its client finds it.
        """
        async with (
            pyipc.connect(address, wait=False, **QUICK) as client,
            client.subscribe("news.*") as news,
            trio.open_nursery() as background,
        ):
            background.start_soon(self._listen, news)
            async with trio.open_nursery() as nursery:
                for task in (self._tell, self._confirm, self._ask, self._ask_again, self._take_rows):
                    nursery.start_soon(task, client)
                nursery.start_soon(self._publish, server)
            await self._until_heard(server)
            self.outcomes["connects"] = client.statistics().connects
            self.outcomes["resent"] = client.statistics().resent
            background.cancel_scope.cancel()

    def check(self) -> None:
        """What must hold, however badly it went."""
        events = self.events.check(duplicates="never")
        assert events.sent == EVENTS
        confirmed = self.confirmed.check(duplicates="never")
        assert confirmed.sent == confirmed.confirmed == confirmed.handled == CONFIRMED
        assert self._heard == sorted(set(self._heard)), "news came twice, or not in order"
        assert set(self._heard) <= set(self._published), "news came that nobody had published"

    # --- the server's side ---

    async def _on_event(self, message: pyipc.Message[list[Any]]) -> None:
        place, text = message.data
        life = self._lives.setdefault(message.connection, f"connection {len(self._lives)}")
        self.events.note_handled(life, Entry("client", place), digest_of(text))
        if self._draw.random() < 0.1:
            await trio.sleep(self._draw.uniform(0, 0.05))

    async def _on_confirmed(self, message: pyipc.Message[int]) -> None:
        digest = digest_of(b"".join(message.attachments))
        self.confirmed.note_handled("server", Entry("client", message.data), digest, redelivered=message.redelivered)
        if self._draw.random() < 0.3:
            await trio.sleep(self._draw.uniform(0, 0.2))

    async def _on_square(self, message: pyipc.Message[int]) -> int:
        if self._draw.random() < 0.3:
            await trio.sleep(self._draw.uniform(0, 0.2))
        return message.data**2

    def _on_reverse(self, message: pyipc.Message[int]) -> pyipc.Attached[int]:
        return pyipc.Attached(message.data, [each[::-1] for each in message.attachments])

    async def _on_rows(self, message: pyipc.Message[int]) -> AsyncIterator[list[Any]]:
        for number in range(message.data):
            yield _row(number)

    async def _publish(self, server: pyipc.Server) -> None:
        for _ in range(NEWS):
            await self._publish_one(server)
            await self._pause()

    async def _publish_one(self, server: pyipc.Server) -> None:
        number = len(self._published)
        self._published.append(number)
        await server.publish(f"news.{number % 3}", number)

    async def _until_heard(self, server: pyipc.Server) -> None:
        """Publish until something comes, which shows that the subscription is there again."""
        before = len(self._published)
        while not self._heard or self._heard[-1] < before:
            await self._publish_one(server)
            await trio.sleep(0.1)

    # --- the client's side ---

    async def _pause(self) -> None:
        if self._draw.random() < 0.3:
            await trio.sleep(self._draw.uniform(0, 0.1))

    async def _tell(self, client: pyipc.Client) -> None:
        for place in range(EVENTS):
            text = "x" * self._draw.choice((0, 10, 300))
            self.events.note_sent(Entry("client", place), digest_of(text))
            await client.emit("event", [place, text])
            await self._pause()

    async def _confirm(self, client: pyipc.Client) -> None:
        for place in range(CONFIRMED):
            attached = [self._draw.randbytes(self._draw.choice((0, 20, 500))) for _ in range(self._draw.choice((0, 2)))]
            entry = Entry("client", place)
            self.confirmed.note_sent(entry, digest_of(b"".join(attached)))
            await client.emit("confirmed", place, confirm=True, attachments=attached)
            self.confirmed.note_confirmed(entry)
            await self._pause()

    async def _ask(self, client: pyipc.Client) -> None:
        for number in range(REQUESTS):
            try:
                assert await client.request("square", number, timeout=60) == number**2
                self.outcomes["answered"] += 1
            except pyipc.ConnectionLost:
                self.outcomes["lost"] += 1
            await self._pause()

    async def _ask_again(self, client: pyipc.Client) -> None:
        """What may be sent again is answered in any case."""
        for number in range(REQUESTS):
            attached = self._draw.randbytes(100)
            reply = await client.request(
                "reverse", number, attachments=[attached], idempotent=True, timeout=None, result=pyipc.Attached
            )
            assert (reply.data, reply.attachments) == (number, (attached[::-1],))
            self.outcomes["answered"] += 1

    async def _take_rows(self, client: pyipc.Client) -> None:
        """Until a whole stream has come."""
        while not self.outcomes["whole streams"]:
            expected = itertools.count()
            try:
                async with client.stream("rows", ROWS, timeout=None) as rows:
                    async for row in rows:
                        assert row == _row(next(expected)), "a stream is the beginning of what was made, in order"
                assert next(expected) == ROWS, "a stream that has ended was not whole"
                self.outcomes["whole streams"] += 1
            except pyipc.ConnectionLost:
                self.outcomes["lost streams"] += 1

    async def _listen(self, news: pyipc.Subscription) -> None:
        async for message in news:
            self._heard.append(message.data)


def _row(number: int) -> list[Any]:
    return [number, "y" * (number % 40)]


class Datagrams:
    """What there is over UDP: events, and requests that are given up in time.

    Args:
        seed: What all sizes and pauses come from.

    Attributes:
        events: The events, which may be lost, doubled and overtake each other.
        outcomes: How often requests were answered and lost, and events handled and doubled.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(f"datagrams {seed}")
        self.events = Ledger()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._router = pyipc.Router()
        self._router.on("event", self._on_event)
        self._router.on("square", lambda message: message.data**2)

    def server(self) -> pyipc.Server:
        """The server that the client is to reach."""
        return pyipc.Server("udp://127.0.0.1:0", router=self._router, **QUICK)

    async def hold(self, address: pyipc.Address) -> None:
        """Hold the conversation, to its end.

        Args:
            address: Where the client finds the server.
        """
        async with pyipc.connect(address, **QUICK) as client, trio.open_nursery() as nursery:
            nursery.start_soon(self._tell, client)
            for number in range(REQUESTS):
                try:
                    assert await client.request("square", number, timeout=0.5) == number**2
                    self.outcomes["answered"] += 1
                except (pyipc.RequestTimeout, pyipc.ConnectionLost):
                    self.outcomes["lost"] += 1

    def check(self) -> None:
        """What must hold, however badly it went."""
        balance = self.events.balance()
        assert (balance.sent, balance.invented, balance.changed) == (EVENTS, [], [])
        self.outcomes["handled"] += balance.handled
        self.outcomes["doubled"] += len(balance.doubled)
        self.outcomes["disordered"] += len(balance.disordered)

    def _on_event(self, message: pyipc.Message[list[Any]]) -> None:
        place, text = message.data
        self.events.note_handled("server", Entry("client", place), digest_of(text))

    async def _tell(self, client: pyipc.Client) -> None:
        for place in range(EVENTS):
            text = "x" * self._draw.choice((0, 10, 300))
            self.events.note_sent(Entry("client", place), digest_of(text))
            await client.emit("event", [place, text])
            if self._draw.random() < 0.5:
                await trio.sleep(self._draw.uniform(0, 0.1))
