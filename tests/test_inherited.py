"""Inherited sockets in one process: what is taken, what is refused and left alone, and the sentences."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc import parse_address
from pyipc.errors import AddressError, ConnectionClosed
from pyipc.transports import Place
from pyipc.transports.inherited import InheritedTransport
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pyipc.transports import Listener

    Give = Callable[[socket.socket], int]
    GiveAll = Callable[..., list[int]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows passes sockets on otherwise")

SYSTEMD = {"LISTEN_PID": str(os.getpid())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def descriptors() -> Iterator[Give]:
    """Gives a socket's descriptor away, and closes it in the end if nobody took it."""
    given: list[tuple[int, tuple[int, int]]] = []

    def give(sock: socket.socket) -> int:
        descriptor = sock.detach()
        given.append((descriptor, identity(descriptor)))
        return descriptor

    yield give
    for descriptor, was in given:
        with contextlib.suppress(OSError):
            if identity(descriptor) == was:
                os.close(descriptor)


def identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def unix_listener(path: Path, name: str = "socket") -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path / name))
    sock.listen()
    return sock


def tcp_listener(family: int = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family)
    sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    sock.listen()
    return sock


def transport(**more: Any) -> InheritedTransport:
    return InheritedTransport(taken=set(), **more)


def is_untouched(descriptor: int) -> bool:
    return os.get_inheritable(descriptor) and os.get_blocking(descriptor)


# --- what is taken ----------------------------------------------------------------------------------------------


async def test_a_listening_unix_socket(folder: Path, descriptors: Give) -> None:
    descriptor = descriptors(unix_listener(folder))
    os.set_inheritable(descriptor, True)
    router = pyipc.Router()
    router.on("who", lambda message: [message.connection.peer.uid, message.connection.peer.pid])
    endpoint = pyipc.Endpoint(f"fd:{descriptor}", transport=transport())
    async with pyipc.Server(endpoint, router=router) as server:
        assert [str(address) for address in server.addresses] == [f"unix:{folder}/socket"]
        assert not os.get_inheritable(descriptor)
        assert not os.get_blocking(descriptor)
        async with pyipc.connect(server.addresses[0]) as client:
            assert await client.request("who") == [os.getuid(), os.getpid()]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert (folder / "socket").is_socket()  # it belongs to whoever made it


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_a_listening_tcp_socket(family: int, descriptors: Give) -> None:
    try:
        sock = tcp_listener(family)
    except OSError:
        pytest.skip(f"{CANNOT_RUN} there is no IPv6")
    host, port = sock.getsockname()[:2]
    endpoint = pyipc.Endpoint(f"fd:{descriptors(sock)}", transport=transport())
    router = pyipc.Router()
    router.on("who", lambda message: message.connection.peer.host)
    async with pyipc.Server(endpoint, router=router) as server:
        assert (server.addresses[0].scheme, server.addresses[0].host, server.addresses[0].port) == ("tcp", host, port)
        async with pyipc.connect(server.addresses[0]) as client:
            assert await client.request("who") == host


@pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} only Linux has abstract sockets")
async def test_an_abstract_socket_says_its_name(folder: Path, descriptors: Give) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0pyipc-test-{os.getpid()}-{folder.name}")
    sock.listen()
    listener = await transport().listen(parse_address(f"fd:{descriptors(sock)}"), {})
    assert str(listener.address) == f"unix:@pyipc-test-{os.getpid()}-{folder.name}"
    await listener.aclose()


async def test_a_socket_that_no_client_could_name_keeps_its_own_address(
    folder: Path, monkeypatch: pytest.MonkeyPatch, descriptors: Give
) -> None:
    monkeypatch.chdir(folder)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("relative")
    sock.listen()
    address = parse_address(f"fd:{descriptors(sock)}")
    listener = await transport().listen(address, {})
    assert listener.address == address
    await listener.aclose()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with tcp_listener() as listener:
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client


async def test_a_start_that_fails_for_another_address_leaves_it_for_the_next() -> None:
    sock = tcp_listener()
    where = sock.getsockname()
    endpoint = pyipc.Endpoint(f"fd:{sock.detach()}", transport=transport())
    async with pyipc.Server("tcp://127.0.0.1:0") as other:
        with pytest.raises(pyipc.AddressInUse):
            await pyipc.Server(endpoint, other.addresses[0]).run()
    async with pyipc.Server(endpoint, other.addresses[0]) as server:
        assert [str(address) for address in server.addresses] == [
            f"tcp://127.0.0.1:{where[1]}",
            str(other.addresses[0]),
        ]
        async with pyipc.connect(f"tcp://127.0.0.1:{where[1]}"):
            pass


@pytest.mark.parametrize("make", [socket.socketpair, tcp_pair])
async def test_a_connection_has_one_peer_on_each_side(
    make: Callable[[], tuple[socket.socket, socket.socket]], descriptors: Give
) -> None:
    served, dialed = map(descriptors, make())
    router = pyipc.Router()
    router.on("add", lambda message: sum(message.data))
    endpoints = [pyipc.Endpoint(f"fd:{each}", transport=transport()) for each in (served, dialed)]
    async with pyipc.Server(endpoints[0], router=router) as server:
        assert [str(address) for address in server.addresses] == [f"fd:{served}"]
        async with pyipc.connect(endpoints[1]) as client:
            assert await client.request("add", [1, 2]) == 3
            assert not os.get_inheritable(served)
            assert not os.get_inheritable(dialed)
            assert len(server.connections) == 1
            [connection] = server.connections
            if make is tcp_pair:
                assert connection.peer.host == "127.0.0.1"
                assert connection.peer.address.startswith("tcp://127.0.0.1:")
            else:
                assert connection.peer.uid == os.getuid()


async def accept_until_closed(listener: Listener) -> None:
    with pytest.raises(ConnectionClosed):
        await listener.accept()


async def test_a_listener_on_a_connection_waits_after_its_peer(descriptors: Give) -> None:
    served, dialed = socket.socketpair()
    with dialed:
        listener = await transport().listen(parse_address(f"fd:{descriptors(served)}"), {})
        assert "waiting" in repr(listener)
        link = await listener.accept()
        assert "taken" in repr(listener)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_until_closed, listener)
            await trio.testing.wait_all_tasks_blocked()
            await listener.aclose()
        await accept_until_closed(listener)
        assert "closed" in repr(listener)
        await link.send(b"still open")
        assert dialed.recv(100) == b"still open"
        await link.aclose()


async def test_a_connection_that_nobody_accepted_is_closed_with_its_listener(
    descriptors: Give,
) -> None:
    served, dialed = socket.socketpair()
    with dialed:
        listener = await transport().listen(parse_address(f"fd:{descriptors(served)}"), {})
        await listener.aclose()
        await listener.aclose()
        assert dialed.recv(1) == b""
        await accept_until_closed(listener)


# --- once -------------------------------------------------------------------------------------------------------


async def test_a_descriptor_is_taken_once_in_a_process(folder: Path, descriptors: Give) -> None:
    address = parse_address(f"fd:{descriptors(unix_listener(folder))}")
    one = transport()
    listener = await one.listen(address, {})
    for again in (one.listen, one.connect):
        with pytest.raises(AddressError, match=f"{address} cannot be used again"):
            await again(address, {})
    await listener.aclose()
    # Another file may have the number by now.
    stranger = unix_listener(folder, "stranger")
    if stranger.fileno() != int(address.name):
        os.dup2(stranger.fileno(), int(address.name))
        stranger.close()
        stranger = socket.socket(fileno=int(address.name))
    with stranger, pytest.raises(AddressError, match="cannot be used again"):
        await one.listen(address, {})


def test_the_transports_of_both_schemes_share_what_was_taken() -> None:
    by_number, by_name = (pyipc.transports.transport_for(scheme) for scheme in ("fd", "systemd"))
    assert isinstance(by_number, InheritedTransport)
    assert isinstance(by_name, InheritedTransport)
    assert by_number._taken is by_name._taken


async def test_a_client_whose_connection_ends_gives_up(descriptors: Give) -> None:
    served, dialed = socket.socketpair()
    endpoint = pyipc.Endpoint(f"fd:{descriptors(dialed)}", transport=transport())
    async with pyipc.connect(endpoint, reconnect_interval=0.0) as client:
        served.close()
        with pytest.raises(AddressError, match="cannot be used again"):
            while True:
                await client.wait_connected()
                await trio.lowlevel.checkpoint()
        assert client.statistics().connects == 1


# --- what is refused, and left as it was ------------------------------------------------------------------------


def bound(kind: int, family: int = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: bound(socket.SOCK_STREAM), "neither listens nor is connected; call listen"),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "has no port yet; call bind"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), "is neither a stream nor of UDP"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), "is neither a stream nor of UDP"),
    ],
)
async def test_a_socket_of_another_kind(make: Callable[[], socket.socket], sentence: str, descriptors: Give) -> None:
    descriptor = descriptors(make())
    os.set_inheritable(descriptor, True)
    address = parse_address(f"fd:{descriptor}")
    inherited = transport()
    for use in (inherited.listen, inherited.connect):
        with pytest.raises(AddressError, match=sentence) as caught:
            await use(address, {})
        assert str(caught.value).startswith(f"{address} cannot be used: the socket on descriptor {descriptor} ")
    assert is_untouched(descriptor)
    [place] = inherited.places(address)
    assert re.search(sentence, place.obstacle or "")


async def test_what_is_no_socket(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    with pytest.raises(AddressError, match=f"descriptor {number} is not a socket"):
        await transport().listen(parse_address(f"fd:{number}"), {})
    os.close(number)
    with pytest.raises(AddressError, match=f"descriptor {number} is not open .*pass_fds="):
        await transport().listen(parse_address(f"fd:{number}"), {})


async def test_a_client_cannot_use_a_listening_socket(folder: Path, descriptors: Give) -> None:
    descriptor = descriptors(unix_listener(folder))
    os.set_inheritable(descriptor, True)
    inherited = transport()
    with pytest.raises(AddressError, match="it is for a server, which listens on it"):
        await inherited.connect(parse_address(f"fd:{descriptor}"), {})
    assert is_untouched(descriptor)
    listener = await inherited.listen(parse_address(f"fd:{descriptor}"), {})  # so it is still there for one
    await listener.aclose()


async def test_options_of_other_transports_are_refused(folder: Path, descriptors: Give) -> None:
    address = parse_address(f"fd:{descriptors(unix_listener(folder))}")
    with pytest.raises(TypeError, match=f"listening on {address} has no option 'mode'"):
        await transport().listen(address, {"mode": 0o600})
    with pytest.raises(TypeError, match=f"connecting to {address} has no option 'group'"):
        await transport().connect(address, {"group": 5})


@pytest.mark.parametrize("text", ["fd:3", "systemd:"])
async def test_windows_is_told_what_to_use_instead(text: str) -> None:
    with pytest.raises(AddressError, match=r"on Windows .* use a bare name, or tcp://127\.0\.0\.1:port"):
        await transport(platform="win32").listen(parse_address(text), {})


# --- systemd ----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_a_row(monkeypatch: pytest.MonkeyPatch, descriptors: Give) -> GiveAll:
    """Gives sockets the numbers that systemd would begin with; the real ones, from 3, are pytest's here."""

    def renumber(*sockets: socket.socket) -> list[int]:
        numbers = []
        for number, sock in enumerate(sockets, start=300):
            with sock:
                os.dup2(sock.fileno(), number)
            numbers.append(descriptors(socket.socket(fileno=number)))
        monkeypatch.setattr("pyipc.transports.activation._FIRST_DESCRIPTOR", 300)
        return numbers

    return renumber


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, r"passed no sockets to this process \(LISTEN_FDS is not set\); start it by its .socket unit"),
        ({"LISTEN_FDS": "1"}, r"\(LISTEN_PID is not set\)"),
        (
            {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
            rf"to process 1, and this is {os.getpid()}; start Python",
        ),
        ({**SYSTEMD, "LISTEN_FDS": "0"}, "passed 0 sockets"),
        ({**SYSTEMD, "LISTEN_FDS": "1000000"}, "passed 1000000 sockets"),
        ({**SYSTEMD, "LISTEN_FDS": "many"}, "LISTEN_FDS is 'many', which is not a number"),
        ({**SYSTEMD, "LISTEN_FDS": "9" * 5_000}, "which is not a number"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "-1"}, "LISTEN_PID is '-1'"),
        ({**SYSTEMD, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, r"2 sockets \(LISTEN_FDS\) and 1 names"),
        (
            {**SYSTEMD, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "b:a:b"},
            "no socket of this name; there are a, b. Set FileDescriptorName=",
        ),
        ({**SYSTEMD, "LISTEN_FDS": "1"}, "no socket of this name; there are unknown"),
    ],
)
async def test_what_is_wrong_with_the_variables_is_a_sentence(variables: dict[str, str], sentence: str) -> None:
    inherited = transport(environment=variables)
    address = parse_address("systemd:web")
    with pytest.raises(AddressError, match=sentence) as caught:
        await inherited.listen(address, {})
    assert str(caught.value).startswith("systemd:web cannot be used: ")
    with pytest.raises(AddressError, match=sentence):
        inherited.places(address)


async def test_several_sockets_of_one_name_are_listened_on_together(folder: Path, in_a_row: GiveAll) -> None:
    numbers = in_a_row(unix_listener(folder), tcp_listener(), unix_listener(folder, "other"))
    variables = {**SYSTEMD, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:web:admin"}
    inherited = transport(environment=variables)
    port = str(inherited.places(parse_address(f"fd:{numbers[1]}"))[0].name).rpartition(":")[2]
    assert list(inherited.places(parse_address("systemd:"))) == [
        Place(f"descriptor {numbers[0]}, listening on unix:{folder}/socket"),
        Place(f"descriptor {numbers[1]}, listening on tcp://127.0.0.1:{port}"),
        Place(f"descriptor {numbers[2]}, listening on unix:{folder}/other"),
    ]
    router = pyipc.Router()
    router.on("who", lambda message: [message.connection.peer.uid, message.connection.peer.host])
    web = pyipc.Endpoint("systemd:web", transport=inherited)
    admin = pyipc.Endpoint("systemd:admin", transport=inherited)
    async with pyipc.Server(web, admin, router=router) as server:
        assert [str(address) for address in server.addresses] == [f"unix:{folder}/socket", f"unix:{folder}/other"]
        for address, who in (
            (f"unix:{folder}/socket", [os.getuid(), None]),
            (f"tcp://127.0.0.1:{port}", [None, "127.0.0.1"]),
            (f"unix:{folder}/other", [os.getuid(), None]),
        ):
            async with pyipc.connect(address) as client:
                assert await client.request("who") == who
        with pytest.raises(AddressError, match="systemd: cannot be used again"):
            await inherited.listen(parse_address("systemd:"), {})


async def test_of_several_sockets_all_must_listen(folder: Path, in_a_row: GiveAll) -> None:
    connected, other = socket.socketpair()
    numbers = in_a_row(unix_listener(folder), connected)
    inherited = transport(environment={**SYSTEMD, "LISTEN_FDS": "2"})
    with (
        other,
        pytest.raises(
            AddressError, match=r"its 2 sockets must all listen.* they are listening \(300\), connected \(301\)\. Give"
        ),
    ):
        await inherited.listen(parse_address("systemd:"), {})
    assert all(map(is_untouched, numbers))


async def test_one_bad_socket_leaves_the_others_to_whoever_comes_next(folder: Path, in_a_row: GiveAll) -> None:
    in_a_row(unix_listener(folder), bound(socket.SOCK_STREAM))
    inherited = transport(environment={**SYSTEMD, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "good:bad"})
    with pytest.raises(AddressError, match="neither listens nor is connected"):
        await inherited.listen(parse_address("systemd:"), {})
    listener = await inherited.listen(parse_address("systemd:good"), {})
    await listener.aclose()


# --- who may come in --------------------------------------------------------------------------------------------


def test_a_peer_on_another_host_needs_a_word_of_permission() -> None:
    stranger = pyipc.transports.Peer(address="tcp://192.0.2.1:5", host="192.0.2.1")
    for text in ("fd:3", "systemd:web"):
        with pytest.raises(pyipc.PeerNotAllowed, match=r"allow=pyipc\.ANYONE"):
            pyipc.Endpoint(text).admit(stranger)
        pyipc.Endpoint(text, allow=pyipc.ANYONE).admit(stranger)
        pyipc.Endpoint(text).admit(pyipc.transports.Peer(address="tcp://127.0.0.1:5", host="127.0.0.1"))
