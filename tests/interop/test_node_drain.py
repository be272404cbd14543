"""Real node-ipc clients of a server that is drained: answered, told the end, and back at the successor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

import pyipc
from tests.interop.node import Heard, Place, eventually, place_of

if TYPE_CHECKING:
    from tests.interop.conftest import StartNode


async def test_a_node_client_is_answered_and_then_ends_by_itself(node: StartNode, place: Place) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server, trio.open_nursery() as nursery:
            asked, go_on = trio.Event(), trio.Event()

            @server.on("ask")
            async def ask(message: pyipc.Message[Any]) -> None:
                asked.set()
                await go_on.wait()
                await message.connection.emit("answer", message.data)

            reports: list[pyipc.DrainReport] = []

            async def drain() -> None:
                reports.append(await server.drain(30))

            peer = await node()
            await peer.connect(place_of(server), on=["answer"], stopRetrying=True)
            await peer.command("emit", id="world", event="ask", data=42)
            await asked.wait()
            nursery.start_soon(drain)
            await eventually(lambda: server.draining)
            assert not peer.seen("answer")
            go_on.set()
            assert (await peer.event("answer"))["data"] == 42
            await peer.event("disconnect")
            await eventually(lambda: bool(reports))
            assert reports == [pyipc.DrainReport(left=1)]


async def test_what_node_had_written_is_handled_and_it_comes_back_to_the_successor(
    node: StartNode, place: Place
) -> None:
    with trio.fail_after(50):
        async with pyipc.Server(place.address) as server:
            where = place_of(server)
            seen: list[Any] = []
            server.on("seen", lambda message: seen.append(message.data))
            peer = await node()
            await peer.connect(where, retry=30)
            for number in range(200):
                await peer.post("emit", id="world", event="seen", data=number)
            await eventually(lambda: len(seen) > 0)
            assert (await server.drain(30)).cut_off == 0
            assert seen == list(range(len(seen)))
        async with pyipc.Server(where.address) as successor:
            heard = Heard(successor)
            await eventually(lambda: len(successor.connections) == 1)
            await peer.command("emit", id="world", event="back")
            while (await heard.next()).event != "back":
                pass
