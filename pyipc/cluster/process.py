"""One process of a worker, as its primary sees it: from its start to its exit."""

from __future__ import annotations

import contextlib
import enum
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from pyipc.cluster import control
from pyipc.cluster.candidate import Candidate
from pyipc.cluster.dialing import Channel
from pyipc.cluster.events import TOLD, WorkerEvent
from pyipc.cluster.signals import SIGKILL, signal_number
from pyipc.cluster.spawning import spawn
from pyipc.cluster.taking import Taking
from pyipc.nursery import hidden_nursery

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pyipc.cluster.courier import Courier
    from pyipc.cluster.environment import Invitation
    from pyipc.cluster.events import EventQueue
    from pyipc.cluster.handle import WorkerHandle
    from pyipc.cluster.settings import Settings
    from pyipc.cluster.spawning import Spawned
    from pyipc.cluster.switchboard import Switchboard
    from pyipc.transports import Link

__all__ = ["ProcessState", "WorkerProcess"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

# Seconds that the last words of a process may take to be read once it has ended.
_LAST_WORDS = 5.0
# The exit code of what is ended from outside on Windows, which has no signals.
_TERMINATED: Final = 1
# How much of what a process says when it leaves may wait to be told.
_READ_AHEAD: Final = 64
# Seconds beyond its own time that a process which is to leave is waited for.
_GRACE = 1.0


class ProcessState(enum.StrEnum):
    """How far a process has come."""

    STARTING = "starting"
    ONLINE = "online"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class WorkerProcess:
    """A process that the primary has started, or is about to.

    Args:
        handle: The worker whose process it is.
        invitation: What it is told.
        settings: What it was started with.
        switchboard: Where its connections end.
        queue: Where is told what happens to it.

    Attributes:
        way_to_join: What is to be done when it ends without having joined, for people.
        way_to_be_ready: What its program does to be ready, likewise.
        state: How far it has come.
        started: When it was started, in trio's time.
        pid: Its process id; ``None`` before it was started.
        code: Its exit code, once it is gone and no signal ended it.
        signal: The number of the signal that ended it.
        voluntary: Whether its end was asked for, by the primary or by itself.
        failure: Why it was ended, or why its program failed, as far as it could tell.
        has_joined: Whether its program has ever been the worker that it was started as.
        was_ready: Whether it has ever been ready.
        control: The connection by which it is ruled.
        messages: The connection for what programs say to each other.
        candidate: Who is handed connections, once it was started.
        pulse: What it last told of how it is.
        pulses: How often it has told that.
        memory: Its resident bytes when that was last looked at, if they are known.
        in_flight: Requests and streams of the primary's program, and jobs, that are under way there.
        is_closed: Whether nothing more is to be sent to it.
        online: Is set when it is online, or gone.
        taking: For which names its program has handlers, while it starts.
        is_listened_to: Is set when the primary's program can be expected to have its handlers.
        settled: Is set when it is ready, or gone.
        gone: Is set when it has ended, all it said was heard, and its exit was reported.
    """

    way_to_join: str = "call cluster.run_worker(main)"
    way_to_be_ready: str = "open a server, or await worker.run() or worker.ready()"

    def __init__(
        self,
        handle: WorkerHandle,
        invitation: Invitation,
        settings: Settings,
        switchboard: Switchboard,
        queue: EventQueue,
    ) -> None:
        self.handle: WorkerHandle = handle
        self.generation: int = invitation.generation
        self.settings: Settings = settings
        self._invitation = invitation
        self._switchboard = switchboard
        self._queue = queue
        self._spawned: Spawned | None = None
        self._sent: int | None = None
        # Signals that it was to be sent before there was a process.
        self._early_signals: list[int] = []
        # Who waits until messages were told, and whether nobody need do that any more.
        self._unread: set[trio.Event] = set()
        self._reads_ahead = False
        self._open_connections = 0
        self._disconnected = trio.Event()
        self._has_answered = trio.Event()
        self.state: ProcessState = ProcessState.STARTING
        self.started: float = trio.current_time()
        self.pid: int | None = None
        self.code: int | None = None
        self.signal: int | None = None
        self.voluntary: bool = False
        self.failure: str = ""
        self.has_joined: bool = False
        self.was_ready: bool = False
        self.control: pyipc.Connection | None = None
        self.messages: pyipc.Connection | None = None
        self.candidate: Candidate | None = None
        self.pulse: dict[str, Any] = {}
        self.pulses: int = 0
        self.memory: int | None = None
        self.in_flight: int = 0
        self.is_closed: bool = False
        self.online: trio.Event = trio.Event()
        self.taking: Taking = Taking(self._ask_for)
        self.is_listened_to: trio.Event = trio.Event()
        if handle.is_listened_to:
            self.is_listened_to.set()
        self.settled: trio.Event = trio.Event()
        self.gone: trio.Event = trio.Event()

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.handle.id!r} generation {self.generation} {self.state}, pid {self.pid}>"

    @property
    def courier(self) -> Courier:
        """What carries sockets to it, once it was started."""
        assert self._spawned is not None
        return self._spawned.courier

    @property
    def lag(self) -> float:
        """Seconds by which its event loop was late when it was last heard of."""
        lag = self.pulse.get("lag")
        return lag if isinstance(lag, int | float) else 0.0

    @property
    def is_ready(self) -> bool:
        """Whether it is ready, and stays."""
        return self.state is ProcessState.READY

    # --- its life ---

    async def run(self) -> None:
        """Start it, and be there until it is gone.

        Cancellation: it is sent SIGTERM, and killed after `Settings.kill_timeout`.
        """
        try:
            self._spawned = spawned = await self._spawn()
        except Exception as error:  # whatever the system, or its database of users, has against it
            self.failure = f"could not be started: {error}"
            self._report("error", error=error, reason=f"worker {self.handle.id!r} {self.failure}")
            self._conclude()
            return
        try:
            self.pid = spawned.process.pid
            for number in self._early_signals:
                self.send_signal(number)
            self.candidate = Candidate(spawned.courier, self, worker=self.handle.id, role=self.handle.role)
            self._report("fork")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.candidate.run)
                async with hidden_nursery() as beside:
                    beside.start_soon(spawned.run, self._adopt)
                    await spawned.process.wait()
                self._read_ahead()
                spawned.hang_up()
                self.is_listened_to.set()
                spawned.courier.finish()
                if self._open_connections:
                    with trio.move_on_after(_LAST_WORDS):
                        await self._disconnected.wait()
        finally:
            try:
                with trio.CancelScope(shield=True):
                    await self._reap(spawned)
            finally:
                self._conclude()

    async def _spawn(self) -> Spawned:
        """Start it.

        Raises:
            ClusterError, OSError: It cannot be started.

        Cancellation: a process that was started is killed.
        """
        return await spawn(self._invitation, self.settings)

    def _adopt(self, channel: Channel, link: Link) -> None:
        """It has come for one of its connections, or was given it."""
        self._open_connections += 1
        if channel is Channel.CONTROL:
            # On Windows what was started may be a launcher, such as in a virtual environment, and this its child.
            self.pid = link.peer.pid or self.pid
            self.control = self._switchboard.connect(self._switchboard.control, link, self)
        else:
            self.messages = self._switchboard.connect(self._switchboard.messages, link, self)

    def _take_status(self, status: int) -> None:
        """It has ended."""
        if status < 0 and sys.platform != "win32":
            self.signal = -status
        elif sys.platform == "win32" and status == _TERMINATED and self._sent is not None:
            self.signal = self._sent
        else:
            self.code = status
        if self.code == 0 and not (self.has_joined or self.voluntary or self.failure):
            self.failure = f"it ended without having joined the cluster; {self.way_to_join}"

    async def _reap(self, spawned: Spawned) -> None:
        """See to it that nothing of it is left."""
        if spawned.process.returncode is None:
            self.send_signal(signal.SIGTERM)
            with trio.move_on_after(self.settings.kill_timeout):
                await spawned.process.wait()
        if spawned.process.returncode is None:
            spawned.process.kill()
            with trio.move_on_after(_LAST_WORDS):
                await spawned.process.wait()
        if spawned.process.returncode is not None:
            self._take_status(spawned.process.returncode)
        if self.candidate is not None:
            self.candidate.close()
        await spawned.release()
        for connection in (self.control, self.messages):
            if connection is not None and connection.is_open:
                # A process that it started may hold the other end, or a handler may take long, but it says no more.
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await connection.aclose()

    def _conclude(self) -> None:
        self.state = ProcessState.GONE
        self.online.set()
        self.taking.settle()
        self.settled.set()
        if self._spawned is not None:
            if not self._disconnected.is_set():
                self._disconnected.set()
                self._report("disconnect", voluntary=self.voluntary)
            self._report("exit", code=self.code, signal=self.signal, voluntary=self.voluntary, reason=self.failure)
        self.gone.set()
        self.handle.process_changed(self)

    async def leave(self, message: str) -> None:
        """Let it finish and leave. When it does not, SIGTERM, and then SIGKILL; its settings say when.

        Args:
            message: Why, for its log.

        Cancellation: it is left as far as it has come.
        """
        drain_timeout, kill_timeout = self.settings.drain_timeout, self.settings.kill_timeout
        self.voluntary = True
        # Before it is online it has nothing to finish, and would hear of it only later.
        if self.has_joined and not self.gone.is_set():
            self.on_leaving()
            with trio.move_on_after(float("inf") if drain_timeout is None else drain_timeout + _GRACE):
                await self._ask_to_leave(message)
                await self.gone.wait()
        if not self.gone.is_set():
            if self.online.is_set():
                self._tell_overdue(f"it has not left within {drain_timeout} s, and is sent SIGTERM")
            self.send_signal(signal.SIGTERM)
            with trio.move_on_after(kill_timeout):
                await self.gone.wait()
        if not self.gone.is_set():
            self._tell_overdue(f"it has not ended {kill_timeout:g} s after SIGTERM, and is sent SIGKILL")
            self.kill()
            await self.gone.wait()

    async def _ask_to_leave(self, message: str) -> None:
        """Have it finish and leave by itself.

        Cancellation: it may have been asked.
        """
        assert self.control is not None
        with contextlib.suppress(pyipc.ConnectionClosed):  # it is on its way out already, and has the same time
            await self.control.emit(control.DRAIN, {"timeout": self.settings.drain_timeout, "message": message})

    def _tell_overdue(self, reason: str) -> None:
        """It was to leave, and something stronger is needed."""
        logger.warning("worker %r, process %s: %s", self.handle.id, self.pid, reason, extra=TOLD)
        self._report("unhealthy", reason=reason)

    def fail(self, reason: str) -> None:
        """End it at once, as it is not what it should be.

        Args:
            reason: In which way, for people.
        """
        self.failure = reason
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send it a signal. On Windows every signal ends it at once, and is what has ended it, as with Node.

        Raises:
            ValueError: There is no such signal.
        """
        number = signal_number(number)
        if self._spawned is None:
            self._early_signals.append(number)
        elif self._spawned.process.returncode is not None:
            return
        elif sys.platform == "win32":
            self._sent = number
            self._spawned.process.kill()
        else:
            self._spawned.process.send_signal(number)

    # --- what it says of itself ---

    def on_online(self) -> None:
        """It has connected, and its program begins."""
        if self.state is ProcessState.STARTING:
            self.state = ProcessState.ONLINE
            self.has_joined = True
            self._report("online")
            self.online.set()
            self.handle.process_changed(self)

    async def _ask_for(self, event: str) -> None:
        """Have it tell when its program has a handler for a name."""
        await self.online.wait()
        if self.control is not None:
            with contextlib.suppress(pyipc.ConnectionClosed):  # nobody waits any more when it is gone
                await self.control.emit(control.WANTED, event)

    def on_ready(self) -> None:
        """It can do its work."""
        self.taking.settle()
        # Over another connection it may have said before that it is enough, and have been told to leave.
        if self.state in (ProcessState.ONLINE, ProcessState.DRAINING) and not self.was_ready:
            self.was_ready = True
            if self.state is ProcessState.ONLINE:
                self.state = ProcessState.READY
            self._report("ready")
            self.settled.set()
            self.handle.process_changed(self)

    def on_listening(self, address: pyipc.Address) -> None:
        """A server of it listens."""
        self._report("listening", address=address)

    def on_pulse(self, pulse: dict[str, Any]) -> None:
        """It tells how it is."""
        self.pulses += 1
        self.pulse = pulse

    def on_failed(self, failure: str) -> None:
        """Its program failed."""
        self.failure = self.failure or failure

    async def on_leave(self, *, voluntary: bool) -> None:
        """It is about to end, and has nothing under way of its own: let the program's requests come to their end.

        Args:
            voluntary: Whether it means to end for good.

        Returns:
            When nothing is sent to it any more.

        Cancellation: it is talked to no more all the same.
        """
        self.voluntary |= voluntary
        self.on_leaving()
        self.is_closed = True
        self.taking.settle()
        self.is_listened_to.set()
        while self.in_flight:
            self._has_answered = trio.Event()
            await self._has_answered.wait()

    @property
    def open_connection(self) -> pyipc.Connection | None:
        """The connection for what programs say, where nothing that is said has to wait for a handler."""
        messages = self.messages
        if messages is None or self.is_closed or not self.taking.is_settled or not messages.is_open:
            return None
        return messages

    @property
    def can_be_asked(self) -> bool:
        """Whether its program answers requests, as far as is known."""
        return self.messages is not None and self.messages.is_open

    def check_sendable(self, event: str, data: object, attachments: Collection[Any] = ()) -> None:
        """See whether its program can be sent something.

        Raises:
            LocalProtocolError: It would not hear of it.
        """

    @contextlib.contextmanager
    def waited_for(self) -> Iterator[None]:
        """A block in which the primary's program waits for an answer of it."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.end_wait()

    def end_wait(self) -> None:
        """The primary's program waits for one thing less, which `in_flight` has counted."""
        self.in_flight -= 1
        if not self.in_flight:
            self._has_answered.set()

    def on_leaving(self) -> None:
        """It takes no more work: it was asked to leave, or does so by itself."""
        self._read_ahead()
        if self.state in (ProcessState.ONLINE, ProcessState.READY):
            self.state = ProcessState.DRAINING
            self.handle.process_changed(self)

    async def on_message(self, message: pyipc.Message[Any]) -> None:
        """It sent something with `Worker.send`.

        The next one is not read before everybody was told: unless the process is about to leave, as a handler may wait
        for just that, and it cannot end before its connection was read to the end.

        Cancellation: it may be told all the same.
        """
        if not self.online.is_set():
            await self.online.wait()  # of which it tells over another connection
        event = WorkerEvent(type="message", worker=self.handle, data=message.data, message=message)
        told = self._queue.report_now(event)
        if told is None:
            return
        if self._reads_ahead and self._queue.waiting(self.handle) <= _READ_AHEAD:
            return
        self._unread.add(told)
        try:
            await told.wait()
        finally:
            self._unread.discard(told)

    def _read_ahead(self) -> None:
        """Read on, though what it said before was not told yet."""
        self._reads_ahead = True
        for told in self._unread:
            told.set()

    def on_disconnect(self, ended: pyipc.Disconnected) -> None:
        """One of its connections has ended, and all that came over it was handled."""
        self._open_connections -= 1
        if self._open_connections == 0 and not self._disconnected.is_set():
            self._disconnected.set()
            self.on_leaving()
            self._report("disconnect", voluntary=self.voluntary)

    def _report(self, type: Any, **attributes: Any) -> None:
        self._queue.report(
            WorkerEvent(type=type, worker=self.handle, pid=self.pid, generation=self.generation, **attributes)
        )
