"""Jobs whose workers die, come or leave: what becomes of them, and in what order."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.cluster.errors import JobFailed, UnknownWorker
from tests.cluster.fake_workers import FakeWorker, running
from tests.cluster.job_handlers import Work, error_of, settle

if TYPE_CHECKING:
    from pyipc.cluster.jobs import Jobs

pytestmark = pytest.mark.time_limit(20)


async def test_another_worker_gets_it_ahead_of_all_that_wait() -> None:
    work = Work()
    a, b = work.worker("a"), work.worker("b")
    async with running(a, b, jobs_per_worker=1) as (jobs, _):
        first, second, *rest = [await jobs.submit("stay", number) for number in range(4)]
        await settle()
        assert {first.worker, second.worker} == {"a", "b"}
        lost, kept = (first, second) if first.worker == "a" else (second, first)
        await a.die()
        await settle()
        work.gate(kept.number - 1).set()
        await settle()
        assert work.begun[2:] == [lost.number - 1]
        assert (lost.attempts, lost.worker, repr(lost)) == (
            2,
            "b",
            f"<Job {lost.number} 'stay' at worker 'b', started 2 times>",
        )
        for number in range(4):
            work.gate(number).set()
        for job in [lost, kept, *rest]:
            assert await job.result() == job.number - 1
        assert jobs.statistics().retried == 1


async def test_what_comes_back_keeps_its_order() -> None:
    work = Work()
    a = work.worker("a")
    async with running(a, jobs_per_worker=3) as (jobs, _):
        all_of_them = [await jobs.submit("stay", number) for number in range(6)]
        await settle()
        await a.die()
        await settle()
        assert jobs.statistics().pending == 6
        async with a.process(jobs):
            for number in range(6):
                work.gate(number).set()
            for job in all_of_them:
                await job.result()
            assert work.begun[3:] == list(range(6))
            assert [job.attempts for job in all_of_them] == [2] * 3 + [1] * 3


@pytest.mark.parametrize("attempts", [1, 3])
async def test_what_ends_its_workers_is_given_up(attempts: int) -> None:
    work = Work()
    workers = [work.worker(id) for id in "abcd"]
    by_id = {worker.id: worker for worker in workers}
    async with running(*workers) as (jobs, _):
        job = await jobs.submit("stay", 0, attempts=attempts)
        for _ in range(attempts):
            await settle()
            assert not job.done
            await by_id[job.worker or ""].die()
        error = await error_of(job)
        assert isinstance(error, JobFailed)
        assert (error.event, error.attempts, error.worker) == ("stay", attempts, job.worker)
        assert isinstance(error.__cause__, pyipc.ConnectionLost)
        assert "it may be the job itself" in str(error)
        assert len(work.begun) == attempts
        assert repr(job).startswith("<Job 1 'stay' ended by JobFailed")
        now = jobs.statistics()
        assert (now.failed, now.retried, now.running) == (1, attempts - 1, 0)


async def test_what_never_got_there_does_not_count_and_does_not_spin() -> None:
    """The worker is gone, and nobody has noticed yet."""
    work = Work()
    a = work.worker("a")
    async with running(jobs_per_worker=2) as (jobs, table):
        a.takes_jobs, table["a"] = True, a
        jobs.workers_changed()
        all_of_them = [await jobs.submit("echo", number, attempts=1) for number in range(5)]
        await settle()
        assert [job.attempts for job in all_of_them] == [0] * 5
        assert jobs.statistics().pending == 5
        async with a.process(jobs):
            assert [await job.result() for job in all_of_them] == list(range(5))
        assert work.begun == list(range(5))


async def test_a_connection_closed_from_here_is_a_loss_too() -> None:
    class Closing(FakeWorker):
        async def request(self, event: str, data: object, **options: Any) -> Any:
            if self.generation == 1:
                await trio.lowlevel.checkpoint()
                raise pyipc.ConnectionClosed("this side has closed it")
            return await super().request(event, data, **options)

    a = Closing("a", Work().router)
    async with running(a) as (jobs, _):
        job = await jobs.submit("echo", 1)
        await settle()
        async with a.process(jobs):
            assert await job.result() == 1
            assert job.attempts == 2


async def test_a_worker_that_drains_finishes_and_gets_no_more() -> None:
    work = Work()
    a, b = work.worker("a"), work.worker("b")
    async with running(a, b, jobs_per_worker=1) as (jobs, _):
        first = await jobs.submit("stay", 0, worker="a")
        await settle()
        a.takes_jobs = False
        later = await jobs.submit("stay", 1, worker="a")
        anywhere = await jobs.submit("stay", 2)
        await settle()
        assert anywhere.worker == "b"
        work.gate(0).set()
        assert await first.result() == 0
        await settle()
        assert (later.worker, work.begun) == (None, [0, 2])
        a.takes_jobs = True
        jobs.workers_changed()
        await settle()
        assert later.worker == "a"


async def test_a_role_may_have_nobody_yet() -> None:
    work = Work()
    late = work.worker("late", "mail")
    async with running(work.worker("a")) as (jobs, table):
        all_of_them = [await jobs.submit("echo", number, role="mail") for number in range(3)]
        await settle()
        assert jobs.statistics().pending == 3
        table["late"] = late
        async with late.process(jobs):
            assert [await job.result() for job in all_of_them] == [0, 1, 2]


async def test_the_next_process_of_a_worker_does_not_wait_for_the_jobs_of_the_one_before() -> None:
    work = Work()
    a = work.worker("a")
    async with running(a, jobs_per_worker=2) as (jobs, _):
        old = [await jobs.submit("stay", number) for number in range(2)]
        await settle()
        new = await jobs.submit("stay", 2)
        await settle()
        assert new.worker is None
        a.generation += 1  # it is ready, and the one before drains
        jobs.workers_changed()
        await settle()
        assert new.worker == "a"
        for number in range(3):
            work.gate(number).set()
        assert [await job.result() for job in [*old, new]] == [0, 1, 2]


@pytest.mark.parametrize("how", ["leaves", "has failed", "is not in the table"])
async def test_a_worker_that_leaves_for_good_takes_the_jobs_along_that_wait_for_it(how: str) -> None:
    work = Work()
    a = work.worker("a")
    refused: list[Exception] = []

    async def submit(jobs: Jobs) -> None:
        with pytest.raises(UnknownWorker) as caught:
            await jobs.submit("stay", 3, worker="a")
        refused.append(caught.value)

    async with running(a, jobs_per_worker=1, max_pending_jobs=1) as (jobs, table):
        at_work = await jobs.submit("stay", 0, worker="a")
        waiting = await jobs.submit("stay", 1, worker="a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, jobs)
            nursery.start_soon(submit, jobs)
            await settle()
            if how == "leaves":
                a.is_leaving = True
            elif how == "has failed":
                a.has_failed = True
            else:
                del table["a"]
            jobs.workers_changed()
        assert len(refused) == 2
        assert isinstance(await error_of(waiting), UnknownWorker)
        with pytest.raises(UnknownWorker):
            await jobs.submit("stay", 4, worker="a")
        assert not at_work.done
        await a.die()
        assert isinstance(await error_of(at_work), UnknownWorker)
        assert jobs.statistics().running == 0


async def test_waiting_until_all_is_done_that_somebody_can_do() -> None:
    work = Work()
    a = work.worker("a", "mail")
    done: list[str] = []

    async def wait(jobs: Jobs, name: str) -> None:
        await jobs.wait_done()
        done.append(name)

    async with running(a, jobs_per_worker=1) as (jobs, _), trio.open_nursery() as nursery:
        await jobs.wait_done()
        for number in range(2):
            await jobs.submit("stay", number, role="mail")
        await jobs.submit("stay", 2, role="nobody has this one")
        nursery.start_soon(wait, jobs, "first")
        nursery.start_soon(wait, jobs, "second")
        for number in range(2):
            await settle()
            assert done == []
            work.gate(number).set()
        await settle()
        assert sorted(done) == ["first", "second"]
        await jobs.submit("stay", 3)
        await jobs.submit("stay", 4)
        nursery.start_soon(wait, jobs, "third")
        a.is_leaving = True
        jobs.workers_changed()
        await settle()
        assert len(done) == 2  # it has a job, though it gets no more
        work.gate(3).set()
        await settle()
        assert done[2:] == ["third"]


async def test_jobs_of_a_role_wait_while_its_workers_have_failed_and_that_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()
    a = work.worker("a", "mail")
    async with running(a) as (jobs, _):
        a.has_failed = True
        jobs.workers_changed()
        job = await jobs.submit("stay", 0, role="mail")
        await jobs.submit("stay", 1, role="mail")
        await jobs.wait_done()  # nobody is there to do it, and so the end of the cluster does not wait for it
        assert [each.getMessage() for each in caplog.records] == [
            "the job 'stay' waits for a worker of the role 'mail', and there is none now"
        ]
        a.has_failed = False
        jobs.workers_changed()
        work.gate(0).set()
        await job.result()


async def test_asking_for_a_result_again_gives_way_and_leaves_no_traces() -> None:
    async with running(Work().worker("a")) as (jobs, _):
        good, bad = await jobs.submit("echo", 1), await jobs.submit("nobody handles this")
        await good.result()
        depths = set()
        for _ in range(3):
            with trio.testing.assert_checkpoints():
                await good.result()
            error = await error_of(bad)
            depths.add(len(traceback.extract_tb(error.__traceback__)))
        assert len(depths) == 1
