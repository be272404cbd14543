"""Work that is delegated: to whichever worker has the least to do, and to another one if that dies.

Owns the order of jobs, who gets which, time-outs, and how often one is tried. Jobs live in this process's memory alone:
what must survive it belongs on a broker. Knows workers only as what `JobWorker` says.
"""

from __future__ import annotations

import contextvars
import dataclasses
import heapq
import logging
import math
from typing import TYPE_CHECKING, Any, NoReturn

import trio

from pyipc.cluster.errors import JobCancelled, JobFailed, UnknownWorker
from pyipc.cluster.job import Attachment, Job
from pyipc.cluster.job_desks import Desk, JobWorker, Line, Runner
from pyipc.errors import ConnectionClosed, RequestTimeout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["JobStatistics", "Jobs"]

_log = logging.getLogger("pyipc.cluster")

# Whoever submits one job after the other lets others have a turn once per so many: a turn costs as much as a job.
_TURN_EVERY = 32
# Deadlines of jobs that have ended are left in the heap, and cleared out once they are most of it.
_TIDY_ABOVE = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobStatistics:
    """The jobs of a cluster, since it started.

    Attributes:
        pending: Jobs that wait for a worker.
        running: Jobs that a worker has.
        done: Jobs that ended with a result.
        failed: Jobs that ended with an error.
        cancelled: Jobs that were cancelled.
        retried: How often a job was given to another worker, because the one that had it was lost.
    """

    pending: int
    running: int
    done: int
    failed: int
    cancelled: int
    retried: int


class Jobs:
    """Gives jobs to workers. Somebody has to be in `run`.

    Args:
        workers: The workers by their ids: those that there are at any time, ready or not.
        jobs_per_worker: How many jobs a process of a worker has at a time. With one, the next job is on its way only
            once the one before is answered.
        max_pending_jobs: How many jobs may wait for the same workers; whoever submits another waits. Each role and each
            worker that jobs are submitted for has its own line, so that one of them cannot keep the others waiting.
    """

    def __init__(
        self, workers: Mapping[str, JobWorker], *, jobs_per_worker: int = 8, max_pending_jobs: int = 10_000
    ) -> None:
        for name, value in (("jobs_per_worker", jobs_per_worker), ("max_pending_jobs", max_pending_jobs)):
            _check_count(name, value)
        self._workers = workers
        self._jobs_per_worker = jobs_per_worker
        self._max_pending_jobs = max_pending_jobs
        self._desks: dict[str, Desk] = {}
        self._anyone = self._new_line()
        self._by_role: dict[str, Line] = {}
        self._by_worker: dict[str, Line] = {}
        self._open: dict[int, Job[Any]] = {}  # all that are accepted and have not ended, by their numbers
        self._accepted = self._given = self._done = self._failed = self._cancelled = self._retried = 0
        self._progress: trio.Event | None = None  # made by who waits for the end of all that can be done
        self._idle: list[Runner] = []
        self._nursery: trio.Nursery | None = None
        self._context = contextvars.Context()
        self._deadlines: list[tuple[float, int]] = []
        self._alarm = trio.CancelScope()
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed, " if self._is_closed else ""
        now = self.statistics()
        return f"<Jobs {state}{now.pending} pending, {now.running} running>"

    def statistics(self) -> JobStatistics:
        """How many jobs there are, and how those before them ended."""
        pending = sum(map(len, self._lines()))
        return JobStatistics(
            pending=pending,
            running=len(self._open) - pending,
            done=self._done,
            failed=self._failed,
            cancelled=self._cancelled,
            retried=self._retried,
        )

    async def submit(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        role: str | None = None,
        worker: str | None = None,
        timeout: float | None = None,
        attempts: int = 3,
        result: Any = None,
    ) -> Job[Any]:
        """Accept a job; see `Cluster.submit`.

        Raises:
            UnknownWorker, ConnectionClosed, TypeError, ValueError: As there.

        Cancellation: a cancelled submit has not accepted the job.
        """
        if self._accepted % _TURN_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        _check_timeout(timeout)
        _check_count("attempts", attempts)
        line = self._line_for(role, worker)
        buffers = tuple(attachments)
        try:
            line.room.acquire_nowait()
        except trio.WouldBlock:
            await line.room.acquire()
        if self._is_closed:
            self._refuse()
        if line.is_gone:
            raise UnknownWorker(worker or "")
        self._accepted += 1
        job: Job[Any] = Job(self._accepted, line, event, data, buffers, result, timeout, attempts, self._end_early)
        self._open[job.number] = job
        if timeout is not None:
            self._watch_deadline(job)
        desk = None if line else self._least_loaded(line)
        if desk is None:
            line.add(job)
            if role is not None and not (line.desks or line.is_told):
                line.is_told = True
                _log.warning("the job %r waits for a worker of the role %r, and there is none now", event, role)
        else:
            line.room.release()
            self._start(job, desk)
        return job

    def workers_changed(self) -> None:
        """Look at the workers again. To be called when one comes, goes, or can take jobs from now on."""
        before, self._desks = self._desks, {}
        for id, worker in self._workers.items():
            if worker.is_leaving or worker.has_failed:
                continue
            desk = before.pop(id, None)
            if desk is None or not desk.is_present(worker):
                if desk is not None:
                    desk.is_lost = True
                desk = Desk(worker)
            else:
                desk.is_lost = False
            self._desks[id] = desk
        for gone in before.values():
            gone.is_lost = True
        for id in [id for id in self._by_worker if id not in self._desks]:
            self._close_line(self._by_worker.pop(id), id)
        self._connect_lines()
        self._start_waiting()
        if self._progress is not None:
            self._progress.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See to the jobs, until `close` is called.

        Cancellation: closes it.
        """
        if self._is_closed or self._nursery is not None:
            raise RuntimeError("jobs are run once; make another `Jobs`")
        async with trio.open_nursery() as self._nursery:
            try:
                # Runners must not have the context of whoever submits: a handler's slot, say, or its span.
                self._context = contextvars.copy_context()
                self.workers_changed()
                task_status.started()
                while True:
                    first = self._deadlines[0][0] if self._deadlines else math.inf
                    with trio.CancelScope(deadline=first) as self._alarm:
                        await trio.sleep_forever()
                    self._expire()
            finally:
                self.close()

    def worker_changed(self, process: object) -> None:
        """The state of a worker's process has changed: `workers_changed`, as what a `WorkerHandle` tells."""
        if not self._is_closed:
            self.workers_changed()

    async def wait_done(self) -> None:
        """Wait until no worker has a job, and none waits that a worker could be given.

        Cancellation: nothing is changed by it.
        """
        await trio.lowlevel.checkpoint()
        while self._is_under_way():
            if self._progress is None or self._progress.is_set():
                self._progress = trio.Event()
            await self._progress.wait()

    def _is_under_way(self) -> bool:
        waiting = [line for line in self._lines() if line]
        return len(self._open) > sum(map(len, waiting)) or any(line.desks for line in waiting)

    def close(self) -> None:
        """Accept no more jobs, and end those that are not done. May be called more than once."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._open:
            count = len(self._open)
            words = "a job that is" if count == 1 else f"{count:,} jobs that are"
            _log.warning("the cluster is closed with %s not done", words)
        for job in tuple(self._open.values()):
            job._is_heard = True  # just now, all of them in one line
            where = "" if job._runner is None else f"; worker {job.worker!r} had it, and may have done it"
            error = ConnectionClosed(f"the cluster was closed before the job {job.event!r} was done{where}")
            self._end_early(job, error)
        for line in self._lines():
            line.wake_all()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    # --- lines and desks ---

    def _lines(self) -> list[Line]:
        return [self._anyone, *self._by_role.values(), *self._by_worker.values()]

    def _new_line(self) -> Line:
        return Line(self._max_pending_jobs)

    def _line_for(self, role: str | None, worker: str | None) -> Line:
        """Where a job waits."""
        if self._is_closed:
            self._refuse()
        if worker is not None:
            if role is not None:
                raise ValueError("a job is for the workers of a role, or for one worker by its id; give one of the two")
            there = self._workers.get(worker)
            if there is None or there.is_leaving or there.has_failed:
                raise UnknownWorker(worker)
            lines, name = self._by_worker, worker
        elif role is not None:
            lines, name = self._by_role, role
        else:
            return self._anyone
        line = lines.get(name)
        if line is None:
            line = lines[name] = self._new_line()
            self._connect_lines()
        return line

    def _connect_lines(self) -> None:
        """Let lines and desks know of each other."""
        for line in self._lines():
            line.desks = []
        for id, desk in self._desks.items():
            lines = (self._anyone, self._by_role.get(desk.worker.role), self._by_worker.get(id))
            desk.lines = [line for line in lines if line is not None]
            for line in desk.lines:
                line.desks.append(desk)

    def _close_line(self, line: Line, id: str) -> None:
        """The worker leaves for good, or has left: nobody can do what waits for it."""
        line.is_gone = True
        for job in tuple(line):
            self._end_early(job, UnknownWorker(id))
        line.wake_all()

    def _refuse(self) -> NoReturn:
        raise ConnectionClosed("the cluster is closed, and takes no more jobs")

    # --- starting ---

    def _has_place(self, desk: Desk) -> bool:
        return desk.running < self._jobs_per_worker and not desk.is_lost and desk.worker.takes_jobs

    def _least_loaded(self, line: Line) -> Desk | None:
        """Who is to have the next job of a line: the one with the least to do, else who had none for longest."""
        if self._nursery is None:
            return None
        found = [
            (desk.worker.in_flight + len(desk.given), desk.latest, index)
            for index, desk in enumerate(line.desks)
            if self._has_place(desk)
        ]
        return line.desks[min(found)[2]] if found else None

    def _start(self, job: Job[Any], desk: Desk) -> None:
        """Let somebody see to a job at a desk that has a place."""
        self._given += 1
        desk.give(job, self._given)
        if self._idle:
            runner = self._idle.pop()
            runner.desk = desk
            assert runner.task is not None
            trio.lowlevel.reschedule(runner.task)
        else:
            assert self._nursery is not None
            self._context.run(self._nursery.start_soon, self._see_to_jobs, Runner(desk))

    def _start_waiting(self) -> None:
        """Give away what waits and what there are places for, the oldest first."""
        while True:
            for line in sorted((line for line in self._lines() if line), key=lambda line: line.first().number):
                desk = self._least_loaded(line)
                if desk is not None:
                    self._start(line.take(), desk)
                    break
            else:
                return

    async def _see_to_jobs(self, runner: Runner) -> None:
        """The task of a runner."""
        while True:
            with runner.scope:
                while not runner.scope.cancel_called:
                    if runner.desk is None:
                        await self._wait_for_job(runner)
                    await self._see_to_job(runner)
            # Its job was taken away from it, just now or when it had the answer already.
            runner.scope = trio.CancelScope()

    async def _wait_for_job(self, runner: Runner) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._idle.remove(runner)
            return trio.lowlevel.Abort.SUCCEEDED

        self._idle.append(runner)
        runner.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def _see_to_job(self, runner: Runner) -> None:
        """Ask a worker, and note what came of it. Then there may be another job at the same desk."""
        desk = runner.desk
        assert desk is not None
        job = desk.given.popleft()
        try:
            if job.done:  # it was cancelled before this turn came
                return
            job._runner = runner
            job.attempts += 1
            job.worker = desk.worker.id
            try:
                answer = await desk.worker.request(
                    job.event, job._data, attachments=job._attachments, timeout=None, result=job._result_type
                )
            except ConnectionClosed as loss:
                desk.is_lost = True
                self._lose(job, desk, loss)
            except Exception as error:
                self._settle(job, None, error)
            else:
                self._settle(job, answer, None)
        finally:
            desk.running -= 1
            line = desk.next_line() if self._has_place(desk) else None
            if line is None:
                runner.desk = None
            else:
                self._given += 1
                desk.give(line.take(), self._given)

    # --- ending ---

    def _lose(self, job: Job[Any], desk: Desk, loss: ConnectionClosed) -> None:
        """The worker was lost while it had a job: let another have it, or give up."""
        if job.done:
            return
        job._runner = None
        if not getattr(loss, "maybe_handled", True):
            job.attempts -= 1  # it never got there
        if job.attempts >= job._max_attempts:
            failure = JobFailed(job.event, job.attempts, desk.worker.id)
            failure.__cause__ = loss.with_traceback(None)
            self._settle(job, None, failure)
            return
        line = job._line
        if line.is_gone:
            self._settle(job, None, UnknownWorker(desk.worker.id))
            return
        self._retried += 1
        other = self._least_loaded(line)
        if other is None:
            job._is_waiting = True
            line.add_again(job)
        else:
            self._start(job, other)

    def _end_early(self, job: Job[Any], error: Exception) -> None:
        """Let a job end before any worker has answered."""
        if job._is_waiting:
            job._line.remove(job)
        elif job._runner is not None:
            job._runner.scope.cancel()
        self._settle(job, None, error)

    def _settle(self, job: Job[Any], answer: Any, error: Exception | None) -> None:
        """Note how a job has ended, if it has not before."""
        if job.done:
            return
        del self._open[job.number]
        if error is None:
            self._done += 1
        elif isinstance(error, JobCancelled):
            self._cancelled += 1
        else:
            self._failed += 1
        job._settle(answer, error)
        if self._progress is not None:
            self._progress.set()

    def _watch_deadline(self, job: Job[Any]) -> None:
        if len(self._deadlines) > 2 * len(self._open) + _TIDY_ABOVE:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._open]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (job._deadline, job.number))
        if job._deadline < self._alarm.deadline:
            self._alarm.deadline = job._deadline

    def _expire(self) -> None:
        """End the jobs whose time is over."""
        now = trio.current_time()
        while self._deadlines and self._deadlines[0][0] <= now:
            job = self._open.get(heapq.heappop(self._deadlines)[1])
            if job is not None:
                assert job._timeout is not None
                where = "it waited for a worker" if job._runner is None else f"worker {job.worker!r} had it"
                self._end_early(job, RequestTimeout(job.event, job._timeout, f"; {where}"))


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more, not {value}")


def _check_timeout(timeout: float | None) -> None:
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be zero or more seconds, or None, not {timeout!r}")
