"""Node workers while a handler in the primary takes its time: what Node itself says does not wait behind messages.

Everything goes over one channel in one order: signs of life, answers about connections, and that a server listens.
"""

from __future__ import annotations

import contextlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from pyipc import cluster
from tests.cluster.diary import PATIENCE, QUICK
from tests.cluster.node_workers import NEEDS_NODE, OBEDIENT, PROGRAMS, made, run, script
from tests.conformance.sides import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = NEEDS_NODE

SAYING = str(PROGRAMS / "saying.js")
LOCAL = {"port": 0, "host": "127.0.0.1"}
#: Much more than a connection reads at a time, and less than what is kept for programs.
COUNT = 5_000
TALK = f"process.send('wait'); for (let i = 0; i < {COUNT}; i++) process.send([i, 'x'.repeat(100)]);"


class Held:
    """A cluster of servers whose messages wait for a handler, from ``"wait"`` on.

    Attributes:
        primary: The cluster.
        diary: What happens to it.
        go_on: Lets the handler come to its end.
    """

    def __init__(self, **settings: Any) -> None:
        self.primary, self.diary = made(
            OBEDIENT, env={"LISTEN": json.dumps(LOCAL)}, exec_args=["--require", SAYING], restart="never", **settings
        )
        self.go_on = trio.Event()
        self._is_held = trio.Event()
        self.primary.on("message", self._hold)

    async def _hold(self, event: cluster.WorkerEvent) -> None:
        if event.data == "wait":
            self._is_held.set()
            await self.go_on.wait()

    @property
    def port(self) -> int:
        """Where it listens."""
        address = self.diary.of("listening")[0].address
        assert address is not None
        assert address.port is not None
        return address.port

    @property
    def taken(self) -> int:
        """How many connections workers have taken."""
        return sum(each.taken for each in self.primary.statistics().handovers.values())

    async def talk(self, worker: cluster.WorkerHandle) -> None:
        """Have a worker say more than is handled, and wait until that is so."""
        await run(worker, TALK)
        with trio.fail_after(PATIENCE):
            await self._is_held.wait()

    async def connect(self) -> tuple[trio.SocketStream, str]:
        """Connect, and hear who it is."""
        with trio.fail_after(PATIENCE):
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            return stream, (await stream.receive_some()).decode().strip()


@asynccontextmanager
async def held(**settings: Any) -> AsyncIterator[tuple[Held, cluster.WorkerHandle]]:
    """Such a cluster with one worker."""
    made = Held(**settings)
    async with made.primary:
        worker = await made.primary.fork()
        yield made, worker
        made.go_on.set()


async def everything_is_heard(cluster: Held) -> None:
    """Let the handler go on, and see that nothing was lost."""
    cluster.go_on.set()
    with trio.fail_after(PATIENCE):
        await until(lambda: len(cluster.diary.of("message")) == COUNT + 2)
    [_, wait, *numbers] = [each.data for each in cluster.diary.of("message")]
    assert wait == "wait"
    assert [number for number, _ in numbers] == list(range(COUNT))


async def test_a_worker_is_not_taken_for_one_that_hangs() -> None:
    async with held(heartbeat_interval=0.2, hang_timeout=1.0) as (cluster, worker):
        await cluster.talk(worker)
        await trio.sleep(2.0)
        assert not cluster.diary.of("unhealthy")
        assert worker.is_ready
        await everything_is_heard(cluster)


async def test_it_is_given_connections() -> None:
    async with held() as (cluster, worker):
        await cluster.talk(worker)
        for _ in range(5):
            stream, who = await cluster.connect()
            async with stream:
                assert who == worker.id
        await everything_is_heard(cluster)


async def test_a_connection_that_it_has_taken_ends_with_it_and_is_given_to_nobody_else() -> None:
    async with held() as (cluster, worker):
        await cluster.talk(worker)
        stream, who = await cluster.connect()
        async with stream:
            assert who == worker.id
            await cluster.primary.fork()
            with trio.fail_after(PATIENCE):  # a busy Node may write it a while after it has answered the client
                await until(lambda: cluster.taken == 1)
            assert worker.current is not None
            worker.current.kill()
            with trio.fail_after(PATIENCE), contextlib.suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        stream, who = await cluster.connect()
        async with stream:
            assert who != worker.id


async def test_one_that_says_much_before_it_is_ready_becomes_ready_though_nobody_handles_that(tmp_path: Path) -> None:
    code = """
        for (let i = 0; i < 6; i++) process.send('x'.repeat(100_000));
        require('net').createServer().listen(0, '127.0.0.1');
    """
    primary = cluster.Cluster(script(tmp_path, code), **QUICK)  # a diary would be a handler
    async with primary:
        with trio.fail_after(PATIENCE):
            worker = await primary.fork()
        assert worker.is_ready
