"""Which tasks a closing has to wait for."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Attendance"]


class Attendance:
    """The tasks that are at work, and those among them that nobody may wait for, since they wait themselves."""

    def __init__(self) -> None:
        self._present: set[trio.lowlevel.Task] = set()
        self._excused: set[trio.lowlevel.Task] = set()
        self._waiting = trio.lowlevel.ParkingLot()

    def arrive(self) -> None:
        """The present task is waited for from now on. (A context manager would be kept by every idle connection.)"""
        self._present.add(trio.lowlevel.current_task())

    def leave(self) -> None:
        """The present task is not waited for any more."""
        self._present.remove(trio.lowlevel.current_task())
        self._waiting.unpark_all()

    @contextmanager
    def excused(self) -> Iterator[None]:
        """A block of the present task that is not waited for, as it waits for the end of the others."""
        task = trio.lowlevel.current_task()
        self._excused.add(task)
        self._waiting.unpark_all()
        try:
            yield
        finally:
            self._excused.discard(task)

    async def wait_for_all(self) -> None:
        """Wait until nobody is present who is not excused.

        Cancellation: changes nothing.
        """
        while self._present - self._excused:
            await self._waiting.park()
