"""What a primary can do with work: submit it, to whichever worker has the least to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyipc.cluster.job import Attachment, Job
    from pyipc.cluster.jobs import Jobs

__all__ = ["Submitting"]

T = TypeVar("T")


class Submitting:
    """The part of a `Cluster` that is about jobs."""

    _jobs: Jobs

    @overload
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
    ) -> Job[Any]: ...

    @overload
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
        result: type[T],
    ) -> Job[T]: ...

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
        """Accept a job, which then has an outcome whatever happens: a worker gets it as a request.

        It goes to the worker that has the least to do among those that may have it, and waits while all of them are
        busy, or there is none yet. Jobs that may go to the same workers start in the order in which they were accepted.
        If the worker is lost before it has answered, the job goes to another, ahead of those that have not been
        started; so a handler may get a job twice. Jobs are in the memory of the primary: those that must survive it
        belong with a broker.

        Args:
            event: The name of the request.
            data: Anything that has a JSON form. It is sent, perhaps more than once, when a worker has a place: leave it
                as it is until the job is done.
            attachments: Buffers of bytes that go with it; likewise.
            role: The role of the workers that may have it; ``None`` for any worker whatever its role. If there is none
                of that role it waits, which is logged once.
            worker: The id of the only worker that may have it; it lives across the processes of that worker.
            timeout: Seconds from being accepted to having an outcome; ``None`` for ever.
            attempts: How often it may be started at all. With 1 it is never done twice.
            result: A type that the answer is checked against and converted to, as for `Connection.request`.

        Returns:
            The job; `Job.result` waits for its outcome.

        Raises:
            UnknownWorker: There is no worker of that id, or it leaves for good, or was given up.
            ConnectionClosed: The cluster is closed.
            TypeError, ValueError: Both a role and a worker are given, or a number is none or out of range.

        Cancellation: a cancelled submit has not accepted the job. Once there is a job, `Job.cancel` ends it.
        """
        return await self._jobs.submit(
            event,
            data,
            attachments=attachments,
            role=role,
            worker=worker,
            timeout=timeout,
            attempts=attempts,
            result=result,
        )
