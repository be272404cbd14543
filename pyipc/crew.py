"""The tasks of one connection.

Nearly always there is one. A nursery to hold it would be a fourth of what an idle connection costs in time and memory,
and there may be ten thousand of them. So the helpers that a task needs now and then are started in the nursery of the
connection's owner, and a crew promises for them what a nursery would: they are cancelled with the first task, none
outlives the block, and an error of one cancels all.
"""

from __future__ import annotations

import contextvars
import logging
import math
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Crew"]

logger: logging.Logger = logging.getLogger("pyipc.connection")

_LONG_AGO = -1e300


class Crew:
    """A first task, which enters the crew with ``async with``, and those that help it.

    The block gives the scope that cancels the first task alone. Leaving it waits for the helpers; leaving it with an
    error, or cancelled from outside, cancels them before.

    Args:
        nursery: Where helpers are started. It must outlive the crew.

    Attributes:
        nursery: As given.
    """

    __slots__ = ("_cancelled", "_context", "_done", "_ended", "_first", "_scopes", "nursery")

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery: trio.Nursery = nursery
        # Helpers are started by handlers that are about to wait. They must not inherit what those have set.
        self._context = contextvars.copy_context()
        self._first = trio.CancelScope()
        # Of the helpers, from when they are started, which is before they run.
        self._scopes: list[trio.CancelScope] = []
        self._cancelled = False
        self._ended = False
        self._done: trio.lowlevel.ParkingLot | None = None

    async def __aenter__(self) -> trio.CancelScope:
        return self._first.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        own = False
        try:
            own = self._first.__exit__(kind, error, traceback)
            if error is None or own:
                await self._wait_for_helpers()
        finally:
            if self._scopes:
                self.cancel()
                with trio.CancelScope(shield=True):
                    await self._wait_for_helpers()
            self._ended = True
        return own

    def start(self, task: Callable[..., Any], *args: Any, scope: trio.CancelScope | None = None) -> None:
        """Start a helper. Does nothing once all tasks are done: the connection is about to close its link.

        Args:
            task: An async function.
            *args: Its arguments.
            scope: What cancels this task alone, if it needs that; not yet entered.
        """
        if self._ended:
            return
        if scope is None:
            scope = trio.CancelScope()
        if self._cancelled:
            scope.cancel()
        self._scopes.append(scope)
        start_soon: Callable[..., None] = self.nursery.start_soon
        self._context.run(start_soon, self._help, scope, task, args, name=task)

    async def _help(self, scope: trio.CancelScope, task: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            with scope:
                await task(*args)
        except Exception:
            # It is a fault of ours, since what users' code raises is told elsewhere. It ends this connection alone.
            logger.exception("a task of a connection failed")
            self.cancel()
        finally:
            self._scopes.remove(scope)
            if not self._scopes and self._done is not None:
                self._done.unpark_all()

    async def _wait_for_helpers(self) -> None:
        while self._scopes:
            if self._done is None:
                self._done = trio.lowlevel.ParkingLot()
            await self._done.park()

    def is_around_present_task(self) -> bool:
        """Whether the present task is one of these, or was started within one and will be cancelled with it."""
        scopes = [self._first, *self._scopes]
        try:
            # Only for this moment, so that nothing is cancelled by it: which scopes are around a task can be told by
            # nothing else, and to note the tasks as they start would cost each of them something.
            for scope in scopes:
                scope.deadline = _LONG_AGO
            return trio.current_effective_deadline() == _LONG_AGO
        finally:
            for scope in scopes:
                scope.deadline = math.inf

    def cancel(self) -> None:
        """Cancel all tasks, those too that are started later."""
        self._cancelled = True
        self._first.cancel()
        for scope in self._scopes:
            scope.cancel()
