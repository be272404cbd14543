"""What carries sockets between primary and worker: nothing is lost, nothing leaks, nothing is taken for another's."""

from __future__ import annotations

import array
import contextlib
import os
import random
import socket
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from pyipc.cluster.courier import MAX_HEADER_SIZE, SocketCourier, SocketMailbox
from tests.battery.leaks import leak_gate
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows has no SCM_RIGHTS")


@contextlib.asynccontextmanager
async def ends() -> AsyncIterator[tuple[SocketCourier, SocketMailbox]]:
    async with leak_gate():
        courier, theirs = SocketCourier.pair()
        mailbox = SocketMailbox(theirs)
        try:
            yield courier, mailbox
        finally:
            courier.close()
            mailbox.close()


@contextlib.asynccontextmanager
async def raw_ends() -> AsyncIterator[tuple[socket.socket, SocketMailbox]]:
    """A mailbox, and the socket that writes to it whatever a test likes."""
    async with leak_gate():
        courier, theirs = SocketCourier.pair()
        mailbox = SocketMailbox(theirs)
        try:
            yield courier._datagrams._socket, mailbox
        finally:
            courier.close()
            mailbox.close()


def send_raw(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([data], rights)


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_what_is_carried_arrives_and_the_sender_keeps_its_own() -> None:
    async with ends() as (courier, mailbox):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            courier.send_nowait({"claim": "a", "number": 1}, theirs)
            header, carrier = await mailbox.receive()
            assert header == {"claim": "a", "number": 1}
            assert isinstance(carrier, socket.socket)
            assert not carrier.get_inheritable()
            with carrier:
                ours.sendall(b"x")
                assert carrier.recv(9) == b"x"
                theirs.sendall(b"y")
                assert ours.recv(9) == b"y"


async def test_messages_without_anything_go_both_ways_in_order() -> None:
    async with ends() as (courier, mailbox):
        for number in range(50):
            courier.send_nowait({"number": number})
            mailbox.send_nowait({"taken": number})
        for number in range(50):
            assert await mailbox.receive() == ({"number": number}, None)
            assert await courier.receive() == {"taken": number}


@pytest.mark.parametrize("seed", range(20))
async def test_headers_of_any_size_up_to_the_limit(seed: int) -> None:
    chance = random.Random(seed)
    sizes = [0, 1, MAX_HEADER_SIZE - len('{"text":""}'), *(chance.randrange(MAX_HEADER_SIZE - 20) for _ in range(5))]
    async with ends() as (courier, mailbox):
        with socket.socket() as sock:
            for size in sizes:
                carried = chance.choice([sock, None])
                courier.send_nowait({"text": "x" * size}, carried)
                header, carrier = await mailbox.receive()
                assert header == {"text": "x" * size}
                assert (carrier is None) == (carried is None)
                if carrier is not None:
                    carrier.close()
                mailbox.send_nowait(header)
                assert await courier.receive() == header


async def test_a_header_that_is_too_large_is_not_sent() -> None:
    async with ends() as (courier, mailbox):
        with socket.socket() as sock:
            too_large = {"text": "x" * MAX_HEADER_SIZE}
            for send in (courier.send_nowait, courier.send):
                with pytest.raises(ValueError, match="4096 are allowed"):
                    if (waiting := send(too_large, sock)) is not None:
                        await waiting
            with pytest.raises(ValueError, match="4096 are allowed"):
                mailbox.send_nowait(too_large)
            courier.send_nowait({"n": 1})
            assert await mailbox.receive() == ({"n": 1}, None)


@pytest.mark.parametrize("sends_first", [False, True])
async def test_all_notes_of_a_worker_that_is_gone_are_read_before_the_end_is(sends_first: bool) -> None:
    async with ends() as (courier, mailbox):
        with socket.socket() as sock:
            for number in range(4):
                courier.send_nowait({"number": number}, sock)  # it leaves them unread, which the kernel calls a reset
        for number in range(100):
            mailbox.send_nowait({"taken": number})
        mailbox.close()
        if sends_first:  # the kernel tells of the reset once, to whoever asks first
            with pytest.raises(trio.BrokenResourceError):
                courier.send_nowait({})
        assert [await courier.receive() for _ in range(100)] == [{"taken": number} for number in range(100)]
        for _ in range(2):
            with pytest.raises(trio.EndOfChannel):
                await courier.receive()


async def test_the_end_is_told_when_the_process_has_left_its_end_to_another() -> None:
    async with leak_gate():
        courier, theirs = SocketCourier.pair()
        with theirs:
            theirs.send(b'{"taken":1}')
            got: list[object] = []

            async def read() -> None:
                try:
                    while True:
                        got.append(await courier.receive())
                except trio.EndOfChannel:
                    got.append("end")

            async with trio.open_nursery() as readers:
                readers.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                assert got == [{"taken": 1}]
                theirs.send(b'{"taken":2}')
                courier.finish()
            assert got == [{"taken": 1}, {"taken": 2}, "end"]
            courier.finish()
        courier.close()


async def test_the_end_of_the_primary_is_seen_by_the_worker() -> None:
    async with ends() as (courier, mailbox):
        with socket.socket() as sock:
            courier.send_nowait({"number": 1}, sock)
            courier.close()
        header, carrier = await mailbox.receive()
        assert header == {"number": 1}
        assert carrier is not None
        carrier.close()
        with pytest.raises(trio.EndOfChannel):
            await mailbox.receive()
        with pytest.raises(trio.BrokenResourceError):
            mailbox.send_nowait({"taken": 1})
        with pytest.raises(trio.ClosedResourceError):
            courier.send_nowait({})


async def test_a_full_courier_says_so_and_goes_on_when_there_is_room() -> None:
    async with ends() as (courier, mailbox):
        sent = 0
        with pytest.raises(trio.WouldBlock):
            while True:
                courier.send_nowait({"n": sent, "text": "x" * 1000})
                sent += 1
        with trio.move_on_after(0.01) as scope:  # cancelled means not sent
            await courier.send({"n": "cancelled"})
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            for more in range(5):
                nursery.start_soon(courier.send, {"n": sent + more, "text": ""})
            got = [(await mailbox.receive())[0]["n"] for _ in range(sent + 5)]
        assert got[:sent] == list(range(sent))
        assert sorted(got) == list(range(sent + 5))


@pytest.mark.parametrize("which", ["courier", "mailbox"])
async def test_closing_wakes_who_receives(which: str) -> None:
    async with ends() as (courier, mailbox):
        end = courier if which == "courier" else mailbox

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await end.receive()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            end.close()
        end.close()
        with pytest.raises(trio.ClosedResourceError):
            await end.receive()


@pytest.mark.parametrize("count", [2, 3, 16, 17, 40])
async def test_more_than_one_descriptor_is_closed_and_told(count: int, caplog: pytest.LogCaptureFixture) -> None:
    async with raw_ends() as (sock, mailbox):
        with contextlib.ExitStack() as stack:
            carried = [stack.enter_context(socket.socket()).fileno() for _ in range(count)]
            send_raw(sock, b'{"number":1}', carried)
            assert await mailbox.receive() == ({"number": 1}, None)
        assert "descriptors instead of one" in caplog.text


async def test_a_descriptor_that_is_no_socket_is_closed_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async with raw_ends() as (sock, mailbox):
        reading, writing = os.pipe()
        send_raw(sock, b'{"number":1}', [writing])
        os.close(writing)
        assert await mailbox.receive() == ({"number": 1}, None)
        assert os.read(reading, 1) == b""  # nobody has it open any more
        os.close(reading)
        assert "no socket" in caplog.text


async def test_without_descriptors_left_the_message_arrives_alone() -> None:
    async with ends() as (courier, mailbox):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            courier.send_nowait({"number": 1}, theirs)
            with no_descriptors_left():
                assert await mailbox.receive() == ({"number": 1}, None)
            theirs.close()
            assert ours.recv(1) == b""  # the copy that could not be delivered is gone


@pytest.mark.parametrize("seed", range(50))
async def test_nonsense_is_dropped_with_all_that_came_along(seed: int) -> None:
    chance = random.Random(seed)
    texts = [b"[]", b"7", b"null", b'"x"', b"{", b"\xff\xfe", b"{" * 4000, b"[" * 4000, b'{"n":NaN}', b" " * 9000]
    async with raw_ends() as (sock, mailbox):
        with socket.socket() as carried:
            for _ in range(20):
                text = chance.choice([*texts, chance.randbytes(chance.randrange(1, 6000))])
                send_raw(sock, text, [carried.fileno()] * chance.randrange(4))
                if text == b'{"n":NaN}':
                    carrier = (await mailbox.receive())[1]
                    if carrier is not None:
                        carrier.close()
            send_raw(sock, b'{"good":1}')
        assert await mailbox.receive() == ({"good": 1}, None)


async def test_what_a_worker_carries_or_babbles_is_dropped() -> None:
    async with leak_gate():
        courier, theirs = SocketCourier.pair()
        with theirs, socket.socket() as carried:
            for text in (b"[]", b"\xff", b"x" * 9000, b'{"taken":1}'):
                send_raw(theirs, text, [carried.fileno()])
            assert await courier.receive() == {"taken": 1}
        courier.close()
