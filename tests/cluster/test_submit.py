"""`Cluster.submit` with workers that are processes, and are really killed."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc import cluster
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PARAGRAPH = "one two three four"


class Heard:
    """What jobs have told, in order."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.router = pyipc.Router()
        self._more = trio.Event()
        for event in ("begun", "cancelled"):
            self.router.on(event, self._hear)

    def _hear(self, message: pyipc.Message[Any]) -> None:
        self.said.append((message.event, message.data))
        self._more.set()
        self._more = trio.Event()

    async def wait(self, count: int) -> None:
        while len(self.said) < count:
            await self._more.wait()


@asynccontextmanager
async def workers(heard: Heard | None = None, **settings: Any) -> AsyncIterator[cluster.Cluster]:
    async with cluster.Cluster(
        "tests.cluster.job_program:main",
        router=None if heard is None else heard.router,
        env={"PYTHONPATH": str(ROOT)},
        restart_interval=0.01,
        **settings,
    ) as primary:
        yield primary


async def test_every_job_is_done_though_a_worker_is_killed_on_the_way() -> None:
    heard = Heard()
    async with workers(heard, workers=2, jobs_per_worker=2) as primary:
        stuck = [await primary.submit("stay", number) for number in range(4)]
        counted = [await primary.submit("words", PARAGRAPH, result=int) for _ in range(200)]
        await heard.wait(4)
        victim = primary.workers[str(stuck[0].worker)]
        theirs = [job for job in stuck if job.worker == victim.id]
        assert (len(theirs), victim.in_flight) == (2, 2)
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        for job in stuck:
            if job not in theirs:
                job.cancel()  # so that there are places for the others
        await heard.wait(8)  # two were cancelled, two have begun again
        assert [job.attempts for job in theirs] == [2, 2]
        for job in theirs:
            job.cancel()
        assert [await job.result() for job in counted] == [4] * 200
        now = primary.statistics().jobs
        assert (now.done, now.cancelled, now.retried, now.pending, now.running) == (200, 4, 2, 0, 0)


async def test_a_job_that_ends_its_workers_is_given_up_and_the_workers_come_back() -> None:
    async with workers(workers=2) as primary:
        job = await primary.submit("die", attempts=2)
        with pytest.raises(cluster.JobFailed) as caught:
            await job.result()
        assert caught.value.attempts == 2
        assert isinstance(caught.value.__cause__, pyipc.ConnectionLost)
        again = await primary.submit("words", PARAGRAPH)
        assert await again.result() == 4


async def test_a_job_for_one_worker_waits_for_its_next_process() -> None:
    async with workers() as primary:
        await primary.fork("mailer", role="mail")
        job = await primary.submit("die once", worker="mailer")
        assert await job.result() == 2
        assert (job.attempts, job.worker) == (2, "mailer")
        by_role = await primary.submit("words", PARAGRAPH, role="mail")
        assert await by_role.result() == 4
        with pytest.raises(cluster.UnknownWorker):
            await primary.submit("words", PARAGRAPH, worker="printer")


async def test_leaving_waits_for_jobs_but_not_for_those_that_nobody_can_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with workers(workers=1) as primary:
        jobs = [await primary.submit("words", PARAGRAPH) for _ in range(50)]
        for_nobody = await primary.submit("words", PARAGRAPH, role="nobody", timeout=3_600)
    assert [await job.result() for job in jobs] == [4] * 50
    with pytest.raises(pyipc.ConnectionClosed):
        await for_nobody.result()
    assert "the cluster is closed with a job that is not done" in caplog.text


async def test_a_worker_that_leaves_finishes_its_jobs_and_gets_no_more() -> None:
    heard = Heard()
    async with workers(heard) as primary:
        worker = await primary.fork("one", drain_timeout=None)
        at_work = await primary.submit("stay", 0)
        await heard.wait(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.disconnect)
            while worker.state != "draining":
                await worker.wait_changed()
            later = await primary.submit("words", PARAGRAPH)
            with pytest.raises(cluster.UnknownWorker):
                await primary.submit("words", PARAGRAPH, worker="one")
            at_work.cancel()
        assert later.attempts == 0
        await primary.fork("two")
        assert await later.result() == 4


async def test_a_reload_gives_jobs_to_the_new_processes() -> None:
    heard = Heard()
    async with workers(heard, workers=1, jobs_per_worker=1) as primary:
        at_work = await primary.submit("stay", 0)
        await heard.wait(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(primary.reload)
            later = await primary.submit("words", PARAGRAPH)
            assert await later.result() == 4  # the old process still has its job
            assert not at_work.done
            at_work.cancel()
        assert heard.said == [("begun", 0), ("cancelled", 0)]
