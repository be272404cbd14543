"""Where jobs wait, and the workers that may take them.

A *line* holds the jobs that may go to the same workers, a *desk* is one process of a worker with the places that it has
for jobs, and a *runner* sees one job through at a desk. Owns their bookkeeping; `jobs` brings them together.
"""

from __future__ import annotations

import bisect
import collections
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyipc.cluster.job import Attachment, Job

__all__ = ["Desk", "JobWorker", "Line", "Runner"]

_by_number = attrgetter("number")


class JobWorker(Protocol):
    """What has to be known of a worker to give jobs to it. `WorkerHandle` is one."""

    @property
    def id(self) -> str:
        """Its name, which no other worker has, and which lives across its processes."""
        ...

    @property
    def role(self) -> str:
        """What it is for."""
        ...

    @property
    def generation(self) -> int:
        """Another number for each process of it that takes jobs."""
        ...

    @property
    def takes_jobs(self) -> bool:
        """Whether it is ready, connected, and not draining.

        Whoever makes that true calls `Jobs.workers_changed`; nobody need be told when it ends.
        """
        ...

    @property
    def is_leaving(self) -> bool:
        """Whether it will never take jobs again. Where that becomes true, `Jobs.workers_changed` is called too."""
        ...

    @property
    def has_failed(self) -> bool:
        """Whether it was given up, until somebody begins it anew; whenever it changes, that is called too."""
        ...

    @property
    def in_flight(self) -> int:
        """How many requests it has that are not answered, whoever made them."""
        ...

    async def request(
        self, event: str, data: object, *, attachments: Iterable[Attachment], timeout: float | None, result: Any
    ) -> Any:
        """Ask the present process, as `Connection.request` does.

        Raises:
            ConnectionLost: The process has died, or cannot be reached.
            RequestError, LocalProtocolError: As for `Connection.request`.

        Cancellation: the worker is told and cancels its handler.
        """
        ...


class Line:
    """Jobs that may go to the same workers, and wait until one of those has a place; the oldest first.

    Args:
        max_waiting: How many may wait at a time, apart from those that come back.

    Attributes:
        desks: Who may take them.
        room: A token for each that may still be added. Whoever adds a job brings one; it is given back here.
        is_gone: Whether nobody can ever take a job from here.
        is_told: Whether it was told that there is nobody who could take a job from here.
    """

    __slots__ = ("_again", "_fresh", "desks", "is_gone", "is_told", "room")

    def __init__(self, max_waiting: int) -> None:
        self.desks: list[Desk] = []
        self.room: trio.Semaphore = trio.Semaphore(max_waiting)
        self.is_gone: bool = False
        self.is_told: bool = False
        self._fresh: collections.OrderedDict[int, Job[Any]] = collections.OrderedDict()
        self._again: list[Job[Any]] = []  # were started before, and lost their worker: no more than there were places

    def __len__(self) -> int:
        return len(self._fresh) + len(self._again)

    def __iter__(self) -> Iterator[Job[Any]]:
        yield from self._again
        yield from self._fresh.values()

    def first(self) -> Job[Any]:
        """The job that has to be next. There must be one."""
        return next(iter(self))

    def add(self, job: Job[Any]) -> None:
        """Let a new job wait behind all others."""
        self._fresh[job.number] = job

    def add_again(self, job: Job[Any]) -> None:
        """Let a job wait that has been started before: ahead of all that have not, which are younger."""
        bisect.insort(self._again, job, key=_by_number)

    def take(self) -> Job[Any]:
        """Remove the first job."""
        if self._again:
            return self._again.pop(0)
        _, job = self._fresh.popitem(last=False)
        self.room.release()
        return job

    def remove(self, job: Job[Any]) -> None:
        """Remove a job that need not be done any more."""
        if self._fresh.pop(job.number, None) is None:
            self._again.remove(job)
        else:
            self.room.release()

    def wake_all(self) -> None:
        """Let everybody in who waits for room, to be told that there is no use."""
        for _ in range(self.room.statistics().tasks_waiting):
            self.room.release()


class Desk:
    """One process of a worker, and how busy it is with jobs.

    Args:
        worker: The worker.

    Attributes:
        worker: The worker.
        generation: Which of its processes.
        lines: From where it may take jobs.
        running: How many it has.
        given: Of those, the ones that no runner has had in hand yet, the oldest first. Whichever runner has its turn
            first takes the first, so that jobs start in their order although tasks do not.
        latest: When it was last given one, in the numbers of an ever growing count.
        is_lost: Whether there is no use in giving it another.
    """

    __slots__ = ("generation", "given", "is_lost", "latest", "lines", "running", "worker")

    def __init__(self, worker: JobWorker) -> None:
        self.worker: JobWorker = worker
        self.generation: int = worker.generation
        self.lines: list[Line] = []
        self.running: int = 0
        self.given: collections.deque[Job[Any]] = collections.deque()
        self.latest: int = 0
        self.is_lost: bool = False

    def is_present(self, worker: JobWorker) -> bool:
        """Whether it is the present process of this worker."""
        return self.worker is worker and self.generation == worker.generation

    def give(self, job: Job[Any], count: int) -> None:
        """Let it have one more job, which does not wait in a line any more."""
        job._is_waiting = False
        self.given.append(job)
        self.running += 1
        self.latest = count

    def next_line(self) -> Line | None:
        """Where the oldest of the jobs is that it may take."""
        waiting = [line for line in self.lines if line]
        if len(waiting) < 2:
            return waiting[0] if waiting else None
        return min(waiting, key=lambda line: line.first().number)


class Runner:
    """A task that sees to one job after the other.

    Attributes:
        scope: What it waits in. Cancelled when its job is not to be done any more, and then replaced: a scope for each
            job would cost more than the rest.
        desk: Where a job has been given that it is to take; ``None`` while it has nothing to do.
        task: The task, while it has nothing to do.
    """

    __slots__ = ("desk", "scope", "task")

    def __init__(self, desk: Desk) -> None:
        self.scope: trio.CancelScope = trio.CancelScope()
        self.desk: Desk | None = desk
        self.task: trio.lowlevel.Task | None = None
