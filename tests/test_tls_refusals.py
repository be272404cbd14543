"""Whatever is wrong with a TLS connection is told to both sides, by a code and by what to do; and hurts nobody else."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import random
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc import TLS, ConnectionLost, Endpoint, HandshakeFailed
from pyipc.transports.tls import TlsTransport
from pyipc.transports.tls_settings import client_context
from tests.certificates import authority_file, leaf, leaf_file
from tests.conformance.sides import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pyipc import Address
    from pyipc.transports import Link

pytestmark = pytest.mark.time_limit(20)

TRANSPORT = TlsTransport()
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@dataclasses.dataclass(frozen=True)
class Case:
    """Certificates that do not go together, and what each side is told: code and words."""

    server: dict[str, Any] = dataclasses.field(default_factory=dict)
    client: dict[str, Any] | None = None
    client_trusts: str = "ours"
    asks: bool = False
    client_is_told: tuple[str, str] = ("", "")
    server_is_told: tuple[str, str] = ("", "")


GOOD = ("127.0.0.1", "localhost")
CASES = {
    "the server's certificate has expired": Case(
        server={"valid": "past"},
        client_is_told=("expired", "renew it on the server"),
        server_is_told=("expired", "renew the one given as cert="),
    ),
    "the server's certificate is not valid yet": Case(
        server={"valid": "future"},
        client_is_told=("not-yet-valid", "clocks"),
        server_is_told=("bad-certificate", "see the client's log"),
    ),
    "the server's certificate is for another host": Case(
        server={"names": ("other.example",)},
        client_is_told=("wrong-host", "not for '127.0.0.1'; connect to a name that it is for"),
        server_is_told=("bad-certificate", "not for the name that the client connects to"),
    ),
    "the server's certificate is for another address": Case(
        server={"names": ("127.0.0.2", "localhost")},
        client_is_told=("wrong-host", "not for '127.0.0.1'"),
        server_is_told=("bad-certificate", "not for the name that the client connects to"),
    ),
    "nobody the client knows signed the server's certificate": Case(
        client_trusts="theirs",
        client_is_told=("unknown-ca", "give ca="),
        server_is_told=("unknown-ca", "give the client ca="),
    ),
    "the client has no certificate": Case(
        asks=True,
        client_is_told=("certificate-required", "give cert= and key="),
        server_is_told=("certificate-required", "give it cert= and key="),
    ),
    "the client's certificate has expired": Case(
        client={"valid": "past"},
        asks=True,
        client_is_told=("expired", "renew the one given as cert="),
        server_is_told=("expired", "renew it on the client"),
    ),
    "the client's certificate is not valid yet": Case(
        client={"valid": "future"},
        asks=True,
        client_is_told=("bad-certificate", "give cert= with another"),
        server_is_told=("not-yet-valid", "clocks"),
    ),
    "nobody the server knows signed the client's certificate": Case(
        client={"signer": "theirs"},
        asks=True,
        client_is_told=("unknown-ca", "give cert= with one that it trusts"),
        server_is_told=("unknown-ca", "add the certificate of its authority to client_ca="),
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def made(names: tuple[str, ...], changes: dict[str, Any]) -> Any:
    return leaf(*changes.get("names", names), **{key: value for key, value in changes.items() if key != "names"})


def settings(folder: Path, case: Case) -> tuple[TLS, TLS]:
    """What the client and the server of a case are given."""
    server = TLS(
        cert=leaf_file(folder / "server.pem", made(GOOD, case.server)),
        client_ca=authority_file(folder) if case.asks else None,
    )
    cert = None if case.client is None else leaf_file(folder / "client.pem", made(("ada",), case.client))
    return TLS(cert=cert, ca=authority_file(folder, case.client_trusts)), server


def good_client(folder: Path) -> TLS:
    return TLS(cert=leaf_file(folder / "good.pem", leaf("ada")), ca=authority_file(folder))


async def refused(link: Link) -> HandshakeFailed:
    """What a client is told whose handshake went well, which in TLS 1.3 says nothing about its certificate."""
    with pytest.raises(ConnectionLost) as lost:
        await link.receive()
    await link.aclose()
    assert not lost.value.maybe_handled
    assert isinstance(lost.value.__cause__, HandshakeFailed)
    assert str(lost.value) == str(lost.value.__cause__)
    return lost.value.__cause__


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@each_case
async def test_both_sides_are_told(case: Case, version: ssl.TLSVersion, tmp_path: Path) -> None:
    client_tls, server_tls = settings(tmp_path, case)
    client_context(client_tls).maximum_version = version
    listener = await TRANSPORT.listen(pyipc.parse_address("tls://127.0.0.1:0"), {"tls": server_tls})
    told: dict[str, HandshakeFailed] = {}

    async def serve() -> None:
        link = await listener.accept()
        with pytest.raises(HandshakeFailed) as caught:
            await link.handshake()
        await link.aclose()
        told["server"] = caught.value

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            link = await TRANSPORT.connect(listener.address, {"tls": client_tls})
        except HandshakeFailed as error:
            told["client"] = error
        else:
            assert version is ssl.TLSVersion.TLSv1_3
            told["client"] = await refused(link)
    await listener.aclose()
    for side, (code, words) in (("client", case.client_is_told), ("server", case.server_is_told)):
        if code == "certificate-required" and side == "client" and version is ssl.TLSVersion.TLSv1_2:
            code, words = "tls", "give the client cert= and key="  # before 1.3 there was no alert for it
        assert (told[side].code, told[side].may_pass) == (code, False)
        assert words in str(told[side])
        assert "127.0.0.1" in str(told[side])
        assert isinstance(told[side].__cause__, ssl.SSLError)


# --- a server and its other clients -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def house(folder: Path, tls: TLS, *, allow: Any = None, **options: Any) -> AsyncIterator[pyipc.Server]:
    """A server with a client that is served all the time."""
    server = pyipc.Server(Endpoint("tls://127.0.0.1:0", tls=tls, allow=allow), **options)
    server.on("ping", lambda message: "pong")
    async with server, pyipc.connect(Endpoint(server.addresses[0], tls=good_client(folder))) as neighbor:

        async def keep_asking(task_status: trio.TaskStatus[None]) -> None:
            assert await neighbor.request("ping", timeout=5) == "pong"
            task_status.started()
            while True:
                assert await neighbor.request("ping", timeout=5) == "pong"
                await trio.sleep(0.005)

        async with trio.open_nursery() as nursery:
            await nursery.start(keep_asking)
            yield server
            assert await neighbor.request("ping", timeout=5) == "pong"
            assert neighbor.statistics().connects == 1
            nursery.cancel_scope.cancel()


def serving(folder: Path, **options: Any) -> contextlib.AbstractAsyncContextManager[pyipc.Server]:
    """A `house` in which nothing is wrong with the server."""
    ca = authority_file(folder)
    return house(folder, TLS(cert=leaf_file(folder / "server.pem", leaf(*GOOD)), client_ca=ca), **options)


@contextlib.asynccontextmanager
async def unwelcome(address: Address, tls: TLS, **options: Any) -> AsyncIterator[list[Exception]]:
    """Connect where that must fail, long before any time-out."""
    caught: list[Exception] = []
    with trio.fail_after(10):
        try:
            options |= {"connect_timeout": 1_000, "handshake_timeout": 1_000}
            async with pyipc.connect(Endpoint(address, tls=tls), **options):
                pytest.fail("it got in")
        except pyipc.IPCError as error:
            caught.append(error)
    yield caught


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.server])
async def test_a_client_is_told_at_once_and_the_others_notice_nothing(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = CASES[name]
    (tmp_path / "it").mkdir()
    client_tls, _ = settings(tmp_path / "it", case)
    greeted: list[object] = []
    async with serving(tmp_path) as server:
        async with unwelcome(server.addresses[0], client_tls, on_connect=greeted.append) as [error]:
            assert isinstance(error, HandshakeFailed)
            assert error.code == case.client_is_told[0]
            assert case.client_is_told[1] in str(error)
        await until(lambda: server.statistics().handshake_errors == 1)
        assert server.statistics().accepted == 1
    assert not greeted
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(case.server_is_told[1] in text for text in warnings)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.server])
async def test_a_server_that_is_not_who_it_should_be_is_not_talked_to(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    client_tls, server_tls = settings(tmp_path, case)
    async with (
        pyipc.Server(Endpoint("tls://127.0.0.1:0", tls=server_tls)) as server,
        unwelcome(server.addresses[0], client_tls) as [error],
    ):
        assert isinstance(error, HandshakeFailed)
        assert error.code == case.client_is_told[0]
        await until(lambda: server.statistics().handshake_errors == 1)
        assert server.statistics().accepted == 0


async def test_a_client_that_is_not_allowed_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stranger = TLS(cert=leaf_file(tmp_path / "eve.pem", leaf("eve", common_name="eve")), ca=authority_file(tmp_path))
    async with serving(tmp_path, allow={"ada"}) as server:
        async with unwelcome(server.addresses[0], stranger) as [error]:
            assert isinstance(error, pyipc.PeerRefused)
            assert error.code == "not-allowed"
            assert "'eve'" in str(error)
            assert "add it to allow=" in str(error)
        statistics = server.statistics()
        assert (statistics.denied, statistics.accepted, statistics.handshake_errors) == (1, 1, 0)
    assert "say allow={'sha256:" in caplog.text


async def test_a_peer_that_says_nothing_is_turned_away_without_a_word(tmp_path: Path) -> None:
    stranger = TLS(cert=leaf_file(tmp_path / "eve.pem", leaf("eve")), ca=authority_file(tmp_path))
    async with serving(tmp_path, allow={"ada"}, close_timeout=0.2) as server:
        link = await TRANSPORT.connect(server.addresses[0], {"tls": stranger})
        assert await link.receive() == b""
        await link.aclose()
        assert server.statistics().denied == 1


async def test_a_server_that_the_client_does_not_allow(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        endpoint = Endpoint(server.addresses[0], tls=good_client(tmp_path), allow={"another.example"})
        with pytest.raises(pyipc.PeerNotAllowed, match="say allow=") as caught:
            async with pyipc.connect(endpoint):
                pytest.fail("it got in")
        assert isinstance(caught.value.peer, pyipc.Peer)
        assert caught.value.peer.certificate is not None
        assert caught.value.peer.certificate.names == GOOD


async def test_plain_text_on_a_port_of_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ended: list[pyipc.Disconnected] = []
    async with serving(tmp_path) as server:
        plain = f"tcp://127.0.0.1:{server.addresses[0].port}"
        async with pyipc.connect(plain, reconnect=False, on_disconnect=ended.append) as client:
            with pytest.raises(ConnectionLost, match="tls://"):
                await client.request("ping")
        assert (ended[0].code, server.statistics().handshake_errors) == ("tls", 1)
    assert "does not speak TLS; let it connect to a tls:// address" in caplog.text


async def test_tls_on_a_port_of_plain_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = pyipc.Server("tcp://127.0.0.1:0")
    server.on("ping", lambda message: "pong")
    async with server, pyipc.connect(server.addresses[0]) as neighbor:
        address = f"tls://127.0.0.1:{server.addresses[0].port}"
        with pytest.raises(HandshakeFailed, match="write tcp:// if it is meant to be plain") as caught:
            async with pyipc.connect(Endpoint(address, tls=good_client(tmp_path))):
                pytest.fail("it got in")
        assert (caught.value.code, caught.value.may_pass) == ("not-tls", False)
        assert await neighbor.request("ping") == "pong"
    assert "use tls:// on both sides" in caplog.text


@pytest.mark.parametrize("greeting", [b"220 mail.example ESMTP\r\n", b'{"type":"welcome"}\f', b"\x80" * 20_000])
async def test_a_server_that_speaks_something_else(greeting: bytes, tmp_path: Path) -> None:
    async def greet(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(greeting)
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_tcp, greet, 0, host="127.0.0.1"))
        address = pyipc.parse_address(f"tls://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        async with unwelcome(address, good_client(tmp_path)) as [error]:
            assert isinstance(error, HandshakeFailed)
            assert error.code == "not-tls"
            assert "tcp://" in str(error)
        nursery.cancel_scope.cancel()


# --- time and memory --------------------------------------------------------------------------------------------


async def dial(server: pyipc.Server) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", server.addresses[0].port)


async def read_to_the_end(stream: trio.SocketStream) -> bytes:
    received = b""
    with contextlib.suppress(trio.BrokenResourceError):
        async for chunk in stream:
            received += chunk
    return received


async def test_silence_in_the_handshake_has_an_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path, handshake_timeout=0.3) as server:
        silent = [await dial(server) for _ in range(20)]
        for stream in silent:
            assert await read_to_the_end(stream) == b""
            await stream.aclose()
        assert server.statistics().handshake_errors >= 20
        assert len(server.connections) == 1
    assert "no handshake within 0.3 s (handshake_timeout)" in caplog.text


async def test_a_server_that_is_silent_in_the_handshake(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tls://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(pyipc.ConnectError, match=r"within 0\.2 s"):
            async with pyipc.connect(Endpoint(address, tls=good_client(tmp_path)), connect_timeout=0.2):
                pytest.fail("it got in")


def client_hello(tls: TLS) -> bytes:
    to_server = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client_context(tls).wrap_bio(ssl.MemoryBIO(), to_server, server_hostname="127.0.0.1").do_handshake()
    return to_server.read()


async def test_a_handshake_that_dribbles_has_an_end(tmp_path: Path) -> None:
    hello = client_hello(good_client(tmp_path))
    async with serving(tmp_path, handshake_timeout=0.3) as server:
        stream = await dial(server)
        with contextlib.suppress(trio.BrokenResourceError):
            for byte in hello:
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.005)
        assert await read_to_the_end(stream) == b""
        await stream.aclose()
        await until(lambda: server.statistics().handshake_errors >= 1)


GARBAGE = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": bytes(1_000),
    "noise": random.Random(9).randbytes(5_000),
    "a handshake of nothing": b"\x16\x03\x01\x00\x00" * 50,
    "a record larger than any": b"\x16\x03\x01\xff\xff" + b"x" * 70_000,
    "a message larger than any": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + b"x" * 200_000,
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "data before the handshake": b"\x17\x03\x03\x00\x05hello",
    "SSL 2": b"\x80\x2e\x01\x00\x02" + bytes(50),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_in_the_handshake_costs_its_sender_the_connection(garbage: bytes, tmp_path: Path) -> None:
    async with serving(tmp_path, handshake_timeout=1_000) as server, trio.open_nursery() as nursery:
        stream = await dial(server)

        async def send() -> None:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.send_all(garbage)
                await stream.send_eof()

        nursery.start_soon(send)
        answer = await read_to_the_end(stream)
        assert len(answer) < 100
        await until(lambda: server.statistics().handshake_errors == 1)
        await stream.aclose()


async def test_silent_handshakes_take_no_more_than_their_share(tmp_path: Path) -> None:
    async with serving(tmp_path, max_connections_per_peer=5, handshake_timeout=1_000, close_timeout=0.2) as server:
        silent = [await dial(server) for _ in range(30)]
        await until(lambda: server.statistics().refused == 26)  # all but the neighbor and four of them
        for stream in silent[4:]:
            assert await read_to_the_end(stream) == b""
        for stream in silent:
            await stream.aclose()
        await until(lambda: server._acceptor._seats.taken == 1)
        async with pyipc.connect(Endpoint(server.addresses[0], tls=good_client(tmp_path))) as client:
            assert await client.request("ping") == "pong"


async def test_a_full_server_says_so(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, max_connections=1) as server,
        unwelcome(server.addresses[0], good_client(tmp_path)) as [error],
    ):
        assert isinstance(error, pyipc.PeerRefused)
        assert error.code == "full"


# --- clients that go on trying ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["the client has no certificate", "nobody the client knows signed the server's certificate"]
)
async def test_failures_of_tls_count_as_attempts(name: str, tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    client_tls, _ = settings(tmp_path / "it", CASES[name])
    async with serving(tmp_path) as server:
        endpoint = Endpoint(server.addresses[0], tls=client_tls)
        async with pyipc.connect(endpoint, wait=False, max_reconnects=2, reconnect_interval=0.001) as client:
            await until(lambda: client._up.failure is not None)
            with pytest.raises(HandshakeFailed) as caught:
                await client.wait_connected()
            assert caught.value.code == CASES[name].client_is_told[0]
            with pytest.raises(ConnectionLost, match="given up") as lost:
                await client.request("ping")
            assert isinstance(lost.value.__cause__, HandshakeFailed)
            assert (client.statistics().connects, client.statistics().failed_connects) == (0, 3)
        assert server.statistics().handshake_errors == 3


async def test_a_request_is_not_held_for_a_server_that_will_not_have_us(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    client_tls, _ = settings(tmp_path / "it", CASES["the client has no certificate"])
    async with (
        serving(tmp_path) as server,
        pyipc.connect(Endpoint(server.addresses[0], tls=client_tls), wait=False) as client,
    ):
        with pytest.raises(ConnectionLost, match="give cert= and key=") as lost:
            await client.request("ping", timeout=1_000)
        assert isinstance(lost.value.__cause__, HandshakeFailed)


async def test_a_client_that_agreed_on_nothing_is_told_by_its_first_request(tmp_path: Path) -> None:
    """A context made elsewhere offers no protocol, so a client of it is connected before the server has its say."""
    context = ssl.create_default_context(cafile=str(authority_file(tmp_path)))
    ended: list[pyipc.Disconnected] = []
    async with serving(tmp_path) as server:
        endpoint = Endpoint(server.addresses[0], tls=context)
        async with pyipc.connect(endpoint, wait=False, on_disconnect=ended.append) as client:
            with pytest.raises(ConnectionLost, match="give cert= and key="):
                await client.request("ping", timeout=1_000)
    assert ended[0].code == "certificate-required"
    assert isinstance(ended[0].error, HandshakeFailed)
    assert ended[0].by_peer


async def test_a_client_gets_in_by_itself_once_the_certificate_is_renewed(tmp_path: Path) -> None:
    case = CASES["the server's certificate has expired"]
    client_tls, server_tls = settings(tmp_path, case)
    server = pyipc.Server(Endpoint("tls://127.0.0.1:0", tls=server_tls))
    server.on("ping", lambda message: "pong")
    async with server:
        endpoint = Endpoint(server.addresses[0], tls=client_tls)
        async with pyipc.connect(endpoint, wait=False, reconnect_interval=0.001, reconnect_max_interval=0.01) as client:
            await until(lambda: client.statistics().failed_connects > 2)
            leaf_file(tmp_path / "server.pem", leaf(*GOOD))
            server_tls.reload()
            await until(lambda: client.connected)
            assert await client.request("ping") == "pong"
