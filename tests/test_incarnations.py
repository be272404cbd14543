"""Whether a client sends again what has no outcome: by what each server calls itself, and its memory of the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Address
from pyipc.transports import Link, Listener, Transport, memory_link_pair
from tests.wire import WirePeer, frame

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.time_limit(20)

FAST: dict[str, Any] = {"reconnect_interval": 0.1, "reconnect_jitter": False, "heartbeat_interval": None}


class Calls(Transport):
    """Hands each connection of a client to the test, as the server that it is."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[WirePeer](100)

    async def connect(self, address: Address, options: object) -> Link:
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_link_pair()
        self._send.send_nowait(WirePeer(theirs))
        return ours

    async def listen(self, address: Address, options: object) -> Listener:
        raise AssertionError

    async def next(self) -> WirePeer:
        return await self._receive.receive()

    async def welcome(self, instance: str, incarnation: str, **more: Any) -> WirePeer:
        """The next connection, once the client was told whom it has reached."""
        peer = await self.next()
        await peer.read_until("pyipc.hello")
        said = {"version": 1, "heartbeat": None, "features": ["confirm"], "session_timeout": 1_000.0, **more}
        await peer.send(frame("pyipc.welcome", {**said, "instance": instance, "incarnation": incarnation}))
        return peer


@pytest.mark.parametrize(
    ("places", "ends"),
    [
        (["A1", "A1"], "unmarked"),
        (["A1", "A2"], "forgotten"),
        # A server that has two memories of one client, as it may come by two addresses.
        (["A1", "A2", "A1"], "forgotten"),
        (["A1", "B1"], "again"),
        (["A1", "B1", "B1"], "again"),
        (["A1", "B1", "A1"], "again"),
        (["A1", "B1", "A2"], "forgotten"),
        (["A1", "", "A1"], "unmarked"),
        # It was told of the new memory by a connection that broke before anything was sent over it.
        (["A1", "A2?", "A2"], "forgotten"),
        # Servers that say nothing of themselves remember nothing.
        (["--", "--"], "forgotten"),
        (["--", "A1"], "again"),
    ],
)
async def test_it_goes_only_to_who_remembers_it_or_never_had_it(
    places: Sequence[str], ends: str, autojump_clock: trio.testing.MockClock
) -> None:
    calls = Calls()
    failures: list[pyipc.Unconfirmed] = []
    async with (
        pyipc.connect(pyipc.Endpoint("memory:a", transport=calls), wait=False, **FAST) as client,
        trio.open_nursery() as nursery,
    ):

        async def emit() -> None:
            try:
                await client.emit("paid", 1, confirm=True)
            except pyipc.Unconfirmed as error:
                failures.append(error)

        nursery.start_soon(emit)
        delivered: dict[str, Any] = {}
        for index, place in enumerate(places):
            if not place:  # it breaks before the server has said anything
                await (await calls.next()).link.aclose()
                continue
            peer = await calls.welcome(*("" if each == "-" else each for each in place[:2]))
            if not place.endswith("?"):
                with trio.move_on_after(1):
                    delivered = {}
                    delivered = await peer.read_until("pyipc.deliver")
            if index < len(places) - 1:
                await peer.link.aclose()
            if failures:
                break
        if ends == "forgotten":
            assert [each.code for each in failures] == ["forgotten"]
            assert failures[0].maybe_handled
            assert delivered == {}
        else:
            assert bool(delivered.get("again")) is (ends == "again")
            assert delivered["number"] == 1
            await peer.send(frame("pyipc.outcome", {"number": 1}))
            await trio.sleep(1)
            assert client.statistics().confirmed == 1
        nursery.cancel_scope.cancel()


async def test_an_outcome_counts_where_the_event_was_sent_and_nowhere_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A server that a client is leaving cannot know what became of an event that only its successor has got."""
    calls = Calls()
    confirmed: list[int] = []
    async with (
        pyipc.connect(pyipc.Endpoint("memory:a", transport=calls), wait=False, **FAST) as client,
        trio.open_nursery() as nursery,
    ):

        async def emit(number: int) -> None:
            await client.emit("paid", number, confirm=True)
            confirmed.append(number)

        nursery.start_soon(emit, 1)
        old = await calls.welcome("A", "1")
        assert (await old.read_until("pyipc.deliver"))["number"] == 1
        await old.send(frame("pyipc.goaway", {"message": ""}))
        new = await calls.welcome("B", "1")
        nursery.start_soon(emit, 2)
        assert (await new.read_until("pyipc.deliver"))["number"] == 2
        await old.send(frame("pyipc.outcome", {"number": 2}))
        await trio.sleep(1)
        assert confirmed == []
        await new.send(frame("pyipc.outcome", {"number": 2}))
        await trio.sleep(1)
        assert confirmed == [2]
        await old.send(frame("pyipc.outcome", {"number": 1}))
    assert confirmed == [2, 1]


async def test_a_client_keeps_to_the_window_that_the_server_announces(autojump_clock: trio.testing.MockClock) -> None:
    calls = Calls()
    async with (
        pyipc.connect(pyipc.Endpoint("memory:a", transport=calls), wait=False, **FAST) as client,
        trio.open_nursery() as nursery,
    ):

        async def emit(number: int) -> None:
            await client.emit("n", number, confirm=True)

        for number in range(8):
            nursery.start_soon(emit, number)
        peer = await calls.welcome("A", "1", session_window=6)
        arrived = [(await peer.read_until("pyipc.deliver"))["number"] for _ in range(6)]
        assert arrived == [1, 2, 3, 4, 5, 6]
        with trio.move_on_after(5) as waiting:
            await peer.read_until("pyipc.deliver")
        assert waiting.cancelled_caught
        await peer.link.aclose()
        # The next server lets them be less far apart than those that were sent before are.
        peer = await calls.welcome("B", "1", session_window=2)
        settled = []
        for lowest in range(1, 9):
            read = [await peer.read_until("pyipc.deliver") for _ in range(2 if lowest == 1 else lowest < 8)]
            assert all(each["number"] - each["lowest"] < 2 for each in read)
            settled += [each["number"] for each in read]
            await peer.send(frame("pyipc.outcome", {"number": lowest}))
        assert settled == list(range(1, 9))
        await trio.sleep(1)
        assert client.statistics().confirmed == 8


async def test_a_small_window_costs_a_client_no_connection(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[int] = []
    async with pyipc.Server("memory:window", max_session_window=10) as server:
        server.on("n", lambda message: seen.append(message.data))
        async with pyipc.connect("memory:window", **FAST) as client, trio.open_nursery() as nursery:

            async def emit(number: int) -> None:
                await client.emit("n", number, confirm=True)

            for number in range(300):
                nursery.start_soon(emit, number)
        assert sorted(seen) == list(range(300))
        assert client.statistics().connects == 1


async def test_a_server_keeps_to_the_window_that_a_client_announces(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[int] = []
    async with pyipc.Server("memory:window") as server:
        router = pyipc.Router()
        router.on("n", lambda message: seen.append(message.data))
        async with (
            pyipc.connect("memory:window", router=router, max_session_window=10, **FAST) as client,
            trio.open_nursery() as nursery,
        ):
            await trio.sleep(1)
            (connection,) = server.connections

            async def emit(number: int) -> None:
                await connection.emit("n", number, confirm=True)

            for number in range(300):
                nursery.start_soon(emit, number)
        assert sorted(seen) == list(range(300))
        assert client.statistics().connects == 1


async def test_two_addresses_of_a_server_are_two_memories_of_a_client(autojump_clock: trio.testing.MockClock) -> None:
    """The very fault: the one memory was taken for the other, and the event handled twice."""
    handled: list[tuple[int, bool]] = []
    release = trio.Event()
    calls = Calls()
    async with pyipc.Server() as server:

        @server.on("paid")
        async def paid(message: pyipc.Message[int]) -> None:
            handled.append((message.data, message.redelivered))
            await release.wait()

        class Ways(Calls):
            def __init__(self) -> None:
                super().__init__()
                self.users = iter((1, 2, 1))
                self.link: Link | None = None

            async def connect(self, address: Address, options: object) -> Link:
                await trio.lowlevel.checkpoint()
                user = next(self.users)
                ours, theirs = memory_link_pair(right=pyipc.transports.Peer(address=f"unix:/{user}", uid=user))
                server.adopt(theirs)
                self.link = theirs
                return ours

        calls = Ways()
        async with (
            pyipc.connect(pyipc.Endpoint("memory:a", transport=calls), **FAST) as client,
            trio.open_nursery() as nursery,
        ):
            failures: list[str] = []

            async def emit() -> None:
                try:
                    await client.emit("paid", 1, confirm=True)
                except pyipc.Unconfirmed as error:
                    failures.append(error.code)

            async def lose() -> None:
                assert calls.link is not None
                await calls.link.aclose()
                await trio.sleep(1)

            await trio.sleep(1)
            await lose()  # it is user 2 from here
            nursery.start_soon(emit)
            await trio.sleep(1)
            await lose()
            release.set()
            await trio.sleep(1)
        assert handled == [(1, False)]
        assert failures == ["forgotten"]


async def test_what_is_kept_for_the_next_connection_keeps_its_order(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[int] = []
    async with (
        pyipc.connect("memory:order", wait=False, **FAST) as client,
        trio.open_nursery() as nursery,
    ):

        async def confirmed(number: int) -> None:
            await client.emit("n", number, confirm=True)

        for number in range(10):
            if number % 3 == 0:
                nursery.start_soon(confirmed, number)
                await trio.sleep(0.001)
            else:
                await client.emit("n", number)
        async with pyipc.Server("memory:order") as server:
            server.on("n", lambda message: seen.append(message.data))
            await client.wait_connected()
            await trio.sleep(1)
            assert seen == list(range(10))


async def test_what_a_connection_left_unsent_keeps_its_order(autojump_clock: trio.testing.MockClock) -> None:
    calls, room = Calls(), 4 << 20
    async with (
        pyipc.connect(
            pyipc.Endpoint("memory:a", transport=calls), wait=False, outbox_high_water_size=room, **FAST
        ) as client,
        trio.open_nursery() as nursery,
    ):

        async def confirmed(number: int) -> None:
            await client.emit("n", number, confirm=True)

        first = await calls.welcome("A", "1")
        await client.wait_connected()
        nursery.start_soon(confirmed, 0)
        assert (await first.read_until("pyipc.deliver"))["data"] == 0
        await client.emit("large", "x" * 900_000)  # fills the link: nothing behind it is sent
        for number in range(1, 10):
            if number % 3 == 0:
                nursery.start_soon(confirmed, number)
                await trio.testing.wait_all_tasks_blocked()
            else:
                client.emit_nowait("n", number)
        await first.link.aclose()
        second = await calls.welcome("A", "1")
        seen: list[int] = []
        while len(seen) < 10:
            read = await second.read()
            assert read is not None
            name, data = read
            seen.append(data["data"] if name == "pyipc.deliver" else data)
        assert seen == list(range(10))
        nursery.cancel_scope.cancel()
