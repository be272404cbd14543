"""The tasks of an `IPC`, which may be asked for before it runs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from pyipc.node_ipc.emitter import errors_logged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Function: TypeAlias = "Callable[..., Awaitable[object]]"

__all__ = ["Tasks"]


class Tasks:
    """Services, which are clients and servers and end by themselves; and whatever else a program began."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self._waiting: list[tuple[Function, tuple[Any, ...], bool]] = []
        self._services = 0
        self._others = 0
        self._changed = trio.Event()

    def start(self, function: Function, *arguments: Any) -> None:
        """Run a function of the program in a task of its own; what it raises is logged."""
        self._add(function, arguments, is_service=False)

    def start_service(self, function: Function, *arguments: Any) -> None:
        """Run a client or a server."""
        self._add(function, arguments, is_service=True)

    def _add(self, function: Function, arguments: tuple[Any, ...], *, is_service: bool) -> None:
        if self._nursery is None:
            self._waiting.append((function, arguments, is_service))
            return
        if is_service:
            self._services += 1
        else:
            self._others += 1
        self._nursery.start_soon(self._run, function, arguments, is_service)

    async def _run(self, function: Function, arguments: tuple[Any, ...], is_service: bool) -> None:
        try:
            if is_service:
                await function(*arguments)
            else:
                with errors_logged(getattr(function, "__name__", "a task")):
                    await function(*arguments)
        finally:
            if is_service:
                self._services -= 1
            else:
                self._others -= 1
            self._changed.set()
            self._changed = trio.Event()

    async def wait_for_services(self) -> None:
        """Wait until every client and server has ended.

        Cancellation: changes nothing.
        """
        while self._services:
            await self._changed.wait()

    async def wait_for_all(self) -> None:
        """Wait until nothing is left to do.

        Cancellation: changes nothing.
        """
        while self._services or self._others:
            await self._changed.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run tasks, those that were asked for before too; at the end those that are left are cancelled.

        An error of the body arrives as it is, although there is a nursery around it.

        Raises:
            RuntimeError: They run already.
        """
        if self._nursery is not None:
            raise RuntimeError("it runs already")
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as self._nursery:
                waiting, self._waiting = self._waiting, []
                for function, arguments, is_service in waiting:
                    self._add(function, arguments, is_service=is_service)
                try:
                    yield
                except (Exception, KeyboardInterrupt, SystemExit) as error:
                    failure = error  # past the nursery, which would make a group of it
                finally:
                    self._nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            alone: BaseException = group
            while isinstance(alone, BaseExceptionGroup) and len(alone.exceptions) == 1:
                alone = alone.exceptions[0]
            if not isinstance(alone, KeyboardInterrupt | SystemExit):
                raise
            failure = alone  # an end of the program that hit one of the tasks
        finally:
            self._nursery = None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure
