"""Draining a server: who is waited for, until when, and what is told to whom."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.protocol.addresses import parse_address
from pyipc.transports import Link, memory_link_pair, transport_for
from tests.conformance.sides import until
from tests.conftest import CANNOT_RUN
from tests.wire import WirePeer, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

ADDRESS = "memory:draining"
HELLO = b'{"type":"pyipc.hello","data":{"versions":[1]}}\f'
GOAWAY = b'{"type":"pyipc.goaway","data":{"message":"update"}}\f'


@pytest.fixture
async def server() -> AsyncIterator[pyipc.Server]:
    async with pyipc.Server(ADDRESS) as server:
        yield server


async def dial(server: pyipc.Server) -> Link:
    """A peer in the hands of the test, in whose place anything can be said."""
    return await transport_for("memory").connect(server.addresses[0], {})


async def read_all(link: Link) -> bytes:
    got = b""
    while chunk := await link.receive():
        got += chunk
    return got


async def test_without_clients_it_is_over_at_once(server: pyipc.Server) -> None:
    assert await server.drain() == pyipc.DrainReport()
    assert repr(server) == "<Server memory:draining closed, 0 connections>"
    assert not server.draining
    async with pyipc.Server(ADDRESS):
        pass


async def test_a_server_that_does_not_run_is_closed_by_it() -> None:
    server = pyipc.Server(ADDRESS)
    assert await server.drain() == pyipc.DrainReport()
    with pytest.raises(RuntimeError, match="runs once"):
        async with server:
            pass


async def test_a_time_that_is_none_is_refused(server: pyipc.Server) -> None:
    with pytest.raises(ValueError, match="zero or more seconds"):
        await server.drain(-1)
    assert not server.draining


async def test_run_returns_when_the_drain_is_over() -> None:
    server = pyipc.Server(ADDRESS)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        assert await server.drain() == pyipc.DrainReport()


async def test_a_peer_is_asked_with_the_reason_and_waited_for(server: pyipc.Server, autojump_clock: MockClock) -> None:
    link = await dial(server)
    await link.send(HELLO)
    await until(lambda: bool(server.connections))
    await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:
        reports: list[pyipc.DrainReport] = []

        async def drain() -> None:
            reports.append(await server.drain(message="update"))

        nursery.start_soon(drain)
        await trio.testing.wait_all_tasks_blocked()
        assert server.draining
        assert server.statistics().draining
        assert repr(server) == "<Server memory:draining draining, 1 connections>"
        assert (await link.receive()).endswith(GOAWAY)
        assert not reports
        link.send_eof()
        await until(lambda: bool(reports))
    assert reports == [pyipc.DrainReport(left=1)]
    await link.aclose()


async def test_who_introduces_itself_only_then_is_asked_as_well(
    server: pyipc.Server, autojump_clock: MockClock
) -> None:
    link = await dial(server)
    await until(lambda: bool(server.connections))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.drain, 60, "update")
        await until(lambda: server.draining)
        await link.send(HELLO)
        assert (await link.receive()).count(GOAWAY) == 1
        link.send_eof()
    await link.aclose()


async def test_who_waits_in_line_is_let_in_and_asked() -> None:
    question = b'{"type":"pyipc.request","data":{"call":1,"event":"sum","data":[1,2]}}\f'
    reports: list[pyipc.DrainReport] = []
    async with pyipc.Server("tcp://127.0.0.1:0") as server:
        server.on("sum", lambda message: sum(message.data))
        address = server.addresses[0]

        async def talk(sock: socket.socket) -> None:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            got = b""
            while GOAWAY not in got or b"pyipc.reply" not in got:
                chunk = await stream.receive_some()
                assert chunk, "the connection was closed"
                got += chunk
            assert b'"call":1,"data":3}' in got
            await stream.aclose()

        async def drain() -> None:
            reports.append(await server.drain(20, "update"))

        # All of them come before the server's own task runs again, which lets in sixteen at once.
        callers = [socket.create_connection((address.host, address.port)) for _ in range(40)]
        for caller in callers:
            caller.sendall(HELLO + question)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            for caller in callers:
                caller.setblocking(False)
                nursery.start_soon(talk, caller)
        assert server.statistics().accepted == 40
    assert reports == [pyipc.DrainReport(left=40)]


async def test_whoever_ignores_it_is_served_until_the_deadline(server: pyipc.Server, autojump_clock: MockClock) -> None:
    server.on("sum", lambda message: sum(message.data))
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        peer = WirePeer(await dial(server))
        await peer.send(HELLO)
        await until(lambda: bool(server.connections))
        reports: list[pyipc.DrainReport] = []

        async def drain() -> None:
            reports.append(await server.drain(20))

        nursery.start_soon(drain)
        await until(lambda: server.draining)
        for number in range(1, 20):
            await trio.sleep(1)
            await peer.send(request(number, "sum", [number]))
            assert await peer.read_until("pyipc.reply") == {"call": number, "data": number}
        assert (await peer.read_until("pyipc.goodbye"))["code"] == "closed"
        await peer.link.aclose()
        await until(lambda: bool(reports))
    assert reports == [pyipc.DrainReport(cut_off=1)]
    assert trio.current_time() - began == pytest.approx(20, abs=1)


@pytest.mark.parametrize("offline", ["raise", "drop", "queue"])
async def test_a_client_that_does_not_reconnect_finishes_and_leaves(
    server: pyipc.Server, autojump_clock: MockClock, offline: Any
) -> None:
    begun = trio.Event()

    @server.on("slow")
    async def slow(message: pyipc.Message[None]) -> str:
        begun.set()
        await trio.sleep(5)
        return "done"

    answers: list[object] = []
    began = trio.current_time()
    async with pyipc.connect(ADDRESS, reconnect=False, offline=offline) as client, trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append(await client.request("slow"))

        async def confirm() -> None:
            await client.emit("slow", confirm=True)
            answers.append("confirmed")

        nursery.start_soon(ask)
        nursery.start_soon(confirm)
        await begun.wait()
        nursery.start_soon(server.drain, 20)
        await until(lambda: client.statistics().moves == 1)
        for new in (lambda: client.request("slow"), lambda: client.emit("slow")):
            with pytest.raises(pyipc.ConnectionLost) as lost:
                await new()
            assert not lost.value.maybe_handled
    assert sorted(map(str, answers)) == ["confirmed", "done"]
    assert trio.current_time() - began < 10


async def test_handlers_may_answer_by_events_whoever_leaves(server: pyipc.Server, autojump_clock: MockClock) -> None:
    results: list[object] = []
    errors: list[BaseException] = []

    @server.on("sum")
    async def answer(message: pyipc.Message[list[int]]) -> None:
        await trio.sleep(10)
        await message.connection.emit("result", sum(message.data))
        try:
            await message.connection.request("name", timeout=None)
        except pyipc.ConnectionLost as error:  # the client has ended its side
            errors.append(error)

    router = pyipc.Router()
    router.on("result", lambda message: results.append(message.data))
    router.on("name", lambda message: "x")
    async with pyipc.connect(ADDRESS, router=router, heartbeat_interval=1.0, offline="raise") as client:
        await client.emit("sum", [1, 2])
        await client.emit("sum", [3, 4])  # which waits behind it
        await client.flush()
        await trio.sleep(0.1)
        began = trio.current_time()
        assert await server.drain(100) == pyipc.DrainReport(left=1)
        assert trio.current_time() - began < 25
    assert results == [3, 7]
    assert len(errors) == 2


@pytest.mark.parametrize("offline", ["raise", "drop"])
async def test_where_nothing_is_kept_a_connection_is_left_once_there_is_another(
    autojump_clock: MockClock, offline: Any
) -> None:
    seen: list[int] = []
    async with pyipc.Server("memory:first") as first, pyipc.Server("memory:second") as second:
        for each in (first, second):
            each.on("n", lambda message: seen.append(message.data))
        addresses = ("memory:first", "memory:second")
        async with pyipc.connect(*addresses, offline=offline) as client, trio.open_nursery() as nursery:
            await client.emit("n", 0)
            here, there = (second, first) if second.connections else (first, second)
            nursery.start_soon(here.drain, 20)
            for number in range(1, 500):
                await client.emit("n", number)
                await trio.lowlevel.checkpoint()
            await until(lambda: bool(there.connections))
            await client.flush()
            await trio.sleep(1)
            assert client.statistics().moves == 1
            assert client.statistics().offline_dropped == 0
    assert sorted(seen) == list(range(500))


async def test_the_shortest_of_several_times_holds(server: pyipc.Server, autojump_clock: MockClock) -> None:
    link = await dial(server)
    await link.send(HELLO)
    await until(lambda: bool(server.connections))
    began = trio.current_time()
    reports: list[pyipc.DrainReport] = []

    async def drain(timeout: float | None) -> None:
        reports.append(await server.drain(timeout))

    async with trio.open_nursery() as nursery:
        for timeout in (None, 100.0, 3.0, 50.0):
            nursery.start_soon(drain, timeout)
            await trio.testing.wait_all_tasks_blocked()
        await read_all(link)
        await link.aclose()
    assert reports == [pyipc.DrainReport(cut_off=1)] * 4
    assert trio.current_time() - began == pytest.approx(3.0, abs=0.5)


async def test_a_caller_that_gives_up_changes_nothing(server: pyipc.Server, autojump_clock: MockClock) -> None:
    link = await dial(server)
    await link.send(HELLO)
    await until(lambda: bool(server.connections))
    with trio.move_on_after(1) as scope:
        await server.drain(1000)
    assert scope.cancelled_caught
    assert server.draining
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, link)
        await server.aclose()
        await link.aclose()
    assert not server.draining


async def test_closing_ends_a_drain(server: pyipc.Server, autojump_clock: MockClock) -> None:
    link = await dial(server)
    await link.send(HELLO)
    await until(lambda: bool(server.connections))
    reports: list[pyipc.DrainReport] = []

    async def drain() -> None:
        reports.append(await server.drain(None))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        await until(lambda: server.draining)
        nursery.start_soon(read_all, link)
        nursery.start_soon(server.aclose)
        await until(lambda: bool(reports))
        await link.aclose()
    assert reports == [pyipc.DrainReport(cut_off=1)]


@pytest.mark.parametrize("kind", ["event", "request", "nested"])
async def test_a_handler_may_call_it_and_others_are_waited_for(
    server: pyipc.Server, autojump_clock: MockClock, kind: str
) -> None:
    asked, go_on = trio.Event(), trio.Event()

    @server.on("slow")
    async def slow(message: pyipc.Message[None]) -> str:
        asked.set()
        await go_on.wait()
        return "done"

    @server.on("stop")
    async def stop(message: pyipc.Message[None]) -> None:
        if kind == "nested":
            with trio.move_on_after(500):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(server.drain, 1000)
        else:
            await server.drain(1000)

    began = trio.current_time()
    answers: list[object] = []
    gone: list[pyipc.Disconnected] = []
    async with pyipc.connect(ADDRESS, on_disconnect=gone.append) as one, pyipc.connect(ADDRESS) as other:

        async def ask() -> None:
            answers.append(await other.request("slow"))

        async def order() -> None:
            if kind == "request":
                with pytest.raises(pyipc.ConnectionLost):
                    await one.request("stop")
            else:
                await one.emit("stop")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await asked.wait()
            nursery.start_soon(order)
            await until(lambda: server.draining)
            await trio.sleep(20)
            assert not answers
            go_on.set()
            await until(lambda: not server.draining)
            await until(lambda: bool(gone))
    assert answers == ["done"]
    assert trio.current_time() - began < 100


async def test_a_stuck_handler_is_cancelled_at_the_deadline(autojump_clock: MockClock) -> None:
    ended: list[str] = []
    async with pyipc.Server(ADDRESS, close_timeout=1.0) as server, pyipc.connect(ADDRESS) as client:

        @server.on("stuck")
        async def stuck(message: pyipc.Message[None]) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append("cancelled")

        await client.emit("stuck")
        await until(lambda: any(each.statistics().events_received for each in server.connections))
        # The client has nothing under way and leaves; the handler of its event is waited for all the same.
        assert await server.drain(7) == pyipc.DrainReport(cut_off=1)
    assert ended == ["cancelled"]


async def test_what_the_server_asks_of_a_client_is_answered_before_that_leaves(
    server: pyipc.Server, autojump_clock: MockClock
) -> None:
    router = pyipc.Router()

    @router.on("slow")
    async def slow(message: pyipc.Message[int]) -> int:
        await trio.sleep(3)
        return message.data * 2

    @server.on("begin")
    async def begin(message: pyipc.Message[None]) -> None:
        answers.append(await message.connection.request("slow", 21))

    answers: list[object] = []
    async with pyipc.connect(ADDRESS, router=router) as client:
        await client.emit("begin")
        await trio.sleep(1)
        assert await server.drain() == pyipc.DrainReport(left=1)
    assert answers == [42]


async def test_what_is_adopted_or_called_while_it_drains_is_refused(
    server: pyipc.Server, autojump_clock: MockClock
) -> None:
    link = await dial(server)
    await link.send(HELLO)
    await until(lambda: bool(server.connections))
    ours, theirs = memory_link_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.drain)
        await until(lambda: server.draining)
        with pytest.raises(RuntimeError, match="not running"):
            server.adopt(ours)
        with pytest.raises(pyipc.ConnectionClosed, match="not running"):
            await server.dial("udp://127.0.0.1:1")
        await link.aclose()
    await ours.aclose()
    await theirs.aclose()


# --- peers without the protocol ---


async def test_a_plain_peer_gets_its_answers_and_then_the_end(server: pyipc.Server, autojump_clock: MockClock) -> None:
    @server.on("ask")
    async def ask(message: pyipc.Message[int]) -> None:
        await trio.sleep(3)
        await message.connection.emit("answer", message.data + 1)

    seen: list[int] = []
    server.on("late", lambda message: seen.append(message.data))
    link = await dial(server)
    await link.send(b'{"type":"ask","data":41}\f')
    await trio.sleep(1)
    async with trio.open_nursery() as nursery:
        reports: list[pyipc.DrainReport] = []

        async def drain() -> None:
            reports.append(await server.drain())

        nursery.start_soon(drain)
        assert await read_all(link) == b'{"type":"answer","data":42}\f'
        await link.send(b'{"type":"late","data":7}\f')  # written before it has seen the end
        await trio.sleep(1)
        assert not reports
        link.send_eof()
        await until(lambda: bool(reports))
    assert reports == [pyipc.DrainReport(left=1)]
    assert seen == [7]


async def test_a_peer_that_only_listens_is_given_the_time_of_an_introduction(
    server: pyipc.Server, autojump_clock: MockClock
) -> None:
    link = await dial(server)
    await until(lambda: bool(server.connections))
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.drain)
        assert await read_all(link) == b""
        assert trio.current_time() - began == pytest.approx(5.0, abs=0.5)  # handshake_timeout
        await link.aclose()


class Whole(Link):
    """A link that cannot close one direction."""

    keeps_sent = True

    def __init__(self, inner: Link) -> None:
        self.inner = inner

    @property
    def peer(self) -> Any:
        return self.inner.peer

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send(data)

    async def receive(self) -> bytes:
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_a_plain_peer_that_cannot_be_told_is_closed_at_the_deadline(
    server: pyipc.Server, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_link_pair()
    server.adopt(Whole(ours))
    await theirs.send(b'{"type":"e"}\f')
    await trio.testing.wait_all_tasks_blocked()
    began = trio.current_time()
    assert await server.drain(9) == pyipc.DrainReport(cut_off=1)
    assert trio.current_time() - began == pytest.approx(9, abs=0.5)
    assert await read_all(theirs) == b""


# --- listeners ---


_NEEDS_UNIX = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} needs Unix sockets")


@pytest.mark.parametrize(
    "address", ["memory:line", "tcp://127.0.0.1:0", pytest.param("unix:{folder}/line", marks=_NEEDS_UNIX)]
)
async def test_a_listener_hands_out_who_waits_in_line(address: str, tmp_path: Any) -> None:
    parsed = parse_address(address.format(folder=tmp_path))
    transport = transport_for(parsed.scheme)
    listener = await transport.listen(parsed, {})
    peers = [await transport.connect(listener.address, {}) for _ in range(5)]
    links = listener.retire()
    assert len(links) == 5
    assert listener.retire() == []
    if parsed.scheme != "tcp":
        with pytest.raises(pyipc.ConnectError):  # nobody can come any more, and others may listen
            await transport.connect(listener.address, {})
        await (await transport.listen(parsed, {})).aclose()
    await listener.aclose()
    for number, peer in enumerate(peers):
        await peer.send(b"%d" % number)
    assert sorted([await link.receive() for link in links]) == [b"0", b"1", b"2", b"3", b"4"]
    for link in (*peers, *links):
        await link.aclose()


async def test_a_listener_that_is_closed_hands_out_nobody(tmp_path: Any) -> None:
    listener = await transport_for("tcp").listen(parse_address("tcp://127.0.0.1:0"), {})
    await listener.aclose()
    assert listener.retire() == []
