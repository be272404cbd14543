"""What is sent to a worker whose program has no handler for it yet: it waits with its sender, one name at a time.

So nothing has to be kept anywhere, a worker that waits for one thing before it registers handlers for others gets it,
and order among what is called the same is that in which it is sent. Once a worker is ready nothing waits any more: what
has no handler then will have none.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Taking", "Wanted"]


class Taking:
    """For which names the program of a worker process has handlers, as far as its primary needs to know.

    Args:
        ask: Has the process tell when it has a handler for a name; see `Wanted.want`.

    Attributes:
        is_settled: Whether nothing has to wait any more.
    """

    def __init__(self, ask: Callable[[str], Awaitable[None]]) -> None:
        self._ask = ask
        self._told: dict[str, trio.Event] = {}
        self.is_settled: bool = False

    async def wait(self, event: str) -> None:
        """Wait until there is a handler for a name, or nothing has to wait any more.

        Cancellation: nothing is changed by it.
        """
        told = self._told.setdefault(event, trio.Event())
        if not (self.is_settled or told.is_set()):
            await self._ask(event)
            await told.wait()

    def told(self, event: str) -> None:
        """There is a handler for a name."""
        self._told.setdefault(event, trio.Event()).set()

    def settle(self) -> None:
        """The process is ready, or takes nothing any more: nobody waits."""
        self.is_settled = True
        for told in self._told.values():
            told.set()
        self._told.clear()


class Wanted:
    """The names for which the primary has something while this worker has no handler.

    Args:
        router: The handlers for what comes from the primary.
        tell: Tells the primary that there is a handler for a name. May raise `trio.WouldBlock`.
    """

    def __init__(self, router: pyipc.Router, tell: Callable[[str], None]) -> None:
        self._names: dict[str, None] = {}
        self._tell = tell
        self._heard = pyipc.Router()
        self._heard.include(router)

    def want(self, event: str) -> None:
        """The primary has something of this name."""
        self._names[event] = None
        self.look()

    def listen(self, pattern: str) -> None:
        """What matches is listened to otherwise than by a handler."""
        self._heard.on(pattern, _hear)
        self.look()

    def look(self) -> None:
        """There may be new handlers."""
        for event in list(self._names):
            if self._heard.handlers_for(event):
                # The primary is told of all names at once, at the latest, when this worker is ready.
                with contextlib.suppress(trio.WouldBlock, pyipc.ConnectionClosed):
                    self._tell(event)
                    del self._names[event]


def _hear(message: pyipc.Message[object]) -> None:
    """Stands for whoever listens; never called."""
