"""Inherited TCP sockets with TLS, and inherited UDP sockets."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest
import trio

import pyipc
from pyipc import parse_address
from pyipc.errors import AddressError
from pyipc.transports.inherited import InheritedTransport
from pyipc.transports.port import Place
from pyipc.transports.tcp import peer_of
from pyipc.transports.tls import client_link
from tests.conformance.subjects import MutualTls, Tls
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

    from pyipc.transports.tls_settings import AnyTLS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows passes sockets on otherwise")


def inherited(sock: socket.socket, tls: AnyTLS | None = None) -> pyipc.Endpoint:
    return pyipc.Endpoint(f"fd:{sock.detach()}", tls=tls, transport=InheritedTransport(taken=set()))


def tcp_listener() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def who() -> pyipc.Router:
    router = pyipc.Router()

    @router.on("who")
    def answer(message: pyipc.Message[None]) -> list[str | None]:
        peer = message.connection.peer
        return [peer.host, peer.certificate.names[0] if peer.certificate is not None else None]

    return router


# --- TLS --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("files", "client"), [(Tls, None), (MutualTls, "client.example")])
async def test_an_inherited_listener_speaks_tls(tmp_path: Path, files: type[Tls], client: str | None) -> None:
    settings = files(tmp_path)
    sock = tcp_listener()
    port = sock.getsockname()[1]
    async with pyipc.Server(inherited(sock, settings.server_endpoint().tls), router=who()) as server:
        assert [str(address) for address in server.addresses] == [f"tls://127.0.0.1:{port}"]
        async with pyipc.connect(settings.client_endpoint(server.addresses[0])) as connected:
            assert await connected.request("who") == ["127.0.0.1", client]
        async with pyipc.connect(f"tcp://127.0.0.1:{port}", reconnect=False) as plain:
            with pytest.raises(pyipc.ConnectionLost, match="the peer speaks TLS"):
                await plain.request("who")


async def test_an_inherited_connection_speaks_tls(tmp_path: Path) -> None:
    settings = Tls(tmp_path)
    with tcp_listener() as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs = listener.accept()[0]
    tls = settings.client_endpoint(parse_address("tls://127.0.0.1:1")).tls
    assert tls is not None
    async with pyipc.Server(inherited(theirs, settings.server_endpoint().tls), router=who()):
        link = await client_link(ours, peer_of(ours, "tls"), tls, "127.0.0.1")
        await link.send(b'{"type":"pyipc.request","data":{"call":1,"event":"who"}}\f')
        assert b'"data":["127.0.0.1",null]' in await link.receive()
        await link.aclose()


def unix_listener(folder: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(folder / "socket"))
    sock.listen()
    return sock


@pytest.mark.parametrize("kind", ["unix", "udp"])
async def test_tls_is_for_tcp(tmp_path: Path, kind: str) -> None:
    settings = Tls(tmp_path)
    with unix_listener(tmp_path) if kind == "unix" else udp_socket() as sock:
        transport = InheritedTransport(taken=set())
        with pytest.raises(AddressError, match="which is for TCP sockets and not for UDP or Unix ones; leave it out"):
            await transport.listen(parse_address(f"fd:{sock.fileno()}"), {"tls": settings.server_endpoint().tls})


async def test_a_client_is_told_to_connect_by_name(tmp_path: Path) -> None:
    tls = Tls(tmp_path).client_endpoint(parse_address("tls://127.0.0.1:1")).tls
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(AddressError, match="no host name that a certificate could be for"):
        await InheritedTransport(taken=set()).connect(parse_address(f"fd:{ours.fileno()}"), {"tls": tls})


async def test_a_server_needs_a_certificate(tmp_path: Path) -> None:
    tls = Tls(tmp_path).client_endpoint(parse_address("tls://127.0.0.1:1")).tls
    with tcp_listener() as sock, pytest.raises(AddressError, match=f"fd:{sock.fileno()}: .*cert"):
        await InheritedTransport(taken=set()).listen(parse_address(f"fd:{sock.fileno()}"), {"tls": tls})


# --- UDP --------------------------------------------------------------------------------------------------------


async def test_a_server_on_a_udp_socket() -> None:
    sock = udp_socket()
    address = f"udp://127.0.0.1:{sock.getsockname()[1]}"
    async with pyipc.Server(inherited(sock), router=who()) as server:
        assert [str(each) for each in server.addresses] == [address]
        async with pyipc.connect(address) as one, pyipc.connect(address) as two:
            for client in (one, two):
                assert await client.request("who") == ["127.0.0.1", None]


async def test_a_client_on_a_connected_udp_socket() -> None:
    async with pyipc.Server("udp://127.0.0.1:0", router=who()) as server:
        sock = udp_socket()
        sock.connect(("127.0.0.1", server.addresses[0].port))
        async with pyipc.connect(inherited(sock)) as client:
            assert await client.request("who") == ["127.0.0.1", None]


async def test_a_client_needs_a_udp_socket_that_is_connected() -> None:
    transport = InheritedTransport(taken=set())
    with udp_socket() as sock:
        address = parse_address(f"fd:{sock.fileno()}")
        with pytest.raises(AddressError, match=r"its UDP socket is not connected; call connect\(\) on it before"):
            await transport.connect(address, {})
        where = f"udp://127.0.0.1:{sock.getsockname()[1]}"
        assert transport.places(address) == (Place(f"descriptor {sock.fileno()}, datagrams at {where}"),)
        listener = await transport.listen(address, {})  # it is still there for a server
        sock.detach()
        await listener.aclose()


async def test_sockets_of_two_kinds_are_not_one_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with udp_socket() as one, tcp_listener() as other:
        numbers = [one.fileno(), other.fileno()]
        monkeypatch.setattr("pyipc.transports.inherited.passed_descriptors", lambda *_: numbers)
        with pytest.raises(AddressError, match="its 2 sockets must all listen, or all be for datagrams"):
            await InheritedTransport(taken=set()).listen(parse_address("systemd:"), {})
        await trio.lowlevel.checkpoint()
