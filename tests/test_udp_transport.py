"""The transport of ``udp`` addresses: links by source, who reads for whom, and how much a stranger is sent."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from pyipc.errors import AddressError, AddressInUse, ConnectError, ConnectionClosed, ConnectionLost, ListenError
from pyipc.protocol.addresses import parse_address
from pyipc.transports import binding
from pyipc.transports.datagrams import MAX_DATAGRAM_SIZE, DatagramSocket
from pyipc.transports.udp import UdpLink, UdpTransport
from pyipc.transports.udp_listener import UdpListener
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from pyipc.transports.port import Link, Listener

LOOPBACK = ["127.0.0.1", "[::1]"]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(params=LOOPBACK)
def host(request: pytest.FixtureRequest) -> str:
    if request.param == "[::1]" and not has_ipv6():
        pytest.skip(f"{CANNOT_RUN} this machine has no IPv6")
    return str(request.param)


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    before = set(os.listdir("/dev/fd"))
    yield
    assert set(os.listdir("/dev/fd")) == before


def nobody(host: str) -> bool:
    """A predicate for `UdpTransport` by which everybody is a stranger."""
    return False


@contextlib.asynccontextmanager
async def listening(host: str = "127.0.0.1", *, trusted: bool = True, strangers: int = 256) -> AsyncIterator[Any]:
    transport = (
        UdpTransport(max_strangers=strangers) if trusted else UdpTransport(trusts=nobody, max_strangers=strangers)
    )
    listener = await transport.listen(parse_address(f"udp://{host}:0"), {})
    try:
        yield listener
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()
            assert isinstance(listener, UdpListener)
            for link in list(listener._links.values()):
                await link.aclose()


@contextlib.asynccontextmanager
async def connected(listener: Listener) -> AsyncIterator[Link]:
    link = await UdpTransport().connect(listener.address, {})
    try:
        yield link
    finally:
        with trio.CancelScope(shield=True):
            await link.aclose()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - what makes it true has no event to wait for
            await trio.sleep(0.001)


# --- there and back ---------------------------------------------------------------------------------------------


async def test_datagrams_go_both_ways_and_keep_their_borders(host: str) -> None:
    async with listening(host) as listener, connected(listener) as client:
        assert client.send_nowait(b"one") == 3
        await client.send(b"two")
        server = await listener.accept()
        assert [await server.receive(), await server.receive()] == [b"one", b"two"]
        assert server.send_nowait(b"three") == 5
        await server.send(b"four")
        assert [await client.receive(), await client.receive()] == [b"three", b"four"]
        here = client._socket._socket.getsockname()[:2]  # type: ignore[attr-defined]
        assert server.peer.address == f"udp://{host}:{here[1]}"
        assert server.peer.host == here[0]
        assert client.peer.address == str(listener.address)
        for link in (client, server):
            assert not link.reliable
            assert (link.max_chunk_size, link.dropped) == (MAX_DATAGRAM_SIZE, 0)


async def test_an_empty_datagram_is_a_chunk_and_no_end(host: str) -> None:
    async with listening(host) as listener, connected(listener) as client:
        client.send_nowait(b"")
        server = await listener.accept()
        assert await server.receive() == b""
        server.send_nowait(b"")
        server.send_nowait(b"x")
        assert [await client.receive(), await client.receive()] == [b"", b"x"]


async def test_the_largest_datagram_passes_and_a_larger_one_is_lost_and_counted() -> None:
    async with listening() as listener, connected(listener) as client:
        await client.send(b"x" * MAX_DATAGRAM_SIZE)
        server = await listener.accept()
        assert await server.receive() == b"x" * MAX_DATAGRAM_SIZE
        assert client.send_nowait(b"x" * (MAX_DATAGRAM_SIZE + 1)) == MAX_DATAGRAM_SIZE + 1
        assert client.dropped == 1
        client.send_nowait(b"after")
        assert await server.receive() == b"after"


async def test_a_client_hears_nobody_but_its_server() -> None:
    async with listening() as listener, connected(listener) as client:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"I am the server", client._socket._socket.getsockname())  # type: ignore[attr-defined]
        client.send_nowait(b"x")
        (await listener.accept()).send_nowait(b"answer")
        assert await client.receive() == b"answer"


async def test_a_host_of_both_families_has_one_port_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_ipv6():
        pytest.skip(f"{CANNOT_RUN} this machine has no IPv6")

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        kind = socket.SOCK_DGRAM
        return [
            (socket.AF_INET, kind, 17, "", ("127.0.0.1", port)),
            (socket.AF_INET6, kind, 17, "", ("::1", port, 0, 0)),
        ]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    async with listening("twofold") as listener:
        monkeypatch.undo()
        heard = set()
        async with trio.open_nursery() as nursery:
            for host in LOOPBACK:
                where = parse_address(f"udp://{host}:{listener.address.port}")
                link = await UdpTransport().connect(where, {})
                nursery.start_soon(link.send, host.encode())
                server = await listener.accept()
                heard.add(await server.receive())
                assert server.peer.host == host.strip("[]")
                await link.aclose()
        assert heard == {host.encode() for host in LOOPBACK}


# --- what the system complains about ----------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_a_port_where_nobody_is_breaks_nothing() -> None:
    where = parse_address(f"udp://127.0.0.1:{free_port()}")
    link = await UdpTransport().connect(where, {})
    for _ in range(20):
        assert link.send_nowait(b"x") == 1
    with trio.move_on_after(0.01) as scope:
        await link.receive()
    assert scope.cancelled_caught
    # Whoever comes later is talked to over the same link.
    listener = await UdpTransport().listen(where, {})
    link.send_nowait(b"now")
    server = await listener.accept()
    assert await server.receive() == b"now"
    server.send_nowait(b"yes")
    assert await link.receive() == b"yes"
    for closable in (link, server, listener):
        await closable.aclose()


class Complaining:
    """Stands for a socket whose calls fail as they are told to, one after the other."""

    def __init__(self, sock: socket.socket, *errors: OSError) -> None:
        self._sock = sock
        self._errors = list(errors)

    def _complain(self) -> None:
        if self._errors:
            raise self._errors.pop(0)

    def send(self, data: bytes) -> int:
        self._complain()
        return self._sock.send(data)

    def sendto(self, data: bytes, where: Any) -> int:
        self._complain()
        return self._sock.sendto(data, where)

    def recvfrom(self, size: int) -> tuple[bytes, Any]:
        self._complain()
        return self._sock.recvfrom(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
# Windows reports what ICMP told as a reset, also on sockets that are not connected.
RESET = ConnectionResetError(10054, "reset")
UNREACHABLE = OSError(errno.ENETUNREACH, "unreachable")
TOO_LARGE_ON_WINDOWS = OSError(10040, "the message was larger than the buffer")


def complain(sock: DatagramSocket, *errors: OSError) -> None:
    sock._socket = Complaining(sock._socket, *errors)  # type: ignore[assignment]


@pytest.mark.parametrize("error", [REFUSED, RESET])
async def test_a_complaint_about_an_earlier_datagram_does_not_cost_the_next(error: OSError) -> None:
    async with listening() as listener, connected(listener) as client:
        complain(client._socket, error)  # type: ignore[attr-defined]
        client.send_nowait(b"x")
        server = await listener.accept()
        assert await server.receive() == b"x"
        complain(server._socket, error)
        server.send_nowait(b"y")
        assert await client.receive() == b"y"
        assert (client.dropped, server.dropped) == (1, 0)


@pytest.mark.parametrize("errors", [[UNREACHABLE], [REFUSED, UNREACHABLE], [REFUSED, REFUSED]])
async def test_a_datagram_that_cannot_be_sent_is_counted(errors: list[OSError]) -> None:
    async with listening() as listener, connected(listener) as client:
        complain(client._socket, *errors)  # type: ignore[attr-defined]
        assert client.send_nowait(b"xyz") == 3
        assert client.dropped == len(errors)
        complain(client._socket, *errors)  # type: ignore[attr-defined]
        await client.send(b"xyz")
        assert client.dropped == 2 * len(errors)


@pytest.mark.parametrize("error", [REFUSED, RESET, UNREACHABLE, TOO_LARGE_ON_WINDOWS])
async def test_no_complaint_ends_receiving(error: OSError) -> None:
    async with listening() as listener, connected(listener) as client:
        complain(listener._sockets[0], *[error] * 100)
        complain(client._socket, *[error] * 100)  # type: ignore[attr-defined]
        complain(client._socket)  # type: ignore[attr-defined]
        socket.socket.send(client._socket._socket._sock._sock, b"x")  # type: ignore[attr-defined]
        server = await listener.accept()
        assert await server.receive() == b"x"
        server.send_nowait(b"y")
        assert await client.receive() == b"y"
        assert listener._sockets[0].complaints + listener._sockets[0].dropped == 100


async def test_what_may_have_been_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyipc.transports.datagrams._READ_SIZE", 100)
    async with listening() as listener, connected(listener) as client:
        for size in (100, 200, 99):
            client.send_nowait(b"x" * size)
        server = await listener.accept()
        assert await server.receive() == b"x" * 99
        # Windows reports what is larger than the buffer as an error.
        assert listener.dropped + listener._sockets[0].complaints == 2


async def test_a_full_socket_is_waited_for() -> None:
    async with listening() as listener, connected(listener) as client:
        client.send_nowait(b"x")
        server = await listener.accept()
        for link, sock in ((client, client._socket), (server, server._socket)):  # type: ignore[attr-defined]
            complain(sock, BlockingIOError())
            assert link.send_nowait(b"first") == 0
            complain(sock, BlockingIOError(), BlockingIOError())
            await link.send(b"second")
        assert await client.receive() == b"second"
        assert [await server.receive(), await server.receive()] == [b"x", b"second"]


async def test_many_links_wait_for_one_socket_together() -> None:
    async with listening() as listener, connected(listener) as one, connected(listener) as two:
        one.send_nowait(b"1")
        two.send_nowait(b"2")
        servers = [await listener.accept(), await listener.accept()]
        complain(listener._sockets[0], *[BlockingIOError()] * 6)
        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(server.send, b"hi")
        assert [await one.receive(), await two.receive()] == [b"hi", b"hi"]


# --- connecting and listening -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["connect", "listen"])
async def test_a_host_that_does_not_exist_is_told(method: str) -> None:
    error = ConnectError if method == "connect" else ListenError
    with pytest.raises(error, match="cannot be found"):
        await getattr(UdpTransport(), method)(parse_address("udp://nobody.invalid:5"), {})


async def test_a_port_that_is_taken_is_told() -> None:
    async with listening() as listener:
        with pytest.raises(AddressInUse, match="another program"):
            await UdpTransport().listen(listener.address, {})


async def test_a_port_of_ours_on_one_family_only_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind_one(family: int, where: Any) -> socket.socket:
        raise OSError(errno.EADDRINUSE, "in use")

    monkeypatch.setattr("pyipc.transports.udp._bind_one", bind_one)
    monkeypatch.setattr(binding, "_PORT_ATTEMPTS", 2)
    with pytest.raises(AddressInUse):
        await UdpTransport().listen(parse_address("udp://127.0.0.1:0"), {})


@pytest.mark.parametrize("method", ["connect", "listen"])
async def test_an_option_that_does_not_exist_is_an_error(method: str) -> None:
    with pytest.raises(TypeError, match="has no option 'mode'"):
        await getattr(UdpTransport(), method)(parse_address("udp://127.0.0.1:0"), {"mode": 0o600})


async def test_what_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: socket.socket, where: Any) -> None:
        raise UNREACHABLE

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(ConnectError, match="unreachable"):
        await UdpTransport().connect(parse_address("udp://127.0.0.1:5"), {})


async def test_a_socket_that_would_send_to_itself_is_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "getsockname", lambda self: self.getpeername())
    with pytest.raises(ConnectError, match="led back to itself"):
        await UdpTransport().connect(parse_address("udp://127.0.0.1:5"), {})


# --- closing ----------------------------------------------------------------------------------------------------


async def test_closing_wakes_whoever_waits_and_is_done_more_than_once() -> None:
    async with listening() as listener, connected(listener) as client:
        client.send_nowait(b"x")
        server = await listener.accept()
        await server.receive()

        async def receive(link: Link) -> None:
            with pytest.raises(ConnectionLost):
                await link.receive()

        async def accept() -> None:
            with pytest.raises(ConnectionClosed):
                await listener.accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, client)
            nursery.start_soon(receive, server)
            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(2):
                await client.aclose()
                await server.aclose()
                await listener.aclose()
        for link in (client, server):
            with pytest.raises(ConnectionLost):
                link.send_nowait(b"x")
            with pytest.raises(ConnectionLost):
                await link.send(b"x")
            with pytest.raises(ConnectionLost):
                await link.receive()
            assert "closed" in repr(link)
        with pytest.raises(ConnectionClosed):
            await listener.accept()
        with pytest.raises(ConnectionClosed):
            await listener.dial(parse_address("udp://127.0.0.1:9"))


async def test_links_outlive_the_listener_and_the_address_is_released_with_the_last() -> None:
    async with listening() as listener, connected(listener) as client:
        client.send_nowait(b"x")
        server = await listener.accept()
        await listener.aclose()
        client.send_nowait(b"y")
        assert [await server.receive(), await server.receive()] == [b"x", b"y"]
        server.send_nowait(b"z")
        assert await client.receive() == b"z"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
            late.sendto(b"too late", ("127.0.0.1", listener.address.port))
            client.send_nowait(b"last")
            assert await server.receive() == b"last"
        assert listener.dropped == 1
        with pytest.raises(AddressInUse):
            await UdpTransport().listen(listener.address, {})
        await server.aclose()
        again = await UdpTransport().listen(listener.address, {})
        await again.aclose()


async def test_a_link_that_was_closed_is_made_anew_when_the_peer_sends_again() -> None:
    async with listening() as listener, connected(listener) as client:
        client.send_nowait(b"x")
        first = await listener.accept()
        await first.aclose()
        client.send_nowait(b"y")
        second = await listener.accept()
        assert second is not first
        assert await second.receive() == b"y"


async def test_what_nobody_accepted_is_forgotten_with_the_listener() -> None:
    async with listening() as listener, connected(listener) as one, connected(listener) as two:
        one.send_nowait(b"x")
        two.send_nowait(b"x")
        await listener.accept()
        await until(lambda: len(listener._links) == 2)
        await listener.aclose()
        assert len(listener._links) == 1


async def test_a_client_that_receives_can_be_woken() -> None:
    async with listening() as listener, connected(listener) as client:
        client.send_nowait(b"x")
        server = await listener.accept()

        async def receive() -> None:
            with pytest.raises(trio.WouldBlock):
                await client.receive()

        assert client.can_wake_receiver
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                client.wake_receiver()
        client.wake_receiver()  # of a time when nobody receives nothing is remembered
        server.send_nowait(b"y")
        assert await client.receive() == b"y"


# --- who reads --------------------------------------------------------------------------------------------------


async def test_whoever_waits_reads_for_all_and_passes_it_on() -> None:
    """Nobody accepts: the links that wait take turns, also when the one that reads is cancelled."""
    async with listening() as listener, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(listener)) for _ in range(3)]
        servers = []
        for client in clients:
            client.send_nowait(b"first")
            servers.append(await listener.accept())
            await servers[-1].receive()
        got: dict[int, bytes] = {}
        scopes = [trio.CancelScope() for _ in servers]

        async def receive(index: int) -> None:
            with scopes[index]:
                got[index] = await servers[index].receive()

        async with trio.open_nursery() as nursery:
            for index in range(3):
                nursery.start_soon(receive, index)
                await trio.testing.wait_all_tasks_blocked()
            scopes[0].cancel()  # it was reading
            await trio.testing.wait_all_tasks_blocked()
            clients[2].send_nowait(b"for the last")
            clients[0].send_nowait(b"kept")
            await until(lambda: 2 in got)
            clients[1].send_nowait(b"for the second")
        assert got == {2: b"for the last", 1: b"for the second"}
        assert await servers[0].receive() == b"kept"


@pytest.mark.parametrize("reader", ["link", "listener"])
async def test_whoever_reads_for_all_is_woken_by_its_own_end(reader: str) -> None:
    async with listening() as listener, connected(listener) as client:
        client.send_nowait(b"x")
        server = await listener.accept()
        await server.receive()

        async def wait() -> None:
            with pytest.raises(ConnectionClosed):
                await (server.receive() if reader == "link" else listener.accept())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await (server if reader == "link" else listener).aclose()


async def test_a_link_that_waits_lets_the_listener_accept() -> None:
    async with listening() as listener, connected(listener) as one, connected(listener) as two:
        one.send_nowait(b"x")
        server = await listener.accept()
        await server.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.receive)
            await trio.testing.wait_all_tasks_blocked()
            two.send_nowait(b"y")
            assert await (await listener.accept()).receive() == b"y"
            one.send_nowait(b"z")


async def test_one_task_at_a_time_receives_from_a_link() -> None:
    async with listening() as listener, connected(listener) as client:
        client.send_nowait(b"x")
        server = await listener.accept()
        await server.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.receive)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await server.receive()
            client.send_nowait(b"y")


async def test_what_a_link_does_not_read_is_dropped_beyond_a_bound() -> None:
    async with listening() as listener, connected(listener) as client, connected(listener) as other:
        other.send_nowait(b"x")
        busy = await listener.accept()
        await busy.receive()
        client.send_nowait(b"x" * 60_000)
        server = await listener.accept()
        for _ in range(9):
            client.send_nowait(b"x" * 60_000)
            other.send_nowait(b"y")
            assert await busy.receive() == b"y"  # which reads for all
        assert server.dropped == 6
        assert busy.dropped == 0
        for _ in range(4):
            assert len(await server.receive()) == 60_000


# --- strangers --------------------------------------------------------------------------------------------------


async def test_a_stranger_is_sent_no_more_than_it_sent(host: str) -> None:
    async with listening(host, trusted=False) as listener, connected(listener) as client:
        for size in (30, 70):
            client.send_nowait(b"x" * size)
        server = await listener.accept()
        assert [len(await server.receive()), len(await server.receive())] == [30, 70]
        assert not server.verified
        assert server.send_nowait(b"y" * 101) == 0
        assert server.send_nowait(b"y" * 60) == 60
        assert server.send_nowait(b"y" * 41) == 0
        assert server.send_nowait(b"y" * 40) == 40
        assert server.send_nowait(b"y") == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send, b"z" * 30)
            await trio.testing.wait_all_tasks_blocked()
            client.send_nowait(b"x" * 29)
            await server.receive()
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            client.send_nowait(b"x")
            await server.receive()
        received = [await client.receive() for _ in range(3)]
        assert received == [b"y" * 60, b"y" * 40, b"z" * 30]


async def test_a_stranger_is_sent_no_more_datagrams_than_it_sent() -> None:
    async with listening(trusted=False) as listener, connected(listener) as client:
        client.send_nowait(b"x" * 1_000)
        server = await listener.accept()
        assert [server.send_nowait(b"y"), server.send_nowait(b"y"), server.send_nowait(b"")] == [1, 0, 0]
        client.send_nowait(b"")
        await server.receive()
        await server.receive()
        assert [server.send_nowait(b"y"), server.send_nowait(b"y")] == [1, 0]
        assert [await client.receive(), await client.receive()] == [b"y", b"y"]


async def test_a_peer_that_is_verified_is_sent_anything() -> None:
    async with listening(trusted=False) as listener, connected(listener) as client:
        client.send_nowait(b"x")
        server = await listener.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send, b"y" * 60_000)
            await trio.testing.wait_all_tasks_blocked()
            server.verify()
        assert len(await client.receive()) == 60_000
        assert server.send_nowait(b"y" * 60_000) == 60_000


async def test_closing_wakes_a_sender_that_waits_for_its_allowance() -> None:
    async with listening(trusted=False) as listener, connected(listener) as client:
        client.send_nowait(b"x")
        server = await listener.accept()

        async def send() -> None:
            with pytest.raises(ConnectionLost):
                await server.send(b"y" * 60_000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            await server.aclose()


async def test_trusted_sources_are_no_strangers() -> None:
    transport = UdpTransport(trusts=nobody)
    listener = await transport.listen(parse_address("udp://127.0.0.1:0"), {"trust_sources": True})
    async with connected(listener) as client:
        client.send_nowait(b"x")
        server = await listener.accept()
        assert server.verified
        await server.aclose()
    await listener.aclose()


async def test_the_stranger_that_was_silent_for_longest_makes_room() -> None:
    async with listening(trusted=False, strangers=3) as listener, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(listener)) for _ in range(6)]

        async def knock(index: int) -> Any:
            clients[index].send_nowait(b"x")
            return await listener.accept()

        known = await knock(0)
        known.verify()
        first, second, third = await knock(1), await knock(2), await knock(3)
        clients[1].send_nowait(b"again")  # so it is not the one that was silent for longest
        assert [await first.receive(), await first.receive()] == [b"x", b"again"]
        fourth = await knock(4)
        with pytest.raises(ConnectionLost, match="more peers of its kind"):
            await second.receive()
        await knock(5)
        with pytest.raises(ConnectionLost):
            await third.receive()
        for link in (known, first, fourth):
            assert link.send_nowait(b"y") == 1


def test_there_is_room_for_a_stranger_at_least() -> None:
    with pytest.raises(ValueError, match="max_strangers"):
        UdpTransport(max_strangers=0)


async def test_whoever_waits_on_a_link_that_has_to_go_is_told() -> None:
    async with (
        listening(trusted=False, strangers=1) as listener,
        connected(listener) as one,
        connected(listener) as two,
    ):
        one.send_nowait(b"x")
        server = await listener.accept()
        await server.receive()

        async def receive() -> None:
            with pytest.raises(ConnectionLost):
                await server.receive()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            two.send_nowait(b"y")
            await listener.accept()


async def test_trusted_peers_that_nobody_accepts_are_bounded() -> None:
    async with listening(strangers=2) as listener, connected(listener) as client:
        client.send_nowait(b"x")
        server = await listener.accept()
        await server.receive()
        sockets = []
        for index in range(200):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.sendto(b"x", ("127.0.0.1", listener.address.port))
            sockets.append(sock)
            if index % 20 == 19:
                client.send_nowait(b"read")
                await server.receive()
        assert len(listener._links) == 1 + 130
        assert listener.dropped == 70
        for sock in sockets:
            sock.close()


# --- calling from the port that is listened on ------------------------------------------------------------------


async def test_a_listener_calls_from_its_own_port(host: str) -> None:
    async with listening(host, trusted=False) as one, listening(host, trusted=False) as two:
        there = await one.dial(two.address)
        assert there.send_nowait(b"hello") == 5
        assert (there.verified, there.expires) == (True, False)
        here = await two.accept()
        assert here.peer.address == str(one.address)
        assert (here.verified, here.expires) == (False, True)
        assert await here.receive() == b"hello"
        here.send_nowait(b"hi")
        assert await there.receive() == b"hi"
        assert await one.dial(two.address) is there
        assert await two.dial(one.address) is here
        assert (here.verified, here.expires) == (True, False)


async def test_a_link_that_waits_to_be_accepted_is_had_by_calling() -> None:
    async with listening() as one, listening() as two, connected(two) as other:
        other.send_nowait(b"y")
        reader = await two.accept()
        (await one.dial(two.address)).send_nowait(b"x")
        other.send_nowait(b"z")
        assert [await reader.receive(), await reader.receive()] == [b"y", b"z"]
        (waiting,) = two._fresh
        assert await two.dial(one.address) is waiting
        assert not two._fresh
        assert await waiting.receive() == b"x"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("udp://[::1]:5", "another family"),
        ("udp://127.0.0.1:0", "cannot call"),
        ("tcp://127.0.0.1:5", "cannot call"),
        ("udp://nobody.invalid:5", "cannot be found"),
    ],
)
async def test_what_cannot_be_called_is_told(address: str, sentence: str) -> None:
    async with listening() as listener:
        with pytest.raises(AddressError, match=sentence):
            await listener.dial(parse_address(address))


async def test_a_client_link_is_what_connect_gives() -> None:
    async with listening() as listener, connected(listener) as client:
        assert isinstance(client, UdpLink)
        assert "open" in repr(client)
        assert "sockets: 1" in repr(listener)
        assert "fd" in repr(client._socket)
