"""A server as a whole: addresses, quotas, links from elsewhere, broadcasts, closing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Endpoint, Message, Peer
from pyipc.testing import pair
from pyipc.transports import memory_link_pair
from tests.conformance.sides import until
from tests.wire import WirePeer, frame, hello, join, request, stay

if TYPE_CHECKING:
    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(20)


async def leave(*peers: WirePeer) -> None:
    for peer in peers:
        await peer.link.aclose()


# --- listening --------------------------------------------------------------------------------------------------


async def test_run_in_a_nursery_tells_the_addresses() -> None:
    server = pyipc.Server("memory:one", "memory:two")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(server.run)
            assert [str(address) for address in addresses] == ["memory:one", "memory:two"]
            assert server.addresses == addresses
            async with pyipc.connect("memory:two") as client:
                await client.emit("x")
            await server.aclose()


async def test_several_addresses_are_one_server() -> None:
    router = pyipc.Router()
    router.on("echo", lambda message: message.data)
    with trio.fail_after(5):
        async with (
            pyipc.Server("memory:one", "memory:two", router=router) as server,
            pyipc.connect("memory:one") as one,
            pyipc.connect("memory:two") as two,
        ):
            assert await one.request("echo", 1) == 1
            assert await two.request("echo", 2) == 2
            assert (await server.broadcast("news")).sent == 2


async def test_all_addresses_or_none() -> None:
    with trio.fail_after(5):
        async with pyipc.Server("memory:taken"):
            with pytest.raises(pyipc.AddressInUse):
                async with pyipc.Server("memory:free", "memory:taken"):
                    raise AssertionError("it must not run")
            async with pyipc.Server("memory:free"):
                pass


async def test_a_bad_address_is_told_before_anything_runs() -> None:
    with pytest.raises(pyipc.AddressError):
        pyipc.Server("memory:fine", "tcp://127.0.0.1:99999")
    with pytest.raises(TypeError):
        pyipc.Server("memory:fine", no_such_option=1)  # type: ignore[call-arg]


async def test_a_server_runs_once() -> None:
    server = pyipc.Server("memory:once")
    with trio.fail_after(5):
        async with server:
            with pytest.raises(RuntimeError, match="once"):
                await server.run()
        with pytest.raises(RuntimeError, match="once"):
            await server.run()


async def test_two_servers_in_one_process_share_nothing() -> None:
    with trio.fail_after(5):
        async with pair() as (_, first), pair() as (_, second):
            assert (await first.broadcast("x")).sent == 1
            assert second.statistics().broadcasts == 0


# --- quotas -----------------------------------------------------------------------------------------------------


async def test_a_full_server_says_so() -> None:
    ended: list[pyipc.Disconnected] = []
    with trio.fail_after(5):
        async with (
            pyipc.Server("memory:full", max_connections=2) as server,
            pyipc.connect("memory:full"),
            pyipc.connect("memory:full"),
            pyipc.connect("memory:full", wait=False, max_reconnects=0, on_disconnect=ended.append) as third,
        ):
            with pytest.raises(pyipc.ConnectionLost, match="full"):
                await third.request("x")
            with pytest.raises(pyipc.PeerRefused) as refused:
                await third.wait_connected()
            assert refused.value.code == "full"
            assert "max_connections" in refused.value.message
            await trio.testing.wait_all_tasks_blocked()
            assert ended[0].code == "full"
            assert isinstance(ended[0].error, pyipc.PeerRefused)
            assert len(server.connections) == 2
            assert server.statistics().refused == 1


async def test_a_request_to_a_full_server_was_certainly_not_handled() -> None:
    with trio.fail_after(5):
        async with (
            pyipc.Server("memory:full", max_connections=1),
            pyipc.connect("memory:full"),
            pyipc.connect("memory:full", wait=False, offline="raise") as second,
        ):
            await trio.lowlevel.checkpoint()
            with pytest.raises(pyipc.ConnectionLost) as lost:
                while True:
                    await second.request("x")
            assert not lost.value.maybe_handled


async def test_room_is_found_again() -> None:
    router = pyipc.Router()
    router.on("echo", lambda message: message.data)
    with trio.fail_after(5):
        async with pyipc.Server(router=router, max_connections=1) as server:
            for _ in range(3):
                first, second = join(server), join(server)
                await second.send(hello())
                assert (await second.read_until("pyipc.goodbye"))["code"] == "full"
                await first.send(hello(), request(1, "echo", 7))
                assert (await first.read_until("pyipc.reply"))["data"] == 7
                await leave(first, second)
                await trio.testing.wait_all_tasks_blocked()
                assert not server.connections


async def test_one_user_cannot_take_all_places() -> None:
    with trio.fail_after(5):
        async with pyipc.Server(max_connections_per_peer=2, close_timeout=0.1) as server:
            mine = [join(server, Peer(address="x", uid=1)) for _ in range(5)]
            others = [join(server, Peer(address="x", uid=2)) for _ in range(2)]
            hosts = [join(server, Peer(address="x", host="192.0.2.1")) for _ in range(3)]
            unknown = [join(server, Peer(address="x")) for _ in range(4)]
            await trio.testing.wait_all_tasks_blocked()
            assert len(server.connections) == 2 + 2 + 2 + 4
            assert server.statistics().refused == 3 + 1
            await leave(*mine, *others, *hosts, *unknown)


async def test_a_plain_peer_that_is_turned_away_gets_no_pyipc_frame(autojump_clock: MockClock) -> None:
    async with pyipc.Server(max_connections=1) as server:
        first, second = join(server), join(server)
        await second.send(frame("plain"))
        assert await second.read_all() == []
        third = join(server)
        assert await third.read_all() == []
        await leave(first, second, third)


async def test_those_that_are_turned_away_are_not_kept_waiting(autojump_clock: MockClock) -> None:
    """However many there are, and however silent."""
    async with pyipc.Server(max_connections=1, close_timeout=5) as server:
        peers = [join(server) for _ in range(500)]
        await trio.sleep(12)
        assert server.statistics().refused == 499
        for peer in peers[1:]:
            assert await peer.read() is None
        await leave(*peers)


# --- links from elsewhere ---------------------------------------------------------------------------------------


async def test_adopt_needs_a_running_server() -> None:
    server = pyipc.Server()
    ours, theirs = memory_link_pair()
    with pytest.raises(RuntimeError, match="not running"):
        server.adopt(theirs)
    with trio.fail_after(5):
        async with server:
            server.adopt(theirs)
            await ours.aclose()
        with pytest.raises(RuntimeError, match="not running"):
            server.adopt(theirs)


async def test_adopted_links_may_have_options_of_their_own() -> None:
    router = pyipc.Router()

    @router.on("**")
    async def echo(message: Message[Any]) -> None:
        await message.connection.emit("data", message.data)

    with trio.fail_after(5):
        async with pyipc.Server(router=router) as server:
            ours, theirs = memory_link_pair()
            server.adopt(theirs, Endpoint("memory:raw", framing=pyipc.Raw()))
            await ours.send(b"as it is")
            assert await ours.receive() == b"as it is"
            await ours.aclose()


# --- broadcast --------------------------------------------------------------------------------------------------


async def test_broadcast_to_all_but_some() -> None:
    with trio.fail_after(5):
        async with pyipc.Server() as server:
            peers = [join(server, Peer(address=f"x{n}", uid=n)) for n in range(5)]
            await trio.testing.wait_all_tasks_blocked()
            by_uid = {connection.peer.uid: connection for connection in server.connections}
            assert await server.broadcast("all") == pyipc.BroadcastReport(5, 0)
            assert (await server.broadcast("one out", exclude=by_uid[0])).sent == 4
            assert (await server.broadcast("two out", exclude=[by_uid[0], by_uid[1]])).sent == 3
            assert (await server.broadcast("even", where=lambda one: (one.peer.uid or 0) % 2 == 0)).sent == 3
            report = await server.broadcast("even but 0", exclude={by_uid[0]}, where=lambda one: one.peer.uid in (0, 2))
            assert report.sent == 1
            names = []
            for peer in peers:
                peer.link.send_eof()
                names.append([name for name, _ in await peer.read_all()])
            assert names[0] == ["all", "even"]
            assert names[1] == ["all", "one out"]
            assert names[2] == ["all", "one out", "two out", "even", "even but 0"]
            assert names[3] == ["all", "one out", "two out"]
            assert server.statistics().broadcasts == 5


async def test_broadcast_from_a_plain_function() -> None:
    with trio.fail_after(5):
        async with pyipc.Server() as server:
            peers = [join(server, Peer(address=f"x{n}")) for n in range(2)]
            server.on("ask", lambda message: server.broadcast_nowait("news", exclude=message.connection))
            await peers[0].send(frame("ask"))
            await trio.testing.wait_all_tasks_blocked()
            assert server.broadcast_nowait("last", where=lambda one: one.is_open) == pyipc.BroadcastReport(2, 0)
            for peer in peers:
                peer.link.send_eof()
            assert [[name for name, _ in await peer.read_all()] for peer in peers] == [["last"], ["news", "last"]]


async def test_a_broadcast_that_cannot_be_encoded_goes_to_nobody() -> None:
    with trio.fail_after(5):
        async with pair() as (client, server):
            for event, data in (("x", object()), ("pyipc.x", 1), ("", 1), ("big", "x" * 2_000_000)):
                with pytest.raises(pyipc.LocalProtocolError):
                    await server.broadcast(event, data)
            await trio.testing.wait_all_tasks_blocked()
            (connection,) = server.connections
            assert connection.statistics().events_sent == 0
            assert client.connected


async def test_a_broadcast_to_nobody() -> None:
    with trio.fail_after(5):
        async with pyipc.Server() as server:
            assert await server.broadcast("x") == pyipc.BroadcastReport(0, 0)


async def test_a_cancelled_broadcast_has_sent_nothing() -> None:
    with trio.fail_after(5):
        async with pair() as (_, server):
            with trio.CancelScope() as scope:
                scope.cancel()
                await server.broadcast("x")
            assert scope.cancelled_caught
            (connection,) = server.connections
            assert connection.statistics().events_sent == 0


async def test_a_slow_peer_is_closed_and_nobody_else_is_hurt(autojump_clock: MockClock) -> None:
    got: list[int] = []
    router = pyipc.Router()
    router.on("news", lambda message: got.append(message.data[0]))
    async with pyipc.Server("memory:slow", outbox_high_water_size=10_000, max_outbox_size=50_000) as server:
        ended: list[str] = []
        server.on_disconnect(lambda reason: ended.append(reason.code))
        slow = join(server, buffer_size=1_000)
        async with pyipc.connect("memory:slow", router=router) as client:
            dropped = 0
            for n in range(200):
                dropped += (await server.broadcast("news", [n, "x" * 1_000])).dropped
                await trio.testing.wait_all_tasks_blocked()
            assert dropped == 1
            await trio.sleep(20)
            assert ended == ["slow"]
            assert got == list(range(200))
            assert client.connected
        await leave(slow)


async def test_a_slow_peer_may_miss_events_instead(autojump_clock: MockClock) -> None:
    async with pyipc.Server(slow_peer="drop", outbox_high_water_size=10_000, max_outbox_size=50_000) as server:
        slow = join(server, buffer_size=1_000)
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server.connections
        reports = [await server.broadcast("news", [n, "x" * 1_000]) for n in range(200)]
        sent, dropped = sum(report.sent for report in reports), sum(report.dropped for report in reports)
        assert (sent, dropped) == (sent, 200 - sent)
        assert 40 <= sent <= 60
        assert connection.statistics().dropped == dropped == server.statistics().broadcasts_dropped
        got = []

        async def read() -> None:
            while (read := await slow.read()) is not None:
                got.append(read[1][0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.sleep(1)
            assert (await server.broadcast("news", [1_000, ""])).sent == 1
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert got == [*range(sent), 1_000]
        await leave(slow)


# --- who comes and goes -----------------------------------------------------------------------------------------


async def test_on_connect_and_on_disconnect(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    async with pyipc.Server() as server:

        @server.on_connect
        async def connected(connection: pyipc.Connection) -> None:
            await trio.sleep(1)
            log.append("connected")
            await connection.emit("welcome")

        @server.on_disconnect
        def fails(reason: pyipc.Disconnected) -> None:
            raise ValueError("hurts nobody")

        @server.on_disconnect
        async def gone(reason: pyipc.Disconnected) -> None:
            await trio.sleep(1)
            log.append((reason.code, reason.by_peer))

        peer = join(server)
        assert await peer.read() == ("welcome", None)
        await leave(peer)
        await trio.sleep(5)
        assert log == ["connected", ("eof", True)]
        peer = join(server)
        await peer.read()
        del log[:]

        async def say_goodbye() -> None:
            assert await peer.read_all() == []
            await leave(peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say_goodbye)
            await server.aclose()
        assert log == [("closed", False)]


async def test_a_client_that_closes_says_goodbye() -> None:
    codes: list[str] = []
    with trio.fail_after(5):
        async with pyipc.Server("memory:bye") as server:
            server.on_disconnect(lambda reason: codes.append(reason.code))
            async with pyipc.connect("memory:bye"):
                await trio.testing.wait_all_tasks_blocked()  # so that it knows that the server understands
            await trio.testing.wait_all_tasks_blocked()
            assert codes == ["goodbye"]


# --- closing ----------------------------------------------------------------------------------------------------


async def test_aclose_is_idempotent_and_wakes_run() -> None:
    server = pyipc.Server("memory:close")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            for _ in range(3):
                nursery.start_soon(server.aclose)
        await server.aclose()
        async with pyipc.Server("memory:close"):  # the address is free again
            pass


@pytest.mark.parametrize("as_request", [False, True])
async def test_a_handler_may_close_the_server(as_request: bool, autojump_clock: MockClock) -> None:
    server = pyipc.Server("memory:stop")

    @server.on("stop")
    async def stop(message: Message[Any]) -> None:
        await server.aclose()

    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        async with pyipc.connect("memory:stop", reconnect=False) as client:
            if as_request:
                with pytest.raises(pyipc.ConnectionLost):
                    await client.request("stop")
            else:
                await client.emit("stop")
                await trio.sleep(1)
            await trio.sleep(20)
            assert "closed" in repr(server)


async def test_a_cancelled_body_closes_at_once(autojump_clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        async with pyipc.Server("memory:cancel", outbox_high_water_size=1_000_000) as server:
            peer = join(server, buffer_size=100)
            await trio.testing.wait_all_tasks_blocked()
            await server.broadcast("news", "x" * 10_000)
            scope.cancel()
            await trio.sleep_forever()
    assert trio.current_time() == 0
    with pytest.raises(pyipc.ConnectionLost):
        await peer.link.send(b"x")


async def test_an_error_in_the_body_still_closes_properly() -> None:
    got: list[Any] = []
    router = pyipc.Router()
    router.on("last", lambda message: got.append(message.data))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                connected = trio.Event()
                with pytest.raises(ZeroDivisionError):
                    async with pyipc.Server("memory:error") as server:
                        server.on_connect(lambda connection: connected.set())
                        await connected.wait()
                        await trio.testing.wait_all_tasks_blocked()
                        await server.broadcast("last", "words")
                        raise ZeroDivisionError

            nursery.start_soon(serve)
            await trio.testing.wait_all_tasks_blocked()
            lost = trio.Event()
            async with pyipc.connect(
                "memory:error", router=router, reconnect=False, on_disconnect=lambda reason: lost.set()
            ):
                await lost.wait()
    assert got == ["words"]


async def test_what_no_client_read_is_counted(autojump_clock: MockClock) -> None:
    server = pyipc.Server()
    with pytest.raises(pyipc.Undelivered) as caught:
        async with server:
            peers = [join(server, buffer_size=10) for _ in range(3)]
            await trio.testing.wait_all_tasks_blocked()
            await server.broadcast("news", "x" * 100)
            await server.broadcast("news", "x" * 100)
    assert caught.value.count == 6
    assert trio.current_time() == pytest.approx(5, abs=0.1)
    await leave(*peers)


async def test_closing_does_not_wait_longer_than_it_says(autojump_clock: MockClock) -> None:
    """With clients that hang, a handler that hangs, and callbacks that hang."""
    router = pyipc.Router()
    router.on("hang", stay)
    async with pyipc.Server(router=router, close_timeout=3) as server:
        server.on_disconnect(stay)
        peers = [join(server) for _ in range(3)]
        for peer in peers:
            await peer.send(frame("hang"))
        await trio.testing.wait_all_tasks_blocked()
        await server.aclose()
    assert trio.current_time() <= 6.5
    await leave(*peers)


async def test_repr_shows_the_state() -> None:
    server = pyipc.Server("memory:repr")
    assert "not running" in repr(server)
    with trio.fail_after(5):
        async with server, pyipc.connect("memory:repr"):
            await trio.testing.wait_all_tasks_blocked()
            assert "listening" in repr(server)
            assert "1 connections" in repr(server)
    assert "closed" in repr(server)


@pytest.mark.parametrize("already_closing", [False, True])
async def test_who_is_told_of_an_end_may_close_the_server(already_closing: bool, autojump_clock: MockClock) -> None:
    """And does not wait for itself, while it waits for everybody else."""
    server = pyipc.Server("memory:closing", close_timeout=5)
    told: list[str] = []

    @server.on_disconnect
    async def first(reason: pyipc.Disconnected) -> None:
        await server.aclose()
        told.append("closed")

    @server.on_connect
    async def last(connection: pyipc.Connection) -> None:
        told.append("connected")

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        async with pyipc.connect("memory:closing"):
            await until(lambda: bool(told))
            if already_closing:
                await server.aclose()
    assert told == ["connected", "closed"]
    assert trio.current_time() - began < 1


async def test_closing_waits_for_all_others_who_are_told_of_an_end(autojump_clock: MockClock) -> None:
    server = pyipc.Server("memory:closing", close_timeout=5)
    told: list[str] = []

    @server.on_disconnect
    async def note(reason: pyipc.Disconnected) -> None:
        if told:
            await trio.sleep(2)
            told.append("the other")
        else:
            told.append("one")
            await server.aclose()
            told.append("closed")

    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        async with pyipc.connect("memory:closing"), pyipc.connect("memory:closing") as client:
            await until(lambda: len(server.connections) == 2)
            await client.aclose()
    assert told == ["one", "the other", "closed"]


def test_who_must_introduce_itself_needs_words_for_it() -> None:
    raw = pyipc.Endpoint("memory:raw", framing=pyipc.Raw())
    with pytest.raises(ValueError, match="raw framing has no words"):
        pyipc.Server("memory:x", raw, plain_peers=False)
    pyipc.Server(raw)
