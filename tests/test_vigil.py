"""Heartbeats, dribble and hellos that do not come: who is judged, when, and who is not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Message
from pyipc.testing import Faults, FaultyTransport, pair
from tests.wire import WirePeer, frame, hello, join

if TYPE_CHECKING:
    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(30)

HOUR = 3_600.0


def watch(server: pyipc.Server) -> list[tuple[str, float]]:
    """The code and the time of each disconnect."""
    ended: list[tuple[str, float]] = []
    server.on_disconnect(lambda reason: ended.append((reason.code, trio.current_time())))
    return ended


async def count_frames(peer: WirePeer, seconds: float) -> list[str]:
    names: list[str] = []
    with trio.move_on_after(seconds):
        while (read := await peer.read()) is not None:
            names.append(read[0])
    return names


# --- heartbeats -------------------------------------------------------------------------------------------------


async def test_an_idle_connection_lives_for_hours(autojump_clock: MockClock) -> None:
    async with pair() as (client, server):
        await trio.sleep(5 * HOUR)
        assert client.statistics().connects == 1
        (connection,) = server.connections
        assert connection.is_open
        # A ping each way every ten seconds, and nothing else.
        assert 1_700 <= connection.statistics().bytes_received / len(frame("pyipc.ping", {})) <= 1_900


async def test_pings_only_when_idle(autojump_clock: MockClock) -> None:
    async with pyipc.Server(heartbeat_interval=None) as server:
        peer = join(server)
        await peer.send(hello(heartbeat=10))
        await peer.read_until("pyipc.welcome")
        (connection,) = server.connections
        names: list[str] = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                names.extend(await count_frames(peer, 200))

            nursery.start_soon(read)
            for _ in range(20):
                await trio.sleep(5)
                await connection.emit("news")
            await trio.sleep(95)
        assert names[:20] == ["news"] * 20
        assert names[20:] == ["pyipc.ping"] * 9
        await peer.link.aclose()


async def test_the_peer_says_how_often_it_wants_to_hear(autojump_clock: MockClock) -> None:
    async with pyipc.Server(heartbeat_interval=1.0, heartbeat_misses=1_000) as server:
        for heartbeat, expected in ((2, 50), (None, 0), (30, 3)):
            peer = join(server)
            await peer.send(hello(heartbeat=heartbeat))
            await peer.read_until("pyipc.welcome")
            assert await count_frames(peer, 101) == ["pyipc.ping"] * expected
            await peer.link.aclose()


async def test_a_silent_peer_is_lost_after_two_missed(autojump_clock: MockClock) -> None:
    async with pyipc.Server(heartbeat_interval=10) as server:
        ended = watch(server)
        peer = join(server)
        await peer.send(hello(heartbeat=None))
        await peer.read_until("pyipc.welcome")
        (connection,) = server.connections
        began = trio.current_time()
        with pytest.raises(pyipc.ConnectionLost) as lost:
            await connection.request("anybody there", timeout=None)
        assert 20 <= trio.current_time() - began <= 21.5
        assert lost.value.maybe_handled
        await trio.sleep(1)
        assert [code for code, _ in ended] == ["silent"]
        assert (await peer.read_until("pyipc.goodbye"))["code"] == "silent"


async def test_any_byte_proves_life(autojump_clock: MockClock) -> None:
    async with pyipc.Server(heartbeat_interval=10, frame_timeout=None) as server:
        ended = watch(server)
        peer = join(server)
        await peer.send(hello(heartbeat=None))
        for byte in b'{"type":"a very slow one","data":null}':
            await trio.sleep(15)
            await peer.send(bytes([byte]))
        assert ended == []
        assert len(server.connections) == 1
        await trio.sleep(30)
        assert [code for code, _ in ended] == ["silent"]
        await peer.link.aclose()


async def test_a_client_comes_back_from_a_black_hole(autojump_clock: MockClock) -> None:
    router = pyipc.Router()
    router.on("echo", lambda message: message.data)
    transport = FaultyTransport(Faults())
    async with pair(router, faults=transport) as (client, server):
        ended = watch(server)
        await client.request("echo", 1)
        transport.links[-1].blackhole()
        await trio.sleep(30)
        assert client.statistics().connects == 2
        assert await client.request("echo", 2) == 2
        await trio.sleep(30)
        assert [code for code, _ in ended] == ["silent"]


async def test_a_paused_reader_judges_nobody(autojump_clock: MockClock) -> None:
    """The peer sends faster than it is handled, so its pings wait unread; it is not silent."""
    release = trio.Event()
    router = pyipc.Router()
    router.on("slow", lambda message: release.wait())
    async with pair(router, server_options={"inbox_high_water_size": 1_000}) as (client, server):
        ended = watch(server)
        await client.emit("slow", "x" * 2_000)
        await client.emit("slow", "x" * 2_000)
        await trio.sleep(1)
        (connection,) = server.connections
        assert connection.statistics().reading_paused
        await trio.sleep(HOUR)
        assert ended == []
        release.set()
        await trio.sleep(HOUR)
        assert ended == []
        assert client.statistics().connects == 1
        assert not connection.statistics().reading_paused


async def test_a_busy_handler_never_costs_the_connection(autojump_clock: MockClock) -> None:
    router, client_router = pyipc.Router(), pyipc.Router()

    async def busy(message: Message[Any]) -> None:
        await trio.sleep(HOUR)

    router.on("busy", busy)
    client_router.on("busy", busy)
    async with pair(router, client_router=client_router) as (client, server):
        await server.broadcast("busy")
        await client.request("busy", timeout=None)
        assert client.statistics().connects == 1


async def test_a_loop_that_was_blocked_judges_nobody(mock_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Both sides wake up long after everything was due: what has arrived meanwhile counts."""
    with trio.fail_after(1_000_000):
        async with pair() as (client, server):
            ended = watch(server)
            for _ in range(20):
                mock_clock.jump(100)
                for _ in range(3):
                    await trio.testing.wait_all_tasks_blocked()
                    mock_clock.jump(1)
                await trio.testing.wait_all_tasks_blocked()
            assert ended == []
            assert client.statistics().connects == 1
        assert any("blocked" in record.message for record in caplog.records)


async def test_one_blocked_loop_does_not_excuse_silence_for_ever(mock_clock: MockClock) -> None:
    async with pyipc.Server(heartbeat_interval=10) as server:
        ended = watch(server)
        peer = join(server)
        await peer.send(hello(heartbeat=None))
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(100)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []
        for _ in range(3):
            mock_clock.jump(1)
            await trio.testing.wait_all_tasks_blocked()
        assert [code for code, _ in ended] == ["silent"]
        await peer.link.aclose()


@pytest.mark.parametrize("arrived", [b"", b'{"type":"x",'], ids=["hello", "frame"])
async def test_a_loop_that_was_blocked_reads_on_before_it_judges(arrived: bytes, mock_clock: MockClock) -> None:
    """What was due long ago has a little time to be read, and no more than that."""
    async with pyipc.Server(plain_peers=bool(arrived), heartbeat_interval=None, close_timeout=0) as server:
        ended = watch(server)
        lucky, silent = join(server), join(server)
        if arrived:
            for peer in (lucky, silent):
                await peer.send(arrived)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(600)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []
        await lucky.send(b'"data":1}\f' if arrived else hello())
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
        await trio.testing.wait_all_tasks_blocked()
        assert [code for code, _ in ended] == ["slow" if arrived else "handshake"]
        assert len(server.connections) == 1
        for peer in (lucky, silent):
            await peer.link.aclose()


async def test_a_client_that_was_blocked_reads_the_welcome_before_it_takes_the_server_for_another_kind(
    mock_clock: MockClock,
) -> None:
    got: list[int] = []
    router = pyipc.Router()
    router.on("e", lambda message: got.append(message.data))
    transport = FaultyTransport(Faults(), inbound=Faults(coalesce=2, hold_interval=HOUR))
    async with pair(router, faults=transport, client_options={"confirm_timeout": None}) as (client, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.emit, "e", 1, confirm=True))
            await trio.testing.wait_all_tasks_blocked()
            assert got == []  # the welcome is on its way
            mock_clock.jump(600)
            await trio.testing.wait_all_tasks_blocked()
            (link,) = transport.links
            link.heal()
        assert got == [1]
        assert client.statistics().connects == 1


async def test_without_heartbeats_silence_is_fine(autojump_clock: MockClock) -> None:
    async with pair(server_options={"heartbeat_interval": None}, client_options={"heartbeat_interval": None}) as (
        client,
        server,
    ):
        (connection,) = server.connections
        await trio.testing.wait_all_tasks_blocked()
        before = connection.statistics().bytes_received
        await trio.sleep(24 * HOUR)
        assert connection.statistics().bytes_received == before
        assert client.connected


async def test_a_plain_client_gets_exactly_what_was_broadcast(autojump_clock: MockClock) -> None:
    """It never says a word, and stays for hours: no ping, no goodbye, no hello goes its way."""
    async with pyipc.Server(heartbeat_interval=1) as server:
        peer = join(server)
        await trio.testing.wait_all_tasks_blocked()
        sent = b""
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                await peer.read_all()

            nursery.start_soon(read)
            for hour in range(10):
                await trio.sleep(HOUR)
                assert (await server.broadcast("hour", hour)).sent == 1
                sent += frame("hour", hour)
            await trio.sleep(HOUR)
            assert len(server.connections) == 1
            assert bytes(peer.received) == sent
            nursery.start_soon(server.aclose)
            await trio.sleep(1)
            peer.link.send_eof()
        assert bytes(peer.received) == sent


async def test_a_plain_peer_that_talks_gets_no_pyipc_frame_either(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    router = pyipc.Router()

    @router.on("echo")
    async def echo(message: Message[Any]) -> None:
        await message.connection.emit("echo", message.data)

    async with pyipc.Server(router=router, heartbeat_interval=1) as server:
        peer = join(server)
        for n in range(5):
            await peer.send(frame("echo", n), frame("nobody"))
            await trio.sleep(HOUR)
        await peer.send(b"this is not JSON\f")
        await trio.sleep(1)
        peer.link.send_eof()
        assert await peer.read_all() == [("echo", n) for n in range(5)]


# --- dribble ----------------------------------------------------------------------------------------------------


async def test_an_incomplete_frame_has_its_time(autojump_clock: MockClock) -> None:
    async with pyipc.Server(frame_timeout=30, close_timeout=1) as server:
        ended = watch(server)
        peer = join(server)
        await peer.send(frame("x"), b'{"type":"never')
        began = trio.current_time()
        await trio.sleep(29)
        assert ended == []
        await trio.sleep(5)
        assert [code for code, _ in ended] == ["slow"]
        assert 30 <= ended[0][1] - began <= 32
        await peer.link.aclose()


async def test_dribble_does_not_buy_time(autojump_clock: MockClock) -> None:
    async with pyipc.Server(frame_timeout=30, close_timeout=1) as server:
        ended = watch(server)
        peer = join(server)
        await peer.send(b'{"type":"never","data":"')
        with pytest.raises(pyipc.ConnectionLost):
            for _ in range(100):
                await trio.sleep(1)
                await peer.send(b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert [code for code, _ in ended] == ["slow"]
        assert ended[0][1] <= 32
        await peer.link.aclose()


async def test_a_large_frame_that_grows_in_time_may_take_long(autojump_clock: MockClock) -> None:
    got: list[int] = []
    router = pyipc.Router()
    router.on("big", lambda message: got.append(len(message.data)))
    async with pyipc.Server(router=router, frame_timeout=30) as server:
        peer = join(server)
        whole = frame("big", "x" * 900_000)
        for start in range(0, len(whole), 35_000):
            await peer.send(whole[start : start + 35_000])
            await trio.sleep(14)
        assert got == [900_000]
        await peer.link.aclose()


async def test_each_frame_has_its_own_time(autojump_clock: MockClock) -> None:
    """Frames that never end at the end of a chunk: there is always an incomplete one, but never the same."""
    got: list[int] = []
    router = pyipc.Router()
    router.on("n", lambda message: got.append(message.data))
    async with pyipc.Server(router=router, frame_timeout=30) as server:
        ended = watch(server)
        peer = join(server)
        stream = b"".join(frame("n", n) for n in range(1_000, 1_100))
        size = len(frame("n", 1_000))
        for start in range(0, len(stream), size + 1):
            await peer.send(stream[start : start + size + 1])
            await trio.sleep(10)
        assert ended == []
        assert got == list(range(1_000, 1_100))
        await peer.link.aclose()


async def test_the_time_of_a_frame_stops_while_reading_is_paused(autojump_clock: MockClock) -> None:
    release = trio.Event()
    router = pyipc.Router()
    got: list[Any] = []

    @router.on("stay")
    async def stay(message: Message[Any]) -> None:
        await release.wait()

    router.on("late", lambda message: got.append(message.data))
    async with pyipc.Server(router=router, frame_timeout=30, inbox_high_water_size=1_000) as server:
        ended = watch(server)
        peer = join(server)
        late = frame("late", 1)
        await peer.send(frame("stay"), frame("stay", "x" * 2_000), late[:5])
        await trio.sleep(1)
        (connection,) = server.connections
        assert connection.statistics().reading_paused
        await peer.send(late[5:])
        await trio.sleep(HOUR)
        assert ended == []
        release.set()
        await trio.sleep(1)
        assert got == [1]
        await peer.link.aclose()


async def test_a_pause_that_has_just_ended_does_not_count(autojump_clock: MockClock) -> None:
    """The rest of a frame may take a moment to arrive after a long pause; the time begins anew."""
    release = trio.Event()
    router = pyipc.Router()
    got: list[Any] = []

    @router.on("stay")
    async def stay(message: Message[Any]) -> None:
        await release.wait()

    router.on("late", lambda message: got.append(message.data))
    async with pyipc.Server(router=router, frame_timeout=30, inbox_high_water_size=1_000) as server:
        ended = watch(server)
        peer = join(server)
        late = frame("late", 1)
        await peer.send(frame("stay"), frame("stay", "x" * 2_000), late[:5])
        await trio.sleep(29)
        release.set()
        await trio.sleep(5)
        await peer.send(late[5:])
        await trio.sleep(1)
        assert ended == []
        assert got == [1]
        await peer.link.aclose()


# --- hello ------------------------------------------------------------------------------------------------------


async def test_a_required_hello_has_its_time(autojump_clock: MockClock) -> None:
    async with pyipc.Server(plain_peers=False, handshake_timeout=5, close_timeout=1) as server:
        ended = watch(server)
        silent, polite = join(server), join(server)
        await trio.sleep(4)
        await polite.send(hello())
        assert (await polite.read_until("pyipc.welcome"))["version"] == 1
        assert ended == []
        await trio.sleep(HOUR)
        assert [code for code, _ in ended[:1]] == ["handshake"]
        assert 5 <= ended[0][1] <= 7
        assert await silent.read_all() == []
        await polite.link.aclose()


async def test_by_default_nobody_has_to_say_hello(autojump_clock: MockClock) -> None:
    async with pyipc.Server() as server:
        peer = join(server)
        await trio.sleep(HOUR)
        assert len(server.connections) == 1
        await peer.link.aclose()


async def test_a_plain_event_before_the_hello_is_refused_where_one_is_required(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[Any] = []
    router = pyipc.Router()
    router.on("**", lambda message: got.append(message.event))
    async with pyipc.Server(router=router, plain_peers=False) as server:
        ended = watch(server)
        peer = join(server)
        await peer.send(frame("x"), hello(), frame("y"))
        peer.link.send_eof()
        assert await peer.read_all() == []
        await trio.sleep(10)
        assert [code for code, _ in ended] == ["hello"]
    assert got == []


@pytest.mark.parametrize("plain_peers", [True, False])
async def test_on_connect_comes_before_the_first_message(plain_peers: bool, autojump_clock: MockClock) -> None:
    order: list[str] = []
    router = pyipc.Router()
    router.on("**", lambda message: order.append(message.event))
    async with pyipc.Server(router=router, plain_peers=plain_peers) as server:

        @server.on_connect
        async def greet(connection: pyipc.Connection) -> None:
            await trio.sleep(3)
            order.append(connection.peer.protocol if not plain_peers else "greeted")

        peer = join(server)
        await peer.send(hello(), frame("first"), frame("second"))
        await trio.sleep(10)
        assert order == ["greeted" if plain_peers else "pyipc/1", "first", "second"]
        await peer.link.aclose()
