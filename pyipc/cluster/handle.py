"""A worker, as its primary's program sees it: one id, through one process after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import signal as signals
import types
from typing import TYPE_CHECKING, Any, TypeVar, overload

import trio

import pyipc
from pyipc.cluster.events import Events
from pyipc.cluster.process import ProcessState
from pyipc.cluster.signals import signal_number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from pyipc.cluster.job import Attachment
    from pyipc.cluster.process import WorkerProcess
    from pyipc.cluster.settings import Settings

__all__ = ["ProcessInfo", "WorkerHandle", "WorkerInfo"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A row of the table of workers.

    Attributes:
        id: Its id.
        role: Its role; may be empty.
        state: ``"starting"``, ``"online"``, ``"ready"``, ``"draining"``, ``"waiting"`` (to be started again),
            ``"failed"`` (it was started again too often) or ``"gone"``.
        pid: The process id, while there is a process.
        generation: How many processes it has had.
        restarts: How often it was started again because its process had ended.
        uptime: Seconds since its process was started; 0 while there is none.
        in_flight: Requests of the primary's program, and jobs, that it has not answered.
        connections: Connections that it was given and still has.
        memory: Resident bytes of its process, if that is known.
        lag: Seconds by which its event loop was late when it last told.
        env: Variables that it was started with beside those of all.
    """

    id: str
    role: str
    state: str
    pid: int | None
    generation: int
    restarts: int
    uptime: float
    in_flight: int
    connections: int
    memory: int | None
    lag: float | None
    env: Mapping[str, str | None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """One process of a worker.

    Attributes:
        pid: The process id; ``None`` before it was started.
        generation: How many processes the worker has had until this one, that included.
        state: ``"starting"``, ``"online"``, ``"ready"``, ``"draining"`` or ``"gone"``.
        code: Its exit code; ``None`` while it is there, and if a signal ended it.
        signal: The number of the signal that ended it.
        voluntary: Whether its end was asked for, by the primary or by itself.
        failure: Why it was ended, or why its program failed, as far as it could tell; may be empty.
    """

    pid: int | None
    generation: int
    state: str
    code: int | None
    signal: int | None
    voluntary: bool
    failure: str


class WorkerHandle(Events):
    """One worker. Made by `Cluster.fork`.

    What is sent to it goes to its present process. While that starts, it waits until the program in there has a handler
    for it, or is ready; when there is none, or it ends meanwhile, the caller gets `pyipc.ConnectionLost`.

    Args:
        id: Its id.
        role: Its role.
        env: Variables for its environment, beside those of all workers.
        settings: What it is started with.
        overrides: In what these differ from those of its cluster.

    Attributes:
        id: As given.
        role: As given.
        env: As given.
        settings: What its next process is started with.
        overrides: As given.
        begun: How many processes were started for it.
        restarts: How often it was started again because its process had ended.
        current: The process that it has, or had last.
        is_leaving: Whether it is to end for good.
        has_failed: Whether it was given up.
        was_ready: Whether a process of it has ever been ready.
        is_listened_to: Whether the primary's program can be expected to have its handlers.
        gone: Is set when it has no process any more, and will have none.
    """

    def __init__(
        self,
        id: str,
        role: str,
        env: Mapping[str, str | None],
        settings: Settings,
        overrides: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> None:
        self.id: str = id
        self.role: str = role
        self.env: Mapping[str, str | None] = dict(env)
        self.settings: Settings = settings
        self.overrides: Mapping[str, Any] = dict(overrides)
        super().__init__()
        self.begun: int = 0
        self.restarts: int = 0
        self.current: WorkerProcess | None = None
        self.is_leaving: bool = False
        self.has_failed: bool = False
        self.was_ready: bool = False
        self.is_listened_to: bool = False
        self.gone: trio.Event = trio.Event()
        self._changed = trio.Event()
        self._watchers: list[Callable[[WorkerProcess], None]] = []

    def __repr__(self) -> str:
        role = f" ({self.role})" if self.role else ""
        return f"<WorkerHandle {self.id!r}{role} {self.state}, pid {self.pid}>"

    # --- what it is ---

    @property
    def state(self) -> str:
        """How far it has come; see `WorkerInfo`."""
        if self.has_failed:
            return "failed"
        if self.current is None:
            return "gone" if self.is_leaving else "starting"
        if self.current.state is ProcessState.GONE and not self.gone.is_set():
            return "waiting"
        return str(self.current.state)

    @property
    def pid(self) -> int | None:
        """The id of its process; ``None`` while there is none."""
        return None if self.current is None or self.is_dead else self.current.pid

    @property
    def process(self) -> ProcessInfo | None:
        """Its process, as of now: the one that it has, or had last. ``None`` before there was any."""
        process = self.current
        if process is None:
            return None
        return ProcessInfo(
            pid=process.pid,
            generation=process.generation,
            state=str(process.state),
            code=process.code,
            signal=process.signal,
            voluntary=process.voluntary,
            failure=process.failure,
        )

    @property
    def is_connected(self) -> bool:
        """Whether its process can be talked to."""
        messages = None if self.current is None else self.current.messages
        return messages is not None and messages.is_open

    @property
    def is_dead(self) -> bool:
        """Whether its process has ended."""
        return self.current is None or self.current.state is ProcessState.GONE

    @property
    def is_ready(self) -> bool:
        """Whether it can do its work, and stays."""
        return self.current is not None and self.current.is_ready and not self.is_leaving

    @property
    def generation(self) -> int:
        """How many processes it has had until the present one, that included."""
        return 0 if self.current is None else self.current.generation

    @property
    def takes_jobs(self) -> bool:
        """Whether it can be given work."""
        return self.is_ready and self.current is not None and self.current.can_be_asked

    @property
    def exited_after_disconnect(self) -> bool | None:
        """Whether the end of its last process was asked for; ``None`` while it has not ended."""
        if self.current is None or self.current.state is not ProcessState.GONE:
            return None
        return self.current.voluntary

    @property
    def in_flight(self) -> int:
        """Requests and jobs that it has not answered."""
        return 0 if self.current is None else self.current.in_flight

    def info(self) -> WorkerInfo:
        """Its row of the table, as of now."""
        process = self.current
        alive = process is not None and process.state is not ProcessState.GONE
        pulse = process.pulse if process is not None and alive else {}
        return WorkerInfo(
            id=self.id,
            role=self.role,
            state=self.state,
            pid=self.pid,
            generation=self.generation,
            restarts=self.restarts,
            uptime=trio.current_time() - process.started if process is not None and alive else 0.0,
            in_flight=self.in_flight,
            connections=0 if process is None or process.candidate is None else process.candidate.open_connections,
            memory=process.memory if process is not None and alive else None,
            lag=pulse.get("lag"),
            env=self.env,
        )

    # --- talking to it ---

    async def send(self, data: object) -> None:
        """Send it something, for its handlers of ``message``, as Node's ``worker.send()`` does; see `emit`.

        Cancellation: a cancelled send has sent nothing.
        """
        await self.emit("message", data)

    async def emit(
        self, event: str, data: object = None, *, attachments: Iterable[Any] = (), confirm: bool = False
    ) -> None:
        """Send it an event. See `pyipc.Connection.emit`.

        Raises:
            ConnectionLost: It has no process, or that ended before the event was sent; with ``confirm``, before it was
                confirmed.
            LocalProtocolError: The event cannot be sent.

        Cancellation: a cancelled emit has sent nothing, unless it was waiting to be confirmed.
        """
        process = self.current
        connection = None if process is None else process.open_connection
        if process is None or connection is None:
            process, connection = await self._connection(event)
        process.check_sendable(event, data)
        # Without a context manager, which would cost more than the rest.
        process.in_flight += 1
        try:
            if attachments or confirm:
                await connection.emit(event, data, attachments=attachments, confirm=confirm)
            else:
                await connection.emit(event, data)
        finally:
            process.end_wait()

    @overload
    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        traceparent: str = "",
    ) -> Any: ...

    @overload
    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        result: type[T],
        traceparent: str = "",
    ) -> T: ...

    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        result: Any = None,
        traceparent: str = "",
    ) -> Any:
        """Ask it something, and wait for the answer. See `pyipc.Connection.request`.

        Args:
            timeout: Seconds to wait; ``None``, the default, for as long as its process is there.

        Raises:
            RequestError: It was not answered with a result.
            ConnectionLost: It has no process, or that ended; ``maybe_handled`` says whether it may have acted.
            LocalProtocolError: The request cannot be sent.

        Cancellation: the worker is told, and cancels its handler.
        """
        process = self.current
        connection = None if process is None else process.open_connection
        if process is None or connection is None:
            process, connection = await self._connection(event)
        process.in_flight += 1
        try:
            return await connection.request(
                event, data, attachments=attachments, timeout=timeout, result=result, traceparent=traceparent
            )
        finally:
            process.end_wait()

    @overload
    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        traceparent: str = "",
    ) -> AbstractAsyncContextManager[pyipc.Stream[Any]]: ...

    @overload
    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        result: type[T],
        traceparent: str = "",
    ) -> AbstractAsyncContextManager[pyipc.Stream[T]]: ...

    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        result: Any = None,
        traceparent: str = "",
    ) -> AbstractAsyncContextManager[pyipc.Stream[Any]]:
        """Ask it for a stream. See `pyipc.Connection.stream`.

        Raises:
            ConnectionLost: It has no process.
        """
        return self._stream(
            event,
            data,
            {"attachments": list(attachments), "timeout": timeout, "result": result, "traceparent": traceparent},
        )

    @contextlib.asynccontextmanager
    async def _stream(self, event: str, data: object, how: dict[str, Any]) -> AsyncIterator[pyipc.Stream[Any]]:
        process, connection = await self._connection(event)
        with process.waited_for():
            async with connection.stream(event, data, **how) as stream:
                yield stream

    async def _connection(self, event: str) -> tuple[WorkerProcess, pyipc.Connection]:
        """Its process and the connection with it, once its program has a handler, or is ready."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.current is None and not self.gone.is_set():
            await self.wait_changed()
        process = self.current
        if process is not None and not process.taking.is_settled:
            await process.taking.wait(event)
        if process is None or process.messages is None or not process.messages.is_open or process.is_closed:
            raise pyipc.ConnectionLost(
                f"worker {self.id!r} has no process that could be talked to (it is {self.state}); nothing was sent"
            )
        return process, process.messages

    # --- its end ---

    async def disconnect(self) -> None:
        """Let it finish and leave, for good. Returns when it is gone.

        It may take its setting ``drain_timeout``; then SIGTERM follows, and after ``kill_timeout`` SIGKILL.

        Cancellation: it leaves all the same.
        """
        self.leave()
        await self.gone.wait()

    def kill(self, signal: int = signals.SIGTERM) -> None:
        """Send its process a signal, and do not start it again. On Windows every signal ends it at once.

        Raises:
            ValueError: There is no such signal.
        """
        number = signal_number(signal)  # before anything is done
        self.leave()
        if self.current is not None:
            self.current.voluntary = True
            self.current.send_signal(number)

    def leave(self) -> None:
        """It is not to be started again."""
        self.is_leaving = True
        self._notify()

    # --- for the cluster ---

    def listen(self) -> None:
        """Whoever has started it goes on now: what it says waits for handlers no longer."""
        self.is_listened_to = True
        if self.current is not None:
            self.current.is_listened_to.set()

    def watch(self, changed: Callable[[WorkerProcess], None]) -> None:
        """Call a function whenever the state of one of its processes has changed."""
        self._watchers.append(changed)

    def process_changed(self, process: WorkerProcess) -> None:
        """The state of one of its processes has changed."""
        self.was_ready |= self.current is not None and self.current.was_ready
        self._notify()
        for changed in self._watchers:
            changed(process)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_changed(self) -> None:
        """Wait for the next change of its state.

        Cancellation: nothing is changed by it.
        """
        await self._changed.wait()
