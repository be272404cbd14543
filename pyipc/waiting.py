"""Awaitables that were begun outside of an ``await``, and turned out to wait.

Most async handlers finish without waiting for anything. So whoever has one to await takes the first step itself. If
that was all, it has cost no more than a function call. If the awaitable gives way to the scheduler, this is the moment
to pass on whatever must not wait with it, before the rest is awaited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

__all__ = ["Waiting", "begin"]


class Waiting:
    """The rest of an awaitable, to be awaited once. To the scheduler it is as if it had been awaited all along.

    Args:
        steps: What its ``__await__`` returned.
        step: What came of the first step.
    """

    __slots__ = ("_step", "_steps")

    def __init__(self, steps: Generator[Any, Any, Any], step: Any) -> None:
        self._steps = steps
        self._step = step

    def __await__(self) -> Generator[Any, Any, Any]:
        steps, step = self._steps, self._step
        try:
            while True:
                try:
                    sent = yield step
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(sent)
        except StopIteration as done:
            return done.value


def begin(awaitable: Awaitable[object]) -> Waiting | None:
    """Run an awaitable up to where it first waits, in the task and the cancel scopes that will await the rest.

    Returns:
        The rest; ``None`` if there is none. Raises what the awaitable does.
    """
    steps = awaitable.__await__()
    try:
        step = next(steps)
    except StopIteration:
        return None
    return Waiting(steps, step)
