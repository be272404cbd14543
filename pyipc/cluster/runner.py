"""A cluster in the foreground, as a program: it tells every step, obeys signals, and ends when its workers have."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack

import trio

from pyipc.cluster.environment import is_worker
from pyipc.cluster.errors import ClusterError, WorkerFailed, by_reason
from pyipc.cluster.events import EVENTS
from pyipc.cluster.node.spawning import check_node_possible
from pyipc.cluster.notifying import Notifier
from pyipc.cluster.primary import Cluster
from pyipc.cluster.reporting import LineReporter, Step, Story, step_of, step_words, table_step
from pyipc.cluster.target import command_line
from pyipc.cluster.watching import SourceFiles
from pyipc.nursery import hidden_nursery

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyipc
    from pyipc.cluster.events import WorkerEvent
    from pyipc.cluster.handle import WorkerHandle
    from pyipc.cluster.policies import Policy, PolicyFunction, ReusePort, Shared
    from pyipc.cluster.reporting import Reporter, StepKind
    from pyipc.cluster.settings import SettingOverrides

__all__ = ["Runner", "available_cpus", "run"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

# Each exists on some systems only. SIGBREAK is what Ctrl-Break is on Windows.
_ENDING: Final = ("SIGINT", "SIGTERM", "SIGBREAK")
_OTHERS: Final = ("SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1")

_FAILED: Final = 1

# Seconds that the last steps are given to be written, where nobody may read them; and where somebody is in a hurry.
_LAST_WORDS: Final = 3.0
_LAST_WORDS_NOW: Final = 1.0


def run(
    target: str | None = None,
    *,
    workers: int | Literal["auto"] = "auto",
    role: str = "",
    reload: bool = False,
    reload_dirs: Sequence[str] = (),
    reload_include: Sequence[str] = (),
    reporter: Reporter | None = None,
    router: pyipc.Router | None = None,
    policy: str | Policy | Shared | ReusePort | PolicyFunction = "round-robin",
    **settings: Unpack[SettingOverrides],
) -> int:
    """Run a cluster in the foreground until its workers have returned or a signal comes; return the exit status.

    A line on stderr tells of each step. These signals are obeyed; Windows has the first two, and Ctrl-Break:

    - SIGINT, which Ctrl-C is, and SIGTERM: the workers finish and leave. Another one: all is ended at once.
    - SIGHUP: `Cluster.reload`. When it fails, that is told, and the old workers go on. Workers that had failed are
      started again.
    - SIGTTIN and SIGTTOU: one worker more, or one less.
    - SIGUSR1: tells how each worker is.

    Args:
        target: What workers run; see `Cluster`.
        workers: How many; ``"auto"`` is one for each CPU that this process may use.
        role: Their role.
        reload: Whether to reload when source files change, which takes the package watchfiles. Where no worker is left
            the next change starts them again.
        reload_dirs: Where these files are; by default the present directory.
        reload_include: Patterns of their names; by default ``*.py``, or for Node ``*.js``, ``*.cjs`` and ``*.mjs``.
        reporter: Who writes the steps; by default a `LineReporter`.
        router: Handlers for what workers send to the primary.
        policy: Which worker gets which connection; see `Cluster`.
        **settings: Any of `Settings`.

    Returns:
        0 if the workers have returned, or have left after a signal; 1 if no worker is left and one has failed, or the
        first ones did not become ready; 128 and the number of the signal if they were ended at once, as it is after a
        terminal was closed.

    Raises:
        ClusterError: What workers are to run is not there; or this process is a worker itself.
        TypeError, ValueError: A setting does not exist, or is out of range.
    """
    sources = SourceFiles(reload_dirs, reload_include, target=settings.get("node") or target) if reload else None
    runner = Runner(
        target,
        workers=workers,
        role=role,
        sources=sources,
        reporter=reporter,
        router=router,
        policy=policy,
        **settings,
    )
    return trio.run(runner.run)


def available_cpus() -> int:
    """How many CPUs this process may use, at least one."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


class Runner:
    """Runs a cluster in the foreground. The arguments are those of `run`, but for the source files.

    Args:
        target: What workers run.
        workers: How many.
        role: Their role.
        sources: Source files whose changes lead to a reload.
        reporter: Who writes the steps.
        router: Handlers for what workers send.
        policy: Which worker gets which connection.
        **settings: Any of `Settings`.

    Attributes:
        cluster: The cluster, for handlers of its events.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        workers: int | Literal["auto"] = "auto",
        role: str = "",
        sources: SourceFiles | None = None,
        reporter: Reporter | None = None,
        router: pyipc.Router | None = None,
        policy: str | Policy | Shared | ReusePort | PolicyFunction = "round-robin",
        **settings: Unpack[SettingOverrides],
    ) -> None:
        count: Any = available_cpus() if workers == "auto" else workers
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"workers must be one or more, or 'auto', not {workers!r}")
        self.cluster: Cluster = Cluster(target, router=router, policy=policy, **settings)
        self._count = count
        self._role = role
        self._sources = sources
        self._story_of = LineReporter() if reporter is None else reporter
        # What is wanted, until it is done; several wishes for the same are one.
        self._wants_reload = ""
        self._wants_more = 0
        self._wanted = trio.Event()
        self._done = trio.Event()
        self._is_running = False
        #: The ids of workers that are to be started.
        self._missing: list[str] = [str(number) for number in range(1, count + 1)]
        #: Why workers have ended that did so in a bad way, by id.
        self._failures: dict[str, str] = {}
        #: Processes that did not leave in time when all were to, and how that ended for their workers.
        self._overdue: set[int | None] = set()
        self._forced: dict[str, str] = {}
        self._ended_by: int | None = None
        self._killed_by: int | None = None
        self._is_terminal_gone = False

    async def run(self) -> int:
        """Run it, and return the exit status; see `run`. A runner runs once.

        Raises:
            ClusterError: What workers are to run is not there; or this process is a worker itself.

        Cancellation: the workers finish and leave.
        """
        if is_worker():
            raise ClusterError(
                "this process is a worker of a cluster, and would start another cluster with workers that do the same; "
                "call cluster.run() under `if cluster.is_primary:`, or in a program that workers do not import"
            )
        check_node_possible(self.cluster.settings)
        command_line(self.cluster.settings)  # what is wrong with it is wrong with every worker
        self._story = Story(self._story_of)
        self._notifier = Notifier()
        self._work = trio.CancelScope()
        for type in EVENTS:
            self.cluster.on(type, self._on_event)
        status = _FAILED
        async with hidden_nursery() as nursery:
            nursery.start_soon(self._story.run)
            await nursery.start(self._obey_signals)
            with _told_once():
                try:
                    settings = self.cluster.settings
                    what = settings.node or settings.exec or "this program"
                    self._tell("begin", f"{_counted(self._count)} of {what}")
                    async with self.cluster:
                        with self._work:
                            await self._work_on()
                        self._notifier.stopping()
                except WorkerFailed as error:
                    self._failures.setdefault(error.worker, str(error))
            status = self._status()
            self._tell("end", self._reason(), is_problem=status == _FAILED)
            await self._story.drain(_LAST_WORDS if self._killed_by is None else _LAST_WORDS_NOW)
        return status

    async def _work_on(self) -> None:
        """Start the workers, and do what is wanted until none is left."""
        async with hidden_nursery() as nursery:
            if self._sources is not None:
                await nursery.start(self._sources.watch, self._on_change)
                self._tell("watching", str(self._sources))
            begun = trio.current_time()
            try:
                await self._start_missing()
            except WorkerFailed as error:
                if self._sources is None:
                    raise
                self._failures.setdefault(error.worker, str(error))
                self._tell("error", str(error), is_problem=True)
            else:
                self._tell("running", f"all are ready after {trio.current_time() - begun:.2f} s")
                self._notifier.ready(_counted(self._count))
            self._is_running = True
            nursery.start_soon(self._do_what_is_wanted)
            await self._wait_none_left()

    # --- its end ---

    async def _wait_none_left(self) -> None:
        """Wait until no worker is left, and none will be started."""
        while True:
            while there := [
                each for each in self.cluster.workers.values() if not each.gone.is_set() and not each.has_failed
            ]:
                await there[0].wait_changed()
            if self._sources is None or not self._failures:
                return
            self._tell("waiting", "no worker is left; a change of the source files starts them again")
            await self._done.wait()

    def _status(self) -> int:
        if self._killed_by is not None:
            return 128 + self._killed_by
        if self._is_terminal_gone:
            return 128 + signal.SIGHUP
        return 0 if self._ended_by is not None or not self._failures else _FAILED

    def _reason(self) -> str:
        if self._killed_by is not None:
            return f"all workers were ended at once, after {signal.Signals(self._killed_by).name}"
        if self._ended_by is not None:
            words = f"all workers have left, after {signal.Signals(self._ended_by).name}"
            return f"{words}; {by_reason(self._forced)}" if self._forced else words
        if self._failures:
            return f"no worker is left: {by_reason(self._failures)}"
        return "all workers have returned"

    # --- signals ---

    async def _obey_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        numbers = [getattr(signal, name) for name in (*_ENDING, *_OTHERS) if hasattr(signal, name)]
        had_terminal = _has_terminal()
        with trio.open_signal_receiver(*numbers) as signals:
            task_status.started()
            async for number in signals:
                name = signal.Signals(number).name
                if name in _ENDING:
                    self._end(number)
                elif name == "SIGHUP" and had_terminal and not _has_terminal():
                    self._is_terminal_gone = True
                    self._end(number)
                elif name == "SIGHUP":
                    self._want(reload=name)
                elif name == "SIGUSR1":
                    for worker in self.cluster.workers.values():
                        self._story.tell(table_step(worker.info()))
                else:
                    self._want(more=1 if name == "SIGTTIN" else -1)

    def _end(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._ended_by is None:
            self._ended_by = number
            self._tell("drain", f"{name}: the workers finish and leave; once more ends them at once")
            self._work.cancel()
        elif self._killed_by is None:
            self._killed_by = number
            self._tell("kill", f"{name}: the workers are ended at once")
            self.cluster.kill()

    # --- what is wanted meanwhile ---

    def _on_change(self, paths: list[str]) -> None:
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        self._tell("changed", ", ".join(paths[:3]) + more)
        if self._is_running:
            self._want(reload="source files have changed")

    def _want(self, *, reload: str = "", more: int = 0) -> None:
        self._wants_reload = reload or self._wants_reload
        self._wants_more += more
        self._wanted.set()

    async def _do_what_is_wanted(self) -> None:
        """One thing after the other."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            if self._wants_reload:
                reason, self._wants_reload = self._wants_reload, ""
                await self._reload(reason)
            if self._wants_more:
                more, self._wants_more = self._wants_more, 0
                await self._scale(more)
            self._done.set()
            self._done = trio.Event()

    def _present(self) -> list[WorkerHandle]:
        return [each for each in self.cluster.workers.values() if not each.is_leaving and not each.has_failed]

    async def _reload(self, reason: str) -> None:
        """Replace all workers by new ones, and start those again that have failed."""
        begun = trio.current_time()
        self._tell("reload", reason)
        self._notifier.reloading()
        try:
            await self.cluster.reload()
            await self._start_missing()
        except Exception as error:
            if isinstance(error, WorkerFailed):
                self._failures.setdefault(error.worker, str(error))
            self._tell_failed("reload-failed", error)
        else:
            self._tell("reloaded", f"{_counted(len(self._present()))} after {trio.current_time() - begun:.2f} s")
        self._notifier.ready(_counted(len(self._present())))

    async def _scale(self, more: int) -> None:
        """Start further workers, or let some leave; the last one stays."""
        there = sum(each.role == self._role for each in self._present())
        count = max(there + more, 1)
        self._tell("scale", f"from {there} to {_counted(count)}" if count != there else "the last worker stays")
        try:
            await self.cluster.scale(self._role, count)
        except Exception as error:
            self._tell_failed("scale-failed", error)

    def _tell_failed(self, kind: StepKind, error: Exception) -> None:
        """A wish was not granted, for whatever reason: the workers that there are go on all the same."""
        if not isinstance(error, ClusterError):
            logger.error("this should not have happened", exc_info=error)
        self._tell(kind, str(error) or repr(error), is_problem=True)

    async def _start_missing(self) -> None:
        """Start the workers that are missing, all at the same time, and wait until they are ready.

        Raises:
            WorkerFailed: One did not become so. None of them stays, and all are missing still.
        """
        errors: list[WorkerFailed] = []
        # Meanwhile somebody else may have started one under such an id, as `scale` does.
        there = self.cluster.workers
        self._missing = [id for id in self._missing if id not in there or there[id].has_failed]

        async def start(id: str) -> None:
            try:
                await self.cluster.fork(id, role=self._role)
            except WorkerFailed as error:
                await self.cluster.wait_told()
                if error.worker in self._failures:  # else it has done its work already
                    errors.append(error)
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for id in self._missing:
                nursery.start_soon(start, id)
        if not errors:
            self._missing = []
            await self.cluster.wait_told()  # who hears that all are ready has heard it of each
            return
        begun = [there[id] for id in self._missing if id in there]
        for worker in begun:
            worker.leave()
        for worker in begun:
            await worker.gone.wait()
        raise errors[0]

    # --- telling ---

    def _on_event(self, event: WorkerEvent) -> None:
        step = step_of(event)
        if step is None:
            return
        self._story.tell(step)
        if event.type == "ready" or (event.type == "exit" and not step.is_problem):
            self._failures.pop(step.worker, None)
        elif event.type == "exit" or event.type == "error":
            self._failures[step.worker] = step_words(step)
        elif event.type == "unhealthy" and self._ended_by is not None:
            self._overdue.add(event.pid)
        if event.type == "exit" and event.signal is not None and event.pid in self._overdue:
            self._forced[step.worker] = f"ended by {step_words(step)}"

    def _tell(self, kind: StepKind, text: str, **more: Any) -> None:
        self._story.tell(Step(kind=kind, pid=os.getpid(), text=text, **more))


def _counted(count: int) -> str:
    return f"{count} {'worker' if count == 1 else 'workers'}"


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, which is gone once it was closed."""
    if sys.platform == "win32":
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _told_once() -> Any:
    """Log nothing that a step tells."""

    def is_untold(record: logging.LogRecord) -> bool:
        return not getattr(record, "told_as_event", False)

    logger.addFilter(is_untold)
    try:
        yield
    finally:
        logger.removeFilter(is_untold)
