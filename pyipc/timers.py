"""One clock for many connections: a heap of deadlines and a single task that sleeps.

A cancel scope per request would cost as much as the request itself, and a timer task per connection
would be most of an idle connection's memory.
"""

from __future__ import annotations

import heapq
import logging
import math
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GRACE", "LAG", "Timer", "Timers"]

logger: logging.Logger = logging.getLogger("pyipc.timers")

#: A loop that comes back later than this has been blocked, and says so.
LAG = 1.0
#: For so long, in seconds, it then reads what has arrived meanwhile, before it judges anybody.
GRACE = 1.0
# Cancelled timers are left in the heap and cleared out once they are most of it.
_TIDY_ABOVE = 64


class Timer:
    """Something to do at a time, unless it is cancelled before."""

    __slots__ = ("_timers", "action", "when")

    def __init__(self, when: float, action: Callable[[float], None], timers: Timers) -> None:
        self.when: float = when
        self.action: Callable[[float], None] | None = action
        self._timers = timers

    def cancel(self) -> None:
        """Do nothing at the time; may be called more than once, and afterwards."""
        if self.action is not None:
            self.action = None
            self._timers.forget()


class Timers:
    """Deadlines in order. Actions are called with how late they are, in seconds; they must not raise."""

    def __init__(self) -> None:
        # Tuples, so that the heap compares floats in C and never calls a method of ours.
        self._heap: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._order = 0
        self._sleep: trio.CancelScope | None = None

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def call_at(self, when: float, action: Callable[[float], None]) -> Timer:
        """Call ``action(seconds late)`` at a time of trio's clock.

        Raises:
            ValueError: The time is NaN, which would be sorted anywhere, and which trio takes for no deadline.
        """
        if when != when:
            raise ValueError("a timer must have a time, not NaN")
        self._order += 1
        timer = Timer(when, action, self)
        heapq.heappush(self._heap, (when, self._order, timer))
        if self._sleep is not None and when < self._sleep.deadline:
            self._sleep.deadline = when
        return timer

    def forget(self) -> None:
        """One timer was cancelled; tidy up when most of the heap is such."""
        self._cancelled += 1
        if self._cancelled > _TIDY_ABOVE and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    async def run(self) -> None:
        """Call what is due, until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._run_due()) as self._sleep:
                await trio.sleep_forever()
            self._sleep = None

    def _run_due(self) -> float:
        """Call what is due; say when the next is."""
        now = trio.current_time()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is None:
                self._cancelled -= 1
                continue
            late = now - timer.when
            if late > LAG:
                logger.warning("the event loop was blocked: a timer fired %.1f s late", late)
            try:
                action(late)
            except Exception:
                # One clock serves all connections; one that fails must not stop it for the others.
                logger.exception("a timer's action failed")
        return self._heap[0][0] if self._heap else math.inf
