"""What the pools of processes do alike."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from common import Params, begin, payload, report_laps, report_rate
from conversation import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["be_worker", "do_jobs", "report_start", "wait_until_all"]


#: A pool that nobody has ends.
_kept: list[object] = []


class Semaphore(Protocol):
    """What counts the workers that are there."""

    def acquire(self) -> bool: ...
    def release(self) -> None: ...


def be_worker(there: Semaphore) -> None:
    """Say that this worker can work, and see to it that it ends with whoever started it, which does not do that."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
    there.release()


def wait_until_all(there: Semaphore, count: int) -> None:
    """Wait until so many workers have said that they can work."""
    for _ in range(count):
        there.acquire()


def report_start(there: Semaphore, count: int, begin_to: Callable[[], object]) -> NoReturn:
    """Measure how long it takes until all workers can work, and report.

    Args:
        there: What `be_worker` was given.
        count: How many there will be.
        begin_to: Starts them.
    """
    begin()
    began = time.perf_counter()
    _kept.append(begin_to())
    wait_until_all(there, count)
    report_laps([time.perf_counter() - began])


def do_jobs(params: Params, results_of: Callable[[Iterable[Any]], Iterator[Any]]) -> NoReturn:
    """Measure jobs and report.

    Args:
        params: How many.
        results_of: Has them done, and gives the results in the same order.
    """
    data = [payload(params.size, 100 + task) for task in range(params.tasks)]
    todo = [data[number % params.tasks] for number in range(params.count)]
    begin()
    began = time.perf_counter()
    for wanted, result in zip(todo, results_of(todo), strict=True):
        check(result, wanted)
    report_rate(params.count, time.perf_counter() - began)
