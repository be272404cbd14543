"""A nursery that nobody notices."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["errors_told", "hidden_nursery"]


@asynccontextmanager
async def hidden_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery that ends with its body, and pass the body's error on as it is.

    A nursery wraps what is raised in it in an exception group. Whoever uses a context manager that
    merely hides a nursery has no reason to expect that, and an ``except`` clause would miss. The
    tasks in it must not raise, other than to end the program; if one alone does, that too arrives
    as itself.
    """
    kept: BaseException | None = None
    own_group = False
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                if _find_cancellation(error):
                    own_group = isinstance(error, BaseExceptionGroup)
                    raise  # the scope that was cancelled has to see it
                kept = error  # past the nursery: it would make another group out of the body's own
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # If the cancellation came from outside, the group holds the Cancelled of each task as well.
        others = [error for error in group.exceptions if not _is_cancellation(error)]
        if kept is not None and others:
            raise BaseExceptionGroup("an error of the body and of the tasks beside it", [kept, *others]) from None
        if kept is None:
            kept = _alone(others, own_group)
            if kept is None:
                raise
    if kept is not None:
        try:
            raise kept
        finally:
            del kept


@contextmanager
def errors_told(tell: Callable[[Exception], None]) -> Iterator[None]:
    """A context around a user's code whose errors are told, and go no further.

    A handler's own nursery may be cancelled while one of its tasks fails; what comes out of it is neither an
    `Exception` nor a cancellation, but both. The errors of it are told, and the cancellation alone goes on.
    """
    try:
        yield
    except Exception as error:
        tell(error)
    except BaseExceptionGroup as group:
        errors, others = group.split(Exception)
        if errors is not None:
            tell(errors)
        if others is not None:
            raise others from None


def _alone(errors: list[BaseException], own_group: bool) -> BaseException | None:
    """The one error that matters, if there is one and it is to arrive as itself."""
    if len(errors) != 1:
        return None
    error = errors[0]
    if own_group:
        return error  # what is left of the body's group without the cancellation
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # one level for each nursery that it came through
    return None if isinstance(error, Exception) else error


def _find_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_find_cancellation, error.exceptions))
    return isinstance(error, trio.Cancelled)


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_cancellation, error.exceptions))
    return isinstance(error, trio.Cancelled)
