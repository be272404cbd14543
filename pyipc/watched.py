"""Noticing the moment at which an awaitable really waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["Watched"]

T = TypeVar("T")


class Watched(Generic[T]):
    """Awaits something, and calls back the first time that it gives way to the scheduler.

    Most handlers answer without waiting for anything. Run in this wrapper by the task that reads,
    such a handler costs no task and no scheduler turn, and one that does wait gives the reading
    task the chance to pass its work on before it does. To the scheduler the wrapper is invisible:
    it passes on what is yielded, sent and thrown.

    Args:
        awaitable: What to await, once.
        on_wait: Called without arguments, at most once; must not raise.
    """

    __slots__ = ("_awaitable", "_on_wait")

    def __init__(self, awaitable: Awaitable[T], on_wait: Callable[[], None]) -> None:
        self._awaitable = awaitable
        self._on_wait = on_wait

    def __await__(self) -> Generator[Any, Any, T]:
        steps: Any = self._awaitable.__await__()
        try:
            step = next(steps)
            self._on_wait()
            while True:
                try:
                    sent = yield step
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(sent)
        except StopIteration as done:
            result: T = done.value
            return result
