"""Delegation: work for one certain worker, for any of a role, and what happens to it when a worker dies.

::

    $ python examples/cluster/delegation.py
    one worker: 55 by calc-1
    six jobs for any of the two: 6765 10946 17711 28657 46368 75025
    which were done by calc-1 and calc-2
    a job whose worker is killed: 13 after 2 attempts
    a job that kills whoever does it: given up after 3 attempts
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
    primary = cluster.Cluster(jobs_per_worker=1, restart_interval=0)
    killed: list[cluster.WorkerHandle] = []

    @primary.router.on("may-i")
    def allow(message: pyipc.Message[None]) -> None:
        worker = primary.worker_of(message)
        if not killed and worker.pid is not None:
            killed.append(worker)
            os.kill(worker.pid, signal.SIGKILL)

    async with primary:
        for id in ("calc-1", "calc-2"):
            await primary.fork(id, role="calculator")

        job = await primary.submit("fibonacci", 10, worker="calc-1")
        print("one worker:", await job.result(), "by", job.worker)

        jobs = [await primary.submit("fibonacci", n, role="calculator") for n in range(20, 26)]
        print("six jobs for any of the two:", *[await job.result() for job in jobs])
        print("which were done by", " and ".join(sorted({str(job.worker) for job in jobs})))

        job = await primary.submit("fibonacci-if-allowed", 7, role="calculator")
        print("a job whose worker is killed:", await job.result(), "after", job.attempts, "attempts")

        job = await primary.submit("die", role="calculator")
        try:
            await job.result()
        except cluster.JobFailed as error:
            print(f"a job that kills whoever does it: given up after {error.attempts} attempts")


def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


async def work(worker: cluster.Worker) -> None:
    worker.on("fibonacci", lambda message: fibonacci(message.data))

    @worker.on("fibonacci-if-allowed")
    async def fibonacci_if_allowed(message: pyipc.Message[int]) -> int:
        await worker.request("may-i")
        return fibonacci(message.data)

    @worker.on("die")
    def die(message: pyipc.Message[None]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    await worker.run()


if cluster.is_primary:
    trio.run(main)
else:
    cluster.run_worker(work)
