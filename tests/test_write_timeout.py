"""A peer that takes nothing of what waits for it: how long it is waited for, and who is not meant by that."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import pyipc
from pyipc.testing import pair
from tests.wire import WirePeer, frame, hello, join

if TYPE_CHECKING:
    from trio.testing import MockClock

    from pyipc import Connection

pytestmark = pytest.mark.time_limit(30)

HOUR = 3_600.0
KIB = 1024


def watch(server: pyipc.Server) -> list[tuple[str, str, float]]:
    """The code, the reason and the time of each disconnect."""
    ended: list[tuple[str, str, float]] = []
    server.on_disconnect(lambda why: ended.append((why.code, why.message, trio.current_time())))
    return ended


def only(server: pyipc.Server) -> Connection:
    (connection,) = server.connections
    return connection


async def fill(connection: Connection) -> None:
    """Send until the link takes nothing more."""
    for _ in range(2):
        connection.emit_nowait("fill", "x" * 60_000)
    await wait_all_tasks_blocked()
    assert connection.statistics().outbox_size > 0


@pytest.mark.parametrize("kind", ["plain", "pyipc"])
async def test_a_peer_that_takes_nothing_is_given_up(kind: str, autojump_clock: MockClock) -> None:
    async with pyipc.Server(write_timeout=30) as server, trio.open_nursery() as nursery:
        ended = watch(server)
        peer = join(server)

        async def live() -> None:
            with contextlib.suppress(pyipc.ConnectionLost):
                if kind == "pyipc":
                    await peer.send(hello())
                while True:  # it is there, and only does not read
                    await peer.send(frame("alive"))
                    await trio.sleep(5)

        nursery.start_soon(live)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await fill(only(server))
        await trio.sleep(29)
        assert ended == []
        await trio.sleep(2)
        [(code, why, when)] = ended
        assert code == "slow"
        assert "bytes in 30 s (write_timeout)" in why
        assert when - began == 30
        nursery.cancel_scope.cancel()


async def test_whoever_takes_a_little_now_and_then_is_not(autojump_clock: MockClock) -> None:
    """One large message, taken over a quarter of an hour."""
    async with pyipc.Server(write_timeout=30, max_frame_size=32 * 2**20, max_outbox_size=32 * 2**20) as server:
        ended = watch(server)
        peer = join(server)
        await wait_all_tasks_blocked()
        only(server).emit_nowait("large", "x" * 10 * 2**20)
        size = 0
        while size < 10 * 2**20:
            await trio.sleep(25)
            for _ in range(5):  # 320 KiB: more than a stride
                size += len(await peer.link.receive())
                await wait_all_tasks_blocked()
        assert trio.current_time() >= 25 * 30
        assert ended == []
        await peer.link.aclose()


async def test_time_spent_waiting_before_does_not_count(autojump_clock: MockClock) -> None:
    async with pyipc.Server(write_timeout=30) as server:
        ended = watch(server)
        peer = join(server)
        await wait_all_tasks_blocked()
        for pause in (0, 1, 20, HOUR):
            await fill(only(server))
            await trio.sleep(20)
            for _ in range(2):
                await peer.read()
            await trio.sleep(pause)
        assert ended == []
        await peer.link.aclose()


async def test_by_default_a_peer_may_be_busy_for_most_of_an_hour(autojump_clock: MockClock) -> None:
    """Its handler is at work, so that it does not read; its heartbeats go on."""
    router = pyipc.Router()
    handled: list[object] = []

    @router.on("fill")
    async def work(message: pyipc.Message[Any]) -> None:
        if not handled:
            await trio.sleep(HOUR - 60)
        handled.append(message.data)

    async with pair(client_router=router, client_options={"inbox_high_water_size": KIB}) as (client, server):
        connection = only(server)
        with trio.move_on_after(10):
            while True:
                await connection.emit("fill", "x" * 60_000)
        assert connection.statistics().outbox_size > 0
        assert connection.statistics().events_sent > 2
        await trio.sleep(HOUR)
        assert len(handled) == connection.statistics().events_sent
        assert client.statistics().connects == 1


async def test_none_is_for_ever(autojump_clock: MockClock) -> None:
    async with pyipc.Server(write_timeout=None, heartbeat_interval=None) as server:
        peer = join(server)
        await wait_all_tasks_blocked()
        await fill(only(server))
        await trio.sleep(100 * HOUR)
        assert only(server).is_open
        await peer.link.aclose()


async def test_a_server_that_drops_what_is_too_much_does_not_keep_the_peer(autojump_clock: MockClock) -> None:
    """The policy ``drop`` keeps a slow peer, but not one that is stuck."""
    async with pyipc.Server(write_timeout=30, slow_peer="drop", max_outbox_size=200_000) as server:
        ended = watch(server)
        peer = join(server)
        await wait_all_tasks_blocked()
        dropped = 0
        for _ in range(40):
            dropped += (await server.broadcast("news", "x" * 50_000)).dropped
            await trio.sleep(1)
        assert dropped > 20
        assert [code for code, _, _ in ended] == ["slow"]
        await peer.link.aclose()


async def test_a_client_gives_up_a_server_likewise_and_comes_back(autojump_clock: MockClock) -> None:
    router = pyipc.Router()
    got: list[object] = []
    router.on("after", lambda message: got.append(message.data))
    router.on("fill", lambda message: trio.sleep(20))
    options: Any = {"write_timeout": 5}
    async with pair(router, client_options=options, server_options={"inbox_high_water_size": KIB}) as (client, _):
        lost: list[tuple[str, str]] = []
        client.on_disconnect(lambda why: lost.append((why.code, why.message)))
        with contextlib.suppress(trio.WouldBlock):
            while True:
                client.emit_nowait("fill", "x" * 30_000)
                await wait_all_tasks_blocked()
        await trio.sleep(4)
        assert lost == []
        await trio.sleep(3)
        [(code, why)] = lost
        assert code == "slow"
        assert "(write_timeout)" in why
        await client.emit("after", 1)
        await trio.sleep(100)
        assert got == [1]
        assert client.statistics().connects == 2


async def test_a_loop_that_was_blocked_looks_again_before_it_judges(mock_clock: MockClock) -> None:
    async with pyipc.Server(write_timeout=30) as server:
        ended = watch(server)
        peer = join(server)
        await wait_all_tasks_blocked()
        await fill(only(server))
        mock_clock.jump(100)  # as if the program had been stopped for so long
        await wait_all_tasks_blocked()
        assert ended == []
        await peer.read()
        await peer.read()
        mock_clock.jump(20)
        await wait_all_tasks_blocked()
        assert ended == []
        await fill(only(server))
        for _ in range(2):
            mock_clock.jump(30)
            await wait_all_tasks_blocked()
        for _ in range(2):
            mock_clock.jump(0.9)
            await wait_all_tasks_blocked()
        assert [code for code, _, _ in ended] == ["slow"]
        await peer.link.aclose()


async def test_what_waits_for_nobody_is_not_watched(autojump_clock: MockClock) -> None:
    """A peer that reads everything costs no timer."""
    async with pyipc.Server() as server:
        peer: WirePeer = join(server)
        await wait_all_tasks_blocked()
        for _ in range(10):
            await only(server).emit("small", "x" * 100)
            await peer.read()
        assert only(server)._vigil._timer is None
        await peer.link.aclose()
