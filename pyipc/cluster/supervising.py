"""Whether, and when, a worker whose process has ended is started again."""

from __future__ import annotations

import collections
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyipc.cluster.settings import Settings

__all__ = ["RestartPolicy"]


class RestartPolicy:
    """Decides after each exit of a worker.

    Pauses double with each restart that follows another within the window, and the number of restarts in it has a
    limit: a worker that fails at once, again and again, is given up, one that fails once an hour never is. However
    long it takes to fail, the window does not move on for a worker that never becomes ready.

    Args:
        chance: A random number of at least 0 and less than 1.
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()
        self._restarts: collections.deque[float] = collections.deque()

    def wants(self, settings: Settings, *, code: int | None, voluntary: bool) -> bool:
        """Whether an exit is one to start again after.

        Args:
            settings: Those of the worker.
            code: The exit code; ``None`` if it was a signal, or there was no process.
            voluntary: Whether the exit was asked for.
        """
        if voluntary or settings.restart == "never":
            return False
        if code is not None and code in settings.stop_exit_codes:
            return False
        return settings.restart == "always" or code != 0

    def delay(self, settings: Settings, now: float, *, was_ready: bool) -> float | None:
        """Count a restart, and say how long to wait before it.

        Args:
            settings: Those of the worker.
            now: The time, in seconds.
            was_ready: Whether the process that has ended had become ready.

        Returns:
            Seconds; ``None`` if there were too many, and it is to be given up.
        """
        while was_ready and self._restarts and self._restarts[0] <= now - settings.restart_window:
            self._restarts.popleft()
        if len(self._restarts) >= settings.max_restarts:
            self._restarts.clear()  # whoever starts it all the same has a reason to
            return None
        doublings = min(len(self._restarts), 64)
        pause = min(settings.restart_interval * 2.0**doublings, settings.restart_max_interval)
        self._restarts.append(now)
        return pause * (1 - self._chance.random() / 2) if settings.restart_jitter else pause
