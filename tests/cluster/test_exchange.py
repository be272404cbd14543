"""What a server says to everybody reaches the clients of every worker's server of the same address."""

from __future__ import annotations

import secrets
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc import cluster
from pyipc.cluster import control
from pyipc.cluster.channels import given_endpoint, socket_link
from pyipc.cluster.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from trio.testing import MockClock

PROGRAM = "tests.cluster.programs.exchanging:main"
ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"pipe:pyipc-test-{secrets.token_hex(8)}" if sys.platform == "win32" else f"unix:{tmp_path}/socket"


def make(address: str, **settings: Any) -> cluster.Cluster:
    return cluster.Cluster(PROGRAM, cwd=ROOT, args=[address], **settings)


@asynccontextmanager
async def one_client_each(address: str, count: int = 2) -> AsyncIterator[list[pyipc.Client]]:
    """Clients of as many workers, in the order of the workers' ids."""
    async with AsyncExitStack() as stack:
        clients: dict[str, pyipc.Client] = {}
        while len(clients) < count:
            client = await stack.enter_async_context(pyipc.connect(address))
            clients[await client.request("who")] = client
        yield [clients[id] for id in sorted(clients)]


async def test_a_broadcast_reaches_the_clients_of_all_workers_once(address: str) -> None:
    async with make(address, workers=2), one_client_each(address) as clients:
        heard = [client.events("said") for client in clients]
        await clients[0].emit("say", 1)
        await clients[0].emit("say", {"large": "x" * 500_000}, attachments=[b"bytes"])
        await clients[0].emit("say", "last", confirm=True)
        for events in heard:
            got = [await events.get(timeout=30) for _ in range(3)]
            assert [message.data for message in got] == [1, {"large": "x" * 500_000}, "last"]
            assert [message.attachments for message in got] == [(), (b"bytes",), ()]


async def test_what_is_published_with_one_worker_reaches_who_subscribed_with_another(address: str) -> None:
    async with make(address, workers=2), one_client_each(address) as (one, two):
        async with two.subscribe("news.*") as news, one.subscribe("news.*") as own:
            await one.publish("news.client", 1)  # by a client
            await one.emit("publish", ["news.server", 2, False])  # and by the program
            for subscription in (news, own):
                got = [await subscription.get(timeout=30) for _ in range(2)]
                assert [(message.event, message.data) for message in got] == [("news.client", 1), ("news.server", 2)]
        assert news.statistics().received == own.statistics().received == 2


async def test_what_is_retained_is_there_for_workers_that_start_later_until_it_is_forgotten(address: str) -> None:
    async with make(address, workers=1) as primary:
        async with pyipc.connect(address) as client:
            await client.request("publish", ["state.a", "old", True])
            await client.request("publish", ["state.a", "new", True])
            await client.publish("state.b", [1, 2], retain=True)
            await client.request("publish", ["state.c", "gone", True])
            assert await client.request("forget", "state.c") == 1
        await primary.reload()  # after which no process is left that it was said to
        async with pyipc.connect(address) as client, client.subscribe("state.*") as states:
            got = [await states.get(timeout=30) for _ in range(2)]
            assert {message.event: message.data for message in got} == {"state.a": "new", "state.b": [1, 2]}
            await client.request("publish", ["state.c", "end", False])
            assert (await states.get(timeout=30)).data == "end"


async def test_a_worker_that_was_killed_hears_everything_again_when_it_is_back(address: str) -> None:
    async with make(address, workers=2) as primary:
        async with one_client_each(address):
            process = primary.workers["2"].current
            assert process is not None
            process.kill()
            while primary.workers["2"].current is process or not primary.workers["2"].is_ready:
                await primary.workers["2"].wait_changed()
        async with one_client_each(address) as (one, two):
            heard = two.events("said")
            await one.emit("say", "hello")
            assert (await heard.get(timeout=30)).data == "hello"


async def test_much_that_is_said_at_once_holds_up_neither_workers_nor_their_pulses(address: str) -> None:
    async with make(address, workers=2, hang_timeout=10) as primary, one_client_each(address) as (one, two):
        heard = two.events("said", max_buffered=10_000)
        await one.emit("flood", 60)  # no more than a server keeps for a client that is slow
        await one.emit("say", "last", confirm=True)
        last = (await heard.get(timeout=30)).data
        number = -1
        while last != "last":
            assert last[0] > number  # in order; some may be missing, none comes twice
            number = last[0]
            last = (await heard.get(timeout=30)).data
        assert [worker.restarts for worker in primary.workers.values()] == [0, 0]


async def test_what_is_retained_waits_a_moment_for_a_server_that_takes_the_place_of_the_last_one(
    autojump_clock: MockClock,
) -> None:
    """Whoever takes the place is heard over another connection than the one who leaves it, and so perhaps later."""
    options = control.channel_options(1024 * 1024)
    exchange = Exchange(options)
    where = {"at": ["tcp://127.0.0.1:1"]}

    async def member() -> AbstractAsyncContextManager[pyipc.Client]:
        ours, theirs = socket.socketpair()
        exchange.adopt(socket_link(ours, "member"))
        return pyipc.connect(given_endpoint("exchange", socket_link(theirs, "primary")), **options)

    async with exchange.running():
        async with await member() as first:
            await first.emit("join", where)
            await first.emit("publish", where | {"topic": "t", "data": 1, "retain": True, "by_peer": False})
            await first.emit("leave", where, confirm=True)
        async with await member() as second:
            published = second.events("publish")
            await second.emit("join", where)
            assert (await published.get(timeout=30)).data["data"] == 1
            await second.emit("leave", where, confirm=True)
        await trio.sleep(3)
        async with await member() as third:
            published = third.events("publish")
            await third.emit("join", where, confirm=True)
            with pytest.raises(trio.TooSlowError):
                await published.get(timeout=30)
