"""Keeping one worker alive: its first process, the next when that ends, a new one beside it, and its end."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from pyipc.cluster.environment import Invitation
from pyipc.cluster.errors import WorkerFailed
from pyipc.cluster.events import TOLD, WorkerEvent
from pyipc.cluster.process import ProcessState
from pyipc.cluster.pulse import Watch
from pyipc.cluster.signals import exit_text
from pyipc.cluster.supervising import RestartPolicy
from pyipc.cluster.target import import_paths

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pyipc.cluster.events import EventQueue
    from pyipc.cluster.handle import WorkerHandle
    from pyipc.cluster.process import WorkerProcess

__all__ = ["Keeper"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")


class Keeper:
    """Keeps the worker of a handle.

    Args:
        handle: The worker.
        make: Makes a process of it, with what that is told.
        queue: Where is told what happens to it.
        nursery: For the tasks of its processes.
        one_try: Whether the worker leaves when its first process does not become ready: somebody waits for that one.
    """

    def __init__(
        self,
        handle: WorkerHandle,
        make: Callable[[WorkerHandle, Invitation], WorkerProcess],
        queue: EventQueue,
        nursery: trio.Nursery,
        *,
        one_try: bool = False,
    ) -> None:
        self.handle = handle
        self._make = make
        self._queue = queue
        self._nursery = nursery
        self._one_try = one_try
        self._policy = RestartPolicy()
        self._renewals = RestartPolicy()
        self._is_renewing = False
        self._processes: set[WorkerProcess] = set()
        self._successor: WorkerProcess | None = None
        self._replacing = trio.Lock()

    # --- one process after the other ---

    async def run(self) -> None:
        """Keep it until it has left for good.

        Cancellation: its processes are killed with the nursery.
        """
        handle = self.handle
        try:
            handle.current = process = self._start()
            handle.process_changed(process)
            while not handle.is_leaving:
                process = handle.current
                if not process.gone.is_set():
                    await handle.wait_changed()
                elif self._is_last(process):
                    handle.leave()
                elif self._successor is None:
                    await self._restart(process)
                elif self._successor.is_ready:
                    self.promote(self._successor)
                else:
                    await handle.wait_changed()  # the one that was to take its place later, unless it fails
            await self._see_off()
        finally:
            handle.is_leaving = True
            handle.gone.set()
            if handle.current is not None:
                handle.process_changed(handle.current)

    @property
    def is_over(self) -> bool:
        """Whether the worker has failed, or its process has ended and no other will follow."""
        process = self.handle.current
        if self.handle.has_failed or process is None or process.state is not ProcessState.GONE:
            return self.handle.has_failed
        return self.handle.is_leaving or self._is_last(process)

    def _is_last(self, process: WorkerProcess) -> bool:
        """Whether no other process follows one that has ended."""
        if self._one_try and not process.was_ready and process.generation == 1:
            return True
        # A program that ends well, but was no worker or has failed, has not done what it was to do.
        code = process.code if process.has_joined and not process.failure else process.code or None
        return not self._policy.wants(self.handle.settings, code=code, voluntary=process.voluntary)

    async def _restart(self, process: WorkerProcess) -> None:
        """Start the next process after a pause, unless there were too many; then somebody else has to begin anew."""
        handle, settings = self.handle, self.handle.settings
        how = exit_text(process)
        delay = self._policy.delay(settings, trio.current_time(), was_ready=process.was_ready)
        if delay is None:
            self._give_up(process, how)
            while handle.has_failed and not handle.is_leaving:
                await handle.wait_changed()
            return
        logger.warning("worker %r %s; it is started again in %.2g s", handle.id, how, delay, extra=TOLD)
        self._queue.report(WorkerEvent(type="restart", worker=handle, reason=how, delay=delay))
        with trio.move_on_after(delay):
            while not handle.is_leaving and handle.current is process:
                await handle.wait_changed()
        if not handle.is_leaving and handle.current is process and self._successor is None:
            handle.restarts += 1
            handle.current = self._start()

    def _give_up(self, process: WorkerProcess, how: str) -> None:
        handle, settings = self.handle, self.handle.settings
        handle.has_failed = True
        handle.process_changed(process)
        most = settings.max_restarts
        before = {0: "never started again", 1: "started again once"}.get(most, f"started again {most} times")
        reason = f"worker {handle.id!r} {how}, and was {before} before"
        logger.error("%s; it is not started again, unless by a reload, or a fork of the same id", reason, extra=TOLD)
        error = WorkerFailed(handle.id, reason, code=process.code, signal=process.signal)
        self._queue.report(WorkerEvent(type="error", worker=handle, error=error, reason=reason))

    async def _see_off(self) -> None:
        """Let all its processes leave."""
        current = self.handle.current
        if current is not None and not current.gone.is_set():
            if current.voluntary and current.state is not ProcessState.DRAINING:
                # It was sent a signal on purpose; it is given the time that one has after SIGTERM.
                with trio.move_on_after(current.settings.kill_timeout):
                    await current.gone.wait()
            if not current.gone.is_set():
                await current.leave("this worker is to leave")
        for process in tuple(self._processes):
            await process.gone.wait()  # whoever took their place, or did not, has seen to it that they end

    def kill(self) -> None:
        """End it at once, for good."""
        self.handle.leave()
        for process in self._processes:
            process.voluntary = True
            process.kill()

    # --- one process beside the other ---

    @property
    def successor_process(self) -> WorkerProcess | None:
        """The process that may take the place of the present one, if there is one."""
        return None if self._successor is self.handle.current else self._successor

    @asynccontextmanager
    async def successor(self) -> AsyncIterator[WorkerProcess]:
        """A process that may take the place of the present one: it is started, and ready when the block begins.

        It takes the place when the block calls `promote`, or when the present process ends meanwhile. If it has not
        done so by the end of the block, it is killed.

        Raises:
            WorkerFailed: It ended before it was ready, or was not in time, or the worker is to leave. The present
                process is untouched.

        Cancellation: the new process is killed.
        """
        handle = self.handle
        async with self._replacing:
            if handle.is_leaving:
                raise WorkerFailed(handle.id, f"worker {handle.id!r} is to leave, and takes no new process")
            self._successor = process = self._start()
            try:
                while not process.settled.is_set() and not handle.is_leaving:
                    await handle.wait_changed()
                if handle.is_leaving:
                    raise WorkerFailed(handle.id, f"worker {handle.id!r} was to leave before its new process was ready")
                if not process.was_ready:
                    await process.gone.wait()  # by then it is known how it ended
                    told = f"the new process {exit_text(process)}"
                    raise WorkerFailed(handle.id, told, code=process.code, signal=process.signal)
                yield process
            finally:
                self._successor = None
                if handle.current is not process:
                    process.voluntary = True
                    process.kill()
                handle.process_changed(process)

    def promote(self, new: WorkerProcess) -> WorkerProcess | None:
        """Let a process that is ready be the worker's, and the one that it was leave.

        Returns:
            The one that it was, which may take its time; ``None`` if there was none, or if it has the place already.
        """
        handle, old = self.handle, self.handle.current
        if old is new:
            return None
        handle.current = new
        handle.has_failed = False
        if old is not None and not old.gone.is_set():
            old.voluntary = True
            self._nursery.start_soon(old.leave, "another process has taken its place")
        handle.process_changed(new)
        return old

    async def renew(self, reason: str) -> None:
        """Have the worker's process replaced, the new one first.

        Args:
            reason: Why, for people.

        Raises:
            WorkerFailed: The new one did not become ready; the old one goes on.

        Cancellation: the old one goes on, or leaves all the same if it was to leave already.
        """
        logger.info("worker %r gets a new process: %s", self.handle.id, reason)
        self._queue.report(WorkerEvent(type="restart", worker=self.handle, reason=reason, delay=0.0))
        async with self.successor() as new:
            old = self.promote(new)
        if old is not None:
            await old.gone.wait()

    def renew_soon(self, process: WorkerProcess, reason: str) -> None:
        """Have a process replaced, in good time, if it is still the worker's. May be called again and again."""
        if not self._is_renewing and self.handle.current is process:
            self._is_renewing = True
            self._nursery.start_soon(self._renew_after_pause, process, reason)

    async def _renew_after_pause(self, process: WorkerProcess, reason: str) -> None:
        settings = self.handle.settings
        try:
            # What makes it too large, or does not let a new one become ready, may do so with the next one as well.
            pause = self._renewals.delay(settings, trio.current_time(), was_ready=True)
            with trio.move_on_after(settings.restart_max_interval if pause is None else pause):
                await process.gone.wait()
            if self.handle.current is process and process.is_ready and not self.handle.is_leaving:
                await self.renew(reason)
        except WorkerFailed as error:
            if not self.handle.is_leaving:
                logger.error("worker %r gets no new process, and goes on with the old one: %s", self.handle.id, error)
                event = WorkerEvent(type="error", worker=self.handle, error=error, reason=str(error))
                self._queue.report(event)
        finally:
            self._is_renewing = False

    # --- a process ---

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
            paths=import_paths(settings),
        )
        process = self._make(handle, invitation)
        self._processes.add(process)
        self._nursery.start_soon(self._accompany, process)
        return process

    async def _accompany(self, process: WorkerProcess) -> None:
        """Run a process, and watch over it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, process)
                await process.run()
                nursery.cancel_scope.cancel()
        except Exception as error:  # it has ended by this, and its worker is seen to as after any other end
            reason = f"worker {self.handle.id!r} lost a process, which should not have happened: {error!r}"
            logger.exception(reason, extra=TOLD)
            self._queue.report(WorkerEvent(type="error", worker=self.handle, error=error, reason=reason))
        finally:
            self._processes.discard(process)

    async def _watch(self, process: WorkerProcess) -> None:
        """End a process that does not become ready in time, or hangs; have it replaced when it is too old, or large."""
        timeout = process.settings.ready_timeout
        with trio.move_on_after(float("inf") if timeout is None else timeout) as scope:
            await process.settled.wait()
        if scope.cancelled_caught:
            process.fail(
                f"it was not ready within {timeout:g} s; let its program {process.way_to_be_ready}, or raise "
                "ready_timeout"
            )
            logger.error("worker %r: %s", self.handle.id, process.failure, extra=TOLD)
        elif process.was_ready:
            await Watch(process, self._queue, self.renew_soon).run()
