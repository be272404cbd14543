"""Sending to addresses: what a node-ipc program does over UDP, where there are no connections."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import Callable

    Where: TypeAlias = tuple[str, int]

__all__ = ["Dialing"]

#: Events that may wait for one address to be looked up.
_MOST_WAITING: Final = 1_000


class Dialing:
    """Finds the connection for an address, or opens one from the server's own socket.

    Args:
        server: The server, which listens on UDP.
        start: Runs a function with arguments in a task of its own.
        failed: Called with the error if an event cannot be sent.
    """

    def __init__(self, server: pyipc.Server, start: Callable[..., None], failed: Callable[[Exception], None]) -> None:
        self._server = server
        self._start = start
        self._failed = failed
        self._known: dict[Where, pyipc.Connection] = {}
        self._waiting: dict[Where, list[tuple[str, object]]] = {}

    def emit(self, host: str, port: int, event: str, data: object) -> None:
        """Send an event to an address, after all that was sent there before.

        Raises:
            LocalProtocolError: The name or the data cannot be sent.
            trio.WouldBlock: Too much waits for this address.
        """
        where = (host, port)
        connection = self._known.get(where)
        if connection is not None and connection.is_open:
            connection.emit_nowait(event, data)
            return
        waiting = self._waiting.get(where)
        if waiting is None:
            self._waiting[where] = waiting = []
            self._start(self._dial, where)
        elif len(waiting) >= _MOST_WAITING:
            raise trio.WouldBlock(f"too much waits for {host} port {port}, which is still being looked up")
        waiting.append((event, copy.deepcopy(data)))

    def forget(self, connection: pyipc.Connection) -> None:
        """A connection has ended."""
        for where in [where for where, known in self._known.items() if known is connection]:
            del self._known[where]

    async def _dial(self, where: Where) -> None:
        host, port = where
        try:
            connection = await self._server.dial(f"udp://{f'[{host}]' if ':' in host else host}:{port}")
        except pyipc.IPCError as error:
            del self._waiting[where]
            self._failed(error)
            return
        self._known[where] = connection
        for event, data in self._waiting.pop(where):
            try:
                connection.emit_nowait(event, data)
            except (pyipc.IPCError, trio.WouldBlock) as error:
                self._failed(error)
