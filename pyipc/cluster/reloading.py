"""Replacing the processes of many workers together: all of them, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from pyipc.cluster.errors import ReloadFailed, WorkerFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.cluster.handle import WorkerHandle
    from pyipc.cluster.keeper import Keeper
    from pyipc.cluster.process import WorkerProcess

__all__ = ["replace_all"]

_ENDED: Final = "the new process ended soon after it was ready"


async def replace_all(keepers: Sequence[Keeper]) -> None:
    """Start a new process for each worker, and when all are ready let them take the places of the old ones.

    Returns when the old ones are gone. Workers that are to leave meanwhile do so, and do not count.

    Args:
        keepers: Those of the workers.

    Raises:
        ReloadFailed: One did not become ready. No old process was told to leave.

    Cancellation: likewise, until all were ready.
    """
    replacement = _Replacement(keepers)
    await replacement.begin()
    for process in replacement.old:
        await process.gone.wait()


class _Replacement:
    """One time that it is done."""

    def __init__(self, keepers: Sequence[Keeper]) -> None:
        self.old: list[WorkerProcess] = []
        self._missing = set(keepers)
        self._ready: dict[Keeper, WorkerProcess] = {}
        self._failures: dict[str, str] = {}
        self._is_over = False

    async def begin(self) -> None:
        async with trio.open_nursery() as nursery:
            for keeper in tuple(self._missing):
                nursery.start_soon(self._replace, keeper, nursery.cancel_scope)
        if self._failures:
            raise ReloadFailed(self._failures)

    async def _replace(self, keeper: Keeper, everybody: trio.CancelScope) -> None:
        try:
            async with keeper.successor() as process:
                self._ready[keeper] = process
                self._missing.discard(keeper)
                self._replace_if_all_ready(everybody)
                await self._wait_over(keeper.handle, process)
                if process.gone.is_set() and not self._is_over and not keeper.handle.is_leaving:
                    self._fail(keeper, _ENDED, everybody)
        except WorkerFailed as error:
            self._missing.discard(keeper)
            if keeper.handle.is_leaving:
                self._replace_if_all_ready(everybody)
            else:
                self._fail(keeper, str(error), everybody)

    async def _wait_over(self, handle: WorkerHandle, process: WorkerProcess) -> None:
        """Wait until a process has the place that it is for, or will never have it."""
        while not (self._is_over or handle.current is process or process.gone.is_set() or handle.is_leaving):
            await handle.wait_changed()

    def _replace_if_all_ready(self, everybody: trio.CancelScope) -> None:
        """What comes last takes all places in one step, between which nothing else can happen."""
        if self._missing or self._failures:
            return
        for keeper, process in self._ready.items():
            if process.gone.is_set() and not keeper.handle.is_leaving:
                self._fail(keeper, _ENDED, everybody)
        if not self._failures:
            self._is_over = True
            for keeper, process in self._ready.items():
                if not keeper.handle.is_leaving and (old := keeper.promote(process)) is not None:
                    self.old.append(old)

    def _fail(self, keeper: Keeper, reason: str, everybody: trio.CancelScope) -> None:
        self._failures[keeper.handle.id] = reason
        everybody.cancel()
