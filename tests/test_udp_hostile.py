"""UDP and people who mean harm: bounds hold, nobody is used against others, and those who are known go on."""

from __future__ import annotations

import collections
import gc
import json
import logging
import random
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.transports.datagrams import DatagramSocket
from pyipc.transports.udp import UdpTransport
from pyipc.transports.udp_listener import SourceLink, UdpListener
from tests.conftest import CANNOT_RUN
from tests.test_udp import ANY_PORT, address, plain, strangers, until
from tests.wire import frame, hello

if TYPE_CHECKING:
    from pyipc import Address

__all__ = ["address"]  # a fixture

pytestmark = pytest.mark.time_limit(60)

SOURCES = 10_000


class Note:
    """A server's handler that keeps what it hears."""

    def __init__(self, server: pyipc.Server) -> None:
        self.got: list[Any] = []
        server.on("e", lambda message: self.got.append(message.data))


async def settle(server: pyipc.Server) -> None:
    """Wait until the server has read all that the kernel has for it."""
    (listener,) = server._acceptor.listeners
    assert isinstance(listener, UdpListener)
    for _ in range(3):
        await trio.testing.wait_all_tasks_blocked()


# --- what a datagram may hold -----------------------------------------------------------------------------------


async def test_the_largest_datagram_and_one_byte_more(address: str) -> None:
    """65,507 bytes pass, both ways; what would take one more is an error of the sender's, and nothing is sent."""
    server = pyipc.Server(address)
    note = Note(server)
    room = 65_507 - len(frame("e", ""))
    async with server, pyipc.connect(str(server.addresses[0])) as client:
        heard = client.events("e")
        await client.emit("e", "x" * room)
        await until(lambda: len(note.got) == 1)
        (connection,) = server.connections
        for side in (client, connection):
            with pytest.raises(pyipc.MessageTooLarge) as caught:
                await side.emit("e", "x" * (room + 1))
            assert (caught.value.size, caught.value.limit) == (65_508, 65_507)
        await connection.emit("e", "y" * room)
        assert (await heard.get()).data == "y" * room
        assert note.got == ["x" * room]
        assert connection.statistics().dropped == client.statistics().connection.dropped == 0  # type: ignore[union-attr]


async def test_truncated_and_garbage_datagrams_are_counted_and_end_nothing(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = pyipc.Server(address)
    note = Note(server)
    draw = random.Random(1)
    whole = frame("e", "whole")
    async with server, plain(server.addresses[0]) as peer:
        await peer.send(hello())
        ((event, welcome),) = await peer.receive()
        assert event == "pyipc.welcome"
        (connection,) = server.connections
        bad = [
            *(whole[:end] for end in range(len(whole))),
            *(draw.randbytes(draw.randrange(1, 2_000)).replace(b"\f", b"") for _ in range(100)),
            b"\f",
            b'{"type":"e","data":' + b"[" * 5_000 + b"\f",
            b'{"type":' + b"n" * 60_000 + b"}\f",
            frame("pyipc.reply", {"call": 99}),
            frame("pyipc.welcome", {"version": 1}),
            frame("pyipc.echo", {"token": "guess"}),
            frame("pyipc.request", {"call": -1, "event": "e"}),
        ]
        for number, datagram in enumerate(bad):
            await peer.send(datagram, frame("e", number))
            await until(lambda number=number: note.got[-1:] == [number])  # type: ignore[misc]
        assert note.got == list(range(len(bad)))
        assert connection.statistics().malformed == len(bad)
        assert connection.is_open
        await peer.send(frame("pyipc.echo", {"token": welcome["token"]}))
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 3  # the first, the tenth and the hundredth


async def test_good_frames_beside_bad_ones_are_heard(address: str) -> None:
    server = pyipc.Server(address)
    note = Note(server)
    async with server, plain(server.addresses[0]) as peer:
        await peer.send(frame("e", 1) + b"garbage\f" + frame("e", 2) + frame("e", 3)[:-1], frame("e", 4))
        await until(lambda: len(note.got) == 3)
    assert note.got == [1, 2, 4]


@pytest.mark.parametrize("bad", [b"\f", b"1\f", b"{}\f"])
async def test_a_datagram_full_of_bad_frames_costs_no_more_than_four(bad: bytes) -> None:
    server = pyipc.Server(strangers())
    note = Note(server)
    async with server, plain(server.addresses[0]) as peer:
        await peer.send(frame("e", 1) + bad * 20_000, frame("e", 2))
        await until(lambda: note.got == [1, 2])
        (connection,) = server.connections
        assert connection.statistics().malformed == 4


async def test_garbage_from_strangers_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    server = pyipc.Server(strangers())
    note = Note(server)
    async with server, plain(server.addresses[0]) as peer:
        await peer.send(*[b"garbage"] * 200, frame("e", 1))
        await until(lambda: note.got == [1])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- ten thousand sources ---------------------------------------------------------------------------------------


class Crowd(DatagramSocket):
    """A socket on which datagrams come from whomever the test says, and which notes what it is to send to whom."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.waiting: collections.deque[tuple[bytes, Any]] = collections.deque()
        self.received: collections.Counter[Any] = collections.Counter()
        self.sent: collections.Counter[Any] = collections.Counter()
        self.answers: dict[Any, list[bytes]] = collections.defaultdict(list)
        self.arrival = trio.lowlevel.ParkingLot()

    def arrive(self, data: bytes, where: Any) -> None:
        self.waiting.append((data, where))
        self.received[where] += len(data)
        self.arrival.unpark_all()

    def send(self, data: bytes | bytearray | memoryview, where: Any = None) -> bool:
        self.sent[where] += len(data)
        self.answers[where].append(bytes(data))
        return True

    def receive(self) -> tuple[bytes, Any] | None:
        return self.waiting.popleft() if self.waiting else None

    async def wait_readable(self) -> None:
        if self.waiting:
            await trio.lowlevel.checkpoint()
        else:
            await self.arrival.park()

    def close(self) -> None:
        super().close()
        self.arrival.unpark_all()


class CrowdTransport(UdpTransport):
    """UDP with a `Crowd` for its socket."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.crowd: Crowd

    async def listen(self, address: Address, options: Any) -> UdpListener:
        self.crowd = Crowd(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        return UdpListener([self.crowd], address, trusts=self._trusts, max_strangers=self._max_strangers)


def far_away(index: int) -> tuple[str, int]:
    return (f"198.51.{index // 250 % 250}.{index % 250}", 1_024 + index % 60_000)


def alive(kind: type) -> int:
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


@pytest.mark.slow
async def test_ten_thousand_spoofed_sources_take_bounded_memory_and_are_sent_no_more_than_they_sent() -> None:
    transport = CrowdTransport()
    endpoint = pyipc.Endpoint("udp://0.0.0.0:9", transport=transport, allow=pyipc.ANYONE)
    server = pyipc.Server(endpoint)
    server.on("much", lambda message: "x" * 60_000)
    server.on("e", lambda message: message.connection.emit("e", "y" * 500))
    most = 0
    before = {kind: alive(kind) for kind in (SourceLink, pyipc.Connection)}  # other tests may have left some
    async with server:
        crowd = transport.crowd
        # Somebody who is known: verified before the flood begins.
        friend = ("203.0.113.7", 7)
        crowd.arrive(hello() + frame("padding", "." * 400), friend)
        await settle(server)
        welcome = json.loads(crowd.answers[friend][0][:-1])
        crowd.arrive(frame("pyipc.echo", {"token": welcome["data"]["token"]}), friend)
        await settle(server)
        (known,) = server.connections
        for index in range(SOURCES):
            where = far_away(index)
            kinds = [
                *(hello(), frame("e"), frame("pyipc.request", {"call": 1, "event": "much"}), b"garbage", b""),
                *(frame("pyipc.echo", {"token": "guess"}), hello() + frame("e") * 20),
            ]
            crowd.arrive(kinds[index % len(kinds)], where)
            crowd.arrive(kinds[index % 3], where)
            if index % 50 == 49:
                await settle(server)
                most = max(most, len(server.connections))
            if index % 1_000 == 999:
                report = await server.broadcast("news", "for those who are known")
                assert report == pyipc.BroadcastReport(1, 0)
        await settle(server)
        assert len(crowd.received) == SOURCES + 1
        assert most <= 256 + 1
        assert len(server.connections) == 256 + 1
        for kind in before:
            assert alive(kind) <= before[kind] + 256 + 1
        too_much = [where for where in crowd.received if where != friend and crowd.sent[where] > crowd.received[where]]
        assert too_much == []
        assert sum(crowd.sent.values()) > 100_000  # those who asked did get answers
        # Whoever is known was neither pushed out nor kept waiting.
        assert known in server.connections
        crowd.arrive(frame("pyipc.request", {"call": 1, "event": "much"}), friend)
        await settle(server)
        assert len(crowd.answers[friend][-1]) > 60_000


@pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} only Linux has all of 127.0.0.0/8")
async def test_ten_thousand_real_sources_are_bounded_by_the_quotas(caplog: pytest.LogCaptureFixture) -> None:
    server = pyipc.Server(ANY_PORT, max_connections=100)
    async with server:
        (to,) = server.addresses
        for index in range(SOURCES):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((f"127.1.{index // 250}.{index % 250 + 1}", 0))
                sock.sendto(hello(), (to.host, to.port))
            if index % 50 == 49:
                await settle(server)
                assert len(server.connections) <= 100
        statistics = server.statistics()
        assert statistics.accepted + statistics.refused + statistics.datagrams_dropped == SOURCES
        assert statistics.accepted == 100
    assert len([record for record in caplog.records if "turned away" in record.message]) <= 3


async def test_a_host_has_no_more_than_its_share() -> None:
    async with pyipc.Server(ANY_PORT, max_connections_per_peer=5) as server:
        (to,) = server.addresses
        for _ in range(20):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(hello(), (to.host, to.port))
                await settle(server)
        assert len(server.connections) == 5
        assert server.statistics().refused == 15


# --- the network tells that nobody is there ---------------------------------------------------------------------


async def test_an_unreachable_port_ends_neither_a_client_nor_a_server(address: str) -> None:
    server = pyipc.Server(address)
    async with pyipc.Server(address) as absent:
        nobody = str(absent.addresses[0])
    async with server, pyipc.connect(str(server.addresses[0])) as good, pyipc.connect(nobody) as client:
        server.on("add", lambda message: sum(message.data))
        called = await server.dial(nobody)
        for _ in range(200):
            await called.emit("e", "to nobody")
            await called.flush()
            await client.emit("e", "to nobody")
            await client.flush()
        assert await good.request("add", [1, 2]) == 3
        assert called.is_open
        assert client.connected
        # Somebody comes to that port after all.
        async with pyipc.Server(nobody) as late:
            note = Note(late)
            await client.emit("e", "late")
            await called.emit("e", "late")
            await until(lambda: len(note.got) == 2)


async def test_a_peer_that_vanishes_while_it_is_answered_ends_nothing() -> None:
    server = pyipc.Server(ANY_PORT)
    server.on("e", lambda message: message.connection.emit("e", "x" * 1_000))
    server.on("add", lambda message: sum(message.data))
    async with server, pyipc.connect(str(server.addresses[0])) as client:
        for _ in range(50):
            async with plain(server.addresses[0]) as peer:
                await peer.send(*[frame("e")] * 3)
            assert await client.request("add", [1, 2]) == 3


# --- words put into somebody's mouth ----------------------------------------------------------------------------


async def test_what_a_third_party_sends_to_a_client_is_not_heard() -> None:
    async with pyipc.Server(ANY_PORT) as server, pyipc.connect(str(server.addresses[0])) as client:
        heard: list[Any] = []
        client.on("news", lambda message: heard.append(message.data))
        await client.emit("e")
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        port = int(connection.peer.address.rpartition(":")[2])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(frame("news", "forged") + frame("pyipc.goodbye"), ("127.0.0.1", port))
        await server.broadcast("news", "true")
        await until(lambda: bool(heard))
        assert heard == ["true"]
        assert client.statistics().connects == 1


async def test_a_forged_goodbye_costs_a_client_one_heartbeat(autojump_clock: trio.testing.MockClock) -> None:
    async with pyipc.Server(ANY_PORT) as server, pyipc.connect(str(server.addresses[0])):
        await trio.sleep(1)  # for the welcome and its echo
        (listener,) = server._acceptor.listeners
        assert isinstance(listener, UdpListener)
        ((sock, where),) = listener._links
        listener._sort(sock, frame("pyipc.goodbye"), where)
        await until(lambda: not server.connections)
        await trio.sleep(11)
        (connection,) = server.connections
        assert connection.peer.protocol == "pyipc/1"


@pytest.mark.parametrize("code", ["version", "not-allowed", "idle"])
async def test_a_forged_refusal_is_not_final(code: str, autojump_clock: trio.testing.MockClock) -> None:
    server = pyipc.Server(ANY_PORT)
    server.on("q", lambda message: message.data)
    async with server, pyipc.connect(str(server.addresses[0])) as client:
        assert await client.request("q", 1) == 1
        (connection,) = server.connections
        await connection._link.send(frame("pyipc.goodbye", {"code": code}))
        await until(lambda: not client.connected)
        await trio.sleep(1)  # longer than the first pause
        assert client.connected
        assert await client.request("q", 2) == 2


async def test_a_client_that_is_flooded_by_its_server_keeps_its_bounds() -> None:
    """The server's side is a bare socket that sends whatever it likes."""
    heard = 0
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{sock.getsockname()[1]}"
        async with pyipc.connect(address, inbox_high_water_size=10_000, max_inbox_size=20_000) as client:
            released = trio.Event()

            @client.on("e")
            async def slow(message: pyipc.Message[Any]) -> None:
                nonlocal heard
                heard += 1
                await released.wait()

            _, where = await sock.recvfrom(65_536)
            draw = random.Random(3)
            for _ in range(1_000):
                garbage = draw.randbytes(50)
                await sock.sendto(draw.choice([frame("e", "x" * 1_000), frame("pyipc.welcome", {}), garbage]), where)
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            statistics = client.statistics().connection
            assert statistics is not None
            assert statistics.inbox_size <= 21_500
            released.set()
            await until(lambda: heard > 5)
            assert client.connected
