"""What a worker does with connections that are handed to it: taken when they are served, and not a moment before."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from pyipc.cluster.courier import SocketCourier, SocketMailbox
from pyipc.cluster.receiving import Receiving
from pyipc.errors import AddressInUse, ConnectionClosed
from tests.battery.leaks import leak_gate
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyipc.cluster.courier import Carrier, Header

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows has no SCM_RIGHTS")


class World:
    """A worker, and the primary's end of its mailbox in the hands of the test."""

    def __init__(self) -> None:
        self.courier, theirs = SocketCourier.pair()
        self.mailbox = SocketMailbox(theirs)
        self.others: list[tuple[Header, Carrier | None]] = []
        self.receiving = Receiving(self.mailbox, other=lambda header, carrier: self.others.append((header, carrier)))

    def hand(self, number: int, claim: str = "a") -> socket.socket:
        """Hand a new connection over, and return the client's end."""
        ours, theirs = socket.socketpair()
        with theirs:
            self.courier.send_nowait({"claim": claim, "number": number}, theirs)
        ours.settimeout(5)
        return ours

    def fill(self) -> int:
        """Write notes until there is no room; the test does not read them yet."""
        count = 0
        with contextlib.suppress(trio.WouldBlock):
            while True:
                self.mailbox.send_nowait({"filling": "x" * 2000})
                count += 1
        return count

    async def notes(self, count: int) -> list[Header]:
        """The next notes of the worker."""
        with trio.fail_after(5):
            return [await self.courier.receive() for _ in range(count)]


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with leak_gate():
        made = World()
        async with trio.open_nursery() as nursery:
            await nursery.start(made.receiving.run)
            yield made
            nursery.cancel_scope.cancel()
        made.courier.close()
        made.mailbox.close()


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked(0.02)


async def test_a_connection_is_taken_when_it_is_handed_out() -> None:
    async with world() as each:
        inlet = each.receiving.open("a")
        with each.hand(1) as client:
            await settled()
            assert repr(inlet) == "<Inlet of a, waiting: 1>"
            each.courier.finish()  # so that reading does not wait
            with pytest.raises(trio.EndOfChannel):
                await each.courier.receive()
            carrier, closed = await inlet.accept()
            assert await each.courier.receive() == {"taken": 1}
            assert each.receiving.open_connections == 1
            assert isinstance(carrier, socket.socket)
            with carrier:
                client.sendall(b"x")
                assert carrier.recv(1) == b"x"
            closed()
            closed()
            assert each.receiving.open_connections == 0
            await settled()
            assert await each.courier.receive() == {"closed": [1]}


async def test_many_that_are_closed_at_once_are_told_in_few_notes() -> None:
    async with world() as each:
        closings = [each.receiving.keep(number) for number in range(10**9, 10**9 + 400)]
        unknown = each.receiving.keep()
        for closed in closings:
            closed()
        assert each.receiving.open_connections == 1
        told = [note["closed"] for note in await each.notes(3)]
        assert [len(some) for some in told] == [150, 150, 100]
        assert [number for some in told for number in some] == list(range(10**9, 10**9 + 400))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(each.receiving.wait_none_open)
            await settled()
            unknown()
        await each.receiving.wait_none_open()


async def test_being_cancelled_loses_no_connection() -> None:
    async with world() as each:
        inlet = each.receiving.open("a")
        with trio.CancelScope() as scope:
            scope.cancel()
            await inlet.accept()
        with each.hand(1):
            count = each.fill()
            with trio.move_on_after(0.05) as scope:
                await inlet.accept()  # cannot tell the primary
            assert scope.cancelled_caught
            assert each.receiving.open_connections == 0
            await each.notes(count)
            carrier, closed = await inlet.accept()
            assert await each.notes(1) == [{"taken": 1}]
            carrier.close()
            closed()


async def test_being_cancelled_after_the_listener_was_closed_leaves_it_to_others() -> None:
    async with world() as each:
        inlet = each.receiving.open("a")
        with each.hand(7):
            count = each.fill()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(inlet.accept)
                await settled()
                inlet.close()
                nursery.cancel_scope.cancel()
            await each.notes(count)
            assert await each.notes(1) == [{"refused": [7]}]


async def test_another_task_takes_what_a_cancelled_one_gave_back() -> None:
    async with world() as each:
        inlet = each.receiving.open("a")
        with each.hand(1):
            count = each.fill()
            taken: list[int] = []

            async def take() -> None:
                carrier, closed = await inlet.accept()
                taken.append(1)
                carrier.close()
                closed()

            async with trio.open_nursery() as nursery:
                with trio.move_on_after(0.05):
                    async with trio.open_nursery() as first:
                        first.start_soon(take)
                        await settled()
                        nursery.start_soon(take)
                        await trio.sleep_forever()
                assert taken == []
                await each.notes(count + 1)
            assert taken == [1]


async def test_closing_leaves_what_waits_to_others_and_wakes_who_accepts() -> None:
    async with world() as each:
        inlet = each.receiving.open("a")
        with each.hand(1), each.hand(2):
            await settled()
            inlet.close()
            inlet.close()
            assert await each.notes(1) == [{"refused": [1, 2]}]
        assert inlet.is_closed
        with pytest.raises(ConnectionClosed, match="closed"):
            await inlet.accept()
        with each.hand(3):
            assert await each.notes(1) == [{"refused": [3]}]
        again = each.receiving.open("a")

        async def accept() -> None:
            with pytest.raises(ConnectionClosed, match="closed"):
                await again.accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            nursery.start_soon(accept)
            await settled()
            again.close()


async def test_an_address_is_listened_on_once() -> None:
    async with world() as each:
        each.receiving.open("a")
        each.receiving.open("b")
        with pytest.raises(AddressInUse, match="listens on a already"):
            each.receiving.open("a")


async def test_retired_it_hands_out_nothing_and_raises_nothing() -> None:
    async with world() as each:
        inlet_a, inlet_b = each.receiving.open("a"), each.receiving.open("b")
        stopped: list[str] = []
        each.receiving.when_retired(lambda: stopped.append("before"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inlet_a.accept)
            with each.hand(2, "b"), each.hand(3, "b"):
                await settled()
                assert not each.receiving.is_retired
                each.receiving.retire()
                each.receiving.retire()
                assert each.receiving.is_retired
                assert await each.notes(1) == [{"refused": [2, 3]}]
            each.receiving.when_retired(lambda: stopped.append("after"))
            assert stopped == ["before", "after"]
            nursery.start_soon(inlet_b.accept)
            with each.hand(4):
                assert await each.notes(1) == [{"refused": [4]}]
                await settled()
            assert len(nursery.child_tasks) == 2
            nursery.cancel_scope.cancel()


async def test_without_a_descriptor_left_another_gets_it(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as each:
        each.receiving.open("a")
        for number in range(5):  # told once
            each.courier.send_nowait({"claim": "a", "number": number})
            assert await each.notes(1) == [{"refused": [number]}]
        assert caplog.text.count("no descriptors left") == 1
        with each.hand(7):
            await settled()
        each.courier.send_nowait({"claim": "a", "number": 8})
        assert await each.notes(1) == [{"refused": [8]}]
        assert caplog.text.count("no descriptors left") == 2
        with each.hand(9):
            each.courier.send_nowait({"listening": "b"})
            await settled()
        assert caplog.text.count("no descriptors left") == 3


async def test_when_the_primary_is_gone_listeners_end() -> None:
    async with leak_gate():
        each = World()
        inlet = each.receiving.open("a")
        async with trio.open_nursery() as nursery:
            await nursery.start(each.receiving.run)
            with each.hand(1) as client:
                await settled()
                nursery.start_soon(_closed, each.receiving)
                await settled()
                each.courier.close()
                await settled()
                assert client.recv(1) == b""
                with pytest.raises(ConnectionClosed):
                    await inlet.accept()
                with pytest.raises(ConnectionClosed, match="the primary is gone"):
                    each.receiving.open("b")
        each.mailbox.close()


async def _closed(receiving: Receiving) -> None:
    with pytest.raises(ConnectionClosed, match="the primary is gone"):
        await receiving.listening("shared", 1)


async def test_what_cannot_be_told_is_not_served() -> None:
    """The primary that does not know of it may give it to another."""
    async with leak_gate():
        each = World()
        inlet = each.receiving.open("a")
        with each.hand(1) as client:
            async with trio.open_nursery() as nursery:
                await nursery.start(each.receiving.run)
                await settled()
                nursery.cancel_scope.cancel()
        assert client.fileno() == -1
        assert inlet.is_closed
        each.courier.close()
        each.mailbox.close()
        ours, theirs = socket.socketpair()
        with ours:
            assert not await inlet._take(1, theirs)
            assert theirs.fileno() == -1


async def test_what_is_for_no_listener_is_passed_on_or_closed(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as each:
        with socket.socket() as sock:
            each.courier.send_nowait({"link": "x"}, sock)
            each.courier.send_nowait({"note": 1})
        await settled()
        assert [header for header, _ in each.others] == [{"link": "x"}, {"note": 1}]
        carrier = each.others[0][1]
        assert carrier is not None
        carrier.close()
        each.receiving._other = None
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                each.courier.send_nowait({"link": "y"}, theirs)
            ours.settimeout(5)
            assert await trio.to_thread.run_sync(ours.recv, 1) == b""
        assert "nobody here knows: ['link']" in caplog.text


async def test_listening_sockets_are_waited_for() -> None:
    async with world() as each:
        got: list[Carrier] = []

        async def wait() -> None:
            got.extend(await each.receiving.listening("a", 2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
                for sock in (first, second):
                    await settled()
                    assert got == []
                    each.courier.send_nowait({"listening": "a"}, sock)
                await settled()
                places = [each.getsockname() for each in got if isinstance(each, socket.socket)]
                assert places == [first.getsockname(), second.getsockname()]
                each.courier.send_nowait({"listening": "nobody came for this one"}, first)
                await settled()
        for carrier in got:
            carrier.close()
