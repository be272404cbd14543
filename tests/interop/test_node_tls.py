"""pyipc and real node-ipc programs over TLS, in every strength, in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.interop.node import Heard, Place, eventually, frame

if TYPE_CHECKING:
    from tests.interop.certificates import Certificates
    from tests.interop.conftest import StartNode, StartTap

TLS = Place("tls")
SEEN = bytes.fromhex("00ff80c3a90c")


def server_for(tls: pyipc.TLS, **options: Any) -> pyipc.Server:
    return pyipc.Server(pyipc.Endpoint("tls://localhost:0", tls=tls, **options))


def where(server: pyipc.Server) -> Place:
    return Place("tls", port=server.addresses[0].port)


def certified(endpoint: Place, tls: pyipc.TLS, **options: Any) -> pyipc.Endpoint:
    return pyipc.Endpoint(endpoint.address, tls=tls, hello=False, **options)


# --- Node calls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", ["insecure", "private CA", "mutual"])
async def test_node_calls(node: StartNode, certificates: Certificates, strength: str) -> None:
    mutual = strength == "mutual"
    tls = {"rejectUnauthorized": False} if strength == "insecure" else certificates.node_client(mutual=mutual)
    with trio.fail_after(50):
        async with server_for(certificates.server_tls(mutual=mutual)) as server:
            heard = Heard(server)
            peer = await node()
            await peer.connect(where(server), on=["answer"], tls=tls)
            await peer.command("emit", id="world", event="ask", data={"a": "é😀"})
            message = await heard.next()
            assert (message.event, message.data) == ("ask", {"a": "é😀"})
            certificate = message.connection.peer.certificate
            assert (certificate is not None) == mutual
            if certificate is not None:
                assert (certificate.subject, certificate.names) == ("client", ("client.example",))
            await message.connection.emit("answer", [1])
            assert (await peer.event("answer"))["data"] == [1]
            await server.broadcast("answer", "all")
            assert (await peer.event("answer"))["data"] == "all"
            assert not peer.seen("error")


async def test_node_calls_without_the_certificate_it_needs(node: StartNode, certificates: Certificates) -> None:
    """node-ipc takes the TCP connection for a success, and tries for ever; the server and another client are well."""
    with trio.fail_after(50):
        async with server_for(certificates.server_tls(mutual=True)) as server:
            heard = Heard(server)
            good, bad = await node(), await node()
            await good.connect(where(server), tls=certificates.node_client(mutual=True))
            await bad.command(
                "connect", id="world", **where(server).node, config={"tls": certificates.node_client(), "retry": 20}
            )
            await bad.event("error")
            await bad.event("disconnect")
            await eventually(lambda: server.statistics().handshake_errors >= 2)
            assert len(server.connections) == 1
            await good.command("emit", id="world", event="ask", data=1)
            assert await heard.take(1) == [("ask", 1)]


async def test_node_calls_and_does_not_trust_us(node: StartNode, certificates: Certificates) -> None:
    with trio.fail_after(50):
        async with server_for(certificates.server_tls()) as server:
            peer = await node()
            tls = {"rejectUnauthorized": True, "trustedConnections": [certificates.other_ca]}
            await peer.command("connect", id="world", **where(server).node, config={"tls": tls})
            error = await peer.event("error")
            assert "certificate" in error["data"]["$error"]
            await eventually(lambda: server.statistics().handshake_errors)
            assert not server.connections


async def test_only_one_certificate_is_allowed(node: StartNode, certificates: Certificates) -> None:
    with trio.fail_after(50):
        async with server_for(certificates.server_tls(mutual=True), allow={"somebody else"}) as server:
            peer = await node()
            await peer.command(
                "connect", id="world", **where(server).node, config={"tls": certificates.node_client(mutual=True)}
            )
            await peer.event("disconnect")
            await eventually(lambda: server.statistics().denied)
            assert not server.connections


async def test_node_calls_with_raw_bytes(node: StartNode, certificates: Certificates) -> None:
    with trio.fail_after(50):
        async with server_for(certificates.server_tls(mutual=True), framing=pyipc.Raw()) as server:

            @server.on("data")
            async def echo(message: pyipc.Message[bytes]) -> None:
                await message.connection.emit("data", message.data)

            peer = await node()
            raw: dict[str, Any] = {"rawBuffer": True, "encoding": "hex", "tls": certificates.node_client(mutual=True)}
            await peer.connect(where(server), on=["data"], **raw)
            await peer.command("emit", id="world", hex=SEEN.hex())
            assert (await peer.event("data"))["data"] == {"$bytes": SEEN.hex()}


# --- Node is called ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", ["insecure", "private CA", "mutual"])
async def test_node_is_called(node: StartNode, certificates: Certificates, strength: str) -> None:
    mutual = strength == "mutual"
    tls = pyipc.TLS(insecure=True) if strength == "insecure" else certificates.client_tls(mutual=mutual)
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(TLS, on=["ask"], echo=["ask"], tls=certificates.node_server(mutual=mutual))
        router = pyipc.Router()
        heard = Heard(router)
        async with pyipc.connect(certified(there, tls), router=router) as client:
            await client.emit("ask", {"a": "é😀"})
            assert (await peer.event("ask"))["data"] == {"a": "é😀"}
            assert await heard.take(1) == [("ask", {"a": "é😀"})]
            assert client.peer is not None
            certificate = client.peer.certificate
            assert (certificate is None) == (strength == "insecure")
            assert certificate is None or certificate.names == ("localhost",)


async def test_node_is_called_without_the_certificate_it_needs(node: StartNode, certificates: Certificates) -> None:
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(TLS, tls=certificates.node_server(mutual=True))
        reasons: list[object] = []
        async with pyipc.connect(
            certified(there, certificates.client_tls()),
            wait=False,
            on_disconnect=reasons.append,
            on_failed_connect=reasons.append,
        ):
            await eventually(lambda: reasons)
        errors = [one.error if isinstance(one, pyipc.Disconnected) else one for one in reasons]
        (error, *_) = errors
        assert isinstance(error, pyipc.HandshakeFailed)
        assert "certificate" in str(error)
        assert not peer.seen("connect")


async def test_node_is_somebody_we_do_not_trust(node: StartNode, certificates: Certificates) -> None:
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(TLS, tls=certificates.node_server())
        with pytest.raises(pyipc.ConnectError) as caught:
            async with pyipc.connect(certified(there, pyipc.TLS(ca=certificates.other_ca)), connect_timeout=5):
                raise AssertionError("it trusted a server that nobody vouches for")
        assert isinstance(caught.value, pyipc.HandshakeFailed)


async def test_the_bytes_inside_are_those_of_node(node: StartNode, certificates: Certificates, tap: StartTap) -> None:
    """No hello, no goodbye; and outside nothing that could be read."""
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(TLS, on=["ask"], tls=certificates.node_server())
        wire = await tap(there)
        seen = Place("tls", port=wire.place.port)
        async with pyipc.connect(certified(seen, certificates.client_tls())) as client:
            await client.emit("ask", "secret")
            await peer.event("ask")
        assert b"secret" not in wire.sent
        assert not peer.seen("error")
        assert frame("ask") not in wire.sent


async def test_plain_text_to_a_node_with_tls(node: StartNode, certificates: Certificates) -> None:
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(TLS, tls=certificates.node_server())
        reasons: list[pyipc.Disconnected] = []
        async with pyipc.connect(
            pyipc.Endpoint(f"tcp://localhost:{there.port}", hello=False), on_disconnect=reasons.append, wait=False
        ) as client:
            await client.emit("ask", 1)
            await eventually(lambda: reasons)
        assert reasons[0].by_peer
