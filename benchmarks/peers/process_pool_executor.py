"""``concurrent.futures.ProcessPoolExecutor``: ``map``, a job at a time, as it is by default."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from common import Arguments, arguments, work
from pools import be_worker, do_jobs, report_start, wait_until_all


def begin_to(pool: ProcessPoolExecutor, workers: int) -> None:
    """Have it start all of its workers, which it does when there is something to do for them."""
    for _ in range(workers):
        pool.submit(work, None)


def drive(asked: Arguments) -> None:
    workers = asked.params.workers
    there = multiprocessing.Semaphore(0)
    with ProcessPoolExecutor(workers, initializer=be_worker, initargs=(there,)) as pool:
        if asked.workload == "start":
            report_start(there, workers, partial(begin_to, pool, workers))
        begin_to(pool, workers)
        wait_until_all(there, workers)
        do_jobs(asked.params, partial(pool.map, work))


if __name__ == "__main__":
    drive(arguments())
