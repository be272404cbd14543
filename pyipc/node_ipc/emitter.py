"""Handlers by the name of an event, with node-ipc's rules: ``*`` is all events, and handlers take arguments."""

from __future__ import annotations

import inspect
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pyipc.node_ipc.arguments import Callback

__all__ = ["ALL", "Emitter", "errors_logged", "most_arguments", "wait_for"]

F = TypeVar("F", bound="Callback")
logger: logging.Logger = logging.getLogger("pyipc.node_ipc")

#: The event, and in `Emitter.off` the handler, that stands for all.
ALL: Final = "*"


class _Handler:
    """One registration."""

    __slots__ = ("_most", "function", "once")

    def __init__(self, function: Callback, once: bool) -> None:
        self.function = function
        self.once = once
        self._most = most_arguments(function)

    def call(self, arguments: tuple[Any, ...]) -> object:
        """Call the function with as many of the arguments as it takes."""
        return self.function(*arguments[: self._most])


class Emitter:
    """Something that has events.

    A handler is a plain or async function, and may take fewer arguments than its event has. What it raises is
    logged and keeps nobody else from anything. Handlers of ``*`` get the name of the event before its arguments,
    and are called before the handlers of that name; otherwise they are called in order of registration.

    Args:
        start: Runs a function with arguments in a task of its own.
    """

    def __init__(self, start: Callable[..., None]) -> None:
        self._start = start
        self._handlers: dict[str, tuple[_Handler, ...]] = {}

    @overload
    def on(self, event: str, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def on(self, event: str, handler: F) -> F: ...

    def on(self, event: str, handler: F | None = None) -> F | Callable[[F], F]:
        """Call a function whenever an event happens; without ``handler``, as a decorator."""
        return self._register(event, handler, once=False)

    @overload
    def once(self, event: str, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def once(self, event: str, handler: F) -> F: ...

    def once(self, event: str, handler: F | None = None) -> F | Callable[[F], F]:
        """Like `on`, for the next time alone."""
        return self._register(event, handler, once=True)

    def off(self, event: str, handler: Callback | str = ALL) -> None:
        """Undo `on` and `once`. What is not registered is nothing to undo.

        Args:
            event: The event; ``"*"`` for the handlers that were registered for ``"*"``.
            handler: Which one, or ``"*"`` for all of this event.
        """
        kept = tuple(one for one in self._handlers.get(event, ()) if handler != ALL and one.function != handler)
        if kept:
            self._handlers[event] = kept
        else:
            self._handlers.pop(event, None)

    async def publish(self, event: str, *arguments: object) -> None:
        """Call the handlers of an event, async ones one after the other.

        Cancellation: the handlers that were not called yet are not.
        """
        for handler, given in self._take(event, arguments):
            with errors_logged(event):
                result = handler.call(given)
                if inspect.isawaitable(result):
                    await result

    def _announce(self, event: str, *arguments: object) -> None:
        """Call the handlers of an event that nothing waits for: each async one gets a task of its own.

        It may so go on for as long as it likes, as what is begun with a timer in a node-ipc program does.
        """
        for handler, given in self._take(event, arguments):
            with errors_logged(event):
                result = handler.call(given)
                if inspect.isawaitable(result):
                    self._start(wait_for, result, event)

    def _take(self, event: str, arguments: tuple[object, ...]) -> Iterator[tuple[_Handler, tuple[object, ...]]]:
        """The handlers to call now, and with what; whoever comes or goes meanwhile changes nothing."""
        calls = [(ALL, one, (event, *arguments)) for one in self._handlers.get(ALL, ())]
        if event != ALL:  # a peer may call an event so, which has no handlers beside those
            calls += [(event, one, arguments) for one in self._handlers.get(event, ())]
        for name, handler, given in calls:
            if handler.once:
                kept = tuple(one for one in self._handlers.get(name, ()) if one is not handler)
                if len(kept) == len(self._handlers.get(name, ())):
                    continue  # somebody took it off, or its one call has been made
                self._handlers[name] = kept
            yield handler, given

    def _register(self, event: str, handler: F | None, *, once: bool) -> F | Callable[[F], F]:
        if not isinstance(event, str):
            raise TypeError(f"an event is a text, not {event!r}")

        def add(function: F) -> F:
            if not callable(function):
                raise TypeError(f"a handler is a function, not {function!r}")
            self._handlers[event] = (*self._handlers.get(event, ()), _Handler(function, once))
            return function

        return add if handler is None else add(handler)


@contextmanager
def errors_logged(event: str) -> Iterator[None]:
    """A context around a program's handler, whose errors are logged and go no further."""
    try:
        yield
    except Exception:
        logger.exception("a handler of %r failed", event)
    except BaseExceptionGroup as group:
        # A nursery of its own may have been cancelled while a task of it failed.
        errors, others = group.split(Exception)
        if errors is not None:
            logger.error("a handler of %r failed", event, exc_info=errors)
        if others is not None:
            raise others from None


async def wait_for(result: Awaitable[object], event: str) -> None:
    """Wait for what an async handler of an event returned; what it raises is logged.

    Cancellation: cancels the handler.
    """
    with errors_logged(event):
        await result


def most_arguments(function: Callback) -> int | None:
    """How many arguments a function takes; ``None`` for any number."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None  # some builtins do not tell what they take
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return None
    return sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters)
