"""Keeping one worker alive: its first process, the next when that ends, a new one beside it, and its end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from pyipc.cluster.environment import Invitation
from pyipc.cluster.errors import WorkerFailed
from pyipc.cluster.events import TOLD, WorkerEvent
from pyipc.cluster.process import ProcessState, WorkerProcess, exit_text
from pyipc.cluster.supervising import RestartPolicy

if TYPE_CHECKING:
    from pyipc.cluster.events import EventQueue
    from pyipc.cluster.handle import WorkerHandle
    from pyipc.cluster.switchboard import Switchboard

__all__ = ["Keeper"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")


class Keeper:
    """Keeps the worker of a handle.

    Args:
        handle: The worker.
        switchboard: Where its processes connect.
        queue: Where is told what happens to it.
        nursery: For the tasks of its processes.
    """

    def __init__(
        self,
        handle: WorkerHandle,
        switchboard: Switchboard,
        queue: EventQueue,
        nursery: trio.Nursery,
    ) -> None:
        self.handle = handle
        self._switchboard = switchboard
        self._queue = queue
        self._nursery = nursery
        self._policy = RestartPolicy()
        self._replacing = trio.Lock()

    async def run(self) -> None:
        """Keep it until it has left for good, or has failed too often.

        Cancellation: its processes are killed with the nursery.
        """
        handle = self.handle
        try:
            handle.current = process = self._start()
            handle.process_changed(process)
            while True:
                process = handle.current
                while not process.gone.is_set() and not handle.is_leaving:
                    await handle.wait_changed()
                if handle.is_leaving:
                    await self._see_off(process)
                    return
                async with self._replacing:
                    pass  # one that was started to take its place is the next, unless it fails
                if handle.current is not process:
                    continue
                if not await self._pause(process):
                    return
                if not handle.is_leaving:
                    handle.restarts += 1
                    handle.current = self._start()
        finally:
            handle.is_leaving = True
            handle.gone.set()
            handle.process_changed(handle.current) if handle.current is not None else None

    async def _see_off(self, process: WorkerProcess) -> None:
        settings = process.settings
        if not process.gone.is_set() and process.voluntary and process.state is not ProcessState.DRAINING:
            # It was sent a signal on purpose; it is given the time that one has after SIGTERM.
            with trio.move_on_after(settings.kill_timeout):
                await process.gone.wait()
        if not process.gone.is_set():
            await process.stop(drain_timeout=settings.drain_timeout, kill_timeout=settings.kill_timeout)

    async def _pause(self, process: WorkerProcess) -> bool:
        """Wait until the worker is to be started again; say whether it is."""
        handle, settings = self.handle, self.handle.settings
        if not self._policy.wants(settings, code=process.code, voluntary=process.voluntary):
            return False
        delay = self._policy.delay(settings, trio.current_time())
        how = exit_text(process)
        if delay is None:
            handle.has_failed = True
            often = f"after {settings.max_restarts} restarts within {settings.restart_window:g} s"
            reason = f"worker {handle.id!r} {how}, {often}"
            logger.error("%s; it is not started again", reason, extra=TOLD)
            error = WorkerFailed(handle.id, reason, code=process.code, signal=process.signal)
            self._queue.report(WorkerEvent(type="error", worker=handle, error=error, reason=reason))
            return False
        logger.warning("worker %r %s; it is started again in %.2g s", handle.id, how, delay, extra=TOLD)
        self._queue.report(WorkerEvent(type="restart", worker=handle, reason=how, delay=delay))
        with trio.move_on_after(delay):
            while not handle.is_leaving:
                await handle.wait_changed()
        return True

    def _start(self) -> WorkerProcess:
        handle = self.handle
        handle.begun += 1
        settings = handle.settings
        invitation = Invitation(
            id=handle.id,
            role=handle.role,
            generation=handle.begun,
            heartbeat_interval=settings.heartbeat_interval,
            drain_timeout=settings.drain_timeout,
            wait_ready=settings.wait_ready,
            max_frame_size=settings.max_frame_size,
        )
        process = WorkerProcess(handle, invitation, settings, self._switchboard, self._queue)
        self._nursery.start_soon(process.run)
        self._nursery.start_soon(self._watch_start, process)
        return process

    async def _watch_start(self, process: WorkerProcess) -> None:
        """End a process that does not become ready in time."""
        timeout = process.settings.ready_timeout
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            await process.settled.wait()
            return
        process.failure = (
            f"it was not ready within {timeout:g} s; let its program open a server, or await worker.run() or "
            "worker.ready(), or raise ready_timeout"
        )
        logger.error("worker %r: %s", self.handle.id, process.failure, extra=TOLD)
        process.kill()

    async def begin_replacement(self) -> WorkerProcess:
        """Start a process that is to take the place of the present one, and wait until it is ready.

        The caller then calls `replace`, or kills it.

        Raises:
            WorkerFailed: It ended before it was ready, or was not in time. The present one is untouched.

        Cancellation: the new process is killed.
        """
        process = self._start()
        try:
            await process.settled.wait()
        except BaseException:
            process.voluntary = True
            process.kill()
            raise
        if not process.is_ready:
            raise WorkerFailed(
                self.handle.id, f"the new process {exit_text(process)}", code=process.code, signal=process.signal
            )
        return process

    def replace(self, new: WorkerProcess) -> WorkerProcess | None:
        """Let a process that is ready be the worker's; return the one that it was, which the caller sees off."""
        old = self.handle.current
        self.handle.current = new
        if old is not None:
            old.voluntary = True
        self.handle.process_changed(new)
        return old

    async def renew(self) -> None:
        """Have the worker's process replaced, the new one first.

        Raises:
            WorkerFailed: The new one did not become ready; the old one goes on.

        Cancellation: the old one goes on, or leaves, as far as it has come.
        """
        async with self._replacing:
            new = await self.begin_replacement()
            old = self.replace(new)
        if old is not None and not old.gone.is_set():
            await old.leave_for_successor()
