"""Jobs: who gets which, in what order, and how many there may be."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.cluster.errors import UnknownWorker
from pyipc.cluster.jobs import Jobs
from tests.cluster.fake_workers import FakeWorker, running
from tests.cluster.job_handlers import Work, error_of, settle

if TYPE_CHECKING:
    from pyipc.cluster.job import Job

pytestmark = pytest.mark.time_limit(20)


# --- doing them -------------------------------------------------------------------------------------------------------


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


# --- room -------------------------------------------------------------------------------------------------------------


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


# --- the rest ---------------------------------------------------------------------------------------------------------


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
