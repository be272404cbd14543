"""What happens to workers, and who is told of it.

The names are those of Node's cluster module, and three more. They are not names of messages: no worker can bring one
about but by doing what it stands for.
"""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import inspect
import itertools
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

import trio

from pyipc.nursery import errors_told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import pyipc
    from pyipc.cluster.handle import WorkerHandle
    from pyipc.cluster.settings import Settings

__all__ = ["EVENTS", "TOLD", "EventQueue", "EventType", "Events", "WorkerEvent"]

EventType = Literal[
    "setup",
    "fork",
    "online",
    "listening",
    "message",
    "disconnect",
    "exit",
    "error",
    "ready",
    "restart",
    "unhealthy",
]
EVENTS: Final[tuple[EventType, ...]] = (
    "setup",
    "fork",
    "online",
    "listening",
    "message",
    "disconnect",
    "exit",
    "error",
    "ready",
    "restart",
    "unhealthy",
)

logger: logging.Logger = logging.getLogger("pyipc.cluster")

#: Extra of log records of which an event tells as well: who shows both may leave them out.
TOLD: Final = {"told_as_event": True}

F = TypeVar("F", bound="Callable[[WorkerEvent], object]")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEvent:
    """Something that happened to a worker. Which attributes are set depends on the type.

    Attributes:
        type: What happened; one of `EVENTS`.
        worker: Whom it happened to; ``None`` for ``setup`` alone.
        pid: Which process of the worker it was, which after a reload need not be the present one.
        generation: The same, counted from 1 on.
        settings: ``setup``: what workers are started with from now on.
        address: ``listening``: where its server can be reached.
        data: ``message``: what it sent with `Worker.send`.
        message: ``message``: all that arrived.
        code: ``exit``: the exit code; ``None`` if a signal ended it.
        signal: ``exit``: the number of the signal that ended it.
        voluntary: ``exit`` and ``disconnect``: whether that was asked for, by the primary or by the worker itself.
        delay: ``restart``: seconds until it is started again.
        reason: Why, in words: ``restart``, ``unhealthy``, ``error``; ``exit`` where its program could tell.
        error: ``error``: what went wrong.
    """

    type: EventType
    worker: WorkerHandle | None = None
    pid: int | None = None
    generation: int | None = None
    settings: Settings | None = None
    address: pyipc.Address | None = None
    data: Any = None
    message: pyipc.Message[Any] | None = None
    code: int | None = None
    signal: int | None = None
    voluntary: bool | None = None
    delay: float | None = None
    reason: str = ""
    error: BaseException | None = None


@dataclasses.dataclass(eq=False, slots=True)
class _Registration:
    handler: Callable[[WorkerEvent], object]
    once: bool


class Events:
    """Something of which things can be heard: a cluster, or one worker. Handlers get one `WorkerEvent`.

    They may be async. What happens to one worker is told in the order in which it happens, to one handler after the
    other, in the order in which they were registered; what happens to another worker may be told meanwhile, so a
    handler may well wait for that. What one raises is logged, and goes no further.
    """

    def __init__(self) -> None:
        self._registered: dict[str, list[_Registration]] = {}

    @overload
    def on(self, type: EventType, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def on(self, type: EventType, handler: F) -> F: ...

    def on(self, type: EventType, handler: Any = None) -> Any:
        """Call a function, plain or async, whenever this happens. Without a function, a decorator.

        Args:
            type: ``"setup"``, ``"fork"``, ``"online"``, ``"listening"``, ``"message"``, ``"disconnect"``, ``"exit"`` or
                ``"error"``, as with Node, ``"ready"``, ``"restart"`` or ``"unhealthy"``.
            handler: The function.

        Raises:
            ValueError: There is no such event.
        """
        return self._add(type, handler, once=False)

    @overload
    def once(self, type: EventType, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def once(self, type: EventType, handler: F) -> F: ...

    def once(self, type: EventType, handler: Any = None) -> Any:
        """Likewise, but only the next time."""
        return self._add(type, handler, once=True)

    def off(self, type: EventType, handler: Callable[[WorkerEvent], object] | None = None) -> None:
        """Call a function no more; without one, none of this type."""
        self._check(type)
        kept = [each for each in self._registered.get(type, []) if handler is not None and each.handler is not handler]
        self._registered[type] = kept

    def _add(self, type: str, handler: Any, *, once: bool) -> Any:
        self._check(type)
        if handler is None:
            return lambda function: self._add(type, function, once=once)
        if not callable(handler):
            raise TypeError(f"a handler is a function that takes one WorkerEvent, and {handler!r} is none")
        self._registered.setdefault(type, []).append(_Registration(handler, once))
        return handler

    def _check(self, type: str) -> None:
        if type not in EVENTS:
            raise ValueError(
                f"a cluster has no event {type!r}; there are {', '.join(EVENTS)}. What workers send under names of "
                "their own is handled by `router`"
            )

    def _has(self, type: EventType) -> bool:
        """Whether anybody is to be told."""
        return bool(self._registered.get(type))

    def _calls(self, event: WorkerEvent) -> Iterator[Awaitable[None]]:
        """Call the handlers, one after the other. What one raises is logged, and goes no further.

        Returns:
            For each that is async, what is to be awaited before the next is called.
        """
        for each in tuple(self._registered.get(event.type, ())):
            present = self._registered[event.type]
            if each not in present:
                continue  # a handler before it has taken it off, or another event was the next time
            if each.once:
                present.remove(each)
            with errors_told(partial(_log_failure, event.type)):
                result = each.handler(event)
                if result is not None and inspect.isawaitable(result):
                    yield _finished(event.type, result)


async def _finished(type: EventType, result: Awaitable[object]) -> None:
    with errors_told(partial(_log_failure, type)):
        await result


def _log_failure(type: EventType, error: Exception) -> None:
    logger.error("a handler of the event %r of the cluster failed", type, exc_info=error)


# Whether this is a handler of the queue, or a task that one has started.
_is_handler: contextvars.ContextVar[bool] = contextvars.ContextVar("pyipc.cluster.events.is_handler", default=False)

# Seconds that handlers of the last events may take when a cluster ends.
_PATIENCE = 30.0


@dataclasses.dataclass(eq=False, slots=True)
class _Report:
    """An event that is to be told by these calls; whoever waits for that waits for ``told``."""

    number: int
    calls: Iterator[Awaitable[None]]
    told: trio.Event = dataclasses.field(default_factory=trio.Event)


class EventQueue:
    """Tells events, without whoever reports them having to wait.

    What happens to one worker is told in the order in which it happened. A handler may wait for another worker, and
    what that one does until then has to be told meanwhile: so each has a lane of its own.
    """

    def __init__(self, cluster_events: Events) -> None:
        self._events = cluster_events
        # Bounded by what happens to processes; of what workers say, `WorkerProcess` reads only so much ahead.
        self._lanes: dict[WorkerHandle | None, collections.deque[_Report]] = {}
        self._nursery: trio.Nursery | None = None
        self._context = contextvars.Context()
        self._reported = 0
        self._progress = trio.Event()

    async def run(self) -> None:
        """Tell events, until cancelled.

        Cancellation: what was not told yet is not told.
        """
        _is_handler.set(True)
        # Handlers must not have the context of whoever reports something, such as a request under way.
        self._context = contextvars.copy_context()
        try:
            async with trio.open_nursery() as self._nursery:
                for worker in self._lanes:
                    self._nursery.start_soon(self._tell_all, worker)
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def _tell_all(self, worker: WorkerHandle | None) -> None:
        """Tell what has happened to a worker: the handlers of the worker first, then those of the cluster."""
        lane = self._lanes[worker]
        while lane:
            report = lane[0]
            for call in report.calls:
                await call
            lane.popleft()
            report.told.set()
            self._progress.set()
            self._progress = trio.Event()
        del self._lanes[worker]

    def report(self, event: WorkerEvent) -> trio.Event:
        """Something happened.

        Returns:
            What is set once everybody was told.
        """
        report = self._new(event)
        self._lane(event.worker).append(report)
        return report.told

    def report_now(self, event: WorkerEvent) -> trio.Event | None:
        """Something happened, and handlers that are not async may be called right here.

        Returns:
            What is set once everybody was told; ``None`` if everybody is, without a turn of the scheduler.
        """
        if self._nursery is None or event.worker in self._lanes:
            return self.report(event)
        report = self._new(event)
        call = self._context.copy().run(next, report.calls, None)
        if call is None:
            return None
        report.calls = itertools.chain((call,), report.calls)
        # A handler may have brought something about, which comes after this.
        self._lane(event.worker).appendleft(report)
        return report.told

    def _calls(self, event: WorkerEvent) -> Iterator[Awaitable[None]]:
        if event.worker is not None:
            yield from event.worker._calls(event)
        yield from self._events._calls(event)

    def _new(self, event: WorkerEvent) -> _Report:
        self._reported += 1
        return _Report(self._reported, self._calls(event))

    def _lane(self, worker: WorkerHandle | None) -> collections.deque[_Report]:
        lane = self._lanes.get(worker)
        if lane is None:
            lane = self._lanes[worker] = collections.deque()
            if self._nursery is not None:
                self._context.run(self._nursery.start_soon, self._tell_all, worker)
        return lane

    def waiting(self, worker: WorkerHandle) -> int:
        """How many events of a worker are not told yet."""
        return len(self._lanes.get(worker, ()))

    async def wait_told(self) -> None:
        """Wait until everybody was told of all that has happened until now; a handler that asks for it does not wait.

        Cancellation: nothing is changed by it.
        """
        last = self._reported
        with trio.move_on_after(_PATIENCE):
            while not _is_handler.get() and any(lane and lane[0].number <= last for lane in self._lanes.values()):
                await self._progress.wait()
            return
        logger.error("a handler of an event of the cluster does not return; later events are not told")
