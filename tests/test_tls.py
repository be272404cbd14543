"""The transport of ``tls`` addresses: who is there, and what happens to certificates while it runs."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

import pyipc
from pyipc import TLS, Endpoint
from pyipc.errors import AddressError, AddressInUse, ConnectError, HandshakeFailed
from pyipc.transports import Peer, transport_for
from pyipc.transports.claims import ClaimListener, SocketClaim
from pyipc.transports.tls import TlsTransport, client_link, server_link
from pyipc.transports.tls_link import _name, _verifiable
from tests.certificates import authority, authority_file, leaf, leaf_file
from tests.conformance.sides import until
from tests.test_tcp_transport import needs_ipv6

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyipc.transports import Link

pytestmark = pytest.mark.time_limit(20)

TRANSPORT = TlsTransport()
ANY_PORT = pyipc.parse_address("tls://127.0.0.1:0")
HOSTS = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    before = set(os.listdir("/dev/fd"))
    yield
    assert set(os.listdir("/dev/fd")) == before


@pytest.fixture
def server_tls(tmp_path: Path) -> TLS:
    return TLS(cert=leaf_file(tmp_path / "server.pem", leaf(*HOSTS, common_name="the server")))


@pytest.fixture
def client_tls(tmp_path: Path) -> TLS:
    cert = leaf_file(tmp_path / "client.pem", leaf("ada.example", common_name="ada"))
    return TLS(cert=cert, ca=authority_file(tmp_path))


async def accepted(listener: Any) -> Link:
    link: Link = await listener.accept()
    await link.handshake()
    return link


async def both_ends(listener: Any, address: pyipc.Address, tls: object) -> tuple[Link, Link]:
    """A client and what the listener has of it."""
    found: dict[str, Link] = {}

    async def accept() -> None:
        found["server"] = await accepted(listener)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        found["client"] = await TRANSPORT.connect(address, {"tls": tls})
    return found["client"], found["server"]


# --- who is there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("[::1]", marks=needs_ipv6)])
async def test_both_ends_talk_and_know_each_other(host: str, server_tls: TLS, client_tls: TLS) -> None:
    mutual = TLS(cert=server_tls.cert, client_ca=client_tls.ca)
    listener = await TRANSPORT.listen(pyipc.parse_address(f"tls://{host}:0"), {"tls": mutual})
    assert listener.address.port != 0
    client, server = await both_ends(listener, listener.address, client_tls)
    assert client.peer.address == str(listener.address)
    assert server.peer.address.startswith(f"tls://{host}:")
    assert client.peer.host == server.peer.host == host.strip("[]")
    assert client.peer.protocol == server.peer.protocol == "pyipc/1"
    for link, subject, names in ((client, "the server", HOSTS), (server, "ada", ("ada.example",))):
        certificate = link.peer.certificate
        assert certificate is not None
        assert certificate.subject == subject
        assert certificate.names == names
    await client.send(b"ping")
    assert await server.receive() == b"ping"
    for each in (client, server, listener):
        await each.aclose()


async def test_a_certificate_is_told_as_it_is(server_tls: TLS, client_tls: TLS) -> None:
    expected = x509.load_pem_x509_certificate(leaf(*HOSTS, common_name="the server").cert_chain_pems[0].bytes())
    async with (
        pyipc.Server(Endpoint(ANY_PORT, tls=server_tls)) as server,
        pyipc.connect(Endpoint(server.addresses[0], tls=client_tls)) as client,
    ):
        assert client.peer is not None
        assert client.peer.certificate is not None
        assert client.peer.certificate.fingerprint == f"sha256:{expected.fingerprint(SHA256()).hex()}"
        assert client.peer.certificate.not_after == expected.not_valid_after_utc.timestamp()
        await until(lambda: len(server.connections) == 1)
        [connection] = server.connections
        assert connection.peer.certificate is None  # nobody asked for it


@pytest.mark.parametrize(
    ("host", "verified"),
    [
        (None, None),
        ("localhost", "localhost"),
        ("localhost.", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_what_the_certificate_must_be_for(host: str | None, verified: str | None) -> None:
    assert _verifiable(host) == verified


async def test_a_host_by_its_name_is_told_to_the_server_and_an_address_is_not(client_tls: TLS) -> None:
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf(*HOSTS).configure_cert(context)
    context.sni_callback = lambda sock, name, context: asked.append(name)
    listener = await TRANSPORT.listen(ANY_PORT, {"tls": context})
    for host in ("localhost", "127.0.0.1"):
        for link in await both_ends(listener, pyipc.Address("tls", "", host, listener.address.port), client_tls):
            await link.aclose()
    await listener.aclose()
    assert asked == ["localhost", None]


@pytest.mark.parametrize(
    ("kind", "value", "name"),
    [
        ("DNS", "ada.example", "ada.example"),
        ("IP Address", "127.0.0.1", "127.0.0.1"),
        ("IP Address", "2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("IP Address", "<invalid>", None),
        ("email", "ada@example.com", None),
        ("URI", "spiffe://ada", None),
    ],
)
def test_what_counts_as_a_name(kind: str, value: str, name: str | None) -> None:
    assert _name(kind, value) == name


@pytest.mark.parametrize("by", ["name", "fingerprint", "function"])
async def test_a_certificate_is_an_identity(by: str, server_tls: TLS, client_tls: TLS) -> None:
    der = ssl.PEM_cert_to_DER_cert(leaf("ada.example", common_name="ada").cert_chain_pems[0].bytes().decode())
    allow: Any = {
        "name": {"ada.example"},
        "fingerprint": {f"sha256:{hashlib.sha256(der).hexdigest()}"},
        "function": lambda peer: peer.certificate is not None and peer.certificate.subject == "ada",
    }[by]
    mutual = TLS(cert=server_tls.cert, client_ca=client_tls.ca)
    server = pyipc.Server(Endpoint(ANY_PORT, tls=mutual, allow=allow))
    server.on("who", lambda message: message.connection.peer.certificate.subject)
    async with (
        server,
        pyipc.connect(Endpoint(server.addresses[0], tls=client_tls, allow={"127.0.0.1"})) as client,
    ):
        assert await client.request("who") == "ada"


@pytest.mark.parametrize("of_its_own", [False, True])
async def test_a_server_that_asks_for_no_certificate_can_allow_nobody_by_name(
    of_its_own: bool, server_tls: TLS, client_tls: TLS
) -> None:
    """Which is told when it begins to listen, and not to each client."""
    tls: Any = server_tls
    if of_its_own:
        assert server_tls.cert is not None
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(server_tls.cert)
    for allow in ({"ada.example"}, [f"sha256:{'0' * 64}"]):
        with pytest.raises(AddressError, match=r"no client is asked for one.*client_ca="):
            async with pyipc.Server(Endpoint(ANY_PORT, tls=tls, allow=allow)):
                pytest.fail("it listens")
    for fine in (Endpoint(ANY_PORT, tls=tls), Endpoint(ANY_PORT, tls=tls, allow=lambda peer: True)):
        async with pyipc.Server(fine):
            pass
    if of_its_own:
        assert client_tls.ca is not None
        tls.load_verify_locations(client_tls.ca)
        tls.verify_mode = ssl.CERT_OPTIONAL
        async with pyipc.Server(Endpoint(ANY_PORT, tls=tls, allow={"ada.example"})):
            pass


async def test_insecure_means_that_nobody_is_known(server_tls: TLS) -> None:
    async with (
        pyipc.Server(Endpoint(ANY_PORT, tls=server_tls)) as server,
        pyipc.connect(Endpoint(server.addresses[0], tls=TLS(insecure=True))) as client,
    ):
        assert client.peer is not None
        assert client.peer.certificate is None


# --- what is agreed on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offers", [None, ["http/1.1"], ["http/1.1", "pyipc/1"]])
async def test_whoever_agrees_on_nothing_is_served_as_a_plain_peer(offers: list[str] | None, server_tls: TLS) -> None:
    server = pyipc.Server(Endpoint(ANY_PORT, tls=server_tls))

    @server.on("question")
    async def answer(message: pyipc.Message[int]) -> None:
        await message.connection.emit("answer", [message.data, message.connection.peer.protocol])

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    if offers is not None:
        context.set_alpn_protocols(offers)
    async with server:
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", server.addresses[0].port, ssl_context=context)
        await stream.send_all(b'{"type":"question","data":7}\f')
        assert json.loads((await stream.receive_some()).rstrip(b"\f")) == {"type": "answer", "data": [7, "plain"]}
        assert stream.selected_alpn_protocol() == ("pyipc/1" if offers and "pyipc/1" in offers else None)
        await stream.aclose()


async def test_a_context_made_elsewhere_will_do_on_either_side(server_tls: TLS, client_tls: TLS) -> None:
    for_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf(*HOSTS).configure_cert(for_server)
    for_client = ssl.create_default_context(cafile=str(client_tls.ca))
    for listens, connects in ((for_server, client_tls), (server_tls, for_client), (for_server, for_client)):
        server = pyipc.Server(Endpoint(ANY_PORT, tls=listens))
        server.on("ping", lambda message: message.connection.peer.protocol)
        async with server, pyipc.connect(Endpoint(server.addresses[0], tls=connects)) as client:
            assert await client.request("ping") == "pyipc/1"
    assert for_client.check_hostname


@pytest.mark.parametrize(("behavior", "code"), [("is silent", "timeout"), ("closes", "closed")])
async def test_a_server_that_agrees_and_does_not_introduce_itself_is_no_connection(
    behavior: str, code: str, client_tls: TLS
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf(*HOSTS).configure_cert(context)
    context.set_alpn_protocols(["pyipc/1"])
    listener = await TRANSPORT.listen(ANY_PORT, {"tls": context})
    failed: list[Exception] = []
    told: list[object] = []
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            link = await accepted(listener)
            while behavior == "is silent" and await link.receive():
                pass
            await link.aclose()

        nursery.start_soon(accept)
        options: Any = {"handshake_timeout": 0.1 if behavior == "is silent" else 5.0, "reconnect": False}
        async with pyipc.connect(
            Endpoint(listener.address, tls=client_tls),
            wait=False,
            on_connect=told.append,
            on_disconnect=told.append,
            on_failed_connect=failed.append,
            **options,
        ) as client:
            await until(lambda: bool(failed))
            with pytest.raises(HandshakeFailed):
                await client.wait_connected()
            assert client.statistics().connects == 0
    await listener.aclose()
    assert isinstance(failed[0], HandshakeFailed)
    assert failed[0].code == code
    assert told == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_nobody_gets_in_by_an_old_session(version: ssl.TLSVersion, server_tls: TLS, tmp_path: Path) -> None:
    """What was verified then may not be true any more."""
    server_tls = TLS(cert=server_tls.cert, client_ca=authority_file(tmp_path))
    context = ssl.create_default_context()
    authority().configure_trust(context)
    leaf("client.example").configure_cert(context)
    context.maximum_version = version
    reused: list[bool] = []

    def visit(port: int) -> None:
        session = None
        for _ in range(2):
            with (
                socket.create_connection(("127.0.0.1", port)) as sock,
                context.wrap_socket(sock, server_hostname="127.0.0.1", session=session) as secure,
            ):
                secure.sendall(b'{"type":"e"}\f')
                reused.append(bool(secure.session_reused))
                session = secure.session

    events: list[object] = []
    router = pyipc.Router()
    router.on("e", events.append)
    async with pyipc.Server(Endpoint("tls://127.0.0.1:0", tls=server_tls), router=router) as server:
        await trio.to_thread.run_sync(visit, server.addresses[0].port)
        was_resumed = any(reused)
        await until(lambda: len(events) + server.statistics().handshake_errors == 2)
        assert (server.statistics().handshake_errors == 1) is was_resumed
    assert was_resumed is (version is ssl.TLSVersion.TLSv1_2)


async def test_a_client_need_not_wait_for_an_introduction_to_leave(client_tls: TLS) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf(*HOSTS).configure_cert(context)
    context.set_alpn_protocols(["pyipc/1"])
    listener = await TRANSPORT.listen(ANY_PORT, {"tls": context})
    async with pyipc.connect(Endpoint(listener.address, tls=client_tls), wait=False, close_timeout=1_000) as client:
        link = await accepted(listener)
        assert b"pyipc.hello" in await link.receive()
        assert client.statistics().connects == 0
    assert b"" in [await link.receive(), await link.receive()]  # after the goodbye, if there is one
    await link.aclose()
    await listener.aclose()


async def test_without_a_hello_nothing_is_waited_for(client_tls: TLS) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf(*HOSTS).configure_cert(context)
    context.set_alpn_protocols(["pyipc/1"])
    listener = await TRANSPORT.listen(ANY_PORT, {"tls": context})
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            link = await accepted(listener)
            assert await link.receive() == b'{"type":"e","data":1}\f'
            await link.aclose()

        nursery.start_soon(accept)
        async with pyipc.connect(Endpoint(listener.address, tls=client_tls, hello=False)) as client:
            await client.emit("e", 1)
            await client.flush()
    await listener.aclose()


# --- while it runs ----------------------------------------------------------------------------------------------


async def test_new_connections_get_the_new_certificate_and_old_ones_live(
    server_tls: TLS, client_tls: TLS, tmp_path: Path
) -> None:
    def subject_of(client: pyipc.Client) -> str:
        assert client.peer is not None
        assert client.peer.certificate is not None
        return client.peer.certificate.subject

    server = pyipc.Server(Endpoint(ANY_PORT, tls=server_tls))
    server.on("ping", lambda message: "pong")
    async with server:
        endpoint = Endpoint(server.addresses[0], tls=client_tls)
        async with pyipc.connect(endpoint) as old:
            (tmp_path / "server.pem").write_text("half of a cert")
            with pytest.raises(pyipc.CertificateFileError):
                server_tls.reload()
            async with pyipc.connect(endpoint) as meanwhile:
                assert subject_of(meanwhile) == "the server"
            leaf_file(tmp_path / "server.pem", leaf("127.0.0.1", common_name="renewed"))
            server_tls.reload()
            async with pyipc.connect(endpoint) as new:
                assert subject_of(new) == "renewed"
                assert await new.request("ping") == "pong"
            assert await old.request("ping") == "pong"
            assert (subject_of(old), old.statistics().connects) == ("the server", 1)


# --- what is refused --------------------------------------------------------------------------------------------


async def test_a_server_without_a_certificate_does_not_start(client_tls: TLS) -> None:
    for tls in (None, TLS(ca=client_tls.ca), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):
        with pytest.raises(AddressError, match=r"TLS\(cert=|PROTOCOL_TLS_SERVER"):
            async with pyipc.Server(Endpoint(ANY_PORT, tls=tls)):
                pytest.fail("it started")


async def test_a_context_for_servers_is_not_for_clients() -> None:
    with pytest.raises(AddressError, match="PROTOCOL_TLS_CLIENT"):
        async with pyipc.connect(Endpoint("tls://127.0.0.1:9", tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))):
            pytest.fail("it connected")


async def test_an_option_that_does_not_exist(client_tls: TLS) -> None:
    with pytest.raises(TypeError, match="no option 'mode'"):
        await TRANSPORT.connect(ANY_PORT, {"mode": 1})
    with pytest.raises(TypeError, match="no option 'mode'"):
        await TRANSPORT.listen(ANY_PORT, {"mode": 1})
    with pytest.raises(TypeError, match=r"pyipc\.TLS"):
        await TRANSPORT.connect(ANY_PORT, {"tls": "ca.pem"})


async def test_a_port_that_is_taken_and_one_where_nobody_listens(server_tls: TLS, client_tls: TLS) -> None:
    listener = await TRANSPORT.listen(ANY_PORT, {"tls": server_tls})
    with pytest.raises(AddressInUse):
        await TRANSPORT.listen(listener.address, {"tls": server_tls})
    await listener.aclose()
    with pytest.raises(ConnectError) as caught:
        await TRANSPORT.connect(listener.address, {"tls": client_tls})
    assert not isinstance(caught.value, HandshakeFailed)


async def test_a_connection_that_is_cancelled_leaves_nothing(client_tls: TLS) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = pyipc.parse_address(f"tls://127.0.0.1:{silent.getsockname()[1]}")
        with trio.move_on_after(0.05) as scope:
            await TRANSPORT.connect(address, {"tls": client_tls})
        assert scope.cancelled_caught


# --- sockets that come from elsewhere ---------------------------------------------------------------------------


async def test_sockets_that_listen_already(server_tls: TLS, client_tls: TLS) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    address = pyipc.parse_address(f"tls://127.0.0.1:{listening.getsockname()[1]}")
    listener = ClaimListener(SocketClaim([listening], address), TRANSPORT.adopter(address, {"tls": server_tls}))
    client, server = await both_ends(listener, address, client_tls)
    await server.send(b"hello")
    assert await client.receive() == b"hello"
    for each in (client, server, listener):
        await each.aclose()


async def test_sockets_that_are_connected_already(server_tls: TLS, client_tls: TLS) -> None:
    left, right = socket.socketpair()
    known = Peer(address="fd:3", uid=7)
    server = server_link(left, known, server_tls)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handshake)
        client = await client_link(right, known, client_tls, "localhost")
    assert (client.peer.uid, client.peer.address) == (7, "fd:3")
    assert client.peer.certificate is not None
    await client.aclose()
    await server.aclose()


def test_the_registry_has_it() -> None:
    assert isinstance(transport_for("tls"), TlsTransport)
