"""TLS over a socket pair: a stream like any other, whose end cannot be forged."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from pyipc.errors import ConnectionLost, HandshakeFailed
from pyipc.transports import Peer
from pyipc.transports.tls_link import TlsLink
from pyipc.transports.tls_settings import TLS, server_context
from tests.certificates import authority, leaf, leaf_file
from tests.conformance.sides import until
from tests.conftest import CANNOT_RUN, is_wine
from tests.link_stream import HalfCloseableLinkStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Pair = tuple[TlsLink, TlsLink]

pytestmark = pytest.mark.time_limit(15)

PEER = Peer(address="tls://test")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
both_versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


def contexts(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a client and for a server."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.maximum_version = version
    authority().configure_trust(client)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf("127.0.0.1").configure_cert(server)
    return client, server


def over_tcp() -> tuple[socket.socket, socket.socket]:
    """Two sockets connected as those of two programs are, and with all that TCP does as it ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname()), listener.accept()[0]


async def shake_hands(*links: TlsLink) -> None:
    async with trio.open_nursery() as nursery:
        for link in links:
            nursery.start_soon(link.handshake)


async def connected(
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    sockets: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair,
) -> Pair:
    client, server = contexts(version)
    left, right = sockets()
    pair = TlsLink(left, PEER, client, "127.0.0.1"), TlsLink(right, PEER, server)
    await shake_hands(*pair)
    return pair


@contextlib.asynccontextmanager
async def closing(*links: TlsLink) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            for link in links:
                await link.aclose()


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    pair = await connected(request.param)
    async with closing(*pair):
        yield pair


@contextlib.asynccontextmanager
async def with_stranger(
    version: ssl.TLSVersion, link_is: str
) -> AsyncIterator[tuple[TlsLink, trio.SSLStream[trio.SocketStream]]]:
    """One of our links, and trio's own TLS at the other end."""
    client, server = contexts(version)
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    if link_is == "client":
        link, stranger = TlsLink(ours, PEER, client, "127.0.0.1"), trio.SSLStream(stream, server, server_side=True)
    else:
        link, stranger = TlsLink(ours, PEER, server), trio.SSLStream(stream, client, server_hostname="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.handshake)
        nursery.start_soon(stranger.do_handshake)
    async with closing(link):
        try:
            yield link, stranger
        finally:
            await trio.aclose_forcefully(stranger)


class Clogged(socket.socket):
    """A socket that says it has no room, for as long as it is told to."""

    is_clogged = False

    def send(self, *args: Any) -> int:
        if self.is_clogged:
            raise BlockingIOError
        return super().send(*args)


class Catching(socket.socket):
    """Keeps what is sent."""

    caught = b""

    def send(self, data: Any, flags: int = 0, /) -> int:
        self.caught += bytes(data)
        return len(data)


class Full(socket.socket):
    """Has never room for anything."""

    def send(self, data: Any, flags: int = 0, /) -> int:
        raise BlockingIOError


class Counting(socket.socket):
    """A socket that counts how often something came in and went out."""

    received = sent = 0

    def recv(self, *args: Any) -> bytes:
        data = super().recv(*args)
        self.received += 1
        return data

    def send(self, *args: Any) -> int:
        self.sent += 1
        return super().send(*args)


async def receive_all(link: TlsLink) -> bytes:
    received = bytearray()
    while chunk := await link.receive():
        received += chunk
    return bytes(received)


def clog(link: TlsLink) -> bytes:
    """Send until the kernel takes no more; return what has to be offered again."""
    while (taken := link.send_nowait(b"x" * 10_000)) == 10_000:
        pass
    return b"x" * (10_000 - taken)


# --- a stream like any other ------------------------------------------------------------------------------------


@both_versions
async def test_it_passes_the_checks_of_trio_for_streams(version: ssl.TLSVersion) -> None:
    async def make() -> tuple[HalfCloseableLinkStream, HalfCloseableLinkStream]:
        left, right = await connected(version)
        return HalfCloseableLinkStream(left), HalfCloseableLinkStream(right)

    await trio.testing.check_two_way_stream(make, None)
    await trio.testing.check_half_closeable_stream(make, None)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_every_kind_of_bytes_can_be_sent(pair: Pair, kind: Callable[[bytes], bytes]) -> None:
    left, right = pair
    assert left.send_nowait(kind(b"one")) == 3
    await left.send(kind(b"two"))
    received = b""
    while len(received) < 6:
        received += await right.receive()
    assert received == b"onetwo"


@pytest.mark.parametrize("seed", range(4))
async def test_megabytes_both_ways_at_once_however_they_are_offered(pair: Pair, seed: int) -> None:
    """By both ways of sending, with readers that are cancelled and slow; the senders finish while others still send."""
    draw = random.Random(seed)

    async def send(link: TlsLink, data: memoryview) -> None:
        while data:
            part = data[: draw.choice([1, 10, 1_000, 60_000, 200_000, 1_000_000])]
            taken = link.send_nowait(part)
            assert 0 <= taken <= len(part)
            data = data[taken:]
            if taken < len(part):
                if draw.random() < 0.5:
                    rest = data[: draw.choice([1, 100_000])]
                    await link.send(rest)
                    data = data[len(rest) :]
                else:
                    await trio.lowlevel.checkpoint()
        assert link.send_eof()

    async def receive(link: TlsLink, expected: bytes) -> None:
        received = bytearray()
        while True:
            with trio.move_on_after(draw.choice([0, 0.0001, 1])):
                chunk = await link.receive()
                if not chunk:
                    break
                received += chunk
            if draw.random() < 0.05:
                await trio.sleep(0.001)
        assert received == expected

    left, right = pair
    ours, theirs = draw.randbytes(1_500_000), draw.randbytes(1_500_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, left, memoryview(ours))
        nursery.start_soon(send, right, memoryview(theirs))
        nursery.start_soon(receive, left, theirs)
        nursery.start_soon(receive, right, ours)


@both_versions
async def test_however_the_bytes_are_cut_on_the_way(version: ssl.TLSVersion) -> None:
    draw = random.Random(5)
    client, server = contexts(version)
    (left_sock, near), (far, right_sock) = socket.socketpair(), socket.socketpair()
    left, right = TlsLink(left_sock, PEER, client, "127.0.0.1"), TlsLink(right_sock, PEER, server)

    async def pass_on(source: trio.SocketStream, target: trio.SocketStream) -> None:
        while chunk := await source.receive_some(draw.choice([1, 2, 5, 100, 20_000])):
            await target.send_all(chunk)
        await target.send_eof()

    async def receive(link: TlsLink, expected: bytes) -> None:
        assert await receive_all(link) == expected

    async def send(link: TlsLink, data: bytes) -> None:
        await link.send(data)
        link.send_eof()

    one, two = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in (near, far))
    async with closing(left, right), one, two, trio.open_nursery() as nursery:
        nursery.start_soon(pass_on, one, two)
        nursery.start_soon(pass_on, two, one)
        await shake_hands(left, right)
        for link, mine, yours in ((left, b"a" * 50_000, b"b" * 70_000), (right, b"b" * 70_000, b"a" * 50_000)):
            nursery.start_soon(send, link, mine)
            nursery.start_soon(receive, link, yours)


async def test_what_the_kernel_did_not_take_is_offered_again_and_sent_once(pair: Pair) -> None:
    left, right = pair
    total = 0
    while (taken := left.send_nowait(b"%08d" % total * 2_000)) == 16_000:
        total += 1
    assert taken < 16_000
    assert left.send_nowait((b"%08d" % total * 2_000)[taken:]) == 0
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send, (b"%08d" % total * 2_000)[taken:])
        while len(received) < 16_000 * (total + 1):
            received += await right.receive()
    assert received == b"".join(b"%08d" % number * 2_000 for number in range(total + 1))


async def test_the_last_byte_is_taken_only_with_all_that_is_encrypted(pair: Pair) -> None:
    """Else nobody would come and offer anything again, and the rest of a record would never leave."""
    left, right = pair
    left._socket = clogged = Clogged(fileno=left._socket.detach())
    clogged.is_clogged = True
    assert left.send_nowait(b"abcdef") == 5
    assert left.send_nowait(b"f and more") == 0
    clogged.is_clogged = False
    assert left.send_nowait(b"f and more") == 10
    clogged.is_clogged = True
    assert left.send_nowait(b".") == 0
    clogged.is_clogged = False
    await left.send(b". The end")
    left.send_eof()
    assert await receive_all(right) == b"abcdef and more. The end"


async def test_a_cancelled_receive_loses_nothing(pair: Pair) -> None:
    left, right = pair
    data = random.Random(3).randbytes(200_000)
    received = bytearray()

    async def send() -> None:
        for start in range(0, len(data), 777):
            await left.send(data[start : start + 777])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while len(received) < len(data):
            with trio.CancelScope() as scope:
                scope.cancel()
                received += await right.receive()
            received += await right.receive()
    assert received == data


async def test_a_receiver_can_be_woken_and_has_lost_nothing(pair: Pair) -> None:
    left, right = pair
    woken: list[bool] = []

    async def receive() -> None:
        with pytest.raises(trio.WouldBlock):
            await right.receive()
        woken.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        right.wake_receiver()
    assert woken
    await left.send(b"later")
    assert await right.receive() == b"later"


async def test_a_receiver_that_was_woken_by_half_a_record_notices_that_it_was_woken(pair: Pair) -> None:
    left, right = pair
    left._socket = caught = Catching(fileno=left._socket.detach())
    left.send_nowait(b"x" * 1_000)
    half = len(caught.caught) // 2
    outcomes: list[object] = []

    async def receive() -> None:
        try:
            outcomes.append(await right.receive())
        except trio.WouldBlock:
            outcomes.append(trio.WouldBlock)

    with right._socket.dup() as same, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            socket.socket.send(caught, caught.caught[:half])
            # In the same turn as the receiver, or in the one after it.
            await trio.lowlevel.wait_readable(same)
            right.wake_receiver()
    socket.socket.send(caught, caught.caught[half:])
    assert outcomes == [trio.WouldBlock]
    assert await right.receive() == b"x" * 1_000


async def test_waking_the_receiver_does_not_disturb_the_sender(pair: Pair) -> None:
    left, right = pair
    rest = clog(left)

    async def receive() -> None:
        with pytest.raises(trio.WouldBlock):
            await left.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send, rest + b"y" * 100_000)
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        left.wake_receiver()
        await trio.testing.wait_all_tasks_blocked()
        received = b""
        while not received.endswith(b"y" * 100_000):
            received = (received + await right.receive())[-100_000:]


async def test_its_repr_says_what_it_is(pair: Pair) -> None:
    left, _ = pair
    assert repr(left).startswith("<TlsLink to tls://test, fd ")
    assert "TLSv1." in repr(left)
    await left.aclose()
    assert "closed" in repr(left)


# --- the end ----------------------------------------------------------------------------------------------------


async def test_each_direction_ends_by_itself(pair: Pair) -> None:
    left, right = pair
    await left.send(b"question")
    assert left.send_eof()
    assert left.send_eof()
    assert await receive_all(right) == b"question"
    assert await right.receive() == b""
    with pytest.raises(ConnectionLost):
        left.send_nowait(b"too late")
    await right.send(b"answer" * 5_000)
    right.send_eof()
    assert await receive_all(left) == b"answer" * 5_000


async def test_the_end_comes_out_though_there_was_no_room_and_nobody_sends_or_receives() -> None:
    left, right = await connected()
    async with closing(left, right):
        left._socket = clogged = Clogged(fileno=left._socket.detach())
        right.send_eof()
        assert await left.receive() == b""
        clogged.is_clogged = True
        left.send_eof()
        await left.receive()
        clogged.is_clogged = False
        assert await right.receive() == b""


async def test_a_sender_takes_over_from_the_task_that_waits_for_room() -> None:
    left, right = await connected()
    async with closing(left, right):
        clog(left)
        left._owed = 0  # as if all of it were TLS's own
        left._push()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.send, b"y")
            received = b""
            while not received.endswith(b"y"):
                received = await right.receive()
        assert left._pushing is None


async def test_closing_says_so_to_a_peer_that_never_answers(pair: Pair) -> None:
    left, right = pair
    await left.aclose()
    assert await right.receive() == b""
    await left.aclose()


@both_versions
async def test_what_the_kernel_has_no_room_for_is_sent_after_closing(version: ssl.TLSVersion) -> None:
    # What the other side has sent meanwhile, such as the tickets of TLS 1.3, was not read.
    left, right = await connected(version, over_tcp)
    async with closing(left, right):
        clog(left)
        await left.aclose()
        assert set(await receive_all(right)) == {ord("x")}


async def test_a_peer_that_reads_nothing_holds_nothing_up(autojump_clock: trio.testing.MockClock) -> None:
    left, right = await connected()
    async with closing(right):
        clog(left)
        await left.aclose()
        assert left._socket.fileno() >= 0
        await trio.sleep(2)
        assert left._socket.fileno() < 0


async def test_a_stream_that_was_cut_off_is_not_taken_for_a_whole_one(pair: Pair) -> None:
    left, right = pair
    await left.send(b"half of it")
    left._socket.shutdown(socket.SHUT_WR)  # what anybody on the way can do
    assert await right.receive() == b"half of it"
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="cut off") as caught:
            await right.receive()
        assert caught.value.maybe_handled


@pytest.mark.parametrize(
    "junk", [b"\0" * 100, b"\x17\x03\x03\x00\x20" + b"\0" * 32, b"\x16\x03\x03\xff\xff" + b"x" * 90]
)
async def test_bytes_that_were_not_encrypted_break_the_link(pair: Pair, junk: bytes) -> None:
    left, right = pair
    await left.send(b"good")
    left._socket.send(junk)
    assert await right.receive() == b"good"
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="broken"):
            await right.receive()


async def test_whoever_waits_is_woken_when_the_link_is_closed(pair: Pair) -> None:
    left, right = pair
    clog(left)

    async def is_told(call: Callable[[], object]) -> None:
        with pytest.raises(ConnectionLost, match="closed on this side"):
            await call()  # type: ignore[misc]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(is_told, left.receive)
        nursery.start_soon(is_told, lambda: left.send(b"y" * 1_000_000))
        await trio.testing.wait_all_tasks_blocked()
        await left.aclose()
    for call in (left.receive, lambda: left.send(b"x")):
        await is_told(call)
    with pytest.raises(ConnectionLost):
        left.send_nowait(b"x")
    left.send_eof()
    await right.aclose()


async def test_a_link_can_be_closed_before_and_during_its_handshake() -> None:
    client, _ = contexts()
    left, right = socket.socketpair()
    with right:
        link = TlsLink(left, PEER, client, "127.0.0.1")
        assert link.needs_handshake
        assert "no handshake yet" in repr(link)

        async def handshake() -> None:
            with pytest.raises(HandshakeFailed) as caught:
                await link.handshake()
            assert caught.value.code == "closed"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(handshake)
            await trio.testing.wait_all_tasks_blocked()
            await link.aclose()
        await handshake()


async def test_whoever_is_refused_gets_to_read_why_though_more_of_it_is_unread() -> None:
    _, server = contexts()
    ours, theirs = socket.socketpair()
    link = TlsLink(ours, PEER, server)

    async def refuse() -> None:
        with pytest.raises(HandshakeFailed):
            await link.handshake()
        await link.aclose()

    async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        await stream.send_all(b"\x16\x03\x01\xff\xff" + b"x" * 100_000)
        await stream.send_eof()
        assert (await stream.receive_some()).startswith(b"\x15\x03")  # an alert
        assert await stream.receive_some() == b""  # and no reset


async def test_whoever_is_refused_is_not_waited_for_long(autojump_clock: trio.testing.MockClock) -> None:
    _, server = contexts()
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.send(b"\x16\x03\x01\xff\xff" + b"x" * 100)
        link = TlsLink(ours, PEER, server)
        with pytest.raises(HandshakeFailed):
            await link.handshake()
        assert 0 < trio.current_time() <= 2
        await link.aclose()


async def test_a_handshake_that_is_done_is_done(pair: Pair) -> None:
    left, _ = pair
    assert not left.needs_handshake
    with trio.testing.assert_checkpoints():
        await left.handshake()


async def test_what_comes_along_with_the_last_message_of_the_handshake_is_received() -> None:
    client, server = contexts()
    left, right = socket.socketpair()
    ours, theirs = TlsLink(left, PEER, client, "127.0.0.1"), TlsLink(right, PEER, server)
    async with closing(ours, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.handshake)
            await ours.handshake()
            ours.send_nowait(b"at once")  # before the server has had its turn
            ours.send_eof()
        assert theirs._plain == b"at once"
        with trio.testing.assert_checkpoints():
            assert await theirs.receive() == b"at once"
        assert await theirs.receive() == b""


# --- strangers --------------------------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("link_is", ["client", "server"])
async def test_trios_own_tls_at_the_other_end(version: ssl.TLSVersion, link_is: str) -> None:
    async with with_stranger(version, link_is) as (link, stranger):

        async def echo() -> None:
            async for chunk in stranger:
                await stranger.send_all(chunk)
            await stranger.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            data = random.Random(1).randbytes(300_000)
            nursery.start_soon(link.send, data)
            received = b""
            while len(received) < len(data):
                received += await link.receive()
            assert received == data
            link.send_eof()
            assert await link.receive() == b""


@both_versions
async def test_the_standard_library_in_a_thread(version: ssl.TLSVersion) -> None:
    """It is told of our end, and what it says afterwards still arrives: half-closed, as plain sockets can be."""
    client, server = contexts(version)
    ours, theirs = socket.socketpair()
    link = TlsLink(ours, PEER, client, "127.0.0.1")

    def serve() -> bytes:
        theirs.settimeout(10)
        with server.wrap_socket(theirs, server_side=True) as sock:
            received = b""
            while chunk := sock.recv(1_000):
                received += chunk
            sock.sendall(received[::-1])
            sock.unwrap().close()
            return received

    async with closing(link), trio.open_nursery() as nursery:
        received: list[bytes] = []

        async def in_thread() -> None:
            received.append(await trio.to_thread.run_sync(serve))

        nursery.start_soon(in_thread)
        await link.handshake()
        await link.send(b"abc" * 10_000)
        link.send_eof()
        assert await receive_all(link) == b"cba" * 10_000
    assert received == [b"abc" * 10_000]


async def test_a_stranger_that_closes_without_a_word_is_told_as_cut_off() -> None:
    # With TLS 1.3 trio's stream has not read the server's tickets yet, and closing would reset the connection.
    async with with_stranger(ssl.TLSVersion.TLSv1_2, "server") as (link, stranger):
        await stranger.send_all(b"bye")
        await trio.aclose_forcefully(stranger)
        assert await link.receive() == b"bye"
        with pytest.raises(ConnectionLost, match="cut off"):
            await link.receive()


async def test_an_alert_about_what_was_sent_is_no_verdict_on_who_we_are(pair: Pair) -> None:
    """The peer may have acted on what came before, even where the alert is the first that it says."""
    left, right = pair
    await left.send(b"pay")
    assert await right.receive() == b"pay"
    whole, left._socket = left._socket, Catching()
    left.send_nowait(b"pay again")
    damaged = bytearray(left._socket.caught)
    damaged[-1] ^= 1
    left._socket.close()
    left._socket = whole
    whole.send(damaged)
    with pytest.raises(ConnectionLost):
        await right.receive()
    with pytest.raises(ConnectionLost) as caught:
        await left.receive()
    assert caught.value.maybe_handled
    assert not isinstance(caught.value.__cause__, HandshakeFailed)


# A mark, because a reason that is given within an async test gets lost.
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None,
    reason=f"{CANNOT_RUN} there is no openssl for Wine"
    if is_wine()
    else "openssl is not installed; on Debian: apt-get install openssl",
)


@contextlib.asynccontextmanager
async def with_openssl(
    *options: str, context: ssl.SSLContext
) -> AsyncIterator[tuple[TlsLink, Callable[[bytes], Awaitable[None]]]]:
    """A link of ours as the server, and what types lines into OpenSSL's own client."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        where = f"127.0.0.1:{listening.getsockname()[1]}"
        command = ["openssl", "s_client", "-connect", where, *options]
        client = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        assert client.stdin is not None
        try:
            await trio.lowlevel.wait_readable(listening)
            link = TlsLink(listening.accept()[0], PEER, context)
            async with closing(link):
                await link.handshake()
                yield link, client.stdin.send_all
        finally:
            client.kill()
            with trio.CancelScope(shield=True):
                await client.wait()
                await client.stdin.aclose()


@needs_openssl
async def test_a_peer_may_ask_for_new_keys_at_any_time() -> None:
    """Twice in a row, which OpenSSL answers at once, though this side only receives."""
    _, server = contexts()
    async with with_openssl("-tls1_3", context=server) as (link, type_in):
        link._socket = counting = Counting(fileno=link._socket.detach())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.receive)
            await type_in(b"K\n")
            await until(lambda: counting.received == 1)
            await type_in(b"K\n")
            await until(lambda: counting.sent > 0)
            nursery.cancel_scope.cancel()
        await type_in(b"hello\n")
        assert await link.receive() == b"hello\n"


@needs_openssl
async def test_a_peer_that_asks_for_new_keys_and_reads_no_answers_is_not_answered_for_ever() -> None:
    _, server = contexts()
    async with with_openssl("-tls1_3", context=server) as (link, type_in), trio.open_nursery() as nursery:
        link._socket = Full(fileno=link._socket.detach())

        async def ask() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await type_in(b"K\n" * 100)

        nursery.start_soon(ask)
        with pytest.raises(ConnectionLost, match="new keys"):
            await link.receive()
        assert link._outgoing.pending < 32 * 1024
        nursery.cancel_scope.cancel()


@needs_openssl
async def test_nobody_renegotiates(tmp_path: Path) -> None:
    settings = TLS(cert=leaf_file(tmp_path / "server.pem", leaf("127.0.0.1")))
    async with with_openssl("-tls1_2", context=server_context(settings)) as (link, type_in):
        await type_in(b"hello\n")
        assert await link.receive() == b"hello\n"
        await type_in(b"R\n")
        with pytest.raises(ConnectionLost):  # we go on, but OpenSSL's client does not
            await link.receive()
