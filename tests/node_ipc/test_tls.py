"""``config.tls``: what is taken, what is refused, and what happens when trust fails."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.node_ipc import IPC, Config
from pyipc.node_ipc.places import network_endpoint
from pyipc.node_ipc.tls import client_tls, server_tls
from tests.interop.certificates import Certificates, make_certificates
from tests.node_ipc.programs import Events

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_what_a_server_is_given(certificates: Certificates) -> None:
    mutual = Certificates.ported(certificates.node_server(mutual=True))
    own = certificates.node_server()
    cert, key = certificates.server
    assert server_tls(mutual) == pyipc.TLS(cert=cert, key=key, client_ca=certificates.ca)
    unasked = {**own, "trusted_connections": certificates.ca, "dhparam": "no matter"}
    assert server_tls(unasked) == pyipc.TLS(cert=cert, key=key)


def test_what_a_client_is_given(certificates: Certificates) -> None:
    cert, key = certificates.client
    mutual = Certificates.ported(certificates.node_client(mutual=True))
    assert client_tls(mutual) == pyipc.TLS(cert=cert, key=key, ca=certificates.ca)
    assert client_tls({"trusted_connections": certificates.ca}) == pyipc.TLS(ca=certificates.ca)
    assert client_tls({"reject_unauthorized": False, "trusted_connections": certificates.ca}) == pyipc.TLS(
        insecure=True
    )


@pytest.mark.parametrize("side", [server_tls, client_tls])
def test_what_pyipc_takes_is_taken_as_it_is(side: Any) -> None:
    for tls in (pyipc.TLS(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):
        assert side(tls) is tls


@pytest.mark.parametrize(
    ("tls", "complaint"),
    [
        ({}, "needs 'private' and 'public'"),
        ({"public": "x"}, "needs 'private' and 'public'"),
        ({"private": "k", "public": "c", "request_cert": True}, "needs 'trusted_connections'"),
        ({"private": "k", "public": "c", "request_cert": True, "reject_unauthorized": False}, "takes everybody"),
        (
            {"private": "k", "public": "c", "trusted_connections": "ca", "reject_unauthorized": True},
            "asks for no certificates",
        ),
        ({"private": "k", "public": b"c"}, "must be the path of a file"),
        ({"private": "k", "public": "c", "trusted_connections": ["a", "b"]}, "the path of one file"),
        ({"private": "k", "public": "c", "requestCert": True}, "has no 'requestCert'"),
    ],
)
def test_what_a_server_cannot_do_with(tls: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        server_tls(tls)


def test_no_keys_at_all_are_tls_all_the_same() -> None:
    """As in Node, where an empty object is true; plain text would be the opposite of what was meant."""
    config = Config(tls={}, allow=pyipc.ANYONE)
    client = network_endpoint(config, "127.0.0.1", 1, listens=False)
    assert (client.parsed.scheme, client.tls) == ("tls", pyipc.TLS())
    with pytest.raises(ValueError, match="'private' and 'public'"):
        network_endpoint(config, "127.0.0.1", 1, listens=True)
    config.tls = None
    assert network_endpoint(config, "127.0.0.1", 1, listens=True).parsed.scheme == "tcp"
    config.tls = False
    assert network_endpoint(config, "127.0.0.1", 1, listens=True).parsed.scheme == "tcp"


def test_there_is_no_tls_over_udp() -> None:
    with pytest.raises(pyipc.AddressError, match="no TLS over UDP"):
        network_endpoint(Config(tls={}), "127.0.0.1", 1, udp="udp4", listens=True)


def test_what_a_client_cannot_do_with() -> None:
    with pytest.raises(ValueError, match="has no 'trustedConnections'"):
        client_tls({"trustedConnections": "x"})
    with pytest.raises(pyipc.IPCError, match="no-such-file"):
        client_tls({"trusted_connections": "/no-such-file"})


async def test_a_local_server_has_no_tls(certificates: Certificates, directory: Path) -> None:
    """In node-ipc it has, and its clients have none, so they never understand each other."""
    ipc = IPC()
    ipc.config.tls = Certificates.ported(certificates.node_server())
    ipc.serve(str(directory / "s"))
    ipc.server.on("message", lambda data, socket: ipc.server.stop())
    events = Events(ipc.server)
    ipc.server.start()
    ipc.connect_to("world", str(directory / "s"))
    ipc.of.world.emit("message")
    ipc.of.world.on("connect", lambda: ipc.disconnect("world"))
    with trio.fail_after(20):
        await ipc.run()
    assert "message" in events.names


async def test_attempts_are_counted_where_trust_fails(certificates: Certificates) -> None:
    """In node-ipc a TCP connection is a success, so there is no end."""
    here, there = IPC(), IPC()
    here.config.tls = Certificates.ported(certificates.node_server())
    there.config.tls = {"trusted_connections": certificates.other_ca}
    there.config.max_retries, there.config.retry = 2, 1
    here.serve_net("localhost", 0)
    served = Events(here.server)
    here.server.start()
    async with here, there:
        await served.wait_for("start")
        there.connect_to_net("world", "localhost", served.all[0][1]["port"])
        heard = Events(there.of.world)
        await heard.wait_for("destroy")
    assert heard.names == ["error"] * 3 + ["destroy"]
    assert all(isinstance(error, pyipc.HandshakeFailed) for error in heard.data("error"))
    assert "connect" not in served.names


async def test_who_a_socket_is(certificates: Certificates) -> None:
    here, there = IPC(), IPC()
    here.config.tls = Certificates.ported(certificates.node_server(mutual=True))
    here.config.allow = {"client.example"}
    there.config.tls = Certificates.ported(certificates.node_client(mutual=True))
    here.serve_net("localhost", 0)
    served = Events(here.server)
    here.server.start()
    async with here, there:
        await served.wait_for("start")
        there.connect_to_net("world", "localhost", served.all[0][1]["port"])
        await served.wait_for("connect")
        (socket,) = here.server.sockets
        assert socket.peer.certificate is not None
        assert socket.peer.certificate.subject == "client"
        assert socket.address in ("127.0.0.1", "::1")
