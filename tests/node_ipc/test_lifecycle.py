"""Connecting, losing, retrying, disconnecting, stopping: which events happen, in which order, with what."""

from __future__ import annotations

import logging
import math
import socket as sockets
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import pyipc
from pyipc.node_ipc import IPC, Socket
from tests.conformance.sides import until
from tests.interop.node import eventually
from tests.node_ipc.programs import Events
from tests.wire import frame

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node_ipc.programs import Meeting

pytestmark = pytest.mark.time_limit(40)


async def test_a_whole_life(meeting: Meeting) -> None:
    async with meeting.joined() as (served, heard):
        assert served.all[0][0] == "start"
        assert isinstance(served.all[1][1], Socket)
        meeting.there.of.world.emit("message", {"a": 1})
        await served.wait_for("message")
        (socket,) = meeting.here.server.sockets
        client = meeting.there.of.world
        assert repr(client) == "<Client 'world' connected>"
        assert served.all[2] == ("message", {"a": 1}, socket)
        meeting.here.server.emit(socket, "answer", [1])
        await heard.wait_for("answer")
        meeting.there.disconnect("world")
        await heard.wait_for("destroy")
        await served.wait_for("close")
        assert meeting.here.server.sockets == []
        assert (repr(client), client.destroyed) == ("<Client 'world' destroyed>", True)
        assert socket.destroyed
    assert heard.names == ["connect", "answer", "disconnect", "destroy"]
    assert heard.all[0] == ("connect",)
    assert heard.all[2][1].code == "closed"
    assert served.names == ["start", "connect", "message", "socket.disconnected", "close"]
    assert served.all[3:] == [("socket.disconnected", socket, None), ("close", socket)]


async def test_the_callback_of_connect_to(meeting_unix: Meeting) -> None:
    """It is called at once, with what has the client, and again where there is a client already."""
    called: list[Any] = []
    there = meeting_unix.there
    there.connect_to("world", str(meeting_unix.path), called.append)
    assert called == [there]
    client = there.of.world
    there.connect_to("world", str(meeting_unix.path), lambda: called.append("again"))
    assert called == [there, "again"]
    assert there.of.world is client


async def test_an_async_callback_of_connect_to(meeting_unix: Meeting) -> None:
    done = trio.Event()

    async def callback(ipc: IPC) -> None:
        assert ipc is meeting_unix.there
        done.set()

    meeting_unix.there.connect_to("world", str(meeting_unix.path), callback)
    async with meeting_unix.there:
        await done.wait()


async def test_a_server_that_is_not_there(directory: Path) -> None:
    """One attempt and as many more as there are retries, each with an error; then it is over, and may begin anew."""
    ipc = IPC()
    ipc.config.retry, ipc.config.max_retries = 1, 2
    ipc.connect_to("world", str(directory / "s"))
    first = ipc.of.world
    events = Events(first)
    await ipc.run()  # which ends with the client
    assert events.names == ["error"] * 3 + ["destroy"]
    assert all(isinstance(error, pyipc.ConnectError) for error in events.data("error"))
    assert first.destroyed
    with pytest.raises(pyipc.ConnectionClosed, match="connect_to makes another"):
        first.emit("too late")
    ipc.connect_to("world", str(directory / "s"))
    assert ipc.of.world is not first


@pytest.mark.parametrize(("max_retries", "stop"), [(0, False), (False, False), (math.inf, True)])
async def test_no_retries(directory: Path, max_retries: float, stop: bool) -> None:
    ipc = IPC()
    ipc.config.max_retries, ipc.config.stop_retrying = max_retries, stop
    ipc.connect_to("world", str(directory / "s"))
    events = Events(ipc.of.world)
    await ipc.run()
    assert events.names == ["error", "destroy"]


async def test_an_address_that_cannot_be_used_is_not_tried_again(directory: Path) -> None:
    ipc = IPC()
    ipc.connect_to("world", str(directory / (200 * "x")))
    events = Events(ipc.of.world)
    await ipc.run()
    assert events.names == ["error", "destroy"]
    assert isinstance(events.all[0][1], pyipc.AddressError | pyipc.ConnectError)


async def test_retrying_is_stopped_while_it_waits_for_the_next_attempt(directory: Path) -> None:
    """In node-ipc, what is set then comes too late for that attempt."""
    ipc = IPC()
    ipc.config.retry = 60_000
    ipc.connect_to("world", str(directory / "s"))
    events = Events(ipc.of.world)
    async with ipc:
        await events.wait_for("error")
        ipc.disconnect("world")
        await events.wait_for("destroy")
    assert events.names == ["error", "destroy"]


async def test_a_server_that_comes_back(meeting: Meeting) -> None:
    """Each connection has its connect and its disconnect, and what was emitted meanwhile arrives, in order."""
    async with meeting.joined() as (served, heard):
        place = served.all[0][1]
        meeting.here.server.stop()
        await heard.wait_for("disconnect")
        for number in range(3):
            meeting.there.of.world.emit("message", number)
        await eventually(lambda: not meeting.here.server.is_started)
        if meeting.path is None:
            meeting.here.serve_net(place["address"], place["port"])
        else:
            meeting.here.serve(meeting.path)
        again = Events(meeting.here.server)
        meeting.here.server.start()
        await again.wait_for("message", 3)
        assert again.data("message") == [0, 1, 2]
    assert [name for name in heard.names if name != "error"] == [*["connect", "disconnect"] * 2, "destroy"]


@pytest.mark.parametrize("sync", [False, True])
async def test_a_server_that_comes_back_more_than_once_while_a_handler_is_at_work(directory: Path, sync: bool) -> None:
    ipc = IPC()
    ipc.config.retry, ipc.config.sync = 1, sync
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(str(directory / "s"))
    listener.listen(1)
    may_go_on = trio.Event()
    with listener:
        async with ipc:
            ipc.connect_to("world", str(directory / "s"))
            heard = Events(ipc.of.world)
            ipc.of.world.on("message", may_go_on.wait)
            for number in range(3):
                stream = trio.SocketStream((await listener.accept())[0])
                await stream.send_all(frame("message", number))
                await stream.aclose()
            stream = trio.SocketStream((await listener.accept())[0])
            async with stream:
                await wait_all_tasks_blocked()
                may_go_on.set()
                await heard.wait_for("connect", 4)
                assert [event[:2] for event in heard.all if event[0] == "message"] == [("message", n) for n in range(3)]
                once = ["connect", "message", "disconnect"]
                assert [name for name in heard.names if name != "error"] == [*once * 3, "connect"]
                ipc.of.world.emit("question")
                assert await stream.receive_some() == frame("question", None)


async def test_connecting_again_during_an_outage_makes_no_second_client(meeting_unix: Meeting) -> None:
    """In node-ipc both live on, and disconnecting ends only one of them."""
    async with meeting_unix.joined() as (_, heard):
        client = meeting_unix.there.of.world
        meeting_unix.here.server.stop()
        await heard.wait_for("disconnect")
        meeting_unix.there.connect_to("world", str(meeting_unix.path))
        assert meeting_unix.there.of.world is client
        meeting_unix.there.disconnect("world")
        await heard.wait_for("destroy")
        assert client.destroyed


async def test_connecting_again_after_disconnecting(meeting_unix: Meeting) -> None:
    """Even while the last of the old client is still on its way."""
    async with meeting_unix.joined() as (served, heard):
        old = meeting_unix.there.of.world
        old.emit("message", "old")
        old.disconnect()
        assert old.explicitly_disconnected
        meeting_unix.there.connect_to("world", str(meeting_unix.path))
        assert meeting_unix.there.of.world is not old
        with pytest.raises(pyipc.ConnectionClosed):
            old.emit("message", "too late")
        meeting_unix.there.of.world.emit("message", "new")
        await served.wait_for("message", 2)
        await heard.wait_for("destroy")
    assert sorted(served.data("message")) == ["new", "old"]


async def test_emitting_and_disconnecting_at_once_loses_nothing(meeting: Meeting) -> None:
    text = "x" * 500_000
    async with meeting.joined() as (served, _):
        for _ in range(4):
            meeting.there.of.world.emit("big", text)
        meeting.there.disconnect("world")
        await served.wait_for("close")
        assert served.data("big") == [text] * 4


async def test_what_is_emitted_before_it_runs_comes_first(meeting_unix: Meeting) -> None:
    served = meeting_unix.serve()
    there = meeting_unix.there
    data = {"number": 1}
    there.connect_to("world", str(meeting_unix.path))
    there.of.world.emit("early", data)
    data["number"] = 2  # which is not what was emitted
    there.of.world.on("connect", lambda: there.of.world.emit("late"))
    async with meeting_unix.here, there:
        await served.wait_for("late")
    assert [event[:2] for event in served.all[2:4]] == [("early", {"number": 1}), ("late", None)]


async def test_what_is_emitted_before_it_runs_and_cannot_be_sent(meeting_unix: Meeting) -> None:
    served = meeting_unix.serve()
    there = meeting_unix.there
    there.connect_to("world", str(meeting_unix.path))
    with pytest.raises(pyipc.InvalidEventName):
        there.of.world.emit("toString")
    with pytest.raises(pyipc.UnencodableData):
        there.of.world.emit("message", object())
    there.of.world.emit("message", "well")
    async with meeting_unix.here, there:
        await served.wait_for("message")
    assert served.data("message") == ["well"]


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("limits", [{"max_offline_messages": 3}, {"max_offline_size": 120}])
def test_what_is_emitted_before_it_runs_has_a_bound(sync: bool, limits: dict[str, int]) -> None:
    ipc = IPC()
    ipc.config.sync, ipc.config.options = sync, limits
    ipc.connect_to("world")
    for _ in range(3):
        ipc.of.world.emit("message", "ten bytes.")
    with pytest.raises(trio.WouldBlock, match=r"3 messages of .* bytes wait already until"):
        ipc.of.world.emit("message", "ten bytes.")


async def test_raw_bytes_emitted_before_it_runs(meeting_unix: Meeting) -> None:
    meeting_unix.here.config.raw_buffer = meeting_unix.there.config.raw_buffer = True
    served = meeting_unix.serve()
    meeting_unix.there.connect_to("world", str(meeting_unix.path))
    meeting_unix.there.of.world.emit(b"\x00\xff")
    async with meeting_unix.here, meeting_unix.there:
        await served.wait_for("data")
    assert served.data("data") == [b"\x00\xff"]


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("gives_up", [False, True])
async def test_messages_that_find_no_server(directory: Path, sync: bool, gives_up: bool) -> None:
    """Giving up and disconnecting in vain tell how much was lost."""
    ipc = IPC()
    ipc.config.max_retries, ipc.config.retry = 1 if gives_up else math.inf, 1
    ipc.config.options = {"close_timeout": 0.05}
    ipc.config.sync = sync
    ipc.connect_to("world", str(directory / "s"))
    heard = Events(ipc.of.world)
    for _ in range(3):
        ipc.of.world.emit("message")
    if not gives_up:
        ipc.disconnect("world")
    await ipc.run()
    assert heard.names[-2:] == ["error", "destroy"]
    error = heard.all[-2][1]
    assert isinstance(error, pyipc.Undelivered)
    assert error.count == 3


async def test_a_server_that_cannot_listen(meeting: Meeting) -> None:
    async with meeting.joined() as (served, _):
        place = served.all[0][1]
        if meeting.path is None:
            meeting.there.serve_net(place["address"], place["port"])
        else:
            meeting.there.serve(meeting.path)
        events = Events(meeting.there.server)
        meeting.there.server.start()
        await events.wait_for("error")
        assert events.names == ["error"]
        assert isinstance(events.all[0][1], pyipc.AddressInUse)
        await eventually(lambda: not meeting.there.server.is_started)


async def test_the_start_comes_before_whoever_is_there_already(
    meeting_unix: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = pyipc.Server.__aenter__

    async def slowly(server: pyipc.Server) -> pyipc.Server:
        await begin(server)
        await until(lambda: len(server.connections) == 1)
        await wait_all_tasks_blocked()
        return server

    monkeypatch.setattr(pyipc.Server, "__aenter__", slowly)
    served = meeting_unix.serve()
    meeting_unix.there.connect_to("world", str(meeting_unix.path))
    meeting_unix.there.of.world.emit("message")
    async with meeting_unix.here, meeting_unix.there:
        await served.wait_for("message")
    assert served.names[:3] == ["start", "connect", "message"]


async def test_starting_and_stopping(meeting_unix: Meeting) -> None:
    here = meeting_unix.here
    here.serve(str(meeting_unix.path))
    here.server.stop()  # nothing to stop
    here.server.start()
    with pytest.raises(RuntimeError, match="started already"):
        here.server.start()
    with pytest.raises(RuntimeError, match="make another IPC"):
        here.serve(str(meeting_unix.path))
    events = Events(here.server)
    async with here:
        await events.wait_for("start")
        assert "0 sockets" in repr(here.server)
        here.server.stop()
    assert "not listening" in repr(here.server)
    assert here.server.broadcast("nobody hears") == pyipc.BroadcastReport(0, 0)


async def test_stopping_closes_the_connections(meeting: Meeting) -> None:
    """In node-ipc they stay, and are served."""
    meeting.there.config.stop_retrying = True
    async with meeting.joined() as (served, heard):
        meeting.here.server.broadcast("last", 1)
        meeting.here.server.stop()
        await heard.wait_for("destroy")
        await served.wait_for("close")
    assert heard.names == ["connect", "last", "disconnect", "destroy"]


async def test_unlink_false_leaves_the_socket_of_a_dead_server(directory: Path) -> None:
    path = directory / "s"
    with sockets.socket(sockets.AF_UNIX) as dead:
        dead.bind(str(path))
    ipc = IPC()
    ipc.config.unlink = False
    ipc.serve(str(path))
    events = Events(ipc.server)
    ipc.server.start()
    await ipc.run()
    assert events.names == ["error"]
    assert isinstance(events.all[0][1], pyipc.AddressInUse)
    assert path.is_socket()
    ipc.config.unlink = True
    ipc.server.on("start", ipc.server.stop)
    ipc.server.start()
    await ipc.run()
    assert events.names == ["error", "start"]
    assert not path.exists()


async def test_a_server_leaves_a_file_alone_that_is_no_socket(directory: Path) -> None:
    """node-ipc deletes it, and for TCP a file named like the host."""
    path = directory / "s"
    path.write_text("precious")
    ipc = IPC()
    ipc.serve(str(path))
    events = Events(ipc.server)
    ipc.server.start()
    await ipc.run()
    assert isinstance(events.all[0][1], pyipc.UnsafePath)
    assert path.read_text() == "precious"


async def test_max_connections(meeting: Meeting) -> None:
    meeting.here.config.max_connections = 1
    meeting.here.config.options = {"close_timeout": 0.05}
    async with meeting.joined() as (served, _):
        other = IPC()
        other.config.stop_retrying = True
        if meeting.path is None:
            other.connect_to_net("world", served.all[0][1]["port"])
        else:
            other.connect_to("world", meeting.path)
        events = Events(other.of.world)
        await other.run()
        assert events.names == ["connect", "disconnect", "destroy"]
        assert len(meeting.here.server.sockets) == 1


async def test_destroying_and_ending_a_socket(meeting: Meeting) -> None:
    meeting.there.config.max_retries = 1
    async with meeting.joined() as (served, heard):
        (first,) = meeting.here.server.sockets
        first.destroy()
        await served.wait_for("connect", 2)
        (second,) = meeting.here.server.sockets
        meeting.here.server.emit(second, "last")
        second.end()
        await heard.wait_for("disconnect", 2)
        await served.wait_for("close", 2)
        meeting.here.server.emit(second, "it is gone")
    assert heard.names[:2] == ["connect", "disconnect"]
    assert heard.names[heard.names.index("last") - 1 :][:3] == ["connect", "last", "disconnect"]


async def test_where_a_socket_comes_from(meeting: Meeting) -> None:
    async with meeting.joined():
        (socket,) = meeting.here.server.sockets
        if meeting.path is None:
            assert socket.address == "127.0.0.1"
            assert isinstance(socket.port, int)
        else:
            assert (socket.address, socket.port) == (None, None)
            assert socket.peer.uid is not None
        await socket.flush()
        await meeting.there.of.world.flush()


async def test_flushing_without_a_connection() -> None:
    ipc = IPC()
    ipc.connect_to("world")
    with pytest.raises(pyipc.ConnectionClosed, match="not connected"):
        await ipc.of.world.flush()


# --- running ----------------------------------------------------------------------------------------------------


async def test_a_handler_may_go_on(meeting_unix: Meeting) -> None:
    """As what is begun with setInterval does: nothing waits for it, and the program lasts as long as it does."""
    ticks = 0

    async def started() -> None:
        nonlocal ticks
        while ticks < 3:
            await trio.sleep(0.001)
            ticks += 1
        here.server.stop()

    here = meeting_unix.here
    here.serve(str(meeting_unix.path), started)
    here.server.start()
    await here.run()
    assert ticks == 3


async def test_nothing_to_do() -> None:
    await IPC().run()


async def test_an_error_of_the_body_arrives_as_it_is(meeting_unix: Meeting) -> None:
    with pytest.raises(ZeroDivisionError):
        async with meeting_unix.joined():
            _ = 1 / 0


async def test_a_cancelled_program_ends_at_once(meeting_unix: Meeting) -> None:
    with trio.CancelScope() as scope:
        async with meeting_unix.joined():
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not meeting_unix.here.server.is_started


async def test_it_runs_once_at_a_time() -> None:
    ipc = IPC()
    async with ipc:
        with pytest.raises(RuntimeError, match="runs already"):
            await ipc.run()


async def test_an_interruption_ends_the_program(directory: Path) -> None:
    ipc = IPC()

    async def started() -> None:
        raise KeyboardInterrupt

    ipc.serve(str(directory / "s"), started)
    ipc.server.start()
    with pytest.raises(KeyboardInterrupt):
        await ipc.run()


async def test_what_fails_is_logged_and_kills_nothing(meeting: Meeting, caplog: pytest.LogCaptureFixture) -> None:
    async def fail_later() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("later")

    def fail() -> None:
        raise ValueError("at once")

    async with meeting.joined() as (served, heard):
        server = meeting.here.server
        server.on("message", fail)
        server.on("message", fail_later)
        server.on("message", lambda data, socket: server.emit(socket, "answer", data))
        meeting.there.of.world.on("disconnect", fail_later)
        for number in range(3):
            meeting.there.of.world.emit("message", number)
        await heard.wait_for("answer", 3)
        meeting.there.disconnect("world")
        await heard.wait_for("destroy")
        await served.wait_for("close")
    assert heard.data("answer") == [0, 1, 2]
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in failures] == ["a handler of 'message' failed"] * 6 + [
        "a handler of 'disconnect' failed"
    ]
