"""Letting peers in: handshakes in tasks of their own, who may be there, quotas, and addresses taken all or none."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.errors import HandshakeFailed
from pyipc.testing import Faults, FaultyTransport
from pyipc.transports import Link, Listener, Peer, Place, Transport, memory_link_pair
from tests.conftest import CANNOT_RUN
from tests.wire import WirePeer, hello, join, request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from pyipc import Address

ADDRESS = "memory:accepting"


class Guarded(Link):
    """A link that needs a handshake, of which the test says when and how it ends.

    Args:
        peer: Who it turns out to be.
        host: What is known of the peer before.
    """

    def __init__(self, peer: Peer | None = None, *, host: str | None = None) -> None:
        theirs, self._link = memory_link_pair()
        self.outside = WirePeer(theirs)
        self.needs_handshake = True
        self.allowed = trio.Event()
        self.failure: Exception | None = None
        self.closed = False
        self._peer = Peer(address="guarded:", host=host)
        self._in_truth = peer or self._peer

    @property
    def peer(self) -> Peer:
        return self._peer

    async def handshake(self) -> None:
        assert self.needs_handshake, "it was done before"
        await self.allowed.wait()
        if self.failure is not None:
            raise self.failure
        self._peer = self._in_truth
        self.needs_handshake = False

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.needs_handshake
        await self._link.send(data)

    async def receive(self) -> bytes:
        assert not self.needs_handshake
        return await self._link.receive()

    async def aclose(self) -> None:
        self.closed = True
        await self._link.aclose()


def serving(**options: Any) -> pyipc.Server:
    server = pyipc.Server(**{"close_timeout": 0.05, **options})  # the peers of these tests stay
    server.on("who", lambda message: message.connection.peer.uid)
    return server


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def answer(peer: WirePeer) -> Any:
    await peer.send(hello(), request(1, "who"))
    return (await peer.read_until("pyipc.reply"))["data"]


# --- handshakes -------------------------------------------------------------------------------------------------


async def test_a_peer_is_served_when_its_handshake_is_done() -> None:
    async with serving() as server:
        link = Guarded(Peer(address="guarded:", uid=7))
        connected: list[int | None] = []
        server.on_connect(lambda connection: connected.append(connection.peer.uid))
        server.adopt(link)
        await settle()
        assert (len(server.connections), server.statistics().accepted) == (0, 0)
        assert await answer(join(server, Peer(address="memory:", uid=1))) == 1  # nobody waits for it
        link.allowed.set()
        assert await answer(link.outside) == 7
        assert connected == [1, 7]
        assert server.statistics().accepted == 2


async def test_who_may_be_there_is_decided_after_the_handshake(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        link = Guarded(Peer(address="guarded:", uid=7))
        server.adopt(link, pyipc.Endpoint(ADDRESS, allow=lambda peer: peer.uid == 8))
        link.allowed.set()
        await link.outside.send(hello())
        goodbye = await link.outside.read_until("pyipc.goodbye")
        assert goodbye["code"] == "not-allowed"
        while await link.outside.read() is not None:
            pass
        await link.outside.link.aclose()
        await settle()
        assert link.closed
        statistics = server.statistics()
        assert (statistics.denied, statistics.accepted, statistics.handshake_errors) == (1, 0, 0)
        assert not server.connections
    assert "turned away: allow= does not admit the peer at guarded: (uid 7)" in caplog.text


@pytest.mark.parametrize("framing", [pyipc.Raw(), pyipc.Json()])
@pytest.mark.parametrize("why", ["not allowed", "too many"])
async def test_whoever_is_turned_away_gets_to_no_handler(why: str, framing: Any) -> None:
    options = {"max_connections": 1} if why == "too many" else {}
    async with serving(**options) as server:
        heard: list[object] = []
        server.on("**", lambda message: heard.append(message.data))
        if why == "too many":
            join(server, Peer(address="memory:"))
        link = Guarded(Peer(address="guarded:", uid=7))
        link.needs_handshake = why == "not allowed"
        link.allowed.set()
        allow: Any = (lambda peer: peer.uid == 8) if why == "not allowed" else None
        server.adopt(link, pyipc.Endpoint(ADDRESS, allow=allow, framing=framing))
        await settle()
        for what in (b'{"type":"x","data":1}\f', hello(), b'{"type":"x","data":1}\f', request(1, "x")):
            with contextlib.suppress(pyipc.ConnectionLost):
                await link.outside.send(what)
            await settle()
        assert heard == []
        assert len(server.connections) == (why == "too many")


@pytest.mark.parametrize(
    ("failure", "level", "told"),
    [
        (HandshakeFailed("expired", "its certificate has expired"), logging.WARNING, "its certificate has expired"),
        (ZeroDivisionError("a bug of a third party"), logging.ERROR, "a bug of a third party"),
    ],
)
async def test_a_handshake_that_fails_costs_nobody_else(
    failure: Exception, level: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server:
        link = Guarded()
        link.failure = failure
        server.adopt(link)
        link.allowed.set()
        await settle()
        assert link.closed
        statistics = server.statistics()
        assert (statistics.handshake_errors, statistics.accepted) == (1, 0)
        assert await answer(join(server, Peer(address="memory:", uid=1))) == 1
    [record] = [record for record in caplog.records if record.name == "pyipc.server"]
    assert record.levelno == level
    assert told in caplog.text
    assert bool(record.exc_info) is not isinstance(failure, HandshakeFailed)


async def test_silence_in_the_handshake_ends_in_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(handshake_timeout=3.0) as server:
        link = Guarded()
        server.adopt(link)
        began = trio.current_time()
        with trio.fail_after(60):
            assert await link.outside.read() is None
        assert trio.current_time() - began == 3.0
        assert link.closed
        assert server.statistics().handshake_errors == 1
    assert "guarded: could not connect: no handshake within 3 s (handshake_timeout)" in caplog.text


async def test_without_a_bound_a_handshake_may_take_for_ever(autojump_clock: MockClock) -> None:
    async with serving(handshake_timeout=None) as server:
        link = Guarded(Peer(address="guarded:", uid=7))
        server.adopt(link)
        await trio.sleep(80_000)
        link.allowed.set()
        assert await answer(link.outside) == 7


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_a_server_that_closes_waits_for_no_handshake(how: str, autojump_clock: MockClock) -> None:
    link = Guarded()
    began = trio.current_time()
    with trio.CancelScope() as scope:
        async with serving() as server:
            server.adopt(link)
            await settle()
            if how == "closed":
                await server.aclose()
            else:
                scope.cancel()
    assert link.closed
    assert await link.outside.read() is None
    assert trio.current_time() == began
    assert server.statistics().handshake_errors == 0


async def test_a_handshake_that_ends_while_the_server_closes_is_in_vain(autojump_clock: MockClock) -> None:
    class Stubborn(Guarded):
        async def handshake(self) -> None:
            with trio.CancelScope(shield=True):
                await super().handshake()

    async with serving() as server, trio.open_nursery() as nursery:
        link = Stubborn()
        server.adopt(link)
        await settle()
        nursery.start_soon(server.aclose)
        await settle()
        link.allowed.set()
    assert link.closed
    assert server.statistics().accepted == 0


async def test_a_handshake_counts_for_the_quota_until_it_fails() -> None:
    async with serving(max_connections=1) as server:
        first, second, third = Guarded(), Guarded(), Guarded(Peer(address="guarded:", uid=7))
        server.adopt(first)
        await settle()
        server.adopt(second)
        second.allowed.set()
        await second.outside.send(hello())
        assert (await second.outside.read_until("pyipc.goodbye"))["code"] == "full"
        await second.outside.link.aclose()
        await settle()
        assert second.closed
        assert not first.closed
        first.failure = HandshakeFailed("expired", "its certificate has expired")
        first.allowed.set()
        await settle()
        server.adopt(third)
        third.allowed.set()
        assert await answer(third.outside) == 7
        statistics = server.statistics()
        assert (statistics.refused, statistics.handshake_errors, statistics.accepted) == (1, 1, 1)


async def test_handshakes_of_one_host_count_for_its_quota() -> None:
    async with serving(max_connections_per_peer=2) as server:
        links = [Guarded(host="192.0.2.1") for _ in range(3)]
        for link in links:
            server.adopt(link)
        other = Guarded(host="192.0.2.2")
        server.adopt(other)
        await settle()
        assert server.statistics().refused == 1
        for link in (*links, other):
            link.allowed.set()
        await settle()
        assert server.statistics().accepted == 3
        for link in links[:2]:
            await link.outside.link.aclose()
        await settle()
        assert [link.closed for link in links[:2]] == [True, True]
        another = Guarded(host="192.0.2.1")
        server.adopt(another)
        another.allowed.set()
        await settle()
        assert server.statistics().accepted == 4


async def test_a_user_known_only_after_the_handshake_counts_for_the_quota(autojump_clock: MockClock) -> None:
    somebody = Peer(address="guarded:", sid="S-1-5-21-1")
    async with serving(max_connections_per_peer=2, close_timeout=5.0) as server:
        for _ in range(3):  # seats are given back to whom they were taken from
            links = [Guarded(somebody) for _ in range(3)]
            for link in links:
                server.adopt(link)
                link.allowed.set()
                await settle()  # so that the last one is the one that is too many
            await links[2].outside.send(hello())
            refusal = await links[2].outside.read_until("pyipc.goodbye")
            assert refusal["code"] == "full"
            assert "user S-1-5-21-1 has 2 connections already" in str(refusal)
            assert len(server.connections) == 2
            for link in links[:2]:
                await link.outside.link.aclose()
            await settle()
            assert len(server.connections) == 0
        statistics = server.statistics()
        assert (statistics.accepted, statistics.refused) == (6, 3)


async def test_a_refused_peer_that_shakes_no_hands_is_let_go_in_time(autojump_clock: MockClock) -> None:
    async with serving(max_connections=1, close_timeout=2.0) as server:
        join(server)
        silent = Guarded()
        server.adopt(silent)
        began = trio.current_time()
        assert await silent.outside.read() is None
        assert trio.current_time() - began == 2.0
        assert server.statistics().refused == 1


async def test_a_handshake_through_a_link_that_misbehaves() -> None:
    guarded = Guarded(Peer(address="guarded:", uid=7))
    faulty = FaultyTransport(Faults(split=1)).wrap(guarded)
    assert faulty.needs_handshake
    async with serving() as server:
        server.adopt(faulty)
        guarded.allowed.set()
        assert await answer(guarded.outside) == 7
    assert not faulty.needs_handshake


# --- those who are not known yet ----------------------------------------------------------------------------------


async def test_silent_handshakes_of_one_host_leave_room_for_all_others(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(max_connections=40, max_connections_per_peer=20, max_handshakes=5) as server:
        silent = [Guarded(host="192.0.2.1") for _ in range(100)]
        for link in silent:
            server.adopt(link)
        await settle()
        assert [link.closed for link in silent] == [False] * 5 + [True] * 95
        assert server.statistics().refused == 95
        other = Guarded(Peer(address="guarded:", uid=7, host="192.0.2.2"), host="192.0.2.2")
        server.adopt(other)
        other.allowed.set()
        assert await answer(other.outside) == 7
        # Those who are known count no more, and the silent are gone when their time is over.
        for round_ in range(15):
            link = Guarded(Peer(address="guarded:", uid=8, host="192.0.2.2"), host="192.0.2.2")
            server.adopt(link)
            link.allowed.set()
            assert await answer(link.outside) == 8, round_
        await trio.sleep(5.1)
        assert all(link.closed for link in silent)
        again = Guarded(Peer(address="guarded:", uid=9, host="192.0.2.1"), host="192.0.2.1")
        server.adopt(again)
        again.allowed.set()
        assert await answer(again.outside) == 9
    [told] = [record.getMessage() for record in caplog.records if "turned away" in record.message]
    assert "host 192.0.2.1 has 5 connections already of which nobody knows who they are (max_handshakes)" in told


async def test_who_is_silent_in_the_handshake_makes_room_after_a_while(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(max_handshakes=3) as server:
        silent = [Guarded(host="192.0.2.1") for _ in range(3)]
        for link in silent:
            server.adopt(link)
        await trio.sleep(0.9)
        early = Guarded(Peer(address="guarded:", uid=7, host="192.0.2.1"), host="192.0.2.1")
        server.adopt(early)
        await settle()
        assert early.closed  # they may still be about to say something
        await trio.sleep(0.2)
        again = Guarded(Peer(address="guarded:", uid=7, host="192.0.2.1"), host="192.0.2.1")
        server.adopt(again)
        again.allowed.set()
        assert await answer(again.outside) == 7
        assert [link.closed for link in silent] == [True, False, False]
        assert server.statistics().refused == 1
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_who_does_not_say_hello_makes_room_after_a_while(autojump_clock: MockClock) -> None:
    somebody = Peer(address="memory:", uid=1)
    async with serving(plain_peers=False, max_handshakes=3) as server:
        silent = [join(server, somebody) for _ in range(3)]
        await trio.sleep(1.1)
        assert await answer(join(server, somebody)) == 1
        assert await silent[0].read() is None
        # Each who comes takes the place of one, and whoever has said who it is makes room for nobody.
        assert await answer(join(server, somebody)) == 1
        assert len(server.connections) == 4
        assert server.statistics().refused == 0


async def test_those_who_must_introduce_themselves_count_until_they_have(autojump_clock: MockClock) -> None:
    somebody, somebody_else = Peer(address="memory:", uid=1), Peer(address="memory:", uid=2)
    async with serving(plain_peers=False, max_handshakes=3) as server:
        silent = [join(server, somebody) for _ in range(5)]
        await settle()
        assert len(server.connections) == 3
        for peer in silent[3:]:
            assert await peer.read() is None
        assert await answer(join(server, somebody_else)) == 2
        await trio.sleep(5.1)
        for peer in silent[:3]:
            assert await peer.read() is None
            await peer.link.aclose()
        for _ in range(10):  # more than may be unknown
            assert await answer(join(server, somebody)) == 1
        assert server.statistics().refused == 2


async def test_a_handshake_that_is_done_counts_until_the_introduction_where_that_is_asked_for() -> None:
    async with serving(plain_peers=False, max_handshakes=1) as server:
        first, second, third = (Guarded(Peer(address="guarded:", uid=7)) for _ in range(3))
        for link in (first, second, third):
            link.allowed.set()
        server.adopt(first)
        await settle()
        server.adopt(second)
        await settle()
        assert (first.closed, second.closed) == (False, True)
        assert await answer(first.outside) == 7
        server.adopt(third)
        assert await answer(third.outside) == 7


async def test_where_nobody_has_to_say_who_he_is_any_number_may_be_silent() -> None:
    async with serving(max_handshakes=1) as server:
        for _ in range(20):
            join(server, Peer(address="memory:", uid=1))
        await settle()
        assert len(server.connections) == 20


class Line(Transport, Listener):
    """Peers that have come, of whom none is let in before the listener retires."""

    address = pyipc.parse_address("memory:line")

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = links

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        raise pyipc.ConnectError("they have come already")

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        return self

    async def accept(self) -> Link:
        await trio.sleep_forever()
        raise AssertionError

    def retire(self) -> Sequence[Link]:
        return self._links

    async def aclose(self) -> None:
        pass


async def test_of_those_who_wait_in_line_when_a_server_drains_none_is_one_too_many() -> None:
    pairs = [memory_link_pair(right=Peer(address="memory:", uid=1)) for _ in range(20)]
    line = pyipc.Endpoint("memory:line", transport=Line([theirs for _, theirs in pairs]))
    server = pyipc.Server(line, plain_peers=False, max_handshakes=3)
    server.on("who", lambda message: message.connection.peer.uid)
    for ours, _ in pairs:
        await WirePeer(ours).send(hello(), request(1, "who"))
        ours.send_eof()
    async with server:
        await server.drain(timeout=5)
    for ours, _ in pairs:
        assert await WirePeer(ours).read_until("pyipc.reply") == {"call": 1, "data": 1}
    assert server.statistics().refused == 0


async def test_a_server_that_is_closed_while_it_drains_lets_in_nobody_more() -> None:
    pairs = [memory_link_pair(right=Peer(address="memory:", uid=1)) for _ in range(20)]
    line = pyipc.Endpoint("memory:line", transport=Line([theirs for _, theirs in pairs]))
    server = pyipc.Server(line, close_timeout=0.05)
    async with server, trio.open_nursery() as nursery:
        nursery.start_soon(server.drain)
        while not server.connections:
            await trio.lowlevel.checkpoint()
        await server.aclose()
    assert 0 < server.statistics().accepted < len(pairs)
    for ours, _ in pairs:
        assert await ours.receive() == b""


# --- addresses --------------------------------------------------------------------------------------------------


class Recorder(Transport):
    """Passes on to a transport in memory, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Address, dict[str, object]]] = []
        self.blocked = trio.Event()

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        self.asked.append(("connect", address, dict(options)))
        raise pyipc.ConnectError("it is only asked")

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        self.asked.append(("listen", address, dict(options)))
        self.blocked.set()
        await trio.sleep_forever()
        raise AssertionError

    def places(self, address: Address) -> Sequence[Place]:
        return [Place("here", "there is a dragon")]


async def taken(*addresses: str) -> list[str]:
    """Those that a server could not listen on now."""
    in_use = []
    for address in addresses:
        try:
            async with pyipc.Server(address):
                pass
        except pyipc.AddressInUse:
            in_use.append(address)
    return in_use


async def test_a_server_that_cannot_have_all_its_addresses_has_none() -> None:
    async with pyipc.Server("tcp://127.0.0.1:0") as other:
        busy = str(other.addresses[0])
        server = pyipc.Server(ADDRESS, "tcp://127.0.0.1:0", busy, "memory:never-reached")
        with pytest.raises(pyipc.AddressInUse, match=busy):
            async with server:
                pytest.fail("it runs without one of its addresses")
        ports = [str(address) for address in server.addresses if address.scheme == "tcp"]
        assert len(ports) == 1
        assert await taken(ADDRESS, *ports, busy) == [busy]


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} needs Unix domain sockets")
async def test_sockets_of_addresses_that_were_taken_in_vain_are_gone(tmp_path: Path) -> None:
    missing = f"unix:{tmp_path}/no-such-directory/socket"
    with pytest.raises(pyipc.ListenError, match="its directory is missing"):
        await pyipc.Server(f"unix:{tmp_path}/socket", missing).run()
    assert list(tmp_path.iterdir()) == []


async def test_a_server_cancelled_while_it_listens_releases_what_it_has() -> None:
    slow = Recorder()
    server = pyipc.Server(ADDRESS, pyipc.Endpoint("memory:slow", transport=slow))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await slow.blocked.wait()
        assert await taken(ADDRESS) == [ADDRESS]
        nursery.cancel_scope.cancel()
    assert await taken(ADDRESS) == []


async def test_what_an_endpoint_says_passes_through_a_transport_that_misbehaves() -> None:
    below = Recorder()
    faulty = FaultyTransport(Faults(), transport=below)
    address = pyipc.parse_address(ADDRESS)
    assert list(faulty.places(address)) == [Place("here", "there is a dragon")]
    with pytest.raises(pyipc.ConnectError):
        await faulty.connect(address, {"tls": 1})
    with trio.move_on_after(0):
        await faulty.listen(address, {"mode": 0o660})
    assert below.asked == [("connect", address, {"tls": 1}), ("listen", address, {"mode": 0o660})]
