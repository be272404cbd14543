"""Which of several real workers gets which of many real connections."""

from __future__ import annotations

import collections
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

import pyipc
from pyipc import cluster
from pyipc.cluster.claiming import Claims
from pyipc.cluster.policies import RoundRobin
from tests.conformance.sides import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyipc.cluster.process import WorkerProcess

ROOT = str(Path(__file__).parent.parent.parent)
PROGRAM = "tests.cluster.programs.sharing:main"
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="cannot run here: all of 127/8 is ours on Linux alone")
posix = pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: Windows has no signals")


@asynccontextmanager
async def sharing(workers: int, **settings: Any) -> AsyncIterator[tuple[cluster.Cluster, int]]:
    """A cluster whose workers share a port, and the port."""
    primary = cluster.Cluster(PROGRAM, workers=workers, cwd=ROOT, **settings)
    ports: list[int] = []
    listening = trio.Event()

    @primary.on("listening")
    def note(event: cluster.WorkerEvent) -> None:
        assert event.address is not None
        ports.append(event.address.port)
        listening.set()

    async with primary:
        await listening.wait()
        yield primary, ports[0]
        assert set(ports) == {ports[0]}


async def connect(port: int, source: str | None = None) -> tuple[trio.SocketStream, str]:
    """Connect, and hear who has it."""
    stream = await trio.open_tcp_stream("127.0.0.1", port, local_address=source)
    return stream, (await stream.receive_some()).decode().strip()


async def owners(port: int, sources: list[str]) -> dict[str, str]:
    """Who gets a connection from each of many addresses."""
    found: dict[str, str] = {}
    limit = trio.CapacityLimiter(50)

    async def ask(source: str) -> None:
        async with limit:
            stream, found[source] = await connect(port, source)
            await stream.aclose()

    async with trio.open_nursery() as nursery:
        for source in sources:
            nursery.start_soon(ask, source)
    return found


@pytest.mark.parametrize(("workers", "each"), [(4, 100), (9, 10)], ids=["4 workers", "more workers than CPUs"])
async def test_round_robin_shares_idle_connections_of_a_burst_evenly(workers: int, each: int) -> None:
    # A stall of this machine is not to be taken for a worker that blocks.
    async with sharing(workers, policy=cluster.RoundRobin(patience=10)) as (primary, port):
        shares: collections.Counter[str] = collections.Counter()
        all_there = trio.Event()
        enough = trio.Event()

        async def hold() -> None:
            stream, worker = await connect(port)
            async with stream:
                shares[worker] += 1
                if shares.total() == workers * each:
                    all_there.set()
                await enough.wait()

        async with trio.open_nursery() as nursery:
            for _ in range(workers * each):
                nursery.start_soon(hold)
            await all_there.wait()
            # What a worker has taken is told over its courier, which is read beside all this.
            await until(lambda: {id: each.info().connections for id, each in primary.workers.items()} == shares)
            enough.set()
        assert set(shares) == set(primary.workers)
        assert all(abs(share - each) <= 1 for share in shares.values()), shares
    print(f"{workers * each} connections over {workers} workers: {dict(shares)}")


@pytest.mark.slow
async def test_least_loaded_spares_a_worker_that_is_ten_times_slower() -> None:
    async with sharing(3, policy="least-loaded", env={"WORK_SECONDS": "0.1"}) as (primary, port):
        slow = await primary.fork("slow", env={"WORK_SECONDS": "1"})
        shares: collections.Counter[str] = collections.Counter()

        async def ask() -> None:
            for _ in range(15):
                stream, worker = await connect(port)
                shares[worker] += 1
                await stream.aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(ask)
        assert 0 < shares[slow.id] < sum(shares.values()) / 4 / 2, shares
    print(f"shares with one worker ten times slower: {dict(shares)}")


@on_linux
@pytest.mark.slow
@pytest.mark.time_limit(240)
async def test_sticky_moves_the_keys_of_a_dead_worker_and_no_others() -> None:
    sources = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(1_000)]
    async with sharing(4, policy="sticky") as (primary, port):
        before = await owners(port, sources)
        assert all(count > 150 for count in collections.Counter(before.values()).values())
        assert await owners(port, sources) == before
        dead = primary.workers["2"]
        back = trio.Event()
        dead.once("ready", lambda event: back.set())
        assert dead.pid is not None
        os.kill(dead.pid, signal.SIGKILL)
        moved = await owners(port, sources)
        assert {source for source in sources if moved[source] != before[source]} <= {
            source for source in sources if before[source] == dead.id
        }
        await back.wait()
        # It is there again, and nothing that has found another worker comes back; nor to one that is new.
        await primary.fork("another")
        assert await owners(port, sources) == moved
        await primary.reload()
        assert await owners(port, sources) == moved


@posix
async def test_a_blocked_worker_holds_at_most_its_limit_and_loses_none() -> None:
    async with sharing(3, max_handovers=2) as (primary, port):
        blocked = primary.workers["2"]
        assert blocked.pid is not None
        os.kill(blocked.pid, signal.SIGSTOP)
        served: collections.Counter[str] = collections.Counter()
        enough = trio.Event()

        async def ask() -> None:
            stream, worker = await connect(port)
            served[worker] += 1
            if served.total() == 58:
                enough.set()
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(ask)
            await enough.wait()
            assert served[blocked.id] == 0
            [statistics] = primary.statistics().handovers.values()
            assert (statistics.given, statistics.waiting) == (2, 0)
            # Those that it holds are still the primary's, and another gets them when it is gone.
            os.kill(blocked.pid, signal.SIGKILL)
        assert served.total() == 60
        assert served[blocked.id] <= 2  # if it was back so soon


@pytest.mark.parametrize("policy", ["round-robin", pytest.param("shared", marks=posix)])
@pytest.mark.parametrize("late", [False, True], ids=["before it is ready", "when it is ready"])
async def test_an_address_that_a_worker_has_closed_is_given_up(policy: str, late: bool) -> None:
    ports: set[int] = set()
    primary = cluster.Cluster(
        "tests.cluster.programs.sharing:closing", cwd=ROOT, policy=policy, env={"LATE": "1"} if late else {}
    )

    @primary.on("listening")
    def note(event: cluster.WorkerEvent) -> None:
        assert event.address is not None
        ports.add(event.address.port)

    async with primary:
        worker = await primary.fork(wait_ready=True)
        await worker.emit("close")
        with trio.fail_after(30):
            while len(ports) < 2 or any([await is_open(port) for port in ports]):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.1)


async def test_a_worker_that_wants_other_options_is_told_what_it_takes(nursery: trio.Nursery) -> None:
    claims = Claims(RoundRobin(), 4)
    await nursery.start(claims.run)
    one, other = (SimpleNamespace(is_ready=False, handle=None) for _ in range(2))
    asked: dict[str, Any] = {"address": "tcp://127.0.0.1:0", "turn": 0}
    await claims.listen(cast("WorkerProcess", one), asked | {"options": {"backlog": 1}})
    with pytest.raises(pyipc.Refused, match="A reload cannot change them.* start the cluster again"):
        await claims.listen(cast("WorkerProcess", other), asked | {"options": {"backlog": 2}})
    nursery.cancel_scope.cancel()


async def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
    except OSError:
        return False
    return True
