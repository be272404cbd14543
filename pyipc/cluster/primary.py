"""The primary: starts workers, keeps them, talks to them, and lets them go."""

from __future__ import annotations

import logging
import math
import types
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Unpack

import trio

import pyipc
from pyipc.cluster import control
from pyipc.cluster.answering import answer_workers
from pyipc.cluster.broadcasting import broadcast
from pyipc.cluster.claiming import Claims
from pyipc.cluster.environment import is_worker
from pyipc.cluster.errors import ClusterError, UnknownWorker
from pyipc.cluster.events import TOLD, EventQueue, Events, WorkerEvent
from pyipc.cluster.exchange import Exchange
from pyipc.cluster.handle import WorkerHandle
from pyipc.cluster.introducing import Introductions
from pyipc.cluster.jobs import Jobs
from pyipc.cluster.keeper import Keeper
from pyipc.cluster.node.process import NodeProcess
from pyipc.cluster.node.spawning import check_node_possible
from pyipc.cluster.policies import Policy, PolicyFunction, ReusePort, Shared, policy_from
from pyipc.cluster.process import WorkerProcess
from pyipc.cluster.publishing import Publishing
from pyipc.cluster.pulse import check_memory_known
from pyipc.cluster.reloading import replace_all
from pyipc.cluster.settings import (
    SettingOverrides,
    Settings,
    WorkerOverrides,
    check_number_of_workers,
    check_role,
    check_worker,
    is_node_program,
)
from pyipc.cluster.starting import wait_all_started, wait_started
from pyipc.cluster.statistics import ClusterStatistics
from pyipc.cluster.submitting import Submitting
from pyipc.cluster.switchboard import Switchboard
from pyipc.nursery import hidden_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from pyipc.cluster.environment import Invitation

__all__ = ["Cluster"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")


class Cluster(Events, Publishing, Submitting):
    """A primary with its workers, for the length of an ``async with`` block.

    Entering it starts ``workers`` processes and waits until all are ready. Leaving it lets them finish what is under
    way, and end; so does an error of the block, Ctrl-C included. Handlers for what workers say are best registered
    before it is entered. If there are none by then, what workers say waits until it is entered and its block waits for
    the first time, and so it is with `fork`; but who asks something before it is ready is answered at once, since
    entering may wait for just that. Workers are fresh interpreters, never forks of a running event loop.

    Args:
        target: What workers run: ``"package.module:function"``, an async function that takes a `Worker`, or a plain
            one, such as that of a script that calls `run_worker`; or the path of a script, which Node runs if it ends
            in ``.js``, ``.cjs`` or ``.mjs``. Left out, it is the very program that this process runs, which asks
            ``cluster.is_primary``.
        workers: How many to start on entering.
        role: The role of those.
        router: Handlers for what workers send to the primary under names of their own.
        policy: Which worker gets which connection: ``"round-robin"``, ``"least-loaded"``, ``"sticky"``, ``"shared"``,
            ``"reuse-port"``, an object of one of the classes of these names, or a function of an `Arrival` and a
            sequence of `Load`.
        **settings: Any of `Settings`.

    Raises:
        TypeError, ValueError: A setting does not exist, or is out of range.

    Cancellation: when the block is cancelled, workers are sent SIGTERM, and killed after their setting
        ``kill_timeout``.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        workers: int = 0,
        role: str = "",
        router: pyipc.Router | None = None,
        policy: str | Policy | Shared | ReusePort | PolicyFunction = "round-robin",
        **settings: Unpack[SettingOverrides],
    ) -> None:
        if target is not None:
            settings["node" if is_node_program(target) else "exec"] = target
        check_number_of_workers("workers", workers)
        check_role(role)
        self._settings = Settings().changed(settings)
        check_memory_known(self._settings)
        self._initial = workers
        self._initial_role = role
        super().__init__()
        self._queue = EventQueue(self)
        self._router = pyipc.Router()
        if router is not None:
            self._router.include(router)
        self._workers: dict[str, WorkerHandle] = {}
        self._keepers: dict[str, Keeper] = {}
        self._ids = 0
        self._nursery: trio.Nursery | None = None
        self._context: AsyncExitStack | None = None
        self._reloading = trio.Lock()
        self._retiring = trio.Lock()
        self._is_over = False
        # Whether it ends, and how many calls of `disconnect` there are: no worker can be started meanwhile.
        self._is_leaving = False
        self._leaving = 0
        inner = pyipc.Router()
        inner.include(self._router)
        self._claims = Claims(policy_from(policy), self._settings.max_handovers)
        self._exchange = Exchange(control.channel_options(self._settings.max_frame_size))
        self._introductions = Introductions(self._workers, self._exchange)
        self._jobs = Jobs(
            self._workers,
            jobs_per_worker=self._settings.jobs_per_worker,
            max_pending_jobs=self._settings.max_pending_jobs,
        )
        self._switchboard = Switchboard(inner, self._settings.max_frame_size, self._has_handlers)
        inner.on("message", self._on_message)
        answer_workers(self._switchboard, self._claims, self._introductions)

    def __repr__(self) -> str:
        state = (
            "not running" if self._nursery is None else "leaving" if self._is_leaving or self._leaving else "running"
        )
        return f"<Cluster of {len(self._workers)} workers, {state}>"

    # --- what it is ---

    @property
    def workers(self) -> Mapping[str, WorkerHandle]:
        """The workers that there are, by id: a live view."""
        return types.MappingProxyType(self._workers)

    @property
    def is_over(self) -> bool:
        """Whether it has ended; a cluster runs once."""
        return self._is_over

    @property
    def settings(self) -> Settings:
        """What workers are started with from now on."""
        return self._settings

    def statistics(self) -> ClusterStatistics:
        """A snapshot: the table of workers, and the counters."""
        return ClusterStatistics(
            workers=tuple(handle.info() for handle in self._workers.values()),
            jobs=self._jobs.statistics(),
            handovers=self._claims.statistics(),
        )

    @property
    def scheduling_policy(self) -> Policy | Shared | ReusePort:
        """Which worker gets which connection, at addresses that are taken from now on."""
        return self._claims.policy

    @property
    def router(self) -> pyipc.Router:
        """Handlers for what workers send to the primary under names of their own; see `worker_of`."""
        return self._router

    def worker_of(self, message: pyipc.Message[Any]) -> WorkerHandle:
        """The worker that a message came from."""
        return self._switchboard.process_of(message).handle

    def setup_primary(
        self,
        *,
        policy: str | Policy | Shared | ReusePort | PolicyFunction | None = None,
        **settings: Unpack[SettingOverrides],
    ) -> None:
        """Change what workers are started with from now on, as Node's ``cluster.setupPrimary()`` does.

        Workers that there are keep the settings that they were forked with, when they are started again or reloaded as
        well. Limits of the cluster itself (``jobs_per_worker``, ``max_pending_jobs``, ``max_handovers``,
        ``max_frame_size``) are those that it was made with.

        Args:
            policy: Which worker gets which connection, at addresses that are taken from now on; see `Cluster`.
            **settings: Any of `Settings`.

        Raises:
            TypeError, ValueError: A setting does not exist, or is out of range.
        """
        changed = self._settings.changed(settings)
        check_memory_known(changed)
        if policy is not None:
            self._claims.policy = policy_from(policy)
        self._settings = changed
        self._queue.report(WorkerEvent(type="setup", settings=self._settings))

    # --- running ---

    async def __aenter__(self) -> Cluster:
        context = AsyncExitStack()
        try:
            await context.enter_async_context(self._running())
        except BaseException:
            self._is_leaving = self._is_over = True
            raise
        self._context = context
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        assert self._context is not None
        context, self._context = self._context, None
        try:
            return await context.__aexit__(*error)
        finally:
            self._is_over = True

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        if self._nursery is not None:
            raise RuntimeError("a cluster runs once; make another Cluster to start again")
        async with self._exchange.running(), self._switchboard.running(), hidden_nursery() as self._nursery:
            self._nursery.start_soon(self._queue.run)
            await self._nursery.start(self._claims.run)
            await self._nursery.start(self._jobs.run)
            self._queue.report(WorkerEvent(type="setup", settings=self._settings))
            try:
                await self._start_first()
                yield
            except (Exception, KeyboardInterrupt, SystemExit, BaseExceptionGroup):
                await self._end()
                raise
            else:
                await self._end()
            finally:
                self._is_leaving = True

    async def _start_first(self) -> None:
        """Start those that there are to be from the beginning, all at the same time."""
        handles = [self._fork(None, self._initial_role, {}, {}, one_try=True) for _ in range(self._initial)]
        await wait_all_started(handles)
        for handle in handles:
            handle.listen()

    # --- workers ---

    async def fork(
        self,
        id: str | None = None,
        *,
        role: str = "",
        env: Mapping[str, str | None] | None = None,
        wait: bool = True,
        **settings: Unpack[WorkerOverrides],
    ) -> WorkerHandle:
        """Start a worker.

        Args:
            id: Its id, unique among those that there are; by default the next number. That of a worker which has
                failed, or has ended for good, can be had again, from its ``exit`` on.
            role: What it is for, by which jobs and messages can be addressed.
            env: Variables for its environment.
            wait: Whether to wait until it is ready.
            **settings: What is different for this worker; any of `Settings`.

        Raises:
            TypeError, ValueError: There is a worker of that id, or a setting does not exist, or is out of range.
            WorkerFailed: It ended before it was ready, or was not in time. It is not tried again.
            ClusterError: The cluster does not run; or this process is a worker itself, and its program is what is to be
                started.

        Cancellation: it is ended.
        """
        handle = self._fork(id, role, env or {}, settings, one_try=wait)
        if wait:
            await wait_started(handle)
        else:
            await trio.lowlevel.checkpoint()
        handle.listen()
        return handle

    def _fork(
        self,
        id: str | None,
        role: str,
        env: Mapping[str, str | None],
        settings: Mapping[str, Any],
        *,
        one_try: bool,
    ) -> WorkerHandle:
        check_worker(id, role, env)
        if self._nursery is None or self._is_leaving:
            raise ClusterError("the cluster is not running; fork inside its `async with` block")
        if self._leaving:
            raise ClusterError("all workers are leaving; fork when disconnect() has returned")
        if id is None:
            self._ids += 1
            while str(self._ids) in self._workers:
                self._ids += 1
            id = str(self._ids)
        if id in self._workers and not self._keepers[id].is_over:
            raise ValueError(f"there is a worker {id!r} already; ids are unique")
        own = self._settings.changed(settings)
        own = own.changed({"env": {**own.env, **env}})
        check_memory_known(own)
        check_node_possible(own)
        if own.exec is None and own.node is None and is_worker():
            raise ClusterError(
                "this process is a worker of a cluster, and would start workers that do the same; start workers under "
                "`if cluster.is_primary:`, or give their cluster a target of its own"
            )
        if id in self._workers:
            self._workers[id].leave()
        handle = WorkerHandle(id, role, env, own, settings)
        handle.watch(self._claims.process_changed)
        handle.watch(self._introductions.process_changed)
        handle.watch(self._jobs.worker_changed)
        keeper = Keeper(handle, self._make_process, self._queue, self._nursery, one_try=one_try)
        self._workers[id] = handle
        self._keepers[id] = keeper
        self._nursery.start_soon(self._keep, handle, keeper)
        return handle

    def _make_process(self, handle: WorkerHandle, invitation: Invitation) -> WorkerProcess:
        settings = handle.settings
        if settings.node is not None:
            return NodeProcess(handle, invitation, settings, self._switchboard, self._queue, self._claims)
        return WorkerProcess(handle, invitation, settings, self._switchboard, self._queue)

    async def _keep(self, handle: WorkerHandle, keeper: Keeper) -> None:
        try:
            await keeper.run()
        except Exception as error:
            keeper.kill()
            reason = f"worker {handle.id!r} is kept no longer, which should not have happened: {error!r}"
            logger.exception(reason, extra=TOLD)
            self._queue.report(WorkerEvent(type="error", worker=handle, error=error, reason=reason))
        finally:
            self._forget(handle)

    def _forget(self, handle: WorkerHandle) -> None:
        if self._workers.get(handle.id) is handle:
            del self._workers[handle.id]
            del self._keepers[handle.id]

    async def reload(self) -> None:
        """Replace every worker's process by a new one, which runs the code as it is now. Nothing is lost by it.

        New processes are started beside all the old ones. When all are ready the old ones are asked to leave: they
        accept nothing more, finish what is under way, and end.

        If the process of a worker ends meanwhile, its new one takes its place at once. Workers that have failed are
        begun anew. All keep the settings that they were forked with.

        Raises:
            ReloadFailed: Not all became ready. The old ones go on as if nothing had been.

        Cancellation: likewise, until the old ones were asked to leave; after that they leave all the same.
        """
        async with self._reloading:
            await replace_all([each for each in self._keepers.values() if not each.handle.is_leaving])

    async def scale(self, role: str, count: int) -> None:
        """See to it that there are so many workers of a role: start some, or let the youngest leave.

        Those that have failed do not count, and go. New ones have the ``env`` and the settings that the youngest of the
        role was forked with.

        Args:
            role: The role; ``""`` for those without one.
            count: How many there are to be.

        Raises:
            WorkerFailed: A new one did not become ready. Those that are ready by then stay, the others are ended.
            ValueError: ``count`` is less than zero.

        Cancellation: as far as it has come.
        """
        check_number_of_workers("count", count)
        check_role(role)
        there = [each for each in self._workers.values() if each.role == role and not each.is_leaving]
        present = [each for each in there if not each.has_failed]
        leaving = [*present[count:], *(each for each in there if each.has_failed)]
        env, settings = (there[-1].env, there[-1].overrides) if there else ({}, {})
        new = [self._fork(None, role, env, settings, one_try=True) for _ in range(count - len(present))]
        for handle in leaving:
            handle.leave()
        try:
            await wait_all_started(new)
        finally:
            for handle in new:
                handle.listen()
        for handle in leaving:
            await handle.gone.wait()

    async def disconnect(self) -> None:
        """Let all workers finish and leave. Returns when all are gone, and everybody was told.

        No worker can be forked meanwhile, but within the block of the cluster others can be afterwards.

        Cancellation: they leave all the same.
        """
        handles = list(self._workers.values())
        self._leaving += 1
        try:
            try:
                async with self._retiring:  # who comes second finds it done, and workers are told to leave only then
                    await self._claims.retire()
                timeout = self._settings.drain_timeout
                with trio.move_on_after(math.inf if timeout is None else timeout):
                    await self._jobs.wait_done()
            finally:
                for handle in handles:
                    handle.leave()
            for handle in handles:
                await handle.gone.wait()
            await self._queue.wait_told()
        finally:
            self._leaving -= 1

    async def _end(self) -> None:
        """Let all workers leave for the last time.

        Cancellation: they leave all the same.
        """
        self._is_leaving = True
        await self.disconnect()

    async def wait_told(self) -> None:
        """Wait until the handlers of events were told of all that has happened until now. One of them does not wait.

        Cancellation: nothing is changed by it.
        """
        await self._queue.wait_told()

    def kill(self) -> None:
        """End all workers at once."""
        self._is_leaving = True
        for keeper in self._keepers.values():
            keeper.kill()

    # --- talking to workers ---

    def worker(self, id: str) -> WorkerHandle:
        """The worker of an id.

        Raises:
            UnknownWorker: There is none.
        """
        try:
            return self._workers[id]
        except KeyError:
            raise UnknownWorker(id) from None

    async def broadcast(
        self, event: str, data: object = None, *, attachments: Iterable[Any] = (), role: str | None = None
    ) -> pyipc.BroadcastReport:
        """Send an event to every worker, or to those of a role. Waits for those that start, and for room.

        During a reload the new processes get it as well as the old ones.

        Returns:
            To how many workers it was sent, and how many ended before.

        Raises:
            LocalProtocolError: The event cannot be sent; nothing was.

        Cancellation: it may have been sent to some.
        """
        keepers = [each for each in self._keepers.values() if role is None or each.handle.role == role]
        return await broadcast(keepers, event, data, list(attachments))

    # --- what workers say ---

    def _has_handlers(self, process: WorkerProcess) -> bool:
        """Whether the program has any handler for what a process says."""
        return self._router.version > 0 or self._has("message") or process.handle._has("message")

    async def _on_message(self, message: pyipc.Message[Any]) -> None:
        process = self._switchboard.worker_process(message.connection)
        if process is not None:
            await process.on_message(message)
