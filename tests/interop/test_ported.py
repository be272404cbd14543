"""Programs on pyipc.node_ipc and real node-ipc programs, over Unix sockets, TCP and TLS."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from pyipc.node_ipc import IPC
from tests.interop.node import Place, eventually, frame
from tests.interop.payloads import FROM_NODE, FROM_PYTHON
from tests.node_ipc.programs import Events

if TYPE_CHECKING:
    from tests.interop.certificates import Certificates
    from tests.interop.conftest import StartNode, StartTap

STRENGTHS = ["insecure", "private CA", "mutual"]


@pytest.fixture
def ipc() -> IPC:
    """A ported program that loses no time."""
    ipc = IPC()
    ipc.config.silent = True
    ipc.config.retry = 20
    return ipc


def serve(ipc: IPC, place: Place) -> Events:
    """Start the server of a ported program."""
    if place.transport == "unix":
        ipc.serve(place.path)
    else:
        ipc.serve_net(place.host, place.port)
    events = Events(ipc.server)
    ipc.server.start()
    return events


async def served_at(events: Events, place: Place) -> Place:
    """Where it listens, once it does."""
    await events.wait_for("start")
    return Place(place.transport, path=place.path, port=events.all[0][1].get("port", 0))


def connect(ipc: IPC, place: Place) -> Events:
    """Make the client ``world`` of a ported program."""
    if place.transport == "unix":
        ipc.connect_to("world", place.path)
    else:
        ipc.connect_to_net("world", place.host, place.port)
    return Events(ipc.of.world)


@pytest.fixture(params=["unix", "tcp", *STRENGTHS])
def encrypted_place(request: pytest.FixtureRequest, directory: Path) -> tuple[Place, str | None]:
    """A place, and how strong its TLS is, if it has any."""
    if request.param in STRENGTHS:
        return Place("tls"), request.param
    return Place(request.param, path=str(directory / "s") if request.param == "unix" else ""), None


def client_side(strength: str, certificates: Certificates) -> dict[str, Any]:
    if strength == "insecure":
        return {"rejectUnauthorized": False}
    return certificates.node_client(mutual=strength == "mutual")


# --- a ported client --------------------------------------------------------------------------------------------


async def test_a_ported_client(
    ipc: IPC, node: StartNode, certificates: Certificates, encrypted_place: tuple[Place, str | None]
) -> None:
    place, strength = encrypted_place
    config: dict[str, Any] = {}
    if strength is not None:
        config["tls"] = certificates.node_server(mutual=strength == "mutual")
        ipc.config.tls = certificates.ported(client_side(strength, certificates))
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(place, on=["thing", "own"], echo=["thing"], **config)
        async with ipc:
            heard = connect(ipc, there)
            await heard.wait_for("connect")
            for value, _, seen in FROM_PYTHON:
                ipc.of.world.emit("thing", value)
                event = await peer.event("thing")
                assert event["data"] == seen, value
            await heard.wait_for("thing", len(FROM_PYTHON))
            for expression, _, value in FROM_NODE:
                before = len(heard.all)
                await peer.command("emit", socket=0, event="own", js=expression)
                await heard.wait_for("own", before - len(FROM_PYTHON))
                assert heard.all[-1] == ("own", value), expression
            await peer.command("broadcast", event="news", data=1)
            await heard.wait_for("news")
            ipc.of.world.emit("own", "last")
            ipc.disconnect("world")
            assert (await peer.event("own"))["data"] == "last"
            await heard.wait_for("destroy")
            await peer.event("socket.disconnected")
    assert heard.names[-2:] == ["disconnect", "destroy"]
    assert "error" not in heard.names


async def test_what_a_ported_client_says_on_the_wire(ipc: IPC, node: StartNode, tap: StartTap, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        wire = await tap(await peer.serve(place, on=["thing"]))
        async with ipc:
            heard = connect(ipc, wire.place)
            ipc.of.world.emit("thing", "before there is a connection")
            await heard.wait_for("connect")
            ipc.of.world.emit("thing", {"id": "hello"})
            await peer.event("thing", data={"id": "hello"})
        assert wire.sent == frame("thing", "before there is a connection") + frame("thing", {"id": "hello"})


async def test_a_ported_client_when_node_is_killed_and_comes_back(ipc: IPC, node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(place)
        async with ipc:
            heard = connect(ipc, there)
            await heard.wait_for("connect")
            await peer.kill()
            await heard.wait_for("disconnect")
            for number in range(3):
                ipc.of.world.emit("thing", number)
            again = await node()
            await again.serve(there, on=["thing"])
            await heard.wait_for("connect", 2)
            await eventually(lambda: len(again.seen("thing")) == 3)
            assert [event["data"] for event in again.seen("thing")] == [0, 1, 2]
            ipc.config.max_retries = 2
            ipc.of.world.retries_remaining = 2
            await again.kill()
            await heard.wait_for("destroy")
    names = [name for name in heard.names if name != "error"]
    assert names == ["connect", "disconnect", "connect", "disconnect", "destroy"]
    assert heard.names[-4:] == ["disconnect", "error", "error", "destroy"]


async def test_a_ported_sync_client(ipc: IPC, node: StartNode, place: Place) -> None:
    ipc.config.sync = True
    ipc.config.sync_timeout = None
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(place, on=["thing"])
        async with ipc:
            heard = connect(ipc, there)
            await heard.wait_for("connect")
            for number in range(5):
                ipc.of.world.emit("thing", number)
            for number in range(5):
                assert (await peer.event("thing"))["data"] == number
                assert len(peer.seen("thing")) == number + 1
                await peer.command("emit", socket=0, event="answer", data=number)
            await heard.wait_for("answer", 5)


async def test_a_ported_sync_client_when_an_answer_is_lost_with_node(ipc: IPC, node: StartNode, place: Place) -> None:
    ipc.config.sync = True
    ipc.config.sync_timeout = None
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(place, on=["thing"])
        async with ipc:
            connect(ipc, there)
            for number in range(3):
                ipc.of.world.emit("thing", number)
            assert (await peer.event("thing"))["data"] == 0
            await peer.kill()
            again = await node()
            await again.serve(there, on=["thing"], echo=["thing"])
            assert (await again.event("thing"))["data"] == 1
            assert (await again.event("thing"))["data"] == 2


async def test_node_cannot_fake_the_lifecycle_of_a_ported_client(ipc: IPC, node: StartNode, unix: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        await peer.serve(unix)
        async with ipc:
            heard = connect(ipc, unix)
            await peer.event("connect")
            for name in ("disconnect", "destroy", "error", "connect", "__proto__", "thing"):
                await peer.command("broadcast", event=name, data=1)
            await heard.wait_for("thing")
            assert heard.names == ["connect", "__proto__", "thing"]


@pytest.mark.parametrize("encoding", ["hex", "latin1"])
async def test_a_raw_ported_client(
    ipc: IPC, node: StartNode, certificates: Certificates, encrypted_place: tuple[Place, str | None], encoding: str
) -> None:
    place, strength = encrypted_place
    ipc.config.raw_buffer, ipc.config.encoding = True, encoding
    config: dict[str, Any] = {"rawBuffer": True, "encoding": encoding}
    if strength is not None:
        config["tls"] = certificates.node_server(mutual=strength == "mutual")
        ipc.config.tls = certificates.ported(client_side(strength, certificates))
    sent = bytes(range(256))
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(place, on=["data"], echo=["data"], **config)
        async with ipc:
            heard = connect(ipc, there)
            ipc.of.world.emit(sent)
            assert (await peer.event("data"))["data"] == {"$bytes": sent.hex()}
            await heard.wait(lambda: b"".join(heard.data("data")) == sent)
            ipc.of.world.emit("00ff" if encoding == "hex" else "é")
            seen = "00ff" if encoding == "hex" else "e9"
            assert (await peer.event("data"))["data"] == {"$bytes": seen}


# --- a ported server --------------------------------------------------------------------------------------------


async def test_a_ported_server(
    ipc: IPC, node: StartNode, certificates: Certificates, encrypted_place: tuple[Place, str | None]
) -> None:
    place, strength = encrypted_place
    config: dict[str, Any] = {}
    if strength is not None:
        ipc.config.tls = certificates.ported(certificates.node_server(mutual=strength == "mutual"))
        config["tls"] = client_side(strength, certificates)
    with trio.fail_after(50):
        served = serve(ipc, place)
        ipc.server.on("ask", lambda data, socket: ipc.server.emit(socket, "answer", data))
        async with ipc:
            there = await served_at(served, place)
            first, second = await node(), await node()
            await first.connect(there, on=["answer", "news"], **config)
            await second.connect(there, on=["answer", "news"], **config)
            await served.wait_for("connect", 2)
            for expression, _, value in FROM_NODE:
                await first.command("emit", id="world", event="ask", js=expression)
                await first.event("answer")
                assert served.all[-1][:2] == ("ask", value), expression
            assert not second.seen("answer")
            await second.command("emit", id="world", event="ask", data={"id": "hello"})
            await second.event("answer")
            assert {socket.id for socket in ipc.server.sockets} == {"hello"}
            assert ipc.server.broadcast("news", 1).sent == 2
            await first.event("news")
            await second.event("news")
            await second.command("disconnect", id="world")
            await served.wait_for("close")
            assert served.all[-2][0] == "socket.disconnected"
            assert served.all[-2][2] == "hello"
            ipc.server.stop()
            await first.event("disconnect")
    # Over TLS, node-ipc leaves without the word that it has finished, which could as well be an attack.
    assert served.names.count("error") == (0 if strength is None else 1)


async def test_a_ported_server_and_a_sync_client(ipc: IPC, node: StartNode, place: Place) -> None:
    """Nothing releases it but what the program sends."""
    with trio.fail_after(50):
        served = serve(ipc, place)
        async with ipc:
            peer = await node()
            await peer.connect(await served_at(served, place), on=["answer"], sync=True)
            await peer.command("emit", id="world", event="ask", times=5)
            for number in range(5):
                await served.wait_for("ask", number + 1)
                assert served.data("ask") == list(range(number + 1))
                ipc.server.emit(ipc.server.sockets[0], "answer", number)
                await peer.event("answer")


@pytest.mark.parametrize("encoding", ["hex", "latin1"])
async def test_a_raw_ported_server(ipc: IPC, node: StartNode, place: Place, encoding: str) -> None:
    ipc.config.raw_buffer = True
    sent = bytes.fromhex("00ff80c3a90c")
    with trio.fail_after(50):
        served = serve(ipc, place)
        ipc.server.on("data", lambda data, socket: ipc.server.emit(socket, data))
        async with ipc:
            peer = await node()
            await peer.connect(await served_at(served, place), on=["data"], rawBuffer=True, encoding=encoding)
            await peer.command("emit", id="world", hex=sent.hex())
            assert (await peer.event("data"))["data"] == {"$bytes": sent.hex()}
            assert served.data("data") == [sent]


async def test_node_cannot_fake_the_lifecycle_of_a_ported_server(ipc: IPC, node: StartNode, unix: Place) -> None:
    with trio.fail_after(50):
        started: list[object] = []
        ipc.serve(unix.path, started.append)
        served = Events(ipc.server)
        ipc.server.start()
        async with ipc:
            await served.wait_for("start")
            peer = await node()
            await peer.connect(unix)
            for name in ("start", "connect", "close", "error", "socket.disconnected", "toString", "thing"):
                await peer.command("emit", id="world", event=name, data={"id": {"toString": 1}})
            await served.wait_for("thing")
            assert served.names == ["start", "connect", "toString", "thing"]
            assert len(started) == 1
            assert ipc.server.sockets[0].id is None


async def test_the_path_that_both_derive_from_an_id(ipc: IPC, node: StartNode) -> None:
    """On both sides nothing but the id is said."""
    ipc.config.id = f"pyipc-test-{os.getpid()}-{time.monotonic_ns()}"
    with trio.fail_after(50):
        ipc.serve()
        served = Events(ipc.server)
        ipc.server.start()
        async with ipc:
            await served.wait_for("start")
            peer = await node()
            await peer.command("connect", id=ipc.config.id)
            await peer.event("connect")
            await served.wait_for("connect")


async def test_a_full_ported_server(ipc: IPC, node: StartNode, place: Place) -> None:
    ipc.config.max_connections = 1
    ipc.config.options = {"close_timeout": 0.05}
    with trio.fail_after(50):
        served = serve(ipc, place)
        async with ipc:
            there = await served_at(served, place)
            first, second = await node(), await node()
            await first.connect(there)
            await second.connect(there, retry=20)
            await second.event("disconnect")
            assert len(ipc.server.sockets) == 1
            await first.command("disconnect", id="world")
            await served.wait_for("connect", 2)


# --- a ported program as a process of its own -------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]


async def start_example(nursery: trio.Nursery, role: str, address: str) -> trio.Process:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-W", "error", str(ROOT / "examples/from_node_ipc/basic_ported.py"), role, address],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )

    async def end_with_the_test() -> None:
        try:
            await trio.sleep_forever()
        finally:
            process.kill()

    nursery.start_soon(end_with_the_test)
    return process


async def test_the_example_is_the_server_of_node(nursery: trio.Nursery, node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        process = await start_example(nursery, "world", place.address)
        assert process.stdout is not None
        said = b""
        while not said.endswith(b"\n"):
            said += await process.stdout.receive_some(1)
        port = int(said.rpartition(b":")[2]) if place.transport == "tcp" else 0
        peer = await node()
        await peer.connect(Place(place.transport, path=place.path, port=port), on=["message"])
        await peer.command("emit", id="world", event="message", data="hello")
        assert (await peer.event("message"))["data"] == "hello world!"
        await peer.command("disconnect", id="world")
        assert await process.wait() == 0


async def test_the_example_is_a_client_of_node(nursery: trio.Nursery, node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(place, on=["message"], echo=["message"])
        process = await start_example(nursery, "hello", there.address)
        assert process.stdout is not None
        assert (await peer.event("message"))["data"] == "hello"
        assert b"".join([chunk async for chunk in process.stdout]) == b"hello\n"
        assert await process.wait() == 0
