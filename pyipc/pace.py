"""When a loop that has no need to wait gives way to the other tasks all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pace"]

# Whatever one round of the loop takes, others wait for about so long, in seconds.
_LONGEST = 0.001
# A clock may stand still.
_MOST = 256


class Pace:
    """Says when it is time, for a loop that runs user's code between any two of its rounds.

    Args:
        now: Trio's time.
    """

    __slots__ = ("_left", "_now", "_until")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._left = _MOST
        self._until = now() + _LONGEST

    def is_due(self) -> bool:
        """Whether others have waited long enough. To be asked once a round; whoever is told so gives way."""
        self._left -= 1
        if self._left > 0 and self._now() < self._until:
            return False
        self.begin()
        return True

    def begin(self) -> None:
        """Others have had their turn just now, or are about to."""
        self._left = _MOST
        self._until = self._now() + _LONGEST
