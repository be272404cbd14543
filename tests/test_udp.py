"""Servers and clients over UDP: who is known, for how long, and what happens to what is lost, doubled or too large."""

from __future__ import annotations

import itertools
import json
import logging
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.testing import Faults, FaultyTransport
from pyipc.transports.udp import UdpTransport
from tests.conftest import CANNOT_RUN, is_wine
from tests.wire import frame, hello

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(30)

ANY_PORT = "udp://127.0.0.1:0"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(params=["udp://127.0.0.1:0", "udp://[::1]:0"])
def address(request: pytest.FixtureRequest) -> str:
    if "::1" in request.param and not has_ipv6():
        pytest.skip(f"{CANNOT_RUN} this machine has no IPv6")
    return str(request.param)


def strangers(address: str = ANY_PORT, **options: Any) -> pyipc.Endpoint:
    """An address where nobody is trusted at first, as if it were far away."""
    return pyipc.Endpoint(address, transport=UdpTransport(trusts=lambda host: False), **options)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another task or the kernel will make true; bounded by the test's own bound."""
    while not condition():
        await trio.testing.wait_all_tasks_blocked()


class Plain:
    """A program that knows of UDP and nothing else. Its socket sends to one address."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock
        self.bytes_received = 0

    async def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            await self.sock.send(datagram)

    async def receive(self) -> list[tuple[str, Any]]:
        datagram = await self.sock.recv(65_536)
        self.bytes_received += len(datagram)
        assert datagram.endswith(b"\f")
        frames = [json.loads(text) for text in datagram.split(b"\f")[:-1]]
        return [(one["type"], one.get("data")) for one in frames]


@asynccontextmanager
async def plain(to: pyipc.Address) -> AsyncIterator[Plain]:
    family = socket.AF_INET6 if ":" in to.host else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        await sock.connect((to.host, to.port))
        yield Plain(sock)


# --- servers and clients ----------------------------------------------------------------------------------------


async def test_events_requests_and_broadcast_go_over_udp(address: str) -> None:
    got: list[Any] = []
    server = pyipc.Server(address)
    server.on("note", lambda message: got.append(message.data))
    server.on("add", lambda message: sum(message.data))
    server.on("back", lambda message: message.connection.emit("echo", message.data))
    async with server, pyipc.connect(str(server.addresses[0])) as client:
        news, echoes = client.events("news"), client.events("echo")
        await client.emit("note", {"n": 1})
        assert await client.request("add", [1, 2, 3]) == 6
        assert got == [{"n": 1}]
        assert (await server.broadcast("news", "x")) == pyipc.BroadcastReport(1, 0)
        assert (await news.get()).data == "x"
        await client.emit("back", "y")
        assert (await echoes.get()).data == "y"
        (connection,) = server.connections
        assert connection.peer.protocol == "pyipc/1"
        assert client.peer is not None
        assert client.peer.protocol == "pyipc/1"
    assert not server.connections


async def test_a_server_asks_its_client() -> None:
    async with pyipc.Server(ANY_PORT) as server, pyipc.connect(str(server.addresses[0])) as client:
        client.on("name", lambda message: "Ada")
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        await until(lambda: connection.peer.protocol == "pyipc/1")
        assert await connection.request("name") == "Ada"


async def test_leaving_says_goodbye_also_when_nothing_was_heard_yet_and_when_it_was_cancelled() -> None:
    ended: list[pyipc.Disconnected] = []
    got: list[Any] = []
    server = pyipc.Server(ANY_PORT)
    server.on("note", lambda message: got.append(message.data))
    server.on_disconnect(ended.append)
    async with server:
        where = str(server.addresses[0])
        async with pyipc.connect(where) as client:
            await client.emit("note", 1)
        with trio.CancelScope() as scope:
            async with pyipc.connect(where) as client:
                await client.emit("note", 2)
                await client.flush()
                scope.cancel()
                await trio.sleep_forever()
        await until(lambda: len(ended) == 2)
    assert got == [1, 2]
    assert [(reason.code, reason.by_peer) for reason in ended] == [("goodbye", True)] * 2


# Shown with trio and sockets alone: a refusal that comes while a task waits is the last that Wine tells of the socket.
@pytest.mark.skipif(is_wine(), reason=f"{CANNOT_RUN} Wine wakes no one who waits for a refused socket")
async def test_a_client_hears_that_its_server_closes_and_comes_back() -> None:
    ended: list[pyipc.Disconnected] = []
    server = pyipc.Server(ANY_PORT)
    async with server:
        where = str(server.addresses[0])
        async with pyipc.connect(where, on_disconnect=ended.append, reconnect_interval=0.0) as client:
            with pytest.raises(pyipc.NoHandler):
                await client.request("anything")
            await server.aclose()
            await until(lambda: len(ended) == 1)
            async with pyipc.Server(where) as again:
                again.on("add", lambda message: sum(message.data))
                assert await client.request("add", [1, 2]) == 3
    assert ended[0].code == "goodbye"


async def test_nobody_there_is_no_error_until_an_answer_is_waited_for() -> None:
    async with pyipc.Server(ANY_PORT) as server:
        where = str(server.addresses[0])
    async with pyipc.connect(where) as client:
        assert client.connected
        for _ in range(100):
            await client.emit("lost")
            await client.flush()
        with pytest.raises(pyipc.RequestTimeout, match="may not be running"):
            await client.request("lost", timeout=0.01)
        statistics = client.statistics().connection
        assert statistics is not None
        assert statistics.dropped > 0  # since the system tells that nobody is there
        assert client.statistics().connects == 1


async def test_what_does_not_fit_is_a_local_error(address: str) -> None:
    got: list[int] = []
    server = pyipc.Server(address)
    server.on("big", lambda message: got.append(len(message.data)))
    server.on("much", lambda message: "x" * 65_500)
    async with server, pyipc.connect(str(server.addresses[0])) as client:
        room = 65_507 - len(frame("big", ""))
        await client.emit("big", "x" * room)
        for send in (client.emit, client.request):
            with pytest.raises(pyipc.MessageTooLarge, match="datagram") as caught:
                await send("big", "x" * (room + 1 if send == client.emit else 65_500))
            assert caught.value.limit == 65_507
        with pytest.raises(pyipc.RemoteError) as failed:
            await client.request("much")
        assert failed.value.code == "reply-too-large"
        assert got == [room]
        report = await server.broadcast("big", "x" * room + "y")
        assert (report.sent, report.dropped) == (0, 1)


@pytest.mark.parametrize("framing", [pyipc.Json(), pyipc.Raw()])
@pytest.mark.parametrize("transport", [None, FaultyTransport(Faults())])
async def test_what_does_not_fit_is_a_local_error_also_before_there_is_a_connection(
    framing: pyipc.Json | pyipc.Raw, transport: FaultyTransport | None
) -> None:
    endpoint = pyipc.Endpoint("udp://127.0.0.1:9", framing=framing, transport=transport)
    text = "x" * (65_508 - len(frame("e", "")))
    event, data = ("data", b"x" * 65_508) if isinstance(framing, pyipc.Raw) else ("e", text)
    async with pyipc.connect(endpoint, wait=False) as client:
        assert not client.connected
        with pytest.raises(pyipc.MessageTooLarge) as caught:
            await client.emit(event, data)
        assert (caught.value.size, caught.value.limit) == (65_508, 65_507)
        assert client.statistics().offline_messages == 0


async def test_events_of_one_turn_share_datagrams() -> None:
    async with pyipc.Server(ANY_PORT) as server, plain(server.addresses[0]) as peer:
        await peer.send(frame("hello", 0))
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        for number in range(100):
            await connection.emit("e", number)
        await connection.emit("large", "x" * 5_000)
        await connection.emit("e", 100)
        heard: list[list[tuple[str, Any]]] = []
        while sum(len(datagram) for datagram in heard) < 102:
            heard.append(await peer.receive())
            size, peer.bytes_received = peer.bytes_received, 0
            assert size <= 1_200 or len(heard[-1]) == 1
        assert [data for datagram in heard for event, data in datagram if event == "e"] == list(range(101))
        assert len(heard) == 4


async def test_how_much_shares_a_datagram_is_an_option() -> None:
    server = pyipc.Server(ANY_PORT, max_shared_datagram_size=50)
    async with server, plain(server.addresses[0]) as peer:
        await peer.send(frame("hello", 0))
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        for number in range(4):
            await connection.emit("e", number)
        assert [len(await peer.receive()), len(await peer.receive())] == [2, 2]


async def test_what_shares_a_datagram_fits_into_it_whatever_the_option_says() -> None:
    got: list[int] = []
    server = pyipc.Server(ANY_PORT)
    server.on("e", lambda message: got.append(message.data[0]))
    sizes: dict[str, Any] = {"max_shared_datagram_size": 1_000_000, "outbox_high_water_size": 1_000_000}
    async with server, pyipc.connect(str(server.addresses[0]), **sizes) as client:
        for number in range(700):
            await client.emit("e", [number, "x" * 100])
        await until(lambda: len(got) == 700)


async def test_a_peer_that_was_told_another_address_is_another_peer() -> None:
    async with pyipc.Server(ANY_PORT) as server, plain(server.addresses[0]) as one, plain(server.addresses[0]) as two:
        await one.send(frame("e"))
        await two.send(frame("e"))
        await until(lambda: len(server.connections) == 2)


# --- raw --------------------------------------------------------------------------------------------------------


async def test_a_raw_datagram_is_an_event_and_an_event_a_datagram(address: str) -> None:
    got: list[bytes] = []
    server = pyipc.Server(pyipc.Endpoint(address, framing=pyipc.Raw()))
    server.on("data", lambda message: got.append(message.data))
    async with server, plain(server.addresses[0]) as peer:
        sent = [b"", b"\x00\xff\f\f", b"x" * 65_507, b""]
        await peer.send(*sent)
        await until(lambda: got == sent)
        (connection,) = server.connections
        for data in (b"one", b"", b"two"):
            await connection.emit("data", data)
        assert [await peer.sock.recv(100) for _ in range(3)] == [b"one", b"", b"two"]
        with pytest.raises(pyipc.MessageTooLarge):
            await connection.emit("data", b"x" * 65_508)


async def test_an_empty_raw_datagram_is_echoed_and_nothing_waits_behind_it() -> None:
    server = pyipc.Server(pyipc.Endpoint(ANY_PORT, framing=pyipc.Raw()))
    server.on("data", lambda message: message.connection.emit("data", message.data))
    async with server, plain(server.addresses[0]) as peer:
        for data in (b"", b"a", b""):
            await peer.send(data)
            assert await peer.sock.recv(100) == data
        (connection,) = server.connections
        for number in range(3):
            await connection.emit("data", b"%d" % number)
            assert await peer.sock.recv(100) == b"%d" % number


async def test_empty_datagrams_do_not_pile_up_behind_what_waits() -> None:
    """They weigh nothing, so the outbox would never be full of them."""
    server = pyipc.Server(strangers(framing=pyipc.Raw()))
    async with server, plain(server.addresses[0]) as peer:
        await peer.send(b"1234")
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        await connection.emit("data", b"more than came from there")
        for _ in range(100):
            await connection.emit("data", b"")
            assert connection._send_encoded("data", b"") is False
            with pytest.raises(trio.WouldBlock):
                connection.emit_nowait("data", b"")
        assert len(connection._outbox) == 1
        assert connection.statistics().dropped == 200
        await peer.send(b"x" * 30)
        assert await peer.sock.recv(100) == b"more than came from there"
        await connection.emit("data", b"")
        assert await peer.sock.recv(100) == b""
        assert connection.statistics().dropped == 200
        await connection.emit("data", b"")  # one datagram more than came from there
        await until(lambda: connection.statistics().dropped == 201)
        assert len(connection._outbox) == 0


async def test_raw_clients_keep_their_datagrams_apart() -> None:
    got: list[bytes] = []
    server = pyipc.Server(pyipc.Endpoint(ANY_PORT, framing=pyipc.Raw()))
    server.on("data", lambda message: got.append(message.data))
    async with server, pyipc.connect(pyipc.Endpoint(server.addresses[0], framing=pyipc.Raw())) as client:
        for data in (b"a", b"", b"b", b""):
            await client.emit("data", data)
        await until(lambda: len(got) == 4)
    assert got == [b"a", b"", b"b", b""]


# --- lost, doubled, out of order --------------------------------------------------------------------------------


async def test_a_request_that_comes_twice_is_handled_once_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    started, release = 0, trio.Event()
    server = pyipc.Server(ANY_PORT, max_concurrent_requests=2)

    @server.on("work")
    async def work(message: pyipc.Message[None]) -> str:
        nonlocal started
        started += 1
        await release.wait()
        return "done"

    async with server, plain(server.addresses[0]) as peer:
        for call in (1, 1, 2, 3, 1, 3, 3):
            await peer.send(frame("pyipc.request", {"call": call, "event": "work"}))
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        await until(lambda: connection.statistics().bytes_received > 350)
        assert started == 2
        release.set()
        answers: list[tuple[str, Any]] = []
        while len(answers) < 3:
            answers += await peer.receive()
        assert sorted(answer["call"] for _, answer in answers) == [1, 2, 3]
        assert started == 3
        assert connection.is_open


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_the_network_does_the_connection_lives(seed: int) -> None:
    faults = Faults(seed=seed, drop=0.2, duplicate=0.2, reorder=0.2)
    transport = FaultyTransport(faults, inbound=faults)
    got: list[int] = []
    server = pyipc.Server(ANY_PORT)
    server.on("e", lambda message: got.append(message.data))
    server.on("add", lambda message: sum(message.data))
    answered = 0
    async with server, pyipc.connect(pyipc.Endpoint(server.addresses[0], transport=transport)) as client:
        for number in range(200):
            await client.emit("e", number)
            await client.flush()
            try:
                assert await client.request("add", [number, 1], timeout=0.01) == number + 1
                answered += 1
            except pyipc.RequestTimeout:
                pass
        assert client.statistics().connects == 1
        assert len(server.connections) == 1
    assert 20 < answered < 200
    assert len(set(got)) > 50
    assert set(got) <= set(range(200))


async def test_a_full_outbox_drops_events_and_holds_nobody_back() -> None:
    """The peer is a stranger, so that what exceeds what it sent waits, and then is too much."""
    async with pyipc.Server(strangers(), outbox_high_water_size=10_000) as server, plain(server.addresses[0]) as peer:
        await peer.send(frame("e"))
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        for number in range(1_000):
            await connection.emit("e", [number, "x" * 100])
        statistics = connection.statistics()
        assert statistics.dropped + statistics.events_sent == 1_000
        assert statistics.dropped > 850
        assert statistics.outbox_size <= 10_200
        with pytest.raises(trio.WouldBlock):
            connection.emit_nowait("e")
    assert connection.reason is not None
    assert connection.reason.code == "closed"


async def test_of_what_a_stranger_is_to_have_it_gets_at_once_what_it_may() -> None:
    """Answers of one turn share a datagram, but not one that is too large to be sent."""
    server = pyipc.Server(strangers())

    @server.on("ask")
    async def answer(message: pyipc.Message[int]) -> None:
        for number in range(5):
            await message.connection.emit("r", [message.data, number])

    def answers(asked: int, *numbers: int) -> list[tuple[str, Any]]:
        return [("r", [asked, number]) for number in numbers]

    async with server, plain(server.addresses[0]) as peer:
        room = 2 * len(frame("r", [0, 0]))
        question = frame("ask", 1)
        await peer.send(question + b" " * (room - len(question) - 1) + b"\f")
        assert await peer.receive() == answers(1, 0, 1)
        for number in range(2, 5):
            await peer.send(frame("e", "x" * 20))
            assert await peer.receive() == answers(1, number)


async def test_flushing_what_a_stranger_may_not_have_waits_for_nothing() -> None:
    async with pyipc.Server(strangers()) as server, plain(server.addresses[0]) as peer:
        await peer.send(frame("e"))
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        await connection.emit("e", "x" * 1_000)
        await connection.flush()
        assert connection.statistics().outbox_size > 1_000


async def test_answers_that_nobody_fetches_are_dropped_and_end_nothing() -> None:
    server = pyipc.Server(strangers(), outbox_high_water_size=10_000)
    server.on("much", lambda message: "x" * 4_000)
    async with server, plain(server.addresses[0]) as peer:
        for call in range(20):
            await peer.send(frame("pyipc.request", {"call": call, "event": "much"}))
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        await until(lambda: connection.statistics().events_received == 20)
        assert connection.is_open
        assert connection.statistics().dropped >= 17
        assert connection.statistics().outbox_size <= 10_000


async def test_an_inbox_beyond_its_cap_drops_what_comes() -> None:
    options: dict[str, Any] = {"inbox_high_water_size": 1_000, "max_inbox_size": 5_000, "max_concurrent_requests": 1}
    server = pyipc.Server(ANY_PORT, **options)

    @server.on("event")
    async def ask(message: pyipc.Message[Any]) -> None:
        await message.connection.request("never", timeout=None)  # so that reading goes on

    server.on("request", lambda message: trio.sleep_forever())
    async with server, plain(server.addresses[0]) as peer:
        await peer.send(frame("pyipc.cancel", {"call": 5}))  # shows that it can be asked
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        for number in range(100):
            request = frame("pyipc.request", {"call": number, "event": "request"})
            await peer.send(frame("event", number), request)
            received = connection.statistics().bytes_received
            await until(lambda received=received: connection.statistics().bytes_received > received)  # type: ignore[misc]
        assert connection.is_open
        assert 170 < connection.statistics().dropped < 200
        assert connection.statistics().inbox_size <= 5_400


async def test_a_broadcast_to_a_full_outbox_is_dropped_and_closes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pyipc.Server(ANY_PORT, outbox_high_water_size=5_000, close_timeout=0.01)
    with pytest.raises(pyipc.Undelivered) as undelivered:
        async with server, plain(server.addresses[0]) as peer:
            await peer.send(frame("e"))
            await until(lambda: len(server.connections) == 1)
            (connection,) = server.connections
            # As if the kernel took nothing more.
            monkeypatch.setattr(connection._link, "_hand_over", lambda data: False)
            monkeypatch.setattr(connection._link, "_wait_to_send", lambda size: trio.sleep_forever())
            reports = [await server.broadcast("e", "x" * 1_000) for _ in range(20)]
            assert [report.sent for report in reports] == [1] * 4 + [0] * 16
            assert connection.is_open
    assert undelivered.value.count == 4


# --- hello, token and silence -----------------------------------------------------------------------------------


async def test_a_stranger_is_verified_by_the_token_and_then_hears_everything() -> None:
    server = pyipc.Server(strangers())
    server.on("much", lambda message: "x" * 50_000)
    async with server:
        async with pyipc.connect(str(server.addresses[0])) as client:
            assert await client.request("much") == "x" * 50_000
            assert (await server.broadcast("news")).sent == 1
        await until(lambda: not server.connections)


async def test_only_the_token_that_was_given_verifies(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with pyipc.Server(strangers()) as server, plain(server.addresses[0]) as peer:
        await peer.send(hello() + frame("padding", "." * 500))
        ((event, welcome),) = await peer.receive()
        assert event == "pyipc.welcome"
        (connection,) = server.connections
        await peer.send(frame("pyipc.echo", {"token": "0" * 32}), frame("pyipc.echo"), frame("pyipc.echo", 7))
        await until(lambda: connection.statistics().malformed == 3)
        assert (await server.broadcast("news")) == pyipc.BroadcastReport(0, 0)
        await peer.send(frame("pyipc.echo", {"token": welcome["token"]}))
        await until(lambda: connection._link.verified)
        assert (await server.broadcast("news")) == pyipc.BroadcastReport(1, 0)
        assert await peer.receive() == [("news", None)]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_tokens_differ() -> None:
    tokens = set()
    async with pyipc.Server(ANY_PORT) as server:
        for _ in range(10):
            async with plain(server.addresses[0]) as peer:
                await peer.send(hello())
                ((_, welcome),) = await peer.receive()
                tokens.add(welcome["token"])
    assert len(tokens) == 10
    assert {len(token) for token in tokens} == {32}


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_broadcast_goes_to_whom_it_may(trusted: bool) -> None:
    async with pyipc.Server(strangers(trust_sources=trusted)) as server, plain(server.addresses[0]) as peer:
        await peer.send(frame("e", "x" * 1_000))
        await until(lambda: len(server.connections) == 1)
        assert (await server.broadcast("news")) == pyipc.BroadcastReport(trusted, 0)
        assert server.statistics().broadcasts_dropped == 0


def test_only_udp_has_sources_to_trust() -> None:
    with pytest.raises(pyipc.AddressError, match="trust_sources"):
        pyipc.Endpoint("tcp://127.0.0.1:0", trust_sources=True)


async def test_a_hello_that_is_lost_is_said_again_sooner_and_sooner_rarely(autojump_clock: MockClock) -> None:
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        times: list[float] = []
        async with pyipc.connect(f"udp://127.0.0.1:{sock.getsockname()[1]}") as client:
            began = trio.current_time()
            while len(times) < 8:
                datagram, where = await sock.recvfrom(65_536)
                assert len(datagram) == 512
                times.append(trio.current_time() - began)
            pauses = [round(later - earlier, 1) for earlier, later in itertools.pairwise(times)]
            assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
            await sock.sendto(frame("pyipc.welcome", {"version": 1, "token": "t"}), where)
            assert await sock.recv(65_536) == b'{"type":"pyipc.echo","data":{"token":"t"}}\f'
            assert client.peer is not None
            assert client.peer.protocol == "pyipc/1"
            await sock.recv(65_536)
            assert trio.current_time() - began - times[-1] == pytest.approx(10.0, abs=0.1)


async def test_an_echo_that_is_lost_is_soon_said_again(autojump_clock: MockClock) -> None:
    """Nobody tells the client that it was lost, so it goes on as if it had had no welcome."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        times: list[float] = []
        async with pyipc.connect(f"udp://127.0.0.1:{sock.getsockname()[1]}"):
            while len(times) < 6:
                _, where = await sock.recvfrom(65_536)
                times.append(trio.current_time())
                await sock.sendto(frame("pyipc.welcome", {"version": 1, "token": "t"}), where)
                assert await sock.recv(65_536) == b'{"type":"pyipc.echo","data":{"token":"t"}}\f'
    assert [round(later - earlier, 1) for earlier, later in itertools.pairwise(times)] == [0.5, 1.0, 2.0, 4.0, 8.0]


async def test_without_heartbeats_hello_is_said_once(autojump_clock: MockClock) -> None:
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        async with pyipc.connect(f"udp://127.0.0.1:{sock.getsockname()[1]}", heartbeat_interval=None):
            assert len(await sock.recv(65_536)) == 512
            with trio.move_on_after(10_000) as scope:
                await sock.recv(65_536)
            assert scope.cancelled_caught


async def test_a_client_that_says_nothing_stays_known_and_a_plain_one_is_forgotten(autojump_clock: MockClock) -> None:
    ended: list[tuple[str, float]] = []
    server = pyipc.Server(ANY_PORT)
    server.on_disconnect(lambda reason: ended.append((reason.code, trio.current_time())))
    async with server, pyipc.connect(str(server.addresses[0])) as client, plain(server.addresses[0]) as peer:
        await peer.send(frame("e"))
        began = trio.current_time()
        await trio.sleep(1_000)
        assert [code for code, _ in ended] == ["idle"]
        assert ended[0][1] - began == pytest.approx(60.0, abs=0.1)
        assert len(server.connections) == 1
        assert client.statistics().connects == 1


async def test_a_peer_whose_message_is_handled_is_not_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    """Nor is its handler cancelled: a plain peer that waits for the answer has nothing to say."""
    server = pyipc.Server("udp://127.0.0.1:0", peer_idle_timeout=60)

    @server.on("work")
    async def work(message: pyipc.Message[None]) -> None:
        await trio.sleep(200)
        await message.connection.emit("done")

    async with server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.connect(("127.0.0.1", server.addresses[0].port))
            peer.send(b'{"type":"work"}\f')
            await until(lambda: len(server.connections) == 1)
            await trio.sleep(201)
            await trio.testing.wait_all_tasks_blocked()
            peer.setblocking(False)
            assert peer.recv(100) == b'{"type":"done","data":null}\f'
            await trio.sleep(121)
            assert not server.connections


async def test_a_datagram_a_minute_keeps_a_plain_peer_known(autojump_clock: MockClock) -> None:
    async with pyipc.Server(ANY_PORT) as server, plain(server.addresses[0]) as peer:
        for _ in range(10):
            await peer.send(frame("e"))
            await trio.sleep(59)
        assert server.statistics().accepted == 1
        await trio.sleep(2)
        assert not server.connections


async def test_forgetting_can_be_switched_off(autojump_clock: MockClock) -> None:
    async with pyipc.Server(ANY_PORT, peer_idle_timeout=None) as server, plain(server.addresses[0]) as peer:
        await peer.send(frame("e"))
        await trio.sleep(10_000)
        assert len(server.connections) == 1


async def test_a_peer_that_is_not_listened_to_is_not_forgotten(autojump_clock: MockClock) -> None:
    release = trio.Event()
    server = pyipc.Server(ANY_PORT, inbox_high_water_size=1_000)
    server.on("e", lambda message: release.wait())
    async with server, plain(server.addresses[0]) as peer:
        await peer.send(*[frame("e")] * 20)
        await until(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        await until(lambda: connection.statistics().reading_paused)
        await trio.sleep(500)
        assert server.connections == {connection}
        release.set()
        await trio.sleep(50)
        assert server.connections == {connection}
        await trio.sleep(70)
        assert not server.connections


async def test_a_program_that_was_held_up_reads_before_it_forgets(mock_clock: MockClock) -> None:
    server = pyipc.Server(ANY_PORT)
    async with server, plain(server.addresses[0]) as peer:
        await peer.send(frame("e"))
        await until(lambda: len(server.connections) == 1)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(500)  # as if the program had been stopped for so long
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.connections) == 1
        mock_clock.jump(1.5)
        await trio.testing.wait_all_tasks_blocked()
        assert not server.connections


async def test_a_server_that_was_restarted_without_a_word_is_found_again(autojump_clock: MockClock) -> None:
    async with pyipc.Server(ANY_PORT) as first:
        where = str(first.addresses[0])
    async with pyipc.connect(where) as client:
        async with pyipc.Server(where) as first:
            await trio.sleep(11)
            (connection,) = first.connections
            connection._conversation.goodbye = lambda code, message: b""  # type: ignore[method-assign]
        async with pyipc.Server(where) as second:
            await trio.sleep(11)
            (connection,) = second.connections
            assert connection.peer.protocol == "pyipc/1"
            assert client.statistics().connects == 1


async def test_a_server_that_requires_a_hello_forgets_who_says_none(autojump_clock: MockClock) -> None:
    got: list[Any] = []
    ended: list[str] = []
    server = pyipc.Server(ANY_PORT, plain_peers=False)
    server.on("e", lambda message: got.append(message.data))
    server.on_disconnect(lambda reason: ended.append(reason.code))
    async with server, plain(server.addresses[0]) as peer:
        await peer.send(frame("e", 1))
        await trio.sleep(6)
        assert ended == ["handshake"]
        await peer.send(frame("e", 2), hello(), frame("e", 3))
        await until(lambda: bool(got))
        assert got == [3]


async def test_another_version_is_told_so_and_ends_nothing() -> None:
    """Not even a connection that this side made: whose hello it is nobody knows."""
    got: list[Any] = []
    server = pyipc.Server(ANY_PORT)
    server.on("e", lambda message: got.append(message.data))
    async with server, plain(server.addresses[0]) as peer:
        host, port = peer.sock.getsockname()
        connection = await server.dial(f"udp://{host}:{port}")
        await peer.send(frame("pyipc.hello", {"versions": [77]}))
        ((event, data),) = await peer.receive()
        assert (event, data["code"]) == ("pyipc.goodbye", "version")
        await peer.send(frame("e", 1))
        await until(lambda: got == [1])
        assert connection.is_open
        assert connection.statistics().malformed == 1


# --- who may, and how many --------------------------------------------------------------------------------------


async def test_who_is_not_allowed_gets_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    def allow(peer: pyipc.Peer) -> bool:
        asked.append(peer.address)
        return False

    async with pyipc.Server(pyipc.Endpoint(ANY_PORT, allow=allow)) as server, plain(server.addresses[0]) as peer:
        for times in range(1, 31):
            await peer.send(hello())
            await until(lambda times=times: server.statistics().denied == times)  # type: ignore[misc]
            await trio.testing.wait_all_tasks_blocked()
        assert len(asked) == 30
        with pytest.raises(BlockingIOError):
            peer.sock._sock.recv(100)  # type: ignore[attr-defined]
    assert len([record for record in caplog.records if "turned away" in record.message]) == 1


async def test_who_is_too_much_gets_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    server = pyipc.Server(ANY_PORT, max_connections=1)
    async with server, plain(server.addresses[0]) as one, plain(server.addresses[0]) as two:
        await one.send(hello())
        await one.receive()
        for times in range(1, 31):
            await two.send(hello())
            await until(lambda times=times: server.statistics().refused == times)  # type: ignore[misc]
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(BlockingIOError):
            two.sock._sock.recv(100)  # type: ignore[attr-defined]
        await one.send(hello())
        assert (await one.receive())[0][0] == "pyipc.welcome"
    assert len([record for record in caplog.records if "turned away" in record.message]) == 1


# --- calling from one's own port --------------------------------------------------------------------------------


async def test_two_servers_talk_from_their_own_ports(address: str) -> None:
    """As node-ipc's UDP programs do: each is a server, and answers to the address that it hears from."""
    got: list[tuple[str, Any]] = []
    hello_, world = pyipc.Server(address), pyipc.Server(address)

    @world.on("message")
    async def answer(message: pyipc.Message[str]) -> None:
        got.append((message.connection.peer.address, message.data))
        await message.connection.emit("message", f"{message.data} world!")

    hello_.on("message", lambda message: got.append((message.connection.peer.address, message.data)))
    async with hello_, world:
        connection = await hello_.dial(world.addresses[0])
        assert await hello_.dial(str(world.addresses[0])) is connection
        await connection.emit("message", "hello")
        await until(lambda: len(got) == 2)
        assert got == [(str(hello_.addresses[0]), "hello"), (str(world.addresses[0]), "hello world!")]
        assert (await hello_.broadcast("message", "all")).sent == 1


async def test_who_was_called_is_kept_however_silent(autojump_clock: MockClock) -> None:
    async with pyipc.Server(ANY_PORT) as one, pyipc.Server(ANY_PORT) as two:
        connection = await one.dial(two.addresses[0])
        await connection.emit("e")
        await trio.sleep(1_000)
        assert one.connections == {connection}
        assert not two.connections
        await connection.aclose()
        assert not one.connections


async def test_calling_goes_by_the_rules_of_the_endpoint() -> None:
    async with pyipc.Server(pyipc.Endpoint(ANY_PORT, allow=lambda peer: peer.address.endswith(":9"))) as server:
        assert (await server.dial("udp://127.0.0.1:9")).is_open
        with pytest.raises(pyipc.PeerNotAllowed):
            await server.dial("udp://127.0.0.1:8")
        assert len(server.connections) == 1
    async with pyipc.Server("memory:x", ANY_PORT, max_connections=1) as server:
        with pytest.raises(pyipc.InsecureAddress):
            await server.dial("udp://192.0.2.1:9")
        with pytest.raises(pyipc.AddressError, match="no tcp address"):
            await server.dial("tcp://127.0.0.1:9")
        with pytest.raises(pyipc.AddressError, match="another family"):
            await server.dial("udp://[::1]:9")
        await server.dial("udp://127.0.0.1:9")
        with pytest.raises(pyipc.ConnectError, match="too many"):
            await server.dial("udp://127.0.0.1:10")


async def test_only_a_server_that_runs_calls() -> None:
    server = pyipc.Server(ANY_PORT)
    with pytest.raises(pyipc.ConnectionClosed):
        await server.dial("udp://127.0.0.1:9")
    async with server:
        pass
    with pytest.raises(pyipc.ConnectionClosed):
        await server.dial("udp://127.0.0.1:9")


async def test_what_is_no_listener_for_datagrams_does_not_call() -> None:
    async with pyipc.Server("tcp://127.0.0.1:0") as server:
        with pytest.raises(pyipc.AddressError, match=r"use pyipc\.connect"):
            await server.dial("tcp://127.0.0.1:9")
