"""Workers without processes: handlers at the other end of a pair in memory, with the face that `Jobs` knows."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc.cluster.jobs import Jobs
from pyipc.testing import Faults, FaultyTransport, pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from pyipc.cluster.job import Attachment
    from pyipc.cluster.job_desks import JobWorker

__all__ = ["FakeWorker", "running"]


class FakeWorker:
    """A worker by id, that may have one process after the other.

    Args:
        id: Its id.
        router: What its processes handle.
        role: What it is for.
    """

    def __init__(self, id: str, router: pyipc.Router, role: str = "") -> None:
        self.id = id
        self.role = role
        self.generation = 0
        self.takes_jobs = False
        self.is_leaving = False
        self.has_failed = False
        self.others = 0  # requests that somebody else has made
        self.dead = trio.Event()  # whether the latest process is
        self._router = router
        self._client: pyipc.Client | None = None
        self._transport = FaultyTransport(Faults())

    @property
    def in_flight(self) -> int:
        connection = None if self._client is None else self._client.statistics().connection
        return self.others + (0 if connection is None else connection.pending_requests)

    async def request(
        self, event: str, data: object, *, attachments: Iterable[Attachment], timeout: float | None, result: Any
    ) -> Any:
        if self._client is None:
            raise pyipc.ConnectionLost("the process is gone")
        return await self._client.request(event, data, attachments=attachments, timeout=timeout, result=result)

    @asynccontextmanager
    async def process(self, jobs: Jobs) -> AsyncIterator[None]:
        """One process of it, ready for the length of a block; its end is as sudden as a kill."""
        self._transport = FaultyTransport(Faults())
        options = {"reconnect": False, "heartbeat_interval": None}
        async with pair(self._router, faults=self._transport, client_options=options) as (client, _):
            self._client = client
            self.generation += 1
            self.dead = trio.Event()
            self.takes_jobs = True
            jobs.workers_changed()
            try:
                yield
            finally:
                self.takes_jobs = False
                with trio.CancelScope(shield=True):
                    await self.die()
                self._client = None

    async def die(self) -> None:
        """End the present process, as if it had been killed. Nobody has noticed yet."""
        for link in self._transport.links:
            await link.reset()
        self.dead.set()


@asynccontextmanager
async def running(
    *workers: FakeWorker, jobs_per_worker: int = 8, max_pending_jobs: int = 10_000
) -> AsyncIterator[tuple[Jobs, dict[str, JobWorker]]]:
    """Jobs for these workers, whose processes live as long as the block."""
    table: dict[str, JobWorker] = {worker.id: worker for worker in workers}
    jobs = Jobs(table, jobs_per_worker=jobs_per_worker, max_pending_jobs=max_pending_jobs)
    async with trio.open_nursery() as nursery:
        await nursery.start(jobs.run)
        for worker in workers:
            nursery.start_soon(_live, worker, jobs)
        while not all(worker.takes_jobs for worker in workers):
            await trio.lowlevel.checkpoint()
        try:
            yield jobs, table
        finally:
            jobs.close()
            nursery.cancel_scope.cancel()


async def _live(worker: FakeWorker, jobs: Jobs) -> None:
    async with worker.process(jobs):
        await trio.sleep_forever()
