"""Whatever goes wrong on one connection stays there: the server, its other connections and its shared tasks go on."""

from __future__ import annotations

import dataclasses
import datetime
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Message
from pyipc.flusher import Flusher
from pyipc.outbox import Outbox
from pyipc.transports import Link, Peer, memory_link_pair
from tests.wire import WirePeer, frame, hello, join, lone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.time_limit(30)


@dataclasses.dataclass
class Picky:
    """A type whose conversion runs code that fails in a way of its own."""

    x: int

    def __post_init__(self) -> None:
        raise KeyError("y")


@dataclasses.dataclass
class One:
    x: int


@dataclasses.dataclass
class Other:
    y: int


class Zone(datetime.tzinfo):
    def utcoffset(self, when: datetime.datetime | None) -> datetime.timedelta:
        raise KeyError("zone")

    def dst(self, when: datetime.datetime | None) -> None: ...

    def tzname(self, when: datetime.datetime | None) -> None: ...


@asynccontextmanager
async def served(router: pyipc.Router) -> AsyncIterator[tuple[pyipc.Server, WirePeer]]:
    """A server, and a peer that has introduced itself; at the end another one is still served."""
    router.on("still there?", lambda message: "yes")
    async with pyipc.Server(router=router, close_timeout=0.1) as server:
        peer = join(server)
        await peer.send(hello())
        await peer.read_until("pyipc.welcome")
        yield server, peer
        another = join(server)
        await another.send(hello(), frame("pyipc.request", {"call": 1, "event": "still there?"}))
        assert (await another.read_until("pyipc.reply"))["data"] == "yes"


# --- handlers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Message[Picky], Message[One | Other]])
async def test_data_that_cannot_be_converted_whatever_is_raised(kind: Any) -> None:
    router = pyipc.Router()

    def handler(message: Any) -> None: ...

    handler.__annotations__["message"] = kind
    router.on("event", handler)
    async with served(router) as (server, peer):
        await peer.send(frame("event", {"x": 1}))
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server.connections
        assert connection.statistics().handler_errors == 1


@pytest.mark.parametrize("kind", ["event", "request"])
async def test_a_nursery_that_fails_while_it_is_cancelled(kind: str) -> None:
    """What comes out of it is an error and a cancellation in one group."""
    router, begun = pyipc.Router(), trio.Event()

    @router.on("work")
    async def work(message: Message[Any]) -> None:
        async def fails_at_the_end() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in the clean-up")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_at_the_end)
            nursery.start_soon(trio.sleep_forever)
            begun.set()

    async with served(router) as (server, peer):
        if kind == "request":
            await peer.send(frame("pyipc.request", {"call": 1, "event": "work"}))
            await begun.wait()
            await peer.send(frame("pyipc.cancel", {"call": 1}))
            assert (await peer.read_until("pyipc.error"))["code"] == "handler-failed"
        else:
            await peer.send(frame("work"))
            await begun.wait()
            (connection,) = server.connections
            with trio.move_on_after(5):
                await connection.aclose()


async def test_a_result_whose_encoding_fails_in_a_way_of_its_own() -> None:
    router = pyipc.Router()
    router.on("when", lambda message: datetime.datetime(2026, 1, 1, tzinfo=Zone()))
    async with served(router) as (_, peer):
        await peer.send(frame("pyipc.request", {"call": 1, "event": "when"}))
        answer = await peer.read_until("pyipc.error")
        assert "has no JSON form" in answer["message"]


# --- links ------------------------------------------------------------------------------------------------------------


class BrokenLink(Link):
    """A link of a third party that does not keep to the port: it raises what nobody expects."""

    def __init__(self, link: Link, *, sends: bool) -> None:
        self._link = link
        self._sends = sends

    @property
    def peer(self) -> Peer:
        return self._link.peer

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        if self._sends:
            return self._link.send_nowait(data)
        raise ZeroDivisionError("a fault of the link")

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        await self._link.send(data)

    async def receive(self) -> bytes:
        chunk = await self._link.receive()
        if self._sends and chunk:
            raise ZeroDivisionError("a fault of the link")
        return chunk

    async def aclose(self) -> None:
        await self._link.aclose()


@pytest.mark.parametrize("sends", [True, False])
async def test_a_link_that_raises_anything(sends: bool) -> None:
    async with served(pyipc.Router()) as (server, _):
        before = server.connections
        ours, theirs = memory_link_pair()
        server.adopt(BrokenLink(ours, sends=sends))
        await trio.testing.wait_all_tasks_blocked()
        (broken,) = server.connections - before
        if sends:
            await theirs.send(frame("event"))
        else:
            await server.broadcast("news")
            await theirs.aclose()
        await broken.wait_closed()
        assert broken.reason is not None


# --- what all share ---------------------------------------------------------------------------------------------------


class Sink(Link):
    """Takes everything at once."""

    peer = Peer(address="sink")

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        return len(data)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError

    async def receive(self) -> bytes:
        raise AssertionError

    async def aclose(self) -> None: ...


async def test_the_flusher_has_each_outbox_once() -> None:
    """However often somebody else flushes it in between: what is left over would keep others waiting."""
    flusher = Flusher()
    outbox = Outbox(Sink(), flusher, high_water_size=1, max_size=1, spawn=lambda *_: None, connection=lone())
    for _ in range(10):
        outbox.push(b"frame")
        outbox.flush_nowait()
        outbox.push_later(b"frame")
        outbox.flush_nowait()
    assert len(flusher) == 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        await trio.testing.wait_all_tasks_blocked()
        assert len(flusher) == 0
        outbox.push_later(b"frame")
        outbox.push_later(b"frame")
        assert len(flusher) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert (len(flusher), outbox.size) == (0, 0)
        nursery.cancel_scope.cancel()


async def test_a_handler_that_emits_on_and_on_gives_way() -> None:
    """Once in 64 KiB, also to a peer that reads as fast as it writes."""
    router = pyipc.Router()
    data = "x" * 1_000

    @router.on("go")
    async def go(message: Message[Any]) -> None:
        for _ in range(1_000):
            await message.connection.emit("row", data)
        await message.connection.emit("done")

    async with pyipc.Server(router=router) as server:
        ours, theirs = memory_link_pair(buffer_size=2**24)
        server.adopt(ours)
        await theirs.send(frame("go"))
        steps = 0

        class Steps(trio.abc.Instrument):
            def before_io_wait(self, timeout: float) -> None:
                nonlocal steps
                steps += 1

        instrument = Steps()
        trio.lowlevel.add_instrument(instrument)
        received = b""
        while b'"done"' not in received:
            received += await theirs.receive()
        trio.lowlevel.remove_instrument(instrument)
        assert steps >= 1_000 * len(data) / 65_536 - 1
        await theirs.aclose()


async def test_what_was_forgotten_weighs_nothing() -> None:
    router, waiting = pyipc.Router(), trio.Event()

    @router.on("slow")
    async def slow(message: Message[Any]) -> None:
        with trio.CancelScope(shield=True):
            await waiting.wait()

    async with pyipc.Server(router=router, close_timeout=0.1) as server:
        peer = join(server)
        await peer.send(*[frame("slow", number) for number in range(5)])
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server.connections
        assert connection.statistics().inbox_size > 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.aclose)
            await trio.testing.wait_all_tasks_blocked()
            waiting.set()
        assert connection.statistics().inbox_size == 0


@pytest.mark.parametrize("name", [["a"], {}, None, 1])
async def test_a_name_that_is_no_text_is_refused_as_such(name: Any) -> None:
    async with pyipc.Server("memory:names"), pyipc.connect("memory:names") as client:
        with pytest.raises(pyipc.InvalidEventName):
            await client.emit(name)
        with pytest.raises(pyipc.InvalidEventName):
            await client.request(name)


def test_the_public_names_of_a_connection_are_few() -> None:
    """Handlers hold one, so what is public there is a promise."""
    names = {name for name in dir(pyipc.Connection) if not name.startswith("_")}
    assert names == {
        *("emit", "emit_nowait", "request", "stream", "flush", "aclose", "abort", "statistics"),
        *("peer", "reason", "is_open", "wait_closed", "know_peer"),
        # For servers and clients, in the same layer.
        *("encode", "is_waiting", "run", "wait_lost", "waiting_at_length", "waiting_for_peer"),
    }
