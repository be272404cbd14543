"""Draining: clients are asked to leave, what is under way goes on, and nothing is lost."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio
import trio.testing

import pyipc
from tests.conformance.sides import until
from tests.conformance.subjects import Feature, lacks, needs

if TYPE_CHECKING:
    from tests.conformance.sides import Stage
    from tests.conformance.subjects import Subject


@needs(Feature.DRAIN)
async def test_a_server_that_is_drained_answers_what_it_was_asked(subject: Subject) -> None:
    server = pyipc.Server(subject.server_endpoint())
    asked, go_on = trio.Event(), trio.Event()
    gone: list[pyipc.Disconnected] = []
    events: list[object] = []

    @server.on("slow")
    async def slow(message: pyipc.Message[int]) -> int:
        asked.set()
        await go_on.wait()
        return message.data + 1

    server.on("seen", lambda message: events.append(message.data))
    async with server, trio.open_nursery() as nursery:
        async with pyipc.connect(
            subject.client_endpoint(server.addresses[0]), on_disconnect=gone.append, close_timeout=0.01
        ) as client:
            answers: list[object] = []

            async def ask() -> None:
                answers.append(await client.request("slow", 41))

            reports: list[pyipc.DrainReport] = []

            async def drain() -> None:
                reports.append(await server.drain(message="for a test"))

            nursery.start_soon(ask)
            await asked.wait()
            await client.emit("seen", "before")
            nursery.start_soon(drain)
            await until(lambda: client.statistics().moves == 1)
            assert client.statistics().departing == 1
            assert server.draining
            assert not client.connected
            go_on.set()
            await until(lambda: bool(reports))
            assert answers == [42]
            assert events == ["before"]
            assert reports == [pyipc.DrainReport(left=1, cut_off=0)]
            await until(lambda: bool(gone))
            assert client.statistics().departing == 0
            nursery.cancel_scope.cancel()
        assert len(gone) == 1


@needs(Feature.DRAIN)
async def test_what_the_server_sends_to_a_client_that_leaves_arrives(stage: Stage) -> None:
    """Whichever side asks the other: what a handler of the client does for the server is under way as well."""
    router = pyipc.Router()
    asked, go_on = trio.Event(), trio.Event()

    @router.on("slow")
    async def slow(message: pyipc.Message[int]) -> int:
        asked.set()
        await go_on.wait()
        return message.data + 1

    answers: list[object] = []
    async with stage.open(theirs=router) as wire, trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append(await wire.ours.conn.request("slow", 41))

        nursery.start_soon(ask)
        await asked.wait()
        nursery.start_soon(wire.server.drain)
        await until(lambda: wire.client.statistics().moves == 1)
        go_on.set()
        await until(lambda: bool(answers))
        assert answers == [42]
        await until(lambda: not wire.server.connections)
        await until(lambda: repr(wire.server).count("closed") == 1)


@needs(Feature.DRAIN, Feature.RECONNECT)
async def test_a_successor_takes_over_where_the_predecessor_was(subject: Subject) -> None:
    first = pyipc.Server(subject.server_endpoint())
    first.on("who", lambda message: "first")
    second: pyipc.Server
    heard: list[object] = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(first)
        address = first.addresses[0]
        client = await stack.enter_async_context(pyipc.connect(subject.client_endpoint(address)))
        assert await client.request("who") == "first"
        assert (await first.drain()).left == 1
        second = pyipc.Server(subject.server_endpoint_again(address))
        second.on("who", lambda message: "second")
        second.on("seen", lambda message: heard.append(message.data))
        await client.emit("seen", "meanwhile")
        await stack.enter_async_context(second)
        assert await client.request("who") == "second"
        assert heard == ["meanwhile"]


@needs(Feature.DRAIN)
async def test_a_deadline_cuts_off_who_is_still_there_and_says_so(subject: Subject) -> None:
    server = pyipc.Server(subject.server_endpoint(), close_timeout=0.1)
    asked = trio.Event()

    @server.on("stuck")
    async def stuck(message: pyipc.Message[None]) -> None:
        asked.set()
        await trio.sleep_forever()

    lost: list[pyipc.ConnectionLost] = []
    async with (
        server,
        pyipc.connect(subject.client_endpoint(server.addresses[0])) as client,
        trio.open_nursery() as nursery,
    ):

        async def ask() -> None:
            try:
                await client.request("stuck")
            except pyipc.ConnectionLost as error:
                lost.append(error)

        nursery.start_soon(ask)
        await asked.wait()
        assert await server.drain(0.05) == pyipc.DrainReport(left=0, cut_off=1)
        await until(lambda: bool(lost))
        assert lost[0].maybe_handled


@needs(Feature.MESSAGES)
@lacks(Feature.DRAIN)
async def test_without_an_end_of_the_stream_a_drain_ends_connections_when_nothing_is_at_work(subject: Subject) -> None:
    server = pyipc.Server(subject.server_endpoint())
    asked, go_on = trio.Event(), trio.Event()

    @server.on("slow")
    async def slow(message: pyipc.Message[int]) -> int:
        asked.set()
        await go_on.wait()
        return message.data + 1

    gone: list[pyipc.Disconnected] = []
    async with (
        server,
        pyipc.connect(subject.client_endpoint(server.addresses[0]), on_disconnect=gone.append) as client,
        trio.open_nursery() as nursery,
    ):
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await client.request("slow", 41))

        nursery.start_soon(ask)
        await asked.wait()
        nursery.start_soon(server.drain)
        await until(lambda: server.draining)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not gone
        assert not answers
        go_on.set()
        await until(lambda: bool(gone))
        assert answers == [42]
        assert gone[0].code == "goodbye"
        assert client.statistics().moves == 0  # there is nowhere else to go


# Pipes cannot be closed by half either, and Windows says of a client late that it has come: such a one may be cut off.
@needs(Feature.DRAIN, Feature.MANY, Feature.RECONNECT, Feature.HALF_CLOSE)
async def test_clients_that_come_at_the_last_moment_are_served_by_the_one_or_the_other(subject: Subject) -> None:
    answers: list[str] = []
    handled: list[int] = []

    def serve(endpoint: pyipc.Endpoint, name: str) -> pyipc.Server:
        server = pyipc.Server(endpoint)

        @server.on("who")
        async def who(message: pyipc.Message[int]) -> str:
            handled.append(message.data)
            return name

        return server

    first = serve(subject.server_endpoint(), "first")
    async with trio.open_nursery() as nursery:
        address = (await nursery.start(first.run))[0]

        async def come(number: int) -> None:
            endpoint = subject.client_endpoint(address)
            async with pyipc.connect(endpoint, wait=False, reconnect_interval=0.01) as client:
                answers.append(await client.request("who", number))

        async with trio.open_nursery() as clients:
            for number in range(20):
                clients.start_soon(come, number)
                if number == 10:
                    await until(lambda: bool(answers))
                    clients.start_soon(first.drain)
            await until(lambda: repr(first).count("closed") == 1)
            second = serve(subject.server_endpoint_again(address), "second")
            await nursery.start(second.run)
        assert sorted(handled) == list(range(20))
        assert len(answers) == 20
        await second.aclose()
