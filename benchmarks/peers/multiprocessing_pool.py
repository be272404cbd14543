"""``multiprocessing.Pool``: ``imap``, a job at a time, as it is by default. The variant ``spawn`` forks nothing."""

from __future__ import annotations

import multiprocessing
from functools import partial

from common import Arguments, arguments, work
from pools import be_worker, do_jobs, report_start, wait_until_all


def drive(asked: Arguments) -> None:
    context = multiprocessing.get_context(asked.params.variant or None)
    there = context.Semaphore(0)
    begin_to = partial(context.Pool, asked.params.workers, be_worker, (there,))
    if asked.workload == "start":
        report_start(there, asked.params.workers, begin_to)
    with begin_to() as pool:
        wait_until_all(there, asked.params.workers)
        do_jobs(asked.params, partial(pool.imap, work))


if __name__ == "__main__":
    drive(arguments())
