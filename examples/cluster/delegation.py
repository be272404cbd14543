"""Delegation: work for one certain worker, for any of a role, and what happens to it when a worker dies.

::

    $ python examples/cluster/delegation.py
    one worker: 55 by calc-1
    six jobs for any of the two: 1 1 2 3 5 8, by both of them
    a job whose worker was killed: 13, started twice
    a job that kills every worker: given up after 3 workers
"""

from __future__ import annotations

import logging
import os
import signal

import trio

import pyipc
from pyipc import cluster


async def main() -> None:
    logging.disable()  # a worker that dies is logged as well, and here it is meant
    async with cluster.Cluster(jobs_per_worker=1, restart_interval=0) as primary:
        for id in ("calc-1", "calc-2"):
            await primary.fork(id, role="calculator")

        job = await primary.submit("fibonacci", 10, worker="calc-1")
        print("one worker:", await job.result(), "by", job.worker)

        jobs = [await primary.submit("fibonacci", n, role="calculator") for n in range(1, 7)]
        results = [str(await job.result()) for job in jobs]
        workers = {job.worker for job in jobs}
        print("six jobs for any of the two:", " ".join(results) + ", by", "both of them" if len(workers) == 2 else workers)

        job = await primary.submit("die-once", 7, role="calculator")
        print("a job whose worker was killed:", await job.result(), "started", "twice" if job.attempts == 2 else "")

        job = await primary.submit("die", role="calculator")
        try:
            await job.result()
        except cluster.JobFailed as error:
            print(f"a job that kills every worker: given up after {error.attempts} workers")


def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


async def work(worker: cluster.Worker) -> None:
    worker.on("fibonacci", lambda message: fibonacci(message.data))

    @worker.on("die")
    def die(message: pyipc.Message[None]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    await worker.run()


if cluster.is_primary:
    trio.run(main)
else:
    cluster.run_worker(work)
