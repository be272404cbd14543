"""The ``memory`` transport: a pair behaves as a pair of Unix sockets, and names come and go."""

from __future__ import annotations

import os
import random
import socket
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from pyipc.errors import AddressError, AddressInUse, ConnectError, ConnectionClosed, ConnectionLost
from pyipc.protocol.addresses import parse_address
from pyipc.transports import Link, Peer
from pyipc.transports.memory import MemoryTransport, memory_link_pair
from tests.conftest import CANNOT_RUN
from tests.link_stream import HalfCloseableLinkStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Pair = tuple[Link, Link]

pytestmark = pytest.mark.time_limit(10)

ADDRESS = parse_address("memory:test")


@pytest.fixture
def pair() -> Pair:
    return memory_link_pair()


@pytest.fixture
def small() -> Pair:
    return memory_link_pair(buffer_size=10)


async def receive_all(link: Link) -> bytes:
    received = bytearray()
    while chunk := await link.receive():
        received += chunk
    return bytes(received)


# --- a stream like any other ------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer_size", [1, 1_000, 65_536])
async def test_it_passes_the_checks_of_trio_for_streams(buffer_size: int) -> None:
    async def make() -> tuple[HalfCloseableLinkStream, HalfCloseableLinkStream]:
        left, right = memory_link_pair(buffer_size=buffer_size)
        return HalfCloseableLinkStream(left), HalfCloseableLinkStream(right)

    if buffer_size > 1:  # a megabyte, byte by byte, both ways, teaches nothing for its four seconds
        await trio.testing.check_two_way_stream(make, None)
        await trio.testing.check_half_closeable_stream(make, None)
    else:
        await trio.testing.check_one_way_stream(make, None)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_every_kind_of_bytes_can_be_sent(pair: Pair, kind: Callable[[bytes], bytes]) -> None:
    left, right = pair
    assert left.send_nowait(kind(b"one")) == 3
    await left.send(kind(b"two"))
    assert await right.receive() == b"onetwo"


async def test_what_was_sent_can_be_changed_afterwards(pair: Pair) -> None:
    left, right = pair
    data = bytearray(b"before")
    assert left.send_nowait(data) == 6
    data[:] = b"after"  # would raise BufferError if a view of it were kept
    await left.send(data)
    data.clear()
    assert await right.receive() == b"beforeafter"


async def test_a_view_of_wider_items_is_counted_in_bytes(small: Pair) -> None:
    left, right = small
    view = memoryview(b"abcdefghijklmnop").cast("I")
    assert left.send_nowait(view) == 10
    assert await right.receive() == b"abcdefghij"


async def test_an_empty_send_is_no_end_of_stream(pair: Pair) -> None:
    left, right = pair
    assert left.send_nowait(b"") == 0
    await left.send(b"")
    await left.send(b"x")
    assert await right.receive() == b"x"


async def test_random_pieces_arrive_in_order() -> None:
    rng = random.Random(0)
    left, right = memory_link_pair(buffer_size=777)
    data = rng.randbytes(200_000)

    async def send() -> None:
        rest = memoryview(data)
        while rest:
            piece = rest[: rng.randint(1, 3_000)]
            taken = left.send_nowait(piece)
            await left.send(piece[taken:])
            rest = rest[len(piece) :]
        assert left.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert await receive_all(right) == data


# --- the bounded buffer -----------------------------------------------------------------------------------------


async def test_send_nowait_takes_what_fits(small: Pair) -> None:
    left, right = small
    assert left.send_nowait(b"123456") == 6
    assert left.send_nowait(b"7890abc") == 4
    assert left.send_nowait(b"x") == 0
    assert await right.receive() == b"1234567890"
    assert left.send_nowait(b"abc") == 3
    assert right.send_nowait(b"the other direction") == 10


async def test_send_waits_for_room_and_for_all_of_it(small: Pair) -> None:
    left, right = small
    done = trio.Event()

    async def send() -> None:
        await left.send(b"0123456789abcdefghij!")
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for expected in (b"0123456789", b"abcdefghij"):
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set()
            assert await right.receive() == expected
        await done.wait()
        assert await right.receive() == b"!"


async def test_receive_returns_64_kib_at_most() -> None:
    left, right = memory_link_pair(buffer_size=200_000)
    assert left.send_nowait(bytes(200_000)) == 200_000
    sizes = [len(await right.receive()) for _ in range(4)]
    assert sizes == [65_536, 65_536, 65_536, 200_000 - 3 * 65_536]


@pytest.mark.parametrize("size", [0, -1])
def test_a_buffer_holds_something(size: int) -> None:
    with pytest.raises(ValueError, match="buffer_size must be above zero"):
        memory_link_pair(buffer_size=size)


# --- one reader, one writer, and schedule points ----------------------------------------------------------------


async def test_a_second_reader_is_refused(pair: Pair) -> None:
    left, right = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(right.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await right.receive()
        await left.send(b"the first reader is still served")
    with trio.move_on_after(0):
        await right.receive()
    assert left.send_nowait(b"x") == 1
    assert await right.receive() == b"x"


async def test_a_second_writer_is_refused(small: Pair) -> None:
    left, right = small
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send, bytes(20))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await left.send(b"x")
        with pytest.raises(trio.BusyResourceError):
            left.send_nowait(b"x")
        assert len(await right.receive()) == 10
        await trio.testing.wait_all_tasks_blocked()
        assert len(await right.receive()) == 10


async def test_send_receive_and_close_are_schedule_points(pair: Pair) -> None:
    left, right = pair
    with trio.testing.assert_checkpoints():
        await left.send(b"x")
    with trio.testing.assert_checkpoints():
        await right.receive()
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            await left.aclose()
    with trio.testing.assert_checkpoints():
        assert await right.receive() == b""
    with trio.testing.assert_checkpoints(), pytest.raises(ConnectionLost):
        await left.receive()


# --- cancellation -----------------------------------------------------------------------------------------------


async def test_a_canceled_receive_loses_nothing(pair: Pair) -> None:
    left, right = pair
    with trio.CancelScope() as waiting:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(right.receive)
            await trio.testing.wait_all_tasks_blocked()
            waiting.cancel()
            left.send_nowait(b"kept")  # in the same turn as the cancellation
    assert waiting.cancelled_caught
    with trio.CancelScope() as before:
        before.cancel()
        await right.receive()
    assert before.cancelled_caught
    assert await right.receive() == b"kept"


async def test_bytes_and_cancellation_in_one_turn(pair: Pair) -> None:
    """What woke the reader is either returned or still there."""
    left, right = pair
    received = []

    async def receive(scope: trio.CancelScope) -> None:
        with scope:
            received.append(await right.receive())

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(receive, scope)
        await trio.testing.wait_all_tasks_blocked()
        left.send_nowait(b"once")
        scope.cancel()
    left.send_eof()
    assert b"".join(received) + await receive_all(right) == b"once"


async def test_a_send_that_was_canceled_before_it_began_sends_nothing(pair: Pair) -> None:
    left, right = pair
    with trio.CancelScope() as scope:
        scope.cancel()
        await left.send(b"never")
    assert scope.cancelled_caught
    left.send_eof()
    assert await right.receive() == b""


async def test_a_canceled_send_leaves_the_link_closable(small: Pair) -> None:
    left, right = small
    with trio.move_on_after(0.01):
        await left.send(b"0123456789more")
    await left.aclose()
    assert await receive_all(right) == b"0123456789"


@pytest.mark.parametrize("side", [0, 1])
async def test_a_canceled_close_still_closes(pair: Pair, side: int) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await pair[side].aclose()
    assert await pair[1 - side].receive() == b""


# --- ends -------------------------------------------------------------------------------------------------------


async def test_half_close(pair: Pair) -> None:
    left, right = pair
    await left.send(b"last words")
    assert left.send_eof()
    assert left.send_eof()
    assert await receive_all(right) == b"last words"
    assert await right.receive() == b""
    await right.send(b"still heard")
    assert await left.receive() == b"still heard"
    with pytest.raises(ConnectionLost):
        left.send_nowait(b"x")
    with pytest.raises(ConnectionLost):
        await left.send(b"")


async def test_half_close_wakes_the_reader_and_ends_a_pending_send(small: Pair) -> None:
    left, right = small
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises_lost, left.send, bytes(20))
        await trio.testing.wait_all_tasks_blocked()
        left.send_eof()
    assert len(await receive_all(right)) == 10

    async def end() -> None:
        await trio.testing.wait_all_tasks_blocked()
        right.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        assert await left.receive() == b""


async def raises_lost(operation: Callable[..., Awaitable[object]], *args: object) -> None:
    with pytest.raises(ConnectionLost):
        await operation(*args)


async def test_closing_wakes_whoever_waits_on_this_side(small: Pair) -> None:
    left, right = small
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises_lost, left.send, bytes(20))
        nursery.start_soon(raises_lost, left.receive)
        await trio.testing.wait_all_tasks_blocked()
        await left.aclose()
    for _ in range(2):
        await raises_lost(left.receive)
        await raises_lost(left.send, b"x")
        with pytest.raises(ConnectionLost):
            left.send_nowait(b"x")
    assert left.send_eof()
    assert len(await receive_all(right)) == 10


async def test_closing_wakes_whoever_waits_on_the_other_side(small: Pair) -> None:
    left, right = small
    ended = []

    async def receive() -> None:
        ended.append(await right.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await left.aclose()
    assert ended == [b""]

    left, right = memory_link_pair(buffer_size=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises_lost, right.send, bytes(20))
        await trio.testing.wait_all_tasks_blocked()
        await left.aclose()
    with pytest.raises(ConnectionLost):
        right.send_nowait(b"x")


async def test_what_was_sent_before_closing_still_arrives(pair: Pair) -> None:
    left, right = pair
    await left.send(b"a bequest")
    await left.aclose()
    await raises_lost(right.send, b"thanks")
    assert await right.receive() == b"a bequest"
    assert await right.receive() == b""
    assert await right.receive() == b""


async def test_closing_with_unread_input_is_a_break(pair: Pair) -> None:
    left, right = pair
    await right.send(b"nobody reads this")
    await left.send(b"a bequest")
    await left.aclose()
    await raises_lost(right.send, b"x")
    assert await right.receive() == b"a bequest"
    for _ in range(2):
        await raises_lost(right.receive)


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} needs Unix sockets")
@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("closing", ["close", "half-close"])
async def test_it_ends_as_a_real_socket_pair_does(unread: bool, closing: str) -> None:
    """The same script on both; the socket's errors are the link's `ConnectionLost`."""
    left, right = memory_link_pair()
    real_left, real_right = socket.socketpair()
    with real_left, real_right:
        for mine, real in ((left, real_left), (right, real_right)):
            if mine is left or unread:
                await mine.send(b"hello")
                real.sendall(b"hello")
        if closing == "close":
            await left.aclose()
            real_left.close()
        else:
            left.send_eof()
            real_left.shutdown(socket.SHUT_WR)
        seen: list[object] = []
        expected: list[object] = []
        for action in ("receive", "receive", "send"):
            try:
                seen.append(await right.receive() if action == "receive" else right.send_nowait(b"x"))
            except ConnectionLost:
                seen.append("lost")
            try:
                expected.append(real_right.recv(100) if action == "receive" else real_right.send(b"x"))
            except (BrokenPipeError, ConnectionResetError):
                expected.append("lost")
    assert seen == expected


async def test_repr_tells_the_state() -> None:
    left, right = memory_link_pair(Peer(address="memory:there"))
    assert repr(left) == "<MemoryLink memory:there open, 0 bytes unread>"
    await right.send(b"123")
    assert repr(left) == "<MemoryLink memory:there open, 3 bytes unread>"
    left.send_eof()
    assert "half-closed" in repr(left)
    await right.aclose()
    assert "peer gone, 3 bytes unread" in repr(left)
    await left.aclose()
    assert repr(left) == "<MemoryLink memory:there closed, 0 bytes unread>"


async def test_peers() -> None:
    left, right = memory_link_pair(Peer(address="memory:a", uid=1), None)
    assert left.peer == Peer(address="memory:a", uid=1)
    assert right.peer.address == "memory:"
    assert right.peer.pid == os.getpid()
    assert right.peer.protocol == "plain"
    if sys.platform != "win32":
        assert (right.peer.uid, right.peer.gid) == (os.geteuid(), os.getegid())
    assert left.reliable
    assert left.max_chunk_size is None


# --- names ------------------------------------------------------------------------------------------------------


async def test_connect_and_accept() -> None:
    transport = MemoryTransport()
    listener = await transport.listen(ADDRESS, {})
    assert listener.address == ADDRESS
    client = await transport.connect(ADDRESS, {})
    await client.send(b"before it was accepted")
    server = await listener.accept()
    assert await server.receive() == b"before it was accepted"
    await server.send(b"answer")
    assert await client.receive() == b"answer"
    assert client.peer == server.peer
    assert client.peer.address == "memory:test"
    assert client.peer.pid == os.getpid()
    await listener.aclose()
    await client.send(b"links outlive their listener")
    assert await server.receive() == b"links outlive their listener"


async def test_accept_waits() -> None:
    transport = MemoryTransport()
    listener = await transport.listen(ADDRESS, {})
    accepted = []

    async def accept() -> None:
        accepted.append(await listener.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        client = await transport.connect(ADDRESS, {})
    await client.send(b"x")
    assert await accepted[0].receive() == b"x"
    await listener.aclose()


async def test_nobody_listens() -> None:
    with trio.testing.assert_checkpoints(), pytest.raises(ConnectError, match="nobody listens on memory:test"):
        await MemoryTransport().connect(ADDRESS, {})


async def test_a_name_is_taken_until_it_is_freed() -> None:
    transport = MemoryTransport()
    listener = await transport.listen(ADDRESS, {})
    other = await transport.listen(parse_address("memory:other"), {})
    with pytest.raises(AddressInUse, match="memory:test is taken"):
        await MemoryTransport().listen(ADDRESS, {})  # names do not belong to the object
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            await listener.aclose()
    with pytest.raises(ConnectError):
        await transport.connect(ADDRESS, {})
    again = await transport.listen(ADDRESS, {})
    await listener.aclose()  # which must not free the name of its successor
    client = await transport.connect(ADDRESS, {})
    await client.send(b"x")
    assert await (await again.accept()).receive() == b"x"
    for each in (again, other):
        await each.aclose()


async def test_a_canceled_close_frees_the_name() -> None:
    transport = MemoryTransport()
    listener = await transport.listen(ADDRESS, {})
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.aclose()
    await (await transport.listen(ADDRESS, {})).aclose()


async def test_a_canceled_listen_takes_no_name() -> None:
    transport = MemoryTransport()
    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.listen(ADDRESS, {})
    assert scope.cancelled_caught
    await (await transport.listen(ADDRESS, {})).aclose()


async def test_closing_a_listener_wakes_accept_and_refuses_who_waits() -> None:
    transport = MemoryTransport()
    listener = await transport.listen(ADDRESS, {})

    async def accept() -> None:
        with pytest.raises(ConnectionClosed, match="the listener on memory:test is closed"):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
    await accept()

    listener = await transport.listen(ADDRESS, {})
    unlucky = await transport.connect(ADDRESS, {})
    await listener.aclose()
    assert await unlucky.receive() == b""


async def test_the_backlog_is_bounded_and_closing_refuses_all_of_it() -> None:
    transport = MemoryTransport()
    listener = await transport.listen(ADDRESS, {})
    waiting = [await transport.connect(ADDRESS, {}) for _ in range(128)]
    assert "128 waiting" in repr(listener)
    connected = []
    ended = []

    async def connect() -> None:
        link = await transport.connect(ADDRESS, {})
        connected.append(link)
        ended.append(await link.receive())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        assert connected == []
        await listener.aclose()
    assert ended == [b""] * 3
    for link in waiting:
        assert await link.receive() == b""


async def test_a_canceled_accept_loses_no_peer_and_a_canceled_connect_leaves_none() -> None:
    transport = MemoryTransport()
    listener = await transport.listen(ADDRESS, {})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.accept)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.connect(ADDRESS, {})
    assert scope.cancelled_caught
    client = await transport.connect(ADDRESS, {})
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.accept()
    assert scope.cancelled_caught
    await client.send(b"the only one")
    assert await (await listener.accept()).receive() == b"the only one"
    with trio.move_on_after(0.01) as nobody_else:
        await listener.accept()
    assert nobody_else.cancelled_caught
    await listener.aclose()


async def test_options_are_refused_by_name() -> None:
    transport = MemoryTransport()
    for use in (transport.connect, transport.listen):
        with pytest.raises(AddressError, match="memory:test takes no options and was given tls"):
            await use(ADDRESS, {"tls": True})


def test_names_belong_to_one_run() -> None:
    async def listen_and_leave() -> None:
        await MemoryTransport().listen(ADDRESS, {})

    async def connect() -> None:
        with pytest.raises(ConnectError):
            await MemoryTransport().connect(ADDRESS, {})

    trio.run(listen_and_leave)
    trio.run(connect)
    trio.run(listen_and_leave)
