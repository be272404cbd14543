"""What happens to workers, and who is told of it.

The names are those of Node's cluster module, and three more. They are not names of messages: no worker can bring one
about but by doing what it stands for.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

import trio

from pyipc.nursery import errors_told

if TYPE_CHECKING:
    from collections.abc import Callable

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

    They are called one after the other, in the order in which things happen and in which they were registered, and may
    be async. What one raises is logged, and goes no further.
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

    async def _tell(self, event: WorkerEvent) -> None:
        """Call the handlers, one after the other. What one raises is logged, and goes no further.

        Cancellation: the remaining handlers are not called.
        """
        for each in tuple(self._registered.get(event.type, ())):
            present = self._registered[event.type]
            if each not in present:
                continue  # a handler before it has taken it off, or another event was the next time
            if each.once:
                present.remove(each)
            with errors_told(partial(_log_failure, event.type)):
                result = each.handler(event)
                if inspect.isawaitable(result):
                    await result


def _log_failure(type: EventType, error: Exception) -> None:
    logger.error("a handler of the event %r of the cluster failed", type, exc_info=error)


# Whether this is a handler of the queue, or a task that one has started.
_is_handler: ContextVar[bool] = ContextVar("pyipc.cluster.events.is_handler", default=False)

# Seconds that handlers of the last events may take when a cluster ends.
_PATIENCE = 30.0


class EventQueue:
    """Tells events in the order in which they happened, without whoever reports them having to wait."""

    def __init__(self, cluster_events: Events) -> None:
        self._events = cluster_events
        # Bounded by what happens to processes; what workers say comes another way, and waits.
        self._send, self._receive = trio.open_memory_channel[tuple[WorkerEvent, "trio.Event | None"]](float("inf"))
        self._reported = 0
        self._told = 0
        self._progress = trio.Event()

    async def run(self) -> None:
        """Tell events, until cancelled.

        Cancellation: what was not told yet is not told.
        """
        _is_handler.set(True)
        async for event, told in self._receive:
            await self.deliver(event)
            if told is not None:
                told.set()
            self._told += 1
            self._progress.set()
            self._progress = trio.Event()

    async def deliver(self, event: WorkerEvent) -> None:
        """Tell one now: the handlers of its worker first, then those of the cluster.

        Cancellation: the remaining handlers are not called.
        """
        if event.worker is not None:
            await event.worker._tell(event)
        await self._events._tell(event)

    def report(self, event: WorkerEvent) -> trio.Event:
        """Something happened.

        Returns:
            What is set once everybody was told.
        """
        told = trio.Event()
        self._reported += 1
        self._send.send_nowait((event, told))
        return told

    async def wait_told(self) -> None:
        """Wait until everybody was told of all that has happened until now, but for the handler that asks for it.

        Cancellation: nothing is changed by it.
        """
        goal = self._reported
        with trio.move_on_after(_PATIENCE):
            while self._told < goal and not _is_handler.get():
                await self._progress.wait()
            return
        logger.error("a handler of an event of the cluster does not return; later events are not told")
