"""``config.sync``: one message at a time."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.node_ipc.backlog import Backlog

__all__ = ["SyncQueue"]

logger: logging.Logger = logging.getLogger("pyipc.node_ipc")


class SyncQueue:
    """Sends the next message when something has come in since the last one was sent.

    What comes in need not be the answer: the messages of node-ipc do not tell what they answer. Unlike in node-ipc,
    nothing waits for ever: when the connection is lost, or after a while, the next message has its turn.

    Args:
        backlog: What is to be sent.
        send: Sends a message.
        failed: Called with the error if it cannot be sent.
        timeout: Seconds to wait for something to come in; ``None`` for ever.
    """

    def __init__(
        self,
        backlog: Backlog,
        send: Callable[[str, object], None],
        failed: Callable[[Exception], None],
        timeout: float | None,
    ) -> None:
        self._backlog = backlog
        self._send = send
        self._failed = failed
        self._timeout = math.inf if timeout is None else timeout
        self._added = trio.Event()
        self._online = trio.Event()
        self._answered = trio.Event()

    def add(self, event: str, data: object) -> None:
        """Send a message in its turn; see `Backlog.add`."""
        self._backlog.add(event, data)
        self._added.set()

    def heard(self) -> None:
        """Something came in."""
        self._answered.set()

    def connected(self) -> None:
        """There is a connection."""
        self._online.set()

    def disconnected(self) -> None:
        """There is none any more, so nothing comes in that could answer what was sent."""
        self._online = trio.Event()
        self._answered.set()

    async def run(self) -> None:
        """Send one message after the other, until cancelled. What was not sent by then is left in the backlog.

        Cancellation: as said.
        """
        while True:
            while not self._backlog:
                self._added = trio.Event()
                await self._added.wait()
            await self._online.wait()
            self._answered = trio.Event()
            event, data = self._backlog.first()
            self._backlog.remove_first()
            try:
                self._send(event, data)
            except Exception as error:
                self._failed(error)
                continue
            with trio.move_on_after(self._timeout) as scope:
                await self._answered.wait()
            if scope.cancelled_caught:
                logger.warning("nothing came in within %g s after %r was sent (sync_timeout)", self._timeout, event)
