"""Jobs: who gets which, in what order, what becomes of them when workers die, and how they end otherwise."""

from __future__ import annotations

import contextvars
import gc
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.cluster.errors import JobCancelled, JobFailed, UnknownWorker
from pyipc.cluster.jobs import Jobs
from tests.cluster.fake_workers import FakeWorker, running

if TYPE_CHECKING:
    from pyipc import Message
    from pyipc.cluster.job import Job

pytestmark = pytest.mark.time_limit(20)


class Work:
    """Handlers that tell what they were given, and stay at it until they are told to go on."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.cancelled: list[Any] = []
        self.gates: dict[Any, trio.Event] = {}
        self.router = pyipc.Router()
        self.router.on("echo", self.echo)
        self.router.on("stay", self.stay)
        self.router.on("fail", self.fail)
        self.router.on("typed", self.typed)
        self.router.on("crop", self.crop)

    async def echo(self, message: Message[Any]) -> Any:
        self.begun.append(message.data)
        return message.data

    async def stay(self, message: Message[Any]) -> Any:
        self.begun.append(message.data)
        try:
            await self.gate(message.data).wait()
        except trio.Cancelled:
            self.cancelled.append(message.data)
            raise
        return message.data

    def fail(self, message: Message[Any]) -> None:
        self.begun.append(message.data)
        raise pyipc.Refused("no-such-thing", f"there is no {message.data}")

    def typed(self, message: Message[int]) -> int:
        return message.data

    def crop(self, message: Message[int]) -> pyipc.Attached[None]:
        return pyipc.Attached(None, [message.attachments[0][: message.data]])

    def gate(self, data: Any) -> trio.Event:
        return self.gates.setdefault(data, trio.Event())

    def worker(self, id: str, role: str = "") -> FakeWorker:
        return FakeWorker(id, self.router, role)


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def error_of(job: Job[Any]) -> Exception:
    try:
        result = await job.result()
    except Exception as error:
        return error
    pytest.fail(f"{job} has a result: {result!r}")


# --- doing them -------------------------------------------------------------------------------------------------


async def test_a_job_is_done_and_its_result_is_there_for_everybody() -> None:
    work = Work()
    got: list[Any] = []

    async def wait(job: Job[Any]) -> None:
        got.append(await job.result())

    async with running(work.worker("one")) as (jobs, _):
        job = await jobs.submit("stay", 7)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, job)
            nursery.start_soon(wait, job)
            await settle()
            assert (job.done, job.attempts, job.worker, job.event) == (False, 1, "one", "stay")
            assert repr(job) == "<Job 1 'stay' at worker 'one'>"
            work.gate(7).set()
        assert got == [7, 7]
        assert await job.result() == 7
        assert job.done
        assert repr(job) == "<Job 1 'stay' done>"


async def test_a_job_has_attachments_and_its_result_a_type() -> None:
    work = Work()
    async with running(work.worker("one")) as (jobs, _):
        cropped = await jobs.submit("crop", 3, attachments=iter([b"picture"]), result=pyipc.Attached[Any])
        assert (await cropped.result()).attachments == (b"pic",)
        number = await jobs.submit("echo", 1, result=int)
        assert await number.result() == 1
        wrong = await jobs.submit("echo", "text", result=int)
        assert isinstance(await error_of(wrong), pyipc.InvalidData)


async def test_who_has_the_least_to_do_gets_it() -> None:
    work = Work()
    busy, free = work.worker("busy"), work.worker("free")
    async with running(busy, free) as (jobs, _):
        busy.others = 3
        burst = [await jobs.submit("stay", number) for number in range(5)]  # none of them has begun by the last
        await settle()
        assert [job.worker for job in burst] == ["free"] * 3 + ["free", "busy"] or [job.worker for job in burst].count(
            "free"
        ) == 4
        assert (busy.in_flight, free.in_flight) == (4, 4)


async def test_equals_take_turns() -> None:
    work = Work()
    async with running(*(work.worker(id) for id in "abc")) as (jobs, _):
        seen: list[str] = []
        for number in range(6):
            job = await jobs.submit("echo", number)
            await job.result()
            seen.append(str(job.worker))
        assert sorted(seen[:3]) == ["a", "b", "c"]
        assert seen[3:] == seen[:3]


async def test_a_role_or_one_worker() -> None:
    work = Work()
    async with running(work.worker("a"), work.worker("b", "mail"), work.worker("c", "mail")) as (jobs, _):
        mail = [await jobs.submit("stay", number, role="mail") for number in range(4)]
        one = [await jobs.submit("stay", number, worker="a") for number in range(4)]
        plain = await jobs.submit("stay", 9, role="")
        await settle()
        assert sorted(str(job.worker) for job in mail) == ["b", "b", "c", "c"]
        assert {job.worker for job in [*one, plain]} == {"a"}
        with pytest.raises(UnknownWorker, match="there is no worker 'd'") as caught:
            await jobs.submit("stay", worker="d")
        assert caught.value.id == "d"
        with pytest.raises(ValueError, match="one of the two"):
            await jobs.submit("stay", role="mail", worker="b")


async def test_a_worker_has_no_more_than_it_may() -> None:
    work = Work()
    async with running(work.worker("a"), work.worker("b"), jobs_per_worker=2) as (jobs, _):
        all_of_them = [await jobs.submit("stay", number) for number in range(6)]
        await settle()
        assert sorted(work.begun) == [0, 1, 2, 3]
        now = jobs.statistics()
        assert (now.pending, now.running) == (2, 4)
        assert repr(all_of_them[5]) == "<Job 6 'stay' waiting>"
        assert repr(jobs) == "<Jobs 2 pending, 4 running>"
        work.gate(2).set()
        await settle()
        assert work.begun[4:] == [4]
        for number in range(6):
            work.gate(number).set()
        assert [await job.result() for job in all_of_them] == list(range(6))
        assert jobs.statistics().done == 6


async def test_the_oldest_starts_first_whatever_it_waited_for() -> None:
    work = Work()
    async with running(work.worker("a", "mail"), jobs_per_worker=1) as (jobs, _):
        targets: list[dict[str, Any]] = [
            {},
            {"role": "mail"},
            {"worker": "a"},
            {"role": "mail"},
            {},
            {"worker": "a"},
            {},
        ]
        all_of_them = [await jobs.submit("echo", number, **target) for number, target in enumerate(targets)]
        for job in all_of_them:
            await job.result()
        assert work.begun == list(range(7))


async def test_others_have_a_turn_while_somebody_submits() -> None:
    work = Work()
    async with running(work.worker("a")) as (jobs, _):
        for number in range(2_000):
            job = await jobs.submit("echo", number)
        assert len(work.begun) > 50
        await job.result()
        assert work.begun == list(range(2_000))


# --- workers that die, and come ---------------------------------------------------------------------------------


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


# --- errors of the handler, and time-outs -----------------------------------------------------------------------


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


# --- room -------------------------------------------------------------------------------------------------------


async def test_who_submits_waits_for_room() -> None:
    work = Work()
    accepted: list[int] = []

    async def submit(jobs: Jobs, number: int) -> None:
        await jobs.submit("stay", number)
        accepted.append(number)

    async with running(work.worker("a"), jobs_per_worker=1, max_pending_jobs=2) as (jobs, _), trio.open_nursery() as n:
        for number in range(5):
            n.start_soon(submit, jobs, number)
            await settle()
        assert accepted == [0, 1, 2]
        # Another role is not held up by it.
        await jobs.submit("stay", 9, role="mail")
        for number in range(5):
            work.gate(number).set()
            await settle()
        assert accepted == [0, 1, 2, 3, 4]
        assert work.begun == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("gone", ["cancel", "timeout"])
async def test_what_need_not_be_done_makes_room(gone: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(max_pending_jobs=2) as (jobs, _):
        for number in range(20):  # there is nobody to do it
            job = await jobs.submit("stay", number, timeout=5.0)
            if gone == "cancel":
                job.cancel()
        await trio.sleep(6)
        now = jobs.statistics()
        assert (now.pending, now.cancelled, now.failed) == ((0, 20, 0) if gone == "cancel" else (0, 0, 20))


async def test_a_cancelled_submit_has_accepted_nothing() -> None:
    """Cancelled before, while it waits for room, and in the moment in which there is some."""
    with_handle: list[Job[Any]] = []

    async def submit(jobs: Jobs, scope: trio.CancelScope) -> None:
        with scope:
            with_handle.append(await jobs.submit("stay", 1))

    for turns in range(8):
        with_handle.clear()
        async with running(max_pending_jobs=1) as (jobs, _):
            first = await jobs.submit("stay", 0)
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(submit, jobs, scope)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                if turns % 2:
                    first.cancel()
                scope.cancel()
            assert jobs.statistics().pending == len(with_handle) + (not turns % 2)
            first.cancel()
            for job in with_handle:
                job.cancel()
            with trio.fail_after(1):  # nothing has leaked
                await jobs.submit("stay", 2)


# --- cancelling -------------------------------------------------------------------------------------------------


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


# --- closing ----------------------------------------------------------------------------------------------------


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


# --- telling ----------------------------------------------------------------------------------------------------


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


# --- the rest ---------------------------------------------------------------------------------------------------


async def test_a_runner_has_nothing_of_who_submitted() -> None:
    """Else it would hold the slot of a handler that ended long ago."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    seen = []

    class Looking(FakeWorker):
        async def request(self, event: str, data: object, **options: Any) -> Any:
            seen.append(variable.get())
            return await super().request(event, data, **options)

    async with running(Looking("a", Work().router)) as (jobs, _):
        variable.set("something")
        await (await jobs.submit("echo")).result()
    assert seen == ["nothing"]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"timeout": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"timeout": True}, TypeError),
        ({"attempts": 0}, ValueError),
        ({"attempts": 1.5}, TypeError),
        ({"attempts": True}, TypeError),
    ],
)
async def test_arguments_that_make_no_sense(options: dict[str, Any], kind: type[Exception]) -> None:
    async with running() as (jobs, _):
        with pytest.raises(kind, match=next(iter(options))):
            await jobs.submit("echo", **options)
        assert jobs.statistics().pending == 0


@pytest.mark.parametrize("name", ["jobs_per_worker", "max_pending_jobs"])
def test_settings_that_make_no_sense(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Jobs({}, **{name: 0})
