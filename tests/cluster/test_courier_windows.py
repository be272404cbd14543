"""What carries sockets and pipes on Windows. The messages themselves are tested on every system."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.cluster.courier import MAX_HEADER_SIZE
from pyipc.cluster.courier_windows import LinkCourier, LinkMailbox
from pyipc.transports import Peer, PipeInstance, memory_link_pair, transport_for
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyipc.transports import Link

on_windows = pytest.mark.skipif(sys.platform != "win32", reason=f"{CANNOT_RUN} handles are of Windows")


@asynccontextmanager
async def ends(pid: int | None = None) -> AsyncIterator[tuple[LinkCourier, LinkMailbox, Link]]:
    """A courier that is attached and runs, its mailbox, and the link that the mailbox writes to."""
    ours, theirs = memory_link_pair(Peer(address="primary", pid=pid), Peer(address="worker", pid=pid))
    courier, mailbox = LinkCourier(), LinkMailbox(theirs)
    courier.attach(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(courier.run)
        yield courier, mailbox, theirs
        await courier.aclose()
        await mailbox.aclose()


async def test_messages_both_ways_in_order() -> None:
    async with ends() as (courier, mailbox, _):
        for number in range(50):
            courier.send_nowait({"number": number})
        for number in range(50, 200):
            await courier.send({"number": number})
            if number >= 100:
                assert await mailbox.receive() == ({"number": number - 100}, None)
        for number in range(200):
            await mailbox.send({"taken": number})
        assert [await courier.receive() for _ in range(200)] == [{"taken": number} for number in range(200)]


async def test_room_is_bounded_and_waited_for() -> None:
    ours, theirs = memory_link_pair()
    courier, mailbox = LinkCourier(), LinkMailbox(theirs)
    with pytest.raises(trio.WouldBlock):
        courier.send_nowait({"early": 1})
    courier.attach(ours)
    sent = 0
    with pytest.raises(trio.WouldBlock):
        while sent < 10_000:
            courier.send_nowait({"number": sent})
            sent += 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(courier.send, {"number": sent})
        nursery.start_soon(courier.run)
        got = [(await mailbox.receive())[0]["number"] for _ in range(sent + 1)]
        assert got == list(range(sent + 1))
        courier.close()
    await courier.aclose()
    await mailbox.aclose()


async def test_the_worker_never_writes_without_waiting() -> None:
    async with ends() as (_, mailbox, _):
        with pytest.raises(trio.WouldBlock):
            mailbox.send_nowait({"taken": 1})


async def test_what_is_too_large_is_refused() -> None:
    async with ends() as (courier, mailbox, _):
        large = {"text": "x" * MAX_HEADER_SIZE}
        with pytest.raises(ValueError, match="a header takes"):
            courier.send_nowait(large)
        with pytest.raises(ValueError, match="a header takes"):
            mailbox.send_nowait(large)
        with pytest.raises(ValueError, match="a header takes"):
            await mailbox.send(large)


async def test_what_is_no_message_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async with ends() as (courier, _, link):
        await link.send(b'nonsense\n[]\n{"header": 1}\n\xff\n' + b"[" * 3_000 + b'\n{"header": {"taken": 1}}\n')
        assert await courier.receive() == {"taken": 1}
        assert caplog.text.count("is no message") == 5
        await link.send(b"x" * 10_000)
        with pytest.raises(trio.EndOfChannel):
            await courier.receive()
        assert "it is the last" in caplog.text


async def test_the_end_comes_behind_all_that_was_written() -> None:
    async with ends() as (courier, mailbox, _):
        for number in range(10):
            await mailbox.send({"taken": number})
        await mailbox.aclose()
        courier.finish()
        assert [await courier.receive() for _ in range(10)] == [{"taken": number} for number in range(10)]
        with pytest.raises(trio.EndOfChannel):
            await courier.receive()
        with pytest.raises(trio.BrokenResourceError):
            courier.send_nowait({})


async def test_a_process_that_never_came_has_an_end_too() -> None:
    courier = LinkCourier()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(courier.run)
        await trio.testing.wait_all_tasks_blocked()
        courier.finish()
    with pytest.raises(trio.EndOfChannel):
        await courier.receive()
    await courier.aclose()


async def test_closing_wakes_whoever_waits() -> None:
    async with ends() as (courier, mailbox, _), trio.open_nursery() as nursery:

        async def expect(end: Any) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await end.receive()
            with pytest.raises(trio.ClosedResourceError):
                end.send_nowait({})

        nursery.start_soon(expect, courier)
        nursery.start_soon(expect, mailbox)
        await trio.testing.wait_all_tasks_blocked()
        courier.close()
        mailbox.close()
        courier.close()


async def test_the_primary_is_gone() -> None:
    async with ends() as (courier, mailbox, _):
        await courier.aclose()
        with pytest.raises(trio.EndOfChannel):
            await mailbox.receive()
        with pytest.raises(trio.BrokenResourceError):
            for _ in range(3):
                await mailbox.send({"taken": 1})


async def test_a_cancelled_receive_loses_nothing() -> None:
    async with ends() as (courier, mailbox, link):
        line = b'{"header":{"taken":7}}\n'
        for byte in line:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(courier.receive)
                    await trio.testing.wait_all_tasks_blocked()
                    if byte != line[-1]:
                        await link.send(bytes([byte]))
                        await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
        await link.send(line[-1:])
        assert await courier.receive() == {"taken": 7}
        await mailbox.send({"taken": 8})
        assert await courier.receive() == {"taken": 8}


async def test_a_process_that_is_not_there_is_given_nothing() -> None:
    async with ends(pid=None) as (courier, _, _):
        with socket.socket() as sock, pytest.raises(trio.BrokenResourceError, match="cannot be given"):
            courier.send_nowait({}, sock)


# --- on Windows ---


@on_windows
async def test_a_socket_arrives_and_the_own_copy_stays() -> None:
    async with ends(os.getpid()) as (courier, mailbox, _):
        left, right = socket.socketpair()
        with left, right:
            await courier.send({"claim": "x"}, right)
            header, carrier = await mailbox.receive()
            assert header == {"claim": "x"}
            assert isinstance(carrier, socket.socket)
            right.close()
            with carrier:
                left.sendall(b"hello")
                carrier.settimeout(10)
                assert carrier.recv(10) == b"hello"
                assert not os.get_handle_inheritable(carrier.fileno())  # type: ignore[attr-defined]


@on_windows
async def test_a_pipe_arrives_and_is_served() -> None:
    pipe = transport_for("pipe")
    address = pyipc.parse_address(f"pipe:{secrets.token_hex(8)}")
    claim = await pipe.claim(address, {})
    async with ends(os.getpid()) as (courier, mailbox, _):
        client = await pipe.connect(address, {})
        accepted = await claim.accept()
        await courier.send({"claim": "x"}, accepted)
        _, carrier = await mailbox.receive()
        assert isinstance(carrier, PipeInstance)
        told: list[bool] = []
        carrier.on_close = lambda: told.append(True)
        accepted.close()
        link = pipe.adopter(address, {})(carrier)
        await client.send(b"hello")
        assert await link.receive() == b"hello"
        await link.aclose()
        assert told == [True]
        await client.aclose()
    await claim.aclose()


@on_windows
async def test_what_cannot_be_opened_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with ends() as (courier, mailbox, _):
        await courier.send({"first": 1})
        courier._waiting.append(b'{"header":{"claim":"x"},"socket":"AAAA"}\n')
        courier._note_change()
        assert await mailbox.receive() == ({"first": 1}, None)
        assert await mailbox.receive() == ({"claim": "x"}, None)
        assert "cannot be opened" in caplog.text


@on_windows
def test_a_job_ends_its_processes_with_itself() -> None:
    from pyipc.cluster.windows import Job

    job, other = Job(), Job()
    command = [sys.executable, "-c", "import time; time.sleep(100)"]
    with subprocess.Popen(command) as process, subprocess.Popen(command) as bystander:
        job.add(process.pid)
        other.add(bystander.pid)
        job.close()
        job.close()
        process.wait(30)
        assert bystander.poll() is None
        with pytest.raises(OSError, match="WinError"):
            Job().add(0)
        other.close()
        bystander.wait(30)
