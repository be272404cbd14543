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
        if len(group.exceptions) != 1:
            raise
        (only,) = group.exceptions
        if body_error is None and isinstance(only, Exception):
            raise
        context = only.__context__
        try:
            raise only
        finally:
            only.__context__ = context
            del only, body_error
