"""Handing connections to real processes: killed, blocked, slow, and more of them than there are CPUs."""

from __future__ import annotations

import collections
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from pyipc.cluster.policies import LeastLoaded, RoundRobin
from tests.battery.leaks import leak_gate
from tests.cluster.worlds import ProcessWorker, clients, primary
from tests.conformance.sides import until
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyipc.cluster.handing import Handing
    from tests.cluster.worlds import TcpSource

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows has no SCM_RIGHTS")


@contextlib.asynccontextmanager
async def processes(handing: Handing, *modes: str) -> AsyncIterator[list[ProcessWorker]]:
    """Workers that have joined, each called by its number and what it does."""
    workers: list[ProcessWorker] = []
    async with trio.open_nursery() as nursery:
        try:
            for number, mode in enumerate(modes):
                workers.append(ProcessWorker(f"{number}-{mode}", mode))
                nursery.start_soon(workers[-1].candidate.run)
            for worker in workers:
                assert await worker.says() == "ready"
                handing.join(worker.candidate)
            yield workers
        finally:
            nursery.cancel_scope.cancel()
            for worker in workers:
                worker.close()


async def ask(source: TcpSource) -> str:
    """Connect, and read which worker it is."""
    async with await trio.open_tcp_stream(*source.where) as stream:
        return (await stream.receive_some()).decode().strip()


@pytest.mark.slow
@pytest.mark.time_limit(180)
async def test_killed_between_arrival_and_taking_another_serves_every_client(scale: int) -> None:
    async with (
        leak_gate(),
        primary(RoundRobin(patience=0)) as (handing, source),
        processes(handing, "serve") as (last,),
    ):
        moved = 0
        # The next one starts while the one before is killed.
        coming = ProcessWorker("victim-0", "deaf")
        for round in range(50 * scale):
            victim, coming = coming, ProcessWorker(f"victim-{round + 1}", "deaf")
            try:
                assert await victim.says() == "ready"
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(victim.candidate.run)
                    handing.leave(last.candidate)
                    handing.join(victim.candidate)
                    count = 1 + round % 4
                    served: list[str] = []

                    async def client(served: list[str] = served) -> None:
                        served.append(await ask(source))

                    for _ in range(count):
                        nursery.start_soon(client)
                    for _ in range(count):
                        assert (await victim.says()).isdigit()  # one has arrived there
                    assert served == []
                    if round % 2:  # somebody else is there already, or comes later
                        handing.join(last.candidate)
                    victim.kill()
                    await until(lambda victim=victim: victim.candidate.is_over)  # type: ignore[misc]
                    handing.join(last.candidate)
                assert served == ["0-serve"] * count
                moved += count
            finally:
                victim.close()
        coming.close()
        assert handing.statistics().moved == moved
        assert handing.statistics().taken == moved


@pytest.mark.slow
@pytest.mark.time_limit(120)
async def test_killed_at_any_moment_no_client_is_served_twice_or_left_alone(scale: int) -> None:
    """What a worker had taken ends with it; everything else is served by another."""
    async with leak_gate(), primary() as (handing, source), processes(handing, "serve", "serve"):
        coming = ProcessWorker("victim-0", "fast")
        served: collections.Counter[str] = collections.Counter()
        clients_made = 0

        async def client() -> None:
            try:
                served[await ask(source)] += 1
            except trio.BrokenResourceError:
                served[""] += 1

        for round in range(15 * scale):
            victim, coming = coming, ProcessWorker(f"victim-{round + 1}", "fast")
            try:
                assert await victim.says() == "ready"
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(victim.candidate.run)
                    handing.join(victim.candidate)
                    for number in range(60):
                        nursery.start_soon(client)
                        clients_made += 1
                        if number == 3 * round % 50:
                            victim.kill()
                        await trio.sleep(0.001)
            finally:
                victim.close()
        coming.close()
        assert served.total() == clients_made
        statistics = handing.statistics()
        assert (statistics.accepted, statistics.taken, statistics.given) == (clients_made, clients_made, 0)
        print(f"of {clients_made} clients {served['']} had been taken by one of {15 * scale} workers that were killed")
        assert served[""] < clients_made / 4


@pytest.mark.parametrize("more", [0, 1])
async def test_400_idle_connections_are_shared_evenly(more: int) -> None:
    """Also with more workers than there are CPUs."""
    count = 4 if not more else (os.cpu_count() or 1) + 6
    async with (
        leak_gate(),
        primary(RoundRobin(patience=5)) as (handing, source),
        processes(handing, *["idle"] * count) as workers,
    ):
        with clients(source, 400):
            await until(lambda: handing.statistics().taken == 400)
            shares = [worker.candidate.open_connections for worker in workers]
            assert all(abs(share - 400 / count) <= 1 for share in shares), shares
        await until(lambda: not any(worker.candidate.open_connections for worker in workers))


async def test_a_slower_worker_gets_less_than_half_its_share() -> None:
    async with leak_gate(), primary(LeastLoaded()) as (handing, source):
        async with processes(handing, "slow", "fast", "fast", "fast"), trio.open_nursery() as nursery:
            served: collections.Counter[str] = collections.Counter()

            async def client() -> None:
                for _ in range(20):
                    served[await ask(source)] += 1

            for _ in range(20):
                nursery.start_soon(client)
        assert served.total() == 400
        assert len(served) == 4
        assert served["0-slow"] < 400 / 4 / 2, served


async def test_a_blocked_worker_holds_its_limit_and_what_it_holds_is_served_when_it_is_killed() -> None:
    async with (
        leak_gate(),
        primary() as (handing, source),
        processes(handing, "blocked", "serve", "serve", "serve") as workers,
    ):
        served: list[str] = []

        async def client() -> None:
            served.append(await ask(source))

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(client)
            await until(lambda: len(served) == 196)
            assert handing.statistics().given == 4
            workers[0].kill()
        assert len(served) == 200
        assert "0-blocked" not in served
