"""What the port asks of links and listeners beside moving bytes: cancellation loses nothing, and nobody starves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.conformance.sides import cancelled_at, greet, open_listener, open_pairs
from tests.conformance.subjects import Feature, needs

if TYPE_CHECKING:
    from pyipc.transports import Link
    from tests.conformance.subjects import Subject

#: No accept or receive of one chunk takes more steps of its task than these.
STEPS = range(8)
#: Seconds after which what has not come is lost.
PATIENCE = 20


@needs(Feature.DELIVERY, Feature.CHUNKS)
@pytest.mark.parametrize("receiver", ["client", "server"])
async def test_receiving_that_is_cancelled_at_any_await_loses_nothing(subject: Subject, receiver: str) -> None:
    received = bytearray()

    async def receive() -> None:
        received.extend(await theirs.receive())

    async with open_pairs(subject) as make:
        client, server = await make()
        ours, theirs = (client, server) if receiver == "server" else (server, client)
        sent = b""
        for step in STEPS:
            # What is there already, and what comes while it is waited for.
            for piece in (bytes([step]) * 1_000, bytes([step]) * 10):
                sent += piece
                if len(piece) == 1_000:
                    await ours.send(piece)
                    await cancelled_at(step, receive)
                else:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(ours.send, piece)
                        await cancelled_at(step, receive)
        with trio.move_on_after(PATIENCE):
            while len(received) < len(sent):
                await receive()
        assert received == sent
        await client.aclose()
        await server.aclose()


@needs(Feature.DELIVERY, Feature.MANY)
async def test_accepting_that_is_cancelled_at_any_await_loses_nobody(subject: Subject) -> None:
    links: list[Link] = []
    heard: list[int] = []

    async with open_listener(subject) as (listener, dial), trio.open_nursery() as nursery:

        async def call(number: int) -> None:
            link = await dial()
            links.append(link)
            await link.send(bytes([number]))

        async def hear(link: Link) -> None:
            links.append(await greet(link))
            heard.extend(await link.receive())

        async def accept() -> None:
            nursery.start_soon(hear, await listener.accept())

        # Once with everybody there already, and once with each coming while it is waited for.
        for step in STEPS:
            nursery.start_soon(call, step)
        await trio.testing.wait_all_tasks_blocked(0.02)
        for step in STEPS:
            await cancelled_at(step, accept)
        for step in STEPS:
            nursery.start_soon(call, len(STEPS) + step)
            await cancelled_at(step, accept)
        with trio.move_on_after(PATIENCE):
            while len(heard) < 2 * len(STEPS):
                with trio.move_on_after(0.05):
                    await accept()
        nursery.cancel_scope.cancel()
    for link in links:
        await link.aclose()
    assert sorted(heard) == list(range(2 * len(STEPS)))


@needs(Feature.CHUNKS, Feature.DELIVERY)
@pytest.mark.parametrize("receiver", ["client", "server"])
async def test_receiving_lets_other_tasks_run_however_much_has_come(subject: Subject, receiver: str) -> None:
    async with open_pairs(subject) as make:
        client, server = await make()
        ours, theirs = (client, server) if receiver == "server" else (server, client)
        await ours.send(bytes(10_000))
        received = 0
        while received < 10_000:
            with trio.testing.assert_checkpoints():
                received += len(await theirs.receive())
        await client.aclose()
        await server.aclose()
