"""Waiting for workers that were started: for one, or for several at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from pyipc.cluster.errors import WorkerFailed
from pyipc.cluster.signals import exit_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.cluster.handle import WorkerHandle

__all__ = ["wait_all_started", "wait_started"]


async def wait_started(handle: WorkerHandle) -> None:
    """Wait until a new worker is ready, by its first process or by one that has taken the place of that.

    Raises:
        WorkerFailed: It has ended before.

    Cancellation: it is ended.
    """
    try:
        while not (handle.was_ready or handle.gone.is_set()):
            await handle.wait_changed()
    except BaseException:
        handle.leave()
        raise
    if not handle.was_ready:
        process = handle.current
        how = "could not be started" if process is None else exit_text(process)
        raise WorkerFailed(
            handle.id,
            f"worker {handle.id!r} {how}; that was before it was ready",
            code=None if process is None else process.code,
            signal=None if process is None else process.signal,
        )


async def wait_all_started(handles: Sequence[WorkerHandle]) -> None:
    """Wait until new workers are ready.

    Raises:
        WorkerFailed: That of the first that has ended before. Those that are not ready by then are ended.

    Cancellation: those that are not ready are ended.
    """
    failures: list[WorkerFailed] = []

    async def wait(handle: WorkerHandle) -> None:
        try:
            await wait_started(handle)
        except WorkerFailed as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for handle in handles:
            nursery.start_soon(wait, handle)
    if failures:
        raise failures[0]
