"""Handing connections to real processes that are killed: before they have taken them, and at any moment."""

from __future__ import annotations

import collections
import contextlib
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from pyipc.cluster.policies import RoundRobin
from tests.battery.leaks import leak_gate
from tests.cluster.worlds import ProcessWorker, primary
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
