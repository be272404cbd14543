"""One large frame keeps nobody waiting: while it is read, others have their turns, and all that may end it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import pace
from pyipc.protocol.blocks import BLOCK_SIZE
from pyipc.testing import pair
from tests.wire import frame, hello, join, request, stay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from tests.wire import WirePeer

pytestmark = pytest.mark.time_limit(30)

MIB = 2**20


@pytest.fixture
def every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn for the others after every block, however fast it was read."""
    monkeypatch.setattr(pace, "_MOST", 1)


def numbers(size: int) -> list[int]:
    """Data of about so many bytes."""
    return [1_234_567] * (size // 8)


def busy(server: pyipc.Server) -> bool:
    """Whether any connection reads a large frame."""
    return any(connection._conversation.is_busy for connection in server.connections)


async def until(condition: Callable[[], bool]) -> None:
    """Have turns until something is so."""
    while not condition():
        await trio.lowlevel.checkpoint()


async def count_turns(server: pyipc.Server, turns: list[int]) -> None:
    """Count the turns that this task has while a large frame is read."""
    while True:
        await trio.lowlevel.checkpoint()
        turns[0] += busy(server)


@pytest.mark.parametrize("size", [MIB, 16 * MIB])
async def test_others_have_a_turn_after_every_block(size: int, every_block: None, autojump_clock: MockClock) -> None:
    options = {"max_frame_size": 17 * MIB, "max_outbox_size": 64 * MIB}
    got: list[Any] = []
    async with pair(server_options=options, client_options=options) as (client, server), trio.open_nursery() as nursery:
        turns = [0]
        nursery.start_soon(count_turns, server, turns)
        server.on("large", lambda message: got.append(message.data))
        await client.emit("large", numbers(size))
        await until(lambda: got != [])
        nursery.cancel_scope.cancel()
    assert got == [numbers(size)]
    # Each block is looked at once to see where it can be cut, and read once.
    blocks = size / BLOCK_SIZE
    assert 1.9 * blocks < turns[0] < 2.1 * blocks + 10


async def test_by_the_clock_too() -> None:
    """Blocks that take more than a millisecond each: numbers with so many digits are what takes longest to read."""
    got: list[Any] = []
    async with pair() as (_, server), trio.open_nursery() as nursery:
        turns = [0]
        nursery.start_soon(count_turns, server, turns)
        server.on("large", lambda message: got.append(message.data))
        peer = join(server)
        number = "8.988465674311579538646525953945123e307"
        await peer.send(b'{"type":"large","data":[%b]}\f' % ",".join([number] * (MIB // 41)).encode())
        await until(lambda: got != [])
        nursery.cancel_scope.cancel()
        await peer.link.aclose()
    assert got == [[float(number)] * (MIB // 41)]
    assert turns[0] >= 30


async def test_others_are_served_meanwhile(every_block: None, autojump_clock: MockClock) -> None:
    got: list[Any] = []
    answered = 0
    router = pyipc.Router()
    router.on("large", lambda message: got.append(message.data))
    router.on("echo", lambda message: message.data)
    async with pair(router) as (client, server), trio.open_nursery() as nursery:
        peer = join(server)
        nursery.start_soon(peer.send, frame("large", numbers(MIB - 100)))
        await until(lambda: busy(server))
        while busy(server):
            assert await client.request("echo", answered) == answered
            answered += 1
        assert len(got) == 1
        await peer.link.aclose()
    assert answered >= 10


async def test_on_the_connection_itself_all_stays_in_order(every_block: None, autojump_clock: MockClock) -> None:
    got: list[Any] = []
    async with pair() as (client, server):
        for name in ("before", "large", "behind"):
            server.on(name, lambda message: got.append(message.data))
        server.on("ask", lambda message: (len(got), len(message.data)))
        await client.emit("before", 1)
        await client.emit("large", numbers(MIB // 2))
        await client.emit("behind", 2)
        await client.emit("large", numbers(MIB // 4))
        assert await client.request("ask", numbers(MIB // 4)) == [4, MIB // 32]
    assert got == [1, numbers(MIB // 2), 2, numbers(MIB // 4)]


# --- what ends it ---


async def send_large(peer: WirePeer, server: pyipc.Server) -> pyipc.Connection:
    """Let a frame arrive; return its connection when it is being read."""
    await peer.send(hello(), frame("large", numbers(MIB - 100)), frame("behind"))
    await until(lambda: busy(server))
    (connection,) = server.connections
    return connection


def close(connection: pyipc.Connection, server: pyipc.Server) -> Awaitable[None]:
    return connection.aclose()


def close_all(connection: pyipc.Connection, server: pyipc.Server) -> Awaitable[None]:
    return server.aclose()


async def abort(connection: pyipc.Connection, server: pyipc.Server) -> None:
    connection.abort("slow", "enough")
    await connection.wait_lost()


@pytest.mark.parametrize("end", [close, close_all, abort])
async def test_closing_stops_it(
    end: Callable[[pyipc.Connection, pyipc.Server], Awaitable[None]], every_block: None, autojump_clock: MockClock
) -> None:
    got: list[Any] = []
    async with pyipc.Server() as server, trio.open_nursery() as nursery:
        server.on("large", lambda message: got.append(message.data))
        server.on("behind", lambda message: got.append(message.data))
        peer = join(server)
        connection = await send_large(peer, server)
        steps = 0
        go_on = connection._conversation.go_on

        def counted() -> Any:
            nonlocal steps
            steps += 1
            return go_on()

        connection._conversation.go_on = counted  # type: ignore[method-assign]
        nursery.start_soon(peer.read_all)
        peer.link.send_eof()
        await end(connection, server)
        await connection.wait_closed()
        assert not connection._conversation.is_busy
        assert steps < 10  # of 64
        await peer.link.aclose()
    assert got == []


async def test_cancelling_the_server_stops_it(every_block: None, autojump_clock: MockClock) -> None:
    got: list[Any] = []
    with trio.CancelScope() as scope:
        async with pyipc.Server() as server:
            server.on("large", lambda message: got.append(message.data))
            await send_large(join(server), server)
            scope.cancel()
    assert scope.cancelled_caught
    assert got == []


async def test_a_wrong_one_ends_its_connection_alone(every_block: None, autojump_clock: MockClock) -> None:
    ended: list[str] = []
    async with pair() as (client, server):
        server.on_disconnect(lambda reason: ended.append(reason.code))
        server.on("echo", lambda message: message.data)
        peer = join(server)
        await peer.send(frame("large", numbers(MIB // 2))[:-3] + b",]}\f")
        assert await peer.read() is None
        await peer.link.aclose()
        assert await client.request("echo", 1) == 1
    assert ended[0] == "json"


# --- who is not judged meanwhile ---


async def test_a_peer_is_not_judged_while_its_frame_is_read(every_block: None, mock_clock: MockClock) -> None:
    """It is silent, and its frame is old; but nobody listens to it either."""
    got: list[float] = []
    ended: list[str] = []
    options: dict[str, Any] = {"heartbeat_interval": 1.0, "heartbeat_misses": 2, "frame_timeout": 2.0}
    async with pyipc.Server(**options) as server:
        server.on_disconnect(lambda reason: ended.append(reason.code))
        server.on("large", lambda message: got.append(trio.current_time()))
        peer = join(server)
        await peer.send(hello(), frame("large", numbers(MIB - 100)), b'{"type":')
        await until(lambda: busy(server))
        began = trio.current_time()
        while not got and not ended:
            mock_clock.jump(0.25)
            await trio.lowlevel.checkpoint()
        assert ended == []
        assert got[0] - began > 5.0
        # From now on it is: for what it promised, and before that for the frame behind, which does not go on.
        while not ended and trio.current_time() < got[0] + 10.0:
            mock_clock.jump(0.25)
            await trio.testing.wait_all_tasks_blocked()
        assert ended == ["slow"]
        assert trio.current_time() - got[0] >= 2.0
        await peer.link.aclose()


# --- what it weighs ---


async def test_what_waits_weighs_what_it_took(every_block: None, autojump_clock: MockClock) -> None:
    async with pyipc.Server(inbox_high_water_size=8 * MIB, max_inbox_size=16 * MIB) as server:
        server.on("wait", stay)
        server.on("large", stay)
        peer = join(server)
        large = frame("large", numbers(MIB // 2))
        await peer.send(frame("wait") + large + frame("large", 1) + large[:1_000])
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server.connections
        waiting = len(large) + len(frame("large", 1)) + 2 * 256
        assert connection.statistics().inbox_size == waiting
        await peer.send(large[1_000:])
        await trio.testing.wait_all_tasks_blocked()
        assert connection.statistics().inbox_size == waiting + len(large) + 256
        await peer.link.aclose()
        await connection.aclose()


async def test_draining_waits_for_it(every_block: None, autojump_clock: MockClock) -> None:
    router = pyipc.Router()
    router.on("sum", lambda message: sum(message.data))
    async with pair(router) as (client, server), trio.open_nursery() as nursery:
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await client.request("sum", numbers(MIB // 2)))

        nursery.start_soon(ask)
        await until(lambda: busy(server))
        report = await server.drain()
    assert (answers, report.cut_off) == ([sum(numbers(MIB // 2))], 0)


@pytest.mark.parametrize("asks", [True, False])
async def test_a_plain_peer_is_not_left_in_the_middle_of_it(
    asks: bool, every_block: None, autojump_clock: MockClock
) -> None:
    """It is sent away by half-closing, when nothing of its own is under way; a large frame that is being read is."""
    got: list[int] = []
    reports: list[pyipc.DrainReport] = []

    def add(message: pyipc.Message[list[int]]) -> int:
        got.append(sum(message.data))
        return got[-1]

    async with pyipc.Server() as server, trio.open_nursery() as nursery:
        server.on("sum", add)
        peer = join(server)
        data = numbers(MIB // 2)
        await peer.send(frame("hi"), request(1, "sum", data) if asks else frame("sum", data))
        await until(lambda: busy(server))

        async def drain() -> None:
            reports.append(await server.drain())

        nursery.start_soon(drain)
        if asks:
            assert (await peer.read_until("pyipc.reply"))["data"] == sum(data)
        assert await peer.read() is None
        await peer.link.aclose()
    assert got == [sum(data)]
    assert reports == [pyipc.DrainReport(left=1)]
