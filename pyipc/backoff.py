"""How long to wait before trying again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.options import Options

__all__ = ["Backoff"]


class Backoff:
    """Exponential growth up to a limit, with full jitter: a random part of it is waited.

    Full jitter spreads the clients of a server that comes back over the whole interval; adding a
    little noise to a fixed delay would let them arrive together.

    Args:
        options: ``reconnect_interval``, ``reconnect_factor``, ``reconnect_max_interval``, ``reconnect_jitter``.
        draw: Gives numbers from 0 to 1.

    Attributes:
        attempts: How often it was asked since the last reset.
    """

    def __init__(self, options: Options, draw: Callable[[], float] = random.random) -> None:
        self._options = options
        self._draw = draw
        self._interval = options.reconnect_interval
        self.attempts: int = 0

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        options = self._options
        interval = min(self._interval, options.reconnect_max_interval)
        self._interval = min(self._interval * options.reconnect_factor, options.reconnect_max_interval)
        self.attempts += 1
        return interval * self._draw() if options.reconnect_jitter else interval

    def reset(self) -> None:
        """Start over: the last attempt was a success."""
        self._interval = self._options.reconnect_interval
        self.attempts = 0
