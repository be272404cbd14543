"""trio-parallel: a job is awaited by a task, and has a worker to itself meanwhile."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import trio
import trio_parallel

from common import Params, arguments, begin, payload, report_laps, report_rate, work

#: Seconds.
MEETING_INTERVAL = 0.001


def meet(workers: int) -> None:
    """Wait until so many workers are there: a job that keeps its worker until there is one for each of the others."""
    Path(str(os.getpid())).touch()
    while len(os.listdir()) < workers:
        time.sleep(MEETING_INTERVAL)


async def start(context: trio_parallel.WorkerContext, workers: int) -> None:
    """Have it start so many workers, by giving it as many jobs at the same time."""
    # By default no more run at the same time than there are processors.
    run = partial(context.run_sync, meet, workers, limiter=trio.CapacityLimiter(workers))
    async with trio.open_nursery() as nursery:
        for _ in range(workers):
            nursery.start_soon(run)


async def jobs(context: trio_parallel.WorkerContext, params: Params) -> None:
    each = params.count // params.tasks
    limiter = trio.CapacityLimiter(params.workers)

    async def ask(data: Any) -> None:
        for _ in range(each):
            assert await context.run_sync(work, data, limiter=limiter) == data

    begin()
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for task in range(params.tasks):
            nursery.start_soon(ask, payload(params.size, 100 + task))
    report_rate(each * params.tasks, time.perf_counter() - began)


async def main() -> None:
    asked = arguments()
    async with trio_parallel.open_worker_context() as context:
        if asked.workload == "start":
            begin()
            began = time.perf_counter()
            await start(context, asked.params.workers)
            report_laps([time.perf_counter() - began])
        await start(context, asked.params.workers)
        await jobs(context, asked.params)


if __name__ == "__main__":
    trio.run(main)
