"""The transport of ``tcp`` addresses."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from pyipc.errors import AddressInUse, ConnectError, ListenError
from pyipc.protocol.addresses import Address, parse_address
from pyipc.transports import binding, tcp
from pyipc.transports.sockets import SocketLink
from pyipc.transports.tcp import TcpTransport
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pyipc.transports.port import Link, Listener

ANY_PORT = parse_address("tcp://127.0.0.1:0")
TRANSPORT = TcpTransport()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason=f"{CANNOT_RUN} this machine has no IPv6")


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    before = set(os.listdir("/dev/fd"))
    yield
    assert set(os.listdir("/dev/fd")) == before


@contextlib.asynccontextmanager
async def closing(*things: Link | Listener) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            for thing in things:
                await thing.aclose()


class Hosts(trio.abc.HostnameResolver):
    """A table of host names instead of the network's; a name that is not in it does not exist."""

    def __init__(self, table: dict[str, list[str]]) -> None:
        self._table = table

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]
        await trio.lowlevel.checkpoint()
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self._table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                self._place(address, port),
            )
            for address in self._table[name]
        ]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    @staticmethod
    def _place(address: str, port: int) -> tuple[str | int, ...]:
        return (address, port, 0, 0) if ":" in address else (address, port)


def use_hosts(**table: list[str]) -> None:
    trio.socket.set_custom_hostname_resolver(Hosts(table))


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("[::1]", marks=needs_ipv6)])
async def test_both_ends_talk(host: str) -> None:
    with trio.fail_after(5):
        listener = await TRANSPORT.listen(parse_address(f"tcp://{host}:0"), {})
        async with closing(listener):
            assert listener.address.port != 0
            assert str(listener.address) == f"tcp://{host}:{listener.address.port}"
            client = await TRANSPORT.connect(listener.address, {})
            server = await listener.accept()
            async with closing(client, server):
                assert isinstance(client, SocketLink)
                assert isinstance(server, SocketLink)
                assert client.peer.address == str(listener.address)
                assert client.peer.host == server.peer.host == host.strip("[]")
                assert server.peer.address == f"tcp://{host}:{client._socket.getsockname()[1]}"
                assert client.peer.uid is None
                assert client.peer.pid is None
                await client.send(b"ping")
                assert await server.receive() == b"ping"
                await server.send(b"pong")
                assert client.send_eof()
                assert await server.receive() == b""
                assert await client.receive() == b"pong"


async def test_both_ends_are_tuned() -> None:
    with trio.fail_after(5):
        listener = await TRANSPORT.listen(ANY_PORT, {})
        async with closing(listener):
            client = await TRANSPORT.connect(listener.address, {})
            server = await listener.accept()
            async with closing(client, server):
                for link in (client, server):
                    assert isinstance(link, SocketLink)
                    sock = link._socket
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    if sys.platform == "linux":
                        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
                        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
                        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
                    assert not sock.get_inheritable()
                    assert not sock.getblocking()


async def test_a_socket_that_cannot_be_tuned_is_used_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def setsockopt(_sock: socket.socket, *_args: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    with trio.fail_after(5):
        listener = await TRANSPORT.listen(ANY_PORT, {})
        async with closing(listener):
            client = await TRANSPORT.connect(listener.address, {})
            monkeypatch.setattr(socket.socket, "setsockopt", setsockopt)
            server = await listener.accept()
            async with closing(client, server):
                client.send_nowait(b"x")
                assert await server.receive() == b"x"


@needs_ipv6
async def test_a_host_with_two_families_has_one_port_on_both() -> None:
    use_hosts(twofold=["::1", "127.0.0.1", "127.0.0.1"])
    with trio.fail_after(5):
        listener = await TRANSPORT.listen(parse_address("tcp://twofold:0"), {})
        async with closing(listener):
            assert listener.address.host == "twofold"
            for host in ("127.0.0.1", "::1"):
                client = await TRANSPORT.connect(Address("tcp", "", host, listener.address.port), {})
                server = await listener.accept()
                async with closing(client, server):
                    assert server.peer.host == host
            client = await TRANSPORT.connect(listener.address, {})
            server = await listener.accept()
            async with closing(client, server):
                client.send_nowait(b"x")
                assert await server.receive() == b"x"


async def test_a_port_that_is_free_on_one_family_only_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hosts(twofold=["127.0.0.1", "127.0.0.2"])
    real = tcp._bind_one
    tried: list[object] = []

    def bind_one(family: int, where: tuple[object, ...]) -> socket.socket:
        tried.append(where)
        if where[0] == "127.0.0.2" and len(tried) < 6:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return real(family, ("127.0.0.1" if where[0] == "127.0.0.2" else where[0], *(0,) * (len(where) - 1)))

    monkeypatch.setattr(tcp, "_bind_one", bind_one)
    with trio.fail_after(5):
        async with closing(await TRANSPORT.listen(parse_address("tcp://twofold:0"), {})):
            assert len(tried) == 6
        tried.clear()
        monkeypatch.setattr(binding, "_PORT_ATTEMPTS", 2)
        with pytest.raises(AddressInUse):
            await TRANSPORT.listen(parse_address("tcp://twofold:0"), {})
        assert len(tried) == 4
        tried.clear()
        with pytest.raises(AddressInUse):
            await TRANSPORT.listen(parse_address("tcp://twofold:9"), {})
        assert len(tried) == 2


async def test_an_address_that_this_machine_lacks_is_passed_over_if_another_is_there() -> None:
    # 192.0.2.0/24 is for documentation and belongs to nobody.
    use_hosts(half=["192.0.2.1", "127.0.0.1"], none=["192.0.2.1"])
    with trio.fail_after(5):
        listener = await TRANSPORT.listen(parse_address("tcp://half:0"), {})
        async with closing(listener):
            client = await TRANSPORT.connect(Address("tcp", "", "127.0.0.1", listener.address.port), {})
            await client.aclose()
        with pytest.raises(ListenError, match="this machine does not have the address of tcp://none:0") as caught:
            await TRANSPORT.listen(parse_address("tcp://none:0"), {})
        assert isinstance(caught.value.__cause__, OSError)
        assert "0.0.0.0" in str(caught.value)


async def test_a_second_server_is_refused() -> None:
    with trio.fail_after(5):
        listener = await TRANSPORT.listen(ANY_PORT, {})
        async with closing(listener):
            with pytest.raises(AddressInUse, match="another program listens on tcp://127"):
                await TRANSPORT.listen(listener.address, {})
        again = await TRANSPORT.listen(listener.address, {})
        await again.aclose()


async def test_a_restarted_server_gets_its_port_back_while_old_connections_fade() -> None:
    with trio.fail_after(5):
        listener = await TRANSPORT.listen(ANY_PORT, {})
        client = await TRANSPORT.connect(listener.address, {})
        server = await listener.accept()
        await server.aclose()  # the side that closes first keeps the port in TIME_WAIT
        assert await client.receive() == b""
        await client.aclose()
        await listener.aclose()
        await (await TRANSPORT.listen(listener.address, {})).aclose()


async def test_nobody_there_is_a_clear_error() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with trio.fail_after(5), pytest.raises(ConnectError) as caught:
            await TRANSPORT.connect(Address("tcp", "", "127.0.0.1", port), {})
    refused = "Connection refused"
    assert str(caught.value) == (
        f"nobody answers on tcp://127.0.0.1:{port} ({refused}); start the server there, or check host and port"
    )
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_host_that_does_not_exist_is_a_clear_error() -> None:
    use_hosts()
    with trio.fail_after(5):
        with pytest.raises(ConnectError, match="the host of tcp://nowhere:1 cannot be found") as caught:
            await TRANSPORT.connect(parse_address("tcp://nowhere:1"), {})
        assert isinstance(caught.value.__cause__, socket.gaierror)
        with pytest.raises(ListenError, match="the host of tcp://nowhere:1 cannot be found") as refused:
            await TRANSPORT.listen(parse_address("tcp://nowhere:1"), {})
        assert isinstance(refused.value.__cause__, socket.gaierror)


@needs_ipv6
async def test_the_next_address_is_tried_if_the_first_does_not_answer() -> None:
    use_hosts(twofold=["::1", "127.0.0.1"])
    with trio.fail_after(5):
        listener = await TRANSPORT.listen(ANY_PORT, {})
        async with closing(listener):
            client = await TRANSPORT.connect(Address("tcp", "", "twofold", listener.address.port), {})
            async with closing(client):
                assert client.peer.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.EACCES, "we may not listen on tcp://127.0.0.1:80; ports below 1024 are for privileged programs"),
        (errno.ENOBUFS, f"cannot listen on tcp://127.0.0.1:80: {os.strerror(errno.ENOBUFS)}"),
    ],
)
async def test_what_the_system_refuses_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, code: int, sentence: str
) -> None:
    def bind(_sock: socket.socket, _where: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(socket.socket, "bind", bind)
    with trio.fail_after(5), pytest.raises(ListenError) as caught:
        await TRANSPORT.listen(parse_address("tcp://127.0.0.1:80"), {})
    assert str(caught.value).startswith(sentence)


async def test_options_are_refused() -> None:
    with trio.fail_after(5):
        with pytest.raises(TypeError, match=r"listening on tcp://127.* has no option 'mode'; it takes none"):
            await TRANSPORT.listen(ANY_PORT, {"mode": 0o600})
        with pytest.raises(TypeError, match=r"connecting to tcp://127.* has no option 'tls'; it takes none"):
            await TRANSPORT.connect(ANY_PORT, {"tls": object()})


async def test_a_connection_that_leads_back_to_itself_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP connects a socket to itself if the system picks the port that it calls as its own."""
    sock = trio.socket.socket()
    await sock.bind(("127.0.0.1", 0))
    await sock.connect(sock.getsockname())

    async def open_tcp_stream(_host: str, _port: int) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        return trio.SocketStream(sock)

    monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
    with trio.fail_after(5), pytest.raises(ConnectError, match="nobody answers") as caught:
        await TRANSPORT.connect(parse_address("tcp://127.0.0.1:1"), {})
    assert "led back to itself" in str(caught.value.__cause__)


async def test_a_connection_that_breaks_at_once_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def peer_of(_sock: socket.socket, _scheme: str) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    with trio.fail_after(5):
        listener = await TRANSPORT.listen(ANY_PORT, {})
        async with closing(listener):
            monkeypatch.setattr(tcp, "peer_of", peer_of)
            with pytest.raises(ConnectError, match=r"broke at once: .*not connected; try again"):
                await TRANSPORT.connect(listener.address, {})


async def test_a_peer_that_left_before_it_was_accepted_is_passed_over() -> None:
    """Linux hands out the connection all the same; its address may then be unknown."""
    with trio.fail_after(5):
        listener = await TRANSPORT.listen(ANY_PORT, {})
        async with closing(listener):
            where = ("127.0.0.1", listener.address.port)
            gone = socket.create_connection(where)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.close()
            with socket.create_connection(where) as there:
                there.sendall(b"x")
                for _ in range(2):
                    link = await listener.accept()
                    async with closing(link):
                        if link.peer.address == f"tcp://127.0.0.1:{there.getsockname()[1]}":
                            assert await link.receive() == b"x"
                            break
                else:
                    pytest.fail("the peer that stayed was never accepted")


async def test_cancelled_calls_leave_nothing_open() -> None:
    """`no_descriptor_leaks` looks."""
    with trio.fail_after(5):
        listener = await TRANSPORT.listen(ANY_PORT, {})
        async with closing(listener):
            for call in (
                lambda: TRANSPORT.connect(listener.address, {}),
                lambda: TRANSPORT.listen(ANY_PORT, {}),
                listener.accept,
            ):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await call()
                assert scope.cancelled_caught


async def test_connecting_can_be_cancelled_while_nobody_answers() -> None:
    with socket.socket() as server, contextlib.ExitStack() as callers:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):  # Linux drops what does not fit into the backlog
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        with trio.fail_after(10), trio.move_on_after(0.05) as scope:
            await TRANSPORT.connect(Address("tcp", "", *server.getsockname()), {})
        if sys.platform == "linux":
            assert scope.cancelled_caught


def test_an_address_means_itself() -> None:
    address = Address("tcp", "", "127.0.0.1", 8000)
    assert [(place.name, place.obstacle) for place in TRANSPORT.places(address)] == [(str(address), None)]
