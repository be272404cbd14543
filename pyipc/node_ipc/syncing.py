"""``config.sync``: one message at a time."""

from __future__ import annotations

import copy
import logging
import math
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SyncQueue"]

logger: logging.Logger = logging.getLogger("pyipc.node_ipc")


class SyncQueue:
    """Sends the next message when something has come in since the last one was sent.

    What comes in need not be the answer: the messages of node-ipc do not tell what they answer. Unlike in node-ipc,
    nothing waits for ever: when the connection is lost, or after a while, the next message has its turn.

    Args:
        send: Sends a message.
        failed: Called with the error if it cannot be sent.
        timeout: Seconds to wait for something to come in; ``None`` for ever.
        limit: How many messages may wait.
    """

    def __init__(
        self,
        send: Callable[[str, object], None],
        failed: Callable[[Exception], None],
        timeout: float | None,
        limit: int,
    ) -> None:
        self._send = send
        self._failed = failed
        self._timeout = math.inf if timeout is None else timeout
        self._put, self._take = trio.open_memory_channel[tuple[str, Any]](limit)
        self._online = trio.Event()
        self._answered = trio.Event()
        self._idle = trio.Event()
        self._idle.set()

    def add(self, event: str, data: object) -> None:
        """Send a message in its turn.

        Raises:
            trio.WouldBlock: Too many wait already.
        """
        # What is sent is what was emitted, whatever the program does with it meanwhile.
        self._put.send_nowait((event, copy.deepcopy(data)))
        self._idle = trio.Event()

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
        """Send one message after the other, until cancelled."""
        async for event, data in self._take:
            await self._online.wait()
            self._answered = trio.Event()
            try:
                self._send(event, data)
            except Exception as error:
                self._failed(error)
                self._answered.set()
            if not self._take.statistics().current_buffer_used:
                self._idle.set()
            with trio.move_on_after(self._timeout) as scope:
                await self._answered.wait()
            if scope.cancelled_caught:
                logger.warning("nothing came in within %g s after %r was sent (sync_timeout)", self._timeout, event)

    async def drain(self) -> None:
        """Wait until all messages were sent.

        Cancellation: changes nothing.
        """
        await self._idle.wait()
