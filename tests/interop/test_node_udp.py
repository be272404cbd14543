"""pyipc, ported programs and real node-ipc programs over UDP, both families, JSON and raw, in both directions.

node-ipc has no clients there: each side is a server, and answers to the port that it hears from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.node_ipc import IPC
from tests.interop.node import Heard, NodePeer, Place, eventually, frame
from tests.node_ipc.programs import Events

if TYPE_CHECKING:
    from tests.interop.conftest import StartNode

#: Raw mode over UDP: node-ipc reads every datagram as UTF-8 text, whatever it is told.
RAW: dict[str, Any] = {"rawBuffer": True, "encoding": "utf8"}
TEXT = "é😀 and 日本"


@pytest.fixture(params=["udp4", "udp6"])
def place(request: pytest.FixtureRequest) -> Place:
    """A family of addresses."""
    return Place(request.param)


def at(place: Place, port: int) -> dict[str, Any]:
    """An address as node-ipc takes it."""
    return {"address": place.host, "port": port}


async def heard_by(peer: NodePeer, name: str, data: object) -> dict[str, Any]:
    """The next event of Node's, which must have these data."""
    event = await peer.event(name)
    assert event["data"] == data
    return event


# --- pyipc as it is ---------------------------------------------------------------------------------------------


async def test_node_sends_to_a_server(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            heard = Heard(server)
            port = server.addresses[0].port
            peer = await node()
            there = await peer.serve(place, on=["answer", "news"])
            await peer.command("emit", to=at(place, port), event="ask", data={"a": TEXT})
            message = await heard.next()
            assert (message.event, message.data) == ("ask", {"a": TEXT})
            source = pyipc.parse_address(message.connection.peer.address)
            assert (source.host, source.port) == (place.host, there.port)
            await message.connection.emit("answer", [1])
            event = await heard_by(peer, "answer", [1])
            assert event["from"] == at(place, port)
            # Which with node-ipc reaches nobody.
            assert (await server.broadcast("news", 1)).sent == 1
            await heard_by(peer, "news", 1)


async def test_a_client_sends_to_node(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(place, on=["ask"], echo=["ask"])
        async with pyipc.connect(pyipc.Endpoint(there.address, hello=False)) as client:
            heard = Heard(client)
            await client.emit("ask", {"a": TEXT})
            await heard_by(peer, "ask", {"a": TEXT})
            assert await heard.take(1) == [("ask", {"a": TEXT})]


async def test_a_client_may_introduce_itself_to_node(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(place, on=["ask", "pyipc.hello"], echo=["ask"])
        async with pyipc.connect(there.address) as client:
            heard = Heard(client)
            await client.emit("ask", 1)
            await peer.event("pyipc.hello")
            assert await heard.take(1) == [("ask", 1)]


async def test_a_server_sends_first(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(place, on=["ask"], echo=["ask"])
        async with pyipc.Server(place.address) as server:
            heard = Heard(server)
            connection = await server.dial(there.address)
            await connection.emit("ask", 1)
            event = await heard_by(peer, "ask", 1)
            assert event["from"] == at(place, server.addresses[0].port)
            assert await heard.take(1) == [("ask", 1)]


async def test_two_frames_in_one_datagram(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            heard = Heard(server)
            peer = await node()
            there = await peer.serve(place, on=["thing"])
            raw = trio.socket.socket(
                trio.socket.AF_INET if place.transport == "udp4" else trio.socket.AF_INET6, trio.socket.SOCK_DGRAM
            )
            with raw:
                datagram = frame("thing", 1) + frame("thing", 2)
                for port in (there.port, server.addresses[0].port):
                    await raw.sendto(datagram, (place.host, port))
                await heard_by(peer, "thing", 1)
                await heard_by(peer, "thing", 2)
                assert await heard.take(2) == [("thing", 1), ("thing", 2)]


async def test_a_burst_in_one_turn_reaches_node(node: StartNode, place: Place) -> None:
    """Frames that are sent together share datagrams, which node-ipc takes apart."""
    with trio.fail_after(50):
        peer = await node()
        there = await peer.serve(place, on=["thing"])
        async with pyipc.connect(pyipc.Endpoint(there.address, hello=False)) as client:
            for number in range(30):
                client.emit_nowait("thing", number)
            await eventually(lambda: len(peer.seen("thing")) == 30)
            assert [event["data"] for event in peer.seen("thing")] == list(range(30))


async def test_raw_datagrams(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        endpoint = pyipc.Endpoint(place.address, framing=pyipc.Raw())
        async with pyipc.Server(endpoint) as server:
            heard = Heard(server)
            port = server.addresses[0].port
            peer = await node()
            there = await peer.serve(place, on=["data"], **RAW)
            await peer.command("emit", to=at(place, port), hex=TEXT.encode().hex())
            message = await heard.next()
            assert (message.event, message.data) == ("data", TEXT.encode())
            await message.connection.emit("data", b"answer")
            await heard_by(peer, "data", {"$bytes": b"answer".hex()})
        async with pyipc.connect(pyipc.Endpoint(there.address, framing=pyipc.Raw())) as client:
            await client.emit("data", TEXT.encode())
            await heard_by(peer, "data", {"$bytes": TEXT.encode().hex()})


async def test_garbage_from_node_hurts_nobody(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            heard = Heard(server)
            to = at(place, server.addresses[0].port)
            raw, peer = await node(), await node()
            await raw.serve(place, **RAW)
            await raw.command("emit", to=to, hex=b"{not json}\f".hex())
            await raw.command("emit", to=to, hex=frame("half").hex()[:10])
            await peer.serve(place)
            await peer.command("emit", to=to, event="thing", data=1)
            assert await heard.take(1) == [("thing", 1)]
            await raw.command("emit", to=to, hex=frame("thing", 2).hex())
            assert await heard.take(1) == [("thing", 2)]


# --- ported programs --------------------------------------------------------------------------------------------


@pytest.fixture
def ipc() -> IPC:
    ipc = IPC()
    ipc.config.silent = True
    return ipc


def serve(ipc: IPC, place: Place) -> Events:
    ipc.serve_net(place.host, 0, place.transport)
    events = Events(ipc.server)
    ipc.server.start()
    return events


async def test_a_ported_program_answers_and_broadcasts(ipc: IPC, node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        served = serve(ipc, place)
        ipc.server.on("ask", lambda data, socket: ipc.server.emit(socket, "answer", data))
        async with ipc:
            await served.wait_for("start")
            port = served.all[0][1]["port"]
            assert served.all[0][1]["address"] == place.host
            first, second = await node(), await node()
            for peer in (first, second):
                there = await peer.serve(place, on=["answer", "news"])
                await peer.command("emit", to=at(place, port), event="ask", data={"id": "hello", "text": TEXT})
                await heard_by(peer, "answer", {"id": "hello", "text": TEXT})
                socket = ipc.server.sockets[-1]
                assert (socket.address, socket.port, socket.id) == (place.host, there.port, "hello")
            assert ipc.server.broadcast("news", 1).sent == 2
            for peer in (first, second):
                event = await heard_by(peer, "news", 1)
                assert event["from"] == at(place, port)
            assert served.names.count("connect") == 2


async def test_a_ported_program_sends_to_an_address(ipc: IPC, node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        served = serve(ipc, place)
        async with ipc:
            peer = await node()
            there = await peer.serve(place, on=["ask"], echo=["ask"])
            await served.wait_for("start")
            for number in range(3):
                ipc.server.emit(at(place, there.port), "ask", number)
            event = await heard_by(peer, "ask", 0)
            assert event["from"] == at(place, served.all[0][1]["port"])
            await served.wait_for("ask", 3)
            ipc.server.emit(at(place, there.port), "ask", 3)  # the address is known by now
            await served.wait_for("ask", 4)
            assert served.data("ask") == [0, 1, 2, 3]
            assert len(ipc.server.sockets) == 1
            ipc.server.emit({"port": 1}, "ask", "all")  # without an address, as in node-ipc: everybody
            await served.wait(lambda: served.data("ask")[-1] == "all")


async def test_a_raw_ported_program(ipc: IPC, node: StartNode, place: Place) -> None:
    ipc.config.raw_buffer = True
    with trio.fail_after(50):
        served = serve(ipc, place)
        ipc.server.on("data", lambda data, socket: ipc.server.emit(socket, data))
        async with ipc:
            await served.wait_for("start")
            peer = await node()
            there = await peer.serve(place, on=["data"], **RAW)
            await peer.command("emit", to=at(place, served.all[0][1]["port"]), hex=TEXT.encode().hex())
            await heard_by(peer, "data", {"$bytes": TEXT.encode().hex()})
            assert served.data("data") == [TEXT.encode()]
            ipc.server.emit(at(place, there.port), "first")
            await heard_by(peer, "data", {"$bytes": b"first".hex()})


async def test_nobody_is_there(ipc: IPC, node: StartNode, place: Place) -> None:
    """What the system reports of it, and what cannot be sent at all, kills nothing; in node-ipc it ends the process."""
    with trio.fail_after(50):
        served = serve(ipc, place)
        async with ipc:
            peer = await node()
            there = await peer.serve(place, on=["ask"])
            await served.wait_for("start")
            await peer.kill()
            for _ in range(3):
                ipc.server.emit(at(place, there.port), "ask", 1)
            ipc.server.emit({"address": "no such host.invalid", "port": 1}, "ask", 1)
            await served.wait_for("error")
            assert isinstance(served.data("error")[0], pyipc.IPCError)
            other = await node()
            there = await other.serve(place, on=["ask"])
            ipc.server.emit(at(place, there.port), "ask", 2)
            await heard_by(other, "ask", 2)
            with pytest.raises(pyipc.MessageTooLarge):
                ipc.server.emit(at(place, there.port), "ask", "x" * 70_000)


async def test_only_over_udp_there_are_addresses(ipc: IPC) -> None:
    ipc.serve_net("127.0.0.1", 0)
    with pytest.raises(RuntimeError, match="only a UDP server that listens"):
        ipc.server.emit({"address": "127.0.0.1", "port": 1}, "ask", 1)
