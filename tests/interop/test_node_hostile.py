"""node-ipc programs that misbehave, on purpose or not; and names that would make node-ipc misbehave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.interop.node import Heard, NodeFailed, Place, eventually, frame, place_of

if TYPE_CHECKING:
    from typing import Literal

    from tests.interop.conftest import StartNode

LIFECYCLE = ["connect", "disconnect", "start", "close", "error", "destroy", "data", "socket.disconnected"]
PROTOTYPE = ["__proto__", "constructor", "toString", "valueOf", "hasOwnProperty", "__defineGetter__"]

#: Frames that are none, and the rule that each breaks.
MALFORMED = [
    pytest.param(b"", "json", id="empty"),
    pytest.param(b"{not json}", "json", id="no json"),
    pytest.param(b'{"type":"a"', "json", id="cut off"),
    pytest.param(b'{"type":"a"}{"type":"b"}', "json", id="two values"),
    pytest.param(b'{"type":"a","data":NaN}', "json", id="NaN"),
    pytest.param(b'\xef\xbb\xbf{"type":"a"}', "json", id="byte order mark"),
    pytest.param(b'{"type":"a","data":"\xff"}', "utf8", id="not UTF-8"),
    pytest.param(b"null", "envelope", id="null"),
    pytest.param(b"5", "envelope", id="number"),
    pytest.param(b'"text"', "envelope", id="text"),
    pytest.param(b'[{"type":"a"}]', "envelope", id="list"),
    pytest.param(b'{"data":1}', "envelope", id="no type"),
    pytest.param(b'{"type":5}', "envelope", id="numeric type"),
    pytest.param(b'{"type":"a","data":' + b"[" * 70 + b"]" * 70 + b"}", "depth", id="too deep"),
]


class Lifecycle:
    """Counts the callbacks of a server or a client."""

    def __init__(self, owner: pyipc.Server | pyipc.Client) -> None:
        self.connected: list[pyipc.Connection] = []
        self.reasons: list[pyipc.Disconnected] = []
        owner.on_connect(self.connected.append)
        owner.on_disconnect(self.reasons.append)


def spoofed() -> tuple[bytes, list[tuple[str, Any]]]:
    """Frames named like lifecycle events and like what every JavaScript object has; and what they are: events."""
    events = [(name, {"message": "spoofed"}) for name in LIFECYCLE + PROTOTYPE]
    return b"".join(frame(name, data) for name, data in events), events


async def test_a_client_cannot_spoof_the_lifecycle(node: StartNode, place: Place) -> None:
    frames, events = spoofed()
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            heard, life = Heard(server), Lifecycle(server)
            where = place_of(server)
            peer = await node()
            await peer.connect(where)
            await eventually(lambda: len(life.connected) == 1)
            await peer.command("write", id="world", hex=frames.hex())
            assert await heard.take(len(events)) == events
            assert (len(life.connected), life.reasons) == (1, [])
            await server.broadcast("unharmed")
            assert len(server.connections) == 1


async def test_a_server_cannot_spoof_the_lifecycle(node: StartNode, place: Place) -> None:
    frames, events = spoofed()
    with trio.fail_after(50):
        peer = await node()
        where = await peer.serve(place, on=["unharmed"])
        router = pyipc.Router()
        heard = Heard(router)
        async with pyipc.connect(where.address, router=router) as client:
            life = Lifecycle(client)
            await peer.event("connect")
            await peer.command("write", socket=0, hex=frames.hex())
            assert await heard.take(len(events)) == events
            assert client.connected
            assert (life.connected, life.reasons) == ([], [])
            await client.emit("unharmed")
            await peer.event("unharmed")


@pytest.mark.parametrize(("bad", "code"), MALFORMED)
async def test_a_malformed_frame_costs_its_client_the_connection(
    node: StartNode, unix: Place, bad: bytes, code: str
) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(unix.address) as server:
            heard, life = Heard(server), Lifecycle(server)
            peer = await node()
            await peer.connect(unix, id="good", maxRetries=0)
            await peer.connect(unix, id="bad")
            await peer.command("write", id="bad", hex=(frame("before") + bad + b"\f" + frame("after")).hex())
            await peer.event("destroy", id="bad")
            await eventually(lambda: life.reasons)
            (reason,) = life.reasons
            assert (reason.code, reason.by_peer) == (code, False)
            assert isinstance(reason.error, pyipc.RemoteProtocolError)
            await peer.command("emit", id="good", event="unharmed")
            assert await heard.take(2) == [("before", None), ("unharmed", {})]
            assert len(server.connections) == 1


async def test_malformed_frames_can_be_skipped(node: StartNode, place: Place) -> None:
    """As node-ipc 9 does."""
    frames = [param.values[0] for param in MALFORMED]
    with trio.fail_after(50):
        async with pyipc.Server(place.address, malformed="skip") as server:
            heard, life = Heard(server), Lifecycle(server)
            peer = await node()
            await peer.connect(place_of(server), on=["answer"])
            for number, bad in enumerate(frames):
                assert isinstance(bad, bytes)
                await peer.command("write", id="world", hex=(bad + b"\f" + frame("fine", number)).hex())
            assert await heard.take(len(frames)) == [("fine", number) for number in range(len(frames))]
            (connection,) = server.connections
            assert connection.statistics().malformed == len(frames)
            await connection.emit("answer")
            await peer.event("answer")
            assert life.reasons == []


@pytest.mark.parametrize("malformed", ["close", "skip"])
async def test_a_server_that_sends_malformed_frames(
    node: StartNode, place: Place, malformed: Literal["close", "skip"]
) -> None:
    frames = b"".join(param.values[0] + b"\f" for param in MALFORMED if isinstance(param.values[0], bytes))
    with trio.fail_after(50):
        peer = await node()
        where = await peer.serve(place)
        router = pyipc.Router()
        heard = Heard(router)
        async with pyipc.connect(where.address, router=router, malformed=malformed, reconnect_interval=0.01) as client:
            life = Lifecycle(client)
            await peer.event("connect")
            await peer.command("write", socket=0, hex=(frame("before") + frames + frame("after")).hex())
            if malformed == "skip":
                assert await heard.take(2) == [("before", None), ("after", None)]
                assert life.reasons == []
            else:
                await peer.event("connect")
                await peer.command("emit", socket=1, event="again", data=1)
                assert await heard.take(2) == [("before", None), ("again", 1)]
                assert [(reason.code, reason.by_peer) for reason in life.reasons] == [("json", False)]


@pytest.mark.parametrize(
    "control",
    [
        pytest.param(frame("pyipc.welcome", {"version": 1}), id="welcome"),
        pytest.param(frame("pyipc.reply", {"call": 1, "data": None}), id="reply to nothing"),
        pytest.param(frame("pyipc.error", {"call": 1, "code": "x"}), id="error to nothing"),
        pytest.param(frame("pyipc.request", {"call": "one", "event": "x"}), id="request without number"),
        pytest.param(frame("pyipc.hello", {"versions": [99]}), id="unknown version"),
        pytest.param(frame("pyipc.hello", "hello"), id="malformed hello"),
        pytest.param(frame("pyipc.goodbye", {"code": "closed"}), id="goodbye"),
    ],
)
async def test_control_frames_hurt_their_sender_alone(node: StartNode, unix: Place, control: bytes) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(unix.address) as server:
            heard, life = Heard(server), Lifecycle(server)
            peer = await node()
            await peer.connect(unix, id="good", maxRetries=0)
            await peer.connect(unix, id="bad")
            await peer.command("write", id="bad", hex=control.hex())
            await peer.event("destroy", id="bad")
            await eventually(lambda: life.reasons)
            await peer.command("emit", id="good", event="unharmed")
            assert await heard.take(1) == [("unharmed", {})]
            assert (len(life.reasons), len(server.connections)) == (1, 1)


@pytest.mark.parametrize("control", ["pyipc.ping", "pyipc.goaway", "pyipc.cancel", "pyipc.no-such-frame"])
async def test_harmless_control_frames_are_no_events(node: StartNode, unix: Place, control: str) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(unix.address) as server:
            heard, life = Heard(server), Lifecycle(server)
            peer = await node()
            await peer.connect(unix)
            await peer.command("write", id="world", hex=(frame(control, {"call": 7}) + frame("thing")).hex())
            assert await heard.take(1) == [("thing", None)]
            assert life.reasons == []


async def test_a_label_is_no_identity(node: StartNode, unix: Place) -> None:
    """node-ipc names a socket after ``data.id``, whatever it is, and breaks when it cannot be turned into text."""
    labels: list[Any] = ["admin", 0, {"toString": 1}, ["x"], None]
    with trio.fail_after(50):
        async with pyipc.Server(unix.address) as server:
            heard, life = Heard(server), Lifecycle(server)
            peer = await node()
            await peer.connect(unix)
            await eventually(lambda: life.connected)
            before = life.connected[0].peer
            for label in labels:
                await peer.command("emit", id="world", event="thing", data={"id": label})
            assert await heard.take(len(labels)) == [("thing", {"id": label}) for label in labels]
            assert life.connected[0].peer == before
            await peer.command("disconnect", id="world")
            await eventually(lambda: life.reasons)


@pytest.mark.parametrize("hello", [False, True])
async def test_names_that_break_node_are_refused_here(node: StartNode, unix: Place, hello: bool) -> None:
    with trio.fail_after(50):
        peer = await node()
        await peer.serve(unix, on=["fine"])
        async with pyipc.connect(pyipc.Endpoint(unix.address, hello=hello), handshake_timeout=0.02) as client:
            for name in LIFECYCLE + PROTOTYPE:
                with pytest.raises(pyipc.InvalidEventName) as caught:
                    await client.emit(name, {})
                assert caught.value.event == name
                with pytest.raises(pyipc.InvalidEventName):
                    client.emit_nowait(name, {})
            await client.emit("fine")
            await peer.event("fine")
            assert not peer.crashed
            assert len(peer.seen("connect")) == 1
            assert not peer.seen("error")


async def test_names_that_break_node_are_refused_to_clients(node: StartNode, unix: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(unix.address) as server:
            peer = await node()
            await peer.connect(unix, on=["fine"])
            await eventually(lambda: server.connections)
            (connection,) = server.connections
            for name in LIFECYCLE + PROTOTYPE:
                with pytest.raises(pyipc.InvalidEventName):
                    await connection.emit(name, {})
                report = await server.broadcast(name, {})
                assert report == pyipc.BroadcastReport(sent=0, dropped=1)
            await connection.emit("fine")
            await peer.event("fine")
            assert len(peer.seen("connect")) == 1
            assert not peer.seen("disconnect")


@pytest.mark.parametrize("name", PROTOTYPE)
async def test_why_names_are_refused(node: StartNode, unix: Place, version: str, name: str) -> None:
    """With ``unsafe_names=True`` they are sent, and node-ipc 10.1.0 does not survive it; 9.2.1 does."""
    with trio.fail_after(50):
        peer = await node()
        await peer.serve(unix, on=["fine"])
        async with pyipc.connect(unix.address, unsafe_names=True, reconnect=False) as client:
            await client.emit(name, {})
            await client.flush()
            if version == "10.1.0":
                await peer.wait_for("crash")
                await peer.wait_ended()
                assert peer.process.returncode != 0
            else:
                await client.emit("fine")
                await peer.event("fine")


async def test_why_lifecycle_names_are_refused(node: StartNode, unix: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        await peer.serve(unix)
        async with pyipc.connect(unix.address, unsafe_names=True) as client:
            await peer.event("connect")
            await client.emit("socket.disconnected", "spoofed")
            assert (await peer.event("socket.disconnected"))["data"] == "spoofed"
            assert client.connected


async def test_data_that_node_itself_refuses(node: StartNode, unix: Place) -> None:
    """The driver tells when node-ipc throws, so a test cannot mistake that for silence."""
    with trio.fail_after(50):
        async with pyipc.Server(unix.address) as server:
            heard = Heard(server)
            peer = await node()
            await peer.connect(unix)
            with pytest.raises(NodeFailed, match="BigInt"):
                await peer.command("emit", id="world", event="big", js="1n")
            await peer.command("emit", id="world", event="fine", data=1)
            assert await heard.take(1) == [("fine", 1)]
