"""A nursery that nobody notices."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["hidden_nursery"]


@asynccontextmanager
async def hidden_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery that ends with its body, and pass the body's error on as it is.

    A nursery wraps what is raised in it in an exception group. Whoever uses a context manager that
    merely hides a nursery has no reason to expect that, and an ``except`` clause would miss. The
    tasks in it must not raise, other than to end the program; if one alone does, that too arrives
    as itself.
    """
    body_error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                body_error = error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        alone = _alone(group, body_error)
        if alone is None:
            raise
        context = alone.__context__
        try:
            raise alone
        finally:
            alone.__context__ = context
            del alone, group, body_error


def _alone(group: BaseExceptionGroup[BaseException], body_error: BaseException | None) -> BaseException | None:
    """The only error of a nursery that matters, if it is the body's or ends the program."""
    # If the cancellation came from outside, the group holds the Cancelled of each task as well.
    others = [error for error in group.exceptions if error is not body_error and not _is_cancellation(error)]
    if len(others) == 0:
        return body_error
    if len(others) > 1 or (body_error in group.exceptions and not _is_cancellation(body_error)):
        return None
    error = others[0]
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # one level for each nursery that it came through
    return None if isinstance(error, Exception) else error


def _is_cancellation(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_cancellation, error.exceptions))
    return isinstance(error, trio.Cancelled)
