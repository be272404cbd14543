"""What a server holds for all connections of one origin: bounded, and who goes when it is too much."""

from __future__ import annotations

import logging
import random
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import pyipc
from pyipc import Message
from pyipc.holdings import held_for
from pyipc.transports import Peer
from tests.wire import WirePeer, frame, hello, join, request, stay

if TYPE_CHECKING:
    from trio.testing import MockClock

    from pyipc import Connection

pytestmark = pytest.mark.time_limit(30)

KIB = 1024
MIB = 1024 * KIB
# One message may always be as large as its own limits allow, so these are small.
LIMITS: Any = {
    "max_held_size": 2 * MIB,
    "max_frame_size": 256 * KIB,
    "max_attachments_size": 256 * KIB,
    "close_timeout": 1.0,
}
BIG = "x" * 100 * KIB
#: An event of 200 KiB of which the end is missing.
PART = frame("big", "x" * 200 * KIB)[:-10]
TAKES_ATTACHMENTS = frame("pyipc.hello", {"versions": [1], "heartbeat": None, "features": ["attachments"]})
HOG, OTHER = Peer(address="memory:", uid=7), Peer(address="memory:", uid=8)


def serving(**options: Any) -> tuple[pyipc.Server, list[tuple[object, str, str]]]:
    """A server, and the user, code and reason of each connection that ends."""
    router = pyipc.Router()
    router.on("big", lambda message: BIG)
    router.on("echo", lambda message: message.data)
    router.on("stay", stay)
    server = pyipc.Server(router=router, **{**LIMITS, **options})
    ended: list[tuple[object, str, str]] = []
    server.on_disconnect(lambda why: ended.append((why.connection.peer.uid, why.code, why.message)))  # type: ignore[attr-defined]
    return server, ended


async def joined(server: pyipc.Server, peer: Peer, count: int) -> list[WirePeer]:
    peers = [join(server, peer) for _ in range(count)]
    for each in peers:
        await each.send(hello())
        await each.read_until("pyipc.welcome")
    return peers


async def talks(peer: WirePeer) -> bool:
    """Whether a peer that has read everything is still served."""
    try:
        await peer.send(request(999, "echo", "still here"))
        while (await peer.read_until("pyipc.reply"))["data"] != "still here":
            pass
        return True
    except (pyipc.ConnectionLost, AssertionError):
        return False


def total(server: pyipc.Server, uid: int) -> int:
    return sum(held_for(each) for each in server.connections if each.peer.uid == uid)


# --- the four ways to make a server hold something -----------------------------------------------------------------


async def pile_up_answers(peer: WirePeer, size: int) -> None:
    for call in range(size // (100 * KIB)):
        await peer.send(request(call + 1, "big"))
    await wait_all_tasks_blocked()


async def pile_up_events(peer: WirePeer, size: int) -> None:
    """For a server that waits for this peer, so that it must read on."""
    for _ in range(size // (100 * KIB)):
        await peer.send(frame("stay", BIG))
        await wait_all_tasks_blocked()


async def test_who_reads_no_answers_is_closed_and_nobody_else(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server, ended = serving()
    async with server:
        (hog,) = await joined(server, HOG, 1)
        modest = await joined(server, HOG, 5)
        others = await joined(server, OTHER, 5)
        for each in modest:
            await pile_up_answers(each, 200 * KIB)
        await pile_up_answers(hog, 1_000 * KIB)
        assert ended == []
        assert server.statistics().outgrown == 0
        await pile_up_answers(hog, 1_000 * KIB)
        await trio.sleep(1.1)
        [(uid, code, why)] = ended
        assert (uid, code) == (7, "slow")
        assert "bytes are held for uid 7, of which this connection has most, " in why
        assert why.endswith("(max_held_size)")
        assert server.statistics().outgrown == 1
        for each in modest:
            assert await talks(each)
            await each.link.aclose()
        for each in others:
            assert await talks(each)
            await each.link.aclose()
    assert [record for record in caplog.records if "max_held_size" in record.message and record.levelno >= 30]


async def test_events_that_wait_for_handlers_count(autojump_clock: MockClock) -> None:
    server, ended = serving(inbox_high_water_size=50 * KIB)
    async with server, trio.open_nursery() as nursery:
        peers = await joined(server, HOG, 6)
        (other,) = await joined(server, OTHER, 1)

        async def ask(connection: Connection) -> None:
            with pytest.raises(pyipc.ConnectionClosed):
                await connection.request("never", timeout=None)

        for connection in server.connections:
            if connection.peer.uid == 7:
                nursery.start_soon(ask, connection)
        for number, each in enumerate(peers):
            await pile_up_events(each, (200 + 100 * (number % 2)) * KIB)
        assert total(server, 7) <= 2 * MIB
        assert ended == []
        await pile_up_events(peers[2], 1_400 * KIB)
        assert server.statistics().outgrown == 1
        assert (await peers[2].read_until("pyipc.goodbye"))["code"] == "slow"
        assert total(server, 7) < MIB, "nothing is kept of what waited on it"
        assert sum(each.is_open for each in server.connections) == 6
        assert await talks(other)
        for each in (*peers, other):
            await each.link.aclose()


@pytest.mark.parametrize("what", ["a frame", "an attachment"])
async def test_what_has_come_of_messages_that_are_not_complete_counts(what: str, autojump_clock: MockClock) -> None:
    part = PART if what == "a frame" else b"\x01" + (250 * KIB).to_bytes(8, "big") + bytes(200 * KIB)
    server, ended = serving(frame_timeout=None)
    async with server:
        peers = [join(server, HOG) for _ in range(20)]
        for each in peers:
            await each.send(TAKES_ATTACHMENTS)
            await each.read_until("pyipc.welcome")
            await each.send(part)
            await wait_all_tasks_blocked()
            assert total(server, 7) <= 2 * MIB
        await trio.sleep(1.1)
        assert len(ended) == 10, "ten have room"
        assert {code for _, code, _ in ended} == {"slow"}
        for each in peers:
            await each.link.aclose()


async def test_what_is_attached_to_requests_at_work_counts(autojump_clock: MockClock) -> None:
    record = b"\x01" + (200 * KIB).to_bytes(8, "big") + bytes(200 * KIB)
    server, ended = serving()
    cancelled: list[object] = []

    @server.on("hold")
    async def hold(message: Message[Any]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(message.connection)

    async with server:
        peers = [join(server, HOG) for _ in range(3)]
        for number, each in enumerate(peers):
            await each.send(TAKES_ATTACHMENTS)
            await each.read_until("pyipc.welcome")
            for call in range(2 + 2 * number):
                await each.send(record + request(call + 1, "hold"))
                await wait_all_tasks_blocked()
        assert total(server, 7) == 6 * 200 * KIB, "the last one was closed"
        assert len(cancelled) == 4, "its fifth was too much"
        await trio.sleep(1.1)
        assert [(uid, code) for uid, code, _ in ended] == [(7, "slow")]
        for each in peers:
            await each.link.aclose()


# --- what does not count -------------------------------------------------------------------------------------------


async def test_what_is_sent_to_many_is_held_once(autojump_clock: MockClock) -> None:
    """A hundred clients of one user that are behind for a moment, of which none has to go."""
    server, ended = serving()
    async with server:
        peers = await joined(server, HOG, 100)
        for _ in range(40):
            await server.broadcast("news", BIG)
        await wait_all_tasks_blocked()
        assert sum(each.statistics().outbox_size for each in server.connections) > 350 * MIB
        # Somebody has a look because of what is really his.
        await peers[0].send(PART)
        await wait_all_tasks_blocked()
        assert ended == []
        for each in peers:
            for _ in range(40):
                assert await each.read_until("news") == BIG
        assert total(server, 7) == len(PART)
        assert server.statistics().outgrown == 0
        for each in peers:
            await each.link.aclose()


async def test_one_message_may_be_as_large_as_its_own_limits_allow(autojump_clock: MockClock) -> None:
    server, ended = serving(max_held_size=1, max_frame_size=4 * MIB)
    async with server:
        peer, other = await joined(server, HOG, 2)
        whole = request(1, "echo", "x" * 3 * MIB)
        for start in range(0, len(whole), 100 * KIB):
            await peer.send(whole[start : start + 100 * KIB])
            await wait_all_tasks_blocked()
            assert await talks(other)
        assert len((await peer.read_until("pyipc.reply"))["data"]) == 3 * MIB
        assert ended == []
        for each in (peer, other):
            await each.link.aclose()


async def test_nothing_is_counted_in_everyday_traffic(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []

    def look(connection: Connection) -> int:
        looks.append(connection)
        return held_for(connection)

    monkeypatch.setattr("pyipc.holdings.held_for", look)
    server, _ = serving()
    server.on("slow", lambda message: trio.sleep(0.001))
    async with server:
        peers = await joined(server, HOG, 20)
        for each in peers:
            for call in range(1, 50):
                await each.send(request(call, "echo", "x" * 100), frame("echo", call), frame("slow", call))
            await server.broadcast("news", "x" * 1_000)
            for _ in range(49):
                await each.read_until("pyipc.reply")
        assert looks == []
        for each in peers:
            await each.link.aclose()


async def test_peers_without_an_origin_have_none_in_common(autojump_clock: MockClock) -> None:
    server, ended = serving(frame_timeout=None)
    async with server:
        peers = await joined(server, Peer(address="memory:"), 20)
        for each in peers:
            await each.send(PART)
        await wait_all_tasks_blocked()
        assert len(server.connections) == 20
        assert ended == []
        for each in peers:
            await each.link.aclose()


# --- how much more it may be, and what is left of it ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_they_do_it_is_hardly_more(seed: int, autojump_clock: MockClock) -> None:
    """Connections of one user come, go, and pile up what they can in every way, in any order."""
    draw = random.Random(seed)
    server, ended = serving(frame_timeout=None, inbox_high_water_size=100 * KIB, outbox_high_water_size=16 * KIB)
    marks = 100 * KIB + 16 * KIB + 64 * KIB  # of a connection that need not tell of itself
    rest = 64 * KIB + 100 * KIB  # the least share, and what comes at once
    largest = 0
    async with server:
        peers: list[WirePeer] = []
        for _ in range(200):
            if len(peers) < 12 and draw.random() < 0.3:
                peers += await joined(server, HOG, 1)
            elif peers:
                each = draw.choice(peers)
                try:
                    what = draw.choice(["answers", "part", "leave"] if len(peers) > 6 else ["answers", "part"])
                    if what == "answers":
                        await pile_up_answers(each, draw.choice([100, 300]) * KIB)
                    elif what == "part":
                        peers.remove(each)  # after half a frame nothing else can be said
                        await each.send(PART[: draw.randrange(len(PART))])
                        await wait_all_tasks_blocked()
                    else:
                        peers.remove(each)
                        await each.link.aclose()
                        await wait_all_tasks_blocked()
                except pyipc.ConnectionLost:
                    if each in peers:
                        peers.remove(each)
            now = total(server, 7)
            largest = max(largest, now)
            assert now <= 2 * MIB + len(server.connections) * (marks + rest)
            await trio.sleep(0.01)
        assert server.statistics().outgrown > 0, "nothing was tried"
        assert {code for _, code, _ in ended} <= {"slow", "eof", "lost"}
    print(f"at most {largest:,} bytes held, limit {2 * MIB:,}; {server.statistics().outgrown} closed")


async def test_memory_is_really_given_back(autojump_clock: MockClock) -> None:
    """A hundred connections send 200 KiB each of frames without an end: 20 MiB, of which 2 may stay."""
    server, _ = serving(frame_timeout=None, close_timeout=0.1)
    async with server:
        peers = await joined(server, HOG, 100)
        tracemalloc.start()
        try:
            for each in peers:
                await each.send(PART)
                await wait_all_tasks_blocked()
                await trio.sleep(0.2)
            held, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        print(f"{held:,} bytes held at the end, {most:,} at most")
        assert most <= 6 * MIB
        assert server.statistics().outgrown == 90
        for each in peers:
            await each.link.aclose()


async def test_who_is_closed_is_told_why(autojump_clock: MockClock) -> None:
    server, _ = serving(frame_timeout=None)
    async with server:
        peers = await joined(server, HOG, 11)
        for each in peers:
            await each.send(PART)
            await wait_all_tasks_blocked()
        told = [each for each in peers if await _goodbye(each)]
        assert len(told) == 1
        for each in peers:
            await each.link.aclose()


async def _goodbye(peer: WirePeer) -> bool:
    with trio.move_on_after(0.5):
        goodbye = await peer.read_until("pyipc.goodbye")
        assert goodbye["code"] == "slow"
        assert "(max_held_size)" in goodbye["message"]
        return True
    return False


async def test_a_log_does_not_grow_with_those_who_are_closed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server, ended = serving(frame_timeout=None)
    async with server:
        for _ in range(60):
            (peer,) = await joined(server, HOG, 1)
            await peer.send(PART)
            await wait_all_tasks_blocked()
        await trio.sleep(1.1)
        assert len(ended) == 50
    assert len([record for record in caplog.records if "max_held_size" in record.message]) == 2  # the first, the tenth
