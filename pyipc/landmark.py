"""An event that costs next to nothing until somebody waits for it."""

from __future__ import annotations

import trio

__all__ = ["Landmark"]


class Landmark:
    """Something that happens once, like a `trio.Event`, of which most never see anybody wait."""

    __slots__ = ("_event", "_reached")

    def __init__(self) -> None:
        self._reached = False
        self._event: trio.Event | None = None

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._reached

    def set(self) -> None:
        """It has happened; wake whoever waits for it."""
        self._reached = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait until it has happened. Always a schedule point.

        Cancellation: changes nothing.
        """
        if self._reached:
            await trio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
