"""Addresses that one process takes and another one serves."""

from __future__ import annotations

import dataclasses
import os
import secrets
import socket
import stat
import struct
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

import pyipc
from pyipc import AddressError, AddressInUse, ConnectError, ConnectionClosed, Endpoint, parse_address
from pyipc.transports import ClaimListener, PipeInstance, transport_for
from pyipc.transports.inherited import InheritedTransport
from tests.certificates import authority_file, leaf, leaf_file
from tests.conftest import CANNOT_RUN, ROOT, is_wine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from pyipc.transports import Carrier, Claim, Link, Transport

    Give = Callable[[Carrier], Awaitable[None]]

IS_WINDOWS = sys.platform == "win32"
posix = pytest.mark.skipif(IS_WINDOWS, reason=f"{CANNOT_RUN} Windows has no Unix sockets")
linux = pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} only Linux has abstract sockets")
windows = pytest.mark.skipif(not IS_WINDOWS, reason=f"{CANNOT_RUN} only Windows has named pipes")

WORKER = textwrap.dedent("""
    import os, socket, sys
    import pyipc, trio
    from pyipc.transports import PipeInstance, transport_for

    scheme, address, certificate, mailbox = sys.argv[1:]
    endpoint = pyipc.Endpoint(address, tls=pyipc.TLS(cert=certificate) if certificate else None)
    server = pyipc.Server()

    @server.on("who")
    def who(message):
        peer = message.connection.peer
        return {"served_by": os.getpid(), "pid": peer.pid, "uid": peer.uid, "sid": peer.sid, "address": peer.address}

    if sys.platform == "win32":
        async def receive():
            line = await trio.to_thread.run_sync(sys.stdin.readline)
            return PipeInstance(int(line)) if line else None
    else:
        mailbox = socket.socket(fileno=int(mailbox))
        async def receive():
            await trio.lowlevel.wait_readable(mailbox)
            data, numbers, *_ = socket.recv_fds(mailbox, 1, 1)
            return socket.socket(fileno=numbers[0]) if data else None

    async def main():
        adopt = transport_for(scheme).adopter(endpoint.parsed, endpoint.listen_options)
        async with server:
            while (carrier := await receive()) is not None:
                server.adopt(adopt(carrier), endpoint)

    trio.run(main)
""")


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    if IS_WINDOWS:
        yield
        return
    before = set(os.listdir("/dev/fd"))
    yield
    assert set(os.listdir("/dev/fd")) == before


@asynccontextmanager
async def another_process(claimant: Claimant, claim: Claim) -> AsyncIterator[tuple[int, Give]]:
    """A process that serves what it is given: its number, and a function that gives it what was accepted."""
    ours, theirs = (None, None) if IS_WINDOWS else socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    inherited: dict[str, Any] = {} if theirs is None else {"pass_fds": [theirs.fileno()]}
    mailbox = "" if theirs is None else theirs.fileno()
    arguments = (claimant.address.scheme, claim.address, claimant.certificate, mailbox)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", WORKER, *map(str, arguments)],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **inherited,
    )

    async def give(carrier: Carrier) -> None:
        if isinstance(carrier, PipeInstance):
            assert process.stdin is not None
            await process.stdin.send_all(b"%d\n" % carrier.duplicate_into(process.pid))
        else:
            assert ours is not None
            socket.send_fds(ours, [b"x"], [carrier.fileno()])
        carrier.close()

    try:
        if theirs is not None:
            theirs.close()
        yield process.pid, give
        if ours is not None:
            ours.close()
        assert process.stdin is not None
        await process.stdin.aclose()
        assert await process.wait() == 0
    finally:
        if ours is not None:
            ours.close()
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


class Claimant:
    """An address of a kind: who takes it, and how clients reach it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.certificate: Path | str = ""
        self.tls: pyipc.TLS | None = None
        self.options: dict[str, object] = {}
        name = f"pyipc-test-{secrets.token_hex(8)}"
        match kind:
            case "fd":
                opened = socket.socket(socket.AF_UNIX)
                opened.bind(str(folder / "s"))
                opened.listen(16)
                text = f"fd:{opened.detach()}"
            case "unix":
                text = f"unix:{folder / 's'}"
            case "abstract":
                text = f"unix:@{name}"
            case "local":
                text = name
            case "node-ipc" | "pipe":
                text = f"{kind}:{name}"
            case _:
                text = f"{kind}://127.0.0.1:0"
        if kind == "tls":
            self.certificate = leaf_file(folder / "server.pem", leaf("127.0.0.1"))
            self.tls = pyipc.TLS(ca=authority_file(folder))
            self.options["tls"] = pyipc.TLS(cert=self.certificate)
        self.address = parse_address(text)
        self.transport: Transport = (
            InheritedTransport(taken=set()) if kind == "fd" else transport_for(self.address.scheme)
        )

    @asynccontextmanager
    async def claimed(self) -> AsyncIterator[Claim]:
        claim = await self.transport.claim(self.address, {})
        try:
            yield claim
        finally:
            with trio.CancelScope(shield=True):
                await claim.aclose()

    def endpoint(self, claim: Claim) -> Endpoint:
        """Where clients connect to."""
        return Endpoint(claim.address, tls=self.tls)

    @property
    def plain(self) -> Transport:
        """What moves the same bytes without more, which nobody need speak TLS for."""
        return transport_for({"tls": "tcp", "fd": "unix"}.get(self.kind, self.address.scheme))

    async def call(self, claim: Claim) -> Link:
        """Be a client that says nothing."""
        scheme = "tcp" if self.kind == "tls" else claim.address.scheme
        return await self.plain.connect(dataclasses.replace(claim.address, scheme=scheme), {})

    @property
    def is_local(self) -> bool:
        return self.kind not in ("tcp", "tls")


KINDS = [
    pytest.param("local"),
    pytest.param("node-ipc"),
    pytest.param("unix", marks=posix),
    pytest.param("abstract", marks=linux),
    pytest.param("fd", marks=posix),
    pytest.param("pipe", marks=windows),
    pytest.param("tcp"),
    pytest.param("tls"),
]
# Sockets are passed on by their descriptors, and instances of pipes by their handles.
PASSED_ON = [
    each if each.values[0] not in ("tcp", "tls") else pytest.param(*each.values, marks=posix) for each in KINDS
]


@pytest.fixture
def claimant(request: pytest.FixtureRequest, tmp_path: Path) -> Claimant:
    return Claimant(request.param, tmp_path)


# --- from one process to another ---


@pytest.mark.parametrize("claimant", PASSED_ON, indirect=True)
async def test_what_one_process_accepts_another_one_serves(claimant: Claimant) -> None:
    async with claimant.claimed() as claim, another_process(claimant, claim) as (pid, give):
        for _ in range(3):
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def accept() -> None:
                    await give(await claim.accept())

                async with pyipc.connect(claimant.endpoint(claim)) as client:
                    told = await client.request("who", timeout=20)
                    large = await client.request("who", "x" * 200_000, timeout=20)
            assert told["served_by"] == large["served_by"] == pid
            if claimant.is_local:  # the kernel knows the client still, although somebody else accepted it
                assert told["pid"] == os.getpid()
                assert told["address"] == str(claim.address)
                assert told["sid"] if IS_WINDOWS else told["uid"] == os.geteuid()
            else:
                assert told["address"].startswith(f"{claimant.kind}://127.0.0.1:")
                assert told["pid"] is None


@pytest.mark.parametrize("claimant", PASSED_ON, indirect=True)
async def test_a_process_that_ends_takes_its_connections_along_and_not_the_address(claimant: Claimant) -> None:
    async with claimant.claimed() as claim:
        for _ in range(2):
            async with another_process(claimant, claim) as (pid, give), trio.open_nursery() as nursery:

                @nursery.start_soon
                async def accept() -> None:
                    await give(await claim.accept())

                async with pyipc.connect(claimant.endpoint(claim)) as client:
                    assert (await client.request("who", timeout=20))["served_by"] == pid


# --- in one process ---


@pytest.mark.parametrize("claimant", KINDS, indirect=True)
async def test_a_claimed_address_is_taken_until_the_claim_is_closed(claimant: Claimant) -> None:
    async with claimant.claimed() as claim:
        assert claimant.is_local or claim.address.port > 0
        if claimant.kind != "fd" and not (
            is_wine() and claimant.is_local
        ):  # which lets anybody make a pipe of that name
            assert dataclasses.replace(claim.address, port=claimant.address.port) == claimant.address
            with pytest.raises(AddressInUse):
                await claimant.transport.claim(claim.address, {})
            with pytest.raises(AddressInUse):
                await claimant.transport.listen(claim.address, claimant.options)
    with pytest.raises(ConnectionClosed):
        await claim.accept()
    if claimant.kind == "fd":
        with pytest.raises(AddressError, match="works once"):
            await claimant.transport.claim(claimant.address, {})
    else:
        await (await claimant.transport.claim(claim.address, {})).aclose()


@pytest.mark.parametrize("claimant", KINDS, indirect=True)
async def test_others_may_accept_on_the_sockets_themselves(claimant: Claimant) -> None:
    async with claimant.claimed() as claim:
        if not claim.sockets:
            assert IS_WINDOWS
            assert claimant.is_local
            return
        for sock in claim.sockets:
            where = sock.getsockname()
            with socket.socket(sock.family) as client:
                client.connect(where)
                accepted, _ = sock.accept()
                accepted.close()


@pytest.mark.parametrize("claimant", KINDS, indirect=True)
async def test_links_of_what_was_accepted(claimant: Claimant) -> None:
    """Listening is a claim, and what its adopter makes of what it accepts."""
    claim = await claimant.transport.claim(claimant.address, claimant.options)
    listener = ClaimListener(claim, claimant.transport.adopter(claim.address, claimant.options))
    assert listener.address == claim.address
    server = pyipc.Server()
    endpoint = Endpoint(claim.address, tls=cast("Any", claimant.options.get("tls")))

    @server.on("who")
    def who(message: pyipc.Message[Any]) -> str:
        return message.connection.peer.address

    async def accept() -> None:
        server.adopt(await listener.accept(), endpoint)

    async with server, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        async with pyipc.connect(claimant.endpoint(claim)) as client:
            assert (await client.request("who")).startswith(f"{claim.address}" if claimant.is_local else claimant.kind)
    await listener.aclose()
    with pytest.raises(ConnectionClosed):
        await listener.accept()


@pytest.mark.parametrize("claimant", KINDS, indirect=True)
async def test_whoever_waits_in_line_is_handed_out_when_a_claim_retires(claimant: Claimant) -> None:
    async with claimant.claimed() as claim:
        links = [await claimant.call(claim) for _ in range(3)]
        first = await claim.accept()
        waiting = list(claim.retire())
        assert len(waiting) == 2
        if claimant.kind in ("local", "unix", "node-ipc") and sys.platform == "linux":
            with pytest.raises(ConnectError):
                await claimant.call(claim)
        await claim.aclose()
        adopt = claimant.plain.adopter(claim.address, {})
        for carrier in (first, *waiting):
            link = adopt(carrier)
            await link.send(b"hello")
            await link.aclose()
        for link in links:
            assert await link.receive() == b"hello"
            await link.aclose()


@pytest.mark.parametrize("claimant", KINDS, indirect=True)
async def test_many_at_once(claimant: Claimant) -> None:
    async with claimant.claimed() as claim:
        adopt = claimant.plain.adopter(claim.address, {})

        async def ask(number: int) -> None:
            link = await claimant.call(claim)
            await link.send(bytes([number]))
            assert await link.receive() == bytes([number, number])
            await link.aclose()

        async def answer(carrier: Carrier) -> None:
            link = adopt(carrier)
            await link.send(await link.receive() * 2)
            assert await link.receive() == b""
            await link.aclose()

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, number)
            for _ in range(40):
                nursery.start_soon(answer, await claim.accept())


@pytest.mark.parametrize("claimant", KINDS, indirect=True)
async def test_a_cancelled_accept_loses_nobody_and_closing_wakes_it(claimant: Claimant) -> None:
    async with claimant.claimed() as claim:
        for _ in range(3):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(claim.accept)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught
        link = await claimant.call(claim)
        carrier = await claim.accept()
        carrier.close()
        assert await link.receive() == b""
        await link.aclose()

        async def accept() -> None:
            with pytest.raises(ConnectionClosed):
                await claim.accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await claim.aclose()
            assert scope.cancelled_caught


# --- what goes with an address ---


@posix
async def test_the_path_goes_with_the_claim_and_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "s"
    transport = transport_for("unix")
    claim = await transport.claim(parse_address(f"unix:{path}"), {"mode": 0o660, "group": os.getgid()})
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert sorted(each.name for each in tmp_path.iterdir()) == ["s", "s.lock"]
    await claim.aclose()
    await claim.aclose()
    assert list(tmp_path.iterdir()) == []


@posix
async def test_an_inherited_socket_is_not_shut_by_who_retires(tmp_path: Path) -> None:
    claimant = Claimant("fd", tmp_path)
    async with claimant.claimed() as claim:
        shared = claim.sockets[0].dup()
        with shared:
            assert list(claim.retire()) == []
            await claim.aclose()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "s"))
                shared.accept()[0].close()


# --- what cannot be ---


@pytest.mark.parametrize("text", ["memory:x", "udp://127.0.0.1:0"])
async def test_what_stays_inside_a_process(text: str) -> None:
    address = parse_address(text)
    transport = transport_for(address.scheme)
    for attempt in (transport.claim, transport.adopter):
        with pytest.raises(AddressError, match="cannot be shared between processes; listen there in one process only"):
            result = attempt(address, {})
            await cast("Any", result)


@pytest.mark.parametrize("claimant", KINDS, indirect=True)
async def test_an_option_that_does_not_exist(claimant: Claimant) -> None:
    with pytest.raises(TypeError, match="no option 'color'"):
        await claimant.transport.claim(claimant.address, {"color": "red"})
    with pytest.raises(TypeError, match="no option 'color'"):
        claimant.transport.adopter(claimant.address, {"color": "red"})
    if claimant.kind == "fd":
        os.close(int(claimant.address.name))


@pytest.mark.parametrize("claimant", KINDS, indirect=True)
async def test_something_else_than_what_is_accepted_there(claimant: Claimant) -> None:
    adopt = claimant.transport.adopter(claimant.address, claimant.options)
    with pytest.raises(TypeError, match="what is accepted on"):
        adopt(cast("Any", "a socket"))
    if claimant.kind == "fd":
        os.close(int(claimant.address.name))


def test_without_a_certificate_nothing_can_be_adopted(tmp_path: Path) -> None:
    address = parse_address("tls://127.0.0.1:1")
    with pytest.raises(AddressError, match="certificate"):
        transport_for("tls").adopter(address, {})
    with pytest.raises(AddressError, match="certificate"):
        transport_for("tls").adopter(address, {"tls": pyipc.TLS(ca=authority_file(tmp_path))})


async def test_settings_that_are_none() -> None:
    with pytest.raises(TypeError, match="tls"):
        await transport_for("tls").claim(parse_address("tls://127.0.0.1:0"), {"tls": "server.pem"})


@posix
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_inherited_sockets_that_do_not_listen(kind: socket.SocketKind) -> None:
    if kind is socket.SOCK_STREAM:
        sock, other = socket.socketpair()
    else:
        sock = other = socket.socket(socket.AF_INET, kind)
        sock.bind(("127.0.0.1", 0))
    with sock, other, pytest.raises(AddressError, match="does not listen"):
        await InheritedTransport(taken=set()).claim(parse_address(f"fd:{sock.fileno()}"), {})


@posix
async def test_tls_over_an_inherited_unix_socket(tmp_path: Path) -> None:
    """Whoever asked for encryption must not get a plain link."""
    tls = pyipc.TLS(cert=leaf_file(tmp_path / "server.pem", leaf("127.0.0.1")))
    transport = InheritedTransport(taken=set())
    with pytest.raises(AddressError, match="for TCP sockets"):
        transport.adopter(parse_address("unix:/run/app.sock"), {"tls": tls})
    adopt = transport.adopter(parse_address("fd:3"), {"tls": tls})
    left, right = socket.socketpair()
    with left, right, pytest.raises(AddressError, match="for TCP sockets"):
        adopt(left)


@posix
async def test_a_connection_that_broke_on_its_way(tmp_path: Path) -> None:
    """It is still the caller's, who closes it."""
    async with Claimant("tcp", tmp_path).claimed() as claim:
        with socket.create_connection(("127.0.0.1", claim.address.port or 0)) as client:
            carrier = await claim.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert isinstance(carrier, socket.socket)
        await trio.lowlevel.wait_readable(carrier)
        with carrier, pytest.raises(OSError, match="not connected"):
            transport_for("tcp").adopter(claim.address, {})(carrier)
        assert carrier.fileno() < 0
