"""Socket links and listeners, and the transport of bare names, ``unix:`` and ``node-ipc:`` addresses."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from pyipc.errors import (
    AddressError,
    AddressInUse,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ListenError,
    UnsafePath,
)
from pyipc.protocol.addresses import Address, parse_address
from pyipc.transports import credentials, unix
from pyipc.transports.port import Peer
from pyipc.transports.sockets import SocketLink, SocketListener
from pyipc.transports.unix import UnixTransport
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pyipc.transports.port import Link, Listener

grp = pytest.importorskip("grp", reason=f"{CANNOT_RUN} needs Unix domain sockets")

ME = (os.getpid(), os.geteuid(), os.getegid())
only_linux = pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} needs Linux")


@pytest.fixture
def place() -> Iterator[Path]:
    """A private directory with a short path: that of pytest is too long for sockets on macOS."""
    directory = Path(tempfile.mkdtemp(prefix="pyipc-", dir=os.path.realpath("/tmp")))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
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


def pair() -> tuple[SocketLink, SocketLink]:
    left, right = socket.socketpair()
    return SocketLink(left, Peer(address="left")), SocketLink(right, Peer(address="right"))


async def receive_exactly(link: Link, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = await link.receive()
        assert chunk, "the stream ended too early"
        data += chunk
    return bytes(data)


def fill(link: Link) -> int:
    """Send without waiting until nothing more goes."""
    total = 0
    while taken := link.send_nowait(bytes(65536)):
        total += taken
    return total


# --- links ------------------------------------------------------------------------------------------------------


async def test_a_link_carries_bytes_both_ways() -> None:
    left, right = pair()
    async with closing(left, right):
        with trio.fail_after(5):
            assert left.send_nowait(b"one") == 3
            assert await right.receive() == b"one"
            await right.send(bytearray(b"two"))
            assert await left.receive() == b"two"
            await right.send(memoryview(b"-three-")[1:6])
            assert await left.receive() == b"three"
            assert left.peer == Peer(address="left")


async def test_a_receiver_that_is_woken_has_lost_nothing() -> None:
    left, right = pair()
    async with closing(left, right):
        with trio.fail_after(5):
            for number in range(20):
                async with trio.open_nursery() as nursery:

                    async def receive() -> None:
                        with pytest.raises(trio.WouldBlock):
                            await right.receive()

                    nursery.start_soon(receive)
                    await trio.testing.wait_all_tasks_blocked()
                    right.wake_receiver()
                    right.wake_receiver()
                    left.send_nowait(b"%d" % number)
                assert await right.receive() == b"%d" % number
                right.send_nowait(b"back")
                assert await left.receive() == b"back"


async def test_to_wake_a_receiver_that_is_not_there_does_nothing() -> None:
    left, right = pair()
    async with closing(left, right):
        with trio.fail_after(5):
            right.wake_receiver()
            left.send_nowait(b"here")
            assert await right.receive() == b"here"


async def test_bytes_that_came_before_the_wake_are_received() -> None:
    left, right = pair()
    got: list[bytes] = []
    async with closing(left, right):

        async def receive() -> None:
            got.append(await right.receive())

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                left.send_nowait(b"first")
                # The receiver's turn comes with or after ours; either way it reads, since it is not asleep any more.
                await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked()
                right.wake_receiver()
    assert got == [b"first"]


async def test_a_sender_that_waits_is_not_disturbed_by_a_wake() -> None:
    left, right = pair()
    data = os.urandom(1 << 20)
    got = bytearray()
    async with closing(left, right):

        async def receive() -> None:
            with pytest.raises(trio.WouldBlock):
                await left.receive()

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.send, data)
                while len(got) < len(data):
                    async with trio.open_nursery() as inner:
                        inner.start_soon(receive)
                        await trio.testing.wait_all_tasks_blocked()
                        left.wake_receiver()
                    got += await right.receive()
            right.send_nowait(b"done")
            assert await left.receive() == b"done"
    assert got == data


async def test_a_link_that_is_closed_and_woken_is_lost() -> None:
    left, right = pair()
    async with closing(left, right):

        async def receive() -> None:
            with pytest.raises(ConnectionLost):
                await right.receive()

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                right.wake_receiver()
                await right.aclose()  # before the receiver has had its turn
            with pytest.raises(ConnectionLost):
                await right.receive()


async def test_a_wake_is_not_lost_on_a_receiver_that_the_kernel_woke_for_nothing() -> None:
    """The receiver is awake already when it is to be woken, and then there is nothing to read."""

    class Fickle(socket.socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            link.wake_receiver()
            super().recv(size, flags)
            raise BlockingIOError

    left, other = socket.socketpair()
    link = SocketLink(Fickle(fileno=left.detach()), Peer(address="left"))
    right = SocketLink(other, Peer(address="right"))
    async with closing(link, right):
        with trio.fail_after(5):
            right.send_nowait(b"x")
            with pytest.raises(trio.WouldBlock):
                await link.receive()


async def test_a_large_chunk_arrives_whole_while_the_reader_is_slow() -> None:
    left, right = pair()
    data = os.urandom(1 << 16) * 64
    async with closing(left, right):
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.send, data)
                await trio.testing.wait_all_tasks_blocked()
                assert await receive_exactly(right, len(data)) == data


async def test_reads_grow_while_much_comes_in_and_shrink_again() -> None:
    left, right = pair()
    left._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    async with closing(left, right):
        with trio.fail_after(10):
            sizes = []
            for much in (True, True, True, True, False, True):
                if much:
                    with contextlib.suppress(ConnectionLost):
                        fill(left)
                    sizes.append(len(await right.receive()))
                else:
                    while right._socket.recv(65536, socket.MSG_PEEK):
                        await right.receive()
                        with contextlib.suppress(BlockingIOError):
                            right._socket.recv(1, socket.MSG_PEEK)
                            continue
                        break
                    left.send_nowait(b"little")
                    assert await right.receive() == b"little"
            assert max(sizes) <= 256 * 1024
            assert sizes[0] == sizes[-1] == 64 * 1024
            if sys.platform == "linux":
                assert sizes[1:4] == [128 * 1024, 256 * 1024, 256 * 1024]


async def test_sending_and_receiving_let_other_tasks_run() -> None:
    left, right = pair()
    async with closing(left, right):
        with trio.fail_after(5):
            with trio.testing.assert_checkpoints():
                await left.send(b"x")
            with trio.testing.assert_checkpoints():
                await left.send(b"")
            with trio.testing.assert_checkpoints():
                assert await right.receive() == b"x"
            with trio.testing.assert_checkpoints():
                await right.aclose()


async def test_a_cancelled_receive_loses_nothing() -> None:
    left, right = pair()
    async with closing(left, right):
        left.send_nowait(b"x")
        with trio.CancelScope() as scope:
            scope.cancel()
            await right.receive()
        assert scope.cancelled_caught
        with trio.fail_after(5):
            assert await right.receive() == b"x"


async def test_send_waits_for_room_and_can_be_cancelled() -> None:
    left, right = pair()
    async with closing(left, right):
        fill(left)
        assert left.send_nowait(b"x") == 0
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.send, b"x")
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        buffer = bytearray(b"not locked any more")
        with trio.CancelScope() as scope:
            scope.cancel()
            await left.send(buffer)
        buffer.clear()


async def test_half_close_leaves_the_other_direction_open() -> None:
    left, right = pair()
    async with closing(left, right):
        with trio.fail_after(5):
            left.send_nowait(b"last words")
            assert left.send_eof()
            assert await right.receive() == b"last words"
            assert await right.receive() == b""
            assert await right.receive() == b""
            await right.send(b"still here")
            assert await left.receive() == b"still here"
            with pytest.raises(ConnectionLost, match="the link to left is broken"):
                left.send_nowait(b"x")
            await right.aclose()
            assert left.send_eof()


async def test_a_vanished_peer_is_the_end_for_the_reader_and_an_error_for_the_writer() -> None:
    left, right = pair()
    async with closing(left, right):
        with trio.fail_after(5):
            await right.aclose()
            assert await left.receive() == b""
            for attempt in (left.send_nowait, left.send):
                with pytest.raises(ConnectionLost, match="the link to left is broken") as caught:
                    result = attempt(b"x")
                    if not isinstance(result, int):
                        await result
                assert isinstance(caught.value.__cause__, OSError)
                assert caught.value.maybe_handled


@only_linux
async def test_a_peer_that_closes_with_unread_bytes_breaks_the_link() -> None:
    left, right = pair()
    async with closing(left, right):
        with trio.fail_after(5):
            left.send_nowait(b"never read")
            await right.aclose()
            with pytest.raises(ConnectionLost, match="reset") as caught:
                await left.receive()
            assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_closing_wakes_whoever_sends_or_receives() -> None:
    left, right = pair()
    woken: list[str] = []

    async def waits_in_receive() -> None:
        with pytest.raises(ConnectionLost, match="closed on this side"):
            await left.receive()
        woken.append("receive")

    async def waits_in_send() -> None:
        with pytest.raises(ConnectionLost, match="closed on this side"):
            await left.send(b"x")
        woken.append("send")

    async with closing(left, right):
        fill(left)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waits_in_receive)
                nursery.start_soon(waits_in_send)
                await trio.testing.wait_all_tasks_blocked()
                await left.aclose()
    assert sorted(woken) == ["receive", "send"]


async def test_closing_a_reader_that_was_just_woken_is_still_an_end() -> None:
    """The bytes are there and trio has decided to run the reader, when another task closes the link."""
    left, right = pair()
    seen: list[str] = []

    async def read() -> None:
        try:
            seen.append((await left.receive()).decode())
        except ConnectionLost as error:
            seen.append(str(error))

    async with closing(left, right):
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                right.send_nowait(b"x")
                await left.aclose()
    assert seen == ["the link to left is closed on this side"]


async def test_a_closed_link_stays_closed() -> None:
    left, right = pair()
    async with closing(right):
        with trio.fail_after(5):
            await left.aclose()
            await left.aclose()
            for attempt in (left.receive, lambda: left.send(b"x")):
                with pytest.raises(ConnectionLost, match="closed on this side"):
                    await attempt()
            with pytest.raises(ConnectionLost, match="closed on this side"):
                left.send_nowait(b"x")
            assert left.send_eof()
            assert await right.receive() == b""
    assert repr(left) == "<SocketLink to left, closed>"


async def test_a_cancelled_close_closes() -> None:
    left, right = pair()
    async with closing(right):
        with trio.CancelScope() as scope:
            scope.cancel()
            await left.aclose()
        with trio.fail_after(5):
            assert await right.receive() == b""


async def test_readiness_that_turns_out_false_is_waited_out() -> None:
    class Moody(socket.socket):
        """Ready, and then not: as with a datagram whose checksum is wrong, or after a signal."""

        moods = 4

        def recv(self, *args: int) -> bytes:
            Moody.moods -= 1
            if Moody.moods >= 2:
                raise BlockingIOError
            return super().recv(*args)

        def send(self, *args: Any) -> int:
            Moody.moods -= 1
            if Moody.moods >= 0:
                raise BlockingIOError
            return super().send(*args)

    left, right = socket.socketpair()
    moody = SocketLink(Moody(fileno=left.detach()), Peer(address="moody"))
    link = SocketLink(right, Peer(address="right"))
    async with closing(moody, link):
        with trio.fail_after(5):
            link.send_nowait(b"x")
            assert await moody.receive() == b"x"
            await moody.send(b"y")
            assert await link.receive() == b"y"
            assert Moody.moods == -1


# --- listeners --------------------------------------------------------------------------------------------------


class Faulty(socket.socket):
    """A listening socket whose next calls of ``accept`` fail as the test says."""

    def fail_with(self, *errors: OSError) -> None:
        self.errors = list(errors)

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            raise self.errors.pop(0)
        return super().accept()


def plain_link(sock: socket.socket) -> SocketLink:
    return SocketLink(sock, Peer(address="plain"))


def faulty_listener(place: Path) -> tuple[Faulty, SocketListener]:
    faulty = Faulty(socket.AF_UNIX)
    faulty.fail_with()
    faulty.bind(str(place / "s"))
    faulty.listen(10)
    return faulty, SocketListener([faulty], Address("unix", str(place / "s")), adopt=plain_link)


def call(place: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(place / "s"))
    return sock


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_lack_of_means_is_told_to_the_caller(place: Path, code: int) -> None:
    faulty, listener = faulty_listener(place)
    async with closing(listener):
        with call(place), trio.fail_after(5):
            faulty.fail_with(OSError(code, os.strerror(code)))
            with pytest.raises(OSError, match=os.strerror(code)) as caught:
                await listener.accept()
            assert caught.value.errno == code
            await (await listener.accept()).aclose()


async def test_peers_that_are_gone_already_are_passed_over(place: Path) -> None:
    faulty, listener = faulty_listener(place)
    async with closing(listener):
        with call(place), trio.fail_after(5):
            gone = (errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.EHOSTUNREACH)
            faulty.fail_with(*(OSError(code, os.strerror(code)) for code in gone))
            await (await listener.accept()).aclose()
            assert faulty.errors == []


async def test_a_crowd_does_not_starve_other_tasks(place: Path) -> None:
    """No task that accepts waits for anything else here, so it alone must give way."""
    _, listener = faulty_listener(place)
    turns: list[int] = []
    links: list[Link] = []

    async def watch() -> None:
        while True:
            turns.append(len(links))
            await trio.lowlevel.checkpoint()

    async with closing(listener):
        with trio.fail_after(10), contextlib.ExitStack() as callers:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                for _ in range(20):
                    for _ in range(10):
                        callers.enter_context(call(place))
                    for _ in range(10):
                        links.append(await listener.accept())  # noqa: PERF401
                nursery.cancel_scope.cancel()
        async with closing(*links):
            steps = [after - before for before, after in zip([0, *turns], [*turns, len(links)], strict=True)]
            # Trio runs the tasks of one turn in any order, so two shares of 16 may come together.
            assert max(steps) <= 32


async def test_a_peer_is_not_left_hanging_when_the_program_is_interrupted(place: Path) -> None:
    def adopt(_sock: socket.socket) -> SocketLink:
        raise KeyboardInterrupt

    _, plain = faulty_listener(place)
    listener = SocketListener(plain._claim.sockets, plain.address, adopt=adopt)
    async with closing(listener):
        with call(place) as caller, trio.fail_after(5):
            with pytest.raises(KeyboardInterrupt):
                await listener.accept()
            caller.settimeout(5)
            assert caller.recv(1) == b""


async def test_a_cancelled_accept_loses_no_peer(place: Path) -> None:
    _, listener = faulty_listener(place)
    async with closing(listener):
        with call(place):
            with trio.CancelScope() as scope:
                scope.cancel()
                await listener.accept()
            assert scope.cancelled_caught
            with trio.fail_after(5):
                await (await listener.accept()).aclose()


@pytest.mark.parametrize("count", [1, 2])
async def test_closing_a_listener_wakes_whoever_accepts(place: Path, count: int) -> None:
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(count)]
    for number, sock in enumerate(sockets):
        sock.bind(str(place / f"s{number}"))
        sock.listen(1)
    released: list[bool] = []
    listener = SocketListener(
        sockets, Address("unix", "/s"), adopt=plain_link, release=lambda: released.append(sockets[0].fileno() >= 0)
    )
    woken = False

    async def accept() -> None:
        nonlocal woken
        with pytest.raises(ConnectionClosed, match="the listener on unix:/s is closed"):
            await listener.accept()
        woken = True

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            await listener.aclose()
        await listener.aclose()
        assert woken
        with pytest.raises(ConnectionClosed):
            await listener.accept()
    assert released == [True]  # once, while the sockets were open
    assert repr(listener) == "<SocketListener of <SocketClaim of unix:/s, closed>>"


async def test_a_cancelled_close_of_a_listener_closes(place: Path) -> None:
    faulty, listener = faulty_listener(place)
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.aclose()
    assert faulty.fileno() == -1


async def test_a_listener_on_several_sockets_takes_peers_from_all(place: Path) -> None:
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for number, sock in enumerate(sockets):
        sock.bind(str(place / f"s{number}"))
        sock.listen(20)
    names: list[str] = []

    def adopt(sock: socket.socket) -> SocketLink:
        names.append(sock.getsockname()[-1])
        return plain_link(sock)

    listener = SocketListener(sockets, Address("unix", "/s"), adopt=adopt)
    async with closing(listener):
        with trio.fail_after(5), contextlib.ExitStack() as callers:

            def dial(number: int) -> None:
                sock = callers.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(str(place / f"s{number}"))

            for number in (1, 0):
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def accept() -> None:
                        await (await listener.accept()).aclose()

                    await trio.testing.wait_all_tasks_blocked()
                    dial(number)
            assert names == ["1", "0"]
            names.clear()
            for number in (0, 0, 0, 1):
                dial(number)
            for _ in range(4):
                await (await listener.accept()).aclose()
            assert "1" in names[:2], "a crowd on one socket starved the other"


# --- the transport: explicit paths ------------------------------------------------------------------------------


async def test_an_explicit_path(place: Path) -> None:
    transport = UnixTransport()
    address = parse_address(f"unix:{place}/s")
    with trio.fail_after(5):
        listener = await transport.listen(address, {})
        async with closing(listener):
            assert listener.address == address
            assert stat.S_IMODE((place / "s").stat().st_mode) == 0o600
            client = await transport.connect(address, {})
            server = await listener.accept()
            async with closing(client, server):
                for link in (client, server):
                    assert link.peer.address == str(address)
                    assert (link.peer.pid, link.peer.uid, link.peer.gid) == ME
                    assert link.peer.host is None
                    assert isinstance(link, SocketLink)
                    assert not link._socket.get_inheritable()
                await client.send(b"ping")
                assert await server.receive() == b"ping"
        assert list(place.iterdir()) == []
        with pytest.raises(ConnectError, match="there is no such socket; start the server") as caught:
            await transport.connect(address, {})
        assert isinstance(caught.value.__cause__, FileNotFoundError)


async def test_a_second_server_is_refused_and_the_first_serves_on(place: Path) -> None:
    transport = UnixTransport()
    address = parse_address(f"unix:{place}/s")
    with trio.fail_after(5):
        listener = await transport.listen(address, {})
        async with closing(listener):
            for _ in range(2):
                with pytest.raises(AddressInUse):
                    await transport.listen(address, {})
            client = await transport.connect(address, {})
            await client.aclose()
            await (await listener.accept()).aclose()


async def test_a_dead_server_leaves_a_socket_that_is_said_to_be_dead(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place / "s"))
    with trio.fail_after(5), pytest.raises(ConnectError, match="belongs to no running server") as caught:
        await UnixTransport().connect(parse_address(f"unix:{place}/s"), {})
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_a_socket_that_is_not_for_us_is_a_clear_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_sock: socket.socket, _where: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", connect)  # root is refused nothing
    with trio.fail_after(5), pytest.raises(ConnectError, match="we may not use it") as caught:
        await UnixTransport().connect(parse_address(f"unix:{place}/s"), {})
    assert isinstance(caught.value.__cause__, PermissionError)


async def test_the_place_of_a_killed_server_is_taken_by_the_next(place: Path) -> None:
    program = f"""
import trio
from pyipc.protocol.addresses import parse_address
from pyipc.transports.unix import UnixTransport

async def main():
    listener = await UnixTransport().listen(parse_address("unix:{place}/s"), {{}})
    print("ready", flush=True)
    await listener.accept()

trio.run(main)
"""
    transport = UnixTransport()
    address = parse_address(f"unix:{place}/s")
    with trio.fail_after(30):
        process = await trio.lowlevel.open_process([sys.executable, "-c", program], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            async with process.stdout:
                assert await process.stdout.receive_some(5) == b"ready"
            with pytest.raises(AddressInUse):
                await transport.listen(address, {})
        finally:
            process.kill()
            await process.wait()
        assert sorted(file.name for file in place.iterdir()) == ["s", "s.lock"]
        listener = await transport.listen(address, {})
        async with closing(listener):
            client = await transport.connect(address, {})
            await client.aclose()


async def test_mode_and_group_are_options(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = UnixTransport()
    address = parse_address(f"unix:{place}/s")
    # A user can give files to its own groups only, and those need not have names.
    names = {"friends": grp.struct_group(("friends", "x", os.getegid(), []))}
    monkeypatch.setattr(grp, "getgrnam", names.__getitem__)
    cases: list[tuple[dict[str, object], int]] = [
        ({"mode": 0o666}, 0o666),
        ({"mode": 0o660, "group": os.getegid()}, 0o660),
        ({"group": "friends"}, 0o660),
        ({"mode": None, "group": None}, 0o600),
    ]
    with trio.fail_after(5):
        for options, mode in cases:
            listener = await transport.listen(address, options)
            async with closing(listener):
                assert stat.S_IMODE((place / "s").stat().st_mode) == mode
                assert (place / "s").stat().st_gid == os.getegid()


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"mdoe": 0o600}, TypeError, "no option 'mdoe'; the options are mode, group"),
        ({"mode": "0600"}, TypeError, "mode must be a number such as 0o660, not '0600'"),
        ({"mode": True}, TypeError, "mode must be a number"),
        ({"mode": 600}, ValueError, "mode must be between 0 and 0o777, not 0o1130"),
        ({"mode": -1}, ValueError, "mode must be between 0 and 0o777"),
        ({"group": 1.5}, TypeError, "group must be the name or the id of a group, not 1.5"),
        ({"group": True}, TypeError, "group must be the name or the id"),
        ({"group": "no such group"}, ListenError, "there is no group 'no such group' on this system"),
    ],
)
async def test_wrong_options_are_refused(
    place: Path, options: dict[str, object], error: type[Exception], sentence: str
) -> None:
    with trio.fail_after(5), pytest.raises(error) as caught:
        await UnixTransport().listen(parse_address(f"unix:{place}/s"), options)
    assert sentence in str(caught.value)
    assert list(place.iterdir()) == []


async def test_options_that_would_do_nothing_are_refused(place: Path) -> None:
    transport = UnixTransport(directories=[str(place)], platform="linux")
    with trio.fail_after(5):
        for text in ("world", "unix:@name"):
            with pytest.raises(TypeError, match=r"do nothing for .*; to let others in use an explicit path"):
                await transport.listen(parse_address(text), {"mode": 0o666})
        with pytest.raises(TypeError, match="connecting to world has no option 'mode'; it takes none"):
            await transport.connect(parse_address("world"), {"mode": 0o666})


async def test_a_path_that_is_too_long_is_refused_by_both_ends(place: Path) -> None:
    address = parse_address(f"unix:{place}/{'x' * 107}")
    size = len(address.name)
    for platform, limit in (("linux", 107), ("darwin", 103)):
        transport = UnixTransport(platform=platform)
        for method in (transport.listen, transport.connect):
            with (
                trio.fail_after(5),
                pytest.raises(AddressError, match=f"takes {size} bytes and this system allows {limit}"),
            ):
                await method(address, {})
    assert list(place.iterdir()) == []


async def test_the_limit_of_macos_is_lower_by_four(place: Path) -> None:
    """Tried on any system: what is allowed is really bound, what is not is refused before."""
    name = "x" * (103 - len(str(place)) - 1)
    transport = UnixTransport(platform="darwin")
    with trio.fail_after(5):
        await (await transport.listen(parse_address(f"unix:{place}/{name}"), {})).aclose()
        with pytest.raises(AddressError, match="takes 104 bytes and this system allows 103"):
            await transport.listen(parse_address(f"unix:{place}/{name}x"), {})


async def test_a_failure_after_binding_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listen(_sock: socket.socket, _backlog: int) -> None:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    monkeypatch.setattr(socket.socket, "listen", listen)
    with trio.fail_after(5), pytest.raises(ListenError, match=r"cannot listen on .*: No buffer space available"):
        await UnixTransport().listen(parse_address(f"unix:{place}/s"), {})
    assert list(place.iterdir()) == []


async def test_a_cancelled_listen_leaves_nothing(place: Path) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await UnixTransport().listen(parse_address(f"unix:{place}/s"), {})
    assert scope.cancelled_caught
    assert list(place.iterdir()) == []


# --- the transport: bare names ----------------------------------------------------------------------------------

WORLD = parse_address("world")


async def test_a_bare_name_is_served_from_the_first_directory(place: Path) -> None:
    transport = UnixTransport(directories=[f"{place}/a", f"{place}/b"])
    with trio.fail_after(5):
        listener = await transport.listen(WORLD, {})
        async with closing(listener):
            assert listener.address == WORLD
            assert (place / "a" / "world").is_socket()
            assert stat.S_IMODE((place / "a").stat().st_mode) == 0o700
            assert not (place / "b").exists()
            client = await transport.connect(WORLD, {})
            server = await listener.accept()
            async with closing(client, server):
                assert client.peer.address == server.peer.address == "world"
                assert client.peer.uid == os.geteuid()


async def test_a_server_passes_over_directories_that_do_not_do(place: Path) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o755)
    (place / "link").symlink_to(place / "b")
    directories = [f"{place}/missing/a", f"{place}/open", f"{place}/link", f"{place}/b"]
    transport = UnixTransport(directories=directories)
    with trio.fail_after(5):
        listener = await transport.listen(WORLD, {})
        async with closing(listener):
            assert (place / "b" / "world").is_socket()
            assert list((place / "open").iterdir()) == []
            await (await transport.connect(WORLD, {})).aclose()
        with pytest.raises(UnsafePath, match="no directory is safe for world") as caught:
            await UnixTransport(directories=directories[:3]).listen(WORLD, {})
        for reason in ("missing", "open to other users", "symbolic link", "use an explicit path"):
            assert reason in str(caught.value)
        with pytest.raises(ListenError, match="No such file") as refused:
            await UnixTransport(directories=directories[:1]).listen(WORLD, {})
        assert not isinstance(refused.value, UnsafePath)


async def test_a_client_finds_the_server_wherever_it_is(place: Path) -> None:
    """The first directory came to be after the server, as that of a user who has just logged in."""
    server = UnixTransport(directories=[f"{place}/b"])
    client = UnixTransport(directories=[f"{place}/a", f"{place}/b"])
    with trio.fail_after(5):
        listener = await server.listen(WORLD, {})
        async with closing(listener):
            await (await client.connect(WORLD, {})).aclose()
            (place / "a").mkdir(mode=0o700)
            await (await client.connect(WORLD, {})).aclose()
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(place / "a" / "world"))
            await (await client.connect(WORLD, {})).aclose()
            # A server of that name must not take the clients of the one that lives elsewhere.
            with pytest.raises(AddressInUse, match=r"another server listens on .*/b/world"):
                await client.listen(WORLD, {})
            assert [file.name for file in (place / "a").iterdir()] == []
        await (await client.listen(WORLD, {})).aclose()


async def test_a_client_says_where_it_looked(place: Path) -> None:
    (place / "a").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place / "a" / "world"))
    (place / "open").mkdir()
    (place / "open").chmod(0o770)
    transport = UnixTransport(directories=[f"{place}/a", f"{place}/b", f"{place}/open"])
    with trio.fail_after(5), pytest.raises(ConnectError) as caught:
        await transport.connect(WORLD, {})
    text = str(caught.value)
    assert f"'{place}/a/world': its socket belongs to no running server" in text
    assert f"'{place}/b/world': there is no such socket" in text
    assert f"{place}/open' is open to other users" in text
    assert isinstance(caught.value.__cause__, UnsafePath)


async def test_a_client_never_talks_to_a_server_in_an_unsafe_directory(place: Path) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(str(place / "open" / "world"))
        impostor.listen(5)
        impostor.setblocking(False)
        with trio.fail_after(5), pytest.raises(UnsafePath, match="is open to other users"):
            await UnixTransport(directories=[f"{place}/open"]).connect(WORLD, {})
        with pytest.raises(BlockingIOError):
            impostor.accept()


def test_what_a_bare_name_means_here_and_what_is_in_the_way(place: Path) -> None:
    (place / "a").mkdir(mode=0o700)
    (place / "open").mkdir()
    (place / "open").chmod(0o755)
    (place / "link").symlink_to(place / "a")
    (place / "shared").mkdir()
    (place / "shared").chmod(0o777)
    names = ("missing/x", "open", "link", "shared/x", "a", "b")
    before = sorted(place.rglob("*"))
    found = UnixTransport(directories=[f"{place}/{name}" for name in names]).places(WORLD)
    assert [one.name for one in found] == [f"{place}/{name}/world" for name in names]
    reasons = (f"'{place}/missing' is missing", "is open to other users", "symbolic link", "other users may write to")
    for one, reason in zip(found, reasons, strict=False):
        assert one.obstacle is not None
        assert reason in one.obstacle
    # The last one does not exist yet, and a server would make it.
    assert [one.obstacle for one in found[4:]] == [None, None]
    assert sorted(place.rglob("*")) == before


def test_what_other_addresses_mean_here(place: Path) -> None:
    transport = UnixTransport(platform="linux")

    def meaning(text: str) -> list[tuple[str, str | None]]:
        return [(one.name, one.obstacle) for one in transport.places(parse_address(text))]

    (place / "shared").mkdir()
    (place / "shared").chmod(0o777)
    assert meaning(f"unix:{place}/s") == [(f"{place}/s", None)]
    assert meaning("unix:@name") == [("@name", None)]
    assert meaning("node-ipc:world") == [("/tmp/app.world", None)]
    for path, reason in ((f"{place}/shared/s", "other users may write to"), (f"{place}/none/s", "is missing")):
        [(name, obstacle)] = meaning(f"unix:{path}")
        assert name == path
        assert obstacle is not None
        assert reason in obstacle
    for text in (f"unix:/{'x' * 107}", f"unix:@{'x' * 107}"):
        with pytest.raises(AddressError, match="takes 108 bytes"):
            transport.places(parse_address(text))
    with pytest.raises(AddressError, match="no Unix domain sockets"):
        UnixTransport(platform="win32").places(WORLD)


async def test_the_default_directories_are_those_of_the_user(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str]] = []

    def default_directories(uid: int, platform: str) -> tuple[str, ...]:
        asked.append((uid, platform))
        return (f"{place}/a",)

    monkeypatch.setattr(unix, "default_directories", default_directories)
    with trio.fail_after(5):
        await (await UnixTransport().listen(WORLD, {})).aclose()
    assert (place / "a").is_dir()
    assert asked == [(os.geteuid(), sys.platform)]


@pytest.mark.parametrize("scheme", ["local", "node-ipc"])
async def test_a_name_does_not_lead_out_of_its_directory(place: Path, scheme: str) -> None:
    transport = UnixTransport(directories=[f"{place}/a"])
    for name in ("../world", "/world", "b/world"):
        for method in (transport.listen, transport.connect):
            with trio.fail_after(5), pytest.raises(AddressError, match="a name has no slash"):
                await method(Address(scheme, name), {})
    assert list(place.iterdir()) == []


# --- the transport: node-ipc, abstract names, other systems -----------------------------------------------------


async def test_node_ipc_addresses_are_in_tmp() -> None:
    transport = UnixTransport()
    address = parse_address(f"node-ipc:pyipc-test-{os.getpid()}")
    path = Path(f"/tmp/app.pyipc-test-{os.getpid()}")
    with trio.fail_after(5):
        listener = await transport.listen(address, {})
        async with closing(listener):
            assert path.is_socket()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            await (await transport.connect(address, {})).aclose()
        assert not path.exists()
        assert not path.with_name(f"{path.name}.lock").exists()


def test_node_ipc_on_macos_avoids_the_link() -> None:
    # /tmp is a symbolic link there, and the directory of a socket must not be one.
    assert UnixTransport(platform="darwin")._explicit_path(Address("node-ipc", "world")) == "/private/tmp/app.world"


@only_linux
async def test_an_abstract_name() -> None:
    transport = UnixTransport()
    address = parse_address(f"unix:@pyipc-test-{os.getpid()}")
    with trio.fail_after(5):
        with pytest.raises(ConnectError, match="belongs to no running server"):
            await transport.connect(address, {})
        listener = await transport.listen(address, {})
        async with closing(listener):
            assert listener.address == address
            with pytest.raises(AddressInUse, match="another program listens on unix:@"):
                await transport.listen(address, {})
            client = await transport.connect(address, {})
            server = await listener.accept()
            async with closing(client, server):
                assert (server.peer.pid, server.peer.uid, server.peer.gid) == ME
                assert client.peer.address == str(address)
                client.send_nowait(b"x")
                assert await server.receive() == b"x"
        await (await transport.listen(address, {})).aclose()


@only_linux
async def test_an_abstract_name_has_a_limit_as_well() -> None:
    transport = UnixTransport()
    longest = f"@pyipc-test-{os.getpid()}-".ljust(107, "x")
    with trio.fail_after(5):
        await (await transport.listen(parse_address(f"unix:{longest}"), {})).aclose()
        with pytest.raises(AddressError, match="takes 108 bytes"):
            await transport.listen(parse_address(f"unix:{longest}x"), {})


@pytest.mark.parametrize("platform", ["darwin", "freebsd14"])
async def test_abstract_names_are_refused_where_there_are_none(platform: str) -> None:
    transport = UnixTransport(platform=platform)
    for method in (transport.listen, transport.connect):
        with trio.fail_after(5), pytest.raises(AddressError, match="only Linux has abstract sockets"):
            await method(parse_address("unix:@name"), {})


@pytest.mark.parametrize("text", ["world", "unix:/run/app.sock", "node-ipc:world", "unix:@name"])
async def test_systems_without_unix_sockets_say_so(text: str) -> None:
    transport = UnixTransport(platform="win32")
    for method in (transport.listen, transport.connect):
        with trio.fail_after(5), pytest.raises(AddressError, match="has no Unix domain sockets; use pipe:name"):
            await method(parse_address(text), {})


# --- who is there -----------------------------------------------------------------------------------------------


async def test_a_peer_that_cannot_be_identified_is_turned_away(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = credentials.peer_credentials
    unknown: list[int] = []

    def peer_credentials(sock: socket.socket, *, platform: str) -> tuple[int, int, int]:
        if not unknown:
            unknown.append(1)
            raise OSError(errno.ENOTCONN, "the peer is gone")
        return real(sock, platform=platform)

    transport = UnixTransport()
    address = parse_address(f"unix:{place}/s")
    with trio.fail_after(5):
        listener = await transport.listen(address, {})
        async with closing(listener):
            with call(place) as first, call(place) as second:
                monkeypatch.setattr(unix, "peer_credentials", peer_credentials)
                server = await listener.accept()
                async with closing(server):
                    second.sendall(b"second")
                    assert await server.receive() == b"second"
                first.settimeout(5)
                assert first.recv(1) == b""
            assert [(record.name, record.levelno) for record in caplog.records] == [
                ("pyipc.transports", logging.WARNING)
            ]
            assert "the peer is gone" in caplog.text
            unknown.clear()
            with pytest.raises(ConnectError, match="cannot be identified: the peer is gone"):
                await transport.connect(address, {})


@only_linux
async def test_what_the_peer_says_about_itself_does_not_count(place: Path) -> None:
    """Identity comes from the kernel's structure, whatever the client's own address is made to look like."""
    transport = UnixTransport()
    with trio.fail_after(5):
        listener = await transport.listen(parse_address(f"unix:{place}/s"), {})
        async with closing(listener):
            with socket.socket(socket.AF_UNIX) as liar:
                liar.bind(f"\0;pid=1;uid=4242;socket={os.getpid()};")
                liar.connect(str(place / "s"))
                server = await listener.accept()
                async with closing(server):
                    assert (server.peer.pid, server.peer.uid, server.peer.gid) == ME
                    assert "4242" not in server.peer.address


async def test_descriptors_that_a_peer_passes_are_not_taken(place: Path) -> None:
    """Nobody asks the kernel for them, so that it closes them: they take nothing of this process."""
    with trio.fail_after(5):
        listener = await UnixTransport().listen(parse_address(f"unix:{place}/s"), {})
        async with closing(listener):
            with call(place) as peer, socket.socket() as passed:
                link = await listener.accept()
                before = set(os.listdir("/dev/fd"))
                async with closing(link):
                    for number in range(3):
                        socket.send_fds(peer, [b"%d" % number], [passed.fileno()] * 200)
                    received = b""
                    while len(received) < 3:
                        received += await link.receive()
                    assert received == b"012"
                    assert set(os.listdir("/dev/fd")) == before


# --- a full backlog ---------------------------------------------------------------------------------------------


@only_linux
async def test_connecting_waits_while_the_backlog_is_full(place: Path, autojump_clock: trio.testing.MockClock) -> None:
    address = parse_address(f"unix:{place}/s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place / "s"))
        server.listen(0)
        with call(place):
            with trio.move_on_after(60) as scope:
                await UnixTransport().connect(address, {})
            assert scope.cancelled_caught
            links: list[Link] = []

            async def connect() -> None:
                links.append(await UnixTransport().connect(address, {}))

            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connect)
                    await trio.sleep(1)
                    assert links == []
                    server.accept()[0].close()
            async with closing(*links):
                assert links[0].peer.uid == os.geteuid()


async def test_a_small_link_takes_little_memory() -> None:
    """Ten thousand idle connections are promised to be cheap; this is the share of the link itself."""
    import tracemalloc

    sockets = [socket.socketpair() for _ in range(50)]
    peer = Peer(address="peer")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        links = [SocketLink(left, peer) for left, _ in sockets]
        size = (tracemalloc.get_traced_memory()[0] - before) / len(links)
    finally:
        tracemalloc.stop()
    async with closing(*links):
        for _, right in sockets:
            right.close()
    print(f"a SocketLink takes {size:.0f} bytes")
    assert size < 1024


async def test_a_reset_is_a_lost_connection(place: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        client = socket.socket()
        client.connect(server.getsockname())
        link = SocketLink(server.accept()[0], Peer(address="peer"))
        async with closing(link):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            with trio.fail_after(5), pytest.raises(ConnectionLost, match="the link to peer is broken") as caught:
                await link.receive()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
