"""How jobs end otherwise than by an answer: errors, time-outs, cancelling and closing; and what is told of it."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.cluster.errors import JobCancelled
from pyipc.cluster.jobs import Jobs
from tests.cluster.fake_workers import FakeWorker, running
from tests.cluster.job_handlers import Work, error_of, settle

pytestmark = pytest.mark.time_limit(20)


# --- errors of the handler, and time-outs -----------------------------------------------------------------------------


async def test_what_a_handler_raises_is_the_outcome_at_once() -> None:
    work = Work()
    async with running(work.worker("a")) as (jobs, _):
        refused = await jobs.submit("fail", "cat")
        error = await error_of(refused)
        assert isinstance(error, pyipc.RemoteError)
        assert (error.code, refused.attempts, work.begun) == ("no-such-thing", 1, ["cat"])
        assert await error_of(refused) is error
        assert isinstance(await error_of(await jobs.submit("nobody")), pyipc.NoHandler)
        assert isinstance(await error_of(await jobs.submit("typed", "text")), pyipc.InvalidData)
        assert isinstance(await error_of(await jobs.submit("echo", object())), pyipc.UnencodableData)
        assert isinstance(await error_of(await jobs.submit("pyipc.x")), pyipc.InvalidEventName)
        now = jobs.statistics()
        assert (now.failed, now.done, now.retried) == (5, 0, 0)


async def test_a_job_that_is_late_ends_wherever_it_is(autojump_clock: trio.testing.MockClock) -> None:
    work = Work()
    async with running(work.worker("a"), jobs_per_worker=1) as (jobs, _):
        patient = await jobs.submit("stay", 0, timeout=50)
        late = await jobs.submit("stay", 1, timeout=20)
        at_once = await jobs.submit("stay", 2, timeout=0)
        began = trio.current_time()
        errors = [await error_of(job) for job in (at_once, late, patient)]
        assert trio.current_time() - began == pytest.approx(50)
        assert [type(error) for error in errors] == [pyipc.RequestTimeout] * 3
        assert str(errors[1]) == "no answer to 'stay' within 20 s; it waited for a worker"
        assert str(errors[2]) == "no answer to 'stay' within 50 s; worker 'a' had it"
        await settle()
        assert (work.begun, work.cancelled) == ([0], [0])
        assert await (await jobs.submit("echo", 3)).result() == 3  # the place is free again


async def test_the_time_counts_over_all_attempts(autojump_clock: trio.testing.MockClock) -> None:
    work = Work()
    a = work.worker("a")
    async with running(a) as (jobs, _):
        began = trio.current_time()
        job = await jobs.submit("stay", 0, timeout=10)
        await trio.sleep(6)
        await a.die()
        async with a.process(jobs):
            error = await error_of(job)
        assert isinstance(error, pyipc.RequestTimeout)
        assert trio.current_time() - began == pytest.approx(10)
        assert job.attempts == 2


async def test_jobs_that_are_done_in_time_leave_no_deadlines_behind() -> None:
    work = Work()
    async with running(work.worker("a")) as (jobs, _):
        for number in range(500):
            await (await jobs.submit("echo", number, timeout=3_600)).result()
        assert len(jobs._deadlines) < 100


# --- cancelling -------------------------------------------------------------------------------------------------------


async def test_cancelling_a_job_reaches_its_handler_and_nobody_elses() -> None:
    work = Work()
    async with running(work.worker("a"), jobs_per_worker=2) as (jobs, _):
        doomed, other, waiting = [await jobs.submit("stay", number) for number in range(3)]
        await settle()
        doomed.cancel()
        doomed.cancel()
        error = await error_of(doomed)
        assert isinstance(error, JobCancelled)
        assert error.event == "stay"
        await settle()
        assert work.cancelled == [0]
        assert work.begun == [0, 1, 2]
        for number in (1, 2):
            work.gate(number).set()
        assert [await other.result(), await waiting.result()] == [1, 2]
        other.cancel()
        assert await other.result() == 1
        now = jobs.statistics()
        assert (now.done, now.cancelled, now.failed) == (2, 1, 0)


async def test_a_job_is_cancelled_before_its_turn_comes() -> None:
    work = Work()
    async with running(work.worker("a"), jobs_per_worker=1) as (jobs, _):
        for round in range(3):  # with a runner that is new, and with one that was cancelled before
            job = await jobs.submit("echo", round)
            waiting = await jobs.submit("echo", "waiting")
            waiting.cancel()
            job.cancel()
            assert isinstance(await error_of(job), JobCancelled)
            assert (job.attempts, job.worker) == (0, None)
        await settle()
        assert work.begun == []
        assert await (await jobs.submit("echo", 5)).result() == 5


async def test_a_result_that_is_there_at_the_moment_of_cancelling_is_dropped() -> None:
    """The task that waits for the answer has been woken, but has not had its turn."""
    at_work = trio.Event()

    class Answering(FakeWorker):
        async def request(self, event: str, data: object, **options: Any) -> Any:
            self.others += 1
            await at_work.wait()
            self.others -= 1
            return "answer"

    a = Answering("a", Work().router)
    async with running(a, jobs_per_worker=1) as (jobs, _):
        job, next_job = await jobs.submit("echo"), await jobs.submit("echo")
        await settle()
        at_work.set()
        job.cancel()
        assert isinstance(await error_of(job), JobCancelled)
        assert await next_job.result() == "answer"
        now = jobs.statistics()
        assert (now.done, now.cancelled, now.running) == (1, 1, 0)


async def test_a_worker_that_is_lost_at_the_moment_of_cancelling_changes_nothing() -> None:
    lost = trio.Event()

    class Losing(FakeWorker):
        async def request(self, event: str, data: object, **options: Any) -> Any:
            await lost.wait()
            raise pyipc.ConnectionLost("it has died", maybe_handled=True)

    a = Losing("a", Work().router)
    async with running(a) as (jobs, _):
        job = await jobs.submit("echo")
        await settle()
        lost.set()
        job.cancel()
        await settle()
        assert isinstance(await error_of(job), JobCancelled)
        now = jobs.statistics()
        assert (now.pending, now.running, now.retried, now.cancelled) == (0, 0, 0, 1)


async def test_who_waits_may_leave() -> None:
    work = Work()
    async with running(work.worker("a")) as (jobs, _):
        job = await jobs.submit("stay", 0)
        with trio.move_on_after(0):
            await job.result()
        await settle()
        assert not job.done
        work.gate(0).set()
        assert await job.result() == 0
        with trio.CancelScope() as scope:
            scope.cancel()
            await job.result()
        assert scope.cancelled_caught


# --- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_closing_ends_whatever_is_not_done(how: str, caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    refused: list[Exception] = []

    async def submit(jobs: Jobs) -> None:
        with pytest.raises(pyipc.ConnectionClosed) as caught:
            await jobs.submit("stay", 2)
        refused.append(caught.value)

    a = work.worker("a")
    jobs = Jobs({"a": a}, jobs_per_worker=1, max_pending_jobs=1)
    async with trio.open_nursery() as nursery, a.process(jobs):
        scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await jobs.run(task_status=task_status)

        await nursery.start(run)
        at_work, waiting = await jobs.submit("stay", 0), await jobs.submit("stay", 1)
        nursery.start_soon(submit, jobs)
        nursery.start_soon(submit, jobs)
        await settle()
        if how == "close":
            jobs.close()
            jobs.close()
        else:
            scope.cancel()
        errors = [await error_of(at_work), await error_of(waiting)]
        assert [type(error) for error in errors] == [pyipc.ConnectionClosed] * 2
        assert str(errors[0]).endswith("worker 'a' had it, and may have done it")
        await settle()
        assert len(refused) == 2
        assert work.cancelled == [0]
        with pytest.raises(pyipc.ConnectionClosed, match="takes no more jobs"):
            await jobs.submit("echo")
        jobs.workers_changed()
        assert repr(jobs) == "<Jobs closed, 0 pending, 0 running>"
    with pytest.raises(RuntimeError):
        await jobs.run()
    told = [record.getMessage() for record in caplog.records if record.name == "pyipc.cluster"]
    assert told == ["the cluster is closed with 2 jobs that are not done"]


async def test_being_cancelled_at_any_moment_ends_everything() -> None:
    work = Work()
    a, b = work.worker("a"), work.worker("b")
    for turns in range(25):
        outcomes: list[str] = []
        jobs = Jobs({"a": a, "b": b}, jobs_per_worker=1, max_pending_jobs=1)
        scope = trio.CancelScope()

        async def run(jobs: Jobs = jobs, scope: trio.CancelScope = scope) -> None:
            with scope:
                await jobs.run()

        async def submit(event: str, jobs: Jobs = jobs, outcomes: list[str] = outcomes) -> None:
            try:
                job = await jobs.submit(event)
                await job.result()
            except pyipc.ConnectionClosed:
                outcomes.append("closed")
            else:
                outcomes.append("done")

        with trio.fail_after(5):
            async with a.process(jobs), b.process(jobs), trio.open_nursery() as nursery:
                nursery.start_soon(run)
                for event in ("stay", "echo", "echo", "stay", "echo", "echo"):
                    nursery.start_soon(submit, event)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert len(outcomes) == 6
        assert outcomes.count("closed") >= 2
        now = jobs.statistics()
        assert (now.pending, now.running) == (0, 0)
        assert now.done == outcomes.count("done")


async def test_jobs_may_be_submitted_before_somebody_sees_to_them() -> None:
    work = Work()
    a = work.worker("a")
    jobs = Jobs({"a": a})
    async with a.process(jobs):
        job = await jobs.submit("echo", 1)
        await settle()
        assert job.attempts == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(jobs.run)
            assert await job.result() == 1
            jobs.close()


# --- telling ----------------------------------------------------------------------------------------------------------


async def test_a_failure_that_nobody_asks_for_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    async with running(work.worker("a")) as (jobs, _):
        await jobs.submit("fail", "secret")
        await jobs.submit("echo", "secret")
        (await jobs.submit("stay", "secret")).cancel()
        heard = await jobs.submit("fail", "secret")
        await settle()
        with pytest.raises(pyipc.RemoteError):
            await heard.result()
        await settle()
        gc.disable()  # that it is told must not depend on it
        try:
            await jobs.submit("fail", "secret")
            await settle()
        finally:
            gc.enable()
        del heard
        gc.collect()
    told = [record.getMessage() for record in caplog.records if record.name == "pyipc.cluster"]
    assert told == [
        f"job {number} 'fail' ended with RemoteError (no-such-thing) at attempt 1, and nobody has asked for its result"
        for number in (1, 5)
    ]


async def test_what_is_done_is_let_go_of() -> None:
    class Data(dict[str, int]):
        pass

    work = Work()
    async with running(work.worker("a")) as (jobs, _):
        data = Data(a=1)
        job = await jobs.submit("echo", data, attachments=[b"x"])
        assert any(found is job for found in gc.get_referrers(data))
        await job.result()
        assert not any(found is job for found in gc.get_referrers(data))
