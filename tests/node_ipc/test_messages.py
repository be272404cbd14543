"""What is emitted, heard, broadcast; sync and raw mode; handlers; what cannot be spoofed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import pyipc
from pyipc.node_ipc import Emitter
from tests.interop.node import eventually, frame
from tests.node_ipc.programs import Events

if TYPE_CHECKING:
    from tests.node_ipc.programs import Meeting

pytestmark = pytest.mark.time_limit(40)


def emitter() -> Emitter:
    return Emitter(lambda *_: None)


# --- handlers ---------------------------------------------------------------------------------------------------


async def test_handlers_take_fewer_arguments_than_there_are() -> None:
    heard: list[Any] = []
    one = emitter()
    one.on("x", lambda: heard.append(()))
    one.on("x", lambda a: heard.append((a,)))
    one.on("x", lambda a, b=5: heard.append((a, b)))
    one.on("x", lambda *all: heard.append(all))
    one.on("x", heard.append)
    await one.publish("x", 1, 2)
    assert heard == [(), (1,), (1, 2), (1, 2), 1]


async def test_a_function_that_does_not_tell_what_it_takes() -> None:
    calls: list[tuple[int, ...]] = []

    class Silent:
        __signature__ = "none of your business"

        def __call__(self, *all: int) -> None:
            calls.append(all)

    one = emitter()
    one.on("x", Silent())
    await one.publish("x", 1, 2)
    assert calls == [(1, 2)]


async def test_all_events_come_before_the_typed_handlers() -> None:
    heard: list[Any] = []
    one = emitter()
    one.on("x", lambda data: heard.append(data))
    one.on("*", lambda *event: heard.append(event))
    await one.publish("x", "text")
    await one.publish("y")
    assert heard == [("x", "text"), "text", ("y",)]


async def test_handlers_come_and_go() -> None:
    """Taking one off while it runs skips nobody, as it does in node-ipc."""
    heard: list[str] = []
    one = emitter()

    def first() -> None:
        heard.append("first")
        one.off("x", first)
        one.on("x", lambda: heard.append("late"))

    one.on("x", first)
    one.on("x", lambda: heard.append("second"))
    one.once("x", lambda: heard.append("once"))
    await one.publish("x")
    assert heard == ["first", "second", "once"]
    heard.clear()
    await one.publish("x")
    assert heard == ["second", "late"]
    one.off("x")
    one.off("never there")
    await one.publish("x")
    assert heard == ["second", "late"]
    one.on("*", first)
    one.off("*", "*")
    await one.publish("x")
    assert heard == ["second", "late"]


async def test_once_is_once_although_it_publishes_again() -> None:
    heard: list[str] = []
    one = emitter()

    async def again() -> None:
        heard.append("once")
        await one.publish("x")

    one.once("x", again)
    await one.publish("x")
    assert heard == ["once"]

    def first() -> None:
        one.off("y")

    one.on("y", first)
    one.once("y", again)
    await one.publish("y")
    assert heard == ["once"], "it was taken off before its turn"


async def test_decorators() -> None:
    heard: list[Any] = []
    one = emitter()

    @one.on("x")
    async def note(data: int) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(data)

    @one.once("x")
    def note_once(data: int) -> None:
        heard.append(-data)

    await one.publish("x", 1)
    await one.publish("x", 2)
    assert heard == [1, -1, 2]
    assert callable(note)
    assert callable(note_once)


def test_what_is_no_handler() -> None:
    with pytest.raises(TypeError, match="a handler is a function"):
        emitter().on("x", 5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="an event is a text"):
        emitter().on(5, print)  # type: ignore[call-overload]


async def test_a_nursery_of_a_handler_that_is_cancelled_while_a_task_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    async def handler() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()

    one = emitter()
    one.on("x", handler)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.publish, "x")
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert "a handler of 'x' failed" in caplog.text


# --- messages ---------------------------------------------------------------------------------------------------


async def test_async_handlers_keep_the_order(meeting: Meeting) -> None:
    done: list[int] = []

    async def slow_at_first(data: int) -> None:
        await trio.sleep(0.02 if data == 0 else 0)
        done.append(data)

    async with meeting.joined():
        meeting.here.server.on("message", slow_at_first)
        for number in range(10):
            meeting.there.of.world.emit("message", number)
        await eventually(lambda: len(done) == 10)
    assert done == list(range(10))


async def test_what_is_emitted_is_what_is_heard(meeting: Meeting) -> None:
    """node-ipc makes an empty object of None, of the empty text and of an object with _maxListeners."""
    values: list[Any] = [
        None,
        "",
        0,
        False,
        True,
        1.5,
        "é😀",
        [],
        {},
        {"_maxListeners": 5, "keep": "me"},
        {"deep": [{"a": None}]},
    ]
    async with meeting.joined() as (served, heard):
        for value in values:
            meeting.there.of.world.emit("thing", value)
        await served.wait_for("thing", len(values))
        for value in values:
            meeting.here.server.emit(meeting.here.server.sockets[0], "thing", value)
        await heard.wait_for("thing", len(values))
    assert served.data("thing") == heard.data("thing") == values


async def test_broadcast_and_unicast(meeting: Meeting) -> None:
    async with meeting.joined() as (served, heard):
        place = served.all[0][1]
        if meeting.path is None:
            meeting.there.connect_to_net("second", place["address"], place["port"])
        else:
            meeting.there.connect_to("second", meeting.path)
        also = Events(meeting.there.of.second)
        await served.wait_for("connect", 2)
        server = meeting.here.server
        server.emit(server.sockets[0], "yours", 1)
        server.emit(server.sockets[1], "yours", 2)
        assert server.broadcast("news", "all") == pyipc.BroadcastReport(2, 0)
        server.emit(server.sockets[0], "last")
        await heard.wait_for("last")
        await also.wait_for("news")
        assert heard.all[1:] == [("yours", 1), ("news", "all"), ("last", None)]
        assert also.all[1:] == [("yours", 2), ("news", "all")]


async def test_the_label_of_a_socket(meeting: Meeting) -> None:
    async with meeting.joined() as (served, _):
        emit = meeting.there.of.world.emit
        (socket,) = meeting.here.server.sockets
        good = [{"id": "x" * 256}, {"id": "hello"}]
        strange = ["hello", {"id": {"toString": 1}}, {"id": None}, {"id": ""}, {"name": "x"}, {"id": True}, {"id": 0}]
        for data in (*good, *strange, {"id": "x" * 257}, {"id": 10**300}, {"id": -(10**300)}):
            emit("message", data)
        await served.wait_for("message", 12)
        assert socket.id == "hello"
        assert "id='hello'" in repr(socket)
        emit("message", {"id": 7})
        await served.wait_for("message", 7)
        meeting.there.disconnect("world")
        await served.wait_for("close")
    assert served.all[-2:] == [("socket.disconnected", socket, 7), ("close", socket)]


async def test_a_client_cannot_fake_the_lifecycle(meeting: Meeting) -> None:
    """In node-ipc, a message named "start" calls the callback of serve() again, and so doubles every handler."""
    fakes = ["start", "connect", "socket.disconnected", "close", "error"]
    async with meeting.joined() as (served, _):
        place = served.all[0][1]
        address = f"unix:{meeting.path}" if meeting.path else f"tcp://{place['address']}:{place['port']}"
        async with pyipc.connect(pyipc.Endpoint(address, hello=False), unsafe_names=True) as client:
            await served.wait_for("connect", 2)
            before = list(served.names)
            for name in [*fakes, "toString", "__proto__", "data", "disconnect", "destroy", "message"]:
                await client.emit(name, {"fake": True})
            await served.wait_for("message")
    assert served.names[len(before) :][:6] == ["toString", "__proto__", "data", "disconnect", "destroy", "message"]


async def test_a_server_cannot_fake_the_lifecycle(meeting: Meeting) -> None:
    meeting.here.config.options = {"unsafe_names": True}
    async with meeting.joined() as (_, heard):
        for name in ["connect", "disconnect", "destroy", "error", "start", "close", "message"]:
            meeting.here.server.broadcast(name)
        await heard.wait_for("message")
        assert heard.names == ["connect", "start", "close", "message"]
        assert not meeting.there.of.world.destroyed


async def test_an_event_called_as_all_of_them_is_one_event(meeting: Meeting) -> None:
    """Its data must not pass for the name of an event, such as one of the lifecycle."""
    async with meeting.joined() as (served, heard):
        meeting.there.of.world.emit("*", "close")
        await served.wait_for("*")
        meeting.here.server.broadcast("*", "destroy")
        await heard.wait_for("*")
    (socket,) = [event[1] for event in served.all if event[0] == "connect"]
    assert [event for event in served.all if "close" in event[:2]] == [("*", "close", socket), ("close", socket)]
    assert [event for event in heard.all if "destroy" in event[:2]] == [("*", "destroy"), ("destroy",)]


async def test_names_and_data_that_cannot_be_sent(meeting: Meeting) -> None:
    async with meeting.joined():
        (socket,) = meeting.here.server.sockets
        for emit in (meeting.there.of.world.emit, functools.partial(meeting.here.server.emit, socket)):
            with pytest.raises(pyipc.InvalidEventName):
                emit("toString")
            with pytest.raises(pyipc.UnencodableData):
                emit("message", object())
        with pytest.raises(pyipc.UnencodableData):
            meeting.here.server.broadcast("message", object())


async def test_a_frame_that_is_no_json(meeting: Meeting) -> None:
    meeting.here.config.options = {"close_timeout": 0.05}
    async with meeting.joined() as (served, _):
        place = served.all[0][1]
        if meeting.path is None:
            stream = await trio.open_tcp_stream(place["address"], place["port"])
        else:
            stream = await trio.open_unix_socket(meeting.path)
        async with stream:
            await stream.send_all(frame("message", 1) + b"{not json}\f")
            await served.wait_for("close")
        assert served.data("message") == [1]
        ((_, error, socket),) = [event for event in served.all if event[0] == "error"]
        assert isinstance(error, pyipc.RemoteProtocolError)
        assert error.code == "json"
        assert socket.destroyed
        assert len(meeting.here.server.sockets) == 1


async def test_a_peer_that_does_not_read(meeting_unix: Meeting) -> None:
    """Up to 8 MiB wait; then the sender is told, and can wait."""
    text = "x" * 500_000
    gate = trio.Event()
    meeting_unix.here.config.options = {"inbox_high_water_size": 1_000_000, "max_inbox_size": 2_000_000}
    async with meeting_unix.joined() as (served, _):
        meeting_unix.here.server.on("big", gate.wait)
        client = meeting_unix.there.of.world
        sent = 0
        with pytest.raises(trio.WouldBlock, match=r"await ipc.of\['world'\].flush\(\) now and then"):
            while sent < 40:
                client.emit("big", text)
                sent += 1
        assert sent > 15
        gate.set()
        await client.flush()
        client.emit("last")
        await served.wait_for("last")
        assert len(served.data("big")) == sent


async def test_a_client_that_does_not_read(meeting_unix: Meeting) -> None:
    text = "x" * 500_000
    gate = trio.Event()
    meeting_unix.there.config.options = {"inbox_high_water_size": 1_000_000, "max_inbox_size": 2_000_000}
    async with meeting_unix.joined() as (_, heard):
        meeting_unix.there.of.world.on("big", gate.wait)
        (socket,) = meeting_unix.here.server.sockets
        with pytest.raises(trio.WouldBlock, match=r"await socket.flush\(\) now and then"):
            for _ in range(40):
                meeting_unix.here.server.emit(socket, "big", text)
        gate.set()
        await socket.flush()
        meeting_unix.here.server.emit(socket, "last")
        await heard.wait_for("last")


@pytest.mark.parametrize("delimiter", ["\n", "\x1e"])
async def test_another_delimiter(meeting: Meeting, delimiter: str) -> None:
    """It belongs to the program that sets it; in node-ipc it is that of the whole process."""
    meeting.here.config.delimiter = meeting.there.config.delimiter = delimiter
    async with meeting.joined() as (served, _):
        meeting.there.of.world.emit("message", "two\nlines\f")
        await served.wait_for("message")
        assert served.data("message") == ["two\nlines\f"]


# --- raw --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "text", "sent"),
    [("hex", "00ff80c3a90c", "00ff80c3a90c"), ("latin1", "é", "e9"), ("utf8", "é", "c3a9"), ("base64", "/w==", "ff")],
)
async def test_raw_bytes(meeting: Meeting, encoding: str, text: str, sent: str) -> None:
    for ipc in (meeting.here, meeting.there):
        ipc.config.raw_buffer, ipc.config.encoding = True, encoding
    every = bytes(range(256))
    async with meeting.joined() as (served, heard):
        received = bytearray()
        meeting.here.server.on("data", lambda data, socket: received.extend(data))
        meeting.there.of.world.emit(text)
        meeting.there.of.world.emit(every)
        await served.wait(lambda: bytes(received) == bytes.fromhex(sent) + every)
        assert all(isinstance(data, bytes) for data in served.data("data"))
        meeting.here.server.emit(meeting.here.server.sockets[0], [0, 255])
        meeting.here.server.broadcast(text)
        await heard.wait(lambda: b"".join(heard.data("data")) == b"\x00\xff" + bytes.fromhex(sent))


# --- sync -------------------------------------------------------------------------------------------------------


async def test_sync_sends_one_at_a_time(meeting: Meeting) -> None:
    meeting.there.config.sync = True
    meeting.there.config.sync_timeout = None
    async with meeting.joined() as (served, heard):
        client = meeting.there.of.world
        data = {"number": 0}
        for number in range(5):
            data["number"] = number
            client.emit("question", data)
        (socket,) = meeting.here.server.sockets
        for number in range(5):
            await served.wait_for("question", number + 1)
            await wait_all_tasks_blocked(0.01)
            assert len(served.data("question")) == number + 1, "it did not wait for the answer"
            meeting.here.server.emit(socket, "answer", number)
        await heard.wait_for("answer", 5)
    assert [question["number"] for question in served.data("question")] == list(range(5))


async def test_sync_does_not_wait_for_an_answer_that_was_lost_with_its_connection(meeting: Meeting) -> None:
    """In node-ipc nothing is ever sent again."""
    meeting.there.config.sync = True
    meeting.there.config.sync_timeout = None
    async with meeting.joined() as (served, _):
        for number in range(3):
            meeting.there.of.world.emit("question", number)
        await served.wait_for("question")
        meeting.here.server.sockets[0].destroy()
        await served.wait_for("connect", 2)
        await served.wait_for("question", 2)
        assert served.data("question") == [0, 1]
        meeting.here.server.broadcast("anything")
        await served.wait_for("question", 3)


async def test_sync_waits_for_a_connection(meeting_unix: Meeting, caplog: pytest.LogCaptureFixture) -> None:
    """What has its turn without one would pile up, and arrive all at once."""
    meeting_unix.there.config.sync = True
    meeting_unix.there.config.sync_timeout = 1
    async with meeting_unix.joined() as (_, heard):
        meeting_unix.here.server.stop()
        await heard.wait_for("disconnect")
        for number in range(3):
            meeting_unix.there.of.world.emit("question", number)
        await heard.wait_for("error", 3)  # as many attempts to connect
        await trio.sleep(0.02)  # far more than the time-out, which does not begin
        assert "sync_timeout" not in caplog.text
        served = meeting_unix.serve()
        await served.wait_for("question", 3)
    assert served.data("question") == [0, 1, 2]


async def test_sync_does_not_wait_for_ever(meeting_unix: Meeting, caplog: pytest.LogCaptureFixture) -> None:
    meeting_unix.there.config.sync = True
    meeting_unix.there.config.sync_timeout = 1
    async with meeting_unix.joined() as (served, _):
        for number in range(3):
            meeting_unix.there.of.world.emit("question", number)
        await served.wait_for("question", 3)
    assert served.data("question") == [0, 1, 2]
    assert "sync_timeout" in caplog.text


async def test_sync_refuses_at_once_what_cannot_be_sent(meeting_unix: Meeting) -> None:
    meeting_unix.there.config.sync = True
    async with meeting_unix.joined() as (served, _):
        client = meeting_unix.there.of.world
        with pytest.raises(pyipc.InvalidEventName):
            client.emit("toString")
        with pytest.raises(pyipc.MessageTooLarge):
            client.emit("question", "x" * 1_100_000)
        client.emit("question")
        await served.wait_for("question")


async def test_sync_goes_on_after_what_finds_no_room(meeting_unix: Meeting) -> None:
    """Nobody reads, and the time for the answers is over."""
    config = meeting_unix.there.config
    config.sync, config.sync_timeout = True, 0
    config.options = {"outbox_high_water_size": 1, "close_timeout": 0.05}
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    with listener:
        await listener.bind(str(meeting_unix.path))
        listener.listen(1)
        async with meeting_unix.there as there:
            there.connect_to("world", str(meeting_unix.path))
            heard = Events(there.of.world)
            for _ in range(3):
                there.of.world.emit("question", "x" * 1_000_000)
            await heard.wait_for("error", 2)
            assert {type(error) for error in heard.data("error")} == {trio.WouldBlock}


@pytest.mark.parametrize("timeout", [None, 30_000])
async def test_disconnecting_sends_what_sync_holds_back(meeting: Meeting, timeout: float | None) -> None:
    """Though the server answers nothing: nobody would be there for the answers any more."""
    meeting.there.config.sync, meeting.there.config.sync_timeout = True, timeout
    async with meeting.joined() as (served, heard):
        for number in range(5):
            meeting.there.of.world.emit("question", number)
        meeting.there.disconnect("world")
        await heard.wait_for("destroy")
        await served.wait_for("question", 5)
    assert served.data("question") == list(range(5))
    assert heard.names[-2:] == ["disconnect", "destroy"]


# --- the wire ---------------------------------------------------------------------------------------------------


async def test_nothing_is_said_on_the_wire_that_node_ipc_would_not_say(meeting_unix: Meeting) -> None:
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(meeting_unix.path))
    sock.listen(1)
    received = b""
    async with meeting_unix.there as there:
        there.connect_to("world", str(meeting_unix.path))
        there.of.world.emit("message", {"id": "hello"})
        connection, _ = await sock.accept()
        there.disconnect("world")
        while data := await connection.recv(4096):
            received += data
        connection.close()
        sock.close()
    assert received == b'{"type":"message","data":{"id":"hello"}}\f'
